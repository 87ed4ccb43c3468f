//! The tokens that a login wants.

use std::fmt;

use crate::config::Settings;
use crate::policy;
use crate::store::record::Held;
use crate::sys::Passwd;
use crate::types::{Cell, Client};

/// A token that a login wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The client that gets the token.
    pub client: Client,
    /// The cell of the token. None for the default cell of the seeder.
    pub cell: Option<Cell>,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cell {
            Some(cell) => cell.fmt(f),
            None => f.write_str("the default cell"),
        }
    }
}

/// The tokens that a login wants for each of `clients`: one for each of `afs_cells`, and with `aklog_homedir` one for
/// the cell in the path of the home. If neither option names a cell, one for the host's own cell.
pub fn cells(clients: &[Client], settings: &Settings, user: &Passwd) -> Vec<Wanted> {
    wanted(clients, settings, user, Client::own_cell)
}

pub(super) fn wanted(
    clients: &[Client],
    settings: &Settings,
    user: &Passwd,
    own: impl Fn(Client) -> Option<Cell>,
) -> Vec<Wanted> {
    let named = named(settings, user);
    let of_client = |client: &Client| {
        let client = *client;
        let cells: Vec<Option<Cell>> = match (&named[..], client) {
            // The home may be a link into AFS. The seeder follows it and finds the cell; here, reading it could hang.
            ([], Client::OpenAfs | Client::Keyring) if settings.aklog_homedir => vec![None],
            ([], _) => vec![own(client)],
            (named, _) => named.iter().cloned().map(Some).collect(),
        };
        cells.into_iter().map(move |cell| Wanted { client, cell })
    };
    clients.iter().flat_map(of_client).collect()
}

/// The cells that the configuration names, and with `aklog_homedir` the one in the path of the home.
pub(super) fn named(settings: &Settings, user: &Passwd) -> Vec<Cell> {
    let mut cells = settings.afs_cells.clone();
    if settings.aklog_homedir
        && let Some(cell) = cell_of_path(user.home.to_bytes())
        && !cells.contains(&cell)
    {
        cells.push(cell);
    }
    cells
}

/// The cell of `/afs/CELL/...` or `/afs/.CELL/...`. This reads only the path, since reading the directory could hang.
pub(super) fn cell_of_path(path: &[u8]) -> Option<Cell> {
    let name = path.strip_prefix(b"/afs/")?.split(|byte| *byte == b'/').next()?;
    str::from_utf8(name.strip_prefix(b".").unwrap_or(name)).ok()?.parse().ok()
}

/// Whether the tokens `held` in a ring are good for all that is `wanted`. A wanted cell needs a good token of that
/// name. A wanted alias needs good tokens for all its cells. Without a cell, the client needs at least one token, and
/// all of its tokens must be good.
pub fn are_good(held: &[Held], wanted: &[Wanted], now: u64) -> bool {
    let good = |held: &&Held| policy::is_good(held.expires, held.expires.saturating_sub(held.since), now);
    let all_good = |held: Vec<&Held>| !held.is_empty() && held.iter().all(good);
    wanted.iter().all(|wanted| {
        let of_client = held.iter().filter(|held| held.client == wanted.client);
        match &wanted.cell {
            Some(cell) if of_client.clone().any(|held| held.cell == *cell) => {
                of_client.filter(|held| held.cell == *cell).any(|held| good(&held))
            }
            Some(cell) => all_good(of_client.filter(|held| held.is_of(cell)).collect()),
            None => all_good(of_client.collect()),
        }
    })
}
