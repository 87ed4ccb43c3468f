//! One lock per uid for find, join and record, and for re-check and unlink.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// A lock that is held until it is dropped, or its process ends.
#[derive(Debug)]
#[must_use]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of `uid`, waiting at most `wait`. Needs root.
    ///
    /// # Errors
    /// `Lock`; its source is `TimedOut` when another process held it all the time.
    pub fn of_uid(uid: u32, wait: Duration) -> Result<Self> {
        Self::take(&uid.to_string(), wait)
    }

    /// Takes the lock under which the registry keyring is made.
    ///
    /// # Errors
    /// As [`Lock::of_uid`].
    pub fn of_registry(wait: Duration) -> Result<Self> {
        Self::take("registry", wait)
    }

    fn take(name: &str, wait: Duration) -> Result<Self> {
        let failed = |source| Error::Lock { name: name.to_owned(), source };
        let file = open(name).map_err(failed)?;
        let end = Instant::now() + wait;
        let mut pause = Duration::from_micros(200);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::Error(source)) if source.kind() != io::ErrorKind::Interrupted => {
                    return Err(failed(source));
                }
                Err(_) => {}
            }
            // flock has no timeout, and an alarm is the host's. The holders need well under a millisecond.
            if Instant::now() >= end {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

fn open(name: &str) -> io::Result<File> {
    let path = directory().join(name);
    let try_open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    match try_open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directories()?;
            try_open()
        }
        other => other,
    }
}

fn directory() -> PathBuf {
    Path::new(crate::RUN).join("lock")
}

/// Makes `/run/pag` and what belongs below it, for systems where the helper has not run yet.
///
/// # Errors
/// What the file system says, and `PermissionDenied` for a directory that somebody else has put there.
pub fn make_directories() -> io::Result<()> {
    let run = Path::new(crate::RUN);
    for (path, mode) in [(run.to_owned(), 0o755), (directory(), 0o700), (run.join("ccache"), 0o711)] {
        match DirBuilder::new().mode(mode).create(&path) {
            // The host's umask may have taken bits away that users need.
            Ok(()) => std::fs::set_permissions(&path, Permissions::from_mode(mode))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let found = std::fs::symlink_metadata(&path)?;
                if !found.is_dir() || found.uid() != 0 {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
