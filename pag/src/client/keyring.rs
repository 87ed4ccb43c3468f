//! Tokens as keys of type `user`, named `afs@CELL`, with `PRINCIPAL EXPIRY` as the first line of the payload: the shape
//! of kAFS's tokens, on a key type that every kernel has.

use super::{Client, Token};
use crate::ccache::format::Principal;
use crate::keyring::Description;

pub(super) fn is_token(key: &Description<'_>) -> bool {
    key.kind == b"user" && key.name.starts_with(b"afs@")
}

pub(super) fn cell(name: &[u8]) -> Option<&str> {
    str::from_utf8(name.strip_prefix(b"afs@")?).ok()
}

pub(super) fn token(name: &[u8], payload: &[u8]) -> Option<Token> {
    let cell = cell(name)?.parse().ok()?;
    let line = payload.split(|byte| *byte == b'\n').next()?;
    let (principal, expires) = str::from_utf8(line).ok()?.rsplit_once(' ')?;
    Some(Token {
        client: Client::Keyring,
        cell,
        principal: Principal::parse(principal).ok(),
        expires: expires.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_its_cell_its_principal_and_its_end() {
        let token = token(b"afs@example.test", b"alice@EXAMPLE.TEST 1764000000\nsecret").unwrap();
        assert_eq!(token.cell.to_string(), "example.test");
        assert_eq!(token.principal.unwrap().to_string(), "alice@EXAMPLE.TEST");
        assert_eq!(token.expires, 1_764_000_000);
    }

    #[test]
    fn what_a_user_may_put_there_instead_is_no_token() {
        for (name, payload) in [
            (&b"afs@"[..], &b"alice@R 1"[..]),
            (b"afs@a b", b"alice@R 1"),
            (b"afs@\xff", b"alice@R 1"),
            (b"afs@example.test", b""),
            (b"afs@example.test", b"alice@R -1"),
            (b"afs@example.test", b"\xff 1"),
        ] {
            assert_eq!(token(name, payload), None, "{name:?} {payload:?}");
        }
    }
}
