//! Tickets in users' ccaches: how the helper learns that a user or a login has got a new one, and brings it to the PAGs.
//!
//! A child reads and writes ccaches, since a user decides how long that takes: see [`crate::errands`].

pub(crate) mod copy;
pub(crate) mod feed;
pub(crate) mod look;
mod other_ccaches;
mod own_ccaches;

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use pag::guard::{Guard, HandleGroup};
use pag::store::record::Record;
use pag::store::registry::Registry;
use pag::types::PagId;
use zruntime::SharedRuntime;

pub(crate) use self::other_ccaches::Due;
use self::other_ccaches::OtherCcaches;
use self::own_ccaches::OwnCcaches;
use crate::errands;
use crate::pags::Pags;

/// What a child is sent into a user's files for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Errand {
    /// To see which ticket is in the PAG's own ccache. A job of `ours` may have put it there. If a job has ended, its result is
    /// here.
    Look { pag: PagId, ours: bool, ended: Option<Result<(), String>> },
    /// To put tickets from a login's own ccache into the ccaches of PAGs.
    Feed(Due),
    /// To put the followed PAG's ticket into the follower's ccache, or to empty that.
    Copy { pag: PagId, leader: Option<PagId> },
}

impl errands::Errand for Errand {
    fn must_run(&self) -> bool {
        // The job is over only when its errand is.
        matches!(self, Errand::Look { ended: Some(_), .. })
    }
}

/// The record of a PAG as it is now, read by a child without its user's lock.
fn record_of(pag: PagId, group: HandleGroup) -> Option<Record> {
    let guard = Guard::enter(group).ok()?;
    let registry = Registry::find(&guard).ok()??;
    registry.pags(&guard).ok()?.into_iter().find(|one| one.id == pag)?.record.ok()
}

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
