//! User managers that run outside of their users' PAGs: the PAM service `systemd-user` does not call pam_pag, or calls it
//! before pam_keyinit only, or the manager is older than pam_pag. The helper is not told of such a manager. So it asks systemd
//! for one, once a login is in a PAG without it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pag::nudge::Moment;
use pag::report::report;

use crate::messages::HelperEvent;
use crate::systemd::{Bus, ManagerState};

/// A login waits for its manager, and a manager is ready, within this time; mostly within a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest pause before systemd is asked again about a manager that does not get ready, or while there is no bus.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// User managers that belong into a PAG and may be outside of it.
#[derive(Debug, Default)]
pub(crate) struct OutsideManagers {
    /// Users with a manager that seems to be outside.
    outside: BTreeMap<u32, Look>,
    /// Users with a manager that pam_pag has put into its PAG before pam_keyinit ran, by the last nudge.
    early: BTreeSet<u32>,
}

#[derive(Debug)]
struct Look {
    /// When systemd is to be asked. None: not until something changes.
    due: Option<Instant>,
    pause: Duration,
    /// The manager that was reported.
    reported: Option<u32>,
}

impl OutsideManagers {
    /// The stack of this user's manager has put it into a PAG.
    pub(crate) fn placed(&mut self, uid: u32, moment: Moment) {
        match moment {
            Moment::BeforeKeyinit => self.early.insert(uid),
            Moment::Lasting => self.early.remove(&uid),
        };
    }

    /// These users have a PAG that a manager should share. The value is whether a manager is in it.
    pub(crate) fn watch(&mut self, users: &BTreeMap<u32, bool>, now: Instant) {
        self.early.retain(|uid| users.contains_key(uid));
        let early = &self.early;
        let is_outside = |uid: &u32| users.get(uid).is_some_and(|placed| !placed || early.contains(uid));
        self.outside.retain(|uid, _| is_outside(uid));
        for uid in users.keys().filter(|uid| is_outside(uid)) {
            self.outside.entry(*uid).or_insert(Look { due: Some(now + PATIENCE), pause: PATIENCE, reported: None });
        }
    }

    /// logind says something about this user: a manager may have come.
    pub(crate) fn stir(&mut self, uid: u32, now: Instant) {
        if let Some(look) = self.outside.get_mut(&uid) {
            look.pause = PATIENCE;
            look.due = Some(now + PATIENCE);
        }
    }

    /// The users with managers that systemd is to be asked about now. Each is given once.
    fn due(&mut self, now: Instant) -> Vec<u32> {
        let due = self.outside.iter_mut().filter(|(_, look)| look.due.is_some_and(|moment| moment <= now));
        due.map(|(uid, look)| {
            look.due = None;
            *uid
        })
        .collect()
    }

    /// Asks systemd about managers if that is due.
    pub(crate) fn ask(&mut self, bus: &Bus) {
        for uid in self.due(Instant::now()) {
            if !bus.ask_for_manager(uid) {
                self.answered(uid, ManagerState::Unsettled);
            }
        }
    }

    /// Takes over what systemd has answered, and reports a manager that is outside: once.
    pub(crate) fn answered(&mut self, uid: u32, state: ManagerState) {
        if let Some(pid) = self.take_answer(uid, state, Instant::now()) {
            report(&HelperEvent::ManagerOutside { uid, pid });
        }
    }

    /// Takes over what systemd has answered. Gives the process of a manager that is to be reported.
    fn take_answer(&mut self, uid: u32, state: ManagerState, now: Instant) -> Option<u32> {
        let look = self.outside.get_mut(&uid)?;
        match state {
            ManagerState::None => None,
            ManagerState::Unsettled => {
                look.pause = (look.pause * 2).min(LONGEST_PAUSE);
                look.due = Some(now + look.pause);
                None
            }
            ManagerState::Runs(pid) => (look.reported.replace(pid) != Some(pid)).then_some(pid),
        }
    }

    /// The managers that were found outside: uid and process. One may have ended or been adopted since.
    pub(crate) fn found(&self) -> Vec<(u32, u32)> {
        self.outside.iter().filter_map(|(uid, look)| Some((*uid, look.reported?))).collect()
    }

    /// When [`OutsideManagers::ask`] has some next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.outside.values().filter_map(|look| look.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64, begin: Instant) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    const ALONE: [(u32, bool); 1] = [(61001, false)];
    const BOTH: [(u32, bool); 1] = [(61001, true)];

    #[test]
    fn a_manager_that_comes_in_time_is_never_asked_about() {
        let (mut managers, begin) = (OutsideManagers::default(), Instant::now());
        managers.watch(&ALONE.into(), begin);
        assert_eq!(managers.next(), Some(after(3, begin)));
        managers.watch(&BOTH.into(), after(1, begin));
        assert_eq!(managers.next(), None);
        assert!(managers.due(after(9, begin)).is_empty());
    }

    #[test]
    fn a_manager_outside_is_said_once_and_its_successor_once_more() {
        let (mut managers, begin) = (OutsideManagers::default(), Instant::now());
        managers.watch(&ALONE.into(), begin);
        managers.watch(&ALONE.into(), after(2, begin));
        assert_eq!(managers.due(after(3, begin)), [61001]);
        assert!(managers.due(after(3, begin)).is_empty());
        assert_eq!(managers.found(), []);
        assert_eq!(managers.take_answer(61001, ManagerState::Runs(7), begin), Some(7));
        assert_eq!(managers.found(), [(61001, 7)]);
        assert_eq!(managers.next(), None);
        for (pid, said) in [(7, None), (8, Some(8))] {
            managers.stir(61001, after(9, begin));
            assert_eq!(managers.due(after(12, begin)), [61001]);
            assert_eq!(managers.take_answer(61001, ManagerState::Runs(pid), begin), said);
        }
        // A login that ends, and the next one.
        managers.watch(&BTreeMap::new(), begin);
        managers.watch(&ALONE.into(), begin);
        assert_eq!(managers.due(after(3, begin)), [61001]);
        assert_eq!(managers.take_answer(61001, ManagerState::Runs(8), begin), Some(8));
    }

    #[test]
    fn a_manager_that_pam_keyinit_took_out_again_is_outside() {
        let (mut managers, begin) = (OutsideManagers::default(), Instant::now());
        // As Debian has it: once before pam_keyinit, and once after it.
        managers.placed(61001, Moment::BeforeKeyinit);
        managers.watch(&BOTH.into(), begin);
        managers.placed(61001, Moment::Lasting);
        managers.watch(&BOTH.into(), begin);
        assert_eq!(managers.next(), None);
        managers.placed(61001, Moment::BeforeKeyinit);
        managers.watch(&BOTH.into(), begin);
        assert_eq!(managers.due(after(3, begin)), [61001]);
        // What was heard of a manager is forgotten with its PAG.
        managers.watch(&BTreeMap::new(), begin);
        managers.watch(&BOTH.into(), begin);
        assert_eq!(managers.next(), None);
    }

    #[test]
    fn what_cannot_be_told_is_asked_again_and_less_and_less_often() {
        let (mut managers, begin) = (OutsideManagers::default(), Instant::now());
        managers.watch(&[(61001, false), (61002, false), (61004, true)].into(), begin);
        assert_eq!(managers.due(after(3, begin)), [61001, 61002]);
        assert_eq!(managers.take_answer(61002, ManagerState::None, begin), None);
        assert_eq!(managers.take_answer(61001, ManagerState::Unsettled, begin), None);
        assert_eq!(managers.next(), Some(after(6, begin)));
        for _ in 0..9 {
            managers.take_answer(61001, ManagerState::Unsettled, begin);
        }
        assert_eq!(managers.next(), Some(after(300, begin)));
        assert_eq!(managers.take_answer(61003, ManagerState::Runs(1), begin), None);
    }
}
