//! AFS clients, and the tokens that they keep.

use std::fmt;

use super::{Cell, Principal};

/// An AFS client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// Keys of type `user` in the ring: for trials, and for programs that keep tokens of their own kind.
    Keyring,
    /// OpenAFS, and AuriStorFS, which is said to have the same interface (untested).
    OpenAfs,
    /// kAFS, the kernel's own client.
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

/// Whether a token is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// The token is valid.
    Good,
    /// The token has ended.
    Expired,
    /// A process has revoked the token's key, and the key is still in the ring: kAFS then answers with an error.
    Revoked,
}

/// A token in a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The client that keeps it.
    pub client: Client,
    /// The cell that it is for.
    pub cell: Cell,
    /// The Kerberos identity, if the client tells it.
    pub principal: Option<Principal>,
    /// The user's number in the cell's protection database, if the client tells it.
    pub vice_id: Option<i64>,
    /// The security class, if the client has classes and tells it.
    pub kind: Option<TokenKind>,
    /// When it ends, in seconds since the epoch; 0 if the client does not tell, for example for an expired key.
    pub expires: u64,
    /// Whether it is valid.
    pub state: TokenState,
}

impl Client {
    /// All clients that this version knows.
    pub const ALL: [Client; 3] = [Client::Keyring, Client::OpenAfs, Client::Kafs];

    /// The client's name in configuration, messages and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Client::Keyring => "keyring",
            Client::OpenAfs => "openafs",
            Client::Kafs => "kafs",
        }
    }

    /// The client with this name.
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
    /// The state's name in messages and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenState::Good => "good",
            TokenState::Expired => "expired",
            TokenState::Revoked => "revoked",
        }
    }
}

impl TokenKind {
    /// The class's name in messages and JSON.
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
