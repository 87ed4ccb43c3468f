//! S0, the keyring that OpenAFS's `setpag` makes for a PAG: making it, linking it below the ring, and repairing it.

use std::time::{Duration, Instant};
use std::{fmt, io};

use super::openafs::{Device, Interface};
use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::keyring::{self, Mask, Serial};
use crate::store::registry::Pag;
use crate::store::ring::{Ring, is_afs_keyring};
use crate::sys::{self, Answer, Fields};

/// Longest time for the child that makes S0. It needs about a millisecond.
const CHILD_TIME: Duration = Duration::from_secs(1);

/// The step at which a child failed, for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    SetPag,
    Find,
    Close,
    Hold,
    Link,
    Prove,
}

impl Step {
    const ALL: [Step; 7] = [Step::Open, Step::SetPag, Step::Find, Step::Close, Step::Hold, Step::Link, Step::Prove];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Open => "its device cannot be opened",
            Step::SetPag => "setpag failed",
            Step::Find => "setpag has left no keyring of root's",
            Step::Close => "the keyring that setpag has made cannot be closed to members",
            Step::Hold => "that keyring cannot be anchored in the PAG's holder",
            Step::Link => "that keyring cannot be linked into the ring",
            Step::Prove => "the module does not find the PAG through the ring",
        })
    }
}

/// Makes a PAG of OpenAFS for `ring`: a new S0, which `holder` keeps and which is linked into the ring in place of
/// an older one. The module itself proves it: it must find the same PAG through the ring as in S0.
///
/// A child makes it, since setpag replaces the caller's session keyring and groups. The child has the guard's ids,
/// because S0 belongs to the *real* uid: a user who called su would own S0 and could enter it by its name.
///
/// # Errors
/// `System`, in words. Nothing new is linked then, and this ring has no PAG of OpenAFS.
#[allow(unsafe_code)] // makes a child
fn anchor(_guard: &Guard, ring: &Ring, holder: Serial) -> Result<Serial> {
    let failed = |what: &dyn fmt::Display| Error::system(format!("give ring {} a PAG of OpenAFS, {what}", ring.serial));
    let opened = Device::opened().and_then(|it| it.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT)));
    let interface = opened.map_err(failed(&Step::Open))?;
    let plainly = || Error::system(format!("give ring {} a PAG of OpenAFS", ring.serial));
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer = unsafe {
        sys::ask(Instant::now() + CHILD_TIME, |put| {
            let made = make(&interface, ring, holder);
            let (step, number) = match &made {
                Ok(s0) => (u8::MAX, s0.get()),
                Err((step, error)) => (*step as u8, error.raw_os_error().unwrap_or(0)),
            };
            sys::write_fields(put, &[&[step], &number.to_ne_bytes()])
        })
    };
    let bytes = answer.and_then(Answer::bytes).map_err(plainly())?;
    let mut fields = Fields::new(&bytes);
    let (Some([step]), Some(number)) = (fields.array(), fields.array()) else {
        return Err(plainly()(io::ErrorKind::InvalidData.into()));
    };
    let number = i32::from_ne_bytes(number);
    match (Step::ALL.into_iter().find(|one| *one as u8 == step), Serial::new(number)) {
        (Some(step), Some(_)) => Err(failed(&step)(io::Error::from_raw_os_error(number))),
        (Some(step), None) => Err(failed(&step)(io::ErrorKind::InvalidData.into())),
        (None, Some(s0)) => Ok(s0),
        (None, None) => Err(plainly()(io::ErrorKind::InvalidData.into())),
    }
}

/// The child's part of [`anchor`]. Allocates nothing.
fn make(interface: &Interface, ring: &Ring, holder: Serial) -> std::result::Result<Serial, (Step, io::Error)> {
    let at = |step: Step| move |error: io::Error| (step, error);
    interface.setpag().map_err(at(Step::SetPag))?;
    let number = interface.getpag().map_err(at(Step::Prove))?;
    let s0 = keyring::session().map_err(at(Step::Find))?;
    close_to_members(ring, s0)?;
    // In the holder first: a process that comes between finds S0 there and links it into the ring again.
    keyring::link(s0, holder).map_err(at(Step::Hold))?;
    let linked = keyring::link(s0, ring.serial).map_err(at(Step::Link)).and_then(|()| {
        let through_the_ring =
            ring.join_in_child() && number.is_some() && interface.getpag().is_ok_and(|it| it == number);
        through_the_ring.then_some(()).ok_or((Step::Prove, io::Error::from_raw_os_error(libc::ENOKEY)))
    });
    if let Err(error) = linked {
        let _ = keyring::unlink(s0, ring.serial);
        let _ = keyring::unlink(s0, holder);
        return Err(error);
    }
    // An older S0 is dead, or else the module would have found its PAG.
    while let Some(old) = find_afs_keyring(holder, |serial| serial != s0) {
        let _ = keyring::unlink(old, ring.serial);
        if keyring::unlink(old, holder).is_err() {
            break;
        }
    }
    Ok(s0)
}

/// Closes the keyring that setpag made, so that it becomes S0. It gets the handle group first: otherwise its mask,
/// which has group bits, would let in every process with gid 0.
fn close_to_members(ring: &Ring, s0: Serial) -> std::result::Result<(), (Step, io::Error)> {
    let at = |step: Step| move |error: io::Error| (step, error);
    let of_root = keyring::describe(s0, |found| found.is_keyring() && found.uid == 0).map_err(at(Step::Find))?;
    if !of_root {
        return Err((Step::Find, io::Error::from_raw_os_error(libc::EPERM)));
    }
    keyring::set_owner(s0, None, Some(ring.group.0)).map_err(at(Step::Close))?;
    keyring::set_mask(s0, Mask::S0).map_err(at(Step::Close))?;
    let closed = keyring::describe(s0, |found| is_afs_keyring(&found) && found.gid == ring.group.0);
    match closed.map_err(at(Step::Close))? {
        true => Ok(()),
        false => Err((Step::Close, io::Error::from_raw_os_error(libc::EPERM))),
    }
}

/// Finds an S0 in a holder or in a ring.
fn find_afs_keyring(place: Serial, which: impl Fn(Serial) -> bool) -> Option<Serial> {
    let mut members = [0; 4 * 4096];
    let mut members = keyring::members_into(place, &mut members).ok()?;
    members.find(|serial| which(*serial) && keyring::describe(*serial, |found| is_afs_keyring(&found)).unwrap_or(false))
}

/// Whether an S0 still has its `_pag`. Every member of the PAG can invalidate that key, and then all its tokens are
/// gone.
fn has_pag_key(s0: Serial) -> bool {
    let mut members = [0; 4 * 64];
    let Ok(mut members) = keyring::members_into(s0, &mut members) else { return false };
    // The kernel does not describe a key that was revoked or invalidated.
    members
        .any(|key| keyring::describe(key, |found| found.kind == b"afs_pag" && found.name == b"_pag").unwrap_or(false))
}

/// What is said of a PAG that was [relinked](AfsPagChange::Relinked).
pub const RELINKED: &str = "its tokens of OpenAFS, which a member had cut, are there again";

/// What [`ensure_afs_pag`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfsPagChange {
    /// Nothing: S0 is in place, or the host serves no OpenAFS.
    Unchanged,
    /// It linked S0 into the ring again. The tokens are as they were.
    Relinked,
    /// It made a new S0, without tokens: the PAG had none, or a member has invalidated its `_pag`.
    New,
}

fn follows(pag: &Pag) -> bool {
    pag.record.as_ref().is_ok_and(|record| record.follows.is_some())
}

/// Whether [`ensure_afs_pag`] would have work for a PAG with this S0, if its ring holds these keys.
pub fn needs_repair(keys: &[Serial], s0: Option<Serial>) -> bool {
    Device::served().is_some() && s0.is_none_or(|s0| !keys.contains(&s0) || !has_pag_key(s0))
}

/// Puts the members of `pag` into a PAG of OpenAFS, if the host has OpenAFS. The caller holds the uid's lock.
///
/// # Errors
/// `Key` and `System`, in words. The members are then in no PAG of OpenAFS, and a seeder gets them no tokens.
pub fn ensure_afs_pag(guard: &Guard, pag: &mut Pag) -> Result<AfsPagChange> {
    let Ok(ring) = &pag.ring else { return Ok(AfsPagChange::Unchanged) };
    // The members of a follower's ring are in the followed PAG (see [`crate::mirror::follow`]).
    if Device::served().is_none() || follows(pag) {
        return Ok(AfsPagChange::Unchanged);
    }
    match pag.afs_keyring.filter(|s0| has_pag_key(*s0)) {
        Some(s0) => {
            let mut members = [0; 4 * 4096];
            let there =
                keyring::members_into(ring.serial, &mut members).is_ok_and(|mut keys| keys.any(|key| key == s0));
            if there {
                return Ok(AfsPagChange::Unchanged);
            }
            let doing = || format!("link keyring {s0} of OpenAFS into ring {}", ring.serial);
            keyring::link(s0, ring.serial).map_err(Error::key(doing()))?;
            Ok(AfsPagChange::Relinked)
        }
        None => {
            pag.afs_keyring = Some(anchor(guard, ring, pag.holder)?);
            Ok(AfsPagChange::New)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_that_can_fail_has_a_number_of_its_own() {
        for (number, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, number);
            assert!(!step.to_string().is_empty());
        }
    }
}
