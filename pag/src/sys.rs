//! Raw system calls: the only module of this library that holds `unsafe`.
//!
//! Two rules run through it. Ids are switched by the system calls themselves and not by libc's wrappers, which
//! switch *every* thread of the process (nptl's setxid broadcast); PAM hosts such as gdm are threaded, and only the
//! calling thread is ours. And what runs in a child made here, before it executes a program, allocates nothing and
//! takes no lock, since another thread of the host may have held one when the child was made.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Turns a result of -1 into the error that `errno` names.
fn cerr(result: c_long) -> io::Result<c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `KEYCTL_JOIN_SESSION_KEYRING`, the one keyctl that is not taken from `keyutils-raw`: that one panics on the
/// result 0, which the kernel gives for the ring that the thread has already (security/keys/process_keys.c,
/// join_session_keyring). The result says nothing worth knowing; callers ask for the session keyring afterwards.
///
/// # Errors
/// EDQUOT, EACCES, ENOMEM, EPERM (a name that begins with a dot), ENOSYS (seccomp).
pub fn join_session(name: Option<&CStr>) -> io::Result<()> {
    let name = name.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: `name` is null or a terminated string that lives through the call.
    cerr(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name) }).map(drop)
}

/// The ids of one thread that decide about keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// Real, effective and saved uid.
    pub uid: [u32; 3],
    /// Real, effective and saved gid.
    pub gid: [u32; 3],
    /// File system uid: what permission checks on keys look at, and who owns a key made by `add_key`.
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

/// Sets this thread's file system uid and returns the one before; `u32::MAX` only asks.
/// It reports no error: ask again to see whether it took.
pub fn setfsuid(uid: u32) -> u32 {
    // SAFETY: takes an integer.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let before = unsafe { libc::syscall(libc::SYS_setfsuid, uid) } as u32;
    before
}

/// Sets this thread's file system gid and returns the one before; `u32::MAX` only asks.
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

fn setgroups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: length and pointer of one slice.
    cerr(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// What a change of ids makes the kernel forget about the process (kernel/cred.c, commit_creds).
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
    let parent = unsafe { libc::getppid() };
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

/// A time in seconds since the epoch, in the host's time zone.
pub fn local_time(seconds: u64) -> libc::tm {
    let seconds = libc::time_t::try_from(seconds).unwrap_or_default();
    // SAFETY: all zero is a value of this struct of numbers and a pointer.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both live over the call, which fills the second or leaves it as it is.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut time) };
    time
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
/// ESRCH when there is no such process, ENOSYS before Linux 5.3.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers.
    let fd = cerr(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits until `fd` is readable or hung up; false when `timeout` has passed first.
pub fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let end = std::time::Instant::now().checked_add(timeout);
    loop {
        let left = end.map_or(timeout, |end| end.saturating_duration_since(std::time::Instant::now()));
        // Rounded up: with a part of a millisecond left, poll would not wait at all, and callers would spin.
        let millis = c_int::try_from(left.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX);
        // SAFETY: one valid pollfd.
        match cerr(unsafe { libc::poll(&raw mut poll, 1, millis) }.into()) {
            Ok(count) => return count > 0,
            // A signal of the host's.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// One entry of the password database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passwd {
    /// Login name.
    pub name: CString,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory, as text; never looked at.
    pub home: CString,
}

/// Which entry of the password database.
#[derive(Debug, Clone, Copy)]
pub enum Who<'a> {
    /// By login name.
    Name(&'a CStr),
    /// By user id.
    Uid(u32),
}

/// Looks up a user. This asks NSS, as every PAM host has just done for the same user.
///
/// # Errors
/// What `getpwnam_r(3)` reports; `Ok(None)` is a user that does not exist.
pub fn passwd(who: Who<'_>) -> io::Result<Option<Passwd>> {
    let mut size = 1024;
    loop {
        let mut entry = MaybeUninit::<libc::passwd>::zeroed();
        let mut buffer: Vec<c_char> = vec![0; size];
        let mut found = ptr::null_mut();
        let (e, b, n) = (entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len());
        let code = match who {
            // SAFETY: valid places for the entry, its strings and the answer.
            Who::Name(name) => unsafe { libc::getpwnam_r(name.as_ptr(), e, b, n, &raw mut found) },
            // SAFETY: as above.
            Who::Uid(uid) => unsafe { libc::getpwuid_r(uid, e, b, n, &raw mut found) },
        };
        if code == libc::ERANGE && size < 1 << 20 {
            size *= 4;
            continue;
        }
        if found.is_null() {
            // "Not found" comes as 0 or as one of these (getpwnam(3), ERRORS).
            return match code {
                0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => Ok(None),
                code => Err(io::Error::from_raw_os_error(code)),
            };
        }
        // SAFETY: the call succeeded, so the entry is filled in and its strings point into `buffer`.
        let entry = unsafe { entry.assume_init() };
        // SAFETY: as above; `buffer` lives on.
        let name = unsafe { CStr::from_ptr(entry.pw_name) }.to_owned();
        // SAFETY: as above.
        let home = unsafe { CStr::from_ptr(entry.pw_dir) }.to_owned();
        return Ok(Some(Passwd { name, uid: entry.pw_uid, gid: entry.pw_gid, home }));
    }
}

/// Looks up the gid of a group. This asks NSS.
///
/// # Errors
/// What `getgrnam_r(3)` reports; `Ok(None)` is a group that does not exist.
pub fn group(name: &CStr) -> io::Result<Option<u32>> {
    let mut size = 1024;
    loop {
        let mut entry = MaybeUninit::<libc::group>::zeroed();
        let mut buffer: Vec<c_char> = vec![0; size];
        let mut found = ptr::null_mut();
        let (e, b, n) = (entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len());
        // SAFETY: valid places for the entry, its strings and the answer.
        let code = unsafe { libc::getgrnam_r(name.as_ptr(), e, b, n, &raw mut found) };
        // The members of a large group need as much.
        if code == libc::ERANGE && size < 1 << 24 {
            size *= 4;
            continue;
        }
        if found.is_null() {
            return match code {
                0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => Ok(None),
                code => Err(io::Error::from_raw_os_error(code)),
            };
        }
        // SAFETY: the call succeeded, so the entry is filled in.
        return Ok(Some(unsafe { entry.assume_init() }.gr_gid));
    }
}

/// The groups that a login of `name` has, `gid` among them. Asks NSS, so it is called before a child is made.
pub fn groups_of(name: &CStr, gid: u32) -> Vec<u32> {
    let mut groups = vec![0; 64];
    loop {
        let mut count = c_int::try_from(groups.len()).unwrap_or(c_int::MAX);
        // SAFETY: `count` says how many places `groups` has.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if result >= 0 || groups.len() >= 65536 {
            groups.truncate(count);
            return groups;
        }
        groups.resize(count.max(groups.len() * 2), 0);
    }
}

/// Who a child becomes before it does its work.
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
    /// Makes this thread that user for good: what it runs next has no way back. Allocates nothing.
    ///
    /// # Errors
    /// EPERM when the caller is neither root nor already that user.
    pub fn become_it(&self) -> io::Result<()> {
        let now = ids();
        if now.uid == [self.uid; 3] && now.gid == [self.gid; 3] {
            return Ok(());
        }
        // The real ids may be a caller's (su); with an effective uid 0 all of these are allowed.
        setgroups(&self.groups)?;
        setresgid([self.gid; 3])?;
        setresuid([self.uid; 3])
    }
}

/// A child of ours that the host knows nothing of. It ends without a SIGCHLD and a `wait` of the host does not see it
/// (clone(2), exit signal 0; only a wait with `__WCLONE` collects it), so neither the host's handler nor its
/// disposition has to be touched.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    /// Whom it has become.
    uid: Option<u32>,
}

/// Children that could not be killed, and whom they had become. They are collected when the next is made.
static LEFT: Mutex<Vec<(i32, Option<u32>)>> = Mutex::new(Vec::new());

/// Makes a child that runs `work` and ends with its result as exit status.
///
/// `work` must not allocate, take locks or panic: see the head of this module. It must not execute a program either,
/// since that would set the exit signal back to SIGCHLD; [`run_program`] makes a grandchild for it.
///
/// # Errors
/// EAGAIN and ENOMEM.
pub fn child(work: impl FnOnce() -> u8) -> io::Result<Child> {
    let mut work = Some(work);
    spawn(None, &mut || work.take().map_or(STATUS_PANIC, |work| work()))
}

/// The same, for a child that becomes `user` first. While one is left that had become him and could not be killed (it waits
/// for a file system of his own, say), there is no other: he would have one after the other wait.
///
/// # Errors
/// As [`child`]; EBUSY while one is left.
pub fn child_as(user: &Identity, work: impl FnOnce() -> bool) -> io::Result<Child> {
    let mut work = Some(work);
    spawn(Some(user.uid), &mut || {
        let done = user.become_it().is_ok() && work.take().is_some_and(|work| work());
        u8::from(!done)
    })
}

/// Status of a child in which the work has panicked: a fault of ours.
const STATUS_PANIC: u8 = 122;

fn spawn(uid: Option<u32>, work: &mut dyn FnMut() -> u8) -> io::Result<Child> {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: no place for a status is given.
    left.retain(|(pid, _)| unsafe { libc::waitpid(*pid, ptr::null_mut(), libc::__WCLONE | libc::WNOHANG) } == 0);
    if uid.is_some() && left.iter().any(|(_, of)| *of == uid) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    drop(left);
    // SAFETY: flags without CLONE_VM make a copy of the process as fork does; no stack or tid pointers are passed.
    let pid = cerr(unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) })?;
    if pid == 0 {
        // A panic must not come out where the parent goes on: there would be two of it.
        let status = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
            std::mem::forget(payload);
            STATUS_PANIC
        });
        // SAFETY: ends the child at once, with no handler of the host run.
        unsafe { libc::_exit(c_int::from(status)) };
    }
    Ok(Child { pid: i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidData)?, uid })
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
    pub fn wait(self, deadline: std::time::Instant) -> io::Result<Exit> {
        let pidfd = pidfd_open(self.pid).ok();
        let mut killed = false;
        loop {
            let mut status = 0;
            // SAFETY: a valid place for the status.
            let got = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WCLONE | libc::WNOHANG) };
            if got == self.pid {
                if killed {
                    return Ok(Exit::TimedOut);
                }
                return Ok(exit_of(status));
            }
            if got == -1 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return Err(io::Error::last_os_error());
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if killed && deadline.elapsed() > Duration::from_secs(1) {
                LEFT.lock().unwrap_or_else(PoisonError::into_inner).push((self.pid, self.uid));
                return Ok(Exit::TimedOut);
            }
            if left.is_zero() && !killed {
                // SAFETY: the pid is ours until we have collected it.
                unsafe { libc::kill(self.pid, libc::SIGKILL) };
                killed = true;
            }
            let pause = if killed { Duration::from_millis(50) } else { left.max(Duration::from_millis(1)) };
            match &pidfd {
                Some(fd) => drop(readable(std::os::fd::AsFd::as_fd(fd), pause)),
                None => std::thread::sleep(pause.min(Duration::from_millis(5))),
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

fn exit_of(status: c_int) -> Exit {
    if libc::WIFEXITED(status) {
        Exit::Status(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
    } else {
        Exit::Signal(libc::WTERMSIG(status))
    }
}

/// A program with all that its start needs, made ready before the child is.
#[derive(Debug)]
pub struct Program {
    path: CString,
    /// Keeps alive what `argv` points to.
    _arguments: Vec<CString>,
    _environment: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

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
/// Status with which the supervisor says that it killed what was still there at the deadline.
pub const STATUS_DEADLINE: u8 = 124;
/// Status with which the supervisor says that a signal ended the program.
pub const STATUS_SIGNAL: u8 = 125;

/// Runs `program` as `identity` inside a child made by [`child`] and returns the status to end with. The child becomes
/// the reaper of whatever the program leaves behind (PR_SET_CHILD_SUBREAPER) and ends only when all of it is gone:
/// killed at the deadline, or as soon as the program itself or the process `host`, which has made the child, has ended.
/// Allocates nothing.
pub fn run_program(program: &Program, identity: &Identity, millis: u64, host: u32) -> u8 {
    // SAFETY: takes integers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    reset_signals();
    // It is blocked, and waited for: what the program has forked must go, too.
    die_with_parent(libc::SIGTERM);
    // SAFETY: no arguments.
    if u32::try_from(unsafe { libc::getppid() }) != Ok(host) {
        return STATUS_NOT_STARTED;
    }
    // SAFETY: as `child`, with SIGCHLD as the exit signal, whose disposition has just been set to the default.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if pid == 0 {
        execute(program, identity);
        // SAFETY: ends the grandchild.
        unsafe { libc::_exit(c_int::from(STATUS_NOT_STARTED)) };
    }
    let Ok(pid) = i32::try_from(pid) else { return STATUS_NOT_STARTED };
    if pid < 0 {
        return STATUS_NOT_STARTED;
    }
    let end = now_millis().saturating_add(millis);
    let mut result = None;
    while result.is_none() && now_millis() < end {
        let mut status = 0;
        // SAFETY: a valid place for the status.
        let got = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if got == pid {
            result = Some(match exit_of(status) {
                Exit::Status(status) => status,
                _ => STATUS_SIGNAL,
            });
        } else if got == 0 {
            if wait_for_signal(end.saturating_sub(now_millis())) == libc::SIGTERM {
                break;
            }
        } else if got < 0 {
            break;
        }
    }
    kill_descendants();
    result.unwrap_or(STATUS_DEADLINE)
}

/// A host that is killed ends its supervisor, and that its program.
fn die_with_parent(signal: c_int) {
    // SAFETY: takes integers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
}

/// The signals that the supervisor waits for and is not disturbed by: a child has changed state, the host has ended.
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

/// Sleeps until one of the awaited signals comes, and gives it, or until the time is up.
fn wait_for_signal(millis: u64) -> c_int {
    let set = awaited_signals();
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(millis / 1000).unwrap_or(1),
        tv_nsec: c_long::try_from((millis % 1000) * 1_000_000).unwrap_or(0),
    };
    // SAFETY: a valid set, no place for details, a valid time.
    unsafe { libc::sigtimedwait(set.as_ptr(), ptr::null_mut(), &raw const time) }
}

/// All signals to their defaults, the awaited ones blocked, for the supervisor.
fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: setting a default disposition; those that cannot be set are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let set = awaited_signals();
    // SAFETY: a valid set; no place for the old one.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut()) };
}

fn now_millis() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Kills and collects every process that has us as its parent, until there is none: a program that forked into the
/// background has left its descendants to us. A process that cannot be killed (in the kernel, on a dead file server)
/// is given up after a second; init inherits it.
fn kill_descendants() {
    let end = now_millis().saturating_add(1000);
    while now_millis() < end {
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
        loop {
            // SAFETY: no place for a status.
            match unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) } {
                0 => break,
                got if got < 0 => return,
                _ => {}
            }
        }
        wait_for_signal(20);
    }
}

/// Reads the beginning of a file without allocating; 0 bytes when it cannot be read.
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

/// The grandchild's way to its program; returns only when that failed.
fn execute(program: &Program, identity: &Identity) {
    // SAFETY: no arguments: a session and process group of its own, without the host's terminal.
    unsafe { libc::setsid() };
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a valid place for the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: a valid, empty set.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut()) };
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
    // SAFETY: takes integers. Nothing of the host's (sockets, keys, the terminal) is the program's business.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, c_uint::MAX, 0) } != 0 {
        for fd in 3..1024 {
            // SAFETY: closing what may not be open is refused, no more.
            unsafe { libc::close(fd) };
        }
    }
    if identity.become_it().is_err() {
        return;
    }
    // After the change of ids, which clears it.
    die_with_parent(libc::SIGKILL);
    // SAFETY: vectors made by `Program::new`: terminated, and alive in this process.
    unsafe { libc::execve(program.path.as_ptr(), program.argv.as_ptr(), program.envp.as_ptr()) };
}

/// A pipe whose ends close on exec: (reading end, writing end).
///
/// # Errors
/// EMFILE, ENFILE.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    pipe_with(0)
}

/// The same, but whoever would have to wait is refused: to read what was not yet written, or to write more than fits.
///
/// # Errors
/// As [`pipe`].
pub fn pipe_without_waiting() -> io::Result<(OwnedFd, OwnedFd)> {
    pipe_with(libc::O_NONBLOCK)
}

fn pipe_with(flags: c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: a place for two descriptors.
    cerr(c_long::from(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | flags) }))?;
    let [read, write] = ends;
    // SAFETY: the kernel has just given us this descriptor.
    let read = unsafe { OwnedFd::from_raw_fd(read) };
    // SAFETY: likewise.
    let write = unsafe { OwnedFd::from_raw_fd(write) };
    Ok((read, write))
}

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

/// An AFS system call as its device takes it, the last argument first (OpenAFS, src/config/afs_args.h, afsprocdata).
#[repr(C)]
struct AfsCall {
    parameters: [c_long; 4],
    call: c_long,
}

/// Where a pioctl finds its input and puts its output (OpenAFS, src/util/vice.h, ViceIoctl).
#[repr(C)]
struct ViceIoctl {
    input: *const c_void,
    output: *mut c_void,
    input_size: i16,
    output_size: i16,
}

/// AFSCALL_PIOCTL and AFSCALL_SETPAG of src/config/afs_args.h.
const AFSCALL_PIOCTL: c_long = 20;
const AFSCALL_SETPAG: c_long = 21;
/// VIOC_SYSCALL of the same file. Its direction bits differ between architectures.
const VIOC_SYSCALL: libc::Ioctl = libc::_IOW::<*mut c_void>(b'C' as u32, 1);

fn afs_call(device: BorrowedFd<'_>, call: &AfsCall) -> io::Result<()> {
    // SAFETY: the module reads one `AfsCall`; what its parameters point to is the callers' affair.
    match unsafe { libc::ioctl(device.as_raw_fd(), VIOC_SYSCALL, ptr::from_ref(call)) } {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        // The module's own codes are positive, and this is where one would arrive that it has not turned round.
        code => Err(io::Error::from_raw_os_error(code.saturating_abs())),
    }
}

/// Gives this thread a PAG of its own, in a new session keyring that replaces the one it had; its groups tell of it.
///
/// # Errors
/// EINTR in the throttle that PAGs of users are under; ENOTTY when `device` is not an AFS client's.
pub fn afs_setpag(device: BorrowedFd<'_>) -> io::Result<()> {
    afs_call(device, &AfsCall { parameters: [0; 4], call: AFSCALL_SETPAG })
}

/// Calls the pioctl `number` of a group (`V`, `C` or `O`) that concerns no file. The module does not say how much it has
/// written: `output` must be zeroed before, and what is there must tell its own end.
///
/// # Errors
/// What the pioctl answers: EINVAL where the module does not know it, E2BIG when `output` is too small, EIO before the
/// module's daemons run.
pub fn afs_pioctl(device: BorrowedFd<'_>, group: u8, number: u8, input: &[u8], output: &mut [u8]) -> io::Result<()> {
    let size = |length: usize| i16::try_from(length).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
    let argument = ViceIoctl {
        input: input.as_ptr().cast(),
        output: output.as_mut_ptr().cast(),
        input_size: size(input.len())?,
        output_size: size(output.len())?,
    };
    let command = libc::_IOW::<ViceIoctl>(u32::from(group), u32::from(number));
    #[allow(clippy::cast_possible_wrap)]
    // No path, and so nothing to follow. The module takes the command as 32 bits, whatever their sign here.
    let parameters = [0, ptr::from_ref(&argument) as c_long, command as c_long, 0];
    afs_call(device, &AfsCall { parameters, call: AFSCALL_PIOCTL })
}

/// Reads what is there, at most as much as `buffer` holds; 0 at the end.
///
/// # Errors
/// As `read(2)`.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length of one slice.
    let got = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Writes all of `bytes` to `fd` without allocating; false when that failed.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        // SAFETY: pointer and length of one slice.
        let put = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(put) {
            Ok(put) => bytes = bytes.get(put..).unwrap_or(&[]),
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

/// Copies the file at `path` to `out`, at most `limit` bytes, without allocating; an open that could block on a FIFO
/// or a link at the end of the path is refused. For a child that has become the file's owner.
pub fn copy_file_to(path: &CStr, out: BorrowedFd<'_>, limit: usize) -> bool {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: a terminated path.
    let fd = unsafe { libc::open(path.as_ptr(), flags) };
    if fd < 0 {
        return false;
    }
    // SAFETY: our own, valid descriptor.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
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
                if total > limit || !write_all(out, part) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
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
    if !given || !write_all(std::os::fd::AsFd::as_fd(&file), bytes) {
        return false;
    }
    // SAFETY: terminated paths.
    unsafe { libc::rename(temporary.as_ptr(), path.as_ptr()) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn afs_calls_have_the_layout_of_the_module() {
        assert_eq!(size_of::<AfsCall>(), 5 * size_of::<c_long>());
        assert_eq!(std::mem::offset_of!(AfsCall, call), 4 * size_of::<c_long>());
        assert_eq!(size_of::<ViceIoctl>(), if cfg!(target_pointer_width = "64") { 24 } else { 12 });
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn ioctl_numbers_are_those_of_the_headers() {
        assert_eq!(VIOC_SYSCALL, 0x4008_4301);
        assert_eq!(libc::_IOW::<ViceIoctl>(u32::from(b'V'), 9), 0x4018_5609);
    }

    #[test]
    fn what_is_no_afs_client_says_so() {
        let device = open_file(c"/dev/null").unwrap();
        assert_eq!(afs_setpag(device.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        let answer = afs_pioctl(device.as_fd(), b'C', 13, &[], &mut [0; 4]);
        assert_eq!(answer.unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        let answer = afs_pioctl(device.as_fd(), b'C', 13, &[], &mut [0; 40_000]);
        assert_eq!(answer.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_child_that_does_not_end_is_killed() {
        let child = child(|| {
            std::thread::sleep(Duration::from_secs(60));
            0
        });
        let begun = std::time::Instant::now();
        assert_eq!(child.unwrap().wait(begun + Duration::from_millis(50)).unwrap(), Exit::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}
