//! Clears away what users have put into the directories of their ccaches besides a ccache's own files.
//!
//! A user may make directories there as deep and as many as they like, so nothing here goes down into them. If a directory is
//! not empty, its own directories are moved up, beside it, until it is. A child does that, for a limited time, and another
//! one goes on the next time. A directory that a user has mounted a file system on stays: it goes with the user's last PAG.

use std::ffi::{CStr, CString};
use std::path::Path;
use std::time::{Duration, Instant};

use pag::sys::{self, Exit};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, ResolveFlags, openat, openat2, renameat_with, unlinkat,
};
use rustix::io::{Errno, Result};

/// Longest time for one directory: all users wait for the helper.
const TIME: Duration = Duration::from_millis(300);

/// Most entries that are kept in memory.
const MOST: usize = 1000;

/// Empties a directory, as far as there is time. True if there was enough.
#[allow(unsafe_code)] // makes a child
pub(crate) fn clear(directory: &Path) -> bool {
    let deadline = Instant::now() + TIME;
    // This program has one thread, so that a child may allocate.
    // SAFETY: this program has one thread, so no lock is held, and no program is executed.
    let child = unsafe { sys::child(|| u8::from(empty(directory).is_err())) };
    child.and_then(|child| child.wait(deadline)).is_ok_and(|end| end != Exit::TimedOut)
}

fn empty(directory: &Path) -> Result<()> {
    let top = open(CWD, directory)?;
    let mut number = 0_u64;
    loop {
        let (mut waiting, mut progress) = (entries_of(&top)?, false);
        while let Some(name) = waiting.pop() {
            let mut done = remove(&top, &name);
            if done == Err(Errno::NOTEMPTY)
                && let Ok(inner) = open_here(&top, &name)
            {
                for entry in entries_of(&inner)? {
                    let mut done = remove(&inner, &entry);
                    if done == Err(Errno::NOTEMPTY) {
                        number += 1;
                        let free = CString::new(number.to_string()).unwrap_or_default();
                        done = renameat_with(&inner, &entry, &top, &free, RenameFlags::NOREPLACE);
                        // If many wait, it is found by the next look at the top.
                        waiting.extend((done.is_ok() && waiting.len() < MOST).then_some(free));
                    }
                    // A number that is taken already is progress, too: the next one may be free.
                    progress |= done.is_ok() || done == Err(Errno::EXIST);
                }
                done = remove(&top, &name);
            }
            progress |= done.is_ok();
        }
        if !progress {
            return Ok(());
        }
    }
}

/// No link is followed: a user may put one anywhere, at any time.
fn open(place: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    openat(place, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// The same for a directory of the user's, but not for one that a file system is mounted over.
fn open_here(place: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    openat2(place, name, flags, Mode::empty(), resolve)
}

/// The entries of a directory: as many as are worth a pass.
fn entries_of(directory: &OwnedFd) -> Result<Vec<CString>> {
    let entries = Dir::read_from(directory)?.filter_map(|entry| entry.ok().map(|entry| entry.file_name().to_owned()));
    Ok(entries.filter(|name| ![c".", c".."].contains(&name.as_c_str())).take(MOST).collect())
}

fn remove(place: &OwnedFd, name: &CStr) -> Result<()> {
    match unlinkat(place, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(place, name, AtFlags::REMOVEDIR),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;

    #[test]
    fn whatever_a_user_leaves_is_cleared_away() {
        let top = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "").unwrap();
        let theirs = top.path().join("theirs");
        std::fs::create_dir_all(theirs.join("1/2")).unwrap();
        std::fs::write(theirs.join("1/2/file"), "").unwrap();
        (0..1500).for_each(|number| std::fs::write(theirs.join(format!("1/{number}.tkt")), "").unwrap());
        std::os::unix::fs::symlink(outside.path(), theirs.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path(), theirs.join("1/link")).unwrap();
        // Deeper than any path, and than any stack.
        let mut place = open(CWD, &theirs).unwrap();
        for _ in 0..20_000 {
            mkdirat(&place, c"d", Mode::RWXU).unwrap();
            place = open(&place, c"d").unwrap();
        }
        empty(&theirs).unwrap();
        assert_eq!(std::fs::read_dir(&theirs).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists(), "and nothing else");
    }
}
