//! Children that the host of the library does not know about, and the calls that make them work.
//!
//! A child does work that may hang, since a login can give up a child but not a hanging call of its own: calls into
//! a user's file system and into the module of an AFS client. It also does what would change the credentials of this
//! process.
//!
//! All of these are made by [`fork`], which copies this process as fork(2) does. Only the supervisor of a program makes
//! one otherwise: its child executes the program, which needs a SIGCHLD (see [`run`](super::run)).

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{io, ptr};

use zeroize::Zeroizing;

use super::descriptors::{close_even_standard_but, pipe, read, readable, write_all};
use super::errno::cerr;
use super::host::pidfd_open;
use super::identity::Identity;
use super::locks::lock_briefly;

/// A child that the host does not notice. It ends without a SIGCHLD, and a `wait` of the host does not see it
/// (clone(2), exit signal 0; only a wait with `__WCLONE` or `__WALL` collects it). So the host's handler and disposition of
/// SIGCHLD stay untouched.
#[derive(Debug)]
#[must_use = "a child that is not waited for stays a zombie"]
pub struct Child {
    pid: i32,
    /// The user that the child has become.
    uid: Option<u32>,
}

/// Children that were left behind because they did not end in time, with the user that each had become. The next
/// call that makes a child collects them.
static LEFT: Mutex<Left> = Mutex::new(Vec::new());
type Left = Vec<(i32, Option<u32>)>;

/// Status of a child that panicked in its work: a fault of this library.
const STATUS_PANIC: u8 = 122;

/// Makes a child that runs `work` and ends with its result as exit status.
///
/// # Errors
/// EAGAIN and ENOMEM; EBUSY while too many children are left behind that could not be killed.
///
/// # Safety
/// The child is a copy of this process with one thread. If this process has other threads, `work` must not allocate,
/// take locks or panic: another thread may have held a lock when the child was made, and the child never sees it
/// released (signal-safety(7)). `work` must never execute a program, since that would set the exit signal back to
/// SIGCHLD; [`run`](super::run) uses a grandchild for that.
pub unsafe fn child(work: impl FnOnce() -> u8) -> io::Result<Child> {
    collect_left(None)?;
    // SAFETY: as this function asks for.
    unsafe { fork(None, work) }
}

/// Makes a process that is no child of this one, and runs `work` in it: in a session of its own, in the root directory,
/// with all signals blocked, and without this process's descriptors. `enter` runs before that: it moves the new process to
/// where it belongs, or returns false. An open file keeps the credentials, and so the session keyring, of the process that
/// opened it; so the new process opens its standard files behind `enter`.
///
/// Returns when `work` has called [`Ready::tell`].
///
/// # Errors
/// As [`child`]; `Other` if the new process ends instead; `TimedOut` if it says nothing for seconds.
///
/// # Safety
/// As [`child`].
pub unsafe fn detached(enter: impl FnOnce() -> bool, work: impl FnOnce(Ready) -> u8) -> io::Result<()> {
    let deadline = Instant::now() + DETACHING;
    let (told, tell) = pipe()?;
    let in_between = || {
        // SAFETY: no arguments.
        unsafe { libc::setsid() };
        // SAFETY: a terminated path.
        unsafe { libc::chdir(c"/".as_ptr()) };
        let detached = || {
            if !enter() {
                return 1;
            }
            close_even_standard_but(tell.as_fd());
            work(Ready(tell))
        };
        // SAFETY: as this function asks for. Its parent ends at once, so init or a subreaper inherits it.
        u8::from(unsafe { fork(None, detached) }.is_err())
    };
    // SAFETY: as this function asks for. This process's copy of the writing end is closed with `in_between`.
    unsafe { child(in_between) }?.wait(deadline)?;
    let mut one = [0];
    match readable(told.as_fd(), deadline.saturating_duration_since(Instant::now())) {
        false => Err(io::ErrorKind::TimedOut.into()),
        true if read(told.as_fd(), &mut one)? == 1 => Ok(()),
        true => Err(io::Error::other("it has ended at once")),
    }
}

/// With this a [detached] process tells its maker that it is at work.
#[derive(Debug)]
pub struct Ready(OwnedFd);

impl Ready {
    /// Tells it.
    pub fn tell(self) {
        write_all(self.0.as_fd(), b"x");
    }
}

/// Longest time for making a process that is no child.
const DETACHING: Duration = Duration::from_secs(10);

/// Writes a piece of a child's answer; false if the child can write no more. Allocates nothing.
pub type Put<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

/// Longest answer of a child, in bytes.
const LONGEST_ANSWER: usize = 2 << 20;

/// Has a child do `work` and reads its answer, at most 2 MiB. Without success of the work there is none. Waits at most
/// until `deadline`, and then as [`Child::wait`] does.
///
/// # Errors
/// As [`child`]; ENFILE and EMFILE.
///
/// # Safety
/// As [`child`].
pub unsafe fn ask(deadline: Instant, work: impl FnOnce(Put<'_>) -> bool) -> io::Result<Answer> {
    let mut work = Some(work);
    // SAFETY: as this function asks for.
    unsafe { ask_child(None, deadline, &mut |put| work.take().is_some_and(|work| work(put))) }
}

/// As [`ask`], for a child that first becomes `user` and closes this process's descriptors. Only one child of a user
/// may be left behind: a child that waits for the user's file system cannot be killed, and each further one would
/// hang there, too.
///
/// # Errors
/// As [`ask`]; EBUSY while a child of this user is left behind.
///
/// # Safety
/// As [`child`].
pub unsafe fn ask_as(user: &Identity, deadline: Instant, work: impl FnOnce(Put<'_>) -> bool) -> io::Result<Answer> {
    let mut work = Some(work);
    let mut as_user = |put: Put<'_>| user.become_it().is_ok() && work.take().is_some_and(|work| work(put));
    // SAFETY: as this function asks for; `become_it` makes system calls alone.
    unsafe { ask_child(Some(user.uid), deadline, &mut as_user) }
}

/// # Safety
/// As [`child`].
unsafe fn ask_child(uid: Option<u32>, deadline: Instant, work: &mut dyn FnMut(Put<'_>) -> bool) -> io::Result<Answer> {
    collect_left(uid)?;
    let (answer, write) = pipe()?;
    let answered = || {
        // With a reading end of its own, the child would wait for itself where it writes more than the pipe holds.
        // SAFETY: the child's copy of the descriptor; the child ends without a look at it.
        unsafe { libc::close(answer.as_raw_fd()) };
        // The user can hold the child as long as they like, in a file system of theirs. If it kept the host's sockets, a
        // daemon that restarts would find its port taken.
        if uid.is_some() {
            close_even_standard_but(write.as_fd());
        }
        u8::from(!work(&mut |bytes: &[u8]| write_all(write.as_fd(), bytes)))
    };
    // SAFETY: as this function asks for.
    let child = unsafe { fork(uid, answered) }?;
    drop(write);
    let mut bytes = Zeroizing::new(Vec::new());
    let whole = drain(answer.as_fd(), &mut bytes, deadline);
    // A child that writes more gets an error from the closed pipe.
    drop(answer);
    Ok(Answer { exit: child.wait(deadline)?, bytes, whole })
}

/// The answer of a child.
#[derive(Debug)]
pub struct Answer {
    /// How the child ended.
    pub exit: Exit,
    bytes: Zeroizing<Vec<u8>>,
    /// Whether the answer was read to its end.
    whole: bool,
}

impl Answer {
    /// What the child wrote, if it ended with status 0.
    ///
    /// # Errors
    /// `TimedOut`; `PermissionDenied` if the child failed, since most failures are attempts to read what belongs to
    /// another user.
    pub fn bytes(self) -> io::Result<Zeroizing<Vec<u8>>> {
        match self.exit {
            Exit::Status(0) if self.whole => Ok(self.bytes),
            Exit::TimedOut => Err(io::ErrorKind::TimedOut.into()),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

/// How many children that kept our credentials may be left behind. The next one would hang as they do.
const MOST_LEFT: usize = 8;

/// Collects the children that were left behind. Refuses if too many with the same `uid` remain, or if the list
/// cannot be locked; other users' children do not count.
fn collect_left(uid: Option<u32>) -> io::Result<()> {
    let mut left = lock_briefly(&LEFT).ok_or_else(|| io::Error::from_raw_os_error(libc::EBUSY))?;
    left.retain(|(pid, _)| has_not_ended(*pid));
    let most = if uid.is_some() { 1 } else { MOST_LEFT };
    match left.iter().filter(|(_, of)| *of == uid).count() >= most {
        true => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        false => Ok(()),
    }
}

/// Waits for the children that were left behind, without a limit. For a process that has nothing else to do.
pub fn wait_for_left() {
    let left = lock_briefly(&LEFT).map(|mut left| std::mem::take(&mut *left)).unwrap_or_default();
    for (pid, _) in left {
        // SAFETY: no place for a status is given.
        unsafe { libc::waitpid(pid, ptr::null_mut(), libc::__WCLONE) };
    }
}

/// Whether the child still runs; collects it if it does not.
fn has_not_ended(pid: i32) -> bool {
    // SAFETY: no place for a status is given.
    unsafe { libc::waitpid(pid, ptr::null_mut(), libc::__WCLONE | libc::WNOHANG) == 0 }
}

/// Makes a copy of this process that runs `work` and ends.
///
/// All signals stay blocked in the child: it is in the host's process group and would run the host's handlers.
///
/// # Safety
/// As [`child`].
unsafe fn fork(uid: Option<u32>, work: impl FnOnce() -> u8) -> io::Result<Child> {
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

/// A panic must not unwind into the parent's code: the child would then run it a second time.
fn status_of(work: impl FnOnce() -> u8) -> u8 {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        std::mem::forget(payload);
        STATUS_PANIC
    })
}

/// A set of signals as the kernel has it, and its size there. libc's calls leave out the signals with which libc
/// makes threads change their ids, and cancels them.
type SignalSet = [u64; 2];
pub(super) const SIGNAL_SET: usize = if cfg!(target_arch = "mips64") { 16 } else { 8 };

/// Sets which signals are blocked for this thread and returns those that were blocked before.
fn set_mask(mask: &SignalSet) -> SignalSet {
    let mut before = SignalSet::default();
    // SAFETY: two valid sets of at least that size.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, mask.as_ptr(), before.as_mut_ptr(), SIGNAL_SET);
    }
    before
}

/// Does `work` with all signals blocked in this thread. A thread that it starts keeps them blocked.
pub(super) fn with_all_signals_blocked<T>(work: impl FnOnce() -> T) -> T {
    let before = set_mask(&[u64::MAX; 2]);
    let result = work();
    set_mask(&before);
    result
}

/// Reads a child's pipe to its end, at most until `deadline`. True if the end was reached.
fn drain(pipe: BorrowedFd<'_>, bytes: &mut Vec<u8>, deadline: Instant) -> bool {
    let mut buffer = Zeroizing::new([0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || bytes.len() > LONGEST_ANSWER || !readable(pipe, left) {
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
    /// It still ran when its time was up, and was killed.
    TimedOut,
}

impl Child {
    /// Waits for the end of the child, at most until `deadline`, and then kills it. The child is left behind a second
    /// later if it cannot be killed: because the kernel holds it (for example in a file system that waits for its
    /// server), or because it has become a user and this process lacks CAP_KILL.
    ///
    /// # Errors
    /// What `waitpid` reports if the child's end cannot be learned.
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
                if let Some(mut left) = lock_briefly(&LEFT) {
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

/// For callers that wait for other events, too.
impl Child {
    /// A descriptor that becomes readable when the child has ended.
    ///
    /// # Errors
    /// As [`pidfd_open`].
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        pidfd_open(self.pid)
    }

    /// Kills the child. The caller must still collect it.
    pub fn kill(&self) {
        // SAFETY: the pid is ours until we have collected it.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
    }

    /// Collects the child if it has ended; nothing may be done with it afterwards. `None` if it still runs.
    ///
    /// # Errors
    /// What `waitpid` reports if there is nothing to collect.
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

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    // In these tests children do only what `child` allows.

    fn child(work: impl FnOnce() -> u8) -> io::Result<Child> {
        // SAFETY: as above.
        unsafe { super::child(work) }
    }

    pub(in crate::sys) fn ask(deadline: Instant, work: impl FnOnce(Put<'_>) -> bool) -> io::Result<Answer> {
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
        let sleep = || std::thread::sleep(Duration::from_secs(60));
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(50);
        let ends_well = || {
            sleep();
            0
        };
        assert_eq!(child(ends_well).unwrap().wait(deadline).unwrap(), Exit::TimedOut);
        let answer = ask(deadline, |_| {
            sleep();
            true
        })
        .unwrap();
        assert_eq!(answer.exit, Exit::TimedOut);
        assert_eq!(answer.bytes().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_child_that_ends_at_its_deadline_has_its_own_status() {
        for micros in 0..2_000 {
            let deadline = Instant::now() + Duration::from_micros(micros % 100);
            let exit = ask(deadline, |_| false).unwrap().exit;
            assert!(matches!(exit, Exit::Status(1) | Exit::TimedOut), "{exit:?} after {} us", micros % 100);
        }
    }

    #[test]
    fn a_child_answers_up_to_the_limit() {
        let begun = Instant::now();
        let long = vec![7; LONGEST_ANSWER / 2];
        let us = Identity { uid: ids().uid[1], gid: ids().gid[1], groups: vec![] };
        for twice in [false, true] {
            let write = |put: Put<'_>| put(&long) && (!twice || (put(&long) && put(&long)));
            let answers = [ask(soon(), |put| write(put)), ask_as(&us, soon(), |put| write(put))];
            for answer in answers {
                let bytes = answer.unwrap().bytes();
                assert!(if twice { bytes.is_err() } else { bytes.unwrap()[..] == long });
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "no child waits for what nothing reads");
    }

    #[test]
    fn a_child_that_fails_gives_no_answer() {
        let answer = ask(soon(), |put| !put(b"half")).unwrap();
        assert_eq!(answer.exit, Exit::Status(1));
        assert_eq!(answer.bytes().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    /// A child's changes to itself, its memory and its descriptors do not reach this process.
    #[test]
    fn a_child_shares_nothing_with_this_process() {
        let (read, write) = pipe().unwrap();
        let seen = AtomicUsize::new(0);
        let (group, fd) = (ids().fsgid, write.as_raw_fd());
        let answer = ask(soon(), |_| {
            crate::sys::setfsgid(group.wrapping_add(1));
            // SAFETY: closes the child's copy.
            unsafe { libc::close(fd) };
            seen.store(1, Ordering::SeqCst);
            true
        });
        answer.unwrap().bytes().unwrap();
        assert_eq!((seen.load(Ordering::SeqCst), ids().fsgid), (0, group));
        assert!(write_all(write.as_fd(), b"x") && readable(read.as_fd(), Duration::from_secs(1)));
    }

    /// A file system of the user's can hold the child, and so the files that it has open.
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

    /// This happens in a process that was forked while another thread held the lock.
    #[test]
    fn a_lock_that_is_never_released_stops_no_child() {
        let begun = Instant::now();
        let answer = ask(soon(), |_| {
            let _held = lock_briefly(&LEFT);
            lock_briefly(&LEFT).is_none()
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
            HANDLED.load(Ordering::SeqCst) == 0
        });
        assert_eq!(answer.unwrap().exit, Exit::Status(0), "the child has run the handler");
        assert_eq!(HANDLED.load(Ordering::SeqCst), 1, "the thread that the signal was for has not");
    }
}
