//! What becomes of a user's PAGs when leases end: for each login, and for the helper.

use std::time::Instant;

use super::attempt::LOOK;
use super::linger::is_lingering;
use crate::afs;
use crate::ccache;
use crate::keyring;
use crate::mirror::follow;
use crate::policy;
use crate::policy::Fate;
use crate::report::Event;
use crate::report::report;
use crate::store::lease::LeaseKind;
use crate::store::locked::LockedUser;
use crate::store::record::PagKind;
use crate::store::record::Record;
use crate::store::record::Unreadable;
use crate::store::registry::Pag;
use crate::sys::Passwd;
use crate::types::PagId;
use crate::types::Retain;

/// The PAGs of a user that logins hold, those of jobs excepted. While there is one, logind keeps the manager.
pub(super) fn with_logins(pags: &[Pag]) -> Vec<PagId> {
    let is_one = |record: &Record| {
        record.kind != PagKind::Own
            && record.leases.iter().any(|lease| lease.role == LeaseKind::Login && lease.process.is_alive())
    };
    pags.iter().filter(|pag| pag.record.as_ref().is_ok_and(is_one)).map(|pag| pag.id).collect()
}

/// What is to be said of a PAG whose record a newer release has written; none of any other.
pub fn of_newer_release(pag: &Pag) -> Option<Event> {
    let why = pag.record.as_ref().err().filter(|why| matches!(why, Unreadable::Foreign(_)))?;
    Some(Event::RecordForeign { uid: pag.uid, pag: pag.id, why: why.to_string() })
}

/// Takes dead leases out of the user's PAGs and ends those that are over; what stays in `pags` can be used. Repairs a
/// damaged record, as one of kind `repaired`, and leaves those of a newer release alone. Held under the uid's lock.
pub fn reap(locked: &LockedUser<'_>, pags: &mut Vec<Pag>, user: &Passwd, repaired: PagKind) {
    let with_logins = with_logins(pags);
    pags.retain_mut(|pag| {
        if matches!(pag.record, Err(Unreadable::Foreign(_))) {
            return false;
        }
        if let Err(why) = &pag.ring {
            report(&Event::RingBroken { uid: pag.uid, pag: pag.id, why: why.clone() });
            let _ = locked.retire(pag);
            ccache::remove(pag.uid, pag.id);
            return false;
        }
        let mut record = match &pag.record {
            Ok(record) => record.clone(),
            Err(why) => {
                report(&Event::RecordDamaged { uid: pag.uid, pag: pag.id, why: why.to_string() });
                let ccache = ccache::name(pag.uid, pag.id);
                let record = Record { unsure: true, ..Record::new(pag.uid, repaired, ccache, Retain::None) };
                // Whoever is about to join it brings the first lease: it is not over yet.
                return locked.store(pag, record).is_ok();
            }
        };
        let before = record.leases.len();
        record.leases.retain(|lease| lease.process.is_alive());
        let gone = before - record.leases.len();
        if gone > 0 {
            report(&Event::Reaped { uid: pag.uid, pag: pag.id, count: gone });
        } else if before > 0 {
            return true;
        }
        let id = pag.id;
        let stays = || with_logins.iter().any(|other| *other != id) || is_lingering(user);
        apply_fate(locked, pag, record, stays)
    });
}

/// Gives a PAG the record `record`, from which leases have gone, and what follows from it. True when the PAG goes on.
pub fn apply_fate(user: &LockedUser<'_>, pag: &mut Pag, mut record: Record, stays: impl FnOnce() -> bool) -> bool {
    let (uid, id) = (pag.uid, pag.id);
    let discard = |pag: &Pag| match &pag.ring {
        Ok(ring) => {
            // In a ring that a member has emptied the tokens of OpenAFS would not be found.
            if let Some(s0) = pag.afs_keyring {
                let _ = keyring::link(s0, ring.serial);
            }
            afs::discard(ring, Instant::now() + LOOK)
        }
        Err(_) => Ok(()),
    };
    let fate = policy::fate(&record, stays);
    // What is followed is another PAG's, and must not be discarded with what is this one's own. The helper links it
    // again where this one goes on.
    if fate != Fate::Keep
        && record.follows.is_some()
        && let Ok(ring) = &pag.ring
    {
        follow::take_away(ring, pag.afs_keyring, &mut record);
    }
    match fate {
        Fate::Keep => {
            let _ = user.store(pag, record);
            true
        }
        Fate::DropTokens => {
            let some = |ring| afs::tokens(ring, Instant::now() + LOOK).is_ok_and(|tokens| !tokens.is_empty());
            if pag.ring.as_ref().is_ok_and(some) {
                if let Err(why) = discard(pag) {
                    report(&Event::EndFailed { uid, pag: id, why: why.to_string() });
                }
                report(&Event::TokensDropped { uid, pag: id });
            }
            record.tokens.clear();
            // Services would have the tokens back from it, and a new manager gets some when it starts. The helper takes it out
            // of the ccache, which is the user's: nobody waits for that under the lock.
            (record.ticket, record.renewable, record.authenticated) = (0, 0, 0);
            // Whoever has a keytab for it need not wait, and it was the logins' that were discarded.
            record.last_seeding = None;
            record.discarded.clear();
            let _ = user.store(pag, record);
            true
        }
        Fate::End { discard: wanted } => {
            if wanted && let Err(why) = discard(pag) {
                report(&Event::EndFailed { uid, pag: id, why: why.to_string() });
            }
            if let Err(why) = user.retire(pag) {
                report(&Event::EndFailed { uid, pag: id, why: why.to_string() });
            } else {
                let tokens = if wanted { "discarded" } else { "left to its processes" };
                report(&Event::Ended { uid, pag: id, tokens });
            }
            ccache::remove(uid, id);
            false
        }
    }
}
