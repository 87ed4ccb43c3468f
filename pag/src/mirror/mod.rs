//! Keeps the tokens of one PAG in another keyring of the user: in the ring of a user manager that follows a session,
//! and in the session keyring of a user manager that was started outside of the user's PAG.

pub mod adopt;
pub mod follow;
mod reconcile;
