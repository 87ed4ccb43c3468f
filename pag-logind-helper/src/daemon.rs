//! The helper's loop. It sleeps until a process ends, a login sends a nudge, the bus or a signal brings something, or a
//! time has come that some part waits for. Then [`Work`] does what follows from that.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use pag::report::report;
use zruntime::signal::{Signal, Signals};
use zruntime::{Shared, SharedRuntime};

use crate::agenda::{AGAIN, REST};
use crate::dbus::{self, Interface};
use crate::errands::Done;
use crate::jobs::job::Job;
use crate::notify;
use crate::nudges::{NudgeSocket, Nudges};
use crate::order::Order;
use crate::systemd::{self, Bus, News};
use crate::tickets::{Errand, feed};
use crate::work::{Work, started, status};

/// Serves until a signal ends the helper.
///
/// # Errors
/// If the helper cannot start, or cannot wait for events any more.
pub(crate) async fn run() -> io::Result<()> {
    let runtime = SharedRuntime::current()?;
    let (bus, interface) = (Bus::default(), Interface::default());
    let mut helper = Helper::new(&runtime, &bus, &interface)?;
    let mut bus_side = pin!(systemd::run(&bus, &runtime));
    let mut callers_side = pin!(dbus::serve(&interface, &runtime));
    let mut our_side = pin!(helper.serve());
    // Three sides of one task, which wake each other through mailboxes.
    poll_fn(|cx| {
        let _ = bus_side.as_mut().poll(cx);
        let _ = callers_side.as_mut().poll(cx);
        our_side.as_mut().poll(cx)
    })
    .await
}

/// What wakes the loop, and what it works with.
struct Helper<'a> {
    runtime: &'a SharedRuntime,
    bus: &'a Bus,
    interface: &'a Interface,
    signals: Signals<Shared>,
    nudges: NudgeSocket,
    work: Work<'a>,
}

/// Why the loop goes on.
enum Wake {
    Signal(Signal),
    Nudged(Nudges),
    /// Processes of these users, which held leases, have ended.
    Ended(Vec<u32>),
    Written,
    /// Children are back from users' files.
    Back(Vec<Done<Errand>>),
    News(News),
    Order(Order),
    Time,
}

impl<'a> Helper<'a> {
    fn new(runtime: &'a SharedRuntime, bus: &'a Bus, interface: &'a Interface) -> io::Result<Self> {
        pag::run::make_directories()?;
        Ok(Helper {
            runtime,
            bus,
            interface,
            signals: Signals::new(runtime, [Signal::Terminate, Signal::Interrupt, Signal::Hangup])?,
            nudges: NudgeSocket::new(runtime)?,
            work: Work::new(runtime, bus, interface)?,
        })
    }

    /// Looks after PAGs until a signal ends that.
    async fn serve(&mut self) -> io::Result<()> {
        self.work.read_configuration();
        self.work.round();
        report(&started(&self.work.pags));
        notify::ready(&status(&self.work.pags));
        self.work.clock.keep_alive();
        self.work.publish();
        loop {
            let wake = self.wake().await?;
            if let Wake::Signal(Signal::Terminate | Signal::Interrupt) = wake {
                notify::stopping();
                return Ok(());
            }
            self.handle(wake);
            self.do_what_is_due();
            self.work.jobs.start(&mut self.work.pags, self.bus);
            self.work.outside.ask(self.bus);
            self.work.publish();
        }
    }

    /// Takes in why the loop goes on.
    fn handle(&mut self, wake: Wake) {
        match wake {
            Wake::Signal(_) => {
                notify::reloading();
                self.work.read_configuration();
                self.work.agenda.all = true;
                notify::ready(&status(&self.work.pags));
            }
            Wake::Ended(uids) => self.work.agenda.users.extend(uids),
            Wake::Nudged(nudges) => {
                self.work.agenda.all |= nudges.may_be_incomplete();
                for nudge in nudges.nudges {
                    self.work.agenda.users.insert(nudge.uid);
                    if let Some(moment) = nudge.manager {
                        self.work.outside.placed(nudge.uid, moment);
                    }
                }
                // A round may follow at once, but the socket is left alone.
                self.work.clock.read = Some(Instant::now() + REST);
            }
            Wake::Back(done) => done.into_iter().for_each(|done| self.work.errand_is_done(done)),
            Wake::News(news) => self.work.hear(news),
            Wake::Order(order) => self.work.obey(order),
            // However much is written, the helper is not kept busy.
            Wake::Written => self.work.clock.written = Some(Instant::now() + AGAIN),
            Wake::Time => {}
        }
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        if self.work.clock.alive.is_some_and(|moment| moment <= now) {
            self.work.clock.keep_alive();
        }
        if self.work.clock.survey.is_some_and(|moment| moment <= now) {
            self.work.clock.survey = None;
            self.work.agenda.all = true;
        }
        for due in self.work.tickets.others.due(now) {
            let work = feed::feed(&self.work.pags, &due);
            self.work.errands.add(due.uid, Errand::Feed(due), work);
        }
        // What was fed into a PAG's ccache is told like what its user writes there.
        for pag in self.work.tickets.own.due(now) {
            let ours = self.work.jobs.queue.get(pag).is_some_and(Job::is_running);
            self.work.look_at_ticket(pag, ours, None);
        }
        self.work.agenda.users.extend(self.work.reconciler.due(&self.work.pags, now));
        self.work.agenda.limit();
        self.work.clock.end_pauses(now);
        if self.work.clock.round.is_none() && !self.work.agenda.is_empty() {
            let before = status(&self.work.pags);
            self.work.round();
            let after = status(&self.work.pags);
            if before != after {
                notify::status(&after);
            }
            self.work.choices.answer(&self.work.pags, |uid| self.work.agenda.users.contains(&uid));
        }
        if self.work.clock.clients.is_some_and(|moment| moment <= now) {
            self.work.look_for_clients();
        }
        if self.work.clock.renew.is_some_and(|moment| moment <= now) {
            self.work.plan_renewals();
        }
    }

    /// When something is due next.
    fn next_moment(&self) -> Option<Instant> {
        // What renewals have found since the last round waits only for the pause after it.
        let round = (self.work.clock.round.is_none() && !self.work.agenda.is_empty()).then(Instant::now);
        let parts = [
            round,
            self.work.clock.next(),
            self.work.reconciler.next(),
            self.work.jobs.queue.next(),
            self.work.tickets.next(),
            self.work.errands.next(),
            self.work.outside.next(),
        ];
        parts.into_iter().flatten().min()
    }

    /// Sleeps until there is something to do.
    async fn wake(&mut self) -> io::Result<Wake> {
        let reads_nudges = self.work.clock.round.is_none() && self.work.clock.read.is_none();
        let hears_writes = self.work.clock.written.is_none();
        let mut sleep = pin!(self.next_moment().map(|moment| self.runtime.sleep_until(moment)));
        poll_fn(|cx| {
            if let Poll::Ready(signal) = self.signals.poll_recv(cx) {
                return Poll::Ready(signal.map(Wake::Signal));
            }
            if let Poll::Ready(uids) = self.work.reconciler.processes.poll_ended(cx) {
                return Poll::Ready(uids.map(Wake::Ended));
            }
            if let Poll::Ready(news) = self.bus.news.poll_take(cx) {
                return Poll::Ready(Ok(Wake::News(news)));
            }
            if reads_nudges && let Poll::Ready(nudges) = self.nudges.poll_read(cx) {
                return Poll::Ready(nudges.map(Wake::Nudged));
            }
            if hears_writes && let Poll::Ready(written) = self.work.tickets.own.poll_written(cx) {
                return Poll::Ready(written.map(|()| Wake::Written));
            }
            if let Poll::Ready(done) = self.work.errands.poll_done(self.runtime, cx) {
                return Poll::Ready(Ok(Wake::Back(done)));
            }
            // Last: the helper's own work comes first.
            if let Poll::Ready(order) = self.interface.orders.poll_take(cx) {
                return Poll::Ready(Ok(Wake::Order(order)));
            }
            match sleep.as_mut().as_pin_mut() {
                Some(sleep) => sleep.poll(cx).map(|()| Ok(Wake::Time)),
                None => Poll::Pending,
            }
        })
        .await
    }
}
