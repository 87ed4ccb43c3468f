//! The tokens that a seeding job must not get, and the tickets that it may use.

use std::fmt;

use crate::config::account::Account;
use crate::store::record::Record;
use crate::types::{Cell, Principal};

/// The tokens that a seeder must not get, since a user has discarded them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excluded {
    /// Whether all tokens are excluded.
    pub all: bool,
    /// The cells with excluded tokens.
    pub cells: Vec<Cell>,
}

/// The variable in which the PAM module hands [`Excluded`] to a seeding job.
pub const EXCLUDED_ENV: &str = "PAG_DISCARDED";

/// The variable in which the PAM module hands the PAG's identity to a seeding job. Empty if the PAG has none.
pub const IDENTITY_ENV: &str = "PAG_IDENTITY";

/// The reason why a ticket of `principal` is not for the PAG with this identity, or none if it is for that PAG.
/// `identity` is the value of [`IDENTITY_ENV`]. A PAG without an identity takes tickets of the account's own
/// identities.
pub fn not_of_pag(principal: &Principal, identity: &str, account: &Account) -> Option<String> {
    if identity.is_empty() {
        let why = || format!("it holds a ticket of {principal}, which is not {}'s own identity", account.name());
        return (!account.owns(principal)).then(why);
    }
    let is_it = Principal::parse(identity).is_ok_and(|known| known == *principal);
    (!is_it).then(|| {
        format!(
            "it holds a ticket of {principal}, and the PAG is {identity}'s; log in as {principal} for a PAG of its own"
        )
    })
}

impl Excluded {
    /// The tokens that were discarded, by the record of a PAG.
    pub fn of(record: &Record) -> Self {
        let cells = record.discarded.iter().filter_map(|one| one.cell.clone()).collect();
        Excluded { all: record.discarded.iter().any(|one| one.cell.is_none()), cells }
    }

    /// Reads the text that [`Excluded`] is written as. Words that are no cell are passed over.
    pub fn parse(text: &str) -> Self {
        let words = || text.split(' ');
        Excluded { all: words().any(|word| word == "*"), cells: words().filter_map(|word| word.parse().ok()).collect() }
    }

    /// Whether no token is excluded.
    pub fn is_nothing(&self) -> bool {
        !self.all && self.cells.is_empty()
    }

    /// Whether a token of this cell is excluded. None stands for an unknown cell.
    pub(super) fn has(&self, cell: Option<&Cell>) -> bool {
        self.all || cell.is_some_and(|cell| self.cells.contains(cell))
    }
}

impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = self.cells.iter().map(ToString::to_string);
        let words: Vec<String> = self.all.then(|| "*".to_owned()).into_iter().chain(cells).collect();
        f.write_str(&words.join(" "))
    }
}
