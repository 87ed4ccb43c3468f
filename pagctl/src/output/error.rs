//! What can go wrong on the command line.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Error {
    /// An operation on a file failed.
    File {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A program that we need failed.
    Command {
        /// As a user would type it.
        command: String,
        /// Why it failed, and the remedy.
        why: String,
    },
    /// Keys, rings or the registry.
    Pag(pag::Error),
    /// The helper, or the bus that it is on.
    Bus {
        /// What failed, as a verb with its object.
        doing: String,
        /// Why not, and the remedy.
        why: String,
    },
    /// The command cannot do its work as things are: why, and the remedy.
    Refused(String),
    /// The command of `run`, `new` or `leave` could not be run.
    Run {
        /// Its name, as the user gave it.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Exit status of `run` if its command was not started, and pagctl is to blame.
pub(crate) const NOT_STARTED: u8 = 125;

impl Error {
    /// For `map_err`: adds the operation and the file to the system's error.
    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { operation, path: path.to_owned(), source }
    }

    /// The exit status. For a command that could not be run it is the status that a shell would give.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Run { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Run { .. } => 126,
            _ => 2,
        }
    }

    /// As [`Error::status`], for a verb that has the status of its command: what pagctl itself could not do has a status
    /// that few commands have, as with env(1) and timeout(1).
    pub(crate) fn status_before_command(&self) -> u8 {
        if matches!(self, Self::Run { .. }) { self.status() } else { NOT_STARTED }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { operation, path, source } => {
                let hint = if source.kind() == io::ErrorKind::PermissionDenied { "; run it as root" } else { "" };
                write!(f, "cannot {operation} {}: {source}{hint}", path.display())
            }
            Self::Command { command, why } => write!(f, "`{command}` failed: {why}"),
            Self::Pag(source) => source.fmt(f),
            Self::Bus { doing, why } => write!(f, "cannot {doing}: {why}"),
            Self::Refused(why) => f.write_str(why),
            Self::Run { program, source } => write!(f, "cannot run {program}: {source}"),
        }
    }
}

impl From<pag::Error> for Error {
    fn from(source: pag::Error) -> Self {
        Self::Pag(source)
    }
}
