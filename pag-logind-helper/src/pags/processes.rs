//! Tells when a process that holds a lease ends, by a pidfd for each.
//!
//! If the loop watched some thousand pidfds itself, each would cost a task and a waker. So they are in one epoll instance,
//! which is readable when one of them is, and the loop watches that.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use pag::sys::Process;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use zruntime::{AsyncIo, Shared, SharedRuntime};

/// The processes that hold leases.
pub(crate) struct Processes {
    epoll: AsyncIo<OwnedFd, Shared>,
    processes: BTreeMap<i32, Watched>,
}

struct Watched {
    process: Process,
    pidfd: OwnedFd,
    /// The users of the leases that it holds: a PAM host may have opened sessions for two users in turn.
    uids: Vec<u32>,
}

/// What has come of an attempt to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coverage {
    /// The kernel will tell the end of each process.
    Whole,
    /// Some process has ended already: its user's PAGs are to be reconciled again.
    Stale,
    /// There are not enough descriptors, or the kernel has no pidfds: all PAGs must be surveyed now and then.
    Partial,
}

impl Processes {
    /// Watches none yet.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub(crate) fn new(runtime: &SharedRuntime) -> io::Result<Self> {
        let epoll = AsyncIo::new_nonblocking(runtime, epoll::create(CreateFlags::CLOEXEC)?)?;
        Ok(Processes { epoll, processes: BTreeMap::new() })
    }

    /// Whether the end of this very process would be told.
    pub(crate) fn covers(&self, process: Process) -> bool {
        self.processes.get(&process.pid).is_some_and(|watched| watched.process == process)
    }

    /// Watches exactly `wanted` for `uid`.
    pub(crate) fn set(&mut self, uid: u32, wanted: &[Process]) -> Coverage {
        let mut released = Vec::new();
        for (pid, watched) in &mut self.processes {
            if !wanted.contains(&watched.process) {
                watched.uids.retain(|one| *one != uid);
                if watched.uids.is_empty() {
                    released.push(*pid);
                }
            }
        }
        for pid in released {
            self.release(pid);
        }
        wanted
            .iter()
            .map(|process| self.add(uid, *process))
            .max_by_key(|coverage| *coverage as u8)
            .unwrap_or(Coverage::Whole)
    }

    fn add(&mut self, uid: u32, process: Process) -> Coverage {
        if !self.covers(process) {
            // The pid was another process's before: that one is gone.
            self.release(process.pid);
        }
        let vacant = match self.processes.entry(process.pid) {
            Entry::Occupied(mut there) => {
                let uids = &mut there.get_mut().uids;
                if !uids.contains(&uid) {
                    uids.push(uid);
                }
                return Coverage::Whole;
            }
            Entry::Vacant(vacant) => vacant,
        };
        let Ok(pidfd) = pag::sys::pidfd_open(process.pid) else {
            return if process.is_alive() { Coverage::Partial } else { Coverage::Stale };
        };
        // Looked at after the open: the descriptor stands for the process that had the pid then.
        if !process.is_alive() {
            return Coverage::Stale;
        }
        let data = EventData::new_u64(u64::try_from(process.pid).unwrap_or(0));
        if epoll::add(self.epoll.get_ref(), &pidfd, data, EventFlags::IN).is_err() {
            return Coverage::Partial;
        }
        vacant.insert(Watched { process, pidfd, uids: vec![uid] });
        Coverage::Whole
    }

    /// Takes the descriptor out of the epoll instance. To close it is not enough: a child that reads a ring has a copy of it
    /// for a moment, and the kernel would go on reporting it.
    fn release(&mut self, pid: i32) -> Vec<u32> {
        let Some(watched) = self.processes.remove(&pid) else { return Vec::new() };
        let _ = epoll::delete(self.epoll.get_ref(), &watched.pidfd);
        watched.uids
    }

    /// Waits until processes end. Gives their users.
    ///
    /// # Errors
    /// When the loop cannot watch any more.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u32>>> {
        let none = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        let mut events = [none; 64];
        let count = ready!(self.epoll.poll_read_with(cx, |epoll| {
            match epoll::wait(epoll, &mut events[..], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
                Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
                other => Ok(other?),
            }
        }))?;
        let mut uids = Vec::new();
        for event in events.iter().take(count) {
            let pid = event.data.u64();
            uids.extend(i32::try_from(pid).map(|pid| self.release(pid)).unwrap_or_default());
        }
        Poll::Ready(Ok(uids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::process::{Child, Command};

    fn sleeper() -> (Child, Process) {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::find(i32::try_from(child.id()).unwrap()).unwrap();
        (child, process)
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_end_of_a_process_is_told_to_all_whose_leases_it_held() {
        zbus::block_on(async {
            let mut watch = Processes::new(&SharedRuntime::current().unwrap()).unwrap();
            let ((one, first), (two, second)) = (sleeper(), sleeper());
            assert_eq!(watch.set(61001, &[first, second]), Coverage::Whole);
            assert_eq!(watch.set(61002, &[second]), Coverage::Whole);
            assert_eq!(watch.set(61001, &[second]), Coverage::Whole);
            assert!(!watch.covers(first) && watch.covers(second));
            end(one);
            end(two);
            let mut uids = poll_fn(|cx| watch.poll_ended(cx)).await.unwrap();
            uids.sort_unstable();
            assert_eq!(uids, [61001, 61002]);
            assert!(watch.processes.is_empty());
        });
    }

    #[test]
    fn one_that_is_gone_or_another_is_said_to_be() {
        zbus::block_on(async {
            let mut watch = Processes::new(&SharedRuntime::current().unwrap()).unwrap();
            let (child, process) = sleeper();
            let earlier = Process { start: process.start - 1, ..process };
            assert_eq!(watch.set(61001, &[earlier]), Coverage::Stale);
            end(child);
            assert_eq!(watch.set(61001, &[process]), Coverage::Stale);
            assert!(watch.processes.is_empty());
        });
    }
}
