//! User managers that have lost their last login. Most are about to stop, and their services may still write to an AFS home
//! while they do, so they keep the tokens for a moment. logind may keep a manager alive for longer, because of a process
//! that was left in a session. Then it loses the tokens, as a manager that lingers does at once: see `retain` in pag.conf(5).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pag::store::record::Record;
use pag::types::{PagId, Retain};

/// How long such a manager keeps tokens. logind stops one 10 s after the last session (UserStopDelaySec in logind.conf(5)),
/// and then its services stop.
const MOMENT: Duration = Duration::from_secs(20);

/// PAGs with managers that may be about to stop.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    /// Until when each keeps its tokens.
    until: BTreeMap<PagId, Instant>,
    /// Those that have had their time, and were not reconciled since.
    over: BTreeSet<PagId>,
}

impl Leaving {
    /// The record of a PAG has changed. The time of a manager begins when it has no login any more.
    pub(crate) fn changed(&mut self, id: PagId, record: &Record, now: Instant) {
        let is_leaving = record.has_manager() && !record.has_login() && record.retain == Retain::None;
        if is_leaving && record.follows.is_none() {
            self.until.entry(id).or_insert(now + MOMENT);
        } else {
            self.until.remove(&id);
            self.over.remove(&id);
        }
    }

    /// The PAGs that have had their time. Each is given once.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<PagId> {
        let due: Vec<PagId> = self.until.iter().filter(|(_, until)| **until <= now).map(|(id, _)| *id).collect();
        self.until.retain(|id, _| !due.contains(id));
        self.over.extend(&due);
        due
    }

    /// Whether this one has had its time. True once.
    pub(crate) fn take(&mut self, id: PagId) -> bool {
        self.over.remove(&id)
    }

    /// When [`Leaving::due`] has something next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.until.values().min().copied()
    }

    /// PAGs that have ended do not leave.
    pub(crate) fn forget_all_but(&mut self, is_there: impl Fn(&PagId) -> bool) {
        self.until.retain(|id, _| is_there(id));
        self.over.retain(is_there);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pag::store::lease::{Lease, LeaseKind};
    use pag::store::record::PagKind;
    use pag::sys::Process;
    use pag::types::Word;

    fn record(retain: Retain, roles: &[LeaseKind]) -> Record {
        let lease = |role: &LeaseKind| Lease {
            process: Process { pid: 1, start: 1 },
            cookie: 0,
            role: *role,
            service: Word::clean("x"),
            tty: Word::clean(""),
            ccache: Word::clean(""),
            sessions: 1,
        };
        Record { leases: roles.iter().map(lease).collect(), ..Record::new(61001, PagKind::User, String::new(), retain) }
    }

    #[test]
    fn a_manager_without_a_login_keeps_tokens_for_a_moment() {
        let (mut leaving, begin, id) = (Leaving::default(), Instant::now(), PagId::from(1));
        leaving.changed(id, &record(Retain::None, &[LeaseKind::Manager]), begin);
        assert_eq!(leaving.next(), Some(begin + MOMENT));
        assert_eq!(leaving.due(begin + MOMENT / 2), []);
        // What changes meanwhile gives it no more time.
        leaving.changed(id, &record(Retain::None, &[LeaseKind::Manager]), begin + MOMENT / 2);
        assert_eq!(leaving.due(begin + MOMENT), [id]);
        assert_eq!(leaving.due(begin + MOMENT), [], "it is named once");
        assert!(leaving.take(id) && !leaving.take(id), "and looked at once");
    }

    #[test]
    fn a_login_that_comes_and_a_pag_that_ends_are_in_time() {
        let (mut leaving, begin, id) = (Leaving::default(), Instant::now(), PagId::from(1));
        let alone = record(Retain::None, &[LeaseKind::Manager]);
        for due in [false, true] {
            leaving.changed(id, &alone, begin);
            if due {
                leaving.due(begin + MOMENT);
            }
            leaving.changed(id, &record(Retain::None, &[LeaseKind::Manager, LeaseKind::Login]), begin);
            assert!(leaving.next().is_none() && !leaving.take(id));
            leaving.changed(id, &alone, begin);
            if due {
                leaving.due(begin + MOMENT);
            }
            leaving.forget_all_but(|_| false);
            assert!(leaving.next().is_none() && !leaving.take(id));
        }
    }

    #[test]
    fn a_manager_that_keeps_tokens_or_has_none_of_its_own_does_not_leave() {
        let (mut leaving, id) = (Leaving::default(), PagId::from(1));
        let follower = Record { follows: Some(PagId::from(2)), ..record(Retain::None, &[LeaseKind::Manager]) };
        let others = [
            record(Retain::Linger, &[LeaseKind::Manager]),
            record(Retain::Processes, &[LeaseKind::Manager]),
            record(Retain::None, &[LeaseKind::Login]),
            follower,
        ];
        for other in others {
            leaving.changed(id, &other, Instant::now());
            assert_eq!(leaving.next(), None, "{other:?}");
        }
    }
}
