//! Harness and end-to-end scenarios. Tier 1 runs in a [`sandbox`] on this host, tiers 2 and 3 in a [`guest`] that has been
//! booted, tier 3 with an AFS [`cell`]. A scenario is a function that panics when it fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "in a test, to panic is to fail"
)]

pub mod apache;
pub mod bus;
pub mod cell;
pub mod demo;
pub mod display;
pub mod gate;
pub mod guest;
pub mod renamed;
pub mod ring;
pub mod sandbox;
pub mod scenarios;
/// The page of pagctl's JSON.
#[path = "../../pagctl/src/output/schema.rs"]
pub mod schema;
pub mod server;
pub mod speed;
pub mod ticket;
