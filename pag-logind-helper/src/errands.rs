//! Errands into users' files, each done by a child. A user decides how long it takes to read their ccache: they may have
//! mounted a file system over it that never answers. The helper has one loop for all users, which goes on meanwhile.
//!
//! One user has one child at a time. The child reports by a deadline. If the kernel then still holds a process that the child
//! has made, the child stays until that process ends, and the user's next errands are given up. Other users' are not.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pag::sys::{self, Child};
use zruntime::{AsyncIo, Shared, SharedRuntime};

/// Longest time that an errand's work may take: its child ends then, or a second later.
pub(crate) const TIME: Duration = Duration::from_secs(2);
/// A child that has not reported by now is killed: it waits for a name service.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest time for the end of a child that has reported; what is left then is held by the kernel.
const END: Duration = Duration::from_millis(100);
/// Most children that have not reported yet.
const AT_ONCE: usize = 16;
/// Most errands of one user that wait.
const MOST: usize = 64;
/// Most bytes of a report.
const SPACE: usize = 4096;

/// What an errand is for.
pub(crate) trait Errand: Clone + PartialEq {
    /// Whether it must run even if the same errand, or too many others, wait already.
    fn must_run(&self) -> bool;
}

/// What a child does, and what it reports.
pub(crate) type Work = Box<dyn FnOnce() -> String>;

/// An errand that is over.
pub(crate) struct Done<E> {
    pub(crate) uid: u32,
    pub(crate) errand: E,
    /// What the child has reported; nothing where it could not.
    pub(crate) report: String,
}

/// The errands that run and wait.
pub(crate) struct Errands<E> {
    running: BTreeMap<u32, Running<E>>,
    waiting: VecDeque<(u32, E, Work)>,
}

impl<E> Default for Errands<E> {
    fn default() -> Self {
        Errands { running: BTreeMap::new(), waiting: VecDeque::new() }
    }
}

/// One user's child.
struct Running<E> {
    child: Child,
    /// Its report, and then its end. None where its end is not told: it is looked for now and then.
    source: Option<AsyncIo<OwnedFd, Shared>>,
    phase: Phase<E>,
}

/// How far a child is.
enum Phase<E> {
    /// It has not reported yet.
    Away { errand: E, report: Vec<u8>, until: Instant },
    /// It has reported, and has not ended yet.
    Ending { since: Instant },
}

impl<E: Errand> Errands<E> {
    /// Has an errand done in its turn. One that waits already is not done twice.
    pub(crate) fn add(&mut self, uid: u32, errand: E, work: Work) {
        let of_user = self.waiting.iter().filter(|(of, ..)| *of == uid);
        let known = of_user.clone().any(|(_, other, _)| *other == errand);
        if errand.must_run() || !known && of_user.count() < MOST {
            self.waiting.push_back((uid, errand, work));
        }
    }

    /// When something is to be done although nothing is told.
    pub(crate) fn next(&self) -> Option<Instant> {
        let waits = |uid: &u32| self.waiting.iter().any(|(of, ..)| of == uid);
        let ends = self.running.iter().filter_map(|(uid, running)| match running.phase {
            Phase::Away { until, .. } => Some(until),
            Phase::Ending { since } if waits(uid) => Some(since + END),
            Phase::Ending { .. } => None,
        });
        ends.min()
    }

    /// Starts what can be started, and gives what is over.
    pub(crate) fn poll_done(&mut self, runtime: &SharedRuntime, cx: &mut Context<'_>) -> Poll<Vec<Done<E>>> {
        let mut over = Vec::new();
        loop {
            let before = over.len();
            let begun = self.start(runtime, &mut over);
            let ran = self.running.len();
            self.collect(runtime, cx, &mut over);
            // A child that has ended makes room for what its user waits for, and nothing else would tell of that.
            if !begun && over.len() == before && self.running.len() == ran {
                break;
            }
        }
        if over.is_empty() { Poll::Pending } else { Poll::Ready(over) }
    }

    /// Starts errands of users that have no child. If the kernel holds a user's last child, the user's errands are given up
    /// without a report.
    fn start(&mut self, runtime: &SharedRuntime, over: &mut Vec<Done<E>>) -> bool {
        let (mut begun, mut waiting) = (false, VecDeque::new());
        for (uid, errand, work) in std::mem::take(&mut self.waiting) {
            let away = self.running.values().filter(|one| matches!(one.phase, Phase::Away { .. })).count();
            match self.running.get(&uid).map(|running| &running.phase) {
                Some(Phase::Ending { since }) if since.elapsed() >= END => {
                    over.push(Done { uid, errand, report: String::new() });
                }
                None if away < AT_ONCE => match send(runtime, work) {
                    Ok((child, pipe)) => {
                        let phase = Phase::Away { errand, report: Vec::new(), until: Instant::now() + LIMIT };
                        self.running.insert(uid, Running { child, source: Some(pipe), phase });
                        begun = true;
                    }
                    Err(_) => over.push(Done { uid, errand, report: String::new() }),
                },
                _ => waiting.push_back((uid, errand, work)),
            }
        }
        self.waiting = waiting;
        begun
    }

    /// Hears what children report, and sees which have ended.
    fn collect(&mut self, runtime: &SharedRuntime, cx: &mut Context<'_>, over: &mut Vec<Done<E>>) {
        self.running.retain(|uid, running| {
            if let Phase::Away { errand, report, until } = &mut running.phase {
                if !running.source.as_ref().is_none_or(|pipe| hear(pipe, report, cx)) {
                    if Instant::now() < *until {
                        return true;
                    }
                    running.child.kill();
                    report.clear();
                }
                let report = String::from_utf8_lossy(report).into_owned();
                over.push(Done { uid: *uid, errand: errand.clone(), report });
                let pidfd = running.child.pidfd().and_then(|fd| AsyncIo::new_nonblocking(runtime, fd));
                (running.source, running.phase) = (pidfd.ok(), Phase::Ending { since: Instant::now() });
            }
            let has_ended = || !matches!(running.child.try_wait(), Ok(None));
            let ended = |_: &OwnedFd| has_ended().then_some(()).ok_or_else(|| io::ErrorKind::WouldBlock.into());
            running.source.as_ref().map_or_else(|| !has_ended(), |pidfd| pidfd.poll_read_with(cx, ended).is_pending())
        });
    }
}

/// Reads what there is of a report; whether that is all.
fn hear(pipe: &AsyncIo<OwnedFd, Shared>, report: &mut Vec<u8>, cx: &mut Context<'_>) -> bool {
    let mut buffer = [0; 512];
    loop {
        match pipe.poll_read_with(cx, |pipe| Ok(rustix::io::read(pipe, &mut buffer)?)) {
            Poll::Pending => return false,
            Poll::Ready(Ok(length)) if length > 0 && report.len() < SPACE => {
                report.extend_from_slice(buffer.get(..length).unwrap_or_default());
            }
            Poll::Ready(_) => return true,
        }
    }
}

/// Sends a child that does `work` and reports.
#[allow(unsafe_code)] // makes a child
fn send(runtime: &SharedRuntime, work: Work) -> io::Result<(Child, AsyncIo<OwnedFd, Shared>)> {
    let (read, write) = sys::pipe()?;
    // This program has one thread, so that a child may allocate.
    // SAFETY: this program has one thread, so no lock is held, and no program is executed.
    let child = unsafe {
        sys::child(|| {
            // One that the kernel holds is not to keep our name on the bus, or what we watch, beyond our end.
            sys::close_all_but(write.as_fd());
            let report = work();
            let told = sys::write_all(write.as_fd(), report.as_bytes());
            drop(write);
            // A child of its own may be left: while that is held there is to be no other for this user.
            sys::wait_for_left();
            u8::from(!told)
        })
    }?;
    rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK)?;
    Ok((child, AsyncIo::new_nonblocking(runtime, read)?))
}

/// Run by `tests/children.rs`, which has one thread.
#[cfg(test)]
#[allow(dead_code)]
pub(crate) mod children {
    use super::*;
    use std::future::poll_fn;

    impl Errand for u64 {
        fn must_run(&self) -> bool {
            false
        }
    }

    pub(crate) fn each_user_has_one_child_at_a_time_and_waits_for_no_other() {
        zbus::block_on(async {
            let runtime = SharedRuntime::current().unwrap();
            let mut errands = Errands::default();
            let gate = tempfile::tempdir().unwrap();
            let open = gate.path().join("open");
            let waits = open.clone();
            errands.add(
                1,
                1_u64,
                Box::new(move || {
                    while !waits.exists() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    "first".to_owned()
                }),
            );
            for _ in 0..2 {
                errands.add(1, 2_u64, Box::new(|| "second".to_owned()));
            }
            errands.add(2, 3_u64, Box::new(|| "other".to_owned()));
            let mut said = Vec::new();
            while said.len() < 3 {
                let done = poll_fn(|cx| errands.poll_done(&runtime, cx)).await;
                said.extend(done.into_iter().map(|done| (done.uid, done.report)));
                std::fs::write(&open, "").unwrap();
            }
            let expected = [(2, "other"), (1, "first"), (1, "second")].map(|(uid, said)| (uid, said.to_owned()));
            assert_eq!(said, expected, "and what waits already is not done twice");
        });
    }

    #[allow(unsafe_code)] // makes a child
    pub(crate) fn a_child_that_is_held_costs_its_user_errands_and_nobody_else() {
        zbus::block_on(async {
            let runtime = SharedRuntime::current().unwrap();
            let mut errands = Errands::default();
            let (child, phase) = (
                // SAFETY: this program has one thread, so no lock is held, and no program is executed.
                unsafe {
                    sys::child(|| {
                        std::thread::sleep(Duration::from_secs(20));
                        0
                    })
                }
                .unwrap(),
                Phase::Ending { since: Instant::now() - END },
            );
            let pid = child.pidfd().unwrap();
            errands.running.insert(1, Running { child, source: None, phase });
            errands.add(1, 1_u64, Box::new(|| "given up".to_owned()));
            errands.add(2, 2_u64, Box::new(|| "other".to_owned()));
            let mut said = Vec::new();
            while said.len() < 2 {
                said.extend(poll_fn(|cx| errands.poll_done(&runtime, cx)).await);
            }
            let said: Vec<_> = said.iter().map(|done| (done.uid, &*done.report)).collect();
            assert_eq!(said, [(1, ""), (2, "other")]);
            errands.running.get(&1).unwrap().child.kill();
            drop(pid);
        });
    }
}
