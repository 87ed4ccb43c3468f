//! Which files hold the configuration, and which of them are trusted.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Where the configuration lies.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// The main file.
    pub main: PathBuf,
    /// Directories of drop-ins; of two files with the same name the one in the later directory counts.
    pub drop_ins: Vec<PathBuf>,
    /// Where UID_MIN is looked up.
    pub login_defs: PathBuf,
    /// Who must own what is read here: nobody else may tell the module what to run.
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

/// How many complaints are told one by one: a login must not flood the journal.
pub(super) const MOST: usize = 20;

/// What would be right where a file or directory is not.
pub(super) const TRUSTED: &str = "one that belongs to root and that nobody else can write";

pub(super) fn is_trusted(metadata: &Metadata, owner: u32) -> bool {
    metadata.uid() == owner && metadata.mode() & 0o022 == 0
}

/// Where people's uids begin when login.defs does not say (shadow, lib/find_new_uid.c, get_ranges).
pub(super) const MINIMUM_UID: u32 = 1000;

/// UID_MIN of login.defs; of several the last, as shadow reads it. The file is long, nearly all of it comments, and this
/// is done in every login: its bytes are looked through once, and only the line that counts is taken for text.
pub(super) fn uid_min(bytes: &[u8]) -> Option<u32> {
    let value = |line: &[u8]| {
        let value = line.trim_ascii_start().strip_prefix(b"UID_MIN")?;
        let text = str::from_utf8(value).ok().filter(|text| text.starts_with([' ', '\t']))?;
        text.split_ascii_whitespace().next()?.parse().ok()
    };
    bytes.split(|byte| *byte == b'\n').rev().find_map(value)
}
