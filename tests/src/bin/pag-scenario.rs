//! Runs one scenario of tier 2 inside the machine that was booted for it: `pag-scenario NAME BOOT`.
#![allow(clippy::print_stderr, clippy::expect_used, clippy::exit, reason = "in a test, to panic is to fail")]

use pag_tests::scenarios::tier2::ALL;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("the name of a scenario");
    let boot = arguments.next().and_then(|word| word.parse().ok()).unwrap_or(1);
    if let "demo_with" | "demo_without" = &name[..] {
        return pag_tests::demo::act(name == "demo_with");
    }
    let Some(scenario) = ALL.iter().find(|scenario| scenario.name == name) else {
        eprintln!("no scenario {name}");
        std::process::exit(2);
    };
    (scenario.run)(boot);
}
