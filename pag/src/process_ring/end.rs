//! The end of a process's rings.

use super::name::Name;
use super::ring::ProcessRing;
use crate::afs::discard_keys;
use crate::afs::openafs::Interface;
use crate::keyring::{self, Serial};

/// Ends rings for all who hold them: discards their tokens, revokes them, and takes them out of `holder`. Unlinking alone
/// would end nothing, since members and io_uring credentials hold the ring. The thread may be anywhere afterwards, so a
/// child calls this. Allocates nothing.
///
/// A ring that cannot be entered any more has ended already, and is only taken out of the holder.
pub fn end(rings: &[ProcessRing], holder: Option<Serial>, openafs: Option<&Interface>) {
    for ProcessRing { serial, name } in rings {
        let is_inside =
            keyring::join(Some(name.as_c())).is_ok() && keyring::session().is_ok_and(|session| session == *serial);
        if is_inside {
            discard_keys(*serial, None);
            invalidate_afs_pag(*serial, openafs);
            let _ = keyring::revoke(*serial);
        }
        if let Some(holder) = holder {
            let _ = keyring::unlink(*serial, holder);
        }
    }
}

/// Takes away what is left of a ring that was not made to its end, by its name. As [`end`], this is for a child.
pub fn undo(name: &Name, holder: Serial) {
    if keyring::join(Some(name.as_c())).is_ok()
        && let Ok(left) = keyring::session()
    {
        let _ = keyring::revoke(left);
        let _ = keyring::unlink(left, holder);
    }
}

/// Ends the PAG of OpenAFS in a ring. Its module forgets a PAG's tokens when the PAG's key `_pag` is destroyed, which the
/// kernel does a moment later; so the tokens are discarded first.
fn invalidate_afs_pag(ring: Serial, openafs: Option<&Interface>) {
    if let Some(interface) = openafs.filter(|interface| interface.is_member()) {
        let _ = interface.unlog();
    }
    let mut members = [0; 4 * 4096];
    let Ok(members) = keyring::members_into(ring, &mut members) else { return };
    for keyring in members.filter(|key| keyring::describe(*key, |found| found.is_keyring()).unwrap_or(false)) {
        let mut keys = [0; 4 * 64];
        let Ok(keys) = keyring::members_into(keyring, &mut keys) else { continue };
        for key in keys {
            if keyring::describe(key, |found| found.kind == b"afs_pag").unwrap_or(false) {
                let _ = keyring::invalidate(key);
            }
        }
    }
}
