//! Adoption: a user manager that was started outside of its user's PAG has the PAG's tokens in its own session keyring.
//!
//! Nobody can put a running process into another session keyring, and root cannot write into one that is not its own. But
//! the manager's services share its keyring, and one of them (`pagctl adopt`) lets its owner change its mask for a moment.
//! With the owner's uid, and with what only an administrator may (CAP_SYS_ADMIN, for KEYCTL_CHOWN;
//! security/keys/keyctl.c, keyctl_chown_key), it is then given to the handle group, as our rings are. From then on the
//! tokens in it are kept in step with the PAG's from outside, as those of a follower are ([`crate::mirror::follow`]).

use std::time::Instant;

use crate::error::{Error, Result};
use crate::keyring::{self, Description, Mask, Serial};
use crate::mirror::follow::{link_out_of, token_keys, unlink};
use crate::store::locked::LockedUser;
use crate::store::registry::Pag;
use crate::store::ring::Ring;
use crate::sys::{self, Exit};

/// A session keyring as the kernel makes it (security/keys/process_keys.c, install_session_keyring_to_cred), and all to
/// the handle group: possessor all, owner VIEW and READ.
pub const MASK: Mask = Mask(0x3f03_3f00);

/// Gives `keyring`, a session keyring of the PAG's user that lets its owner change its mask, to the handle group.
///
/// # Errors
/// `System`, when it is none of his, or the kernel refuses.
#[allow(unsafe_code)] // makes a child
pub fn take_charge(pag: &Pag, ring: &Ring, keyring: Serial, deadline: Instant) -> Result<()> {
    let doing = || Error::system(format!("take charge of keyring {keyring} of uid {}", pag.uid));
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let child = unsafe {
        sys::child(|| {
            sys::setfsuid(pag.uid);
            // The user has said which keyring it is: not one of somebody else's, and not his `@u`.
            let is_his = |found: Description<'_>| is_of(&found, pag.uid);
            let given = keyring::describe(keyring, is_his).unwrap_or(false)
                && keyring::set_owner(keyring, None, Some(ring.group.0)).is_ok()
                && keyring::set_mask(keyring, MASK).is_ok();
            u8::from(!given)
        })
    }
    .map_err(doing())?;
    match child.wait(deadline).map_err(doing())? {
        Exit::Status(0) => Ok(()),
        _ => Err(doing()(std::io::ErrorKind::PermissionDenied.into())),
    }
}

fn is_of(found: &Description<'_>, uid: u32) -> bool {
    found.is_keyring() && found.uid == uid && found.name.starts_with(b"_ses")
}

/// Has an adopted manager's keyring have the tokens that the PAG has, and nothing that it had of it before. One that was
/// lent and is not there any more was replaced by a member, and stays away. How many it has.
///
/// # Errors
/// When one of the two cannot be entered, or the record not be written.
pub fn bring_into_step(user: &LockedUser<'_>, pag: &mut Pag) -> Result<usize> {
    let (Ok(ring), Ok(mut record)) = (pag.ring.clone(), pag.record.clone()) else { return Ok(0) };
    let Some(keyring) = record.adopted else { return Ok(0) };
    let before = record.clone();
    let is_there = |found: Description<'_>| is_of(&found, pag.uid) && found.gid == ring.group.0;
    if !keyring::describe(keyring, is_there).unwrap_or(false) {
        // The manager has ended; or its keyring was taken from us.
        (record.adopted, record.lent) = (None, Vec::new());
        user.store(pag, record)?;
        return Ok(0);
    }
    let tokens: Vec<Serial> = token_keys(&ring)?.into_iter().map(|key| key.serial).collect();
    let there = keyring::members(ring.serial).map_err(Error::key(format!("read ring {}", ring.serial)))?;
    // S0, its own or the one of whom it follows.
    let is_s0 = |key: &Serial| Some(*key) == pag.afs_keyring || record.mirrored.contains(key) && !tokens.contains(key);
    let afs_keyrings: Vec<Serial> = there.into_iter().filter(is_s0).collect();
    let new = |keys: &[Serial]| keys.iter().copied().filter(|key| !before.lent.contains(key)).collect::<Vec<_>>();
    let old: Vec<Serial> =
        before.lent.iter().copied().filter(|key| !tokens.contains(key) && !afs_keyrings.contains(key)).collect();
    // Noted first: what we do not know to be ours would never be taken away.
    record.lent = [&tokens[..], &afs_keyrings[..], &old[..]].concat();
    if record != before {
        user.store(pag, record.clone())?;
    }
    let tokens_to_link = new(&tokens);
    if !tokens_to_link.is_empty() {
        link_out_of(&ring, &tokens_to_link, keyring)?;
    }
    for s0 in new(&afs_keyrings) {
        keyring::link(s0, keyring)
            .map_err(Error::key(format!("link keyring {s0} of OpenAFS into keyring {keyring}")))?;
    }
    unlink(&old, keyring);
    record.lent = [tokens, afs_keyrings].concat();
    if pag.record.as_ref() != Ok(&record) {
        user.store(pag, record.clone())?;
    }
    let there = keyring::members(keyring).map_err(Error::key(format!("read keyring {keyring}")))?;
    Ok(record.lent.iter().filter(|key| there.contains(key)).count())
}
