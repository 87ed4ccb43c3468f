//! The PAGs of one user, while this process holds the lock of the uid.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use super::lock::Lock;
use super::record::Record;
use super::registry::{HolderRef, Pag, Registry};
use super::ring::Ring;
use crate::ccache;
use crate::error::{Error, Result};
use crate::guard::{Guard, HandleGroup};
use crate::types::PagId;

/// Longest wait for the lock under which the registry is made. A process holds it for about a millisecond.
const REGISTRY_LOCK_WAIT: Duration = Duration::from_secs(2);

/// The lock of a uid, and so the right to change the user's part of the registry. Dropping it releases the lock.
#[derive(Debug)]
#[must_use]
pub struct LockedUser<'guard> {
    guard: &'guard Guard,
    lock: Lock,
    uid: u32,
    /// The registry, once it has been found.
    registry: Cell<Option<Registry>>,
}

impl<'guard> LockedUser<'guard> {
    /// Takes the lock of `uid`, waiting at most `wait`.
    ///
    /// # Errors
    /// `Lock`. Its source is `TimedOut` if another process held the lock all the time.
    pub fn lock(guard: &'guard Guard, uid: u32, wait: Duration) -> Result<Self> {
        Ok(LockedUser { guard, lock: Lock::of_uid(uid, wait)?, uid, registry: Cell::new(None) })
    }

    /// The user.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The guard under which the lock was taken.
    pub fn guard(&self) -> &'guard Guard {
        self.guard
    }

    /// The registry; `None` if this system has none.
    ///
    /// # Errors
    /// As [`Registry::find`].
    pub fn registry(&self) -> Result<Option<Registry>> {
        if self.registry.get().is_none() {
            self.registry.set(Registry::find(self.guard)?);
        }
        Ok(self.registry.get())
    }

    /// The user's PAGs.
    ///
    /// # Errors
    /// As [`Registry::find`] and [`Registry::pags`].
    pub fn pags(&self) -> Result<Vec<Pag>> {
        match self.registry()? {
            Some(registry) => registry.pags_of(&self.lock, self.uid),
            None => Ok(Vec::new()),
        }
    }

    /// The user's PAG with this name.
    ///
    /// # Errors
    /// As [`LockedUser::pags`].
    pub fn pag(&self, id: PagId) -> Result<Option<Pag>> {
        Ok(self.pags()?.into_iter().find(|pag| pag.id == id))
    }

    /// Finds a PAG that was seen at `place`. Reads the user's other PAGs only if it is no longer there.
    ///
    /// # Errors
    /// As [`LockedUser::pags`].
    pub fn look_up(&self, place: HolderRef, id: PagId) -> Result<Option<Pag>> {
        if let Some((registry, pag)) = Registry::at(self.guard, place, self.uid, id) {
            self.registry.set(Some(registry));
            return Ok(Some(pag));
        }
        self.pag(id)
    }

    /// Makes a PAG from a ring and a record, and gives its ccache its name. Makes the registry if there is none.
    ///
    /// # Errors
    /// `Key`, for example EDQUOT of root: the ring is then still only in the process keyring. `Lock` if the registry
    /// cannot be made.
    pub fn anchor(&self, id: PagId, ring: &Ring, record: Record) -> Result<Pag> {
        self.check(record.uid)?;
        let registry = match self.registry()? {
            Some(registry) => registry,
            None => Registry::open(self.guard, REGISTRY_LOCK_WAIT)?,
        };
        self.registry.set(Some(registry));
        let pag = registry.anchor(&self.lock, id, ring, record)?;
        ccache::finish(self.uid, id);
        Ok(pag)
    }

    /// Replaces a PAG's record in one step.
    ///
    /// # Errors
    /// `Key`; the old record is then unchanged. So it is for a PAG, or a record, of another user.
    pub fn store(&self, pag: &mut Pag, record: Record) -> Result<()> {
        self.check(pag.uid)?;
        self.check(record.uid)?;
        pag.store(record)
    }

    /// Refuses what is of another user: the lock of this one does not protect it.
    fn check(&self, uid: u32) -> Result<()> {
        if uid == self.uid {
            return Ok(());
        }
        let doing = format!("change a PAG of uid {uid} under the lock of uid {}", self.uid);
        Err(Error::key(doing)(io::ErrorKind::InvalidInput.into()))
    }

    /// Changes the record of a PAG. Does nothing if the PAG has ended or its record cannot be read.
    ///
    /// # Errors
    /// As [`LockedUser::pags`] and [`LockedUser::store`].
    pub fn edit(&self, id: PagId, change: impl FnOnce(&mut Record)) -> Result<()> {
        let Some(mut pag) = self.pag(id)? else { return Ok(()) };
        let Ok(mut record) = pag.record.clone() else { return Ok(()) };
        change(&mut record);
        self.store(&mut pag, record)
    }

    /// Ends a PAG, and removes its ccache. Only its members then keep the ring, and the kernel frees it with the last of
    /// them.
    ///
    /// # Errors
    /// `Key`. ENOENT is no error: the PAG was ended already.
    pub fn retire(&self, pag: &Pag) -> Result<()> {
        self.check(pag.uid)?;
        // First: a process that is killed in between leaves a PAG, and the next one ends it. No process would look for the
        // ccache of a PAG that has ended.
        ccache::remove(pag.uid, pag.id);
        match self.registry()? {
            Some(registry) => registry.retire(pag),
            None => Ok(()),
        }
    }
}

/// Takes the lock of `uid`, waiting at most `wait`, and changes the record of a PAG as [`LockedUser::edit`] does.
///
/// # Errors
/// As [`LockedUser::lock`] and [`LockedUser::edit`].
pub fn change_record(
    group: HandleGroup,
    uid: u32,
    id: PagId,
    wait: Duration,
    change: impl FnOnce(&mut Record),
) -> Result<()> {
    let guard = Guard::enter(group)?;
    LockedUser::lock(&guard, uid, wait)?.edit(id, change)
}
