//! kAFS, the kernel's own client: tokens are `rxrpc` keys called `afs@CELL`, directly in the ring. In a keyring below it
//! they would be found by some look-ups and not by others (Linux, security/keys/request_key.c, request_key_rcu, does not
//! recurse).
//!
//! There is no system call for any of this; what aklog-kafs sets is looked at and discarded as keys.

use std::path::Path;

use super::seen::Seen;
use super::xdr::TokenSet;
use crate::types::{Client, TokenState};

/// The type of the keys (Linux, net/rxrpc/key.c).
pub(super) const TYPE: &[u8] = b"rxrpc";

/// Whether the kernel has the client, in this network namespace (Linux, fs/afs/main.c: a link to `/proc/self/net/afs`).
pub(super) fn is_present() -> bool {
    Path::new("/proc/fs/afs").exists()
}

/// Where the kernel tells which cell it takes for its own, and so does aklog-kafs.
pub(super) const OWN_CELL: &str = "/proc/net/afs/rootcell";

/// What a token says of itself. `payload` is nothing where it could not be read: a user can take that right away, and
/// the token still serves.
pub(super) fn seen<'a>(cell: &'a [u8], payload: &[u8], now: u64) -> Seen<'a> {
    let facts = || TokenSet::parse(payload).into_iter().flatten();
    // The key expires with the first of its tokens, and of several the kernel uses the first that it knows.
    let expires = facts().map(|fact| fact.expires).min().unwrap_or(0);
    Seen {
        client: Client::Kafs,
        kind: facts().next().map(|fact| fact.kind),
        state: if expires == 0 { TokenState::Good } else { TokenState::at(expires, now) },
        expires,
        vice_id: facts().find_map(|fact| fact.vice_id),
        cell,
        identity: b"",
    }
}

#[cfg(test)]
mod tests {
    use super::super::xdr::tests::{rxkad, set};
    use super::*;
    use crate::types::{Token, TokenKind};

    const NOW: u64 = 1_764_000_000;

    #[test]
    fn a_key_with_two_tokens_ends_with_the_first() {
        let later = rxkad(0, 0, 1_764_000_900, b"ticket");
        let sooner = rxkad(1001, 1, 1_764_000_600, b"ticket");
        let payload = set("example.test", &[later, sooner]);
        let token = Token::of(&seen(b"example.test", &payload, NOW)).unwrap();
        assert_eq!((token.client, token.kind, token.expires), (Client::Kafs, Some(TokenKind::Rxkad), 1_764_000_600));
        assert_eq!((token.vice_id, token.state), (Some(1001), TokenState::Good));
        assert_eq!(seen(b"example.test", &payload, NOW + 600).state, TokenState::Expired);
    }

    #[test]
    fn the_description_names_the_cell_whatever_the_payload_says() {
        let payload = set("elsewhere.test", &[rxkad(0, 0, 1_764_000_900, b"")]);
        assert_eq!(seen(b"example.test", &payload, NOW).cell, b"example.test");
    }

    #[test]
    fn a_token_that_cannot_be_read_is_one_all_the_same() {
        let found = seen(b"example.test", &[], NOW);
        assert_eq!((found.kind, found.expires, found.state), (None, 0, TokenState::Good));
    }
}
