//! A thread that does nothing.

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

use super::fork::with_all_signals_blocked;

/// A thread that sleeps with all signals blocked until this value is dropped. With it a process has two threads, and the
/// kernel lets no child replace the session keyring of its parent (security/keys/keyctl.c, keyctl_session_to_parent). It
/// also keeps the process keyring, which the kernel destroys with the last thread that shares it.
#[derive(Debug)]
pub struct Parked {
    thread: Option<(Sender<()>, JoinHandle<()>)>,
    of: u32,
}

/// The smallest stack that std gives a thread is the system's smallest.
const STACK: usize = 1;

impl Parked {
    /// Starts the thread. It has the credentials of the calling one.
    ///
    /// # Errors
    /// EAGAIN if the process may have no more threads.
    pub fn start() -> io::Result<Self> {
        let (end, wait) = channel();
        let sleep = move || while wait.recv().is_ok() {};
        let thread = Builder::new().name("pag-parked".to_owned()).stack_size(STACK);
        let thread = with_all_signals_blocked(|| thread.spawn(sleep))?;
        Ok(Parked { thread: Some((end, thread)), of: std::process::id() })
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        let Some((end, thread)) = self.thread.take() else { return };
        // A forked child has no such thread to wait for.
        if self.of == std::process::id() {
            drop(end);
            let _ = thread.join();
        }
    }
}
