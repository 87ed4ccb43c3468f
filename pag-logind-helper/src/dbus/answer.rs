//! Carries requests out and answers them.

use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pag::report::report;
use pag::types::Cell as AfsCell;
use pag::types::PagId;
use zbus::message::Message;
use zbus::names::{BusName, UniqueName};
use zbus::{ObjectPath, Variant};

use super::call::{Call, Refusal, Request};
use super::describe::{DbusObject, PAG};
use super::origin::{self, CallerProcess, Origin};
use super::service::{ANSWER, Caller, Service, object};
use crate::jobs::Count;
use crate::mailbox::Mailbox;
use crate::messages::HelperEvent;
use crate::order::{Action, Order, Trouble};
use crate::pags::tokens::TokenName;

/// Longest wait for a seeding job: the unit's deadline is a minute, and other jobs may run before it.
const SEEDING: Duration = Duration::from_secs(180);
/// Longest wait for a user's lock, which a login holds for milliseconds.
const LOCK: Duration = Duration::from_secs(2);
/// Pause before the lock is tried again.
const AGAIN: Duration = Duration::from_millis(50);
/// Objects that are described before other work has its turn.
const STRETCH: usize = 32;

/// A PAG in a list: id, uid, kind, principal, the PAG that it follows, whether it was chosen to be followed, object.
type Line = (String, u32, &'static str, String, String, bool, ObjectPath<'static>);

/// The properties of each object, by path, interface and name.
type ManagedObjects = HashMap<ObjectPath<'static>, HashMap<&'static str, HashMap<&'static str, Variant<'static>>>>;

/// What `GetStatistics()` gives.
type Statistics = (u64, Vec<(String, String, u64, u64)>, Vec<(u32, u32)>);

impl Service<'_> {
    /// Carries a request out.
    pub(super) async fn answer(&self, caller: &Caller<'_>, call: &Call) -> Result<Message, Refusal> {
        let request = call.request()?;
        self.authorize(caller, &request).await?;
        let answer = match request {
            Request::Ping => call.answer(&()),
            Request::MachineId => call.answer(&machine_id()?),
            Request::Introspect(object) => call.answer(&object.introspect(&self.seen_by(caller))),
            Request::ManagedObjects => call.answer(&self.managed_objects(caller).await?),
            Request::Get(object, property) => {
                let all = self.properties(object).await?;
                let found = all.into_iter().find(|(name, _)| *name == property.name);
                let (_, value) = found.ok_or_else(|| Refusal::no_property(property.name))?;
                call.answer(&value)
            }
            Request::GetAll(object, interface) => {
                let mut all = self.properties(object).await?;
                all.retain(|(name, _)| interface.property(name).is_some());
                call.answer(&HashMap::<&str, Variant<'_>>::from_iter(all))
            }
            Request::ListPags => call.answer(&self.list(&self.seen_by(caller))?),
            Request::ListAllPags => {
                let all = self.view().borrow().pags.all();
                call.answer(&self.list(&all)?)
            }
            Request::GetPag(id) => call.answer(&object(id)?),
            Request::GetMyPag => call.answer(&object(self.my_pag(caller).await?)?),
            Request::Renew(id) => {
                // One that follows has the tokens of the other.
                let id = self.followed(id).unwrap_or(id);
                call.answer(&self.order(id, Action::Renew, Refusal::not_renewed).await?)
            }
            Request::Unlog(id, cell) => call.answer(&self.unlog(caller, id, cell.as_ref()).await?),
            Request::Follow(id, on) => call.answer(&self.follow(caller, id, on).await?),
            Request::Statistics => call.answer(&self.statistics()),
            Request::Subscribe => call.answer(&self.subscribe(caller).await?),
            Request::Unsubscribe => {
                self.view().borrow_mut().unsubscribe(caller.name);
                call.answer(&())
            }
        };
        Ok(answer?)
    }

    fn seen_by(&self, caller: &Caller<'_>) -> Vec<PagId> {
        self.view().borrow().pags.seen_by(caller.uid)
    }

    fn list(&self, pags: &[PagId]) -> Result<Vec<Line>, Refusal> {
        let view = self.view().borrow();
        let line = |id: &PagId| {
            let known = view.pags.known(*id)?;
            let record = &known.record;
            let principal = record.principal.as_ref().map(ToString::to_string).unwrap_or_default();
            let follows = record.follows.map(|id| id.to_string()).unwrap_or_default();
            let (kind, chosen) = (record.kind.as_str(), record.chosen);
            Some(object(*id).map(|path| (id.to_string(), known.uid, kind, principal, follows, chosen, path)))
        };
        pags.iter().filter_map(line).collect()
    }

    /// Since when jobs are counted; for each client and cell how many have ended, and how many of them have failed; the
    /// managers outside.
    fn statistics(&self) -> Statistics {
        let counts = &self.interface.job_counts;
        let row = |(name, count): (TokenName, Count)| (name.client, name.cell, count.jobs, count.failures);
        (counts.since, counts.all().into_iter().map(row).collect(), self.interface.outside.borrow().clone())
    }

    async fn properties(&self, object: DbusObject) -> Result<Vec<(&'static str, Variant<'static>)>, Refusal> {
        let DbusObject::Pag(id) = object else { return Ok(vec![("Version", env!("CARGO_PKG_VERSION").into())]) };
        self.read_tokens(&[id]).await;
        let found = self.view().borrow().pags.properties(id);
        Ok(found.ok_or_else(|| Refusal::no_pag_object(id))?.all())
    }

    /// All objects that the caller sees. It is told of their changes from then on, as clients of this interface expect.
    async fn managed_objects(&self, caller: &Caller<'_>) -> Result<ManagedObjects, Refusal> {
        self.subscribe(caller).await?;
        let seen = self.seen_by(caller);
        self.read_tokens(&seen).await;
        let mut objects = HashMap::new();
        for stretch in seen.chunks(STRETCH) {
            for id in stretch {
                let properties = self.view().borrow().pags.properties(*id);
                if let Some(properties) = properties {
                    objects.insert(object(*id)?, HashMap::from([(PAG, properties.all().into_iter().collect())]));
                }
            }
            // Let other work have its turn.
            self.runtime.sleep(Duration::ZERO).await;
        }
        Ok(objects)
    }

    /// Reads the tokens in those of the rings that were not read just now.
    pub(super) async fn read_tokens(&self, pags: &[PagId]) {
        let _one_at_a_time = self.reading.lock().await;
        let rings = self.view().borrow().pags.stale(pags, Instant::now());
        if rings.is_empty() {
            return;
        }
        let found = self.ring_tokens.list(&rings).await;
        let found = found.inspect_err(|why| log::debug!("cannot read the tokens in rings: {why}")).ok();
        self.view().borrow_mut().tokens_read(&rings, found, Instant::now());
    }

    async fn my_pag(&self, caller: &Caller<'_>) -> Result<PagId, Refusal> {
        let not_in_pag =
            || Refusal::not_in_pag("this process does not come from a login or user manager that is in a PAG");
        let name = UniqueName::try_from(caller.name).map_err(|_| not_in_pag())?;
        // The bus is asked anew: a pidfd is not worth keeping for each connection.
        let credentials = self.dbus.get_connection_credentials(BusName::Unique(name));
        let credentials = self.runtime.timeout(ANSWER, credentials).await.map_err(|_| not_in_pag())??;
        let pid = credentials.process_id().ok_or_else(not_in_pag)?;
        let pidfd = credentials.into_process_fd().map(Into::into);
        let process = CallerProcess::hold(pid, pidfd).ok_or_else(not_in_pag)?;
        let mut origin = process.origin(&self.view().borrow().pags, caller.uid);
        if origin == Origin::Unknown
            && let Ok(Some(leader)) =
                self.runtime.timeout(ANSWER, origin::leader(&self.connection, process.pid())).await
        {
            origin = Origin::of_leases(&self.view().borrow().pags.held_by(leader), caller.uid);
        }
        match origin {
            Origin::Pag(id) if process.is_alive() => Ok(id),
            _ => Err(not_in_pag()),
        }
    }

    /// Has the helper's loop do something, and waits until it is done.
    async fn order(&self, pag: PagId, action: Action, failed: fn(String) -> Refusal) -> Result<(), Refusal> {
        let end = Instant::now() + LOCK;
        loop {
            let answer = Rc::new(Mailbox::default());
            self.interface.orders.put(Order::new(pag, action.clone(), Rc::clone(&answer)));
            let result = self.runtime.timeout(SEEDING, poll_fn(|cx| answer.poll_take(cx))).await;
            match result.map_err(|_| Refusal::timed_out("it takes too long; it goes on all the same"))? {
                Ok(()) => return Ok(()),
                Err(Trouble::Busy) if Instant::now() < end => self.runtime.sleep(AGAIN).await,
                Err(Trouble::Busy) => return Err(failed("a login holds the user's lock; try again".to_owned())),
                Err(Trouble::Gone) => return Err(Refusal::no_pag(pag)),
                Err(Trouble::Failed(why)) => return Err(failed(why)),
            }
        }
    }

    /// The PAG that this one follows.
    fn followed(&self, id: PagId) -> Option<PagId> {
        self.view().borrow().pags.known(id).and_then(|known| known.record.follows)
    }

    async fn unlog(&self, caller: &Caller<'_>, id: PagId, cell: Option<&AfsCell>) -> Result<(), Refusal> {
        // One that follows has tokens of its own besides the other's.
        let both = [Some(id), self.followed(id)];
        let mut uid = None;
        for id in both.into_iter().flatten() {
            // The record first: tokens that it names and that are missing would be brought back.
            self.order(id, Action::Discard(cell.cloned()), Refusal::not_discarded).await?;
            let found = self.view().borrow().pags.known(id).map(|known| (known.ring, known.uid));
            let (ring, owner) = found.ok_or_else(|| Refusal::no_pag(id))?;
            let discarded = self.ring_tokens.discard(&ring, cell).await;
            self.view().borrow_mut().tokens_changed(id);
            if let Err(why) = discarded {
                let is_there = self.view().borrow().pags.known(id).is_some();
                return Err(if is_there { Refusal::not_discarded(why) } else { Refusal::no_pag(id) });
            }
            uid = Some(owner);
        }
        let uid = uid.ok_or_else(|| Refusal::no_pag(id))?;
        report(&HelperEvent::Unlogged { uid, pag: id, cell: cell.map(ToString::to_string), by: caller.uid });
        Ok(())
    }

    /// Has the services of the PAG's user follow it, or ends that.
    async fn follow(&self, caller: &Caller<'_>, id: PagId, on: bool) -> Result<(), Refusal> {
        let uid = self.view().borrow().pags.known(id).map(|known| known.uid).ok_or_else(|| Refusal::no_pag(id))?;
        self.order(id, Action::Follow(on), Refusal::not_followed).await?;
        report(&HelperEvent::FollowAsked { uid, pag: id, on, by: caller.uid });
        Ok(())
    }
}

fn machine_id() -> Result<String, Refusal> {
    let text = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let id = text.trim();
    if id.len() == 32 { Ok(id.to_owned()) } else { Err(Refusal::failed("this host has no /etc/machine-id")) }
}
