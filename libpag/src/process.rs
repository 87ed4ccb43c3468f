//! A process that may have several PAGs.

use std::sync::Arc;

use crate::error::{Limit, Result};
use crate::group::Pag;
use crate::seed::{Seed, Source};
use crate::shared::Shared;
use crate::thread;

/// The PAGs of this process. Dropping it ends them all.
///
/// All calls may be made by all threads at once.
#[derive(Debug)]
pub struct Process {
    shared: Arc<Shared>,
}

impl Process {
    /// Makes this process one that may have PAGs: once for each process, after a server's fork and before its threads.
    ///
    /// From now on the process cannot be traced or dumped by others of its uid, since it has the names of its rings in
    /// memory. It has one thread more, which sleeps with all signals blocked: the kernel lets a child replace the session
    /// keyring of a process that has only one thread. The calling thread stays where it is.
    ///
    /// # Errors
    /// `AlreadyOpen`, `Quota`; `System` if this process may not use keyrings, or has several uids (a setuid program).
    pub fn open() -> Result<Self> {
        Ok(Process { shared: Arc::new(Shared::open()?) })
    }

    /// Creates a PAG and fills it with tokens from `seed`. The calling thread does not enter it.
    ///
    /// Children of this process do the work. They send no SIGCHLD and are collected here. On a host with OpenAFS, its module
    /// makes a process without CAP_SYS_ADMIN wait if it creates more than one PAG a second on average.
    ///
    /// # Errors
    /// `Invalid`, `Forked`, `Quota`, `Timeout`, `Seed`, `NoPag`, `System`. Nothing is left of the PAG then.
    pub fn create(&self, seed: &Seed) -> Result<Pag> {
        self.shared.check()?;
        let limit = Limit::of(seed.time);
        let seeding = seed.prepare()?;
        let (ring, made) = self.shared.make(limit)?;
        let pag = Pag::new(self.shared.clone(), ring);
        if seed.source != Source::Nothing {
            pag.note_end(seeding.fill(&self.shared.origin, &made, limit)?);
        }
        Ok(pag)
    }

    /// Chooses the PAG to which threads return when they leave; `None` is no PAG, as it is at first. No thread is moved:
    /// the calling thread, too, goes there with its next [`leave`](Process::leave).
    ///
    /// # Errors
    /// `Forked`; `Ended`, also for a PAG of another process that was open before: the default stays what it was.
    pub fn set_default(&self, pag: Option<&Pag>) -> Result<()> {
        self.shared.check()?;
        self.shared.set_default(pag.map(|pag| pag.of(&self.shared)).transpose()?);
        Ok(())
    }

    /// Takes the calling thread back to the default PAG, or out of all PAGs. What is left of its [guards](crate::Entered) does
    /// nothing any more. Allocates no memory, takes no lock, and opens no file.
    ///
    /// # Errors
    /// `Forked`. `Ended` (the default PAG has ended) and `System`: the thread is in no PAG.
    pub fn leave(&self) -> Result<()> {
        self.shared.check()?;
        thread::leave(&self.shared.names, self.shared.no_pag, self.shared.default())
    }

    /// As [`leave`](Process::leave), for C, which has no guards.
    pub(crate) fn leave_without_guards(&self) -> Result<()> {
        self.shared.check()?;
        thread::go(&self.shared.names, self.shared.no_pag, self.shared.default().unwrap_or(self.shared.no_pag))
    }

    /// Takes the calling thread out of all PAGs, the default one included, as a failed call does. For C, where a caller can
    /// name a PAG that is not there. Allocates no memory, takes no lock, and opens no file. Does nothing in a forked child.
    pub(crate) fn leave_all(&self) {
        if !self.shared.names.are_of_the_parent() {
            thread::out(&self.shared.names, self.shared.no_pag);
        }
    }

    /// Ends all PAGs, as dropping does.
    pub(crate) fn close(&self) {
        self.shared.close();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shared.close();
    }
}
