//! Whether a login needs a seeder.

use crate::config::Settings;
use crate::policy;
use crate::store::record::LastSeeding;
use crate::types::Client;

/// Whether a login needs a seeder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// No seeder: the login wants no tokens, or has no ticket to get them with.
    No,
    /// No seeder: the tokens are good.
    Good,
    /// No seeder now, since the last one has run just before.
    Later,
    /// A seeder should run.
    Now,
}

/// Decides whether a seeder should run, if there are no good tokens. `clients` are the AFS clients that are served.
/// `last` is the last seeding of the PAG. `ticket` is the end of the ticket at hand, none without a ticket. `now` and
/// `ticket` are in seconds since the epoch.
pub fn need(
    settings: &Settings,
    clients: &[Client],
    last: Option<LastSeeding>,
    ticket: Option<u64>,
    manager: bool,
    now: u64,
) -> Need {
    let possible = ticket.is_some() || settings.always_aklog;
    if settings.notokens || !possible || clients.is_empty() {
        return Need::No;
    }
    if policy::worth_seeding(last, now, ticket.unwrap_or(0), manager) { Need::Now } else { Need::Later }
}
