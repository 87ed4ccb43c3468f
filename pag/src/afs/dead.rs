//! Expired and revoked keys that are still in the ring. The kernel no longer describes them, but `/proc/keys` lists
//! them to processes that possess them (security/keys/proc.c, proc_keys_show).

use std::os::fd::AsFd;

use crate::keyring::Serial;
use crate::sys;
use crate::types::{TokenKind, TokenState};

/// An expired or revoked token key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dead<'a> {
    /// Its number.
    pub(super) serial: Serial,
    /// Its type.
    pub(super) kind: &'a [u8],
    /// Its description: `afs@` and a cell.
    pub(super) name: &'a [u8],
    /// Whether it has expired or was revoked.
    pub(super) state: TokenState,
    /// The security class, if the key type's own text names it.
    pub(super) class: Option<TokenKind>,
}

impl<'a> Dead<'a> {
    /// Parses a line: serial, flags, usage, timeout, mask, uid, gid, type, and the type's text, which begins with the
    /// description. A description may contain anything, also a line end, so a user can forge lines. The caller must
    /// ask the kernel about the serial.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = line.splitn(2, |byte| *byte == b' ');
        let serial = u32::from_str_radix(str::from_utf8(words.next()?).ok()?, 16).ok()?;
        let serial = Serial::new(i32::try_from(serial).ok()?)?;
        let mut rest = words.next()?;
        let mut column = || {
            let start = rest.iter().position(|byte| *byte != b' ')?;
            let (_, text) = rest.split_at_checked(start)?;
            let length = text.iter().position(|byte| *byte == b' ')?;
            let (word, after) = text.split_at_checked(length)?;
            rest = after;
            Some(word)
        };
        let flags = column()?;
        let _usage = column()?;
        let timeout = column()?;
        let (_mask, _uid, _gid) = (column()?, column()?, column()?);
        let kind = column()?;
        let text = rest.trim_ascii_start();
        // The kernel lists a revoked key as expired, too.
        let state = match (flags.get(1), timeout) {
            (Some(b'R'), _) => TokenState::Revoked,
            (_, b"expd") => TokenState::Expired,
            _ => return None,
        };
        // The name of a cell has no colon.
        let length = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
        let (name, text) = text.split_at_checked(length)?;
        if !name.starts_with(b"afs@") {
            return None;
        }
        let class = match text.strip_prefix(b": ") {
            Some(text) if text.starts_with(b"ka") => Some(TokenKind::Rxkad),
            Some(text) if text.starts_with(b"ygk") => Some(TokenKind::YfsRxgk),
            _ => None,
        };
        Some(Dead { serial, kind, name, state, class })
    }
}

/// Shows `look` all dead keys that this thread may see and that are named like tokens. Allocates nothing.
pub(super) fn visit(mut look: impl FnMut(&Dead<'_>)) {
    let Ok(file) = sys::open_file(c"/proc/keys") else { return };
    // The longest line has a description of 4095 bytes and some numbers.
    let mut buffer = [0; 8192];
    let mut filled = 0;
    while let Some(space) = buffer.get_mut(filled..).filter(|space| !space.is_empty()) {
        match sys::read(file.as_fd(), space) {
            Ok(0) | Err(_) => return,
            Ok(got) => filled += got,
        }
        let Some(text) = buffer.get(..filled) else { return };
        let mut kept = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let Some(whole) = line.strip_suffix(b"\n") else {
                kept = line.len();
                break;
            };
            if let Some(dead) = Dead::parse(whole) {
                look(&dead);
            }
        }
        buffer.copy_within(filled - kept..filled, 0);
        filled = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dead_tokens_are_found_in_the_kernels_list() {
        let line = b"00ac6634 IR-Q---     1 expd 3b010000  1001  1001 rxrpc     afs@example.test: ka";
        let dead = Dead::parse(line).unwrap();
        assert_eq!((dead.serial.get(), dead.kind, dead.name), (0x00ac_6634, &b"rxrpc"[..], &b"afs@example.test"[..]));
        assert_eq!((dead.state, dead.class), (TokenState::Revoked, Some(TokenKind::Rxkad)));
        let line = b"35c0cef5 I--Q---   131 expd 3f010000     0     0 user      afs@b.test: 1000";
        let dead = Dead::parse(line).unwrap();
        assert_eq!(
            (dead.kind, dead.name, dead.state, dead.class),
            (&b"user"[..], &b"afs@b.test"[..], TokenState::Expired, None)
        );
        let line = b"35c0cef5 I--Q---   131 expd 3f010000     0     0 rxrpc     afs@b.test: ygk ka";
        assert_eq!(Dead::parse(line).unwrap().class, Some(TokenKind::YfsRxgk));
    }

    #[test]
    fn live_keys_and_other_keys_are_passed_over() {
        for line in [
            &b"35c0cef5 I--Q---     1 perm 3f010000     0     0 user      afs@b.test: 9"[..],
            b"35c0cef5 I--Q---     1  23h 3f010000     0     0 rxrpc     afs@b.test: ka",
            b"35c0cef5 I--Q---     1 expd 3f010000     0     0 user      other: 9",
            b"35c0cef5 I--Q---     1 expd 3f010000     0     0 keyring   _ses: empty",
            b"35c0cef5 I--Q---     1 expd",
            b"nonsense I--Q---     1 expd 3f010000     0     0 user      afs@b.test: 9",
            b"00000000 I--Q---     1 expd 3f010000     0     0 user      afs@b.test: 9",
            b"",
        ] {
            assert_eq!(Dead::parse(line), None, "{}", String::from_utf8_lossy(line));
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Dead::parse(&bytes);
            let _ = Dead::parse(&[b"35c0cef5 I--Q---  1 expd 3f010000  0  0 rxrpc ", &bytes[..]].concat());
        }
    }
}
