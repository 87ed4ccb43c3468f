//! The D-Bus interface `org.pam_pag.Pag1`: org.pam_pag.Pag1(5) says what it promises.
//!
//! It has a connection of its own, so that a flood of calls delays nothing that comes from logind or systemd, and it
//! answers messages by itself instead of by zbus's object server, which has one tree of objects for all: here a caller
//! sees the objects of his own PAGs only, and signals go to those who may see the object, one by one.
//!
//! Serving yields to the rest of the helper: a turn takes a bounded number of messages, and after a full turn comes a
//! pause of twice its length. What has to wait for somebody (the bus, polkit, a child, a seeder) is a future beside the
//! others.

mod board;
mod call;
mod describe;
mod desk;
mod inside;
mod polkit;
mod whose;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use pag::config::Cell as AfsCell;
use pag::lease::Process;
use pag::registry::PagId;
use pag::report::{Event, report};
use zbus::connection::Builder;
use zbus::fdo::{DBusProxy, RequestNameFlags, RequestNameReply};
use zbus::message::{Message, Type};
use zbus::names::{BusName, UniqueName, WellKnownName};
use zbus::{Connection, MatchRule, MessageStream, ObjectPath, Variant};
use zruntime::SharedRuntime;
use zruntime::lock::Mutex;

use crate::keeper::Known;
use crate::logind::{LONGEST_PAUSE, Mailbox, PAUSE};

use self::board::{Board, News, Notice};
use self::call::{Call, Refusal, Request};
use self::describe::{MANAGER_PATH, OBJECT_MANAGER, PAG, PROPERTIES, Place, path_of};
use self::desk::{Arrival, Desk};
use self::inside::Inside;
use self::polkit::Verdict;
use self::whose::{Descent, Named};

/// The name that is served.
const NAME: &str = "org.pam_pag.Pag1";
/// Longest wait for the bus and for logind.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest wait for a seeding job: the unit's deadline is a minute, and others may be before it.
const SEEDING: Duration = Duration::from_secs(180);
/// Longest wait for a user's lock, which his logins hold for milliseconds.
const LOCK: Duration = Duration::from_secs(2);
/// Pause before that is tried again.
const AGAIN: Duration = Duration::from_millis(50);
/// How often the rings that somebody listens to are looked into: not every new token shows from outside.
const LOOK: Duration = Duration::from_secs(5);
/// Shortest time between two rounds of signals: changes that come together are told together.
const TOGETHER: Duration = Duration::from_millis(100);
/// Messages that zbus keeps for us; the rest stays with the bus.
const QUEUE: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Messages and calls that are taken in one turn.
const BATCH: usize = 32;
/// With more than these things that are waited for, those who are refused are not told any more.
const WORK: usize = 2048;
/// Shortest pause after a full turn.
const REST: Duration = Duration::from_millis(1);
/// Objects that are described without a break.
const STRETCH: usize = 32;

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
            report(&Event::NotServed { why });
        }
    }

    fn has_name(&self) {
        if self.complained.replace(false) {
            report(&Event::Served);
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

/// A PAG in a list: its id, user, kind, principal and object.
type Line = (String, u32, &'static str, String, ObjectPath<'static>);

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

    /// Carries a request out.
    async fn answer(&self, caller: &Caller<'_>, call: &Call) -> Result<Message, Refusal> {
        let board = self.board();
        match call.request()? {
            Request::Ping => Ok(call.answer(&())?),
            Request::MachineId => Ok(call.answer(&machine_id()?)?),
            Request::Introspect(place) => {
                let seen = board.borrow().seen_by(caller.uid);
                match place {
                    Place::Pag(id) if !seen.contains(&id) => Err(Refusal::no_pag_object(id)),
                    place => Ok(call.answer(&place.introspect(&seen))?),
                }
            }
            Request::Managed => self.managed(caller, call).await,
            Request::Get(place, property) => {
                let all = self.properties(caller, place).await?;
                let found = all.into_iter().find(|(name, _)| *name == property.name);
                let (_, value) = found.ok_or_else(|| Refusal::no_property(property.name))?;
                Ok(call.answer(&value)?)
            }
            Request::GetAll(place, interface) => {
                let mut all = self.properties(caller, place).await?;
                all.retain(|(name, _)| interface.property(name).is_some());
                Ok(call.answer(&HashMap::<&str, Variant<'_>>::from_iter(all))?)
            }
            Request::ListPags => {
                let seen = board.borrow().seen_by(caller.uid);
                Ok(call.answer(&self.list(&seen)?)?)
            }
            Request::ListAllPags => {
                self.may_all(caller).await?;
                let all = board.borrow().all();
                Ok(call.answer(&self.list(&all)?)?)
            }
            Request::GetPag(id) => {
                self.reach(caller, id).await?;
                Ok(call.answer(&object(id)?)?)
            }
            Request::GetMyPag => Ok(call.answer(&object(self.my_pag(caller).await?)?)?),
            Request::Renew(id) => {
                self.reach(caller, id).await?;
                self.order(id, What::Renew, Refusal::not_renewed).await?;
                Ok(call.answer(&())?)
            }
            Request::Unlog(id, cell) => {
                self.reach(caller, id).await?;
                self.unlog(caller, id, cell.as_ref()).await?;
                Ok(call.answer(&())?)
            }
            Request::Subscribe => {
                self.subscribe(caller).await?;
                Ok(call.answer(&())?)
            }
            Request::Unsubscribe => {
                board.borrow_mut().unsubscribe(caller.name);
                Ok(call.answer(&())?)
            }
        }
    }

    fn list(&self, pags: &[PagId]) -> Result<Vec<Line>, Refusal> {
        let board = self.board().borrow();
        let line = |id: &PagId| {
            let known = board.known(*id)?;
            let principal = known.record.principal.as_ref().map(ToString::to_string).unwrap_or_default();
            Some(object(*id).map(|path| (id.to_string(), known.uid, known.record.kind.as_str(), principal, path)))
        };
        pags.iter().filter_map(line).collect()
    }

    /// Whether the caller may see and touch this PAG, asking polkit if need be. It is there, in that case.
    async fn reach(&self, caller: &Caller<'_>, id: PagId) -> Result<(), Refusal> {
        if self.board().borrow().is_seen_by(caller.uid, id) {
            return Ok(());
        }
        // Polkit is asked whether there is such a PAG or not, so that nobody learns from a dialog which it is.
        if caller.uid != 0 && self.polkit(caller).await == Verdict::Granted && self.board().borrow().known(id).is_some()
        {
            return Ok(());
        }
        Err(Refusal::no_pag(id))
    }

    /// Whether the caller may see all PAGs.
    async fn may_all(&self, caller: &Caller<'_>) -> Result<(), Refusal> {
        if caller.uid == 0 {
            return Ok(());
        }
        match self.polkit(caller).await {
            Verdict::Granted => Ok(()),
            Verdict::Denied => Err(Refusal::denied("you may see your own PAGs only")),
            Verdict::MustAsk => Err(Refusal::must_ask("you must prove that you are an administrator")),
        }
    }

    async fn polkit(&self, caller: &Caller<'_>) -> Verdict {
        let number = self.questions.get().wrapping_add(1);
        self.questions.set(number);
        polkit::ask(self.runtime, &self.connection, caller.name, caller.interactive, number).await
    }

    async fn properties(
        &self,
        caller: &Caller<'_>,
        place: Place,
    ) -> Result<Vec<(&'static str, Variant<'static>)>, Refusal> {
        let Place::Pag(id) = place else { return Ok(vec![("Version", env!("CARGO_PKG_VERSION").into())]) };
        self.reach(caller, id).await.map_err(|_| Refusal::no_pag_object(id))?;
        self.look(&[id]).await;
        let found = self.board().borrow().properties(id);
        Ok(found.ok_or_else(|| Refusal::no_pag_object(id))?.all())
    }

    /// All objects that the caller sees. Who has asked for them is told of their changes from then on, as clients of
    /// this interface expect.
    async fn managed(&self, caller: &Caller<'_>, call: &Call) -> Result<Message, Refusal> {
        self.subscribe(caller).await?;
        let seen = self.board().borrow().seen_by(caller.uid);
        self.look(&seen).await;
        let mut objects = HashMap::new();
        for stretch in seen.chunks(STRETCH) {
            for id in stretch {
                let properties = self.board().borrow().properties(*id);
                if let Some(properties) = properties {
                    let all: HashMap<&str, Variant<'_>> = properties.all().into_iter().collect();
                    objects.insert(object(*id)?, HashMap::from([(PAG, all)]));
                }
            }
            // Others have their turn.
            self.runtime.sleep(Duration::ZERO).await;
        }
        Ok(call.answer(&objects)?)
    }

    /// Looks into those of the rings that were not looked into just now.
    async fn look(&self, pags: &[PagId]) {
        let _alone = self.looking.lock().await;
        let rings = self.board().borrow().stale(pags, Instant::now());
        if rings.is_empty() {
            return;
        }
        let found =
            self.inside.tokens(&rings).await.inspect_err(|why| log::debug!("cannot look into rings: {why}")).ok();
        self.board().borrow_mut().looked(&rings, found, Instant::now());
    }

    async fn my_pag(&self, caller: &Caller<'_>) -> Result<PagId, Refusal> {
        let nobody = || Refusal::not_in_pag("this process does not come from a login or user manager that is in a PAG");
        let name = UniqueName::try_from(caller.name).map_err(|_| nobody())?;
        // Asked anew: a pidfd is not worth keeping for each connection.
        let credentials = self.dbus.get_connection_credentials(BusName::Unique(name));
        let credentials = self.runtime.timeout(ANSWER, credentials).await.map_err(|_| nobody())??;
        let pid = credentials.process_id().ok_or_else(nobody)?;
        let named = Named::hold(pid, credentials.into_process_fd().map(Into::into)).ok_or_else(nobody)?;
        let mut descent = named.descent(&self.board().borrow(), caller.uid);
        if descent == Descent::Unknown
            && let Ok(Some(leader)) = self.runtime.timeout(ANSWER, whose::leader(&self.connection, named.pid())).await
        {
            descent = self.held_by(leader, caller.uid);
        }
        match descent {
            Descent::Of(id) if named.is_there() => Ok(id),
            _ => Err(nobody()),
        }
    }

    fn held_by(&self, process: Process, uid: u32) -> Descent {
        whose::choose(&self.board().borrow().held_by(process), uid)
    }

    /// Has the helper's loop do something, and waits for it.
    async fn order(&self, pag: PagId, what: What, failed: fn(String) -> Refusal) -> Result<(), Refusal> {
        let end = Instant::now() + LOCK;
        loop {
            let answer = Rc::new(Mailbox::default());
            self.interface.orders.put(Order { pag, what: what.clone(), answer: Rc::clone(&answer) });
            let result = self.runtime.timeout(SEEDING, poll_fn(|cx| answer.poll_take(cx))).await;
            match result.map_err(|_| Refusal::timed_out("it takes too long; it goes on all the same"))? {
                Ok(()) => return Ok(()),
                Err(Trouble::Busy) if Instant::now() < end => self.runtime.sleep(AGAIN).await,
                Err(Trouble::Busy) => return Err(failed("somebody else holds the user's lock".to_owned())),
                Err(Trouble::Gone) => return Err(Refusal::no_pag(pag)),
                Err(Trouble::Failed(why)) => return Err(failed(why)),
            }
        }
    }

    async fn unlog(&self, caller: &Caller<'_>, id: PagId, cell: Option<&AfsCell>) -> Result<(), Refusal> {
        // First the record: what it names, and is not there, would be brought back.
        self.order(id, What::Forget(cell.cloned()), Refusal::not_discarded).await?;
        let found = self.board().borrow().known(id).map(|known| (known.ring, known.uid));
        let (ring, uid) = found.ok_or_else(|| Refusal::no_pag(id))?;
        let discarded = self.inside.discard(&ring, cell).await;
        self.board().borrow_mut().touch(id);
        if let Err(why) = discarded {
            let is_there = self.board().borrow().known(id).is_some();
            return Err(if is_there { Refusal::not_discarded(why) } else { Refusal::no_pag(id) });
        }
        report(&Event::Unlogged { uid, pag: id, cell: cell.map(ToString::to_string), by: caller.uid });
        Ok(())
    }

    async fn subscribe(&self, caller: &Caller<'_>) -> Result<(), Refusal> {
        let name = UniqueName::try_from(caller.name)?;
        let limit = |_| Refusal::timed_out("the bus does not answer");
        {
            let mut watches = self.watches_names.lock().await;
            if !*watches {
                // One rule for all, and for those who leave only: a rule for each would meet the bus's limit.
                let rule = MatchRule::builder()
                    .msg_type(Type::Signal)
                    .sender("org.freedesktop.DBus")
                    .interface("org.freedesktop.DBus")
                    .member("NameOwnerChanged")
                    .arg(2, "")
                    .build()?;
                self.runtime.timeout(ANSWER, self.dbus.add_match_rule(rule)).await.map_err(limit)??;
                *watches = true;
            }
        }
        if !self.board().borrow_mut().subscribe(caller.name, caller.uid) {
            return Err(Refusal::too_many("you have too many subscriptions"));
        }
        // It may have left before the rule was there.
        let stays = self.runtime.timeout(ANSWER, self.dbus.name_has_owner(BusName::Unique(name))).await;
        if !matches!(stays, Ok(Ok(true))) {
            self.board().borrow_mut().unsubscribe(caller.name);
        }
        Ok(())
    }

    /// Tells subscribers what happens, for ever.
    async fn tell(&self) {
        let mut next_look = Instant::now() + LOOK;
        loop {
            let listened_to = self.board().borrow().listened_to();
            let news = poll_fn(|cx| self.board().borrow_mut().poll_news(cx));
            if listened_to.is_empty() {
                news.await;
            } else {
                let _ = self.runtime.timeout_at(next_look, news).await;
            }
            let mut pags = self.board().borrow().changed();
            if Instant::now() >= next_look {
                pags = self.board().borrow().listened_to();
                next_look = Instant::now() + LOOK;
            }
            self.look(&pags).await;
            let notices = self.board().borrow_mut().notices(Instant::now());
            for notice in notices {
                self.notify(notice).await;
            }
            self.runtime.sleep(TOGETHER).await;
        }
    }

    /// Tells one thing to each who listens, and to nobody else: a broadcast would reach whoever asks the bus for it.
    async fn notify(&self, notice: Notice) {
        let Ok(path) = object(notice.pag) else { return };
        for name in notice.to {
            let Ok(to) = UniqueName::try_from(name) else { continue };
            let to = Some(BusName::Unique(to));
            let manager = MANAGER_PATH;
            let sent = match &notice.what {
                News::Added(properties) => {
                    let all: HashMap<&str, Variant<'_>> = properties.all().into_iter().collect();
                    let body = (&path, HashMap::from([(PAG, all)]));
                    self.connection.emit_signal(to, manager, OBJECT_MANAGER, "InterfacesAdded", &body).await
                }
                News::Removed => {
                    let body = (&path, vec![PAG]);
                    self.connection.emit_signal(to, manager, OBJECT_MANAGER, "InterfacesRemoved", &body).await
                }
                News::Changed(changed) => {
                    let changed: HashMap<&str, &Variant<'_>> =
                        changed.iter().map(|(name, value)| (*name, value)).collect();
                    let body = (PAG, changed, Vec::<&str>::new());
                    self.connection.emit_signal(to, &path, PROPERTIES, "PropertiesChanged", &body).await
                }
            };
            // The connection's end is heard by who reads from it.
            let _ = sent;
        }
    }
}

fn object(id: PagId) -> Result<ObjectPath<'static>, Refusal> {
    ObjectPath::try_from(path_of(id)).map_err(|error| Refusal::failed(error.to_string()))
}

fn machine_id() -> Result<String, Refusal> {
    let text = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let id = text.trim();
    if id.len() == 32 { Ok(id.to_owned()) } else { Err(Refusal::failed("this host has no /etc/machine-id")) }
}
