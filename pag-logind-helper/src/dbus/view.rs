//! What callers may see of PAGs, and what subscribers are still to be told.
//!
//! The helper publishes what it knows of PAGs. Subscribers are told what has changed since they were told last.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use pag::store::ring::Ring;
use pag::types::PagId;
use zbus::Variant;

use super::properties::Properties;
use super::subscribers::Subscribers;
use super::visibility::{Difference, TokenLists, VisiblePags};
use crate::jobs::plan::Notice;
use crate::pags::known::Known;

/// All PAGs, and all subscribers.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) pags: VisiblePags,
    subscribers: Subscribers,
    /// What subscribers were told last. They do not know the other PAGs.
    told: BTreeMap<PagId, Properties>,
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

impl View {
    /// Takes over that these are the PAGs of `uid` now.
    pub(crate) fn publish(&mut self, uid: u32, pags: Vec<Rc<Known>>) {
        let Difference { changed, ended } = self.pags.replace(uid, pags);
        let told = &mut self.told;
        self.ended.extend(ended.into_iter().filter(|id| told.remove(id).is_some()).map(|id| (id, uid)));
        if self.subscribers.any(uid) {
            self.changed.extend(changed);
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

    /// Takes over what was read in these rings. Without `found`, they could not be read.
    pub(crate) fn tokens_read(&mut self, rings: &[(PagId, Ring)], found: Option<TokenLists>, now: Instant) {
        let changed = self.pags.tokens_read(rings, found, now);
        self.changed.extend(changed.into_iter().filter(|id| self.told.contains_key(id)));
        self.wake_sender();
    }

    /// Takes over that the tokens of this PAG have just been changed.
    pub(crate) fn tokens_changed(&mut self, id: PagId) {
        self.pags.tokens_changed(id);
        if self.told.contains_key(&id) {
            self.changed.insert(id);
            self.wake_sender();
        }
    }

    /// Has subscribers told this of a PAG's tokens.
    pub(crate) fn announce(&mut self, id: PagId, notice: Notice) {
        if self.pags.known(id).is_some_and(|known| self.subscribers.any(known.uid)) {
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
        for id in self.pags.seen_by(uid) {
            // All subscribers are about to be told of one that has changed.
            if !self.told.contains_key(&id) && !self.changed.contains(&id) {
                // To look at every process here would cost too much. The next change tells which of them run.
                self.told.extend(self.pags.presumed_properties(id).map(|properties| (id, properties)));
            }
        }
        self.wake_sender();
        true
    }

    /// Ends the subscription of a connection.
    pub(crate) fn unsubscribe(&mut self, name: &str) {
        if self.subscribers.remove(name).is_none() {
            return;
        }
        let (pags, subscribers) = (&self.pags, &self.subscribers);
        self.told.retain(|id, _| pags.known(*id).is_some_and(|known| subscribers.any(known.uid)));
    }

    /// The PAGs that subscribers want to hear of.
    pub(crate) fn watched(&self) -> Vec<PagId> {
        self.pags.of(|uid| self.subscribers.any(uid)).collect()
    }

    /// Forgets all subscribers, since the connection to the bus has ended.
    pub(crate) fn disconnected(&mut self) {
        self.subscribers.clear();
        self.changed.clear();
        self.ended.clear();
        self.notices.clear();
        self.told.clear();
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
        let stale: BTreeSet<PagId> = self.pags.stale(&changed, now).into_iter().map(|(id, _)| id).collect();
        self.pending |= !stale.is_empty();
        for id in changed.iter().filter(|id| !stale.contains(id)) {
            self.changed.remove(id);
            let Some(uid) = self.pags.known(*id).map(|known| known.uid).filter(|uid| self.subscribers.any(*uid)) else {
                continue;
            };
            let Some(now) = self.pags.properties(*id) else { continue };
            match self.told.insert(*id, now.clone()) {
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
            events.extend(self.pags.known(id).map(|known| (id, known.uid, PagEvent::Notice(notice))));
        }
        let signal = |(pag, uid, event)| Signal { pag, event, to: self.subscribers.of(uid).cloned().collect() };
        events.into_iter().map(signal).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dbus::describe::OF_PAG;
    use crate::dbus::token_list::Token;
    use crate::dbus::visibility::FRESH;
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
        let rings = view.pags.stale(&changed, now);
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
        let properties = view().pags.properties(PagId::from(1)).unwrap();
        let named: Vec<(&str, String)> =
            properties.all().iter().map(|(name, value)| (*name, value.value_signature().to_string())).collect();
        let described: Vec<(&str, String)> =
            OF_PAG.properties.iter().map(|property| (property.name, property.kind.to_owned())).collect();
        assert_eq!(named, described);
    }

    #[test]
    fn a_user_sees_his_own_and_root_sees_all() {
        let view = view();
        assert_eq!(view.pags.seen_by(ALICE), [PagId::from(1)]);
        assert_eq!(view.pags.seen_by(0).len(), 2);
        assert_eq!(view.pags.seen_by(7), []);
        assert!(view.pags.is_seen_by(ALICE, PagId::from(1)) && !view.pags.is_seen_by(ALICE, PagId::from(2)));
        assert!(!view.pags.is_seen_by(0, PagId::from(3)));
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
        let ring = view.pags.known(id).unwrap().ring;
        let [client, cell, principal, state] = ["keyring", "a.test", "", "good"].map(str::to_owned);
        let token = Token { client, cell, principal, vice_id: 0, expires: 1, state };
        let found = BTreeMap::from([(id, vec![token])]);
        assert_eq!(view.pags.stale(&[id], now), []);
        assert_eq!(view.pags.stale(&[id], now + FRESH), [(id, ring)]);
        view.tokens_read(&[(id, ring)], Some(found.clone()), now + FRESH);
        let told = view.take_signals(now + FRESH);
        let [Signal { event: PagEvent::Changed(changed), .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!(changed[0].0, "Tokens");
        view.tokens_read(&[(id, ring)], Some(found), now + FRESH);
        view.tokens_read(&[(id, ring)], None, now + FRESH);
        assert_eq!(view.take_signals(now + FRESH), [], "nothing new, or no child could read the ring");
        view.tokens_changed(id);
        assert_eq!(view.pags.stale(&[id], now), [(id, ring)]);
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
