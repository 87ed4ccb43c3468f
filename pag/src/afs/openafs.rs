//! OpenAFS, by the pioctls of its kernel module. AuriStorFS is said to have the same interface in another place
//! (untested).
//!
//! A PAG of OpenAFS is a key `_pag` that its module finds in the session keyring or below it (OpenAFS,
//! src/afs/LINUX/osi_groups.c, osi_get_keyring_pag). Only `setpag` can make one, in a new session keyring: S0
//! (install_session_keyring there). [`super::s0`] links S0 below the ring. A PAG never gets a second `_pag`: the
//! module marks a PAG's tokens as expired as soon as any key with its number is destroyed (afs_pag_destroy).
//!
//! The module writes the PAG into the groups of a thread that asks for it, and may wait for a server. So children
//! and programs of our own call these functions, not the host. Buffers that hold session keys are zeroed after use.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;

use super::seen::Seen;
use super::xdr::{Fact, TokenSet, vice_id_of};
use crate::sys;
use crate::types::{Client, TokenKind, TokenState};
use zeroize::Zeroizing;

/// The devices of known modules: OpenAFS (src/config/afs_args.h), Arla and old OpenAFS, and AuriStorFS (untested).
const KNOWN: [&str; 3] = ["/proc/fs/openafs/afs_ioctl", "/proc/fs/nnpfs/afs_ioctl", "/proc/fs/auristorfs/afs_ioctl"];

/// The files that name the host's own cell: in Debian's and other packages, and in the original place.
pub(super) const OWN_CELL: [&str; 2] = ["/etc/openafs/ThisCell", "/usr/vice/etc/ThisCell"];

/// The configuration of OpenAFS, for functions that are called without settings: the end of a login reads none.
struct Configured {
    served: bool,
    device: Option<CString>,
}

static CONFIGURED: Mutex<Configured> = Mutex::new(Configured { served: true, device: None });

pub(super) fn remember(served: bool, device: Option<&Path>) {
    let device = device.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
    if let Some(mut configured) = sys::lock_briefly(&CONFIGURED) {
        *configured = Configured { served, device };
    }
}

/// The device file of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device(CString);

impl Device {
    /// The device of the loaded module, if the configuration serves OpenAFS. Not for children, since it takes a lock.
    pub fn served() -> Option<Self> {
        Self::find().ok().flatten()
    }

    /// As [`Device::served`]. A device that this process may not look at is there.
    ///
    /// # Errors
    /// EBUSY in a process that was forked while another thread read the configuration.
    fn find() -> io::Result<Option<Self>> {
        let configured = sys::lock_briefly(&CONFIGURED).ok_or_else(|| io::Error::from_raw_os_error(libc::EBUSY))?;
        if !configured.served {
            return Ok(None);
        }
        let known = KNOWN.iter().filter_map(|path| CString::new(*path).ok());
        let mut all = configured.device.clone().into_iter().chain(known);
        let is_there = |path: &CString| path.to_str().is_ok_and(|path| Path::new(path).try_exists().unwrap_or(true));
        Ok(all.find(is_there).map(Device))
    }

    /// Opens the device. Allocates nothing.
    ///
    /// # Errors
    /// ENOENT if the module has been unloaded.
    pub fn open(&self) -> io::Result<Interface> {
        sys::open_file(&self.0).map(Interface)
    }

    /// The interface of the module that [is served](Self::served), if there is one.
    ///
    /// # Errors
    /// EMFILE, ENFILE or EACCES if the device is there and cannot be opened. Nothing is known of tokens then.
    pub fn opened() -> io::Result<Option<Interface>> {
        let Some(device) = Self::find()? else { return Ok(None) };
        match device.open() {
            Ok(interface) => Ok(Some(interface)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A module's interface. Its calls concern the calling thread's PAG and allocate nothing.
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

/// VIOC_GETPAG's answer outside of any PAG (src/afs/afs.h, NOPAG).
const NO_PAG: u32 = 0xffff_ffff;

/// Bytes for the tokens of one cell. The module gives at most 12,100 (src/afs/afs_pioctl.c, MAXPIOCTLTOKENLEN).
const TOKEN_SPACE: usize = 12 * 1024;

/// Most cells that are looked through. Their number grows with every cell that any user of the host names.
const MOST_CELLS: i32 = 1024;

/// How many signals may interrupt a setpag that waits in the module's throttle.
const MOST_INTERRUPTIONS: usize = 100;

impl Interface {
    fn call(&self, pioctl: Pioctl, input: &[u8], output: &mut [u8]) -> io::Result<()> {
        sys::afs_pioctl(self.0.as_fd(), pioctl.0, pioctl.1, input, output)
    }

    /// Gives the thread a new PAG in a new session keyring. The thread loses what its old one held.
    ///
    /// Users may make one PAG a second in the long run, and wait here if they make more (src/afs/afs_osi_pag.c,
    /// afs_pag_wait). A process with CAP_SYS_ADMIN does not wait.
    ///
    /// # Errors
    /// EDQUOT and ENOMEM; EINTR after very many signals. Even then the thread may have a new, empty session keyring.
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

    /// The number of the PAG that the thread is in; `None` outside of PAGs.
    ///
    /// # Errors
    /// EINVAL if the module does not have this pioctl; ENOTTY if the device is not an AFS client's.
    pub fn getpag(&self) -> io::Result<Option<u32>> {
        let mut number = [0; 4];
        self.call(GETPAG, &[], &mut number)?;
        Ok(Some(u32::from_ne_bytes(number)).filter(|number| *number != NO_PAG && *number != 0))
    }

    /// Whether the thread is in a PAG. Outside of one, tokens belong to the bare uid: every process of that uid
    /// outside of PAGs shares them.
    pub fn is_member(&self) -> bool {
        matches!(self.getpag(), Ok(Some(_)))
    }

    /// As [`Interface::is_member`], but an error is told apart. The thread is in no PAG if the device is not an AFS
    /// client's, if the module does not know PAGs, or if its daemons do not run yet.
    fn membership(&self) -> io::Result<bool> {
        match self.getpag() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL | libc::EIO)) => Ok(false),
            answer => answer.map(|number| number.is_some()),
        }
    }

    /// Discards all tokens of the PAG, or those of the bare uid outside of PAGs.
    ///
    /// # Errors
    /// EIO before the module's daemons run.
    pub fn unlog(&self) -> io::Result<()> {
        self.call(UNLOG, &[], &mut [])
    }

    /// Discards the tokens of one cell, as [`Interface::unlog`] does. It is no error if there are none.
    ///
    /// OpenAFS 1.8 has no pioctl for this, but it lets an empty set replace a cell's tokens (PSetTokens2).
    /// `unlog -cell` of 1.8 discards all tokens and sets those of the other cells again; for a moment those cells would have
    /// no token.
    ///
    /// # Errors
    /// EINVAL if the module can do neither; EIO before its daemons run.
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
            // EDOM: the PAG never had a token of this cell. ESRCH: the module does not know the cell.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EDOM | libc::ESRCH)) => Ok(()),
            other => other,
        }
    }

    /// Replaces the tokens of a cell by an empty set. `name` ends in a NUL.
    fn unlog_cell_by_setting(&self, name: &[u8]) -> io::Result<()> {
        let mut tokens = Zeroizing::new([0_u8; TOKEN_SPACE]);
        match self.call(GETTOK2, name, &mut tokens[..]) {
            Ok(()) => {}
            // The tokens have ended already.
            Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut nothing = [0; 4 + 4 + 64 + 4];
        let length = no_tokens(name.strip_suffix(b"\0").unwrap_or(name), &mut nothing);
        self.call(SETTOK2, nothing.get(..length).unwrap_or(&[]), &mut [])
    }

    /// Shows `look` the PAG's tokens, or those of the bare uid outside of PAGs. False if `look` returned false, or if
    /// there may be more tokens.
    fn tokens(&self, look: &mut dyn FnMut(&Seen<'_>) -> bool) -> bool {
        let now = crate::sys::now();
        let mut tokens = Zeroizing::new([0_u8; TOKEN_SPACE]);
        let mut newer = true;
        let mut index: i32 = 0;
        while index < MOST_CELLS {
            // Cleared for the next answer. `Zeroizing` wipes it in the end.
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
                // Tokens that ended some time ago, or that are too large for the buffer.
                Err(Some(libc::ENOTCONN | libc::E2BIG)) => {}
                Err(Some(libc::EINVAL)) if newer => {
                    newer = false;
                    continue;
                }
                // There are no more cells, or the module has no tokens to give.
                Err(Some(libc::EDOM | libc::EINVAL | libc::EIO | libc::ENOTTY)) => return true,
                Err(_) => return false,
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
        state: TokenState::at(fact.expires, now),
        expires: fact.expires,
        vice_id: fact.vice_id,
        cell,
        identity: b"",
    }
}

/// Shows `look` the tokens of the PAG that the thread is in. Shows none outside of PAGs, or if the module is gone.
/// False if `look` returned false, or if the module could not be asked.
pub(super) fn visit(interface: &Interface, look: &mut dyn FnMut(&Seen<'_>) -> bool) -> bool {
    interface.membership().is_ok_and(|member| !member || interface.tokens(look))
}

/// The spelling of a cell's name for which the module has a token. The module distinguishes case, users need not.
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

/// Discards the tokens of the PAG that the thread is in, of one cell or all. True if none are left.
pub(super) fn discard(interface: &Interface, cell: Option<&str>) -> bool {
    match interface.membership() {
        Ok(true) => {}
        Ok(false) => return true,
        Err(_) => return false,
    }
    let discarded = match cell {
        Some(cell) => {
            let mut spelled = [0; 64];
            interface.unlog_cell(spelling(interface, cell, &mut spelled).unwrap_or(cell))
        }
        None => interface.unlog(),
    };
    // EIO: the daemons do not run, so no token can have been set (src/afs/afs_pioctl.c, PSetTokens2 and PUnlog).
    discarded.is_ok() || discarded.is_err_and(|error| error.raw_os_error() == Some(libc::EIO))
}

/// Writes an empty set of tokens for a cell (src/auth/token.xg, ktc_setTokenData) and returns its length in bytes.
fn no_tokens(cell: &[u8], out: &mut [u8]) -> usize {
    let length = u32::try_from(cell.len()).unwrap_or(0).to_be_bytes();
    let padding = cell.len().next_multiple_of(4) - cell.len();
    let bytes =
        [0; 4].into_iter().chain(length).chain(cell.iter().copied()).chain([0].into_iter().cycle().take(padding + 4));
    out.iter_mut().zip(bytes).map(|(place, byte)| *place = byte).count()
}

/// Parses the answer of VIOCGETTOK: the ticket, padded to 56 bytes, a ClearToken (src/afs/afs.h) and the cell.
/// Numbers are in the host's byte order.
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
    Some((cell, Fact { kind: TokenKind::Rxkad, expires: expires.into(), vice_id }))
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
        let fact = Fact { kind: TokenKind::Rxkad, expires: 1_764_000_001, vice_id: Some(1001) };
        assert_eq!(old_token(&bytes), Some((&b"example.test"[..], fact)));
        let long = old(&[7; 300], 1001, 11, 1_764_000_001, b"a\0");
        assert_eq!(old_token(&long), Some((&b"a"[..], Fact { vice_id: None, ..fact })));
    }

    #[test]
    fn a_token_in_the_older_form_that_is_cut_off_is_none() {
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
        // A module that was unloaded has nothing to discard, so this is no failure.
        assert!(discard(&interface, None) && visit(&interface, &mut |_| panic!("there are none")));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in any::<u32>()) {
            let _ = old_token(&bytes);
            let _ = old_token(&[&length.to_ne_bytes()[..], &bytes].concat());
        }
    }
}
