//! A token as a child finds it, and its encoding for the parent.

use crate::sys::{Fields, Put, write_fields};
use crate::types::{Client, Principal, Token, TokenKind, TokenState};

/// The latest end of a token, in seconds since the epoch (2106). Kerberos knows no later one, but a user may write
/// any number.
const LATEST: u64 = u32::MAX as u64;

impl TokenState {
    pub(super) fn at(expires: u64, now: u64) -> Self {
        if expires > now { TokenState::Good } else { TokenState::Expired }
    }
}

impl Token {
    /// `None` if the cell's name is not valid: a user may have chosen it.
    pub(super) fn of(seen: &Seen<'_>) -> Option<Self> {
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

/// A token as it was found, in borrowed memory. Holds no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    pub(super) client: Client,
    pub(super) kind: Option<TokenKind>,
    pub(super) state: TokenState,
    pub(super) expires: u64,
    pub(super) vice_id: Option<i64>,
    pub(super) cell: &'a [u8],
    pub(super) identity: &'a [u8],
}

impl<'a> Seen<'a> {
    /// Writes the token for the parent. Cuts off what is too long for a cell, and leaves out what is too long for a
    /// principal.
    pub(super) fn write(&self, put: Put<'_>) -> bool {
        let cell = self.cell.get(..self.cell.len().min(128)).unwrap_or(&[]);
        let identity = if self.identity.len() <= 512 { self.identity } else { &[] };
        let numbers = [client_number(self.client), kind_number(self.kind), state_number(self.state)];
        let (expires, vice_id) = (self.expires.to_ne_bytes(), self.vice_id.unwrap_or(0).to_ne_bytes());
        write_fields(put, &[&numbers, &expires, &vice_id, cell, identity])
    }

    /// Reads the next token that a child has written.
    pub(super) fn read(fields: &mut Fields<'a>) -> Option<Self> {
        let [client, kind, state] = fields.array()?;
        let kinds = [Some(TokenKind::Rxkad), Some(TokenKind::Rxgk), Some(TokenKind::YfsRxgk), None];
        let states = [TokenState::Good, TokenState::Expired, TokenState::Revoked];
        Some(Seen {
            client: Client::ALL.into_iter().find(|one| client_number(*one) == client)?,
            kind: kinds.into_iter().find(|one| kind_number(*one) == kind)?,
            state: states.into_iter().find(|one| state_number(*one) == state)?,
            expires: u64::from_ne_bytes(fields.array()?),
            vice_id: Some(i64::from_ne_bytes(fields.array()?)).filter(|id| *id != 0),
            cell: fields.next()?,
            identity: fields.next()?,
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

fn kind_number(kind: Option<TokenKind>) -> u8 {
    match kind {
        None => 0,
        Some(TokenKind::Rxkad) => 2,
        Some(TokenKind::Rxgk) => 4,
        Some(TokenKind::YfsRxgk) => 6,
    }
}

fn state_number(state: TokenState) -> u8 {
    match state {
        TokenState::Good => 0,
        TokenState::Expired => 1,
        TokenState::Revoked => 2,
    }
}
