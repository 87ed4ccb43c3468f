//! What a program says on standard error.

use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::errno::cerr;

/// Room for the words of a program, in bytes.
const ROOM: usize = 16 * 1024;

/// What a program says on standard error, in a file in memory that takes [`ROOM`] bytes and refuses the rest.
///
/// It is no pipe: a program that says much is never made to wait, and a process that the program leaves behind cannot
/// hold the reader up.
#[derive(Debug)]
pub struct Said(OwnedFd);

impl Said {
    /// Makes the file, which is empty.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM; EPERM if a sandbox forbids the call.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a terminated name.
        let make = |flags| unsafe { libc::memfd_create(c"pag-said".as_ptr(), flags) };
        // Kernels before 6.3 do not know MFD_NOEXEC_SEAL, and newer ones may insist on it (vm.memfd_noexec).
        let mut made = make(libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_NOEXEC_SEAL);
        if made < 0 {
            made = make(libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        }
        let file = owned(c_long::from(made))?;
        // Not one of the standard descriptors, which a host may have closed: the program's are made from it.
        let file = match file.as_raw_fd() {
            // SAFETY: takes integers.
            0..3 => owned(c_long::from(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) }))?,
            _ => file,
        };
        // SAFETY: takes integers.
        cerr(c_long::from(unsafe { libc::ftruncate(file.as_raw_fd(), ROOM as libc::off_t) }))?;
        let seals = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
        // SAFETY: takes integers.
        cerr(c_long::from(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }))?;
        Ok(Said(file))
    }

    /// The descriptor for the program's standard error.
    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// What was said so far, as it is: it may be no text, and it may be hostile.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; ROOM];
        // From its beginning: the program shares the position.
        // SAFETY: pointer and length of one buffer.
        let got = unsafe { libc::pread(self.0.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        bytes.truncate(usize::try_from(got).unwrap_or(0));
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(end);
        bytes
    }
}

fn owned(fd: c_long) -> io::Result<OwnedFd> {
    let fd = c_int::try_from(cerr(fd)?).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Says on standard error why a program could not be executed. For a child: allocates nothing.
pub(super) fn say_why_not_executed() {
    let words: &[u8] = match io::Error::last_os_error().raw_os_error() {
        Some(libc::ENOENT) => b"there is no such file, or its interpreter is missing",
        Some(libc::EACCES) => b"this user may not execute it",
        Some(libc::ENOEXEC) => b"it is no program for this machine",
        Some(libc::E2BIG) => b"its arguments and environment are too long",
        _ => b"the kernel refuses to execute it",
    };
    // SAFETY: descriptor 2 is the child's standard error.
    super::descriptors::write_all(unsafe { BorrowedFd::borrow_raw(2) }, words);
}

#[cfg(test)]
mod tests {
    use super::super::descriptors::write_all;
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn words_are_kept_up_to_a_limit_and_no_writer_waits() {
        let said = Said::new().unwrap();
        assert_eq!(said.bytes(), b"");
        assert!(write_all(said.0.as_fd(), b"one\n") && write_all(said.0.as_fd(), b"two\n"));
        assert_eq!(said.bytes(), b"one\ntwo\n");
        let long = vec![b'x'; ROOM];
        assert!(!write_all(said.0.as_fd(), &long), "what has no room is refused");
        assert_eq!(said.bytes().len(), ROOM, "and what has room is kept");
        assert!(said.as_raw_fd() > 2);
    }
}
