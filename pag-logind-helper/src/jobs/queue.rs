//! Which token jobs wait, which of them runs next, and who is told of its end. A few run at once, each in
//! `pag-seed@UID.service`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pag::types::PagId;

use super::job::{Job, JobNeed, State};
use crate::order::{Order, Outcome, Trouble};
use crate::systemd::RunId;

/// Jobs at once: enough for a cell that comes back, and no crowd before its KDC.
const AT_ONCE: usize = 4;
/// Of these, jobs that only callers over D-Bus want: however many ask, PAGs that lack tokens have their turn.
const ASKED_AT_ONCE: usize = 2;
/// Pause between two jobs that one user asks for.
const ASKED_PAUSE: Duration = Duration::from_secs(5);
/// The token jobs that wait or run: at most one for each PAG.
#[derive(Default)]
pub(crate) struct Queue {
    jobs: BTreeMap<PagId, Job>,
    /// For each user, when the last job ended that the user had asked for.
    answered: BTreeMap<u32, Instant>,
    /// How many runs were started.
    runs: u64,
}

/// A job that is to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) pag: PagId,
    pub(crate) uid: u32,
    pub(crate) need: JobNeed,
    /// Whether a caller waits for it.
    pub(crate) asked: bool,
}

/// A job that has run.
pub(crate) struct Ran {
    pub(crate) pag: PagId,
    pub(crate) uid: u32,
    pub(crate) need: JobNeed,
    /// Callers that are to be told.
    pub(crate) waiters: Vec<Order>,
}

impl Queue {
    /// The job of this PAG, if there is one.
    pub(crate) fn get(&self, pag: PagId) -> Option<&Job> {
        self.jobs.get(&pag)
    }

    /// The job of this PAG, if there is one.
    pub(super) fn get_mut(&mut self, pag: PagId) -> Option<&mut Job> {
        self.jobs.get_mut(&pag)
    }

    /// The job with this run, and its PAG. None if the run is over.
    pub(crate) fn run(&mut self, id: RunId) -> Option<(PagId, &mut Job)> {
        self.jobs.iter_mut().find(|(_, job)| job.runs_as(id)).map(|(pag, job)| (*pag, job))
    }

    /// This PAG of `uid` is to get tokens. If it waits for them already, that stays as it is.
    pub(crate) fn add(&mut self, pag: PagId, uid: u32, need: JobNeed, now: Instant) {
        let job = self.jobs.entry(pag).or_insert_with(|| Job::asked(uid, now));
        if !job.is_needed() {
            job.need = need;
        }
    }

    /// A caller asks for new tokens in a PAG of `uid`: see [`Job::ask`]. It waits a short while after its user's last answer.
    pub(crate) fn ask(&mut self, order: Order, uid: u32, more: bool, now: Instant) {
        let earliest = self.answered.get(&uid).map_or(now, |last| now.max(*last + ASKED_PAUSE));
        let job = self.jobs.entry(order.pag).or_insert_with(|| Job::asked(uid, now));
        job.ask(order, more, earliest);
    }

    /// Drops the job of this PAG, and answers its callers.
    pub(crate) fn forget(&mut self, pag: PagId, outcome: &Outcome) {
        if let Some(job) = self.jobs.remove(&pag) {
            answer(job.waiters, outcome);
        }
    }

    /// Drops all renewals: they are planned anew.
    pub(crate) fn forget_renewals(&mut self) {
        self.jobs.retain(|_, job| {
            let is_renewal = job.is_renewal();
            if is_renewal {
                answer(std::mem::take(&mut job.waiters), &lost());
            }
            !is_renewal
        });
    }

    /// Answers all callers.
    pub(crate) fn answer_all(&mut self, outcome: &Outcome) {
        self.jobs.values_mut().for_each(|job| answer(std::mem::take(&mut job.waiters), outcome));
    }

    /// The jobs that are to be started now. There is one unit for each user.
    pub(crate) fn start(&mut self, now: Instant) -> Vec<Run> {
        self.answered.retain(|_, last| now < *last + ASKED_PAUSE);
        self.give_up_lost(now);
        let mut started = Vec::new();
        let mut running = Running::of(&self.jobs);
        // The job that has waited longest comes first, so that none waits without end.
        let mut due: Vec<(Instant, PagId)> =
            self.jobs.iter().filter_map(|(pag, job)| Some((job.due(now)?, *pag))).collect();
        due.sort();
        for (_, pag) in due {
            let Some(job) = self.jobs.get_mut(&pag) else { continue };
            if running.have_room_for(job) {
                self.runs += 1;
                let id = RunId(self.runs);
                job.starts(id, now);
                running.add(job);
                started.push(Run { id, pag, uid: job.uid, need: job.need, asked: !job.waiters.is_empty() });
            }
        }
        started
    }

    /// Takes a job for failed if the helper should have heard of its end by now.
    fn give_up_lost(&mut self, now: Instant) {
        self.jobs.retain(|_, job| {
            if !job.is_lost(now) {
                return true;
            }
            answer(std::mem::take(&mut job.waiters), &lost());
            job.fail(now)
        });
    }

    /// A run has ended. Says which it was.
    pub(crate) fn finish(&mut self, id: RunId, ok: bool, now: Instant) -> Option<Ran> {
        let (pag, job) = self.run(id)?;
        let (uid, need) = (job.uid, job.need);
        if job.must_run_again(ok, now) {
            return Some(Ran { pag, uid, need, waiters: Vec::new() });
        }
        let waiters = std::mem::take(&mut job.waiters);
        if ok || job.is_renewal() || !job.fail(now) {
            self.jobs.remove(&pag);
        }
        if !waiters.is_empty() {
            self.answered.insert(uid, now);
        }
        Some(Ran { pag, uid, need, waiters })
    }

    /// The job of this PAG could not be started. Gives the callers that are to be told.
    pub(crate) fn not_started(&mut self, pag: PagId, now: Instant) -> Vec<Order> {
        let Some(job) = self.jobs.get_mut(&pag) else { return Vec::new() };
        let (uid, waiters) = (job.uid, std::mem::take(&mut job.waiters));
        if !job.fail(now) {
            self.jobs.remove(&pag);
        }
        if !waiters.is_empty() {
            self.answered.insert(uid, now);
        }
        waiters
    }

    /// When [`Queue::start`] has something to do next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let running = Running::of(&self.jobs);
        let moments = self.jobs.values().filter_map(|job| match job.state() {
            State::Running { until, .. } => Some(until),
            State::Waiting { until } => running.have_room_for(job).then_some(until),
        });
        moments.min()
    }
}

/// Tells callers what came of the job that they waited for.
pub(crate) fn answer(waiters: Vec<Order>, outcome: &Outcome) {
    for order in waiters {
        order.answer(outcome.clone());
    }
}

fn lost() -> Outcome {
    Err(Trouble::Failed("the helper has not heard of its end".to_owned()))
}

/// The jobs that run.
struct Running {
    uids: Vec<u32>,
    /// How many of them only callers want.
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
        self.asked += usize::from(!job.is_needed());
    }

    fn have_room_for(&self, job: &Job) -> bool {
        let has_turn = job.is_needed() || self.asked < ASKED_AT_ONCE;
        self.uids.len() < AT_ONCE && !self.uids.contains(&job.uid) && has_turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::job::{LOCK_PAUSE, LOCK_TRIES, LOST_AFTER, PAUSE};
    use crate::order::Action;
    use std::rc::Rc;

    fn pag(number: u64) -> PagId {
        PagId::from(number)
    }

    fn start(jobs: &mut Queue, now: Instant) -> Vec<u32> {
        jobs.start(now).into_iter().map(|one| one.uid).collect()
    }

    /// The running job of `uid` has ended.
    fn finish(jobs: &mut Queue, uid: u32, ok: bool, now: Instant) -> Option<Ran> {
        let mut all = jobs.jobs.values().filter(|job| job.uid == uid);
        let run = all.find_map(|job| if let State::Running { run, .. } = job.state() { Some(run) } else { None })?;
        jobs.finish(run, ok, now)
    }

    fn want(jobs: &mut Queue, pag: PagId, uid: u32, now: Instant) {
        jobs.add(pag, uid, JobNeed::Missing, now);
    }

    fn ask(jobs: &mut Queue, pag: PagId, uid: u32, more: bool, now: Instant) {
        jobs.ask(Order::new(pag, Action::Renew, Rc::default()), uid, more, now);
    }

    fn is_asked(jobs: &Queue, pag: PagId) -> bool {
        jobs.jobs.get(&pag).is_some_and(|job| !job.waiters.is_empty())
    }

    #[test]
    fn no_more_than_four_run_at_once_and_one_for_each_user() {
        let (mut jobs, now) = (Queue::default(), Instant::now());
        for number in 0..6 {
            want(&mut jobs, pag(number), 61000 + u32::try_from(number).unwrap(), now);
        }
        want(&mut jobs, pag(9), 61000, now);
        assert_eq!(start(&mut jobs, now), [61000, 61001, 61002, 61003]);
        assert!(start(&mut jobs, now).is_empty());
        let ended = |jobs: &mut Queue, uid| finish(jobs, uid, true, now).map(|one| one.pag);
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
        let (mut jobs, mut now) = (Queue::default(), Instant::now());
        want(&mut jobs, pag(1), 61001, now);
        for seconds in [30, 60, 120, 240, 480, 960, 1800, 1800] {
            assert_eq!(start(&mut jobs, now), [61001]);
            finish(&mut jobs, 61001, false, now);
            assert_eq!(jobs.next(), Some(now + Duration::from_secs(seconds)));
            // Wanted again meanwhile: that shortens nothing.
            want(&mut jobs, pag(1), 61001, now);
            assert!(start(&mut jobs, now + Duration::from_secs(seconds - 1)).is_empty());
            now += Duration::from_secs(seconds);
        }
        assert_eq!(start(&mut jobs, now), [61001]);
        finish(&mut jobs, 61001, false, now);
        jobs.get_mut(pag(1)).unwrap().hurry(now);
        assert_eq!(start(&mut jobs, now), [61001], "with a new ticket it is at once");
    }

    #[test]
    fn one_whose_end_was_never_told_is_taken_for_failed() {
        let (mut jobs, now) = (Queue::default(), Instant::now());
        want(&mut jobs, pag(1), 61001, now);
        assert_eq!(start(&mut jobs, now), [61001]);
        assert_eq!(jobs.next(), Some(now + LOST_AFTER));
        assert!(start(&mut jobs, now + LOST_AFTER).is_empty());
        assert_eq!(jobs.next(), Some(now + LOST_AFTER + PAUSE));
    }

    #[test]
    fn a_lock_puts_a_job_off_for_a_moment_and_not_without_end() {
        let (mut jobs, mut now) = (Queue::default(), Instant::now());
        ask(&mut jobs, pag(1), 61001, false, now);
        for _ in 0..LOCK_TRIES {
            assert_eq!(start(&mut jobs, now), [61001]);
            assert!(jobs.get_mut(pag(1)).unwrap().put_off(now) && is_asked(&jobs, pag(1)), "its caller waits");
            assert_eq!(jobs.next(), Some(now + LOCK_PAUSE));
            now += LOCK_PAUSE;
        }
        assert_eq!(start(&mut jobs, now), [61001]);
        assert!(!jobs.get_mut(pag(1)).unwrap().put_off(now), "in the end it has failed");
        assert_eq!(jobs.not_started(pag(1), now).len(), 1);
        assert!(LOCK_PAUSE * LOCK_TRIES < PAUSE);
    }

    #[test]
    fn a_job_of_two_units_has_time_for_both() {
        let (mut jobs, now) = (Queue::default(), Instant::now());
        want(&mut jobs, pag(1), 61001, now);
        let run = jobs.start(now)[0].id;
        let first = now + LOST_AFTER - Duration::from_secs(1);
        jobs.run(run).unwrap().1.starts(run, first);
        assert_eq!(start(&mut jobs, now + LOST_AFTER), []);
        assert_eq!(jobs.next(), Some(first + LOST_AFTER), "it is not given up while its second unit may run");
        assert!(jobs.finish(run, true, now + LOST_AFTER).is_some());
        assert!(jobs.run(run).is_none(), "one that is over does not go on");
    }

    #[test]
    fn a_late_end_is_not_taken_for_that_of_another_job() {
        let (mut jobs, now) = (Queue::default(), Instant::now());
        want(&mut jobs, pag(1), 61001, now);
        want(&mut jobs, pag(2), 61001, now);
        let lost = jobs.start(now)[0];
        let later = now + LOST_AFTER;
        let next = jobs.start(later)[0];
        assert_eq!((lost.pag, next.pag), (pag(1), pag(2)), "the first is given up, and the other runs");
        assert!(jobs.run(lost.id).is_none() && jobs.finish(lost.id, true, later).is_none());
        assert!(jobs.get(pag(2)).is_some_and(Job::is_running), "the other one still runs");
        assert_eq!(jobs.finish(next.id, true, later).unwrap().pag, pag(2));
    }

    #[test]
    fn what_is_asked_for_waits_for_no_failure_but_not_for_nothing() {
        let (mut jobs, now) = (Queue::default(), Instant::now());
        want(&mut jobs, pag(1), 61001, now);
        assert_eq!(start(&mut jobs, now), [61001]);
        finish(&mut jobs, 61001, false, now);
        ask(&mut jobs, pag(1), 61001, false, now);
        assert!(is_asked(&jobs, pag(1)));
        assert_eq!(start(&mut jobs, now), [61001], "a caller does not wait out the pause after a failure");
        assert!(finish(&mut jobs, 61001, false, now).unwrap().need == JobNeed::Missing);
        assert!(!is_asked(&jobs, pag(1)), "the caller has been answered");
        ask(&mut jobs, pag(1), 61001, false, now);
        assert_eq!(jobs.next(), Some(now + ASKED_PAUSE));
        assert_eq!(start(&mut jobs, now), []);
        assert_eq!(start(&mut jobs, now + ASKED_PAUSE), [61001]);
    }

    #[test]
    fn who_merely_asks_is_not_served_again_and_leaves_room() {
        let (mut jobs, now) = (Queue::default(), Instant::now());
        for number in 0..4 {
            ask(&mut jobs, pag(number), 61000 + u32::try_from(number).unwrap(), false, now);
        }
        assert_eq!(start(&mut jobs, now), [61000, 61001]);
        assert_eq!(jobs.next(), Some(now + LOST_AFTER), "nothing is due that cannot be started");
        want(&mut jobs, pag(9), 61009, now);
        assert_eq!(start(&mut jobs, now), [61009], "what misses tokens has its turn");
        assert_eq!(finish(&mut jobs, 61000, false, now).unwrap().need, JobNeed::Asked);
        assert!(!is_asked(&jobs, pag(0)));
        assert_eq!(start(&mut jobs, now), [61002]);
        // Nothing was heard of the end of the others.
        assert_eq!(start(&mut jobs, now + LOST_AFTER), [61003]);
        assert!(!is_asked(&jobs, pag(1)) && !is_asked(&jobs, pag(2)));
    }

    #[test]
    fn who_asks_for_more_than_the_running_job_gets_waits_for_another() {
        for (more, runs_again) in [(false, false), (true, true)] {
            let (mut jobs, now) = (Queue::default(), Instant::now());
            want(&mut jobs, pag(1), 61001, now);
            assert_eq!(start(&mut jobs, now), [61001]);
            ask(&mut jobs, pag(1), 61001, more, now);
            finish(&mut jobs, 61001, true, now).unwrap();
            assert_eq!(is_asked(&jobs, pag(1)), runs_again);
            assert_eq!(start(&mut jobs, now).len(), usize::from(runs_again));
            finish(&mut jobs, 61001, true, now);
            assert!(!is_asked(&jobs, pag(1)));
        }
    }

    #[test]
    fn nothing_wakes_us_for_nobody() {
        let (mut jobs, now) = (Queue::default(), Instant::now());
        assert_eq!(jobs.next(), None);
        want(&mut jobs, pag(1), 61001, now);
        jobs.forget(pag(1), &lost());
        assert_eq!(jobs.next(), None);
        assert!(finish(&mut jobs, 61001, true, now).is_none());
    }
}
