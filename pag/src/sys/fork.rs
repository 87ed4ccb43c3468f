//! Children that the host of the library does not know of, and what they can be asked to do.
//!
//! A child does what may hang, since a login can give up a child and nothing else: calls into a user's file system or into
//! the module of an AFS client. And it does what changes the credentials of the process that asks.
//!
//! There is one way to a child, [`fork`]: a copy of this process, as fork(2) makes it.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::descriptors::{close_even_standard_but, pipe, read, readable, write_all};
use super::errno::cerr;
use super::host::pidfd_open;
use super::identity::Identity;

/// A child of ours that the host knows nothing of. It ends without a SIGCHLD and a `wait` of the host does not see it
/// (clone(2), exit signal 0; only a wait with `__WCLONE` collects it), so neither the host's handler nor its
/// disposition has to be touched.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    /// Whom it has become.
    uid: Option<u32>,
}

/// Children that had not ended when nobody waited for them any longer, and whom they had become. They are collected when the
/// next is made.
static LEFT: Mutex<Left> = Mutex::new(Vec::new());
type Left = Vec<(i32, Option<u32>)>;

/// The children that were left. Other threads hold the lock for some microseconds. None in a process that was forked at such
/// a moment, where the lock is never released.
fn left() -> Option<MutexGuard<'static, Left>> {
    for _ in 0..10_000 {
        match LEFT.try_lock() {
            Ok(left) => return Some(left),
            Err(TryLockError::Poisoned(left)) => return Some(left.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

/// Status of a child in which the work has panicked: a fault of ours.
const STATUS_PANIC: u8 = 122;

/// Makes a child that runs `work` and ends with its result as exit status.
///
/// # Errors
/// EAGAIN and ENOMEM. EBUSY while too many are left that could not be killed.
///
/// # Safety
/// The child is a copy of this process with one thread. Where this process has others, `work` must not allocate, take locks
/// or panic: another thread may have held a lock when the child was made, and it is never released there
/// (signal-safety(7)). In any case `work` must not execute a program, since that would set the exit signal back to SIGCHLD;
/// [`run`](super::run) has a grandchild for it.
pub unsafe fn child(work: impl FnOnce() -> u8) -> io::Result<Child> {
    collect_left(None)?;
    fork(None, work)
}

/// Where a child puts what it has to say, piece by piece; false when it can say no more. Allocates nothing.
pub type Put<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

/// Most bytes that a child can say.
const MOST_SAID: usize = 2 << 20;

/// Has a child do `work`, and waits for what it has to say: at most until `deadline`, and then as [`Child::wait`] does. It
/// can say 2 MiB.
///
/// # Errors
/// As [`child`], and ENFILE.
///
/// # Safety
/// As [`child`].
pub unsafe fn ask(deadline: Instant, work: impl FnOnce(Put<'_>) -> u8) -> io::Result<Answer> {
    let mut work = Some(work);
    ask_child(None, deadline, &mut |put| work.take().map_or(STATUS_PANIC, |work| work(put)))
}

/// The same for a child that becomes `user` first, and has none of this process's descriptors. While one is left that had
/// become this user and could not be killed, since it waits for a file system of the user's, say, no other is made: the user
/// would have one after the other wait.
///
/// # Errors
/// As [`ask`]; EBUSY while one is left.
///
/// # Safety
/// As [`child`].
pub unsafe fn ask_as(user: &Identity, deadline: Instant, work: impl FnOnce(Put<'_>) -> bool) -> io::Result<Answer> {
    let mut work = Some(work);
    ask_child(Some(user.uid), deadline, &mut |put| {
        u8::from(!(user.become_it().is_ok() && work.take().is_some_and(|work| work(put))))
    })
}

fn ask_child(uid: Option<u32>, deadline: Instant, work: &mut dyn FnMut(Put<'_>) -> u8) -> io::Result<Answer> {
    collect_left(uid)?;
    let (answer, write) = pipe()?;
    let child = fork(uid, || {
        // The user can hold it for as long as they like, in a file system of theirs: with the host's sockets, a daemon that
        // starts anew would find its port taken.
        if uid.is_some() {
            close_even_standard_but(write.as_fd());
        }
        work(&mut |bytes: &[u8]| write_all(write.as_fd(), bytes))
    })?;
    drop(write);
    let mut bytes = Zeroizing::new(Vec::new());
    let whole = drain(answer.as_fd(), &mut bytes, deadline);
    // A child that says more than that is stopped by the end of the pipe.
    drop(answer);
    Ok(Answer { exit: child.wait(deadline)?, bytes, whole })
}

/// What a child has to say.
#[derive(Debug)]
pub struct Answer {
    /// How it has ended.
    pub exit: Exit,
    bytes: Zeroizing<Vec<u8>>,
    /// Whether it has said all that it had to.
    whole: bool,
}

impl Answer {
    /// What a child has written that has ended with status 0.
    ///
    /// # Errors
    /// `TimedOut`; `PermissionDenied` of one that has failed, since most of what fails are looks into what is another's.
    pub fn bytes(self) -> io::Result<Zeroizing<Vec<u8>>> {
        match self.exit {
            Exit::Status(0) if self.whole => Ok(self.bytes),
            Exit::TimedOut => Err(io::ErrorKind::TimedOut.into()),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

/// Children that stayed what we are and could not be killed: the next would hang as they do.
const MOST_LEFT: usize = 8;

/// Collects the children that were left, and refuses when too many are left still, or one that had become `uid`: others'
/// are no reason. Where that cannot be known, it refuses, too.
fn collect_left(uid: Option<u32>) -> io::Result<()> {
    let mut left = left().ok_or_else(|| io::Error::from_raw_os_error(libc::EBUSY))?;
    left.retain(|(pid, _)| has_not_ended(*pid));
    let most = if uid.is_some() { 1 } else { MOST_LEFT };
    match left.iter().filter(|(_, of)| *of == uid).count() >= most {
        true => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        false => Ok(()),
    }
}

/// Waits for the children that were left, as long as that takes. For a process that has nothing else to do.
pub fn wait_for_left() {
    let left = left().map(|mut left| std::mem::take(&mut *left)).unwrap_or_default();
    for (pid, _) in left {
        // SAFETY: no place for a status is given.
        unsafe { libc::waitpid(pid, ptr::null_mut(), libc::__WCLONE) };
    }
}

/// Collects a child if it can be collected.
fn has_not_ended(pid: i32) -> bool {
    // SAFETY: no place for a status is given.
    unsafe { libc::waitpid(pid, ptr::null_mut(), libc::__WCLONE | libc::WNOHANG) == 0 }
}

/// Makes a copy of this process that runs `work` and ends.
///
/// All signals stay blocked in the child: it is in the host's process group, and would run the host's handlers.
pub(super) fn fork(uid: Option<u32>, work: impl FnOnce() -> u8) -> io::Result<Child> {
    let mask = set_mask(&[u64::MAX; 2]);
    // SAFETY: flags without CLONE_VM make a copy of the process as fork does; no stack or tid pointers are passed.
    let pid = cerr(unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) });
    if pid.as_ref().is_ok_and(|pid| *pid == 0) {
        let status = status_of(work);
        // SAFETY: ends the child at once, with no handler of the host run.
        unsafe { libc::_exit(c_int::from(status)) };
    }
    set_mask(&mask);
    Ok(Child { pid: i32::try_from(pid?).map_err(|_| io::ErrorKind::InvalidData)?, uid })
}

/// A panic must not come out where the parent goes on: there would be two of it.
fn status_of(work: impl FnOnce() -> u8) -> u8 {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        std::mem::forget(payload);
        STATUS_PANIC
    })
}

/// A set of signals as the kernel has it, and its size there. libc's calls leave out the signals by which it makes threads
/// change their ids, and cancels them.
type SignalSet = [u64; 2];
pub(super) const SIGNAL_SET: usize = if cfg!(target_arch = "mips64") { 16 } else { 8 };

/// Sets which signals wait for this thread, and gives those that have waited.
fn set_mask(mask: &SignalSet) -> SignalSet {
    let mut before = SignalSet::default();
    // SAFETY: two valid sets of at least that size.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, mask.as_ptr(), before.as_mut_ptr(), SIGNAL_SET);
    }
    before
}

/// Reads a child's pipe to its end, at most until `deadline`; true when the end was reached.
fn drain(pipe: BorrowedFd<'_>, bytes: &mut Vec<u8>, deadline: Instant) -> bool {
    let mut buffer = Zeroizing::new([0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || bytes.len() > MOST_SAID || !readable(pipe, left) {
            return false;
        }
        match read(pipe, &mut buffer[..]) {
            Ok(0) => return true,
            Ok(length) => bytes.extend_from_slice(buffer.get(..length).unwrap_or(&[])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It ended by itself, with this status.
    Status(u8),
    /// A signal ended it.
    Signal(i32),
    /// It was still there when its time was up, and was killed.
    TimedOut,
}

impl Child {
    /// Waits for the end of the child, at most until `deadline`; then kills it. One that cannot be killed, since the
    /// kernel holds it (in the module of a file system that waits for its server), or since it has become somebody and we
    /// lack CAP_KILL, is left behind a second later.
    ///
    /// # Errors
    /// What `waitpid` reports: the child's end could not be learned.
    pub fn wait(self, deadline: Instant) -> io::Result<Exit> {
        let pidfd = self.pidfd().ok();
        let mut killed = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let pause = if killed { Duration::from_millis(50) } else { left };
            match &pidfd {
                Some(fd) => drop(readable(fd.as_fd(), pause)),
                None => std::thread::sleep(pause.min(Duration::from_millis(5))),
            }
            if let Some(exit) = self.try_wait()? {
                return Ok(if killed { Exit::TimedOut } else { exit });
            }
            if killed && deadline.elapsed() > Duration::from_secs(1) {
                if let Some(mut left) = self::left() {
                    left.push((self.pid, self.uid));
                }
                return Ok(Exit::TimedOut);
            }
            if left.is_zero() && !killed {
                self.kill();
                killed = true;
            }
        }
    }
}

/// For those who wait for other things besides.
impl Child {
    /// A descriptor that becomes readable when the child has ended.
    ///
    /// # Errors
    /// As [`pidfd_open`].
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        pidfd_open(self.pid)
    }

    /// Kills the child. Its end is still to be collected.
    pub fn kill(&self) {
        // SAFETY: the pid is ours until we have collected it.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
    }

    /// Collects the child if it has ended; afterwards nothing may be done with it. None when it has not.
    ///
    /// # Errors
    /// What `waitpid` reports: there is nothing to collect.
    pub fn try_wait(&self) -> io::Result<Option<Exit>> {
        let mut status = 0;
        // SAFETY: a valid place for the status.
        match unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WCLONE | libc::WNOHANG) } {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(None),
            _ => Ok(Some(exit_of(status))),
        }
    }
}

pub(super) fn exit_of(status: c_int) -> Exit {
    if libc::WIFEXITED(status) {
        Exit::Status(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
    } else {
        Exit::Signal(libc::WTERMSIG(status))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::ids::ids;

    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    // What the tests have a child do is what `child` allows.

    fn child(work: impl FnOnce() -> u8) -> io::Result<Child> {
        // SAFETY: as above.
        unsafe { super::child(work) }
    }

    pub(in crate::sys) fn ask(deadline: Instant, work: impl FnOnce(Put<'_>) -> u8) -> io::Result<Answer> {
        // SAFETY: as above.
        unsafe { super::ask(deadline, work) }
    }

    fn ask_as(user: &Identity, deadline: Instant, work: impl FnOnce(Put<'_>) -> bool) -> io::Result<Answer> {
        // SAFETY: as above.
        unsafe { super::ask_as(user, deadline, work) }
    }

    pub(in crate::sys) fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_child_that_does_not_end_is_killed() {
        let sleep = || {
            std::thread::sleep(Duration::from_secs(60));
            0
        };
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(50);
        assert_eq!(child(sleep).unwrap().wait(deadline).unwrap(), Exit::TimedOut);
        let answer = ask(deadline, |_| sleep()).unwrap();
        assert_eq!(answer.exit, Exit::TimedOut);
        assert_eq!(answer.bytes().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_child_that_ends_at_its_deadline_has_its_own_status() {
        for micros in 0..2_000 {
            let deadline = Instant::now() + Duration::from_micros(micros % 100);
            let exit = ask(deadline, |_| 1).unwrap().exit;
            assert!(matches!(exit, Exit::Status(1) | Exit::TimedOut), "{exit:?} after {} us", micros % 100);
        }
    }

    #[test]
    fn a_child_says_much_and_no_more_than_fits() {
        let long = vec![7; MOST_SAID / 2];
        let us = Identity { uid: ids().uid[1], gid: ids().gid[1], groups: vec![] };
        for twice in [false, true] {
            let say = |put: Put<'_>| put(&long) && (!twice || (put(&long) && put(&long)));
            let answers = [ask(soon(), |put| u8::from(!say(put))), ask_as(&us, soon(), |put| say(put))];
            for answer in answers {
                let said = answer.unwrap().bytes();
                assert!(if twice { said.is_err() } else { said.unwrap()[..] == long });
            }
        }
    }

    #[test]
    fn what_a_child_that_fails_has_said_is_nothing() {
        let answer = ask(soon(), |put| u8::from(put(b"half"))).unwrap();
        assert_eq!(answer.exit, Exit::Status(1));
        assert_eq!(answer.bytes().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    /// What a child does to itself, its memory and its descriptors stays there.
    #[test]
    fn a_child_has_nothing_in_common_with_us() {
        let (read, write) = pipe().unwrap();
        let seen = AtomicUsize::new(0);
        let (group, fd) = (ids().fsgid, write.as_raw_fd());
        let answer = ask(soon(), |_| {
            crate::sys::setfsgid(group.wrapping_add(1));
            // SAFETY: closes the child's copy.
            unsafe { libc::close(fd) };
            seen.store(1, Ordering::SeqCst);
            0
        });
        answer.unwrap().bytes().unwrap();
        assert_eq!((seen.load(Ordering::SeqCst), ids().fsgid), (0, group));
        assert!(write_all(write.as_fd(), b"x") && readable(read.as_fd(), Duration::from_secs(1)));
    }

    /// A file system of the user's can hold the child, and with it what it has open.
    #[test]
    fn a_child_that_becomes_a_user_has_none_of_our_descriptors() {
        let us = Identity { uid: ids().uid[1], gid: ids().gid[1], groups: vec![] };
        let (read, write) = pipe().unwrap();
        let fds = [read.as_raw_fd(), write.as_raw_fd()];
        let answer = ask_as(&us, soon(), |put| {
            // SAFETY: takes integers.
            let open = |fd: c_int| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
            put(&[u8::from(fds.into_iter().any(open)), u8::from((0..3).all(open))])
        });
        assert_eq!(answer.unwrap().bytes().unwrap()[..], [0, 1], "ours are closed, and the standard ones are there");
    }

    /// As in a process that was forked while another thread held the lock.
    #[test]
    fn a_lock_that_is_never_released_stops_no_child() {
        let begun = Instant::now();
        let answer = ask(soon(), |_| {
            let _held = left();
            u8::from(left().is_some())
        });
        assert_eq!(answer.unwrap().exit, Exit::Status(0));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    static HANDLED: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn handler(_: c_int) {
        HANDLED.fetch_add(1, Ordering::SeqCst);
    }

    #[test]
    fn a_handler_of_the_hosts_is_not_run_by_a_child() {
        let handler: extern "C" fn(c_int) = handler;
        // SAFETY: a handler that does what one may do.
        unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
        // SAFETY: no arguments.
        let (host, thread) = unsafe { (libc::getpid(), libc::gettid()) };
        let answer = ask(soon(), |_| {
            // SAFETY: signals this child, which has it blocked.
            unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) };
            // SAFETY: signals the thread that waits for us.
            unsafe { libc::syscall(libc::SYS_tgkill, host, thread, libc::SIGUSR1) };
            // The first would have been taken before kill(2) returns.
            u8::try_from(HANDLED.load(Ordering::SeqCst)).unwrap_or(u8::MAX)
        });
        assert_eq!(answer.unwrap().exit, Exit::Status(0), "the child has run the handler");
        assert_eq!(HANDLED.load(Ordering::SeqCst), 1, "the thread that the signal was for has not");
    }
}
