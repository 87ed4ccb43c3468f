//! A login leaves its PAG.

use std::ffi::CStr;

use super::attempt::LOCK_WAIT;
use super::linger::is_lingering;
use super::state::LoginState;
use super::upkeep::{apply_fate, is_elsewhere, logins};
use crate::error::{Error, Result};
use crate::guard::{Guard, HandleGroup};
use crate::keyring;
use crate::nudge::nudge;
use crate::report::{Event, report};
use crate::store::lease::{self, Lease, LeaseKind};
use crate::store::locked::LockedUser;
use crate::store::registry::Pag;
use crate::store::ring::{self, Ring};
use crate::sys::{self, Passwd, Process};
use crate::types::Word;

/// Ends a login's lease, and with the last lease the PAG. Takes this process out of the ring, since a host that goes on
/// must not do later work in this user's PAG. Without root, as in the user manager's `(sd-pam)`, nothing is done here:
/// the helper ends the lease.
///
/// # Errors
/// When the registry can't be locked or read. The lease then ends with its process.
pub fn leave(state: &LoginState) -> Result<()> {
    end(state, true)
}

/// Ends a login that has opened no session and will not open one. Like [`leave`], except that a process that was in the
/// ring before this login stays there: such a login has only checked a password.
///
/// # Errors
/// As [`leave`].
pub fn give_up(state: &LoginState) -> Result<()> {
    end(state, state.moved)
}

/// Takes a process that goes on as root out of the ring of a session that stays open. It has ended its PAM handle
/// (JupyterHub) or has a session of another user open, too, so the next program that it starts may be any user's. A
/// process that has become the user is the session, and stays.
///
/// # Errors
/// EDQUOT. The process is then still in the ring.
pub fn step_out(state: &LoginState) -> Result<()> {
    let Some(ring) = state.ring else { return Ok(()) };
    let [_, effective, _] = sys::ids().uid;
    let goes_on = effective == 0 && state.process.is_this();
    if goes_on && (ring.is_current() || keyring::session_is_dead()) { ring::leave() } else { Ok(()) }
}

/// Ends the newest session of this user and PAM service that this process has opened with another PAM handle.
/// JupyterHub (by pamela) and smbd use a new handle for each call. Without root nothing is done.
///
/// # Errors
/// When the registry can't be locked or read. The lease then ends with its process.
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
    end_session(&locked, pag, cookie, &user.name);
    drop(locked);
    drop(guard);
    if is_inside {
        ring::leave()?;
    }
    nudge(user.uid);
    Ok(())
}

/// Ends the lease of a login, and takes this process `out` of the ring if it is the one that has entered it.
fn end(state: &LoginState, out: bool) -> Result<()> {
    let Some(ring) = state.ring else { return Ok(()) };
    // A dead session keyring is the ring that a member has revoked, and the host can't use it.
    let current = ring.is_current() || keyring::session_is_dead();
    let is_out_of_reach = state.is_out_of_reach();
    if state.opened && !is_out_of_reach && !current && is_in_keyring_of_user(state.uid) {
        report(&Event::Displaced { uid: state.uid, ring: ring.serial });
    }
    let result = if is_out_of_reach {
        // The helper and the next login see when the process ends, and the lease ends with it.
        log::debug!("uid {} keeps its lease until this process ends, which has entered a chroot", state.uid);
        Guard::enter(ring.group).map(drop)
    } else {
        end_lease(state, &ring)
    };
    if matches!(result, Err(Error::NotRoot)) {
        return Ok(());
    }
    // A process that the host has forked off stays in the ring.
    if out && current && state.process.is_this() {
        ring::leave()?;
    }
    if !is_out_of_reach {
        nudge(state.uid);
    }
    result
}

/// Whether this process is in a session keyring that the user owns and that is no ring. That is one of pam_keyinit's.
/// Another session of this host leaves a keyring of the host's, or a ring of its own.
fn is_in_keyring_of_user(uid: u32) -> bool {
    let is_users = |found: keyring::Description<'_>| found.uid == uid;
    let session = || keyring::session().and_then(|serial| keyring::describe(serial, is_users));
    Ring::current().is_none() && session().unwrap_or(false)
}

/// Ends the lease of a login in the registry.
fn end_lease(state: &LoginState, ring: &Ring) -> Result<()> {
    let guard = Guard::enter(ring.group)?;
    let Some((id, place)) = state.pag else { return Ok(()) };
    let user = LockedUser::lock(&guard, state.uid, LOCK_WAIT)?;
    if let Some(pag) = user.look_up(place, id)? {
        end_session(&user, pag, state.cookie, state.name.as_c_str());
    }
    Ok(())
}

/// Ends one session of the lease with this cookie, and the PAG if it has no other lease. A failure is reported. `name` is
/// the user's: the lock is held, so no name service is asked for it here.
pub(super) fn end_session(user: &LockedUser<'_>, mut pag: Pag, cookie: u64, name: &CStr) {
    let Ok(mut record) = pag.record.clone() else { return };
    let id = pag.id;
    lease::release(&mut record.leases, cookie);
    record.leases.retain(|lease| lease.process.is_alive());
    let stays = || {
        let pags = user.pags().unwrap_or_default();
        is_elsewhere(&logins(&pags), id) || is_lingering(name)
    };
    apply_fate(user, &mut pag, record, stays);
}
