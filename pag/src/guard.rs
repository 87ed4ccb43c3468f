//! The ids under which keys are handled. Nothing else runs under them.
//!
//! Permission checks on keys use the file system ids. `@u` and the owner of a named keyring depend on the
//! real ids (security/keys/permission.c, process_keys.c). A PAM host may have any of these: gdm has taken the
//! user's gid, su keeps its caller's real uid. A join under wrong ids does not fail; it makes a stray
//! keyring.

use std::io;

use crate::error::{Error, Result};
use crate::sys::{self, Attributes, Ids};

/// The system group that owns every ring. It has no members. Its gid is the handle by which root, and no
/// user, joins and administers rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandleGroup(pub u32);

impl HandleGroup {
    /// Name of the group in `/etc/group`.
    pub const NAME: &str = "pag";

    /// Reads the group from `/etc/group`. NSS is not asked, since it may wait for a network. The gid is 0 if
    /// the group does not exist; then a process with gid 0 can do to rings what root can.
    pub fn read() -> Self {
        HandleGroup(Self::find(&std::fs::read("/etc/group").unwrap_or_default()).unwrap_or(0))
    }

    fn find(text: &[u8]) -> Option<u32> {
        text.split(|byte| *byte == b'\n').find_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let name = fields.next()?;
            let gid = fields.nth(1)?;
            (name == Self::NAME.as_bytes()).then(|| str::from_utf8(gid).ok()?.parse().ok())?
        })
    }
}

/// While the guard lives, this thread has real ids 0, file system uid 0 and the handle group as file system
/// gid. Dropping it restores the ids, and what the kernel clears when ids change (PDEATHSIG, dumpable), also
/// when a panic unwinds.
#[derive(Debug)]
#[must_use]
pub struct Guard {
    group: HandleGroup,
    before: Ids,
    attributes: Attributes,
}

impl Guard {
    /// Takes the ids. Allocates nothing.
    ///
    /// # Errors
    /// `NotRoot` without effective uid 0, or without the capabilities that belong to it.
    pub fn enter(group: HandleGroup) -> Result<Self> {
        let before = sys::ids();
        let [_, effective, _] = before.uid;
        if effective != 0 {
            return Err(Error::NotRoot);
        }
        let guard = Guard { group, before, attributes: sys::attributes() };
        // From here on `guard` is dropped, and restores, on every path.
        let keep = u32::MAX;
        let [real_gid, ..] = before.gid;
        if real_gid != 0 {
            sys::setresgid([0, keep, keep]).map_err(|_| Error::NotRoot)?;
        }
        let [real_uid, ..] = before.uid;
        if real_uid != 0 {
            sys::setresuid([0, keep, keep]).map_err(|_| Error::NotRoot)?;
        }
        // Last: setresuid and setresgid set the file system ids to the effective ones.
        sys::setfsuid(0);
        sys::setfsgid(group.0);
        if sys::setfsuid(keep) == 0 && sys::setfsgid(keep) == group.0 { Ok(guard) } else { Err(Error::NotRoot) }
    }

    /// The handle group.
    pub fn group(&self) -> HandleGroup {
        self.group
    }

    /// Runs `work` with the real uid `uid`. Only naming that user's `@u` needs this.
    ///
    /// # Errors
    /// EAGAIN when out of memory.
    pub fn with_real_uid<T>(&self, uid: u32, work: impl FnOnce() -> T) -> io::Result<T> {
        struct Back(u32);
        impl Drop for Back {
            fn drop(&mut self) {
                // The effective uid is 0, so the kernel allows this. It sets fsuid to the effective uid 0, as it was.
                let _ = sys::setresuid([0, u32::MAX, u32::MAX]);
                sys::setfsgid(self.0);
            }
        }
        let back = Back(sys::setfsgid(u32::MAX));
        sys::setresuid([uid, u32::MAX, u32::MAX])?;
        let result = work();
        drop(back);
        Ok(result)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // With effective uid 0 the kernel refuses none of these. Even if it refused one, the file system ids
        // below are restored, and those are what the host would notice first.
        if self.before.uid.first() != Some(&0) {
            let _ = sys::setresuid(self.before.uid);
        }
        if self.before.gid.first() != Some(&0) {
            let _ = sys::setresgid(self.before.gid);
        }
        sys::setfsuid(self.before.fsuid);
        sys::setfsgid(self.before.fsgid);
        self.attributes.restore();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handle_group_is_found_among_others() {
        let text = b"root:x:0:\npagan:x:7:alice\npag:x:987:\nxpag:x:3:\n";
        assert_eq!(HandleGroup::find(text), Some(987));
    }

    #[test]
    fn lines_that_are_no_groups_are_passed_over() {
        for text in ["", "pag", "pag:x", "pag:x:", "pag:x:many:", "#pag:x:5:", "\u{0}:::"] {
            assert_eq!(HandleGroup::find(text.as_bytes()), None, "{text}");
        }
    }
}
