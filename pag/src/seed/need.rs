//! Whether a login needs a seeder.

use crate::config::Settings;
use crate::policy;
use crate::store::record::LastSeeding;
use crate::types::Client;

/// What there is to do about tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: they are not wanted, or cannot be had.
    No,
    /// Nothing: they are good.
    Good,
    /// They are wanted, but an attempt was made just now.
    Later,
    /// A seeder should run.
    Now,
}

/// Decides whether a seeder should run for one of `clients`, if there are no good tokens. `ticket` is the end time of the
/// ticket at hand, 0 without one.
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
