//! Adoption: a user manager that was started outside of its user's PAG gets the PAG's tokens into its own session
//! keyring.
//!
//! No process can move another, running process into a different session keyring, and root cannot write into this
//! one. But the manager's services share its keyring, and one of them (`pagctl adopt`) lets the keyring's owner
//! change its mask for a moment. A child with the owner's uid and CAP_SYS_ADMIN then gives the keyring to the handle
//! group, as our rings are given (KEYCTL_CHOWN needs the capability: security/keys/keyctl.c, keyctl_chown_key). From
//! then on the helper keeps its tokens in step with the PAG's from outside, as it does for a follower
//! ([`crate::mirror::follow`]).

use std::time::Instant;

use crate::error::{Error, Result};
use crate::keyring::{self, Description, Mask, Serial};
use crate::mirror::reconcile::{Change, token_keys};
use crate::store::locked::LockedUser;
use crate::store::registry::Pag;
use crate::store::ring::Ring;
use crate::sys::{self, Exit};

/// The mask of a session keyring that the kernel made, with all rights for the handle group: the possessor has all
/// rights, the owner VIEW and READ (security/keys/process_keys.c, install_session_keyring_to_cred).
pub const MASK: Mask = Mask(0x3f03_3f00);

/// Gives `keyring` to the handle group. It must be a session keyring of the PAG's user, and its owner must be
/// allowed to change its mask. Needs root.
///
/// # Errors
/// `System` if it is no session keyring of the user's, or if the kernel refuses.
#[allow(unsafe_code)] // makes a child
pub fn give_to_handle_group(pag: &Pag, ring: &Ring, keyring: Serial, deadline: Instant) -> Result<()> {
    let doing = || Error::system(format!("take charge of keyring {keyring} of uid {}", pag.uid));
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let child = unsafe {
        sys::child(|| {
            sys::setfsuid(pag.uid);
            // The user named this keyring. It must not be another user's, nor their `@u`.
            let is_theirs = |found: Description<'_>| is_of(&found, pag.uid);
            let given = keyring::describe(keyring, is_theirs).unwrap_or(false)
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

/// Links the PAG's tokens into the adopted manager's keyring, and unlinks those that the PAG no longer has. If a
/// member has replaced a token that was linked before, that token is not linked again. Returns how many of the PAG's
/// tokens the keyring has.
///
/// # Errors
/// If the ring cannot be entered or the manager's keyring not be read, or if the record cannot be written.
pub fn bring_into_step(user: &LockedUser<'_>, pag: &mut Pag) -> Result<usize> {
    let (Ok(ring), Ok(mut record)) = (pag.ring.clone(), pag.record.clone()) else { return Ok(0) };
    let Some(keyring) = record.adopted else { return Ok(0) };
    let is_there = |found: Description<'_>| is_of(&found, pag.uid) && found.gid == ring.group.0;
    if !keyring::describe(keyring, is_there).unwrap_or(false) {
        // The manager has ended, or its keyring no longer belongs to the handle group.
        (record.adopted, record.lent) = (None, Vec::new());
        user.store(pag, record)?;
        return Ok(0);
    }
    let tokens: Vec<Serial> = token_keys(&ring)?.into_iter().map(|key| key.serial).collect();
    let there = keyring::members(ring.serial).map_err(Error::key(format!("read ring {}", ring.serial)))?;
    // The PAG's own S0, or the S0 of the PAG that it follows.
    let is_s0 = |key: &Serial| Some(*key) == pag.afs_keyring || record.mirrored.contains(key) && !tokens.contains(key);
    let afs_keyrings: Vec<Serial> = there.into_iter().filter(is_s0).collect();
    let new = |keys: &[Serial]| keys.iter().copied().filter(|key| !record.lent.contains(key)).collect::<Vec<_>>();
    let wanted = [&tokens[..], &afs_keyrings[..]].concat();
    let change = Change {
        link: new(&tokens),
        link_afs: new(&afs_keyrings),
        unlink: record.lent.iter().copied().filter(|key| !wanted.contains(key)).collect(),
        wanted,
    };
    change.apply(user, pag, &mut record, |record| &mut record.lent, &ring, keyring)?;
    record.lent = change.wanted;
    if pag.record.as_ref() != Ok(&record) {
        user.store(pag, record.clone())?;
    }
    let there = keyring::members(keyring).map_err(Error::key(format!("read keyring {keyring}")))?;
    Ok(record.lent.iter().filter(|key| there.contains(key)).count())
}
