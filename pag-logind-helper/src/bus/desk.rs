//! Who waits and whose turn it is: a bounded number of calls for each user, served in turn. Pure bookkeeping.
//!
//! A caller is known to the bus by a name that it never gives to another connection, and to us by his uid, for which
//! the bus must be asked once. Until it has answered, the limit holds for the connection.

use std::collections::{BTreeMap, VecDeque};

/// Calls that one user may have with us at once.
pub(crate) const OUTSTANDING: usize = 16;
/// Connections whose users are being asked for. A bus admits 256 of one user (dbus-daemon, max_connections_per_user).
const STRANGERS: usize = 512;
/// Connections whose users are remembered. One that was forgotten is asked for again.
const KNOWN: usize = 1024;

/// The calls that wait or are being served.
#[derive(Debug)]
pub(crate) struct Desk<C> {
    known: BTreeMap<String, u32>,
    /// The known ones, oldest first.
    order: VecDeque<String>,
    strangers: BTreeMap<String, Vec<C>>,
    lines: BTreeMap<u32, Line<C>>,
    /// Users with calls that wait, in the order in which they are served.
    turns: VecDeque<u32>,
}

#[derive(Debug)]
struct Line<C> {
    waiting: VecDeque<C>,
    served: usize,
}

/// What becomes of a call that comes in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival<C> {
    /// It waits.
    Waits,
    /// It waits, and the bus must be asked whose connection this is.
    WhoIsIt,
    /// There are too many.
    Refused(C),
}

impl<C> Default for Desk<C> {
    fn default() -> Self {
        Desk {
            known: BTreeMap::new(),
            order: VecDeque::new(),
            strangers: BTreeMap::new(),
            lines: BTreeMap::new(),
            turns: VecDeque::new(),
        }
    }
}

impl<C> Desk<C> {
    /// Takes a call in.
    pub(crate) fn arrive(&mut self, sender: &str, call: C) -> Arrival<C> {
        if let Some(uid) = self.known.get(sender) {
            return self.line_up(*uid, call).map_or(Arrival::Waits, Arrival::Refused);
        }
        let room = self.strangers.len() < STRANGERS;
        match self.strangers.get_mut(sender) {
            Some(calls) if calls.len() < OUTSTANDING => {
                calls.push(call);
                Arrival::Waits
            }
            Some(_) => Arrival::Refused(call),
            None if room => {
                self.strangers.insert(sender.to_owned(), vec![call]);
                Arrival::WhoIsIt
            }
            None => Arrival::Refused(call),
        }
    }

    /// The bus has said whose connection `sender` is, or that there is none of that name any more. Gives back the calls
    /// that are too many.
    pub(crate) fn introduce(&mut self, sender: &str, uid: Option<u32>) -> Vec<C> {
        let calls = self.strangers.remove(sender).unwrap_or_default();
        // Nobody is left to be answered.
        let Some(uid) = uid else { return Vec::new() };
        if self.known.insert(sender.to_owned(), uid).is_none() {
            self.order.push_back(sender.to_owned());
            if self.order.len() > KNOWN
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        calls.into_iter().filter_map(|call| self.line_up(uid, call)).collect()
    }

    fn line_up(&mut self, uid: u32, call: C) -> Option<C> {
        let line = self.lines.entry(uid).or_insert_with(|| Line { waiting: VecDeque::new(), served: 0 });
        if line.waiting.len() + line.served >= OUTSTANDING {
            return Some(call);
        }
        if line.waiting.is_empty() {
            self.turns.push_back(uid);
        }
        line.waiting.push_back(call);
        None
    }

    /// The call whose turn it is, and its user. [`Desk::done`] must follow.
    pub(crate) fn next(&mut self) -> Option<(u32, C)> {
        let uid = self.turns.pop_front()?;
        let line = self.lines.get_mut(&uid)?;
        let call = line.waiting.pop_front()?;
        line.served += 1;
        if !line.waiting.is_empty() {
            self.turns.push_back(uid);
        }
        Some((uid, call))
    }

    /// A call of this user has been answered.
    pub(crate) fn done(&mut self, uid: u32) {
        if let Some(line) = self.lines.get_mut(&uid) {
            line.served = line.served.saturating_sub(1);
            if line.served == 0 && line.waiting.is_empty() {
                self.lines.remove(&uid);
            }
        }
    }

    /// Whether there is a call whose turn it is.
    pub(crate) fn has_next(&self) -> bool {
        !self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(desk: &mut Desk<u32>) -> Vec<(u32, u32)> {
        std::iter::from_fn(|| desk.next()).collect()
    }

    #[test]
    fn one_user_has_sixteen_calls_and_no_more_however_many_connections() {
        let mut desk = Desk::default();
        for (number, sender) in [":1.1", ":1.2"].into_iter().enumerate() {
            assert_eq!(desk.arrive(sender, 100 * u32::try_from(number).unwrap()), Arrival::WhoIsIt);
            assert!(desk.introduce(sender, Some(61001)).is_empty());
        }
        for call in 2..16 {
            assert_eq!(desk.arrive(":1.2", call), Arrival::Waits);
        }
        assert_eq!(desk.arrive(":1.1", 16), Arrival::Refused(16));
        assert_eq!(desk.arrive(":1.2", 17), Arrival::Refused(17));
        // What is being served counts as what waits does.
        assert_eq!(served(&mut desk).len(), 16);
        assert_eq!(desk.arrive(":1.2", 18), Arrival::Refused(18));
        desk.done(61001);
        assert_eq!(desk.arrive(":1.2", 19), Arrival::Waits);
        assert_eq!(desk.arrive(":1.2", 20), Arrival::Refused(20));
    }

    #[test]
    fn a_stranger_has_no_more_than_a_known_caller() {
        let mut desk = Desk::default();
        assert_eq!(desk.arrive(":1.1", 0), Arrival::WhoIsIt);
        for call in 1..16 {
            assert_eq!(desk.arrive(":1.1", call), Arrival::Waits);
        }
        assert_eq!(desk.arrive(":1.1", 16), Arrival::Refused(16));
        assert_eq!(desk.next(), None, "nobody is served before he is known");
        assert_eq!(desk.arrive(":1.2", 17), Arrival::WhoIsIt);
        assert_eq!(desk.introduce(":1.2", Some(61001)), []);
        // The other connection of the same user has taken one place.
        assert_eq!(desk.introduce(":1.1", Some(61001)), [15]);
    }

    #[test]
    fn strangers_are_bounded_and_those_who_have_gone_are_forgotten() {
        let mut desk = Desk::default();
        for number in 0..STRANGERS {
            assert_eq!(desk.arrive(&format!(":1.{number}"), 1), Arrival::WhoIsIt);
        }
        assert_eq!(desk.arrive(":2.0", 1), Arrival::Refused(1));
        assert!(desk.introduce(":1.0", None).is_empty());
        assert_eq!(desk.arrive(":2.0", 1), Arrival::WhoIsIt);
        for number in 0..2 * KNOWN {
            desk.introduce(&format!(":3.{number}"), Some(1));
        }
        assert_eq!((desk.known.len(), desk.order.len()), (KNOWN, KNOWN));
        assert!(!desk.has_next() && desk.lines.is_empty());
    }

    #[test]
    fn users_are_served_in_turn_however_much_one_asks() {
        let mut desk = Desk::default();
        for (sender, uid) in [(":1.1", 61001), (":1.2", 61002), (":1.3", 61003)] {
            desk.introduce(sender, Some(uid));
        }
        for call in 0..5 {
            desk.arrive(":1.1", call);
        }
        desk.arrive(":1.2", 5);
        desk.arrive(":1.3", 6);
        desk.arrive(":1.3", 7);
        let order: Vec<u32> = served(&mut desk).into_iter().map(|(uid, _)| uid).collect();
        assert_eq!(order, [61001, 61002, 61003, 61001, 61003, 61001, 61001, 61001]);
        for uid in order {
            desk.done(uid);
        }
        assert!(desk.lines.is_empty(), "nothing is kept of those who do not wait");
    }
}
