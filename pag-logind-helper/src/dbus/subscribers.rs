//! Which connections asked for signals, and which user each belongs to.

use std::collections::BTreeMap;

use super::visibility::may_see;

/// Subscriptions of one user. Each costs one more message for everything that happens to this user's PAGs.
const SUBSCRIPTIONS: usize = 64;

/// The subscribed connections, by their unique names on the bus.
#[derive(Default)]
pub(crate) struct Subscribers(BTreeMap<String, u32>);

impl Subscribers {
    /// Whether this connection is subscribed.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Adds a connection of `uid`. False when this user has [`SUBSCRIPTIONS`] already.
    pub(crate) fn add(&mut self, name: &str, uid: u32) -> bool {
        let has_room = self.0.values().filter(|other| **other == uid).count() < SUBSCRIPTIONS;
        if has_room {
            self.0.insert(name.to_owned(), uid);
        }
        has_room
    }

    /// Removes a connection and gives its user, if it was subscribed.
    pub(crate) fn remove(&mut self, name: &str) -> Option<u32> {
        self.0.remove(name)
    }

    /// Removes all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The connections that may see the PAGs of `owner`.
    pub(crate) fn of(&self, owner: u32) -> impl Iterator<Item = &String> {
        self.0.iter().filter(move |(_, uid)| may_see(**uid, owner)).map(|(name, _)| name)
    }

    /// Whether any connection is to hear of the PAGs of `owner`.
    pub(crate) fn any(&self, owner: u32) -> bool {
        self.of(owner).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_bounded_for_each_user() {
        let mut subscribers = Subscribers::default();
        for number in 0..SUBSCRIPTIONS {
            assert!(subscribers.add(&format!(":1.{number}"), 61001));
        }
        assert!(!subscribers.add(":2.0", 61001));
        assert!(subscribers.contains(":1.0") && !subscribers.contains(":2.0"));
        assert!(subscribers.add(":2.0", 61002));
        assert_eq!(subscribers.remove(":1.0"), Some(61001));
        assert!(subscribers.add(":2.1", 61001));
    }
}
