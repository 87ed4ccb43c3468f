//! The place of a login.

use super::ccache_work::CcacheWork;
use crate::seed::Need;
use crate::store::record::Record;
use crate::store::registry::Pag;
use crate::store::ring::Ring;

/// The ring that a login has entered, and the work that remains once the uid's lock is released.
pub(super) struct Placed<'a> {
    pub(super) ring: Ring,
    /// The PAG and its record at the release of the lock. None for a PAG outside the registry.
    pub(super) pag: Option<(Pag, Record)>,
    /// The cookie of this login's lease. 0 without a lease.
    pub(super) cookie: u64,
    /// Whether a seeder should run.
    pub(super) need: Need,
    /// The work that remains on the PAG's ccache.
    pub(super) work: CcacheWork<'a>,
    /// Whether this login has found good tokens or tried to get some.
    pub(super) seeded: bool,
    /// Whether the process was not in this ring before.
    pub(super) moved: bool,
}
