//! Listing and discarding the tokens of all clients in a ring.

use std::fmt;
use std::time::Instant;

use super::keys::{discard_keys, visit_keys};
use super::openafs::{self, Device, Interface};
use super::seen::Seen;
use crate::error::{Error, Result};
use crate::keyring::{self as keys, Serial};
use crate::store::ring::{Enter, Ring};
use crate::sys::{self, Answer, Fields, Put};
use crate::types::{Cell, Token};

/// The tokens of all clients in `ring`. Needs root, or membership in the ring.
///
/// # Errors
/// `System` if the caller may not enter the ring, if the child does not answer until `deadline`, or if a client is there
/// and cannot be asked. The ring may have tokens then.
pub fn tokens(ring: &dyn Enter, deadline: Instant) -> Result<Vec<Token>> {
    list(Some(ring), deadline)
}

/// The tokens of the PAG that the caller is in, with any kind of session keyring. Outside of a PAG there are none.
///
/// # Errors
/// `System` if the session keyring cannot be read, or as [`tokens`].
pub fn tokens_here(deadline: Instant) -> Result<Vec<Token>> {
    list(None, deadline)
}

/// The tokens in `ring`, read by the calling thread itself, which has joined the ring. For a child of the caller's,
/// since the call may hang.
///
/// # Errors
/// `System` if the ring cannot be read, or a client cannot be asked.
pub fn tokens_as_member(ring: &Ring) -> Result<Vec<Token>> {
    let doing = || Error::system(format!("list the tokens in ring {}", ring.serial));
    let openafs = Device::opened().map_err(doing())?;
    let mut found = Vec::new();
    let mut take = |seen: &Seen<'_>| {
        found.extend(Token::of(seen));
        true
    };
    let seen = visit_keys(ring.serial, &mut |key| {
        key.seen.as_ref().map(&mut take);
    });
    if !seen {
        return Err(doing()(std::io::ErrorKind::PermissionDenied.into()));
    }
    match openafs.is_none_or(|interface| openafs::visit(&interface, &mut take)) {
        true => Ok(found),
        false => Err(doing()(std::io::Error::other("OpenAFS's module does not answer"))),
    }
}

/// Discards the tokens in `ring`, of one cell or all, from the calling thread itself. See [`tokens_as_member`].
///
/// # Errors
/// As [`tokens_as_member`], and if a client refuses, or if OpenAFS's device is there and cannot be opened.
pub fn discard_as_member(ring: &Ring, cell: Option<&Cell>) -> Result<()> {
    let doing = || Error::system(format!("discard the tokens in ring {}", ring.serial));
    let openafs = Device::opened();
    let name = cell.map(ToString::to_string);
    if !discard_keys(ring.serial, name.as_deref()) {
        return Err(doing()(std::io::ErrorKind::PermissionDenied.into()));
    }
    match openafs.map_err(doing())?.is_none_or(|interface| openafs::discard(&interface, name.as_deref())) {
        true => Ok(()),
        false => Err(doing()(refused())),
    }
}

/// Discards every token in `ring`, for all its members.
///
/// # Errors
/// As [`tokens`], and if a client refuses.
pub fn discard(ring: &dyn Enter, deadline: Instant) -> Result<()> {
    discard_in(Some(ring), None, deadline)
}

/// Discards the tokens of one cell in `ring`. It is no error if there are none.
///
/// # Errors
/// As [`discard`].
pub fn discard_cell(ring: &dyn Enter, cell: &Cell, deadline: Instant) -> Result<()> {
    discard_in(Some(ring), Some(cell), deadline)
}

/// Discards the tokens of the PAG that the caller is in, of one cell or all. Outside of PAGs OpenAFS's tokens belong
/// to the bare uid; they are left alone.
///
/// # Errors
/// As [`discard`].
pub fn discard_here(cell: Option<&Cell>, deadline: Instant) -> Result<()> {
    discard_in(None, cell, deadline)
}

/// A keyring with tokens, and whether it is the caller's session keyring already.
struct TokenKeyring<'a> {
    ring: Option<&'a dyn Enter>,
    keyring: Serial,
    is_session: bool,
}

impl<'a> TokenKeyring<'a> {
    fn of(ring: Option<&'a dyn Enter>) -> std::io::Result<Self> {
        Ok(match ring {
            Some(ring) => TokenKeyring { ring: Some(ring), keyring: ring.serial(), is_session: ring.is_current() },
            None => TokenKeyring { ring: None, keyring: keys::session()?, is_session: true },
        })
    }

    /// Enters the ring. For a child.
    fn enter(&self) -> bool {
        self.is_session || self.ring.is_some_and(Enter::enter_in_child)
    }
}

impl fmt::Display for TokenKeyring<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.ring.is_some() { "ring" } else { "session keyring" }, self.keyring)
    }
}

#[allow(unsafe_code)] // makes a child
fn list(ring: Option<&dyn Enter>, deadline: Instant) -> Result<Vec<Token>> {
    let target = TokenKeyring::of(ring).map_err(Error::key("find the session keyring"))?;
    let doing = || Error::system(format!("list the tokens in {target}"));
    let mut found = Vec::new();
    let openafs = Device::opened().map_err(doing())?;
    if target.is_session {
        let seen = visit_keys(target.keyring, &mut |key| found.extend(key.seen.as_ref().and_then(Token::of)));
        if !seen {
            return Err(doing()(std::io::ErrorKind::PermissionDenied.into()));
        }
        if openafs.is_none() {
            return Ok(found);
        }
    }
    let keyring = (!target.is_session).then_some(target.keyring);
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer = unsafe { sys::ask(deadline, |put| target.enter() && write_tokens(keyring, openafs.as_ref(), put)) };
    found.extend(read_tokens(&answer.and_then(Answer::bytes).map_err(doing())?));
    Ok(found)
}

/// Writes the tokens in a keyring, and those of OpenAFS, for the parent. False if that failed. For a child that is a
/// member. Allocates nothing.
pub(crate) fn write_tokens(keyring: Option<Serial>, openafs: Option<&Interface>, put: Put<'_>) -> bool {
    let mut written = true;
    let mut take = |seen: &Seen<'_>| {
        written = written && seen.write(put);
        written
    };
    let seen = keyring.is_none_or(|keyring| {
        visit_keys(keyring, &mut |key| {
            key.seen.as_ref().map(&mut take);
        })
    });
    let asked = seen && openafs.is_none_or(|interface| openafs::visit(interface, &mut take));
    asked && written
}

/// Reads the tokens that a child has written.
pub(crate) fn read_tokens(bytes: &[u8]) -> Vec<Token> {
    let (mut fields, mut tokens) = (Fields::new(bytes), Vec::new());
    while let Some(seen) = Seen::read(&mut fields) {
        tokens.extend(Token::of(&seen));
    }
    tokens
}

fn refused() -> std::io::Error {
    std::io::Error::other("OpenAFS's module refuses to")
}

#[allow(unsafe_code)] // makes a child
fn discard_in(ring: Option<&dyn Enter>, cell: Option<&Cell>, deadline: Instant) -> Result<()> {
    let target = TokenKeyring::of(ring).map_err(Error::key("find the session keyring"))?;
    let doing = || match cell {
        Some(cell) => Error::system(format!("discard the tokens of cell {cell} in {target}")),
        None => Error::system(format!("discard the tokens in {target}")),
    };
    let name = cell.map(ToString::to_string);
    let name = name.as_deref();
    let opened = Device::opened();
    let openafs = opened.as_ref().ok().and_then(Option::as_ref);
    if target.is_session && !discard_keys(target.keyring, name) {
        return Err(doing()(std::io::ErrorKind::PermissionDenied.into()));
    }
    if target.is_session && openafs.is_none() {
        return opened.map(drop).map_err(doing());
    }
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer = unsafe {
        sys::ask(deadline, |put| {
            target.enter()
                && (target.is_session || discard_keys(target.keyring, name))
                && put(&[u8::from(openafs.is_none_or(|interface| openafs::discard(interface, name)))])
        })
    };
    let is_done = answer.and_then(Answer::bytes).map_err(doing())?[..] == [1];
    opened.and_then(|_| is_done.then_some(()).ok_or_else(refused)).map_err(doing())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Client, TokenKind, TokenState};
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_token_is_read_as_a_child_wrote_it() {
        let one = Seen {
            client: Client::OpenAfs,
            kind: Some(TokenKind::Rxkad),
            state: TokenState::Expired,
            expires: 1_764_000_000,
            vice_id: Some(1001),
            cell: b"example.test",
            identity: b"",
        };
        let other = Seen { client: Client::Keyring, kind: None, vice_id: None, identity: b"alice@R", ..one };
        let mut bytes = Vec::new();
        let mut put = |part: &[u8]| {
            bytes.extend_from_slice(part);
            true
        };
        assert!(one.write(&mut put) && other.write(&mut put));
        let mut fields = Fields::new(&bytes);
        assert_eq!(Seen::read(&mut fields), Some(one));
        assert_eq!(Seen::read(&mut fields), Some(other));
        assert_eq!(Seen::read(&mut fields), None);
    }

    /// Uses this kernel's keyrings, in this thread's own session keyring.
    #[test]
    fn living_and_dead_tokens_are_listed_and_discarded() {
        let deadline = || Instant::now() + Duration::from_secs(10);
        let listed = || {
            let tokens = tokens_here(deadline()).unwrap().into_iter();
            let mut lines: Vec<_> = tokens.map(|t| format!("{} {} {}", t.cell, t.state.as_str(), t.expires)).collect();
            lines.sort_unstable();
            lines
        };
        keys::join(None).unwrap();
        let session = keys::session().unwrap();
        let add = |name: &str, payload: &str| keys::add("user", name, payload.as_bytes(), session).unwrap();
        let number = |key: Serial| std::num::NonZeroI32::new(key.get()).unwrap();
        add("afs@good.test", "alice@EXAMPLE.TEST 4000000000\n");
        add("afs@long.test", &format!("alice@EXAMPLE.TEST 4000000000\n{}", "x".repeat(30_000)));
        add("afs@ended.test", "alice@EXAMPLE.TEST 1000\n");
        add("afs@garbled.test", "none");
        add("other", "alice@EXAMPLE.TEST 4000000000\n");
        let revoked = add("afs@revoked.test", "alice@EXAMPLE.TEST 4000000000\n");
        keyutils_raw::keyctl_revoke(number(revoked)).unwrap();
        let expired = add("afs@expired.test", "alice@EXAMPLE.TEST 4000000000\n");
        // A user can forge a line of the kernel's list, but not the state of a key.
        let spoof =
            format!("x\n{:08x} IR-Q---     1 expd 3f010000     0     0 user      afs@spoof.test: 9", session.get());
        add(&spoof, "x");
        keyutils_raw::keyctl_set_timeout(number(expired), 1).unwrap();
        while keys::describe(expired, |_| ()).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let rest = ["expired.test expired 0", "good.test good 4000000000", "revoked.test revoked 0"];
        assert_eq!(
            listed(),
            [&["ended.test expired 1000"], &rest[..2], &["long.test good 4000000000"], &rest[2..]].concat()
        );
        let discard = |cell: &str| discard_here(Some(&cell.parse().unwrap()), deadline()).unwrap();
        for cell in ["ended.test", "long.test", "none.test", "spoof.test"] {
            discard(cell);
        }
        assert_eq!(listed(), rest);
        discard("revoked.test");
        assert_eq!(listed(), rest[..2]);
        // A member has linked the token elsewhere.
        let kept = add("afs@kept.test", "alice@EXAMPLE.TEST 4000000000\n");
        keys::link(kept, keys::user_id()).unwrap();
        discard("kept.test");
        let is_alive = keys::describe(kept, |_| ()).is_ok();
        let _ = keys::unlink(kept, keys::user_id());
        assert!(!is_alive, "what is discarded is dead wherever it is");
        discard_here(None, deadline()).unwrap();
        assert_eq!(listed(), [""; 0]);
        let mut left = keys::members(session).unwrap();
        left.retain(|key| keys::describe(*key, |found| found.name.starts_with(b"afs@")).unwrap_or(true));
        assert_eq!(left, [], "a token that is garbled, or dead, is discarded, too");
        assert_eq!(keys::members(session).unwrap().len(), 2, "and no other key is");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut fields = Fields::new(&bytes);
            while Seen::read(&mut fields).is_some() {}
        }
    }
}
