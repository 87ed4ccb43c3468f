//! The D-Bus interface `org.pam_pag.Pag1`: org.pam_pag.Pag1(5) says what it promises.
//!
//! It has a connection of its own, so that a flood of calls delays nothing that comes from logind or systemd, and it
//! answers messages by itself instead of by zbus's object server, which has one tree of objects for all: here a caller
//! sees the objects of his own PAGs only, and signals go to those who may see the object, one by one.
//!
//! Serving yields to the rest of the helper: a turn takes a bounded number of messages, and after a full turn comes a
//! pause of twice its length. What has to wait for somebody (the bus, polkit, a child, a seeder) is a future beside the
//! others.

mod answer;
mod board;
mod call;
mod describe;
mod desk;
mod inside;
mod polkit;
mod tell;
mod whose;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use pag::config::Cell as AfsCell;
use pag::registry::PagId;
use pag::report::report;
use zbus::connection::Builder;
use zbus::fdo::{DBusProxy, RequestNameFlags, RequestNameReply};
use zbus::message::{Message, Type};
use zbus::names::{BusName, UniqueName, WellKnownName};
use zbus::{Connection, MessageStream, ObjectPath};
use zruntime::SharedRuntime;
use zruntime::lock::Mutex;

use crate::event::HelperEvent;
use crate::keeper::Known;
use crate::logind::{LONGEST_PAUSE, Mailbox, PAUSE};
use crate::renew::Notice;

use self::board::Board;
use self::call::{Call, Refusal};
use self::describe::path_of;
use self::desk::{Arrival, Desk};
use self::inside::Inside;

/// The name that is served.
const NAME: &str = "org.pam_pag.Pag1";
/// Longest wait for the bus and for logind.
const ANSWER: Duration = Duration::from_secs(10);
/// Messages that zbus keeps for us; the rest stays with the bus.
const QUEUE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);
/// Messages and calls that are taken in one turn.
const BATCH: usize = 32;
/// With more than these things that are waited for, those who are refused are not told any more.
const WORK: usize = 2048;
/// Shortest pause after a full turn.
const REST: Duration = Duration::from_millis(1);

/// The interface as the rest of the helper sees it.
#[derive(Default)]
pub(crate) struct Interface {
    board: RefCell<Board>,
    /// What callers want done.
    pub(crate) orders: Mailbox<Order>,
    /// Whether it was said that nothing is served.
    complained: Cell<bool>,
}

/// Something that the helper's own loop does for a caller.
pub(crate) struct Order {
    pub(crate) pag: PagId,
    pub(crate) what: What,
    answer: Rc<Mailbox<Result<(), Trouble>>>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A seeder is to be run for the PAG.
    Renew,
    /// The record is to forget tokens, for one cell or for all, so that nobody brings them back.
    Forget(Option<AfsCell>),
    /// The user's services are to follow the PAG, or not because of this any more.
    Follow(bool),
}

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The PAG has ended.
    Gone,
    /// A login had the lock.
    Busy,
    /// In words.
    Failed(String),
}

impl Order {
    /// Tells the caller what has come of it.
    pub(crate) fn answer(&self, result: Result<(), Trouble>) {
        self.answer.put(result);
    }
}

impl Interface {
    /// These are the PAGs of `uid` now.
    pub(crate) fn pin(&self, uid: u32, pags: Vec<Rc<Known>>) {
        self.board.borrow_mut().pin(uid, pags);
    }

    /// Something is to be told of this PAG to those who have subscribed.
    pub(crate) fn alert(&self, pag: PagId, notice: Notice) {
        self.board.borrow_mut().alert(pag, notice);
    }

    /// Serves whoever calls, for ever; without a bus, or without the name, it tries again.
    pub(crate) async fn serve(&self, runtime: &SharedRuntime) {
        let mut pause = PAUSE;
        loop {
            if let Err(why) = self.serve_one_bus(runtime, &mut pause).await {
                self.complain(why);
            }
            self.board.borrow_mut().hang_up();
            runtime.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Said once, however often it is tried again.
    fn complain(&self, why: String) {
        if !self.complained.replace(true) {
            report(&HelperEvent::NotServed { why });
        }
    }

    fn has_name(&self) {
        if self.complained.replace(false) {
            report(&HelperEvent::Served);
        }
    }

    /// One connection, from its beginning to its end.
    ///
    /// # Errors
    /// When the bus does not let us have the name. That the bus is away is said by who listens to logind.
    async fn serve_one_bus(&self, runtime: &SharedRuntime, pause: &mut Duration) -> Result<(), String> {
        let Ok(connection) = Builder::system().max_queued(QUEUE).build().await else { return Ok(()) };
        let messages = MessageStream::from(&connection);
        let Ok(dbus) = DBusProxy::new(&connection).await else { return Ok(()) };
        let service = Service {
            interface: self,
            runtime,
            connection,
            dbus,
            desk: RefCell::default(),
            inside: Inside::new(runtime),
            looking: Mutex::new(()),
            watches_names: Mutex::new(false),
            questions: Cell::new(0),
        };
        service.run(messages, pause).await
    }
}

/// What is waited for.
type Work<'a> = Vec<Pin<Box<dyn Future<Output = ()> + 'a>>>;

/// One connection and what is done on it.
struct Service<'a> {
    interface: &'a Interface,
    runtime: &'a SharedRuntime,
    connection: Connection,
    dbus: DBusProxy<'static>,
    desk: RefCell<Desk<Call>>,
    inside: Inside<'a>,
    /// Held by who looks into rings: one at a time.
    looking: Mutex<()>,
    /// Whether the bus tells us who leaves.
    watches_names: Mutex<bool>,
    /// Questions to polkit so far.
    questions: Cell<u64>,
}

/// A place among the calls that are being served.
struct Seat<'a> {
    desk: &'a RefCell<Desk<Call>>,
    uid: u32,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.desk.borrow_mut().done(self.uid);
    }
}

/// Who calls.
struct Caller<'a> {
    uid: u32,
    name: &'a str,
    interactive: bool,
}

impl Service<'_> {
    fn board(&self) -> &RefCell<Board> {
        &self.interface.board
    }

    /// Takes the name, and serves until the connection ends.
    ///
    /// # Errors
    /// When the name is not to be had.
    async fn run(&self, mut messages: MessageStream, pause: &mut Duration) -> Result<(), String> {
        let mut work: Work<'_> = Vec::new();
        let mut teller = pin!(self.tell());
        let mut name = pin!(self.take_name());
        let mut has_name = false;
        loop {
            let turn = poll_fn(|cx| {
                // Messages are taken meanwhile: the answer comes behind them.
                if !has_name && let Poll::Ready(result) = name.as_mut().poll(cx) {
                    has_name = true;
                    if let Err(why) = result {
                        return Poll::Ready(Err(why));
                    }
                    *pause = PAUSE;
                }
                self.turn(&mut messages, &mut work, teller.as_mut(), cx).map(Ok)
            });
            let Some(took) = turn.await? else { return Ok(()) };
            self.runtime.sleep((took * 2).max(REST)).await;
        }
    }

    async fn take_name(&self) -> Result<(), String> {
        // In line: a helper that is being replaced, or a child of its last moments, may have it still.
        let name = self.dbus.request_name(WellKnownName::from_str_unchecked(NAME), RequestNameFlags::empty());
        match self.runtime.timeout(ANSWER, name).await {
            Ok(Ok(RequestNameReply::InQueue)) => {
                self.interface.complain("another process has the name; it is waited for".to_owned());
            }
            Ok(Ok(_)) => self.interface.has_name(),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the bus does not answer".to_owned()),
        }
        Ok(())
    }

    /// One turn. Ready with its length when there is more to do; with nothing when the connection has ended.
    fn turn<'s>(
        &'s self,
        messages: &mut MessageStream,
        work: &mut Work<'s>,
        teller: Pin<&mut impl Future<Output = ()>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Duration>> {
        let begun = Instant::now();
        let (mut arrived, mut refused) = (0, Vec::new());
        // Always: a message that stays with zbus holds up the answers behind it.
        while arrived < BATCH {
            match Pin::new(&mut *messages).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => self.arrive(message, &mut refused, work),
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => break,
            }
            arrived += 1;
        }
        if !refused.is_empty() && work.len() < WORK {
            work.push(Box::pin(async move { drop(self.connection.send_all(&refused).await) }));
        }
        for _ in 0..BATCH {
            let next = self.desk.borrow_mut().next();
            let Some((uid, call)) = next else { break };
            work.push(Box::pin(self.serve_call(uid, call)));
        }
        work.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        let _ = teller.poll(cx);
        let more = arrived == BATCH || self.desk.borrow().has_next();
        if more { Poll::Ready(Some(begun.elapsed())) } else { Poll::Pending }
    }

    fn arrive<'s>(&'s self, message: Message, refused: &mut Vec<Message>, work: &mut Work<'s>) {
        match message.message_type() {
            Type::MethodCall => {}
            Type::Signal => return self.hear(&message),
            _ => return,
        }
        let call = Call::new(message);
        let Some(sender) = call.sender() else { return };
        let (call, refusal) = match call.too_long() {
            Some(refusal) => (call, refusal),
            None => match self.desk.borrow_mut().arrive(&sender, call) {
                Arrival::Waits => return,
                Arrival::WhoIsIt => return work.push(Box::pin(self.identify(sender))),
                Arrival::Refused(call) => (call, Refusal::outstanding()),
            },
        };
        if call.wants_answer() {
            refused.extend(call.refuse(&refusal).ok());
        }
    }

    /// What the bus itself has to say. Others can send us signals, too.
    fn hear(&self, message: &Message) {
        let header = message.header();
        if header.sender().is_none_or(|sender| sender.as_str() != "org.freedesktop.DBus") {
            return;
        }
        let body = message.body();
        match header.member().map(|member| member.as_str()) {
            Some("NameAcquired") if body.deserialize::<&str>().is_ok_and(|name| name == NAME) => {
                self.interface.has_name();
            }
            Some("NameLost") if body.deserialize::<&str>().is_ok_and(|name| name == NAME) => {
                self.interface.complain("the name was taken away".to_owned());
            }
            Some("NameOwnerChanged") => {
                if let Ok((name, _, "")) = body.deserialize::<(&str, &str, &str)>() {
                    self.board().borrow_mut().unsubscribe(name);
                }
            }
            _ => {}
        }
    }

    /// Asks the bus whose connection `sender` is, once for all that it will ever send.
    async fn identify(&self, sender: String) {
        let uid = async {
            let name = BusName::Unique(UniqueName::try_from(&*sender).ok()?);
            let credentials = self.dbus.get_connection_credentials(name);
            self.runtime.timeout(ANSWER, credentials).await.ok()?.ok()?.unix_user_id()
        };
        let uid = uid.await;
        let refused = self.desk.borrow_mut().introduce(&sender, uid);
        let refused: Vec<Message> = refused
            .iter()
            .filter(|call| call.wants_answer())
            .filter_map(|call| call.refuse(&Refusal::outstanding()).ok())
            .collect();
        let _ = self.connection.send_all(&refused).await;
    }

    async fn serve_call(&self, uid: u32, call: Call) {
        let _seat = Seat { desk: &self.desk, uid };
        let name = call.sender().unwrap_or_default();
        let caller = Caller { uid, name: &name, interactive: call.is_interactive() };
        let answer = self.answer(&caller, &call).await;
        if call.wants_answer()
            && let Ok(message) = answer.map_or_else(|refusal| call.refuse(&refusal), Ok)
        {
            let _ = self.connection.send(&message).await;
        }
    }
}

fn object(id: PagId) -> Result<ObjectPath<'static>, Refusal> {
    ObjectPath::try_from(path_of(id)).map_err(|error| Refusal::failed(error.to_string()))
}
