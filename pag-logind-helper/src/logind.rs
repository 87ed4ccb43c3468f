//! The system bus: what logind says of users and sessions, and seeders that systemd starts for us.
//!
//! All of it is a help and no more: the leases' pidfds and the module's nudges tell the same. So the bus may be
//! missing, go away and come back. What comes from it is read and never trusted further than "look at this uid
//! again": signals are taken from the owners of the names only, which zbus's streams see to.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use pag::policy::Sessions;
use pag::registry::PagId;
use zbus::connection::Builder;
use zbus::fdo::{PropertiesChanged, PropertiesChangedArgs};
use zbus::message::{Message, Type};
use zbus::proxy::{CacheProperties, OwnerChangedStream, SignalStream};
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, proxy};
use zruntime::SharedRuntime;

use crate::managers::Manager;

/// Longest wait for the answer to a call.
const ANSWER: Duration = Duration::from_secs(10);
/// Pause before the bus is tried again; it doubles.
pub(crate) const PAUSE: Duration = Duration::from_millis(250);
/// Longest pause: no more wake-ups than the watchdog costs.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// `org.freedesktop.login1.Manager`, as far as we read it (org.freedesktop.login1(5)). No call starts logind.
#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Login {
    #[zbus(no_autostart)]
    fn list_sessions(&self) -> zbus::Result<Vec<(String, u32, String, String, OwnedObjectPath)>>;
    #[zbus(no_autostart)]
    fn get_user(&self, uid: u32) -> zbus::Result<OwnedObjectPath>;
    #[zbus(no_autostart)]
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
    /// The sessions of this user, as [`Bus::look`] has asked for.
    Sessions { uid: u32, sessions: Sessions },
    /// The machine was asleep.
    Awake,
    /// A unit that was ordered has ended, well or for this reason.
    Ended { unit: JobUnit, result: Result<(), String> },
    /// What there is of the manager of `uid`.
    Manager { uid: u32, manager: Manager },
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

/// Things that wait for one reader.
pub(crate) struct Mailbox<T> {
    queue: RefCell<VecDeque<T>>,
    reader: Cell<Option<Waker>>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Mailbox { queue: RefCell::default(), reader: Cell::default() }
    }
}

impl<T> Mailbox<T> {
    /// Puts something in and wakes the reader.
    pub(crate) fn put(&self, thing: T) {
        self.queue.borrow_mut().push_back(thing);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Whether this is waiting already.
    pub(crate) fn holds(&self, thing: &T) -> bool
    where
        T: PartialEq,
    {
        self.queue.borrow().contains(thing)
    }

    /// Takes the oldest thing out.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<T> {
        match self.queue.borrow_mut().pop_front() {
            Some(thing) => Poll::Ready(thing),
            None => {
                self.reader.set(Some(cx.waker().clone()));
                Poll::Pending
            }
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
    pub(crate) fn find_manager(&self, uid: u32) -> bool {
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
    pub(crate) fn look(&self, uid: u32) {
        // One that waits its turn will see the same.
        if self.connected.get() && !self.orders.holds(&Order::Look(uid)) {
            self.orders.put(Order::Look(uid));
        }
    }

    /// Keeps a connection and passes on what it brings, for ever.
    pub(crate) async fn follow(&self, runtime: &SharedRuntime) {
        let mut pause = PAUSE;
        loop {
            let why = match self.listen(&mut pause).await {
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
    async fn listen(&self, pause: &mut Duration) -> zbus::Result<()> {
        let connection = Builder::system().method_timeout(ANSWER).build().await?;
        let login = LoginProxy::new(&connection).await?;
        // Signals before lists: what happens between the two is then heard of twice, and not never.
        let signals = login.inner().receive_all_signals().await?;
        let owner = login.inner().receive_owner_changed().await?;
        let changes = Changes {
            session: changes_of("Session", &connection).await?,
            user: changes_of("User", &connection).await?,
        };
        let systemd = SystemdProxy::new(&connection).await?;
        let mut line = Line {
            bus: self,
            connection,
            login,
            systemd,
            signals,
            owner,
            changes,
            sessions: HashMap::new(),
            jobs: Vec::new(),
        };
        *pause = PAUSE;
        self.connected.set(true);
        self.news.put(News::Back);
        line.list().await;
        loop {
            match poll_fn(|cx| line.poll_hear(cx)).await {
                Heard::Login(message) => line.signal(message).await,
                Heard::Changed(message) => line.changed(message),
                // Restarted: it may have missed something, and we.
                Heard::Owner(there) => {
                    if there {
                        line.list().await;
                    }
                }
                Heard::Order(Order::Start(unit)) => line.start_unit(unit).await,
                Heard::Order(Order::Look(uid)) => line.look(uid).await,
                Heard::Order(Order::FindManager(uid)) => {
                    let manager = line.manager_of(uid).await;
                    self.news.put(News::Manager { uid, manager });
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
    bus: &'a Bus,
    connection: Connection,
    login: LoginProxy<'static>,
    systemd: SystemdProxy<'static>,
    signals: SignalStream<'static>,
    owner: OwnerChangedStream<'static>,
    changes: Changes,
    /// Whose the sessions are, by their paths: signals that tell of a change or the end of one do not say.
    sessions: HashMap<OwnedObjectPath, u32>,
    jobs: Vec<Job>,
}

/// Changes of properties, of whatever session and user.
struct Changes {
    session: MessageStream,
    user: MessageStream,
}

/// The changes of all objects of logind's that have this interface. logind tells them of Display and Class, and of State
/// (org.freedesktop.login1(5)); of a user's list of sessions it does not.
async fn changes_of(interface: &str, connection: &Connection) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.login1")
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
    Owner(bool),
    Order(Order),
    JobEnded(JobUnit, Result<(), String>),
    Nothing,
    End,
}

impl Line<'_> {
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        if let Poll::Ready(message) = Pin::new(&mut self.signals).poll_next(cx) {
            return Poll::Ready(message.map_or(Heard::End, Heard::Login));
        }
        if let Poll::Ready(owner) = Pin::new(&mut self.owner).poll_next(cx) {
            return Poll::Ready(owner.map_or(Heard::End, |owner| Heard::Owner(owner.is_some())));
        }
        for stream in [&mut self.changes.session, &mut self.changes.user] {
            if let Poll::Ready(message) = Pin::new(stream).poll_next(cx) {
                // An error is a message that could not be read: nothing to us.
                return Poll::Ready(
                    message.map_or(Heard::End, |message| message.map_or(Heard::Nothing, Heard::Changed)),
                );
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
        self.bus.orders.poll_take(cx).map(Heard::Order)
    }

    /// Asks for everybody. A logind that is not there is waited for.
    async fn list(&mut self) {
        let (Ok(sessions), Ok(users)) = (self.login.list_sessions().await, self.login.list_users().await) else {
            return;
        };
        self.sessions = sessions.into_iter().map(|(_, uid, _, _, path)| (path, uid)).collect();
        self.bus.news.put(News::Users(users.into_iter().map(|(uid, ..)| uid).collect()));
    }

    async fn signal(&mut self, message: Message) {
        let user = |uid, there| self.bus.news.put(News::User { uid, there });
        if let Some(signal) = UserNew::from_message(message.clone()) {
            if let Ok(args) = signal.args() {
                user(args.uid, Some(true));
            }
        } else if let Some(signal) = UserRemoved::from_message(message.clone()) {
            if let Ok(args) = signal.args() {
                user(args.uid, Some(false));
            }
        } else if let Some(signal) = SessionNew::from_message(message.clone()) {
            if let Ok(args) = signal.args()
                && let Ok(uid) = self.user_of(args.path.clone()).await
            {
                user(uid, None);
                self.sessions.insert(args.path.clone(), uid);
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
            self.bus.news.put(News::Awake);
        }
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
            self.bus.news.put(News::User { uid, there: None });
        }
    }

    /// Asks for the sessions of a user. A logind that does not answer has said nothing.
    async fn look(&self, uid: u32) {
        let sessions = match self.login.get_user(uid).await {
            Ok(path) => self.sessions_of(path).await,
            // He has none.
            Err(zbus::Error::MethodError(name, ..)) if name.as_str() == "org.freedesktop.login1.NoSuchUser" => {
                Ok(Sessions::default())
            }
            Err(error) => Err(error),
        };
        if let Ok(sessions) = sessions {
            self.bus.news.put(News::Sessions { uid, sessions });
        }
    }

    async fn sessions_of(&self, user: OwnedObjectPath) -> zbus::Result<Sessions> {
        let user =
            UserProxy::builder(&self.connection).path(user).cache_properties(CacheProperties::No).build().await?;
        let (display, _) = user.display().await?;
        let mut all = Vec::new();
        for (id, path) in user.sessions().await? {
            let session = SessionProxy::builder(&self.connection)
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

    async fn manager_of(&self, uid: u32) -> Manager {
        let unit = match self.systemd.get_unit(&format!("user@{uid}.service")).await {
            Ok(unit) => unit,
            Err(zbus::Error::MethodError(name, ..)) if name == "org.freedesktop.systemd1.NoSuchUnit" => {
                return Manager::None;
            }
            Err(_) => return Manager::Unsettled,
        };
        let (state, pid) = (self.state_of(unit.clone()).await, self.main_pid_of(unit).await);
        match (state.as_deref(), pid) {
            (Ok("active"), Ok(pid)) if pid > 0 => Manager::Runs(pid),
            (Ok("inactive" | "failed"), _) => Manager::None,
            _ => Manager::Unsettled,
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

    async fn start_unit(&mut self, unit: JobUnit) {
        let name = unit.to_string();
        let started = async {
            // Before the start, so that the end of a quick one is not missed; for this unit alone, so that the jobs of
            // others do not wake us. systemd sends it without a Subscribe() since the job is ours
            // (src/core/dbus.c, bus_foreach_bus).
            let ends = self.systemd.receive_job_removed_with_args(&[(2, &name)]).await?;
            // "fail": nothing that runs is to be replaced by us.
            self.systemd.start_unit(&name, "fail").await?;
            zbus::Result::Ok(ends)
        };
        match started.await {
            Ok(ends) => self.jobs.push(Job { unit, ends }),
            Err(error) => self.bus.news.put(News::Ended { unit, result: Err(format!("cannot start {unit}: {error}")) }),
        }
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_reader_is_woken_by_what_comes_after_it_has_looked() {
        let (mailbox, count) = (Mailbox::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        assert_eq!(mailbox.poll_take(&mut cx), Poll::Pending);
        mailbox.put(1);
        mailbox.put(2);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(mailbox.poll_take(&mut cx), Poll::Ready(1));
        assert_eq!(mailbox.poll_take(&mut cx), Poll::Ready(2));
        assert_eq!(mailbox.poll_take(&mut cx), Poll::Pending);
    }

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
