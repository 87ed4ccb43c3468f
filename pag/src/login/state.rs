//! What asks for a PAG, and what a login remembers from hook to hook.

use std::ffi::CString;
use std::time::Duration;

use crate::config::Settings;
use crate::seed::Excluded;
use crate::store::registry;
use crate::store::ring::Ring;
use crate::sys;
use crate::sys::Passwd;
use crate::sys::Process;
use crate::sys::RootDirectory;
use crate::types::PagId;

/// Who asks, and how.
#[derive(Debug)]
pub struct Request<'a> {
    /// The user of the login, not the one who called su.
    pub user: &'a Passwd,
    /// PAM service.
    pub service: &'a str,
    /// Terminal as PAM names it, or nothing.
    pub tty: &'a str,
    /// The configuration for this service.
    pub settings: &'a Settings,
    /// KRB5CCNAME of the PAM environment.
    pub ccache: Option<&'a str>,
    /// The PAM environment.
    pub environment: Vec<CString>,
    /// What an earlier hook of this login left.
    pub state: Option<LoginState>,
    /// Whether the session is being opened. Debian's stack of the user manager has us before pam_keyinit and after it:
    /// that the second time puts right what pam_keyinit has replaced is then nothing to complain about.
    pub opening: bool,
    /// Whether this process has sessions of other users open, too. It is in no ring between its hooks then.
    pub several: bool,
}

/// What a login remembers from hook to hook. Plain values: a fork of the host has them too, and so does its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginState {
    /// The user.
    pub uid: u32,
    /// The PAG and where it is kept; none for one outside the registry.
    pub pag: Option<(PagId, registry::HolderRef)>,
    /// Its ring; none with `nopag`.
    pub ring: Option<Ring>,
    /// The process that entered.
    pub process: Process,
    /// Its root directory then.
    pub root: Option<RootDirectory>,
    /// The lease's cookie.
    pub cookie: u64,
    /// Time spent so far, of the budget.
    pub spent: Duration,
    /// Whether this login has come to the point where its tokens were good, or were tried for.
    pub seeded: bool,
    /// Whether the session was opened, so that no later module should replace the session keyring.
    pub opened: bool,
    /// Whether it has put the process into the ring, which was not there before.
    pub moved: bool,
    /// Whether the process becomes the user's own after the end of its handle.
    pub lives_on: bool,
    /// `strict` and `debug`, as the login that entered had them: its end reads no configuration.
    pub strict: bool,
    /// See `strict`.
    pub debug: bool,
}

impl LoginState {
    /// Whether the process has entered a chroot since (proftpd). There the paths of lock, configuration, `/proc` and sockets lead
    /// to other files, which may be a user's. Keyrings have no paths.
    pub(super) fn is_out_of_reach(&self) -> bool {
        self.root != sys::root_directory()
    }
}

/// What has come of attempt.
#[derive(Debug)]
pub struct Entered {
    /// To be remembered.
    pub state: LoginState,
    /// KRB5CCNAME for a user manager: the PAG's own ccache.
    pub ccache: Option<String>,
    /// What a seeding job is not to get.
    pub excluded: Excluded,
    /// The PAG's identity, for a seeding job; empty where it has none.
    pub identity: String,
}
