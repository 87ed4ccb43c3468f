//! File descriptors: pipes, sockets, and which ones a child keeps.

use super::host::millis;
use std::ffi::{c_char, c_int, c_long, c_uint};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::errno::cerr;

/// Waits until `fd` is readable or hung up. False if `timeout` passes first.
pub fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let end = std::time::Instant::now().checked_add(timeout);
    loop {
        let left = end.map_or(timeout, |end| end.saturating_duration_since(std::time::Instant::now()));
        // Rounded up: with less than a millisecond left poll would not wait at all, and callers would spin.
        let millis = c_int::try_from(millis(left.saturating_add(Duration::from_micros(999)))).unwrap_or(c_int::MAX);
        // SAFETY: one valid pollfd.
        match cerr(unsafe { libc::poll(&raw mut poll, 1, millis) }.into()) {
            Ok(count) => return count > 0,
            // A signal that is meant for the host.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// Sends a datagram to the socket at `path`, without waiting.
///
/// # Errors
/// ENOENT or ECONNREFUSED if no process listens, EAGAIN if the listener does not keep up, EMFILE, EMSGSIZE.
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
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
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

/// Makes a pipe: (reading end, writing end). Both ends close on exec.
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

/// Reads at most as many bytes as `buffer` holds and returns their number; 0 at the end.
///
/// # Errors
/// As `read(2)`.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length of one slice.
    let got = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Writes all of `bytes` to `fd` without allocating. False if that failed.
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

/// Closes all descriptors of this process except `fd` and standard input, output and error. For a child, which has
/// copies of its parent's descriptors.
pub fn close_all_but(fd: BorrowedFd<'_>) {
    let kept = c_uint::try_from(fd.as_raw_fd()).unwrap_or(0);
    close_range(3, kept.saturating_sub(1));
    close_range(kept.saturating_add(1).max(3), c_uint::MAX);
}

/// As [`close_all_but`], and makes standard input, output and error `/dev/null`, since they may be a daemon's
/// sockets, too. Closes them if `/dev/null` cannot be opened.
pub(super) fn close_even_standard_but(fd: BorrowedFd<'_>) {
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

/// Closes the descriptors from `first` to `last`; this process may not use them any more. Before Linux 5.9 it closes
/// only the first thousand.
pub(super) fn close_range(first: c_uint, last: c_uint) {
    // SAFETY: takes integers.
    if first > last || unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    for fd in (first..=last.min(1023)).filter_map(|fd| c_int::try_from(fd).ok()) {
        // SAFETY: closing what may not be open is refused, no more.
        unsafe { libc::close(fd) };
    }
}
