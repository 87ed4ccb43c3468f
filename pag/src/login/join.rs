//! A login makes a PAG or joins one.

use std::io;

use super::attempt::LoginAttempt;
use super::ccache_work::CcacheWork;
use super::placed::Placed;
use super::tokens::{PagState, take_ticket};
use crate::afs::s0::{self, AfsPagChange};
use crate::ccache;
use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::mirror::follow;
use crate::report::{Event, report};
use crate::store::lease::{self, Lease};
use crate::store::locked::LockedUser;
use crate::store::record::{PagKind, Record};
use crate::store::registry::Pag;
use crate::store::ring::{self, Ring};
use crate::types::{PagId, ServiceKind, Word};

/// Makes a PAG of this kind in the registry, with the login's lease, and puts the calling thread into its ring.
pub(super) fn make<'a>(
    attempt: &'a LoginAttempt<'_>,
    user: &LockedUser<'_>,
    kind: PagKind,
    lease: Lease,
) -> Result<Placed<'a>> {
    let uid = attempt.uid();
    let id = PagId::random()?;
    let cookie = lease.cookie;
    let (ccache, filled) = new_ccache(attempt, id);
    let mut record = Record::new(uid, kind, ccache, attempt.request.settings.retain);
    record.leases.push(lease);
    let anchored = Ring::make(user.guard(), attempt.group, uid).and_then(|ring| {
        let pag = user.anchor(id, &ring, record);
        ring.release();
        Ok((ring, pag?))
    });
    if anchored.is_err() {
        ccache::remove(uid, id);
    }
    let (ring, mut pag) = anchored?;
    // Before the join: without S0 in the ring, its members are in no PAG of OpenAFS.
    ensure_afs_pag(attempt, user.guard(), &mut pag);
    if let Err(why) = ring.join(user.guard()) {
        let _ = user.retire(&pag);
        ccache::remove(uid, id);
        return Err(why);
    }
    report(&Event::Made { uid, pag: id, ring: ring.serial });
    report_if_apart(attempt, id, kind);
    let mut record =
        pag.record.clone().unwrap_or_else(|_| Record::new(uid, kind, String::new(), attempt.request.settings.retain));
    let (need, work) = take_ticket(attempt, &mut record, id, &ring, PagState::New { filled });
    if let Err(why) = user.store(&mut pag, record.clone()) {
        ring::fresh(user.guard(), uid)?;
        let _ = user.retire(&pag);
        ccache::remove(uid, id);
        return Err(why);
    }
    Ok(Placed { ring, pag: Some((pag, record)), cookie, need, work, seeded: false, moved: true })
}

/// Reports a login that is kept apart from its user's services, since its ticket names another principal than the
/// account's own. The administrator may have to tell pam_pag the account's own principal.
fn report_if_apart(attempt: &LoginAttempt<'_>, pag: PagId, kind: PagKind) {
    let account = attempt.account();
    let brought = attempt.ticket.as_ref().map(|ticket| &ticket.summary.principal);
    if let Some(principal) = brought.filter(|brought| kind == PagKind::User && !account.owns(brought)) {
        let (name, principal) = (account.name().to_owned(), principal.to_string());
        report(&Event::Apart { uid: attempt.uid(), name, pag, principal });
    }
}

/// Makes the PAG one of OpenAFS, too, and reports a failure. Without S0 the PAG has no tokens of OpenAFS, but those of
/// the other clients.
fn ensure_afs_pag(attempt: &LoginAttempt<'_>, guard: &Guard, pag: &mut Pag) {
    match s0::ensure_afs_pag(guard, pag) {
        Ok(AfsPagChange::Relinked) => {
            let what = s0::RELINKED.to_owned();
            report(&Event::Healed { uid: attempt.uid(), pag: pag.id, what });
        }
        Ok(AfsPagChange::Unchanged | AfsPagChange::New) => {}
        Err(why) => report(&Event::NotEquipped { uid: attempt.uid(), pag: pag.id, why: why.to_string() }),
    }
}

/// Makes the ccache of a new PAG. Returns its name, and whether the login's ticket is in it.
fn new_ccache(attempt: &LoginAttempt<'_>, id: PagId) -> (String, bool) {
    let ticket = attempt.ticket.as_ref().filter(|ticket| ticket.summary.tgt_expires.is_some());
    let made = ccache::make(attempt.uid(), attempt.request.user.gid, id, ticket);
    if let Err(why) = &made {
        report(&Event::CcacheRefused { uid: attempt.uid(), why: why.to_string() });
    }
    (ccache::name(attempt.uid(), id), made.is_ok() && ticket.is_some())
}

/// Notes in the record of `pag` that this login, which has entered its ring, is a member. `lease` is the lease to add,
/// none for a seeding job and for a login that has one.
///
/// # Errors
/// When the record can't be read or stored. In the second case the thread has left the ring.
pub(super) fn joined<'a>(
    attempt: &'a LoginAttempt<'_>,
    user: &LockedUser<'_>,
    mut pag: Pag,
    ring: Ring,
    lease: Option<Lease>,
) -> Result<Placed<'a>> {
    let uid = attempt.uid();
    let Ok(mut record) = pag.record.clone() else {
        return Err(Error::key(format!("read the record of PAG {}", pag.id))(io::ErrorKind::InvalidData.into()));
    };
    let before = record.clone();
    let mut cookie = 0;
    let mut followed = false;
    note_ccache(attempt, &mut record);
    if let Some(lease) = lease {
        log::debug!("PAG {} (ring {}) of uid {uid}: joined", pag.id, ring.serial);
        cookie = take_lease(attempt, &mut record, pag.id, lease);
        if attempt.request.settings.placement == ServiceKind::Login {
            record.retain = attempt.request.settings.retain;
            followed = end_following(&mut pag, &ring, &mut record);
        }
    }
    if attempt.request.settings.placement == ServiceKind::Seed {
        record.reseed = false;
    }
    ensure_afs_pag(attempt, user.guard(), &mut pag);
    let found = if attempt.has_tried(&ring) { PagState::Tried } else { PagState::Known };
    let (need, work) = take_ticket(attempt, &mut record, pag.id, &ring, found);
    // The copy of the followed session's ticket must go, with or without a ticket of this login.
    let work = match work {
        CcacheWork::None if followed => CcacheWork::Empty,
        CcacheWork::Feed(ticket) if followed => CcacheWork::Replace(ticket),
        work => work,
    };
    if record != before
        && let Err(why) = user.store(&mut pag, record.clone())
    {
        // Without a lease, this login would lose its tokens when the last other login ends.
        ring::fresh(user.guard(), uid)?;
        return Err(why);
    }
    Ok(Placed { ring, pag: Some((pag, record)), cookie, need, work, seeded: false, moved: true })
}

/// Writes the ccache that this login brings into its lease: an earlier hook may have taken the lease before there was a
/// ticket.
fn note_ccache(attempt: &LoginAttempt<'_>, record: &mut Record) {
    if let (Some(state), Some(ccache)) = (attempt.request.state, attempt.request.ccache) {
        let own = record.leases.iter_mut().find(|lease| lease.cookie == state.cookie);
        own.into_iter().for_each(|lease| lease.ccache = Word::whole(ccache));
    }
}

/// Takes the tokens of the followed session out of a user manager's ring that a login has joined. The login can't leave
/// this to the helper: until then its own tokens would go into the PAG of the followed session. Returns whether the PAG
/// did follow.
fn end_following(pag: &mut Pag, ring: &Ring, record: &mut Record) -> bool {
    if record.follows.is_some() {
        follow::end_following(ring, pag.afs_keyring, record);
        report(&Event::FollowsNobody { uid: pag.uid, pag: pag.id });
        pag.record = Ok(record.clone());
        return true;
    }
    false
}

/// Adds this login's lease to the record. Returns its cookie, or 0 if the record has no room. A login without a lease
/// is in the PAG, and loses its tokens when the last login with a lease ends.
fn take_lease(attempt: &LoginAttempt<'_>, record: &mut Record, id: PagId, lease: Lease) -> u64 {
    let (uid, process, before) = (attempt.uid(), lease.process, record.leases.clone());
    let admitted = lease::admit(&mut record.leases, lease);
    if !record.has_room(admitted.role) {
        record.leases = before;
        let (leases, busiest) = (record.leases.len(), lease::busiest(&record.leases));
        let (busiest, sessions) = busiest.map_or_else(Default::default, |(of, count)| (of.label(), count));
        report(&Event::RecordFull { uid, pag: id, leases, busiest, sessions });
        return 0;
    }
    // Reported at 2, 4, 8, ... sessions, so that a host with very many of them does not fill the journal.
    if admitted.sessions > 1 && admitted.sessions.is_power_of_two() {
        let sessions = lease::sessions_of(&record.leases, process);
        report(&Event::ManySessions { uid, pag: id, process: process.label(), sessions });
    }
    admitted.cookie
}

/// Removes ccache directories without a PAG, which killed logins have left. `known` are the user's PAGs.
pub(super) fn sweep(attempt: &LoginAttempt<'_>, known: &[PagId]) {
    for id in ccache::begun(attempt.uid()) {
        if !known.contains(&id) {
            ccache::remove(attempt.uid(), id);
        }
    }
    ccache::ended(attempt.uid()).iter().for_each(|path| ccache::remove_few(attempt.uid(), path));
}
