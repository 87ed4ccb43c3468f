//! The messages of the helper. Those that the module and the helper share are in `pag::report`.

use std::fmt;

use pag::report::{Field, Message, Severity, Until, User};
use pag::types::PagId;

/// Something that happened to the helper, or that it did.
#[derive(Debug, Clone)]
pub(crate) enum HelperEvent {
    /// Tokens are about to end.
    Expiring { uid: u32, pag: PagId, expires: u64, why: &'static str },
    /// Tokens have ended.
    Expired { uid: u32, pag: PagId, why: &'static str },
    /// The helper has read the registry, and looks after its PAGs.
    Started { pags: usize, leases: usize },
    /// Something that was cut cannot be repaired.
    RepairFailed { uid: u32, pag: PagId, why: String },
    /// A user manager runs outside of its user's PAGs.
    ManagerOutside { uid: u32, pid: u32 },
    /// A PAG was taken out of the registry, and processes still hold it.
    Lost { uid: u32, pag: PagId },
    /// A user's services could not be given a session's tokens.
    FollowFailed { uid: u32, pag: PagId, why: String },
    /// A caller has chosen over D-Bus which session a user's services follow.
    FollowAsked {
        uid: u32,
        pag: PagId,
        /// Whether it is to be followed, or was taken back.
        on: bool,
        by: u32,
    },
    /// The bus or logind is away.
    BusLost { why: String },
    /// The bus is there.
    BusBack,
    /// The D-Bus interface cannot be served.
    NotServed { why: String },
    /// The D-Bus interface is served after all.
    Served,
    /// A caller had tokens discarded over D-Bus.
    Unlogged {
        uid: u32,
        pag: PagId,
        /// The cell; none for all.
        cell: Option<String>,
        by: u32,
    },
}

impl fmt::Display for HelperEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HelperEvent::Expiring { uid, pag, expires, why } => {
                write!(
                    f,
                    "the tokens of PAG {pag} of {} are good until {}: {why}; a new ticket of the user's, by kinit or a login, brings new ones",
                    User(*uid),
                    Until(*expires)
                )
            }
            HelperEvent::Expired { uid, pag, why } => {
                write!(
                    f,
                    "the tokens of PAG {pag} of {} have ended, and its processes have no access: {why}; a new ticket of the user's, by kinit or a login, brings new ones",
                    User(*uid)
                )
            }
            HelperEvent::Started { pags, leases } => write!(f, "looking after {pags} PAGs with {leases} leases"),
            HelperEvent::RepairFailed { uid, pag, why } => {
                write!(
                    f,
                    "PAG {pag} of {} cannot be repaired: {why}; the user's next login makes a new one",
                    User(*uid)
                )
            }
            HelperEvent::ManagerOutside { uid, pid } => write!(
                f,
                "the user manager of {}, process {pid}, is in none of the user's PAGs, so its services find no token: 'pagctl pam check' says whether the PAM service systemd-user calls pam_pag after pam_keyinit, as it must; a manager that was started before that gets the tokens by 'pagctl adopt {uid}', or is started again by 'systemctl restart user@{uid}.service'",
                User(*uid)
            ),
            HelperEvent::Lost { uid, pag } => write!(
                f,
                "PAG {pag} of {} is not in the registry any more and has not ended: a program of root's has removed it, or the whole registry; its members keep the tokens that they have, which are not renewed any more, and the user's next login makes a new PAG",
                User(*uid)
            ),
            HelperEvent::FollowFailed { uid, pag, why } => {
                write!(
                    f,
                    "the services of {} (PAG {pag}) do not have the tokens and the ticket of the session that they should follow: {why}; the helper tries again",
                    User(*uid)
                )
            }
            HelperEvent::FollowAsked { uid, pag, on: true, by } => {
                write!(
                    f,
                    "the services of {} follow PAG {pag} while it lasts: {} asked for it over D-Bus",
                    User(*uid),
                    User(*by)
                )
            }
            HelperEvent::FollowAsked { uid, pag, on: false, by } => write!(
                f,
                "the services of {} need not follow PAG {pag} any more: {} asked for it over D-Bus",
                User(*uid),
                User(*by)
            ),
            HelperEvent::BusLost { why } => {
                write!(f, "no connection to logind: {why}; the helper looks after PAGs without it, and tries again")
            }
            HelperEvent::BusBack => write!(f, "connected to logind"),
            HelperEvent::NotServed { why } => write!(
                f,
                "org.pam_pag.Pag1 is not served on the system bus: {why}; the helper looks after PAGs without it, and tries again"
            ),
            HelperEvent::Served => write!(f, "org.pam_pag.Pag1 is served on the system bus"),
            HelperEvent::Unlogged { uid, pag, cell, by } => {
                let cell = cell.as_ref().map_or_else(String::new, |cell| format!(" of cell {cell}"));
                write!(
                    f,
                    "discarded the tokens{cell} of PAG {pag} of {}: {} asked for it over D-Bus",
                    User(*uid),
                    User(*by)
                )
            }
        }
    }
}

impl Message for HelperEvent {
    fn severity(&self) -> Severity {
        match self {
            HelperEvent::Started { .. }
            | HelperEvent::FollowAsked { .. }
            | HelperEvent::BusBack
            | HelperEvent::Served
            | HelperEvent::Unlogged { .. } => Severity::LOG_INFO,
            HelperEvent::Expiring { .. }
            | HelperEvent::Expired { .. }
            | HelperEvent::RepairFailed { .. }
            | HelperEvent::FollowFailed { .. }
            | HelperEvent::ManagerOutside { .. }
            | HelperEvent::BusLost { .. }
            | HelperEvent::NotServed { .. } => Severity::LOG_WARNING,
            HelperEvent::Lost { .. } => Severity::LOG_ERR,
        }
    }

    fn message_id(&self) -> &'static str {
        match self {
            HelperEvent::Expiring { .. } => "b3b192beeb8a446a8d013600ee778d43",
            HelperEvent::Expired { .. } => "7313f67f59bb4f2995f8217f9b4edd5a",
            HelperEvent::Started { .. } => "7aa1caa066de4e968867119277832f1d",
            HelperEvent::RepairFailed { .. } => "d9a3ce9ecbc14674b12d1e51dd71029e",
            HelperEvent::Lost { .. } => "d4e9fa63331343f09fa057702e2677a6",
            HelperEvent::ManagerOutside { .. } => "2b9355cada4d4cf8b2b2eb3e89b6c011",
            HelperEvent::FollowFailed { .. } => "2cb6ae18984248cea4c4a89477cb046b",
            HelperEvent::FollowAsked { .. } => "fcbdd2eb8bcc4b36b3cbe79a230756c0",
            HelperEvent::BusLost { .. } => "65ae2ffda43641f3bdcb161ad81d3a39",
            HelperEvent::BusBack => "138b0edce0124388bda40df5317bbb14",
            HelperEvent::NotServed { .. } => "d001bd9a161d4513b6a2a39e88a105e2",
            HelperEvent::Served => "79b711950a7743558e6e22b39763a8fb",
            HelperEvent::Unlogged { .. } => "541c1b604da64fb083d42aea3ddd4c2e",
        }
    }

    fn fields(&self) -> Vec<Field> {
        match self {
            HelperEvent::ManagerOutside { uid, .. } => vec![("USER_ID", uid.to_string())],
            HelperEvent::Expiring { uid, pag, .. }
            | HelperEvent::Expired { uid, pag, .. }
            | HelperEvent::FollowFailed { uid, pag, .. }
            | HelperEvent::RepairFailed { uid, pag, .. }
            | HelperEvent::Lost { uid, pag } => {
                vec![("USER_ID", uid.to_string()), ("PAG", pag.to_string())]
            }
            HelperEvent::Unlogged { uid, pag, by, .. } | HelperEvent::FollowAsked { uid, pag, by, .. } => {
                vec![("USER_ID", uid.to_string()), ("PAG", pag.to_string()), ("ASKED_BY", by.to_string())]
            }
            HelperEvent::Started { .. }
            | HelperEvent::BusLost { .. }
            | HelperEvent::BusBack
            | HelperEvent::NotServed { .. }
            | HelperEvent::Served => Vec::new(),
        }
    }
}
