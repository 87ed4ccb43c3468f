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
use std::time::Instant;

use zruntime::SharedRuntime;

pub(crate) use self::errand::Errand;
use self::other_ccaches::OtherCcaches;
use self::own_ccaches::OwnCcaches;
use crate::pags::Pags;

/// The ccaches that are watched.
pub(crate) struct Tickets {
    pub(crate) own: OwnCcaches,
    pub(crate) others: OtherCcaches,
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

    /// When one is to be read next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.own.next().into_iter().chain(self.others.next()).min()
    }
}
