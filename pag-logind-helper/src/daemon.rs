//! The helper's loop. It sleeps until a process ends, a login sends a nudge, the bus or a signal brings something, or a
//! time has come that some part waits for. Then it does what follows from that.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use pag::config::{self, Dirs};
use pag::report::{Event, report, set_debug};
use pag::types::{Client, PagId};
use zruntime::signal::{Signal, Signals};
use zruntime::{Shared, SharedRuntime};

use crate::agenda::{Agenda, Clock};
use crate::dbus::{self, Interface};
use crate::errands::{Done, Errands};
use crate::jobs::plan::{Notice, RenewVia};
use crate::jobs::{NO_BUS, TokenJobs};
use crate::managers::choose::{Choices, choose};
use crate::managers::outside::OutsideManagers;
use crate::messages::HelperEvent;
use crate::names;
use crate::notify;
use crate::nudges::{NudgeSocket, Nudges};
use crate::order::{Action, Order, Trouble};
use crate::pags::keytabs::Keytabs;
use crate::pags::users::passwd;
use crate::pags::{Edit, Pags};
use crate::reconcile::Reconciler;
use crate::systemd::{self, Bus, JobUnit, News, RunId};
use crate::tickets::look::{end_of_ticket, look_at_ticket, note_ticket};
use crate::tickets::{Errand, Tickets, feed};

/// How often all PAGs are surveyed while something may change and the helper is not told.
const SURVEY_PAUSE: Duration = Duration::from_secs(5);
/// Pause before the helper tries again to take a lock that a login held, or looks again for tickets that were written.
const AGAIN: Duration = Duration::from_millis(250);
/// A round is followed by a pause as long as itself, and no shorter than this. No nudges are read in it either: however many
/// come, the helper leaves half of one processor alone.
const REST: Duration = Duration::from_millis(10);
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

/// All that the loop waits for and works with.
struct Helper<'a> {
    runtime: &'a SharedRuntime,
    bus: &'a Bus,
    interface: &'a Interface,
    signals: Signals<Shared>,
    nudges: NudgeSocket,
    pags: Pags,
    reconciler: Reconciler,
    jobs: TokenJobs,
    choices: Choices,
    outside: OutsideManagers,
    tickets: Tickets,
    errands: Errands<Errand>,
    agenda: Agenda,
    clock: Clock,
    /// Whether it was reported that there is no connection to logind.
    bus_loss_is_reported: bool,
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
            pags: Pags::new(),
            reconciler: Reconciler::new(runtime)?,
            jobs: TokenJobs::default(),
            choices: Choices::default(),
            outside: OutsideManagers::default(),
            tickets: Tickets::new(runtime)?,
            errands: Errands::default(),
            agenda: Agenda::everything(),
            clock: Clock::default(),
            bus_loss_is_reported: false,
        })
    }

    /// Looks after PAGs until a signal ends that.
    async fn serve(&mut self) -> io::Result<()> {
        self.read_configuration();
        self.round();
        report(&started(&self.pags));
        notify::ready(&status(&self.pags));
        self.clock.keep_alive();
        self.publish();
        loop {
            let wake = self.wake().await?;
            if let Wake::Signal(Signal::Terminate | Signal::Interrupt) = wake {
                notify::stopping();
                return Ok(());
            }
            self.handle(wake);
            self.do_what_is_due();
            self.jobs.start(&mut self.pags, self.bus);
            self.outside.ask(self.bus);
            self.publish();
        }
    }

    /// Takes in why the loop goes on.
    fn handle(&mut self, wake: Wake) {
        match wake {
            Wake::Signal(_) => {
                notify::reloading();
                self.read_configuration();
                self.agenda.all = true;
                notify::ready(&status(&self.pags));
            }
            Wake::Ended(uids) => self.agenda.users.extend(uids),
            Wake::Nudged(nudges) => {
                self.agenda.all |= nudges.may_be_incomplete();
                for nudge in nudges.nudges {
                    self.agenda.users.insert(nudge.uid);
                    if let Some(moment) = nudge.manager {
                        self.outside.placed(nudge.uid, moment);
                    }
                }
                // A round may follow at once, but the socket is left alone.
                self.clock.read = Some(Instant::now() + REST);
            }
            Wake::Back(done) => done.into_iter().for_each(|done| self.errand_is_done(done)),
            Wake::News(news) => self.hear(news),
            Wake::Order(order) => self.obey(order),
            // However much is written, the helper is not kept busy.
            Wake::Written => self.clock.written = Some(Instant::now() + AGAIN),
            Wake::Time => {}
        }
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        if self.clock.alive.is_some_and(|moment| moment <= now) {
            self.clock.keep_alive();
        }
        if self.clock.survey.is_some_and(|moment| moment <= now) {
            self.clock.survey = None;
            self.agenda.all = true;
        }
        for due in self.tickets.others.due(now) {
            let work = feed::feed(&self.pags, &due);
            self.errands.add(due.uid, Errand::Feed(due), work);
        }
        // What was fed into a PAG's ccache is told like what its user writes there.
        for pag in self.tickets.own.due(now) {
            self.look_at_ticket(pag, self.jobs.queue.runs_for(pag), None);
        }
        self.agenda.users.extend(self.reconciler.due(&self.pags, now));
        self.agenda.limit();
        self.clock.end_pauses(now);
        if self.clock.round.is_none() && !self.agenda.is_empty() {
            let before = status(&self.pags);
            self.round();
            let after = status(&self.pags);
            if before != after {
                notify::status(&after);
            }
            self.choices.answer(&self.pags, |uid| self.agenda.users.contains(&uid));
        }
        if self.clock.renew.is_some_and(|moment| moment <= now) {
            self.plan_renewals();
        }
    }

    /// Reconciles the PAGs of all users for whom something may have changed.
    fn round(&mut self) {
        let begun = Instant::now();
        let (mut uids, all) = self.agenda.take();
        if all {
            match self.reconciler.survey(&mut self.pags) {
                Ok(found) => uids.extend(found),
                Err(error) => complain(format!("cannot look after the PAGs of this host: {error}")),
            }
        }
        uids.into_iter().for_each(|uid| self.reconcile(uid));
        for copy in std::mem::take(&mut self.reconciler.following.copies) {
            self.errands.add(copy.uid, copy.errand(), copy.work(self.pags.group()));
        }
        let now = Instant::now();
        self.pags.in_want_of_names().into_iter().for_each(|uid| self.ask_for_name(uid));
        let rest = (now - begun).max(REST);
        self.clock.round = Some(now + if self.agenda.users.is_empty() { rest } else { rest.max(AGAIN) });
        // A round for one user puts off no survey.
        let due = self.clock.survey.unwrap_or(now + SURVEY_PAUSE);
        self.clock.survey = self.reconciler.must_survey(&self.pags).then_some(due);
        self.outside.watch(&self.reconciler.managers(&self.pags), now);
        self.tickets.watch(&self.pags);
        self.clock.renew = Some(now);
    }

    fn reconcile(&mut self, uid: u32) {
        if !self.jobs.note_tokens(&self.pags, uid) {
            self.agenda.users.insert(uid);
            return;
        }
        match self.reconciler.reconcile(uid, &mut self.pags) {
            Ok(reconciled) => {
                for pag in reconciled.lacking {
                    self.jobs.add_missing(pag, uid);
                }
                if reconciled.again {
                    self.agenda.users.insert(uid);
                }
                if reconciled.ask_logind {
                    self.bus.ask_for_sessions(uid);
                }
                if reconciled.ask_for_name {
                    self.ask_for_name(uid);
                }
            }
            Err(error) => complain(format!("cannot look after the PAGs of uid {uid}: {error}")),
        }
    }

    /// Sends a child to ask for the name of a user, unless it is known, or one has asked.
    fn ask_for_name(&mut self, uid: u32) {
        if names::must_ask(uid, Instant::now()) {
            let work = move || passwd(uid).name.to_string_lossy().into_owned();
            self.errands.add(uid, Errand::Name, Box::new(work));
        }
    }

    /// Adds the renewals that are due, announces what is to be announced, and finds out when the next is due.
    fn plan_renewals(&mut self) {
        let upcoming = self.jobs.plan(&mut self.pags, self.bus, &mut self.agenda.users);
        for (pag, uid, notice) in upcoming.notices {
            announce(self.interface, pag, uid, notice);
        }
        self.clock.renew = upcoming.next.map(|moment| moment.max(Instant::now() + REST));
    }

    /// Sends a child to see which ticket is in a PAG's own ccache. A run that has `ended` is over when that is known; at once, if
    /// there is no ticket to be seen.
    fn look_at_ticket(&mut self, pag: PagId, ours: bool, ended: Option<(RunId, Result<(), String>)>) {
        match look_at_ticket(&self.pags, pag) {
            Some((uid, work)) => self.errands.add(uid, Errand::Look { pag, ours, ended }, work),
            None => {
                if let Some((run, result)) = ended {
                    self.job_finished(run, result, end_of_ticket(&self.pags, pag));
                }
            }
        }
    }

    /// Does what follows from what a child has found in a user's files, or has put there.
    fn errand_is_done(&mut self, Done { uid, errand, report }: Done<Errand>) {
        match errand {
            Errand::Look { pag, ours, ended } => {
                let before = end_of_ticket(&self.pags, pag);
                let is_wanted = note_ticket(&mut self.pags, pag, &report, ours).unwrap_or_else(|_| {
                    self.tickets.own.read_again(pag);
                    false
                });
                match ended {
                    Some((run, result)) => self.job_finished(run, result, before),
                    None if is_wanted => self.jobs.renew(pag, RenewVia::Ticket, &self.pags, &self.agenda.users),
                    None => {}
                }
                self.clock.renew = Some(Instant::now());
            }
            Errand::Feed(due) => {
                if !feed::fed(uid, &report) {
                    self.tickets.others.put_off(due);
                }
            }
            Errand::Copy { pag, .. } => self.reconciler.following.copied(uid, pag, &report),
            Errand::Name => {
                names::told(uid, &report, Instant::now());
                self.agenda.users.insert(uid);
            }
        }
    }

    /// A run has ended. `ticket` is the end of the ticket that the PAG had before.
    fn job_finished(&mut self, run: RunId, result: Result<(), String>, ticket: Option<u64>) {
        self.agenda.users.extend(self.jobs.finish(run, result, ticket, &mut self.pags));
    }

    /// Takes in what the bus brings.
    fn hear(&mut self, news: News) {
        match news {
            News::Back => {
                report(&HelperEvent::BusBack);
                self.bus_loss_is_reported = false;
                self.jobs.bus_is_back();
                self.clock.renew = Some(Instant::now());
            }
            News::Lost(why) => {
                self.reconciler.users = None;
                self.jobs.bus_lost();
                self.reconciler.following.forget_sessions();
                if !std::mem::replace(&mut self.bus_loss_is_reported, true) {
                    report(&HelperEvent::BusLost { why });
                }
            }
            News::Users(users) => {
                self.reconciler.users = Some(users);
                self.agenda.all = true;
            }
            News::User { uid, there } => {
                if let (Some(users), Some(there)) = (&mut self.reconciler.users, there) {
                    if there {
                        users.insert(uid)
                    } else {
                        users.remove(&uid)
                    };
                }
                self.agenda.users.insert(uid);
                self.outside.stir(uid, Instant::now());
            }
            News::Manager { uid, state } => self.outside.answered(uid, state),
            News::Sessions { uid, sessions } => {
                if self.reconciler.following.hear(uid, sessions) {
                    self.agenda.users.insert(uid);
                }
            }
            News::Awake => self.agenda.all = true,
            News::Ended { unit: JobUnit::Keytab(pag, uid), run, result: Ok(()) } => {
                self.look_at_ticket(pag, true, None);
                if self.jobs.queue.goes_on(run, Instant::now()) && !self.bus.start(JobUnit::Seed(uid), run) {
                    self.job_finished(run, Err(NO_BUS.to_owned()), end_of_ticket(&self.pags, pag));
                }
            }
            News::Ended { run, result, .. } => {
                if let Some(pag) = self.jobs.queue.pag_of(run) {
                    self.look_at_ticket(pag, true, Some((run, result)));
                }
            }
        }
    }

    /// Does what a caller wants.
    fn obey(&mut self, order: Order) {
        let Some(uid) = self.pags.user_of(order.pag) else { return order.answer(Err(Trouble::Gone)) };
        match &order.action {
            Action::Renew => self.jobs.ask(order, uid, &self.pags),
            Action::Follow(on) => match choose(&self.pags, self.reconciler.following.setting, order.pag, *on) {
                Ok(()) => {
                    self.agenda.users.insert(uid);
                    self.choices.add(uid, order);
                }
                Err(trouble) => order.answer(Err(trouble)),
            },
            // What the record names and the ring lacks would be brought back, and renewal would bring the rest.
            Action::Discard(cell) => {
                let edit = self.pags.edit(order.pag, |_, record| {
                    record.reseed &= cell.is_some();
                    record.discard(cell.as_ref(), pag::sys::now());
                    true
                });
                order.answer(match edit {
                    Ok(Edit::Gone) => Err(Trouble::Gone),
                    Ok(Edit::Stored | Edit::Unchanged) => Ok(()),
                    Err(error) => Err(error.into()),
                });
            }
        }
    }

    /// Reads the configuration for what the helper itself needs of it, and for complaints about it, which are reported
    /// when it is changed. Each login and each seeder reads it for itself.
    fn read_configuration(&mut self) {
        let dirs = Dirs::default();
        let (settings, complaints) = config::host(&dirs);
        set_debug(settings.debug);
        self.reconciler.following.setting = settings.follow;
        self.pags.keytabs = Keytabs::new(config::keytabs(&dirs));
        let served: Vec<&str> = Client::present(&settings).into_iter().map(Client::as_str).collect();
        log::debug!("AFS clients on this host: {}", served.join(" "));
        complaints.iter().for_each(|complaint| complain(complaint.to_string()));
    }

    /// Shows callers over D-Bus the PAGs as they are now.
    fn publish(&mut self) {
        for uid in self.pags.take_changed() {
            self.interface.publish(uid, self.pags.of_user(uid));
        }
    }

    /// When something is due next.
    fn next_moment(&self) -> Option<Instant> {
        // What renewals have found since the last round waits only for the pause after it.
        let round = (self.clock.round.is_none() && !self.agenda.is_empty()).then(Instant::now);
        let parts = [
            round,
            self.clock.next(),
            self.reconciler.next(),
            self.jobs.queue.next(),
            self.tickets.next(),
            self.errands.next(),
            self.outside.next(),
        ];
        parts.into_iter().flatten().min()
    }

    /// Sleeps until there is something to do.
    async fn wake(&mut self) -> io::Result<Wake> {
        let reads_nudges = self.clock.round.is_none() && self.clock.read.is_none();
        let hears_writes = self.clock.written.is_none();
        let mut sleep = pin!(self.next_moment().map(|moment| self.runtime.sleep_until(moment)));
        poll_fn(|cx| {
            if let Poll::Ready(signal) = self.signals.poll_recv(cx) {
                return Poll::Ready(signal.map(Wake::Signal));
            }
            if let Poll::Ready(uids) = self.reconciler.processes.poll_ended(cx) {
                return Poll::Ready(uids.map(Wake::Ended));
            }
            if let Poll::Ready(news) = self.bus.news.poll_take(cx) {
                return Poll::Ready(Ok(Wake::News(news)));
            }
            if reads_nudges && let Poll::Ready(nudges) = self.nudges.poll_read(cx) {
                return Poll::Ready(nudges.map(Wake::Nudged));
            }
            if hears_writes && let Poll::Ready(written) = self.tickets.own.poll_written(cx) {
                return Poll::Ready(written.map(|()| Wake::Written));
            }
            if let Poll::Ready(done) = self.errands.poll_done(self.runtime, cx) {
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

fn complain(what: String) {
    report(&Event::Complaint { what });
}

fn started(pags: &Pags) -> HelperEvent {
    let leases = pags.all().map(|known| known.record.leases.len()).sum();
    HelperEvent::Started { pags: pags.all().count(), leases }
}

/// One line about how much there is to look after.
fn status(pags: &Pags) -> String {
    started(pags).to_string()
}

/// Says in the journal and over D-Bus that the tokens of a PAG end.
fn announce(interface: &Interface, pag: PagId, uid: u32, notice: Notice) {
    interface.announce(pag, notice);
    let Notice { end, over, why } = notice;
    report(&if over {
        HelperEvent::Expired { uid, pag, why }
    } else {
        HelperEvent::Expiring { uid, pag, expires: end, why }
    });
}
