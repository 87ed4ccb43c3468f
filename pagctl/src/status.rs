//! `pagctl status`: the PAG of the caller, and all PAGs for root.

use std::time::{Duration, Instant};

use pag::config::{self, Dirs};
use pag::guard::{Guard, HandleGroup};
use pag::process_ring::{Kind, ProcessRing};
use pag::report::User;
use pag::store::record::{Record, Unreadable};
use pag::store::registry::{Pag, Registry};
use pag::store::ring::{Enter, Ring};
use pag::{afs, membership, sys};
use serde::Serialize;

use crate::output::{
    self, Answer, LeaseJson, MakerJson, PagJson, TokenJson, known_time, missing_client, out, token_lines, user_name,
};

/// Longest wait for the tokens of one ring.
const LOOK: Duration = Duration::from_secs(2);

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Status {
    /// The PAG that the caller is in, as far as the caller can see it.
    mine: Option<Mine>,
    /// All PAGs, for root.
    all: Option<Vec<PagJson>>,
    /// Which AFS client is configured and not loaded, and what helps.
    missing_client: Option<String>,
}

#[derive(Debug, Serialize)]
struct Mine {
    ring: i32,
    /// The owner of the ring; none where this user namespace does not show it.
    uid: Option<u32>,
    /// The process that made the PAG for itself.
    maker: Option<MakerJson>,
    tokens: Option<Vec<TokenJson>>,
    /// Why the tokens could not be read.
    trouble: Vec<String>,
}

/// Prints the status. There is something to do for a caller in no PAG, and for root when there are no PAGs.
///
/// # Errors
/// When root cannot read the registry.
pub(crate) fn run(json: bool) -> pag::Result<Answer> {
    let (settings, _) = config::host(&Dirs::default());
    let missing_client = missing_client(&settings);
    let status = Status { mine: mine(), all: all()?, missing_client };
    if json {
        output::json(&status);
    } else {
        out!("{}", words(&status));
    }
    let some = status.mine.is_some() || status.all.is_some_and(|all| !all.is_empty());
    Ok(if some { Answer::AllRight } else { Answer::ToDo })
}

fn tokens(ring: &dyn Enter) -> pag::Result<Vec<TokenJson>> {
    Ok(afs::tokens(ring, Instant::now() + LOOK)?.iter().map(TokenJson::from).collect())
}

fn mine() -> Option<Mine> {
    let ring = Ring::current();
    let of_process = ProcessRing::current().filter(|(_, kind)| *kind == Kind::Pag).map(|(ring, _)| ring);
    let maker = of_process.as_ref().map(MakerJson::from);
    // A process makes a ring as its own uid.
    let owner = || ring.map_or_else(|| sys::ids().fsuid, |ring| ring.owner);
    let uid = membership::ids_are_visible().then(owner);
    let ring: &dyn Enter = match (&ring, &of_process) {
        (Some(ring), _) => ring,
        (None, ring) => ring.as_ref()?,
    };
    let (tokens, trouble) = match tokens(ring) {
        Ok(tokens) => (Some(tokens), Vec::new()),
        Err(why) => (None, vec![why.to_string()]),
    };
    Some(Mine { ring: ring.serial().get(), uid, maker, tokens, trouble })
}

/// All PAGs; none for callers that are not root, since only root can read records.
fn all() -> pag::Result<Option<Vec<PagJson>>> {
    let group = HandleGroup::read();
    let guard = match Guard::enter(group) {
        Ok(guard) => guard,
        Err(pag::Error::NotRoot) => return Ok(None),
        Err(other) => return Err(other),
    };
    let Some(registry) = Registry::find(&guard)? else { return Ok(Some(Vec::new())) };
    let mut pags = registry.pags(&guard)?;
    drop(guard);
    pags.sort_by_key(|pag| (pag.uid, pag.record.as_ref().map_or(0, |record| record.made), pag.id));
    Ok(Some(pags.iter().map(one).collect()))
}

fn one(pag: &Pag) -> PagJson {
    let mut trouble = Vec::new();
    let found = match &pag.ring {
        Ok(ring) => tokens(ring).map_err(|why| trouble.push(why.to_string())).ok(),
        Err(why) => {
            trouble.push(format!("its ring cannot be used: {why}"));
            None
        }
    };
    let (mut record, mut newer): (Option<&Record>, _) = (None, None);
    match &pag.record {
        Ok(known) => record = Some(known),
        Err(Unreadable::Foreign(version)) => newer = Some(*version),
        Err(why) => trouble.push(why.to_string()),
    }
    PagJson {
        pag: pag.id.to_string(),
        uid: pag.uid,
        user: user_name(pag.uid),
        ring: pag.ring.as_ref().ok().map(|ring| ring.serial.get()),
        kind: record.map(|record| record.kind.as_str().to_owned()),
        made: record.and_then(|record| known_time(record.made)),
        principal: record.and_then(|record| record.principal.as_ref()).map(ToString::to_string),
        ticket: record.and_then(|record| known_time(record.ticket)),
        retain: record.map(|record| record.retain.to_string()),
        follows: record.and_then(|record| record.follows).map(|pag| pag.to_string()),
        chosen: record.map(|record| record.chosen),
        leases: record.map(|record| record.leases.iter().map(LeaseJson::from).collect()),
        tokens: found,
        ccache: record.map(|record| record.ccache.clone()),
        trouble: Some(trouble),
        newer,
    }
}

/// The status for people.
fn words(status: &Status) -> String {
    let mut lines = Vec::new();
    match &status.mine {
        Some(mine) => {
            let owner = match mine.uid {
                Some(uid) => User(uid).to_string(),
                None => "an owner that this user namespace does not show".to_owned(),
            };
            let maker = mine.maker.as_ref().map(|maker| format!(", {maker}")).unwrap_or_default();
            lines.push(format!("You are in a PAG: ring {} of {owner}{maker}.", mine.ring));
            lines.extend(mine.trouble.iter().map(|why| format!("  {why}")));
            lines.extend(mine.tokens.iter().flat_map(|tokens| token_lines(tokens)));
        }
        None => lines.push("You are in no PAG.".to_owned()),
    }
    for pag in status.all.iter().flatten() {
        lines.push(String::new());
        lines.extend(pag.lines());
    }
    if status.all.as_ref().is_some_and(Vec::is_empty) {
        lines.push("There are no PAGs on this host.".to_owned());
    }
    if let Some(missing) = &status.missing_client {
        lines.push(format!("No login gets tokens of AFS: {missing}."));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_say_what_there_is_and_what_there_is_not() {
        let outside = words(&Status { mine: None, all: None, missing_client: None });
        assert_eq!(outside, "You are in no PAG.\n");
        let mine = |tokens, trouble| Some(Mine { ring: 7, uid: Some(4_294_967_294), maker: None, tokens, trouble });
        let inside = words(&Status { mine: mine(Some(vec![]), vec![]), all: Some(vec![]), missing_client: None });
        let status = Status { mine: None, all: None, missing_client: Some("OpenAFS".to_owned()) };
        output::schema::check("status", &serde_json::to_value(&status).unwrap());
        assert!(inside.starts_with("You are in a PAG: ring 7 of uid 4294967294.\n  no tokens\n"), "{inside}");
        assert!(inside.contains("no PAGs"), "{inside}");
        let trouble = vec!["cannot list the tokens".to_owned()];
        let unread = words(&Status { mine: mine(None, trouble), all: None, missing_client: None });
        assert!(unread.ends_with("of uid 4294967294.\n  cannot list the tokens\n"), "{unread}");
    }
}
