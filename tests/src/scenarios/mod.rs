//! The scenarios: each tells a story of users, and what must hold in it.

pub mod tier1;
pub mod tier2;
pub mod tier3;
