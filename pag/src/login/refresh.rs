//! A refreshed ticket, as of a screen unlock, is brought into the PAG that it belongs to.

use std::time::Duration;

use super::attempt::LOCK_WAIT;
use super::attempt::LoginAttempt;
use super::own_ccache::do_ccache_work;
use super::place::Choice;
use super::place::choose;
use super::place::repaired;
use super::state::LoginState;
use super::state::Request;
use super::tokens::PagState;
use super::tokens::take_ticket;
use super::upkeep::reap;
use crate::error::Error;
use crate::error::Result;
use crate::guard::Guard;
use crate::guard::HandleGroup;
use crate::nudge::nudge;
use crate::policy;
use crate::policy::candidates;
use crate::seed::Budget;
use crate::seed::Excluded;
use crate::seed::Job;
use crate::seed::note_seeding;
use crate::seed::run_seeder;
use crate::store::locked::LockedUser;
use crate::store::record::LastSeeding;
use crate::store::record::Record;
use crate::store::registry::Pag;
use crate::store::ring::Ring;
use crate::types::Client;
use crate::types::ServiceKind;
use crate::types::Word;

/// Brings a refreshed ticket into the PAG that it belongs to, and fresh tokens from it, without putting the caller into
/// the PAG: a screen unlock runs in a process outside the session. Without root, as a screen locker of the user's own
/// has it, the seeder runs if the caller is in a PAG.
///
/// # Errors
/// When the registry is out of reach.
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
        // Asked for before the lock is held: NSS may be slow.
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
    reap(&locked, &mut pags, user, repaired(&attempt));
    let Some((index, ring)) = refreshes(&attempt, &pags) else { return Ok(()) };
    let mut pag = pags.swap_remove(index);
    let Ok(mut record) = pag.record.clone() else { return Ok(()) };
    // No login's: what is brought there would go to the session that it follows.
    if record.follows.is_some() {
        return Ok(());
    }
    let tried = record.last_seeding;
    let (_, work) = take_ticket(&attempt, &mut record, pag.id, &ring, PagState::Known);
    // Good tokens are worth renewing only with a ticket that they were not made from: sshd, for one, refreshes the
    // credentials of a login that has just got them.
    let news = attempt.ticket_end(Some(&record)).unwrap_or(0);
    let stale = tried.is_none_or(|last| {
        news > last.ticket || (news == 0 && policy::worth_seeding(tried, crate::sys::now(), 0, true))
    });
    let wanted = stale || record.last_seeding != tried;
    if wanted {
        record.last_seeding = Some(LastSeeding { at: crate::sys::now(), ok: false, ticket: news });
        record.discarded.clear();
    }
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

/// Where a refreshed ticket belongs: never into a new PAG, and never into one of another identity. The login's own
/// PAG, when this process has opened it; else the one that it is in, as a screen locker is; else, from outside, the
/// one of the login that it looks like, whatever scope that has come under; else the one that would be joined.
pub(super) fn refreshes(attempt: &LoginAttempt<'_>, pags: &[Pag]) -> Option<(usize, Ring)> {
    let account = attempt.account();
    let brought = attempt.ticket.as_ref().map(|ticket| &ticket.summary.principal);
    let fits = |record: &Record| match (&record.principal, brought) {
        (Some(there), Some(brought)) => there == brought,
        (None, Some(brought)) => account.owns(brought),
        (_, None) => true,
    };
    let at = |wanted: &dyn Fn(&Pag) -> bool| {
        let found = pags.iter().enumerate().find(|(_, pag)| wanted(pag) && pag.record.as_ref().is_ok_and(fits));
        found.and_then(|(index, pag)| Some((index, *pag.ring.as_ref().ok()?)))
    };
    let opened = attempt.request.state.and_then(|state| state.pag);
    if let Some(own) = opened.and_then(|(id, _)| at(&|pag| pag.id == id)) {
        return Some(own);
    }
    if let Some(current) = Ring::current()
        && let Some(inside) = at(&|pag| pag.ring.as_ref() == Ok(&current))
    {
        return Some(inside);
    }
    if attempt.request.settings.placement == ServiceKind::Login {
        let (tty, service) = (Word::clean(attempt.request.tty), Word::clean(attempt.request.service));
        let scope = attempt.request.settings.scope;
        let news = policy::Refreshed { principal: brought, tty: &tty, service: &service, scope };
        if let Some(id) = policy::refreshed(&candidates(pags), news, &account) {
            return at(&|pag| pag.id == id);
        }
    }
    match choose(attempt, pags) {
        Choice::Join(index, ring) => Some((index, ring)),
        _ => None,
    }
}
