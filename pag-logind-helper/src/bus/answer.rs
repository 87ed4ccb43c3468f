//! What callers are answered.

use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pag::config::Cell as AfsCell;
use pag::lease::Process;
use pag::registry::PagId;
use pag::report::report;
use zbus::message::Message;
use zbus::names::{BusName, UniqueName};
use zbus::{ObjectPath, Variant};

use super::call::{Call, Refusal, Request};
use super::describe::{PAG, Place};
use super::polkit::{self, Verdict};
use super::whose::{self, Descent, Named};
use super::{ANSWER, Caller, Order, Service, Trouble, What, object};
use crate::event::HelperEvent;
use crate::logind::Mailbox;

/// Longest wait for a seeding job: the unit's deadline is a minute, and others may be before it.
const SEEDING: Duration = Duration::from_secs(180);
/// Longest wait for a user's lock, which his logins hold for milliseconds.
const LOCK: Duration = Duration::from_secs(2);
/// Pause before that is tried again.
const AGAIN: Duration = Duration::from_millis(50);
/// Objects that are described without a break.
const STRETCH: usize = 32;

/// A PAG in a list: its id, user, kind and principal; whom it follows, and whether it was chosen for that; its object.
type Line = (String, u32, &'static str, String, String, bool, ObjectPath<'static>);

impl Service<'_> {
    /// Carries a request out.
    pub(super) async fn answer(&self, caller: &Caller<'_>, call: &Call) -> Result<Message, Refusal> {
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
                // The tokens of one that follows are that other's.
                let id = self.followed(id).unwrap_or(id);
                self.order(id, What::Renew, Refusal::not_renewed).await?;
                Ok(call.answer(&())?)
            }
            Request::Unlog(id, cell) => {
                self.reach(caller, id).await?;
                self.unlog(caller, id, cell.as_ref()).await?;
                Ok(call.answer(&())?)
            }
            Request::Follow(id) => {
                self.follow(caller, id, true).await?;
                Ok(call.answer(&())?)
            }
            Request::Unfollow(id) => {
                self.follow(caller, id, false).await?;
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
            let record = &known.record;
            let principal = record.principal.as_ref().map(ToString::to_string).unwrap_or_default();
            let follows = record.follows.map(|id| id.to_string()).unwrap_or_default();
            let (kind, chosen) = (record.kind.as_str(), record.chosen);
            Some(object(*id).map(|path| (id.to_string(), known.uid, kind, principal, follows, chosen, path)))
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
    pub(super) async fn look(&self, pags: &[PagId]) {
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

    /// The PAG that this one follows.
    fn followed(&self, id: PagId) -> Option<PagId> {
        self.board().borrow().known(id).and_then(|known| known.record.follows)
    }

    async fn unlog(&self, caller: &Caller<'_>, id: PagId, cell: Option<&AfsCell>) -> Result<(), Refusal> {
        // One that follows has its own tokens besides.
        let both = [Some(id), self.followed(id)];
        let mut uid = None;
        for id in both.into_iter().flatten() {
            // First the record: what it names, and is not there, would be brought back.
            self.order(id, What::Forget(cell.cloned()), Refusal::not_discarded).await?;
            let found = self.board().borrow().known(id).map(|known| (known.ring, known.uid));
            let (ring, owner) = found.ok_or_else(|| Refusal::no_pag(id))?;
            let discarded = self.inside.discard(&ring, cell).await;
            self.board().borrow_mut().touch(id);
            if let Err(why) = discarded {
                let is_there = self.board().borrow().known(id).is_some();
                return Err(if is_there { Refusal::not_discarded(why) } else { Refusal::no_pag(id) });
            }
            uid = Some(owner);
        }
        let uid = uid.ok_or_else(|| Refusal::no_pag(id))?;
        report(&HelperEvent::Unlogged { uid, pag: id, cell: cell.map(ToString::to_string), by: caller.uid });
        Ok(())
    }

    /// Has the services of a PAG's user follow it, or no longer because somebody had asked for that.
    async fn follow(&self, caller: &Caller<'_>, id: PagId, on: bool) -> Result<(), Refusal> {
        self.reach(caller, id).await?;
        let uid = self.board().borrow().known(id).map(|known| known.uid).ok_or_else(|| Refusal::no_pag(id))?;
        self.order(id, What::Follow(on), Refusal::not_followed).await?;
        report(&HelperEvent::FollowAsked { uid, pag: id, on, by: caller.uid });
        Ok(())
    }
}

fn machine_id() -> Result<String, Refusal> {
    let text = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let id = text.trim();
    if id.len() == 32 { Ok(id.to_owned()) } else { Err(Refusal::failed("this host has no /etc/machine-id")) }
}
