//! What is wrong in the configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// Where something stands that was complained about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// A line of a file; 0 is the file as a whole.
    File(PathBuf, usize),
    /// An argument, counted from 1, on the line of a PAM service.
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

/// Something in the configuration that is wrong, and was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Where it stands.
    pub place: ConfigSource,
    /// What is wrong with it.
    pub what: String,
    /// What would be right.
    pub right: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; right would be {}", self.place, self.what, self.right)
    }
}

/// What of a text may be repeated in a message.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(200).collect()
}

pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", clean(text))
}
