//! Where a login has been placed.

use super::ccache_work::CcacheWork;
use crate::seed::Need;
use crate::store::record::Record;
use crate::store::registry::Pag;
use crate::store::ring::Ring;

/// Where it has led.
pub(super) struct Placed {
    pub(super) ring: Ring,
    /// The PAG with the record as it was when the lock was released; none outside the registry.
    pub(super) pag: Option<(Pag, Record)>,
    pub(super) cookie: u64,
    pub(super) need: Need,
    /// What is left to do to the PAG's ccache.
    pub(super) work: CcacheWork,
    pub(super) seeded: bool,
    /// Whether the process was somewhere else before.
    pub(super) moved: bool,
}
