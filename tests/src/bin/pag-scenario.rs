//! Runs one scenario inside the machine that was booted for it: `pag-scenario NAME BOOT` in tier 2,
//! `pag-scenario NAME CLIENT` in tier 3.
#![allow(clippy::print_stderr, clippy::expect_used, clippy::exit, reason = "in a test, to panic is to fail")]

use pag_tests::scenarios::tier3::Client;
use pag_tests::scenarios::{tier2, tier3};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("the name of a scenario");
    let word = arguments.next().unwrap_or_default();
    match &name[..] {
        "demo_with" | "demo_without" => return pag_tests::demo::act(name == "demo_with"),
        "demo_afs_with" | "demo_afs_without" => return pag_tests::demo::afs_act(name == "demo_afs_with"),
        "bench_helper" => return pag_tests::speed::helper(),
        "bench_afs" => return pag_tests::speed::afs(),
        "bench_requests" => return pag_tests::speed::requests(),
        _ => {}
    }
    if let Some(scenario) = tier2::ALL.iter().find(|scenario| scenario.name == name) {
        (scenario.run)(word.parse().unwrap_or(1));
    } else if let Some(scenario) = tier3::ALL.iter().find(|scenario| scenario.name == name) {
        let client = Client::named(&word).expect("the name of a client");
        pag_tests::cell::is_found(client);
        (scenario.run)(client);
    } else {
        eprintln!("no scenario {name}");
        std::process::exit(2);
    }
}
