//! What a login asks for, and what it remembers from hook to hook.

use std::ffi::{CStr, CString};
use std::time::Duration;

use crate::config::Settings;
use crate::seed::Excluded;
use crate::store::registry;
use crate::store::ring::Ring;
use crate::sys::{self, Passwd, Process, RootDirectory};
use crate::types::PagId;

/// One call of a PAM hook: its user, its service, and its settings.
#[derive(Debug)]
pub struct Request<'a> {
    /// The user of the login: for su, the target user.
    pub user: &'a Passwd,
    /// PAM service.
    pub service: &'a str,
    /// The terminal, as PAM names it. Empty without one.
    pub tty: &'a str,
    /// The configuration for this service.
    pub settings: &'a Settings,
    /// KRB5CCNAME of the PAM environment.
    pub ccache: Option<&'a str>,
    /// The PAM environment.
    pub environment: Vec<CString>,
    /// What an earlier hook of this login remembered.
    pub state: Option<LoginState>,
    /// Whether this hook opens the session. Debian's stack of the user manager calls pam_pag before and after
    /// pam_keyinit. The second call restores the session keyring that pam_keyinit has replaced, which deserves no
    /// warning.
    pub opening: bool,
    /// Whether this process has sessions of other users open, too. Such a process is in no ring between its hooks.
    pub several: bool,
}

/// What a login remembers from hook to hook. These are plain values, so that they are still valid in a fork of the
/// host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginState {
    /// The user's uid.
    pub uid: u32,
    /// The user's name. The end of a login asks no name service for it: the uid's lock is held then.
    pub name: UserName,
    /// The PAG and its place in the registry. None for a PAG outside the registry.
    pub pag: Option<(PagId, registry::HolderRef)>,
    /// The ring of the PAG. None with `nopag`.
    pub ring: Option<Ring>,
    /// The process that has entered the PAG.
    pub process: Process,
    /// The root directory of that process when it entered.
    pub root: Option<RootDirectory>,
    /// The cookie of the login's lease. 0 without a lease.
    pub cookie: u64,
    /// The time that earlier hooks have spent of the login's budget.
    pub spent: Duration,
    /// Whether this login has found good tokens or tried to get some.
    pub seeded: bool,
    /// Whether the session was opened. No later module should replace the session keyring then.
    pub opened: bool,
    /// Whether this login has moved the process into the ring.
    pub moved: bool,
    /// Whether the process becomes the user's own after the end of its handle.
    pub lives_on: bool,
    /// The setting `strict` at the time of entering. The end of a login reads no configuration.
    pub strict: bool,
    /// The setting `debug` at the time of entering.
    pub debug: bool,
}

/// A user's name as a plain value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserName([u8; Self::SPACE]);

impl UserName {
    /// The longest name with its NUL (LOGIN_NAME_MAX in limits.h(0p)).
    const SPACE: usize = 256;

    /// This name, or the empty one for a name that no account can have: it is too long.
    pub fn new(name: &CStr) -> Self {
        let mut text = [0; Self::SPACE];
        let bytes = name.to_bytes_with_nul();
        if let Some(place) = text.get_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
        }
        UserName(text)
    }

    /// The name.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

impl LoginState {
    /// Whether the process has entered a chroot since then, as proftpd does. In a chroot the paths of the lock, the
    /// configuration, `/proc` and the sockets lead to other files, which a user may own. Keyrings have no paths.
    pub(super) fn is_out_of_reach(&self) -> bool {
        self.root != sys::root_directory()
    }
}

/// The result of [`enter`](super::enter()).
#[derive(Debug)]
pub struct Entered {
    /// What the next hook of this login has to know.
    pub state: LoginState,
    /// KRB5CCNAME for a user manager: the PAG's own ccache.
    pub ccache: Option<String>,
    /// The tokens that a seeding job must not get.
    pub excluded: Excluded,
    /// The PAG's identity, for a seeding job. Empty if the PAG has none.
    pub identity: String,
}

impl Entered {
    /// The result for a login that stays where it is.
    pub(super) fn nothing(state: LoginState) -> Self {
        Entered { state, ccache: None, excluded: Excluded::default(), identity: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_whole_or_not_at_all() {
        let of = |length: usize| CString::new(vec![b'x'; length]).unwrap();
        for (length, kept) in [(0, 0), (5, 5), (255, 255), (256, 0), (4000, 0)] {
            assert_eq!(UserName::new(&of(length)).as_c_str(), &*of(kept), "{length}");
        }
        assert_eq!(UserName::new(c"EXAMPLE\\alice").as_c_str(), c"EXAMPLE\\alice");
    }
}
