//! A login chooses its PAG and enters it.

use std::io;
use std::time::Duration;

use super::attempt::{LOCK_WAIT, LoginAttempt};
use super::ccache_work::CcacheWork;
use super::join::{joined, make, sweep};
use super::leave::end_session;
use super::placed::Placed;
use super::state::LoginState;
use super::tokens::need;
use super::upkeep::{of_newer_release, reap};
use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::keyring;
use crate::mirror::follow;
use crate::policy::{self, Newcomer, Placement, candidates};
use crate::report::{Event, report};
use crate::store::lease::Lease;
use crate::store::locked::LockedUser;
use crate::store::record::PagKind;
use crate::store::registry::Pag;
use crate::store::ring::{self, Ring, RingFault};
use crate::types::{PagId, Scope, ServiceKind};

/// The place of a newcomer among the PAGs that were read.
pub(super) enum Choice {
    /// Join the PAG with this index, by this ring.
    Join(usize, Ring),
    Make(PagKind),
    Nowhere,
}

/// Puts the calling thread into the ring of its PAG. Without the registry it makes a PAG for this login alone.
///
/// # Errors
/// When the thread could not enter a PAG. Its session keyring is then the one that it had, or a fresh one if that can't
/// be used.
pub(super) fn place<'a>(attempt: &'a LoginAttempt<'_>) -> Result<Placed<'a>> {
    let guard = Guard::enter(attempt.group)?;
    let ring_before = Ring::current();
    let strangers = if ring_before.is_some() || attempt.is_manager() { 0 } else { ring::strangers_in_session() };
    let placed = match place_in_registry(attempt, &guard) {
        // The registry can't be locked or read, or this process can't join the user's PAG. A PAG for this login alone needs
        // neither. A seeding job is for one PAG of the registry and for no other.
        Err(why @ (Error::Lock { .. } | Error::System { .. } | Error::JoinRefused { .. }))
            if attempt.request.settings.placement != ServiceKind::Seed =>
        {
            report(&Event::Private { uid: attempt.uid(), why: why.to_string() });
            private(attempt, &guard)
        }
        placed => placed,
    };
    let mut placed = match placed {
        Ok(placed) => placed,
        Err(why) => {
            // In the keyring that a failed join leaves, or in a dead one, the user would find no key.
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

/// Puts the calling thread into a PAG of the registry, under the uid's lock.
fn place_in_registry<'a>(attempt: &'a LoginAttempt<'_>, guard: &Guard) -> Result<Placed<'a>> {
    let wait = LOCK_WAIT.min(attempt.budget.left().max(Duration::from_millis(200)));
    let user = LockedUser::lock(guard, attempt.uid(), wait)?;
    let mut placed = match return_to_place(attempt, &user)? {
        Some(placed) => placed,
        None => choose_place(attempt, &user)?,
    };
    if attempt.is_manager()
        && let Err(why) = follow_at_once(attempt, &user, &mut placed)
    {
        // The helper tries again, and reports a failure.
        log::debug!("the services of uid {} follow no session yet: {why}", attempt.uid());
    }
    Ok(placed)
}

/// Gives a new user manager's ring the tokens of the newest session, since the manager reads its user's units when it
/// starts. The login does not ask logind: the helper does that later, and has the manager follow another session if
/// need be.
fn follow_at_once(attempt: &LoginAttempt<'_>, user: &LockedUser<'_>, placed: &mut Placed<'_>) -> Result<()> {
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

/// Chooses the PAG of a login's first hook, and joins it or makes it. It ends the user's PAGs that are over, and
/// removes their ccaches.
fn choose_place<'a>(attempt: &'a LoginAttempt<'_>, user: &LockedUser<'_>) -> Result<Placed<'a>> {
    let mut pags = user.pags()?;
    let known: Vec<PagId> = pags.iter().map(|pag| pag.id).collect();
    let foreign: Vec<Event> = pags.iter().filter_map(of_newer_release).collect();
    reap(user, &mut pags, &attempt.request.user.name, kind_of_repaired(attempt));
    let lease = attempt.lease()?;
    let kind = match choose(attempt, &pags) {
        Choice::Join(index, chosen) => match chosen.join(user.guard()) {
            Ok(()) => {
                // A seeding job takes no lease, since it does not keep the PAG in use.
                let lease = (attempt.request.settings.placement != ServiceKind::Seed).then_some(lease);
                return joined(attempt, user, pags.swap_remove(index), chosen, lease);
            }
            Err(why) => {
                // This thread must not stay where the failed join has left it.
                ring::fresh(user.guard(), attempt.uid())?;
                let Some(lost) = why_lost(attempt, &chosen, &why) else {
                    return Err(Error::JoinRefused { ring: chosen.serial, why: why.to_string() });
                };
                if let Some(pag) = pags.get(index) {
                    report(&Event::RingBroken { uid: attempt.uid(), pag: pag.id, why: lost });
                    user.retire(pag)?;
                }
                if attempt.request.settings.placement == ServiceKind::Seed {
                    return Err(why);
                }
                PagKind::User
            }
        },
        Choice::Make(kind) => {
            // Only the login that makes a PAG reports this: each later one joins that PAG.
            foreign.iter().for_each(|event| report(event));
            kind
        }
        Choice::Nowhere => {
            let nothing = io::Error::from_raw_os_error(libc::ENOENT);
            return Err(Error::key(format!("find a PAG of uid {} to seed", attempt.uid()))(nothing));
        }
    };
    sweep(attempt, &known);
    make_and_retry(attempt, user, kind, lease)
}

/// Makes a PAG, and once more if the first ring can't be joined.
fn make_and_retry<'a>(
    attempt: &'a LoginAttempt<'_>,
    user: &LockedUser<'_>,
    kind: PagKind,
    lease: Lease,
) -> Result<Placed<'a>> {
    match make(attempt, user, kind, lease.clone()) {
        Err(Error::NotJoined { .. }) => {
            ring::fresh(user.guard(), attempt.uid())?;
            make(attempt, user, kind, lease)
        }
        made => made,
    }
}

/// Returns to the PAG that an earlier hook of this login has entered. None if the login has to choose again, since that
/// PAG has ended, is damaged, or is not for the ticket that this hook brings.
fn return_to_place<'a>(attempt: &'a LoginAttempt<'_>, user: &LockedUser<'_>) -> Result<Option<Placed<'a>>> {
    let Some(state) = attempt.request.state.filter(|state| state.uid == attempt.uid()) else { return Ok(None) };
    let (Some(ring), Some((id, place))) = (state.ring, state.pag) else { return Ok(None) };
    let Some(pag) = user.look_up(place, id)? else { return Ok(None) };
    if pag.ring.as_ref() != Ok(&ring) || pag.record.is_err() {
        return Ok(None);
    }
    // The earlier hook may have come without the ticket, which may be of another identity than the PAG.
    if pag.record.as_ref().is_ok_and(|record| !attempt.may_stay(record, Some(state.cookie))) {
        end_session(user, pag, state.cookie, &attempt.request.user.name);
        ring::fresh(user.guard(), attempt.uid())?;
        return Ok(None);
    }
    if !rejoin(attempt, user, &state, &ring) {
        return Ok(None);
    }
    // A close_session since then has ended the lease.
    let has_it = pag.record.as_ref().is_ok_and(|r| r.leases.iter().any(|lease| lease.cookie == state.cookie));
    let lease = if has_it { None } else { Some(attempt.lease()?) };
    let mut placed = joined(attempt, user, pag, ring, lease)?;
    if has_it {
        placed.cookie = state.cookie;
    }
    placed.seeded |= state.seeded;
    Ok(Some(placed))
}

/// Puts the thread back into `ring` if it has left it, and reports that another module has replaced the session
/// keyring. False if the ring can't be joined.
fn rejoin(attempt: &LoginAttempt<'_>, user: &LockedUser<'_>, state: &LoginState, ring: &Ring) -> bool {
    if ring.is_current() {
        return true;
    }
    if state.opened && !attempt.request.opening && !attempt.request.several {
        report(&Event::Displaced { uid: attempt.uid(), ring: ring.serial });
    }
    ring.join(user.guard()).is_ok()
}

/// Chooses the PAG of a newcomer among `pags`.
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

/// The kind that a PAG gets when its record is damaged and has to be made anew. With `scope = user` this login may join
/// it.
pub(super) fn kind_of_repaired(attempt: &LoginAttempt<'_>) -> PagKind {
    if attempt.request.settings.scope == Scope::User { PagKind::User } else { PagKind::Session }
}

/// Why no process can join `ring` any more, after this one has failed to: `failed`. None if this process alone could not,
/// for want of memory or of a permission: the PAG goes on for others.
fn why_lost(attempt: &LoginAttempt<'_>, ring: &Ring, failed: &Error) -> Option<String> {
    match Ring::look(ring.serial, attempt.uid(), attempt.group) {
        Err(RingFault::Lost(why)) => Some(why),
        Ok(now) if now != *ring => Some("it is another ring now".to_owned()),
        _ => matches!(failed, Error::NotJoined { squatted: true, .. }).then(|| failed.to_string()),
    }
}

/// Makes a PAG outside the registry. It ends with its processes, and no other login can join it.
fn private<'a>(attempt: &'a LoginAttempt<'_>, guard: &Guard) -> Result<Placed<'a>> {
    let ring = Ring::make(guard, attempt.group, attempt.uid())?;
    let joined = ring.join(guard);
    ring.release();
    joined?;
    let (need, work) = (need(attempt, None, &ring, true), CcacheWork::None);
    Ok(Placed { ring, pag: None, cookie: 0, need, work, seeded: false, moved: true })
}
