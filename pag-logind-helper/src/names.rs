//! The names of users, for messages, and because files are named by them. logind tells them, or a child asks the name
//! services: these might not answer, and the helper waits for none.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Pause before name services are asked once more for a name that they did not tell.
const PAUSE: Duration = Duration::from_secs(60);

/// What is known of a user's name.
enum Name {
    Known(String),
    /// A child asks for it.
    Awaited,
    /// The name services did not tell it, or there is none.
    NotTold(Instant),
}

thread_local! {
    static NAMES: RefCell<BTreeMap<u32, Name>> = const { RefCell::new(BTreeMap::new()) };
}

/// Notes what a user is called. Names are kept when users log out: messages about their end come later.
pub(crate) fn learn(uid: u32, name: String) {
    NAMES.with_borrow_mut(|names| names.insert(uid, Name::Known(name)));
}

/// What a user is called, if that is known.
pub(crate) fn find(uid: u32) -> Option<String> {
    NAMES.with_borrow(|names| match names.get(&uid) {
        Some(Name::Known(name)) => Some(name.clone()),
        _ => None,
    })
}

/// Whether a child is to ask for the name now. It is awaited then.
pub(crate) fn must_ask(uid: u32, now: Instant) -> bool {
    NAMES.with_borrow_mut(|names| {
        let must = match names.get(&uid) {
            None => true,
            Some(Name::NotTold(at)) => now >= *at + PAUSE,
            Some(Name::Known(_) | Name::Awaited) => false,
        };
        if must {
            names.insert(uid, Name::Awaited);
        }
        must
    })
}

/// Notes what the child has found: nothing if the name services did not tell a name in time.
pub(crate) fn told(uid: u32, name: &str, now: Instant) {
    NAMES.with_borrow_mut(|names| {
        if !matches!(names.get(&uid), Some(Name::Known(_))) {
            names.insert(uid, if name.is_empty() { Name::NotTold(now) } else { Name::Known(name.to_owned()) });
        }
    });
}

/// Whether the name is known, or the name services have not told it.
pub(crate) fn is_settled(uid: u32) -> bool {
    NAMES.with_borrow(|names| matches!(names.get(&uid), Some(Name::Known(_) | Name::NotTold(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_once_and_again_after_a_pause() {
        let now = Instant::now();
        assert!(!is_settled(1) && must_ask(1, now) && !must_ask(1, now + PAUSE), "it is awaited");
        told(1, "", now);
        assert!(is_settled(1) && find(1).is_none() && !must_ask(1, now));
        assert!(must_ask(1, now + PAUSE) && !is_settled(1));
        told(1, "alice", now);
        assert_eq!((find(1).as_deref(), must_ask(1, now + PAUSE)), (Some("alice"), false));
        learn(2, "bob".to_owned());
        told(2, "", now);
        assert_eq!(find(2).as_deref(), Some("bob"), "what logind has told stays");
    }
}
