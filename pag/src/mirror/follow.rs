//! Following: the ring of a user manager's PAG has, besides what is its own, the tokens of the session that the user's
//! services follow (`scope = session`).
//!
//! Of OpenAFS that is the followed PAG's S0, in the place of the follower's own: its members are then in that PAG (see
//! [`crate::afs::openafs`]), and see each change of its tokens at once. Of kAFS and `keyring` it is the token keys
//! themselves, directly, since kAFS looks no deeper than the session keyring (security/keys/request_key.c,
//! request_key_rcu), and again after each change. Only those who possess a key may link it, so a child of ours joins the
//! followed ring for it. Everything that was linked is noted in the record before it is, and only that is taken away
//! again: a token that a member has put into the manager's ring himself is his, and counts over what is followed.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::keyring::{self, Description, Serial};
use crate::store::locked::LockedUser;
use crate::store::record::Record;
use crate::store::registry::Pag;
use crate::store::ring::Ring;
use crate::sys::{self, Answer, Fields};

/// Longest time that a look into a ring, or a change of its links, may take.
const INSIDE: Duration = Duration::from_secs(1);

/// A token key, by what tells it from others in a keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenKey {
    pub(crate) serial: Serial,
    /// Type and description: a keyring has one key of each (security/keys/keyring.c, __key_link_begin).
    name: Vec<u8>,
}

/// Whether a key is a token of one of the clients that keep them in the ring: kAFS and `keyring`.
fn is_token(found: &Description<'_>) -> bool {
    matches!(found.kind, b"rxrpc" | b"user") && found.name.starts_with(b"afs@")
}

/// The token keys in a ring, by a child that joins it.
#[allow(unsafe_code)] // makes a child
pub(crate) fn token_keys(ring: &Ring) -> Result<Vec<TokenKey>> {
    let deadline = Instant::now() + INSIDE;
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

/// What is to be done to a follower's ring.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// To be linked.
    link: Vec<Serial>,
    /// What is there, came from there, and stays.
    stay: Vec<Serial>,
}

/// Compares the followed ring's tokens with those in the follower's, of which `mirrored` came from there.
fn plan(theirs: &[TokenKey], ours: &[TokenKey], mirrored: &[Serial]) -> Plan {
    let mut plan = Plan::default();
    let still = |key: &&TokenKey| theirs.iter().any(|their| their.serial == key.serial);
    let came = ours.iter().filter(|key| mirrored.contains(&key.serial));
    plan.stay = came.filter(still).map(|key| key.serial).collect();
    // What a member has put there himself is in the way of what has the same name, and stays.
    let is_taken = |name: &[u8]| ours.iter().any(|key| key.name == name && !mirrored.contains(&key.serial));
    let missing = theirs.iter().filter(|their| !plan.stay.contains(&their.serial) && !is_taken(&their.name));
    plan.link = missing.map(|their| their.serial).collect();
    plan
}

/// Links `keys`, tokens in `from`, into a keyring that lets the handle group write, by a child that joins `from`. One that
/// cannot be linked (its owner has taken the right to away) is passed over.
#[allow(unsafe_code)] // makes a child
pub(crate) fn link_out_of(from: &Ring, keys: &[Serial], keyring: Serial) -> Result<()> {
    let deadline = Instant::now() + INSIDE;
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

/// Has the services in `pag` follow `leader`: its tokens are linked into their ring, the new ones before the old ones
/// are taken away. Called again, it brings the ring into step. True when anything has changed.
///
/// # Errors
/// When one of the rings cannot be entered, or the record not be written.
pub fn mirror(user: &LockedUser<'_>, pag: &mut Pag, leader: &Pag) -> Result<bool> {
    let (Ok(ring), Ok(from), Ok(mut record)) = (pag.ring.clone(), leader.ring.clone(), pag.record.clone()) else {
        return Err(Error::key(format!("follow PAG {}", leader.id))(std::io::ErrorKind::InvalidData.into()));
    };
    let before = record.clone();
    let plan = plan(&token_keys(&from)?, &token_keys(&ring)?, &record.mirrored);
    // What is to be there in the end. S0 is root's, so root may link it from outside.
    let wanted: Vec<Serial> = plan.stay.iter().chain(&plan.link).copied().chain(leader.afs_keyring).collect();
    let unwanted: Vec<Serial> = record.mirrored.iter().copied().filter(|key| !wanted.contains(key)).collect();
    record.follows = Some(leader.id);
    // Noted first: what we do not know to be ours would never be taken away.
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
        // Its own is kept in the holder meanwhile. Without another it stays: outside of any PAG a service's tokens would
        // be everybody's of its uid.
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

/// Takes those of `keys` out of a keyring that are in it. The kernel unlinks whatever has the key's type and description
/// (security/keys/keyring.c, __key_unlink_begin), so one that was displaced would take the one in its place along.
pub(crate) fn unlink(keys: &[Serial], from: Serial) {
    for key in keys {
        if keyring::members(from).is_ok_and(|there| there.contains(key)) {
            let _ = keyring::unlink(*key, from);
        }
    }
}

/// Takes out of a follower's ring what it has of the PAG that it follows, and puts back `s0`, its own of OpenAFS;
/// `record` is what is to be stored for it. The tokens themselves live on where they came from: nothing that discards
/// those of this ring may come before.
pub fn take_away(ring: &Ring, s0: Option<Serial>, record: &mut Record) {
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
            // The first time.
            (keys(&[]), serials(&[]), Plan { link: serials(&[1, 2]), ..Plan::default() }),
            // In step.
            (keys(&[(1, a), (2, b)]), serials(&[1, 2]), Plan { stay: serials(&[1, 2]), ..Plan::default() }),
            // The followed one has a new token of a cell; the other cell's is as it was.
            (keys(&[(9, a), (2, b)]), serials(&[9, 2]), Plan { link: serials(&[1]), stay: serials(&[2]) }),
            // A member has taken one away.
            (keys(&[(1, a)]), serials(&[1, 2]), Plan { link: serials(&[2]), stay: serials(&[1]) }),
            // A member has one of his own: it stays, and nothing of its name comes.
            (keys(&[(7, a)]), serials(&[]), Plan { link: serials(&[2]), ..Plan::default() }),
            (keys(&[(7, a), (2, b)]), serials(&[1, 2]), Plan { stay: serials(&[2]), ..Plan::default() }),
            // Of the same cell, but another client's.
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
    fn what_a_child_writes_is_read_again() {
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
