//! Following: the ring of a user manager's PAG has the tokens of the session that the user's services follow
//! (`scope = session`), besides its own.
//!
//! For OpenAFS the ring has the followed PAG's S0 in place of its own. Its members are then in the followed PAG (see
//! [`crate::afs::openafs`]) and see each change of its tokens at once.
//!
//! For kAFS and `keyring` the token keys themselves are linked into the ring, and again after each change: kAFS
//! looks no deeper than the session keyring (security/keys/request_key.c, request_key_rcu). Only a possessor of a
//! key may link it, so a child joins the followed ring to do that.
//!
//! Every link is recorded before it is made, and only recorded links are removed. A token that a member has put into
//! the manager's ring belongs to that member: it stays, and hides a followed token with the same name.

use crate::error::{Error, Result};
use crate::keyring::{self, Serial};
use crate::mirror::reconcile::{Change, TokenKey, token_keys, unlink};
use crate::store::locked::LockedUser;
use crate::store::record::Record;
use crate::store::registry::Pag;
use crate::store::ring::Ring;

/// How a follower's ring must change.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Keys to link.
    link: Vec<Serial>,
    /// Keys that are in the follower's ring, were linked from the followed one, and stay.
    stay: Vec<Serial>,
}

/// Compares the tokens of the followed ring (`theirs`) with those in the follower's ring (`ours`), of which
/// `mirrored` were linked from the followed one.
fn plan(theirs: &[TokenKey], ours: &[TokenKey], mirrored: &[Serial]) -> Plan {
    let mut plan = Plan::default();
    let still = |key: &&TokenKey| theirs.iter().any(|their| their.serial == key.serial);
    let came = ours.iter().filter(|key| mirrored.contains(&key.serial));
    plan.stay = came.filter(still).map(|key| key.serial).collect();
    // A member's own key stays, so no followed key with the same name is linked.
    let is_taken = |name: &[u8]| ours.iter().any(|key| key.name == name && !mirrored.contains(&key.serial));
    let missing = theirs.iter().filter(|their| !plan.stay.contains(&their.serial) && !is_taken(&their.name));
    plan.link = missing.map(|their| their.serial).collect();
    plan
}

/// Makes the services in `pag` follow `leader`: links its tokens into their ring, and then unlinks old ones. A
/// further call brings the ring into step again. True if anything has changed.
///
/// # Errors
/// If one of the rings cannot be entered, or the record cannot be written.
pub fn mirror(user: &LockedUser<'_>, pag: &mut Pag, leader: &Pag) -> Result<bool> {
    let (Ok(ring), Ok(from), Ok(mut record)) = (pag.ring.clone(), leader.ring.clone(), pag.record.clone()) else {
        return Err(Error::key(format!("follow PAG {}", leader.id))(std::io::ErrorKind::InvalidData.into()));
    };
    let before = record.clone();
    let plan = plan(&token_keys(&from)?, &token_keys(&ring)?, &record.mirrored);
    let wanted: Vec<Serial> = plan.stay.iter().chain(&plan.link).copied().chain(leader.afs_keyring).collect();
    record.follows = Some(leader.id);
    let change = Change {
        link: plan.link,
        link_afs: leader.afs_keyring.into_iter().collect(),
        unlink: record.mirrored.iter().copied().filter(|key| !wanted.contains(key)).collect(),
        wanted,
    };
    change.apply(user, pag, &mut record, |record| &mut record.mirrored, &from, ring.serial)?;
    if leader.afs_keyring.is_some() {
        // The holder keeps the follower's own S0 meanwhile. If the leader has no S0, the follower keeps its own in the
        // ring: outside of any PAG all processes of the uid would share a service's tokens.
        unlink(pag.afs_keyring.as_slice(), ring.serial);
    }
    let there = keyring::members(ring.serial).map_err(Error::key(format!("read ring {}", ring.serial)))?;
    record.mirrored = change.wanted.into_iter().filter(|key| there.contains(key)).collect();
    if pag.record.as_ref() != Ok(&record) {
        user.store(pag, record.clone())?;
    }
    Ok(record != before)
}

/// Ends following: unlinks the followed PAG's keys from the follower's ring and links `s0`, the follower's own S0,
/// again. Changes `record`; the caller must store it. The followed session still uses the tokens, so the caller must
/// not discard the tokens of this ring before.
pub fn end_following(ring: &Ring, s0: Option<Serial>, record: &mut Record) {
    if let Some(s0) = s0 {
        let _ = keyring::link(s0, ring.serial);
    }
    unlink(&record.mirrored, ring.serial);
    record.mirrored.clear();
    record.follows = None;
}

#[cfg(test)]
mod tests {
    use super::super::reconcile::tests::keys;
    use super::*;

    fn serials(numbers: &[i32]) -> Vec<Serial> {
        numbers.iter().filter_map(|number| Serial::new(*number)).collect()
    }

    #[test]
    fn a_ring_is_brought_into_step() {
        let (a, b) = ("user;afs@a.test", "user;afs@b.test");
        let theirs = keys(&[(1, a), (2, b)]);
        let table = [
            // The follower's ring is empty.
            (keys(&[]), serials(&[]), Plan { link: serials(&[1, 2]), ..Plan::default() }),
            // The rings are in step.
            (keys(&[(1, a), (2, b)]), serials(&[1, 2]), Plan { stay: serials(&[1, 2]), ..Plan::default() }),
            // The followed ring has a new token for one cell. The token for the other cell is unchanged.
            (keys(&[(9, a), (2, b)]), serials(&[9, 2]), Plan { link: serials(&[1]), stay: serials(&[2]) }),
            // A member has removed one.
            (keys(&[(1, a)]), serials(&[1, 2]), Plan { link: serials(&[2]), stay: serials(&[1]) }),
            // A member's own key stays, and no followed key with its name is linked.
            (keys(&[(7, a)]), serials(&[]), Plan { link: serials(&[2]), ..Plan::default() }),
            (keys(&[(7, a), (2, b)]), serials(&[1, 2]), Plan { stay: serials(&[2]), ..Plan::default() }),
            // A token for the same cell, of another client.
            (keys(&[(7, "rxrpc;afs@a.test")]), serials(&[]), Plan { link: serials(&[1, 2]), ..Plan::default() }),
        ];
        for (ours, mirrored, expected) in table {
            assert_eq!(plan(&theirs, &ours, &mirrored), expected, "{ours:?} {mirrored:?}");
        }
    }
}
