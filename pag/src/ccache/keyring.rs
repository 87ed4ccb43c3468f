//! Ccaches of type KEYRING that belong to a uid: whether a ticket has come or gone, and nothing of what is in one.

use std::time::Instant;

use crate::keyring::{self, DESCRIPTION_SPACE, Serial};
use crate::sys::{self, Answer, Identity};

/// A collection is a keyring, with a keyring for each ccache (MIT krb5, src/lib/krb5/ccache/cc_keyring.c), below the
/// persistent keyring or the user's.
const DEPTH: u32 = 3;
/// Members of a keyring that are looked at.
const MOST: usize = 256;
/// Keys that are looked at in all: links to few keyrings can make many paths, and somebody waits for us.
const ALL: usize = 1024;

/// A number that changes when a ticket-granting ticket is put into, or taken out of, a ccache of the uid's keyrings: each
/// ticket is a key, named by its server, and a new one has another serial. 0 when there is none. Looked up by a child that
/// is the user, at most until `deadline`. None where there is no such keyring, or no answer in time.
pub fn stamp(name: &str, user: &Identity, deadline: Instant) -> Option<u64> {
    let is_persistent = name.starts_with("KEYRING:persistent:");
    if !is_persistent && !name.starts_with("KEYRING:user:") {
        return None;
    }
    let answer = sys::ask_as(user, deadline, |put| {
        let look = || {
            let mut left = ALL;
            // Ours is empty, and ends with us.
            let top =
                if is_persistent { keyring::persistent_into(keyring::process_id()).ok()? } else { keyring::user_id() };
            Some(tickets(top, DEPTH, &mut left))
        };
        look().is_some_and(|sum| put(&sum.to_ne_bytes()))
    });
    let bytes = answer.and_then(Answer::bytes).ok()?;
    Some(u64::from_ne_bytes(bytes[..].try_into().ok()?))
}

/// A sum over the serials of the ticket-granting tickets in a keyring and those below it. Allocates nothing.
fn tickets(ring: Serial, depth: u32, left: &mut usize) -> u64 {
    let mut members = [0; MOST * size_of::<i32>()];
    let Ok(members) = keyring::members_into(ring, &mut members) else { return 0 };
    let mut sum = 0_u64;
    for key in members {
        let Some(rest) = left.checked_sub(1) else { break };
        *left = rest;
        let mut text = [0; DESCRIPTION_SPACE];
        let Ok(found) = keyring::describe_into(key, &mut text) else { continue };
        let part = if found.is_keyring() {
            if depth > 0 { tickets(key, depth - 1, left) } else { 0 }
        } else if found.name.starts_with(b"krbtgt/") {
            // Spread out, so that two that change do not make up for each other.
            u64::from(key.get().unsigned_abs()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        } else {
            0
        };
        sum = sum.wrapping_add(part);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(name: &str, place: Serial) -> Serial {
        keyring::add("keyring", name, b"", place).unwrap()
    }

    /// In a session keyring that is this thread's alone.
    #[test]
    fn a_maze_of_keyrings_takes_bounded_work() {
        keyring::join(None).unwrap();
        let session = keyring::session().unwrap();
        let ticket = keyring::add("user", "krbtgt/EXAMPLE.TEST@EXAMPLE.TEST", b"x", session).unwrap();
        let mut left = ALL;
        let one = tickets(session, DEPTH, &mut left);
        assert_ne!(one, 0, "a ticket is found");
        assert!(left > ALL - 8, "where there is little to look through");
        // 30 keyrings, each with the same 30 in it, each with the same 30: 27,000 ways from 90 keyrings.
        let floors: Vec<Vec<Serial>> =
            (0..3).map(|floor| (0..30).map(|n| keyring(&format!("{floor}.{n}"), session)).collect()).collect();
        for (upper, lower) in floors.iter().zip(floors.iter().skip(1)) {
            for (from, to) in upper.iter().flat_map(|from| lower.iter().map(move |to| (from, to))) {
                keyring::link(*to, *from).unwrap();
            }
        }
        let mut left = ALL;
        tickets(session, DEPTH, &mut left);
        assert_eq!(left, 0, "no more is looked at than a few keys");
        keyring::unlink(ticket, session).unwrap();
        assert_eq!(tickets(ticket, DEPTH, &mut 9), 0, "and what is no keyring holds none");
        keyring::join(None).unwrap();
    }
}
