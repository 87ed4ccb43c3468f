//! What can go wrong on the command line.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Error {
    /// A file: what was tried, on which, and why it failed.
    File {
        /// The operation, as a verb.
        operation: &'static str,
        /// Its object.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Somebody changed a file between the plan and the deed.
    Changed(PathBuf),
    /// A program that we need failed.
    Command {
        /// As one would type it.
        command: String,
        /// What is known of the failure, and the remedy.
        why: String,
    },
    /// Keys, rings or the registry.
    Pag(pag::Error),
    /// The helper, or the bus that it is on.
    Bus {
        /// What was to be done, with its object.
        doing: String,
        /// Why not, and the remedy.
        why: String,
    },
    /// It cannot be done as things are, in words.
    Refused(String),
    /// The command of `new` or `leave` could not be run.
    Run {
        /// Its name, as it was given.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Some tokens could not be discarded.
    TokensLeft(usize),
    /// The person said no, or could not be asked.
    Unconfirmed(&'static str),
}

impl Error {
    /// For `map_err`: names operation and object of a failed file operation.
    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { operation, path: path.to_owned(), source }
    }

    /// The status to end with. For a command that could not be run it is that of a shell.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Run { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Run { .. } => 126,
            _ => 2,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { operation, path, source } => {
                let hint = if source.kind() == io::ErrorKind::PermissionDenied { "; run it as root" } else { "" };
                write!(f, "cannot {operation} {}: {source}{hint}", path.display())
            }
            Self::Changed(path) => write!(f, "{} was changed meanwhile and is left alone; try again", path.display()),
            Self::Command { command, why } => write!(f, "`{command}` failed: {why}"),
            Self::Pag(source) => source.fmt(f),
            Self::Bus { doing, why } => write!(f, "cannot {doing}: {why}"),
            Self::Refused(why) => f.write_str(why),
            Self::Run { program, source } => write!(f, "cannot run {program}: {source}"),
            Self::TokensLeft(number) => {
                write!(f, "{number} tokens are still there: this process cannot take them out of its session keyring")
            }
            Self::Unconfirmed(why) => f.write_str(why),
        }
    }
}

impl From<pag::Error> for Error {
    fn from(source: pag::Error) -> Self {
        Self::Pag(source)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::Run { source, .. } => Some(source),
            _ => None,
        }
    }
}
