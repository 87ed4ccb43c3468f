//! What a service manager tells a service of ours by signals.

use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

/// What a service is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// To end: SIGTERM, or SIGINT from a terminal.
    Stop,
    /// To do its work anew: SIGHUP.
    Reload,
}

/// The signals of [`Told`]. The process waits for them, and they interrupt nothing.
pub struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks the signals in the calling thread. For a process with one thread.
    pub fn block() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset fills the set.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            // SAFETY: a valid set.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY: a valid set, and no place for the old one.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
        Signals(set)
    }

    /// Waits at most `time`. None if nothing is told until then.
    pub fn wait(&self, time: Duration) -> Option<Told> {
        let time = libc::timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        // SAFETY: a valid set and a valid time; no place for more about the signal.
        match unsafe { libc::sigtimedwait(&raw const self.0, ptr::null_mut(), &raw const time) } {
            libc::SIGTERM | libc::SIGINT => Some(Told::Stop),
            libc::SIGHUP => Some(Told::Reload),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_told_once() {
        let told = std::thread::spawn(|| {
            let signals = Signals::block();
            let before = signals.wait(Duration::ZERO);
            // SAFETY: this thread has the signal blocked.
            unsafe { libc::raise(libc::SIGHUP) };
            [before, signals.wait(Duration::from_secs(5)), signals.wait(Duration::from_millis(1))]
        });
        assert_eq!(told.join().unwrap(), [None, Some(Told::Reload), None]);
    }
}
