//! The system bus: what logind says of users and sessions, and seeders that systemd starts for us.
//!
//! All of it is a help and no more: the leases' pidfds and the module's nudges tell the same. So the bus may be
//! missing, go away and come back. What comes from it is read and never trusted further than "look at this uid
//! again": signals are taken from the owners of the names only, which zbus's streams see to.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use zbus::connection::Builder;
use zbus::message::Message;
use zbus::proxy::{CacheProperties, OwnerChangedStream, SignalStream};
use zbus::{Connection, OwnedObjectPath, proxy};
use zruntime::SharedRuntime;

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
}

/// `org.freedesktop.systemd1.Manager`, for one thing (org.freedesktop.systemd1(5)).
#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Systemd {
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
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
    /// The machine was asleep.
    Awake,
    /// The seeder of `uid` has ended, well or for this reason.
    Seeded { uid: u32, result: Result<(), String> },
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
    orders: Mailbox<u32>,
    connected: Cell<bool>,
}

impl Bus {
    /// Has the seeder of `uid` started; [`News::Seeded`] follows. False when there is no bus to ask.
    pub(crate) fn seed(&self, uid: u32) -> bool {
        if self.connected.get() {
            self.orders.put(uid);
        }
        self.connected.get()
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
        let systemd = SystemdProxy::new(&connection).await?;
        let mut line = Line {
            bus: self,
            connection,
            login,
            systemd,
            signals,
            owner,
            sessions: HashMap::new(),
            seeders: Vec::new(),
        };
        *pause = PAUSE;
        self.connected.set(true);
        self.news.put(News::Back);
        line.list().await;
        loop {
            match poll_fn(|cx| line.poll_hear(cx)).await {
                Heard::Login(message) => line.signal(message).await,
                // Restarted: it may have missed something, and we.
                Heard::Owner(there) => {
                    if there {
                        line.list().await;
                    }
                }
                Heard::Order(uid) => line.start_seeder(uid).await,
                Heard::SeederEnded(uid, result) => self.news.put(News::Seeded { uid, result }),
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
    /// Whose the sessions are: the signal that tells the end of one does not say.
    sessions: HashMap<String, u32>,
    seeders: Vec<Seeder>,
}

struct Seeder {
    uid: u32,
    ends: JobRemovedStream,
}

enum Heard {
    Login(Message),
    Owner(bool),
    Order(u32),
    SeederEnded(u32, Result<(), String>),
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
        for index in 0..self.seeders.len() {
            let Some(seeder) = self.seeders.get_mut(index) else { break };
            let Poll::Ready(removed) = Pin::new(&mut seeder.ends).poll_next(cx) else { continue };
            let Some(removed) = removed else { return Poll::Ready(Heard::End) };
            let result = match removed.args() {
                Ok(args) if args.result() == "done" => Ok(()),
                Ok(args) => Err(format!("its job ended with '{}'", args.result())),
                Err(error) => Err(error.to_string()),
            };
            return Poll::Ready(Heard::SeederEnded(self.seeders.swap_remove(index).uid, result));
        }
        self.bus.orders.poll_take(cx).map(Heard::Order)
    }

    /// Asks for everybody. A logind that is not there is waited for.
    async fn list(&mut self) {
        let (Ok(sessions), Ok(users)) = (self.login.list_sessions().await, self.login.list_users().await) else {
            return;
        };
        self.sessions = sessions.into_iter().map(|(id, uid, ..)| (id, uid)).collect();
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
                self.sessions.insert(args.id.clone(), uid);
            }
        } else if let Some(signal) = SessionRemoved::from_message(message.clone()) {
            if let Ok(args) = signal.args()
                && let Some(uid) = self.sessions.remove(&args.id)
            {
                user(uid, None);
            }
        } else if let Some(signal) = PrepareForSleep::from_message(message)
            && signal.args().is_ok_and(|args| !args.start)
        {
            self.bus.news.put(News::Awake);
        }
    }

    async fn user_of(&self, session: OwnedObjectPath) -> zbus::Result<u32> {
        let session =
            SessionProxy::builder(&self.connection).path(session).cache_properties(CacheProperties::No).build().await?;
        session.user().await.map(|(uid, _)| uid)
    }

    async fn start_seeder(&mut self, uid: u32) {
        let unit = format!("pag-seed@{uid}.service");
        let started = async {
            // Before the start, so that the end of a quick one is not missed; for this unit alone, so that the jobs of
            // others do not wake us. systemd sends it without a Subscribe() since the job is ours
            // (src/core/dbus.c, bus_foreach_bus).
            let ends = self.systemd.receive_job_removed_with_args(&[(2, &unit)]).await?;
            // "fail": nothing that runs is to be replaced by us.
            self.systemd.start_unit(&unit, "fail").await?;
            zbus::Result::Ok(ends)
        };
        match started.await {
            Ok(ends) => self.seeders.push(Seeder { uid, ends }),
            Err(error) => self.bus.news.put(News::Seeded { uid, result: Err(format!("cannot start {unit}: {error}")) }),
        }
    }
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
    fn nothing_is_ordered_from_a_bus_that_is_not_there() {
        assert!(!Bus::default().seed(61001));
    }
}
