//! `pagctl status`: my PAG, and for root all of them.

use std::time::{Duration, Instant};

use pag::afs::{self, State, Token};
use pag::guard::{Guard, HandleGroup};
use pag::membership;
use pag::store::lease::Lease;
use pag::store::record::{Record, Unreadable};
use pag::store::registry::{Pag, Registry};
use pag::store::ring::Ring;
use pag::sys::{self, Who};
use serde::Serialize;

use crate::output::{Answer, left, out, outln};

/// Longest time that a look into one ring may take.
const LOOK: Duration = Duration::from_secs(2);

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Status {
    /// The PAG that the caller is in, as far as he can see it.
    mine: Option<Mine>,
    /// All PAGs; only root is shown them.
    #[serde(skip_serializing_if = "Option::is_none")]
    all: Option<Vec<OnePag>>,
}

#[derive(Debug, Serialize)]
struct Mine {
    ring: i32,
    /// Its owner; none where this user namespace does not show it.
    uid: Option<u32>,
    tokens: Vec<OneToken>,
}

#[derive(Debug, Serialize)]
struct OnePag {
    pag: String,
    uid: u32,
    user: Option<String>,
    /// None when the ring cannot be used; `trouble` says why.
    ring: Option<i32>,
    trouble: Vec<String>,
    /// The version of its record, where a newer release has written it: it is left alone then.
    newer: Option<u32>,
    kind: Option<&'static str>,
    principal: Option<String>,
    ccache: Option<String>,
    /// End of the ticket in the PAG's ccache, in seconds since the epoch.
    ticket: Option<u64>,
    retain: Option<String>,
    /// The PAG whose tokens the services in this one have besides.
    follows: Option<String>,
    /// Whether somebody has chosen it, for his services to follow.
    chosen: bool,
    leases: Vec<OneLease>,
    tokens: Vec<OneToken>,
}

#[derive(Debug, Serialize)]
struct OneToken {
    client: &'static str,
    cell: String,
    principal: Option<String>,
    vice_id: Option<i64>,
    /// In seconds since the epoch; 0 where the client does not tell it.
    expires: u64,
    expired: bool,
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct OneLease {
    role: &'static str,
    pid: i32,
    service: String,
    tty: String,
    alive: bool,
    sessions: u32,
}

impl From<Token> for OneToken {
    fn from(token: Token) -> Self {
        OneToken {
            client: token.client.as_str(),
            cell: token.cell.to_string(),
            principal: token.principal.map(|principal| principal.to_string()),
            vice_id: token.vice_id,
            expires: token.expires,
            expired: token.state == State::Expired,
            state: token.state.as_str(),
        }
    }
}

impl From<&Lease> for OneLease {
    fn from(lease: &Lease) -> Self {
        OneLease {
            role: lease.role.as_str(),
            pid: lease.process.pid,
            service: lease.service.to_string(),
            tty: lease.tty.to_string(),
            alive: lease.process.is_alive(),
            sessions: lease.sessions,
        }
    }
}

/// Looks and prints. There is something to do for a caller who is in no PAG, and for root when there are none.
///
/// # Errors
/// When root cannot read the registry.
pub(crate) fn run(json: bool) -> pag::Result<Answer> {
    let status = Status { mine: mine(), all: all()? };
    if json {
        let text = serde_json::to_string_pretty(&status).unwrap_or_default();
        outln!("{text}");
    } else {
        out!("{}", words(&status));
    }
    let some = status.mine.is_some() || status.all.is_some_and(|all| !all.is_empty());
    Ok(if some { Answer::AllRight } else { Answer::ToDo })
}

fn tokens(ring: &Ring) -> pag::Result<Vec<OneToken>> {
    Ok(afs::tokens(ring, Instant::now() + LOOK)?.into_iter().map(OneToken::from).collect())
}

fn mine() -> Option<Mine> {
    let ring = Ring::current()?;
    let uid = Some(ring.owner).filter(|_| membership::ids_are_told());
    Some(Mine { ring: ring.serial.get(), uid, tokens: tokens(&ring).unwrap_or_default() })
}

/// None for callers that are not root: records are root's.
fn all() -> pag::Result<Option<Vec<OnePag>>> {
    let group = HandleGroup::read();
    let guard = match Guard::enter(group) {
        Ok(guard) => guard,
        Err(pag::Error::NotRoot) => return Ok(None),
        Err(other) => return Err(other),
    };
    let Some(registry) = Registry::find(&guard, group)? else { return Ok(Some(Vec::new())) };
    let mut pags = registry.pags(&guard)?;
    drop(guard);
    pags.sort_by_key(|pag| (pag.uid, pag.record.as_ref().map_or(0, |record| record.made), pag.id));
    Ok(Some(pags.iter().map(one).collect()))
}

fn one(pag: &Pag) -> OnePag {
    let mut trouble = Vec::new();
    let found = match &pag.ring {
        Ok(ring) => tokens(ring).unwrap_or_else(|why| {
            trouble.push(why.to_string());
            Vec::new()
        }),
        Err(why) => {
            trouble.push(format!("its ring cannot be used: {why}"));
            Vec::new()
        }
    };
    let (mut record, mut newer): (Option<&Record>, _) = (None, None);
    match &pag.record {
        Ok(known) => record = Some(known),
        Err(Unreadable::Foreign(version)) => newer = Some(*version),
        Err(why) => trouble.push(why.to_string()),
    }
    let user = sys::passwd(Who::Uid(pag.uid)).ok().flatten();
    OnePag {
        pag: pag.id.to_string(),
        uid: pag.uid,
        user: user.map(|user| user.name.to_string_lossy().into_owned()),
        ring: pag.ring.as_ref().ok().map(|ring| ring.serial.get()),
        kind: record.map(|record| record.kind.as_str()),
        principal: record.and_then(|record| record.principal.as_ref()).map(ToString::to_string),
        ccache: record.map(|record| record.ccache.clone()),
        ticket: record.map(|record| record.ticket).filter(|ticket| *ticket > 0),
        retain: record.map(|record| record.retain.to_string()),
        follows: record.and_then(|record| record.follows).map(|pag| pag.to_string()),
        chosen: record.is_some_and(|record| record.chosen),
        leases: record.map_or(&[][..], |record| &record.leases).iter().map(OneLease::from).collect(),
        tokens: found,
        trouble,
        newer,
    }
}

/// The status for people.
fn words(status: &Status) -> String {
    let mut text = String::new();
    match &status.mine {
        Some(mine) => {
            let whose = match mine.uid {
                Some(uid) => format!("of uid {uid}"),
                None => "of an owner that this user namespace does not show".to_owned(),
            };
            text.push_str(&format!("You are in a PAG: ring {} {whose}.\n", mine.ring));
            text.push_str(&token_lines(&mine.tokens, "  "));
        }
        None => text.push_str("You are in no PAG.\n"),
    }
    for pag in status.all.iter().flatten() {
        let user = pag.user.as_deref().unwrap_or("?");
        let ring = pag.ring.map_or("unusable".to_owned(), |ring| ring.to_string());
        text.push_str(&format!("\nPAG {} of {user} (uid {}), ring {ring}\n", pag.pag, pag.uid));
        for trouble in &pag.trouble {
            text.push_str(&format!("  trouble    {trouble}\n"));
        }
        if let Some(version) = pag.newer {
            text.push_str(&format!(
                "  record     of version {version}, left alone: this release renews no tokens there and does not end it\n"
            ));
        }
        if let Some(principal) = &pag.principal {
            text.push_str(&format!("  principal  {principal}\n"));
        }
        if let Some(ccache) = &pag.ccache {
            let until = pag.ticket.map_or("no ticket".to_owned(), |end| format!("ticket for {}", left(end)));
            text.push_str(&format!("  ccache     {ccache}, {until}\n"));
        }
        if let Some(followed) = &pag.follows {
            text.push_str(&format!("  follows    PAG {followed}\n"));
        }
        if pag.chosen {
            text.push_str("  chosen     for the user's services to follow\n");
        }
        for lease in &pag.leases {
            let dead = if lease.alive { "" } else { " (ended)" };
            let OneLease { role, pid, service, tty, .. } = lease;
            let many = if lease.sessions > 1 { format!(", {} sessions", lease.sessions) } else { String::new() };
            text.push_str(&format!("  lease      {role} {service} {tty} pid {pid}{many}{dead}\n"));
        }
        text.push_str(&token_lines(&pag.tokens, "  "));
    }
    if status.all.as_ref().is_some_and(Vec::is_empty) {
        text.push_str("There are no PAGs on this host.\n");
    }
    text
}

fn token_lines(tokens: &[OneToken], indent: &str) -> String {
    if tokens.is_empty() {
        return format!("{indent}no tokens\n");
    }
    let line = |token: &OneToken| {
        let who = match (&token.principal, token.vice_id) {
            (Some(principal), _) => principal.clone(),
            (None, Some(id)) => format!("AFS id {id}"),
            (None, None) => "somebody".to_owned(),
        };
        let until = match token.expires {
            0 => token.state.to_owned(),
            end => format!("for {}", left(end)),
        };
        format!("{indent}token      {} as {who} {until} ({})\n", token.cell, token.client)
    };
    tokens.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_say_what_there_is_and_what_there_is_not() {
        let outside = words(&Status { mine: None, all: None });
        assert_eq!(outside, "You are in no PAG.\n");
        let token = OneToken {
            client: "keyring",
            cell: "example.test".to_owned(),
            principal: Some("alice@EXAMPLE.TEST".to_owned()),
            vice_id: None,
            expires: 1,
            expired: true,
            state: "expired",
        };
        let unread = OneToken {
            client: "kafs",
            cell: "a.test".to_owned(),
            principal: None,
            vice_id: Some(1001),
            expires: 0,
            expired: false,
            state: "good",
        };
        let inside = words(&Status {
            mine: Some(Mine { ring: 7, uid: Some(61001), tokens: vec![token, unread] }),
            all: Some(vec![]),
        });
        assert!(inside.contains("ring 7 of uid 61001"), "{inside}");
        assert!(inside.contains("example.test as alice@EXAMPLE.TEST for no time"), "{inside}");
        assert!(inside.contains("a.test as AFS id 1001 good (kafs)"), "{inside}");
        assert!(inside.contains("no PAGs"), "{inside}");
    }
}
