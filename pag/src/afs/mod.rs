//! AFS clients: which ones there are, and how their tokens are listed and discarded.
//!
//! A member of the ring looks at tokens and discards them, since the kernel shows them to no other process. A caller that
//! is no member sends a child into the ring, which allocates nothing (see [`crate::sys`]). OpenAFS is asked by a child in
//! any case: its module may wait for a server, and writes the PAG into the groups of the process that asks.

mod client;
mod dead;
mod kafs;
mod keyring;
mod keys;
pub mod openafs;
pub mod s0;
mod seen;
mod tokens;
mod xdr;

pub use self::tokens::{discard, discard_as_member, discard_cell, discard_here, tokens, tokens_as_member, tokens_here};
