//! Puts right what members and administrators have cut out of rings and the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;

use pag::afs::s0::{self, AfsPagChange};
use pag::ccache;
use pag::login;
use pag::policy::{self, Fate};
use pag::report::{Event, report};
use pag::store::locked::LockedUser;
use pag::store::record::Record;
use pag::store::registry::Pag;
use pag::store::ring::Ring;
use pag::types::PagId;

use crate::messages::HelperEvent;
use crate::pags::Pags;
use crate::pags::known::Known;
use crate::pags::rings::{is_cut, keys_of, lacks_tokens};

/// What is remembered between repairs.
#[derive(Default)]
pub(super) struct Repairs {
    /// PAGs that were in a registry that is gone.
    orphans: BTreeSet<PagId>,
    /// PAGs with a trouble that is in the journal already.
    reported: BTreeSet<PagId>,
    /// PAGs with records that a newer release has written, and their users: this release cannot tell which processes are in them.
    newer: BTreeMap<PagId, u32>,
}

impl Repairs {
    /// All PAGs were found in the registry as `found`.
    pub(super) fn surveyed(&mut self, found: &[Pag]) {
        let is_newer = |pag: &&Pag| login::of_newer_release(pag).is_some();
        self.newer = found.iter().filter(is_newer).map(|pag| (pag.id, pag.uid)).collect();
        self.reported.retain(|id| found.iter().any(|pag| pag.id == *id));
    }

    /// The PAGs of one user are in order, as `found`.
    pub(super) fn remembered(&mut self, found: &[Pag], pags: &Pags) {
        for pag in found.iter().filter(|pag| pag.ring.is_ok() && pag.record.is_ok()) {
            self.reported.remove(&pag.id);
        }
        self.orphans.retain(|id| pags.get(*id).is_some() && !found.iter().any(|pag| pag.id == *id));
    }

    /// Whether nothing was reported of this PAG yet.
    pub(super) fn is_news(&self, id: PagId) -> bool {
        !self.reported.contains(&id)
    }

    /// Whether a newer release has written the record of a PAG of `uid`.
    pub(super) fn has_newer_record(&self, uid: u32) -> bool {
        self.newer.values().any(|other| *other == uid)
    }

    /// The registry is gone, and with it the places of all PAGs that are remembered.
    pub(super) fn registry_is_lost(&mut self, pags: &Pags) {
        let before = self.orphans.len();
        self.orphans.extend(pags.all().map(|known| known.id));
        if self.orphans.len() > before {
            report(&HelperEvent::RegistryLost { why: "it is not in root's user keyring any more".to_owned() });
        }
    }

    /// Puts back what was cut out of the registry: PAGs that were not ended, with a ring that is whole, and a process that
    /// holds a lease and runs.
    pub(super) fn anchor_again(&self, user: &LockedUser<'_>, found: &mut Vec<Pag>, pags: &Pags) {
        let uid = user.uid();
        let ccaches = ccache::of_user(uid);
        let there: BTreeSet<PagId> = found.iter().map(|pag| pag.id).collect();
        for known in pags.all().filter(|known| known.uid == uid && !there.contains(&known.id)) {
            let id = known.id;
            if !was_cut(self.orphans.contains(&id), ccaches.contains(&id)) || !known.is_alive() {
                continue;
            }
            let mut record = known.record.clone();
            record.leases.retain(|lease| lease.process.is_alive());
            let anchored = match Ring::look(known.ring.serial, uid, pags.group()) {
                Ok(ring) if ring == known.ring => user.anchor(id, &ring, record).map_err(|error| error.to_string()),
                Ok(_) => Err("its ring is gone".to_owned()),
                Err(why) => Err(why.to_string()),
            };
            match anchored {
                Ok(mut pag) => {
                    s0::keep_in_holder(user.guard(), &mut pag);
                    repaired(uid, id, "it had been taken out of the registry and is anchored again");
                    found.push(pag);
                }
                Err(why) => report(&HelperEvent::RepairFailed { uid, pag: id, why }),
            }
        }
    }

    /// Takes the PAGs out of `found` that have an unreadable record, writes those records again that are remembered, and gives
    /// the ids of the rest. `users` are those that logind knows.
    pub(super) fn set_aside(
        &mut self,
        user: &LockedUser<'_>,
        found: &mut Vec<Pag>,
        pags: &Pags,
        users: Option<&BTreeSet<u32>>,
    ) -> Vec<PagId> {
        let mut aside = Vec::new();
        found.retain_mut(|pag| {
            let (uid, id) = (pag.uid, pag.id);
            if let Some(event) = login::of_newer_release(pag) {
                self.newer.insert(id, uid);
                if self.reported.insert(id) {
                    report(&event);
                }
                aside.push(id);
                return false;
            }
            if let Some(event) = login::out_of_sight(pag) {
                if self.reported.insert(id) {
                    report(&event);
                }
                aside.push(id);
                return false;
            }
            let why = match &pag.record {
                Ok(_) => return true,
                // What is wrong with its ring is worse.
                Err(_) if pag.ring.is_err() => return true,
                Err(why) => why.to_string(),
            };
            if let Some(Known { record, .. }) = pags.get(id) {
                match user.store(pag, record.clone()) {
                    Ok(()) => repaired(uid, id, &format!("{why}; it is written again as it was")),
                    Err(error) => report(&HelperEvent::RepairFailed { uid, pag: id, why: error.to_string() }),
                }
                return pag.record.is_ok();
            }
            if users.is_some_and(|users| !users.contains(&uid)) {
                // Which processes held these leases is not known, but this user has no session and no manager any more.
                match user.retire(pag) {
                    Ok(()) => report(&Event::Ended { uid, pag: id, tokens: "left to its processes" }),
                    Err(error) => report(&Event::EndFailed { uid, pag: id, why: error.to_string() }),
                }
                return false;
            }
            if self.reported.insert(id) {
                report(&HelperEvent::RepairFailed { uid, pag: id, why });
            }
            aside.push(id);
            false
        });
        aside
    }

    /// Puts back what a member has cut out of the ring. True if tokens are missing that can be had again.
    pub(super) fn repair_ring(&mut self, user: &LockedUser<'_>, pag: &mut Pag, pags: &Pags, name: &CStr) -> bool {
        let (Ok(ring), Ok(record)) = (pag.ring.clone(), pag.record.clone()) else { return false };
        let (uid, id) = (pag.uid, pag.id);
        let before = pags.get(id).map(|known| &*known.keys);
        if !is_cut(before, &keys_of(&ring), pag, &record) {
            return false;
        }
        match s0::ensure_afs_pag(user.guard(), pag) {
            Ok(AfsPagChange::Unchanged) => {}
            Ok(AfsPagChange::Relinked) => repaired(uid, id, s0::RELINKED),
            Ok(AfsPagChange::New) => repaired(uid, id, "it has a new PAG of OpenAFS"),
            // Reported once: it is tried again with every survey.
            Err(error) if self.reported.insert(id) => {
                report(&Event::NotEquipped { uid, pag: id, why: error.to_string() });
            }
            Err(_) => {}
        }
        match ring.link_user_keyring(user.guard(), uid) {
            Ok(()) if before.is_some() => {
                repaired(uid, id, "a member had emptied its ring; the user keyring is linked again");
            }
            Ok(()) => {}
            Err(error) => report(&Event::UserKeyringNotLinked { uid, why: error.to_string() }),
        }
        let now = pag::sys::now();
        if policy::fate(&record, || login::is_lingering(name)) != Fate::Keep
            || !has_ticket(&record, id, now)
            || !lacks_tokens(&ring, &record, now)
        {
            return false;
        }
        // In the record, where the helper finds it after a restart.
        if let Err(error) = user.store(pag, Record { reseed: true, ..record }) {
            report(&HelperEvent::RepairFailed { uid, pag: id, why: error.to_string() });
        }
        true
    }
}

fn repaired(uid: u32, pag: PagId, what: &str) {
    report(&Event::Healed { uid, pag, what: what.to_owned() });
}

/// Whether tokens can be had again: there is a ticket in the PAG's own ccache, or the PAG has a ccache that only its user
/// can read.
fn has_ticket(record: &Record, pag: PagId, now: u64) -> bool {
    record.ticket > now || record.ccache != ccache::name(record.uid, pag)
}

/// Whether a PAG that is not in the registry any more was cut out of it, and did not end: whoever ends a PAG removes its
/// ccache, and whoever removes the whole registry ends none.
fn was_cut(registry_was_lost: bool, has_ccache: bool) -> bool {
    registry_was_lost || has_ccache
}

#[cfg(test)]
mod tests {
    use super::*;
    use pag::store::record::PagKind;
    use pag::types::Retain;

    const NOW: u64 = 1000;

    #[test]
    fn a_ticket_is_in_the_pags_ccache_or_the_users_own_affair() {
        let none = Record::new(61001, PagKind::User, ccache::name(61001, PagId::from(1)), Retain::None);
        assert!(!has_ticket(&none, PagId::from(1), NOW));
        assert!(has_ticket(&Record { ticket: NOW + 1, ..none.clone() }, PagId::from(1), NOW));
        assert!(has_ticket(&Record { ccache: "KCM:".to_owned(), ..none }, PagId::from(1), NOW));
    }

    #[test]
    fn ending_a_pag_removes_its_ccache() {
        assert!(was_cut(false, true));
        assert!(was_cut(true, false));
        assert!(!was_cut(false, false));
    }
}
