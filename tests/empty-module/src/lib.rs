//! A PAM module that does nothing: the benchmark takes its cost off that of `pam_pag`, so that what is compared with
//! pam_keyinit is our work, and not the loading of a Rust library.
//!
//! With the argument `clock` it stands before and after another module in a stack, and prints the microseconds between:
//! what that module's open_session alone takes. The host's own pam_open_session has libpam's work in it, such as a look for
//! the kernel's audit, for which a kernel without it starts modprobe.

use std::ffi::CStr;
use std::io::Write;
use std::sync::Mutex;
use std::time::Instant;

use pam::constants::{PamFlag, PamResultCode};
use pam::module::{PamHandle, PamHooks};

struct Empty;

/// The exported symbols, which a macro makes without documentation.
#[allow(missing_docs, unreachable_pub)]
mod symbols {
    use super::Empty;

    pam::pam_hooks!(Empty);
}

impl PamHooks for Empty {
    fn sm_open_session(_: &mut PamHandle, arguments: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        static BEGUN: Mutex<Option<Instant>> = Mutex::new(None);
        let now = Instant::now();
        if arguments.contains(&c"clock")
            && let Ok(mut begun) = BEGUN.lock()
        {
            match begun.take() {
                Some(begun) => {
                    let _ = writeln!(std::io::stdout(), "{}", (now - begun).as_secs_f64() * 1e6);
                }
                None => *begun = Some(Instant::now()),
            }
        }
        PamResultCode::PAM_SUCCESS
    }

    fn sm_close_session(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        PamResultCode::PAM_SUCCESS
    }

    fn sm_setcred(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        PamResultCode::PAM_SUCCESS
    }
}
