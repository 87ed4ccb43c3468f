//! `cargo xtask prove`: a scenario is worth something only if it fails when the code is broken.
//!
//! The table of breaks, [`breaks`], has the changes of the code and the scenarios that must fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use pag_tests::scenarios::{tier1, tier2, tier3};

use crate::breaks::{self, Break};
use crate::machine::{self, Run};
use crate::shell::{MACHINES, Profile, need_packages, sh, target, top};
use crate::{apache, cache, dist, image, install, tiers, vm};

/// The crates of the product.
const PRODUCT: [&str; 5] = ["pag", "libpag", "pam_pag", "pag-logind-helper", "pagctl"];

/// Proves all breaks, or `only` some. True if each scenario passes with the whole code, and fails at its assertion with
/// the broken code.
pub(crate) fn run(only: &[String]) -> bool {
    let breaks = chosen(only);
    let machines = breaks.iter().any(|one| third(&one.scenario).is_some());
    let in_third = |name| third(name).is_some_and(|(known, _)| known.needs_apache());
    let second = |name: &str| tier2::ALL.iter().find(|scenario| scenario.name == name);
    let dist = breaks.iter().any(|one| second(&one.scenario).is_some_and(|known| known.packages));
    let server = breaks.iter().any(|one| tier1::needs_apache(&one.scenario) || in_third(&one.scenario));
    need_packages(
        &[machines.then_some(&MACHINES[..]), server.then_some(&apache::PACKAGES), dist.then_some(&dist::PACKAGES)]
            .map(Option::unwrap_or_default)
            .concat(),
    );
    let programs = machine::programs();
    // Several breaks may be of one scenario, which has to pass only once.
    let names: BTreeSet<(&str, &str)> = breaks.iter().map(|one| (&one.scenario[..], one.suite())).collect();
    println!("{} breaks of {} scenarios; first these as they are", breaks.len(), names.len());
    let begun = Instant::now();
    let mut whole = Built::from(top());
    let mut passes = BTreeMap::new();
    for (index, (name, suite)) in names.iter().enumerate() {
        let now = Instant::now();
        let waited = cache::waited();
        let (passed, text) = whole.scenario(&programs, name, suite);
        let word = if passed { "ok" } else { "FAILED" };
        let took = now.elapsed().saturating_sub(cache::waited().saturating_sub(waited));
        println!("{}/{} {name}: {word} ({:.1} s)", index + 1, names.len(), took.as_secs_f64());
        if !passed {
            println!("{text}");
        }
        passes.insert((*name, *suite), passed);
    }
    // The broken tree keeps its path from run to run: cargo knows built files by their paths, and builds little then.
    let tree = target().join("broken");
    fs::create_dir_all(&tree).unwrap();
    let (mut proved, mut failed) = (0, 0);
    for (index, one) in breaks.iter().enumerate() {
        let (now, waited) = (Instant::now(), cache::waited());
        let (word, text) = if passes.get(&(&one.scenario[..], one.suite())).copied().unwrap_or(false) {
            prove(one, &tree, &programs)
        } else {
            ("NOT PROVED: the scenario fails without the break, too", String::new())
        };
        let took = now.elapsed().saturating_sub(cache::waited().saturating_sub(waited)).as_secs_f64();
        println!("{}/{} {} breaks {}: {word} ({took:.1} s)", index + 1, breaks.len(), one.name, one.scenario);
        if word == PROVED {
            proved += 1;
        } else {
            println!("{text}");
            failed += 1;
        }
    }
    let waited = cache::waited();
    println!(
        "in {:.0} s, of which {:.0} s in wait for other runs",
        begun.elapsed().as_secs_f64(),
        waited.as_secs_f64()
    );
    println!("{proved} passed, {failed} failed, 0 skipped");
    failed == 0 && proved > 0
}

/// The breaks of these names, or all breaks without a name.
fn chosen(names: &[String]) -> Vec<Break> {
    let breaks: Vec<Break> =
        breaks::table().into_iter().filter(|one| names.is_empty() || names.contains(&one.name)).collect();
    let unknown = names.iter().find(|name| breaks.iter().all(|one| one.name != **name));
    assert!(unknown.is_none(), "there is no break {unknown:?}");
    breaks
}

/// Whether the product compiles with each of these breaks. A change of the code can make a break invalid, and this
/// finds such breaks much faster than a proof.
pub(crate) fn check(only: &[String]) -> bool {
    let breaks = chosen(only);
    let tree = target().join("broken");
    fs::create_dir_all(&tree).unwrap();
    let mut failed = 0;
    for (index, one) in breaks.iter().enumerate() {
        copy(&tree);
        let result = one.apply(&tree).and_then(|()| {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["check", "--quiet", "--color=never"]).args(PRODUCT.iter().flat_map(|name| ["-p", name]));
            let output = cargo.current_dir(&tree).env("CARGO_TARGET_DIR", tree.join("target")).output();
            let output = output.unwrap_or_else(|error| panic!("cargo: {error}"));
            output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
        });
        if let Err(why) = result {
            println!("{}/{} {}: FAILED\n{why}", index + 1, breaks.len(), one.name);
            failed += 1;
        } else if (index + 1).is_multiple_of(10) || index + 1 == breaks.len() {
            println!("{}/{} {}: ok", index + 1, breaks.len(), one.name);
        }
    }
    println!("{} passed, {failed} failed, 0 skipped", breaks.len() - failed);
    failed == 0
}

/// The scenario of tier 3 with this name, and the client that it runs with. Without a client in the name, that is its
/// first.
fn third(name: &str) -> Option<(&'static tier3::Scenario, tier3::Client)> {
    let (name, client) = name.split_once(" on ").map_or((name, None), |(name, client)| (name, Some(client)));
    let known = tier3::ALL.iter().find(|scenario| scenario.name == name)?;
    let named = |word| tier3::Client::named(word).unwrap_or_else(|| panic!("no client is called {word}"));
    Some((known, client.map_or(known.clients[0], named)))
}

const PROVED: &str = "proved";

/// Breaks the product and runs its scenario. Returns the verdict, and the scenario's output.
fn prove(one: &Break, tree: &Path, programs: &Path) -> (&'static str, String) {
    copy(tree);
    if let Err(why) = one.apply(tree) {
        return ("NOT PROVED: the break does not apply", why);
    }
    let run = || Built::from(tree.to_owned()).scenario(programs, &one.scenario, one.suite());
    let Ok((passed, text)) = std::panic::catch_unwind(run) else {
        return ("NOT PROVED: it does not build, or the scenario cannot be run; see above", String::new());
    };
    let word = if passed {
        "NOT PROVED: the scenario passes with the break"
    } else if !text.contains(&one.assertion) {
        "NOT PROVED: it fails elsewhere than at its assertion"
    } else {
        PROVED
    };
    (word, text)
}

/// Makes `tree` a copy of the source. Only files that differ are written, so that cargo builds no more than it must.
fn copy(tree: &Path) {
    sh(&format!(
        "cd '{tree}' && find . -path ./target -prune -o -type f -print | while read -r f; do \
         [ -e '{top}'/\"$f\" ] || rm \"$f\"; done; \
         cd '{top}' && git ls-files --cached --others --exclude-standard | while read -r f; do \
         if [ -e \"$f\" ] && ! cmp -s \"$f\" '{tree}'/\"$f\"; then cp --parents \"$f\" '{tree}'; fi; done",
        top = top().display(),
        tree = tree.display(),
    ));
}

/// A tree, and its built parts. Each part is built when the first scenario needs it.
struct Built {
    tree: PathBuf,
    modules: tiers::Modules,
    services: Option<tiers::Services>,
    libraries: tiers::Libraries,
    product: Option<PathBuf>,
}

impl Built {
    fn from(tree: PathBuf) -> Self {
        let modules = tiers::Modules::of(&tree, Profile::Prove);
        let libraries = tiers::Libraries::of(&tree, Profile::Prove);
        Built { modules, libraries, tree, services: None, product: None }
    }

    /// Runs a scenario with the product of this tree. Returns whether it passed, and its output. `suite` is the release
    /// for tier 2.
    fn scenario(&mut self, programs: &Path, name: &str, suite: &str) -> (bool, String) {
        let tree = &self.tree;
        if tier1::ALL.iter().any(|(known, ..)| *known == name) {
            let services = tier1::needs_helper(name)
                .then(|| &*self.services.get_or_insert_with(|| tiers::Services::of(tree, Profile::Prove)));
            let library = self.libraries.for_scenario(name);
            let module = self.modules.for_scenario(name);
            let (passed, text, _) = tiers::tier1_scenario(programs, module, services, library, name, false);
            return (passed, text);
        }
        if let Some((known, client)) = third(name) {
            let product = self.product.get_or_insert_with(|| tiers::product(tree, Profile::Prove));
            if known.needs_apache() {
                install::layout_apache(tree, Profile::Prove, product);
            }
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
        let product = self.product.get_or_insert_with(|| tiers::product(tree, Profile::Prove));
        let packages = if known.packages {
            install::layout_apache(tree, Profile::Prove, product);
            dist::for_tests(tree, product)
        } else {
            Vec::new()
        };
        let outcome = machine::run(&Run {
            suite,
            scenario: name,
            product: known.product.then_some(product),
            packages: &packages,
            programs,
            linger: known.linger,
            boots: known.boots,
            long: false,
        });
        (outcome.passed, outcome.output)
    }
}
