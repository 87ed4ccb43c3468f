//! Which PAG a process joins.

use crate::config::account::Account;
use crate::store::lease::Lease;
use crate::store::record::{PagKind, Record};
use crate::store::registry::Pag;
use crate::types::{Join, PagId, Principal, Scope, Word};
use std::cmp::Reverse;

/// A process that needs a PAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newcomer<'a> {
    /// A login.
    Login {
        /// The principal of the ticket that the login brings. None without a ticket, or with one that was not read.
        principal: Option<&'a Principal>,
        /// Whether a login without a ticket joins a PAG.
        join: Join,
        /// Whether a login joins a PAG at all, or gets its own.
        scope: Scope,
    },
    /// The user manager, `systemd --user`.
    Manager,
    /// A job of cron, at or batch. It gets a PAG of its own.
    Own,
    /// A seeding job of the helper.
    Seed,
}

/// A PAG that a newcomer could join: its ring is whole, and its record was read.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its id.
    pub id: PagId,
    /// Its record.
    pub record: &'a Record,
}

/// The PAGs that a newcomer could join.
pub fn candidates(pags: &[Pag]) -> Vec<Candidate<'_>> {
    let whole = pags.iter().filter(|pag| pag.ring.is_ok());
    whole.filter_map(|pag| Some(Candidate { id: pag.id, record: pag.record.as_ref().ok()? })).collect()
}

/// The PAG that a newcomer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// It joins this PAG.
    Join(PagId),
    /// It gets a new PAG of this kind.
    Make(PagKind),
    /// It gets none: a seeding job without a PAG to seed.
    Nowhere,
}

/// Decides which PAG a newcomer of the user `account` gets. A manager, and a login without a ticket, join only a PAG
/// without an identity or with one of the account's own. In a PAG of another identity they would have its tokens, and
/// would keep them after the logout of that identity.
pub fn place(newcomer: Newcomer<'_>, account: &Account, candidates: &[Candidate<'_>]) -> Placement {
    let is_own = |record: &Record| record.principal.as_ref().is_none_or(|principal| account.owns(principal));
    let found = match newcomer {
        Newcomer::Own | Newcomer::Login { principal: None, join: Join::Credentials, .. } => {
            return Placement::Make(PagKind::Own);
        }
        Newcomer::Login { scope: Scope::Session, .. } => return Placement::Make(PagKind::Session),
        Newcomer::Seed => {
            let waiting = candidates.iter().find(|candidate| candidate.record.reseed);
            return waiting.map_or(Placement::Nowhere, |candidate| Placement::Join(candidate.id));
        }
        // A PAG with a login comes before one that an ended login has left, and of those, one with an identity comes
        // first.
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

/// The PAG for tokens of `principal`. It is the oldest PAG of this identity. For one of the account's own identities, a
/// PAG without an identity will do, too: the user manager's, else the oldest. Another identity (alice/admin) would lend
/// its rights there, or borrow others.
pub fn of_principal(candidates: &[Candidate<'_>], principal: &Principal, account: &Account) -> Option<PagId> {
    let is_open = |record: &Record| record.principal.is_none() && account.owns(principal);
    oldest(candidates, |record| record.principal.as_ref() == Some(principal))
        .or_else(|| oldest(candidates, |record| record.has_manager() && is_open(record)))
        .or_else(|| oldest(candidates, is_open))
}

/// Whether a login in a PAG may bring a ticket of `principal` to it. A PAG with an identity takes no other one. A
/// user's PAG without an identity takes one of the account's own, and any other only if no `others` share the PAG with
/// this login.
pub fn may_bring(principal: &Principal, record: &Record, others: bool, account: &Account) -> bool {
    match &record.principal {
        Some(known) => known == principal,
        None => record.kind != PagKind::User || !others || account.owns(principal),
    }
}

/// The oldest PAG of the user's that `fits`.
fn oldest(candidates: &[Candidate<'_>], fits: impl Fn(&Record) -> bool) -> Option<PagId> {
    candidates
        .iter()
        .filter(|candidate| candidate.record.kind == PagKind::User && fits(candidate.record))
        // Of PAGs of the same second, the id decides, so that each newcomer finds the same PAG.
        .min_by_key(|candidate| (candidate.record.made, candidate.id))
        .map(|candidate| candidate.id)
}

/// A refreshed ticket, brought by a process outside the session that it is for, such as a screen unlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed<'a> {
    /// The principal of the ticket.
    pub principal: Option<&'a Principal>,
    /// The terminal of that process, as leases have it.
    pub tty: &'a Word,
    /// The PAM service of that process, as leases have it.
    pub service: &'a Word,
    /// The scope that a login would have now. The session may have begun under the other one.
    pub scope: Scope,
}

/// Whether a PAG takes a refreshed ticket of this principal: its own identity's, or without an identity one of the
/// account's own. A ticket that was not read may be of any.
pub fn takes_refreshed(record: &Record, brought: Option<&Principal>, account: &Account) -> bool {
    match (&record.principal, brought) {
        (Some(there), Some(brought)) => there == brought,
        (None, Some(brought)) => account.owns(brought),
        (_, None) => true,
    }
}

/// The PAG that a refreshed ticket is for. It has a login, and no other identity than the ticket's. Of several PAGs,
/// these come first, in this order:
///
/// 1. a PAG with an identity;
/// 2. one with a login on the same terminal, then one with a login of the same service;
/// 3. one of the same scope;
/// 4. of PAGs of one session the newest, and of shared ones the oldest, which a login would join.
pub fn refreshed(candidates: &[Candidate<'_>], ticket: Refreshed<'_>, account: &Account) -> Option<PagId> {
    let fits = |record: &Record| takes_refreshed(record, ticket.principal, account);
    let rank = |record: &Record| {
        let of = |lease: &Lease| {
            let tty = lease.tty == *ticket.tty && lease.tty != Word::clean("");
            2 * u8::from(tty) + u8::from(lease.service == *ticket.service)
        };
        record.leases.iter().map(of).max()
    };
    let of_scope = |record: &Record| (record.kind == PagKind::Session) == (ticket.scope == Scope::Session);
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
    use crate::types::{Client, Retain};

    fn at(newcomer: Newcomer<'_>, records: &[Record]) -> Placement {
        let candidates: Vec<_> =
            records.iter().enumerate().map(|(i, record)| Candidate { id: PagId::from(i as u64), record }).collect();
        place(newcomer, &Account::of_realm("alice", "R"), &candidates)
    }

    #[test]
    fn a_late_ticket_of_another_identity_stays_out_of_a_shared_pag() {
        let account = Account::of_realm("alice", "R");
        let may = |brought: &str, kind, there, others| {
            may_bring(&principal(brought), &record(kind, 1, there, &[]), others, &account)
        };
        assert!(may("alice@R", PagKind::User, None, true), "the user's own identity");
        assert!(!may("alice/admin@R", PagKind::User, None, true), "another identity in a shared PAG");
        assert!(may("alice/admin@R", PagKind::User, None, false), "another identity of a login that is alone");
        assert!(may("alice/admin@R", PagKind::Session, None, true), "a PAG of one session");
        assert!(may("alice/admin@R", PagKind::User, Some("alice/admin@R"), true), "the PAG's identity");
        for kind in [PagKind::User, PagKind::Session, PagKind::Own] {
            assert!(!may("alice/admin@R", kind, Some("alice@R"), false), "{kind:?}: a PAG of another identity");
        }
    }

    fn login(principal: Option<&Principal>) -> Newcomer<'_> {
        Newcomer::Login { principal, join: Join::Always, scope: Scope::User }
    }

    #[test]
    fn the_first_login_makes_a_pag_and_the_next_joins_the_oldest() {
        let records = [
            record(PagKind::User, 9, None, &[LeaseKind::Manager]),
            record(PagKind::User, 5, None, &[LeaseKind::Login]),
        ];
        assert_eq!(at(login(None), &[]), Placement::Make(PagKind::User));
        assert_eq!(at(login(None), &records), Placement::Join(PagId::from(1)));
    }

    #[test]
    fn a_login_of_another_principal_gets_a_pag_of_its_own() {
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
    fn a_newcomer_without_an_identity_joins_no_pag_of_another_identity() {
        let admin = record(PagKind::User, 1, Some("alice/admin@R"), &[LeaseKind::Login]);
        let elsewhere = record(PagKind::User, 2, Some("alice@OTHER"), &[LeaseKind::Login]);
        let records = [admin, elsewhere];
        for newcomer in [Newcomer::Manager, login(None)] {
            assert_eq!(at(newcomer, &records), Placement::Make(PagKind::User), "{newcomer:?}");
        }
        // The ticket goes into the manager's PAG, also if a login's is older. The login without a ticket joins the
        // oldest.
        let waiting = record(PagKind::User, 3, None, &[LeaseKind::Manager]);
        let records = [&records[..], &[record(PagKind::User, 0, None, &[LeaseKind::Login]), waiting]].concat();
        assert_eq!(at(login(Some(&principal("alice@R"))), &records), Placement::Join(PagId::from(3)));
        assert_eq!(at(login(None), &records), Placement::Join(PagId::from(2)));
        let own = record(PagKind::User, 9, Some("alice@R"), &[LeaseKind::Login]);
        let records = [&records[..], &[own]].concat();
        assert_eq!(at(Newcomer::Manager, &records), Placement::Join(PagId::from(4)));
    }

    #[test]
    fn cron_gets_its_own_pag_and_so_does_a_login_without_a_ticket_if_configured() {
        let records = [record(PagKind::User, 1, None, &[LeaseKind::Login])];
        assert_eq!(at(Newcomer::Own, &records), Placement::Make(PagKind::Own));
        let without_ticket = Newcomer::Login { principal: None, join: Join::Credentials, scope: Scope::User };
        assert_eq!(at(without_ticket, &records), Placement::Make(PagKind::Own));
        let cron = [record(PagKind::Own, 1, None, &[LeaseKind::Login])];
        assert_eq!(at(login(None), &cron), Placement::Make(PagKind::User));
        assert_eq!(at(Newcomer::Manager, &cron), Placement::Make(PagKind::User));
    }

    #[test]
    fn the_manager_joins_a_pag_with_a_login_before_one_without() {
        let records = [record(PagKind::User, 1, None, &[]), record(PagKind::User, 2, None, &[LeaseKind::Login])];
        assert_eq!(at(Newcomer::Manager, &records), Placement::Join(PagId::from(1)));
    }

    #[test]
    fn a_seeding_job_joins_the_pag_that_waits_for_it_and_makes_none() {
        let mut records =
            [record(PagKind::User, 1, None, &[LeaseKind::Login]), record(PagKind::Own, 2, None, &[LeaseKind::Login])];
        assert_eq!(at(Newcomer::Seed, &records), Placement::Nowhere);
        records[1].reseed = true;
        assert_eq!(at(Newcomer::Seed, &records), Placement::Join(PagId::from(1)));
    }

    #[test]
    fn a_login_with_scope_session_shares_its_pag_with_no_other() {
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
    fn a_managers_pag_follows_until_a_login_joins_it() {
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
            let ticket = Refreshed { principal, tty: &tty, service: &service, scope };
            let found = refreshed(&candidates[from..], ticket, &Account::of_realm("alice", "R"));
            found.map(|id| (0..9).find(|number| PagId::from(*number) == id).unwrap())
        };
        let find = |principal, tty: &str, service: &str, from| find_in(Scope::Session, principal, tty, service, from);
        assert_eq!(find(Some(&alice), ":0", "gdm-password", 0), Some(0));
        assert_eq!(find(Some(&alice), "", "gdm-password", 0), Some(0));
        assert_eq!(find(Some(&alice), "", "other", 0), Some(1));
        assert_eq!(find(Some(&admin), "", "sshd", 0), Some(2));
        assert_eq!(find(Some(&bob), ":0", "gdm-password", 0), None);
        // A desktop may have begun under the other scope, so a shared PAG is found for scope session, and the other way
        // round.
        assert_eq!(find(Some(&alice), "", "x", 2), Some(4));
        assert_eq!(find_in(Scope::User, Some(&alice), ":0", "gdm-password", 0), Some(0));
        assert_eq!(find_in(Scope::User, Some(&alice), "", "other", 0), Some(4));
        assert_eq!(find_in(Scope::User, Some(&admin), "", "other", 0), Some(2));
        // The PAG of a login without a ticket takes the account's own identity, and no other.
        let account = Account::of_realm("alice", "R");
        let candidates = &candidates[..4];
        let (tty, service) = (Word::clean(""), Word::clean("sshd"));
        let ticket = |principal| Refreshed { principal, tty: &tty, service: &service, scope: Scope::Session };
        assert_eq!(refreshed(&candidates[2..], ticket(Some(&alice)), &account), Some(PagId::from(3)));
        assert_eq!(refreshed(&candidates[3..], ticket(Some(&admin)), &account), None);
    }
}
