//! `pagctl tokens` and `unlog`.

use std::time::{Duration, Instant};

use pag::afs::{self, State, Token};
use pag::config::{Cell, Settings};
use pag::membership::{Membership, OpenAfs};
use serde::Serialize;

use super::OpenAfsId;
use crate::output::{Answer, Error, left, out, outln};

/// Longest time that a client may take: OpenAFS's module may wait for a server.
const LIMIT: Duration = Duration::from_secs(10);

/// What `pagctl tokens --json` prints.
#[derive(Debug, Serialize)]
struct Tokens {
    /// Whether the caller is in a PAG, for any client.
    member: bool,
    openafs: OpenAfsId,
    tokens: Vec<OneToken>,
}

#[derive(Debug, Serialize)]
struct OneToken {
    client: &'static str,
    cell: String,
    principal: Option<String>,
    vice_id: Option<i64>,
    kind: Option<&'static str>,
    /// In seconds since the epoch, where the client tells it.
    expires: Option<u64>,
    state: &'static str,
}

impl From<&Token> for OneToken {
    fn from(token: &Token) -> Self {
        OneToken {
            client: token.client.as_str(),
            cell: token.cell.to_string(),
            principal: token.principal.as_ref().map(ToString::to_string),
            vice_id: token.vice_id,
            kind: token.kind.map(|kind| kind.as_str()),
            expires: Some(token.expires).filter(|end| *end > 0),
            state: token.state.as_str(),
        }
    }
}

/// Shows them. There is something to do when none is good.
///
/// # Errors
/// When they cannot be looked at.
pub(super) fn show(settings: &Settings, json: bool) -> Result<Answer, Error> {
    let here = Membership::here(settings);
    let tokens = afs::tokens_here(Instant::now() + LIMIT)?;
    if json {
        let told = Tokens {
            member: here.is_one(),
            openafs: OpenAfsId::from(&here.openafs),
            tokens: tokens.iter().map(OneToken::from).collect(),
        };
        outln!("{}", serde_json::to_string_pretty(&told).unwrap_or_default());
    } else {
        out!("{}", words(&here, &tokens));
    }
    let some_good = tokens.iter().any(|token| token.state == State::Good);
    Ok(if some_good { Answer::AllRight } else { Answer::ToDo })
}

/// The tokens for people, and what they may miss among them.
fn words(here: &Membership, tokens: &[Token]) -> String {
    let mut text = String::new();
    if !here.is_one() {
        text.push_str("You are in no PAG.\n");
    }
    match &here.openafs {
        OpenAfs::Outside => text.push_str(
            "You are in no PAG of OpenAFS. Tokens that your uid has there are for all its processes outside of PAGs, and are \
             not shown.\n",
        ),
        OpenAfs::Silent(why) => text.push_str(&format!("OpenAFS does not tell in which PAG you are: {why}.\n")),
        OpenAfs::Absent | OpenAfs::Pag(_) => {}
    }
    if tokens.is_empty() {
        text.push_str(if here.is_one() { "This PAG has no tokens.\n" } else { "There are no tokens of a PAG.\n" });
        return text;
    }
    let rows: Vec<[String; 5]> = tokens.iter().map(row).collect();
    let head = ["CELL", "WHOSE", "CLIENT", "KIND", "STATE"].map(str::to_owned);
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    for row in [&head].into_iter().chain(&rows) {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:0$}", width(column)));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(token: &Token) -> [String; 5] {
    let whose = match (&token.principal, token.vice_id) {
        (Some(principal), _) => principal.to_string(),
        (None, Some(id)) => format!("AFS id {id}"),
        (None, None) => "-".to_owned(),
    };
    let state = match (token.state, token.expires) {
        (State::Good, 0) => "good".to_owned(),
        (State::Good, end) => format!("good for {}", left(end)),
        (state, _) => state.as_str().to_owned(),
    };
    let kind = token.kind.map_or("-", |kind| kind.as_str()).to_owned();
    [token.cell.to_string(), whose, token.client.to_string(), kind, state]
}

/// Discards them, of one cell or all. What OpenAFS has for the bare uid is everybody's who has it, and is left alone.
///
/// # Errors
/// When a client refuses.
pub(super) fn unlog(settings: &Settings, cell: Option<&Cell>) -> Result<Answer, Error> {
    let here = Membership::here(settings);
    if !here.is_one() {
        outln!("You are in no PAG, so nothing was discarded.");
        outln!("{}", remedy(&here));
        return Ok(Answer::ToDo);
    }
    let of_cell = |tokens: &[Token]| tokens.iter().filter(|token| cell.is_none_or(|cell| token.cell == *cell)).count();
    let before = of_cell(&afs::tokens_here(Instant::now() + LIMIT)?);
    // Also where none was seen: a key that is garbled is none, and one too many in a crowded ring.
    afs::discard_here(cell, Instant::now() + LIMIT)?;
    let after = of_cell(&afs::tokens_here(Instant::now() + LIMIT)?);
    let of = cell.map_or(String::new(), |cell| format!(" of cell {cell}"));
    if after > 0 {
        return Err(Error::TokensLeft(after));
    }
    match before {
        0 => outln!("This PAG has no tokens{of}."),
        1 => outln!("Discarded one token{of}."),
        several => outln!("Discarded {several} tokens{of}."),
    }
    match here.openafs {
        OpenAfs::Outside => {
            outln!("You are in no PAG of OpenAFS. {}", remedy(&here));
            Ok(Answer::ToDo)
        }
        _ => Ok(Answer::AllRight),
    }
}

/// What there may be besides, and whose that is.
fn remedy(here: &Membership) -> &'static str {
    match here.openafs {
        OpenAfs::Outside => {
            "Tokens there are for every process of your uid outside of PAGs; OpenAFS's own unlog(1) discards those."
        }
        _ if here.serves_nobody() => "This host has no AFS client that is served.",
        _ => "`pagctl new` makes one.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pag::afs::{Client, Kind};
    use pag::keyring::Serial;

    fn here(openafs: OpenAfs) -> Membership {
        Membership { session: Serial::new(7), ring: None, untold: false, openafs, by_session: vec![Client::Kafs] }
    }

    fn token(expires: u64, state: State) -> Token {
        Token {
            client: Client::OpenAfs,
            cell: "example.test".parse().unwrap(),
            principal: None,
            vice_id: Some(1001),
            kind: Some(Kind::Rxkad),
            expires,
            state,
        }
    }

    #[test]
    fn a_table_says_of_each_token_what_its_client_tells() {
        let other = Token {
            client: Client::Kafs,
            cell: "a.test".parse().unwrap(),
            vice_id: None,
            kind: None,
            ..token(0, State::Good)
        };
        let text = words(&here(OpenAfs::Pag(1)), &[token(5, State::Expired), other]);
        assert_eq!(
            text,
            "CELL          WHOSE        CLIENT   KIND   STATE\n\
             example.test  AFS id 1001  openafs  rxkad  expired\n\
             a.test        -            kafs     -      good\n"
        );
    }

    #[test]
    fn who_is_in_no_pag_of_openafs_is_told_so() {
        let text = words(&here(OpenAfs::Outside), &[]);
        assert!(
            text.starts_with("You are in no PAG of OpenAFS.") && text.ends_with("This PAG has no tokens.\n"),
            "{text}"
        );
        assert!(!words(&here(OpenAfs::Absent), &[]).contains("OpenAFS"));
        let nowhere = Membership { by_session: Vec::new(), ..here(OpenAfs::Outside) };
        let text = words(&nowhere, &[]);
        assert!(text.starts_with("You are in no PAG.\n") && text.ends_with("no tokens of a PAG.\n"), "{text}");
        let silent = words(&here(OpenAfs::Silent(std::io::Error::from_raw_os_error(5))), &[]);
        assert!(silent.starts_with("OpenAFS does not tell"), "{silent}");
    }

    #[test]
    fn an_end_that_is_not_known_is_none_in_json() {
        assert_eq!(OneToken::from(&token(0, State::Good)).expires, None);
        assert_eq!(OneToken::from(&token(9, State::Good)).expires, Some(9));
    }
}
