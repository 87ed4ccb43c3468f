//! The time that a login has.

use std::time::Duration;
use std::time::Instant;

/// The time that one login may spend waiting for us: all its seeders and ccaches, over setcred and open_session.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    end: Instant,
    begun: Instant,
    spent: Duration,
}

impl Budget {
    /// What is left of `total` when `spent` has been used up in an earlier hook of the same login.
    pub fn new(total: Duration, spent: Duration) -> Self {
        let begun = Instant::now();
        Budget { end: begun + total.saturating_sub(spent), begun, spent }
    }

    /// When it is used up.
    pub fn deadline(&self) -> Instant {
        self.end
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// What has been used, in this hook and the earlier ones.
    pub fn spent(&self) -> Duration {
        self.spent + self.begun.elapsed()
    }
}
