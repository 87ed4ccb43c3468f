//! Memory for the names of rings.

use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, ptr};

use zeroize::{Zeroize, Zeroizing};

use super::errno::cerr;

/// Bytes of one place, with the NUL at the end.
pub const SECRET: usize = 64;

/// One secret: words, so that a thread can read them while another one wipes them.
type Place = [AtomicU64; SECRET / 8];

/// Places for names in memory of their own. The kernel wipes it in a forked child (MADV_WIPEONFORK) and leaves it out of
/// core dumps. It is wiped at its end, too.
///
/// The first place is no one's: a mark in it tells whether this process is a forked child.
#[derive(Debug)]
pub struct Secrets {
    places: &'static [Place],
}

const MARK: u64 = 0x7061_6773;

impl Secrets {
    /// Maps memory for `count` secrets, numbered from 1. A page takes memory once it is used.
    ///
    /// # Errors
    /// ENOMEM; EINVAL before Linux 4.14.
    pub fn new(count: u32) -> io::Result<Self> {
        let count = count as usize + 1;
        let length = count * SECRET;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, wherever the kernel places it.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the whole mapping, zeroed by the kernel, which is unmapped only in `drop`; page borders are borders of places.
        let secrets = Secrets { places: unsafe { std::slice::from_raw_parts(start.cast(), count) } };
        for advice in [libc::MADV_WIPEONFORK, libc::MADV_DONTDUMP] {
            // SAFETY: the mapping made above.
            cerr(unsafe { libc::madvise(start, length, advice) }.into())?;
        }
        secrets.mark().store(MARK, Ordering::Relaxed);
        Ok(secrets)
    }

    fn mark(&self) -> &AtomicU64 {
        static NONE: AtomicU64 = AtomicU64::new(0);
        self.places.first().and_then(|place| place.first()).unwrap_or(&NONE)
    }

    /// Whether this process was forked from the one that made this memory. No system call.
    pub fn are_wiped(&self) -> bool {
        self.mark().load(Ordering::Relaxed) != MARK
    }

    /// Writes a secret; what does not fit is cut off.
    pub fn write(&self, number: u32, secret: &[u8]) {
        let Some(place) = self.places.get(number as usize).filter(|_| number != 0) else { return };
        let mut bytes = [0; SECRET];
        // The last byte stays NUL.
        for (to, from) in bytes.iter_mut().zip(secret.iter().take(SECRET - 1)) {
            *to = *from;
        }
        for (word, bytes) in place.iter().zip(bytes.as_chunks().0) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Release);
        }
        bytes.zeroize();
    }

    /// Wipes a secret.
    pub fn wipe(&self, number: u32) {
        self.write(number, b"");
    }

    /// A copy of a secret, with its NULs, in ordinary memory: for a child that is about to be made. It is wiped at its end.
    pub fn copy(&self, number: u32) -> Box<Zeroizing<[u8; SECRET]>> {
        let mut copy = Box::new(Zeroizing::new([0; SECRET]));
        let place = self.places.get(number as usize).into_iter().flatten();
        for (bytes, word) in copy.as_chunks_mut().0.iter_mut().zip(place) {
            *bytes = word.load(Ordering::Acquire).to_ne_bytes();
        }
        copy
    }

    /// Gives this thread the session keyring that a secret names: [`join_session`](super::join_session), with the name where it
    /// is. A secret that is wiped meanwhile names a stray keyring.
    ///
    /// # Errors
    /// As `join_session`; ENOENT if there is no such place.
    pub fn join_session(&self, number: u32) -> io::Result<()> {
        let place = self.places.get(number as usize).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        let name = place.as_ptr();
        // SAFETY: the kernel copies the name up to its NUL. The last byte of a place is always NUL, and the mapping lives as
        // long as `self`.
        cerr(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name) }).map(drop)
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        let start = self.places.as_ptr().cast_mut();
        // SAFETY: the mapping made in `new`, to which no reference is left. The kernel zeroes the pages before it gives
        // them to any process again.
        unsafe { libc::munmap(start.cast(), size_of_val(self.places)) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::fork::tests::{ask, soon};
    use super::*;
    use crate::keyring;

    fn read(secrets: &Secrets, number: u32) -> [u8; SECRET] {
        **secrets.copy(number)
    }

    #[test]
    fn a_forked_child_finds_no_secret() {
        let secrets = Secrets::new(100).unwrap();
        secrets.write(7, b"secret");
        assert!(!secrets.are_wiped() && read(&secrets, 7).starts_with(b"secret\0"));
        let of_child = ask(soon(), |put| {
            let places = [0, 7].map(|number: usize| secrets.places.get(number));
            let is_empty = places.iter().flatten().all(|it| it.iter().all(|word| word.load(Ordering::Acquire) == 0));
            put(&[u8::from(secrets.are_wiped() && is_empty)])
        });
        assert_eq!(of_child.unwrap().bytes().unwrap()[..], [1]);
        secrets.wipe(7);
        assert_eq!(read(&secrets, 7), [0; SECRET]);
    }

    #[test]
    fn a_secret_is_as_long_as_it_may_be_and_ends() {
        let secrets = Secrets::new(2).unwrap();
        secrets.write(2, &[b'x'; 100]);
        assert_eq!(read(&secrets, 2)[..], [&[b'x'; SECRET - 1][..], &[0]].concat());
        secrets.write(0, b"over the mark");
        secrets.write(3, b"behind the end");
        assert!(!secrets.are_wiped());
        assert_eq!(secrets.join_session(3).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_thread_joins_what_a_secret_names() {
        let secrets = Secrets::new(1).unwrap();
        let name = format!("pag-test-{}", std::process::id());
        secrets.write(1, name.as_bytes());
        secrets.join_session(1).unwrap();
        let joined = keyring::session().unwrap();
        assert!(keyring::describe(joined, |found| found.name == name.as_bytes()).unwrap());
    }
}
