//! The ring: the session keyring that all members of a PAG share.

use std::ffi::CStr;
use std::fmt;

use crate::error::{Error, Result};
use crate::guard::{Guard, HandleGroup};
use crate::keyring::{self, Description, Mask, Serial};
use crate::sys;

/// Name of a ring: `pag:` and 128 random bits in hex. A process can enter a ring only by its name, and the kernel
/// takes the first keyring of that name that grants SEARCH, whichever user owns it. So a user could squat a name
/// that can be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RingName([u8; 16]);

impl RingName {
    const PREFIX: &[u8] = b"pag:";
    /// Its length as text, in bytes.
    pub(crate) const LENGTH: usize = 36;

    /// Makes a new random name.
    ///
    /// # Errors
    /// If the kernel gives no random bits.
    pub fn random() -> Result<Self> {
        let mut bits = [0; 16];
        sys::random(&mut bits).map_err(Error::system("get random bits for a ring's name"))?;
        Ok(RingName(bits))
    }

    /// The name in a ring's description; `None` for any other keyring.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let digits = name.strip_prefix(Self::PREFIX)?;
        if digits.len() != 32 || !digits.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let bits = u128::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        Some(RingName(bits.to_be_bytes()))
    }

    pub(crate) fn to_c(self) -> [u8; Self::LENGTH + 1] {
        let mut text = [0; Self::LENGTH + 1];
        let hex = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|nibble| match nibble {
            0..=9 => b'0' + nibble,
            _ => b'a' + nibble - 10,
        });
        for (place, byte) in text.iter_mut().zip(Self::PREFIX.iter().copied().chain(hex)) {
            *place = byte;
        }
        text
    }

    /// Gives the thread the session keyring with this name, or a stray one. Allocates nothing.
    fn join(self) -> std::io::Result<()> {
        let text = self.to_c();
        let name = CStr::from_bytes_with_nul(&text).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        keyring::join(Some(name))
    }
}

impl fmt::Display for RingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pag:{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for RingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A ring that a child of this process can enter: as root a login's ([`Ring`]), or by its name one that this process
/// has made for itself ([`ProcessRing`](crate::process_ring::ProcessRing)).
pub trait Enter {
    /// Its number.
    fn serial(&self) -> Serial;
    /// Whether this thread is inside.
    fn is_current(&self) -> bool;
    /// For a child: enters it. True if that worked. Allocates only on failure.
    fn enter_in_child(&self) -> bool;
}

impl Enter for Ring {
    fn serial(&self) -> Serial {
        self.serial
    }

    fn is_current(&self) -> bool {
        Ring::is_current(self)
    }

    fn enter_in_child(&self) -> bool {
        self.join_in_child()
    }
}

/// A ring that was looked at and has the name, owner, group and mask of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    /// Its number.
    pub serial: Serial,
    /// Its name.
    pub name: RingName,
    /// Its owner: the user, or root if the kernel refused to give it to the user.
    pub owner: u32,
    /// Its group: the handle group.
    pub group: HandleGroup,
}

/// Why the ring in a holder cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RingFault {
    /// It is gone, revoked, expired or not ours, so no process can join it any more.
    Lost(String),
    /// This process could not look at it now. Others may use it.
    Unseen(String),
}

impl RingFault {
    /// What it says of a ring that it cannot be described.
    pub(super) fn of(error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOKEY) => Self::gone(),
            Some(libc::EKEYREVOKED) => RingFault::Lost("it was revoked".to_owned()),
            Some(libc::EKEYEXPIRED) => RingFault::Lost("it has expired".to_owned()),
            _ => RingFault::Unseen(format!("it cannot be looked at: {error}")),
        }
    }

    /// The holder has no ring.
    pub(super) fn gone() -> Self {
        RingFault::Lost("its ring is gone".to_owned())
    }
}

impl fmt::Display for RingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (RingFault::Lost(why) | RingFault::Unseen(why)) = self;
        f.write_str(why)
    }
}

impl Ring {
    /// Makes a ring for `uid` in the process keyring. The caller must [release](Ring::release) it once it is anchored.
    /// `guard` proves that the thread has the right ids.
    ///
    /// The user owns the ring, so that `aklog -setpag` works in it (KEYCTL_SESSION_TO_PARENT demands the caller's uid
    /// as owner: security/keys/keyctl.c, keyctl_session_to_parent). If the kernel refuses the chown (EDQUOT: the
    /// user's key quota is full; EACCES: a user namespace), root stays the owner.
    ///
    /// # Errors
    /// EDQUOT of root; ENOSYS or EPERM if seccomp forbids keyrings.
    pub fn make(_guard: &Guard, group: HandleGroup, uid: u32) -> Result<Self> {
        let name = RingName::random()?;
        let doing = || format!("make a ring for uid {uid}");
        let serial =
            keyring::add("keyring", &name.to_string(), b"", keyring::process_id()).map_err(Error::key(doing()))?;
        let given = uid != 0 && keyring::set_owner(serial, Some(uid), None).is_ok();
        let (owner, mask) = if given { (uid, Mask::RING) } else { (0, Mask::RING_OF_ROOT) };
        if let Err(error) = keyring::set_mask(serial, mask) {
            let _ = keyring::unlink(serial, keyring::process_id());
            return Err(Error::key(doing())(error));
        }
        Ok(Ring { serial, name, owner, group })
    }

    /// Unlinks a ring that [`Ring::make`] made from the process keyring. Otherwise it would outlive its members.
    pub fn release(&self) {
        let _ = keyring::unlink(self.serial, keyring::process_id());
    }

    /// Looks at the keyring `serial` in a holder of `uid`, from outside.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn look(serial: Serial, uid: u32, group: HandleGroup) -> std::result::Result<Self, RingFault> {
        keyring::describe(serial, |found| Self::of_holder(serial, &found, uid, group))
            .unwrap_or_else(|error| Err(RingFault::of(&error)))
    }

    /// Checks a keyring in a holder of `uid` that has been described already.
    ///
    /// # Errors
    /// As [`Ring::look`].
    pub fn of_holder(
        serial: Serial,
        found: &Description<'_>,
        uid: u32,
        group: HandleGroup,
    ) -> std::result::Result<Self, RingFault> {
        match Self::of(serial, found) {
            Some(ring) if (ring.owner == uid || ring.owner == 0) && ring.group == group => Ok(ring),
            Some(ring) => Err(RingFault::Lost(format!("it belongs to uid {} and gid {}", ring.owner, ring.group.0))),
            None => Err(RingFault::Lost("it is no ring of ours".to_owned())),
        }
    }

    fn of(serial: Serial, found: &Description<'_>) -> Option<Self> {
        let name = RingName::parse(found.name).filter(|_| found.is_keyring())?;
        let mask = if found.uid == 0 { Mask::RING_OF_ROOT } else { Mask::RING };
        (found.mask == mask).then_some(Ring { serial, name, owner: found.uid, group: HandleGroup(found.gid) })
    }

    /// Whether a keyring has the name and the mask of a ring. Users can give their keyrings both; only owner and group
    /// prove a ring.
    pub fn looks_like_one(serial: Serial) -> bool {
        let masks = [Mask::RING, Mask::RING_OF_ROOT];
        let alike = |found: Description<'_>| {
            found.is_keyring() && masks.contains(&found.mask) && RingName::parse(found.name).is_some()
        };
        keyring::describe(serial, alike).unwrap_or(false)
    }

    /// The ring that this thread is in, if its session keyring is a ring. Needs no permissions.
    pub fn current() -> Option<Self> {
        let serial = keyring::session().ok()?;
        keyring::describe(serial, |found| Self::of(serial, &found)).ok()?
    }

    /// Whether this thread is a member: its session keyring is the ring, unchanged.
    pub fn is_current(&self) -> bool {
        Self::current() == Some(*self)
    }

    /// Puts this thread into the ring and then looks, since the kernel's answer proves nothing: it is 0 for the ring
    /// that the thread has already, the old serial for an invalidated ring, and a stray new keyring if the kernel
    /// found none.
    ///
    /// # Errors
    /// `NotJoined`: the thread now has another session keyring and must be given a clean one ([`fresh`]).
    pub fn join(&self, _guard: &Guard) -> Result<()> {
        self.name.join().map_err(Error::key(format!("join ring {}", self.serial)))?;
        if self.is_current() {
            return Ok(());
        }
        // A keyring that the kernel made for this call is root's.
        let is_squatted = |d: &Description<'_>| d.uid != 0 && RingName::parse(d.name) == Some(self.name);
        let look = |serial| {
            let words = |d: &Description<'_>| format!("{serial} of uid {} with mask {:?}", d.uid, d.mask);
            keyring::describe(serial, |d| (words(&d), serial != self.serial && is_squatted(&d)))
                .unwrap_or_else(|error| (format!("{serial}: {error}"), false))
        };
        let (found, squatted) = keyring::session().map_or_else(|error| (error.to_string(), false), look);
        Err(Error::NotJoined { wanted: self.serial, found, squatted })
    }

    /// For a child: joins under its own guard. True if that worked. Allocates nothing.
    pub fn join_in_child(&self) -> bool {
        let Ok(_guard) = Guard::enter(self.group) else { return false };
        self.name.join().is_ok() && self.is_current()
    }

    /// Links the user's own keyring into the ring, as pam_keyinit does for its session keyring. Best effort: a user
    /// can make it fail (ELOOP), and no token depends on it. Root's is linked into no ring: the registry is in it, and members
    /// of a named PAG are not root.
    ///
    /// # Errors
    /// ELOOP, EDEADLK, EDQUOT.
    pub fn link_user_keyring(&self, guard: &Guard, uid: u32) -> Result<()> {
        if uid == 0 {
            return Ok(());
        }
        guard
            .with_real_uid(uid, || keyring::link(keyring::user_id(), self.serial))
            .and_then(|linked| linked)
            .map_err(Error::key(format!("link the user keyring of uid {uid} into ring {}", self.serial)))
    }
}

/// Gives this thread a clean anonymous session keyring with the user's own keyring linked, as pam_keyinit does.
///
/// # Errors
/// EDQUOT: the thread then keeps what it has.
pub fn fresh(guard: &Guard, uid: u32) -> Result<()> {
    guard
        .with_real_uid(uid, || {
            keyring::join(None)?;
            // Best effort, as in a ring.
            let _ = keyring::link(keyring::user_id(), keyring::session_id());
            Ok(())
        })
        .and_then(|joined| joined)
        .map_err(Error::key(format!("make a clean session keyring for uid {uid}")))
}

/// Takes this thread out of its ring and gives it an anonymous session keyring of its own ids.
///
/// # Errors
/// EDQUOT: the thread is then still in the ring.
pub fn leave() -> Result<()> {
    keyring::join(None).map_err(Error::key("leave the ring"))
}

/// How many keys the session keyring holds that a new one would not have: all except links to user keyrings and
/// systemd's `invocation_id`. For a message; stops counting at 64.
pub fn strangers_in_session() -> usize {
    let Ok(serial) = keyring::session() else { return 0 };
    let own = |d: Description<'_>| d.name.starts_with(b"_uid") || d.name == b"invocation_id";
    let Ok(members) = keyring::members(serial) else { return 0 };
    members.into_iter().take(64).filter(|key| keyring::describe(*key, |d| !own(d)).unwrap_or(false)).count()
}

/// Whether a keyring in a holder is the S0 of its PAG.
pub(crate) fn is_afs_keyring(found: &Description<'_>) -> bool {
    found.is_keyring() && found.uid == 0 && found.mask == Mask::S0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_way_through_the_kernel() {
        for _ in 0..20 {
            let name = RingName::random().unwrap();
            let text = name.to_c();
            let c = CStr::from_bytes_with_nul(&text).unwrap();
            assert_eq!(c.to_str().unwrap(), name.to_string());
            assert_eq!(RingName::parse(c.to_bytes()), Some(name));
        }
    }

    #[test]
    fn other_keyrings_are_no_rings() {
        let long = format!("pag:{}", "0".repeat(33));
        let upper = format!("pag:{}", "A".repeat(32));
        let signed = format!("pag:+{}", "0".repeat(31));
        for name in ["", "pag:", "_ses", "_ses.1", "pag:registry:1:2", &long, &upper, &signed] {
            assert_eq!(RingName::parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_keyring_with_other_permissions_is_no_ring() {
        let serial = Serial::new(5).unwrap();
        let name = RingName::random().unwrap().to_string();
        let of = |uid, mask| {
            Ring::of(serial, &Description { kind: b"keyring", uid, gid: 9, mask, name: name.as_bytes() }).is_some()
        };
        assert!(of(1001, Mask::RING));
        assert!(of(0, Mask::RING_OF_ROOT));
        assert!(!of(1001, Mask::RING_OF_ROOT));
        assert!(!of(1001, Mask(Mask::RING.0 | 8)));
    }
}
