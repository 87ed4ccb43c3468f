//! What is told of PAGs, and to whom: the keeper pins up what it knows, callers read it, and those who subscribed are
//! told what has changed since they were told last.
//!
//! Whoever looks, looks as a uid: there is no way here to a PAG that this uid may not see.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pag::lease::{Lease, Process};
use pag::registry::PagId;
use pag::ring::Ring;
use zbus::Variant;

use super::inside::Token;
use crate::keeper::Known;
use crate::renew::Notice as Alert;

/// How old what was seen in a ring may be when somebody asks for it.
const FRESH: Duration = Duration::from_secs(1);
/// Subscriptions of one user: each is one message more for whatever happens to his PAGs.
const SUBSCRIPTIONS: usize = 64;

/// Who sees all PAGs.
const ROOT: u32 = 0;

/// The tokens in rings that were looked into.
pub(crate) type Found = BTreeMap<PagId, Vec<Token>>;

/// All PAGs, and all who want to hear of them.
#[derive(Default)]
pub(crate) struct Board {
    pags: BTreeMap<PagId, Entry>,
    /// Connections, and whose they are.
    subscribers: BTreeMap<String, u32>,
    /// PAGs that have changed.
    changed: BTreeSet<PagId>,
    /// PAGs that were told of and have ended, and whose they were.
    gone: Vec<(PagId, u32)>,
    /// What else is to be told of PAGs.
    alerts: Vec<(PagId, Alert)>,
    /// Whether who tells should look again.
    stirred: bool,
    reader: Option<Waker>,
}

/// One PAG.
struct Entry {
    known: Rc<Known>,
    tokens: Vec<Token>,
    /// When its ring was looked into.
    looked: Option<Instant>,
    /// What subscribers have last been told. None: they do not know of it.
    told: Option<Properties>,
}

/// The properties of a PAG's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Properties {
    id: PagId,
    uid: u32,
    kind: &'static str,
    made: u64,
    principal: String,
    ticket_expires: u64,
    retain: String,
    follows: Option<PagId>,
    chosen: bool,
    ring_serial: i32,
    tokens: Vec<Token>,
    leases: Vec<(Lease, bool)>,
}

impl Properties {
    /// All of them, in the order of the interface's description.
    pub(crate) fn all(&self) -> Vec<(&'static str, Variant<'static>)> {
        let token = |Token { client, cell, principal, vice_id, expires, state }| {
            (client, cell, principal, vice_id, expires, state)
        };
        let tokens: Vec<(String, String, String, i64, u64, String)> = self.tokens.iter().cloned().map(token).collect();
        let leases: Vec<(u32, String, String, String, bool)> = self
            .leases
            .iter()
            .map(|(lease, alive)| {
                let pid = u32::try_from(lease.process.pid).unwrap_or(0);
                (pid, lease.role.as_str().to_owned(), lease.service.to_string(), lease.tty.to_string(), *alive)
            })
            .collect();
        vec![
            ("Id", self.id.to_string().into()),
            ("UID", self.uid.into()),
            ("Kind", self.kind.into()),
            ("Made", self.made.into()),
            ("RingSerial", self.ring_serial.into()),
            ("Principal", self.principal.clone().into()),
            ("TicketExpires", self.ticket_expires.into()),
            ("Retain", self.retain.clone().into()),
            ("Follows", self.follows.map(|id| id.to_string()).unwrap_or_default().into()),
            ("Chosen", self.chosen.into()),
            ("Tokens", tokens.into()),
            ("Leases", leases.into()),
        ]
    }

    /// Those that are not as they were `before`.
    fn since(&self, before: &Properties) -> Vec<(&'static str, Variant<'static>)> {
        let before = before.all();
        self.all().into_iter().zip(before).filter(|(now, then)| now.1 != then.1).map(|(now, _)| now).collect()
    }
}

/// What is to be told to the subscribers named in it.
#[derive(Debug, PartialEq)]
pub(crate) struct Notice {
    pub(crate) pag: PagId,
    pub(crate) what: News,
    pub(crate) to: Vec<String>,
}

/// What has happened to a PAG.
#[derive(Debug, PartialEq)]
pub(crate) enum News {
    /// It is there, with these properties.
    Added(Properties),
    /// These properties have changed.
    Changed(Vec<(&'static str, Variant<'static>)>),
    /// It has ended.
    Removed,
    /// Its user's services follow this PAG now, or nobody.
    Followed(Option<PagId>),
    /// Something that its properties do not tell.
    Alert(Alert),
}

impl Entry {
    fn properties(&self) -> Properties {
        self.properties_with(Process::is_alive)
    }

    fn properties_with(&self, is_alive: fn(Process) -> bool) -> Properties {
        let Known { uid, ring, record, .. } = &*self.known;
        Properties {
            id: self.known.id,
            uid: *uid,
            kind: record.kind.as_str(),
            made: record.made,
            principal: record.principal.as_ref().map(ToString::to_string).unwrap_or_default(),
            ticket_expires: record.ticket,
            retain: record.retain.to_string(),
            follows: record.follows,
            chosen: record.chosen,
            ring_serial: ring.serial.get(),
            tokens: self.tokens.clone(),
            leases: record.leases.iter().map(|lease| (lease.clone(), is_alive(lease.process))).collect(),
        }
    }
}

impl Board {
    /// These are the PAGs of `uid` now.
    pub(crate) fn pin(&mut self, uid: u32, pags: Vec<Rc<Known>>) {
        let there: BTreeSet<PagId> = pags.iter().map(|known| known.id).collect();
        let heard = self.audience(uid).next().is_some();
        let gone = &mut self.gone;
        self.pags.retain(|id, entry| {
            let stays = entry.known.uid != uid || there.contains(id);
            if !stays && entry.told.is_some() {
                gone.push((*id, uid));
            }
            stays
        });
        for known in pags {
            let id = known.id;
            match self.pags.get_mut(&id) {
                Some(entry) if Rc::ptr_eq(&entry.known, &known) => continue,
                Some(entry) => {
                    // Whatever has changed, the tokens may have.
                    entry.looked = None;
                    entry.known = known;
                }
                None => {
                    self.pags.insert(id, Entry { known, tokens: Vec::new(), looked: None, told: None });
                }
            }
            if heard {
                self.changed.insert(id);
            }
        }
        if !(self.changed.is_empty() && self.gone.is_empty()) {
            self.stir();
        }
    }

    fn stir(&mut self) {
        self.stirred = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// The PAGs that `uid` may see.
    pub(crate) fn seen_by(&self, uid: u32) -> Vec<PagId> {
        let seen = self.pags.values().filter(|entry| may_see(uid, entry.known.uid));
        seen.map(|entry| entry.known.id).collect()
    }

    /// All of them, for those who may see all.
    pub(crate) fn all(&self) -> Vec<PagId> {
        self.pags.keys().copied().collect()
    }

    /// Whether there is this PAG, and `uid` may see it.
    pub(crate) fn is_seen_by(&self, uid: u32, id: PagId) -> bool {
        self.pags.get(&id).is_some_and(|entry| may_see(uid, entry.known.uid))
    }

    /// What the keeper knows of a PAG.
    pub(crate) fn known(&self, id: PagId) -> Option<&Known> {
        self.pags.get(&id).map(|entry| &*entry.known)
    }

    /// Its properties.
    pub(crate) fn properties(&self, id: PagId) -> Option<Properties> {
        self.pags.get(&id).map(Entry::properties)
    }

    /// The PAGs in which this process holds leases, and whose they are.
    pub(crate) fn held_by(&self, process: Process) -> Vec<(PagId, u32)> {
        let holds = |entry: &&Entry| entry.known.record.leases.iter().any(|lease| lease.process == process);
        self.pags.values().filter(holds).map(|entry| (entry.known.id, entry.known.uid)).collect()
    }

    /// The rings, of these PAGs, that have to be looked into before somebody is told of their tokens.
    pub(crate) fn stale(&self, pags: &[PagId], now: Instant) -> Vec<(PagId, Ring)> {
        let entries = pags.iter().filter_map(|id| self.pags.get(id));
        let stale = entries.filter(|entry| entry.looked.is_none_or(|looked| now.duration_since(looked) >= FRESH));
        stale.map(|entry| (entry.known.id, entry.known.ring)).collect()
    }

    /// These rings have been looked into, and that was found; or nobody could look, and what was seen before stays.
    pub(crate) fn looked(&mut self, rings: &[(PagId, Ring)], mut found: Option<Found>, now: Instant) {
        for (id, ring) in rings {
            let Some(entry) = self.pags.get_mut(id).filter(|entry| entry.known.ring == *ring) else { continue };
            entry.looked = Some(now);
            let Some(found) = &mut found else { continue };
            // A ring that could not be entered has no tokens that anybody could use.
            let tokens = found.remove(id).unwrap_or_default();
            if entry.tokens != tokens {
                entry.tokens = tokens;
                if entry.told.is_some() {
                    self.changed.insert(*id);
                }
            }
        }
        self.stir();
    }

    /// The tokens of this PAG have just been changed.
    pub(crate) fn touch(&mut self, id: PagId) {
        let Some(entry) = self.pags.get_mut(&id) else { return };
        entry.looked = None;
        if entry.told.is_some() {
            self.changed.insert(id);
            self.stir();
        }
    }

    /// Something is to be told of this PAG, if anybody listens.
    pub(crate) fn alert(&mut self, id: PagId, alert: Alert) {
        let Some(entry) = self.pags.get(&id) else { return };
        if self.audience(entry.known.uid).next().is_some() {
            self.alerts.push((id, alert));
            self.stir();
        }
    }

    /// Has this connection of `uid` told of what happens to the PAGs that he may see. False: he has too many.
    pub(crate) fn subscribe(&mut self, name: &str, uid: u32) -> bool {
        if self.subscribers.contains_key(name) {
            return true;
        }
        if self.subscribers.values().filter(|other| **other == uid).count() >= SUBSCRIPTIONS {
            return false;
        }
        self.subscribers.insert(name.to_owned(), uid);
        for (id, entry) in &mut self.pags {
            // One that has changed is about to be told to all.
            if may_see(uid, entry.known.uid) && entry.told.is_none() && !self.changed.contains(id) {
                // Which of the processes live is not worth a look at all of them: the next change will tell.
                entry.told = Some(entry.properties_with(|_| true));
            }
        }
        self.stir();
        true
    }

    /// This connection has gone, or wants to hear no more.
    pub(crate) fn unsubscribe(&mut self, name: &str) {
        let Some(uid) = self.subscribers.remove(name) else { return };
        let listens =
            |owner: u32, subscribers: &BTreeMap<String, u32>| subscribers.values().any(|u| may_see(*u, owner));
        for entry in self.pags.values_mut().filter(|entry| may_see(uid, entry.known.uid)) {
            if !listens(entry.known.uid, &self.subscribers) {
                entry.told = None;
            }
        }
    }

    /// The PAGs that somebody wants to hear of; none when nobody does.
    pub(crate) fn listened_to(&self) -> Vec<PagId> {
        let heard = self.pags.values().filter(|entry| self.audience(entry.known.uid).next().is_some());
        heard.map(|entry| entry.known.id).collect()
    }

    /// Nobody is there any more: the bus is.
    pub(crate) fn hang_up(&mut self) {
        self.subscribers.clear();
        self.changed.clear();
        self.gone.clear();
        self.alerts.clear();
        for entry in self.pags.values_mut() {
            entry.told = None;
        }
    }

    fn audience(&self, owner: u32) -> impl Iterator<Item = &String> {
        self.subscribers.iter().filter(move |(_, uid)| may_see(**uid, owner)).map(|(name, _)| name)
    }

    /// Waits until there may be something to tell, or somebody new who listens.
    pub(crate) fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::take(&mut self.stirred) {
            return Poll::Ready(());
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The PAGs that have changed.
    pub(crate) fn changed(&self) -> Vec<PagId> {
        self.changed.iter().copied().collect()
    }

    /// What is to be told of those that have ended, and of the changes of those whose rings have been looked into
    /// since. It then counts as told.
    pub(crate) fn notices(&mut self, now: Instant) -> Vec<Notice> {
        let gone = std::mem::take(&mut self.gone);
        let gone = gone.into_iter().map(|(id, uid)| (id, uid, News::Removed));
        let mut news: Vec<(PagId, u32, News)> = gone.collect();
        let changed = self.changed();
        let stale: BTreeSet<PagId> = self.stale(&changed, now).into_iter().map(|(id, _)| id).collect();
        self.stirred |= !stale.is_empty();
        for id in changed.iter().filter(|id| !stale.contains(id)) {
            self.changed.remove(id);
            let Some(entry) = self.pags.get_mut(id) else { continue };
            let uid = entry.known.uid;
            if !self.subscribers.values().any(|one| may_see(*one, uid)) {
                continue;
            }
            let now = entry.properties();
            match entry.told.replace(now.clone()) {
                None => news.push((*id, uid, News::Added(now))),
                Some(before) if before != now => {
                    news.push((*id, uid, News::Changed(now.since(&before))));
                    let followed = (before.follows != now.follows).then_some(News::Followed(now.follows));
                    news.extend(followed.map(|followed| (*id, uid, followed)));
                }
                Some(_) => {}
            }
        }
        for (id, alert) in std::mem::take(&mut self.alerts) {
            let uid = self.pags.get(&id).map(|entry| entry.known.uid);
            news.extend(uid.map(|uid| (id, uid, News::Alert(alert))));
        }
        let notice = |(pag, uid, what)| Notice { pag, what, to: self.audience(uid).cloned().collect() };
        news.into_iter().map(notice).collect()
    }
}

fn may_see(uid: u32, owner: u32) -> bool {
    uid == ROOT || uid == owner
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::describe::OF_PAG;
    use pag::config::Retain;
    use pag::guard::HandleGroup;
    use pag::keyring::Serial;
    use pag::record::{Kind, Record};
    use pag::ring::RingName;

    const ALICE: u32 = 61001;
    const BOB: u32 = 61002;

    fn known(id: u64, uid: u32, ticket: u64) -> Rc<Known> {
        let ring = Ring {
            serial: Serial::new(i32::try_from(id).unwrap()).unwrap(),
            name: RingName::parse(format!("pag:{id:032x}").as_bytes()).unwrap(),
            owner: uid,
            group: HandleGroup(1),
        };
        let record = Record { ticket, ..Record::new(uid, Kind::User, String::new(), Retain::None) };
        Rc::new(Known { id: PagId::from(id), uid, ring, record, keys: Box::new([]) })
    }

    fn board() -> Board {
        let mut board = Board::default();
        board.pin(ALICE, vec![known(1, ALICE, 5)]);
        board.pin(BOB, vec![known(2, BOB, 5)]);
        board
    }

    /// Looks into the rings that have changed, and finds no tokens there.
    fn look(board: &mut Board, now: Instant) {
        let changed = board.changed();
        let rings = board.stale(&changed, now);
        board.looked(&rings, Some(BTreeMap::new()), now);
    }

    fn news(board: &mut Board) -> Vec<(u64, &'static str, String)> {
        let now = Instant::now();
        look(board, now);
        let notices = board.notices(now);
        assert!(board.changed.is_empty() && board.gone.is_empty());
        let word = |news: &News| match news {
            News::Added(_) => "added",
            News::Changed(_) => "changed",
            News::Removed => "removed",
            News::Followed(_) => "followed",
            News::Alert(_) => "alert",
        };
        let number = |id: PagId| u64::from_str_radix(&id.to_string(), 16).unwrap();
        notices.iter().map(|one| (number(one.pag), word(&one.what), one.to.join(" "))).collect()
    }

    #[test]
    fn the_properties_are_those_of_the_description() {
        let properties = board().properties(PagId::from(1)).unwrap();
        let named: Vec<(&str, String)> =
            properties.all().iter().map(|(name, value)| (*name, value.value_signature().to_string())).collect();
        let described: Vec<(&str, String)> =
            OF_PAG.properties.iter().map(|property| (property.name, property.kind.to_owned())).collect();
        assert_eq!(named, described);
    }

    #[test]
    fn a_user_sees_his_own_and_root_sees_all() {
        let board = board();
        assert_eq!(board.seen_by(ALICE), [PagId::from(1)]);
        assert_eq!(board.seen_by(0).len(), 2);
        assert_eq!(board.seen_by(7), []);
        assert!(board.is_seen_by(ALICE, PagId::from(1)) && !board.is_seen_by(ALICE, PagId::from(2)));
        assert!(!board.is_seen_by(0, PagId::from(3)));
    }

    #[test]
    fn subscribers_hear_of_their_own_and_of_nothing_else() {
        let mut board = board();
        assert!(board.subscribe(":1.1", ALICE) && board.subscribe(":1.2", BOB) && board.subscribe(":1.0", 0));
        assert_eq!(news(&mut board), []);
        board.pin(ALICE, vec![known(1, ALICE, 6), known(3, ALICE, 5)]);
        assert_eq!(news(&mut board), [(1, "changed", ":1.0 :1.1".to_owned()), (3, "added", ":1.0 :1.1".to_owned())]);
        board.pin(ALICE, vec![known(3, ALICE, 5)]);
        assert_eq!(news(&mut board), [(1, "removed", ":1.0 :1.1".to_owned())], "the same again is no news");
        board.unsubscribe(":1.1");
        board.pin(ALICE, vec![]);
        assert_eq!(news(&mut board), [(3, "removed", ":1.0".to_owned())]);
    }

    #[test]
    fn one_who_subscribes_late_misses_nothing_and_the_others_neither() {
        let mut board = board();
        board.subscribe(":1.1", ALICE);
        board.pin(ALICE, vec![known(1, ALICE, 5), known(3, ALICE, 5)]);
        board.subscribe(":1.9", ALICE);
        assert_eq!(news(&mut board), [(3, "added", ":1.1 :1.9".to_owned())]);
        board.unsubscribe(":1.1");
        board.unsubscribe(":1.9");
        board.pin(ALICE, vec![known(1, ALICE, 7)]);
        assert_eq!(news(&mut board), [], "nobody listens");
        board.subscribe(":1.1", ALICE);
        board.pin(ALICE, vec![known(1, ALICE, 8)]);
        assert_eq!(news(&mut board), [(1, "changed", ":1.1".to_owned())]);
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let mut board = board();
        board.subscribe(":1.1", ALICE);
        board.pin(ALICE, vec![known(1, ALICE, 9)]);
        let id = PagId::from(1);
        let now = Instant::now();
        assert_eq!(board.notices(now), [], "not before its ring was looked into");
        look(&mut board, now);
        let notices = board.notices(now);
        let [Notice { what: News::Changed(changed), .. }] = &notices[..] else { panic!("{notices:?}") };
        assert_eq!(changed[..], [("TicketExpires", Variant::from(9_u64))]);
        let ring = board.known(id).unwrap().ring;
        let [client, cell, principal, state] = ["keyring", "a.test", "", "good"].map(str::to_owned);
        let token = Token { client, cell, principal, vice_id: 0, expires: 1, state };
        let found = BTreeMap::from([(id, vec![token])]);
        assert_eq!(board.stale(&[id], now), []);
        assert_eq!(board.stale(&[id], now + FRESH), [(id, ring)]);
        board.looked(&[(id, ring)], Some(found.clone()), now + FRESH);
        let told = board.notices(now + FRESH);
        let [Notice { what: News::Changed(changed), .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!(changed[0].0, "Tokens");
        board.looked(&[(id, ring)], Some(found), now + FRESH);
        board.looked(&[(id, ring)], None, now + FRESH);
        assert_eq!(board.notices(now + FRESH), [], "nothing new, or nobody could look");
        board.touch(id);
        assert_eq!(board.stale(&[id], now), [(id, ring)]);
    }

    #[test]
    fn that_services_follow_another_is_told_by_itself() {
        let mut board = board();
        board.subscribe(":1.1", ALICE);
        let follows = |whom: Option<u64>| {
            let Known { id, uid, ring, ref record, .. } = *known(1, ALICE, 5);
            let record = Record { follows: whom.map(PagId::from), ..record.clone() };
            vec![Rc::new(Known { id, uid, ring, record, keys: Box::new([]) })]
        };
        board.pin(ALICE, follows(Some(7)));
        let told = |what| (1, what, ":1.1".to_owned());
        assert_eq!(news(&mut board), [told("changed"), told("followed")]);
        board.pin(ALICE, follows(None));
        let now = Instant::now();
        look(&mut board, now);
        assert_eq!(board.notices(now)[1].what, News::Followed(None));
    }

    #[test]
    fn an_alert_is_told_once_to_those_who_may_see_its_pag() {
        let mut board = board();
        let alert = Alert { end: 5, over: false, why: "for a reason" };
        board.alert(PagId::from(1), alert);
        board.subscribe(":1.1", ALICE);
        board.subscribe(":1.2", BOB);
        assert_eq!(news(&mut board), [], "nobody has listened");
        board.alert(PagId::from(1), alert);
        board.alert(PagId::from(9), alert);
        assert_eq!(news(&mut board), [(1, "alert", ":1.1".to_owned())]);
        assert_eq!(news(&mut board), []);
    }

    #[test]
    fn subscriptions_are_bounded_for_each_user() {
        let mut board = board();
        for number in 0..SUBSCRIPTIONS {
            assert!(board.subscribe(&format!(":1.{number}"), ALICE));
        }
        assert!(!board.subscribe(":2.0", ALICE));
        assert!(board.subscribe(":1.0", ALICE), "a second time changes nothing");
        assert!(board.subscribe(":2.0", BOB));
        board.unsubscribe(":1.0");
        assert!(board.subscribe(":2.1", ALICE));
    }
}
