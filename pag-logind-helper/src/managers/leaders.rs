//! Which session a user manager that follows one (`scope = session`) should follow: what logind says of the sessions, and the
//! setting `follow`. The rule is in `pag::policy`.

use std::collections::BTreeMap;

use pag::policy::{self, Sessions, candidates};
use pag::store::record::Record;
use pag::store::registry::Pag;
use pag::types::{Follow, PagId};

/// What it depends on which PAG a follower should follow.
pub(crate) struct Leaders {
    /// The setting `follow`.
    pub(crate) setting: Follow,
    /// What logind has said of users when it was asked.
    sessions: BTreeMap<u32, Sessions>,
}

impl Leaders {
    /// Knows of no session yet.
    pub(crate) fn new() -> Self {
        Leaders { setting: Follow::Display, sessions: BTreeMap::new() }
    }

    /// Takes over what logind says of a user. True if that is news.
    pub(crate) fn hear(&mut self, uid: u32, sessions: Sessions) -> bool {
        let news = self.sessions.get(&uid) != Some(&sessions);
        self.sessions.insert(uid, sessions);
        news
    }

    /// logind cannot be asked any more.
    pub(crate) fn forget_all(&mut self) {
        self.sessions.clear();
    }

    /// A user has no follower any more.
    pub(crate) fn forget(&mut self, uid: u32) {
        self.sessions.remove(&uid);
    }

    /// The PAG, of these of `uid`, that the follower with this record should follow.
    pub(crate) fn choose(&self, uid: u32, pags: &[Pag], record: &Record) -> Option<PagId> {
        if !policy::is_follower(record, pag::sys::now()) {
            return None;
        }
        let sessions = self.sessions.get(&uid);
        policy::followed(self.setting, &candidates(pags), record.follows, sessions, scope_of)
    }

    /// logind's name for the session of a login with this record.
    pub(crate) fn session_of(&self, uid: u32, record: &Record) -> Option<String> {
        self.sessions.get(&uid)?.of(record, scope_of).map(|session| session.id.clone())
    }
}

/// The session that a process is in, by its control group: logind calls that `session-ID.scope` (src/login/logind-session.c,
/// session_start_scope).
fn scope_of(pid: i32) -> Option<String> {
    session_in(&std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

fn session_in(cgroup: &str) -> Option<String> {
    let mut parts = cgroup.lines().flat_map(|line| line.split('/'));
    parts.find_map(|part| Some(part.strip_prefix("session-")?.strip_suffix(".scope")?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_in_the_session_that_its_control_group_names() {
        let session = "0::/user.slice/user-61001.slice/session-c2.scope\n";
        assert_eq!(session_in(session).as_deref(), Some("c2"));
        let old = "12:pids:/user.slice\n1:name=systemd:/user.slice/user-61001.slice/session-7.scope\n0::/\n";
        assert_eq!(session_in(old).as_deref(), Some("7"));
        for other in
            ["", "0::/system.slice/ssh.service\n", "0::/user.slice/user-61001.slice/user@61001.service/init.scope\n"]
        {
            assert_eq!(session_in(other), None, "{other}");
        }
    }

    #[test]
    fn logind_is_heard_once() {
        let mut leaders = Leaders::new();
        let said = Sessions { display: Some("1".to_owned()), all: Vec::new() };
        assert!(leaders.hear(61001, said.clone()));
        assert!(!leaders.hear(61001, said.clone()));
        assert!(leaders.hear(61001, Sessions::default()));
        leaders.forget_all();
        assert!(leaders.hear(61001, Sessions::default()));
    }
}
