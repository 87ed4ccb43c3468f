//! Where the PAGs' own ccaches are, and how they are made, written and removed.
//!
//! ```text
//! /run/pag/ccache/                 root's, on the host's /run
//!   UID/                           root's: a small tmpfs of this user's own
//!     PAG/                         root's, so that only root renames it and mounts on it
//!       cc/                        the user's: what KRB5CCNAME names
//!     ended.PAG/                   what is left of a PAG that has ended
//! ```
//!
//! The user fills `cc` as they like, so it lies in a file system that nobody else needs: not in that of `/run`, where PID 1
//! would find no room, and not in that of another user.
//!
//! The user mounts what they like over `cc` and what is in it (fusermount takes whatever they can write), and such a file
//! system may never answer. So root goes no further than PAG, but with openat2(2), which crosses no mount; what has to go
//! further is a child that has become the user, with a deadline.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{CcacheName, Contents, read};
use crate::error::{Error, Result};
use crate::run;
use crate::sys::{self, Answer, Exit, Identity, Mount};
use crate::types::PagId;

/// The name of what is the user's in a PAG's directory.
const INNER: &str = "cc";

/// The file system of one user: room for the ccaches of some hundred PAGs. It takes memory for what is in it.
const OPTIONS: &CStr = c"mode=0711,size=16m,nr_inodes=4096";

/// Longest time for it to be mounted. The kernel waits for nobody there.
const MOUNTING: Duration = Duration::from_secs(1);

/// With which status the child ends that mounts it.
const MADE: u8 = 0;
const REFUSED: u8 = 1;
const THERE: u8 = 2;

/// Most file systems, one over the other, that are taken away.
const STACKED: usize = 16;

/// The directory that is a PAG's own ccache.
pub fn directory(uid: u32, pag: PagId) -> PathBuf {
    of_pag(uid, pag).join(INNER)
}

/// What belongs to one PAG.
fn of_pag(uid: u32, pag: PagId) -> PathBuf {
    of_uid(uid).join(pag.to_string())
}

/// What belongs to one uid, so that a login can look for what a killed one has left without looking at all.
fn of_uid(uid: u32) -> PathBuf {
    root().join(uid.to_string())
}

/// Where all of them are.
fn root() -> PathBuf {
    run::ccaches()
}

/// The name by which Kerberos knows a PAG's own ccache.
pub fn name(uid: u32, pag: PagId) -> String {
    format!("DIR:{}", directory(uid, pag).display())
}

/// Makes a PAG's ccache, with `ticket` in it or empty, in a file system of its user's own, which is mounted where it is not
/// there. Needs root. The ccache becomes the user's when all is there: nobody can come in between, and no child has to
/// write it for them. Without the file system there is a directory by which the PAG is known, and no ccache.
///
/// # Errors
/// What the file system says; the ticket is not there then.
pub fn make(uid: u32, gid: u32, pag: PagId, ticket: Option<&Contents>) -> Result<()> {
    let path = directory(uid, pag);
    let mounted = mount(uid);
    let make = || -> io::Result<()> {
        sys::make_directory(&of_pag(uid, pag), 0o711)?;
        mounted?;
        sys::make_directory(&path, 0o700)?;
        let filled = ticket.map_or(Ok(()), |ticket| {
            let written = Files::of(&path)?.write(ticket, Some((uid, gid)));
            written.then_some(()).ok_or_else(io::Error::last_os_error)
        });
        chown(&path, Some(uid), Some(gid)).and(filled)
    };
    make().map_err(Error::system(format!("make {}", path.display())))
}

/// Mounts the file system of `uid`, unless it is there.
#[allow(unsafe_code)] // makes a child
fn mount(uid: u32) -> io::Result<()> {
    let path = of_uid(uid);
    let make_it = || sys::make_directory(&path, 0o711);
    match make_it() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            run::make_directories()?;
            make_it()?;
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if is_mounted(&path)? {
        return Ok(());
    }
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let c_above = CString::new(root().as_os_str().as_bytes())?;
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let child = unsafe {
        sys::child(|| match sys::mount_for_all(c"pag-ccache", &c_path, &c_above, OPTIONS) {
            Mount::Made => MADE,
            Mount::There => THERE,
            Mount::Refused => REFUSED,
        })
    }?;
    let exit = child.wait(Instant::now() + MOUNTING)?;
    if is_mounted(&path)? {
        return Ok(());
    }
    let why = match exit {
        Exit::Status(MADE) => "it was mounted where this process does not see it",
        Exit::Status(THERE) => "one is mounted already where this process does not see it",
        Exit::Status(_) => "the kernel refuses (this process needs CAP_SYS_ADMIN for it)",
        Exit::Signal(_) | Exit::TimedOut => "the kernel does not answer",
    };
    let what = format!("no file system could be mounted on {}: {why}", path.display());
    Err(io::Error::other(what))
}

/// Whether a file system is mounted on a directory of root's, one of root's.
fn is_mounted(path: &Path) -> io::Result<bool> {
    let (it, above) = (std::fs::symlink_metadata(path)?, std::fs::symlink_metadata(root())?);
    Ok(it.is_dir() && it.uid() == 0 && it.dev() != above.dev())
}

/// Takes away the file system of a user who has no PAG, with whatever is in it and is mounted in it. Needs root, and the
/// uid's lock. False when it stays.
pub fn unmount(uid: u32) -> bool {
    let path = of_uid(uid);
    let Ok(c_path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut stacked = 0;
    while stacked < STACKED && is_mounted(&path).is_ok_and(|mounted| mounted) && sys::detach_mount(&c_path) {
        stacked += 1;
    }
    let unmounted = is_mounted(&path).is_ok_and(|mounted| !mounted);
    // What is below it is root's: directories of PAGs that had no ccache.
    let below = std::fs::read_dir(&path).into_iter().flatten().flatten().filter(|_| unmounted);
    below.for_each(|entry| drop(std::fs::remove_dir(entry.path())));
    unmounted && std::fs::remove_dir(&path).is_ok()
}

/// The files in a PAG's ccache, by names that a child can use. What it does with them allocates nothing.
struct Files {
    cache: CString,
    new_cache: CString,
    primary: CString,
    new_primary: CString,
}

impl Files {
    /// No lock keeps two logins from writing at once: each has a name of its own for what it has not finished.
    fn of(directory: &Path) -> io::Result<Self> {
        let mut bits = [0; 8];
        sys::random(&mut bits)?;
        let own = u64::from_ne_bytes(bits);
        let name = |name: &str| CString::new(directory.join(name).into_os_string().into_vec());
        Ok(Files {
            cache: name("tkt")?,
            new_cache: name(&format!(".tkt.{own:016x}"))?,
            primary: name("primary")?,
            new_primary: name(&format!(".primary.{own:016x}"))?,
        })
    }

    fn write(&self, ticket: &Contents, owner: Option<(u32, u32)>) -> bool {
        sys::write_file(&self.new_cache, &self.cache, &ticket.bytes, owner)
            && sys::write_file(&self.new_primary, &self.primary, b"tkt\n", owner)
    }

    fn remove(&self) -> bool {
        sys::remove_file(&self.cache) && sys::remove_file(&self.primary)
    }
}

/// Puts `contents` into the PAG's ccache unless a later ticket of the same principal is there already: the user may
/// have renewed it. True when it was put there. The user decides how long this takes, up to `deadline`: not to be called
/// under a lock.
///
/// # Errors
/// `System` when the user's child could not write it.
pub fn feed(user: &Identity, pag: PagId, contents: &Contents, deadline: Instant) -> Result<bool> {
    let path = directory(user.uid, pag);
    if let Ok(there) = read(&CcacheName::Dir(path.display().to_string()), user, deadline)
        && there.summary.principal == contents.summary.principal
        && there.summary.tgt_expires >= contents.summary.tgt_expires
    {
        return Ok(false);
    }
    put(user, pag, contents, deadline).map(|()| true)
}

/// Puts `contents` into the PAG's ccache, whatever is there.
///
/// # Errors
/// As [`feed`].
#[allow(unsafe_code)] // makes a child
pub fn put(user: &Identity, pag: PagId, contents: &Contents, deadline: Instant) -> Result<()> {
    let path = directory(user.uid, pag);
    let doing = || Error::system(format!("write the ccache in {}", path.display()));
    let files = Files::of(&path).map_err(doing())?;
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer = unsafe { sys::ask_as(user, deadline, |_| files.write(contents, None)) };
    answer.and_then(Answer::bytes).map(drop).map_err(doing())
}

/// Takes the ticket out of the PAG's ccache; the directory stays, and what else the user may have in it.
///
/// # Errors
/// As [`feed`].
#[allow(unsafe_code)] // makes a child
pub fn empty(user: &Identity, pag: PagId, deadline: Instant) -> Result<()> {
    let path = directory(user.uid, pag);
    let doing = || Error::system(format!("empty the ccache in {}", path.display()));
    let files = Files::of(&path).map_err(doing())?;
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer = unsafe { sys::ask_as(user, deadline, |_| files.remove()) };
    answer.and_then(Answer::bytes).map(drop).map_err(doing())
}

/// By what one notices that the PAG's ccache was written: when it was, to the nanosecond, and how long it is; nothing
/// where there is none, or where a file system is mounted over it.
pub fn stamp(uid: u32, pag: PagId) -> Option<(i64, i64, u64)> {
    let name = CString::new(format!("{pag}/{INNER}/tkt")).ok()?;
    let found = File::from(open(uid, &name).ok()?).metadata().ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.len()))
}

/// The directory that is a PAG's own ccache, to be watched; not where a file system is mounted over it.
///
/// # Errors
/// As openat2(2); `Unsupported` before Linux 5.6.
pub fn open_directory(uid: u32, pag: PagId) -> io::Result<OwnedFd> {
    open(uid, &CString::new(format!("{pag}/{INNER}"))?)
}

/// Something in the file system of `uid`, to be looked at (O_PATH).
fn open(uid: u32, name: &CStr) -> io::Result<OwnedFd> {
    let top = CString::new(of_uid(uid).into_os_string().into_vec())?;
    sys::open_beneath(&top, name, sys::LOOK)
}

/// Most files of a ccache that a login removes: nobody waits for what a user has filled it with.
const FEW: usize = 32;

/// What a PAG's directory is called once the PAG has ended, before its PagId.
const ENDED: &str = "ended.";

/// Removes the ccache of a PAG that has ended, with the files in it. Needs root. What the user has put there besides,
/// directories, very many files and what they have mounted, stays, under a name that is no PAG's: the helper clears that
/// away, and in the end it goes with the file system.
pub fn remove(uid: u32, pag: PagId) {
    let (path, aside) = (of_pag(uid, pag), of_uid(uid).join(format!("{ENDED}{pag}")));
    // At once, whatever is in it: by its directory one knows a PAG that has not ended.
    remove_few(uid, if std::fs::rename(&path, &aside).is_ok() { &aside } else { &path });
}

/// Removes a few files of a ccache of `uid` that is a PAG's no more, and its directories if those were all.
pub fn remove_few(uid: u32, path: &Path) {
    let inner = path.file_name().map(|name| Path::new(name).join(INNER).into_os_string().into_vec());
    let inner = inner.and_then(|name| open(uid, &CString::new(name).ok()?).ok());
    if let Some(inner) = inner {
        // The very directory that was opened, whatever is mounted over it meanwhile. No file is gone into: what a file system
        // is mounted on cannot be removed (EBUSY).
        let inner = format!("/proc/self/fd/{}", inner.as_raw_fd());
        let entries = std::fs::read_dir(&inner).into_iter().flatten().flatten();
        entries.take(FEW).for_each(|entry| drop(std::fs::remove_file(entry.path())));
    }
    let _ = std::fs::remove_dir(path.join(INNER));
    let _ = std::fs::remove_dir(path);
}

/// What is left of PAGs of `uid` that have ended.
pub fn ended(uid: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of_uid(uid)).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(ENDED.as_bytes()))
        .map(|e| e.path())
        .collect()
}

/// The PAGs of `uid` that have a directory.
pub fn of_user(uid: u32) -> Vec<PagId> {
    let Ok(entries) = std::fs::read_dir(of_uid(uid)) else { return Vec::new() };
    entries.flatten().filter_map(|entry| PagId::parse(entry.file_name().to_str()?)).collect()
}

/// The uids that have directories.
pub fn users() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(root()) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
