//! Files that users may have made, and files that are made for users.

use super::fork::Put;
use std::ffi::{CStr, CString, c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::descriptors::write_all;
use super::errno::cerr;

/// Opens a file for reading, without allocating and without waiting for a writer. It also opens an AFS device for
/// [`super::afs_setpag`] and [`super::afs_pioctl`]: OpenAFS's own library opens it for reading only, too
/// (src/sys/glue.c), and a unit with `ProtectKernelTunables=` has /proc/fs read-only.
///
/// # Errors
/// As `open(2)`.
pub fn open_file(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: a terminated path.
    let fd = unsafe { libc::open(path.as_ptr(), flags) };
    cerr(c_long::from(fd))?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Writes the contents of the file at `path` to `put`, at most `limit` bytes, without allocating. Writes nothing if
/// there is no file. False if it fails, if the last component of `path` is a link, or if it is not a regular file.
/// For a child that has become the file's owner.
pub fn copy_file_to(path: &CStr, put: Put<'_>, limit: usize) -> bool {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: a terminated path.
    let fd = unsafe { libc::open(path.as_ptr(), flags) };
    if fd < 0 {
        return matches!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR));
    }
    // SAFETY: our own, valid descriptor.
    let file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return false;
    }
    let mut buffer = [0_u8; 4096];
    let mut total = 0;
    loop {
        // SAFETY: pointer and length of one buffer.
        let got = unsafe { libc::read(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(got) {
            Ok(0) => return true,
            Ok(got) => {
                total += got;
                let Some(part) = buffer.get(..got) else { return false };
                if total > limit || !put(part) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}

/// For openat2(2): the file must be below the directory and in the same mount, and no link is followed on the way.
const STAY_BENEATH: u64 = libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_BENEATH;

/// Flags for open(2) if a file is only looked at. The kernel does not ask the file system for an O_PATH descriptor.
pub const LOOK: c_int = libc::O_PATH;

fn openat2(at: RawFd, path: &CStr, flags: c_int, resolve: u64) -> io::Result<OwnedFd> {
    // SAFETY: all zero is a value of this struct of numbers.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::try_from(flags | libc::O_CLOEXEC).unwrap_or(0);
    how.resolve = resolve;
    // SAFETY: a terminated path, and a valid struct, with its size.
    let fd = cerr(unsafe { libc::syscall(libc::SYS_openat2, at, path.as_ptr(), &raw const how, size_of_val(&how)) })?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?) })
}

fn open_top(directory: &CStr) -> io::Result<OwnedFd> {
    openat2(libc::AT_FDCWD, directory, libc::O_PATH | libc::O_DIRECTORY, libc::RESOLVE_NO_SYMLINKS)
}

/// Opens a file below `top`, a directory that only root can replace, and in the same mount as `top`. So a file
/// system that a user has mounted there is never asked.
///
/// # Errors
/// EXDEV at a mount point, ELOOP at a link, ENOSYS before Linux 5.6; otherwise as open(2).
pub fn open_beneath(top: &CStr, name: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    openat2(open_top(top)?.as_raw_fd(), name, flags, STAY_BENEATH)
}

/// The file system that holds `path`. Allocates nothing.
pub(super) fn device_of(path: &CStr) -> Option<libc::dev_t> {
    // SAFETY: all zero is a value of this struct of numbers.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated path, and a valid place for what is found.
    (unsafe { libc::lstat(path.as_ptr(), &raw mut found) } == 0).then_some(found.st_dev)
}

/// Makes a directory with exactly this mode, whatever the host's umask is.
///
/// # Errors
/// As mkdir(2).
pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a terminated path.
    cerr(unsafe { libc::mkdir(path.as_ptr(), mode) }.into())?;
    // SAFETY: the same.
    cerr(unsafe { libc::chmod(path.as_ptr(), mode) }.into()).map(drop)
}

/// Removes a file. True if it is gone or there was none. For a child that has become the directory's owner.
pub fn remove_file(path: &CStr) -> bool {
    // SAFETY: a terminated path.
    let removed = unsafe { libc::unlink(path.as_ptr()) } == 0;
    removed || io::Error::last_os_error().kind() == io::ErrorKind::NotFound
}

/// Writes `bytes` to a new file at `temporary`, mode 0600, gives the file to `owner` (a uid and a gid), and renames
/// it to `path` in the same directory. Allocates nothing. For a child that has become the directory's owner, or a
/// directory that only root can write to.
pub fn write_file(temporary: &CStr, path: &CStr, bytes: &[u8], owner: Option<(u32, u32)>) -> bool {
    // SAFETY: a terminated path.
    unsafe { libc::unlink(temporary.as_ptr()) };
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: a terminated path.
    let fd = unsafe { libc::open(temporary.as_ptr(), flags, 0o600) };
    if fd < 0 {
        return false;
    }
    // SAFETY: our own, valid descriptor.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: our own, valid descriptor.
    let given = owner.is_none_or(|(uid, gid)| unsafe { libc::fchown(file.as_raw_fd(), uid, gid) } == 0);
    // SAFETY: terminated paths.
    let renamed = || unsafe { libc::rename(temporary.as_ptr(), path.as_ptr()) == 0 };
    let written = given && write_all(std::os::fd::AsFd::as_fd(&file), bytes) && renamed();
    if !written {
        // `errno` stays: a call that succeeds leaves it alone.
        // SAFETY: a terminated path.
        unsafe { libc::unlink(temporary.as_ptr()) };
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_beneath_is_opened_through_no_link_and_in_no_other_mount() {
        let top = tempfile::tempdir().unwrap();
        let c = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
        std::fs::create_dir_all(top.path().join("pag/cc")).unwrap();
        std::os::unix::fs::symlink("cc", top.path().join("pag/link")).unwrap();
        std::os::unix::fs::symlink("pag", top.path().join("way")).unwrap();
        assert!(open_beneath(&c(top.path()), c"pag/cc", LOOK).is_ok());
        for name in [c"pag/link/x", c"way/cc", c"../..", c"none"] {
            assert!(open_beneath(&c(top.path()), name, LOOK).is_err(), "{name:?}");
        }
        assert_eq!(open_beneath(c"/", c"proc", LOOK).unwrap_err().raw_os_error(), Some(libc::EXDEV));
    }
}
