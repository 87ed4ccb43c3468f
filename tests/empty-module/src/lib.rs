//! A PAM module that does nothing: the benchmark takes its cost off that of `pam_pag`, so that what is compared with
//! pam_keyinit is our work, and not the loading of a Rust library.

use std::ffi::CStr;

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
    fn sm_open_session(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        PamResultCode::PAM_SUCCESS
    }

    fn sm_close_session(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        PamResultCode::PAM_SUCCESS
    }

    fn sm_setcred(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        PamResultCode::PAM_SUCCESS
    }
}
