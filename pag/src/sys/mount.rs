//! Mounts that all namespaces of the host see.

use super::files::open_file;
use std::ffi::CStr;
use std::os::fd::AsRawFd;

use super::files::device_of;

/// How [`mount_for_all`] has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mount {
    /// The file system was mounted.
    Made,
    /// One is mounted already where this process may not see it, and stays as it is.
    There,
    /// The kernel refuses.
    Refused,
}

/// Mounts a tmpfs on `path`, a directory in `above` which only root can write to, where all processes see it that see what
/// the first one of this pid namespace mounts; where that one cannot be asked, where this process is. What is mounted there
/// stays: a second file system would hide it. For a child, since it moves to another mount namespace; allocates nothing.
pub fn mount_for_all(source: &CStr, path: &CStr, above: &CStr, options: &CStr) -> Mount {
    if let Ok(first) = open_file(c"/proc/1/ns/mnt") {
        // SAFETY: takes a valid descriptor and an integer.
        unsafe { libc::setns(first.as_raw_fd(), libc::CLONE_NEWNS) };
    }
    match (device_of(path), device_of(above)) {
        (Some(it), Some(above)) if it == above => {}
        (Some(_), Some(_)) => return Mount::There,
        _ => return Mount::Refused,
    }
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let (kind, options) = (c"tmpfs".as_ptr(), options.as_ptr().cast());
    // SAFETY: four terminated strings.
    match unsafe { libc::mount(source.as_ptr(), path.as_ptr(), kind, flags, options) } {
        0 => Mount::Made,
        _ => Mount::Refused,
    }
}

/// Takes away what is mounted on `path`, and all that is mounted in it, whoever uses it still. Of file systems that are
/// mounted one over the other it takes the uppermost.
pub fn detach_mount(path: &CStr) -> bool {
    // SAFETY: a terminated path.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) == 0 }
}
