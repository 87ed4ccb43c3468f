//! User managers: those that follow a session, those that were adopted, and those that are in none of their user's PAGs.

pub(crate) mod adopted;
pub(crate) mod choose;
pub(crate) mod following;
pub(crate) mod leaders;
pub(crate) mod outside;
