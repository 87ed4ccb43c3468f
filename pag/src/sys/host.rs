//! Facts about the host and its processes, from the kernel.

use super::ids::ids;
use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::Duration;
use std::{io, ptr};

use super::errno::cerr;

/// `KEYCTL_JOIN_SESSION_KEYRING`. It is called directly, since `keyutils-raw` panics on the result 0, which the
/// kernel gives if the thread already has the ring (security/keys/process_keys.c, join_session_keyring). The result
/// proves nothing; callers look at the session keyring afterwards.
///
/// # Errors
/// EDQUOT, EACCES, ENOMEM, EPERM (a name that begins with a dot), ENOSYS (seccomp).
pub fn join_session(name: Option<&CStr>) -> io::Result<()> {
    let name = name.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: `name` is null or a terminated string that lives through the call.
    cerr(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name) }).map(drop)
}

/// A time in seconds since the epoch, in the host's time zone.
pub fn local_time(seconds: u64) -> libc::tm {
    let seconds = libc::time_t::try_from(seconds).unwrap_or_default();
    // SAFETY: all zero is a value of this struct of numbers and a pointer.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both live over the call, which fills the second or leaves it as it is.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut time) };
    time
}

/// A moment in UTC, from seconds since the epoch. Reads no file.
pub fn utc_time(seconds: u64) -> libc::tm {
    let seconds = libc::time_t::try_from(seconds).unwrap_or_default();
    // SAFETY: all zero is a value of this struct of numbers and a pointer.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both live over the call, which fills the second or leaves it as it is.
    unsafe { libc::gmtime_r(&raw const seconds, &raw mut time) };
    time
}

/// The columns of the terminal that standard output is. None if it is none.
pub fn terminal_width() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: a valid place for the answer.
    let result = unsafe { libc::ioctl(1, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Fills `buffer` with random bytes from the kernel.
///
/// # Errors
/// ENOSYS or EINTR; never blocks after boot.
pub fn random(buffer: &mut [u8]) -> io::Result<()> {
    // SAFETY: pointer and length of one slice.
    let got = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    if usize::try_from(got).is_ok_and(|got| got == buffer.len()) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A file descriptor that becomes readable when the process `pid` ends.
///
/// # Errors
/// ESRCH if there is no such process, ENOSYS before Linux 5.3.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers.
    let fd = cerr(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a process or a zombie has this pid. Asks the kernel, since `/proc` may hide the process or belong to
/// another pid namespace.
pub fn is_process(pid: i32) -> bool {
    // SAFETY: takes integers; signal 0 is no signal.
    let is_there = unsafe { libc::kill(pid, 0) } == 0;
    is_there || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// A process's root directory. In a chroot it differs from the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootDirectory {
    device: (u32, u32),
    inode: u64,
}

/// The root directory of this process, as the kernel has it in memory: a chroot may be on a file server that does
/// not answer. `None` if a sandbox forbids the call.
pub fn root_directory() -> Option<RootDirectory> {
    // SAFETY: all zero is a value of this struct of numbers.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    // SAFETY: a terminated path, and a valid place for the answer.
    let result = unsafe { libc::statx(libc::AT_FDCWD, c"/".as_ptr(), flags, libc::STATX_INO, &raw mut found) };
    let device = (found.stx_dev_major, found.stx_dev_minor);
    (result == 0).then_some(RootDirectory { device, inode: found.stx_ino })
}

/// Whole milliseconds in 64 bits. [`Duration`] gives 128 bits, and code that prints those is a kilobyte larger.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Kills all other processes that this process may signal. For a child that has become a user with no processes
/// worth keeping. Does nothing as root. False if they could not be killed.
pub fn kill_all_others() -> bool {
    let ids = ids();
    if ids.uid.contains(&0) {
        return false;
    }
    // SAFETY: takes integers. ESRCH: there is none.
    unsafe { libc::kill(-1, libc::SIGKILL) == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) }
}

/// Begins a new slice of time for this thread, so that the kernel is less likely to take the processor away in its next
/// calls.
pub fn yield_now() {
    // SAFETY: no arguments.
    unsafe { libc::sched_yield() };
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
