//! `cargo xtask prove`: each scenario is worth something only if it fails when the code is broken.
//!
//! A patch in `tests/breaks` breaks the product on purpose. The lines above its diff say which scenario must then fail
//! (`Scenario: NAME`, in tier 3 with a client: `Scenario: NAME on kafs`) and with which words (`Assertion: TEXT`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pag_tests::scenarios::{tier1, tier2, tier3};

use crate::machine::{self, Run};
use crate::shell::{MACHINES, need_packages, sh, top};
use crate::{image, roots, tiers, vm};

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

/// Proves all breaks, or one; true when each scenario passes whole, and fails broken, at its assertion.
pub(crate) fn run(only: Option<&str>) -> bool {
    let breaks: Vec<Break> = breaks().into_iter().filter(|one| only.is_none_or(|only| only == one.name)).collect();
    let third = breaks.iter().any(|one| third(&one.scenario).is_some());
    need_packages(if third { &MACHINES } else { &[] });
    let programs = machine::programs();
    // Several breaks are of one scenario: it need not pass more than once.
    let names: BTreeSet<&str> = breaks.iter().map(|one| &one.scenario[..]).collect();
    let mut whole = Built::from(top());
    let passes: BTreeMap<&str, bool> =
        names.into_iter().map(|name| (name, whole.scenario(&programs, name).0)).collect();
    let tree = roots::scratch("prove");
    let (mut proved, mut failed) = (0, 0);
    for one in &breaks {
        // Only what the break before has changed is written again, so that cargo builds no more than it must.
        sh(&format!(
            "cd '{top}' && git ls-files --cached --others --exclude-standard | while read -r f; do \
             if [ -e \"$f\" ] && ! cmp -s \"$f\" '{tree}'/\"$f\"; then cp --parents \"$f\" '{tree}'; fi; done; \
             cd '{tree}' && patch -p1 -s < '{top}/tests/breaks/{name}.patch'",
            top = top().display(),
            tree = tree.display(),
            name = one.name,
        ));
        let (passed, text) = Built::from(tree.clone()).scenario(&programs, &one.scenario);
        let word = if passed {
            "NOT PROVED: the scenario passes with the break"
        } else if !text.contains(&one.assertion) {
            "NOT PROVED: it fails elsewhere than at its assertion"
        } else if !passes.get(&one.scenario[..]).copied().unwrap_or(false) {
            "NOT PROVED: it fails without the break, too"
        } else {
            "proved"
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

/// The scenario of tier 3 that is called so, and the client that it is to be run with: its first, if none is named.
fn third(name: &str) -> Option<(&'static tier3::Scenario, tier3::Client)> {
    let (name, client) = name.split_once(" on ").map_or((name, None), |(name, client)| (name, Some(client)));
    let known = tier3::ALL.iter().find(|scenario| scenario.name == name)?;
    let named = |word| tier3::Client::named(word).unwrap_or_else(|| panic!("no client is called {word}"));
    Some((known, client.map_or(known.clients[0], named)))
}

/// A tree, and what has been built from it: each part when the first scenario wants it.
struct Built {
    tree: PathBuf,
    modules: Option<(PathBuf, PathBuf)>,
    product: Option<PathBuf>,
}

impl Built {
    fn from(tree: PathBuf) -> Self {
        Built { tree, modules: None, product: None }
    }

    /// Runs one of our scenarios on what this tree makes.
    fn scenario(&mut self, programs: &Path, name: &str) -> (bool, String) {
        let tree = &self.tree;
        if tier1::ALL.iter().any(|(known, ..)| *known == name) {
            let (module, fault) = self.modules.get_or_insert_with(|| tiers::modules(tree));
            let (passed, text, _) = tiers::tier1_scenario(programs, module, fault, name, false);
            return (passed, text);
        }
        if let Some((known, client)) = third(name) {
            let product = self.product.get_or_insert_with(|| tiers::product(tree));
            let outcome = vm::run(&vm::Run {
                suite: image::SUITES[0],
                client,
                command: &vm::scenario(known.name, client),
                product: known.product.then_some(product),
                programs,
                long: false,
            });
            return (outcome.passed, outcome.output);
        }
        let known = tier2::ALL.iter().find(|scenario| scenario.name == name);
        let known = known.unwrap_or_else(|| panic!("there is no scenario {name}"));
        let product = self.product.get_or_insert_with(|| tiers::product(tree));
        let outcome = machine::run(&Run {
            suite: roots::SUITES[0],
            scenario: name,
            product: known.product.then_some(product),
            programs,
            linger: known.linger,
            boots: known.boots,
            long: false,
        });
        (outcome.passed, outcome.output)
    }
}
