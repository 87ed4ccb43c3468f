//! Tells when something is written into a PAG's own ccache: the user may have renewed or replaced the ticket.
//!
//! The directories belong to users, so the helper learns only which ccache to read, and reads each at most once a second:
//! programs write several times, and a user may write without end.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pag::ccache;
use pag::types::PagId;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use zruntime::{AsyncIo, Shared, SharedRuntime};

/// Pause before what was written is read.
const SETTLE: Duration = Duration::from_secs(1);

/// The ccaches that are watched.
pub(crate) struct OwnCcaches {
    inotify: AsyncIo<OwnedFd, Shared>,
    watched: BTreeMap<i32, PagId>,
    /// Those that were written into, and when they are to be read.
    written: BTreeMap<PagId, Instant>,
}

impl OwnCcaches {
    /// Watches none yet.
    ///
    /// # Errors
    /// EMFILE: too many inotify instances of root's.
    pub(crate) fn new(runtime: &SharedRuntime) -> io::Result<Self> {
        let inotify = AsyncIo::new_nonblocking(runtime, inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)?;
        Ok(OwnCcaches { inotify, watched: BTreeMap::new(), written: BTreeMap::new() })
    }

    /// Watches the ccaches of these PAGs and no others. One that cannot be watched is read with each renewal only.
    pub(crate) fn set(&mut self, wanted: impl Iterator<Item = (PagId, u32)>) {
        let mut left = std::mem::take(&mut self.watched);
        let there: BTreeMap<PagId, i32> = left.iter().map(|(watch, pag)| (*pag, *watch)).collect();
        for (pag, uid) in wanted {
            let watch = there.get(&pag).copied().or_else(|| self.watch(ccache::open_directory(uid, pag).ok()?));
            if let Some(watch) = watch {
                left.remove(&watch);
                self.watched.insert(watch, pag);
            }
        }
        for (watch, pag) in left {
            // EINVAL for a directory that is gone.
            let _ = inotify::remove_watch(self.inotify.get_ref(), watch);
            self.written.remove(&pag);
        }
    }

    /// Watches the very directory that was opened, not what its user has mounted over it meanwhile: that may not answer.
    fn watch(&self, directory: OwnedFd) -> Option<i32> {
        let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        inotify::add_watch(self.inotify.get_ref(), path, flags).ok()
    }

    /// Takes what the kernel tells, for [`OwnCcaches::due`].
    ///
    /// # Errors
    /// When the loop cannot watch any more.
    pub(crate) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut told = Vec::new();
        ready!(self.inotify.poll_read_with(cx, |inotify| {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(inotify, &mut buffer);
            // As much as one read brings: more may follow without end.
            loop {
                let event = reader.next().map_err(io::Error::from)?;
                told.push((event.wd(), event.events()));
                if reader.is_buffer_empty() {
                    return Ok(());
                }
            }
        }))?;
        let moment = Instant::now() + SETTLE;
        for (watch, events) in told {
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                for pag in self.watched.values() {
                    self.written.entry(*pag).or_insert(moment);
                }
            } else if events.contains(ReadFlags::IGNORED) {
                self.watched.remove(&watch);
            } else if let Some(pag) = self.watched.get(&watch) {
                self.written.entry(*pag).or_insert(moment);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Has the ccache of a PAG read again: what was found there could not be noted.
    pub(crate) fn read_again(&mut self, pag: PagId) {
        self.written.insert(pag, Instant::now() + SETTLE);
    }

    /// The PAGs with ccaches that are to be read now.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<PagId> {
        let due: Vec<PagId> = self.written.iter().filter(|(_, moment)| **moment <= now).map(|(pag, _)| *pag).collect();
        self.written.retain(|_, moment| *moment > now);
        due
    }

    /// When [`OwnCcaches::due`] has some.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.written.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[test]
    fn what_is_written_is_told_once_and_after_a_while() {
        zbus::block_on(async {
            let mut ccaches = OwnCcaches::new(&SharedRuntime::current().unwrap()).unwrap();
            let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            for (number, directory) in [(1, &one), (2, &other)] {
                let watch = ccaches.watch(std::fs::File::open(directory.path()).unwrap().into()).unwrap();
                ccaches.watched.insert(watch, PagId::from(number));
            }
            // Nothing is there to be told, and that is said at once.
            assert!(poll_fn(|cx| Poll::Ready(ccaches.poll_written(cx).is_pending())).await);
            for text in ["one", "two"] {
                std::fs::write(one.path().join("tkt"), text).unwrap();
            }
            poll_fn(|cx| ccaches.poll_written(cx)).await.unwrap();
            let due = ccaches.next().unwrap();
            assert!(ccaches.due(due - Duration::from_millis(1)).is_empty());
            assert_eq!(ccaches.due(due), [PagId::from(1)]);
            assert_eq!(ccaches.next(), None);
            std::fs::read(one.path().join("tkt")).unwrap();
            assert!(poll_fn(|cx| Poll::Ready(ccaches.poll_written(cx).is_pending())).await, "to read changes nothing");
        });
    }
}
