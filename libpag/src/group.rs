//! One PAG of this process.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::error::{Error, Limit, Result};
use crate::names::Ring;
use crate::seed::{Seed, Source};
use crate::shared::Shared;
use crate::thread::{self, WayBack};

/// A PAG of this process. A clone is the same PAG. It ends with its last clone, or by [`end`](Pag::end), or with its
/// [`Process`](crate::Process).
#[derive(Debug, Clone)]
pub struct Pag {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    ring: Ring,
    has_ended: AtomicBool,
    /// The end of the first of its tokens, in seconds since the epoch; 0 if it is unknown or there are none.
    expires: AtomicU64,
}

impl Pag {
    pub(crate) fn new(shared: Arc<Shared>, ring: Ring) -> Self {
        let (has_ended, expires) = (AtomicBool::new(false), AtomicU64::new(0));
        Pag { inner: Arc::new(Inner { shared, ring, has_ended, expires }) }
    }

    /// Notes when the first of its tokens ends.
    pub(crate) fn note_end(&self, expires: u64) {
        self.inner.expires.store(expires, Ordering::Release);
    }

    /// Its ring, if it is a living PAG of this process.
    pub(crate) fn of(&self, shared: &Arc<Shared>) -> Result<Ring> {
        self.check()?;
        if Arc::ptr_eq(&self.inner.shared, shared) { Ok(self.inner.ring) } else { Err(Error::Ended) }
    }

    fn check(&self) -> Result<()> {
        self.inner.shared.check()?;
        if self.inner.has_ended.load(Ordering::Acquire) { Err(Error::Ended) } else { Ok(()) }
    }

    /// As [`check`](Pag::check). The thread is in no PAG if the PAG has ended.
    fn check_or_leave(&self) -> Result<&Shared> {
        let shared = &self.inner.shared;
        self.check().inspect_err(|error| {
            if !matches!(error, Error::Forked) {
                thread::leave_all(&shared.names, shared.no_pag);
            }
        })?;
        Ok(shared)
    }

    /// Puts the calling thread into the PAG until the guard is dropped. The thread then goes back to where it was: to the PAG
    /// that it had entered before, or to the default PAG, or out of all PAGs. Allocates no memory, takes no lock, and opens
    /// no file.
    ///
    /// # Errors
    /// `Forked`: the thread is where it was. `Ended` and `System`: the thread is in *no* PAG, wherever it was before. If the
    /// kernel refuses even that, the process aborts, since it would go on under another's identity.
    pub fn enter(&self) -> Result<Entered<'_>> {
        let shared = self.check_or_leave()?;
        let way = thread::enter(&shared.names, shared.no_pag, self.inner.ring)?;
        Ok(Entered { shared, way, thread: PhantomData })
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
        let shared = self.check_or_leave()?;
        thread::switch(&shared.names, shared.no_pag, self.inner.ring)
    }

    /// As [`switch`](Pag::switch), for C, which has no guards.
    pub(crate) fn switch_without_guards(&self) -> Result<()> {
        let shared = &self.inner.shared;
        match self.check() {
            Ok(()) => thread::go(&shared.names, shared.no_pag, self.inner.ring),
            Err(Error::Forked) => Err(Error::Forked),
            Err(error) => {
                thread::out(&shared.names, shared.no_pag);
                Err(error)
            }
        }
    }

    /// Gets new tokens into the PAG, for all who are in it.
    ///
    /// # Errors
    /// `Invalid` (a seed of nothing), `Forked`, `Ended`, `Quota`, `Timeout`, `Seed`, `System`. The PAG keeps the tokens that it
    /// had.
    pub fn renew(&self, seed: &Seed) -> Result<()> {
        self.check()?;
        if seed.source == Source::Nothing {
            return Err(Error::Invalid("a PAG cannot be renewed from nothing; give a ccache or a keytab".to_owned()));
        }
        let (shared, limit) = (&self.inner.shared, Limit::of(seed.time));
        let ring = shared.names.for_child(self.inner.ring);
        let renewed = seed.prepare()?.fill(&shared.origin, &ring, limit);
        // The seeder cannot enter a ring that has ended meanwhile.
        self.check()?;
        self.note_end(renewed?);
        Ok(())
    }

    /// When the first of the PAG's tokens ends, as it was when they were made; `None` if that is unknown or there are none.
    pub fn expires(&self) -> Option<SystemTime> {
        let seconds = self.inner.expires.load(Ordering::Acquire);
        (seconds != 0).then(|| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))).flatten()
    }

    /// Ends the PAG for all who hold it: threads that are inside, children, io_uring credentials. They stay where they are, in
    /// a ring without tokens. Ending twice is allowed.
    ///
    /// # Errors
    /// `Forked`. `System` and `Timeout`: nothing can enter the PAG any more, but its tokens may be there until the last
    /// member leaves.
    pub fn end(&self) -> Result<()> {
        self.inner.end()
    }
}

impl Inner {
    fn end(&self) -> Result<()> {
        match self.shared.check() {
            Err(Error::Ended) => return Ok(()),
            other => other?,
        }
        self.has_ended.store(true, Ordering::Release);
        self.shared.end(self.ring)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The calling thread is inside a PAG. Dropping it takes the thread back to where it was.
///
/// It cannot be sent to another thread, since it is about this one. If an outer guard is dropped before an inner one, the
/// thread goes back to where it was before the outer one, and the inner one does nothing any more.
#[derive(Debug)]
#[must_use = "the thread leaves the PAG when this is dropped"]
pub struct Entered<'a> {
    shared: &'a Shared,
    way: WayBack,
    thread: PhantomData<*const ()>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let shared = self.shared;
        if !shared.names.are_of_the_parent() {
            thread::go_back(&shared.names, shared.no_pag, shared.default(), self.way);
        }
    }
}
