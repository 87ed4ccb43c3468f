//! A process that may have several PAGs.

use crate::error::{Result, unsupported};
use crate::group::Pag;
use crate::seed::Seed;

/// The PAGs of this process. Dropping it ends them all.
///
/// All calls may be made by all threads at once.
#[derive(Debug)]
pub struct Process {}

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
        Err(unsupported())
    }

    /// Creates a PAG and fills it with tokens from `seed`. The calling thread does not enter it.
    ///
    /// Children of this process do the work. They send no SIGCHLD and are collected here.
    ///
    /// # Errors
    /// `Forked`, `Quota`, `Timeout`, `Seed`, `NoPag`, `System`. Nothing is left of the PAG then.
    pub fn create(&self, _seed: &Seed) -> Result<Pag> {
        Err(unsupported())
    }

    /// Chooses the PAG to which threads return when they leave; `None` is no PAG, as it is at first. No thread is moved:
    /// the calling thread, too, goes there with its next [`leave`](Process::leave).
    ///
    /// # Errors
    /// `Forked`, `Ended`: the default stays what it was.
    pub fn set_default(&self, _pag: Option<&Pag>) -> Result<()> {
        Err(unsupported())
    }

    /// Takes the calling thread back to the default PAG, or out of all PAGs. What is left of its [guards](crate::Entered) does
    /// nothing any more. Allocates no memory, takes no lock, and opens no file.
    ///
    /// # Errors
    /// `Forked`. `Ended` (the default PAG has ended) and `System`: the thread is in no PAG.
    pub fn leave(&self) -> Result<()> {
        Err(unsupported())
    }

    /// Takes the calling thread out of all PAGs, the default one included, as a failed call does. For C, where a caller can
    /// name a PAG that is not there. Allocates no memory, takes no lock, and opens no file. Does nothing in a forked child.
    pub(crate) fn leave_all(&self) {}
}
