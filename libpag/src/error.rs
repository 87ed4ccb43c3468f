//! What can go wrong, with a code for C.

use std::time::{Duration, Instant};
use std::{fmt, io};

use pag::seed::Budget;
use pag::types::without_codes;
use pag::{keyring, sys};

/// Result of this library's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// The kind of an error, as `pag.h` numbers it. The numbers stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[non_exhaustive]
pub enum Code {
    /// An argument is wrong.
    Invalid = 1,
    /// The process is a forked child of the one that opened.
    Forked = 2,
    /// The process has been opened already.
    Open = 3,
    /// The PAG has ended, or the process was closed.
    Ended = 4,
    /// The uid has no room for more keys.
    Quota = 5,
    /// It was not done in time.
    Timeout = 6,
    /// No token could be made.
    Seed = 7,
    /// An AFS client has refused to make a PAG.
    NoPag = 8,
    /// A system call failed.
    System = 9,
}

/// An operation that failed. The text says what, why, and what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An argument is wrong. In words.
    Invalid(String),
    /// This process was forked from the one that opened the PAGs. It stays in the PAG in which it was born, and can open
    /// PAGs of its own.
    Forked,
    /// This process has a [`Process`](crate::Process) already.
    AlreadyOpen,
    /// The PAG has ended, or the process was closed.
    Ended,
    /// The uid has no room for more keys.
    Quota {
        /// What was to be done.
        doing: &'static str,
        /// How much of the quota is used, if it could be read.
        used: Option<String>,
    },
    /// The time was up.
    Timeout {
        /// What was to be done.
        doing: &'static str,
        /// The time that it had.
        time: Duration,
    },
    /// No token could be made from the ccache or the keytab. In words.
    Seed(String),
    /// An AFS client has refused to make a PAG.
    NoPag {
        /// What was to be done.
        doing: &'static str,
        /// The client's answer.
        source: io::Error,
    },
    /// A system call failed.
    System {
        /// What was to be done.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// The kind of this error.
    pub fn code(&self) -> Code {
        match self {
            Error::Invalid(_) => Code::Invalid,
            Error::Forked => Code::Forked,
            Error::AlreadyOpen => Code::Open,
            Error::Ended => Code::Ended,
            Error::Quota { .. } => Code::Quota,
            Error::Timeout { .. } => Code::Timeout,
            Error::Seed(_) => Code::Seed,
            Error::NoPag { .. } => Code::NoPag,
            Error::System { .. } => Code::System,
        }
    }

    /// For `map_err` on system calls. A full quota is an error of its own.
    pub(crate) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::EDQUOT) => Error::Quota { doing, used: keyring::quota_is_short(sys::ids().fsuid) },
            _ => Error::System { doing, source },
        }
    }
}

/// The time for an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    time: Duration,
    begun: Instant,
    pub(crate) end: Instant,
}

impl Limit {
    /// This time, from now on.
    pub(crate) fn of(time: Duration) -> Self {
        let begun = Instant::now();
        // What cannot be added is as good as for ever.
        let end = begun.checked_add(time).unwrap_or(begun + Duration::from_secs(1 << 30));
        Limit { time, begun, end }
    }

    /// What is left of it, for seeders.
    pub(crate) fn budget(self) -> Budget {
        Budget::new(self.end - self.begun, self.begun.elapsed())
    }

    /// Whether none is left.
    pub(crate) fn is_over(self) -> bool {
        Instant::now() >= self.end
    }

    /// The error of an operation that had this time.
    pub(crate) fn timeout(self, doing: &'static str) -> Error {
        Error::Timeout { doing, time: self.time }
    }

    /// For `map_err` on children.
    pub(crate) fn failed(self, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| match source.kind() {
            io::ErrorKind::TimedOut => self.timeout(doing),
            _ => Error::system(doing)(source),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Invalid(what) => f.write_str(what),
            Error::Forked => write!(f, "the PAGs belong to the parent process; a forked child opens its own"),
            Error::AlreadyOpen => write!(f, "this process has been opened already; use that one, or close it first"),
            Error::Ended => write!(f, "the PAG has ended; create another one"),
            Error::Quota { doing, used } => {
                write!(f, "cannot {doing}: the uid's quota for keys is full")?;
                match used {
                    Some(used) => write!(f, ": {used}"),
                    None => write!(f, "; raise kernel.keys.maxkeys and kernel.keys.maxbytes, or end other PAGs"),
                }
            }
            Error::Timeout { doing, time } => {
                write!(f, "cannot {doing}: it was not done within {} ms", time.as_millis())
            }
            Error::Seed(why) => write!(f, "cannot get a token: {why}"),
            Error::NoPag { doing, source } | Error::System { doing, source } => {
                write!(f, "cannot {doing}: {}", without_codes(&source.to_string()))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::NoPag { source, .. } | Error::System { source, .. } => Some(source),
            _ => None,
        }
    }
}
