//! The ids of one thread.
//!
//! The functions use the system calls directly. libc's wrappers switch *every* thread of the process (nptl's setxid
//! broadcast), but PAM hosts such as gdm have threads, and only the calling one may change.

use std::ffi::c_int;
use std::io;

use super::errno::cerr;

/// The ids of one thread that decide what it may do with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// Real, effective and saved uid.
    pub uid: [u32; 3],
    /// Real, effective and saved gid.
    pub gid: [u32; 3],
    /// File system uid: permission checks on keys use it, and it becomes the owner of a key made by `add_key`.
    pub fsuid: u32,
    /// File system gid.
    pub fsgid: u32,
}

/// Reads the calling thread's ids.
pub fn ids() -> Ids {
    let (mut r, mut e, mut s) = (0, 0, 0);
    let (mut rg, mut eg, mut sg) = (0, 0, 0);
    // SAFETY: six valid places; the calls cannot fail with them.
    unsafe { libc::getresuid(&raw mut r, &raw mut e, &raw mut s) };
    // SAFETY: as above.
    unsafe { libc::getresgid(&raw mut rg, &raw mut eg, &raw mut sg) };
    Ids { uid: [r, e, s], gid: [rg, eg, sg], fsuid: setfsuid(u32::MAX), fsgid: setfsgid(u32::MAX) }
}

/// Sets this thread's file system uid and returns the former one; `u32::MAX` only asks. The call reports no error:
/// ask again to see whether it worked.
pub fn setfsuid(uid: u32) -> u32 {
    // SAFETY: takes an integer.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let before = unsafe { libc::syscall(libc::SYS_setfsuid, uid) } as u32;
    before
}

/// Sets this thread's file system gid and returns the former one; `u32::MAX` only asks.
pub fn setfsgid(gid: u32) -> u32 {
    // SAFETY: takes an integer.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let before = unsafe { libc::syscall(libc::SYS_setfsgid, gid) } as u32;
    before
}

/// Sets this thread's real, effective and saved uid; `u32::MAX` leaves one as it is.
///
/// # Errors
/// EPERM without CAP_SETUID, EAGAIN when out of memory.
pub fn setresuid(uid: [u32; 3]) -> io::Result<()> {
    let [r, e, s] = uid;
    // SAFETY: takes integers.
    cerr(unsafe { libc::syscall(libc::SYS_setresuid, r, e, s) }).map(drop)
}

/// Sets this thread's real, effective and saved gid; `u32::MAX` leaves one as it is.
///
/// # Errors
/// EPERM without CAP_SETGID.
pub fn setresgid(gid: [u32; 3]) -> io::Result<()> {
    let [r, e, s] = gid;
    // SAFETY: takes integers.
    cerr(unsafe { libc::syscall(libc::SYS_setresgid, r, e, s) }).map(drop)
}

pub(super) fn setgroups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: length and pointer of one slice.
    cerr(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// The attributes of a process that the kernel clears when its ids change (kernel/cred.c, commit_creds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    parent_death_signal: c_int,
    dumpable: c_int,
    parent: i32,
}

/// Reads the attributes that a change of ids clears.
pub fn attributes() -> Attributes {
    let mut parent_death_signal: c_int = 0;
    // SAFETY: a valid place for one int.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut parent_death_signal) };
    // SAFETY: no arguments.
    let dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
    // SAFETY: no arguments.
    let parent = if parent_death_signal == 0 { 0 } else { unsafe { libc::getppid() } };
    Attributes { parent_death_signal, dumpable, parent }
}

impl Attributes {
    /// Sets back what differs. A parent that died while the signal was not armed is made up for.
    pub fn restore(self) {
        let now = attributes();
        if now.dumpable != self.dumpable && (self.dumpable == 0 || self.dumpable == 1) {
            // SAFETY: takes an integer.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, self.dumpable) };
        }
        if now.parent_death_signal != self.parent_death_signal {
            // SAFETY: takes an integer.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, self.parent_death_signal) };
            // SAFETY: no arguments.
            if unsafe { libc::getppid() } != self.parent {
                // SAFETY: signals ourselves, as the kernel would have done.
                unsafe { libc::raise(self.parent_death_signal) };
            }
        }
    }
}
