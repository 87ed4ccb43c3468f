//! What can go wrong. Each text names the operation, its object and the cause.

use std::{fmt, io};

use crate::keyring::Serial;
use crate::run;

/// Result of this library's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation that failed.
#[derive(Debug)]
pub enum Error {
    /// The caller has no effective uid 0, and the operation needs it.
    NotRoot,
    /// A keyring operation failed.
    Key {
        /// The operation and its object: `make a ring for uid 1001`.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The lock of a uid could not be taken, or not in time.
    Lock {
        /// Name of the lock: a uid, or `registry`.
        name: String,
        /// The cause; `TimedOut` when another process held the lock all the time.
        source: io::Error,
    },
    /// After a join, the session keyring is not the ring that was asked for.
    NotJoined {
        /// The ring that was to be joined.
        wanted: Serial,
        /// The session keyring that the thread has instead.
        found: String,
        /// Whether that is a user's keyring with the ring's name. No process can join the ring as long as it is there.
        squatted: bool,
    },
    /// This process could not join a ring that is whole.
    JoinRefused {
        /// The ring.
        ring: Serial,
        /// In words.
        why: String,
    },
    /// Another system operation failed.
    System {
        /// The operation and its object.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err` on keyring operations.
    pub fn key(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Error::Key { doing, source }
    }

    /// For `map_err` on other system operations.
    pub fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Error::System { doing, source }
    }

    /// The kernel's error number, if the error has one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Key { source, .. } | Error::System { source, .. } | Error::Lock { source, .. } => {
                source.raw_os_error()
            }
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotRoot => write!(f, "only root can do this"),
            Error::Key { doing, source } | Error::System { doing, source } => {
                write!(f, "cannot {doing}: {source}")
            }
            Error::Lock { name, source } if source.kind() == io::ErrorKind::TimedOut => {
                write!(f, "the lock {}/lock/{name} was held by another process all the time", run::TOP)
            }
            Error::Lock { name, source } => write!(f, "cannot take the lock {}/lock/{name}: {source}", run::TOP),
            Error::NotJoined { wanted, found, .. } => {
                write!(f, "joined ring {wanted}, but the session keyring is {found}")
            }
            Error::JoinRefused { ring, why } => write!(f, "ring {ring} of the user's PAG is whole, but {why}"),
        }
    }
}

impl std::error::Error for Error {}
