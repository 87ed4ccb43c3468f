//! What is in a ccache.

use std::fmt;

use zeroize::Zeroizing;

use super::format::Summary;

/// Largest ccache that is read: a few tickets with a large PAC each are a tenth of it.
pub(super) const LIMIT: usize = 1 << 20;

/// Bytes of what is read of a ccache in KCM or a keyring at one time.
pub(super) const SPACE: usize = LIMIT;

/// A ccache that was read.
#[derive(Debug)]
pub struct Contents {
    /// Whose it is, and how long it is good.
    pub summary: Summary,
    /// The file as it is: it holds session keys, so it is wiped when it is dropped.
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

impl Contents {
    /// Whether anything in it is good for a token at `now`.
    pub fn is_alive(&self, now: u64) -> bool {
        self.summary.last_end > now
    }
}

/// Why a ccache was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// There is no such ccache.
    Missing,
    /// In words, what is wrong with it: not the user's, or not a ccache.
    Refused(String),
    /// In words, why it cannot be read now, and perhaps later: it does not answer in time.
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
    /// The one that programs use by default.
    Primary,
    All,
}
