//! Why a seeding job has failed, on its way to the helper: the job runs as the user and can write into the PAG's own ccache,
//! and the helper tells callers over D-Bus.
//!
//! The user can put another text there, or something that is no file. So a child that has become the user reads it, and
//! what it reads is hostile.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use super::{CcacheName, directory};
use crate::run;
use crate::sys::{self, Answer, Identity};
use crate::types::{PagId, printable};

/// The file. libkrb5 reads only what begins with `tkt` (lib/krb5/ccache/cc_dir.c).
const NAME: &str = ".reason";
/// Largest file that is read, in bytes.
const LARGEST: usize = 4096;
/// Longest reason, in characters.
const LONGEST: usize = 700;

/// Leaves the reason in the PAG's own ccache, if `ccache` is one; none removes an earlier one. Runs as the user.
pub fn leave_reason(ccache: &CcacheName, why: Option<&str>) {
    let CcacheName::Dir(directory) = ccache else { return };
    let directory = Path::new(directory);
    if !directory.starts_with(run::ccaches()) {
        return;
    }
    let path = |name: &str| CString::new(directory.join(name).as_os_str().as_bytes());
    if let (Ok(path), Ok(new)) = (path(NAME), path(&format!("{NAME}.new"))) {
        match why {
            Some(why) => sys::write_file(&new, &path, why.as_bytes(), None),
            None => sys::remove_file(&path),
        };
    }
}

/// Takes the reason out of the PAG's own ccache, as `user`. One line, without control characters.
#[allow(unsafe_code)] // makes a child
pub fn take_reason(user: &Identity, pag: PagId, deadline: Instant) -> Option<String> {
    let path = CString::new(directory(user.uid, pag).join(NAME).as_os_str().as_bytes()).ok()?;
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer =
        unsafe { sys::ask_as(user, deadline, |put| sys::copy_file_to(&path, put, LARGEST) && sys::remove_file(&path)) };
    let bytes = answer.and_then(Answer::bytes).ok()?;
    let text: String = String::from_utf8_lossy(&bytes).trim().chars().map(printable).take(LONGEST).collect();
    Some(text).filter(|text| !text.is_empty())
}
