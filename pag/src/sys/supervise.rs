//! Runs a program as a user, within a time limit, and clears away every process that the program leaves behind.

use super::fork::{SIGNAL_SET, child, exit_of};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};
use std::{io, ptr};

use super::descriptors::close_range;
use super::fork::Exit;
use super::identity::Identity;
use super::said::{Said, say_why_not_executed};

/// A program with all that its start needs. The parent makes it, since a child must not allocate.
#[derive(Debug)]
pub struct Program {
    path: CString,
    /// Keeps alive what `argv` points to.
    _arguments: Vec<CString>,
    _environment: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

// SAFETY: what the pointers point to is its own, and does not change.
unsafe impl Send for Program {}
// SAFETY: likewise.
unsafe impl Sync for Program {}

impl Program {
    /// Makes the argument vector and the environment; `arguments` begins with the program's own name.
    pub fn new(path: CString, arguments: Vec<CString>, environment: Vec<CString>) -> Self {
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
        };
        let (argv, envp) = (pointers(&arguments), pointers(&environment));
        Program { path, _arguments: arguments, _environment: environment, argv, envp }
    }
}

/// Status with which the supervisor says that the program could not be started at all.
pub const STATUS_NOT_STARTED: u8 = 127;
/// Status with which the supervisor says that it killed the processes still running at the deadline.
pub const STATUS_DEADLINE: u8 = 124;
/// Status with which the supervisor says that a signal ended the program.
pub const STATUS_SIGNAL: u8 = 125;

/// Extra time that a supervisor has for killing what its program has left behind.
const CLEARING: Duration = Duration::from_millis(1500);

/// Runs `program` as `identity`, for at most `time`. It gets `said` as its standard error. `enter` runs first, in the child that starts the program: it
/// moves that child to where it belongs, or returns the status with which the child ends instead.
///
/// The child is a supervisor. It becomes the reaper of the processes that the program leaves behind
/// (PR_SET_CHILD_SUBREAPER) and ends only after all of them. It kills them when the time is up, and as soon as the
/// program itself or our own process has ended.
///
/// # Errors
/// As [`child`].
///
/// # Safety
/// `enter` runs in a child: as [`child`].
pub unsafe fn run(
    program: &Program,
    identity: &Identity,
    time: Duration,
    said: Option<&Said>,
    enter: impl FnOnce() -> Result<(), u8>,
) -> io::Result<Exit> {
    let end = Instant::now() + time;
    let host = std::process::id();
    // SAFETY: `enter` keeps to what is asked of it, and `supervise` allocates nothing and takes no lock. A child of the child
    // executes the program.
    let supervisor = unsafe {
        child(|| match enter() {
            Ok(()) => supervise(program, identity, said, end, host),
            Err(status) => status,
        })
    }?;
    supervisor.wait(end + CLEARING)
}

/// The supervisor's work. Returns the status to end with. Allocates nothing.
fn supervise(program: &Program, identity: &Identity, said: Option<&Said>, end: Instant, host: u32) -> u8 {
    // SAFETY: takes integers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    reset_signals();
    // SIGTERM is blocked and waited for: if the host ends, the supervisor must still kill what the program has forked.
    die_with_parent(libc::SIGTERM);
    // SAFETY: no arguments.
    if u32::try_from(unsafe { libc::getppid() }) != Ok(host) {
        return STATUS_NOT_STARTED;
    }
    // A child with exit signal SIGCHLD, which was reset to the default above, since it executes a program. On s390 the
    // stack is the first argument (clone(2)).
    let [first, second] = if cfg!(target_arch = "s390x") { [0, libc::SIGCHLD] } else { [libc::SIGCHLD, 0] };
    // SAFETY: as in `fork`.
    let pid = unsafe { libc::syscall(libc::SYS_clone, first, second, 0, 0, 0) };
    if pid == 0 {
        execute(program, identity, said);
        // SAFETY: ends the grandchild.
        unsafe { libc::_exit(c_int::from(STATUS_NOT_STARTED)) };
    }
    let Ok(pid) = i32::try_from(pid) else { return STATUS_NOT_STARTED };
    if pid < 0 {
        return STATUS_NOT_STARTED;
    }
    let mut result = None;
    while result.is_none() && Instant::now() < end {
        let mut status = 0;
        // SAFETY: a valid place for the status.
        let got = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if got == pid {
            result = Some(match exit_of(status) {
                Exit::Status(status) => status,
                _ => STATUS_SIGNAL,
            });
        } else if got == 0 {
            if wait_for_signal(end.saturating_duration_since(Instant::now())) == libc::SIGTERM {
                break;
            }
        } else if got < 0 {
            break;
        }
    }
    kill_descendants();
    result.unwrap_or(STATUS_DEADLINE)
}

/// Has the kernel send `signal` to this process when its parent ends: the host's end ends the supervisor, and the
/// supervisor's end ends the program.
fn die_with_parent(signal: c_int) {
    // SAFETY: takes integers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
}

/// The signals that the supervisor waits for: a child has changed state (SIGCHLD), the host has ended (SIGTERM).
fn awaited_signals() -> MaybeUninit<libc::sigset_t> {
    let mut set = MaybeUninit::zeroed();
    // SAFETY: a valid place for the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in [libc::SIGCHLD, libc::SIGTERM] {
        // SAFETY: the set was initialised just now.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    set
}

/// Sleeps until one of the awaited signals comes, and returns it, or until the time is up.
fn wait_for_signal(at_most: Duration) -> c_int {
    let set = awaited_signals();
    let time = timespec(at_most);
    // SAFETY: a valid set, no place for details, a valid time.
    unsafe { libc::sigtimedwait(set.as_ptr(), ptr::null_mut(), &raw const time) }
}

/// Resets all signals to their defaults. The supervisor handles none: it is in the host's process group, so signals
/// typed at a console would reach it, too.
fn reset_signals() {
    // All zero means the default, whatever the order of the fields. libc's sigaction takes a lock for SIGABRT.
    let default = [0_u64; 8];
    let none = ptr::null_mut::<c_void>();
    for signal in 1..=64 {
        // SAFETY: larger than any kernel's struct sigaction; no place for the one before.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, SIGNAL_SET) };
    }
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: (time.subsec_nanos() as i32).into(),
    }
}

/// Kills and collects every child of this process until there is none. A program that forked into the background has
/// left its descendants to this process. A process that cannot be killed (in the kernel, on a dead file server) is
/// given up after a second; init inherits it.
fn kill_descendants() {
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        loop {
            // SAFETY: no place for a status.
            match unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) } {
                0 => break,
                got if got < 0 => return,
                _ => {}
            }
        }
        let mut list = [0_u8; 4096];
        let count = read_file(c"/proc/thread-self/children", &mut list);
        let mut pid: i32 = 0;
        for byte in list.iter().take(count) {
            if byte.is_ascii_digit() {
                pid = pid.saturating_mul(10).saturating_add(i32::from(byte - b'0'));
            } else if pid > 1 {
                // SAFETY: a child of ours that we have not collected: its pid cannot have been given to another.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                pid = 0;
            }
        }
        wait_for_signal(Duration::from_millis(20));
    }
}

/// Reads the beginning of a file without allocating. 0 bytes if it cannot be read.
fn read_file(path: &CStr, buffer: &mut [u8]) -> usize {
    // SAFETY: a terminated path.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return 0;
    }
    // SAFETY: pointer and length of one slice.
    let got = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    // SAFETY: our own descriptor.
    unsafe { libc::close(fd) };
    usize::try_from(got).unwrap_or(0)
}

/// Makes the grandchild ready and executes its program. Returns only if that failed.
fn execute(program: &Program, identity: &Identity, said: Option<&Said>) {
    // SAFETY: no arguments: a session and process group of its own, without the host's terminal.
    unsafe { libc::setsid() };
    // SAFETY: takes an integer.
    unsafe { libc::umask(0o077) };
    // SAFETY: a terminated path.
    unsafe { libc::chdir(c"/".as_ptr()) };
    // SAFETY: a terminated path.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    if null < 0 {
        return;
    }
    for fd in 0..3 {
        // SAFETY: takes integers.
        unsafe { libc::dup2(null, fd) };
    }
    if let Some(said) = said {
        // SAFETY: takes integers.
        unsafe { libc::dup2(said.as_raw_fd(), 2) };
    }
    // The program gets nothing of the host's (sockets, keys, the terminal).
    close_range(3, c_uint::MAX);
    if identity.become_it().is_err() {
        return;
    }
    // After the change of ids, which clears this setting.
    die_with_parent(libc::SIGKILL);
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a valid place for the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // The signals stay blocked until the memory is closed to the user: a signal of theirs would leave a core dump of
    // it.
    // SAFETY: a valid, empty set.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut()) };
    // SAFETY: vectors made by `Program::new`: terminated, and alive in this process.
    unsafe { libc::execve(program.path.as_ptr(), program.argv.as_ptr(), program.envp.as_ptr()) };
    say_why_not_executed();
}

#[cfg(test)]
mod tests {
    use super::super::fork::tests::soon;
    use super::super::ids::ids;
    use super::*;

    /// The supervisor is in the host's process group, but signals typed at a console are meant for the host.
    #[test]
    fn a_supervisor_takes_no_signals() {
        let words = |words: &[&str]| words.iter().map(|word| CString::new(*word).unwrap()).collect::<Vec<_>>();
        let script = "kill -INT $PPID; kill -QUIT $PPID; sleep 0.1; exit 7";
        let program = Program::new(c"/bin/sh".to_owned(), words(&["sh", "-c", script]), words(&["PATH=/usr/bin:/bin"]));
        let us = Identity { uid: ids().uid[1], gid: ids().gid[1], groups: vec![] };
        // SAFETY: `enter` does nothing.
        let end = unsafe { run(&program, &us, Duration::from_secs(20), None, || Ok(())) };
        assert_eq!(end.unwrap(), Exit::Status(7));
    }

    #[test]
    fn nothing_is_left_of_a_child() {
        let ours = || std::fs::read_to_string("/proc/thread-self/children").unwrap();
        let before = ours();
        super::super::fork::tests::ask(soon(), |_| true).unwrap().bytes().unwrap();
        assert_eq!(ours(), before);
    }
}
