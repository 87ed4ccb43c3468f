//! The settings for one PAM service and one user. Their defaults are in `options.rs`.

use std::path::PathBuf;
use std::time::Duration;

use super::complaint::ConfigSource;
use crate::types::{Cell, ClientChoice, Follow, Join, Retain, Scope, ServiceKind};

/// The settings for one user at one PAM service, or for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether a user's logins share a PAG.
    pub scope: Scope,
    /// Which logins join that PAG.
    pub join: Join,
    /// Which tokens stay after the last logout.
    pub retain: Retain,
    /// The time that the ticket and the seeders of one login may take, over all its hooks.
    pub timeout: Duration,
    /// Whether a failure of pam_pag fails the login.
    pub strict: bool,
    /// The seeder of OpenAFS and of the client `keyring`, as a program and its arguments.
    pub program: Option<Vec<String>>,
    /// The seeder of kAFS.
    pub kafs_program: Option<Vec<String>>,
    /// The places that set `program` and `kafs_program`, for messages about these programs.
    pub program_places: [Option<ConfigSource>; 2],
    /// The cells that tokens are wanted for.
    pub afs_cells: Vec<Cell>,
    /// Whether the seeder runs without a ticket, too.
    pub always_aklog: bool,
    /// The user's own principals. `%u` stands for the user's name. Empty: the principal that the user's name stands
    /// for.
    pub identity: Vec<String>,
    /// Whether the cell of the home directory is wanted, too.
    pub aklog_homedir: bool,
    /// Has no effect, since root never gets a PAG. Accepted for compatibility with pam_afs_session.
    pub ignore_root: bool,
    /// The lowest uid that gets a PAG.
    pub minimum_uid: u32,
    /// Whether logins get tokens without a PAG.
    pub nopag: bool,
    /// Whether logins get a PAG without tokens.
    pub notokens: bool,
    /// Whether the login's ccache is destroyed once the PAG has its ticket.
    pub kdestroy: bool,
    /// Whether the journal gets a line for each step.
    pub debug: bool,
    /// What kind of PAM service this is.
    pub placement: ServiceKind,
    /// Which AFS clients are served.
    pub client: ClientChoice,
    /// Which session's PAG a user's services follow when each login has its own.
    pub follow: Follow,
    /// Where a kernel module has OpenAFS's interface, besides the known places.
    pub openafs_device: Option<PathBuf>,
    /// The keytab of a user or service that gets tickets without a password.
    pub keytab: Option<PathBuf>,
    /// The principal of the key to take from that keytab.
    pub principal: Option<String>,
}
