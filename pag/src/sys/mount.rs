//! Mounts that all namespaces of the host see.

use super::files::open_file;
use std::ffi::CStr;
use std::os::fd::AsRawFd;

use super::files::device_of;

/// How [`mount_for_all`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mount {
    /// The file system was mounted.
    Made,
    /// A file system is mounted there already, and stays as it is. This process may not see it.
    There,
    /// The kernel refused.
    Refused,
}

/// Mounts a tmpfs on `path`, a directory in `above` that only root can write to. The mount is made in the mount
/// namespace of the first process of this pid namespace, so that the host's processes see it; if that namespace
/// cannot be entered, in this process's own. A file system that is mounted there already stays: a second one would
/// hide it. For a child, since it moves to another mount namespace. Allocates nothing.
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

/// Detaches the file system on `path` and all that is mounted in it, even if processes use it. If several are
/// mounted one over the other, it detaches the uppermost.
pub fn detach_mount(path: &CStr) -> bool {
    // SAFETY: a terminated path.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) == 0 }
}
