//! Tickets in users' ccaches: how the helper learns that a user or a login has got a new one, and brings it to the PAGs.
//!
//! A child reads and writes ccaches, since a user decides how long that takes: see [`crate::errands`].

pub(crate) mod copy;
mod errand;
pub(crate) mod feed;
pub(crate) mod look;
mod other_ccaches;
mod own_ccaches;

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use pag::types::PagId;
use zruntime::SharedRuntime;

pub(crate) use self::errand::Errand;
pub(crate) use self::other_ccaches::Due;
use self::other_ccaches::OtherCcaches;
use self::own_ccaches::OwnCcaches;
use crate::pags::Pags;

/// The ccaches that are watched.
pub(crate) struct Tickets {
    own: OwnCcaches,
    others: OtherCcaches,
}

impl Tickets {
    /// Watches none yet.
    ///
    /// # Errors
    /// EMFILE: root has too many inotify instances.
    pub(crate) fn new(runtime: &SharedRuntime) -> io::Result<Self> {
        Ok(Tickets { own: OwnCcaches::new(runtime)?, others: OtherCcaches::new() })
    }

    /// Watches the ccaches of these PAGs.
    pub(crate) fn watch(&mut self, pags: &Pags) {
        self.own.set(look::own_ccaches(pags));
        self.others.set(feed::other_ccaches(pags));
    }

    /// Waits until something is written into a PAG's own ccache. [`Tickets::written`] says which.
    ///
    /// # Errors
    /// If the kernel does not tell any more.
    pub(crate) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.own.poll_written(cx)
    }

    /// The PAGs with own ccaches that are to be read now.
    pub(crate) fn written(&mut self, now: Instant) -> Vec<PagId> {
        self.own.due(now)
    }

    /// The other ccaches that are to be read now.
    pub(crate) fn changed(&mut self, now: Instant) -> Vec<Due> {
        self.others.due(now)
    }

    /// This one could not be read just now.
    pub(crate) fn put_off(&mut self, due: Due) {
        self.others.put_off(due);
    }

    /// When one is to be read next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.own.next().into_iter().chain(self.others.next()).min()
    }
}
