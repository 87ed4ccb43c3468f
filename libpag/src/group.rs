//! One PAG of this process.

use std::marker::PhantomData;
use std::time::SystemTime;

use crate::error::{Result, unsupported};
use crate::seed::Seed;

/// A PAG of this process. A clone is the same PAG. It ends with its last clone, or by [`end`](Pag::end), or with its
/// [`Process`](crate::Process).
#[derive(Debug, Clone)]
pub struct Pag {}

impl Pag {
    /// Puts the calling thread into the PAG until the guard is dropped. The thread then goes back to where it was: to the PAG
    /// that it had entered before, or to the default PAG, or out of all PAGs. Allocates no memory, takes no lock, and opens
    /// no file.
    ///
    /// # Errors
    /// `Forked`: the thread is where it was. `Ended` and `System`: the thread is in *no* PAG, wherever it was before. If the
    /// kernel refuses even that, the process aborts, since it would go on under another's identity.
    pub fn enter(&self) -> Result<Entered<'_>> {
        Err(unsupported())
    }

    /// Does `work` inside the PAG, in the calling thread.
    ///
    /// # Errors
    /// As [`enter`](Pag::enter); `work` is not done then.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        let _inside = self.enter()?;
        Ok(work())
    }

    /// Puts the calling thread into the PAG until it enters another or [leaves](crate::Process::leave). For callers that
    /// cannot keep a guard. Allocates no memory, takes no lock, and opens no file.
    ///
    /// # Errors
    /// As [`enter`](Pag::enter).
    pub fn switch(&self) -> Result<()> {
        Err(unsupported())
    }

    /// Gets new tokens into the PAG, for all who are in it.
    ///
    /// # Errors
    /// `Invalid` (a seed of nothing), `Forked`, `Ended`, `Quota`, `Timeout`, `Seed`, `System`. The PAG keeps the tokens that it
    /// had.
    pub fn renew(&self, _seed: &Seed) -> Result<()> {
        Err(unsupported())
    }

    /// When the first of the PAG's tokens ends, as it was when they were made; `None` if that is unknown or there are none.
    pub fn expires(&self) -> Option<SystemTime> {
        None
    }

    /// Ends the PAG for all who hold it: threads that are inside, children, io_uring credentials. They stay where they are, in
    /// a ring without tokens. Ending twice is allowed.
    ///
    /// # Errors
    /// `Forked`. `System` and `Timeout`: nothing can enter the PAG any more, but its tokens may be there until the last
    /// member leaves.
    pub fn end(&self) -> Result<()> {
        Err(unsupported())
    }
}

/// The calling thread is inside a PAG. Dropping it takes the thread back to where it was.
///
/// It cannot be sent to another thread, since it is about this one. If an outer guard is dropped before an inner one, the
/// thread goes back to where it was before the outer one, and the inner one does nothing any more.
#[derive(Debug)]
#[must_use = "the thread leaves the PAG when this is dropped"]
pub struct Entered<'a> {
    pag: PhantomData<&'a Pag>,
    thread: PhantomData<*const ()>,
}
