//! The token keys of kAFS and `keyring` in a keyring.

use super::seen::Seen;
use super::{dead, kafs, keyring};
use crate::keyring::{self as keys, Description, Serial};
use crate::types::{Client, TokenState};
use zeroize::Zeroizing;

/// A key that is a token of some client.
pub(super) struct TokenKey<'a> {
    pub(super) serial: Serial,
    pub(super) cell: &'a [u8],
    /// `None` if the payload is not that of a token.
    pub(super) seen: Option<Seen<'a>>,
}

impl Client {
    /// The client that has token keys of this type and name, and the token's cell.
    fn of_key<'a>(kind: &[u8], name: &'a [u8]) -> Option<(Client, &'a [u8])> {
        let client = match kind {
            keyring::TYPE => Client::Keyring,
            kafs::TYPE => Client::Kafs,
            _ => return None,
        };
        Some((client, name.strip_prefix(b"afs@")?))
    }
}

/// Shows `look` every token key in the keyring `place`. The thread must possess that keyring. False if it cannot be
/// read. Allocates nothing.
pub(super) fn visit_keys(place: Serial, look: &mut dyn FnMut(&TokenKey<'_>)) -> bool {
    // A user's quota is 200 keys unless the administrator has raised it. Root's tokens do not count there.
    let mut members = [0; 4 * 4096];
    let Ok(members) = keys::members_into(place, &mut members) else { return false };
    let now = crate::sys::now();
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
            // The kernel is asked again, since a user can forge a line of the list.
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

/// The state of a key, from the error with which the kernel refuses to describe it.
fn death(error: &std::io::Error) -> Option<TokenState> {
    match error.raw_os_error() {
        Some(libc::EKEYEXPIRED) => Some(TokenState::Expired),
        Some(libc::EKEYREVOKED) => Some(TokenState::Revoked),
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
    let mut payload = Zeroizing::new([0_u8; 1024]);
    match keys::payload_into(serial, &mut payload[..]) {
        Ok(length) => match payload.get(..length) {
            Some(payload) => look(payload),
            None => with_long_payload(serial, &mut look),
        },
        Err(_) => look(&[]),
    }
}

/// For tickets with a large PAC, and for large keys that users have made. A function of its own, so that its large
/// buffer is on the stack only when it is needed.
#[inline(never)]
fn with_long_payload(serial: Serial, look: &mut dyn FnMut(&[u8])) {
    // Longest payload that the kernel takes for either type, in bytes: security/keys/user_defined.c, user_preparse.
    let mut payload = Zeroizing::new([0_u8; 32 * 1024]);
    let length = keys::payload_into(serial, &mut payload[..]).unwrap_or(0);
    look(payload.get(..length).unwrap_or(&[]));
}

/// Discards the token keys in `place`, of one cell or all. False if `place` cannot be read. Allocates nothing.
pub(crate) fn discard_keys(place: Serial, cell: Option<&str>) -> bool {
    visit_keys(place, &mut |key| {
        if cell.is_none_or(|cell| key.cell.eq_ignore_ascii_case(cell.as_bytes())) {
            // The key leaves the ring first: a program that looks for a token then finds none, instead of an invalidated
            // key. The process keyring holds it meanwhile: only a possessor may invalidate it, and a member may have
            // linked it elsewhere.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_tokens_by_type_and_name() {
        assert_eq!(Client::of_key(b"user", b"afs@a.test"), Some((Client::Keyring, &b"a.test"[..])));
        assert_eq!(Client::of_key(b"rxrpc", b"afs@a.test"), Some((Client::Kafs, &b"a.test"[..])));
        for (kind, name) in [(&b"rxrpc_s"[..], &b"afs@a"[..]), (b"rxrpc", b"52:2"), (b"keyring", b"afs@a")] {
            assert_eq!(Client::of_key(kind, name), None);
        }
    }
}
