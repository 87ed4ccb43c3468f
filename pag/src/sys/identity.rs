//! How a child becomes a user.

use super::errno::cerr;
use std::io;

use super::ids::{ids, setgroups, setresgid, setresuid};

/// The user that a child becomes before it does its work.
#[derive(Debug, Clone)]
pub struct Identity {
    /// User id, for real, effective, saved and file system uid.
    pub uid: u32,
    /// Group id, likewise.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Identity {
    /// Makes this thread that user for good: no code that runs in it later can get back. Allocates nothing.
    ///
    /// # Errors
    /// EPERM if the caller is neither root nor already that user.
    pub fn become_it(&self) -> io::Result<()> {
        let now = ids();
        if now.uid == [self.uid; 3] && now.gid == [self.gid; 3] {
            return Ok(());
        }
        self.take_ids()?;
        close_memory()?;
        drop_capabilities()
    }

    /// Changes the ids, and keeps the permitted capabilities. The user must not read our memory, but where
    /// fs.suid_dumpable is 1 the change of ids opens it to them (kernel/cred.c, commit_creds). Until it is closed the
    /// capabilities keep them out: no process may trace one with more capabilities (security/commoncap.c,
    /// cap_ptrace_access_check).
    fn take_ids(&self) -> io::Result<()> {
        // The real ids may belong to a caller (su). With an effective uid 0 the kernel allows all of these calls.
        setgroups(&self.groups)?;
        setresgid([self.gid; 3])?;
        // SAFETY: takes integers. It is refused where the host has locked it: then there is a moment in which the memory is open.
        unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) };
        setresuid([self.uid; 3])
    }
}

/// Closes this process's memory to its own user: no tracing, and no core dump.
///
/// # Errors
/// EPERM if a sandbox forbids the call.
pub fn close_memory() -> io::Result<()> {
    // SAFETY: takes integers.
    cerr(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) }.into()).map(drop)
}

/// The layout of capget(2) and capset(2), version 3: the sets of capabilities in two halves.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}
#[repr(C)]
#[derive(Default)]
struct CapabilityHalf {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Empties the effective and permitted sets of capabilities, as a change of ids does by itself (capabilities(7)).
fn drop_capabilities() -> io::Result<()> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut sets = [CapabilityHalf::default(), CapabilityHalf::default()];
    // SAFETY: a header and sets of the layout and the number that version 3 has.
    cerr(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) })?;
    for half in &mut sets {
        (half.effective, half.permitted) = (0, 0);
    }
    // SAFETY: likewise.
    cerr(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use super::super::descriptors::{pipe, read, readable, write_all};
    use super::super::fork::{Put, ask_as, child};
    use super::*;

    /// No account has this uid.
    fn user() -> Identity {
        Identity { uid: 61999, gid: 61999, groups: vec![] }
    }

    /// Whether the user's process can look into the memory of a child that has done `become_them`.
    fn is_open(become_them: impl FnOnce() -> io::Result<()>) -> bool {
        let (reading, writing) = pipe().unwrap();
        let (waits, end) = pipe().unwrap();
        let work = || {
            let ok = become_them().is_ok() && write_all(writing.as_fd(), &std::process::id().to_ne_bytes());
            readable(waits.as_fd(), Duration::from_secs(20));
            u8::from(!ok)
        };
        // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
        let child = unsafe { child(work) }.unwrap();
        assert!(readable(reading.as_fd(), Duration::from_secs(10)), "the child has become the user");
        let mut pid = [0; 4];
        assert_eq!(read(reading.as_fd(), &mut pid).unwrap(), pid.len());
        let maps = CString::new(format!("/proc/{}/maps", u32::from_ne_bytes(pid))).unwrap();
        let look = |put: Put<'_>| {
            // SAFETY: a terminated path.
            put(&[u8::from(unsafe { libc::open(maps.as_ptr(), libc::O_RDONLY) } >= 0)])
        };
        // SAFETY: as above.
        let answer = unsafe { ask_as(&user(), Instant::now() + Duration::from_secs(10), look) };
        assert!(write_all(end.as_fd(), b"x"));
        child.wait(Instant::now() + Duration::from_secs(10)).unwrap();
        answer.unwrap().bytes().unwrap()[..] == [1]
    }

    /// Does what a change of ids does where fs.suid_dumpable is 1.
    fn open_memory() -> io::Result<()> {
        // SAFETY: takes integers.
        cerr(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }.into()).map(drop)
    }

    #[test]
    fn the_memory_of_a_child_is_closed_to_the_user_all_the_time() {
        // Only root can become a user.
        if ids().uid[1] != 0 {
            return;
        }
        assert!(!is_open(|| user().become_it()), "the child that has become the user");
        assert!(!is_open(|| user().take_ids().and_then(|()| open_memory())), "before it has closed its memory");
        let with_no_capability = || user().take_ids().and_then(|()| open_memory()).and_then(|()| drop_capabilities());
        assert!(is_open(with_no_capability), "the test sees memory that is open");
    }

    #[test]
    fn a_child_that_becomes_a_user_has_no_capabilities() {
        if ids().uid[1] != 0 {
            return;
        }
        let look = |put: Put<'_>| {
            let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
            let mut sets = [CapabilityHalf::default(), CapabilityHalf::default()];
            // SAFETY: as in `drop_capabilities`.
            unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
            let left = sets.iter().any(|half| half.effective | half.permitted != 0);
            put(&[u8::from(left), u8::from(ids().uid == [user().uid; 3])])
        };
        // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
        let answer = unsafe { ask_as(&user(), Instant::now() + Duration::from_secs(10), look) };
        assert_eq!(answer.unwrap().bytes().unwrap()[..], [0, 1]);
    }
}
