//! What the helper sees of rings, from outside and by a child that looks inside.

use std::time::{Duration, Instant};

use pag::afs::{self, s0};
use pag::keyring::{self, Serial};
use pag::store::record::Record;
use pag::store::registry::Pag;
use pag::store::ring::Ring;
use pag::types::{Cell, Token};

use super::tokens;

/// Longest time for a child that looks into one ring, or discards tokens there.
const CHILD_TIME: Duration = Duration::from_secs(1);

/// The keys in a ring, seen from outside: the handle group may read it, so a guard must be held. None of a ring that has
/// just been revoked.
pub(crate) fn keys_of(ring: &Ring) -> Vec<Serial> {
    keyring::members(ring.serial).unwrap_or_default()
}

/// The tokens in a ring.
///
/// # Errors
/// If the ring cannot be entered in time.
pub(crate) fn tokens_in(ring: &Ring) -> pag::Result<Vec<Token>> {
    afs::tokens(ring, Instant::now() + CHILD_TIME)
}

/// Whether a ring lacks a token that the record names. If the ring cannot be entered, the helper could not bring one.
pub(crate) fn lacks_tokens(ring: &Ring, record: &Record, now: u64) -> bool {
    tokens_in(ring).is_ok_and(|found| tokens::are_missing(record, &found, now))
}

/// Discards the tokens for one cell, or all.
///
/// # Errors
/// If the ring cannot be entered in time, or an AFS client refuses.
pub(crate) fn discard(ring: &Ring, cell: Option<&Cell>) -> pag::Result<()> {
    let deadline = Instant::now() + CHILD_TIME;
    match cell {
        Some(cell) => afs::discard_cell(ring, cell, deadline),
        None => afs::discard(ring, deadline),
    }
}

/// Whether a member has cut something out of a ring that had the keys `before` and has `keys` now, or OpenAFS has come to
/// the host since.
pub(crate) fn is_cut(before: Option<&[Serial]>, keys: &[Serial], pag: &Pag, record: &Record) -> bool {
    // A named PAG has nothing but tokens in its ring, and its keeper replaces them.
    record.name().is_none() && was_emptied(before, keys, record, pag::sys::now())
        || record.follows.is_none() && s0::needs_repair(keys, pag.afs_keyring)
}

/// Whether a member has emptied the ring: none of the keys is left that were in it `before`.
///
/// A ring that was not looked at before is suspect if it is empty although its record names tokens, and if a job was to get
/// tokens: the helper may have been restarted before they came.
fn was_emptied(before: Option<&[Serial]>, after: &[Serial], record: &Record, now: u64) -> bool {
    match before {
        Some([]) => tokens::are_named(record, now) && after.is_empty(),
        Some(before) => before.iter().all(|key| !after.contains(key)),
        None => tokens::are_named(record, now) && (after.is_empty() || record.reseed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pag::ccache;
    use pag::store::record::{Held, PagKind};
    use pag::types::{Client, PagId, Retain};

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
    fn a_ring_of_which_nothing_is_left_was_emptied() {
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
            assert_eq!(was_emptied(before.as_deref(), &after, record, NOW), expected, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_restart_in_the_middle_of_healing_goes_on_with_it() {
        let idle = record(&[("a.test", NOW + 1)]);
        let asked = Record { reseed: true, ..idle.clone() };
        assert!(was_emptied(None, &keys(&[]), &idle, NOW));
        assert!(was_emptied(None, &keys(&[1]), &asked, NOW));
        assert!(!was_emptied(None, &keys(&[1]), &idle, NOW));
        for tokens in [&[("a.test", NOW)][..], &[]] {
            assert!(!was_emptied(None, &keys(&[]), &Record { reseed: true, ..record(tokens) }, NOW));
        }
    }
}
