//! Puts right what members have cut out of rings, and says what was cut out of the registry. Only root can do the latter,
//! so it is not undone.

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
use pag::types::PagId;

use crate::messages::HelperEvent;
use crate::pags::Pags;
use crate::pags::known::Known;
use crate::pags::rings::{is_cut, keys_of, lacks_tokens};

/// What is remembered between repairs.
#[derive(Default)]
pub(super) struct Repairs {
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
    pub(super) fn remembered(&mut self, found: &[Pag]) {
        for pag in found.iter().filter(|pag| pag.ring.is_ok() && pag.record.is_ok()) {
            self.reported.remove(&pag.id);
        }
    }

    /// Whether nothing was reported of this PAG yet.
    pub(super) fn is_news(&self, id: PagId) -> bool {
        !self.reported.contains(&id)
    }

    /// Whether a newer release has written the record of a PAG of `uid`.
    pub(super) fn has_newer_record(&self, uid: u32) -> bool {
        self.newer.values().any(|other| *other == uid)
    }

    /// Writes unreadable records again that are remembered, and takes the other PAGs with such a record out of `found`. `users`
    /// are those that logind knows.
    pub(super) fn set_aside(
        &mut self,
        user: &LockedUser<'_>,
        found: &mut Vec<Pag>,
        pags: &Pags,
        users: Option<&BTreeSet<u32>>,
    ) {
        found.retain_mut(|pag| {
            let (uid, id) = (pag.uid, pag.id);
            if let Some(event) = login::of_newer_release(pag) {
                self.newer.insert(id, uid);
                if self.reported.insert(id) {
                    report(&event);
                }
                return false;
            }
            if let Some(event) = login::out_of_sight(pag) {
                if self.reported.insert(id) {
                    report(&event);
                }
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
            false
        });
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

/// Reports the PAGs of `uid` that are remembered and have not ended, and are not `found` in the registry any more. Only root
/// can have removed them, so they are not put back.
pub(super) fn report_lost(uid: u32, found: &[Pag], pags: &Pags) {
    // The process that ends a PAG removes its directory.
    let directories = ccache::of_user(uid);
    let is_lost = |known: &&Known| {
        known.uid == uid
            && directories.contains(&known.id)
            && !found.iter().any(|pag| pag.id == known.id)
            && known.is_alive()
    };
    pags.all().filter(is_lost).for_each(|known| report(&HelperEvent::Lost { uid, pag: known.id }));
}

fn repaired(uid: u32, pag: PagId, what: &str) {
    report(&Event::Healed { uid, pag, what: what.to_owned() });
}

/// Whether tokens can be had again: there is a ticket in the PAG's own ccache, or the PAG has a ccache that only its user
/// can read.
fn has_ticket(record: &Record, pag: PagId, now: u64) -> bool {
    record.ticket > now || record.ccache != ccache::name(record.uid, pag)
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
}
