//! A login leaves its PAG.

use super::attempt::LOCK_WAIT;
use super::linger::is_lingering;
use super::state::LoginState;
use super::upkeep::apply_fate;
use super::upkeep::with_logins;
use crate::error::Error;
use crate::error::Result;
use crate::guard::Guard;
use crate::guard::HandleGroup;
use crate::keyring;
use crate::nudge::nudge;
use crate::report::Event;
use crate::report::report;
use crate::store::lease;
use crate::store::lease::Lease;
use crate::store::lease::LeaseKind;
use crate::store::locked::LockedUser;
use crate::store::registry::Pag;
use crate::store::ring;
use crate::store::ring::Ring;
use crate::sys;
use crate::sys::Passwd;
use crate::sys::Process;
use crate::sys::Who;
use crate::types::Word;

/// Ends a login's lease, and with the last one the PAG. A host that goes on is taken out of the ring: it must not run
/// later work as this user. Without root (the user manager's `(sd-pam)`) nothing is done; the helper sees to it.
///
/// # Errors
/// When the registry is out of reach: the lease ends with its process all the same.
pub fn leave(state: &LoginState) -> Result<()> {
    end(state, true)
}

/// The same for a login that has opened no session, and of which no more will be heard. A process that was in the ring before
/// it stays there: a password was asked for, no more.
///
/// # Errors
/// As [`leave`].
pub fn give_up(state: &LoginState) -> Result<()> {
    end(state, state.moved)
}

/// Takes a process out of the ring of a session that stays open, where the process goes on as root: it has ended the handle
/// (JupyterHub), or has a session of another user open, too, so its next program may be that of any user. A process that has
/// become the user is the session, and stays.
///
/// # Errors
/// EDQUOT: then it is still in the ring.
pub fn step_out(state: &LoginState) -> Result<()> {
    let Some(ring) = state.ring else { return Ok(()) };
    let [_, effective, _] = sys::ids().uid;
    let goes_on = effective == 0 && state.process.is_this();
    if goes_on && (ring.is_current() || keyring::session_is_dead()) { ring::leave() } else { Ok(()) }
}

/// Ends a session that this process has opened with another handle: the newest of this user and PAM service. JupyterHub (by
/// pamela) and smbd start a handle for each call, and end it.
///
/// # Errors
/// When the registry is out of reach: the lease ends with its process all the same.
pub fn leave_by_another_handle(user: &Passwd, service: &str) -> Result<()> {
    let group = HandleGroup::read();
    let guard = match Guard::enter(group) {
        Err(Error::NotRoot) => return Ok(()),
        guard => guard?,
    };
    let Some(process) = Process::current() else { return Ok(()) };
    let locked = LockedUser::lock(&guard, user.uid, LOCK_WAIT)?;
    let service = Word::clean(service);
    let is_meant =
        |lease: &&Lease| lease.process == process && lease.role == LeaseKind::Login && lease.service == service;
    let newest = |pag: Pag| {
        let record = pag.record.as_ref().ok()?;
        let cookie = record.leases.iter().rev().find(is_meant)?.cookie;
        Some((record.made, cookie, pag))
    };
    let open = locked.pags()?.into_iter().filter_map(newest);
    let Some((_, cookie, pag)) = open.max_by_key(|(made, ..)| *made) else {
        log::debug!("this process has no session of uid {} open for {service}", user.uid);
        return Ok(());
    };
    let is_inside = pag.ring.as_ref().is_ok_and(Ring::is_current);
    end_session(&locked, pag, cookie);
    drop(locked);
    drop(guard);
    if is_inside {
        ring::leave()?;
    }
    nudge(user.uid);
    Ok(())
}

fn end(state: &LoginState, out: bool) -> Result<()> {
    let Some(ring) = state.ring else { return Ok(()) };
    // A ring that a member has revoked leaves the host with a session keyring in which nothing works.
    let current = ring.is_current() || keyring::session_is_dead();
    // pam_keyinit makes the user's keyring; what another session of this host has left, when it closed, is the host's
    // own, and its ring, while it is open, is not this session's affair.
    let users = |d: keyring::Description<'_>| d.uid == state.uid;
    let replaced = || keyring::session().and_then(|serial| keyring::describe(serial, users)).unwrap_or(false);
    let is_out_of_reach = state.is_out_of_reach();
    if state.opened && !is_out_of_reach && !current && Ring::current().is_none() && replaced() {
        report(&Event::Displaced { uid: state.uid, ring: ring.serial });
    }
    let result = if is_out_of_reach {
        // The lease ends with the process, as the helper and the next login see.
        log::debug!("uid {} keeps its lease until this process ends, which has entered a chroot", state.uid);
        Guard::enter(ring.group).map(drop)
    } else {
        end_lease(state, &ring)
    };
    if matches!(result, Err(Error::NotRoot)) {
        return Ok(());
    }
    // Not a process that was forked off: the ring is its own affair.
    if out && current && state.process.is_this() {
        ring::leave()?;
    }
    if !is_out_of_reach {
        nudge(state.uid);
    }
    result
}

fn end_lease(state: &LoginState, ring: &Ring) -> Result<()> {
    let guard = Guard::enter(ring.group)?;
    let Some((id, place)) = state.pag else { return Ok(()) };
    let user = LockedUser::lock(&guard, state.uid, LOCK_WAIT)?;
    if let Some(pag) = user.look_up(place, id)? {
        end_session(&user, pag, state.cookie);
    }
    Ok(())
}

/// Ends one session that the lease with this cookie stands for.
pub(super) fn end_session(user: &LockedUser<'_>, mut pag: Pag, cookie: u64) {
    let Ok(mut record) = pag.record.clone() else { return };
    let (uid, id) = (pag.uid, pag.id);
    lease::release(&mut record.leases, cookie);
    record.leases.retain(|lease| lease.process.is_alive());
    let stays = || {
        let pags = user.pags().unwrap_or_default();
        let lingers = |user: Option<Passwd>| user.is_some_and(|user| is_lingering(&user));
        with_logins(&pags).iter().any(|other| *other != id) || sys::passwd(Who::Uid(uid)).is_ok_and(lingers)
    };
    apply_fate(user, &mut pag, record, stays);
}
