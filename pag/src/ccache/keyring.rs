//! Ccaches of type KEYRING. A child reads them, or finds out whether a ticket has come or gone.
//!
//! A collection is a keyring below an anchor: the uid's persistent keyring, the user keyring or the session keyring. It
//! holds a keyring for each ccache, and a key that names the primary one. A ccache holds its principal, and a key for
//! each ticket. The key has the name of the ticket's server (MIT krb5, src/lib/krb5/ccache/cc_keyring.c; Heimdal's
//! lib/krb5/krcache.c is alike). The user makes all of it, so a child that has become the user reads it.

use std::io;
use std::time::Instant;

use super::contents::Which;
use super::pieces::Pieces;
use crate::keyring::{self, DESCRIPTION_SPACE, Serial};
use crate::sys::{self, Answer, Identity};

/// Levels of keyrings with tickets: anchor, collection, ccache.
const DEPTH: u32 = 3;
/// Most members of a keyring that are read.
const MOST: usize = 256;
/// Most keys that are read in all. Few keyrings can make very many paths by their links, and the login waits for the
/// child.
const ALL: usize = 1024;

/// The name of the collection in the persistent keyring.
const PERSISTENT: &str = "_krb";
/// Stands before the names of other collections.
const PREFIX: &str = "_krb_";
/// The key that names the primary ccache of a collection.
const PRIMARY: &[u8] = b"krb_ccache:primary";
/// The version of that key's payload.
const PRIMARY_VERSION: [u8; 4] = [0, 0, 0, 1];
/// The key that holds the principal of a ccache.
const PRINCIPAL: &[u8] = b"__krb5_princ__";
/// The beginning of the names of keys that are no tickets.
const SPECIAL: &[u8] = b"__krb5_";

/// The keyring above a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Anchor {
    /// The persistent keyring of this uid, or of the user.
    Persistent(Option<u32>),
    User,
    Session,
}

/// The name of a KEYRING ccache, or of a collection: `KEYRING:anchor:collection[:ccache]`, or `KEYRING:collection`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    anchor: Anchor,
    /// The collection's keyring.
    keyring: String,
    /// The primary ccache, if no key names it.
    first: String,
    /// One ccache of the collection.
    subsidiary: Option<String>,
}

impl Name {
    /// Takes the text after `KEYRING:` apart (cc_keyring.c, parse_residual and get_collection).
    ///
    /// # Errors
    /// Why a PAG can't use such a ccache, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it names no keyring".to_owned());
        }
        let (anchor, rest) = text.split_once(':').unwrap_or(("legacy", text));
        let (collection, subsidiary) =
            rest.split_once(':').map_or((rest, None), |(collection, one)| (collection, Some(one.to_owned())));
        let anchor = match anchor {
            "persistent" if collection.is_empty() => Anchor::Persistent(None),
            "persistent" => Anchor::Persistent(Some(collection.parse().map_err(|_| "it names no uid".to_owned())?)),
            "user" => Anchor::User,
            "session" | "legacy" => Anchor::Session,
            "process" | "thread" => {
                return Err("a ccache in the keyring of a process or thread ends before the login's program begins; \
                            use FILE, DIR, KCM or KEYRING:persistent"
                    .to_owned());
            }
            _ => return Err("it names a keyring that Kerberos does not know".to_owned()),
        };
        let keyring = match anchor {
            Anchor::Persistent(_) => PERSISTENT.to_owned(),
            Anchor::User | Anchor::Session => format!("{PREFIX}{collection}"),
        };
        let first = if collection.is_empty() { "tkt" } else { collection }.to_owned();
        Ok(Name { anchor, keyring, first, subsidiary })
    }

    /// Whether the ccache is in the session keyring of the process that uses this name.
    pub fn is_of_session(&self) -> bool {
        self.anchor == Anchor::Session
    }

    /// The keyring above the collection. This process then possesses the keys below it, by links from its process
    /// keyring. The process keyring of a child is empty, and ends with the child.
    fn anchor(&self) -> io::Result<Serial> {
        match self.anchor {
            Anchor::Session => Ok(keyring::session_id()),
            Anchor::User => user_keyring(),
            Anchor::Persistent(uid) => match keyring::persistent_into(uid, keyring::process_id()) {
                // Without persistent keyrings, MIT's library uses the user keyring (cc_keyring.c,
                // get_persistent_fallback).
                Err(error)
                    if error.raw_os_error() == Some(libc::EOPNOTSUPP)
                        && uid.is_none_or(|uid| uid == sys::ids().uid[1]) =>
                {
                    user_keyring()
                }
                found => found,
            },
        }
    }

    /// The keyring of the collection. None if there is no such collection.
    fn collection(&self, search: &mut Search) -> io::Result<Option<Serial>> {
        let found = self.anchor().and_then(|anchor| {
            // An error says that the keyring can't be read. It may have a collection.
            keyring::members_into(anchor, &mut []).map(drop)?;
            Ok(search.find(anchor, b"keyring", self.keyring.as_bytes()))
        });
        match found {
            Err(error) if error.raw_os_error() == Some(libc::ENOKEY) => Ok(None),
            found => found,
        }
    }
}

/// The user keyring, linked into the process keyring. Only by that link does this process possess the keys in it.
fn user_keyring() -> io::Result<Serial> {
    keyring::link(keyring::user_id(), keyring::process_id())?;
    Ok(keyring::user_id())
}

/// Checks the owner of this process's session keyring. It must be the user, or root, which makes session keyrings for
/// logins. In
/// `su - bob` it may be alice's, with alice's tickets.
///
/// # Errors
/// EPERM for another owner.
fn check_session(user: u32) -> io::Result<()> {
    let mut text = [0; DESCRIPTION_SPACE];
    let owner = keyring::describe_into(keyring::session_id(), &mut text)?.uid;
    if owner == user || owner == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// A search through keyrings, which takes bounded work.
struct Search {
    /// Keys of this uid are visited.
    owner: u32,
    /// Whether root's keys are visited, too.
    takes_root: bool,
    /// The number of keys that may still be read.
    left: usize,
}

impl Search {
    /// A search for keys of this process's uid, and of root.
    fn new() -> Self {
        Search { owner: sys::ids().uid[1], takes_root: true, left: ALL }
    }

    /// A search for the ccache of this name. PAM modules such as pam_krb5 and sssd put keys of root into the user's
    /// keyrings, for the user. Root's keys in a session keyring may be tickets of a root that has called su.
    fn of(name: &Name) -> Self {
        Search { takes_root: !name.is_of_session(), ..Search::new() }
    }

    /// Calls `visit` with each key of the user in `ring`, until it returns a value. Passes over the keys of other
    /// users, since a ticket of another user is not for this one. Allocates nothing.
    fn at<T>(
        &mut self,
        ring: Serial,
        mut visit: impl FnMut(&mut Self, Serial, keyring::Description<'_>) -> Option<T>,
    ) -> Option<T> {
        let mut members = [0; MOST * size_of::<i32>()];
        for key in keyring::members_into(ring, &mut members).ok()? {
            self.left = self.left.checked_sub(1)?;
            let mut text = [0; DESCRIPTION_SPACE];
            let Ok(found) = keyring::describe_into(key, &mut text) else { continue };
            if found.uid != self.owner && !(self.takes_root && found.uid == 0) {
                continue;
            }
            if let Some(found) = visit(self, key, found) {
                return Some(found);
            }
        }
        None
    }

    /// The key of this type and name in `ring`.
    fn find(&mut self, ring: Serial, kind: &[u8], name: &[u8]) -> Option<Serial> {
        self.at(ring, |_, key, found| (found.kind == kind && found.name == name).then_some(key))
    }
}

/// Writes the contents of the ccache `name`, or of `which` ccaches of a collection, to `pieces`. Runs in a child that
/// has become the user. Writes nothing if there is no such ccache, and the error if the kernel refuses the keyring.
/// None if `pieces` has no more room.
/// `space` holds the payload of one key. Allocates nothing.
pub(super) fn write_pieces(name: &Name, which: Which, space: &mut [u8], pieces: &mut Pieces<'_>) -> Option<()> {
    let mut search = Search::of(name);
    let checked = if name.is_of_session() { check_session(search.owner) } else { Ok(()) };
    let collection = match checked.and_then(|()| name.collection(&mut search)) {
        Ok(Some(collection)) => collection,
        Ok(None) => return Some(()),
        Err(error) => return pieces.error(&error),
    };
    let cache = match (&name.subsidiary, which) {
        (Some(one), _) => search.find(collection, b"keyring", one.as_bytes()),
        (None, Which::Primary) => {
            let wanted = primary(&mut search, collection, space).unwrap_or(name.first.as_bytes());
            search.find(collection, b"keyring", wanted)
        }
        (None, Which::All) => {
            let stopped = search.at(collection, |search, cache, found| {
                let written = if found.is_keyring() { write_cache(search, cache, space, pieces) } else { Some(()) };
                written.is_none().then_some(())
            });
            return stopped.is_none().then_some(());
        }
    };
    cache.map_or(Some(()), |cache| write_cache(&mut search, cache, space, pieces))
}

/// The name of the primary ccache of a collection (cc_keyring.c, parse_index).
fn primary<'a>(search: &mut Search, collection: Serial, space: &'a mut [u8]) -> Option<&'a [u8]> {
    let key = search.find(collection, b"user", PRIMARY)?;
    let length = keyring::payload_into(key, space).ok()?;
    let ([head @ .., a, b, c, d], name) = space.get(..length)?.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok()?;
    name.get(..length).filter(|_| *head == PRIMARY_VERSION)
}

/// Writes the principal and the tickets of one ccache.
fn write_cache(search: &mut Search, cache: Serial, space: &mut [u8], pieces: &mut Pieces<'_>) -> Option<()> {
    let Some(principal) = search.find(cache, b"user", PRINCIPAL) else { return Some(()) };
    let Some(bytes) = payload(principal, space) else { return Some(()) };
    pieces.principal(bytes)?;
    let stopped = search.at(cache, |_, key, found| {
        let is_ticket = matches!(found.kind, b"user" | b"big_key") && !found.name.starts_with(SPECIAL);
        let written =
            if is_ticket { payload(key, space).map_or(Some(()), |bytes| pieces.credential(bytes)) } else { Some(()) };
        written.is_none().then_some(())
    });
    stopped.is_none().then_some(())
}

/// The payload of a key. None if it can't be read, or is larger than `space`.
fn payload(key: Serial, space: &mut [u8]) -> Option<&[u8]> {
    let length = keyring::payload_into(key, space).ok()?;
    space.get(..length)
}

/// A number that changes when a ticket-granting ticket comes into a ccache of this collection or goes. Each ticket is a
/// key with the name of its server, and a new ticket has another serial. 0 without tickets. A child reads the keyrings
/// as the user, at most until
/// `deadline`. None for a session keyring, which no other process can read, and without an answer in time.
#[allow(unsafe_code)] // makes a child
pub fn stamp(name: &Name, user: &Identity, deadline: Instant) -> Option<u64> {
    if name.is_of_session() {
        return None;
    }
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer: io::Result<Answer> = unsafe {
        sys::ask_as(user, deadline, |put| {
            let mut search = Search::new();
            let Ok(anchor) = name.anchor() else { return false };
            let collection = search.find(anchor, b"keyring", name.keyring.as_bytes());
            let sum = collection.map_or(0, |collection| tickets(&mut search, collection, DEPTH - 1));
            put(&sum.to_ne_bytes())
        })
    };
    let bytes = answer.and_then(Answer::bytes).ok()?;
    Some(u64::from_ne_bytes(bytes[..].try_into().ok()?))
}

/// A sum over the serials of the ticket-granting tickets in a keyring and in those below it. Allocates nothing.
fn tickets(search: &mut Search, ring: Serial, depth: u32) -> u64 {
    let mut sum = 0_u64;
    search.at(ring, |search, key, found| {
        let part = if found.is_keyring() {
            if depth > 0 { tickets(search, key, depth - 1) } else { 0 }
        } else if found.name.starts_with(b"krbtgt/") {
            // The factor spreads the serials, so that two changes do not add up to the old sum.
            u64::from(key.get().unsigned_abs()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        } else {
            0
        };
        sum = sum.wrapping_add(part);
        None::<()>
    });
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ccache::contents::{Contents, SPACE};
    use crate::ccache::format::tests::{credential, name};
    use crate::ccache::pieces;

    fn keyring(name: &str, place: Serial) -> Serial {
        keyring::add("keyring", name, b"", place).unwrap()
    }

    /// The ccaches that this thread reads. In these tests it has a session keyring of its own.
    fn read(name: &str, which: Which) -> Vec<Contents> {
        let name = Name::parse(name).unwrap();
        let (mut bytes, mut space) = (Vec::new(), vec![0; SPACE]);
        let mut put = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            true
        };
        write_pieces(&name, which, &mut space, &mut Pieces::new(&mut put)).unwrap();
        pieces::assemble(&bytes)
    }

    fn principals(found: &[Contents]) -> Vec<String> {
        found.iter().map(|one| one.summary.principal.to_string()).collect()
    }

    /// A ccache with a ticket, as cc_keyring.c makes it.
    fn cache(collection: Serial, called: &str, who: &[&str], end: u32) -> Serial {
        let cache = keyring(called, collection);
        keyring::add("user", "__krb5_princ__", &name(who, "R"), cache).unwrap();
        keyring::add("user", "__krb5_time_offsets__", &[0; 8], cache).unwrap();
        keyring::add("user", "krbtgt/R@R", &credential(&["krbtgt", "R"], end), cache).unwrap();
        cache
    }

    fn set_primary(collection: Serial, called: &str) {
        let length = u32::try_from(called.len()).unwrap().to_be_bytes();
        keyring::add(
            "user",
            "krb_ccache:primary",
            &[&[0, 0, 0, 1], &length[..], called.as_bytes()].concat(),
            collection,
        )
        .unwrap();
    }

    #[test]
    fn the_primary_ccache_or_all_of_a_collection_are_read() {
        keyring::join(None).unwrap();
        let session = keyring::session().unwrap();
        assert!(read("session:x", Which::Primary).is_empty(), "no collection");
        let collection = keyring("_krb_x", session);
        assert!(read("session:x", Which::Primary).is_empty(), "an empty one");
        cache(collection, "x", &["alice"], 100);
        cache(collection, "krb_ccache_1", &["alice", "admin"], 200);
        assert_eq!(
            principals(&read("session:x", Which::Primary)),
            ["alice@R"],
            "the first one has the name of the collection"
        );
        set_primary(collection, "krb_ccache_1");
        assert_eq!(principals(&read("session:x", Which::Primary)), ["alice/admin@R"]);
        assert_eq!(
            principals(&read("x", Which::Primary)),
            ["alice/admin@R"],
            "without an anchor, it is the session keyring"
        );
        let all = read("session:x", Which::All);
        assert_eq!(principals(&all), ["alice@R", "alice/admin@R"]);
        assert_eq!((all[0].summary.tgt_expires, all[1].summary.tgt_expires), (Some(100), Some(200)));
        assert_eq!(principals(&read("session:x:x", Which::All)), ["alice@R"], "a named ccache");
        set_primary(collection, "gone");
        assert!(read("session:x", Which::Primary).is_empty());
        keyring::join(None).unwrap();
    }

    #[test]
    fn keys_that_are_no_ccache_are_passed_over() {
        keyring::join(None).unwrap();
        let session = keyring::session().unwrap();
        let collection = keyring("_krb_x", session);
        let all = || read("session:x", Which::All);
        keyring::add("user", "x", b"no keyring", collection).unwrap();
        let one = keyring("x", collection);
        keyring::add("user", "krbtgt/R@R", &credential(&["krbtgt", "R"], 100), one).unwrap();
        assert!(all().is_empty(), "a ccache without a principal");
        keyring::add("user", "__krb5_princ__", b"none", one).unwrap();
        assert!(all().is_empty(), "a ccache with an invalid principal");
        keyring::add("user", "__krb5_princ__", &name(&["alice"], "R"), one).unwrap();
        let large = vec![7; 30_000];
        for number in 0..3 {
            keyring::add("user", &format!("large{number}"), &large, one).unwrap();
        }
        assert_eq!(all().first().and_then(|one| one.summary.tgt_expires), Some(100));
        for primary in [&b""[..], b"\0\0\0\x02\0\0\0\x01x", b"\0\0\0\x01\xff\xff\xff\xffx", &[0; 7]] {
            if !primary.is_empty() {
                keyring::add("user", "krb_ccache:primary", primary, collection).unwrap();
            }
            assert_eq!(
                read("session:x", Which::Primary).len(),
                1,
                "{primary:?}: the one with the name of the collection"
            );
        }
        keyring::join(None).unwrap();
    }

    /// As in `su - bob`, called by alice, with alice's session keyring and keys.
    #[test]
    fn keys_of_another_user_are_no_ccache() {
        let found = || {
            let name = Name::parse("session:x").unwrap();
            let (mut bytes, mut space) = (Vec::new(), vec![0; SPACE]);
            let mut put = |piece: &[u8]| {
                bytes.extend_from_slice(piece);
                true
            };
            write_pieces(&name, Which::All, &mut space, &mut Pieces::new(&mut put)).unwrap();
            pieces::error(&bytes).map_or(Ok(pieces::assemble(&bytes).len()), |error| Err(error.raw_os_error()))
        };
        keyring::join(None).unwrap();
        let session = keyring::session().unwrap();
        let collection = keyring("_krb_x", session);
        let one = cache(collection, "x", &["alice"], 100);
        assert_eq!(found(), Ok(1));
        if sys::ids().uid[1] == 0 {
            let of_another = |key| keyring::set_owner(key, Some(61002), None).unwrap();
            let again = |key| keyring::set_owner(key, Some(0), None).unwrap();
            for key in [collection, one] {
                of_another(key);
                assert_eq!(found(), Ok(0), "a keyring of another owner");
                again(key);
                assert_eq!(found(), Ok(1));
            }
            of_another(session);
            assert_eq!(found(), Err(Some(libc::EPERM)), "a session keyring of another owner");
        }
        keyring::join(None).unwrap();
    }

    #[test]
    fn a_maze_of_keyrings_takes_bounded_work() {
        keyring::join(None).unwrap();
        let session = keyring::session().unwrap();
        let ticket = keyring::add("user", "krbtgt/EXAMPLE.TEST@EXAMPLE.TEST", b"x", session).unwrap();
        let mut search = Search::new();
        let one = tickets(&mut search, session, DEPTH);
        assert_ne!(one, 0, "a ticket is found");
        assert!(search.left > ALL - 8, "few keys take little work");
        // 30 keyrings, each with the same 30 in it, each with the same 30: 27,000 ways from 90 keyrings.
        let floors: Vec<Vec<Serial>> =
            (0..3).map(|floor| (0..30).map(|n| keyring(&format!("{floor}.{n}"), session)).collect()).collect();
        for (upper, lower) in floors.iter().zip(floors.iter().skip(1)) {
            for (from, to) in upper.iter().flat_map(|from| lower.iter().map(move |to| (from, to))) {
                keyring::link(*to, *from).unwrap();
            }
        }
        let mut search = Search::new();
        tickets(&mut search, session, DEPTH);
        assert_eq!(search.left, 0, "the search ends after some keys");
        keyring::unlink(ticket, session).unwrap();
        assert_eq!(
            tickets(&mut Search { left: 9, ..Search::new() }, ticket, DEPTH),
            0,
            "a key that is no keyring has no tickets"
        );
        keyring::join(None).unwrap();
    }
}
