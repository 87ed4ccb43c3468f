//! Following: the ring of a user manager's PAG has the tokens of the session that the user's services follow (`scope
//! = session`), besides its own.
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

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::keyring::{self, Description, Serial};
use crate::store::locked::LockedUser;
use crate::store::record::Record;
use crate::store::registry::Pag;
use crate::store::ring::Ring;
use crate::sys::{self, Answer, Fields};

/// Longest time for a child that works inside a ring.
const CHILD_TIME: Duration = Duration::from_secs(1);

/// A token key, with what distinguishes it in a keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenKey {
    pub(crate) serial: Serial,
    /// Type and description. A keyring has one key of each (security/keys/keyring.c, __key_link_begin).
    name: Vec<u8>,
}

/// Whether a key is a token of kAFS or `keyring`, the clients that keep tokens as keys in the ring.
fn is_token(found: &Description<'_>) -> bool {
    matches!(found.kind, b"rxrpc" | b"user") && found.name.starts_with(b"afs@")
}

/// The token keys in a ring, found by a child that joins it.
#[allow(unsafe_code)] // makes a child
pub(crate) fn token_keys(ring: &Ring) -> Result<Vec<TokenKey>> {
    let deadline = Instant::now() + CHILD_TIME;
    let doing = || Error::system(format!("look for tokens in ring {}", ring.serial));
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer = unsafe {
        sys::ask(deadline, |put| {
            let mut list = || -> Option<()> {
                let mut members = [0; 4 * 4096];
                for key in keyring::members_into(ring.serial, &mut members).ok()? {
                    let mut text = [0; keyring::DESCRIPTION_SPACE];
                    let Ok(found) = keyring::describe_into(key, &mut text) else { continue };
                    if is_token(&found) {
                        sys::write_fields(put, &[&key.get().to_ne_bytes(), found.kind, found.name]).then_some(())?;
                    }
                }
                Some(())
            };
            u8::from(!(ring.join_in_child() && list().is_some()))
        })
    };
    let bytes = answer.and_then(Answer::bytes).map_err(doing())?;
    let mut fields = Fields::new(&bytes);
    Ok(std::iter::from_fn(|| TokenKey::read(&mut fields)).collect())
}

impl TokenKey {
    /// Reads the next key that a child has written.
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let serial = Serial::new(i32::from_ne_bytes(fields.array()?))?;
        Some(TokenKey { serial, name: [fields.next()?, b";", fields.next()?].concat() })
    }
}

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

/// Links `keys`, tokens in `from`, into a keyring that the handle group may write to. A child that joins `from` does
/// it. It leaves out a key that cannot be linked because its owner has removed that right.
#[allow(unsafe_code)] // makes a child
pub(crate) fn link_out_of(from: &Ring, keys: &[Serial], keyring: Serial) -> Result<()> {
    let deadline = Instant::now() + CHILD_TIME;
    let doing = || Error::system(format!("link the tokens of ring {} into keyring {keyring}", from.serial));
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer = unsafe {
        sys::ask(deadline, |_| {
            if !from.join_in_child() {
                return 1;
            }
            let Ok(_guard) = Guard::enter(from.group) else { return 1 };
            for key in keys {
                let _ = keyring::link(*key, keyring);
            }
            0
        })
    };
    answer.and_then(Answer::bytes).map(drop).map_err(doing())
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
    // The keys that the ring must have in the end. Root owns S0, so root may link it from outside.
    let wanted: Vec<Serial> = plan.stay.iter().chain(&plan.link).copied().chain(leader.afs_keyring).collect();
    let unwanted: Vec<Serial> = record.mirrored.iter().copied().filter(|key| !wanted.contains(key)).collect();
    record.follows = Some(leader.id);
    // Recorded first: a link that is not recorded would never be removed.
    record.mirrored = [&wanted[..], &unwanted].concat();
    if record != before {
        user.store(pag, record.clone())?;
    }
    if !plan.link.is_empty() {
        link_out_of(&from, &plan.link, ring.serial)?;
    }
    if let Some(s0) = leader.afs_keyring {
        let doing = || format!("link keyring {s0} of OpenAFS into ring {}", ring.serial);
        keyring::link(s0, ring.serial).map_err(Error::key(doing()))?;
        // The holder keeps the follower's own S0 meanwhile. If the leader has no S0, the follower keeps its own in the
        // ring: outside of any PAG all processes of the uid would share a service's tokens.
        unlink(pag.afs_keyring.as_slice(), ring.serial);
    }
    unlink(&unwanted, ring.serial);
    let there = keyring::members(ring.serial).map_err(Error::key(format!("read ring {}", ring.serial)))?;
    record.mirrored = wanted.into_iter().filter(|key| there.contains(key)).collect();
    if pag.record.as_ref() != Ok(&record) {
        user.store(pag, record.clone())?;
    }
    Ok(record != before)
}

/// Unlinks those of `keys` that are in the keyring. The kernel unlinks whichever key has the same type and
/// description (security/keys/keyring.c, __key_unlink_begin), so unlinking a displaced key would remove the key in
/// its place.
pub(crate) fn unlink(keys: &[Serial], from: Serial) {
    for key in keys {
        if keyring::members(from).is_ok_and(|there| there.contains(key)) {
            let _ = keyring::unlink(*key, from);
        }
    }
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
    use super::*;

    fn serials(numbers: &[i32]) -> Vec<Serial> {
        numbers.iter().filter_map(|number| Serial::new(*number)).collect()
    }

    fn keys(list: &[(i32, &str)]) -> Vec<TokenKey> {
        let key = |(serial, name): &(i32, &str)| TokenKey {
            serial: Serial::new(*serial).unwrap(),
            name: name.as_bytes().to_owned(),
        };
        list.iter().map(key).collect()
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

    #[test]
    fn only_token_keys_are_linked() {
        let is = |kind: &[u8], name: &[u8]| {
            let mask = keyring::Mask(0);
            is_token(&Description { kind, uid: 0, gid: 0, mask, name })
        };
        assert!(is(b"rxrpc", b"afs@a.test") && is(b"user", b"afs@a.test"));
        assert!(!is(b"user", b"mine") && !is(b"keyring", b"afs@a.test") && !is(b"logon", b"afs@a.test"));
    }

    #[test]
    fn a_key_is_read_as_a_child_wrote_it() {
        let mut bytes = Vec::new();
        let mut put = |part: &[u8]| {
            bytes.extend_from_slice(part);
            true
        };
        assert!(sys::write_fields(&mut put, &[&5_i32.to_ne_bytes(), b"user", b"afs@a"]));
        let mut fields = Fields::new(&bytes);
        assert_eq!(TokenKey::read(&mut fields), keys(&[(5, "user;afs@a")]).pop());
        assert_eq!(TokenKey::read(&mut fields), None);
    }
}
