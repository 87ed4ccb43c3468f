//! PAGs, tokens, leases and findings as all commands show them: in JSON, and in lines for people.
//!
//! docs/json.md has the shapes, and a test compares. A key has the same meaning in every command and is always there. What
//! is not known is `null`: the end of a token, too, which the AFS clients and the helper mark by 0.

use std::fmt;

use pag::afs::MissingClients;
use pag::config::{Complaint, ConfigSource, Settings};
use pag::process_ring::ProcessRing;
use pag::report::{User, local_until};
use pag::store::lease::Lease;
use pag::sys::{self, Who};
use pag::types::{Cell, Client, Token, TokenState};
use serde::Serialize;

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TokenJson {
    /// The AFS client that has it.
    pub(crate) client: String,
    pub(crate) cell: String,
    pub(crate) principal: Option<String>,
    /// The user's id in the cell's protection database.
    pub(crate) vice_id: Option<i64>,
    /// Its security class; the helper does not pass this on.
    pub(crate) kind: Option<&'static str>,
    /// When it ends, in seconds since the epoch.
    pub(crate) expires: Option<u64>,
    pub(crate) expired: bool,
    /// `good`, `expired` or `revoked`.
    pub(crate) state: String,
}

impl From<&Token> for TokenJson {
    fn from(token: &Token) -> Self {
        TokenJson {
            client: token.client.to_string(),
            cell: token.cell.to_string(),
            principal: token.principal.as_ref().map(ToString::to_string),
            vice_id: token.vice_id,
            kind: token.kind.map(|kind| kind.as_str()),
            expires: known_time(token.expires),
            expired: token.state == TokenState::Expired,
            state: token.state.as_str().to_owned(),
        }
    }
}

impl TokenJson {
    /// The identity that it stands for in its cell, as far as the client tells.
    pub(crate) fn identity(&self) -> Option<String> {
        self.principal.clone().or_else(|| self.vice_id.map(|id| format!("AFS id {id}")))
    }

    /// Until when a good one lasts, where its end is known.
    pub(crate) fn lasts(&self) -> Option<String> {
        self.expires
            .filter(|_| self.state == TokenState::Good.as_str())
            .map(|end| format!("until {}", local_until(end)))
    }
}

/// A process for which a PAG is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LeaseJson {
    pub(crate) role: String,
    pub(crate) pid: i64,
    pub(crate) service: String,
    /// The terminal; none for a login without one.
    pub(crate) tty: Option<String>,
    pub(crate) alive: bool,
    /// How many sessions it stands for; the helper does not pass this on.
    pub(crate) sessions: Option<u32>,
}

impl From<&Lease> for LeaseJson {
    fn from(lease: &Lease) -> Self {
        LeaseJson {
            role: lease.role.as_str().to_owned(),
            pid: lease.process.pid.into(),
            service: lease.service.to_string(),
            tty: known_tty(lease.tty.to_string()),
            alive: lease.process.is_alive(),
            sessions: Some(lease.sessions),
        }
    }
}

/// A PAG, as `status` shows it to root, and `list` and `show` to those who may see it. Root reads the registry. The helper
/// does not pass on all of that, and tells an administrator who is not root only what `ListedPag` has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PagJson {
    pub(crate) pag: String,
    pub(crate) uid: u32,
    pub(crate) user: Option<String>,
    /// None when the ring cannot be used; `trouble` says why.
    pub(crate) ring: Option<i32>,
    pub(crate) kind: Option<String>,
    /// When it was made; this and the other times are in seconds since the epoch.
    pub(crate) made: Option<u64>,
    pub(crate) principal: Option<String>,
    /// End of the ticket in the PAG's ccache.
    pub(crate) ticket: Option<u64>,
    pub(crate) retain: Option<String>,
    /// The PAG that the user's services in this one follow.
    pub(crate) follows: Option<String>,
    /// Whether the user chose it as the one that the services follow.
    pub(crate) chosen: Option<bool>,
    pub(crate) leases: Option<Vec<LeaseJson>>,
    pub(crate) tokens: Option<Vec<TokenJson>>,
    pub(crate) ccache: Option<String>,
    /// What is wrong with it; none where only the helper was asked.
    pub(crate) trouble: Option<Vec<String>>,
    /// The version of the record, where a newer release wrote it: this release leaves the PAG alone.
    pub(crate) newer: Option<u32>,
}

/// How bad a finding is. The order is that of the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// It is as it should be.
    Ok,
    /// Good to know; nothing has to be done.
    Info,
    /// Something does not work, or soon will not, for some users.
    Warning,
    /// Logins or user services are without tokens, or are open to others.
    Error,
}

impl Severity {
    /// Its word, as in JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// What `doctor`, `pam check`, `config check` and `status --explain` have found.
#[derive(Debug, Serialize)]
pub(crate) struct FindingJson {
    /// A word that stays the same from release to release.
    pub(crate) id: String,
    pub(crate) severity: Severity,
    /// What is the matter.
    pub(crate) what: String,
    /// What comes of it.
    pub(crate) why: String,
    /// The command that mends it, where there is one.
    pub(crate) command: Option<String>,
    /// The PAM service, where it is about one.
    pub(crate) service: Option<String>,
    pub(crate) file: Option<String>,
    /// The line of the file; none for the file as a whole.
    pub(crate) line: Option<usize>,
    /// What would be right.
    pub(crate) right: Option<String>,
}

impl From<&Complaint> for FindingJson {
    fn from(complaint: &Complaint) -> Self {
        let (file, line) = match &complaint.place {
            ConfigSource::File(path, line) => (path.display().to_string(), Some(*line).filter(|line| *line > 0)),
            place @ ConfigSource::Argument(..) => (place.to_string(), None),
        };
        FindingJson {
            id: "config-wrong".to_owned(),
            severity: Severity::Warning,
            what: complaint.what.clone(),
            why: "it has no effect, and the default holds".to_owned(),
            command: None,
            service: None,
            file: Some(file),
            line,
            right: Some(complaint.right.clone()),
        }
    }
}

/// What a command has done to a PAG, or why it was not done.
#[derive(Debug, Serialize)]
pub(crate) struct ActionJson {
    /// The command.
    pub(crate) action: &'static str,
    /// Its id; none for a PAG that only the helper could name.
    pub(crate) pag: Option<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) user: Option<String>,
    /// Whether all is now as it should be.
    pub(crate) done: bool,
    /// What was done, or why it was not.
    pub(crate) what: String,
    /// The tokens afterwards; none where they were not looked at.
    pub(crate) tokens: Option<Vec<TokenJson>>,
}

impl ActionJson {
    /// What was done to a PAG.
    pub(crate) fn new(action: &'static str, pag: Option<String>, done: bool, what: String) -> Self {
        ActionJson { action, pag, uid: None, user: None, done, what, tokens: None }
    }

    /// Names the user.
    pub(crate) fn of(self, uid: u32) -> Self {
        ActionJson { uid: Some(uid), user: user_name(uid), ..self }
    }
}

/// The process that made a PAG, in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct MakerJson {
    pid: u32,
    program: String,
    /// How often the kernel has the ring in use.
    uses: Option<u32>,
}

impl From<&ProcessRing> for MakerJson {
    fn from(ring: &ProcessRing) -> Self {
        let maker = ring.name.maker();
        MakerJson { pid: maker.pid, program: maker.program, uses: ring.uses() }
    }
}

impl fmt::Display for MakerJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MakerJson { pid, program, .. } = self;
        write!(f, "made by process {pid} ({program}) for itself")?;
        match self.uses {
            Some(uses) => write!(f, "; threads, children and that process hold it {uses} times"),
            None => Ok(()),
        }
    }
}

impl PagJson {
    /// What is known of the PAG, for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let ring = self.ring.map_or("unusable".to_owned(), |ring| ring.to_string());
        let mut lines = vec![format!("PAG {} of {}, ring {ring}", self.pag, User(self.uid))];
        for trouble in self.trouble.iter().flatten() {
            lines.push(format!("  trouble    {trouble}"));
        }
        if let Some(version) = self.newer {
            lines.push(format!(
                "  record     of version {version}, left alone: this release renews no tokens there and does not end it"
            ));
        }
        let mut line = |name: &str, value: Option<String>| {
            lines.extend(value.map(|value| format!("  {name:<10} {value}")));
        };
        line("principal", self.principal.clone());
        line("ccache", self.ccache.clone());
        line(
            "ticket",
            self.kind
                .is_some()
                .then(|| self.ticket.map_or("none".to_owned(), |end| format!("until {}", local_until(end)))),
        );
        line(
            "kind",
            self.kind.as_ref().map(|kind| format!("{kind}, retain {}", self.retain.as_deref().unwrap_or("-"))),
        );
        line("follows", self.follows.as_ref().map(|pag| format!("PAG {pag}")));
        line("chosen", self.chosen.filter(|chosen| *chosen).map(|_| "for the user's services to follow".to_owned()));
        for LeaseJson { role, pid, service, tty, alive, sessions } in self.leases.iter().flatten() {
            let tty = tty.as_deref().unwrap_or("-");
            let ended = if *alive { "" } else { " (ended)" };
            let sessions = sessions.filter(|number| *number > 1).map(|number| format!(", {number} sessions"));
            lines.push(format!("  lease      {role} {service} {tty} pid {pid}{}{ended}", sessions.unwrap_or_default()));
        }
        lines.extend(self.tokens.iter().flat_map(|tokens| token_lines(tokens)));
        lines
    }
}

/// A line for each token of a PAG.
pub(crate) fn token_lines(tokens: &[TokenJson]) -> Vec<String> {
    if tokens.is_empty() {
        return vec!["  no tokens".to_owned()];
    }
    let line = |token: &TokenJson| {
        let identity = token.identity().map(|identity| format!(" as {identity}")).unwrap_or_default();
        let state = token.lasts().unwrap_or_else(|| token.state.clone());
        format!("  token      {}{identity} {state} ({})", token.cell, token.client)
    };
    tokens.iter().map(line).collect()
}

/// A time in seconds since the epoch; 0 stands for one that is not known.
pub(crate) fn known_time(seconds: u64) -> Option<u64> {
    Some(seconds).filter(|seconds| *seconds > 0)
}

/// A terminal. The record and the helper have `-` for none.
pub(crate) fn known_tty(tty: String) -> Option<String> {
    Some(tty).filter(|tty| !tty.is_empty() && tty != "-")
}

/// For a sentence about the tokens of one cell, or of all.
pub(crate) fn of_cell(cell: Option<&Cell>) -> String {
    cell.map_or(String::new(), |cell| format!(" of cell {cell}"))
}

/// Which AFS client is configured and not loaded, and what helps.
pub(crate) fn missing_client(settings: &Settings) -> Option<String> {
    MissingClients::find(settings, &Client::present(settings)).map(|missing| missing.to_string())
}

/// The name of a user.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    sys::passwd(Who::Uid(uid)).ok().flatten().map(|user| user.name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::schema;

    fn token(expires: u64, state: TokenState) -> Token {
        let (cell, principal) = ("example.test".parse().unwrap(), None);
        Token { client: Client::OpenAfs, cell, principal, vice_id: Some(1001), kind: None, expires, state }
    }

    #[test]
    fn what_is_not_known_of_a_token_is_null() {
        let json = |expires, state| {
            let json = serde_json::to_value(TokenJson::from(&token(expires, state))).unwrap();
            schema::check("token", &json);
            json
        };
        let (null, unknown) = (serde_json::Value::Null, json(0, TokenState::Expired));
        for key in ["principal", "kind", "expires"] {
            assert_eq!(unknown.get(key), Some(&null), "{key}");
        }
        assert_eq!((&unknown["expired"], &unknown["state"]), (&true.into(), &"expired".into()));
        let good = json(9, TokenState::Good);
        assert_eq!((&good["expires"], &good["expired"], &good["vice_id"]), (&9.into(), &false.into(), &1001.into()));
    }

    #[test]
    fn a_line_tells_no_end_that_is_not_known() {
        let tokens = [(1, TokenState::Expired), (0, TokenState::Good), (pag::sys::now() + 60, TokenState::Good)];
        let lines = token_lines(&tokens.map(|(expires, state)| TokenJson::from(&token(expires, state))));
        assert_eq!(lines[0], "  token      example.test as AFS id 1001 expired (openafs)");
        assert_eq!(lines[1], "  token      example.test as AFS id 1001 good (openafs)");
        assert!(lines[2].starts_with("  token      example.test as AFS id 1001 until 2"), "{}", lines[2]);
        assert_eq!(token_lines(&[]), ["  no tokens"]);
    }
}
