//! Ccaches of type KEYRING: what is in them, and whether a ticket has come or gone.
//!
//! A collection is a keyring below an anchor: the uid's persistent keyring, the user keyring or the session keyring. It holds a
//! keyring for each ccache, and a key that names the primary one. A ccache holds its principal, and a key for each ticket, named
//! by its server (MIT krb5, src/lib/krb5/ccache/cc_keyring.c; Heimdal's lib/krb5/krcache.c is made alike). All of it is made
//! by the user, and looked at by a child that is the user.

use std::io;
use std::time::Instant;

use super::contents::Which;
use super::pieces::Pieces;
use crate::keyring::{self, DESCRIPTION_SPACE, Serial};
use crate::sys::{self, Answer, Identity};

/// Keyrings below each other that are looked through for tickets: anchor, collection, ccache.
const DEPTH: u32 = 3;
/// Members of a keyring that are looked at.
const MOST: usize = 256;
/// Keys that are looked at in all: links to few keyrings can make many paths, and somebody waits for us.
const ALL: usize = 1024;

/// The collection in the persistent keyring, and what is put before the names of others.
const PERSISTENT: &str = "_krb";
const PREFIX: &str = "_krb_";
/// The key that names the primary ccache of a collection, and the version of what it holds.
const PRIMARY: &[u8] = b"krb_ccache:primary";
const PRIMARY_VERSION: [u8; 4] = [0, 0, 0, 1];
/// The key that holds a ccache's principal, and the beginning of the names of all that are no tickets.
const PRINCIPAL: &[u8] = b"__krb5_princ__";
const SPECIAL: &[u8] = b"__krb5_";

/// Where a collection hangs.
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
    /// The primary ccache, where nothing names it.
    first: String,
    /// One ccache of the collection.
    subsidiary: Option<String>,
}

impl Name {
    /// Takes apart what stands behind `KEYRING:` (cc_keyring.c, parse_residual and get_collection).
    ///
    /// # Errors
    /// In words, why such a ccache cannot serve a PAG.
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

    /// Whether it is in the session keyring of whoever uses the name.
    pub fn is_of_session(&self) -> bool {
        self.anchor == Anchor::Session
    }

    /// The keyring where the collection hangs, in a way in which this process possesses what is below it. Our process
    /// keyring is empty, and ends with us.
    fn anchor(&self) -> io::Result<Serial> {
        match self.anchor {
            Anchor::Session => Ok(keyring::session_id()),
            Anchor::User => user_keyring(),
            Anchor::Persistent(uid) => match keyring::persistent_into(uid, keyring::process_id()) {
                // MIT's library does the same (cc_keyring.c, get_persistent_fallback).
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

    /// The collection's keyring; none where there is none.
    fn collection(&self, look: &mut Look) -> io::Result<Option<Serial>> {
        let found = self.anchor().and_then(|anchor| {
            // A keyring that can't be read tells nothing of what it holds.
            keyring::members_into(anchor, &mut []).map(drop)?;
            Ok(look.find(anchor, b"keyring", self.keyring.as_bytes()))
        });
        match found {
            Err(error) if error.raw_os_error() == Some(libc::ENOKEY) => Ok(None),
            found => found,
        }
    }
}

/// The user keyring confers no possession; being linked in our process keyring does.
fn user_keyring() -> io::Result<Serial> {
    keyring::link(keyring::user_id(), keyring::process_id())?;
    Ok(keyring::user_id())
}

/// EPERM unless the session keyring that this process has is the user's, or root's, who makes one for a login. In `su - bob` it may
/// be alice's: the tickets there are hers.
fn check_session(user: u32) -> io::Result<()> {
    let mut text = [0; DESCRIPTION_SPACE];
    let owner = keyring::describe_into(keyring::session_id(), &mut text)?.uid;
    if owner == user || owner == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// Whose keys are looked at, and how many more may be.
struct Look {
    owner: u32,
    /// Whether root's keys count, too.
    roots: bool,
    left: usize,
}

impl Look {
    /// For the user that this process is.
    fn new() -> Self {
        Look { owner: sys::ids().uid[1], roots: true, left: ALL }
    }

    /// For a ccache of that name. What a PAM module has put into the user's keyrings is root's (pam_krb5, sssd), and is meant
    /// for the user; in a session keyring it may be the ticket of a root who calls su.
    fn of(name: &Name) -> Self {
        Look { roots: !name.is_of_session(), ..Look::new() }
    }

    /// Gives the user's keys in `ring`, with their descriptions, to `see`, until it has something. Keys of other users are passed
    /// over: a ticket that another user has put there is not this user's. Allocates nothing.
    fn at<T>(
        &mut self,
        ring: Serial,
        mut see: impl FnMut(&mut Self, Serial, keyring::Description<'_>) -> Option<T>,
    ) -> Option<T> {
        let mut members = [0; MOST * size_of::<i32>()];
        for key in keyring::members_into(ring, &mut members).ok()? {
            self.left = self.left.checked_sub(1)?;
            let mut text = [0; DESCRIPTION_SPACE];
            let Ok(found) = keyring::describe_into(key, &mut text) else { continue };
            if found.uid != self.owner && !(self.roots && found.uid == 0) {
                continue;
            }
            if let Some(seen) = see(self, key, found) {
                return Some(seen);
            }
        }
        None
    }

    fn find(&mut self, ring: Serial, kind: &[u8], name: &[u8]) -> Option<Serial> {
        self.at(ring, |_, key, found| (found.kind == kind && found.name == name).then_some(key))
    }
}

/// Says what is in the ccache `name`, or in `which` of a collection's, for a child that is the user. Nothing where there is
/// none, and the error where the kernel refuses the keyring. None when no more can be said. `space` is for what is read. Allocates nothing.
pub(super) fn tell(name: &Name, which: Which, space: &mut [u8], pieces: &mut Pieces<'_>) -> Option<()> {
    let mut look = Look::of(name);
    let checked = if name.is_of_session() { check_session(look.owner) } else { Ok(()) };
    let collection = match checked.and_then(|()| name.collection(&mut look)) {
        Ok(Some(collection)) => collection,
        Ok(None) => return Some(()),
        Err(error) => return pieces.error(&error),
    };
    let cache = match (&name.subsidiary, which) {
        (Some(one), _) => look.find(collection, b"keyring", one.as_bytes()),
        (None, Which::Primary) => {
            let wanted = primary(&mut look, collection, space).unwrap_or(name.first.as_bytes());
            look.find(collection, b"keyring", wanted)
        }
        (None, Which::All) => {
            let silenced = look.at(collection, |look, cache, found| {
                let told = if found.is_keyring() { tell_cache(look, cache, space, pieces) } else { Some(()) };
                told.is_none().then_some(())
            });
            return silenced.is_none().then_some(());
        }
    };
    cache.map_or(Some(()), |cache| tell_cache(&mut look, cache, space, pieces))
}

/// The name of a collection's primary ccache (cc_keyring.c, parse_index).
fn primary<'a>(look: &mut Look, collection: Serial, space: &'a mut [u8]) -> Option<&'a [u8]> {
    let key = look.find(collection, b"user", PRIMARY)?;
    let length = keyring::payload_into(key, space).ok()?;
    let ([head @ .., a, b, c, d], name) = space.get(..length)?.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok()?;
    name.get(..length).filter(|_| *head == PRIMARY_VERSION)
}

fn tell_cache(look: &mut Look, cache: Serial, space: &mut [u8], pieces: &mut Pieces<'_>) -> Option<()> {
    let Some(principal) = look.find(cache, b"user", PRINCIPAL) else { return Some(()) };
    let Some(bytes) = payload(principal, space) else { return Some(()) };
    pieces.principal(bytes)?;
    let silenced = look.at(cache, |_, key, found| {
        let is_ticket = matches!(found.kind, b"user" | b"big_key") && !found.name.starts_with(SPECIAL);
        let told =
            if is_ticket { payload(key, space).map_or(Some(()), |bytes| pieces.credential(bytes)) } else { Some(()) };
        told.is_none().then_some(())
    });
    silenced.is_none().then_some(())
}

/// What a key holds, where that can be read and `space` is enough for it.
fn payload(key: Serial, space: &mut [u8]) -> Option<&[u8]> {
    let length = keyring::payload_into(key, space).ok()?;
    space.get(..length)
}

/// A number that changes when a ticket-granting ticket is put into, or taken out of, a ccache of the collection that `name` is
/// of: each ticket is a key, named by its server, and a new one has another serial. 0 when there is none. Looked up by a child
/// that is the user, at most until `deadline`. None for one of a session, which is no other process's to see, or without an
/// answer in time.
#[allow(unsafe_code)] // makes a child
pub fn stamp(name: &Name, user: &Identity, deadline: Instant) -> Option<u64> {
    if name.is_of_session() {
        return None;
    }
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer: io::Result<Answer> = unsafe {
        sys::ask_as(user, deadline, |put| {
            let mut look = Look::new();
            let Ok(anchor) = name.anchor() else { return false };
            let collection = look.find(anchor, b"keyring", name.keyring.as_bytes());
            let sum = collection.map_or(0, |collection| tickets(&mut look, collection, DEPTH - 1));
            put(&sum.to_ne_bytes())
        })
    };
    let bytes = answer.and_then(Answer::bytes).ok()?;
    Some(u64::from_ne_bytes(bytes[..].try_into().ok()?))
}

/// A sum over the serials of the ticket-granting tickets in a keyring and those below it. Allocates nothing.
fn tickets(look: &mut Look, ring: Serial, depth: u32) -> u64 {
    let mut sum = 0_u64;
    look.at(ring, |look, key, found| {
        let part = if found.is_keyring() {
            if depth > 0 { tickets(look, key, depth - 1) } else { 0 }
        } else if found.name.starts_with(b"krbtgt/") {
            // Spread out, so that two that change do not make up for each other.
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

    /// What this thread finds. Its session keyring is its own in these tests.
    fn told(name: &str, which: Which) -> Vec<Contents> {
        let name = Name::parse(name).unwrap();
        let (mut bytes, mut space) = (Vec::new(), vec![0; SPACE]);
        let mut put = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            true
        };
        tell(&name, which, &mut space, &mut Pieces::new(&mut put)).unwrap();
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
    fn a_collection_has_a_primary_ccache_and_others() {
        keyring::join(None).unwrap();
        let session = keyring::session().unwrap();
        assert!(told("session:x", Which::Primary).is_empty(), "no collection");
        let collection = keyring("_krb_x", session);
        assert!(told("session:x", Which::Primary).is_empty(), "an empty one");
        cache(collection, "x", &["alice"], 100);
        cache(collection, "krb_ccache_1", &["alice", "admin"], 200);
        assert_eq!(
            principals(&told("session:x", Which::Primary)),
            ["alice@R"],
            "the first one is called as the collection is"
        );
        set_primary(collection, "krb_ccache_1");
        assert_eq!(principals(&told("session:x", Which::Primary)), ["alice/admin@R"]);
        assert_eq!(principals(&told("x", Which::Primary)), ["alice/admin@R"], "without an anchor it is the session's");
        let all = told("session:x", Which::All);
        assert_eq!(principals(&all), ["alice@R", "alice/admin@R"]);
        assert_eq!((all[0].summary.tgt_expires, all[1].summary.tgt_expires), (Some(100), Some(200)));
        assert_eq!(principals(&told("session:x:x", Which::All)), ["alice@R"], "one that is named");
        set_primary(collection, "gone");
        assert!(told("session:x", Which::Primary).is_empty());
        keyring::join(None).unwrap();
    }

    #[test]
    fn what_a_user_has_put_there_instead_of_a_ccache_is_passed_over() {
        keyring::join(None).unwrap();
        let session = keyring::session().unwrap();
        let collection = keyring("_krb_x", session);
        let all = || told("session:x", Which::All);
        keyring::add("user", "x", b"no keyring", collection).unwrap();
        let one = keyring("x", collection);
        keyring::add("user", "krbtgt/R@R", &credential(&["krbtgt", "R"], 100), one).unwrap();
        assert!(all().is_empty(), "one without a principal");
        keyring::add("user", "__krb5_princ__", b"none", one).unwrap();
        assert!(all().is_empty(), "nor is this one");
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
                told("session:x", Which::Primary).len(),
                1,
                "{primary:?}: the one that is called as the collection is"
            );
        }
        keyring::join(None).unwrap();
    }

    /// As `su - bob` has it, when alice calls it: in her session keyring, with her keys.
    #[test]
    fn what_belongs_to_another_user_is_no_ccache() {
        let found = || {
            let name = Name::parse("session:x").unwrap();
            let (mut bytes, mut space) = (Vec::new(), vec![0; SPACE]);
            let mut put = |piece: &[u8]| {
                bytes.extend_from_slice(piece);
                true
            };
            tell(&name, Which::All, &mut space, &mut Pieces::new(&mut put)).unwrap();
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

    /// In a session keyring that is this thread's alone.
    #[test]
    fn a_maze_of_keyrings_takes_bounded_work() {
        keyring::join(None).unwrap();
        let session = keyring::session().unwrap();
        let ticket = keyring::add("user", "krbtgt/EXAMPLE.TEST@EXAMPLE.TEST", b"x", session).unwrap();
        let mut look = Look::new();
        let one = tickets(&mut look, session, DEPTH);
        assert_ne!(one, 0, "a ticket is found");
        assert!(look.left > ALL - 8, "where there is little to look through");
        // 30 keyrings, each with the same 30 in it, each with the same 30: 27,000 ways from 90 keyrings.
        let floors: Vec<Vec<Serial>> =
            (0..3).map(|floor| (0..30).map(|n| keyring(&format!("{floor}.{n}"), session)).collect()).collect();
        for (upper, lower) in floors.iter().zip(floors.iter().skip(1)) {
            for (from, to) in upper.iter().flat_map(|from| lower.iter().map(move |to| (from, to))) {
                keyring::link(*to, *from).unwrap();
            }
        }
        let mut look = Look::new();
        tickets(&mut look, session, DEPTH);
        assert_eq!(look.left, 0, "no more is looked at than a few keys");
        keyring::unlink(ticket, session).unwrap();
        assert_eq!(
            tickets(&mut Look { left: 9, ..Look::new() }, ticket, DEPTH),
            0,
            "and what is no keyring holds none"
        );
        keyring::join(None).unwrap();
    }
}
