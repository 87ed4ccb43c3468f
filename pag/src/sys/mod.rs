//! Raw system calls: the only module of this library that holds `unsafe`.
//!
//! Two rules run through it. Ids are switched by the system calls themselves and not by libc's wrappers, which
//! switch *every* thread of the process (nptl's setxid broadcast); PAM hosts such as gdm are threaded, and only the
//! calling thread is ours. And what runs in a child made here, before it executes a program, allocates nothing and
//! takes no lock: another thread of the host may have held one when the child was made.
#![allow(unsafe_code)]

mod fork;
pub mod person;
mod word_size;

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_void};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr;
use std::time::Duration;

use zeroize::Zeroizing;

pub use self::fork::{
    Answer, Child, Exit, Identity, Program, Put, STATUS_DEADLINE, STATUS_NOT_STARTED, STATUS_SIGNAL, ask, ask_as,
    child, run, wait_for_left,
};

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

/// Whether a process or a zombie has this pid. This asks the kernel, since a `/proc` may hide the process or be that of another
/// pid namespace.
pub fn is_process(pid: i32) -> bool {
    // SAFETY: takes integers; signal 0 is no signal.
    let is_there = unsafe { libc::kill(pid, 0) } == 0;
    is_there || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// A process's root directory: another one in a chroot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootDirectory {
    device: (u32, u32),
    inode: u64,
}

/// The root directory of this process, as the kernel has it in memory: a chroot may be on a file server that does not
/// answer. None where a sandbox forbids the look.
pub fn root_directory() -> Option<RootDirectory> {
    // SAFETY: all zero is a value of this struct of numbers.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    // SAFETY: a terminated path, and a valid place for the answer.
    let result = unsafe { libc::statx(libc::AT_FDCWD, c"/".as_ptr(), flags, libc::STATX_INO, &raw mut found) };
    let device = (found.stx_dev_major, found.stx_dev_minor);
    (result == 0).then_some(RootDirectory { device, inode: found.stx_ino })
}

/// Whole milliseconds, in 64 bits: those of [`Duration`] have 128, and whatever prints them a kilobyte of code of its own.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Waits until `fd` is readable or hung up; false when `timeout` has passed first.
pub fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let end = std::time::Instant::now().checked_add(timeout);
    loop {
        let left = end.map_or(timeout, |end| end.saturating_duration_since(std::time::Instant::now()));
        // Rounded up: with a part of a millisecond left, poll would not wait at all, and callers would spin.
        let millis = c_int::try_from(millis(left.saturating_add(Duration::from_micros(999)))).unwrap_or(c_int::MAX);
        // SAFETY: one valid pollfd.
        match cerr(unsafe { libc::poll(&raw mut poll, 1, millis) }.into()) {
            Ok(count) => return count > 0,
            // A signal of the host's.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// Sends a datagram to the socket at `path`, without waiting.
///
/// # Errors
/// ENOENT and ECONNREFUSED when nobody listens, EAGAIN when he does not keep up, EMFILE, EMSGSIZE.
pub fn send_to(path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
    // The last byte stays 0.
    let space = address.sun_path.len().saturating_sub(1);
    if path.len() > space {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in address.sun_path.iter_mut().zip(path.bytes()) {
        *place = byte as c_char;
    }
    // SAFETY: takes integers.
    let socket = cerr(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into())?;
    let socket = RawFd::try_from(socket).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: pointer and length of one slice, and of one address.
    let sent = unsafe {
        let to = (&raw const address).cast();
        libc::sendto(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags, to, length)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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

/// A pipe whose ends close on exec: (reading end, writing end).
///
/// # Errors
/// EMFILE, ENFILE.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: a place for two descriptors.
    cerr(c_long::from(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }))?;
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

/// Closes all descriptors of this process but standard input, output and error, and this one. For a child, which has copies
/// of its parent's.
pub fn close_all_but(fd: BorrowedFd<'_>) {
    let kept = c_uint::try_from(fd.as_raw_fd()).unwrap_or(0);
    close_range(3, kept.saturating_sub(1));
    close_range(kept.saturating_add(1).max(3), c_uint::MAX);
}

/// The same, and standard input, output and error become `/dev/null`: they may be a daemon's sockets, too. Where that cannot
/// be opened, they are closed.
pub fn close_even_standard_but(fd: BorrowedFd<'_>) {
    close_all_but(fd);
    // SAFETY: a terminated path.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    for standard in (0..3).filter(|standard| *standard != fd.as_raw_fd() && *standard != null) {
        // SAFETY: takes integers.
        unsafe { if null < 0 { libc::close(standard) } else { libc::dup2(null, standard) } };
    }
    if null > 2 {
        // SAFETY: our own descriptor.
        unsafe { libc::close(null) };
    }
}

/// Kills all other processes that this one may signal. For a child that has become a user with no processes worth keeping;
/// never for root. False where they could not be killed.
pub fn kill_all_others() -> bool {
    let ids = ids();
    if ids.uid.contains(&0) {
        return false;
    }
    // SAFETY: takes integers. ESRCH: there is none.
    unsafe { libc::kill(-1, libc::SIGKILL) == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) }
}

/// Closes the descriptors from `first` to `last`: nothing in this process may use them any more. Before Linux 5.9 no more
/// than the first thousand.
pub fn close_range(first: c_uint, last: c_uint) {
    // SAFETY: takes integers.
    if first > last || unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    for fd in (first..=last.min(1023)).filter_map(|fd| c_int::try_from(fd).ok()) {
        // SAFETY: closing what may not be open is refused, no more.
        unsafe { libc::close(fd) };
    }
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

/// A place on the stack for what may hold session keys. It is wiped when it goes: at once, where `zeroize` writes byte by byte,
/// and that into a place that a login uses for each look at its tokens.
#[derive(Debug)]
pub struct Wiped<const SIZE: usize>([u8; SIZE]);

impl<const SIZE: usize> Default for Wiped<SIZE> {
    fn default() -> Self {
        Wiped([0; SIZE])
    }
}

impl<const SIZE: usize> std::ops::Deref for Wiped<SIZE> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const SIZE: usize> std::ops::DerefMut for Wiped<SIZE> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl<const SIZE: usize> Drop for Wiped<SIZE> {
    fn drop(&mut self) {
        // SAFETY: pointer and length of one array.
        unsafe { libc::explicit_bzero(self.0.as_mut_ptr().cast(), SIZE) };
    }
}

/// File systems on a disk of the host's or in its memory, which nobody but root mounts: none of them waits for a server or
/// for a process of a user's (statfs(2)). Mounts of an overlay are left out, since that may be of anything.
const LOCAL: [c_long; 6] = [
    libc::TMPFS_MAGIC,
    libc::EXT4_SUPER_MAGIC,
    libc::XFS_SUPER_MAGIC,
    libc::BTRFS_SUPER_MAGIC,
    libc::F2FS_SUPER_MAGIC,
    0x2fc1_2fc1, // OpenZFS, include/sys/fs/zfs.h
];

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

/// The file system that something is in. Allocates nothing.
fn device_of(path: &CStr) -> Option<libc::dev_t> {
    // SAFETY: all zero is a value of this struct of numbers.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated path, and a valid place for what is found.
    (unsafe { libc::lstat(path.as_ptr(), &raw mut found) } == 0).then_some(found.st_dev)
}

/// Takes away what is mounted on `path`, and all that is mounted in it, whoever uses it still. Of file systems that are
/// mounted one over the other it takes the uppermost.
pub fn detach_mount(path: &CStr) -> bool {
    // SAFETY: a terminated path.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) == 0 }
}

/// Reads the file `name` of `owner`'s, below a directory that only root can replace, where that cannot be waited for: both
/// are in one and the same mount of a local file system, and no link is followed. The user could have mounted something of
/// his own over the file (fusermount takes whatever is his), made it a FIFO, or put a lease on it.
///
/// # Errors
/// EXDEV, ELOOP, EAGAIN and ENOSYS (before Linux 5.6) of openat2(2), `Unsupported` on any other file system, `PermissionDenied` of
/// what is no file of his, `FileTooLarge`: it may still be one that the user himself can read.
pub fn read_at_once(directory: &CStr, name: &CStr, owner: u32, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let directory = open_top(directory)?;
    // SAFETY: all zero is a value of this struct of numbers.
    let mut system: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a valid place for what is answered.
    cerr(unsafe { libc::fstatfs(directory.as_raw_fd(), &raw mut system) }.into())?;
    if !LOCAL.contains(&system.f_type) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut file = std::fs::File::from(openat2(directory.as_raw_fd(), name, flags, BENEATH)?);
    let found = file.metadata()?;
    if !found.is_file() || found.uid() != owner {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let size = usize::try_from(found.len()).ok().filter(|size| *size <= limit).ok_or(io::ErrorKind::FileTooLarge)?;
    // In one piece, so that nothing of it is left behind where it has grown.
    let mut bytes = Zeroizing::new(vec![0; size]);
    file.read_exact(&mut bytes)?;
    Ok(bytes)
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
    use std::os::fd::AsFd;

    #[test]
    fn afs_calls_have_the_layout_of_the_module() {
        assert_eq!(size_of::<AfsCall>(), 5 * size_of::<c_long>());
        assert_eq!(std::mem::offset_of!(AfsCall, call), 4 * size_of::<c_long>());
        assert_eq!(size_of::<ViceIoctl>(), 24);
    }

    /// Without the standard library of that processor, which a test machine need not have.
    #[test]
    fn a_build_for_32_bits_is_refused() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sys/word_size.rs");
        let program = format!(
            "#![feature(no_core, rustc_attrs)]\n#![no_core]\n#![allow(internal_features, unused_macros)]\n\
             #[rustc_builtin_macro]\nmacro_rules! compile_error {{ ($words:expr $(,)?) => {{{{}}}}; }}\n\
             #[path = {file:?}]\nmod word_size;\n"
        );
        let top = tempfile::tempdir().unwrap();
        let source = top.path().join("program.rs");
        std::fs::write(&source, program).unwrap();
        for (target, is_built) in [
            ("x86_64-unknown-linux-gnu", true),
            ("aarch64-unknown-linux-gnu", true),
            ("i686-unknown-linux-gnu", false),
            ("armv7-unknown-linux-gnueabihf", false),
            ("x86_64-unknown-linux-gnux32", false),
        ] {
            let mut rustc = std::process::Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
            rustc.args(["--crate-type", "rlib", "--emit", "metadata", "--target", target, "--out-dir"]).arg(top.path());
            let output = rustc.arg(&source).env("RUSTC_BOOTSTRAP", "1").output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), is_built, "{target}: {said}");
            assert_eq!(said.contains("64-bit processors only"), !is_built, "{target}: {said}");
        }
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

    #[test]
    fn a_file_is_read_at_once_or_not_at_all() {
        let top = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
        let c = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
        let directory = c(top.path());
        let [_, uid, _] = ids().uid;
        let get = |name: &CStr| read_at_once(&directory, name, uid, 10);
        std::fs::create_dir(top.path().join("dir")).unwrap();
        std::fs::write(top.path().join("dir/file"), "1234567890").unwrap();
        assert_eq!(get(c"dir/file").unwrap()[..], b"1234567890"[..]);
        std::fs::write(top.path().join("long"), "12345678901").unwrap();
        std::os::unix::fs::symlink("dir", top.path().join("link")).unwrap();
        // SAFETY: a terminated path.
        assert_eq!(unsafe { libc::mkfifo(c(&top.path().join("fifo")).as_ptr(), 0o600) }, 0);
        for name in [c"long", c"link/file", c"fifo", c"dir", c"none", c"../null", c"/dev/null"] {
            assert!(get(name).is_err(), "{name:?}");
        }
        assert!(read_at_once(&directory, c"dir/file", uid + 1, 10).is_err());
        assert!(read_at_once(c"/proc/self", c"cmdline", uid, 1000).is_err(), "/proc/self is a link");
        assert!(read_at_once(c"/sys/kernel", c"uevent_seqnum", uid, 5000).is_err());
    }
}
