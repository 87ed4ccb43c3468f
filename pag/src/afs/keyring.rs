//! Tokens as keys of type `user`, named `afs@CELL`, with `PRINCIPAL EXPIRY` as the first line of the payload: the shape
//! of kAFS's tokens, on a key type that every kernel has.

use super::seen::Seen;
use crate::types::{Client, TokenState};

/// The type of the keys.
pub(super) const TYPE: &[u8] = b"user";

/// Reads a token. A user may have written its payload.
pub(super) fn seen<'a>(cell: &'a [u8], payload: &'a [u8], now: u64) -> Option<Seen<'a>> {
    let line = payload.split(|byte| *byte == b'\n').next()?;
    let blank = line.iter().rposition(|byte| *byte == b' ')?;
    let (identity, expires) = (line.get(..blank)?, line.get(blank + 1..)?);
    let expires = str::from_utf8(expires).ok()?.parse().ok()?;
    let state = TokenState::at(expires, now);
    Some(Seen { client: Client::Keyring, kind: None, state, expires, vice_id: None, cell, identity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Token;

    fn token(cell: &[u8], payload: &[u8]) -> Option<Token> {
        Token::of(&seen(cell, payload, 1_700_000_000)?)
    }

    #[test]
    fn a_token_has_a_cell_a_principal_and_an_end() {
        let token = token(b"example.test", b"alice@EXAMPLE.TEST 1764000000\nsecret").unwrap();
        assert_eq!(token.cell.to_string(), "example.test");
        assert_eq!(token.principal.unwrap().to_string(), "alice@EXAMPLE.TEST");
        assert_eq!((token.expires, token.state), (1_764_000_000, TokenState::Good));
    }

    #[test]
    fn other_keys_of_a_user_are_no_tokens() {
        for (cell, payload) in [
            (&b""[..], &b"alice@R 1"[..]),
            (b"a b", b"alice@R 1"),
            (b"\xff", b"alice@R 1"),
            (b"example.test", b""),
            (b"example.test", b"alice@R -1"),
            (b"example.test", b"\xff x"),
        ] {
            assert_eq!(token(cell, payload), None, "{cell:?} {payload:?}");
        }
        // A principal that does not parse is left out, but the token counts.
        assert_eq!(token(b"example.test", b"\xff 1").unwrap().principal, None);
    }
}
