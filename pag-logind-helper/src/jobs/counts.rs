//! How many token jobs the helper has run since its start, for monitoring. A job counts once for each client and cell that
//! it has got a token of, or has failed to get one of. The seeder that a login itself runs is no job of the helper's, and
//! does not count.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::pags::tokens::TokenName;

/// Most pairs of client and cell that are counted one by one. A user can put tokens of any cell into a ring.
const MOST: usize = 64;
/// The cell of the jobs beyond that. No cell has this name.
const OTHERS: &str = "(others)";

/// What came of the jobs for one client and cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// All that have ended, or could not be started.
    pub(crate) jobs: u64,
    /// Those of them that have failed.
    pub(crate) failures: u64,
}

/// The counts, as the jobs and the D-Bus interface share them.
#[derive(Debug, Clone)]
pub(crate) struct JobCounts {
    /// Since when, in seconds since the epoch.
    pub(crate) since: u64,
    by_token: Rc<RefCell<BTreeMap<TokenName, Count>>>,
}

impl Default for JobCounts {
    fn default() -> Self {
        JobCounts { since: pag::sys::now(), by_token: Rc::default() }
    }
}

impl JobCounts {
    /// Counts a job that has got, or failed to get, these tokens. Where none is known, its client and cell are empty.
    pub(super) fn add(&self, tokens: &[TokenName], ok: bool) {
        let unknown = [TokenName::default()];
        let tokens = if tokens.is_empty() { &unknown } else { tokens };
        let mut counts = self.by_token.borrow_mut();
        for token in tokens {
            let is_new = !counts.contains_key(token);
            let others = || TokenName { client: token.client.clone(), cell: OTHERS.to_owned() };
            let name = if is_new && counts.len() >= MOST { others() } else { token.clone() };
            let count = counts.entry(name).or_default();
            count.jobs = count.jobs.saturating_add(1);
            count.failures = count.failures.saturating_add(u64::from(!ok));
        }
    }

    /// All counts.
    pub(crate) fn all(&self) -> Vec<(TokenName, Count)> {
        self.by_token.borrow().iter().map(|(name, count)| (name.clone(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(cell: &str) -> TokenName {
        TokenName { client: "keyring".to_owned(), cell: cell.to_owned() }
    }

    #[test]
    fn each_cell_of_a_job_has_its_count() {
        let counts = JobCounts::default();
        counts.add(&[name("a.test"), name("b.test")], true);
        counts.add(&[name("b.test")], false);
        counts.add(&[], false);
        let expected = [("", "", 1, 1), ("keyring", "a.test", 1, 0), ("keyring", "b.test", 2, 1)];
        let found = counts.all();
        let found: Vec<_> =
            found.iter().map(|(name, count)| (&name.client[..], &name.cell[..], count.jobs, count.failures)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn cells_that_users_make_up_take_no_memory_without_end() {
        let counts = JobCounts::default();
        for number in 0..1000 {
            counts.add(&[name(&format!("c{number}.test"))], false);
        }
        let all = counts.all();
        assert_eq!(all.len(), MOST + 1);
        let others = all.iter().find(|(name, _)| name.cell == OTHERS).unwrap();
        assert_eq!(others.1.jobs, 1000 - 64);
    }
}
