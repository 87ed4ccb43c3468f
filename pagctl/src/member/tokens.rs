//! `pagctl tokens` and `unlog`: the tokens of the PAG that this process is in.

use std::time::{Duration, Instant};

use pag::afs;
use pag::config::Settings;
use pag::membership::{Membership, OpenAfs};
use pag::types::{Cell, Token, TokenState};
use serde::Serialize;

use super::id::{NO_CLIENT, OpenAfsJson};
use crate::output::{self, ActionJson, Answer, Error, TokenJson, missing_client, of_cell, out, outln, table};

/// Longest wait for the clients: OpenAFS's module may wait for a server.
const LIMIT: Duration = Duration::from_secs(10);

/// What `pagctl tokens --json` prints.
#[derive(Debug, Serialize)]
struct Tokens {
    /// Whether the caller is in a PAG, for any client.
    member: bool,
    openafs: OpenAfsJson,
    tokens: Vec<TokenJson>,
    /// Which AFS client is configured and not loaded, and what helps.
    missing_client: Option<String>,
}

/// Shows the tokens. There is something to do when none is good.
///
/// # Errors
/// When the ring cannot be read.
pub(super) fn show(settings: &Settings, json: bool) -> Result<Answer, Error> {
    let here = Membership::here(settings);
    let tokens = afs::tokens_here(Instant::now() + LIMIT)?;
    let some_good = tokens.iter().any(|token| token.state == TokenState::Good);
    let tokens = tokens.iter().map(TokenJson::from).collect();
    let missing_client = missing_client(settings);
    let found = Tokens { member: here.is_in_pag(), openafs: OpenAfsJson::from(&here.openafs), tokens, missing_client };
    if json {
        output::json(&found);
    } else {
        out!("{}", words(&here, found.missing_client.as_deref(), &found.tokens));
    }
    Ok(if some_good { Answer::AllRight } else { Answer::ToDo })
}

/// The tokens for people, and which tokens may be missing there.
fn words(here: &Membership, missing: Option<&str>, tokens: &[TokenJson]) -> String {
    let mut text = String::new();
    if !here.is_in_pag() {
        text.push_str("You are in no PAG.\n");
    }
    match &here.openafs {
        OpenAfs::Outside => text.push_str(
            "You are in no PAG of OpenAFS. Tokens that OpenAFS has for your uid serve all its processes outside of PAGs; \
             they are not shown.\n",
        ),
        OpenAfs::Silent(why) => text.push_str(&format!("OpenAFS does not tell which PAG you are in: {why}.\n")),
        OpenAfs::Absent | OpenAfs::Pag(_) => {}
    }
    if let Some(missing) = missing {
        text.push_str(&format!("There are no tokens of AFS: {missing}.\n"));
    }
    if tokens.is_empty() {
        return text + if here.is_in_pag() { "This PAG has no tokens.\n" } else { "There are no tokens of a PAG.\n" };
    }
    let head = ["CELL", "IDENTITY", "CLIENT", "KIND", "STATE"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(tokens.iter().map(row)).collect();
    text + &table("", &rows)
}

fn row(token: &TokenJson) -> [String; 5] {
    let identity = token.identity().unwrap_or_else(|| "-".to_owned());
    let state = token.lasts().map_or_else(|| token.state.clone(), |lasts| format!("good {lasts}"));
    let kind = token.kind.unwrap_or("-").to_owned();
    [token.cell.clone(), identity, token.client.clone(), kind, state]
}

/// Discards the tokens, of one cell or all. OpenAFS's tokens for the bare uid serve processes outside of this PAG and stay.
///
/// # Errors
/// When a client refuses.
pub(super) fn unlog(settings: &Settings, cell: Option<&Cell>, json: bool) -> Result<Answer, Error> {
    let here = Membership::here(settings);
    if !here.is_in_pag() {
        let lines = ["You are in no PAG, so nothing was discarded.".to_owned(), remedy(&here)];
        return Ok(told(&here, &lines, None, Answer::ToDo, json));
    }
    let number = |tokens: &[Token]| tokens.iter().filter(|token| cell.is_none_or(|cell| token.cell == *cell)).count();
    let before = number(&afs::tokens_here(Instant::now() + LIMIT)?);
    // Also where no token was seen: a garbled key is not listed as one, nor is the last in a crowded ring.
    afs::discard_here(cell, Instant::now() + LIMIT)?;
    let left = afs::tokens_here(Instant::now() + LIMIT)?;
    let (after, of) = (number(&left), of_cell(cell));
    if after > 0 {
        return Err(Error::Refused(format!(
            "{after} tokens are still there: this process has no right to take them out of its session keyring; \
             `pagctl new` leaves them behind"
        )));
    }
    let mut lines = vec![match before {
        0 => format!("This PAG has no tokens{of}."),
        1 => format!("Discarded one token{of}."),
        several => format!("Discarded {several} tokens{of}."),
    }];
    let mut answer = Answer::AllRight;
    if matches!(here.openafs, OpenAfs::Outside) {
        lines.push(format!("You are in no PAG of OpenAFS. {}", remedy(&here)));
        answer = Answer::ToDo;
    }
    Ok(told(&here, &lines, Some(&left), answer, json))
}

/// Prints what was discarded, and which tokens are left.
fn told(here: &Membership, lines: &[String], left: Option<&[Token]>, answer: Answer, json: bool) -> Answer {
    if json {
        let action = ActionJson::new("unlog", None, answer == Answer::AllRight, lines.join(" "));
        let action = match here.ring {
            Some(ring) => action.of(ring.owner),
            None => action,
        };
        let tokens = left.map(|left| left.iter().map(TokenJson::from).collect());
        output::json(&[ActionJson { tokens, ..action }]);
    } else {
        lines.iter().for_each(|line| outln!("{line}"));
    }
    answer
}

/// What the user can do who is in no PAG, or in none of OpenAFS.
fn remedy(here: &Membership) -> String {
    match here.openafs {
        OpenAfs::Outside => "Tokens that OpenAFS has for your uid serve all its processes outside of PAGs; \
                             OpenAFS's own unlog(1) discards those."
            .to_owned(),
        _ if here.has_no_client() => format!("There is nothing to discard: {NO_CLIENT}."),
        _ => "`pagctl new` makes one.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pag::keyring::Serial;
    use pag::types::{Client, TokenKind};

    fn here(openafs: OpenAfs) -> Membership {
        Membership {
            session: Serial::new(7),
            ring: None,
            process_ring: None,
            unproven: false,
            openafs,
            by_session: vec![Client::Kafs],
        }
    }

    fn token(expires: u64, state: TokenState) -> Token {
        Token {
            client: Client::OpenAfs,
            cell: "example.test".parse().unwrap(),
            principal: None,
            vice_id: Some(1001),
            kind: Some(TokenKind::Rxkad),
            expires,
            state,
        }
    }

    #[test]
    fn the_table_shows_what_each_client_tells_of_its_tokens() {
        let other = Token {
            client: Client::Kafs,
            cell: "a.test".parse().unwrap(),
            vice_id: None,
            kind: None,
            ..token(0, TokenState::Good)
        };
        let text = words(
            &here(OpenAfs::Pag(1)),
            None,
            &[TokenJson::from(&token(5, TokenState::Expired)), TokenJson::from(&other)],
        );
        assert_eq!(
            text,
            "CELL          IDENTITY     CLIENT   KIND   STATE\n\
             example.test  AFS id 1001  openafs  rxkad  expired\n\
             a.test        -            kafs     -      good\n"
        );
    }

    #[test]
    fn json_has_the_shape_of_its_page() {
        let tokens = vec![TokenJson::from(&token(0, TokenState::Good))];
        let told = Tokens { member: true, openafs: (&OpenAfs::Absent).into(), tokens, missing_client: None };
        output::schema::check("tokens", &serde_json::to_value(&told).unwrap());
    }

    #[test]
    fn a_user_in_no_pag_of_openafs_is_told_so() {
        let text = words(&here(OpenAfs::Outside), None, &[]);
        assert!(
            text.starts_with("You are in no PAG of OpenAFS.") && text.ends_with("This PAG has no tokens.\n"),
            "{text}"
        );
        assert!(!words(&here(OpenAfs::Absent), None, &[]).contains("OpenAFS"));
        let nowhere = Membership { by_session: Vec::new(), ..here(OpenAfs::Outside) };
        let text = words(&nowhere, None, &[]);
        assert!(text.starts_with("You are in no PAG.\n") && text.ends_with("no tokens of a PAG.\n"), "{text}");
        let silent = words(&here(OpenAfs::Silent(std::io::Error::from_raw_os_error(5))), None, &[]);
        assert!(silent.starts_with("OpenAFS does not tell"), "{silent}");
    }
}
