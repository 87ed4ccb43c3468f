//! Which PAGs wait for tokens, and when their seeders run: in `pag-seed@UID.service`, a few at once, with a pause
//! after each failure that doubles.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pag::store::registry::PagId;

/// Seeders at once: enough for a cell that comes back, and no crowd before its KDC.
const AT_ONCE: usize = 4;
/// Of these, jobs that users ask for over D-Bus: however many ask, what misses tokens has its turn.
const ASKED_AT_ONCE: usize = 2;
/// Pause between two jobs that one user asks for.
const ASKED_PAUSE: Duration = Duration::from_secs(5);
/// Pause after the first failure.
const PAUSE: Duration = Duration::from_secs(30);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 60);
/// The unit kills a seeder after a minute. One of whose end we have heard nothing by now has ended while the bus
/// was away.
const LOST_AFTER: Duration = Duration::from_secs(120);

/// The PAGs that wait for tokens.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    jobs: BTreeMap<PagId, Job>,
    /// When the last job ended that a user had asked for.
    answered: BTreeMap<u32, Instant>,
}

#[derive(Debug)]
struct Job {
    uid: u32,
    failures: u32,
    /// Whether the PAG misses tokens, or somebody has merely asked for new ones.
    wanted: bool,
    asked: bool,
    /// It was asked for while it ran, and for more than it gets: it is to run once more.
    again: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Instant },
    Running { until: Instant },
}

/// A job that is to be started, or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) pag: PagId,
    pub(crate) uid: u32,
    /// Whether the PAG missed tokens.
    pub(crate) wanted: bool,
}

impl Jobs {
    fn job(&mut self, pag: PagId, uid: u32, now: Instant) -> &mut Job {
        let state = State::Waiting { until: now };
        self.jobs.entry(pag).or_insert(Job { uid, failures: 0, wanted: false, asked: false, again: false, state })
    }

    /// This PAG of `uid` is to get tokens. One that waits for them already goes on waiting.
    pub(crate) fn want(&mut self, pag: PagId, uid: u32, now: Instant) {
        self.job(pag, uid, now).wanted = true;
    }

    /// There is a new ticket for this PAG: if it waits for its next attempt, that is now.
    pub(crate) fn hurry(&mut self, pag: PagId, now: Instant) {
        if let Some(State::Waiting { until }) = self.jobs.get_mut(&pag).map(|job| &mut job.state) {
            *until = now.min(*until);
        }
    }

    /// Somebody asks for new tokens in this PAG of `uid`. He waits for nobody's failure, but a little after his last
    /// question. A job that runs already is his, too, unless he wants more than that gets.
    pub(crate) fn ask(&mut self, pag: PagId, uid: u32, more: bool, now: Instant) {
        let earliest = self.answered.get(&uid).map_or(now, |last| now.max(*last + ASKED_PAUSE));
        let job = self.job(pag, uid, now);
        match &mut job.state {
            State::Waiting { until } if job.wanted => *until = earliest.min(*until),
            State::Waiting { until } => *until = earliest,
            State::Running { .. } => job.again |= more,
        }
        job.asked = true;
    }

    /// This PAG has ended, or has its tokens from somewhere else.
    pub(crate) fn forget(&mut self, pag: PagId) {
        self.jobs.remove(&pag);
    }

    /// Whether there is a job for this PAG that somebody has asked for.
    pub(crate) fn is_asked(&self, pag: PagId) -> bool {
        self.jobs.get(&pag).is_some_and(|job| job.asked)
    }

    /// The jobs that are to be started now. There is one unit for each user.
    pub(crate) fn start(&mut self, now: Instant) -> Vec<Run> {
        self.answered.retain(|_, last| now < *last + ASKED_PAUSE);
        let is_lost = |job: &Job| matches!(job.state, State::Running { until } if until <= now);
        self.jobs.retain(|_, job| job.wanted || !is_lost(job));
        self.jobs.values_mut().filter(|job| is_lost(job)).for_each(|job| job.fail(now));
        let mut started = Vec::new();
        let mut running = Running::of(&self.jobs);
        // Who has waited longest comes first, so that nobody waits for ever.
        let mut due: Vec<(Instant, PagId)> =
            self.jobs.iter().filter_map(|(pag, job)| Some((job.due(now)?, *pag))).collect();
        due.sort();
        for (_, pag) in due {
            let Some(job) = self.jobs.get_mut(&pag) else { continue };
            if running.have_room_for(job) {
                job.state = State::Running { until: now + LOST_AFTER };
                running.add(job);
                started.push(Run { pag, uid: job.uid, wanted: job.wanted });
            }
        }
        started
    }

    /// The seeder of `uid` has ended. Says which job it was; one that was merely asked for is not tried again.
    pub(crate) fn ended(&mut self, uid: u32, ok: bool, now: Instant) -> Option<Run> {
        let (pag, job) = self.jobs.iter_mut().find(|(_, job)| job.uid == uid && job.is_running())?;
        let run = Run { pag: *pag, uid, wanted: job.wanted };
        if std::mem::take(&mut job.again) {
            job.state = State::Waiting { until: now };
            return Some(run);
        }
        if job.asked {
            self.answered.insert(uid, now);
        }
        if ok || !job.wanted {
            self.jobs.remove(&run.pag);
        } else {
            job.fail(now);
        }
        Some(run)
    }

    /// Whether this PAG is to get tokens already, whoever asks for it besides.
    pub(crate) fn is_wanted(&self, pag: PagId) -> bool {
        self.jobs.get(&pag).is_some_and(|job| job.wanted)
    }

    /// The PAG that the running job of `uid` is for.
    pub(crate) fn running(&self, uid: u32) -> Option<PagId> {
        self.jobs.iter().find(|(_, job)| job.uid == uid && job.is_running()).map(|(pag, _)| *pag)
    }

    /// Whether a job runs for this PAG.
    pub(crate) fn runs_for(&self, pag: PagId) -> bool {
        self.jobs.get(&pag).is_some_and(Job::is_running)
    }

    /// When [`Jobs::start`] has something to do next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let running = Running::of(&self.jobs);
        let moments = self.jobs.values().filter_map(|job| match job.state {
            State::Running { until } => Some(until),
            State::Waiting { until } => running.have_room_for(job).then_some(until),
        });
        moments.min()
    }
}

/// The jobs that run.
struct Running {
    uids: Vec<u32>,
    /// How many of them are merely asked for.
    asked: usize,
}

impl Running {
    fn of(jobs: &BTreeMap<PagId, Job>) -> Self {
        let mut running = Running { uids: Vec::new(), asked: 0 };
        jobs.values().filter(|job| job.is_running()).for_each(|job| running.add(job));
        running
    }

    fn add(&mut self, job: &Job) {
        self.uids.push(job.uid);
        self.asked += usize::from(!job.wanted);
    }

    fn have_room_for(&self, job: &Job) -> bool {
        self.uids.len() < AT_ONCE && !self.uids.contains(&job.uid) && (job.wanted || self.asked < ASKED_AT_ONCE)
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
        self.asked = false;
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
        jobs.start(now).into_iter().map(|one| one.uid).collect()
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
        let ended = |jobs: &mut Jobs, uid| jobs.ended(uid, true, now).map(|one| one.pag);
        assert_eq!(ended(&mut jobs, 61001), Some(pag(1)));
        assert_eq!(start(&mut jobs, now), [61004]);
        assert_eq!(ended(&mut jobs, 61000), Some(pag(0)));
        // The other PAG of 61000 waits its turn behind 61005.
        assert_eq!(start(&mut jobs, now), [61005]);
        assert_eq!(ended(&mut jobs, 61002), Some(pag(2)));
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
        assert_eq!(start(&mut jobs, now), [61001]);
        jobs.ended(61001, false, now);
        jobs.hurry(pag(1), now);
        assert_eq!(start(&mut jobs, now), [61001], "with a new ticket it is at once");
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
    fn what_is_asked_for_waits_for_no_failure_but_not_for_nothing() {
        let (mut jobs, now) = (Jobs::default(), Instant::now());
        jobs.want(pag(1), 61001, now);
        assert_eq!(start(&mut jobs, now), [61001]);
        jobs.ended(61001, false, now);
        jobs.ask(pag(1), 61001, false, now);
        assert!(jobs.is_asked(pag(1)));
        assert_eq!(start(&mut jobs, now), [61001], "the pause after the failure is not his");
        assert!(jobs.ended(61001, false, now).unwrap().wanted);
        assert!(!jobs.is_asked(pag(1)), "he has been answered");
        jobs.ask(pag(1), 61001, false, now);
        assert_eq!(jobs.next(), Some(now + ASKED_PAUSE));
        assert_eq!(start(&mut jobs, now), []);
        assert_eq!(start(&mut jobs, now + ASKED_PAUSE), [61001]);
    }

    #[test]
    fn who_merely_asks_is_not_served_again_and_leaves_room() {
        let (mut jobs, now) = (Jobs::default(), Instant::now());
        for number in 0..4 {
            jobs.ask(pag(number), 61000 + u32::try_from(number).unwrap(), false, now);
        }
        assert_eq!(start(&mut jobs, now), [61000, 61001]);
        assert_eq!(jobs.next(), Some(now + LOST_AFTER), "nothing is due that cannot be started");
        jobs.want(pag(9), 61009, now);
        assert_eq!(start(&mut jobs, now), [61009], "what misses tokens has its turn");
        assert!(!jobs.ended(61000, false, now).unwrap().wanted);
        assert!(!jobs.is_asked(pag(0)));
        assert_eq!(start(&mut jobs, now), [61002]);
        // Nothing was heard of the end of the others.
        assert_eq!(start(&mut jobs, now + LOST_AFTER), [61003]);
        assert!(!jobs.is_asked(pag(1)) && !jobs.is_asked(pag(2)));
    }

    #[test]
    fn who_asks_for_more_than_the_running_job_gets_waits_for_another() {
        for (more, runs_again) in [(false, false), (true, true)] {
            let (mut jobs, now) = (Jobs::default(), Instant::now());
            jobs.want(pag(1), 61001, now);
            assert_eq!(start(&mut jobs, now), [61001]);
            jobs.ask(pag(1), 61001, more, now);
            jobs.ended(61001, true, now).unwrap();
            assert_eq!(jobs.is_asked(pag(1)), runs_again);
            assert_eq!(start(&mut jobs, now).len(), usize::from(runs_again));
            jobs.ended(61001, true, now);
            assert!(!jobs.is_asked(pag(1)));
        }
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
