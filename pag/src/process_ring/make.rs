//! Making the ring of a process.

use std::ffi::CStr;
use std::{fmt, io};

use crate::afs::openafs::Interface;
use crate::keyring::{self, Mask, Serial};
use crate::sys;

/// What a ring is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A PAG.
    Pag,
    /// The keyring of threads that are in no PAG. It stays empty.
    NoPag,
}

/// The step at which making a ring failed, for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The keyring was not made.
    Make,
    /// Its permissions could not be set.
    Close,
    /// The holder does not take it.
    Hold,
    /// OpenAFS's setpag failed.
    SetPag,
    /// The keyring that setpag has made could not be linked into the ring, or closed.
    Link,
    /// The ring cannot be entered again, or OpenAFS does not find the PAG through it.
    Prove,
}

impl Step {
    /// All steps. Each is at the place of its number.
    pub const ALL: [Step; 6] = [Step::Make, Step::Close, Step::Hold, Step::SetPag, Step::Link, Step::Prove];

    /// Whether OpenAFS is to blame.
    pub fn is_of_openafs(self) -> bool {
        matches!(self, Step::SetPag | Step::Link | Step::Prove)
    }

    /// What was to be done.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Make => "make a keyring for a PAG",
            Step::Close => "close the keyring of a PAG to processes outside of it",
            Step::Hold => "keep the keyring of a PAG in the process's holder",
            Step::SetPag => "make a PAG of OpenAFS (setpag)",
            Step::Link => "link the keyring that OpenAFS has made into the PAG's ring",
            Step::Prove => "find the PAG of OpenAFS through the PAG's ring",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A step that failed, and the kernel's answer.
pub type Failed = (Step, io::Error);

/// All that making a ring needs.
#[derive(Debug)]
pub struct Making<'a> {
    /// The new ring's name, which no keyring has.
    pub name: &'a CStr,
    /// What it is for.
    pub kind: Kind,
    /// The keyring that keeps it while no thread is in it. None if the calling thread stays in it.
    pub holder: Option<Serial>,
    /// OpenAFS's interface, for a PAG on a host with OpenAFS.
    pub openafs: Option<&'a Interface>,
}

impl Making<'_> {
    /// Makes the ring and puts the calling thread into it. On a failure the thread may be anywhere. It may lose its thread
    /// keyring's contents and, on OpenAFS, gets groups. So a child calls this, or a program that goes on in the new PAG.
    /// Allocates nothing.
    ///
    /// # Errors
    /// EDQUOT, EACCES, ENOMEM; what OpenAFS answers.
    pub fn make(&self) -> Result<Serial, Failed> {
        let at = |step: Step| move |error: io::Error| (step, error);
        // Until its permissions are set, the kernel shows a keyring's name to its uid. These two calls follow each other.
        sys::yield_now();
        keyring::join(Some(self.name)).map_err(at(Step::Make))?;
        keyring::set_mask(keyring::session_id(), Mask::PROCESS_RING_IN_MAKING).map_err(at(Step::Close))?;
        let ring = keyring::session().map_err(at(Step::Make))?;
        if let Some(holder) = self.holder {
            keyring::link(ring, holder).map_err(at(Step::Hold))?;
        }
        if let Some(interface) = self.openafs.filter(|_| self.kind == Kind::Pag) {
            self.give_afs_pag(ring, interface)?;
        }
        let mask = match self.kind {
            Kind::Pag => Mask::PROCESS_RING,
            Kind::NoPag => Mask::NO_PAG,
        };
        keyring::set_mask(ring, mask).map_err(at(Step::Close))?;
        let closed = keyring::describe(ring, |found| found.mask == mask && found.name == self.name.to_bytes());
        match closed.map_err(at(Step::Close))? {
            true => Ok(ring),
            false => Err((Step::Close, io::ErrorKind::PermissionDenied.into())),
        }
    }

    /// Gives the ring a PAG of OpenAFS. setpag replaces the session keyring by S0, so the thread keyring keeps the ring
    /// meanwhile: a thread can link into a keyring only if it has it.
    fn give_afs_pag(&self, ring: Serial, interface: &Interface) -> Result<(), Failed> {
        let at = |step: Step| move |error: io::Error| (step, error);
        keyring::link(ring, keyring::thread_id()).map_err(at(Step::Link))?;
        interface.setpag().map_err(at(Step::SetPag))?;
        let number = interface.getpag().map_err(at(Step::SetPag))?;
        let s0 = keyring::session().map_err(at(Step::SetPag))?;
        keyring::link(s0, ring).map_err(at(Step::Link))?;
        // setpag lets the owner link S0, and even open it to others.
        keyring::set_mask(s0, Mask::PROCESS_S0).map_err(at(Step::Link))?;
        keyring::join(Some(self.name)).map_err(at(Step::Prove))?;
        keyring::unlink(ring, keyring::thread_id()).map_err(at(Step::Link))?;
        let is_inside = keyring::session().is_ok_and(|session| session == ring);
        match is_inside && number.is_some() && interface.getpag().is_ok_and(|found| found == number) {
            true => Ok(()),
            false => Err((Step::Prove, io::Error::from_raw_os_error(libc::ENOKEY))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Name, ProcessRing, end};
    use super::*;
    use crate::store::ring::Enter;

    #[test]
    fn each_step_that_can_fail_has_a_number_of_its_own() {
        for (number, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, number);
            assert!(!step.to_string().is_empty());
        }
    }

    /// Uses this kernel's keyrings, in this thread.
    #[test]
    fn a_ring_is_closed_and_can_be_entered_until_its_end() {
        let name = Name::random().unwrap();
        let of = |kind| Making { name: name.as_c(), kind, holder: None, openafs: None };
        let serial = of(Kind::Pag).make().unwrap();
        let ring = ProcessRing { serial, name: name.clone() };
        let (current, kind) = ProcessRing::current().unwrap();
        assert_eq!((current.name.maker(), kind), (name.maker(), Kind::Pag));
        assert!(keyring::link(serial, keyring::user_id()).is_err(), "no member can pass it on");
        let held = keyring::add("keyring", "holder", b"", keyring::process_id()).unwrap();
        let thread = std::thread::spawn(move || {
            let inside = ring.enter_in_child() && ring.is_current();
            let other = std::thread::spawn(keyring::session).join().unwrap();
            assert_eq!(other.unwrap(), serial, "a thread is born where its maker is");
            end(std::slice::from_ref(&ring), None, None);
            (inside, ring.is_current(), ring.enter_in_child())
        });
        assert_eq!(thread.join().unwrap(), (true, false, false));
        assert_eq!(
            keyring::session().unwrap_err().raw_os_error(),
            Some(libc::EKEYREVOKED),
            "its end is that of all members"
        );
        keyring::unlink(held, keyring::process_id()).unwrap();
    }
}
