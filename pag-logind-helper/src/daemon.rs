//! The helper's loop. It sleeps until a process ends, a login sends a nudge, the bus or a signal brings something, or a
//! time has come that some part waits for. Then it does what follows from that.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::future::{Future, poll_fn};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pag::config::{self, Dirs};
use pag::nudge::{self, Nudge};
use pag::report::{Event, report, set_debug};
use pag::types::Client;
use pag::types::PagId;
use zruntime::signal::{Signal, Signals};
use zruntime::{AsyncIo, Shared, SharedRuntime};

use crate::dbus::Interface;
use crate::errands::{Done, Errand, Errands};
use crate::event::HelperEvent;
use crate::jobs::plan::{Notice, RenewVia};
use crate::jobs::{NO_BUS, TokenJobs};
use crate::managers::outside::{Manager, Managers};
use crate::notify;
use crate::order::{Action, Order, Trouble};
use crate::pags::keeper::Keeper;
use crate::pags::processes::Watch;
use crate::systemd::{Bus, JobUnit, News};
use crate::tickets::other_ccaches::Tickets;
use crate::tickets::own_ccaches::Ccaches;

/// How often rings are looked at while something can be cut of which nobody tells.
const LOOK: Duration = Duration::from_secs(5);
/// Pause before a lock is tried again that a login held.
const AGAIN: Duration = Duration::from_millis(250);
/// A round is followed by a pause as long as itself, and at least so long, in which no nudges are read either:
/// however often somebody nudges, half of one processor is left alone.
const REST: Duration = Duration::from_millis(10);
/// As many nudges as this at once, and the kernel may have dropped others: it keeps ten by default
/// (net.unix.max_dgram_qlen). Then everybody's PAGs are looked at.
const FLOOD: usize = 8;
/// More users than this at once, and we look at all.
const MANY: usize = 4096;

/// Serves until a signal ends the helper.
///
/// # Errors
/// When the helper cannot start, or cannot wait for events any more.
pub(crate) async fn run() -> io::Result<()> {
    let runtime = SharedRuntime::current()?;
    let (bus, interface) = (Bus::default(), Interface::default());
    let mut helper = Helper::new(&runtime, &bus, &interface)?;
    let mut bus_side = pin!(bus.follow(&runtime));
    let mut callers_side = pin!(interface.serve(&runtime));
    let mut our_side = pin!(helper.serve());
    // Three sides of one task, which wake each other through mailboxes.
    poll_fn(|cx| {
        let _ = bus_side.as_mut().poll(cx);
        let _ = callers_side.as_mut().poll(cx);
        our_side.as_mut().poll(cx)
    })
    .await
}

/// Everything that the loop waits for and works with.
struct Helper<'a> {
    runtime: &'a SharedRuntime,
    bus: &'a Bus,
    interface: &'a Interface,
    signals: Signals<Shared>,
    nudges: AsyncIo<UnixDatagram, Shared>,
    watch: Watch,
    keeper: Keeper,
    jobs: TokenJobs,
    /// Callers who wait for the services of this user to follow another.
    choosers: Vec<(u32, Order)>,
    managers: Managers,
    ccaches: Ccaches,
    errands: Errands,
    tickets: Tickets,
    /// Whom logind knows; none while it cannot be asked.
    users: Option<BTreeSet<u32>>,
    /// Whose PAGs are to be looked at.
    dirty: BTreeSet<u32>,
    /// Whether everybody's are.
    all: bool,
    clock: Clock,
}

/// The moments that something waits for.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    /// The watchdog is told that we live.
    alive: Option<Instant>,
    /// Rings are looked at.
    look: Option<Instant>,
    /// A renewal is due, or something is to be said about one.
    renew: Option<Instant>,
    /// The pause after a round is over. None: it is.
    round: Option<Instant>,
    /// Nudges are read again. None: they are.
    read: Option<Instant>,
    /// So is what was written into ccaches.
    written: Option<Instant>,
    /// The bus has been lost and that was said.
    bus_lost: bool,
}

/// What the socket had.
#[derive(Default)]
struct Nudges {
    nudges: Vec<Nudge>,
    /// How many datagrams, whatever was in them.
    count: usize,
}

/// Why the loop goes on.
enum Wake {
    Signal(Signal),
    Nudged(Nudges),
    Ended(Vec<u32>),
    Written,
    /// Children are back from users' files.
    Back(Vec<Done>),
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
            nudges: AsyncIo::new(runtime, listen_for_nudges()?)?,
            watch: Watch::new(runtime)?,
            keeper: Keeper::new(),
            jobs: TokenJobs::default(),
            choosers: Vec::new(),
            managers: Managers::default(),
            ccaches: Ccaches::new(runtime)?,
            errands: Errands::default(),
            tickets: Tickets::new(),
            users: None,
            dirty: BTreeSet::new(),
            all: true,
            clock: Clock::default(),
        })
    }

    /// Looks after PAGs until it is told to end.
    async fn serve(&mut self) -> io::Result<()> {
        self.read_configuration();
        self.round();
        report(&HelperEvent::Adopted { pags: self.keeper.pags(), leases: self.keeper.leases() });
        notify::ready(&self.keeper.status());
        self.keep_alive();
        self.tell_callers();
        loop {
            match self.wake().await? {
                Wake::Signal(Signal::Hangup) => {
                    notify::reloading();
                    self.read_configuration();
                    self.all = true;
                    notify::ready(&self.keeper.status());
                }
                Wake::Signal(_) => {
                    notify::stopping();
                    return Ok(());
                }
                Wake::Ended(uids) => self.dirty.extend(uids),
                Wake::Nudged(nudges) => {
                    self.all |= nudges.count >= FLOOD;
                    for nudge in nudges.nudges {
                        self.dirty.insert(nudge.uid);
                        if let Some(moment) = nudge.manager {
                            self.managers.placed(nudge.uid, moment);
                        }
                    }
                    // A round may follow at once, but not another look at the socket.
                    self.clock.read = Some(Instant::now() + REST);
                }
                Wake::Back(done) => done.into_iter().for_each(|done| self.take_back(done)),
                Wake::News(news) => self.hear(news),
                Wake::Order(order) => self.obey(order),
                // However much is written, the helper is not kept busy.
                Wake::Written => self.clock.written = Some(Instant::now() + AGAIN),
                Wake::Time => {}
            }
            let now = Instant::now();
            if self.clock.alive.is_some_and(|moment| moment <= now) {
                self.keep_alive();
            }
            if self.clock.look.is_some_and(|moment| moment <= now) {
                self.clock.look = None;
                self.all = true;
            }
            // What is put into a PAG's ccache is told like what its user writes there.
            for due in self.tickets.due(now) {
                let work = self.keeper.feed(&due);
                self.errands.add(due.uid, Errand::Feed(due), work);
            }
            for pag in self.ccaches.due(now) {
                self.look_at_ticket(pag, self.jobs.runs_for(pag), None);
            }
            self.dirty.extend(self.keeper.left(now));
            if self.dirty.len() > MANY {
                self.dirty.clear();
                self.all = true;
            }
            for pause in [&mut self.clock.round, &mut self.clock.read, &mut self.clock.written] {
                *pause = pause.filter(|moment| *moment > now);
            }
            if self.clock.round.is_none() && self.has_work() {
                let before = self.keeper.status();
                self.round();
                let after = self.keeper.status();
                if before != after {
                    notify::status(&after);
                }
                self.answer_choosers();
            }
            if self.clock.renew.is_some_and(|moment| moment <= now) {
                self.plan();
            }
            self.jobs.start(&mut self.keeper, self.bus);
            self.ask_for_managers();
            self.tell_callers();
        }
    }

    /// Sends a child to see which ticket is in a PAG's own ccache. A job that has ended is over when that is known; at once,
    /// where there is nothing to be seen.
    fn look_at_ticket(&mut self, pag: PagId, ours: bool, ended: Option<(u32, Result<(), String>)>) {
        match self.keeper.look_at_ticket(pag) {
            Some((uid, work)) => {
                let ended = ended.map(|(_, result)| result);
                self.errands.add(uid, Errand::Look { pag, ours, ended }, work);
            }
            None => {
                if let Some((uid, result)) = ended {
                    self.job_finished(uid, result, self.keeper.ticket_of(pag));
                }
            }
        }
    }

    /// Does what is to be done about what a child has found in a user's files, or has put there.
    fn take_back(&mut self, Done { uid, errand, report }: Done) {
        match errand {
            Errand::Look { pag, ours, ended } => {
                let before = self.keeper.ticket_of(pag);
                let wanted = self.keeper.note_ticket(pag, &report, ours);
                match ended {
                    Some(result) => self.job_finished(uid, result, before),
                    None if wanted => self.jobs.renew(pag, RenewVia::Ticket, &self.keeper, &self.dirty),
                    None => {}
                }
                self.clock.renew = Some(Instant::now());
            }
            Errand::Feed(due) => {
                if !Keeper::fed(uid, &report) {
                    self.tickets.put_off(due);
                }
            }
            Errand::Copy { pag, .. } => self.keeper.following.copied(uid, pag, &report),
        }
    }

    /// Has the interface show PAGs as they are now.
    fn tell_callers(&mut self) {
        for uid in self.keeper.take_changed() {
            self.interface.publish(uid, self.keeper.pags_of(uid));
        }
    }

    /// Sees to renewals that are due, says what is to be said, and finds out when the next is due.
    fn plan(&mut self) {
        let upcoming = self.jobs.plan(&mut self.keeper, self.bus, &mut self.dirty);
        for (pag, uid, notice) in upcoming.notices {
            self.announce(pag, uid, notice);
        }
        self.clock.renew = upcoming.next.map(|moment| moment.max(Instant::now() + REST));
    }

    /// Says what is to be said of the end of a PAG's tokens, in the journal and over D-Bus.
    fn announce(&self, pag: PagId, uid: u32, notice: Notice) {
        self.interface.announce(pag, notice);
        let Notice { end, over, why } = notice;
        report(&if over {
            HelperEvent::Expired { uid, pag, why }
        } else {
            HelperEvent::Expiring { uid, pag, expires: end, why }
        });
    }

    /// Reads the configuration for its complaints, which are to be said when it is changed and not at the next login, for
    /// whom services follow, and for the keytabs. Each login and each seeder reads it for itself.
    fn read_configuration(&mut self) {
        let dirs = Dirs::default();
        let (settings, complaints) = config::host(&dirs);
        set_debug(settings.debug);
        self.keeper.following.set(settings.follow);
        self.keeper.set_keytabs(config::keytabs(&dirs));
        let served: Vec<&str> = Client::present(&settings).into_iter().map(Client::as_str).collect();
        log::debug!("AFS clients on this host: {}", served.join(" "));
        for complaint in complaints {
            report(&Event::Complaint { what: complaint.to_string() });
        }
    }

    fn has_work(&self) -> bool {
        self.all || !self.dirty.is_empty()
    }

    /// Brings everything into line that may be out of it.
    fn round(&mut self) {
        let begun = Instant::now();
        let mut uids = std::mem::take(&mut self.dirty);
        if std::mem::take(&mut self.all) {
            match self.keeper.survey(&mut self.watch) {
                Ok(out_of_line) => uids.extend(out_of_line),
                Err(error) => report(&Event::Complaint { what: format!("cannot look after PAGs: {error}") }),
            }
        }
        for uid in uids {
            match self.keeper.settle(uid, &mut self.watch, self.users.as_ref()) {
                Ok(settled) => {
                    for pag in settled.waiting {
                        self.jobs.add_missing(pag, uid);
                    }
                    if settled.again {
                        self.dirty.insert(uid);
                    }
                    self.all |= settled.all;
                    if settled.ask {
                        self.bus.look(uid);
                    }
                }
                Err(error) => report(&Event::Complaint { what: format!("cannot look after uid {uid}: {error}") }),
            }
        }
        for copying in self.keeper.following.take_copies() {
            let errand = copying.errand();
            self.errands.add(copying.uid, errand, copying.work(self.keeper.group()));
        }
        let now = Instant::now();
        let rest = (now - begun).max(REST);
        self.clock.round = Some(now + if self.dirty.is_empty() { rest } else { rest.max(AGAIN) });
        // A round for somebody puts off no look at the others.
        let due = self.clock.look.unwrap_or(now + LOOK);
        self.clock.look = self.keeper.must_look().then_some(due);
        self.managers.watch(&self.keeper.managers(), now);
        self.ccaches.set(self.keeper.ccaches());
        self.tickets.set(self.keeper.tickets());
        self.clock.renew = Some(now);
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Back => {
                report(&HelperEvent::BusBack);
                self.clock.bus_lost = false;
                self.jobs.bus_is_back();
                self.clock.renew = Some(Instant::now());
            }
            News::Lost(why) => {
                self.users = None;
                self.jobs.bus_lost();
                self.keeper.following.know_nothing();
                // Said once, however often it is tried again.
                if !std::mem::replace(&mut self.clock.bus_lost, true) {
                    report(&HelperEvent::BusLost { why });
                }
            }
            News::Users(users) => {
                self.users = Some(users);
                self.all = true;
            }
            News::User { uid, there } => {
                if let (Some(users), Some(there)) = (&mut self.users, there) {
                    if there {
                        users.insert(uid)
                    } else {
                        users.remove(&uid)
                    };
                }
                self.dirty.insert(uid);
                self.managers.stir(uid, Instant::now());
            }
            News::Manager { uid, manager } => {
                if let Some(pid) = self.managers.answered(uid, manager, Instant::now()) {
                    report(&HelperEvent::ManagerOutside { uid, pid });
                }
            }
            News::Sessions { uid, sessions } => {
                if self.keeper.following.hear(uid, sessions) {
                    self.dirty.insert(uid);
                }
            }
            News::Awake => self.all = true,
            News::Ended { unit: JobUnit::Keytab(pag, uid), result: Ok(()) } => {
                self.look_at_ticket(pag, true, None);
                if self.jobs.running(uid) == Some(pag) && !self.bus.start(JobUnit::Seed(uid)) {
                    self.job_finished(uid, Err(NO_BUS.to_owned()), self.keeper.ticket_of(pag));
                }
            }
            News::Ended { unit, result } => {
                if let Some(pag) = self.jobs.running(unit.uid()) {
                    self.look_at_ticket(pag, true, Some((unit.uid(), result)));
                }
            }
        }
    }

    /// The job of `uid` has ended. `ticket` is the end of the ticket that the PAG had before.
    fn job_finished(&mut self, uid: u32, result: Result<(), String>, ticket: Option<u64>) {
        self.jobs.finish(uid, result, ticket, &mut self.keeper);
        self.dirty.insert(uid);
    }

    /// Does what a caller wants.
    fn obey(&mut self, order: Order) {
        let Some(uid) = self.keeper.user_of(order.pag) else { return order.answer(Err(Trouble::Gone)) };
        match &order.action {
            Action::Renew => self.jobs.ask(order, uid, &self.keeper),
            Action::Follow(on) => match self.keeper.choose(order.pag, *on) {
                Ok(()) => {
                    self.dirty.insert(uid);
                    self.choosers.push((uid, order));
                }
                Err(trouble) => order.answer(Err(trouble)),
            },
            Action::Discard(cell) => order.answer(self.keeper.forget_tokens(order.pag, cell.as_ref())),
        }
    }

    /// Tells those who have chosen what came of it, once the PAGs of that user were looked at.
    fn answer_choosers(&mut self) {
        let (keeper, dirty) = (&self.keeper, &self.dirty);
        self.choosers.retain(|(uid, order)| {
            let waits = dirty.contains(uid);
            if !waits {
                order.answer(match order.action {
                    Action::Follow(true) if keeper.user_of(order.pag).is_none() => Err(Trouble::Gone),
                    Action::Follow(true) if !keeper.is_followed(*uid, order.pag) => {
                        Err(Trouble::Failed("it is not followed yet; the journal may say why".to_owned()))
                    }
                    _ => Ok(()),
                });
            }
            waits
        });
    }

    fn ask_for_managers(&mut self) {
        let now = Instant::now();
        for uid in self.managers.due(now) {
            if !self.bus.find_manager(uid) {
                self.managers.answered(uid, Manager::Unsettled, now);
            }
        }
    }

    fn keep_alive(&mut self) {
        self.clock.alive = notify::watchdog().map(|pause| {
            notify::alive();
            Instant::now() + pause
        });
    }

    /// The next moment at which something is due without anybody telling.
    fn next_moment(&self) -> Option<Instant> {
        let Clock { alive, look, renew, round, read, written, .. } = self.clock;
        let ours = [alive, look, renew, round, read, written, self.keeper.leaving.next()];
        let others =
            [self.jobs.next(), self.ccaches.next(), self.errands.next(), self.tickets.next(), self.managers.next()];
        ours.into_iter().chain(others).flatten().min()
    }

    /// Sleeps until there is something to do.
    async fn wake(&mut self) -> io::Result<Wake> {
        let rested = self.clock.round.is_none() && self.clock.read.is_none();
        let listens = self.clock.written.is_none();
        let mut sleep = pin!(self.next_moment().map(|moment| self.runtime.sleep_until(moment)));
        poll_fn(|cx| {
            if let Poll::Ready(signal) = self.signals.poll_recv(cx) {
                return Poll::Ready(signal.map(Wake::Signal));
            }
            if let Poll::Ready(uids) = self.watch.poll_ended(cx) {
                return Poll::Ready(uids.map(Wake::Ended));
            }
            if let Poll::Ready(news) = self.bus.news.poll_take(cx) {
                return Poll::Ready(Ok(Wake::News(news)));
            }
            if rested && let Poll::Ready(uids) = poll_nudges(&self.nudges, cx) {
                return Poll::Ready(uids.map(Wake::Nudged));
            }
            if listens && let Poll::Ready(done) = self.ccaches.poll_written(cx) {
                return Poll::Ready(done.map(|()| Wake::Written));
            }
            if let Poll::Ready(done) = self.errands.poll_done(self.runtime, cx) {
                return Poll::Ready(Ok(Wake::Back(done)));
            }
            // Last: our own work comes first.
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

/// The socket for nudges: only root can write to it.
fn listen_for_nudges() -> io::Result<UnixDatagram> {
    let path = nudge::SOCKET;
    // Left by one who was killed: nobody listens there any more.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixDatagram::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(socket)
}

/// Takes the nudges that are there, a few at a time; what is none is passed over.
fn poll_nudges(socket: &AsyncIo<UnixDatagram, Shared>, cx: &mut Context<'_>) -> Poll<io::Result<Nudges>> {
    let mut nudges = Nudges::default();
    while nudges.count < 64 {
        let mut datagram = [0; nudge::SPACE];
        match socket.poll_read_with(cx, |socket| socket.recv(&mut datagram)) {
            Poll::Ready(Ok(length)) => {
                nudges.nudges.extend(datagram.get(..length).and_then(nudge::parse));
                nudges.count += 1;
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending if nudges.count == 0 => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(Ok(nudges))
}
