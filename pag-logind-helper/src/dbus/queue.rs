//! The calls that wait, and which of them is served next: a bounded number for each user, and users in turn. This is
//! bookkeeping only.
//!
//! The bus gives each connection a name that it never uses again. The helper asks the bus once which user a name
//! belongs to. Until the bus has answered, the limit holds for the connection instead of the user.

use std::collections::{BTreeMap, VecDeque};

/// Calls that one user may have here at once.
pub(crate) const OUTSTANDING: usize = 16;
/// Connections that the bus is being asked about. dbus-daemon admits 256 connections of one user
/// (max_connections_per_user).
const UNIDENTIFIED: usize = 512;
/// Connections with users that are remembered. The bus is asked again for one that was forgotten.
const IDENTIFIED: usize = 1024;

/// The calls that wait or are being served.
#[derive(Debug)]
pub(crate) struct CallQueue<C> {
    /// The users of connections.
    uids: BTreeMap<String, u32>,
    /// The same connections, oldest first.
    order: VecDeque<String>,
    unidentified: BTreeMap<String, Vec<C>>,
    users: BTreeMap<u32, UserCalls<C>>,
    /// Users with calls that wait, in the order in which they are served.
    turns: VecDeque<u32>,
}

#[derive(Debug)]
struct UserCalls<C> {
    waiting: VecDeque<C>,
    served: usize,
}

/// What happens to a call that comes in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed<C> {
    /// It waits.
    Waits,
    /// It waits, and the bus must be asked which user this connection belongs to.
    Unidentified,
    /// There are too many.
    Refused(C),
}

impl<C> Default for CallQueue<C> {
    fn default() -> Self {
        CallQueue {
            uids: BTreeMap::new(),
            order: VecDeque::new(),
            unidentified: BTreeMap::new(),
            users: BTreeMap::new(),
            turns: VecDeque::new(),
        }
    }
}

impl<C> CallQueue<C> {
    /// Takes a call in.
    pub(crate) fn push(&mut self, sender: &str, call: C) -> Pushed<C> {
        if let Some(uid) = self.uids.get(sender) {
            return self.push_of(*uid, call).map_or(Pushed::Waits, Pushed::Refused);
        }
        let has_room = self.unidentified.len() < UNIDENTIFIED;
        match self.unidentified.get_mut(sender) {
            Some(calls) if calls.len() < OUTSTANDING => {
                calls.push(call);
                Pushed::Waits
            }
            Some(_) => Pushed::Refused(call),
            None if has_room => {
                self.unidentified.insert(sender.to_owned(), vec![call]);
                Pushed::Unidentified
            }
            None => Pushed::Refused(call),
        }
    }

    /// Takes over the bus's answer: `sender` belongs to this user, or has left the bus. Gives back the calls that are
    /// too many.
    pub(crate) fn identify(&mut self, sender: &str, uid: Option<u32>) -> Vec<C> {
        let calls = self.unidentified.remove(sender).unwrap_or_default();
        // One that has left takes no answer.
        let Some(uid) = uid else { return Vec::new() };
        if self.uids.insert(sender.to_owned(), uid).is_none() {
            self.order.push_back(sender.to_owned());
            if self.order.len() > IDENTIFIED
                && let Some(oldest) = self.order.pop_front()
            {
                self.uids.remove(&oldest);
            }
        }
        calls.into_iter().filter_map(|call| self.push_of(uid, call)).collect()
    }

    /// Takes in a call of a user. Gives it back when this user has too many.
    fn push_of(&mut self, uid: u32, call: C) -> Option<C> {
        let user = self.users.entry(uid).or_insert_with(|| UserCalls { waiting: VecDeque::new(), served: 0 });
        if user.waiting.len() + user.served >= OUTSTANDING {
            return Some(call);
        }
        if user.waiting.is_empty() {
            self.turns.push_back(uid);
        }
        user.waiting.push_back(call);
        None
    }

    /// The call that is served next, and its user. [`CallQueue::done`] must follow.
    pub(crate) fn next(&mut self) -> Option<(u32, C)> {
        let uid = self.turns.pop_front()?;
        let user = self.users.get_mut(&uid)?;
        let call = user.waiting.pop_front()?;
        user.served += 1;
        if !user.waiting.is_empty() {
            self.turns.push_back(uid);
        }
        Some((uid, call))
    }

    /// Takes over that a call of this user has been answered.
    pub(crate) fn done(&mut self, uid: u32) {
        if let Some(user) = self.users.get_mut(&uid) {
            user.served = user.served.saturating_sub(1);
            if user.served == 0 && user.waiting.is_empty() {
                self.users.remove(&uid);
            }
        }
    }

    /// Whether a call waits that can be served.
    pub(crate) fn has_next(&self) -> bool {
        !self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(queue: &mut CallQueue<u32>) -> Vec<(u32, u32)> {
        std::iter::from_fn(|| queue.next()).collect()
    }

    #[test]
    fn one_user_has_sixteen_calls_and_no_more_however_many_connections() {
        let mut queue = CallQueue::default();
        for (number, sender) in [":1.1", ":1.2"].into_iter().enumerate() {
            assert_eq!(queue.push(sender, 100 * u32::try_from(number).unwrap()), Pushed::Unidentified);
            assert!(queue.identify(sender, Some(61001)).is_empty());
        }
        for call in 2..16 {
            assert_eq!(queue.push(":1.2", call), Pushed::Waits);
        }
        assert_eq!(queue.push(":1.1", 16), Pushed::Refused(16));
        assert_eq!(queue.push(":1.2", 17), Pushed::Refused(17));
        // What is being served counts as what waits does.
        assert_eq!(served(&mut queue).len(), 16);
        assert_eq!(queue.push(":1.2", 18), Pushed::Refused(18));
        queue.done(61001);
        assert_eq!(queue.push(":1.2", 19), Pushed::Waits);
        assert_eq!(queue.push(":1.2", 20), Pushed::Refused(20));
    }

    #[test]
    fn an_unidentified_connection_has_no_more_than_a_user() {
        let mut queue = CallQueue::default();
        assert_eq!(queue.push(":1.1", 0), Pushed::Unidentified);
        for call in 1..16 {
            assert_eq!(queue.push(":1.1", call), Pushed::Waits);
        }
        assert_eq!(queue.push(":1.1", 16), Pushed::Refused(16));
        assert_eq!(queue.next(), None, "no call is served before its user is known");
        assert_eq!(queue.push(":1.2", 17), Pushed::Unidentified);
        assert_eq!(queue.identify(":1.2", Some(61001)), []);
        // The other connection of the same user has taken one place.
        assert_eq!(queue.identify(":1.1", Some(61001)), [15]);
    }

    #[test]
    fn unidentified_connections_are_bounded_and_old_ones_are_forgotten() {
        let mut queue = CallQueue::default();
        for number in 0..UNIDENTIFIED {
            assert_eq!(queue.push(&format!(":1.{number}"), 1), Pushed::Unidentified);
        }
        assert_eq!(queue.push(":2.0", 1), Pushed::Refused(1));
        assert!(queue.identify(":1.0", None).is_empty());
        assert_eq!(queue.push(":2.0", 1), Pushed::Unidentified);
        for number in 0..2 * IDENTIFIED {
            queue.identify(&format!(":3.{number}"), Some(1));
        }
        assert_eq!((queue.uids.len(), queue.order.len()), (IDENTIFIED, IDENTIFIED));
        assert!(!queue.has_next() && queue.users.is_empty());
    }

    #[test]
    fn users_are_served_in_turn_however_much_one_asks() {
        let mut queue = CallQueue::default();
        for (sender, uid) in [(":1.1", 61001), (":1.2", 61002), (":1.3", 61003)] {
            queue.identify(sender, Some(uid));
        }
        for call in 0..5 {
            queue.push(":1.1", call);
        }
        queue.push(":1.2", 5);
        queue.push(":1.3", 6);
        queue.push(":1.3", 7);
        let order: Vec<u32> = served(&mut queue).into_iter().map(|(uid, _)| uid).collect();
        assert_eq!(order, [61001, 61002, 61003, 61001, 61003, 61001, 61001, 61001]);
        for uid in order {
            queue.done(uid);
        }
        assert!(queue.users.is_empty(), "nothing is kept of users without calls");
    }
}
