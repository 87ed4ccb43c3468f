//! Files that a user can have put there, and files for a user.

use super::fork::Put;
use std::ffi::CString;
use std::ffi::{CStr, c_int, c_long};
use std::io::{self};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::descriptors::write_all;
use super::errno::cerr;

/// Opens a file for reading, without allocating and without waiting for a writer. Also an AFS device, for
/// [`afs_setpag`] and [`afs_pioctl`]: OpenAFS's own library asks for no more (src/sys/glue.c), and a unit with
/// `ProtectKernelTunables=` has /proc/fs read-only.
///
/// # Errors
/// As `open(2)`.
pub fn open_file(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: a terminated path.
    let fd = unsafe { libc::open(path.as_ptr(), flags) };
    cerr(c_long::from(fd))?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Says what is in the file at `path`, at most `limit` bytes, without allocating, and nothing where there is none; a link at the
/// end of the path, and what is no file, is refused. For a child that has become the file's owner.
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

/// Of openat2(2): what is opened is below, in the same mount, and no link is followed on the way.
const BENEATH: u64 = libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_BENEATH;

/// Flags of open(2) for what is only looked at: it is not opened itself, so no file system is asked for it.
pub const LOOK: c_int = libc::O_PATH;

fn openat2(at: RawFd, path: &CStr, flags: c_int, resolve: u64) -> io::Result<OwnedFd> {
    // SAFETY: all zero is a value of this struct of numbers.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::try_from(flags | libc::O_CLOEXEC).unwrap_or(0);
    how.resolve = resolve;
    // SAFETY: a terminated path, and a valid struct of the size that is said.
    let fd = cerr(unsafe { libc::syscall(libc::SYS_openat2, at, path.as_ptr(), &raw const how, size_of_val(&how)) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?) })
}

fn open_top(directory: &CStr) -> io::Result<OwnedFd> {
    openat2(libc::AT_FDCWD, directory, libc::O_PATH | libc::O_DIRECTORY, libc::RESOLVE_NO_SYMLINKS)
}

/// Opens what is below `top`, a directory that only root can replace, in the very mount that `top` is in: nothing that a user
/// has mounted there is asked.
///
/// # Errors
/// EXDEV where something is mounted, ELOOP where there is a link, ENOSYS before Linux 5.6; as open(2).
pub fn open_beneath(top: &CStr, name: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    openat2(open_top(top)?.as_raw_fd(), name, flags, BENEATH)
}

/// The file system that something is in. Allocates nothing.
pub(super) fn device_of(path: &CStr) -> Option<libc::dev_t> {
    // SAFETY: all zero is a value of this struct of numbers.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated path, and a valid place for what is found.
    (unsafe { libc::lstat(path.as_ptr(), &raw mut found) } == 0).then_some(found.st_dev)
}

/// Makes a directory with this mode, in spite of the host's umask.
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

/// Removes a file, or finds that there is none. For a child that has become the directory's owner.
pub fn remove_file(path: &CStr) -> bool {
    // SAFETY: a terminated path.
    let removed = unsafe { libc::unlink(path.as_ptr()) } == 0;
    removed || io::Error::last_os_error().kind() == io::ErrorKind::NotFound
}

/// Writes `bytes` to `path` by way of `temporary` in the same directory, mode 0600, without allocating, and gives it to
/// `owner`, a uid and a gid. For a child that has become the directory's owner, or where nobody but root can write.
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
    fn what_is_beneath_is_opened_by_no_link_and_in_no_other_mount() {
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
