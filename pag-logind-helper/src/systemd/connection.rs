//! The connection to logind and systemd. It is kept as long as there is a bus, and made anew when the bus is back.
//!
//! Signals are taken from the unique names of the services alone: a match rule by a well-known name lets in what any
//! connection sends to the helper (zbus, match_rule/mod.rs, matches).
//!
//! While one of our queues is full, zbus reads nothing more from the bus, not even the answer that the helper waits for. So
//! events are taken in during that wait, too, and each wait has a bound.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use zbus::connection::Builder;
use zbus::fdo::{PropertiesChanged, PropertiesChangedArgs};
use zbus::message::{Message, Type};
use zbus::names::{OwnedUniqueName, UniqueName};
use zbus::proxy::{OwnerChangedStream, SignalStream};
use zbus::{MatchRule, MessageStream, OwnedObjectPath};
use zruntime::SharedRuntime;

use super::bus::{Bus, JobUnit, News, Order, RunId};
use super::client::Client;
use super::proxies::{JobRemovedStream, LoginProxy, PrepareForSleep, SessionNew, SessionRemoved, UserNew, UserRemoved};
use crate::names;

/// Longest wait for the answer to a call.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest time for all questions about one thing. Then the connection is made anew.
const TURN: Duration = Duration::from_secs(30);

/// How often, and with which pause, a job is tried to be started while systemd is not on the bus.
const BOOT_TRIES: u32 = 30;
const BOOT_PAUSE: Duration = Duration::from_millis(100);
/// Events that are kept during a wait. If more come, logind is asked for everything anew.
const KEPT: usize = 1024;
const LOGIND: &str = "org.freedesktop.login1";
/// Pause before the bus is tried again. It doubles.
pub(crate) const PAUSE: Duration = Duration::from_millis(250);
/// Longest pause: no more wake-ups than the watchdog costs.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Keeps a connection and passes on what it brings, without end.
pub(crate) async fn run(bus: &Bus, runtime: &SharedRuntime) {
    let mut pause = PAUSE;
    loop {
        let why = match listen(bus, runtime, &mut pause).await {
            Ok(()) => "the connection was closed".to_owned(),
            Err(error) => error.to_string(),
        };
        bus.set_connected(false);
        bus.news.put(News::Lost(why));
        runtime.sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One connection, from its beginning to its end.
async fn listen(bus: &Bus, runtime: &SharedRuntime, pause: &mut Duration) -> zbus::Result<()> {
    let made = async {
        let connection = Builder::system().method_timeout(ANSWER).build().await?;
        let owner = LoginProxy::new(&connection).await?.inner().receive_owner_changed().await?;
        zbus::Result::Ok((connection, owner))
    };
    let (connection, owner) = runtime.timeout(TURN, made).await.map_err(std::io::Error::from)??;
    let mut connection = Connection {
        runtime,
        bus,
        events: Events { bus, signals: None, owner, jobs: Vec::new() },
        client: Client { connection, login: None },
        kept: VecDeque::new(),
        missed: false,
        sessions: HashMap::new(),
    };
    *pause = PAUSE;
    let client = connection.client.clone();
    if let Ok(name) = connection.wait_for(async move { client.owner_of(LOGIND).await }).await? {
        connection.use_logind(name).await?;
    }
    bus.set_connected(true);
    bus.news.put(News::Back);
    connection.list_all().await?;
    loop {
        if std::mem::take(&mut connection.missed) {
            connection.list_all().await?;
        }
        let event = match connection.kept.pop_front() {
            Some(event) => event,
            None => poll_fn(|cx| connection.events.poll_next(cx)).await,
        };
        let client = connection.client.clone();
        match event {
            Event::Login(message) => connection.signal(message).await?,
            Event::Changed(message) => connection.changed(message),
            // logind has been restarted: it may have missed something, and the helper, too.
            Event::Owner(Some(name)) => {
                connection.use_logind(name).await?;
                connection.list_all().await?;
            }
            Event::Owner(None) => (connection.events.signals, connection.client.login) = (None, None),
            Event::Order(Order::Start(unit, run)) => {
                let started = async move {
                    // At boot the helper may be on the bus a moment before systemd is.
                    for _ in 0..BOOT_TRIES {
                        match client.start_unit(unit).await {
                            Err(error) if is_absent(&error) => runtime.sleep_until(Instant::now() + BOOT_PAUSE).await,
                            answer => return answer,
                        }
                    }
                    client.start_unit(unit).await
                };
                let started = connection.wait_for(started).await?;
                match started {
                    Ok(ends) => connection.events.jobs.push(Job { unit, run, ends }),
                    Err(error) => {
                        let why = format!("cannot start {unit}: {error}");
                        bus.news.put(News::Ended { unit, run, result: Err(why) });
                    }
                }
            }
            Event::Order(Order::Sessions(uid)) => {
                // A logind that does not answer has said nothing.
                if let Ok(sessions) = connection.wait_for(async move { client.sessions(uid).await }).await? {
                    bus.news.put(News::Sessions { uid, sessions });
                }
            }
            Event::Order(Order::Manager(uid)) => {
                let state = connection.wait_for(async move { client.manager_of(uid).await }).await?;
                bus.news.put(News::Manager { uid, state });
            }
            Event::JobEnded(unit, run, result) => bus.news.put(News::Ended { unit, run, result }),
            Event::Unreadable => {}
            Event::End => return Ok(()),
        }
    }
}

/// Whether systemd is not on the bus.
fn is_absent(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::FDO(error) if matches!(**error, zbus::fdo::Error::NameHasNoOwner(_)))
}

/// One connection.
struct Connection<'a> {
    runtime: &'a SharedRuntime,
    bus: &'a Bus,
    events: Events<'a>,
    client: Client,
    /// Events that came while the helper waited for an answer.
    kept: VecDeque<Event>,
    /// Whether there were too many of those.
    missed: bool,
    /// The users of sessions, by their paths: signals that tell of a change or the end of a session do not name the user.
    sessions: HashMap<OwnedObjectPath, u32>,
}

/// Where events come from.
struct Events<'a> {
    bus: &'a Bus,
    /// logind's signals, while it is on the bus.
    signals: Option<Signals>,
    owner: OwnerChangedStream<'static>,
    jobs: Vec<Job>,
}

/// What logind tells: its own signals, and changes of properties of all sessions and users.
struct Signals {
    own: SignalStream<'static>,
    session: MessageStream,
    user: MessageStream,
}

/// The changes of all of logind's objects that have this interface. logind tells changes of Display, Class and State
/// (org.freedesktop.login1(5)), but not of a user's list of sessions.
async fn changes_of(
    interface: &str,
    logind: &UniqueName<'_>,
    connection: &zbus::Connection,
) -> zbus::Result<MessageStream> {
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

/// A unit that runs.
struct Job {
    unit: JobUnit,
    run: RunId,
    ends: JobRemovedStream,
}

/// What has happened.
enum Event {
    /// A signal of logind's.
    Login(Message),
    /// Properties of a session or user have changed.
    Changed(Message),
    /// logind has come, or gone.
    Owner(Option<OwnedUniqueName>),
    Order(Order),
    JobEnded(JobUnit, RunId, Result<(), String>),
    /// A message could not be read.
    Unreadable,
    /// The connection has ended.
    End,
}

impl Events<'_> {
    /// The next event, or order.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(event) = self.poll_bus(cx) {
            return Poll::Ready(event);
        }
        self.bus.orders.poll_take(cx).map(Event::Order)
    }

    /// The next event of the bus.
    fn poll_bus(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(owner) = Pin::new(&mut self.owner).poll_next(cx) {
            return Poll::Ready(owner.map_or(Event::End, |owner| Event::Owner(owner.map(OwnedUniqueName::from))));
        }
        if let Some(signals) = &mut self.signals {
            if let Poll::Ready(message) = Pin::new(&mut signals.own).poll_next(cx) {
                return Poll::Ready(message.map_or(Event::End, Event::Login));
            }
            for stream in [&mut signals.session, &mut signals.user] {
                if let Poll::Ready(message) = Pin::new(stream).poll_next(cx) {
                    return Poll::Ready(
                        message.map_or(Event::End, |message| message.map_or(Event::Unreadable, Event::Changed)),
                    );
                }
            }
        }
        for index in 0..self.jobs.len() {
            let Some(job) = self.jobs.get_mut(index) else { break };
            let Poll::Ready(removed) = Pin::new(&mut job.ends).poll_next(cx) else { continue };
            let Some(removed) = removed else { return Poll::Ready(Event::End) };
            let result = match removed.args() {
                Ok(args) if args.result() == "done" => Ok(()),
                Ok(args) => Err(format!("its job ended with '{}'", args.result())),
                Err(error) => Err(error.to_string()),
            };
            let Job { unit, run, .. } = self.jobs.swap_remove(index);
            return Poll::Ready(Event::JobEnded(unit, run, result));
        }
        Poll::Pending
    }
}

impl Connection<'_> {
    /// Waits for an answer, and keeps the events that come meanwhile.
    ///
    /// # Errors
    /// If that takes too long: the connection is of no use then.
    async fn wait_for<T>(&mut self, asked: impl Future<Output = T>) -> zbus::Result<T> {
        let mut asked = pin!(self.runtime.timeout(TURN, asked));
        let (events, kept, missed) = (&mut self.events, &mut self.kept, &mut self.missed);
        let answer = poll_fn(|cx| {
            if let Poll::Ready(answer) = asked.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            while let Poll::Ready(event) = events.poll_bus(cx) {
                let ends = matches!(event, Event::End);
                match event {
                    Event::Login(_) | Event::Changed(_) | Event::Unreadable if kept.len() >= KEPT => *missed = true,
                    event => kept.push_back(event),
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

    /// Uses this logind from now on.
    async fn use_logind(&mut self, name: OwnedUniqueName) -> zbus::Result<()> {
        let connection = self.client.connection.clone();
        let made = async move {
            let login = LoginProxy::builder(&connection).destination(name.clone()).build().await?;
            let own = login.inner().receive_all_signals().await?;
            let session = changes_of("Session", &name, &connection).await?;
            let user = changes_of("User", &name, &connection).await?;
            zbus::Result::Ok((login, Signals { own, session, user }))
        };
        let (login, signals) = self.wait_for(made).await??;
        (self.client.login, self.events.signals) = (Some(login), Some(signals));
        Ok(())
    }

    /// Asks logind for all sessions and users. If it is not on the bus, that is done when it comes.
    async fn list_all(&mut self) -> zbus::Result<()> {
        let Some(login) = self.client.login.clone() else { return Ok(()) };
        let both = async move { zbus::Result::Ok((login.list_sessions().await?, login.list_users().await?)) };
        if let Ok((sessions, users)) = self.wait_for(both).await? {
            self.sessions = sessions.into_iter().map(|(_, uid, _, _, path)| (path, uid)).collect();
            let learn = |(uid, name, _)| {
                names::learn(uid, name);
                uid
            };
            self.bus.news.put(News::Users(users.into_iter().map(learn).collect()));
        }
        Ok(())
    }

    /// Takes in a signal of logind's.
    async fn signal(&mut self, message: Message) -> zbus::Result<()> {
        let bus = self.bus;
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
                let (client, path) = (self.client.clone(), args.path.clone());
                if let Ok(uid) = self.wait_for(async move { client.user_of(path).await }).await? {
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

    /// Takes in a change that may decide which session services follow. It is no more than a hint: logind is asked then.
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
    fn a_users_path_names_the_uid() {
        assert_eq!(uid_in("/org/freedesktop/login1/user/_61001"), Some(61001));
        for path in ["/org/freedesktop/login1/user/self", "/org/freedesktop/login1/session/_31", "", "_1"] {
            assert_eq!(uid_in(path), None, "{path}");
        }
    }
}
