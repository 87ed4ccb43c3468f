//! Named PAGs: a unit `pag@NAME.service` keeps one for other services, and root's programs enter it by its name.
//!
//! In the registry it is a PAG of root's. Its only lease names process 1, the service manager. So neither a killed keeper
//! nor the helper ends it: its unit does, when it is stopped.

use std::io;
use std::time::Duration;

use crate::afs::s0;
use crate::ccache;
use crate::error::{Error, Result};
use crate::guard::{Guard, HandleGroup};
use crate::login;
use crate::nudge::nudge;
use crate::report::{Event, report};
use crate::seed::{Seeding, note_seeding};
use crate::store::lease::{Lease, LeaseKind};
use crate::store::locked::LockedUser;
use crate::store::record::{NAMED, PagKind, Record};
use crate::store::registry::Pag;
use crate::store::ring::Ring;
use crate::sys::Process;
use crate::types::{PagId, Principal, Retain, Token};

/// Longest wait for the lock.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// A named PAG that can be entered.
#[derive(Debug, Clone, Copy)]
pub struct NamedPag {
    /// Its id.
    pub id: PagId,
    /// Its ring.
    pub ring: Ring,
}

/// Finds the PAG of this name. Needs root.
///
/// # Errors
/// `NotRoot`; `Lock`; if keyrings cannot be read.
pub fn find(name: &str) -> Result<Option<NamedPag>> {
    let guard = Guard::enter(HandleGroup::read())?;
    let user = LockedUser::lock(&guard, 0, LOCK_WAIT)?;
    Ok(pag_of(&user, name)?.and_then(|pag| Some(NamedPag { id: pag.id, ring: pag.ring.ok()? })))
}

/// Finds the PAG of this name or makes it, with a PAG of OpenAFS where this host has that. A PAG that a killed keeper has
/// left goes on. One that a member has broken gives way to a new one. Needs root.
///
/// # Errors
/// `NotRoot`; `Lock`; `Key`, for example EDQUOT of root.
pub fn find_or_make(name: &str, principal: Option<Principal>) -> Result<NamedPag> {
    let guard = Guard::enter(HandleGroup::read())?;
    let user = LockedUser::lock(&guard, 0, LOCK_WAIT)?;
    if let Some(pag) = pag_of(&user, name)? {
        match (pag.ring.clone(), &pag.record) {
            (Ok(ring), Ok(record)) if record.principal == principal => return Ok(NamedPag { id: pag.id, ring }),
            (Err(why), _) => {
                report(&Event::RingBroken { uid: 0, pag: pag.id, why: why.to_string() });
                user.retire(&pag)?;
            }
            // The configuration names another principal now. Members of the old PAG must not get its tokens.
            _ => end_it(&user, pag),
        }
    }
    let first = Process::find(1).ok_or_else(|| Error::system("read /proc/1/stat")(io::ErrorKind::NotFound.into()))?;
    let lease = Lease::new(first, LeaseKind::Login, &format!("{NAMED}{name}"), "", None);
    let id = PagId::random()?;
    let mut record = Record::new(0, PagKind::Own, ccache::name(0, id), Retain::None);
    record.principal = principal;
    record.leases.push(lease.map_err(Error::system("get random bits for a lease"))?);
    let ring = Ring::make(&guard, guard.group(), 0)?;
    let anchored = user.anchor(id, &ring, record);
    ring.release();
    let mut pag = anchored?;
    if let Err(why) = s0::ensure_afs_pag(&guard, &mut pag) {
        report(&Event::NotEquipped { uid: 0, pag: id, why: why.to_string() });
    }
    report(&Event::Made { uid: 0, pag: id, ring: ring.serial });
    drop(user);
    nudge(0);
    Ok(NamedPag { id, ring })
}

/// Ends the PAG of this name, and discards its tokens: processes that are left in it have none. Needs root.
///
/// # Errors
/// As [`find`].
pub fn end(name: &str) -> Result<()> {
    let guard = Guard::enter(HandleGroup::read())?;
    let user = LockedUser::lock(&guard, 0, LOCK_WAIT)?;
    if let Some(pag) = pag_of(&user, name)? {
        end_it(&user, pag);
        drop(user);
        nudge(0);
    }
    Ok(())
}

impl NamedPag {
    /// Puts this thread into the PAG. Needs root.
    ///
    /// # Errors
    /// `NotRoot`; `NotJoined`: the thread is then in a session keyring that it must not use.
    pub fn enter(&self) -> Result<()> {
        let guard = Guard::enter(self.ring.group)?;
        self.ring.join(&guard)
    }

    /// Notes the tokens of the PAG for those who list it. Needs root.
    ///
    /// # Errors
    /// As [`note_seeding`].
    pub fn note(&self, tokens: &[Token]) -> Result<()> {
        let seeding = Seeding { ok: true, failure: None, tokens: Some(tokens.to_vec()), aliases: Vec::new() };
        note_seeding(self.ring.group, 0, self.id, &seeding, LOCK_WAIT)?;
        nudge(0);
        Ok(())
    }
}

fn pag_of(user: &LockedUser<'_>, name: &str) -> Result<Option<Pag>> {
    Ok(user.pags()?.into_iter().find(|pag| pag.record.as_ref().is_ok_and(|record| record.name() == Some(name))))
}

/// Its lease is its last, so the PAG ends.
fn end_it(user: &LockedUser<'_>, mut pag: Pag) {
    let Ok(mut record) = pag.record.clone() else { return };
    record.leases.clear();
    login::apply_fate(user, &mut pag, record, || false);
}
