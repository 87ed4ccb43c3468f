//! One PAG as the helper saw it last.

use pag::ccache;
use pag::keyring::Serial;
use pag::store::record::Record;
use pag::store::registry::Pag;
use pag::store::ring::Ring;
use pag::types::PagId;

use super::rings::keys_of;

/// A PAG that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: PagId,
    pub(crate) uid: u32,
    pub(crate) ring: Ring,
    pub(crate) record: Record,
    /// The keys in its ring.
    pub(crate) keys: Box<[Serial]>,
}

impl Known {
    /// None if its ring or its record cannot be read.
    pub(crate) fn of(pag: &Pag) -> Option<Self> {
        let (Ok(ring), Ok(record)) = (&pag.ring, &pag.record) else { return None };
        Some(Known { id: pag.id, uid: pag.uid, ring: *ring, record: record.clone(), keys: keys_of(ring).into() })
    }

    /// Whether it has a ccache of its own, with a ticket of its own. A follower's is a copy.
    pub(crate) fn has_own_ccache(&self) -> bool {
        self.record.follows.is_none() && self.record.ccache == ccache::name(self.uid, self.id)
    }

    /// Whether a process that holds a lease of it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.record.leases.iter().any(|lease| lease.process.is_alive())
    }
}
