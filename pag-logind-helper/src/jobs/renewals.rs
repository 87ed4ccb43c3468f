//! Plans the renewals of all PAGs, and says when tokens are about to end. `plan.rs` decides when each is due, by the
//! rules of `policy::renewal`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pag::types::PagId;

use super::job::{Job, JobNeed};
use super::plan::{self, Notice, Plan, RenewVia};
use super::queue::Queue;
use super::records::note_tokens;
use crate::pags::Pags;

/// Pause between two looks into a ring that held other tokens than its record named.
const TOKEN_CHECK_PAUSE: Duration = Duration::from_secs(5);

/// What is remembered of each PAG between two plans.
#[derive(Default)]
pub(crate) struct Renewals(BTreeMap<PagId, Past>);

#[derive(Default)]
struct Past {
    /// What was announced last about the end of the tokens.
    announced: Option<Notice>,
    /// When the ring was found to hold other tokens than the record named. A member may get tokens again and again.
    last_token_check: Option<Instant>,
    /// If tokens were discarded: when the ring was read for new ones, in seconds since the epoch.
    last_discard_check: Option<u64>,
}

/// What comes of a plan.
pub(crate) struct Upcoming {
    /// What is to be announced now: PAG, uid, and what.
    pub(crate) notices: Vec<(PagId, u32, Notice)>,
    /// When the next plan is due.
    pub(crate) next: Option<Instant>,
}

/// One look at all plans.
struct Round<'a> {
    queue: &'a mut Queue,
    pags: &'a mut Pags,
    /// Users with PAGs that are about to be reconciled.
    dirty: &'a mut BTreeSet<u32>,
    has_bus: bool,
    notices: Vec<(PagId, u32, Notice)>,
    /// In seconds since the epoch.
    now: u64,
    instant: Instant,
}

impl Renewals {
    /// See [`TokenJobs::plan`](super::TokenJobs::plan).
    pub(super) fn plan(
        &mut self,
        queue: &mut Queue,
        pags: &mut Pags,
        has_bus: bool,
        dirty: &mut BTreeSet<u32>,
    ) -> Upcoming {
        let (now, instant) = (pag::sys::now(), Instant::now());
        let plans = plans(pags, now);
        let there: BTreeSet<PagId> = plans.iter().map(|(pag, ..)| *pag).collect();
        self.0.retain(|pag, _| there.contains(pag));
        let mut round = Round { queue, pags, dirty, has_bus, notices: Vec::new(), now, instant };
        let mut next: Option<u64> = None;
        for (pag, uid, plan) in plans {
            let moment = round.follow(pag, uid, &plan, self.0.entry(pag).or_default());
            next = next.into_iter().chain(moment).min();
        }
        Upcoming { notices: round.notices, next: next.map(|moment| instant + plan::sleep(moment, now)) }
    }
}

impl Round<'_> {
    /// Does what is due by the plan of one PAG, and says when something is due next.
    fn follow(&mut self, pag: PagId, uid: u32, plan: &Plan, past: &mut Past) -> Option<u64> {
        // Without a bus no job can be started. When it is back, all is planned anew.
        let has_job = self.has_bus && self.queue.get(pag).is_some_and(Job::is_needed);
        let due = plan.job.filter(|(moment, _)| *moment <= self.now && self.has_bus && !has_job);
        let is_sure = |notice: &Notice| notice.is_sure(has_job || due.is_some());
        let news = plan.notice.filter(|notice| past.is_news(notice) && is_sure(notice));
        if plan.notice.is_none() {
            past.announced = None;
        }
        // The user may have got tokens without a job, and may do that again and again.
        if due.is_some() || news.is_some() {
            if past.last_token_check.is_some_and(|last| self.instant < last + TOKEN_CHECK_PAUSE) {
                return Some(self.now.saturating_add(TOKEN_CHECK_PAUSE.as_secs()));
            }
            if note_tokens(self.pags, pag, !self.queue.get(pag).is_some_and(Job::is_needed)) {
                past.last_token_check = Some(self.instant);
                self.dirty.insert(uid);
                return None;
            }
        }
        if let Some(notice) = news {
            past.announced = Some(notice);
            self.notices.push((pag, uid, notice));
        }
        if let Some((_, via)) = due {
            add(self.queue, pag, via, self.pags, self.dirty);
        }
        let job = plan.job.map(|(moment, _)| moment).filter(|moment| *moment > self.now);
        let check = self.check_discarded(pag, uid, plan.look, past);
        [job, plan.speak, check].into_iter().flatten().min()
    }

    /// Where tokens were discarded, reads the ring once in `pause` seconds: the user may have got others. Says when that
    /// is due next.
    fn check_discarded(&mut self, pag: PagId, uid: u32, pause: Option<u64>, past: &mut Past) -> Option<u64> {
        let Some(pause) = pause else {
            past.last_discard_check = None;
            return None;
        };
        let last = past.last_discard_check.get_or_insert(self.now);
        if *last > self.now || self.now - *last >= pause {
            *last = self.now;
            if note_tokens(self.pags, pag, false) {
                self.dirty.insert(uid);
            }
        }
        Some(last.saturating_add(pause))
    }
}

impl Past {
    fn is_news(&self, notice: &Notice) -> bool {
        self.announced.is_none_or(|last| (last.end, last.over) != (notice.end, notice.over))
    }
}

/// Has the tokens of a PAG renewed in its turn: see [`TokenJobs::renew`](super::TokenJobs::renew).
pub(super) fn add(queue: &mut Queue, pag: PagId, via: RenewVia, pags: &Pags, dirty: &BTreeSet<u32>) {
    let now = Instant::now();
    if let Some(job) = queue.get_mut(pag) {
        job.hurry(now);
    }
    if let Some(uid) = pags.user_of(pag).filter(|uid| !dirty.contains(uid)) {
        queue.add(pag, uid, JobNeed::Renewal(via), now);
    }
}

/// What there is to do to keep the tokens of each PAG alive. A follower has the tokens of another PAG: a seeder in its ring
/// would write into that one.
fn plans(pags: &Pags, now: u64) -> Vec<(PagId, u32, Plan)> {
    let own = pags.all().filter(|known| known.record.follows.is_none());
    own.map(|known| (known.id, known.uid, plan::plan(known.id, &known.record, pags.has_keytab(known), now))).collect()
}

/// How the tokens of this PAG would be renewed now. For a caller who asks, nothing else is of use.
pub(super) fn via(pags: &Pags, id: PagId) -> RenewVia {
    let known = pags.all().find(|known| known.id == id && known.record.follows.is_none());
    let plan = known.map(|known| plan::plan(known.id, &known.record, pags.has_keytab(known), pag::sys::now()));
    plan.and_then(|plan| plan.job).map_or(RenewVia::Ticket, |(_, via)| via)
}
