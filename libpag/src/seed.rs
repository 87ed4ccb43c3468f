//! What a PAG gets its tokens from.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The time for creating or renewing a PAG, unless the caller gives another.
const TIME: Duration = Duration::from_secs(5);

/// Where the ticket comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Source {
    /// There is none: the PAG is made without tokens.
    #[default]
    Nothing,
    /// A ccache, by its name as in KRB5CCNAME.
    Ccache(OsString),
    /// A keytab, and the principal in it.
    Keytab(PathBuf, String),
}

/// What a PAG gets its tokens from, and how long that may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    pub(crate) source: Source,
    pub(crate) cells: Vec<String>,
    pub(crate) time: Duration,
}

impl Default for Seed {
    fn default() -> Self {
        Self::nothing()
    }
}

impl Seed {
    fn new(source: Source) -> Self {
        Seed { source, cells: Vec::new(), time: TIME }
    }

    /// No tokens: the PAG alone. A program that runs inside it may get some.
    pub fn nothing() -> Self {
        Self::new(Source::Nothing)
    }

    /// The ticket in a ccache, named as in KRB5CCNAME: `FILE:/run/server/alice`. The ccache is read under the process's own
    /// ids, and is not changed.
    pub fn ccache(name: impl AsRef<OsStr>) -> Self {
        Self::new(Source::Ccache(name.as_ref().to_owned()))
    }

    /// A ticket for `principal` from a keytab. It is kept in a private directory while the tokens are made, and removed.
    pub fn keytab(file: impl AsRef<Path>, principal: impl Into<String>) -> Self {
        Self::new(Source::Keytab(file.as_ref().to_owned(), principal.into()))
    }

    /// The cells to get tokens for. Without this, those of pag.conf(5), or else the host's own cell.
    #[must_use]
    pub fn cells<I: IntoIterator<Item: Into<String>>>(self, cells: I) -> Self {
        Seed { cells: cells.into_iter().map(Into::into).collect(), ..self }
    }

    /// How long creating or renewing may take in all; 5 seconds without this.
    #[must_use]
    pub fn time(self, time: Duration) -> Self {
        Seed { time, ..self }
    }
}
