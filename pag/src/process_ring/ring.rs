//! The ring of a process, for those who know its name.

use super::make::Kind;
use super::name::Name;
use crate::keyring::{self, Mask, Serial};
use crate::store::ring::Enter;

/// A ring that a process has made for itself.
#[derive(Debug, Clone)]
pub struct ProcessRing {
    /// Its number.
    pub serial: Serial,
    /// Its name, by which a thread enters it.
    pub name: Name,
}

impl ProcessRing {
    /// The ring of this kind that the thread is in, if it is in one, and what it is for. Needs no permissions. A user can
    /// give a keyring of theirs such a name and mask, so this is for showing alone.
    pub fn current() -> Option<(Self, Kind)> {
        let serial = keyring::session().ok()?;
        let look = |found: keyring::Description<'_>| {
            let kind = match found.mask {
                Mask::PROCESS_RING => Kind::Pag,
                Mask::NO_PAG => Kind::NoPag,
                _ => return None,
            };
            Some((Name::parse(found.name).filter(|_| found.is_keyring())?, kind))
        };
        let (name, kind) = keyring::describe(serial, look).ok()??;
        Some((ProcessRing { serial, name }, kind))
    }

    /// How often the kernel has the ring in use: by the credentials of threads and children, and by the process's holder. Only
    /// a member can see that. A thread that was born inside shares its maker's credentials.
    pub fn uses(&self) -> Option<u32> {
        uses_in(&std::fs::read_to_string("/proc/keys").ok()?, self.serial)
    }

    /// Puts this thread into the ring. The thread may be anywhere if that has failed. Allocates nothing.
    fn enter(&self) -> bool {
        keyring::join(Some(self.name.as_c())).is_ok() && self.is_current()
    }
}

impl Enter for ProcessRing {
    fn serial(&self) -> Serial {
        self.serial
    }

    fn is_current(&self) -> bool {
        keyring::session().is_ok_and(|session| session == self.serial)
    }

    fn enter_in_child(&self) -> bool {
        self.enter()
    }
}

/// A line is `serial flags usage timeout permissions uid gid type description` (security/keys/proc.c).
fn uses_in(keys: &str, serial: Serial) -> Option<u32> {
    let is_it =
        |line: &&str| line.split(' ').next().and_then(|hex| i32::from_str_radix(hex, 16).ok()) == Some(serial.get());
    keys.lines().find(is_it)?.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_how_often_a_ring_is_used() {
        let keys = "055dff2d I--Q---    11 perm 0f080000 61001 61001 keyring   pag:0:1:x: empty\n3fd403f3 x\n\nzz\n";
        assert_eq!(uses_in(keys, Serial::new(0x055d_ff2d).unwrap()), Some(11));
        for none in [0x3fd4_03f3, 1] {
            assert_eq!(uses_in(keys, Serial::new(none).unwrap()), None);
        }
    }
}
