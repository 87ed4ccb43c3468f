//! The system bus: what logind says of users and sessions, and seeders that systemd starts for us.
//!
//! All of it is a help and no more: the leases' pidfds and the module's nudges tell the same. So the bus may be
//! missing, go away and come back. What comes from it is read and never trusted further than "look at this uid
//! again". Signals are taken from the owners of the names only, and by their unique names: a rule by a well-known one lets
//! in what anybody sends us (zbus, match_rule/mod.rs, matches).
//!
//! zbus reads nothing more while one of our queues is full, an answer that we wait for neither. So what is told is taken
//! while we wait, too, and each wait has a bound.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use pag::policy::Sessions;
use pag::types::PagId;
use zbus::connection::Builder;
use zbus::fdo::{DBusProxy, PropertiesChanged, PropertiesChangedArgs};
use zbus::message::{Message, Type};
use zbus::names::{OwnedUniqueName, UniqueName};
use zbus::proxy::{CacheProperties, OwnerChangedStream, SignalStream};
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, proxy};
use zruntime::SharedRuntime;

use crate::mailbox::Mailbox;

/// Longest wait for the answer to a call.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest time for all that is to be asked about one thing; then the connection is made anew.
const TURN: Duration = Duration::from_secs(30);
/// Signals that are kept while we wait; of more, all is asked anew.
const KEPT: usize = 1024;
const LOGIND: &str = "org.freedesktop.login1";
const SYSTEMD: &str = "org.freedesktop.systemd1";
/// Pause before the bus is tried again; it doubles.
pub(crate) const PAUSE: Duration = Duration::from_millis(250);
/// Longest pause: no more wake-ups than the watchdog costs.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// `org.freedesktop.login1.Manager`, as far as we read it (org.freedesktop.login1(5)). It is called by its unique name: no
/// call starts logind.
#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Login {
    fn list_sessions(&self) -> zbus::Result<Vec<(String, u32, String, String, OwnedObjectPath)>>;
    fn get_user(&self, uid: u32) -> zbus::Result<OwnedObjectPath>;
    fn list_users(&self) -> zbus::Result<Vec<(u32, String, OwnedObjectPath)>>;
    #[zbus(signal)]
    fn session_new(&self, id: String, path: OwnedObjectPath) -> zbus::Result<()>;
    #[zbus(signal)]
    fn session_removed(&self, id: String, path: OwnedObjectPath) -> zbus::Result<()>;
    #[zbus(signal)]
    fn user_new(&self, uid: u32, path: OwnedObjectPath) -> zbus::Result<()>;
    #[zbus(signal)]
    fn user_removed(&self, uid: u32, path: OwnedObjectPath) -> zbus::Result<()>;
    #[zbus(signal)]
    fn prepare_for_sleep(&self, start: bool) -> zbus::Result<()>;
}

/// `org.freedesktop.login1.Session`.
#[proxy(interface = "org.freedesktop.login1.Session", default_service = "org.freedesktop.login1")]
trait Session {
    #[zbus(property)]
    fn user(&self) -> zbus::Result<(u32, OwnedObjectPath)>;
    #[zbus(property)]
    fn leader(&self) -> zbus::Result<u32>;
    #[zbus(property)]
    fn class(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
}

/// `org.freedesktop.login1.User`.
#[proxy(interface = "org.freedesktop.login1.User", default_service = "org.freedesktop.login1")]
trait User {
    #[zbus(property)]
    fn display(&self) -> zbus::Result<(String, OwnedObjectPath)>;
    #[zbus(property)]
    fn sessions(&self) -> zbus::Result<Vec<(String, OwnedObjectPath)>>;
}

/// `org.freedesktop.systemd1.Manager`, for one thing (org.freedesktop.systemd1(5)).
#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Systemd {
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

/// `org.freedesktop.systemd1.Unit`.
#[proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
trait Unit {
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
}

/// `org.freedesktop.systemd1.Service`.
#[proxy(interface = "org.freedesktop.systemd1.Service", default_service = "org.freedesktop.systemd1")]
trait Service {
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> zbus::Result<u32>;
}

/// What the helper hears from the bus.
#[derive(Debug)]
pub(crate) enum News {
    /// There is a connection.
    Back,
    /// There is none, or no more; in words. Nothing is heard of seeders that run.
    Lost(String),
    /// All users that logind knows.
    Users(BTreeSet<u32>),
    /// Something about this user has changed; `there` is whether logind knows him still, where it says so.
    User { uid: u32, there: Option<bool> },
    /// The sessions of this user, as [`Bus::ask_for_sessions`] has asked for.
    Sessions { uid: u32, sessions: Sessions },
    /// The machine was asleep.
    Awake,
    /// A unit that was ordered has ended, well or for this reason.
    Ended { unit: JobUnit, result: Result<(), String> },
    /// What there is of the manager of `uid`.
    Manager { uid: u32, state: ManagerState },
}

/// What systemd says of a user's manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ManagerState {
    /// There is none.
    None,
    /// It is being started or stopped, or cannot be asked about.
    Unsettled,
    /// It runs, as this process.
    Runs(u32),
}

/// What the bus side is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Start this unit.
    Start(JobUnit),
    /// Ask logind about the sessions of this user.
    Look(u32),
    /// Look for the manager of this user.
    FindManager(u32),
}

/// A unit that is started for a PAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobUnit {
    /// Renews tickets and gets tokens, as the user.
    Seed(u32),
    /// Gets a ticket from a keytab, as root.
    Keytab(PagId, u32),
}

impl JobUnit {
    /// Whose PAG it is for.
    pub(crate) fn uid(self) -> u32 {
        match self {
            JobUnit::Seed(uid) | JobUnit::Keytab(_, uid) => uid,
        }
    }
}

impl fmt::Display for JobUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobUnit::Seed(uid) => write!(f, "pag-seed@{uid}.service"),
            JobUnit::Keytab(pag, _) => write!(f, "pag-keytab@{pag}.service"),
        }
    }
}

/// The bus as the rest of the helper sees it.
#[derive(Default)]
pub(crate) struct Bus {
    /// What was heard.
    pub(crate) news: Mailbox<News>,
    orders: Mailbox<Order>,
    connected: Cell<bool>,
}

impl Bus {
    /// Has a unit started; [`News::Ended`] follows. False when there is no bus to ask.
    pub(crate) fn start(&self, unit: JobUnit) -> bool {
        self.order(Order::Start(unit))
    }

    /// Has systemd asked about the manager of `uid`; [`News::Manager`] follows. False when there is no bus to ask.
    pub(crate) fn ask_for_manager(&self, uid: u32) -> bool {
        self.order(Order::FindManager(uid))
    }

    fn order(&self, order: Order) -> bool {
        if self.connected.get() {
            self.orders.put(order);
        }
        self.connected.get()
    }

    /// Whether there is one to start units with.
    pub(crate) fn is_there(&self) -> bool {
        self.connected.get()
    }

    /// Has logind asked about the sessions of `uid`; [`News::Sessions`] follows where there is a bus.
    pub(crate) fn ask_for_sessions(&self, uid: u32) {
        // One that waits its turn will see the same.
        if self.connected.get() && !self.orders.holds(&Order::Look(uid)) {
            self.orders.put(Order::Look(uid));
        }
    }

    /// Keeps a connection and passes on what it brings, for ever.
    pub(crate) async fn run(&self, runtime: &SharedRuntime) {
        let mut pause = PAUSE;
        loop {
            let why = match self.listen(runtime, &mut pause).await {
                Ok(()) => "the connection was closed".to_owned(),
                Err(error) => error.to_string(),
            };
            self.connected.set(false);
            self.news.put(News::Lost(why));
            runtime.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection, from its beginning to its end.
    async fn listen(&self, runtime: &SharedRuntime, pause: &mut Duration) -> zbus::Result<()> {
        let made = async {
            let connection = Builder::system().method_timeout(ANSWER).build().await?;
            let owner = LoginProxy::new(&connection).await?.inner().receive_owner_changed().await?;
            zbus::Result::Ok((connection, owner))
        };
        let (connection, owner) = runtime.timeout(TURN, made).await.map_err(std::io::Error::from)??;
        let ears = Ears { bus: self, signals: None, owner, jobs: Vec::new() };
        let mouth = Mouth { connection, login: None };
        let mut line = Line { runtime, ears, mouth, kept: VecDeque::new(), missed: false, sessions: HashMap::new() };
        *pause = PAUSE;
        let mouth = line.mouth.clone();
        if let Ok(name) = line.attend(async move { mouth.owner_of(LOGIND).await }).await? {
            line.turn_to(name).await?;
        }
        self.connected.set(true);
        self.news.put(News::Back);
        line.list().await?;
        loop {
            if std::mem::take(&mut line.missed) {
                line.list().await?;
            }
            let heard = match line.kept.pop_front() {
                Some(heard) => heard,
                None => poll_fn(|cx| line.ears.poll_hear(cx)).await,
            };
            let mouth = line.mouth.clone();
            match heard {
                Heard::Login(message) => line.signal(message).await?,
                Heard::Changed(message) => line.changed(message),
                // Restarted: it may have missed something, and we.
                Heard::Owner(Some(name)) => {
                    line.turn_to(name).await?;
                    line.list().await?;
                }
                Heard::Owner(None) => (line.ears.signals, line.mouth.login) = (None, None),
                Heard::Order(Order::Start(unit)) => {
                    let started = line.attend(async move { mouth.start_unit(unit).await }).await?;
                    match started {
                        Ok(ends) => line.ears.jobs.push(Job { unit, ends }),
                        Err(error) => {
                            let why = format!("cannot start {unit}: {error}");
                            self.news.put(News::Ended { unit, result: Err(why) });
                        }
                    }
                }
                Heard::Order(Order::Look(uid)) => {
                    // A logind that does not answer has said nothing.
                    if let Ok(sessions) = line.attend(async move { mouth.look(uid).await }).await? {
                        self.news.put(News::Sessions { uid, sessions });
                    }
                }
                Heard::Order(Order::FindManager(uid)) => {
                    let state = line.attend(async move { mouth.manager_of(uid).await }).await?;
                    self.news.put(News::Manager { uid, state });
                }
                Heard::JobEnded(unit, result) => self.news.put(News::Ended { unit, result }),
                Heard::Nothing => {}
                Heard::End => return Ok(()),
            }
        }
    }
}

/// One connection and what is listened to on it.
struct Line<'a> {
    runtime: &'a SharedRuntime,
    ears: Ears<'a>,
    mouth: Mouth,
    /// What was heard while an answer was waited for.
    kept: VecDeque<Heard>,
    /// That was too much.
    missed: bool,
    /// Whose the sessions are, by their paths: signals that tell of a change or the end of one do not say.
    sessions: HashMap<OwnedObjectPath, u32>,
}

/// What is told on it.
struct Ears<'a> {
    bus: &'a Bus,
    /// logind's, while there is one.
    signals: Option<Signals>,
    owner: OwnerChangedStream<'static>,
    jobs: Vec<Job>,
}

/// What logind tells: its own signals, and changes of properties, of whatever session and user.
struct Signals {
    own: SignalStream<'static>,
    session: MessageStream,
    user: MessageStream,
}

/// What is asked on it.
#[derive(Clone)]
struct Mouth {
    connection: Connection,
    /// By its unique name; none while there is no logind.
    login: Option<LoginProxy<'static>>,
}

/// The changes of all objects of logind's that have this interface. logind tells them of Display and Class, and of State
/// (org.freedesktop.login1(5)); of a user's list of sessions it does not.
async fn changes_of(interface: &str, logind: &UniqueName<'_>, connection: &Connection) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(logind)
        .interface("org.freedesktop.DBus.Properties")
        .member("PropertiesChanged")
        .path_namespace("/org/freedesktop/login1")
        .arg(0, format!("org.freedesktop.login1.{interface}"))
        .build()?;
    MessageStream::for_match_rule(rule, connection, None).await
}

struct Job {
    unit: JobUnit,
    ends: JobRemovedStream,
}

enum Heard {
    Login(Message),
    Changed(Message),
    Owner(Option<OwnedUniqueName>),
    Order(Order),
    JobEnded(JobUnit, Result<(), String>),
    Nothing,
    End,
}

impl Ears<'_> {
    /// What is told, and then what we are to do.
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        if let Poll::Ready(heard) = self.poll_told(cx) {
            return Poll::Ready(heard);
        }
        self.bus.orders.poll_take(cx).map(Heard::Order)
    }

    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        if let Poll::Ready(owner) = Pin::new(&mut self.owner).poll_next(cx) {
            return Poll::Ready(owner.map_or(Heard::End, |owner| Heard::Owner(owner.map(OwnedUniqueName::from))));
        }
        if let Some(signals) = &mut self.signals {
            if let Poll::Ready(message) = Pin::new(&mut signals.own).poll_next(cx) {
                return Poll::Ready(message.map_or(Heard::End, Heard::Login));
            }
            for stream in [&mut signals.session, &mut signals.user] {
                if let Poll::Ready(message) = Pin::new(stream).poll_next(cx) {
                    // An error is a message that could not be read: nothing to us.
                    return Poll::Ready(
                        message.map_or(Heard::End, |message| message.map_or(Heard::Nothing, Heard::Changed)),
                    );
                }
            }
        }
        for index in 0..self.jobs.len() {
            let Some(job) = self.jobs.get_mut(index) else { break };
            let Poll::Ready(removed) = Pin::new(&mut job.ends).poll_next(cx) else { continue };
            let Some(removed) = removed else { return Poll::Ready(Heard::End) };
            let result = match removed.args() {
                Ok(args) if args.result() == "done" => Ok(()),
                Ok(args) => Err(format!("its job ended with '{}'", args.result())),
                Err(error) => Err(error.to_string()),
            };
            return Poll::Ready(Heard::JobEnded(self.jobs.swap_remove(index).unit, result));
        }
        Poll::Pending
    }
}

impl Line<'_> {
    /// Waits for something that is asked, and keeps what is told meanwhile.
    ///
    /// # Errors
    /// When that takes too long: the connection is of no use then.
    async fn attend<T>(&mut self, asked: impl Future<Output = T>) -> zbus::Result<T> {
        let mut asked = pin!(self.runtime.timeout(TURN, asked));
        let (ears, kept, missed) = (&mut self.ears, &mut self.kept, &mut self.missed);
        let answer = poll_fn(|cx| {
            if let Poll::Ready(answer) = asked.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            while let Poll::Ready(heard) = ears.poll_told(cx) {
                let ends = matches!(heard, Heard::End);
                match heard {
                    Heard::Login(_) | Heard::Changed(_) | Heard::Nothing if kept.len() >= KEPT => *missed = true,
                    heard => kept.push_back(heard),
                }
                // There is no answer to come, either.
                if ends {
                    break;
                }
            }
            Poll::Pending
        });
        Ok(answer.await.map_err(std::io::Error::from)?)
    }

    /// Listens to this logind, and asks it.
    async fn turn_to(&mut self, name: OwnedUniqueName) -> zbus::Result<()> {
        let connection = self.mouth.connection.clone();
        let made = async move {
            let login = LoginProxy::builder(&connection).destination(name.clone()).build().await?;
            let own = login.inner().receive_all_signals().await?;
            let session = changes_of("Session", &name, &connection).await?;
            let user = changes_of("User", &name, &connection).await?;
            zbus::Result::Ok((login, Signals { own, session, user }))
        };
        let (login, signals) = self.attend(made).await??;
        (self.mouth.login, self.ears.signals) = (Some(login), Some(signals));
        Ok(())
    }

    /// Asks for everybody. A logind that is not there is waited for.
    async fn list(&mut self) -> zbus::Result<()> {
        let Some(login) = self.mouth.login.clone() else { return Ok(()) };
        let both = async move { zbus::Result::Ok((login.list_sessions().await?, login.list_users().await?)) };
        if let Ok((sessions, users)) = self.attend(both).await? {
            self.sessions = sessions.into_iter().map(|(_, uid, _, _, path)| (path, uid)).collect();
            self.ears.bus.news.put(News::Users(users.into_iter().map(|(uid, ..)| uid).collect()));
        }
        Ok(())
    }

    async fn signal(&mut self, message: Message) -> zbus::Result<()> {
        let bus = self.ears.bus;
        let user = |uid, there| bus.news.put(News::User { uid, there });
        if let Some(signal) = UserNew::from_message(message.clone()) {
            if let Ok(args) = signal.args() {
                user(args.uid, Some(true));
            }
        } else if let Some(signal) = UserRemoved::from_message(message.clone()) {
            if let Ok(args) = signal.args() {
                user(args.uid, Some(false));
            }
        } else if let Some(signal) = SessionNew::from_message(message.clone()) {
            if let Ok(args) = signal.args() {
                let (mouth, path) = (self.mouth.clone(), args.path.clone());
                if let Ok(uid) = self.attend(async move { mouth.user_of(path).await }).await? {
                    user(uid, None);
                    self.sessions.insert(args.path.clone(), uid);
                }
            }
        } else if let Some(signal) = SessionRemoved::from_message(message.clone()) {
            if let Ok(args) = signal.args()
                && let Some(uid) = self.sessions.remove(&args.path)
            {
                user(uid, None);
            }
        } else if let Some(signal) = PrepareForSleep::from_message(message)
            && signal.args().is_ok_and(|args| !args.start)
        {
            bus.news.put(News::Awake);
        }
        Ok(())
    }

    /// A change that may matter for whom services follow. No more than a hint: logind is asked then.
    fn changed(&self, message: Message) {
        let header = message.header();
        let Some(path) = header.path().map(|path| path.to_owned()) else { return };
        let Some(signal) = PropertiesChanged::from_message(message.clone()) else { return };
        let Ok(args) = signal.args() else { return };
        let uid = match args.interface_name.as_str() {
            "org.freedesktop.login1.Session" if changes(&args, &["State", "Class"]) => {
                self.sessions.get(&OwnedObjectPath::from(path)).copied()
            }
            "org.freedesktop.login1.User" if changes(&args, &["Display"]) => uid_in(path.as_str()),
            _ => None,
        };
        if let Some(uid) = uid {
            self.ears.bus.news.put(News::User { uid, there: None });
        }
    }
}

impl Mouth {
    async fn owner_of(&self, name: &'static str) -> zbus::Result<OwnedUniqueName> {
        Ok(DBusProxy::new(&self.connection).await?.get_name_owner(name.try_into()?).await?)
    }

    /// Asks for the sessions of a user.
    async fn look(&self, uid: u32) -> zbus::Result<Sessions> {
        let login = self.login.as_ref().ok_or_else(|| zbus::Error::Failure("there is no logind".to_owned()))?;
        match login.get_user(uid).await {
            Ok(path) => self.sessions_of(login, path).await,
            // He has none.
            Err(zbus::Error::MethodError(name, ..)) if name.as_str() == "org.freedesktop.login1.NoSuchUser" => {
                Ok(Sessions::default())
            }
            Err(error) => Err(error),
        }
    }

    async fn sessions_of(&self, login: &LoginProxy<'_>, user: OwnedObjectPath) -> zbus::Result<Sessions> {
        let user = UserProxy::builder(&self.connection)
            .destination(login.inner().destination())
            .path(user)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let (display, _) = user.display().await?;
        let mut all = Vec::new();
        for (id, path) in user.sessions().await? {
            let session = SessionProxy::builder(&self.connection)
                .destination(login.inner().destination())
                .path(path)
                .cache_properties(CacheProperties::No)
                .build()
                .await?;
            // One that has ended between the two questions.
            let (Ok(leader), Ok(class), Ok(state)) =
                (session.leader().await, session.class().await, session.state().await)
            else {
                continue;
            };
            all.push(pag::policy::Session {
                id,
                leader: i32::try_from(leader).unwrap_or(0),
                // src/login/logind-session.h, SESSION_CLASS_CAN_DISPLAY, but for greeters.
                person: class.starts_with("user"),
                closing: state == "closing",
            });
        }
        Ok(Sessions { display: Some(display).filter(|id| !id.is_empty()), all })
    }

    async fn user_of(&self, session: OwnedObjectPath) -> zbus::Result<u32> {
        let session =
            SessionProxy::builder(&self.connection).path(session).cache_properties(CacheProperties::No).build().await?;
        session.user().await.map(|(uid, _)| uid)
    }

    async fn manager_of(&self, uid: u32) -> ManagerState {
        let unit = match self.systemd().await {
            Ok(systemd) => systemd.get_unit(&format!("user@{uid}.service")).await,
            Err(error) => Err(error),
        };
        let unit = match unit {
            Ok(unit) => unit,
            Err(zbus::Error::MethodError(name, ..)) if name == "org.freedesktop.systemd1.NoSuchUnit" => {
                return ManagerState::None;
            }
            Err(_) => return ManagerState::Unsettled,
        };
        let (state, pid) = (self.state_of(unit.clone()).await, self.main_pid_of(unit).await);
        match (state.as_deref(), pid) {
            (Ok("active"), Ok(pid)) if pid > 0 => ManagerState::Runs(pid),
            (Ok("inactive" | "failed"), _) => ManagerState::None,
            _ => ManagerState::Unsettled,
        }
    }

    async fn state_of(&self, unit: OwnedObjectPath) -> zbus::Result<String> {
        let unit =
            UnitProxy::builder(&self.connection).path(unit).cache_properties(CacheProperties::No).build().await?;
        unit.active_state().await
    }

    async fn main_pid_of(&self, unit: OwnedObjectPath) -> zbus::Result<u32> {
        let service =
            ServiceProxy::builder(&self.connection).path(unit).cache_properties(CacheProperties::No).build().await?;
        service.main_pid().await
    }

    /// As it is called now: it is another after it was executed anew.
    async fn systemd(&self) -> zbus::Result<SystemdProxy<'static>> {
        SystemdProxy::builder(&self.connection).destination(self.owner_of(SYSTEMD).await?).build().await
    }

    /// Starts a unit, and gives what will tell of its end.
    async fn start_unit(&self, unit: JobUnit) -> zbus::Result<JobRemovedStream> {
        let (name, systemd) = (unit.to_string(), self.systemd().await?);
        // Before the start, so that the end of a quick one is not missed; for this unit alone, so that the jobs of others do
        // not wake us. systemd sends it without a Subscribe() since the job is ours (src/core/dbus.c, bus_foreach_bus).
        let ends = systemd.receive_job_removed_with_args(&[(2, &name)]).await?;
        // "fail": nothing that runs is to be replaced by us.
        systemd.start_unit(&name, "fail").await?;
        Ok(ends)
    }
}

fn changes(args: &PropertiesChangedArgs<'_>, names: &[&str]) -> bool {
    let named = |name: &&str| args.changed_properties.contains_key(*name) || args.invalidated_properties.contains(name);
    names.iter().any(named)
}

/// The uid in the path of a user's object: logind escapes the first character where it is a digit
/// (src/login/logind-user-dbus.c, user_bus_path).
fn uid_in(path: &str) -> Option<u32> {
    path.strip_prefix("/org/freedesktop/login1/user/_")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_path_names_his_uid() {
        assert_eq!(uid_in("/org/freedesktop/login1/user/_61001"), Some(61001));
        for path in ["/org/freedesktop/login1/user/self", "/org/freedesktop/login1/session/_31", "", "_1"] {
            assert_eq!(uid_in(path), None, "{path}");
        }
    }

    #[test]
    fn nothing_is_ordered_from_a_bus_that_is_not_there() {
        assert!(!Bus::default().start(JobUnit::Seed(61001)));
    }
}
