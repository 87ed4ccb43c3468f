//! Becoming a user.

use super::errno::cerr;
use std::io;

use super::ids::{ids, setgroups, setresgid, setresuid};

/// Who a child becomes before it does its work.
#[derive(Debug, Clone)]
pub struct Identity {
    /// User id, for real, effective, saved and file system uid.
    pub uid: u32,
    /// Group id, likewise.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Identity {
    /// Makes this thread that user for good: what it runs next has no way back. Allocates nothing.
    ///
    /// # Errors
    /// EPERM when the caller is neither root nor already that user.
    pub fn become_it(&self) -> io::Result<()> {
        let now = ids();
        if now.uid == [self.uid; 3] && now.gid == [self.gid; 3] {
            return Ok(());
        }
        // The real ids may be a caller's (su); with an effective uid 0 all of these are allowed.
        setgroups(&self.groups)?;
        setresgid([self.gid; 3])?;
        setresuid([self.uid; 3])?;
        // What is in its memory was ours, and he could trace it where fs.suid_dumpable is 1 (kernel/cred.c, commit_creds).
        // SAFETY: takes integers.
        cerr(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) }.into()).map(drop)
    }
}
