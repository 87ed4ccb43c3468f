//! Locks of this process.

use std::sync::{Mutex, MutexGuard, TryLockError};

/// Takes a lock that other threads hold for some microseconds. None in a process that was forked at such a moment: there
/// it is never released, and a login must not wait for it.
pub fn lock_briefly<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for _ in 0..10_000 {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(guard)) => return Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_never_released_is_not_waited_for() {
        let mutex = Mutex::new(1);
        let held = mutex.lock().unwrap();
        assert!(lock_briefly(&mutex).is_none());
        drop(held);
        assert_eq!(lock_briefly(&mutex).as_deref(), Some(&1));
    }
}
