//! AFS clients: which ones the host has, and how their tokens are listed and discarded.
//!
//! The kernel shows the tokens of a ring to its members alone. A caller that is no member sends a child into the
//! ring, which allocates nothing (see [`crate::sys`]). For OpenAFS a child asks in any case: its module may wait for
//! a server, and it writes the PAG into the groups of the process that asks.

mod client;
mod dead;
mod kafs;
mod keyring;
mod keys;
mod missing;
pub mod openafs;
pub mod s0;
mod seen;
mod tokens;
mod xdr;

pub(crate) use self::keys::discard_keys;
pub use self::missing::MissingClients;
pub use self::tokens::{discard, discard_as_member, discard_cell, discard_here, tokens, tokens_as_member, tokens_here};
