//! The lock of each uid: a login holds it to find, join and record a PAG, and the helper to check again and unlink
//! one. A few other locks, too.
//!
//! The locked file also holds a hint: where the uid's PAGs are. So a login among ten thousand others does not read
//! the others' PAGs. Losing the hint does no harm: the holders in it are described before use, it is written
//! *before* a PAG is anchored, so that it never names too few, and without it the whole registry is read.

use crate::run;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::keyring::Serial;
use crate::sys::Process;

/// A lock. It is held until this value is dropped or its process ends.
#[derive(Debug)]
#[must_use]
pub struct Lock {
    file: File,
    name: String,
}

/// A child that was made meanwhile and left behind has the file open, too. Without the unlock it would hold the
/// lock.
impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Longest hint, in bytes. A uid with more PAGs than fit (about three hundred) has none.
const LONGEST_HINT: usize = 4096;

impl Lock {
    /// Takes the lock of `uid`, waiting at most `wait`. Needs root.
    ///
    /// # Errors
    /// `Lock`. Its source is `TimedOut` if another process held the lock all the time.
    pub fn of_uid(uid: u32, wait: Duration) -> Result<Self> {
        Self::take(&uid.to_string(), wait, File::try_lock)
    }

    /// Takes the lock under which the helper and its jobs write tickets into the ccaches of PAGs of `uid`. They read
    /// the record again once they have it, so that they do not overwrite the ticket of a login that has come
    /// meanwhile. It is not the uid's lock, since the user decides how long the writing takes.
    ///
    /// # Errors
    /// As [`Lock::of_uid`].
    pub fn of_tickets(uid: u32, wait: Duration) -> Result<Self> {
        Self::take(&format!("{uid}.tickets"), wait, File::try_lock)
    }

    /// Takes a share of the same lock, for a login that writes its own ticket. Logins do not wait for each other.
    ///
    /// # Errors
    /// As [`Lock::of_uid`].
    pub fn share_of_tickets(uid: u32, wait: Duration) -> Result<Self> {
        Self::take(&format!("{uid}.tickets"), wait, File::try_lock_shared)
    }

    /// Takes the lock under which the registry keyring is made.
    ///
    /// # Errors
    /// As [`Lock::of_uid`].
    pub fn of_registry(wait: Duration) -> Result<Self> {
        Self::take("registry", wait, File::try_lock)
    }

    /// Takes the lock under which a keytab is used. Only one process at a time uses a keytab.
    ///
    /// # Errors
    /// As [`Lock::of_uid`].
    pub fn of_keytabs(wait: Duration) -> Result<Self> {
        Self::take("keytab", wait, File::try_lock)
    }

    fn take(name: &str, wait: Duration, try_lock: fn(&File) -> std::result::Result<(), TryLockError>) -> Result<Self> {
        let failed = |source| Error::Lock { name: name.to_owned(), source };
        is_within_reach().map_err(failed)?;
        let file = open(name).map_err(failed)?;
        let end = Instant::now() + wait;
        let mut pause = Duration::from_micros(200);
        loop {
            match try_lock(&file) {
                Ok(()) => return Ok(Lock { file, name: name.to_owned() }),
                Err(TryLockError::Error(source)) if source.kind() != io::ErrorKind::Interrupted => {
                    return Err(failed(source));
                }
                Err(_) => {}
            }
            // flock has no timeout, and the host may be using the alarm. A lock is held for well under a millisecond.
            if Instant::now() >= end {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

impl Lock {
    /// The holders that the uid's PAGs had in `registry`, and perhaps some that have ended. `None` if there is no
    /// hint.
    pub fn holders(&self, registry: Serial) -> Option<Vec<Serial>> {
        let mut text = [0; LONGEST_HINT];
        let length = self.file.read_at(&mut text, 0).ok()?;
        parse(text.get(..length)?, registry)
    }

    /// Writes the hint: which holders the uid has in `registry`.
    ///
    /// # Errors
    /// `Lock` if neither the hint nor its absence could be written.
    pub fn remember(&self, registry: Serial, holders: &[Serial]) -> Result<()> {
        let text = hint(registry, holders);
        let written = text.len() <= LONGEST_HINT && self.file.write_all_at(text.as_bytes(), 0).is_ok();
        // If /run is full: no hint is better than one that names too few.
        if written { Ok(()) } else { self.forget() }
    }

    /// Removes the hint.
    ///
    /// # Errors
    /// `Lock`.
    pub fn forget(&self) -> Result<()> {
        self.file.set_len(0).map_err(|source| Error::Lock { name: self.name.clone(), source })
    }
}

/// One line with an end marker. The rest of an earlier, longer line may follow it and does not count.
fn hint(registry: Serial, holders: &[Serial]) -> String {
    let mut text = format!("registry {registry} holders");
    for holder in holders {
        // Writing to a String cannot fail.
        let _ = write!(text, " {holder}");
    }
    text.push_str(" end\n");
    text
}

fn parse(text: &[u8], registry: Serial) -> Option<Vec<Serial>> {
    let line = str::from_utf8(text.split(|byte| *byte == b'\n').next()?).ok()?;
    let numbers = line.strip_prefix(&format!("registry {registry} holders"))?.strip_suffix(" end")?;
    numbers.split(' ').skip(1).map(|number| Serial::new(number.parse().ok()?)).collect()
}

fn open(name: &str) -> io::Result<File> {
    let path = run::locks().join(name);
    let try_open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    match try_open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            run::make_directories()?;
            try_open()
        }
        other => other,
    }
}

/// Whether this process and all others lock the same files. In a chroot the paths lead to other files, and a lock on
/// those protects nothing. The process would also make them as root in a directory that may be a user's.
///
/// # Errors
/// In words, why they are not the same files.
pub fn is_within_reach() -> io::Result<()> {
    if !Process::sees_itself() {
        return Err(io::Error::other("/proc does not show this process, which may be in a chroot"));
    }
    // Reading the root of process 1 needs CAP_SYS_PTRACE. Without it the first test must do.
    let root = |path: &str| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    match (root("/"), root("/proc/1/root")) {
        (Ok(own), Ok(first)) if own != first => {
            Err(io::Error::other("this process is in a chroot: its root directory is not that of process 1"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serials(numbers: &[i32]) -> Vec<Serial> {
        numbers.iter().map(|number| Serial::new(*number).unwrap()).collect()
    }

    #[test]
    fn a_hint_is_read_as_it_was_written_whatever_stood_there_before() {
        let (registry, other) = (serials(&[77])[0], serials(&[7])[0]);
        for holders in [&[][..], &[5], &[5, 6, 2_147_483_647]] {
            let holders = serials(holders);
            let text = format!("{}holders 1 2 3 end\n", hint(registry, &holders));
            assert_eq!(parse(text.as_bytes(), registry), Some(holders));
            assert_eq!(parse(text.as_bytes(), other), None);
        }
    }

    #[test]
    fn a_hint_that_is_cut_off_is_none() {
        let registry = serials(&[77])[0];
        let whole = hint(registry, &serials(&[5, 6]));
        for length in 0..whole.len() - 1 {
            assert_eq!(parse(&whole.as_bytes()[..length], registry), None, "{length}");
        }
        for text in
            ["registry 77 holders x end\n", "registry 77 holders 0 end\n", "registry 77 holders  5 end\n", "\u{ff}"]
        {
            assert_eq!(parse(text.as_bytes(), registry), None, "{text}");
        }
    }
}
