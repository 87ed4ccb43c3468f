//! How messages name users.

use std::cell::Cell;
use std::fmt;

/// Finds the name of a user, and waits for no name service: one may not answer.
pub type FindName = fn(u32) -> Option<String>;

thread_local! {
    static FIND_NAME: Cell<FindName> = const { Cell::new(find_no_name) };
}

fn find_no_name(_: u32) -> Option<String> {
    None
}

/// Says where the messages of this thread take the names of users from.
pub fn name_users_by(find: FindName) {
    FIND_NAME.set(find);
}

/// The uid of a user that was not looked up, or could not be. No user has it.
pub const NO_UID: u32 = u32::MAX;

/// A user as messages name them: `alice (uid 61001)`, or `uid 61001` if the name is not known.
#[derive(Debug, Clone, Copy)]
pub struct User(pub u32);

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let User(uid) = self;
        match (FIND_NAME.get())(*uid) {
            Some(name) if *uid == NO_UID => write!(f, "{name} (uid not known)"),
            Some(name) => write!(f, "{name} (uid {uid})"),
            None if *uid == NO_UID => f.write_str("a user"),
            None => write!(f, "uid {uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names_where_these_are_known() {
        assert_eq!((User(7).to_string(), User(NO_UID).to_string()), ("uid 7".to_owned(), "a user".to_owned()));
        name_users_by(|uid| (uid != 8).then(|| "alice".to_owned()));
        assert_eq!((User(7).to_string(), User(8).to_string()), ("alice (uid 7)".to_owned(), "uid 8".to_owned()));
        assert_eq!(User(NO_UID).to_string(), "alice (uid not known)");
        name_users_by(find_no_name);
    }
}
