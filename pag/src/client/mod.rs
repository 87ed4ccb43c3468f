//! AFS clients: what a token is, to each of them.
//!
//! Tokens are looked at and discarded by a member of the ring, since the kernel shows keys to those who possess them.
//! A caller that is no member sends a child into the ring, which allocates nothing (see [`crate::sys`]).

mod keyring;

use std::os::fd::AsFd;
use std::time::Instant;

use crate::ccache::format::Principal;
use crate::config::{Cell, ClientChoice, ClientKind};
use crate::error::{Error, Result};
use crate::keyring::{self as keys, Description, Serial};
use crate::ring::Ring;
use crate::sys::{self, Exit};

/// An AFS client that this host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Keys of type `user` in the ring: for trying things out, and for programs that keep tokens of their own kind.
    Keyring,
}

/// A token in a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose token it is.
    pub client: Client,
    /// The cell that it is for.
    pub cell: Cell,
    /// The Kerberos identity, where the client tells it.
    pub principal: Option<Principal>,
    /// When it ends, in seconds since the epoch.
    pub expires: u64,
}

impl Client {
    /// The clients that `choice` names and this host has. OpenAFS and kAFS are not supported by this version.
    pub fn present(choice: &ClientChoice) -> Vec<Client> {
        match choice {
            ClientChoice::Only(kinds) if kinds.contains(&ClientKind::Keyring) => vec![Client::Keyring],
            _ => Vec::new(),
        }
    }

    /// The client's name, for people and fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Client::Keyring => "keyring",
        }
    }

    fn owns(self, key: &Description<'_>) -> bool {
        match self {
            Client::Keyring => keyring::is_token(key),
        }
    }

    /// The cell that a token's key is named after.
    fn cell(self, name: &[u8]) -> Option<&str> {
        match self {
            Client::Keyring => keyring::cell(name),
        }
    }

    fn token(self, name: &[u8], payload: &[u8]) -> Option<Token> {
        match self {
            Client::Keyring => keyring::token(name, payload),
        }
    }
}

/// All clients that this version knows: whatever of theirs is in a ring, is a token.
const ALL: [Client; 1] = [Client::Keyring];

/// How much of a token's payload is looked at.
const HEAD: usize = 512;

/// Shows every token key in `ring`, with the head of its payload, to `look`. The thread must be a member.
/// Allocates nothing.
fn visit(ring: Serial, mut look: impl FnMut(Serial, Client, &[u8], &[u8])) -> bool {
    // A user's quota is 200 keys unless the administrator has raised it; root's tokens come on top.
    let mut members = [0; 4 * 4096];
    let Ok(members) = keys::members_into(ring, &mut members) else { return false };
    for key in members {
        let mut text = [0; keys::DESCRIPTION_SPACE];
        let Ok(found) = keys::describe_into(key, &mut text) else { continue };
        let Some(client) = ALL.into_iter().find(|client| client.owns(&found)) else { continue };
        let mut head = [0; HEAD];
        let length = keys::payload_into(key, &mut head).unwrap_or(0);
        look(key, client, found.name, head.get(..length).unwrap_or(&[]));
    }
    true
}

/// The tokens in `ring`, looked at from where the caller is.
///
/// # Errors
/// `NotRoot` for a caller that is no member; `Key` when the ring cannot be entered.
pub fn tokens(ring: &Ring, deadline: Instant) -> Result<Vec<Token>> {
    let mut found = Vec::new();
    if ring.is_current() {
        visit(ring.serial, |_, client, name, head| found.extend(client.token(name, head)));
        return Ok(found);
    }
    let doing = || Error::system(format!("list the tokens in ring {}", ring.serial));
    let (read, write) = sys::pipe().map_err(doing())?;
    let child = sys::child(|| {
        let put = |bytes: &[u8]| {
            let length = u16::try_from(bytes.len()).unwrap_or(0).to_ne_bytes();
            sys::write_all(write.as_fd(), &length) && sys::write_all(write.as_fd(), bytes)
        };
        let mut whole = ring.join_in_child();
        whole = whole
            && visit(ring.serial, |_, client, name, head| {
                // The name is the longer of two lines; both fit into 16 bits.
                let index = ALL.iter().position(|one| *one == client).unwrap_or(0);
                let index = u8::try_from(index).unwrap_or(0);
                let _ = put(&[index]) && put(name) && put(head);
            });
        u8::from(!whole)
    })
    .map_err(doing())?;
    drop(write);
    let mut bytes = Vec::new();
    let whole = drain(&read, &mut bytes, deadline);
    match child.wait(deadline).map_err(doing())? {
        Exit::Status(0) if whole => {}
        _ => return Err(doing()(std::io::ErrorKind::PermissionDenied.into())),
    }
    let mut rest = &bytes[..];
    while let Some((index, name, head)) = take(&mut rest).and_then(|i| Some((i, take(&mut rest)?, take(&mut rest)?))) {
        let client = index.first().and_then(|index| ALL.get(usize::from(*index)));
        found.extend(client.and_then(|client| client.token(name, head)));
    }
    Ok(found)
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<2>()?;
    let (part, after) = after.split_at_checked(usize::from(u16::from_ne_bytes(*length)))?;
    *rest = after;
    Some(part)
}

/// Reads a child's pipe to its end, at most until `deadline`; true when the end was reached.
pub(crate) fn drain(pipe: &std::os::fd::OwnedFd, bytes: &mut Vec<u8>, deadline: Instant) -> bool {
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !sys::readable(pipe.as_fd(), left) {
            return false;
        }
        match sys::read(pipe.as_fd(), &mut buffer) {
            Ok(0) => return true,
            Ok(length) => bytes.extend_from_slice(buffer.get(..length).unwrap_or(&[])),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// Discards every token in `ring`, for all its members.
///
/// # Errors
/// As [`tokens`].
pub fn discard(ring: &Ring, deadline: Instant) -> Result<()> {
    discard_those(ring, deadline, |_, _| true)
}

/// Discards the tokens for one cell in `ring`, for all its members.
///
/// # Errors
/// As [`tokens`].
pub fn discard_cell(ring: &Ring, cell: &Cell, deadline: Instant) -> Result<()> {
    discard_those(ring, deadline, |client, name| client.cell(name) == Some(cell.as_str()))
}

fn discard_those(ring: &Ring, deadline: Instant, which: impl Fn(Client, &[u8]) -> bool) -> Result<()> {
    let discard = |key, client, name: &[u8], _: &[u8]| {
        if which(client, name) {
            // Out of the ring first: whoever looks a token up then finds none, instead of an invalidated key.
            let _ = keys::unlink(key, ring.serial);
            let _ = keys::invalidate(key);
        }
    };
    if ring.is_current() {
        visit(ring.serial, discard);
        return Ok(());
    }
    let doing = || Error::system(format!("discard the tokens in ring {}", ring.serial));
    let child = sys::child(|| u8::from(!(ring.join_in_child() && visit(ring.serial, discard)))).map_err(doing())?;
    match child.wait(deadline).map_err(doing())? {
        Exit::Status(0) => Ok(()),
        _ => Err(doing()(std::io::ErrorKind::PermissionDenied.into())),
    }
}
