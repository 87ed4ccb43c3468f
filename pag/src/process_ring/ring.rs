//! The ring of a process, for those who know its name.

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
    /// The ring of this kind that the thread is in, if it is in one. Needs no permissions. A user can give a keyring of
    /// theirs such a name and mask, so this is for showing alone.
    pub fn current() -> Option<Self> {
        let serial = keyring::session().ok()?;
        let name = |found: keyring::Description<'_>| {
            (found.is_keyring() && found.mask == Mask::PROCESS_RING).then(|| Name::parse(found.name))
        };
        Some(ProcessRing { serial, name: keyring::describe(serial, name).ok()??? })
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
