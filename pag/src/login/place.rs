//! Choosing the PAG of a login, and attempt it.

use super::placed::Placed;
use super::upkeep::of_newer_release;
use std::io;
use std::time::Duration;

use super::attempt::LOCK_WAIT;
use super::attempt::LoginAttempt;
use super::ccache_work::CcacheWork;
use super::join::joined;
use super::join::make;
use super::join::sweep;
use super::leave::end_session;
use super::tokens::need;
use super::upkeep::reap;
use crate::error::Error;
use crate::error::Result;
use crate::guard::Guard;
use crate::keyring;
use crate::mirror::follow;
use crate::policy;
use crate::policy::Newcomer;
use crate::policy::Placement;
use crate::policy::candidates;
use crate::report::Event;
use crate::report::report;
use crate::store::locked::LockedUser;
use crate::store::record::PagKind;
use crate::store::registry::Pag;
use crate::store::ring;
use crate::store::ring::Ring;
use crate::types::PagId;
use crate::types::Scope;
use crate::types::ServiceKind;

/// Where a newcomer goes, among the PAGs that were read.
pub(super) enum Choice {
    Join(usize, Ring),
    Make(PagKind),
    Nowhere,
}

pub(super) fn place(attempt: &LoginAttempt<'_>) -> Result<Placed> {
    let guard = Guard::enter(attempt.group)?;
    let ring_before = Ring::current();
    let strangers = if ring_before.is_some() || attempt.is_manager() { 0 } else { ring::strangers_in_session() };
    let mut placed = match place_in_registry(attempt, &guard) {
        Ok(placed) => placed,
        // The registry is out of reach: alone is better than not at all, and an unlocked registry is not touched.
        Err(why @ (Error::Lock { .. } | Error::System { .. })) => {
            report(&Event::Private { uid: attempt.uid(), why: why.to_string() });
            private(attempt, &guard)?
        }
        Err(why) => {
            // Not in what a failed join has left, nor in what was unusable before: no key would be found there.
            if matches!(why, Error::NotJoined { .. }) || keyring::session().is_err() {
                ring::fresh(&guard, attempt.uid())?;
            }
            return Err(why);
        }
    };
    placed.moved = ring_before.is_none_or(|ring| ring != placed.ring);
    if let Err(why) = placed.ring.link_user_keyring(&guard, attempt.uid()) {
        report(&Event::UserKeyringNotLinked { uid: attempt.uid(), why: why.to_string() });
    }
    if strangers > 0 {
        report(&Event::StrangersLost { uid: attempt.uid(), count: strangers });
    }
    Ok(placed)
}

pub(super) fn place_in_registry(attempt: &LoginAttempt<'_>, guard: &Guard) -> Result<Placed> {
    let user =
        LockedUser::lock(guard, attempt.uid(), LOCK_WAIT.min(attempt.budget.left().max(Duration::from_millis(200))))?;
    let mut placed = match again(attempt, &user)? {
        Some(placed) => placed,
        None => choose_place(attempt, &user)?,
    };
    if attempt.is_manager()
        && let Err(why) = follow_at_once(attempt, &user, &mut placed)
    {
        // The helper has reason to try again, and says so.
        log::debug!("the services of uid {} follow nobody yet: {why}", attempt.uid());
    }
    Ok(placed)
}

/// A manager reads its user's units when it starts: it has the tokens of a session by then, of the newest one, since
/// nobody has asked logind yet. The helper has it follow another where that is right.
pub(super) fn follow_at_once(attempt: &LoginAttempt<'_>, user: &LockedUser<'_>, placed: &mut Placed) -> Result<()> {
    let Some((pag, record)) = &mut placed.pag else { return Ok(()) };
    if record.follows.is_some() || !policy::is_follower(record, crate::sys::now()) {
        return Ok(());
    }
    let pags = user.pags()?;
    let followed = policy::followed(attempt.request.settings.follow, &candidates(&pags), None, None, |_| None);
    let Some(leader) = pags.iter().find(|other| Some(other.id) == followed) else { return Ok(()) };
    follow::mirror(user, pag, leader)?;
    report(&Event::Follows { uid: pag.uid, pag: pag.id, followed: leader.id, session: None });
    if let Ok(now) = &pag.record {
        *record = now.clone();
    }
    Ok(())
}

pub(super) fn choose_place(attempt: &LoginAttempt<'_>, user: &LockedUser<'_>) -> Result<Placed> {
    let mut pags = user.pags()?;
    let known: Vec<PagId> = pags.iter().map(|pag| pag.id).collect();
    let foreign: Vec<Event> = pags.iter().filter_map(of_newer_release).collect();
    reap(user, &mut pags, attempt.request.user, repaired(attempt));
    let lease = attempt.lease()?;
    let kind = match choose(attempt, &pags) {
        Choice::Join(index, chosen) => match chosen.join(user.guard()) {
            Ok(()) => {
                // A seeding job is no reason to keep a PAG.
                let lease = (attempt.request.settings.placement != ServiceKind::Seed).then_some(lease);
                return joined(attempt, user, pags.swap_remove(index), chosen, lease);
            }
            Err(why) => {
                abandon(attempt, user, &pags, index, &why.to_string())?;
                PagKind::User
            }
        },
        Choice::Make(kind) => {
            // Once, and not by each login that joins the one that is made now.
            foreign.iter().for_each(|event| report(event));
            kind
        }
        Choice::Nowhere => {
            let nothing = io::Error::from_raw_os_error(libc::ENOENT);
            return Err(Error::key(format!("find a PAG of uid {} to seed", attempt.uid()))(nothing));
        }
    };
    sweep(attempt, &known);
    // A second time when the first new ring cannot be joined either, and no third.
    match make(attempt, user, kind, lease.clone()) {
        Err(Error::NotJoined { .. }) => {
            ring::fresh(user.guard(), attempt.uid())?;
            make(attempt, user, kind, lease)
        }
        made => made,
    }
}

/// A hook that comes after another of the same login: the PAG is chosen already.
pub(super) fn again(attempt: &LoginAttempt<'_>, user: &LockedUser<'_>) -> Result<Option<Placed>> {
    let Some(state) = attempt.request.state.filter(|state| state.uid == attempt.uid()) else { return Ok(None) };
    let (Some(ring), Some((id, place))) = (state.ring, state.pag) else { return Ok(None) };
    let Some(pag) = user.look_up(place, id)? else { return Ok(None) };
    // What is damaged is put right by going the whole way.
    if pag.ring.as_ref() != Ok(&ring) || pag.record.is_err() {
        return Ok(None);
    }
    // The ticket that an earlier hook came without may be of an identity that has no place there.
    if pag.record.as_ref().is_ok_and(|record| !attempt.may_stay(record, Some(state.cookie))) {
        end_session(user, pag, state.cookie);
        ring::fresh(user.guard(), attempt.uid())?;
        return Ok(None);
    }
    if !ring.is_current() {
        if state.opened && !attempt.request.opening && !attempt.request.several {
            report(&Event::Displaced { uid: attempt.uid(), ring: ring.serial });
        }
        if ring.join(user.guard()).is_err() {
            return Ok(None);
        }
    }
    // The lease is there, unless close_session came in between.
    let has_it = pag.record.as_ref().is_ok_and(|r| r.leases.iter().any(|lease| lease.cookie == state.cookie));
    let lease = if has_it { None } else { Some(attempt.lease()?) };
    let mut placed = joined(attempt, user, pag, ring, lease)?;
    if has_it {
        placed.cookie = state.cookie;
    }
    placed.seeded |= state.seeded;
    Ok(Some(placed))
}

pub(super) fn choose(attempt: &LoginAttempt<'_>, pags: &[Pag]) -> Choice {
    let newcomer = match attempt.request.settings.placement {
        ServiceKind::Manager => Newcomer::Manager,
        ServiceKind::Seed => Newcomer::Seed,
        ServiceKind::Own => Newcomer::Own,
        ServiceKind::Login | ServiceKind::Nothing => Newcomer::Login {
            principal: attempt.ticket.as_ref().map(|ticket| &ticket.summary.principal),
            join: attempt.request.settings.join,
            scope: attempt.request.settings.scope,
        },
    };
    match policy::place(newcomer, &attempt.account(), &candidates(pags)) {
        Placement::Make(kind) => Choice::Make(kind),
        Placement::Nowhere => Choice::Nowhere,
        Placement::Join(id) => pags
            .iter()
            .enumerate()
            .find_map(|(index, pag)| (pag.id == id).then_some(Choice::Join(index, *pag.ring.as_ref().ok()?)))
            .unwrap_or(Choice::Nowhere),
    }
}

/// What a PAG is taken for whose record was lost: one that this newcomer may join only where logins share theirs.
pub(super) fn repaired(attempt: &LoginAttempt<'_>) -> PagKind {
    if attempt.request.settings.scope == Scope::User { PagKind::User } else { PagKind::Session }
}

/// A ring that looked whole could not be joined: its PAG is taken out of the registry, so that nobody tries again.
pub(super) fn abandon(
    attempt: &LoginAttempt<'_>,
    user: &LockedUser<'_>,
    pags: &[Pag],
    index: usize,
    why: &str,
) -> Result<()> {
    if let Some(pag) = pags.get(index) {
        report(&Event::RingBroken { uid: attempt.uid(), pag: pag.id, why: why.to_owned() });
        user.retire(pag)?;
    }
    ring::fresh(user.guard(), attempt.uid())
}

/// A PAG outside the registry, that ends with its processes and that nobody else can join.
pub(super) fn private(attempt: &LoginAttempt<'_>, guard: &Guard) -> Result<Placed> {
    let ring = Ring::make(guard, attempt.group, attempt.uid())?;
    let joined = ring.join(guard);
    ring.release();
    joined?;
    let (need, work) = (need(attempt, None, &ring, true), CcacheWork::None);
    Ok(Placed { ring, pag: None, cookie: 0, need, work, seeded: false, moved: true })
}
