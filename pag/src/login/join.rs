//! Making a PAG for a login, and joining one.

use std::io;

use super::attempt::LoginAttempt;
use super::ccache_work::CcacheWork;
use super::placed::Placed;
use super::tokens::PagState;
use super::tokens::take_ticket;
use crate::afs::s0;
use crate::afs::s0::Equipped;
use crate::ccache;
use crate::error::Error;
use crate::error::Result;
use crate::guard::Guard;
use crate::mirror::follow;
use crate::report::Event;
use crate::report::report;
use crate::store::lease;
use crate::store::lease::Lease;
use crate::store::locked::LockedUser;
use crate::store::record::PagKind;
use crate::store::record::Record;
use crate::store::registry::Pag;
use crate::store::ring;
use crate::store::ring::Ring;
use crate::types::PagId;
use crate::types::ServiceKind;
use crate::types::Word;

pub(super) fn make(attempt: &LoginAttempt<'_>, user: &LockedUser<'_>, kind: PagKind, lease: Lease) -> Result<Placed> {
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
    // Before the join: the members of a ring without its S0 are in no PAG of OpenAFS.
    ensure_afs_pag(attempt, user.guard(), &mut pag);
    if let Err(why) = ring.join(user.guard()) {
        user.retire(&pag)?;
        ccache::remove(uid, id);
        return Err(why);
    }
    report(&Event::Made { uid, pag: id, ring: ring.serial });
    say_if_apart(attempt, id, kind);
    let mut record =
        pag.record.clone().unwrap_or_else(|_| Record::new(uid, kind, String::new(), attempt.request.settings.retain));
    let (need, work) = take_ticket(attempt, &mut record, id, &ring, PagState::New { filled });
    user.store(&mut pag, record.clone())?;
    Ok(Placed { ring, pag: Some((pag, record)), cookie, need, work, seeded: false, moved: true })
}

/// Says that a login has a PAG apart from its user's services because of whom its ticket names: what an account's own
/// identity is called cannot always be guessed.
pub(super) fn say_if_apart(attempt: &LoginAttempt<'_>, pag: PagId, kind: PagKind) {
    let account = attempt.account();
    let brought = attempt.ticket.as_ref().map(|ticket| &ticket.summary.principal);
    if let Some(principal) = brought.filter(|brought| kind == PagKind::User && !account.owns(brought)) {
        let (name, principal) = (account.name().to_owned(), principal.to_string());
        report(&Event::Apart { uid: attempt.uid(), name, pag, principal });
    }
}

/// Sees to it that the PAG is one of OpenAFS, too. Without that it has no tokens of OpenAFS; the others are not
/// concerned.
pub(super) fn ensure_afs_pag(attempt: &LoginAttempt<'_>, guard: &Guard, pag: &mut Pag) {
    match s0::ensure_afs_pag(guard, pag) {
        Ok(Equipped::Relinked) => {
            let what = "its tokens of OpenAFS, which a member had cut, are there again".to_owned();
            report(&Event::Healed { uid: attempt.uid(), pag: pag.id, what });
        }
        Ok(Equipped::AsBefore | Equipped::Anew) => {}
        Err(why) => report(&Event::NotEquipped { uid: attempt.uid(), pag: pag.id, why: why.to_string() }),
    }
}

/// The name of a new PAG's ccache, and whether the login's ticket is in it.
pub(super) fn new_ccache(attempt: &LoginAttempt<'_>, id: PagId) -> (String, bool) {
    let ticket = attempt.ticket.as_ref().filter(|ticket| ticket.summary.tgt_expires.is_some());
    let made = ccache::make(attempt.uid(), attempt.request.user.gid, id, ticket);
    if let Err(why) = &made {
        report(&Event::CcacheRefused { uid: attempt.uid(), why: why.to_string() });
    }
    (ccache::name(attempt.uid(), id), made.is_ok() && ticket.is_some())
}

pub(super) fn joined(
    attempt: &LoginAttempt<'_>,
    user: &LockedUser<'_>,
    mut pag: Pag,
    ring: Ring,
    lease: Option<Lease>,
) -> Result<Placed> {
    let uid = attempt.uid();
    let Ok(mut record) = pag.record.clone() else {
        return Err(Error::key(format!("read the record of PAG {}", pag.id))(io::ErrorKind::InvalidData.into()));
    };
    let before = record.clone();
    let mut cookie = 0;
    let mut followed = false;
    // A lease may be from before its login had a ticket.
    if let (Some(state), Some(ccache)) = (attempt.request.state, attempt.request.ccache) {
        let own = record.leases.iter_mut().find(|lease| lease.cookie == state.cookie);
        own.into_iter().for_each(|lease| lease.ccache = Word::whole(ccache));
    }
    if let Some(lease) = lease {
        log::debug!("PAG {} (ring {}) of uid {uid}: joined", pag.id, ring.serial);
        cookie = take_lease(attempt, &mut record, pag.id, lease);
        if attempt.request.settings.placement == ServiceKind::Login {
            record.retain = attempt.request.settings.retain;
            // At once and not by the helper: tokens of this login's would be put into the PAG that is followed.
            if record.follows.is_some() {
                follow::take_away(&ring, pag.afs_keyring, &mut record);
                followed = true;
                report(&Event::FollowsNobody { uid, pag: pag.id });
                pag.record = Ok(record.clone());
            }
        }
    }
    if attempt.request.settings.placement == ServiceKind::Seed {
        record.reseed = false;
    }
    ensure_afs_pag(attempt, user.guard(), &mut pag);
    let found = if attempt.has_tried(&ring) { PagState::Tried } else { PagState::Known };
    let (need, work) = take_ticket(attempt, &mut record, pag.id, &ring, found);
    // The copy of another identity's ticket goes, whether this login brings one or not.
    let work = match work {
        CcacheWork::None if followed => CcacheWork::Empty,
        _ if followed => CcacheWork::Replace,
        work => work,
    };
    if record != before
        && let Err(why) = user.store(&mut pag, record.clone())
    {
        // A member without a lease would lose its tokens with somebody else's logout.
        ring::fresh(user.guard(), uid)?;
        return Err(why);
    }
    Ok(Placed { ring, pag: Some((pag, record)), cookie, need, work, seeded: false, moved: true })
}

/// Adds this login's lease to the record, and gives its cookie, or 0 where the record has no room. A login without a lease is
/// in the PAG all the same, and loses its tokens with the last login that has one.
pub(super) fn take_lease(attempt: &LoginAttempt<'_>, record: &mut Record, id: PagId, lease: Lease) -> u64 {
    let (uid, process, before) = (attempt.uid(), lease.process, record.leases.clone());
    let admitted = lease::admit(&mut record.leases, lease);
    if !record.has_room(admitted.role) {
        record.leases = before;
        let (leases, busiest) = (record.leases.len(), lease::busiest(&record.leases));
        let (busiest, sessions) = busiest.map_or_else(Default::default, |(of, count)| (of.label(), count));
        report(&Event::RecordFull { uid, pag: id, leases, busiest, sessions });
        return 0;
    }
    // Said at 2, 4, 8, ... of them: a host that goes on like that would fill the journal.
    if admitted.sessions > 1 && admitted.sessions.is_power_of_two() {
        let sessions = lease::sessions_of(&record.leases, process);
        report(&Event::ManySessions { uid, pag: id, process: process.label(), sessions });
    }
    admitted.cookie
}

/// Removes what logins that were killed between two steps have left: directories without a PAG.
pub(super) fn sweep(attempt: &LoginAttempt<'_>, known: &[PagId]) {
    for id in ccache::of_user(attempt.uid()) {
        if !known.contains(&id) {
            ccache::remove(attempt.uid(), id);
        }
    }
    ccache::ended(attempt.uid()).iter().for_each(|path| ccache::remove_few(attempt.uid(), path));
}
