//! AFS clients, and the tokens that they keep.

use std::fmt;

use super::{Cell, Principal};

/// An AFS client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// Keys of type `user` in the ring: for trying things out, and for programs that keep tokens of their own kind.
    Keyring,
    /// OpenAFS, and whatever has its interface: AuriStorFS, untested.
    OpenAfs,
    /// The kernel's own.
    Kafs,
}

/// The security class that a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Kerberos.
    Rxkad,
    /// GSSAPI, as OpenAFS has it.
    Rxgk,
    /// GSSAPI, as AuriStorFS and kAFS have it.
    YfsRxgk,
}

/// Whether a token serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// It does.
    Good,
    /// It has ended.
    Expired,
    /// Somebody has revoked its key, and it is still in the ring: kAFS then answers with an error.
    Revoked,
}

/// A token in a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose token it is.
    pub client: Client,
    /// The cell that it is for.
    pub cell: Cell,
    /// The Kerberos identity, where the client tells it.
    pub principal: Option<Principal>,
    /// Whose it is in the cell's protection database, where the client tells it.
    pub vice_id: Option<i64>,
    /// Its security class, where the client has such and tells it.
    pub kind: Option<TokenKind>,
    /// When it ends, in seconds since the epoch; 0 when the client does not tell, as of one that has expired.
    pub expires: u64,
    /// Whether it serves.
    pub state: TokenState,
}

impl Client {
    /// All clients that this version knows.
    pub const ALL: [Client; 3] = [Client::Keyring, Client::OpenAfs, Client::Kafs];

    /// The client's name, for people and fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Client::Keyring => "keyring",
            Client::OpenAfs => "openafs",
            Client::Kafs => "kafs",
        }
    }

    /// The client of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|client| client.as_str() == name)
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TokenState {
    /// Its name, for people and fields.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenState::Good => "good",
            TokenState::Expired => "expired",
            TokenState::Revoked => "revoked",
        }
    }
}

impl TokenKind {
    /// Its name, for people and fields.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenKind::Rxkad => "rxkad",
            TokenKind::Rxgk => "rxgk",
            TokenKind::YfsRxgk => "yfs-rxgk",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_called_as_in_the_configuration() {
        for client in Client::ALL {
            assert_eq!(Client::parse(client.as_str()), Some(client));
        }
        assert_eq!(Client::parse("afs"), None);
    }
}
