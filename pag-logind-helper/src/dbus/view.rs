//! What callers may see of PAGs, and what subscribers are still to be told.
//!
//! The helper publishes what it knows of PAGs. A caller asks as a uid, and gets no answer about a PAG that this uid may
//! not see. Subscribers are told what has changed since they were told last.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pag::store::ring::Ring;
use pag::sys::Process;
use pag::types::PagId;
use zbus::Variant;

use super::properties::Properties;
use super::subscribers::Subscribers;
use super::token_list::Token;
use super::visibility::may_see;
use crate::jobs::plan::Notice;
use crate::pags::known::Known;

/// A token list that is younger than this is good enough for an answer.
const FRESH: Duration = Duration::from_secs(1);

/// The tokens in rings that were read.
pub(crate) type TokenLists = BTreeMap<PagId, Vec<Token>>;

/// All PAGs, and all subscribers.
#[derive(Default)]
pub(crate) struct View {
    pags: BTreeMap<PagId, Entry>,
    subscribers: Subscribers,
    /// PAGs that have changed.
    changed: BTreeSet<PagId>,
    /// PAGs that subscribers know and that have ended, each with the uid of its user.
    ended: Vec<(PagId, u32)>,
    /// What subscribers are to be told of the tokens in PAGs.
    notices: Vec<(PagId, Notice)>,
    /// Whether there may be signals to send, or a new subscriber.
    pending: bool,
    sender: Option<Waker>,
}

/// One PAG.
struct Entry {
    known: Rc<Known>,
    tokens: Vec<Token>,
    /// When the tokens in its ring were read.
    read: Option<Instant>,
    /// What subscribers were told last. None: they do not know this PAG.
    told: Option<Properties>,
}

/// One thing that some subscribers are to be told.
#[derive(Debug, PartialEq)]
pub(crate) struct Signal {
    pub(crate) pag: PagId,
    pub(crate) event: PagEvent,
    /// Unique names of connections.
    pub(crate) to: Vec<String>,
}

/// What has happened to a PAG.
#[derive(Debug, PartialEq)]
pub(crate) enum PagEvent {
    /// It is there, with these properties.
    Added(Properties),
    /// These properties have changed.
    Changed(Vec<(&'static str, Variant<'static>)>),
    /// It has ended.
    Removed,
    /// The services in it follow this PAG now, or none.
    Followed(Option<PagId>),
    /// Its tokens will end, or have ended.
    Notice(Notice),
}

impl Entry {
    fn properties(&self) -> Properties {
        Properties::new(&self.known, &self.tokens, |lease| lease.process.is_alive())
    }
}

impl View {
    /// Takes over that these are the PAGs of `uid` now.
    pub(crate) fn publish(&mut self, uid: u32, pags: Vec<Rc<Known>>) {
        let there: BTreeSet<PagId> = pags.iter().map(|known| known.id).collect();
        let has_subscribers = self.subscribers.any(uid);
        let ended = &mut self.ended;
        self.pags.retain(|id, entry| {
            let stays = entry.known.uid != uid || there.contains(id);
            if !stays && entry.told.is_some() {
                ended.push((*id, uid));
            }
            stays
        });
        for known in pags {
            let id = known.id;
            match self.pags.get_mut(&id) {
                Some(entry) if Rc::ptr_eq(&entry.known, &known) => continue,
                Some(entry) => {
                    // Its tokens may have changed, too.
                    entry.read = None;
                    entry.known = known;
                }
                None => {
                    self.pags.insert(id, Entry { known, tokens: Vec::new(), read: None, told: None });
                }
            }
            if has_subscribers {
                self.changed.insert(id);
            }
        }
        if !(self.changed.is_empty() && self.ended.is_empty()) {
            self.wake_sender();
        }
    }

    fn wake_sender(&mut self) {
        self.pending = true;
        if let Some(sender) = self.sender.take() {
            sender.wake();
        }
    }

    /// The PAGs that `uid` may see.
    pub(crate) fn seen_by(&self, uid: u32) -> Vec<PagId> {
        let seen = self.pags.values().filter(|entry| may_see(uid, entry.known.uid));
        seen.map(|entry| entry.known.id).collect()
    }

    /// All of them, for callers that may see all.
    pub(crate) fn all(&self) -> Vec<PagId> {
        self.pags.keys().copied().collect()
    }

    /// Whether there is this PAG, and `uid` may see it.
    pub(crate) fn is_seen_by(&self, uid: u32, id: PagId) -> bool {
        self.known(id).is_some_and(|known| may_see(uid, known.uid))
    }

    /// What the helper knows of a PAG.
    pub(crate) fn known(&self, id: PagId) -> Option<&Known> {
        self.pags.get(&id).map(|entry| &*entry.known)
    }

    /// Its properties.
    pub(crate) fn properties(&self, id: PagId) -> Option<Properties> {
        self.pags.get(&id).map(Entry::properties)
    }

    /// The PAGs in which this process holds leases, each with the uid of its user.
    pub(crate) fn held_by(&self, process: Process) -> Vec<(PagId, u32)> {
        let holds = |entry: &&Entry| entry.known.record.leases.iter().any(|lease| lease.process == process);
        self.pags.values().filter(holds).map(|entry| (entry.known.id, entry.known.uid)).collect()
    }

    /// The rings, of these PAGs, with token lists that are too old to be told.
    pub(crate) fn stale(&self, pags: &[PagId], now: Instant) -> Vec<(PagId, Ring)> {
        let entries = pags.iter().filter_map(|id| self.pags.get(id));
        let stale = entries.filter(|entry| entry.read.is_none_or(|read| now.duration_since(read) >= FRESH));
        stale.map(|entry| (entry.known.id, entry.known.ring)).collect()
    }

    /// Takes over what was read in these rings. Without `found`, they could not be read, and the last lists stay.
    pub(crate) fn tokens_read(&mut self, rings: &[(PagId, Ring)], mut found: Option<TokenLists>, now: Instant) {
        for (id, ring) in rings {
            let Some(entry) = self.pags.get_mut(id).filter(|entry| entry.known.ring == *ring) else { continue };
            entry.read = Some(now);
            let Some(found) = &mut found else { continue };
            // A ring that can't be entered has no tokens that a process could use.
            let tokens = found.remove(id).unwrap_or_default();
            if entry.tokens != tokens {
                entry.tokens = tokens;
                if entry.told.is_some() {
                    self.changed.insert(*id);
                }
            }
        }
        self.wake_sender();
    }

    /// Takes over that the tokens of this PAG have just been changed.
    pub(crate) fn tokens_changed(&mut self, id: PagId) {
        let Some(entry) = self.pags.get_mut(&id) else { return };
        entry.read = None;
        if entry.told.is_some() {
            self.changed.insert(id);
            self.wake_sender();
        }
    }

    /// Has subscribers told this of a PAG's tokens.
    pub(crate) fn announce(&mut self, id: PagId, notice: Notice) {
        if self.known(id).is_some_and(|known| self.subscribers.any(known.uid)) {
            self.notices.push((id, notice));
            self.wake_sender();
        }
    }

    /// Has this connection told what happens to the PAGs that `uid` may see. False: this user has too many
    /// subscriptions.
    pub(crate) fn subscribe(&mut self, name: &str, uid: u32) -> bool {
        if self.subscribers.contains(name) {
            return true;
        }
        if !self.subscribers.add(name, uid) {
            return false;
        }
        for (id, entry) in &mut self.pags {
            // All subscribers are about to be told of one that has changed.
            if may_see(uid, entry.known.uid) && entry.told.is_none() && !self.changed.contains(id) {
                // To look at every process here would cost too much. The next change tells which of them run.
                entry.told = Some(Properties::new(&entry.known, &entry.tokens, |_| true));
            }
        }
        self.wake_sender();
        true
    }

    /// Ends the subscription of a connection.
    pub(crate) fn unsubscribe(&mut self, name: &str) {
        let Some(uid) = self.subscribers.remove(name) else { return };
        for entry in self.pags.values_mut().filter(|entry| may_see(uid, entry.known.uid)) {
            if !self.subscribers.any(entry.known.uid) {
                entry.told = None;
            }
        }
    }

    /// The PAGs that subscribers want to hear of.
    pub(crate) fn watched(&self) -> Vec<PagId> {
        let watched = self.pags.values().filter(|entry| self.subscribers.any(entry.known.uid));
        watched.map(|entry| entry.known.id).collect()
    }

    /// Forgets all subscribers, since the connection to the bus has ended.
    pub(crate) fn disconnected(&mut self) {
        self.subscribers.clear();
        self.changed.clear();
        self.ended.clear();
        self.notices.clear();
        for entry in self.pags.values_mut() {
            entry.told = None;
        }
    }

    /// Waits until there may be signals to send, or a new subscriber.
    pub(crate) fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::take(&mut self.pending) {
            return Poll::Ready(());
        }
        self.sender = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The PAGs that have changed.
    pub(crate) fn changed(&self) -> Vec<PagId> {
        self.changed.iter().copied().collect()
    }

    /// The signals that are due: ends of PAGs, changes of PAGs with tokens that were read since, and notices. They then
    /// count as sent.
    pub(crate) fn take_signals(&mut self, now: Instant) -> Vec<Signal> {
        let ended = std::mem::take(&mut self.ended);
        let ended = ended.into_iter().map(|(id, uid)| (id, uid, PagEvent::Removed));
        let mut events: Vec<(PagId, u32, PagEvent)> = ended.collect();
        let changed = self.changed();
        let stale: BTreeSet<PagId> = self.stale(&changed, now).into_iter().map(|(id, _)| id).collect();
        self.pending |= !stale.is_empty();
        for id in changed.iter().filter(|id| !stale.contains(id)) {
            self.changed.remove(id);
            let Some(entry) = self.pags.get_mut(id) else { continue };
            let uid = entry.known.uid;
            if !self.subscribers.any(uid) {
                continue;
            }
            let now = entry.properties();
            match entry.told.replace(now.clone()) {
                None => events.push((*id, uid, PagEvent::Added(now))),
                Some(before) if before != now => {
                    events.push((*id, uid, PagEvent::Changed(now.changed_since(&before))));
                    let followed = (before.follows != now.follows).then_some(PagEvent::Followed(now.follows));
                    events.extend(followed.map(|followed| (*id, uid, followed)));
                }
                Some(_) => {}
            }
        }
        for (id, notice) in std::mem::take(&mut self.notices) {
            events.extend(self.known(id).map(|known| (id, known.uid, PagEvent::Notice(notice))));
        }
        let signal = |(pag, uid, event)| Signal { pag, event, to: self.subscribers.of(uid).cloned().collect() };
        events.into_iter().map(signal).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dbus::describe::OF_PAG;
    use pag::guard::HandleGroup;
    use pag::keyring::Serial;
    use pag::store::record::{PagKind, Record};
    use pag::store::ring::RingName;
    use pag::types::Retain;

    const ALICE: u32 = 61001;
    const BOB: u32 = 61002;

    fn known(id: u64, uid: u32, ticket: u64) -> Rc<Known> {
        let ring = Ring {
            serial: Serial::new(i32::try_from(id).unwrap()).unwrap(),
            name: RingName::parse(format!("pag:{id:032x}").as_bytes()).unwrap(),
            owner: uid,
            group: HandleGroup(1),
        };
        let record = Record { ticket, ..Record::new(uid, PagKind::User, String::new(), Retain::None) };
        Rc::new(Known { id: PagId::from(id), uid, ring, record, keys: Box::new([]) })
    }

    fn view() -> View {
        let mut view = View::default();
        view.publish(ALICE, vec![known(1, ALICE, 5)]);
        view.publish(BOB, vec![known(2, BOB, 5)]);
        view
    }

    /// Reads the rings that have changed, and finds no tokens there.
    fn look(view: &mut View, now: Instant) {
        let changed = view.changed();
        let rings = view.stale(&changed, now);
        view.tokens_read(&rings, Some(BTreeMap::new()), now);
    }

    fn news(view: &mut View) -> Vec<(u64, &'static str, String)> {
        let now = Instant::now();
        look(view, now);
        let signals = view.take_signals(now);
        assert!(view.changed.is_empty() && view.ended.is_empty());
        let word = |news: &PagEvent| match news {
            PagEvent::Added(_) => "added",
            PagEvent::Changed(_) => "changed",
            PagEvent::Removed => "removed",
            PagEvent::Followed(_) => "followed",
            PagEvent::Notice(_) => "notice",
        };
        let number = |id: PagId| u64::from_str_radix(&id.to_string(), 16).unwrap();
        signals.iter().map(|one| (number(one.pag), word(&one.event), one.to.join(" "))).collect()
    }

    #[test]
    fn the_properties_are_those_of_the_description() {
        let properties = view().properties(PagId::from(1)).unwrap();
        let named: Vec<(&str, String)> =
            properties.all().iter().map(|(name, value)| (*name, value.value_signature().to_string())).collect();
        let described: Vec<(&str, String)> =
            OF_PAG.properties.iter().map(|property| (property.name, property.kind.to_owned())).collect();
        assert_eq!(named, described);
    }

    #[test]
    fn a_user_sees_his_own_and_root_sees_all() {
        let view = view();
        assert_eq!(view.seen_by(ALICE), [PagId::from(1)]);
        assert_eq!(view.seen_by(0).len(), 2);
        assert_eq!(view.seen_by(7), []);
        assert!(view.is_seen_by(ALICE, PagId::from(1)) && !view.is_seen_by(ALICE, PagId::from(2)));
        assert!(!view.is_seen_by(0, PagId::from(3)));
    }

    #[test]
    fn subscribers_hear_of_their_own_and_of_nothing_else() {
        let mut view = view();
        assert!(view.subscribe(":1.1", ALICE) && view.subscribe(":1.2", BOB) && view.subscribe(":1.0", 0));
        assert_eq!(news(&mut view), []);
        view.publish(ALICE, vec![known(1, ALICE, 6), known(3, ALICE, 5)]);
        assert_eq!(news(&mut view), [(1, "changed", ":1.0 :1.1".to_owned()), (3, "added", ":1.0 :1.1".to_owned())]);
        view.publish(ALICE, vec![known(3, ALICE, 5)]);
        assert_eq!(news(&mut view), [(1, "removed", ":1.0 :1.1".to_owned())], "the same again is no news");
        view.unsubscribe(":1.1");
        view.publish(ALICE, vec![]);
        assert_eq!(news(&mut view), [(3, "removed", ":1.0".to_owned())]);
    }

    #[test]
    fn a_late_subscriber_misses_nothing_and_the_others_neither() {
        let mut view = view();
        view.subscribe(":1.1", ALICE);
        view.publish(ALICE, vec![known(1, ALICE, 5), known(3, ALICE, 5)]);
        view.subscribe(":1.9", ALICE);
        assert_eq!(news(&mut view), [(3, "added", ":1.1 :1.9".to_owned())]);
        view.unsubscribe(":1.1");
        view.unsubscribe(":1.9");
        view.publish(ALICE, vec![known(1, ALICE, 7)]);
        assert_eq!(news(&mut view), [], "without subscribers");
        view.subscribe(":1.1", ALICE);
        view.publish(ALICE, vec![known(1, ALICE, 8)]);
        assert_eq!(news(&mut view), [(1, "changed", ":1.1".to_owned())]);
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let mut view = view();
        view.subscribe(":1.1", ALICE);
        view.publish(ALICE, vec![known(1, ALICE, 9)]);
        let id = PagId::from(1);
        let now = Instant::now();
        assert_eq!(view.take_signals(now), [], "not before its ring was read");
        look(&mut view, now);
        let signals = view.take_signals(now);
        let [Signal { event: PagEvent::Changed(changed), .. }] = &signals[..] else { panic!("{signals:?}") };
        assert_eq!(changed[..], [("TicketExpires", Variant::from(9_u64))]);
        let ring = view.known(id).unwrap().ring;
        let [client, cell, principal, state] = ["keyring", "a.test", "", "good"].map(str::to_owned);
        let token = Token { client, cell, principal, vice_id: 0, expires: 1, state };
        let found = BTreeMap::from([(id, vec![token])]);
        assert_eq!(view.stale(&[id], now), []);
        assert_eq!(view.stale(&[id], now + FRESH), [(id, ring)]);
        view.tokens_read(&[(id, ring)], Some(found.clone()), now + FRESH);
        let told = view.take_signals(now + FRESH);
        let [Signal { event: PagEvent::Changed(changed), .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!(changed[0].0, "Tokens");
        view.tokens_read(&[(id, ring)], Some(found), now + FRESH);
        view.tokens_read(&[(id, ring)], None, now + FRESH);
        assert_eq!(view.take_signals(now + FRESH), [], "nothing new, or no child could read the ring");
        view.tokens_changed(id);
        assert_eq!(view.stale(&[id], now), [(id, ring)]);
    }

    #[test]
    fn that_services_follow_another_is_told_by_itself() {
        let mut view = view();
        view.subscribe(":1.1", ALICE);
        let follows = |whom: Option<u64>| {
            let Known { id, uid, ring, ref record, .. } = *known(1, ALICE, 5);
            let record = Record { follows: whom.map(PagId::from), ..record.clone() };
            vec![Rc::new(Known { id, uid, ring, record, keys: Box::new([]) })]
        };
        view.publish(ALICE, follows(Some(7)));
        let told = |what| (1, what, ":1.1".to_owned());
        assert_eq!(news(&mut view), [told("changed"), told("followed")]);
        view.publish(ALICE, follows(None));
        let now = Instant::now();
        look(&mut view, now);
        assert_eq!(view.take_signals(now)[1].event, PagEvent::Followed(None));
    }

    #[test]
    fn a_notice_is_told_once_to_those_who_may_see_its_pag() {
        let mut view = view();
        let notice = Notice { end: 5, over: false, why: "for a reason" };
        view.announce(PagId::from(1), notice);
        view.subscribe(":1.1", ALICE);
        view.subscribe(":1.2", BOB);
        assert_eq!(news(&mut view), [], "before anyone subscribed");
        view.announce(PagId::from(1), notice);
        view.announce(PagId::from(9), notice);
        assert_eq!(news(&mut view), [(1, "notice", ":1.1".to_owned())]);
        assert_eq!(news(&mut view), []);
    }
}
