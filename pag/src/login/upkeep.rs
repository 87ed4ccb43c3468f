//! The end of leases, and of the PAGs and tokens that they kept. Each login and the helper use this.

use std::ffi::CStr;
use std::time::Instant;

use super::attempt::LOOK;
use super::linger::is_lingering;
use crate::mirror::follow;
use crate::policy::{self, Fate};
use crate::report::{Event, User, report};
use crate::store::lease::LeaseKind;
use crate::store::locked::LockedUser;
use crate::store::record::{PagKind, Record, Unreadable};
use crate::store::registry::Pag;
use crate::store::ring::{Ring, RingFault};
use crate::sys::Process;
use crate::types::{PagId, Retain};
use crate::{afs, ccache, keyring};

/// The logins that hold these PAGs, except those of cron and the like.
pub(super) fn logins(pags: &[Pag]) -> Vec<(PagId, Process)> {
    let records = pags.iter().filter_map(|pag| Some((pag.id, pag.record.as_ref().ok()?)));
    let leases = records
        .filter(|(_, record)| record.kind != PagKind::Own)
        .flat_map(|(id, record)| record.leases.iter().map(move |lease| (id, lease)));
    leases.filter(|(_, lease)| lease.role == LeaseKind::Login).map(|(id, lease)| (id, lease.process)).collect()
}

/// Whether one of these logins is in another PAG, and lives. While there is one, logind keeps the user's manager.
pub(super) fn is_elsewhere(logins: &[(PagId, Process)], id: PagId) -> bool {
    logins.iter().any(|(other, process)| *other != id && process.is_alive())
}

/// The report of a PAG with a record that a newer release has written. None for any other PAG.
pub fn of_newer_release(pag: &Pag) -> Option<Event> {
    let why = pag.record.as_ref().err().filter(|why| matches!(why, Unreadable::Foreign(_)))?;
    Some(Event::RecordForeign { uid: pag.uid, pag: pag.id, why: why.to_string() })
}

/// The report of a PAG that this process cannot look at now, for want of memory or of a permission. None for any other
/// PAG. That is no fault of the PAG, so nothing is done to it.
pub fn out_of_sight(pag: &Pag) -> Option<Event> {
    let why = match (&pag.ring, &pag.record) {
        (Err(why @ RingFault::Unseen(_)), _) => format!("its ring cannot be used, {why}"),
        (_, Err(why @ Unreadable::NotNow(_))) => why.to_string(),
        _ => return None,
    };
    let (id, user) = (pag.id, User(pag.uid));
    Some(Event::Complaint { what: format!("PAG {id} of {user} is left alone for now: {why}") })
}

/// Takes dead leases out of the user's PAGs, and ends the PAGs that are over. A PAG that stays in `pags` can be used. A
/// damaged record becomes a new one of kind `repaired`. A record of a newer release is left alone, and so is a PAG that
/// this process cannot look at now. Needs the uid's
/// lock. `name` is the user's: a name service may be slow, so it is asked before the lock is taken.
pub fn reap(locked: &LockedUser<'_>, pags: &mut Vec<Pag>, name: &CStr, repaired: PagKind) {
    let logins = logins(pags);
    pags.retain_mut(|pag| {
        if matches!(pag.record, Err(Unreadable::Foreign(_))) {
            return false;
        }
        if let Some(event) = out_of_sight(pag) {
            report(&event);
            return false;
        }
        if let Err(why) = &pag.ring {
            let why = why.to_string();
            report(&Event::RingBroken { uid: pag.uid, pag: pag.id, why });
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
                // Without a lease this PAG would end here. The login that joins it brings the first one.
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
        let stays = || is_elsewhere(&logins, id) || is_lingering(name);
        apply_fate(locked, pag, record, stays)
    });
}

/// Ends a PAG, discards its tokens, or keeps it, as [`policy::fate`] decides from the leases that are left in `record`.
/// `stays` says whether the user's manager stays without a login. True if the PAG goes on; it then has `record`.
pub fn apply_fate(user: &LockedUser<'_>, pag: &mut Pag, mut record: Record, stays: impl FnOnce() -> bool) -> bool {
    let (uid, id) = (pag.uid, pag.id);
    let fate = policy::fate(&record, stays);
    // The tokens of a followed session are that session's, and must not be discarded here. If this PAG goes on, the
    // helper links them again.
    if fate != Fate::Keep
        && record.follows.is_some()
        && let Ok(ring) = &pag.ring
    {
        follow::end_following(ring, pag.afs_keyring, &mut record);
    }
    match fate {
        Fate::Keep => {
            store(user, pag, record);
            true
        }
        Fate::DropTokens => {
            drop_tokens(pag, &mut record);
            store(user, pag, record);
            true
        }
        Fate::End { discard: wanted } => {
            let discarded = wanted && discard_tokens(pag);
            if let Err(why) = user.retire(pag) {
                report(&Event::EndFailed { uid, pag: id, why: why.to_string() });
            } else {
                let tokens = if discarded { "discarded" } else { "left to its processes" };
                report(&Event::Ended { uid, pag: id, tokens });
            }
            ccache::remove(uid, id);
            false
        }
    }
}

/// Replaces a PAG's record, and reports a failure: the leases that it should not have any more end with their processes.
fn store(user: &LockedUser<'_>, pag: &mut Pag, record: Record) {
    if let Err(why) = user.store(pag, record) {
        report(&Event::Complaint { what: why.to_string() });
    }
}

/// Discards the tokens of a PAG that goes on without a login, and takes them and the ticket out of its record.
fn drop_tokens(pag: &Pag, record: &mut Record) {
    // A ring that cannot be read may have some.
    let has_tokens = |ring: &Ring| afs::tokens(ring, Instant::now() + LOOK).map_or(true, |tokens| !tokens.is_empty());
    if pag.ring.as_ref().is_ok_and(has_tokens) && discard_tokens(pag) {
        report(&Event::TokensDropped { uid: pag.uid, pag: pag.id });
    }
    record.tokens.clear();
    // With the ticket, services could get the tokens back, and so would the next manager. The helper empties the ccache
    // later, since the user owns it and could keep a process that holds the lock waiting.
    (record.ticket, record.renewable, record.authenticated) = (0, 0, 0);
    // A ticket from a keytab may bring tokens at once, and the logins that discarded tokens have ended.
    record.last_seeding = None;
    record.discarded.clear();
}

/// Discards the tokens of a PAG for all its members, and reports a failure. True if they are gone.
fn discard_tokens(pag: &Pag) -> bool {
    let Ok(ring) = &pag.ring else { return true };
    // A member may have cut S0 out of the ring. Without it the tokens of OpenAFS would not be found.
    if let Some(s0) = pag.afs_keyring {
        let _ = keyring::link(s0, ring.serial);
    }
    match afs::discard(ring, Instant::now() + LOOK) {
        Ok(()) => true,
        Err(why) => {
            let (id, user) = (pag.id, User(pag.uid));
            let what = format!("{why}; the processes left in PAG {id} of {user} keep the tokens until these end");
            report(&Event::Complaint { what });
            false
        }
    }
}
