//! Reads a user's ccache, in a child that has become the user.

use std::ffi::CString;
use std::io;
use std::time::Instant;

use zeroize::Zeroizing;

use super::contents::{Contents, LIMIT, SPACE, Unread, Which};
use super::name::CcacheName;
use super::pieces::{self, Pieces};
use super::{format, kcm, keyring};
use crate::sys::{self, Answer, Identity};

/// Reads a ccache as the user, in a child, at most until `deadline`. Of a collection it reads the primary ccache.
///
/// # Errors
/// When there is no such ccache, or it can't be read or used.
pub fn read(place: &CcacheName, user: &Identity, deadline: Instant) -> std::result::Result<Contents, Unread> {
    let refused = |why: &str| Unread::Refused(why.to_owned());
    let path = match place {
        CcacheName::File(path) => path.clone(),
        CcacheName::Dir(dir) => {
            let primary = read_file(&format!("{dir}/primary"), user, deadline).ok();
            let name = primary.as_ref().and_then(|bytes| str::from_utf8(bytes).ok()).map_or("tkt", str::trim_end);
            // The name in `primary` is no path and begins with tkt, as in MIT's library (cc_dir.c, read_primary_file).
            if name.contains('/') || !name.starts_with("tkt") {
                return Err(refused("its `primary` names no ccache"));
            }
            format!("{dir}/{name}")
        }
        CcacheName::Kcm(_) | CcacheName::Keyring(_) => {
            return read_pieces(place, Which::Primary, user, deadline)?.pop().ok_or(Unread::Missing);
        }
    };
    let bytes = read_file(&path, user, deadline)?;
    let summary = format::parse(&bytes).map_err(|error| Unread::Refused(error.to_string()))?;
    Ok(Contents { summary, bytes })
}

/// Reads all ccaches of a collection of the uid in KCM or a keyring. Reads any other ccache as [`read`] does.
///
/// # Errors
/// As [`read`].
pub fn read_all(place: &CcacheName, user: &Identity, deadline: Instant) -> std::result::Result<Vec<Contents>, Unread> {
    if place.is_of_uid() {
        return read_pieces(place, Which::All, user, deadline);
    }
    read(place, user, deadline).map(|one| vec![one])
}

/// Reads ccaches in KCM or a keyring.
#[allow(unsafe_code)] // makes a child
fn read_pieces(
    place: &CcacheName,
    which: Which,
    user: &Identity,
    deadline: Instant,
) -> std::result::Result<Vec<Contents>, Unread> {
    // Only the child writes into this, so it takes no memory of the parent.
    let mut space = vec![0; SPACE];
    let time = deadline.saturating_duration_since(Instant::now());
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer = unsafe {
        sys::ask_as(user, deadline, |put| {
            let mut pieces = Pieces::new(put);
            let written = match place {
                CcacheName::Kcm(name) => kcm::write_pieces(name, which, time, &mut space, &mut pieces),
                CcacheName::Keyring(name) => keyring::write_pieces(name, which, &mut space, &mut pieces),
                CcacheName::File(_) | CcacheName::Dir(_) => None,
            };
            written.is_some()
        })
    };
    let bytes = bytes_of(answer)?;
    match pieces::error(&bytes) {
        Some(error) => Err(Unread::Refused(format!("its keyring cannot be used: {error}"))),
        None => Ok(pieces::assemble(&bytes)),
    }
}

/// The bytes that a child has written, or why it has written none.
fn bytes_of(answer: io::Result<Answer>) -> std::result::Result<Zeroizing<Vec<u8>>, Unread> {
    let answer = answer.map_err(|error| Unread::NotNow(error.to_string()))?;
    answer.bytes().map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => Unread::NotNow("it could not be read in time".to_owned()),
        _ => Unread::Refused("the user cannot read it".to_owned()),
    })
}

/// The bytes of a file, read in a child.
#[allow(unsafe_code)] // makes a child
fn read_file(path: &str, user: &Identity, deadline: Instant) -> std::result::Result<Zeroizing<Vec<u8>>, Unread> {
    let c_path = CString::new(path).map_err(|_| Unread::Refused("its path contains a NUL".to_owned()))?;
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let bytes = bytes_of(unsafe { sys::ask_as(user, deadline, |put| sys::copy_file_to(&c_path, put, LIMIT)) })?;
    // A program has made an empty file for tickets that it gets later.
    if bytes.is_empty() { Err(Unread::Missing) } else { Ok(bytes) }
}
