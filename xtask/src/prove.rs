//! `cargo xtask prove`: each scenario is worth something only if it fails when the code is broken.
//!
//! A patch in `tests/breaks` breaks the product on purpose. The lines above its diff say which scenario must then fail
//! (`Scenario: NAME`) and with which words (`Assertion: TEXT`).

use std::fs;
use std::path::Path;
use std::process::Command;

use pag_tests::scenarios::tier1;

use crate::machine::{self, Run};
use crate::shell::{need_packages, sh, top};
use crate::{roots, tiers};

struct Break {
    name: String,
    scenario: String,
    assertion: String,
}

fn breaks() -> Vec<Break> {
    let mut found: Vec<Break> = fs::read_dir(top().join("tests/breaks"))
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_str()?.strip_suffix(".patch")?.to_owned();
            let text = fs::read_to_string(entry.path()).unwrap();
            let header = |key: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(key));
                line.unwrap_or_else(|| panic!("{name}.patch has no line '{key}'")).trim().to_owned()
            };
            Some(Break { scenario: header("Scenario:"), assertion: header("Assertion:"), name })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Proves all breaks, or one; true when each fails broken, at its assertion, and passes whole.
pub(crate) fn run(only: Option<&str>) -> bool {
    need_packages();
    let tree = roots::scratch("prove");
    let (mut proved, mut failed) = (0, 0);
    for one in breaks().iter().filter(|one| only.is_none_or(|only| only == one.name)) {
        let t = tree.display();
        sh(&format!(
            "rm -rf '{t}'; mkdir -p '{t}'; cd '{}'; git ls-files -z | xargs -0 cp --parents -t '{t}'",
            top().display()
        ));
        let patch = top().join(format!("tests/breaks/{}.patch", one.name));
        sh(&format!("cd '{t}'; patch -p1 -s < '{}'", patch.display()));
        let (passed, text) = scenario(&tree, &one.scenario);
        let at_it = !passed && text.contains(&one.assertion);
        let (whole, _) = scenario(&top(), &one.scenario);
        let word = match (passed, at_it, whole) {
            (true, ..) => "NOT PROVED: the scenario passes with the break",
            (_, false, _) => "NOT PROVED: it fails elsewhere than at its assertion",
            (.., false) => "NOT PROVED: it fails without the break, too",
            _ => "proved",
        };
        println!("{} breaks {}: {word}", one.name, one.scenario);
        if word == "proved" {
            proved += 1;
        } else {
            println!("{text}");
            failed += 1;
        }
    }
    let _ = Command::new("rm").arg("-rf").arg(&tree).status();
    println!("{proved} passed, {failed} failed, 0 skipped");
    failed == 0 && proved > 0
}

/// Builds the product of a tree and runs a scenario of ours on it.
fn scenario(tree: &Path, name: &str) -> (bool, String) {
    let programs = machine::programs();
    if tier1::ALL.iter().any(|(known, ..)| *known == name) {
        let (module, fault) = tiers::modules(tree);
        let (passed, text, _) = tiers::tier1_scenario(&programs, &module, &fault, name, false);
        return (passed, text);
    }
    let known = pag_tests::scenarios::tier2::ALL.iter().find(|scenario| scenario.name == name);
    let known = known.unwrap_or_else(|| panic!("there is no scenario {name}"));
    let product = tiers::product(tree);
    let outcome = machine::run(&Run {
        suite: roots::SUITES[0],
        scenario: name,
        product: known.product.then_some(&product),
        programs: &programs,
        linger: known.linger,
        boots: known.boots,
        long: false,
    });
    (outcome.passed, outcome.output)
}
