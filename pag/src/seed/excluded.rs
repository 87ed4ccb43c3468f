//! What a seeding job is not to get, and for whom it may run.

use std::fmt;

use crate::config::account::Account;
use crate::store::record::Record;
use crate::types::Cell;
use crate::types::Principal;

/// What a seeder is not to get: tokens that somebody has discarded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excluded {
    /// Nothing at all is to be got.
    pub all: bool,
    /// Nothing of these cells.
    pub cells: Vec<Cell>,
}

/// The variable by which the PAM module tells a seeding job of it.
pub const EXCLUDED_ENV: &str = "PAG_DISCARDED";

/// The variable by which the PAM module tells a seeding job the PAG's identity. Empty: the PAG has none.
pub const IDENTITY_ENV: &str = "PAG_IDENTITY";

/// Why a ticket of `principal` is not for the PAG that a job gets tokens for, where it is not. `identity` is what [`IDENTITY`]
/// holds. A PAG without an identity takes the tickets of its user's own.
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
    /// What a record says of it.
    pub fn of(record: &Record) -> Self {
        let cells = record.discarded.iter().filter_map(|one| one.cell.clone()).collect();
        Excluded { all: record.discarded.iter().any(|one| one.cell.is_none()), cells }
    }

    /// Reads what [`Excluded`] writes; what is no cell is passed over.
    pub fn parse(text: &str) -> Self {
        let words = || text.split(' ');
        Excluded { all: words().any(|word| word == "*"), cells: words().filter_map(|word| word.parse().ok()).collect() }
    }

    /// Whether there is nothing to be left out.
    pub fn is_nothing(&self) -> bool {
        !self.all && self.cells.is_empty()
    }

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
