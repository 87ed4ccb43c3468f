//! Makes and ends the rings of this process, in forked children: OpenAFS's setpag replaces session keyring and groups of
//! the thread that calls it, and may wait.

use std::io;
use std::time::Duration;

use pag::afs::openafs::{Device, Interface};
use pag::keyring::{self, Serial};
use pag::process_ring::{self, Kind, Making, Name, ProcessRing, Step};
use pag::sys::{self, Answer, Fields};

use crate::error::{Error, Limit, Result};

/// Longest time for ending PAGs, or for taking back one that was not made. It takes some milliseconds.
const END: Duration = Duration::from_secs(5);

/// Makes a ring that `holder` keeps.
///
/// # Errors
/// `Quota`, `Timeout`, `NoPag`, `System`. Nothing is left of the ring.
pub(crate) fn make(kind: Kind, holder: Serial, limit: Limit) -> Result<ProcessRing> {
    let name = Name::random().map_err(|error| Error::System {
        doing: "make a name for a PAG",
        source: io::Error::other(error.to_string()),
    })?;
    let openafs = match kind {
        Kind::Pag => Device::opened().map_err(|source| Error::NoPag { doing: "open the device of OpenAFS", source })?,
        Kind::NoPag => None,
    };
    match in_child(&Making { name: name.as_c(), kind, holder: Some(holder), openafs: openafs.as_ref() }, limit) {
        Ok(serial) => Ok(ProcessRing { serial, name }),
        Err(error) => {
            undo(&name, holder);
            Err(error)
        }
    }
}

#[allow(unsafe_code)] // makes a child
fn in_child(making: &Making<'_>, limit: Limit) -> Result<Serial> {
    const DOING: &str = "make a PAG";
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer = unsafe {
        sys::ask(limit.end, |put| {
            let made = making.make();
            let (step, number) = match &made {
                Ok(ring) => (u8::MAX, ring.get()),
                Err((step, error)) => (*step as u8, error.raw_os_error().unwrap_or(libc::EPERM)),
            };
            sys::write_fields(put, &[&[step], &number.to_ne_bytes()])
        })
    };
    let bytes = answer.and_then(Answer::bytes).map_err(limit.failed(DOING))?;
    let mut fields = Fields::new(&bytes);
    let failed = || Error::system(DOING)(io::ErrorKind::InvalidData.into());
    let (Some([step]), Some(number)) = (fields.array(), fields.array()) else { return Err(failed()) };
    let number = i32::from_ne_bytes(number);
    let Some(step) = Step::ALL.into_iter().find(|one| *one as u8 == step) else {
        return Serial::new(number).ok_or_else(failed);
    };
    let source = io::Error::from_raw_os_error(number);
    let is_full = number == libc::EDQUOT;
    Err(match step.is_of_openafs() && !is_full {
        true => Error::NoPag { doing: step.as_str(), source },
        false => Error::system(step.as_str())(source),
    })
}

#[allow(unsafe_code)] // makes a child
fn undo(name: &Name, holder: Serial) {
    // SAFETY: as in `in_child`.
    let _ = unsafe {
        sys::ask(Limit::of(END).end, |_| {
            process_ring::undo(name, holder);
            true
        })
    };
}

/// Ends rings for all who hold them.
///
/// # Errors
/// `System`, `Timeout`: the tokens may be there until the last member is gone.
#[allow(unsafe_code)] // makes a child
pub(crate) fn end(rings: &[ProcessRing], holder: Serial) -> Result<()> {
    let opened = Device::opened();
    let openafs: Option<&Interface> = opened.as_ref().ok().and_then(Option::as_ref);
    let limit = Limit::of(END);
    // SAFETY: as in `in_child`.
    let ended = unsafe {
        sys::ask(limit.end, |_| {
            process_ring::end(rings, Some(holder), openafs);
            true
        })
    };
    // The child may have been killed in the middle.
    for ring in rings {
        let _ = keyring::unlink(ring.serial, holder);
    }
    // Without OpenAFS's device its tokens are left.
    ended.and_then(Answer::bytes).and(opened).map(drop).map_err(limit.failed("end a PAG"))
}
