//! Runs one scenario of tier 1: `pag-tier1 NAME`, in namespaces of its own that `unshare(1)` has made.
#![allow(clippy::expect_used, clippy::panic, reason = "in a test, to panic is to fail")]

use pag_tests::sandbox::Sandbox;
use pag_tests::scenarios::tier1::ALL;

fn main() {
    let name = std::env::args().nth(1).expect("the name of a scenario");
    // Only in the first process of a pid namespace can it do no harm to the host.
    assert_eq!(std::process::id(), 1, "run it by `cargo xtask test --only {name}`");
    let (.., run) = ALL.iter().find(|(known, ..)| *known == name).unwrap_or_else(|| panic!("no scenario {name}"));
    run(&mut Sandbox::enter());
}
