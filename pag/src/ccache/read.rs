//! Reading a user's ccache, by a child that is the user.

use std::ffi::CString;
use std::io;
use std::time::Instant;

use zeroize::Zeroizing;

use super::contents::{Contents, LIMIT, SPACE, Unread, Which};
use super::name::CcacheName;
use super::pieces::{self, Pieces};
use super::{format, kcm, keyring};
use crate::sys::{self, Answer, Identity};

/// Reads a ccache as the user, in a child, at most until `deadline`; of a collection the primary one.
///
/// # Errors
/// That there is none, or what is wrong with it.
pub fn read(place: &CcacheName, user: &Identity, deadline: Instant) -> std::result::Result<Contents, Unread> {
    let refused = |why: &str| Unread::Refused(why.to_owned());
    let path = match place {
        CcacheName::File(path) => path.clone(),
        CcacheName::Dir(dir) => {
            let primary = read_file(&format!("{dir}/primary"), user, deadline).ok();
            let name = primary.as_ref().and_then(|bytes| str::from_utf8(bytes).ok()).map_or("tkt", str::trim_end);
            // MIT's own rule for the name in `primary` (cc_dir.c, read_primary_file): no path, and it begins with tkt.
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

/// Reads all ccaches of a collection of the uid's in KCM or a keyring; of anything else as [`read`].
///
/// # Errors
/// As [`read`].
pub fn read_all(place: &CcacheName, user: &Identity, deadline: Instant) -> std::result::Result<Vec<Contents>, Unread> {
    if place.is_of_uid() {
        return read_pieces(place, Which::All, user, deadline);
    }
    read(place, user, deadline).map(|one| vec![one])
}

#[allow(unsafe_code)] // makes a child
fn read_pieces(
    place: &CcacheName,
    which: Which,
    user: &Identity,
    deadline: Instant,
) -> std::result::Result<Vec<Contents>, Unread> {
    // The child's: nothing is written here, so it takes no memory.
    let mut space = vec![0; SPACE];
    let time = deadline.saturating_duration_since(Instant::now());
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer = unsafe {
        sys::ask_as(user, deadline, |put| {
            let mut pieces = Pieces::new(put);
            let told = match place {
                CcacheName::Kcm(name) => kcm::tell(name, which, time, &mut space, &mut pieces),
                CcacheName::Keyring(name) => keyring::tell(name, which, &mut space, &mut pieces),
                CcacheName::File(_) | CcacheName::Dir(_) => None,
            };
            told.is_some()
        })
    };
    let said = said(answer)?;
    match pieces::error(&said) {
        Some(error) => Err(Unread::Refused(format!("its keyring cannot be used: {error}"))),
        None => Ok(pieces::assemble(&said)),
    }
}

/// What a child has said, or in words why there is nothing.
pub(super) fn said(answer: io::Result<Answer>) -> std::result::Result<Zeroizing<Vec<u8>>, Unread> {
    let answer = answer.map_err(|error| Unread::NotNow(error.to_string()))?;
    answer.bytes().map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => Unread::NotNow("it could not be read in time".to_owned()),
        _ => Unread::Refused("the user cannot read it".to_owned()),
    })
}

#[allow(unsafe_code)] // makes a child
fn read_file(path: &str, user: &Identity, deadline: Instant) -> std::result::Result<Zeroizing<Vec<u8>>, Unread> {
    let c_path = CString::new(path).map_err(|_| Unread::Refused("its path holds a NUL".to_owned()))?;
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let bytes = said(unsafe { sys::ask_as(user, deadline, |put| sys::copy_file_to(&c_path, put, LIMIT)) })?;
    // A file without a word in it is one that a program has made for what it gets later.
    if bytes.is_empty() { Err(Unread::Missing) } else { Ok(bytes) }
}
