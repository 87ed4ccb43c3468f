//! Gives a keyring the tokens of a ring, for both following and adoption. Each of them decides which tokens these are,
//! since a member's change has another meaning for each.

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
    pub(crate) name: Vec<u8>,
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
            ring.join_in_child() && list().is_some()
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

/// How a keyring must change.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Token keys to link.
    pub(crate) link: Vec<Serial>,
    /// S0 keyrings to link. Root owns them, so root may link them from outside.
    pub(crate) link_afs: Vec<Serial>,
    /// Keys to unlink, which were linked from a ring earlier.
    pub(crate) unlink: Vec<Serial>,
    /// The keys of the ring that the keyring must have in the end.
    pub(crate) wanted: Vec<Serial>,
}

impl Change {
    /// Links keys of the ring `from` into the keyring `to`, and then unlinks old ones. The list `noted` in the record of `pag`
    /// says which keys were linked. It is written first: a link that is not recorded would never be removed.
    ///
    /// # Errors
    /// If `from` cannot be entered, an S0 cannot be linked, or the record cannot be written.
    pub(crate) fn apply(
        &self,
        user: &LockedUser<'_>,
        pag: &mut Pag,
        record: &mut Record,
        noted: fn(&mut Record) -> &mut Vec<Serial>,
        from: &Ring,
        to: Serial,
    ) -> Result<()> {
        *noted(record) = [&self.wanted[..], &self.unlink].concat();
        if pag.record.as_ref() != Ok(record) {
            user.store(pag, record.clone())?;
        }
        if !self.link.is_empty() {
            link_out_of(from, &self.link, to)?;
        }
        for key in &self.link_afs {
            keyring::link(*key, to).map_err(Error::key(format!("link keyring {key} of OpenAFS into keyring {to}")))?;
        }
        unlink(&self.unlink, to);
        Ok(())
    }
}

/// Links `keys`, tokens in `from`, into a keyring that the handle group may write to. A child that joins `from` does
/// it. It leaves out a key that cannot be linked because its owner has removed that right.
#[allow(unsafe_code)] // makes a child
fn link_out_of(from: &Ring, keys: &[Serial], keyring: Serial) -> Result<()> {
    let deadline = Instant::now() + CHILD_TIME;
    let doing = || Error::system(format!("link the tokens of ring {} into keyring {keyring}", from.serial));
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer = unsafe {
        sys::ask(deadline, |_| {
            if !from.join_in_child() {
                return false;
            }
            let Ok(_guard) = Guard::enter(from.group) else { return false };
            for key in keys {
                let _ = keyring::link(*key, keyring);
            }
            true
        })
    };
    answer.and_then(Answer::bytes).map(drop).map_err(doing())
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::mirror) fn keys(list: &[(i32, &str)]) -> Vec<TokenKey> {
        let key = |(serial, name): &(i32, &str)| TokenKey {
            serial: Serial::new(*serial).unwrap(),
            name: name.as_bytes().to_owned(),
        };
        list.iter().map(key).collect()
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
