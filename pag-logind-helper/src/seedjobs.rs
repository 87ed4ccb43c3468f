//! Which PAGs wait for tokens, and when their seeders run: in `pag-seed@UID.service`, a few at once, with a pause
//! after each failure that doubles.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pag::registry::PagId;

/// Seeders at once: enough for a cell that comes back, and no crowd before its KDC.
const AT_ONCE: usize = 4;
/// Pause after the first failure.
const PAUSE: Duration = Duration::from_secs(30);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 60);
/// The unit kills a seeder after a minute. One of whose end we have heard nothing by now has ended while the bus
/// was away.
const LOST_AFTER: Duration = Duration::from_secs(120);

/// The PAGs that wait for tokens.
#[derive(Debug, Default)]
pub(crate) struct Jobs(BTreeMap<PagId, Job>);

#[derive(Debug)]
struct Job {
    uid: u32,
    failures: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Instant },
    Running { until: Instant },
}

impl Jobs {
    /// This PAG of `uid` is to get tokens. One that waits for them already goes on waiting.
    pub(crate) fn want(&mut self, pag: PagId, uid: u32, now: Instant) {
        self.0.entry(pag).or_insert(Job { uid, failures: 0, state: State::Waiting { until: now } });
    }

    /// This PAG has ended, or has its tokens from somewhere else.
    pub(crate) fn forget(&mut self, pag: PagId) {
        self.0.remove(&pag);
    }

    /// The PAGs, and their users, whose seeders are to be started now. There is one unit for each user.
    pub(crate) fn start(&mut self, now: Instant) -> Vec<(PagId, u32)> {
        let mut started = Vec::new();
        for job in self.0.values_mut() {
            if matches!(job.state, State::Running { until } if until <= now) {
                job.fail(now);
            }
        }
        let mut running: Vec<u32> = self.0.values().filter(|job| job.is_running()).map(|job| job.uid).collect();
        // Who has waited longest comes first, so that nobody waits for ever.
        let mut due: Vec<(Instant, PagId)> =
            self.0.iter().filter_map(|(pag, job)| Some((job.due(now)?, *pag))).collect();
        due.sort();
        for (_, pag) in due {
            let Some(job) = self.0.get_mut(&pag) else { continue };
            if running.len() < AT_ONCE && !running.contains(&job.uid) {
                job.state = State::Running { until: now + LOST_AFTER };
                running.push(job.uid);
                started.push((pag, job.uid));
            }
        }
        started
    }

    /// The seeder of `uid` has ended. Names the PAG that it ran for.
    pub(crate) fn ended(&mut self, uid: u32, ok: bool, now: Instant) -> Option<PagId> {
        let (id, job) = self.0.iter_mut().find(|(_, job)| job.uid == uid && job.is_running())?;
        let id = *id;
        if ok {
            self.0.remove(&id);
        } else {
            job.fail(now);
        }
        Some(id)
    }

    /// Whether a job for this PAG waits or runs.
    pub(crate) fn has(&self, pag: PagId) -> bool {
        self.0.contains_key(&pag)
    }

    /// The PAG that the running job of `uid` is for.
    pub(crate) fn running(&self, uid: u32) -> Option<PagId> {
        self.0.iter().find(|(_, job)| job.uid == uid && job.is_running()).map(|(pag, _)| *pag)
    }

    /// When [`Jobs::start`] has something to do next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let full = self.0.values().filter(|job| job.is_running()).count() >= AT_ONCE;
        let moments = self.0.values().filter_map(|job| match job.state {
            State::Running { until } => Some(until),
            State::Waiting { .. } if full || self.is_busy(job.uid) => None,
            State::Waiting { until } => Some(until),
        });
        moments.min()
    }

    fn is_busy(&self, uid: u32) -> bool {
        self.0.values().any(|job| job.uid == uid && job.is_running())
    }
}

impl Job {
    /// Since when it waits for its start.
    fn due(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Waiting { until } if until <= now => Some(until),
            _ => None,
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    fn fail(&mut self, now: Instant) {
        let pause = PAUSE.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until: now + pause };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pag(number: u64) -> PagId {
        PagId::from(number)
    }

    fn start(jobs: &mut Jobs, now: Instant) -> Vec<u32> {
        jobs.start(now).into_iter().map(|(_, uid)| uid).collect()
    }

    #[test]
    fn no_more_than_four_run_at_once_and_one_for_each_user() {
        let (mut jobs, now) = (Jobs::default(), Instant::now());
        for number in 0..6 {
            jobs.want(pag(number), 61000 + u32::try_from(number).unwrap(), now);
        }
        jobs.want(pag(9), 61000, now);
        assert_eq!(start(&mut jobs, now), [61000, 61001, 61002, 61003]);
        assert!(start(&mut jobs, now).is_empty());
        assert_eq!(jobs.ended(61001, true, now), Some(pag(1)));
        assert_eq!(start(&mut jobs, now), [61004]);
        assert_eq!(jobs.ended(61000, true, now), Some(pag(0)));
        // The other PAG of 61000 waits its turn behind 61005.
        assert_eq!(start(&mut jobs, now), [61005]);
        assert_eq!(jobs.ended(61002, true, now), Some(pag(2)));
        assert_eq!(start(&mut jobs, now), [61000]);
    }

    #[test]
    fn pauses_after_failures_double_and_have_an_end() {
        let (mut jobs, mut now) = (Jobs::default(), Instant::now());
        jobs.want(pag(1), 61001, now);
        for seconds in [30, 60, 120, 240, 480, 960, 1800, 1800] {
            assert_eq!(start(&mut jobs, now), [61001]);
            jobs.ended(61001, false, now);
            assert_eq!(jobs.next(), Some(now + Duration::from_secs(seconds)));
            // Wanted again meanwhile: that shortens nothing.
            jobs.want(pag(1), 61001, now);
            assert!(start(&mut jobs, now + Duration::from_secs(seconds - 1)).is_empty());
            now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn one_whose_end_was_never_told_is_taken_for_failed() {
        let (mut jobs, now) = (Jobs::default(), Instant::now());
        jobs.want(pag(1), 61001, now);
        assert_eq!(start(&mut jobs, now), [61001]);
        assert_eq!(jobs.next(), Some(now + LOST_AFTER));
        assert!(start(&mut jobs, now + LOST_AFTER).is_empty());
        assert_eq!(jobs.next(), Some(now + LOST_AFTER + PAUSE));
    }

    #[test]
    fn nothing_wakes_us_for_nobody() {
        let (mut jobs, now) = (Jobs::default(), Instant::now());
        assert_eq!(jobs.next(), None);
        jobs.want(pag(1), 61001, now);
        jobs.forget(pag(1));
        assert_eq!(jobs.next(), None);
        assert_eq!(jobs.ended(61001, true, now), None);
    }
}
