//! What libpam does with us when a host ends its transaction: it closes the module (pam_end.c, _pam_free_handlers).
#![allow(unsafe_code)]

/// Runs when the module is closed, and at the end of the process: a host that goes on gets back what is kept for the next hook.
#[used]
#[unsafe(link_section = ".fini_array")]
static CLOSED: extern "C" fn() = closed;

extern "C" fn closed() {
    pag::give_back();
}
