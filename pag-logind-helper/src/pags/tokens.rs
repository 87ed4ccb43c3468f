//! Compares the tokens that a record names with those that are in the ring: pure functions.

use std::collections::BTreeSet;

use pag::store::record::{Held, Record};
use pag::types::{Cell, Client, Token, TokenState};

/// Whether the record names a token that has not expired.
pub(crate) fn are_named(record: &Record, now: u64) -> bool {
    record.tokens.iter().any(|token| token.expires > now)
}

/// Whether a token that the record names is not among `tokens`, though it has not expired.
pub(crate) fn are_missing(record: &Record, tokens: &[Token], now: u64) -> bool {
    let is_it = |token: &Token, held: &Held| token.client == held.client && token.cell == held.cell;
    let is_there = |held: &Held| tokens.iter().any(|token| token.state == TokenState::Good && is_it(token, held));
    record.tokens.iter().any(|held| held.expires > now && !is_there(held))
}

/// The cells for which a member has discarded all tokens: the record names some, none of them has expired, and the ring does
/// not even have a dead one. A client that is not there could not tell of its tokens. After a seeder that has failed, tokens
/// may be missing because of that.
pub(crate) fn discarded(record: &Record, tokens: &[Token], now: u64, is_there: impl Fn(Client) -> bool) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    if record.reseed || record.last_seeding.is_some_and(|last| !last.ok) {
        return cells;
    }
    for held in &record.tokens {
        let of_cell = || record.tokens.iter().filter(|other| other.cell == held.cell);
        let gone = of_cell().all(|other| other.expires > now && is_there(other.client))
            && !tokens.iter().any(|token| token.cell == held.cell);
        if gone && !cells.contains(&held.cell) {
            cells.push(held.cell.clone());
        }
    }
    cells
}

/// Which token: its client and cell, in words. Both are empty where no token is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenName {
    pub(crate) client: String,
    pub(crate) cell: String,
}

impl TokenName {
    fn new(client: Client, cell: &Cell) -> Self {
        TokenName { client: client.to_string(), cell: cell.to_string() }
    }
}

/// The tokens that a seeder that has failed did not get: those that the record names, and of which the ring has no good
/// one. If all are good, all that the record names.
pub(crate) fn missed(record: &Record, tokens: &[Token]) -> Vec<TokenName> {
    let is_good = |held: &&Held| {
        tokens
            .iter()
            .any(|token| token.client == held.client && token.cell == held.cell && token.state == TokenState::Good)
    };
    let mut missed: Vec<&Held> = record.tokens.iter().filter(|held| !is_good(held)).collect();
    if missed.is_empty() {
        missed.extend(&record.tokens);
    }
    sorted(missed.iter().map(|held| TokenName::new(held.client, &held.cell)).collect())
}

/// The good tokens among these, by name.
pub(crate) fn good(tokens: &[Token]) -> Vec<TokenName> {
    let good = tokens.iter().filter(|token| token.state == TokenState::Good);
    sorted(good.map(|token| TokenName::new(token.client, &token.cell)).collect())
}

fn sorted(mut names: Vec<TokenName>) -> Vec<TokenName> {
    names.sort();
    names.dedup();
    names
}

/// The clients and the cells of these tokens, for a message.
pub(crate) fn in_words(names: &[TokenName]) -> (String, String) {
    let list = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(", ");
    let clients = list(names.iter().map(|name| &*name.client).collect());
    let cells = list(names.iter().map(|name| &*name.cell).collect());
    (clients, if cells.is_empty() { "the default cell".to_owned() } else { cells })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pag::ccache;
    use pag::store::record::{LastSeeding, PagKind};
    use pag::types::{PagId, Retain};

    const NOW: u64 = 1000;

    fn record(tokens: &[(&str, u64)]) -> Record {
        let held = |(cell, expires): &(&str, u64)| Held {
            client: Client::Keyring,
            cell: cell.parse().unwrap(),
            expires: *expires,
            since: 1,
            aliases: vec![],
        };
        Record {
            tokens: tokens.iter().map(held).collect(),
            ..Record::new(61001, PagKind::User, ccache::name(61001, PagId::from(1)), Retain::None)
        }
    }

    #[test]
    fn only_tokens_that_would_still_be_good_are_missed() {
        let record = record(&[("a.test", NOW + 1), ("b.test", NOW + 1), ("old.test", NOW)]);
        let tokens = |cells: &[&str]| -> Vec<Token> {
            let token = |cell: &&str| Token {
                client: Client::Keyring,
                cell: cell.parse().unwrap(),
                principal: None,
                vice_id: None,
                kind: None,
                expires: NOW + 9,
                state: TokenState::Good,
            };
            cells.iter().map(token).collect()
        };
        assert!(are_missing(&record, &tokens(&[]), NOW));
        assert!(are_missing(&record, &tokens(&["a.test", "old.test"]), NOW));
        assert!(!are_missing(&record, &tokens(&["b.test", "c.test", "a.test"]), NOW));
        let revoked = |token: Token| Token { state: TokenState::Revoked, ..token };
        let of_kafs = |token: Token| Token { client: Client::Kafs, ..token };
        assert!(are_missing(&record, &tokens(&["a.test", "b.test"]).into_iter().map(revoked).collect::<Vec<_>>(), NOW));
        assert!(are_missing(&record, &tokens(&["a.test", "b.test"]).into_iter().map(of_kafs).collect::<Vec<_>>(), NOW));
    }

    #[test]
    fn a_token_that_is_gone_before_its_end_was_discarded() {
        let record = record(&[("a.test", NOW + 1), ("b.test", NOW + 1), ("old.test", NOW)]);
        let token = |cell: &str, state| Token {
            client: Client::Keyring,
            cell: cell.parse().unwrap(),
            principal: None,
            vice_id: None,
            kind: None,
            expires: NOW + 9,
            state,
        };
        let told = |tokens: &[Token], there| -> String {
            let cells = discarded(&record, tokens, NOW, |_| there);
            cells.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&[], true), "a.test b.test", "what has ended was not discarded");
        assert_eq!(told(&[token("a.test", TokenState::Good)], true), "b.test");
        assert_eq!(told(&[token("a.test", TokenState::Good), token("b.test", TokenState::Revoked)], true), "");
        let failed = Record { last_seeding: Some(LastSeeding { at: 1, ok: false, ticket: 0 }), ..record.clone() };
        assert!(discarded(&failed, &[], NOW, |_| true).is_empty(), "nor after a seeder has failed");
        assert_eq!(told(&[], false), "", "a client that is away says nothing");
        let words = |record: &Record, tokens: &[Token]| in_words(&missed(record, tokens));
        assert_eq!(words(&record, &[token("a.test", TokenState::Good)]).1, "b.test, old.test");
        assert_eq!(words(&record, &[]), ("keyring".to_owned(), "a.test, b.test, old.test".to_owned()));
        assert_eq!(words(&Record { tokens: vec![], ..record.clone() }, &[]).1, "the default cell");
    }
}
