//! The tokens that a login wants.

use std::fmt;

use crate::config::Settings;
use crate::policy;
use crate::store::record::Held;
use crate::sys::Passwd;
use crate::types::Cell;
use crate::types::Client;

/// A token that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of which client.
    pub client: Client,
    /// For which cell. None: for the seeder's own default.
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

/// The tokens that are wanted, for each of `clients`: `afs_cells`, and with `aklog_homedir` the cell of the home, as its
/// path names it; where neither names one, the host's own.
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
            // What it gets is the cell of a home that is in AFS by way of a link, and that link is not looked at here.
            ([], Client::OpenAfs | Client::Keyring) if settings.aklog_homedir => vec![None],
            ([], _) => vec![own(client)],
            (named, _) => named.iter().cloned().map(Some).collect(),
        };
        cells.into_iter().map(move |cell| Wanted { client, cell })
    };
    clients.iter().flat_map(of_client).collect()
}

/// The cells that the configuration names.
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

/// The cell of `/afs/CELL/...` or `/afs/.CELL/...`. Only text is looked at: a look at the directory could hang.
pub(super) fn cell_of_path(path: &[u8]) -> Option<Cell> {
    let name = path.strip_prefix(b"/afs/")?.split(|byte| *byte == b'/').next()?;
    str::from_utf8(name.strip_prefix(b".").unwrap_or(name)).ok()?.parse().ok()
}

/// Whether the tokens in a ring serve: each that is wanted is there and good, by its cell's own name or by all that it is an
/// alias of; and where no cell is named, some token of that client is good and none is bad.
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
