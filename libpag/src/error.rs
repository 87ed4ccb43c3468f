//! What can go wrong, with a code for C.

use std::time::Duration;
use std::{fmt, io};

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
            Error::NoPag { doing, source } | Error::System { doing, source } => write!(f, "cannot {doing}: {source}"),
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

/// Stands for what the library does not do yet.
pub(crate) fn unsupported() -> Error {
    Error::Invalid("not yet".to_owned())
}
