//! Handles: what a C program has of a process or a PAG.
//!
//! A handle is a number that looks like a pointer: a slot, and which tenant of the slot it stands for. So a handle is still
//! refused after its end when the slot has a new tenant. With addresses, a request that kept the handle of an ended PAG
//! could enter the PAG that was created next, under another identity.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, RwLock, TryLockError};

/// Each chunk has twice the slots of the one before, so that slots stay where they are. All chunks have room for 2^22 - 64.
const CHUNKS: usize = 16;
const FIRST_CHUNK: usize = 64;

/// Why a handle is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no handle of this kind.
    Unknown,
    /// What it stood for has ended.
    Ended,
    /// It belongs to the parent of this process.
    Forked,
}

/// A slot's tenant.
#[derive(Debug)]
struct Tenant<T> {
    /// How many tenants the slot had before.
    number: u32,
    value: Option<Arc<T>>,
}

/// The lock is held for long only by a reader in [`Table::with`]. A writer makes or ends the tenant, so a reader that finds
/// the slot locked takes the tenant for ended, and need not wait. No writer touches the slot of a living tenant otherwise:
/// not even to see whether it is free, since [`taken`](Slot::taken) tells that.
#[derive(Debug)]
struct Slot<T> {
    /// Whether it has a tenant, or is about to get one.
    taken: AtomicBool,
    /// The process that made the tenant. It stands outside the lock: in a child, the lock may be held for good.
    owner: AtomicU32,
    tenant: RwLock<Tenant<T>>,
}

/// All handles of one kind.
#[derive(Debug)]
pub(super) struct Table<T> {
    /// Stands in each handle, so that a handle of another kind is not taken for one of these.
    kind: u8,
    chunks: [OnceLock<Box<[Slot<T>]>>; CHUNKS],
}

impl<T> Table<T> {
    /// An empty table. `kind` is odd: no object has such an address.
    pub(super) const fn new(kind: u8) -> Self {
        Table { kind, chunks: [const { OnceLock::new() }; CHUNKS] }
    }

    /// Gives a slot to `value` and returns its handle. None if all are taken.
    pub(super) fn insert(&self, value: T) -> Option<*mut c_void> {
        let mut index = 0;
        for (chunk, size) in self.chunks.iter().zip((0..).map(|chunk| FIRST_CHUNK << chunk)) {
            let tenant = || RwLock::new(Tenant { number: 0, value: None });
            let vacant = || Slot { taken: false.into(), owner: 0.into(), tenant: tenant() };
            for slot in chunk.get_or_init(|| (0..size).map(|_| vacant()).collect()) {
                if !slot.taken.swap(true, Ordering::AcqRel) {
                    // If it is locked, a thread looks at it with an old handle; or, in a forked child, it is locked for good.
                    if let Ok(mut tenant) = slot.tenant.try_write() {
                        tenant.number = tenant.number.wrapping_add(1);
                        tenant.value = Some(Arc::new(value));
                        slot.owner.store(std::process::id(), Ordering::Release);
                        return Some(self.handle(index, tenant.number));
                    }
                    slot.taken.store(false, Ordering::Release);
                }
                index += 1;
            }
        }
        None
    }

    fn handle(&self, index: usize, number: u32) -> *mut c_void {
        std::ptr::without_provenance_mut((number as usize) << 32 | index << 8 | usize::from(self.kind))
    }

    /// The slot of a handle, and the number of the tenant.
    fn slot(&self, handle: *const c_void) -> Result<(&Slot<T>, u32), Refused> {
        let address = handle.addr();
        if address & 0xff != usize::from(self.kind) {
            return Err(Refused::Unknown);
        }
        let (mut index, number) = (address >> 8 & 0x00ff_ffff, (address >> 32) as u32);
        let mut chunks = self.chunks.iter().map_while(OnceLock::get);
        let chunk = chunks.find(|chunk| {
            index < chunk.len() || {
                index -= chunk.len();
                false
            }
        });
        let slot = chunk.and_then(|chunk| chunk.get(index)).ok_or(Refused::Unknown)?;
        match slot.owner.load(Ordering::Acquire) {
            0 => Err(Refused::Unknown),
            owner if owner != std::process::id() => Err(Refused::Forked),
            _ => Ok((slot, number)),
        }
    }

    /// Does `work` with what the handle stands for, which is not ended before `work` returns. Allocates nothing and waits for
    /// no lock: for signal handlers, too.
    pub(super) fn with<R>(&self, handle: *const c_void, work: impl FnOnce(&Arc<T>) -> R) -> Result<R, Refused> {
        let (slot, number) = self.slot(handle)?;
        let tenant = match slot.tenant.try_read() {
            Ok(tenant) => tenant,
            Err(TryLockError::Poisoned(tenant)) => tenant.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Refused::Ended),
        };
        let value = tenant.value.as_ref().filter(|_| tenant.number == number).ok_or(Refused::Ended)?;
        Ok(work(value))
    }

    /// Does `work` with everything in the table that this process has put in, as [`with`](Self::with) does.
    pub(super) fn each(&self, mut work: impl FnMut(&T)) {
        let slots = self.chunks.iter().map_while(OnceLock::get).flatten();
        for slot in slots.filter(|slot| slot.owner.load(Ordering::Acquire) == std::process::id()) {
            if let Ok(tenant) = slot.tenant.try_read() {
                tenant.value.iter().for_each(|value| work(value));
            }
        }
    }

    /// What the handle stands for. It may be ended by another thread meanwhile.
    pub(super) fn get(&self, handle: *const c_void) -> Result<Arc<T>, Refused> {
        self.with(handle, Arc::clone)
    }

    /// Takes what the handle stands for out of the table: the handle is refused from now on. Waits for threads that are in
    /// [`with`](Self::with).
    pub(super) fn remove(&self, handle: *const c_void) -> Result<Arc<T>, Refused> {
        // An old handle must not lock the slot of a later tenant.
        self.with(handle, |_| ())?;
        let (slot, number) = self.slot(handle)?;
        slot.end(|tenant| tenant.number == number).ok_or(Refused::Ended)
    }

    /// Takes everything out of the table that this process has put in.
    pub(super) fn drain(&self) -> impl Iterator<Item = Arc<T>> {
        let slots = self.chunks.iter().map_while(OnceLock::get).flatten();
        let ours = slots.filter(|slot| slot.owner.load(Ordering::Acquire) == std::process::id());
        ours.filter_map(|slot| slot.end(|_| true))
    }
}

impl<T> Slot<T> {
    /// Ends its tenant, if it has one and `is_meant` says so. Waits for threads that are in [`Table::with`].
    fn end(&self, is_meant: impl FnOnce(&Tenant<T>) -> bool) -> Option<Arc<T>> {
        let mut tenant = self.tenant.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !is_meant(&tenant) {
            return None;
        }
        let ended = tenant.value.take()?;
        drop(tenant);
        self.taken.store(false, Ordering::Release);
        Some(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_stands_for_its_own_tenant_alone() {
        let table = Table::new(1);
        let first = table.insert("alice").unwrap();
        assert_eq!(table.with(first, |value| **value), Ok("alice"));
        assert_eq!(*table.remove(first).unwrap(), "alice");
        assert_eq!(table.get(first), Err(Refused::Ended));
        let second = table.insert("bob").unwrap();
        assert_eq!(first.addr() & 0xffff_ffff, second.addr() & 0xffff_ffff, "bob has the slot that alice had");
        assert_eq!(table.get(first), Err(Refused::Ended), "alice's handle stands for bob");
        assert_eq!(table.remove(first), Err(Refused::Ended), "alice's handle ends bob");
        assert_eq!(*table.get(second).unwrap(), "bob");
    }

    #[test]
    fn what_is_no_handle_is_unknown() {
        let (table, other) = (Table::new(1), Table::new(3));
        let (handle, foreign) = (table.insert(()).unwrap(), other.insert(()).unwrap());
        let at = |address: usize| std::ptr::without_provenance_mut(address);
        for unknown in
            [at(0), foreign, at(handle.addr() + 0x100), at(usize::MAX << 8 | 1), (&raw const table).cast_mut().cast()]
        {
            assert_eq!(table.get(unknown), Err(Refused::Unknown), "{unknown:?}");
            assert_eq!(table.remove(unknown), Err(Refused::Unknown), "{unknown:?}");
        }
    }

    #[test]
    fn a_table_grows_and_keeps_its_handles() {
        let table = Table::new(1);
        let handles: Vec<_> = (0..1000).map(|number| table.insert(number).unwrap().addr()).collect();
        let get = |handle: usize| table.get(std::ptr::without_provenance(handle));
        assert!(handles.iter().enumerate().all(|(number, handle)| get(*handle).is_ok_and(|value| *value == number)));
        assert_eq!(table.drain().count(), 1000);
        assert!(handles.iter().all(|handle| get(*handle) == Err(Refused::Ended)));
    }

    #[test]
    fn others_that_come_and_go_end_no_tenant() {
        let table = Table::new(1);
        let (old, kept) = (table.insert(0).unwrap().addr(), table.insert(0).unwrap().addr());
        let at = std::ptr::without_provenance_mut;
        table.remove(at(old)).unwrap();
        let successor = table.insert(0).unwrap().addr();
        let (begun, stop) = (std::sync::Barrier::new(2), AtomicBool::new(false));
        let refused = std::thread::scope(|threads| {
            let user = threads.spawn(|| {
                let mut refused = 0;
                begun.wait();
                while !stop.load(Ordering::Relaxed) {
                    refused += [kept, successor].iter().filter(|handle| table.get(at(**handle)).is_err()).count();
                }
                refused
            });
            begun.wait();
            for _ in 0..100_000 {
                let other = table.insert(1).unwrap();
                assert_eq!(table.remove(at(old)), Err(Refused::Ended));
                table.remove(other).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            user.join().unwrap()
        });
        assert_eq!(refused, 0, "a living tenant was refused");
    }

    #[test]
    fn a_tenant_is_not_ended_while_it_is_used() {
        let table = Table::new(1);
        let handle = table.insert(()).unwrap().addr();
        let handle = || std::ptr::without_provenance(handle);
        std::thread::scope(|threads| {
            let remover = table.with(handle(), |_| {
                let remover = threads.spawn(|| table.remove(handle()).is_ok());
                // The remover waits for this thread, and new users are refused meanwhile.
                while table.get(handle()).is_ok() {
                    std::thread::yield_now();
                }
                assert!(!remover.is_finished());
                remover
            });
            assert!(remover.unwrap().join().unwrap());
        });
    }
}
