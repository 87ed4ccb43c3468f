//! The PAGs of this host: what the helper remembers of them, and what it does about them.

pub(crate) mod clear;
pub(crate) mod keeper;
pub(crate) mod leaving;
pub(crate) mod processes;
pub(crate) mod repair;
