//! Managers that were adopted (`pagctl adopt`): whether their keyrings have what their PAGs have. What is remembered here
//! saves work and no more; who is adopted is in the records.

use std::collections::BTreeMap;

use pag::keyring::Serial;
use pag::mirror::adopt;
use pag::report::{Event, report};
use pag::store::locked::LockedUser;
use pag::store::registry::Pag;
use pag::types::PagId;

use crate::pags::rings::keys_of;

/// The adopted managers of this host: the keys of the ring with which each was brought into step, or not.
#[derive(Default)]
pub(crate) struct Adopted(BTreeMap<PagId, Vec<Serial>>);

impl Adopted {
    /// Whether rings must be looked at now and then: nobody tells when a token in a ring is replaced.
    pub(crate) fn must_look(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether something is to be done about a manager among those of a user's PAGs.
    pub(crate) fn is_out_of_step(&self, pags: &[Pag]) -> bool {
        pags.iter().any(|pag| self.lacks(pag))
    }

    fn lacks(&self, pag: &Pag) -> bool {
        let is_adopted = pag.record.as_ref().is_ok_and(|record| record.adopted.is_some());
        is_adopted && pag.ring.as_ref().is_ok_and(|ring| self.0.get(&pag.id) != Some(&keys_of(ring)))
    }

    /// Has the adopted managers among a user's PAGs have their tokens. Under his lock.
    pub(crate) fn bring_into_step(&mut self, user: &LockedUser<'_>, pags: &mut [Pag]) {
        for pag in pags {
            if !self.lacks(pag) {
                continue;
            }
            // Seen before what is done about it, so that what comes meanwhile is seen the next time.
            let seen = pag.ring.as_ref().map(keys_of).unwrap_or_default();
            if let Err(why) = adopt::bring_into_step(user, pag) {
                let (uid, id) = (pag.uid, pag.id);
                let what = format!("the adopted manager of uid {uid} is not in step with PAG {id}: {why}");
                report(&Event::Complaint { what });
            }
            self.0.insert(pag.id, seen);
        }
    }

    /// PAGs that are no more have no managers.
    pub(crate) fn forget_all_but(&mut self, is_there: impl Fn(&PagId) -> bool) {
        self.0.retain(|id, _| is_there(id));
    }
}
