//! The time that pam_pag may take of a login.

use std::time::{Duration, Instant};

/// The time that pam_pag may take of one login, for all seeders and ccaches in setcred and open_session.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    end: Instant,
    begun: Instant,
    spent: Duration,
}

impl Budget {
    /// The rest of `total` after earlier hooks of the same login have taken `spent`.
    pub fn new(total: Duration, spent: Duration) -> Self {
        let begun = Instant::now();
        Budget { end: begun + total.saturating_sub(spent), begun, spent }
    }

    /// The end of this time.
    pub fn deadline(&self) -> Instant {
        self.end
    }

    /// The time that is left.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// The time that this hook and the earlier ones have taken.
    pub fn spent(&self) -> Duration {
        self.spent + self.begun.elapsed()
    }
}
