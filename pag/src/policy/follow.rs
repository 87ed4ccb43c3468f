//! Which session's PAG a user's services follow when each login has its own.

use super::place::Candidate;
use crate::store::lease::LeaseKind;
use crate::store::record::{PagKind, Record};
use crate::types::{Follow, PagId, Retain};

/// Whether the services of a user may follow a PAG. A login is in that PAG, and the user manager would not be: the PAG
/// is of one session, or of an identity that is kept apart.
pub fn can_be_followed(record: &Record) -> bool {
    let is_apart = match record.kind {
        PagKind::Session => true,
        PagKind::User => record.principal.is_some() && !record.has_manager(),
        PagKind::Own => false,
    };
    is_apart && record.has_login()
}

/// Whether the services in a PAG follow a session. The PAG has a user manager, no login, and no tokens that `retain`
/// has left there.
/// `now` is in seconds since the epoch.
pub fn is_follower(record: &Record, now: u64) -> bool {
    let kept = record.retain != Retain::None && record.tokens.iter().any(|token| token.expires > now);
    record.kind == PagKind::User && record.has_manager() && !record.has_login() && !kept
}

/// A session of a user in logind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session's id in logind.
    pub id: String,
    /// The process that asked logind for the session: the PAM host of the login.
    pub leader: i32,
    /// Whether the session is a user's work: its class is `user`, `user-early`, `user-light` and the like. Greeters,
    /// lock screens, user managers and cron have sessions of other classes.
    pub person: bool,
    /// Whether the login has ended, and processes of the session still run.
    pub closing: bool,
}

/// The sessions of a user in logind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sessions {
    /// The session that logind calls the user's display: a graphical one, else one on a terminal, else another.
    pub display: Option<String>,
    /// All sessions of the user.
    pub all: Vec<Session>,
}

impl Sessions {
    /// The session of the login that holds the lease of `record`.
    ///
    /// The leader of a session is the PAM host, such as sshd's monitor, gdm's session worker or login: pam_systemd asks
    /// logind in that process (src/login/pam_systemd.c, pam_sm_open_session), and pam_pag takes the lease in it. For a
    /// host that has forked in between, `scope_of` gives the session of a process by its control group.
    pub fn of(&self, record: &Record, scope_of: impl Fn(i32) -> Option<String>) -> Option<&Session> {
        let pids =
            || record.leases.iter().filter(|lease| lease.role == LeaseKind::Login).map(|lease| lease.process.pid);
        self.all.iter().find(|session| pids().any(|pid| pid == session.leader)).or_else(|| {
            let id = pids().find_map(&scope_of)?;
            self.all.iter().find(|session| session.id == id)
        })
    }
}

/// The PAG that the services of a user follow. `candidates` are the user's other PAGs.
///
/// It is the PAG that a user has chosen, else the one that `setting` names. `current` is the PAG that they follow now.
/// `sessions` is none while logind has not answered, and the services then stay with `current`. For `scope_of` see
/// [`Sessions::of`].
pub fn followed(
    setting: Follow,
    candidates: &[Candidate<'_>],
    current: Option<PagId>,
    sessions: Option<&Sessions>,
    scope_of: impl Fn(i32) -> Option<String>,
) -> Option<PagId> {
    // This counts over a user's choice: the administrator keeps services apart from sessions.
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
    // Two logins of a script may come in the same second. The start of their processes, in hundredths of a second,
    // orders them, and mostly the pid orders two that start in the same hundredth.
    let age = |candidate: &Candidate<'_>| {
        let start = candidate.record.leases.iter().map(|lease| (lease.process.start, lease.process.pid)).min();
        (candidate.record.made, start, candidate.id)
    };
    // A login without a session in logind (`su -` within another session) counts only if no login has one.
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
    // Of several logins in one session, the first one is the login that the session was opened for.
    let first = in_display || setting == Follow::First;
    let chosen = if first { live.min_by_key(|one| age(one)) } else { live.max_by_key(|one| age(one)) };
    chosen.map(|one| one.id)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{record, session_pag};
    use super::*;

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
        // The oldest login, a middle one, the newest with a session in logind, and one without.
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
        // Only the login without a session is left.
        assert_eq!(follows(Display, &records[3..], None, Some((Some("b"), &[]))), Some(0));
        assert_eq!(follows(Display, &[], None, Some((Some("b"), &all))), None);
    }

    #[test]
    fn only_a_live_login_with_a_pag_of_its_own_is_followed() {
        let own = record(PagKind::Own, 1, None, &[LeaseKind::Login]);
        let users = record(PagKind::User, 1, None, &[LeaseKind::Login]);
        let over = record(PagKind::Session, 1, None, &[]);
        let services = record(PagKind::User, 1, Some("alice@R"), &[LeaseKind::Login, LeaseKind::Manager]);
        let admin_over = record(PagKind::User, 1, Some("alice/admin@R"), &[]);
        for other in [own, users, over, services, admin_over] {
            assert_eq!(follows(Follow::Display, &[other], None, Some((None, &[]))), None);
        }
    }

    #[test]
    fn services_follow_another_identity_while_it_is_there() {
        let admin = record(PagKind::User, 1, Some("alice/admin@R"), &[LeaseKind::Login]);
        assert_eq!(follows(Follow::Display, std::slice::from_ref(&admin), None, Some((None, &[]))), Some(0));
        assert_eq!(follows(Follow::None, &[admin], None, Some((None, &[]))), None);
    }

    #[test]
    fn services_stay_with_a_session_while_logind_has_not_answered() {
        let records = [session_pag(10, 5), session_pag(11, 6)];
        assert_eq!(follows(Follow::Display, &records, Some(0), None), Some(0));
        assert_eq!(follows(Follow::Display, &records, None, None), Some(1));
        assert_eq!(follows(Follow::Display, &records, Some(7), None), Some(1));
        assert_eq!(follows(Follow::None, &records, Some(0), None), None);
    }

    #[test]
    fn services_follow_a_chosen_session_while_it_is_open() {
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
    fn the_session_of_a_host_that_forked_is_found_by_its_control_group() {
        let records = [session_pag(13, 5), session_pag(11, 6)];
        let all = [session("b", 11), session("c", 99)];
        assert_eq!(follows(Follow::Display, &records, None, Some((Some("c"), &all))), Some(0));
    }

    #[test]
    fn of_two_logins_in_one_second_the_one_with_the_later_process_is_newer() {
        // `session_pag` gives the higher pid the earlier start.
        let records = [session_pag(10, 5), session_pag(11, 5)];
        let all = [session("a", 10), session("b", 11)];
        assert_eq!(follows(Follow::Newest, &records, None, Some((None, &all))), Some(0));
        assert_eq!(follows(Follow::First, &records, None, Some((None, &all))), Some(1));
    }
}
