//! What the helper's loop is to do, and when.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::notify;

/// Pause before the helper tries again to take a lock that a login held, or looks again for tickets that were written.
pub(crate) const AGAIN: Duration = Duration::from_millis(250);
/// A round is followed by a pause as long as itself, and no shorter than this. No nudges are read in it either: however many
/// come, the helper leaves half of one processor alone.
pub(crate) const REST: Duration = Duration::from_millis(10);
/// If more users than this are to be reconciled, all PAGs are surveyed instead.
const MOST_USERS: usize = 4096;

/// The users with PAGs that are to be reconciled.
pub(crate) struct Agenda {
    pub(crate) users: BTreeSet<u32>,
    /// All PAGs are to be surveyed first, to find more of them.
    pub(crate) all: bool,
}

impl Agenda {
    /// All PAGs are to be surveyed.
    pub(crate) fn everything() -> Self {
        Agenda { users: BTreeSet::new(), all: true }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        !self.all && self.users.is_empty()
    }

    /// The users, and whether all PAGs are to be surveyed. It is empty then.
    pub(crate) fn take(&mut self) -> (BTreeSet<u32>, bool) {
        (std::mem::take(&mut self.users), std::mem::take(&mut self.all))
    }

    /// Keeps it from growing without end.
    pub(crate) fn limit(&mut self) {
        if self.users.len() > MOST_USERS {
            self.users.clear();
            self.all = true;
        }
    }
}

/// When things are due.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clock {
    /// systemd is told that the helper is alive.
    pub(crate) alive: Option<Instant>,
    /// All PAGs are surveyed.
    pub(crate) survey: Option<Instant>,
    /// A renewal is due, or something is to be announced.
    pub(crate) renew: Option<Instant>,
    /// The AFS clients that are configured are looked for.
    pub(crate) clients: Option<Instant>,
    /// The pause after a round ends. None: it has ended.
    pub(crate) round: Option<Instant>,
    /// Nudges are read again. None: they are being read.
    pub(crate) read: Option<Instant>,
    /// So is what was written into ccaches.
    pub(crate) written: Option<Instant>,
}

impl Clock {
    /// The next of them.
    pub(crate) fn next(&self) -> Option<Instant> {
        let Clock { alive, survey, renew, clients, round, read, written } = *self;
        [alive, survey, renew, clients, round, read, written].into_iter().flatten().min()
    }

    /// Ends the pauses that are over.
    pub(crate) fn end_pauses(&mut self, now: Instant) {
        for pause in [&mut self.round, &mut self.read, &mut self.written] {
            *pause = pause.filter(|moment| *moment > now);
        }
    }

    /// Tells systemd that the helper is alive, if systemd wants to know.
    pub(crate) fn keep_alive(&mut self) {
        self.alive = notify::watchdog().map(|pause| {
            notify::alive();
            Instant::now() + pause
        });
    }
}
