//! OpenAFS, by the pioctls of its kernel module. AuriStorFS is said to have the same interface in another place; that is
//! untested.
//!
//! A PAG of OpenAFS is a key `_pag` that its module finds in the session keyring or below it (OpenAFS,
//! src/afs/LINUX/osi_groups.c, osi_get_keyring_pag). Only `setpag` can make one, in a new session keyring of its own: S0
//! (install_session_keyring there). [`anchor`] hangs S0 below the ring. There is never a second `_pag` for a PAG: the
//! module marks a PAG's tokens as expired when any key of its number goes (afs_pag_destroy).
//!
//! The module writes the PAG into the groups of a thread that asks for it, and may wait for a server: what is here is for
//! children, and for programs of our own. Buffers that hold session keys are zeroed after use.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::xdr::{Fact, TokenSet, vice_id_of};
use super::{Client, Kind, Seen, State};
use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::keyring::{self, Description, Mask, Serial};
use crate::store::registry::Pag;
use crate::store::ring::Ring;
use crate::sys::{self, Answer, Wiped};

/// Where modules have their interface: OpenAFS (src/config/afs_args.h), Arla and old OpenAFS, AuriStorFS (said to).
const KNOWN: [&str; 3] = ["/proc/fs/openafs/afs_ioctl", "/proc/fs/nnpfs/afs_ioctl", "/proc/fs/auristorfs/afs_ioctl"];

/// Where a host has the name of its own cell: Debian's and other packages' place, and the first of all.
pub(super) const OWN_CELL: [&str; 2] = ["/etc/openafs/ThisCell", "/usr/vice/etc/ThisCell"];

/// What the configuration says, for calls that have no settings at hand: the end of a login reads none.
struct Configured {
    served: bool,
    device: Option<CString>,
}

static CONFIGURED: Mutex<Configured> = Mutex::new(Configured { served: true, device: None });

pub(super) fn remember(served: bool, device: Option<&Path>) {
    let device = device.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
    *CONFIGURED.lock().unwrap_or_else(PoisonError::into_inner) = Configured { served, device };
}

/// The file by which a module is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device(CString);

impl Device {
    /// The device of the module that is loaded, if the configuration wants OpenAFS to be served. Not for children: it
    /// takes a lock.
    pub fn served() -> Option<Self> {
        let configured = CONFIGURED.lock().unwrap_or_else(PoisonError::into_inner);
        let known = KNOWN.iter().filter_map(|path| CString::new(*path).ok());
        let mut all = configured.device.clone().into_iter().chain(known);
        if !configured.served {
            return None;
        }
        all.find(|path| path.to_str().is_ok_and(|path| Path::new(path).exists())).map(Device)
    }

    /// Opens it. Allocates nothing.
    ///
    /// # Errors
    /// ENOENT when the module has been unloaded.
    pub fn open(&self) -> io::Result<Interface> {
        sys::open_file(&self.0).map(Interface)
    }

    /// The interface of the module that [is served](Self::served), if one is.
    ///
    /// # Errors
    /// Of a device that is there and cannot be opened: EMFILE and ENFILE, EACCES.
    pub fn opened() -> io::Result<Option<Interface>> {
        let Some(device) = Self::served() else { return Ok(None) };
        match device.open() {
            Ok(interface) => Ok(Some(interface)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A module's interface. Its calls concern the calling thread's PAG, and allocate nothing.
#[derive(Debug)]
pub struct Interface(OwnedFd);

/// A pioctl: its group and number (OpenAFS, src/config/vioc.h).
#[derive(Debug, Clone, Copy)]
struct Pioctl(u8, u8);

const GETTOK: Pioctl = Pioctl(b'V', 8);
const UNLOG: Pioctl = Pioctl(b'V', 9);
const GETTOK2: Pioctl = Pioctl(b'C', 7);
const SETTOK2: Pioctl = Pioctl(b'C', 8);
const GETPAG: Pioctl = Pioctl(b'C', 13);
const UNLOG_CELL: Pioctl = Pioctl(b'O', 3);

/// What VIOC_GETPAG answers outside of any PAG (src/afs/afs.h, NOPAG).
const NO_PAG: u32 = 0xffff_ffff;

/// More than the module ever gives for one cell (src/afs/afs_pioctl.c, MAXPIOCTLTOKENLEN: 12,100).
const TOKEN_SPACE: usize = 12 * 1024;

/// Most cells that are looked through: their number grows with every cell that anybody on the host has named.
const MOST_CELLS: i32 = 1024;

/// Signals that may interrupt a setpag that waits in the module's throttle.
const MOST_INTERRUPTIONS: usize = 100;

impl Interface {
    fn call(&self, pioctl: Pioctl, input: &[u8], output: &mut [u8]) -> io::Result<()> {
        sys::afs_pioctl(self.0.as_fd(), pioctl.0, pioctl.1, input, output)
    }

    /// Gives the thread a new PAG, and with it a new session keyring: whatever was in the old one is lost to it.
    ///
    /// Users may make one a second in the long run, and wait here for more (src/afs/afs_osi_pag.c, afs_pag_wait); a
    /// process with CAP_SYS_ADMIN does not.
    ///
    /// # Errors
    /// EDQUOT and ENOMEM; EINTR after very many signals. The thread may have a new, empty session keyring all the same.
    pub fn setpag(&self) -> io::Result<()> {
        let mut result = Ok(());
        for _ in 0..MOST_INTERRUPTIONS {
            result = sys::afs_setpag(self.0.as_fd());
            if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
                break;
            }
        }
        result
    }

    /// The number of the PAG that the thread is in.
    ///
    /// # Errors
    /// EINVAL of a module that does not tell; ENOTTY when it is none of AFS.
    pub fn getpag(&self) -> io::Result<Option<u32>> {
        let mut number = [0; 4];
        self.call(GETPAG, &[], &mut number)?;
        Ok(Some(u32::from_ne_bytes(number)).filter(|number| *number != NO_PAG && *number != 0))
    }

    /// Whether the thread is in a PAG. Outside of one a token is given to, and taken from, the bare uid, for everybody who
    /// has it.
    pub fn is_member(&self) -> bool {
        matches!(self.getpag(), Ok(Some(_)))
    }

    /// Discards all tokens of the PAG, or outside of one those of the bare uid.
    ///
    /// # Errors
    /// EIO before the module's daemons run.
    pub fn unlog(&self) -> io::Result<()> {
        self.call(UNLOG, &[], &mut [])
    }

    /// Discards the tokens of one cell, as [`Interface::unlog`] does. That there are none is no error.
    ///
    /// OpenAFS 1.8 has no pioctl for this, but takes a set of no tokens in place of those that a cell has (PSetTokens2).
    /// To discard all and set those of the other cells again, as `unlog -cell` of 1.8 does, would leave a moment without.
    ///
    /// # Errors
    /// EINVAL of a module that knows neither; EIO before its daemons run.
    pub fn unlog_cell(&self, cell: &str) -> io::Result<()> {
        let mut name = [0; 65];
        let place = name.get_mut(..cell.len()).filter(|place| !place.is_empty() && place.len() < 65);
        place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(cell.as_bytes());
        let name = name.get(..=cell.len()).unwrap_or(&[]);
        let unlogged = match self.call(UNLOG_CELL, name, &mut []) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.unlog_cell_by_setting(name),
            other => other,
        };
        match unlogged {
            // The PAG has never had a token of this cell; the module does not know the cell.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EDOM | libc::ESRCH)) => Ok(()),
            other => other,
        }
    }

    /// `name` ends in a NUL.
    fn unlog_cell_by_setting(&self, name: &[u8]) -> io::Result<()> {
        let mut tokens = Wiped::<TOKEN_SPACE>::default();
        match self.call(GETTOK2, name, &mut tokens[..]) {
            Ok(()) => {}
            // They are of no use any more.
            Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut nothing = [0; 4 + 4 + 64 + 4];
        let length = no_tokens(name.strip_suffix(b"\0").unwrap_or(name), &mut nothing);
        self.call(SETTOK2, nothing.get(..length).unwrap_or(&[]), &mut [])
    }

    /// Shows the PAG's tokens, or outside of one those of the bare uid. False when `look` has had enough.
    fn tokens(&self, look: &mut dyn FnMut(&Seen<'_>) -> bool) -> bool {
        let now = crate::now();
        let mut tokens = Wiped::<TOKEN_SPACE>::default();
        let mut newer = true;
        let mut index: i32 = 0;
        while index < MOST_CELLS {
            // Wiped in the end; here it is emptied.
            tokens.fill(0);
            let ask = if newer { GETTOK2 } else { GETTOK };
            match self.call(ask, &index.to_ne_bytes(), &mut tokens[..]).map_err(|error| error.raw_os_error()) {
                Ok(()) if newer => {
                    if let Some(set) = TokenSet::parse(&tokens[..]) {
                        let cell = set.cell;
                        for fact in set {
                            if !look(&seen(cell, fact, now)) {
                                return false;
                            }
                        }
                    }
                }
                Ok(()) => {
                    if let Some((cell, fact)) = old_token(&tokens[..])
                        && !look(&seen(cell, fact, now))
                    {
                        return false;
                    }
                }
                // Tokens that have ended some time ago, or that are too large to be told.
                Err(Some(libc::ENOTCONN | libc::E2BIG)) => {}
                Err(Some(libc::EINVAL)) if newer => {
                    newer = false;
                    continue;
                }
                // EDOM: that was the last. Any other: there is nothing to be had.
                Err(_) => return true,
            }
            index += 1;
        }
        true
    }
}

fn seen(cell: &[u8], fact: Fact, now: u64) -> Seen<'_> {
    Seen {
        client: Client::OpenAfs,
        kind: Some(fact.kind),
        state: State::at(fact.expires, now),
        expires: fact.expires,
        vice_id: fact.vice_id,
        cell,
        identity: b"",
    }
}

/// Shows the tokens of the PAG that the thread is in; none when it is in none, or the module is gone. False when `look`
/// has had enough.
pub(super) fn visit(interface: &Interface, look: &mut dyn FnMut(&Seen<'_>) -> bool) -> bool {
    !interface.is_member() || interface.tokens(look)
}

/// A cell's name as the module has it, who takes upper and lower case for different, where it has a token of that cell.
fn spelling<'a>(interface: &Interface, cell: &str, out: &'a mut [u8; 64]) -> Option<&'a str> {
    let mut length = 0;
    interface.tokens(&mut |seen| {
        if seen.cell.eq_ignore_ascii_case(cell.as_bytes())
            && let Some(place) = out.get_mut(..seen.cell.len())
        {
            place.copy_from_slice(seen.cell);
            length = seen.cell.len();
        }
        length == 0
    });
    str::from_utf8(out.get(..length)?).ok().filter(|name| !name.is_empty())
}

/// Discards the tokens of the PAG that the thread is in, of one cell or all. True when there are none any more.
pub(super) fn forget(interface: &Interface, cell: Option<&str>) -> bool {
    if !interface.is_member() {
        return true;
    }
    let forgotten = match cell {
        Some(cell) => {
            let mut spelled = [0; 64];
            interface.unlog_cell(spelling(interface, cell, &mut spelled).unwrap_or(cell))
        }
        None => interface.unlog(),
    };
    // EIO: its daemons do not run, so nobody could set a token (src/afs/afs_pioctl.c, PSetTokens2 and PUnlog).
    forgotten.is_ok() || forgotten.is_err_and(|error| error.raw_os_error() == Some(libc::EIO))
}

/// Writes a set of no tokens for a cell (src/auth/token.xg, ktc_setTokenData); its length.
fn no_tokens(cell: &[u8], out: &mut [u8]) -> usize {
    let length = u32::try_from(cell.len()).unwrap_or(0).to_be_bytes();
    let padding = cell.len().next_multiple_of(4) - cell.len();
    let bytes =
        [0; 4].into_iter().chain(length).chain(cell.iter().copied()).chain([0].into_iter().cycle().take(padding + 4));
    out.iter_mut().zip(bytes).map(|(place, byte)| *place = byte).count()
}

/// Takes apart what VIOCGETTOK writes: the ticket, padded to 56 bytes, a ClearToken (src/afs/afs.h) and the cell, numbers
/// in the order of the host.
fn old_token(bytes: &[u8]) -> Option<(&[u8], Fact)> {
    let number = |rest: &mut &[u8]| -> Option<u32> {
        let (number, after) = rest.split_first_chunk::<4>()?;
        *rest = after;
        Some(u32::from_ne_bytes(*number))
    };
    let mut rest = bytes;
    let ticket = usize::try_from(number(&mut rest)?).ok()?;
    rest = rest.get(ticket..)?;
    if number(&mut rest)? != 24 {
        return None;
    }
    let _kvno_and_key = rest.get(..12)?;
    rest = rest.get(12..)?;
    let (vice_id, begins, expires) = (number(&mut rest)?, number(&mut rest)?, number(&mut rest)?);
    let _primary = number(&mut rest)?;
    let cell = CStr::from_bytes_until_nul(rest).ok()?.to_bytes();
    let vice_id = vice_id_of(vice_id, begins, expires);
    Some((cell, Fact { kind: Kind::Rxkad, expires: expires.into(), vice_id }))
}

/// Time that a child has for making S0. It needs about a millisecond.
const MAKING: Duration = Duration::from_secs(1);

/// What a child was at when it failed, for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    SetPag,
    Find,
    Narrow,
    Hold,
    Nest,
    Prove,
}

impl Step {
    const ALL: [Step; 7] = [Step::Open, Step::SetPag, Step::Find, Step::Narrow, Step::Hold, Step::Nest, Step::Prove];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Open => "its device cannot be opened",
            Step::SetPag => "setpag failed",
            Step::Find => "setpag has left no keyring of root's",
            Step::Narrow => "the keyring that setpag has made cannot be closed to members",
            Step::Hold => "that keyring cannot be anchored in the PAG's holder",
            Step::Nest => "that keyring cannot be linked into the ring",
            Step::Prove => "the module does not find the PAG through the ring",
        })
    }
}

/// Makes a PAG of OpenAFS for `ring`: its S0, held by `holder` and linked into the ring, in place of one that was there.
/// Proven by the module itself, which must find the same PAG through the ring as in S0.
///
/// It is made by a child, since setpag replaces the session keyring and the groups of who calls it. The ids are those of
/// the guard: S0 belongs to the *real* uid, and who called su could enter one of his own by its name.
///
/// # Errors
/// `System`, in words; nothing new is linked then, and there is no PAG of OpenAFS for this ring.
fn anchor(_guard: &Guard, ring: &Ring, holder: Serial) -> Result<Serial> {
    let failed = |what: &dyn fmt::Display| Error::system(format!("give ring {} a PAG of OpenAFS, {what}", ring.serial));
    let opened = Device::opened().and_then(|it| it.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT)));
    let interface = opened.map_err(failed(&Step::Open))?;
    let plainly = || Error::system(format!("give ring {} a PAG of OpenAFS", ring.serial));
    let answer = sys::ask(Instant::now() + MAKING, |put| {
        let made = make(&interface, ring, holder);
        let (step, number) = match &made {
            Ok(s0) => (u8::MAX, s0.get()),
            Err((step, error)) => (*step as u8, error.raw_os_error().unwrap_or(0)),
        };
        let [a, b, c, d] = number.to_ne_bytes();
        u8::from(!put(&[step, a, b, c, d]))
    });
    let bytes = answer.and_then(Answer::bytes).map_err(plainly())?;
    let &[step, a, b, c, d] = &bytes[..] else { return Err(plainly()(io::ErrorKind::InvalidData.into())) };
    let number = i32::from_ne_bytes([a, b, c, d]);
    match (Step::ALL.into_iter().find(|one| *one as u8 == step), Serial::new(number)) {
        (Some(step), Some(_)) => Err(failed(&step)(io::Error::from_raw_os_error(number))),
        (Some(step), None) => Err(failed(&step)(io::ErrorKind::InvalidData.into())),
        (None, Some(s0)) => Ok(s0),
        (None, None) => Err(plainly()(io::ErrorKind::InvalidData.into())),
    }
}

/// The child's part of [`anchor`]. Allocates nothing.
fn make(interface: &Interface, ring: &Ring, holder: Serial) -> std::result::Result<Serial, (Step, io::Error)> {
    let at = |step: Step| move |error: io::Error| (step, error);
    interface.setpag().map_err(at(Step::SetPag))?;
    let number = interface.getpag().map_err(at(Step::Prove))?;
    let s0 = keyring::session().map_err(at(Step::Find))?;
    narrow(ring, s0)?;
    // In the holder first: whoever comes between finds it there, and links it into the ring again.
    keyring::link(s0, holder).map_err(at(Step::Hold))?;
    let nested = keyring::link(s0, ring.serial).map_err(at(Step::Nest)).and_then(|()| {
        let through_the_ring =
            ring.join_in_child() && number.is_some() && interface.getpag().is_ok_and(|it| it == number);
        through_the_ring.then_some(()).ok_or((Step::Prove, io::Error::from_raw_os_error(libc::ENOKEY)))
    });
    if let Err(error) = nested {
        let _ = keyring::unlink(s0, ring.serial);
        let _ = keyring::unlink(s0, holder);
        return Err(error);
    }
    // What was there before is dead, or the module would have found that one.
    while let Some(old) = anchors(holder, |serial| serial != s0) {
        let _ = keyring::unlink(old, ring.serial);
        if keyring::unlink(old, holder).is_err() {
            break;
        }
    }
    Ok(s0)
}

/// Makes S0 of the keyring that setpag has made: the handle group's first, since a mask with group bits would let in
/// whoever has gid 0.
fn narrow(ring: &Ring, s0: Serial) -> std::result::Result<(), (Step, io::Error)> {
    let at = |step: Step| move |error: io::Error| (step, error);
    let of_root = keyring::describe(s0, |found| found.is_keyring() && found.uid == 0).map_err(at(Step::Find))?;
    if !of_root {
        return Err((Step::Find, io::Error::from_raw_os_error(libc::EPERM)));
    }
    keyring::set_owner(s0, None, Some(ring.group.0)).map_err(at(Step::Narrow))?;
    keyring::set_mask(s0, Mask::S0).map_err(at(Step::Narrow))?;
    let narrowed = keyring::describe(s0, |found| is_anchor(&found) && found.gid == ring.group.0);
    match narrowed.map_err(at(Step::Narrow))? {
        true => Ok(()),
        false => Err((Step::Narrow, io::Error::from_raw_os_error(libc::EPERM))),
    }
}

/// Whether a keyring in a holder is the S0 of its PAG.
pub(crate) fn is_anchor(found: &Description<'_>) -> bool {
    found.is_keyring() && found.uid == 0 && found.mask == Mask::S0
}

/// An S0 in a holder or in a ring.
fn anchors(place: Serial, which: impl Fn(Serial) -> bool) -> Option<Serial> {
    let mut members = [0; 4 * 4096];
    let mut members = keyring::members_into(place, &mut members).ok()?;
    members.find(|serial| which(*serial) && keyring::describe(*serial, |found| is_anchor(&found)).unwrap_or(false))
}

/// Whether an S0 still has its `_pag`: every member of the PAG can invalidate it, and then the tokens of all are gone.
fn is_whole(s0: Serial) -> bool {
    let mut members = [0; 4 * 64];
    let Ok(mut members) = keyring::members_into(s0, &mut members) else { return false };
    // One that was revoked or invalidated is not described any more.
    members
        .any(|key| keyring::describe(key, |found| found.kind == b"afs_pag" && found.name == b"_pag").unwrap_or(false))
}

/// What there was to do for [`equip`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Equipped {
    /// Nothing: all is there, or the host has no OpenAFS to be served.
    AsBefore,
    /// S0 was not in the ring, and is again: the tokens are there as they were.
    Relinked,
    /// There is a new S0, without tokens: the PAG had none, or a member has invalidated its `_pag`.
    Anew,
}

/// Holds the S0 that a ring has, for a PAG whose holder was lost.
pub fn hold_again(_guard: &Guard, pag: &mut Pag) {
    let Ok(ring) = &pag.ring else { return };
    // What is in a follower's ring is the followed one's.
    if follows(pag) {
        return;
    }
    let held = |s0: &Serial| keyring::link(*s0, pag.holder).is_ok();
    // Nobody but root makes such a keyring, and nobody can link one elsewhere: it is this PAG's own.
    pag.nested = anchors(ring.serial, |_| true).filter(held);
}

fn follows(pag: &Pag) -> bool {
    pag.record.as_ref().is_ok_and(|record| record.follows.is_some())
}

/// Whether [`equip`] would have anything to do for a PAG that has this ring, with these keys in it, and this S0.
pub fn lacks(keys: &[Serial], s0: Option<Serial>) -> bool {
    Device::served().is_some() && s0.is_none_or(|s0| !keys.contains(&s0) || !is_whole(s0))
}

/// Sees to it that the members of `pag` are in a PAG of OpenAFS, where the host has that. Held under the uid's lock.
///
/// # Errors
/// `Key` and `System`, in words: they are in none then, and a seeder gets them no tokens.
pub fn equip(guard: &Guard, pag: &mut Pag) -> Result<Equipped> {
    let Ok(ring) = &pag.ring else { return Ok(Equipped::AsBefore) };
    // The followed PAG is then the one that its members are in (see [`crate::mirror::follow`]).
    if Device::served().is_none() || follows(pag) {
        return Ok(Equipped::AsBefore);
    }
    match pag.nested.filter(|s0| is_whole(*s0)) {
        Some(s0) => {
            let mut members = [0; 4 * 4096];
            let there =
                keyring::members_into(ring.serial, &mut members).is_ok_and(|mut keys| keys.any(|key| key == s0));
            if there {
                return Ok(Equipped::AsBefore);
            }
            let doing = || format!("link keyring {s0} of OpenAFS into ring {}", ring.serial);
            keyring::link(s0, ring.serial).map_err(Error::key(doing()))?;
            Ok(Equipped::Relinked)
        }
        None => {
            pag.nested = Some(anchor(guard, ring, pag.holder)?);
            Ok(Equipped::Anew)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::xdr::tests::opaque;
    use super::*;
    use proptest::prelude::*;

    fn old(ticket: &[u8], vice_id: u32, begins: u32, expires: u32, cell: &[u8]) -> Vec<u8> {
        let mut padded = ticket.to_vec();
        padded.resize(ticket.len().max(56), 0);
        let mut bytes = u32::try_from(padded.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(padded);
        for word in [24, 256, 0x5e55_1011, 0x5e55_1011, vice_id, begins, expires, 1] {
            bytes.extend(u32::to_ne_bytes(word));
        }
        bytes.extend(cell);
        bytes
    }

    #[test]
    fn a_token_in_the_older_form_says_the_same() {
        let bytes = old(b"ticket", 1001, 10, 1_764_000_001, b"example.test\0\0\0");
        let fact = Fact { kind: Kind::Rxkad, expires: 1_764_000_001, vice_id: Some(1001) };
        assert_eq!(old_token(&bytes), Some((&b"example.test"[..], fact)));
        let long = old(&[7; 300], 1001, 11, 1_764_000_001, b"a\0");
        assert_eq!(old_token(&long), Some((&b"a"[..], Fact { vice_id: None, ..fact })));
    }

    #[test]
    fn what_is_cut_off_is_no_token_in_the_older_form() {
        let bytes = old(b"ticket", 1001, 10, 1_764_000_001, b"example.test\0");
        for length in 0..bytes.len() {
            assert_eq!(old_token(&bytes[..length]), None, "{length}");
        }
        assert_eq!(old_token(&[0xff; 200]), None);
        assert_eq!(old_token(&[0; 200]), None);
    }

    #[test]
    fn a_set_of_no_tokens_is_one() {
        for cell in ["a", "abcd", "example.test", &"x".repeat(64)] {
            let mut out = [0xee; 76];
            let length = no_tokens(cell.as_bytes(), &mut out);
            assert_eq!(out[..length], [&[0; 4][..], &opaque(cell.as_bytes()), &[0; 4]].concat());
            let mut set = TokenSet::parse(&out[..length]).unwrap();
            assert_eq!((set.cell, set.next()), (cell.as_bytes(), None));
        }
    }

    #[test]
    fn a_device_that_is_none_is_in_no_pag_and_has_no_tokens() {
        let interface = Device(c"/dev/null".to_owned()).open().unwrap();
        assert!(!interface.is_member());
        assert!(interface.unlog().is_err() && interface.setpag().is_err());
        assert!(interface.tokens(&mut |_| panic!("there are none")));
        for cell in ["", &"x".repeat(65)] {
            assert_eq!(interface.unlog_cell(cell).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        // Not a word of failure where there is nothing to discard: a module that was unloaded.
        assert!(forget(&interface, None) && visit(&interface, &mut |_| panic!("there are none")));
    }

    #[test]
    fn each_step_that_can_fail_has_a_number_of_its_own() {
        for (number, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, number);
            assert!(!step.to_string().is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in any::<u32>()) {
            let _ = old_token(&bytes);
            let _ = old_token(&[&length.to_ne_bytes()[..], &bytes].concat());
        }
    }
}
