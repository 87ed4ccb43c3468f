//! `cargo xtask test`: all tiers. Tiers 1 and 2 share the host's keyrings, so their scenarios run one after the other. The machines
//! of tier 3 have a kernel of their own.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use pag_tests::scenarios::{tier1, tier2, tier3};

use crate::machine::{self, Outcome, Run};
use crate::shell::{MACHINES, Profile, build, need_packages, sh, target_of, top};
use crate::{apache, cache, dist, image, install, libpag, roots, vm};

/// Which tests to run.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Choice {
    /// Only this tier: 0 pure logic, 1 this kernel's keyrings and libpam, 2 booted containers, 3 a virtual machine with
    /// a real AFS cell
    #[arg(long)]
    pub(crate) tier: Option<u8>,
    /// Only the scenario of this name, or of several, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Only on this Debian release
    #[arg(long)]
    pub(crate) suite: Option<String>,
    /// Print the scenarios and what they show, and run nothing
    #[arg(long)]
    pub(crate) list: bool,
    /// The long form: every scenario on every release, with all repetitions
    #[arg(long)]
    pub(crate) long: bool,
    /// Build faster, with less optimization, while you work on the code
    #[arg(long)]
    pub(crate) quick: bool,
}

impl Choice {
    fn profile(&self) -> Profile {
        if self.quick { Profile::Prove } else { Profile::Release }
    }

    fn chose(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

#[derive(Debug, Default)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Count {
    fn add(&mut self, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }
}

/// Runs the chosen tests. True if none failed and none was skipped.
pub(crate) fn run(choice: &Choice) -> bool {
    if choice.list {
        for (name, shows, _) in tier1::ALL {
            println!("1  {name}: {shows}");
        }
        for scenario in tier2::ALL {
            println!("2  {}: {}", scenario.name, scenario.shows);
        }
        for scenario in tier3::ALL {
            let clients: Vec<_> = scenario.clients.iter().map(|client| client.name()).collect();
            println!("3  {} ({}): {}", scenario.name, clients.join(", "), scenario.shows);
        }
        return true;
    }
    let names = tier1::ALL.iter().map(|(name, ..)| *name).chain(tier2::ALL.iter().map(|one| one.name));
    let known: Vec<&str> = names.chain(tier3::ALL.iter().map(|one| one.name)).collect();
    for only in &choice.only {
        assert!(
            known.contains(&only.as_str()),
            "there is no scenario '{only}'; `cargo xtask test --list` names them all"
        );
    }
    let wanted = |tier: u8| choice.tier.is_none_or(|only| only == tier);
    let second = wanted(2) && tier2::ALL.iter().any(|scenario| choice.chose(scenario.name));
    let mut in_third = tier3::ALL.iter().filter(|scenario| wanted(3) && choice.chose(scenario.name)).peekable();
    let third = in_third.peek().is_some();
    let third_server = in_third.any(tier3::Scenario::needs_apache);
    let first_server = wanted(1) && tier1::ALL.iter().any(|(name, ..)| tier1::needs_apache(name) && choice.chose(name));
    let server = first_server || third_server;
    let dist = wanted(2) && tier2::ALL.iter().any(|scenario| scenario.packages && choice.chose(scenario.name));
    need_packages(
        &[third.then_some(&MACHINES[..]), server.then_some(&apache::PACKAGES), dist.then_some(&dist::PACKAGES)]
            .map(Option::unwrap_or_default)
            .concat(),
    );
    refuse_on_a_machine_in_use();
    let mut count = Count::default();
    if wanted(0) && choice.only.is_empty() {
        tier0(&mut count);
    }
    if wanted(1) {
        first_tier(choice, &mut count);
    }
    let count = Mutex::new(count);
    if second || third {
        println!("tiers 2 and 3: building");
        let (programs, product) = (machine::programs(), product(&top(), choice.profile()));
        if third_server || dist {
            install::layout_apache(&top(), choice.profile(), &product);
        }
        let packages = if dist { dist::for_tests(&top(), &product) } else { Vec::new() };
        let built = Installed { programs: &programs, product: &product, packages: &packages };
        let queue = Mutex::new(if third { third_tier(choice) } else { VecDeque::new() });
        std::thread::scope(|workers| {
            // Containers wait for most of their time, so machines run beside them.
            for _ in 0..vm::SIDE_BY_SIDE {
                workers.spawn(|| work_off(&queue, choice, &built, &count));
            }
            if second {
                second_tier(choice, &built, &count);
            }
        });
    }
    let Count { passed, failed, skipped } = count.into_inner().unwrap();
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    failed == 0 && skipped == 0 && passed > 0
}

/// Stops on a machine that runs the product, since tests must not harm it.
fn refuse_on_a_machine_in_use() {
    let named = sh("grep -ls pam_pag /etc/pam.d/* || true");
    assert!(named.is_empty(), "this host's own PAM stacks name pam_pag: {named}");
    let registry = Command::new("sh")
        .args(["-c", "grep -q \"pag:registry:$(stat -Lc %i /proc/self/ns/pid):\" /proc/keys"])
        .status();
    assert!(!registry.is_ok_and(|status| status.success()), "this host has a registry of PAGs in use");
}

/// Runs tier 0: cargo's own tests.
fn tier0(count: &mut Count) {
    let begun = Instant::now();
    println!("tier 0: building");
    let output = Command::new("cargo")
        .args(["test", "--workspace", "--quiet", "--no-fail-fast"])
        .current_dir(top())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |line: &str, what: &str| -> usize {
        let words: Vec<&str> = line.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
        words.windows(2).find(|pair| pair[1] == what).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
    };
    let before = count.failed;
    for line in text.lines().filter(|line| line.starts_with("test result:")) {
        count.passed += number(line, "passed");
        count.failed += number(line, "failed");
        count.skipped += number(line, "ignored");
    }
    if !output.status.success() {
        println!("{text}{}", String::from_utf8_lossy(&output.stderr));
        // A test program that did not build, or died, has no line of its own.
        count.failed += usize::from(count.failed == before);
    }
    println!("tier 0: {} s", begun.elapsed().as_secs());
}

/// The modules that tier 1 tests, built from one tree. Each kind is built when the first scenario needs it.
pub(crate) struct Modules {
    tree: PathBuf,
    profile: Profile,
    plain: Option<PathBuf>,
    faulty: Option<PathBuf>,
}

impl Modules {
    pub(crate) fn of(tree: &Path, profile: Profile) -> Self {
        Modules { tree: tree.to_owned(), profile, plain: None, faulty: None }
    }

    /// The module as it is installed.
    pub(crate) fn plain(&mut self) -> &Path {
        self.plain.get_or_insert_with(|| module(&self.tree, self.profile, "pam_pag.so", &[]))
    }

    /// The module for a scenario: as it is installed, or with a fault.
    pub(crate) fn for_scenario(&mut self, name: &str) -> &Path {
        if !tier1::WITH_FAULT.contains(&name) {
            return self.plain();
        }
        let features = ["--features", "pam_pag/fault"];
        self.faulty.get_or_insert_with(|| module(&self.tree, self.profile, "pam_pag_fault.so", &features))
    }
}

/// Builds a module and returns a copy of it, with a copy of pagctl beside it. The next build, with other features,
/// writes over the original.
fn module(tree: &Path, profile: Profile, name: &str, features: &[&str]) -> PathBuf {
    build(tree, &[&["--profile", profile.name(), "-p", "pam_pag", "-p", "pagctl"], features].concat());
    let target = target_of(tree);
    let place = target.join(name);
    std::fs::copy(target.join(profile.name()).join("libpam_pag.so"), &place).unwrap();
    std::fs::copy(target.join(profile.name()).join("pagctl"), target.join("pagctl")).unwrap();
    place
}

/// The C library with programs and modules that use it, built from one tree. Each kind is built when the first scenario
/// needs it.
pub(crate) struct Libraries {
    tree: PathBuf,
    profile: Profile,
    library: Option<PathBuf>,
    apache: Option<PathBuf>,
}

impl Libraries {
    pub(crate) fn of(tree: &Path, profile: Profile) -> Self {
        Libraries { tree: tree.to_owned(), profile, library: None, apache: None }
    }

    /// What a scenario needs: the variable that names the directory, and the directory.
    pub(crate) fn for_scenario(&mut self, name: &str) -> Option<(&'static str, &Path)> {
        let Libraries { tree, profile, library, apache } = self;
        if tier1::needs_library(name) {
            Some(("PAG_LIBPAG", library.get_or_insert_with(|| libpag::for_tests(tree, *profile))))
        } else if tier1::needs_apache(name) {
            Some(("PAG_APACHE", apache.get_or_insert_with(|| apache::for_tests(tree, *profile))))
        } else {
            None
        }
    }
}

/// The helper and the tools, and the files that are installed with them.
pub(crate) struct Services {
    programs: PathBuf,
    units: PathBuf,
}

impl Services {
    /// Builds them from the tree at `tree`.
    pub(crate) fn of(tree: &Path, profile: Profile) -> Self {
        build(tree, &["--profile", profile.name(), "-p", "pag-logind-helper", "-p", "pagctl"]);
        Services { programs: target_of(tree).join(profile.name()), units: tree.join("units") }
    }

    fn name_to(&self, command: &mut Command) {
        command
            .env("PAG_HELPER", self.programs.join("pag-logind-helper"))
            .env("PAG_PAGCTL", self.programs.join("pagctl"))
            .env("PAG_UNITS", &self.units);
    }
}

fn first_tier(choice: &Choice, count: &mut Count) {
    if !tier1::ALL.iter().any(|(name, ..)| choice.chose(name)) {
        return;
    }
    println!("tier 1: building");
    let programs = machine::programs();
    let mut modules = Modules::of(&top(), choice.profile());
    let mut libraries = Libraries::of(&top(), choice.profile());
    let mut services = None;
    for (name, ..) in tier1::ALL.iter().filter(|(name, ..)| choice.chose(name)) {
        let services =
            tier1::needs_helper(name).then(|| &*services.get_or_insert_with(|| Services::of(&top(), choice.profile())));
        let library = libraries.for_scenario(name);
        let module = modules.for_scenario(name);
        let (passed, output, seconds) = tier1_scenario(&programs, module, services, library, name, choice.long);
        println!("tier 1: {name}: {} ({seconds:.1} s)", if passed { "ok" } else { "FAILED" });
        if passed {
            print_figures(&output);
        } else {
            println!("{output}");
        }
        count.add(passed);
    }
}

/// Runs one scenario of tier 1 in namespaces of its own. Returns whether it passed, its output, and its time in
/// seconds.
pub(crate) fn tier1_scenario(
    programs: &Path,
    module: &Path,
    services: Option<&Services>,
    library: Option<(&str, &Path)>,
    name: &str,
    long: bool,
) -> (bool, String, f64) {
    // Sandboxes and machines share the kernel's keyrings and root's quota, so only one runs on this host at a time.
    let _lock = cache::lock("machines");
    let begun = Instant::now();
    let mut command = Command::new("timeout");
    command
        .args([
            "-k",
            "5",
            "600",
            "keyctl",
            "session",
            "-",
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount",
            "--mount-proc",
        ])
        .arg(programs.join("pag-tier1"))
        .arg(name)
        .env("PAG_MODULE", module)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null());
    if let Some(services) = services {
        services.name_to(&mut command);
    }
    if let Some((variable, place)) = library {
        command.env(variable, place);
    }
    if long {
        command.env("PAG_LONG", "1");
    }
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text, begun.elapsed().as_secs_f64())
}

/// What tiers 2 and 3 install and run.
struct Installed<'a> {
    programs: &'a Path,
    product: &'a Path,
    packages: &'a [PathBuf],
}

fn second_tier(choice: &Choice, built: &Installed<'_>, count: &Mutex<Count>) {
    let chosen: Vec<_> = tier2::ALL.iter().filter(|scenario| choice.chose(scenario.name)).collect();
    for suite in roots::SUITES.into_iter().filter(|suite| choice.suite.as_deref().is_none_or(|only| only == *suite)) {
        let root = roots::root(suite);
        println!("tier 2: {suite}: {}", roots::versions(&root));
        // The short form runs everything on the oldest systemd, and on the others what depends on its version.
        let first = suite == roots::SUITES[0] || !choice.only.is_empty() || choice.suite.is_some();
        for scenario in chosen.iter().filter(|scenario| first || choice.long || scenario.everywhere) {
            let outcome = machine::run(&Run {
                suite,
                scenario: scenario.name,
                product: scenario.product.then_some(built.product),
                packages: if scenario.packages { built.packages } else { &[] },
                programs: built.programs,
                linger: scenario.linger,
                boots: scenario.boots,
                long: choice.long,
            });
            count_in(&format!("tier 2: {suite}: {}", scenario.name), &outcome, count);
        }
    }
}

/// One run of tier 3: the release, the scenario and the client.
type MachineRun = (&'static str, &'static tier3::Scenario, tier3::Client);

/// The runs of tier 3 that were chosen.
fn third_tier(choice: &Choice) -> VecDeque<MachineRun> {
    let suites = image::SUITES.into_iter().filter(|suite| {
        choice.suite.as_deref().map_or(choice.long || *suite == image::SUITES[0], |only| only == *suite)
    });
    let all = choice.long || !choice.only.is_empty();
    let chosen = || tier3::ALL.iter().filter(|scenario| choice.chose(scenario.name));
    let runs = suites.flat_map(|suite| chosen().map(move |scenario| (suite, scenario)));
    let runs = runs.flat_map(|(suite, scenario)| {
        let clients = scenario.clients.iter().filter(move |client| all || !scenario.is_long(**client));
        clients.map(move |client| (suite, scenario, *client))
    });
    runs.collect()
}

/// Runs the scenarios in the queue until it is empty.
fn work_off(queue: &Mutex<VecDeque<MachineRun>>, choice: &Choice, built: &Installed<'_>, count: &Mutex<Count>) {
    let mut last = "";
    loop {
        let Some((suite, scenario, client)) = queue.lock().unwrap().pop_front() else { break };
        if suite != last {
            println!("tier 3: {suite}: {}", image::image(suite).versions());
            last = suite;
        }
        let outcome = vm::run(&vm::Run {
            suite,
            client,
            command: &vm::scenario(scenario.name, client),
            product: scenario.product.then_some(built.product),
            programs: built.programs,
            long: choice.long,
        });
        count_in(&format!("tier 3: {suite}: {}: {}", client.name(), scenario.name), &outcome, count);
    }
}

/// Prints the result of a run in one piece, and counts it.
fn count_in(what: &str, outcome: &Outcome, count: &Mutex<Count>) {
    let mut count = count.lock().unwrap();
    println!("{what}: {} ({:.1} s)", if outcome.passed { "ok" } else { "FAILED" }, outcome.took.as_secs_f64());
    if outcome.passed {
        print_figures(&outcome.output);
    } else {
        println!("{}", outcome.output);
        print_journal(&outcome.journal);
    }
    count.add(outcome.passed);
}

/// Prints the figures that a scenario has measured.
fn print_figures(output: &str) {
    output.lines().filter(|line| line.starts_with("figures: ")).for_each(|line| println!("  {line}"));
}

/// Prints the lines of a journal about PAGs, and its end.
fn print_journal(journal: &str) {
    let lines: Vec<&str> = journal.lines().collect();
    println!("--- the journal, as far as it is about PAGs, and its end");
    let tail = lines.len().saturating_sub(40);
    for (index, line) in lines.iter().enumerate() {
        if index >= tail || line.contains("pag") || line.contains("PAG") {
            println!("{line}");
        }
    }
}

/// Lays the product out as it is installed. Each run has a directory of its own, since other runs may use the same
/// tree.
pub(crate) fn product(tree: &Path, profile: Profile) -> PathBuf {
    let target = target_of(tree);
    std::fs::create_dir_all(&target).unwrap();
    let own = std::process::id().to_string();
    for entry in std::fs::read_dir(&target).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let of = name.strip_prefix("product-").map(|of| of.trim_end_matches(".dist"));
        if of.is_some_and(|pid| pid == own || !Path::new("/proc").join(pid).exists()) {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
    let place = target.join(format!("product-{own}"));
    install::layout(tree, profile, &place);
    // For scenarios of tier 3: made of the library of the tree that is tested.
    libpag::servers(tree, profile, &place);
    place
}
