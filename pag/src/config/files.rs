//! The files of the configuration, and which of them are trusted.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use super::complaint::ConfigSource;

/// The paths of the configuration.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// The main file.
    pub main: PathBuf,
    /// Directories of drop-ins. If two files have the same name, the one in the later directory counts.
    pub drop_ins: Vec<PathBuf>,
    /// The file with UID_MIN.
    pub login_defs: PathBuf,
    /// The uid that must own these files, since they name programs that the module runs.
    pub owner: u32,
}

impl Default for Dirs {
    fn default() -> Self {
        Dirs {
            main: "/etc/pag/pag.conf".into(),
            drop_ins: ["/usr/lib", "/run", "/etc"].map(|top| PathBuf::from(top).join("pag/pag.conf.d")).into(),
            login_defs: "/etc/login.defs".into(),
            owner: 0,
        }
    }
}

/// Largest file that is read, in bytes.
pub(super) const LARGEST: u64 = 256 * 1024;

/// How many complaints are reported one by one. A login must not flood the journal.
pub(super) const MOST: usize = 20;

/// What a file or directory has to be, for a complaint.
pub(super) const TRUSTED: &str = "one that belongs to root and that no other account can write";

/// Whether only `owner` can change a file or directory.
pub(super) fn is_trusted(metadata: &Metadata, owner: u32) -> bool {
    metadata.uid() == owner && metadata.mode() & 0o022 == 0
}

/// The first uid of users if login.defs has no UID_MIN (shadow, lib/find_new_uid.c, get_ranges).
pub(super) const MINIMUM_UID: u32 = 1000;

/// UID_MIN of login.defs. The last line counts, as in shadow. Each login reads this file, which is long and mostly
/// comments. So this passes over the bytes once, and decodes only the line that counts.
pub(super) fn uid_min(bytes: &[u8]) -> Option<u32> {
    let value = |line: &[u8]| {
        let value = line.trim_ascii_start().strip_prefix(b"UID_MIN")?;
        let text = str::from_utf8(value).ok().filter(|text| text.starts_with([' ', '\t']))?;
        text.split_ascii_whitespace().next()?.parse().ok()
    };
    bytes.split(|byte| *byte == b'\n').rev().find_map(value)
}

/// A file that the configuration names.
#[derive(Debug, Clone)]
pub(super) struct Named {
    /// The option that names it.
    pub(super) option: &'static str,
    /// The value of the option.
    pub(super) value: String,
    /// The line.
    pub(super) place: ConfigSource,
}

/// What a path leads to, if that is no regular file.
pub(super) fn other_kind(found: &Metadata) -> Option<&'static str> {
    let kind = found.file_type();
    Some(match () {
        () if kind.is_file() => return None,
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    })
}

/// Where a file is not UTF-8.
pub(super) fn not_text(bytes: &[u8], valid: usize) -> String {
    let line = 1 + bytes.iter().take(valid).filter(|byte| **byte == b'\n').count();
    let byte = bytes.get(valid).copied().unwrap_or_default();
    format!("it is not UTF-8: line {line} has the byte {byte:#04x}")
}
