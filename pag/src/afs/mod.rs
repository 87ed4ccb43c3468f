//! AFS clients: what a token is to each of them, which ones there are, and how tokens are listed and discarded.
//!
//! Tokens are looked at and discarded by a member of the ring, since the kernel shows them to nobody else. A caller that
//! is no member sends a child into the ring, which allocates nothing (see [`crate::sys`]). OpenAFS is asked by a child in
//! any case: its module may wait for a server, and writes the PAG into the groups of who asks.

mod dead;
mod kafs;
mod keyring;
pub mod openafs;
mod xdr;

use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use crate::ccache::format::Principal;
use crate::config::{Cell, ClientChoice, ClientKind, Settings};
use crate::error::{Error, Result};
use crate::keyring::{self as keys, Description, Serial};
use crate::store::ring::Ring;
use crate::sys::{self, Answer, Exit, Put, Wiped};
use openafs::{Device, Interface};

/// An AFS client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// Keys of type `user` in the ring: for trying things out, and for programs that keep tokens of their own kind.
    Keyring,
    /// OpenAFS, and whatever has its interface: AuriStorFS, untested.
    OpenAfs,
    /// The kernel's own.
    Kafs,
}

/// The security class that a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Kerberos.
    Rxkad,
    /// GSSAPI, as OpenAFS has it.
    Rxgk,
    /// GSSAPI, as AuriStorFS and kAFS have it.
    YfsRxgk,
}

/// Whether a token serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does.
    Good,
    /// It has ended.
    Expired,
    /// Somebody has revoked its key, and it is still in the ring: kAFS then answers with an error.
    Revoked,
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
    /// Whose it is in the cell's protection database, where the client tells it.
    pub vice_id: Option<i64>,
    /// Its security class, where the client has such and tells it.
    pub kind: Option<Kind>,
    /// When it ends, in seconds since the epoch; 0 when the client does not tell, as of one that has expired.
    pub expires: u64,
    /// Whether it serves.
    pub state: State,
}

impl Client {
    /// The clients that the configuration names and this host has now, in the order in which they are served. It looks
    /// for files in `/proc`, and waits for nothing.
    ///
    /// What is configured about OpenAFS is remembered for the calls that have no settings at hand: [`tokens`] and
    /// [`discard`].
    pub fn present(settings: &Settings) -> Vec<Client> {
        Self::configure(settings);
        ALL.into_iter().filter(|client| client.is_wanted(settings) && client.is_there()).collect()
    }

    /// Has everything that follows look for OpenAFS where the configuration says, or not at all. To be called before a
    /// ring is equipped for it.
    pub fn configure(settings: &Settings) {
        openafs::remember(Client::OpenAfs.is_wanted(settings), settings.openafs_device.as_deref());
    }

    /// Whether this host has it now, and it may be used.
    pub fn is_there(self) -> bool {
        match self {
            Client::Keyring => true,
            Client::OpenAfs => Device::served().is_some(),
            Client::Kafs => kafs::is_present(),
        }
    }

    fn is_wanted(self, settings: &Settings) -> bool {
        match &settings.client {
            ClientChoice::None => false,
            ClientChoice::Auto => self != Client::Keyring,
            ClientChoice::Only(kinds) => kinds.contains(&self.as_configured()),
        }
    }

    /// The client's name, for people and fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Client::Keyring => "keyring",
            Client::OpenAfs => "openafs",
            Client::Kafs => "kafs",
        }
    }

    /// The client of this name.
    pub fn parse(name: &str) -> Option<Self> {
        ALL.into_iter().find(|client| client.as_str() == name)
    }

    /// The host's own cell, which this client's seeder takes for its default: read from a small local file.
    pub fn own_cell(self) -> Option<Cell> {
        match self {
            Client::Keyring => None,
            Client::OpenAfs => openafs::OWN_CELL.iter().find_map(|path| cell_in_file(Path::new(path))),
            Client::Kafs => cell_in_file(Path::new(kafs::OWN_CELL)),
        }
    }

    fn as_configured(self) -> ClientKind {
        match self {
            Client::Keyring => ClientKind::Keyring,
            Client::OpenAfs => ClientKind::OpenAfs,
            Client::Kafs => ClientKind::Kafs,
        }
    }

    /// The client whose token a key of this type and name is, with the token's cell.
    fn of_key<'a>(kind: &[u8], name: &'a [u8]) -> Option<(Client, &'a [u8])> {
        let client = match kind {
            keyring::TYPE => Client::Keyring,
            kafs::TYPE => Client::Kafs,
            _ => return None,
        };
        Some((client, name.strip_prefix(b"afs@")?))
    }
}

/// All clients that this version knows.
const ALL: [Client; 3] = [Client::Keyring, Client::OpenAfs, Client::Kafs];

/// The cell that stands in the first line of a file.
fn cell_in_file(path: &Path) -> Option<Cell> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let mut text = String::new();
    file.take(256).read_to_string(&mut text).ok()?;
    text.lines().next()?.trim().parse().ok()
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Kind {
    /// Its name, for people and fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Rxkad => "rxkad",
            Kind::Rxgk => "rxgk",
            Kind::YfsRxgk => "yfs-rxgk",
        }
    }
}

impl State {
    /// Its name, for people and fields.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Good => "good",
            State::Expired => "expired",
            State::Revoked => "revoked",
        }
    }

    fn at(expires: u64, now: u64) -> Self {
        if expires > now { State::Good } else { State::Expired }
    }
}

/// The latest end that a token is taken to have, in 2106: Kerberos knows no later one, and a user may write any number.
const LATEST: u64 = u32::MAX as u64;

impl Token {
    /// None where the cell's name is none: a user has chosen it.
    fn of(seen: &Seen<'_>) -> Option<Self> {
        Some(Token {
            client: seen.client,
            cell: str::from_utf8(seen.cell).ok()?.parse().ok()?,
            principal: str::from_utf8(seen.identity).ok().and_then(|text| Principal::parse(text).ok()),
            vice_id: seen.vice_id,
            kind: seen.kind,
            expires: seen.expires.min(LATEST),
            state: seen.state,
        })
    }
}

/// A token as it was seen, before anything is allocated for it. No secret is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen<'a> {
    client: Client,
    kind: Option<Kind>,
    state: State,
    expires: u64,
    vice_id: Option<i64>,
    cell: &'a [u8],
    identity: &'a [u8],
}

/// What a child writes of a token in front of its cell and its identity: client, kind and state, the two lengths, the
/// end, and the ViceId, 0 for none.
const HEAD: usize = 3 + 2 * 2 + 2 * 8;

impl<'a> Seen<'a> {
    /// Tells the parent. Longer than these two are no cell and no principal.
    fn say(&self, put: Put<'_>) -> bool {
        let cell = self.cell.get(..self.cell.len().min(128)).unwrap_or(&[]);
        let identity = if self.identity.len() <= 512 { self.identity } else { &[] };
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(0).to_ne_bytes();
        let mut head = [0; HEAD];
        let numbers = [client_number(self.client), kind_number(self.kind), state_number(self.state)];
        let lengths = length(cell).into_iter().chain(length(identity));
        let ends = self.expires.to_ne_bytes().into_iter().chain(self.vice_id.unwrap_or(0).to_ne_bytes());
        for (place, byte) in head.iter_mut().zip(numbers.into_iter().chain(lengths).chain(ends)) {
            *place = byte;
        }
        [&head[..], cell, identity].into_iter().all(put)
    }

    /// Takes the next token off what a child has written.
    fn read(rest: &mut &'a [u8]) -> Option<Self> {
        let mut take = |length: usize| -> Option<&'a [u8]> {
            let (part, after) = rest.split_at_checked(length)?;
            *rest = after;
            Some(part)
        };
        let [client, kind, state] = *take(3)?.first_chunk()?;
        let length = |bytes: &[u8]| Some(usize::from(u16::from_ne_bytes(*bytes.first_chunk()?)));
        let (cell, identity) = (length(take(2)?)?, length(take(2)?)?);
        let expires = u64::from_ne_bytes(*take(8)?.first_chunk()?);
        let vice_id = i64::from_ne_bytes(*take(8)?.first_chunk()?);
        Some(Seen {
            client: ALL.into_iter().find(|one| client_number(*one) == client)?,
            kind: [Some(Kind::Rxkad), Some(Kind::Rxgk), Some(Kind::YfsRxgk), None]
                .into_iter()
                .find(|one| kind_number(*one) == kind)?,
            state: [State::Good, State::Expired, State::Revoked].into_iter().find(|one| state_number(*one) == state)?,
            expires,
            vice_id: Some(vice_id).filter(|id| *id != 0),
            cell: take(cell)?,
            identity: take(identity)?,
        })
    }
}

fn client_number(client: Client) -> u8 {
    match client {
        Client::Keyring => 0,
        Client::OpenAfs => 1,
        Client::Kafs => 2,
    }
}

fn kind_number(kind: Option<Kind>) -> u8 {
    match kind {
        None => 0,
        Some(Kind::Rxkad) => 2,
        Some(Kind::Rxgk) => 4,
        Some(Kind::YfsRxgk) => 6,
    }
}

fn state_number(state: State) -> u8 {
    match state {
        State::Good => 0,
        State::Expired => 1,
        State::Revoked => 2,
    }
}

/// A key that is some client's token.
struct TokenKey<'a> {
    serial: Serial,
    cell: &'a [u8],
    /// None where the payload is none of a token.
    seen: Option<Seen<'a>>,
}

/// Shows every token key in the keyring `place` to `look`. The thread must possess it. Allocates nothing.
fn visit_keys(place: Serial, look: &mut dyn FnMut(&TokenKey<'_>)) -> bool {
    // A user's quota is 200 keys unless the administrator has raised it; root's tokens come on top.
    let mut members = [0; 4 * 4096];
    let Ok(members) = keys::members_into(place, &mut members) else { return false };
    let now = crate::now();
    let mut some_are_dead = false;
    let mut text = [0; keys::DESCRIPTION_SPACE];
    for serial in members.clone() {
        match keys::describe_into(serial, &mut text) {
            Ok(found) => visit_key(serial, &found, now, look),
            Err(error) => some_are_dead |= death(&error).is_some(),
        }
    }
    if some_are_dead {
        dead::visit(|dead| {
            let Some((client, cell)) = Client::of_key(dead.kind, dead.name) else { return };
            // Asked again: what the list says may be a user's words.
            let state = keys::describe(dead.serial, |_| ()).err().and_then(|error| death(&error));
            if state == Some(dead.state) && members.clone().any(|member| member == dead.serial) {
                let seen = Seen {
                    client,
                    kind: dead.class.filter(|_| client == Client::Kafs),
                    state: dead.state,
                    expires: 0,
                    vice_id: None,
                    cell,
                    identity: b"",
                };
                look(&TokenKey { serial: dead.serial, cell, seen: Some(seen) });
            }
        });
    }
    true
}

/// What an error says of a key that cannot be described.
fn death(error: &std::io::Error) -> Option<State> {
    match error.raw_os_error() {
        Some(libc::EKEYEXPIRED) => Some(State::Expired),
        Some(libc::EKEYREVOKED) => Some(State::Revoked),
        _ => None,
    }
}

fn visit_key(serial: Serial, found: &Description<'_>, now: u64, look: &mut dyn FnMut(&TokenKey<'_>)) {
    let Some((client, cell)) = Client::of_key(found.kind, found.name) else { return };
    let mut look = |payload: &[u8]| {
        let seen = match client {
            Client::Kafs => Some(kafs::seen(cell, payload, now)),
            _ => keyring::seen(cell, payload, now),
        };
        look(&TokenKey { serial, cell, seen });
    };
    let mut payload = Wiped::<1024>::default();
    match keys::payload_into(serial, &mut payload[..]) {
        Ok(length) => match payload.get(..length) {
            Some(payload) => look(payload),
            None => with_long_payload(serial, &mut look),
        },
        Err(_) => look(&[]),
    }
}

/// For tickets with a large PAC, and for what a user has put there. Apart, so that the stack is used for few.
#[inline(never)]
fn with_long_payload(serial: Serial, look: &mut dyn FnMut(&[u8])) {
    // Most that the kernel takes, for either type: security/keys/user_defined.c, user_preparse.
    let mut payload = Wiped::<{ 32 * 1024 }>::default();
    let length = keys::payload_into(serial, &mut payload[..]).unwrap_or(0);
    look(payload.get(..length).unwrap_or(&[]));
}

/// The tokens in `ring`, of all clients, looked at from where the caller is.
///
/// # Errors
/// `System` when the ring cannot be entered, as by a caller who is neither a member nor root.
pub fn tokens(ring: &Ring, deadline: Instant) -> Result<Vec<Token>> {
    list(Some(ring), deadline)
}

/// The tokens of the PAG that the caller is in, whatever kind of session keyring that is; none outside of one.
///
/// # Errors
/// `System` when there is no session keyring to be read.
pub fn tokens_here(deadline: Instant) -> Result<Vec<Token>> {
    list(None, deadline)
}

/// The tokens in `ring`, which the calling thread has joined, looked at by this thread itself: for a child of the caller's
/// own, which nobody waits for if it hangs.
///
/// # Errors
/// `System` when the ring cannot be read.
pub fn tokens_as_member(ring: &Ring) -> Result<Vec<Token>> {
    let doing = || Error::system(format!("list the tokens in ring {}", ring.serial));
    let openafs = Device::opened();
    let mut found = Vec::new();
    let mut say = |seen: &Seen<'_>| {
        found.extend(Token::of(seen));
        true
    };
    let seen = visit_keys(ring.serial, &mut |key| {
        key.seen.as_ref().map(&mut say);
    });
    if !seen {
        return Err(doing()(std::io::ErrorKind::PermissionDenied.into()));
    }
    openafs.ok().flatten().map(|interface| openafs::visit(&interface, &mut say));
    Ok(found)
}

/// Discards the tokens in `ring`, as [`tokens_as_member`] lists them: of one cell, or all.
///
/// # Errors
/// As [`tokens_as_member`], and when a client refuses, or OpenAFS's device is there and cannot be opened.
pub fn discard_as_member(ring: &Ring, cell: Option<&Cell>) -> Result<()> {
    let doing = || Error::system(format!("discard the tokens in ring {}", ring.serial));
    let openafs = Device::opened();
    let name = cell.map(ToString::to_string);
    if !forget_keys(ring.serial, name.as_deref()) {
        return Err(doing()(std::io::ErrorKind::PermissionDenied.into()));
    }
    match openafs.map_err(doing())?.is_none_or(|interface| openafs::forget(&interface, name.as_deref())) {
        true => Ok(()),
        false => Err(doing()(refused())),
    }
}

/// Discards every token in `ring`, for all its members.
///
/// # Errors
/// As [`tokens`], and when a client refuses.
pub fn discard(ring: &Ring, deadline: Instant) -> Result<()> {
    forget(Some(ring), None, deadline)
}

/// Discards the tokens of one cell in `ring`. That there is none is no error.
///
/// # Errors
/// As [`discard`].
pub fn discard_cell(ring: &Ring, cell: &Cell, deadline: Instant) -> Result<()> {
    forget(Some(ring), Some(cell), deadline)
}

/// Discards the tokens of the PAG that the caller is in: of one cell, or all. The tokens of the bare uid, which OpenAFS
/// gives to a process outside of any PAG, are left alone.
///
/// # Errors
/// As [`discard`].
pub fn discard_here(cell: Option<&Cell>, deadline: Instant) -> Result<()> {
    forget(None, cell, deadline)
}

/// Where tokens are: a keyring, and whether the caller has it as its session keyring already.
struct Place<'a> {
    ring: Option<&'a Ring>,
    keyring: Serial,
    here: bool,
}

impl<'a> Place<'a> {
    fn of(ring: Option<&'a Ring>) -> std::io::Result<Self> {
        Ok(match ring {
            Some(ring) => Place { ring: Some(ring), keyring: ring.serial, here: ring.is_current() },
            None => Place { ring: None, keyring: keys::session()?, here: true },
        })
    }

    /// For a child.
    fn enter(&self) -> bool {
        self.here || self.ring.is_some_and(Ring::join_in_child)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.ring.is_some() { "ring" } else { "session keyring" }, self.keyring)
    }
}

fn list(ring: Option<&Ring>, deadline: Instant) -> Result<Vec<Token>> {
    let place = Place::of(ring).map_err(Error::key("find the session keyring"))?;
    let doing = || Error::system(format!("list the tokens in {place}"));
    let mut found = Vec::new();
    let openafs = Device::opened().ok().flatten();
    if place.here {
        let seen = visit_keys(place.keyring, &mut |key| found.extend(key.seen.as_ref().and_then(Token::of)));
        if !seen {
            return Err(doing()(std::io::ErrorKind::PermissionDenied.into()));
        }
        if openafs.is_none() {
            return Ok(found);
        }
    }
    let keyring = (!place.here).then_some(place.keyring);
    let answer = sys::ask(deadline, |put| u8::from(!(place.enter() && tell(keyring, openafs.as_ref(), put))));
    found.extend(told(&answer.and_then(Answer::bytes).map_err(doing())?));
    Ok(found)
}

/// Says the tokens in a keyring, and those of OpenAFS; false when that failed. For a child that is a member.
/// Allocates nothing.
pub(crate) fn tell(keyring: Option<Serial>, openafs: Option<&Interface>, put: Put<'_>) -> bool {
    let mut said = true;
    let mut say = |seen: &Seen<'_>| {
        said = said && seen.say(put);
        said
    };
    let seen = keyring.is_none_or(|keyring| {
        visit_keys(keyring, &mut |key| {
            key.seen.as_ref().map(&mut say);
        })
    });
    let asked = seen && openafs.is_none_or(|interface| openafs::visit(interface, &mut say));
    asked && said
}

/// The tokens that a child has written.
pub(crate) fn told(bytes: &[u8]) -> Vec<Token> {
    let (mut rest, mut tokens) = (bytes, Vec::new());
    while let Some(seen) = Seen::read(&mut rest) {
        tokens.extend(Token::of(&seen));
    }
    tokens
}

/// Status of a child that could enter the ring, and then OpenAFS refused.
const STATUS_REFUSED: u8 = 2;

fn refused() -> std::io::Error {
    std::io::Error::other("OpenAFS's module refuses to")
}

/// Discards the tokens that are keys in `place`: of one cell, or all. False when it cannot be read. Allocates nothing.
fn forget_keys(place: Serial, cell: Option<&str>) -> bool {
    visit_keys(place, &mut |key| {
        if cell.is_none_or(|cell| key.cell.eq_ignore_ascii_case(cell.as_bytes())) {
            // Out of the ring first: whoever looks a token up then finds none, instead of an invalidated key. And held
            // meanwhile: nobody but who possesses a key may invalidate it, wherever else somebody has linked it.
            let held = keys::link(key.serial, keys::process_id());
            if held.is_err() {
                let _ = keys::invalidate(key.serial);
            }
            let _ = keys::unlink(key.serial, place);
            let _ = keys::invalidate(key.serial);
            if held.is_ok() {
                let _ = keys::unlink(key.serial, keys::process_id());
            }
        }
    })
}

fn forget(ring: Option<&Ring>, cell: Option<&Cell>, deadline: Instant) -> Result<()> {
    let place = Place::of(ring).map_err(Error::key("find the session keyring"))?;
    let doing = || match cell {
        Some(cell) => Error::system(format!("discard the tokens of cell {cell} in {place}")),
        None => Error::system(format!("discard the tokens in {place}")),
    };
    let name = cell.map(ToString::to_string);
    let name = name.as_deref();
    let opened = Device::opened();
    let openafs = opened.as_ref().ok().and_then(Option::as_ref);
    if place.here && !forget_keys(place.keyring, name) {
        return Err(doing()(std::io::ErrorKind::PermissionDenied.into()));
    }
    if place.here && openafs.is_none() {
        return opened.map(drop).map_err(doing());
    }
    let answer = sys::ask(deadline, |_| {
        if !(place.enter() && (place.here || forget_keys(place.keyring, name))) {
            return 1;
        }
        let refused = openafs.is_some_and(|interface| !openafs::forget(interface, name));
        if refused { STATUS_REFUSED } else { 0 }
    })
    .map_err(doing())?;
    match answer.exit {
        Exit::Status(STATUS_REFUSED) => Err(doing()(refused())),
        _ => answer.bytes().and(opened).map(drop).map_err(doing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn what_a_child_says_is_understood() {
        let one = Seen {
            client: Client::OpenAfs,
            kind: Some(Kind::Rxkad),
            state: State::Expired,
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
        assert!(one.say(&mut put) && other.say(&mut put));
        let mut rest = &bytes[..];
        assert_eq!(Seen::read(&mut rest), Some(one));
        assert_eq!(Seen::read(&mut rest), Some(other));
        assert_eq!((Seen::read(&mut rest), rest), (None, &b""[..]));
    }

    /// On this kernel's keyrings, in a session keyring that is this thread's alone.
    #[test]
    fn living_and_dead_tokens_are_listed_and_discarded() {
        let deadline = || Instant::now() + Duration::from_secs(10);
        let listed = || {
            let tokens = tokens_here(deadline()).unwrap().into_iter();
            let mut told: Vec<_> = tokens.map(|t| format!("{} {} {}", t.cell, t.state.as_str(), t.expires)).collect();
            told.sort_unstable();
            told
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
        // A line of a user's own in the kernel's list says nothing about a key that lives.
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
        // A member has kept it elsewhere.
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

    #[test]
    fn keys_are_tokens_by_type_and_name() {
        assert_eq!(Client::of_key(b"user", b"afs@a.test"), Some((Client::Keyring, &b"a.test"[..])));
        assert_eq!(Client::of_key(b"rxrpc", b"afs@a.test"), Some((Client::Kafs, &b"a.test"[..])));
        for (kind, name) in [(&b"rxrpc_s"[..], &b"afs@a"[..]), (b"rxrpc", b"52:2"), (b"keyring", b"afs@a")] {
            assert_eq!(Client::of_key(kind, name), None);
        }
    }

    #[test]
    fn clients_are_called_as_in_the_configuration() {
        for client in ALL {
            assert_eq!(Client::parse(client.as_str()), Some(client));
            assert_eq!(client.as_str(), client.as_configured().to_string());
        }
        assert_eq!(Client::parse("afs"), None);
    }

    #[test]
    fn the_hosts_cell_is_the_first_word_of_a_small_file() {
        let top = tempfile::tempdir().unwrap();
        let read = |text: &[u8]| {
            std::fs::write(top.path().join("ThisCell"), text).unwrap();
            cell_in_file(&top.path().join("ThisCell"))
        };
        assert_eq!(read(b"example.test\n"), Some("example.test".parse().unwrap()));
        assert_eq!(read(b"  example.test"), Some("example.test".parse().unwrap()));
        for text in [&b""[..], b"\n", b"two words\n", b"\xff\n", &[b'x'; 300]] {
            assert_eq!(read(text), None);
        }
        assert_eq!(cell_in_file(top.path()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &bytes[..];
            while Seen::read(&mut rest).is_some() {}
        }
    }
}
