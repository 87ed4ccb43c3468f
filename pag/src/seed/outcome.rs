//! The tokens that a seeder has brought.

use super::wanted::Wanted;
use crate::store::record::Held;
use crate::types::{Cell, Client, Token, TokenState};

/// The wanted tokens that a failed seeder did not get. These are missing or no longer good, or they are as `before` and
/// end before a new token. If there are none of these, all wanted tokens count as missed.
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

/// Another name of a token's cell, by which the seeder was asked for the token. Upper and lower case make no other
/// name. OpenAFS has aliases: CellAlias, and the short names of linked cells in CellServDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The client that has the token.
    pub client: Client,
    /// The name that the seeder was asked for.
    pub name: Cell,
    /// The name that the token has.
    pub cell: Cell,
}

/// The tokens that a seeder with status 0 has brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// The wanted tokens that are in the ring.
    pub got: Vec<Wanted>,
    /// The wanted tokens that are not in the ring.
    pub missed: Vec<Wanted>,
    /// The tokens that are in the ring under another name.
    pub aliases: Vec<Alias>,
}

/// Compares the wanted tokens with those in the ring, after a seeder with status 0.
///
/// A wanted name that no token has is taken for an alias of each cell that has a new token and was not asked for
/// otherwise. If the ring was not read `before`, such a name counts as got. If old tokens are gone, a member has cut
/// them out, and perhaps new ones, too. The seeder is not at fault then, so no token counts as missed.
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

/// Notes the aliases of cells with the tokens of a record, each alias once.
pub(super) fn note_aliases(held: &mut [Held], aliases: &[Alias]) {
    for Alias { client, name, cell } in aliases {
        let of_cell = held.iter_mut().filter(|held| held.client == *client && held.cell == *cell);
        of_cell.filter(|held| !held.is_of(name)).for_each(|held| held.aliases.push(name.clone()));
    }
}

/// The good tokens of a ring, as a record notes them. A token that was known `before` keeps the time when it was first
/// seen, and a cell keeps its aliases. `now` is in seconds since the epoch.
pub fn held(tokens: &[Token], before: &[Held], now: u64) -> Vec<Held> {
    tokens
        .iter()
        .filter(|token| token.state == TokenState::Good)
        .map(|token| {
            let (client, cell, expires) = (token.client, token.cell.clone(), token.expires);
            let known = || before.iter().filter(|held| held.client == client && held.cell == cell);
            let since = known().find(|held| held.expires == expires).map_or(now, |held| held.since);
            let aliases = known().next().map_or_else(Vec::new, |held| held.aliases.clone());
            Held { client, cell, expires, since, aliases }
        })
        .collect()
}
