//! Serves callers: takes calls from the bus and has them carried out in turn.
//!
//! Serving leaves time to the rest of the helper: a turn takes a bounded number of messages, and after a full turn comes
//! a pause of twice its length. Whatever waits (for the bus, polkit, a child, a seeder) is a future beside the others.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use zbus::MessageStream;
use zbus::connection::Builder;
use zbus::fdo::{DBusProxy, RequestNameFlags, RequestNameReply};
use zbus::message::{Message, Type};
use zbus::names::{BusName, UniqueName, WellKnownName};
use zruntime::SharedRuntime;
use zruntime::lock::Mutex;

use super::call::{Call, Refusal};
use super::interface::Interface;
use super::queue::{CallQueue, Pushed};
use super::service::{ANSWER, Caller, Service};
use super::token_list::RingTokens;
use crate::systemd::{LONGEST_PAUSE, PAUSE};

/// The name on the bus.
const NAME: &str = "org.pam_pag.Pag1";
/// Messages that zbus keeps until they are read. The rest stays with the bus.
const QUEUE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);
/// Messages, and calls, of one turn.
const BATCH: usize = 32;
/// With more pending futures than this, refused callers get no answer any more.
const MOST_WORK: usize = 2048;
/// Shortest pause after a full turn.
const REST: Duration = Duration::from_millis(1);

/// Serves callers without end. When there is no bus, or another process has the name, it tries again.
pub(crate) async fn serve(interface: &Interface, runtime: &SharedRuntime) {
    let mut pause = PAUSE;
    loop {
        if let Err(why) = serve_one_bus(interface, runtime, &mut pause).await {
            interface.complain(why);
        }
        interface.view.borrow_mut().disconnected();
        runtime.sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One connection, from its beginning to its end.
///
/// # Errors
/// When the bus does not give out the name. That there is no bus is said by the connection to logind.
async fn serve_one_bus(interface: &Interface, runtime: &SharedRuntime, pause: &mut Duration) -> Result<(), String> {
    let Ok(connection) = Builder::system().max_queued(QUEUE).build().await else { return Ok(()) };
    let messages = MessageStream::from(&connection);
    let Ok(dbus) = DBusProxy::new(&connection).await else { return Ok(()) };
    let service = Service {
        interface,
        runtime,
        connection,
        dbus,
        queue: RefCell::default(),
        ring_tokens: RingTokens::new(runtime),
        reading: Mutex::new(()),
        watches_names: Mutex::new(false),
        questions: Cell::new(0),
    };
    service.run(messages, pause).await
}

/// Calls that are being served, and other futures.
type Work<'a> = Vec<Pin<Box<dyn Future<Output = ()> + 'a>>>;

/// A call that is being served. Dropped, it no longer counts against the user's limit.
struct Served<'a> {
    queue: &'a RefCell<CallQueue<Call>>,
    uid: u32,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        self.queue.borrow_mut().done(self.uid);
    }
}

impl Service<'_> {
    /// Takes the name, and serves until the connection ends.
    ///
    /// # Errors
    /// When the bus does not give out the name.
    async fn run(&self, mut messages: MessageStream, pause: &mut Duration) -> Result<(), String> {
        let mut work: Work<'_> = Vec::new();
        let mut signals = pin!(self.send_signals());
        let mut name = pin!(self.take_name());
        let mut has_name = false;
        loop {
            let turn = poll_fn(|cx| {
                // Messages are read meanwhile, since the answer comes behind them.
                if !has_name && let Poll::Ready(result) = name.as_mut().poll(cx) {
                    has_name = true;
                    if let Err(why) = result {
                        return Poll::Ready(Err(why));
                    }
                    *pause = PAUSE;
                }
                self.turn(&mut messages, &mut work, signals.as_mut(), cx).map(Ok)
            });
            let Some(took) = turn.await? else { return Ok(()) };
            self.runtime.sleep((took * 2).max(REST)).await;
        }
    }

    async fn take_name(&self) -> Result<(), String> {
        // Queued: a helper that is being replaced, or a child that outlives it, may still have the name.
        let name = self.dbus.request_name(WellKnownName::from_str_unchecked(NAME), RequestNameFlags::empty());
        match self.runtime.timeout(ANSWER, name).await {
            Ok(Ok(RequestNameReply::InQueue)) => {
                self.interface.complain("another process has the name; the helper waits for it".to_owned());
            }
            Ok(Ok(_)) => self.interface.has_name(),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the bus does not answer".to_owned()),
        }
        Ok(())
    }

    /// One turn. Ready with its length when there is more to do, and with None when the connection has ended.
    fn turn<'s>(
        &'s self,
        messages: &mut MessageStream,
        work: &mut Work<'s>,
        signals: Pin<&mut impl Future<Output = ()>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Duration>> {
        let begun = Instant::now();
        let (mut received, mut refused) = (0, Vec::new());
        // However much work there is: a message that stays with zbus holds up the answers behind it.
        while received < BATCH {
            match Pin::new(&mut *messages).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => self.receive(message, &mut refused, work),
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => break,
            }
            received += 1;
        }
        if !refused.is_empty() && work.len() < MOST_WORK {
            work.push(Box::pin(async move { drop(self.connection.send_all(&refused).await) }));
        }
        for _ in 0..BATCH {
            let next = self.queue.borrow_mut().next();
            let Some((uid, call)) = next else { break };
            work.push(Box::pin(self.serve_call(uid, call)));
        }
        work.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        let _ = signals.poll(cx);
        let more = received == BATCH || self.queue.borrow().has_next();
        if more { Poll::Ready(Some(begun.elapsed())) } else { Poll::Pending }
    }

    /// Takes in one message.
    fn receive<'s>(&'s self, message: Message, refused: &mut Vec<Message>, work: &mut Work<'s>) {
        match message.message_type() {
            Type::MethodCall => {}
            Type::Signal => return self.bus_signal(&message),
            _ => return,
        }
        let call = Call::new(message);
        let Some(sender) = call.sender() else { return };
        let (call, refusal) = match call.too_long() {
            Some(refusal) => (call, refusal),
            None => match self.queue.borrow_mut().push(&sender, call) {
                Pushed::Waits => return,
                Pushed::Unidentified => return work.push(Box::pin(self.identify(sender))),
                Pushed::Refused(call) => (call, Refusal::outstanding()),
            },
        };
        if call.wants_answer() {
            refused.extend(call.refuse(&refusal).ok());
        }
    }

    /// Takes in a signal of the bus itself. Others can send signals here, too.
    fn bus_signal(&self, message: &Message) {
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
                    self.view().borrow_mut().unsubscribe(name);
                }
            }
            _ => {}
        }
    }

    /// Asks the bus which user `sender` belongs to. That is asked once for each connection.
    async fn identify(&self, sender: String) {
        let uid = async {
            let name = BusName::Unique(UniqueName::try_from(&*sender).ok()?);
            let credentials = self.dbus.get_connection_credentials(name);
            self.runtime.timeout(ANSWER, credentials).await.ok()?.ok()?.unix_user_id()
        };
        let uid = uid.await;
        let refused = self.queue.borrow_mut().identify(&sender, uid);
        let refused: Vec<Message> = refused
            .iter()
            .filter(|call| call.wants_answer())
            .filter_map(|call| call.refuse(&Refusal::outstanding()).ok())
            .collect();
        let _ = self.connection.send_all(&refused).await;
    }

    async fn serve_call(&self, uid: u32, call: Call) {
        let _served = Served { queue: &self.queue, uid };
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
