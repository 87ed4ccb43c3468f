//! Tickets in ccaches: how the helper learns that a user or a login has got a new one.

pub(crate) mod other_ccaches;
pub(crate) mod own_ccaches;
