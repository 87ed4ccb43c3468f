//! The own ccaches of PAGs: how they are made, written and removed.
//!
//! ```text
//! /run/pag/ccache/                 root's, on the host's /run
//!   UID/                           root's: a small tmpfs for this user
//!     PAG/                         root's, so that only root renames it and mounts on it
//!       cc/                        the user's, and named by KRB5CCNAME
//!     new.PAG/                     PAG/, until the PAG is in the registry
//!     ended.PAG/                   the rest of a PAG that has ended
//! ```
//!
//! So a directory PAG/ is that of a PAG that was made and has not ended, and no other process removes it.
//!
//! The user may fill `cc`. So each user has a file system of their own: a full one takes no room from PID 1 in `/run`,
//! or from another user.
//!
//! The user may mount a file system over `cc`, or over a file in it, and it may never answer (fusermount mounts on all
//! that the user can write). So root opens nothing below PAG, except with openat2(2), which crosses no mount. All other
//! work there is done by a child that has become the user, with a deadline.

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

/// The user's directory in the directory of a PAG.
const INNER: &str = "cc";

/// The options of one user's file system. It has room for the ccaches of some hundred PAGs, and takes memory only for
/// its files.
const OPTIONS: &CStr = c"mode=0711,size=16m,nr_inodes=4096";

/// Longest time for mounting it. The kernel does not wait for another process there.
const MOUNTING: Duration = Duration::from_secs(1);

/// Status of the child: it has mounted the file system.
const MADE: u8 = 0;
/// Status of the child: the kernel has refused.
const REFUSED: u8 = 1;
/// Status of the child: a file system was mounted there before.
const THERE: u8 = 2;

/// Most file systems, one over the other, that are unmounted.
const STACKED: usize = 16;

/// The directory that is a PAG's own ccache.
pub fn directory(uid: u32, pag: PagId) -> PathBuf {
    of_pag(uid, pag).join(INNER)
}

/// The directory of one PAG.
fn of_pag(uid: u32, pag: PagId) -> PathBuf {
    of_uid(uid).join(pag.to_string())
}

/// The directory of a PAG that is not in the registry yet.
fn unfinished(uid: u32, pag: PagId) -> PathBuf {
    of_uid(uid).join(format!("{NEW}{pag}"))
}

/// The directory of one uid. A login that looks for the rest of a killed one reads only this.
fn of_uid(uid: u32) -> PathBuf {
    root().join(uid.to_string())
}

/// The directory of all own ccaches.
fn root() -> PathBuf {
    run::ccaches()
}

/// The name of a PAG's own ccache, for KRB5CCNAME.
pub fn name(uid: u32, pag: PagId) -> String {
    format!("DIR:{}", directory(uid, pag).display())
}

/// Makes a PAG's ccache, with `ticket` in it or empty, in the user's file system, and mounts that first if need be.
/// Needs root. The ccache gets its name by [`finish`].
///
/// The ccache becomes the user's last. Until then the user can't change it, so no child has to write it as the user. If
/// the file system can't be mounted, the PAG has a directory, by which it is known, and no ccache.
///
/// # Errors
/// `System` when the ccache could not be made, or the ticket not written.
pub fn make(uid: u32, gid: u32, pag: PagId, ticket: Option<&Contents>) -> Result<()> {
    let path = unfinished(uid, pag).join(INNER);
    let mounted = mount(uid);
    let make = || -> io::Result<()> {
        sys::make_directory(&unfinished(uid, pag), 0o711)?;
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

/// Gives the ccache of a PAG its name: the PAG is in the registry now.
pub fn finish(uid: u32, pag: PagId) {
    let _ = std::fs::rename(unfinished(uid, pag), of_pag(uid, pag));
}

/// Mounts the file system of `uid`, unless it is mounted already.
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

/// Whether a file system of root's is mounted on this directory.
fn is_mounted(path: &Path) -> io::Result<bool> {
    let (it, above) = (std::fs::symlink_metadata(path)?, std::fs::symlink_metadata(root())?);
    Ok(it.is_dir() && it.uid() == 0 && it.dev() != above.dev())
}

/// Unmounts the file system of a user without a PAG, with all that is mounted in it, and removes its directory. Needs
/// root, and the uid's lock. False if it stays.
pub fn unmount(uid: u32) -> bool {
    let path = of_uid(uid);
    let Ok(c_path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut stacked = 0;
    while stacked < STACKED && is_mounted(&path).is_ok_and(|mounted| mounted) && sys::detach_mount(&c_path) {
        stacked += 1;
    }
    let unmounted = is_mounted(&path).is_ok_and(|mounted| !mounted);
    // Below the mount there may be directories of PAGs that had no ccache. They are root's.
    let below = std::fs::read_dir(&path).into_iter().flatten().flatten().filter(|_| unmounted);
    below.for_each(|entry| drop(std::fs::remove_dir(entry.path())));
    unmounted && std::fs::remove_dir(&path).is_ok()
}

/// The paths of the files in a PAG's ccache. A child can write and remove them without allocating.
struct Files {
    cache: CString,
    new_cache: CString,
    primary: CString,
    new_primary: CString,
}

impl Files {
    /// Two logins may write at the same time, without a lock. Each has its own names for unfinished files.
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

/// Writes `contents` into the PAG's ccache, unless a later ticket of the same principal is there: the user may have
/// renewed it. True if it was written. The user can make this slow, up to `deadline`, so call it without the uid's
/// lock.
///
/// # Errors
/// `System` when the child could not write the ccache, or not in time.
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

/// Writes `contents` into the PAG's ccache, over any other ticket.
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

/// Removes the ticket from the PAG's ccache. The directory stays, with any other files of the user.
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

/// A value that changes when the PAG's ccache is written: the time of the last change, in seconds and nanoseconds, and
/// the length in bytes. None without a ccache, or if a file system is mounted over it.
pub fn stamp(uid: u32, pag: PagId) -> Option<(i64, i64, u64)> {
    let name = CString::new(format!("{pag}/{INNER}/tkt")).ok()?;
    let found = File::from(open(uid, &name).ok()?).metadata().ok()?;
    Some((found.mtime(), found.mtime_nsec(), found.len()))
}

/// Opens the directory of a PAG's own ccache, so that the helper can watch it.
///
/// # Errors
/// As openat2(2), also if a file system is mounted over the directory. `Unsupported` before Linux 5.6.
pub fn open_directory(uid: u32, pag: PagId) -> io::Result<OwnedFd> {
    open(uid, &CString::new(format!("{pag}/{INNER}"))?)
}

/// Opens a file or directory in the file system of `uid` with O_PATH. This crosses no mount.
fn open(uid: u32, name: &CStr) -> io::Result<OwnedFd> {
    let top = CString::new(of_uid(uid).into_os_string().into_vec())?;
    sys::open_beneath(&top, name, sys::LOOK)
}

/// Most files of a ccache that a login removes, so that a user can't make a login slow by many files.
const FEW: usize = 32;

/// Stands before the PagId in the name of the directory of a PAG that is not in the registry yet.
const NEW: &str = "new.";
/// Stands before the PagId in the name of the directory of a PAG that has ended.
const ENDED: &str = "ended.";

/// Removes the ccache of a PAG that has ended, with the files in it. Needs root. Directories, mounts and very many
/// files of the user stay, under a name that no PAG has. The helper removes them later, and at the latest they go with
/// the file system.
pub fn remove(uid: u32, pag: PagId) {
    let (path, aside) = (of_pag(uid, pag), of_uid(uid).join(format!("{ENDED}{pag}")));
    // The new name comes first: a directory with the name of a PAG says that the PAG lives.
    let moved = [path, unfinished(uid, pag)].iter().any(|from| std::fs::rename(from, &aside).is_ok());
    if moved {
        remove_few(uid, &aside);
    }
}

/// Removes at most [`FEW`] files from the ccache of a PAG of `uid` that has ended, and its directories if they are
/// empty then.
pub fn remove_few(uid: u32, path: &Path) {
    let inner = path.file_name().map(|name| Path::new(name).join(INNER).into_os_string().into_vec());
    let inner = inner.and_then(|name| open(uid, &CString::new(name).ok()?).ok());
    if let Some(inner) = inner {
        // This path leads to the opened directory, even if a file system is mounted over it now. Removing a file opens
        // none, and a file below a mount can't be removed (EBUSY).
        let inner = format!("/proc/self/fd/{}", inner.as_raw_fd());
        let entries = std::fs::read_dir(&inner).into_iter().flatten().flatten();
        entries.take(FEW).for_each(|entry| drop(std::fs::remove_file(entry.path())));
    }
    let _ = std::fs::remove_dir(path.join(INNER));
    let _ = std::fs::remove_dir(path);
}

/// The directories of PAGs of `uid` that have ended.
pub fn ended(uid: u32) -> Vec<PathBuf> {
    let path = of_uid(uid);
    named(uid, ENDED).into_iter().map(|pag| path.join(format!("{ENDED}{pag}"))).collect()
}

/// The PAGs of `uid` that have a directory and are not in the registry yet. While a process has the uid's lock, these
/// are left by logins that were killed.
pub fn begun(uid: u32) -> Vec<PagId> {
    named(uid, NEW)
}

/// The PAGs of `uid` that have a directory and have not ended.
pub fn of_user(uid: u32) -> Vec<PagId> {
    named(uid, "")
}

/// The PAGs of `uid` that have a directory with these letters before the PagId.
fn named(uid: u32, letters: &str) -> Vec<PagId> {
    let entries = std::fs::read_dir(of_uid(uid)).into_iter().flatten().flatten();
    entries.filter_map(|entry| PagId::parse(entry.file_name().to_str()?.strip_prefix(letters)?)).collect()
}

/// The uids that have directories.
pub fn users() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(root()) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
