//! Which PAG is the right one, and what its end means: pure functions from facts to a plan.

use std::cmp::Reverse;

use crate::ccache::format::Principal;
use crate::config::account::Account;
use crate::config::{Follow, Join, Retain, Scope};
use crate::store::lease::{Lease, Role, Word};
use crate::store::record::{Attempt, Kind, Record};
use crate::store::registry::PagId;

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

/// Decides where a newcomer of the user `account` belongs. What brings no identity, a manager or a login without a ticket,
/// joins no PAG of an identity that is not the user's own: it would have that one's tokens, and keep them when that one has
/// logged out.
pub fn place(newcomer: Newcomer<'_>, account: &Account, candidates: &[Candidate<'_>]) -> Placement {
    let is_own = |record: &Record| record.principal.as_ref().is_none_or(|principal| account.owns(principal));
    let found = match newcomer {
        Newcomer::Own | Newcomer::Login { principal: None, join: Join::Credentials, .. } => {
            return Placement::Make(Kind::Own);
        }
        Newcomer::Login { scope: Scope::Session, .. } => return Placement::Make(Kind::Session),
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
    found.map_or(Placement::Make(Kind::User), Placement::Join)
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
        None => record.kind != Kind::User || !others || account.owns(principal),
    }
}

fn oldest(candidates: &[Candidate<'_>], fits: impl Fn(&Record) -> bool) -> Option<PagId> {
    candidates
        .iter()
        .filter(|candidate| candidate.record.kind == Kind::User && fits(candidate.record))
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
    let of_scope = |record: &Record| (record.kind == Kind::Session) == (news.scope == Scope::Session);
    candidates
        .iter()
        .filter(|candidate| {
            candidate.record.kind != Kind::Own && candidate.record.has_login() && fits(candidate.record)
        })
        .max_by_key(|Candidate { id, record }| {
            let age = (record.made, *id);
            let (newest, first) =
                if record.kind == Kind::Session { (Some(age), None) } else { (None, Some(Reverse(age))) };
            (record.principal.is_some(), rank(record), of_scope(record), newest, first)
        })
        .map(|candidate| candidate.id)
}

/// Whether the services of a user may follow a PAG: a login is in it, and it is not the one that the user's manager would be
/// in. That is the PAG of a login that has it to itself, or of an identity that is kept apart.
pub fn can_be_followed(record: &Record) -> bool {
    let is_apart = match record.kind {
        Kind::Session => true,
        Kind::User => record.principal.is_some() && !record.has_manager(),
        Kind::Own => false,
    };
    is_apart && record.has_login()
}

/// Whether the services in a PAG follow a session: it is the user manager's, which lives, and no login has made it his
/// own. Tokens that `retain` leaves it are its own, too.
pub fn is_follower(record: &Record, now: u64) -> bool {
    let kept = record.retain != Retain::None && record.tokens.iter().any(|token| token.expires > now);
    record.kind == Kind::User && record.has_manager() && !record.has_login() && !kept
}

/// What logind says of one session of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// logind's name for it.
    pub id: String,
    /// The process that asked for it: the PAM host of the login.
    pub leader: i32,
    /// Whether a person works in it: its class is one of `user`, `user-early`, `user-light`, ...; a greeter's, a lock
    /// screen's, a manager's and cron's are others.
    pub person: bool,
    /// Whether it is ending: its login is over, and something of it is still there.
    pub closing: bool,
}

/// What logind says of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sessions {
    /// The session that it calls his display: the graphical one, else the one on a terminal, else another.
    pub display: Option<String>,
    /// All of his.
    pub all: Vec<Session>,
}

impl Sessions {
    /// The session of the login that holds the lease of `record`. pam_systemd asks in the PAM host's own process, where
    /// pam_pag has taken the lease (src/login/pam_systemd.c, pam_sm_open_session), so that is the leader: sshd's monitor,
    /// gdm's session worker, login itself. Where a host has forked between the two, `scope_of` tells the session whose
    /// control group a process is in.
    pub fn of(&self, record: &Record, scope_of: impl Fn(i32) -> Option<String>) -> Option<&Session> {
        let pids = || record.leases.iter().filter(|lease| lease.role == Role::Login).map(|lease| lease.process.pid);
        self.all.iter().find(|session| pids().any(|pid| pid == session.leader)).or_else(|| {
            let id = pids().find_map(&scope_of)?;
            self.all.iter().find(|session| session.id == id)
        })
    }
}

/// The PAG that the services of a user follow, of those that they are not in: the one that somebody has chosen,
/// else as `setting` says. `current` is the one that they follow now; `sessions` is none while logind has not answered,
/// and then they stay with that. `scope_of` as in [`Sessions::of`].
pub fn followed(
    setting: Follow,
    candidates: &[Candidate<'_>],
    current: Option<PagId>,
    sessions: Option<&Sessions>,
    scope_of: impl Fn(i32) -> Option<String>,
) -> Option<PagId> {
    // Over what somebody has chosen, too: the administrator wants sessions kept apart from services.
    if setting == Follow::None {
        return None;
    }
    let mut live: Vec<(Candidate<'_>, Option<&Session>)> = candidates
        .iter()
        .filter(|candidate| can_be_followed(candidate.record))
        .map(|candidate| (*candidate, sessions.and_then(|known| known.of(candidate.record, &scope_of))))
        .filter(|(_, session)| session.is_none_or(|session| session.person && !session.closing))
        .collect();
    let chosen = live.iter().filter(|(candidate, _)| candidate.record.chosen);
    if let Some((candidate, _)) = chosen.max_by_key(|(candidate, _)| (candidate.record.made, candidate.id)) {
        return Some(candidate.id);
    }
    if sessions.is_none() && live.iter().any(|(candidate, _)| Some(candidate.id) == current) {
        return current;
    }
    // Seconds are too coarse for two logins of a script; the age of their processes tells them apart, and of two that have
    // begun within the same hundredth of a second, mostly, the pid.
    let age = |candidate: &Candidate<'_>| {
        let start = candidate.record.leases.iter().map(|lease| (lease.process.start, lease.process.pid)).min();
        (candidate.record.made, start, candidate.id)
    };
    // A login that logind knows nothing of (`su -` within another session) is there for want of a better one.
    if live.iter().any(|(_, session)| session.is_some()) {
        live.retain(|(_, session)| session.is_some());
    }
    let display = sessions.and_then(|known| known.display.as_ref());
    let is_display = |session: Option<&Session>| session.is_some_and(|session| Some(&session.id) == display);
    let in_display = setting == Follow::Display && live.iter().any(|(_, session)| is_display(*session));
    if in_display {
        live.retain(|(_, session)| is_display(*session));
    }
    let live = live.iter().map(|(candidate, _)| candidate);
    // Of several logins in one session it is the first, which that session was opened for.
    let first = in_display || setting == Follow::First;
    let chosen = if first { live.min_by_key(|one| age(one)) } else { live.max_by_key(|one| age(one)) };
    chosen.map(|one| one.id)
}

/// What becomes of a PAG after leases have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Keep,
    /// It goes on without its tokens: only a manager that stays is left.
    DropTokens,
    /// Its holder is unlinked.
    End {
        /// Whether the tokens are discarded first, or left to the members that stay.
        discard: bool,
    },
}

/// Decides what becomes of a PAG whose record, dead leases taken out, is `record`.
///
/// A manager that is about to stop keeps the tokens: its services may still write to an AFS home meanwhile. One that
/// `stays`, since the user lingers, has logins in other PAGs, or was given time enough to stop, does not. Whether it does is
/// asked only where that decides, since the answer takes the user's name.
pub fn fate(record: &Record, stays: impl FnOnce() -> bool) -> Fate {
    if record.leases.is_empty() {
        return Fate::End { discard: record.retain != Retain::Processes && !record.unsure };
    }
    if record.has_login() || record.unsure || record.retain != Retain::None || !stays() {
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
        // One in the future is of a clock that was wrong.
        let recent = last.at <= now.saturating_add(1) && now.saturating_sub(last.at) < RETRY_SECONDS;
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
    use crate::afs::Client;
    use crate::store::lease::Process;
    use crate::store::record::Held;

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
            ccache: Word::clean(""),
            sessions: 1,
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
        place(newcomer, &Account::of_realm("alice", "R"), &candidates)
    }

    #[test]
    fn a_ticket_that_comes_late_changes_no_pag_of_others() {
        let account = Account::of_realm("alice", "R");
        let may = |brought: &str, kind, there, others| {
            may_bring(&principal(brought), &record(kind, 1, there, &[]), others, &account)
        };
        assert!(may("alice@R", Kind::User, None, true), "the user's own identity");
        assert!(!may("alice/admin@R", Kind::User, None, true), "another one, where others are");
        assert!(may("alice/admin@R", Kind::User, None, false), "another one, where the login is alone");
        assert!(may("alice/admin@R", Kind::Session, None, true), "a PAG that is the session's");
        assert!(may("alice/admin@R", Kind::User, Some("alice/admin@R"), true), "the PAG's identity");
        for kind in [Kind::User, Kind::Session, Kind::Own] {
            assert!(!may("alice/admin@R", kind, Some("alice@R"), false), "{kind:?}: a PAG of another identity");
        }
    }

    fn login(principal: Option<&Principal>) -> Newcomer<'_> {
        Newcomer::Login { principal, join: Join::Always, scope: Scope::User }
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
    fn what_brings_no_identity_joins_none_but_the_users_own() {
        let admin = record(Kind::User, 1, Some("alice/admin@R"), &[Role::Login]);
        let elsewhere = record(Kind::User, 2, Some("alice@OTHER"), &[Role::Login]);
        let records = [admin, elsewhere];
        for newcomer in [Newcomer::Manager, login(None)] {
            assert_eq!(at(newcomer, &records), Placement::Make(Kind::User), "{newcomer:?}");
        }
        // Whichever came first: the manager's own PAG, then the one of the user's own identity.
        let waiting = record(Kind::User, 3, None, &[Role::Manager]);
        let records = [&records[..], &[record(Kind::User, 0, None, &[Role::Login]), waiting]].concat();
        assert_eq!(at(login(Some(&principal("alice@R"))), &records), Placement::Join(PagId::from(3)));
        assert_eq!(at(login(None), &records), Placement::Join(PagId::from(2)));
        let own = record(Kind::User, 9, Some("alice@R"), &[Role::Login]);
        let records = [&records[..], &[own]].concat();
        assert_eq!(at(Newcomer::Manager, &records), Placement::Join(PagId::from(4)));
    }

    #[test]
    fn cron_and_the_ticketless_keep_to_themselves_when_told_to() {
        let records = [record(Kind::User, 1, None, &[Role::Login])];
        assert_eq!(at(Newcomer::Own, &records), Placement::Make(Kind::Own));
        let shy = Newcomer::Login { principal: None, join: Join::Credentials, scope: Scope::User };
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
    fn a_login_with_scope_session_joins_nobody_and_nobody_joins_it() {
        let alice = principal("alice@R");
        let own = |principal, join| Newcomer::Login { principal, join, scope: Scope::Session };
        let users = [record(Kind::User, 1, Some("alice@R"), &[Role::Login])];
        assert_eq!(at(own(Some(&alice), Join::Always), &users), Placement::Make(Kind::Session));
        assert_eq!(at(own(None, Join::Always), &users), Placement::Make(Kind::Session));
        assert_eq!(at(own(None, Join::Credentials), &users), Placement::Make(Kind::Own));
        let sessions = [record(Kind::Session, 1, Some("alice@R"), &[Role::Login])];
        assert_eq!(at(own(Some(&alice), Join::Always), &sessions), Placement::Make(Kind::Session));
        assert_eq!(at(login(Some(&alice)), &sessions), Placement::Make(Kind::User));
        assert_eq!(at(login(None), &sessions), Placement::Make(Kind::User));
        assert_eq!(at(Newcomer::Manager, &sessions), Placement::Make(Kind::User));
        let both = [sessions[0].clone(), record(Kind::User, 2, None, &[Role::Manager])];
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
        let manager = record(Kind::User, 1, None, &[Role::Manager]);
        let kept = |retain, expires| Record { retain, tokens: vec![held(expires)], ..manager.clone() };
        let table = [
            (manager.clone(), true),
            (record(Kind::User, 1, None, &[Role::Manager, Role::Login]), false),
            (record(Kind::User, 1, None, &[]), false),
            (record(Kind::Session, 1, None, &[Role::Manager]), false),
            (kept(Retain::None, 101), true),
            (kept(Retain::Linger, 101), false),
            (kept(Retain::Processes, 101), false),
            (kept(Retain::Linger, 100), true),
        ];
        for (record, expected) in table {
            assert_eq!(is_follower(&record, 100), expected, "{record:?}");
        }
    }

    /// The PAG of the login whose process is `pid`, made at `made`.
    fn session_pag(pid: i32, made: u64) -> Record {
        let mut record = record(Kind::Session, made, None, &[Role::Login]);
        record.leases[0].process = Process { pid, start: 1000 - u64::from(pid.unsigned_abs()) };
        record
    }

    fn session(id: &str, leader: i32) -> Session {
        Session { id: id.to_owned(), leader, person: true, closing: false }
    }

    fn follows(
        setting: Follow,
        records: &[Record],
        current: Option<u64>,
        sessions: Option<(Option<&str>, &[Session])>,
    ) -> Option<u64> {
        let candidates: Vec<_> =
            records.iter().enumerate().map(|(i, record)| Candidate { id: PagId::from(i as u64), record }).collect();
        let sessions = sessions.map(|(display, all)| Sessions { display: display.map(str::to_owned), all: all.into() });
        let scope_of = |pid| (pid == 13).then(|| "c".to_owned());
        let found = followed(setting, &candidates, current.map(PagId::from), sessions.as_ref(), scope_of);
        found.map(|id| (0..9).find(|number| PagId::from(*number) == id).unwrap())
    }

    #[test]
    fn services_follow_the_session_that_the_setting_names() {
        use Follow::{Display, First, Newest};
        // The oldest, a middle one, the newest, and one of which logind knows nothing.
        let records = [session_pag(10, 5), session_pag(11, 6), session_pag(12, 7), session_pag(14, 8)];
        let all = [session("a", 10), session("b", 11), session("d", 12)];
        let closing = |which: usize| {
            let mut all = all.clone();
            all[which].closing = true;
            all
        };
        let greeter = |which: usize| {
            let mut all = all.clone();
            all[which].person = false;
            all
        };
        let table = [
            (Display, Some("b"), all.clone(), Some(1)),
            (Display, Some("a"), all.clone(), Some(0)),
            // The display has no PAG of its own, or there is none.
            (Display, Some("x"), all.clone(), Some(2)),
            (Display, None, all.clone(), Some(2)),
            (Display, Some("b"), closing(1), Some(2)),
            (Display, Some("b"), greeter(1), Some(2)),
            (Newest, Some("b"), all.clone(), Some(2)),
            (Newest, Some("b"), closing(2), Some(1)),
            (First, Some("b"), all.clone(), Some(0)),
            (First, Some("b"), closing(0), Some(1)),
            (Follow::None, Some("b"), all.clone(), None),
        ];
        for (setting, display, all, expected) in table {
            assert_eq!(
                follows(setting, &records, None, Some((display, &all))),
                expected,
                "{setting} {display:?} {all:?}"
            );
        }
        // Nothing that logind knows is left.
        assert_eq!(follows(Display, &records[3..], None, Some((Some("b"), &[]))), Some(0));
        assert_eq!(follows(Display, &[], None, Some((Some("b"), &all))), None);
    }

    #[test]
    fn only_a_live_login_with_a_pag_of_its_own_is_followed() {
        let own = record(Kind::Own, 1, None, &[Role::Login]);
        let users = record(Kind::User, 1, None, &[Role::Login]);
        let over = record(Kind::Session, 1, None, &[]);
        let services = record(Kind::User, 1, Some("alice@R"), &[Role::Login, Role::Manager]);
        let admin_over = record(Kind::User, 1, Some("alice/admin@R"), &[]);
        for other in [own, users, over, services, admin_over] {
            assert_eq!(follows(Follow::Display, &[other], None, Some((None, &[]))), None);
        }
    }

    #[test]
    fn services_follow_another_identity_while_it_is_there() {
        let admin = record(Kind::User, 1, Some("alice/admin@R"), &[Role::Login]);
        assert_eq!(follows(Follow::Display, std::slice::from_ref(&admin), None, Some((None, &[]))), Some(0));
        assert_eq!(follows(Follow::None, &[admin], None, Some((None, &[]))), None);
    }

    #[test]
    fn while_logind_has_not_answered_nobody_changes_sides_without_need() {
        let records = [session_pag(10, 5), session_pag(11, 6)];
        assert_eq!(follows(Follow::Display, &records, Some(0), None), Some(0));
        assert_eq!(follows(Follow::Display, &records, None, None), Some(1));
        assert_eq!(follows(Follow::Display, &records, Some(7), None), Some(1));
        assert_eq!(follows(Follow::None, &records, Some(0), None), None);
    }

    #[test]
    fn who_was_chosen_is_followed_while_he_is_there() {
        let chosen = |pid, made| Record { chosen: true, ..session_pag(pid, made) };
        let records = [chosen(11, 5), session_pag(12, 6)];
        let all = [session("b", 11), session("c", 12)];
        for setting in [Follow::Display, Follow::Newest, Follow::First] {
            assert_eq!(follows(setting, &records, Some(1), Some((Some("c"), &all))), Some(0), "{setting:?}");
            assert_eq!(follows(setting, &records, Some(1), None), Some(0), "logind is not needed for it");
        }
        assert_eq!(follows(Follow::None, &records, None, Some((Some("c"), &all))), None);
        let closing = Session { closing: true, ..session("b", 11) };
        assert_eq!(follows(Follow::Display, &records, Some(0), Some((None, &[closing, session("c", 12)]))), Some(1));
    }

    #[test]
    fn a_host_that_forked_is_found_by_its_control_group() {
        let records = [session_pag(13, 5), session_pag(11, 6)];
        let all = [session("b", 11), session("c", 99)];
        assert_eq!(follows(Follow::Display, &records, None, Some((Some("c"), &all))), Some(0));
    }

    #[test]
    fn of_two_logins_in_one_second_the_process_that_began_later_is_newer() {
        // `session_pag` gives the higher pid the earlier start.
        let records = [session_pag(10, 5), session_pag(11, 5)];
        let all = [session("a", 10), session("b", 11)];
        assert_eq!(follows(Follow::Newest, &records, None, Some((None, &all))), Some(0));
        assert_eq!(follows(Follow::First, &records, None, Some((None, &all))), Some(1));
    }

    #[test]
    fn a_refreshed_ticket_finds_the_session_of_its_identity() {
        let (alice, admin, bob) = (principal("alice@R"), principal("alice/admin@R"), principal("bob@R"));
        let at = |who: Option<&str>, made, tty: &str, service: &str| {
            let mut record = record(Kind::Session, made, who, &[Role::Login]);
            (record.leases[0].tty, record.leases[0].service) = (Word::clean(tty), Word::clean(service));
            record
        };
        let records = [
            at(Some("alice@R"), 1, ":0", "gdm-password"),
            at(Some("alice@R"), 2, "ssh", "sshd"),
            at(Some("alice/admin@R"), 3, ":0", "gdm-password"),
            at(None, 4, "", "sshd"),
            record(Kind::User, 5, Some("alice@R"), &[Role::Login]),
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
