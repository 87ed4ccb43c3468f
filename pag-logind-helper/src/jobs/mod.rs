//! Token jobs: when the tokens of a PAG are renewed, which job runs next, and what came of it.
//!
//! A job is for one PAG. [`plan`] says when it is due, [`renewals`] asks that for all PAGs, and [`queue`] starts it in its
//! turn. It runs as a unit of systemd's.

mod counts;
pub(crate) mod job;
pub(crate) mod plan;
mod queue;
mod records;
mod renewals;

use std::collections::BTreeSet;
use std::time::Instant;

use pag::report::{Event, report};
use pag::types::PagId;

pub(crate) use self::counts::{Count, JobCounts};
use self::job::JobNeed;
use self::plan::RenewVia;
use self::queue::{Queue, Ran, Run, answer};
use self::records::Unnoted;
use self::renewals::Renewals;
pub(crate) use self::renewals::Upcoming;
use crate::order::{Order, Outcome, Trouble};
use crate::pags::Pags;
use crate::systemd::{Bus, JobUnit, RunId};

/// Why no job can be started, or goes on.
pub(crate) const NO_BUS: &str = "there is no bus to start a job with";

/// The token jobs of this host.
#[derive(Default)]
pub(crate) struct TokenJobs {
    pub(crate) queue: Queue,
    renewals: Renewals,
    unnoted: Unnoted,
    counts: JobCounts,
}

impl TokenJobs {
    /// None yet. What comes of them is counted in `counts`.
    pub(crate) fn new(counts: JobCounts) -> Self {
        TokenJobs { counts, ..TokenJobs::default() }
    }

    /// This PAG of `uid` lacks tokens.
    pub(crate) fn add_missing(&mut self, pag: PagId, uid: u32) {
        self.queue.add(pag, uid, JobNeed::Missing, Instant::now());
    }

    /// A caller asks for new tokens in a PAG of `uid`.
    pub(crate) fn ask(&mut self, order: Order, uid: u32, pags: &Pags) {
        let more = records::has_discarded(pags, order.pag);
        self.queue.ask(order, uid, more, Instant::now());
    }

    /// Has the tokens of a PAG renewed in its turn, unless its user's PAGs are about to be reconciled: it is planned then. A
    /// job that waits for its next attempt waits no longer.
    pub(crate) fn renew(&mut self, pag: PagId, via: RenewVia, pags: &Pags, dirty: &BTreeSet<u32>) {
        renewals::add(&mut self.queue, pag, via, pags, dirty);
    }

    /// Adds the renewals that are due, and gives what is to be announced. If a ring holds other tokens than its
    /// record names, its user is added to `dirty`.
    pub(crate) fn plan(&mut self, pags: &mut Pags, bus: &Bus, dirty: &mut BTreeSet<u32>) -> Upcoming {
        self.renewals.plan(&mut self.queue, pags, bus.is_there(), dirty)
    }

    /// Starts the jobs that are due.
    pub(crate) fn start(&mut self, pags: &mut Pags, bus: &Bus) {
        for run in self.queue.start(Instant::now()) {
            match start_unit(&run, pags, bus) {
                Ok(true) => {}
                Ok(false) => self.queue.forget(run.pag, &Err(Trouble::Gone)),
                Err(Trouble::Busy) if self.queue.get_mut(run.pag).is_some_and(|job| job.put_off(Instant::now())) => {}
                Err(trouble) => {
                    self.count(run.pag, false, pags);
                    records::not_seeded(pags, run.pag, &trouble.to_string(), run.need != JobNeed::Asked);
                    answer(self.queue.not_started(run.pag, Instant::now()), &Err(trouble));
                }
            }
        }
    }

    /// A run has ended. `ticket` is the end of the ticket that the PAG had before. Gives the user; none if the run was given
    /// up before.
    pub(crate) fn finish(
        &mut self,
        run: RunId,
        result: Result<(), String>,
        ticket: Option<u64>,
        pags: &mut Pags,
    ) -> Option<u32> {
        let Ran { pag, uid, need, waiters } = self.queue.finish(run, result.is_ok(), Instant::now())?;
        records::discard_again(pags, pag);
        self.count(pag, result.is_ok(), pags);
        match &result {
            Ok(()) => self.unnoted.seeded(pags, pag, need == JobNeed::Missing),
            // If the ticket was renewed, it was the seeder that failed.
            Err(why)
                if matches!(need, JobNeed::Renewal(_)) && pags.get(pag).map(|known| known.record.ticket) == ticket =>
            {
                report(&Event::NotRenewed { uid, why: why.clone() });
            }
            Err(why) => records::not_seeded(pags, pag, why, need != JobNeed::Asked),
        }
        answer(waiters, &result.map_err(Trouble::Failed));
        Some(uid)
    }

    fn count(&self, pag: PagId, ok: bool, pags: &Pags) {
        self.counts.add(&records::outcome(pags, pag, ok), ok);
    }

    /// Notes which tokens jobs have brought into the PAGs of `uid`. False if a login holds the lock: this is then to be done
    /// later.
    pub(crate) fn note_tokens(&mut self, pags: &Pags, uid: u32) -> bool {
        self.unnoted.note(pags, uid)
    }

    /// There is no connection to the bus any more: ends of jobs are not heard.
    pub(crate) fn bus_lost(&mut self) {
        let outcome: Outcome = Err(Trouble::Failed("the bus is gone, and its end will not be heard".to_owned()));
        self.queue.answer_all(&outcome);
    }

    /// There is a connection again. Nothing more is heard of renewals that ran, and the others need not wait.
    pub(crate) fn bus_is_back(&mut self) {
        self.queue.forget_renewals();
    }
}

/// Prepares the PAG for its job, and starts the job. False if the PAG has ended or needs no tokens any more.
///
/// # Errors
/// Why the job could not be started. `Busy` if a login holds the user's lock.
fn start_unit(run: &Run, pags: &mut Pags, bus: &Bus) -> Result<bool, Trouble> {
    let Run { id, pag, uid, need, asked } = *run;
    let no_bus = || Trouble::Failed(NO_BUS.to_owned());
    // Before the record says that there is an attempt.
    if !bus.is_there() {
        return Err(no_bus());
    }
    // Tokens of some cells were discarded. If the user has got new ones since, the job would take them away.
    if records::has_discarded(pags, pag) {
        records::note_tokens(pags, pag, false);
    }
    let via = match need {
        _ if asked => renewals::via(pags, pag),
        JobNeed::Renewal(via) => via,
        JobNeed::Missing | JobNeed::Asked => RenewVia::Ticket,
    };
    let unit = match via {
        RenewVia::Ticket => JobUnit::Seed(uid),
        RenewVia::Keytab => JobUnit::Keytab(pag, uid),
    };
    let is_renewal = matches!(need, JobNeed::Renewal(_));
    if !records::prepare(pags, pag, asked, is_renewal)? {
        return Ok(false);
    }
    bus.start(unit, id).then_some(true).ok_or_else(no_bus)
}
