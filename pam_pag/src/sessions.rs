//! The sessions that this process has open, by PAM handle. A process is in one ring at a time; with sessions of several users
//! open, its next program may be any user's.

use std::sync::{Mutex, MutexGuard, TryLockError};

/// A handle with a session.
struct Session {
    handle: usize,
    /// The process that opened it. A child inherits the list, but the sessions in it are not the child's.
    pid: u32,
    uid: u32,
}

static OPEN: Mutex<Vec<Session>> = Mutex::new(Vec::new());

/// Notes the session of a handle: its user, or none.
pub(crate) fn note(handle: usize, user: Option<u32>) {
    let Some(mut open) = list() else { return };
    let pid = std::process::id();
    open.retain(|session| session.handle != handle && session.pid == pid);
    open.extend(user.map(|uid| Session { handle, pid, uid }));
    if open.is_empty() {
        // libpam may unload the module now, which frees no memory of statics.
        *open = Vec::new();
    }
}

/// Whether this process has a session of another user open.
pub(crate) fn are_of_others(uid: u32) -> bool {
    let pid = std::process::id();
    list().is_some_and(|open| open.iter().any(|session| session.pid == pid && session.uid != uid))
}

/// The list. Another thread holds its lock for some nanoseconds only. None in a child that was forked at such a moment: there
/// the lock is never released.
fn list() -> Option<MutexGuard<'static, Vec<Session>>> {
    for _ in 0..10_000 {
        match OPEN.try_lock() {
            Ok(open) => return Some(open),
            Err(TryLockError::Poisoned(open)) => return Some(open.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_users_session_counts_until_its_handle_has_none() {
        assert!(!are_of_others(61001));
        note(1, Some(61001));
        note(2, Some(61001));
        assert!(!are_of_others(61001) && are_of_others(61002));
        note(2, Some(61002));
        assert!(are_of_others(61001) && are_of_others(61002));
        note(2, None);
        assert!(!are_of_others(61001));
        note(1, None);
        assert!(!are_of_others(61002));
        assert_eq!(list().unwrap().capacity(), 0);
    }
}
