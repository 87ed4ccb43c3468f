//! What the helper works with, and what it does about what the loop brings.

use std::io;
use std::time::{Duration, Instant};

use pag::afs::MissingClients;
use pag::config::{self, Dirs};
use pag::report::{Event, User, report, set_debug};
use pag::types::{Client, PagId};
use zruntime::SharedRuntime;

use crate::agenda::{AGAIN, Agenda, Clock, REST};
use crate::dbus::Interface;
use crate::errands::{Done, Errands};
use crate::jobs::plan::{Notice, RenewVia};
use crate::jobs::{NO_BUS, TokenJobs};
use crate::managers::choose::{Choices, choose};
use crate::managers::outside::OutsideManagers;
use crate::messages::HelperEvent;
use crate::names;
use crate::order::{Action, Order, Trouble};
use crate::pags::keytabs::Keytabs;
use crate::pags::users::passwd;
use crate::pags::{Edit, Pags};
use crate::reconcile::Reconciler;
use crate::systemd::{Bus, JobUnit, News, RunId};
use crate::tickets::look::{end_of_ticket, look_at_ticket, note_ticket, parts_of};
use crate::tickets::{Errand, Tickets, feed};

/// How often all PAGs are surveyed while something may change and the helper is not told.
const SURVEY_PAUSE: Duration = Duration::from_secs(5);

/// Time after the start of the host in which no AFS client is missed: its module is loaded after the helper has begun.
const BOOT: Duration = Duration::from_secs(180);

/// Directories that the helper's unit hides, and file systems that may not answer. Programs there are not looked for.
const HIDDEN: [&str; 7] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp", "/afs", "/net"];

/// All that the helper works with.
pub(crate) struct Work<'a> {
    bus: &'a Bus,
    interface: &'a Interface,
    pub(crate) pags: Pags,
    pub(crate) reconciler: Reconciler,
    pub(crate) jobs: TokenJobs,
    pub(crate) choices: Choices,
    pub(crate) outside: OutsideManagers,
    pub(crate) tickets: Tickets,
    pub(crate) errands: Errands<Errand>,
    pub(crate) agenda: Agenda,
    pub(crate) clock: Clock,
    /// Whether it was reported that there is no connection to logind.
    bus_loss_is_reported: bool,
}

impl<'a> Work<'a> {
    /// Everything is still to be done.
    ///
    /// # Errors
    /// If the helper cannot watch processes or ccaches.
    pub(crate) fn new(runtime: &SharedRuntime, bus: &'a Bus, interface: &'a Interface) -> io::Result<Self> {
        Ok(Work {
            bus,
            interface,
            pags: Pags::new(),
            reconciler: Reconciler::new(runtime)?,
            jobs: TokenJobs::new(interface.job_counts.clone()),
            choices: Choices::default(),
            outside: OutsideManagers::default(),
            tickets: Tickets::new(runtime)?,
            errands: Errands::default(),
            agenda: Agenda::everything(),
            clock: Clock::default(),
            bus_loss_is_reported: false,
        })
    }

    /// Reads the configuration for what the helper itself needs of it, and for complaints about it, which are reported
    /// when it is changed. Each login and each seeder reads it for itself.
    pub(crate) fn read_configuration(&mut self) {
        let dirs = Dirs::default();
        let (settings, complaints) = config::host(&dirs);
        set_debug(settings.debug);
        self.reconciler.following.leaders.setting = settings.follow;
        self.pags.keytabs = Keytabs::new(config::keytabs(&dirs));
        Client::configure(&settings);
        let now = Instant::now();
        self.clock.clients = Some(boot_is_over(now).unwrap_or(now));
        let missing = config::missing_programs(&dirs, &|path| !HIDDEN.iter().any(|top| path.starts_with(top)));
        complaints.iter().chain(&missing).for_each(|complaint| complain(complaint.to_string()));
    }

    /// Reports AFS clients that are configured, if the host has none.
    pub(crate) fn look_for_clients(&mut self) {
        self.clock.clients = None;
        let (settings, _) = config::host(&Dirs::default());
        let present = Client::present(&settings);
        log::debug!(
            "AFS clients on this host: {}",
            present.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(" ")
        );
        if let Some(missing) = MissingClients::find(&settings, &present).filter(|_| !settings.notokens) {
            report(&Event::ClientMissing { uid: None, why: missing.to_string() });
        }
    }

    /// Reconciles the PAGs of all users for whom something may have changed.
    pub(crate) fn round(&mut self) {
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
            Err(error) => complain(format!("cannot look after the PAGs of {}: {error}", User(uid))),
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
    pub(crate) fn plan_renewals(&mut self) {
        let upcoming = self.jobs.plan(&mut self.pags, self.bus, &mut self.agenda.users);
        for (pag, uid, notice) in upcoming.notices {
            announce(self.interface, pag, uid, notice);
        }
        self.clock.renew = upcoming.next.map(|moment| moment.max(Instant::now() + REST));
    }

    /// Sends a child to see which ticket is in a PAG's own ccache. A run that has `ended` is over when that is known; at once, if
    /// there is no ticket to be seen.
    pub(crate) fn look_at_ticket(&mut self, pag: PagId, ours: bool, ended: Option<(RunId, Result<(), String>)>) {
        let failed = matches!(ended, Some((_, Err(_))));
        match look_at_ticket(&self.pags, pag, failed) {
            Some((uid, work)) => self.errands.add(uid, Errand::Look { pag, ours, ended }, work),
            None => {
                if let Some((run, result)) = ended {
                    self.job_finished(run, result, end_of_ticket(&self.pags, pag));
                }
            }
        }
    }

    /// Does what follows from what a child has found in a user's files, or has put there.
    pub(crate) fn errand_is_done(&mut self, Done { uid, errand, report }: Done<Errand>) {
        match errand {
            Errand::Look { pag, ours, ended } => {
                let before = end_of_ticket(&self.pags, pag);
                let (reason, ticket) = parts_of(&report);
                let is_wanted = note_ticket(&mut self.pags, pag, ticket, ours).unwrap_or_else(|_| {
                    self.tickets.own.read_again(pag);
                    false
                });
                match ended {
                    Some((run, result)) => {
                        let result = result.map_err(|why| reason.map_or(why, str::to_owned));
                        self.job_finished(run, result, before);
                    }
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
    pub(crate) fn hear(&mut self, news: News) {
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
                self.reconciler.following.leaders.forget_all();
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
                if self.reconciler.following.leaders.hear(uid, sessions) {
                    self.agenda.users.insert(uid);
                }
            }
            News::Awake => self.agenda.all = true,
            News::Ended { unit: JobUnit::Keytab(pag, uid), run, result: Ok(()) } => {
                self.look_at_ticket(pag, true, None);
                let Some((_, job)) = self.jobs.queue.run(run) else { return };
                job.starts(run, Instant::now());
                if !self.bus.start(JobUnit::Seed(uid), run) {
                    self.job_finished(run, Err(NO_BUS.to_owned()), end_of_ticket(&self.pags, pag));
                }
            }
            News::Ended { run, result, .. } => {
                if let Some((pag, _)) = self.jobs.queue.run(run) {
                    self.look_at_ticket(pag, true, Some((run, result)));
                }
            }
        }
    }

    /// Does what a caller wants.
    pub(crate) fn obey(&mut self, order: Order) {
        let Some(uid) = self.pags.user_of(order.pag) else { return order.answer(Err(Trouble::Gone)) };
        match &order.action {
            Action::Renew => match self.pags.get(order.pag).and_then(|known| known.record.name()) {
                Some(name) => {
                    let why = format!("its unit renews it: `systemctl reload pag@{name}.service` has that done now");
                    order.answer(Err(Trouble::Failed(why)));
                }
                None => self.jobs.ask(order, uid, &self.pags),
            },
            Action::Follow(on) => match choose(&self.pags, self.reconciler.following.leaders.setting, order.pag, *on) {
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

    /// Shows callers over D-Bus the PAGs as they are now.
    pub(crate) fn publish(&mut self) {
        for uid in self.pags.take_changed() {
            self.interface.publish(uid, self.pags.of_user(uid));
        }
        self.interface.outside.replace(self.outside.found());
    }
}

/// When the host has had time to load the modules of its AFS clients. None if it is up for longer.
fn boot_is_over(now: Instant) -> Option<Instant> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let up = Duration::from_secs(text.split('.').next()?.parse().ok()?);
    BOOT.checked_sub(up).map(|left| now + left)
}

fn complain(what: String) {
    report(&Event::Complaint { what });
}

pub(crate) fn started(pags: &Pags) -> HelperEvent {
    let leases = pags.all().map(|known| known.record.leases.len()).sum();
    HelperEvent::Started { pags: pags.all().count(), leases }
}

/// One line about how much there is to look after.
pub(crate) fn status(pags: &Pags) -> String {
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
