//! One token job: why its PAG is to get tokens, whether it waits or runs, and when it is tried again after a failure.

use std::time::{Duration, Instant};

use super::plan::RenewVia;
use crate::order::Order;
use crate::systemd::RunId;

/// Pause after the first failure.
pub(super) const PAUSE: Duration = Duration::from_secs(30);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 60);
/// Pause before a job is tried again that a login's lock has put off.
pub(super) const LOCK_PAUSE: Duration = Duration::from_millis(250);
/// How often a lock puts a job off. Then that is a failure like others.
pub(super) const LOCK_TRIES: u32 = 20;
/// systemd kills a unit after a minute. If the helper has not heard of the end of a job's unit by now, the unit has ended
/// while there was no bus.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(120);

/// A job that gets tokens for one PAG.
pub(crate) struct Job {
    pub(super) uid: u32,
    pub(super) need: JobNeed,
    /// Callers over D-Bus that wait for its end.
    pub(super) waiters: Vec<Order>,
    /// A caller asked for it while it ran, and for more than it gets: it is to run once more.
    again: bool,
    failures: u32,
    /// How often a lock has put it off since its last run.
    put_off: u32,
    state: State,
}

/// Why a PAG is to get tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobNeed {
    /// Only a caller asks for it. If it fails, it is not tried again.
    Asked,
    /// The PAG lacks tokens.
    Missing,
    /// Its tokens are good, and are to be renewed in this way. If it fails, the PAG's record says when the next is due.
    Renewal(RenewVia),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Waiting { until: Instant },
    Running { run: RunId, until: Instant },
}

impl Job {
    /// One that only callers want, and that may start now.
    pub(super) fn asked(uid: u32, now: Instant) -> Self {
        Job {
            uid,
            need: JobNeed::Asked,
            waiters: Vec::new(),
            again: false,
            failures: 0,
            put_off: 0,
            state: State::Waiting { until: now },
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether the PAG is to get tokens whether or not a caller asks for it.
    pub(crate) fn is_needed(&self) -> bool {
        self.need != JobNeed::Asked
    }

    pub(super) fn is_renewal(&self) -> bool {
        matches!(self.need, JobNeed::Renewal(_))
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    pub(super) fn runs_as(&self, id: RunId) -> bool {
        matches!(self.state, State::Running { run, .. } if run == id)
    }

    /// Since when it waits for its start.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Waiting { until } if until <= now => Some(until),
            _ => None,
        }
    }

    /// Whether it runs, and the helper should have heard of its end by now.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        matches!(self.state, State::Running { until, .. } if until <= now)
    }

    /// There is a new ticket for its PAG: if it waits for its next attempt, that is now.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let State::Waiting { until } = &mut self.state {
            *until = now.min(*until);
        }
    }

    /// One more caller asks for it. It does not wait out the pause after a failure, but starts at the `earliest` moment. If
    /// it runs already, it answers the caller, too, unless the caller wants `more` than it gets.
    pub(super) fn ask(&mut self, order: Order, more: bool, earliest: Instant) {
        let is_needed = self.is_needed();
        match &mut self.state {
            State::Waiting { until } if is_needed => *until = earliest.min(*until),
            State::Waiting { until } => *until = earliest,
            State::Running { .. } => self.again |= more,
        }
        self.waiters.push(order);
    }

    /// One more of its units is started: its first, or its second after the first has ended well.
    pub(crate) fn starts(&mut self, id: RunId, now: Instant) {
        self.state = State::Running { run: id, until: now + LOST_AFTER };
    }

    /// Its run has ended. True if it is to run once more, for a caller that wants more than the run has got.
    pub(super) fn must_run_again(&mut self, ok: bool, now: Instant) -> bool {
        self.put_off = 0;
        let again = std::mem::take(&mut self.again) && (ok || !self.is_renewal());
        if again {
            if self.is_renewal() {
                self.need = JobNeed::Missing;
            }
            self.state = State::Waiting { until: now };
        }
        again
    }

    /// A login holds the lock of the user. The job is tried again soon, and its callers wait. False if that has happened too
    /// often.
    pub(super) fn put_off(&mut self, now: Instant) -> bool {
        if self.put_off >= LOCK_TRIES {
            return false;
        }
        self.put_off += 1;
        self.state = State::Waiting { until: now + LOCK_PAUSE };
        true
    }

    /// Has it wait for its next attempt after a failure. False if there is to be none.
    pub(super) fn fail(&mut self, now: Instant) -> bool {
        let pause = PAUSE.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.put_off = 0;
        self.again = false;
        self.state = State::Waiting { until: now + pause };
        self.is_needed()
    }
}
