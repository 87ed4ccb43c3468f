//! The registry: all PAGs of this host, kept in the kernel.
//!
//! The registry is a keyring `pag:registry:<pid namespace>:<start of its first process>`, linked in root's user
//! keyring. It holds one *holder* keyring per PAG, and the holder keeps the ring, S0 and the [`Record`]. Linking a
//! holder makes a PAG, unlinking it ends the PAG. Each is one step, so a process killed between any two system calls
//! leaves a PAG or none.
//!
//! Nothing above a ring grants SEARCH (see [`Mask::ANCHOR`]): keyrings are found by reading and describing, never by
//! a search, and no process *possesses* what is below. So each object is made in the process keyring, given its
//! mask, linked in its place, and then unlinked from the process keyring.

use crate::store::ring::is_afs_keyring;
use crate::types::PagId;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::guard::{Guard, HandleGroup};
use crate::keyring::{self, Description, Mask, Serial};
use crate::store::lock::Lock;
use crate::store::record::{Record, Unreadable};
use crate::store::ring::{Ring, RingFault, RingName};
use crate::sys::{self, Process};

/// One PAG as the registry has it.
#[derive(Debug, Clone)]
pub struct Pag {
    /// Its name.
    pub id: PagId,
    /// Its user, as the holder's name says.
    pub uid: u32,
    /// Its holder.
    pub holder: Serial,
    /// Its ring, or what is wrong with it.
    pub ring: std::result::Result<Ring, RingFault>,
    /// S0, the keyring in which OpenAFS's setpag has made this PAG's `_pag` (see [`crate::afs::openafs`]).
    pub afs_keyring: Option<Serial>,
    /// Its record, or why the record cannot be read.
    pub record: std::result::Result<Record, Unreadable>,
    record_key: Option<Serial>,
    registry: Serial,
}

/// The registry of this pid namespace and boot.
#[derive(Debug, Clone, Copy)]
pub struct Registry {
    serial: Serial,
    group: HandleGroup,
}

/// Where a PAG's holder was seen, so that a process of the PAG finds it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HolderRef {
    registry: Serial,
    holder: Serial,
}

const REGISTRY: &str = "pag:registry:";
const RECORD: &str = "pag:record";
const HOLDER: &str = "pag:holder:";

/// The registry's name: the pid namespace, and when its first process began, since the kernel re-uses the inode
/// numbers of dead namespaces. A container that shares root's user keyring with the host has a registry of its own.
///
/// The boot id would not do: systemd-nspawn gives a container its own, but a service in it with
/// `ProtectKernelTunables=` sees the host's (systemd, src/core/namespace.c).
fn name() -> Result<String> {
    /// The namespace that was looked at last, and its beginning. Every hook of a login needs them. While this process
    /// is in a namespace, no other one has its number.
    static KNOWN: Mutex<Option<(u64, u64)>> = Mutex::new(None);
    let namespace = std::fs::metadata("/proc/self/ns/pid").map_err(Error::system("look at /proc/self/ns/pid"))?.ino();
    let known = sys::lock_briefly(&KNOWN).and_then(|known| *known);
    let start = match known {
        Some((of, start)) if of == namespace => start,
        _ => {
            let first = Process::find(1);
            let start = first.ok_or_else(|| Error::system("read /proc/1/stat")(io::ErrorKind::NotFound.into()))?.start;
            if let Some(mut known) = sys::lock_briefly(&KNOWN) {
                *known = Some((namespace, start));
            }
            start
        }
    };
    Ok(format!("{REGISTRY}{namespace}:{start}"))
}

impl Pag {
    /// Where its holder is.
    pub fn place(&self) -> HolderRef {
        HolderRef { registry: self.registry, holder: self.holder }
    }

    /// Replaces the record in one step. The caller holds the lock of its uid.
    ///
    /// # Errors
    /// `Key`; the old record is then unchanged.
    pub(super) fn store(&mut self, record: Record) -> Result<()> {
        let what = format!("write the record of PAG {}", self.id);
        let payload = record.encode().map_err(Error::key(&what))?;
        match self.record_key.map(|key| keyring::update(key, &payload)) {
            Some(Ok(())) => {}
            // If the record was revoked or is missing, a new one takes its place.
            _ => self.record_key = Some(Made::new("user", RECORD, &payload)?.into_place(self.holder, &what)?),
        }
        self.record = Ok(record);
        Ok(())
    }
}

impl Registry {
    /// Finds the registry; `None` if no PAG was ever made.
    ///
    /// # Errors
    /// If `/proc` cannot be read, or seccomp forbids keyrings.
    pub fn find(guard: &Guard) -> Result<Option<Self>> {
        let name = name()?;
        Ok(find_keyring(keyring::user_id(), name.as_bytes())?.map(|serial| Registry { serial, group: guard.group() }))
    }

    /// Finds the registry or makes it. Making it has its own lock: a second registry made at the same time would
    /// displace the first with all its PAGs.
    ///
    /// # Errors
    /// As [`Registry::find`], and `Lock`.
    pub(super) fn open(guard: &Guard, wait: Duration) -> Result<Self> {
        if let Some(found) = Self::find(guard)? {
            return Ok(found);
        }
        let _lock = Lock::of_registry(wait)?;
        if let Some(found) = Self::find(guard)? {
            return Ok(found);
        }
        let serial = Made::new("keyring", &name()?, b"")?.into_place(keyring::user_id(), "make the registry")?;
        Ok(Registry { serial, group: guard.group() })
    }

    /// `None` if the keyrings are others than before: the kernel re-uses serials, but a holder's name is unique.
    pub(super) fn at(guard: &Guard, place: HolderRef, uid: u32, id: PagId) -> Option<(Self, Pag)> {
        let registry =
            |found: Description<'_>| is_registry_keyring(&found) && found.name.starts_with(REGISTRY.as_bytes());
        let holder =
            |found: Description<'_>| is_registry_keyring(&found) && parse_holder(found.name) == Some((uid, id));
        if !keyring::describe(place.registry, registry).ok()? || !keyring::describe(place.holder, holder).ok()? {
            return None;
        }
        let registry = Registry { serial: place.registry, group: guard.group() };
        registry.holders().ok().filter(|linked| linked.contains(&place.holder))?;
        let pag = registry.pag(id, uid, place.holder).ok()?;
        Some((registry, pag))
    }

    /// All PAGs.
    ///
    /// # Errors
    /// If the registry itself cannot be read (revoked). A single PAG that cannot be read is left out: it is being
    /// ended, or it is not ours.
    pub fn pags(&self, _guard: &Guard) -> Result<Vec<Pag>> {
        Ok(self.read(&self.holders()?, None))
    }

    /// The PAGs of `uid`. `lock` is the lock of that uid.
    ///
    /// # Errors
    /// As [`Registry::pags`].
    pub(super) fn pags_of(&self, lock: &Lock, uid: u32) -> Result<Vec<Pag>> {
        let linked = self.holders()?;
        if let Some(mut holders) = lock.holders(self.serial) {
            holders.retain(|holder| linked.contains(holder));
            return Ok(self.read(&holders, Some(uid)));
        }
        let pags = self.read(&linked, Some(uid));
        let holders: Vec<Serial> = pags.iter().map(|pag| pag.holder).collect();
        lock.remember(self.serial, &holders)?;
        Ok(pags)
    }

    /// The holders linked in the registry. A PAG has ended once its holder is not linked, although the kernel may
    /// describe the holder for some milliseconds more (an RCU grace period: lib/assoc_array.c,
    /// assoc_array_apply_edit).
    fn holders(&self) -> Result<Vec<Serial>> {
        keyring::members(self.serial).map_err(Error::key("read the registry"))
    }

    fn read(&self, holders: &[Serial], of: Option<u32>) -> Vec<Pag> {
        let mut buffer = [0; keyring::DESCRIPTION_SPACE];
        let mut pags = Vec::new();
        for holder in holders {
            let Ok(found) = keyring::describe_into(*holder, &mut buffer) else { continue };
            let Some((uid, id)) = parse_holder(found.name).filter(|_| is_registry_keyring(&found)) else { continue };
            if of.is_none_or(|of| of == uid)
                && let Ok(pag) = self.pag(id, uid, *holder)
            {
                pags.push(pag);
            }
        }
        pags
    }

    fn pag(&self, id: PagId, uid: u32, holder: Serial) -> io::Result<Pag> {
        let (mut ring, mut fault) = (None, RingFault::gone());
        let mut afs_keyring = None;
        let mut record_key = None;
        let mut buffer = [0; keyring::DESCRIPTION_SPACE];
        for key in keyring::members(holder)? {
            match keyring::describe_into(key, &mut buffer) {
                Ok(found) if found.is_keyring() && RingName::parse(found.name).is_some() => {
                    ring = Some(Ring::of_holder(key, &found, uid, self.group));
                }
                Ok(found) if is_afs_keyring(&found) => afs_keyring = Some(key),
                Ok(found) if found.kind == b"user" && found.name == RECORD.as_bytes() => record_key = Some(key),
                Ok(_) => {}
                // Perhaps the ring.
                Err(error) if !matches!(fault, RingFault::Unseen(_)) => fault = RingFault::of(&error),
                Err(_) => {}
            }
        }
        let record = match record_key.map(keyring::payload) {
            Some(Ok(bytes)) => Record::decode(&bytes).and_then(|record| {
                let same = record.uid == uid;
                same.then_some(record).ok_or_else(|| Unreadable::Garbled("it names another uid".to_owned()))
            }),
            Some(Err(error)) => Err(match error.raw_os_error() {
                Some(libc::ENOKEY | libc::EKEYREVOKED | libc::EKEYEXPIRED) => Unreadable::Garbled(error.to_string()),
                _ => Unreadable::NotNow(error.to_string()),
            }),
            None if matches!(fault, RingFault::Unseen(_)) => Err(Unreadable::NotNow(fault.to_string())),
            None => Err(Unreadable::Garbled("there is none".to_owned())),
        };
        let ring = ring.unwrap_or(Err(fault));
        Ok(Pag { id, uid, holder, ring, afs_keyring, record, record_key, registry: self.serial })
    }

    /// Makes a PAG from a ring and a record, under the lock of its uid. Its last step makes the PAG.
    ///
    /// # Errors
    /// EDQUOT of root; the ring is then still only in the process keyring.
    pub(super) fn anchor(&self, lock: &Lock, id: PagId, ring: &Ring, record: Record) -> Result<Pag> {
        let what = format!("anchor ring {}", ring.serial);
        let payload = record.encode().map_err(Error::key(&what))?;
        let holder = Made::new("keyring", &format!("{HOLDER}{}:{id}", record.uid), b"")?;
        let key = Made::new("user", RECORD, &payload)?;
        keyring::link(ring.serial, holder.0).map_err(Error::key(&what))?;
        let key = key.into_place(holder.0, &what)?;
        if let Some(mut holders) = lock.holders(self.serial) {
            // The hint also loses the holders that have ended.
            let is_holder = |serial| keyring::describe(serial, |found| parse_holder(found.name).is_some());
            holders.retain(|serial| *serial != holder.0 && is_holder(*serial).unwrap_or(false));
            holders.push(holder.0);
            lock.remember(self.serial, &holders)?;
        }
        let holder = holder.into_place(self.serial, &what)?;
        Ok(Pag {
            id,
            uid: record.uid,
            holder,
            ring: Ok(*ring),
            afs_keyring: None,
            record: Ok(record),
            record_key: Some(key),
            registry: self.serial,
        })
    }

    /// Ends a PAG. Only its members then keep the ring, and the kernel frees it with the last of them.
    ///
    /// # Errors
    /// `Key`. ENOENT is no error: the PAG was ended already.
    pub(super) fn retire(&self, pag: &Pag) -> Result<()> {
        match keyring::unlink(pag.holder, self.serial) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                Err(Error::key(format!("end PAG {}", pag.id))(error))
            }
            _ => Ok(()),
        }
    }
}

fn parse_holder(name: &[u8]) -> Option<(u32, PagId)> {
    let (uid, id) = str::from_utf8(name).ok()?.strip_prefix(HOLDER)?.split_once(':')?;
    Some((uid.parse().ok()?, PagId::parse(id)?))
}

/// Whether only [`Made`] can have made this keyring.
fn is_registry_keyring(found: &Description<'_>) -> bool {
    found.is_keyring() && found.uid == 0 && found.mask == Mask::ANCHOR
}

/// A keyring of root's with the mask [`Mask::ANCHOR`] and this name, directly in `place`.
fn find_keyring(place: Serial, name: &[u8]) -> Result<Option<Serial>> {
    let members = keyring::members(place).map_err(Error::key("read root's user keyring"))?;
    let ours = |found: Description<'_>| is_registry_keyring(&found) && found.name == name;
    Ok(members.into_iter().find(|key| keyring::describe(*key, ours).unwrap_or(false)))
}

/// A new object in the process keyring. It is unlinked from there when this value is dropped.
struct Made(Serial);

impl Made {
    fn new(kind: &str, name: &str, payload: &[u8]) -> Result<Self> {
        let doing = || format!("make {name}");
        let made = Made(keyring::add(kind, name, payload, keyring::process_id()).map_err(Error::key(doing()))?);
        keyring::set_mask(made.0, Mask::ANCHOR).map_err(Error::key(doing()))?;
        Ok(made)
    }

    fn into_place(self, place: Serial, doing: &str) -> Result<Serial> {
        keyring::link(self.0, place).map_err(Error::key(doing))?;
        Ok(self.0)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = keyring::unlink(self.0, keyring::process_id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_holder_gives_uid_and_pag() {
        assert_eq!(parse_holder(b"pag:holder:61001:00000000000000ff"), Some((61001, PagId::from(255))));
        for name in [&b"pag:holder:61001"[..], b"pag:holder:x:00000000000000ff", b"pag:holder:1:ff", b"\xff", b""] {
            assert_eq!(parse_holder(name), None);
        }
    }
}
