//! Which PAG a process joins.

use crate::config::account::Account;
use crate::store::lease::Lease;
use crate::store::record::{PagKind, Record};
use crate::store::registry::Pag;
use crate::types::{Join, PagId, Principal, Scope, Word};
use std::cmp::Reverse;

/// What a process that is about to be placed is, to the user's PAGs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newcomer<'a> {
    /// A login, with the Kerberos identity that it brings.
    Login {
        /// None: it brings no ticket, or one that is not read.
        principal: Option<&'a Principal>,
        /// Whether it joins without one.
        join: Join,
        /// Whether it joins at all, or has a PAG of its own.
        scope: Scope,
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

/// The PAGs that could be joined.
pub fn candidates(pags: &[Pag]) -> Vec<Candidate<'_>> {
    let whole = pags.iter().filter(|pag| pag.ring.is_ok());
    whole.filter_map(|pag| Some(Candidate { id: pag.id, record: pag.record.as_ref().ok()? })).collect()
}

/// Where a newcomer belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Into this PAG.
    Join(PagId),
    /// Into a new one of this kind.
    Make(PagKind),
    /// Nowhere: there is nothing to do for it.
    Nowhere,
}

/// Decides where a newcomer of the user `account` belongs. What brings no identity, a manager or a login without a ticket,
/// joins no PAG of an identity that is not the user's own: it would have that one's tokens, and keep them when that one has
/// logged out.
pub fn place(newcomer: Newcomer<'_>, account: &Account, candidates: &[Candidate<'_>]) -> Placement {
    let is_own = |record: &Record| record.principal.as_ref().is_none_or(|principal| account.owns(principal));
    let found = match newcomer {
        Newcomer::Own | Newcomer::Login { principal: None, join: Join::Credentials, .. } => {
            return Placement::Make(PagKind::Own);
        }
        Newcomer::Login { scope: Scope::Session, .. } => return Placement::Make(PagKind::Session),
        Newcomer::Seed => {
            let asked = candidates.iter().find(|candidate| candidate.record.reseed);
            return asked.map_or(Placement::Nowhere, |candidate| Placement::Join(candidate.id));
        }
        // The PAG of a person at the machine is more to the point than what a dead login has left, and one with an identity
        // than one that waits for it.
        Newcomer::Manager => {
            oldest(candidates, |record| record.has_login() && record.principal.is_some() && is_own(record))
                .or_else(|| oldest(candidates, |record| record.has_login() && is_own(record)))
                .or_else(|| oldest(candidates, is_own))
        }
        Newcomer::Login { principal: None, .. } => oldest(candidates, is_own),
        Newcomer::Login { principal: Some(p), .. } => of_principal(candidates, p, account),
    };
    found.map_or(Placement::Make(PagKind::User), Placement::Join)
}

/// The PAG that tokens of `principal` belong into: the one that has this identity; else, for an identity that is the
/// user's own, one that has none yet, the manager's first. Another identity (alice/admin) neither lends nor borrows rights.
pub fn of_principal(candidates: &[Candidate<'_>], principal: &Principal, account: &Account) -> Option<PagId> {
    let blank = |record: &Record| record.principal.is_none() && account.owns(principal);
    oldest(candidates, |record| record.principal.as_ref() == Some(principal))
        .or_else(|| oldest(candidates, |record| record.has_manager() && blank(record)))
        .or_else(|| oldest(candidates, blank))
}

/// Whether a login that is in a PAG already may bring a ticket of `principal` to it. A PAG that has an identity takes no other
/// one. A PAG that has none, and that `others` share with this login, takes one that is the user's own.
pub fn may_bring(principal: &Principal, record: &Record, others: bool, account: &Account) -> bool {
    match &record.principal {
        Some(known) => known == principal,
        None => record.kind != PagKind::User || !others || account.owns(principal),
    }
}

fn oldest(candidates: &[Candidate<'_>], fits: impl Fn(&Record) -> bool) -> Option<PagId> {
    candidates
        .iter()
        .filter(|candidate| candidate.record.kind == PagKind::User && fits(candidate.record))
        // The id settles a tie, so that everybody finds the same one.
        .min_by_key(|candidate| (candidate.record.made, candidate.id))
        .map(|candidate| candidate.id)
}

/// What a refreshed ticket comes with, when the process that brings it is outside the session that it is for: a screen
/// unlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed<'a> {
    /// Whose ticket it is.
    pub principal: Option<&'a Principal>,
    /// Terminal and PAM service, as leases have them.
    pub tty: &'a Word,
    /// See `tty`.
    pub service: &'a Word,
    /// What a login would have now. The session may be older than that.
    pub scope: Scope,
}

/// The PAG that a refreshed ticket is for, among those with a login: of those with its identity the one of a login on the
/// same terminal, else of the same service; else one of this scope. Of logins that have PAGs to themselves the newest, of
/// shared ones the first, as a login would join it. Never one of another identity.
pub fn refreshed(candidates: &[Candidate<'_>], news: Refreshed<'_>, account: &Account) -> Option<PagId> {
    let fits = |record: &Record| match (&record.principal, news.principal) {
        (Some(there), Some(brought)) => there == brought,
        (None, Some(brought)) => account.owns(brought),
        (_, None) => true,
    };
    let rank = |record: &Record| {
        let of = |lease: &Lease| {
            let tty = lease.tty == *news.tty && lease.tty != Word::clean("");
            2 * u8::from(tty) + u8::from(lease.service == *news.service)
        };
        record.leases.iter().map(of).max()
    };
    let of_scope = |record: &Record| (record.kind == PagKind::Session) == (news.scope == Scope::Session);
    candidates
        .iter()
        .filter(|candidate| {
            candidate.record.kind != PagKind::Own && candidate.record.has_login() && fits(candidate.record)
        })
        .max_by_key(|Candidate { id, record }| {
            let age = (record.made, *id);
            let (newest, first) =
                if record.kind == PagKind::Session { (Some(age), None) } else { (None, Some(Reverse(age))) };
            (record.principal.is_some(), rank(record), of_scope(record), newest, first)
        })
        .map(|candidate| candidate.id)
}

#[cfg(test)]
mod tests {
    use super::super::follow::is_follower;
    use super::super::testing::{principal, record};
    use super::*;
    use crate::store::lease::LeaseKind;
    use crate::store::record::Held;
    use crate::types::Client;
    use crate::types::Retain;

    fn at(newcomer: Newcomer<'_>, records: &[Record]) -> Placement {
        let candidates: Vec<_> =
            records.iter().enumerate().map(|(i, record)| Candidate { id: PagId::from(i as u64), record }).collect();
        place(newcomer, &Account::of_realm("alice", "R"), &candidates)
    }

    #[test]
    fn a_ticket_that_comes_late_changes_no_pag_of_others() {
        let account = Account::of_realm("alice", "R");
        let may = |brought: &str, kind, there, others| {
            may_bring(&principal(brought), &record(kind, 1, there, &[]), others, &account)
        };
        assert!(may("alice@R", PagKind::User, None, true), "the user's own identity");
        assert!(!may("alice/admin@R", PagKind::User, None, true), "another one, where others are");
        assert!(may("alice/admin@R", PagKind::User, None, false), "another one, where the login is alone");
        assert!(may("alice/admin@R", PagKind::Session, None, true), "a PAG that is the session's");
        assert!(may("alice/admin@R", PagKind::User, Some("alice/admin@R"), true), "the PAG's identity");
        for kind in [PagKind::User, PagKind::Session, PagKind::Own] {
            assert!(!may("alice/admin@R", kind, Some("alice@R"), false), "{kind:?}: a PAG of another identity");
        }
    }

    fn login(principal: Option<&Principal>) -> Newcomer<'_> {
        Newcomer::Login { principal, join: Join::Always, scope: Scope::User }
    }

    #[test]
    fn first_login_makes_the_second_joins_whoever_was_first() {
        let records = [
            record(PagKind::User, 9, None, &[LeaseKind::Manager]),
            record(PagKind::User, 5, None, &[LeaseKind::Login]),
        ];
        assert_eq!(at(login(None), &[]), Placement::Make(PagKind::User));
        assert_eq!(at(login(None), &records), Placement::Join(PagId::from(1)));
    }

    #[test]
    fn another_principal_gets_a_pag_of_its_own() {
        let (alice, admin) = (principal("alice@R"), principal("alice/admin@R"));
        let records = [record(PagKind::User, 1, Some("alice@R"), &[LeaseKind::Login])];
        assert_eq!(at(login(Some(&alice)), &records), Placement::Join(PagId::from(0)));
        assert_eq!(at(login(Some(&admin)), &records), Placement::Make(PagKind::User));
        let records = [records[0].clone(), record(PagKind::User, 2, Some("alice/admin@R"), &[LeaseKind::Login])];
        assert_eq!(at(login(Some(&admin)), &records), Placement::Join(PagId::from(1)));
        assert_eq!(at(Newcomer::Manager, &records), Placement::Join(PagId::from(0)));
    }

    #[test]
    fn a_pag_without_an_identity_takes_the_users_own_and_no_other() {
        let records = [record(PagKind::User, 1, None, &[LeaseKind::Manager])];
        assert_eq!(at(login(Some(&principal("alice@R"))), &records), Placement::Join(PagId::from(0)));
        for other in ["alice/admin@R", "bob@R"] {
            assert_eq!(at(login(Some(&principal(other))), &records), Placement::Make(PagKind::User), "{other}");
        }
    }

    #[test]
    fn what_brings_no_identity_joins_none_but_the_users_own() {
        let admin = record(PagKind::User, 1, Some("alice/admin@R"), &[LeaseKind::Login]);
        let elsewhere = record(PagKind::User, 2, Some("alice@OTHER"), &[LeaseKind::Login]);
        let records = [admin, elsewhere];
        for newcomer in [Newcomer::Manager, login(None)] {
            assert_eq!(at(newcomer, &records), Placement::Make(PagKind::User), "{newcomer:?}");
        }
        // Whichever came first: the manager's own PAG, then the one of the user's own identity.
        let waiting = record(PagKind::User, 3, None, &[LeaseKind::Manager]);
        let records = [&records[..], &[record(PagKind::User, 0, None, &[LeaseKind::Login]), waiting]].concat();
        assert_eq!(at(login(Some(&principal("alice@R"))), &records), Placement::Join(PagId::from(3)));
        assert_eq!(at(login(None), &records), Placement::Join(PagId::from(2)));
        let own = record(PagKind::User, 9, Some("alice@R"), &[LeaseKind::Login]);
        let records = [&records[..], &[own]].concat();
        assert_eq!(at(Newcomer::Manager, &records), Placement::Join(PagId::from(4)));
    }

    #[test]
    fn cron_and_the_ticketless_keep_to_themselves_when_told_to() {
        let records = [record(PagKind::User, 1, None, &[LeaseKind::Login])];
        assert_eq!(at(Newcomer::Own, &records), Placement::Make(PagKind::Own));
        let shy = Newcomer::Login { principal: None, join: Join::Credentials, scope: Scope::User };
        assert_eq!(at(shy, &records), Placement::Make(PagKind::Own));
        let cron = [record(PagKind::Own, 1, None, &[LeaseKind::Login])];
        assert_eq!(at(login(None), &cron), Placement::Make(PagKind::User));
        assert_eq!(at(Newcomer::Manager, &cron), Placement::Make(PagKind::User));
    }

    #[test]
    fn the_manager_prefers_a_living_login() {
        let records = [record(PagKind::User, 1, None, &[]), record(PagKind::User, 2, None, &[LeaseKind::Login])];
        assert_eq!(at(Newcomer::Manager, &records), Placement::Join(PagId::from(1)));
    }

    #[test]
    fn a_seeding_job_goes_where_it_was_asked_for_and_never_makes_a_pag() {
        let mut records =
            [record(PagKind::User, 1, None, &[LeaseKind::Login]), record(PagKind::Own, 2, None, &[LeaseKind::Login])];
        assert_eq!(at(Newcomer::Seed, &records), Placement::Nowhere);
        records[1].reseed = true;
        assert_eq!(at(Newcomer::Seed, &records), Placement::Join(PagId::from(1)));
    }

    #[test]
    fn a_login_with_scope_session_joins_nobody_and_nobody_joins_it() {
        let alice = principal("alice@R");
        let own = |principal, join| Newcomer::Login { principal, join, scope: Scope::Session };
        let users = [record(PagKind::User, 1, Some("alice@R"), &[LeaseKind::Login])];
        assert_eq!(at(own(Some(&alice), Join::Always), &users), Placement::Make(PagKind::Session));
        assert_eq!(at(own(None, Join::Always), &users), Placement::Make(PagKind::Session));
        assert_eq!(at(own(None, Join::Credentials), &users), Placement::Make(PagKind::Own));
        let sessions = [record(PagKind::Session, 1, Some("alice@R"), &[LeaseKind::Login])];
        assert_eq!(at(own(Some(&alice), Join::Always), &sessions), Placement::Make(PagKind::Session));
        assert_eq!(at(login(Some(&alice)), &sessions), Placement::Make(PagKind::User));
        assert_eq!(at(login(None), &sessions), Placement::Make(PagKind::User));
        assert_eq!(at(Newcomer::Manager, &sessions), Placement::Make(PagKind::User));
        let both = [sessions[0].clone(), record(PagKind::User, 2, None, &[LeaseKind::Manager])];
        assert_eq!(at(Newcomer::Manager, &both), Placement::Join(PagId::from(1)));
        assert_eq!(at(login(Some(&alice)), &both), Placement::Join(PagId::from(1)));
    }

    #[test]
    fn a_managers_pag_follows_until_a_login_makes_it_his_own() {
        let held = |expires| Held {
            client: Client::Keyring,
            cell: "a.test".parse().unwrap(),
            expires,
            since: 0,
            aliases: vec![],
        };
        let manager = record(PagKind::User, 1, None, &[LeaseKind::Manager]);
        let kept = |retain, expires| Record { retain, tokens: vec![held(expires)], ..manager.clone() };
        let table = [
            (manager.clone(), true),
            (record(PagKind::User, 1, None, &[LeaseKind::Manager, LeaseKind::Login]), false),
            (record(PagKind::User, 1, None, &[]), false),
            (record(PagKind::Session, 1, None, &[LeaseKind::Manager]), false),
            (kept(Retain::None, 101), true),
            (kept(Retain::Linger, 101), false),
            (kept(Retain::Processes, 101), false),
            (kept(Retain::Linger, 100), true),
        ];
        for (record, expected) in table {
            assert_eq!(is_follower(&record, 100), expected, "{record:?}");
        }
    }

    #[test]
    fn a_refreshed_ticket_finds_the_session_of_its_identity() {
        let (alice, admin, bob) = (principal("alice@R"), principal("alice/admin@R"), principal("bob@R"));
        let at = |who: Option<&str>, made, tty: &str, service: &str| {
            let mut record = record(PagKind::Session, made, who, &[LeaseKind::Login]);
            (record.leases[0].tty, record.leases[0].service) = (Word::clean(tty), Word::clean(service));
            record
        };
        let records = [
            at(Some("alice@R"), 1, ":0", "gdm-password"),
            at(Some("alice@R"), 2, "ssh", "sshd"),
            at(Some("alice/admin@R"), 3, ":0", "gdm-password"),
            at(None, 4, "", "sshd"),
            record(PagKind::User, 5, Some("alice@R"), &[LeaseKind::Login]),
        ];
        let candidates: Vec<_> =
            records.iter().enumerate().map(|(i, record)| Candidate { id: PagId::from(i as u64), record }).collect();
        let find_in = |scope, principal, tty: &str, service: &str, from: usize| {
            let (tty, service) = (Word::clean(tty), Word::clean(service));
            let news = Refreshed { principal, tty: &tty, service: &service, scope };
            let found = refreshed(&candidates[from..], news, &Account::of_realm("alice", "R"));
            found.map(|id| (0..9).find(|number| PagId::from(*number) == id).unwrap())
        };
        let find = |principal, tty: &str, service: &str, from| find_in(Scope::Session, principal, tty, service, from);
        assert_eq!(find(Some(&alice), ":0", "gdm-password", 0), Some(0));
        assert_eq!(find(Some(&alice), "", "gdm-password", 0), Some(0));
        assert_eq!(find(Some(&alice), "", "other", 0), Some(1));
        assert_eq!(find(Some(&admin), "", "sshd", 0), Some(2));
        assert_eq!(find(Some(&bob), ":0", "gdm-password", 0), None);
        // A shared one is found, too, since a desktop may be older than the scope; and the other way round.
        assert_eq!(find(Some(&alice), "", "x", 2), Some(4));
        assert_eq!(find_in(Scope::User, Some(&alice), ":0", "gdm-password", 0), Some(0));
        assert_eq!(find_in(Scope::User, Some(&alice), "", "other", 0), Some(4));
        assert_eq!(find_in(Scope::User, Some(&admin), "", "other", 0), Some(2));
        // A login without a ticket takes the user's own identity, and no other.
        let account = Account::of_realm("alice", "R");
        let candidates = &candidates[..4];
        let (tty, service) = (Word::clean(""), Word::clean("sshd"));
        let news = |principal| Refreshed { principal, tty: &tty, service: &service, scope: Scope::Session };
        assert_eq!(refreshed(&candidates[2..], news(Some(&alice)), &account), Some(PagId::from(3)));
        assert_eq!(refreshed(&candidates[3..], news(Some(&admin)), &account), None);
    }
}
