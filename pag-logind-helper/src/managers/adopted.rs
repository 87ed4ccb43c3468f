//! Managers that were adopted (`pagctl adopt`): whether their keyrings have the tokens of their PAGs. What is remembered
//! here only saves work: the records say which managers are adopted.

use std::collections::BTreeMap;

use pag::keyring::Serial;
use pag::mirror::adopt;
use pag::report::{Event, User, report};
use pag::store::locked::LockedUser;
use pag::store::registry::Pag;
use pag::types::PagId;

use crate::pags::rings::keys_of;

/// The adopted managers of this host, and the keys that each one's ring had when its keyring was last brought into step.
#[derive(Default)]
pub(crate) struct Adopted(BTreeMap<PagId, Vec<Serial>>);

impl Adopted {
    /// Whether rings must be surveyed now and then: the helper is not told when a token in a ring is replaced.
    pub(crate) fn must_look(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether one of a user's managers does not have the tokens of its PAG.
    pub(crate) fn is_out_of_step(&self, pags: &[Pag]) -> bool {
        pags.iter().any(|pag| self.lacks(pag))
    }

    fn lacks(&self, pag: &Pag) -> bool {
        let is_adopted = pag.record.as_ref().is_ok_and(|record| record.adopted.is_some());
        is_adopted && pag.ring.as_ref().is_ok_and(|ring| self.0.get(&pag.id) != Some(&keys_of(ring)))
    }

    /// Gives the adopted managers of a user the tokens of their PAGs. Under the user's lock.
    pub(crate) fn bring_into_step(&mut self, user: &LockedUser<'_>, pags: &mut [Pag]) {
        for pag in pags {
            if !self.lacks(pag) {
                continue;
            }
            // Read before the keyring is changed, so that what comes meanwhile is seen the next time.
            let seen = pag.ring.as_ref().map(keys_of).unwrap_or_default();
            if let Err(why) = adopt::bring_into_step(user, pag) {
                let (user, id) = (User(pag.uid), pag.id);
                let what = format!("the adopted manager of {user} is not in step with PAG {id}: {why}");
                report(&Event::Complaint { what });
            }
            self.0.insert(pag.id, seen);
        }
    }

    /// PAGs that have ended have no managers.
    pub(crate) fn forget_all_but(&mut self, is_there: impl Fn(&PagId) -> bool) {
        self.0.retain(|id, _| is_there(id));
    }
}
