//! What a seeder has brought.

use super::wanted::Wanted;
use crate::store::record::Held;
use crate::types::Cell;
use crate::types::Client;
use crate::types::Token;
use crate::types::TokenState;

/// Those of the wanted tokens that a seeder which has failed did not get, by what was in the ring before and is now: what
/// is missing or no good, and what is as it was while another's is newer. All of them, where that tells nothing.
pub(super) fn missed(wanted: &[Wanted], before: &[Token], after: &[Token]) -> Vec<Wanted> {
    let of = |tokens: &[Token], wanted: &Wanted| -> Vec<Token> {
        let is_it = |token: &&Token| {
            let cell = wanted.cell.as_ref().is_none_or(|cell| token.cell == *cell);
            token.client == wanted.client && token.state == TokenState::Good && cell
        };
        tokens.iter().filter(is_it).cloned().collect()
    };
    let is_new = |wanted: &Wanted| of(before, wanted) != of(after, wanted);
    let newest = wanted.iter().filter(|wanted| is_new(wanted)).flat_map(|wanted| of(after, wanted));
    let newest = newest.map(|token| token.expires).max().unwrap_or(0);
    let is_missed = |wanted: &&Wanted| {
        let there = of(after, wanted);
        there.is_empty() || !is_new(wanted) && there.iter().all(|token| token.expires < newest)
    };
    let missed: Vec<Wanted> = wanted.iter().filter(is_missed).cloned().collect();
    if missed.is_empty() { wanted.to_vec() } else { missed }
}

/// A token that came when its cell was asked for by another name: in other letters it is the same name, but OpenAFS knows
/// aliases, too (CellAlias, and the short names of linked cells in CellServDB).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Whose token it is.
    pub client: Client,
    /// The name that was asked for.
    pub name: Cell,
    /// The name that the token has.
    pub cell: Cell,
}

/// What a seeder has brought that says that all went well.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// What is there of what was wanted.
    pub got: Vec<Wanted>,
    /// What is not.
    pub missed: Vec<Wanted>,
    /// The tokens that are there under other names.
    pub aliases: Vec<Alias>,
}

/// Tells by the tokens in the ring what a seeder has brought that says that all went well. A name that no token has is an
/// alias of the cells of which tokens are new and that nothing else has asked for. Where nobody has looked `before`, the
/// seeder is believed as to such a name. Where tokens are gone that were there before, a member has cut them away, and
/// perhaps those that the seeder has brought: it is not blamed then.
pub(super) fn brought(wanted: &[Wanted], before: Option<&[Token]>, after: &[Token]) -> Brought {
    let good =
        |client: Client| after.iter().filter(move |token| token.client == client && token.state == TokenState::Good);
    let is_there =
        |one: &Wanted| good(one.client).any(|token| one.cell.as_ref().is_none_or(|cell| token.cell == *cell));
    let is_wanted = |token: &Token| {
        wanted.iter().any(|one| one.client == token.client && one.cell.as_ref().is_none_or(|cell| token.cell == *cell))
    };
    let mut brought = Brought::default();
    for one in wanted {
        let Some(name) = one.cell.as_ref().filter(|_| !is_there(one)) else {
            if is_there(one) { &mut brought.got } else { &mut brought.missed }.push(one.clone());
            continue;
        };
        let Some(before) = before else {
            brought.got.push(one.clone());
            continue;
        };
        let others = good(one.client).filter(|token| !before.contains(token) && !is_wanted(token));
        let aliases: Vec<Alias> =
            others.map(|token| Alias { client: one.client, name: name.clone(), cell: token.cell.clone() }).collect();
        if aliases.is_empty() { &mut brought.missed } else { &mut brought.got }.push(one.clone());
        brought.aliases.extend(aliases);
    }
    let is_gone = |old: &Token| old.state == TokenState::Good && !good(old.client).any(|token| token.cell == old.cell);
    if before.is_some_and(|before| before.iter().any(is_gone)) {
        brought.missed.clear();
    }
    brought
}

/// Notes in what a record says of tokens by which other names they were asked for.
pub(super) fn note_aliases(held: &mut [Held], aliases: &[Alias]) {
    for Alias { client, name, cell } in aliases {
        let of_cell = held.iter_mut().filter(|held| held.client == *client && held.cell == *cell);
        of_cell.filter(|held| !held.is_of(name)).for_each(|held| held.aliases.push(name.clone()));
    }
}

/// What the record says of the tokens that are in the ring now and serve. A token that was known before keeps the time
/// when it was first seen.
pub fn held(tokens: &[Token], before: &[Held], now: u64) -> Vec<Held> {
    tokens
        .iter()
        .filter(|token| token.state == TokenState::Good)
        .map(|token| {
            let (client, cell, expires) = (token.client, token.cell.clone(), token.expires);
            let known = || before.iter().filter(|held| held.client == client && held.cell == cell);
            let since = known().find(|held| held.expires == expires).map_or(now, |held| held.since);
            // A cell keeps its names, whoever has got its token anew.
            let aliases = known().next().map_or_else(Vec::new, |held| held.aliases.clone());
            Held { client, cell, expires, since, aliases }
        })
        .collect()
}
