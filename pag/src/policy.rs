//! Which PAG is the right one, and what its end means: pure functions from facts to a plan.

use crate::ccache::format::Principal;
use crate::config::{Join, Retain};
use crate::record::{Attempt, Kind, Record};
use crate::registry::PagId;

/// What a process that is about to be placed is, to the user's PAGs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newcomer<'a> {
    /// A login, with the Kerberos identity that it brings.
    Login {
        /// None: it brings no ticket.
        principal: Option<&'a Principal>,
        /// Whether a login without a ticket joins.
        join: Join,
    },
    /// The user's manager, `systemd --user`.
    Manager,
    /// Something that gets a PAG of its own: cron, at, batch.
    Own,
    /// A seeding job of the helper's.
    Seed,
}

/// A PAG that could be joined: its ring is whole and its record was read.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Which one.
    pub id: PagId,
    /// What is known of it.
    pub record: &'a Record,
}

/// Where a newcomer belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Into this PAG.
    Join(PagId),
    /// Into a new one of this kind.
    Make(Kind),
    /// Nowhere: there is nothing to do for it.
    Nowhere,
}

/// Decides where a newcomer of the user `name` belongs.
pub fn place(newcomer: Newcomer<'_>, name: &str, candidates: &[Candidate<'_>]) -> Placement {
    let found = match newcomer {
        Newcomer::Own | Newcomer::Login { principal: None, join: Join::Credentials } => {
            return Placement::Make(Kind::Own);
        }
        Newcomer::Seed => {
            let asked = candidates.iter().find(|candidate| candidate.record.reseed);
            return asked.map_or(Placement::Nowhere, |candidate| Placement::Join(candidate.id));
        }
        // The PAG of a person at the machine is more to the point than what a dead login has left.
        Newcomer::Manager => oldest(candidates, Record::has_login).or_else(|| oldest(candidates, |_| true)),
        Newcomer::Login { principal: None, .. } => oldest(candidates, |_| true),
        Newcomer::Login { principal: Some(p), .. } => of_principal(candidates, p, name),
    };
    found.map_or(Placement::Make(Kind::User), Placement::Join)
}

/// The PAG that tokens of `principal` belong into: the one that has this identity; else, for the identity that is the
/// user's own, one that has none yet. Another identity (alice/admin) neither lends nor borrows rights.
pub fn of_principal(candidates: &[Candidate<'_>], principal: &Principal, name: &str) -> Option<PagId> {
    oldest(candidates, |record| record.principal.as_ref() == Some(principal))
        .or_else(|| oldest(candidates, |record| record.principal.is_none() && principal.is_natural_for(name)))
}

fn oldest(candidates: &[Candidate<'_>], fits: impl Fn(&Record) -> bool) -> Option<PagId> {
    candidates
        .iter()
        .filter(|candidate| candidate.record.kind == Kind::User && fits(candidate.record))
        // The id settles a tie, so that everybody finds the same one.
        .min_by_key(|candidate| (candidate.record.made, candidate.id))
        .map(|candidate| candidate.id)
}

/// What becomes of a PAG after leases have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Keep,
    /// It goes on without its tokens: only a lingering manager is left.
    DropTokens,
    /// Its holder is unlinked.
    End {
        /// Whether the tokens are discarded first, or left to the members that stay.
        discard: bool,
    },
}

/// Decides what becomes of a PAG whose record, dead leases taken out, is `record`.
///
/// A manager that does not linger keeps the tokens: its services may still write to an AFS home while they stop. Whether
/// it does is asked only where that decides, since the answer takes the user's name.
pub fn fate(record: &Record, lingering: impl FnOnce() -> bool) -> Fate {
    if record.leases.is_empty() {
        return Fate::End { discard: record.retain != Retain::Processes && !record.unsure };
    }
    if record.has_login() || record.unsure || record.retain != Retain::None || !lingering() {
        return Fate::Keep;
    }
    Fate::DropTokens
}

/// Seconds for which a failed attempt at seeding is not repeated.
pub const RETRY_SECONDS: u64 = 30;

/// Whether an attempt at seeding is worth its time. `fresh` is the end time of the ticket at hand, 0 without one.
/// A manager is started by a login that has just tried: whatever came of that, it does not try again at once.
pub fn worth_seeding(last: Option<Attempt>, now: u64, fresh: u64, manager: bool) -> bool {
    last.is_none_or(|last| {
        let recent = now.saturating_sub(last.at) < RETRY_SECONDS;
        fresh > last.ticket || !recent || (last.ok && !manager)
    })
}

/// Whether a token with this end time, first seen with `life` seconds in all, is good: it has more than 10 minutes or
/// a quarter of its life left, whichever is less.
pub fn is_good(expires: u64, life: u64, now: u64) -> bool {
    expires.saturating_sub(now) > (life / 4).min(600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{Lease, Process, Role, Word};

    fn principal(text: &str) -> Principal {
        Principal::parse(text).unwrap()
    }

    fn record(kind: Kind, made: u64, who: Option<&str>, roles: &[Role]) -> Record {
        let lease = |role: &Role| Lease {
            process: Process { pid: 1, start: 1 },
            cookie: 0,
            role: *role,
            service: Word::clean("x"),
            tty: Word::clean(""),
        };
        Record {
            made,
            principal: who.map(principal),
            leases: roles.iter().map(lease).collect(),
            ..Record::new(61001, kind, String::new(), Retain::None)
        }
    }

    fn at(newcomer: Newcomer<'_>, records: &[Record]) -> Placement {
        let candidates: Vec<_> =
            records.iter().enumerate().map(|(i, record)| Candidate { id: PagId::from(i as u64), record }).collect();
        place(newcomer, "alice", &candidates)
    }

    fn login(principal: Option<&Principal>) -> Newcomer<'_> {
        Newcomer::Login { principal, join: Join::Always }
    }

    #[test]
    fn first_login_makes_the_second_joins_whoever_was_first() {
        let records = [record(Kind::User, 9, None, &[Role::Manager]), record(Kind::User, 5, None, &[Role::Login])];
        assert_eq!(at(login(None), &[]), Placement::Make(Kind::User));
        assert_eq!(at(login(None), &records), Placement::Join(PagId::from(1)));
    }

    #[test]
    fn another_principal_gets_a_pag_of_its_own() {
        let (alice, admin) = (principal("alice@R"), principal("alice/admin@R"));
        let records = [record(Kind::User, 1, Some("alice@R"), &[Role::Login])];
        assert_eq!(at(login(Some(&alice)), &records), Placement::Join(PagId::from(0)));
        assert_eq!(at(login(Some(&admin)), &records), Placement::Make(Kind::User));
        let records = [records[0].clone(), record(Kind::User, 2, Some("alice/admin@R"), &[Role::Login])];
        assert_eq!(at(login(Some(&admin)), &records), Placement::Join(PagId::from(1)));
        assert_eq!(at(Newcomer::Manager, &records), Placement::Join(PagId::from(0)));
    }

    #[test]
    fn a_pag_without_an_identity_takes_the_users_own_and_no_other() {
        let records = [record(Kind::User, 1, None, &[Role::Manager])];
        assert_eq!(at(login(Some(&principal("alice@R"))), &records), Placement::Join(PagId::from(0)));
        for other in ["alice/admin@R", "bob@R"] {
            assert_eq!(at(login(Some(&principal(other))), &records), Placement::Make(Kind::User), "{other}");
        }
    }

    #[test]
    fn cron_and_the_ticketless_keep_to_themselves_when_told_to() {
        let records = [record(Kind::User, 1, None, &[Role::Login])];
        assert_eq!(at(Newcomer::Own, &records), Placement::Make(Kind::Own));
        let shy = Newcomer::Login { principal: None, join: Join::Credentials };
        assert_eq!(at(shy, &records), Placement::Make(Kind::Own));
        let cron = [record(Kind::Own, 1, None, &[Role::Login])];
        assert_eq!(at(login(None), &cron), Placement::Make(Kind::User));
        assert_eq!(at(Newcomer::Manager, &cron), Placement::Make(Kind::User));
    }

    #[test]
    fn the_manager_prefers_a_living_login() {
        let records = [record(Kind::User, 1, None, &[]), record(Kind::User, 2, None, &[Role::Login])];
        assert_eq!(at(Newcomer::Manager, &records), Placement::Join(PagId::from(1)));
    }

    #[test]
    fn a_seeding_job_goes_where_it_was_asked_for_and_never_makes_a_pag() {
        let mut records = [record(Kind::User, 1, None, &[Role::Login]), record(Kind::Own, 2, None, &[Role::Login])];
        assert_eq!(at(Newcomer::Seed, &records), Placement::Nowhere);
        records[1].reseed = true;
        assert_eq!(at(Newcomer::Seed, &records), Placement::Join(PagId::from(1)));
    }

    #[test]
    fn what_is_left_decides_about_the_tokens() {
        let with = |roles: &[Role], retain, unsure| Record { retain, unsure, ..record(Kind::User, 1, None, roles) };
        let table = [
            (with(&[Role::Login, Role::Manager], Retain::None, false), false, Fate::Keep),
            (with(&[Role::Manager], Retain::None, false), false, Fate::Keep),
            (with(&[Role::Manager], Retain::None, false), true, Fate::DropTokens),
            (with(&[Role::Manager], Retain::Linger, false), true, Fate::Keep),
            (with(&[Role::Manager], Retain::Processes, false), true, Fate::Keep),
            (with(&[Role::Manager], Retain::None, true), true, Fate::Keep),
            (with(&[], Retain::None, false), false, Fate::End { discard: true }),
            (with(&[], Retain::Linger, false), false, Fate::End { discard: true }),
            (with(&[], Retain::Processes, false), false, Fate::End { discard: false }),
            (with(&[], Retain::None, true), false, Fate::End { discard: false }),
        ];
        for (record, lingering, expected) in table {
            assert_eq!(fate(&record, || lingering), expected, "{record:?} lingering {lingering}");
        }
    }

    #[test]
    fn a_failure_is_not_repeated_for_thirty_seconds_unless_the_ticket_is_better() {
        let failed = Some(Attempt { at: 1000, ok: false, ticket: 5000 });
        assert!(worth_seeding(None, 1000, 0, false));
        assert!(!worth_seeding(failed, 1029, 5000, false));
        assert!(worth_seeding(failed, 1030, 5000, false));
        assert!(worth_seeding(failed, 1001, 5001, false));
        let ok = Some(Attempt { at: 1000, ok: true, ticket: 5000 });
        assert!(worth_seeding(ok, 1001, 5000, false));
        assert!(!worth_seeding(ok, 1001, 5000, true));
    }

    #[test]
    fn good_tokens_have_ten_minutes_or_a_quarter_of_their_life_left() {
        assert!(is_good(10_000 + 601, 36_000, 10_000));
        assert!(!is_good(10_000 + 600, 36_000, 10_000));
        assert!(is_good(10_000 + 31, 120, 10_000));
        assert!(!is_good(10_000 + 30, 120, 10_000));
        assert!(!is_good(5, 0, 10_000));
    }
}
