//! A login refreshes its ticket, as a screen unlock does. The PAG that the ticket belongs to gets it.

use std::time::Duration;

use super::attempt::{LOCK_WAIT, LoginAttempt};
use super::ccache_work::CcacheWork;
use super::own_ccache::do_ccache_work;
use super::place::{Choice, choose, kind_of_repaired};
use super::state::{LoginState, Request};
use super::tokens::{PagState, take_ticket};
use super::upkeep::reap;
use crate::error::{Error, Result};
use crate::guard::{Guard, HandleGroup};
use crate::nudge::nudge;
use crate::policy::{self, candidates};
use crate::seed::{Budget, Excluded, Job, note_seeding, run_seeder};
use crate::store::locked::LockedUser;
use crate::store::record::{LastSeeding, Record};
use crate::store::registry::Pag;
use crate::store::ring::Ring;
use crate::types::{Client, PagId, ServiceKind, Word};

/// Takes a refreshed ticket into the PAG that it belongs to, and makes new tokens from it. The caller stays outside the
/// PAG, since a screen unlock runs in a process outside the session. Without root, as in a screen locker that runs as
/// the user, only the seeder runs, and only if the caller is in a ring of the user.
///
/// # Errors
/// When the registry can't be locked, read or changed.
pub fn refresh(request: &Request<'_>) -> Result<()> {
    if request.state.as_ref().is_some_and(LoginState::is_out_of_reach) {
        return Ok(());
    }
    Client::configure(request.settings);
    let user = request.user;
    let budget = Budget::new(request.settings.timeout, request.state.map_or(Duration::ZERO, |m| m.spent));
    if request.settings.notokens || Client::present(request.settings).is_empty() {
        return Ok(());
    }
    let group = HandleGroup::read();
    let mut attempt = LoginAttempt::new(request, budget, group);
    attempt.look_for_ticket();
    if attempt.ticket.is_none() && !request.settings.always_aklog {
        return Ok(());
    }
    let job = Job {
        settings: request.settings,
        user,
        // Looked up before this login takes the lock: NSS may be slow.
        identity: attempt.identity(),
        ccache: attempt.ccache_to_seed_from(None),
        environment: &request.environment,
        excluded: Excluded::default(),
    };
    let guard = match Guard::enter(group) {
        Ok(guard) => guard,
        Err(Error::NotRoot) => {
            if let Some(ring) = Ring::current().filter(|ring| ring.owner == user.uid) {
                run_seeder(&job, Some(&ring), attempt.before.get(), &attempt.budget);
            }
            return Ok(());
        }
        Err(other) => return Err(other),
    };
    let locked = LockedUser::lock(&guard, user.uid, LOCK_WAIT)?;
    let mut pags = locked.pags()?;
    reap(&locked, &mut pags, &user.name, kind_of_repaired(&attempt));
    let Some((index, ring)) = pag_to_refresh(&attempt, &pags) else { return Ok(()) };
    let mut pag = pags.swap_remove(index);
    let Ok(mut record) = pag.record.clone() else { return Ok(()) };
    // New tokens in the ring of a manager that follows a session would go into that session's PAG.
    if record.follows.is_some() {
        return Ok(());
    }
    let (wanted, work) = take_refreshed_ticket(&attempt, &mut record, pag.id, &ring);
    locked.store(&mut pag, record.clone())?;
    drop(locked);
    drop(guard);
    do_ccache_work(&attempt, work, pag.id, &mut record);
    if wanted {
        let job = Job { ccache: attempt.ccache_to_seed_from(Some(&record)), ..job };
        let seeding = run_seeder(&job, Some(&ring), attempt.before.get(), &attempt.budget);
        let _ = note_seeding(group, user.uid, pag.id, &seeding, LOCK_WAIT);
    }
    nudge(user.uid);
    Ok(())
}

/// Takes the refreshed ticket into the PAG's record, and notes a seeding that is about to run. Returns whether a seeder
/// should run, and the work that remains on the PAG's ccache.
fn take_refreshed_ticket<'a>(
    attempt: &'a LoginAttempt<'_>,
    record: &mut Record,
    id: PagId,
    ring: &Ring,
) -> (bool, CcacheWork<'a>) {
    let last_seeding = record.last_seeding;
    let (_, work) = take_ticket(attempt, record, id, ring, PagState::Known);
    // Good tokens are renewed only with a ticket that they were not made from: sshd, for one, refreshes the credentials
    // of a login that has just got them.
    let ticket = attempt.ticket_end(Some(&*record)).unwrap_or(0);
    let stale = last_seeding.is_none_or(|last| {
        ticket > last.ticket || (ticket == 0 && policy::worth_seeding(last_seeding, crate::sys::now(), 0, true))
    });
    let wanted = stale || record.last_seeding != last_seeding;
    if wanted {
        record.last_seeding = Some(LastSeeding { at: crate::sys::now(), ok: false, ticket });
        record.discarded.clear();
    }
    (wanted, work)
}

/// The PAG that a refreshed ticket belongs to, and its ring. It is never a new PAG, and never one of another identity.
/// In this order:
///
/// 1. the PAG that this process has entered by an earlier hook;
/// 2. the PAG that this process is in, such as a screen locker's;
/// 3. for a login service, the PAG of the login that this process resembles ([`policy::refreshed`]);
/// 4. the PAG that a login would join.
fn pag_to_refresh(attempt: &LoginAttempt<'_>, pags: &[Pag]) -> Option<(usize, Ring)> {
    let account = attempt.account();
    let brought = attempt.ticket.as_ref().map(|ticket| &ticket.summary.principal);
    let fits = |record: &Record| policy::takes_refreshed(record, brought, &account);
    let at = |wanted: &dyn Fn(&Pag) -> bool| {
        let found = pags.iter().enumerate().find(|(_, pag)| wanted(pag) && pag.record.as_ref().is_ok_and(fits));
        found.and_then(|(index, pag)| Some((index, *pag.ring.as_ref().ok()?)))
    };
    let opened = attempt.request.state.and_then(|state| state.pag);
    if let Some(found) = opened.and_then(|(id, _)| at(&|pag| pag.id == id)) {
        return Some(found);
    }
    if let Some(current) = Ring::current()
        && let Some(found) = at(&|pag| pag.ring.as_ref() == Ok(&current))
    {
        return Some(found);
    }
    if attempt.request.settings.placement == ServiceKind::Login {
        let (tty, service) = (Word::clean(attempt.request.tty), Word::clean(attempt.request.service));
        let scope = attempt.request.settings.scope;
        let refreshed = policy::Refreshed { principal: brought, tty: &tty, service: &service, scope };
        if let Some(id) = policy::refreshed(&candidates(pags), refreshed, &account) {
            return at(&|pag| pag.id == id);
        }
    }
    match choose(attempt, pags) {
        Choice::Join(index, ring) => Some((index, ring)),
        _ => None,
    }
}
