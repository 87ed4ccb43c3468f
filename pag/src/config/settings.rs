//! What has been configured for one PAM service and one user.

use std::path::PathBuf;
use std::time::Duration;

use super::files::MINIMUM_UID;
use crate::types::{Cell, ClientChoice, Follow, Join, Retain, Scope, ServiceKind};

/// The settings for one login: a user's at a PAM service, or the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How wide a PAG is.
    pub scope: Scope,
    /// Which logins join.
    pub join: Join,
    /// What becomes of tokens at the end.
    pub retain: Retain,
    /// The time that one login may wait for us in all.
    pub timeout: Duration,
    /// Whether a failure of ours fails the login.
    pub strict: bool,
    /// The seeder of OpenAFS and of the client `keyring`, as a program and its arguments.
    pub program: Option<Vec<String>>,
    /// The seeder of kAFS.
    pub kafs_program: Option<Vec<String>>,
    /// The cells that tokens are wanted for.
    pub afs_cells: Vec<Cell>,
    /// Whether the seeder runs without a ticket, too.
    pub always_aklog: bool,
    /// The principals that are the user's own, `%u` standing for his name. Empty: the one that his name stands for.
    pub identity: Vec<String>,
    /// Whether the cell of the home directory is wanted, too.
    pub aklog_homedir: bool,
    /// Accepted for pam_afs_session's sake: root is left alone in any case.
    pub ignore_root: bool,
    /// Users with a lower uid are left alone.
    pub minimum_uid: u32,
    /// Tokens without a PAG.
    pub nopag: bool,
    /// A PAG without tokens.
    pub notokens: bool,
    /// Whether the login's ccache is destroyed once the PAG has its ticket.
    pub kdestroy: bool,
    /// Whether steps are told to the journal.
    pub debug: bool,
    /// What the PAM service is.
    pub placement: ServiceKind,
    /// Which AFS clients are served.
    pub client: ClientChoice,
    /// Whom the services of a user follow who has a PAG for each login.
    pub follow: Follow,
    /// Where a kernel module has OpenAFS's interface, besides the places that are known.
    pub openafs_device: Option<PathBuf>,
    /// The keytab of a user or service who is not there to type a password.
    pub keytab: Option<PathBuf>,
    /// Whose key to take out of it.
    pub principal: Option<String>,
}

/// The seeder of OpenAFS where `program` names none.
pub const AKLOG: &str = "/usr/bin/aklog";
/// The seeder of kAFS where `kafs_program` names none.
pub const AKLOG_KAFS: &str = "/usr/bin/aklog-kafs";

/// The built-in defaults. The manuals and pag.conf state them, too; a test holds these to what stands here.
impl Default for Settings {
    fn default() -> Self {
        Settings {
            scope: Scope::User,
            join: Join::Always,
            retain: Retain::None,
            timeout: Duration::from_secs(5),
            strict: false,
            program: None,
            kafs_program: None,
            afs_cells: Vec::new(),
            always_aklog: false,
            aklog_homedir: false,
            identity: Vec::new(),
            ignore_root: false,
            minimum_uid: MINIMUM_UID,
            nopag: false,
            notokens: false,
            kdestroy: false,
            debug: false,
            placement: ServiceKind::Login,
            client: ClientChoice::Auto,
            follow: Follow::Display,
            openafs_device: None,
            keytab: None,
            principal: None,
        }
    }
}
