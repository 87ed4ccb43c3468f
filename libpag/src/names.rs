//! The names of this process's rings, in memory that the kernel wipes in forked children.

use std::io;
use std::sync::Mutex;

use pag::keyring::{self, Serial};
use pag::process_ring::{Name, ProcessRing};
use pag::sys::{Secrets, lock_briefly};

/// Most rings of one process, with the keyring for no PAG.
const MOST: u32 = 1 << 16;

/// A ring: where its name stands, and its number, which proves it. A place may be given to another ring; then the number
/// differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ring {
    place: u32,
    pub(crate) serial: Serial,
}

impl Ring {
    /// Both numbers in one word; never 0.
    pub(crate) fn to_word(self) -> u64 {
        u64::from(self.place) << 32 | u64::from(self.serial.get().unsigned_abs())
    }

    /// The ring in a word; `None` for 0.
    pub(crate) fn of_word(word: u64) -> Option<Self> {
        let serial = i32::try_from(word & 0xffff_ffff).ok().and_then(Serial::new)?;
        Some(Ring { place: u32::try_from(word >> 32).ok()?, serial })
    }
}

/// Which places are free.
#[derive(Debug, Default)]
struct Free {
    given_back: Vec<u32>,
    highest: u32,
}

/// The names.
#[derive(Debug)]
pub(crate) struct Names {
    secrets: Secrets,
    free: Mutex<Free>,
}

impl Names {
    /// Maps memory for them.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Names { secrets: Secrets::new(MOST)?, free: Mutex::default() })
    }

    /// Whether this process was forked from the one that has the names.
    pub(crate) fn are_of_the_parent(&self) -> bool {
        self.secrets.are_wiped()
    }

    /// Keeps the name of a ring.
    ///
    /// # Errors
    /// EMFILE if there are too many.
    pub(crate) fn keep(&self, ring: &ProcessRing) -> io::Result<Ring> {
        let full = || io::Error::from_raw_os_error(libc::EMFILE);
        let mut free = lock_briefly(&self.free).ok_or_else(full)?;
        let place = match free.given_back.pop() {
            Some(place) => place,
            None if free.highest == MOST => return Err(full()),
            None => {
                free.highest += 1;
                free.highest
            }
        };
        drop(free);
        self.secrets.write(place, ring.name.as_c().to_bytes());
        Ok(Ring { place, serial: ring.serial })
    }

    /// Wipes a name and gives its place back. A thread that is about to enter finds another ring than its own there, or
    /// none, and notices.
    pub(crate) fn forget(&self, ring: Ring) {
        self.secrets.wipe(ring.place);
        if let Some(mut free) = lock_briefly(&self.free) {
            free.given_back.push(ring.place);
        }
    }

    /// The ring for a child, which cannot read the names. The copy stands in ordinary memory until it is dropped.
    pub(crate) fn for_child(&self, ring: Ring) -> ProcessRing {
        ProcessRing { serial: ring.serial, name: Name::of_secret(&self.secrets, ring.place) }
    }

    /// Puts the calling thread into a ring. False if it came elsewhere. One system call enters, and the other one looks, since
    /// the kernel's answer proves nothing: it gives a stray keyring to a thread that asks for a ring that has ended.
    ///
    /// # Errors
    /// EDQUOT, ENOMEM: the thread is where it was.
    pub(crate) fn enter(&self, ring: Ring) -> io::Result<bool> {
        self.secrets.join_session(ring.place)?;
        Ok(keyring::session().is_ok_and(|session| session == ring.serial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_fits_into_a_word() {
        for (place, serial) in [(1, 1), (MOST, i32::MAX)] {
            let ring = Ring { place, serial: Serial::new(serial).unwrap() };
            assert_eq!(Ring::of_word(ring.to_word()), Some(ring));
        }
        assert_eq!(Ring::of_word(0), None);
    }

    #[test]
    fn a_place_is_given_again_and_their_number_has_an_end() {
        let names = Names::new().unwrap();
        let of = |serial| ProcessRing { serial: Serial::new(serial).unwrap(), name: Name::random().unwrap() };
        let rings: Vec<Ring> = (1..).map_while(|serial| names.keep(&of(serial)).ok()).collect();
        assert_eq!(rings.len(), MOST as usize);
        names.forget(rings[7]);
        let again = names.keep(&of(5)).unwrap();
        assert_eq!(again.place, rings[7].place);
        assert_ne!(again, rings[7]);
        assert!(names.keep(&of(5)).is_err());
    }
}
