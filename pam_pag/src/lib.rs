//! The PAM module: six entry points, which translate between PAM and [`pag::login`] and decide nothing.
//!
//! A login never fails because of us. A failure inside is one line in the journal and PAM_SUCCESS, since PAM_IGNORE from
//! the only module of a stack denies the login; `strict` turns failures of placement into the entry's own error.

mod call;
mod handle;
mod login;
mod names;
mod sessions;
mod state;

use std::ffi::CStr;

use pam::constants::{PAM_DELETE_CRED, PAM_REFRESH_CRED, PAM_REINITIALIZE_CRED, PamFlag, PamResultCode};
use pam::module::{PamHandle, PamHooks};

/// The release, which `pagctl doctor` reads in the module's file: there is no other way to tell it without a login.
#[used]
static RELEASE: &str = concat!("pam_pag-release=", env!("CARGO_PKG_VERSION"), ";");

struct PamPag;

/// The exported symbols, which a macro makes without documentation.
#[allow(missing_docs, unreachable_pub)]
mod symbols {
    use super::PamPag;

    pam::pam_hooks!(PamPag);
}

impl PamHooks for PamPag {
    fn sm_open_session(pamh: &mut PamHandle, args: Vec<&CStr>, _flags: PamFlag) -> PamResultCode {
        call::run(pamh, &args, "session", PamResultCode::PAM_SESSION_ERR, |call| call.open_session())
    }

    fn sm_close_session(pamh: &mut PamHandle, args: Vec<&CStr>, _flags: PamFlag) -> PamResultCode {
        call::run(pamh, &args, "session", PamResultCode::PAM_SESSION_ERR, |call| call.close_session())
    }

    /// Credentials come with or without a session, before it or after it, once or twice: every order leads to the same
    /// state.
    fn sm_setcred(pamh: &mut PamHandle, args: Vec<&CStr>, flags: PamFlag) -> PamResultCode {
        call::run(pamh, &args, "setcred", PamResultCode::PAM_CRED_ERR, |call| match flags {
            flags if flags & PAM_DELETE_CRED != 0 => call.leave(),
            flags if flags & (PAM_REINITIALIZE_CRED | PAM_REFRESH_CRED) != 0 => call.refresh_credentials(),
            _ => call.establish_credentials(),
        })
    }

    /// pam_pag authenticates no user. Screen lockers need an `auth optional` line for setcred alone, and PAM_IGNORE leaves
    /// the result of authentication to the modules that decide it.
    fn sm_authenticate(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        PamResultCode::PAM_IGNORE
    }

    fn acct_mgmt(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        PamResultCode::PAM_IGNORE
    }

    fn sm_chauthtok(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        PamResultCode::PAM_IGNORE
    }
}
