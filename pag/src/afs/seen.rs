//! A token as a child sees it, and how the child tells its parent.

use crate::sys::Put;
use crate::types::{Client, Principal, Token, TokenKind, TokenState};

/// The latest end that a token is taken to have, in 2106: Kerberos knows no later one, and a user may write any number.
const LATEST: u64 = u32::MAX as u64;

impl TokenState {
    pub(super) fn at(expires: u64, now: u64) -> Self {
        if expires > now { TokenState::Good } else { TokenState::Expired }
    }
}

impl Token {
    /// None where the cell's name is none: a user has chosen it.
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

/// A token as it was seen, before anything is allocated for it. No secret is in it.
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

/// What a child writes of a token in front of its cell and its identity: client, kind and state, the two lengths, the
/// end, and the ViceId, 0 for none.
const HEAD: usize = 3 + 2 * 2 + 2 * 8;

impl<'a> Seen<'a> {
    /// Tells the parent. Longer than these two are no cell and no principal.
    pub(super) fn say(&self, put: Put<'_>) -> bool {
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
    pub(super) fn read(rest: &mut &'a [u8]) -> Option<Self> {
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
            client: Client::ALL.into_iter().find(|one| client_number(*one) == client)?,
            kind: [Some(TokenKind::Rxkad), Some(TokenKind::Rxgk), Some(TokenKind::YfsRxgk), None]
                .into_iter()
                .find(|one| kind_number(*one) == kind)?,
            state: [TokenState::Good, TokenState::Expired, TokenState::Revoked]
                .into_iter()
                .find(|one| state_number(*one) == state)?,
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
