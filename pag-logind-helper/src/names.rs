//! The names of users, for messages. logind tells them; a name service might not answer, and the helper waits for none.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static NAMES: RefCell<BTreeMap<u32, String>> = const { RefCell::new(BTreeMap::new()) };
}

/// Notes what a user is called. Names are kept when users log out: messages about their end come later.
pub(crate) fn learn(uid: u32, name: String) {
    NAMES.with_borrow_mut(|names| names.insert(uid, name));
}

/// What a user is called, if logind has told.
pub(crate) fn find(uid: u32) -> Option<String> {
    NAMES.with_borrow(|names| names.get(&uid).cloned())
}
