//! A user manager's ring that has the tokens of another PAG: of the session that its services follow, or of the user's
//! PAG where the manager was started outside of it.

pub mod adopt;
pub mod follow;
