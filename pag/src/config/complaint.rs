//! Complaints about the configuration.

use std::fmt;
use std::path::PathBuf;

use crate::types::printable;

/// The place of a setting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigSource {
    /// A line of a file, counted from 1. 0 is the file as a whole.
    File(PathBuf, usize),
    /// An argument on the line of this PAM service, counted from 1.
    Argument(usize, String),
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigSource::File(path, 0) => f.write_str(&clean(&path.to_string_lossy())),
            ConfigSource::File(path, line) => write!(f, "{}:{line}", clean(&path.to_string_lossy())),
            ConfigSource::Argument(number, service) => write!(f, "PAM argument {number} of {}", clean(service)),
        }
    }
}

/// A mistake in the configuration. The setting keeps its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The place of the mistake.
    pub place: ConfigSource,
    /// The mistake, in words.
    pub what: String,
    /// The right setting, in words.
    pub right: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; right would be {}", self.place, self.what, self.right)
    }
}

/// A text as a message may repeat it: without control characters, and at most 200 characters long.
fn clean(text: &str) -> String {
    text.chars().map(printable).take(200).collect()
}

pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", clean(text))
}
