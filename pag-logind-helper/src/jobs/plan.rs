//! When the tokens of a PAG are to be renewed, and when it is to be announced that they will end: pure functions from a
//! record and the time to a plan.
//!
//! A token lives no longer than its ticket. So a job renews the ticket, if that is possible, and then gets tokens from it.
//! That is due in the second half of the token's life, early enough that a KDC may be away for a while, and at another
//! time for each PAG. All times are seconds since the epoch. The clock may jump: what is due then is due at once.

use std::time::Duration;

use pag::policy;
use pag::store::record::Record;
use pag::types::PagId;

/// Shortest time between two looks for other tokens.
const SHORTEST: u64 = 5;
/// Longest one.
const LONGEST: u64 = 600;
/// The end of tokens is announced no longer before it than this.
const NOTICE: u64 = 1800;
/// Longest sleep: the timer is set again then, since the clock may have been set.
const SLEEP: u64 = 3600;

/// How a PAG gets new tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RenewVia {
    /// Its ticket is renewed, or is a later one already, and the seeder is run.
    Ticket,
    /// A new ticket comes from a keytab first.
    Keytab,
}

/// The end of a PAG's tokens, as the journal and the D-Bus interface announce it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notice {
    /// When the first of them ends.
    pub(crate) end: u64,
    /// Whether they have ended.
    pub(crate) over: bool,
    /// Why they were not renewed.
    pub(crate) why: &'static str,
}

impl Notice {
    /// Whether it is announced now. If a job may still prevent it, it is not: after a sleep of the machine all jobs are late.
    pub(crate) fn is_sure(&self, has_job: bool) -> bool {
        self.over || !has_job
    }
}

/// What there is to do for a PAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// When a job is due, and how.
    pub(crate) job: Option<(u64, RenewVia)>,
    /// What is to be announced now.
    pub(crate) notice: Option<Notice>,
    /// When there is something to be announced next.
    pub(crate) speak: Option<u64>,
    /// If tokens were discarded, how often the ring is to be read, in seconds: the helper is not told when the user gets new
    /// ones, and these may end before the next job is due.
    pub(crate) look: Option<u64>,
}

/// The token that ends first.
#[derive(Clone, Copy)]
struct Life {
    since: u64,
    end: u64,
}

impl Life {
    /// A PAG that has a ticket and no token lives as long as the ticket, if it has a keytab or its tokens were discarded.
    fn of(record: &Record, keytab: bool) -> Option<Self> {
        let tokens = record.tokens.iter().map(|token| Life { since: token.since, end: token.expires });
        let got = record.last_seeding.filter(|last| last.ok).map(|last| last.at);
        let discarded = record.discarded.iter().map(|one| one.at).max();
        let since = if keytab || discarded.is_some() { got.max(discarded) } else { None };
        let ticket = since.filter(|_| record.ticket > 0).map(|since| Life { since, end: record.ticket });
        tokens.min_by_key(|life| life.end).or(ticket)
    }

    fn length(self) -> u64 {
        self.end.saturating_sub(self.since)
    }

    fn due(self, pag: PagId) -> u64 {
        policy::renewal_of_token(pag, self.since, self.end)
    }

    fn announced(self) -> u64 {
        self.end - (self.length() / 4).min(NOTICE)
    }
}

/// How tokens can be had that end later than `life`. None: only if the user gets a new ticket.
fn renew_via(record: &Record, keytab: bool, life: Option<Life>, now: u64) -> Option<RenewVia> {
    let later = |ticket: u64| life.is_none_or(|life| policy::is_later(ticket, life.since, life.end));
    let ticket_lives = record.ticket > now;
    let renewable = record.renewable > record.ticket.saturating_add(2);
    if ticket_lives && (renewable || later(record.ticket)) {
        Some(RenewVia::Ticket)
    } else if keytab {
        Some(RenewVia::Keytab)
    } else {
        None
    }
}

/// The plan for a PAG. `keytab` is whether the administrator has given it one. A PAG that never had tokens, and has no keytab,
/// is left to its logins.
pub(crate) fn plan(pag: PagId, record: &Record, keytab: bool, now: u64) -> Plan {
    let life = Life::of(record, keytab);
    let via = renew_via(record, keytab, life, now);
    let tried = record.last_seeding.map(|last| last.at);
    let due = match (life, tried) {
        (None, _) if !keytab => return Plan::default(),
        (None, None) => now,
        (None, Some(at)) => policy::next_attempt(at, record.made.min(at)),
        (Some(life), Some(at)) if at >= life.due(pag) => policy::next_attempt(at, life.end),
        (Some(life), _) => life.due(pag),
    };
    // After a clock that was set back, no attempt lies in the future.
    let due = if tried.is_some_and(|at| at > now.saturating_add(1)) { now } else { due };
    let mut plan = Plan { job: via.map(|via| (due, via)), ..Plan::default() };
    let discarded = life.filter(|_| !record.discarded.is_empty());
    plan.look = discarded.map(|life| (life.length() / 8).clamp(SHORTEST, LONGEST));
    let Some(life) = life.filter(|_| !record.tokens.is_empty()) else { return plan };
    let why = match via {
        _ if record.name().is_some() => "its unit has not renewed them so far; `systemctl status` of that says why",
        _ if record.ticket == 0 => "its ccache holds no ticket",
        None if record.ticket > now => "its ticket cannot be renewed any further",
        None => "its ticket has ended, and only a new one helps",
        Some(RenewVia::Ticket) => "renewing has failed so far, and is tried again",
        Some(RenewVia::Keytab) => "its keytab has brought no ticket so far, and is tried again",
    };
    if now >= life.end {
        plan.notice = Some(Notice { end: life.end, over: true, why });
    } else if now >= life.announced() {
        plan.notice = Some(Notice { end: life.end, over: false, why });
        plan.speak = Some(life.end);
    } else {
        plan.speak = Some(life.announced());
    }
    plan
}

/// How long to sleep until `moment`.
pub(crate) fn sleep(moment: u64, now: u64) -> Duration {
    Duration::from_secs(moment.saturating_sub(now).min(SLEEP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pag::store::record::{Discarded, Held, LastSeeding, PagKind};
    use pag::types::{Client, Retain};
    use proptest::prelude::*;

    const HOUR: u64 = 3600;
    const T: u64 = 1_764_000_000;
    const NONE: bool = false;
    const KEYTAB: bool = true;

    /// A PAG with a token that began at T, and a ticket that ends with the token.
    fn record(life: u64, renewable: u64, attempt: Option<(u64, bool)>) -> Record {
        let cell = "a.test".parse().unwrap();
        Record {
            made: T,
            ticket: T + life,
            renewable: if renewable > 0 { T + renewable } else { 0 },
            tokens: vec![Held { client: Client::Keyring, cell, expires: T + life, since: T, aliases: vec![] }],
            last_seeding: attempt.map(|(at, ok)| LastSeeding { at: T + at, ok, ticket: T + life }),
            ..Record::new(61001, PagKind::User, String::new(), Retain::None)
        }
    }

    fn planned(record: &Record, keytab: bool, now: u64) -> Option<(u64, RenewVia)> {
        plan(PagId::from(0), record, keytab, T + now).job.map(|(moment, way)| (moment - T, way))
    }

    #[test]
    fn what_is_due_when() {
        let ten = 10 * HOUR;
        let table = [
            (
                "renewable: at half its life",
                record(ten, 70 * HOUR, Some((0, true))),
                NONE,
                1,
                Some((5 * HOUR, RenewVia::Ticket)),
            ),
            ("not renewable: never", record(ten, 0, Some((0, true))), NONE, 1, None),
            ("renewed to the last: never", record(ten, ten, Some((0, true))), NONE, 1, None),
            (
                "with a keytab it goes on",
                record(ten, ten, Some((0, true))),
                KEYTAB,
                1,
                Some((5 * HOUR, RenewVia::Keytab)),
            ),
            (
                "a keytab is not used while renewing helps",
                record(ten, 70 * HOUR, None),
                KEYTAB,
                1,
                Some((5 * HOUR, RenewVia::Ticket)),
            ),
            (
                "failed at 6 h: after a quarter of what is left, but soon",
                record(ten, 70 * HOUR, Some((6 * HOUR, false))),
                NONE,
                6 * HOUR,
                Some((6 * HOUR + 600, RenewVia::Ticket)),
            ),
            (
                "failed 100 s before the end",
                record(ten, 70 * HOUR, Some((ten - 100, false))),
                NONE,
                ten - 99,
                Some((ten - 75, RenewVia::Ticket)),
            ),
            ("the ticket has ended", record(ten, 70 * HOUR, Some((ten - 5, false))), NONE, ten + 1, None),
            (
                "it has, with a keytab",
                record(ten, 70 * HOUR, Some((ten + 100, false))),
                KEYTAB,
                ten + 101,
                Some((ten + 150, RenewVia::Keytab)),
            ),
            ("short ones", record(40, 360, Some((0, true))), NONE, 1, Some((20, RenewVia::Ticket))),
        ];
        for (what, record, keytab, now, expected) in table {
            assert_eq!(planned(&record, keytab, now), expected, "{what}");
        }
    }

    #[test]
    fn where_tokens_were_discarded_somebody_looks_for_others() {
        let look = |life: u64, discarded: bool| {
            let mut one = record(life, 0, Some((0, true)));
            one.tokens.retain(|_| !discarded);
            one.discarded = if discarded { vec![Discarded { at: T, cell: None }] } else { vec![] };
            plan(PagId::from(0), &one, NONE, T + 1).look
        };
        assert_eq!([look(120, true), look(10 * HOUR, true), look(8, true)], [Some(15), Some(LONGEST), Some(SHORTEST)]);
        assert_eq!(look(120, false), None);
    }

    #[test]
    fn a_later_ticket_is_made_use_of_and_one_that_is_a_second_later_is_none() {
        let renewed = Record { ticket: T + 20 * HOUR, ..record(10 * HOUR, 0, None) };
        assert_eq!(planned(&renewed, NONE, 1), Some((5 * HOUR, RenewVia::Ticket)));
        let same = Record { ticket: T + 10 * HOUR + 1, ..record(10 * HOUR, 0, None) };
        assert_eq!(planned(&same, NONE, 1), None);
    }

    #[test]
    fn a_keytabs_pag_gets_its_first_token_at_once_and_is_not_tried_for_ever() {
        let new = Record { tokens: vec![], ticket: 0, ..record(10 * HOUR, 0, None) };
        assert_eq!(planned(&new, KEYTAB, 7), Some((7, RenewVia::Keytab)));
        assert_eq!(planned(&new, NONE, 7), None);
        let failed =
            |at| Record { last_seeding: Some(LastSeeding { at: T + at, ok: false, ticket: 0 }), ..new.clone() };
        assert_eq!(planned(&failed(2), KEYTAB, 3), Some((2 + SHORTEST, RenewVia::Keytab)));
        assert_eq!(planned(&failed(HOUR), KEYTAB, HOUR), Some((HOUR + LONGEST, RenewVia::Keytab)));
        // No token is wanted, and the ticket is good.
        let ticket =
            Record { ticket: T + 10 * HOUR, last_seeding: Some(LastSeeding { at: T, ok: true, ticket: 0 }), ..new };
        assert_eq!(planned(&ticket, KEYTAB, 1), Some((5 * HOUR, RenewVia::Keytab)));
    }

    #[test]
    fn a_ticket_outlives_the_tokens_that_were_discarded() {
        let mut discarded = record(10 * HOUR, 70 * HOUR, Some((0, true)));
        discarded.discard(None, T + 2 * HOUR);
        assert_eq!(planned(&discarded, NONE, 2 * HOUR), Some((6 * HOUR, RenewVia::Ticket)));
        discarded.last_seeding = Some(LastSeeding { at: T + 6 * HOUR, ok: true, ticket: 0 });
        discarded.ticket = T + 16 * HOUR;
        assert_eq!(planned(&discarded, NONE, 6 * HOUR), Some((11 * HOUR, RenewVia::Ticket)));
        // One that cannot be renewed ends, and nothing is to be announced of tokens that were discarded.
        let mut last = record(10 * HOUR, 0, Some((0, true)));
        last.discard(None, T + 2 * HOUR);
        let plan = plan(PagId::from(0), &last, NONE, T + 11 * HOUR);
        assert_eq!((plan.job, plan.notice, plan.speak), (None, None, None));
    }

    #[test]
    fn the_end_is_announced_and_explained() {
        let said = |record: &Record, keytab, now| {
            let plan = plan(PagId::from(0), record, keytab, T + now);
            (plan.notice.map(|notice| (notice.over, notice.why)), plan.speak.map(|moment| moment - T))
        };
        let last = record(10 * HOUR, 0, None);
        let further = "its ticket cannot be renewed any further";
        assert_eq!(said(&last, NONE, 1), (None, Some(10 * HOUR - NOTICE)));
        assert_eq!(said(&last, NONE, 10 * HOUR - NOTICE), (Some((false, further)), Some(10 * HOUR)));
        assert!(matches!(said(&last, NONE, 10 * HOUR), (Some((true, _)), None)));
        let failing = record(40, 360, Some((30, false)));
        assert_eq!(said(&failing, NONE, 31).0, Some((false, "renewing has failed so far, and is tried again")));
        let nothing = Record { tokens: vec![], ..last };
        assert_eq!(said(&nothing, KEYTAB, 10 * HOUR), (None, None));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_up() {
        let ahead = record(10 * HOUR, 70 * HOUR, Some((9 * HOUR, false)));
        assert_eq!(planned(&ahead, NONE, HOUR), Some((HOUR, RenewVia::Ticket)));
        assert_eq!(sleep(T + 9 * HOUR, T), Duration::from_secs(SLEEP));
        assert_eq!(sleep(T - 1, T), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn an_attempt_follows_before_the_end_while_there_is_time(
            life in 40_u64..200_000, number in any::<u64>(), tried in 0_u64..200_000
        ) {
            let pag = PagId::from(number);
            let first = plan(pag, &record(life, life * 9, Some((0, true))), NONE, T).job.unwrap().0 - T;
            prop_assert!(first >= life / 2 && first <= life / 3 * 2 + 2, "{first} of {life}");
            let at = first + tried % (life - first);
            let next = plan(pag, &record(life, life * 9, Some((at, false))), NONE, T + at).job.unwrap().0 - T;
            prop_assert!(next > at);
            prop_assert!(next < life || life - at <= SHORTEST, "{next} after {at} of {life}");
        }

        #[test]
        fn no_times_make_the_planner_panic(
            ends in any::<(u64, u64)>(), ticket in any::<(u64, u64)>(), at in any::<(u64, u64, u64)>(), now in any::<u64>(),
            (number, ok, keytab, discarded) in any::<(u64, bool, bool, bool)>(),
        ) {
            let mut one = record(40, 360, Some((0, true)));
            one.tokens.retain(|_| !discarded);
            one.tokens.iter_mut().for_each(|token| (token.expires, token.since) = ends);
            (one.ticket, one.renewable) = ticket;
            (one.made, one.last_seeding) = (at.0, Some(LastSeeding { at: at.1, ok, ticket: at.2 }));
            one.discarded = if discarded { vec![Discarded { at: at.2, cell: None }] } else { vec![] };
            for now in [now, ends.0, ends.0.saturating_sub(1)] {
                plan(PagId::from(number), &one, keytab, now);
            }
        }
    }

    #[test]
    fn what_a_job_may_prevent_is_not_announced() {
        let notice = |over| Notice { end: T, over, why: "" };
        assert!(!notice(false).is_sure(true) && notice(false).is_sure(false));
        assert!(notice(true).is_sure(true) && notice(true).is_sure(false));
    }

    /// A thousand PAGs with tickets of 20 minutes, jobs of 1 s, and the KDC away from the 8th to the 12th minute: no
    /// PAG is without a token at any moment.
    #[test]
    fn a_thousand_pags_are_served_before_their_end() {
        use crate::jobs::job::JobNeed;
        use crate::jobs::queue::{Queue, Run};
        use std::collections::BTreeMap;
        use std::time::Instant;

        const LIFE: u64 = 1200;
        let begin = Instant::now();
        let (mut jobs, mut running, mut most, mut runs) = (Queue::default(), Vec::<(u64, Run)>::new(), 0, 0);
        let mut records: BTreeMap<PagId, (u32, Record)> = BTreeMap::new();
        for number in 0..1000_u32 {
            let pag = PagId::from(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            // All logged in within the same minute.
            let since = T + u64::from(number) * 60 / 1000;
            let mut one = record(LIFE, 100 * LIFE, None);
            one.tokens[0] = Held { expires: since + LIFE, since, ..one.tokens[0].clone() };
            one.ticket = since + LIFE;
            records.insert(pag, (61000 + number, one));
        }
        for now in T + 60..T + 2 * LIFE + 60 {
            let instant = begin + Duration::from_secs(now - T);
            let away = (T + 480..T + 720).contains(&now);
            let ended: Vec<_> = running.extract_if(.., |(end, _)| *end <= now).collect();
            for (_, run) in ended {
                let (_, one) = records.get_mut(&run.pag).unwrap();
                one.last_seeding = Some(LastSeeding { at: now, ok: !away, ticket: one.ticket });
                if !away {
                    one.ticket = now + LIFE;
                    one.tokens[0] = Held { expires: now + LIFE, since: now, ..one.tokens[0].clone() };
                }
                jobs.finish(run.id, true, instant);
                runs += 1;
            }
            for (pag, (uid, one)) in &records {
                has_token(one.tokens[0].expires > now, *pag, now - T);
                if plan(*pag, one, NONE, now).job.is_some_and(|(moment, _)| moment <= now) {
                    jobs.add(*pag, *uid, JobNeed::Missing, instant);
                }
            }
            running.extend(jobs.start(instant).into_iter().map(|run| (now + 1, run)));
            most = most.max(running.len());
        }
        assert_eq!(most, 4, "jobs at once");
        assert!(runs >= 1500, "{runs} jobs in two lives");
    }

    fn has_token(holds: bool, pag: PagId, second: u64) {
        assert!(holds, "PAG {pag} has no token in second {second}");
    }
}
