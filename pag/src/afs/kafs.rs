//! kAFS, the kernel's own client. Its tokens are `rxrpc` keys named `afs@CELL`, directly in the ring: some look-ups
//! would not find them in a keyring below (Linux, security/keys/request_key.c, request_key_rcu, does not recurse).
//!
//! kAFS has no system call for tokens. The keys that aklog-kafs makes are read and discarded as keys.

use std::path::Path;

use super::seen::Seen;
use super::xdr::TokenSet;
use crate::types::{Client, TokenState};

/// The type of the keys (Linux, net/rxrpc/key.c).
pub(super) const TYPE: &[u8] = b"rxrpc";

/// Whether the kernel has kAFS in this network namespace (Linux, fs/afs/main.c: a link to `/proc/self/net/afs`).
pub(super) fn is_present() -> bool {
    Path::new("/proc/fs/afs").exists()
}

/// The file in which the kernel names its own cell. aklog-kafs uses that cell, too.
pub(super) const OWN_CELL: &str = "/proc/net/afs/rootcell";

/// Reads a token. `payload` is empty if it could not be read: a user can remove that right, and the token is still
/// valid.
pub(super) fn seen<'a>(cell: &'a [u8], payload: &[u8], now: u64) -> Seen<'a> {
    let facts = || TokenSet::parse(payload).into_iter().flatten();
    // The key expires with the first of its tokens. Of several tokens the kernel uses the first of a class that it knows.
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
