//! The contents of a ccache.

use std::fmt;

use zeroize::Zeroizing;

use super::format::Summary;

/// Largest ccache that is read, in bytes. A few tickets with a large PAC each have a tenth of that.
pub(super) const LIMIT: usize = 1 << 20;

/// Room, in bytes, for one answer of KCM or one key of a keyring.
pub(super) const SPACE: usize = LIMIT;

/// A ccache that was read.
#[derive(Debug)]
pub struct Contents {
    /// Its principal, and the times of its tickets.
    pub summary: Summary,
    /// The bytes of the file. They contain session keys, so dropping them wipes them.
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

impl Contents {
    /// Whether a ticket in it is valid at `now`, in seconds since the epoch.
    pub fn is_alive(&self, now: u64) -> bool {
        self.summary.last_end > now
    }
}

/// Why a ccache was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// There is no such ccache.
    Missing,
    /// What is wrong with it, in words: the user can't read it, or it is no ccache.
    Refused(String),
    /// Why it can't be read now, in words: it does not answer in time. Later it may.
    NotNow(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unread::Missing => f.write_str("there is no such ccache"),
            Unread::Refused(why) | Unread::NotNow(why) => f.write_str(why),
        }
    }
}

/// Which ccaches of a collection are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// The ccache that programs use by default.
    Primary,
    /// All ccaches.
    All,
}
