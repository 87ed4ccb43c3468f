//! What members and administrators can cut, and how it is noticed: pure functions from what was and what is.

use pag::ccache;
use pag::keyring::Serial;
use pag::store::record::{Held, Record};
use pag::types::Cell;
use pag::types::Client;
use pag::types::PagId;
use pag::types::Token;
use pag::types::TokenState;

/// Whether a member has emptied the ring: none of the keys is left that were in it `before`.
///
/// A ring that was not looked at before is suspect when it is empty although its record names tokens, and when tokens
/// had been asked for: the helper may have been restarted before they came.
pub(crate) fn was_cleared(before: Option<&[Serial]>, after: &[Serial], record: &Record, now: u64) -> bool {
    match before {
        Some([]) => holds_tokens(record, now) && after.is_empty(),
        Some(before) => before.iter().all(|key| !after.contains(key)),
        None => holds_tokens(record, now) && (after.is_empty() || record.reseed),
    }
}

/// Whether the record names a token that has not expired.
pub(crate) fn holds_tokens(record: &Record, now: u64) -> bool {
    record.tokens.iter().any(|token| token.expires > now)
}

/// Whether a token that the record names is not among `tokens`, though it has not expired.
pub(crate) fn lacks_tokens(record: &Record, tokens: &[Token], now: u64) -> bool {
    let is_it = |token: &Token, held: &Held| token.client == held.client && token.cell == held.cell;
    let is_there = |held: &Held| tokens.iter().any(|token| token.state == TokenState::Good && is_it(token, held));
    record.tokens.iter().any(|held| held.expires > now && !is_there(held))
}

/// The cells whose tokens a member has discarded: the record names some, none has expired, and there is not even a dead one.
/// A client that is away has not told of its own; and after a seeder that has failed they may be missing because of that.
pub(crate) fn discarded(record: &Record, tokens: &[Token], now: u64, is_there: impl Fn(Client) -> bool) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    if record.reseed || record.attempt.is_some_and(|last| !last.ok) {
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

/// The clients and cells of which a seeder that has failed did not get tokens, for people: those that the record names and
/// of which none is good; all of them, where that tells nothing.
pub(crate) fn missed(record: &Record, tokens: &[Token]) -> (String, String) {
    let is_good = |held: &&Held| {
        tokens
            .iter()
            .any(|token| token.client == held.client && token.cell == held.cell && token.state == TokenState::Good)
    };
    let mut missed: Vec<&Held> = record.tokens.iter().filter(|held| !is_good(held)).collect();
    if missed.is_empty() {
        missed.extend(&record.tokens);
    }
    let list = |mut names: Vec<String>| {
        names.sort();
        names.dedup();
        names.join(", ")
    };
    let clients = list(missed.iter().map(|held| held.client.to_string()).collect());
    let cells = list(missed.iter().map(|held| held.cell.to_string()).collect());
    (clients, if cells.is_empty() { "the default cell".to_owned() } else { cells })
}

/// Whether tokens can be had again: there is a ticket in the PAG's ccache, or it is one of the uid's own, of which
/// only the user knows.
pub(crate) fn has_ticket(record: &Record, pag: PagId, now: u64) -> bool {
    record.ticket > now || record.ccache != ccache::name(record.uid, pag)
}

/// Whether a PAG that is not in the registry any more was cut out of it, rather than ended: who ends one removes its
/// ccache, and who removes the whole registry ends none.
pub(crate) fn was_cut(registry_was_lost: bool, ccache_is_there: bool) -> bool {
    registry_was_lost || ccache_is_there
}

#[cfg(test)]
mod tests {
    use super::*;
    use pag::store::record::{Attempt, PagKind};
    use pag::types::Retain;

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

    fn keys(numbers: &[i32]) -> Vec<Serial> {
        numbers.iter().map(|number| Serial::new(*number).unwrap()).collect()
    }

    #[test]
    fn a_ring_of_which_nothing_is_left_was_cleared() {
        let with = record(&[("a.test", NOW + 1)]);
        let without = record(&[]);
        let table = [
            (Some(keys(&[1, 2])), keys(&[]), &with, true),
            (Some(keys(&[1, 2])), keys(&[7]), &with, true),
            (Some(keys(&[1, 2])), keys(&[]), &without, true),
            (Some(keys(&[1, 2])), keys(&[2, 3]), &with, false),
            (Some(keys(&[])), keys(&[]), &without, false),
            (Some(keys(&[])), keys(&[]), &with, true),
            (Some(keys(&[])), keys(&[5]), &with, false),
        ];
        for (before, after, record, expected) in table {
            assert_eq!(was_cleared(before.as_deref(), &after, record, NOW), expected, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_restart_in_the_middle_of_healing_goes_on_with_it() {
        let idle = record(&[("a.test", NOW + 1)]);
        let asked = Record { reseed: true, ..idle.clone() };
        assert!(was_cleared(None, &keys(&[]), &idle, NOW));
        assert!(was_cleared(None, &keys(&[1]), &asked, NOW));
        assert!(!was_cleared(None, &keys(&[1]), &idle, NOW));
        for tokens in [&[("a.test", NOW)][..], &[]] {
            assert!(!was_cleared(None, &keys(&[]), &Record { reseed: true, ..record(tokens) }, NOW));
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
        assert!(lacks_tokens(&record, &tokens(&[]), NOW));
        assert!(lacks_tokens(&record, &tokens(&["a.test", "old.test"]), NOW));
        assert!(!lacks_tokens(&record, &tokens(&["b.test", "c.test", "a.test"]), NOW));
        let revoked = |token: Token| Token { state: TokenState::Revoked, ..token };
        let of_kafs = |token: Token| Token { client: Client::Kafs, ..token };
        assert!(lacks_tokens(
            &record,
            &tokens(&["a.test", "b.test"]).into_iter().map(revoked).collect::<Vec<_>>(),
            NOW
        ));
        assert!(lacks_tokens(
            &record,
            &tokens(&["a.test", "b.test"]).into_iter().map(of_kafs).collect::<Vec<_>>(),
            NOW
        ));
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
        let failed = Record { attempt: Some(Attempt { at: 1, ok: false, ticket: 0 }), ..record.clone() };
        assert!(discarded(&failed, &[], NOW, |_| true).is_empty(), "nor does one whose seeder has failed");
        assert_eq!(told(&[], false), "", "a client that is away says nothing");
        assert_eq!(missed(&record, &[token("a.test", TokenState::Good)]).1, "b.test, old.test");
        assert_eq!(missed(&record, &[]), ("keyring".to_owned(), "a.test, b.test, old.test".to_owned()));
        assert_eq!(missed(&Record { tokens: vec![], ..record.clone() }, &[]).1, "the default cell");
    }

    #[test]
    fn a_ticket_is_in_the_pags_ccache_or_the_users_own_affair() {
        let none = record(&[]);
        assert!(!has_ticket(&none, PagId::from(1), NOW));
        assert!(has_ticket(&Record { ticket: NOW + 1, ..none.clone() }, PagId::from(1), NOW));
        assert!(has_ticket(&Record { ccache: "KCM:".to_owned(), ..none }, PagId::from(1), NOW));
    }

    #[test]
    fn who_ends_a_pag_takes_its_ccache_along() {
        assert!(was_cut(false, true));
        assert!(was_cut(true, false));
        assert!(!was_cut(false, false));
    }
}
