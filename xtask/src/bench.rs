//! `cargo xtask bench`: speed and size, as ratios within one run.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pag_tests::scenarios::tier3::Client;
use pag_tests::server::Server;
use serde::Serialize;

use crate::shell::{MACHINES, Profile, build, need_packages, target, top};
use crate::{image, libpag, machine, roots, tiers, vm};

/// The number of runs of each stack. Each run has a new process, and the stacks take turns.
const RUNS: usize = 301;

/// The number of entries and leaves that are measured.
const SWITCHES: usize = 1001;

/// One line of the table.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    value: f64,
    unit: &'static str,
    /// Distance of the quartiles, in the same unit. None for a value that was measured once.
    spread: Option<f64>,
    /// The highest allowed value. None for a value that is only reported.
    bound: Option<f64>,
    /// Whether the difference is large enough beside the spread.
    measurable: bool,
}

impl Line {
    /// A value that is only reported.
    fn new(name: &'static str, value: f64, unit: &'static str, spread: Option<f64>) -> Self {
        Line { name, value, unit, spread, bound: None, measurable: true }
    }

    fn is_met(&self) -> bool {
        self.bound.is_none_or(|bound| self.value <= bound)
    }
}

/// The median and the distance of the quartiles.
fn middle(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values[((values.len() - 1) as f64 * part) as usize];
    (at(0.5), at(0.75) - at(0.25))
}

/// Measures and prints the table. True if every bound was met.
pub(crate) fn run(json: bool, afs: bool) -> bool {
    let lines = if afs { on_a_cell() } else { on_this_kernel() };
    if json {
        println!("{}", serde_json::to_string_pretty(&lines).unwrap());
    } else {
        println!("{:<64} {:>9} {:>5} {:>8} {:>7}", "name", "value", "", "spread", "bound");
        for line in &lines {
            let optional = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
            let Line { name, value, unit, .. } = line;
            let missed = match (line.is_met(), line.measurable) {
                (true, true) => "",
                (false, _) => "  MISSED",
                (true, false) => "  NOT MEASURABLE",
            };
            println!(
                "{name:<64} {value:>9.2} {unit:>5} {:>8} {:>7}{missed}",
                optional(line.spread),
                optional(line.bound)
            );
        }
    }
    lines.iter().all(|line| line.is_met() && line.measurable)
}

/// Measures on this host's kernel.
fn on_this_kernel() -> Vec<Line> {
    need_packages(&[]);
    let programs = machine::programs();
    let mut modules = tiers::Modules::of(&top(), Profile::Release);
    let module = modules.plain();
    build(&top(), &["--release", "-p", "pag-tests", "--bins"]);
    build(&top(), &["--release", "-p", "pam_empty"]); // on its own, since `--bins` builds no library
    let empty = target().join("release/libpam_empty.so");
    let mut lines = cycles(module, &empty);
    let size = std::fs::metadata(module).unwrap().len() as f64 / 1000.0;
    lines.push(Line::new("the stripped module", size, "KB", None));
    let size = std::fs::metadata(libpag::link(&top(), Profile::Release)).unwrap().len() as f64 / 1000.0;
    lines.push(Line::new("the stripped libpag.so", size, "KB", None));
    lines.extend(switches());
    lines.extend(helper(&programs));
    lines
}

/// Measures how a thread of a process with several PAGs enters one and leaves it, beside the bare call of the kernel. That
/// call walks the list of all keyrings that have a name.
fn switches() -> Vec<Line> {
    let mut server = Server::start_as(0, &libpag::rust_server(&top(), Profile::Release));
    server.ok("open");
    let (mut lines, mut made) = (Vec::new(), 0);
    for (count, names) in [
        (10, ["enter and leave beside 10 PAGs of a process, in times of bare joins", "  the bare join by name"]),
        (1_000, ["  beside 1,000 PAGs", "  the bare join by name"]),
        (10_000, ["  beside 10,000 PAGs", "  the bare join by name"]),
    ] {
        for number in made..count {
            server.ok(&format!("create {number}"));
        }
        made = count;
        let answer = server.ok(&format!("bench {SWITCHES} {}", count - 1));
        let times: Vec<f64> = answer.split(' ').map(|time| time.parse::<f64>().unwrap() / 1000.0).collect();
        let [join, spread, ratio, ratio_spread] = times[..] else { panic!("four figures: {answer}") };
        lines.push(Line { bound: Some(1.3), ..Line::new(names[0], ratio * 1000.0, "x", Some(ratio_spread * 1000.0)) });
        lines.push(Line::new(names[1], join, "us", Some(spread)));
    }
    lines.extend(personalities(&mut server));
    server.ok("close");
    let mut server = Server::start_as(0, &libpag::for_tests(&top(), Profile::Release).join("pag-chost"));
    server.ok("open");
    (0..10).for_each(|number| drop(server.ok(&format!("create {number}"))));
    let answer = server.ok(&format!("bench {SWITCHES} 9"));
    let times: Vec<f64> = answer.split(' ').map(|time| time.parse::<f64>().unwrap()).collect();
    lines.push(Line { bound: Some(1.3), ..Line::new("  from C, beside 10 PAGs", times[2], "x", Some(times[3])) });
    server.ok("close");
    lines
}

/// Measures the other way of a thread to another identity: an io_uring opens a file with credentials that were registered with
/// it. The kernel may have none.
fn personalities(server: &mut Server) -> Vec<Line> {
    let answer = server.ok(&format!("personalities {SWITCHES}"));
    let times: Vec<f64> = answer.split(' ').map(|time| time.parse::<f64>().unwrap() / 1000.0).collect();
    let [open, spread, more, more_spread] = times[..] else {
        println!("this kernel has no io_uring, so nothing is said of its personalities");
        return Vec::new();
    };
    vec![
        Line::new("  an open by io_uring", open, "us", Some(spread)),
        Line::new("  more for it with credentials that were registered", more, "us", Some(more_spread)),
    ]
}

/// Measures the helper with many PAGs, on a real systemd.
fn helper(programs: &Path) -> Vec<Line> {
    let product = tiers::product(&top(), Profile::Release);
    let outcome = machine::run(&machine::Run {
        suite: roots::SUITES[0],
        scenario: "bench_helper",
        product: Some(&product),
        packages: &[],
        programs,
        linger: &[],
        boots: 1,
        long: false,
    });
    assert!(outcome.passed, "{}", outcome.output);
    let answer = outcome.output.lines().last().unwrap_or_default();
    let counts: BTreeMap<String, f64> =
        serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {}", outcome.output));
    vec![
        Line {
            bound: Some(8.0),
            ..Line::new("the helper's resident memory with 1,000 PAGs", counts["resident"] / 1024.0, "MB", None)
        },
        Line { bound: Some(1.0), ..Line::new("  its threads", counts["threads"], "", None) },
        Line::new("  its wake-ups in an idle minute", counts["wakeups"], "", None),
    ]
}

/// Times by name, as a benchmark in a machine prints them.
type Times = BTreeMap<String, Vec<f64>>;

/// Measures on a real cell.
fn on_a_cell() -> Vec<Line> {
    need_packages(&MACHINES);
    build(&top(), &["-p", "pam_empty"]);
    let programs = machine::programs();
    let product = tiers::product(&top(), Profile::Release);
    println!("on virtual machines with an AFS cell, which takes a quarter of an hour or more");
    let measured = |name: &str| -> Times {
        let outcome = vm::run(&vm::Run {
            suite: image::SUITES[0],
            client: Client::OpenAfs,
            command: &format!("exec pag-scenario {name}\n"),
            product: Some(&product),
            programs: &programs,
            long: true,
        });
        assert!(outcome.passed, "{}", outcome.output);
        let answer = outcome.output.lines().last().unwrap_or_default();
        serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {}", outcome.output))
    };
    let mut lines = requests(&measured("bench_requests"));
    lines.extend(logins(&measured("bench_afs")));
    lines
}

/// Requests of 50 identities, one after the other, which libpag serves in a PAG each.
fn requests(times: &Times) -> Vec<Line> {
    let of = |what: &str, way: &str| &times[&format!("{what}: {way}")][..];
    let time = |way: &str| middle(of("request", way).to_vec());
    let pairs = of("request", "libpag").iter().zip(of("request", "same")).map(|(one, other)| one / other).collect();
    let (ratio, spread) = middle(pairs);
    let name = "requests of 50 identities by libpag, in times of those without a switch";
    let mut lines = vec![Line { bound: Some(1.2), ..Line::new(name, ratio, "x", Some(spread)) }];
    for (way, name, bound) in [
        ("settok", "  in parts of those with a token that is set for each, as by mod_waklog", 0.5),
        ("fork", "  in parts of those with a child, setpag and aklog for each", 0.1),
    ] {
        let value = time("libpag").0 / time(way).0;
        lines.push(Line { bound: Some(bound), ..Line::new(name, value, "x", None) });
    }
    for (way, names) in [
        (
            "libpag",
            ["  a request by libpag", "    calls of FetchStatus for it", "    new connections to the file server"],
        ),
        ("same", ["  without a switch", "    calls of FetchStatus for it", "    new connections"]),
        ("settok", ["  with a token that is set", "    calls of FetchStatus for it", "    new connections"]),
        ("fork", ["  with a child, setpag and aklog", "    calls of FetchStatus for it", "    new connections"]),
    ] {
        let (value, spread) = time(way);
        lines.push(Line::new(names[0], value, "us", Some(spread)));
        for (name, what) in names[1..].iter().zip(["status calls", "connections"]) {
            // Identities that come back find what the client has cached for them, and their connections.
            let bound = (way == "libpag").then_some(0.05);
            lines.push(Line { bound, ..Line::new(name, of(what, way)[0], "", None) });
        }
    }
    lines
}

/// Logins, beside pam_afs_session with the same aklog.
fn logins(times: &Times) -> Vec<Line> {
    let of = |what: &str| (&times[&format!("{what}: pam_pag")][..], &times[&format!("{what}: pam_afs_session")][..]);
    let mut lines = Vec::new();
    for (what, names) in [
        ("join", ["open_session that joins a PAG with good tokens, in parts of pam_afs_session's", "  with pam_pag"]),
        ("make", ["open_session that makes a PAG and seeds it, in parts of pam_afs_session's", "  made, with pam_pag"]),
    ] {
        let (ours, theirs) = of(what);
        if what == "join" {
            lines.push(much_faster(names[0], ours, theirs));
        } else {
            lines.extend(little_slower(names[0], ours, theirs));
        }
        let (our_first, their_first) = of(&format!("first {what}"));
        for (name, times) in [
            (names[1], ours),
            ("  with pam_afs_session", theirs),
            ("  in a new process, with pam_pag", our_first),
            ("  in a new process, with pam_afs_session", their_first),
        ] {
            let (value, spread) = middle(times.to_vec());
            lines.push(Line::new(name, value, "us", Some(spread)));
        }
    }
    for (what, names) in [
        (
            "login",
            [
                "ssh login to its first answer, with pam_pag",
                "ssh login to its first answer, with pam_afs_session",
                "ssh login to its first answer, with neither",
            ],
        ),
        (
            "service",
            [
                "ssh login to the first answer of a user service, with pam_pag",
                "ssh login to the first answer of a user service, with pam_afs_session",
                "ssh login to the first answer of a user service, with neither",
            ],
        ),
    ] {
        let (ours, theirs) = of(what);
        let neither = &times[&format!("{what}: neither")][..];
        let [ours, theirs, neither] = [ours, theirs, neither].map(|times| middle(times.to_vec()));
        lines.push(Line { bound: Some(no_later(ours, theirs)), ..Line::new(names[0], ours.0, "s", Some(ours.1)) });
        lines.push(Line::new(names[1], theirs.0, "s", Some(theirs.1)));
        lines.push(Line::new(names[2], neither.0, "s", Some(neither.1)));
    }
    lines
}

/// The latest time at which a login may answer: not later than with pam_afs_session, beyond the spread of both.
fn no_later(ours: (f64, f64), theirs: (f64, f64)) -> f64 {
    theirs.0 + ours.1.max(theirs.1)
}

/// A join takes at most an eighth of pam_afs_session's time.
fn much_faster(name: &'static str, ours: &[f64], theirs: &[f64]) -> Line {
    let (ours, theirs) = (middle(ours.to_vec()), middle(theirs.to_vec()));
    let spread = ours.1.max(theirs.1);
    Line {
        bound: Some(1.0 / 8.0),
        // A spread of more than half of the difference hides the difference.
        measurable: spread <= (theirs.0 - ours.0).abs() / 2.0,
        ..Line::new(name, ours.0 / theirs.0, "x", Some(spread / theirs.0))
    }
}

/// The longest time for making and seeding a PAG, in parts of pam_afs_session's time.
const MAKE: f64 = 1.25;

/// Making and seeding a PAG takes little longer than with pam_afs_session.
///
/// Both spend nearly all of the time in the same aklog, and that time spreads. So two medians that are near each other
/// say nothing. Each time is divided by the other module's time a moment before or after. With a probability of 95 %,
/// the median of these ratios lies in the reported range. The bound is met if the whole range is below it.
fn little_slower(name: &'static str, ours: &[f64], theirs: &[f64]) -> [Line; 3] {
    let (one, other) = (middle(ours.to_vec()), middle(theirs.to_vec()));
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    let (low, high) = range_of_median(ratios);
    [
        Line::new(name, one.0 / other.0, "x", Some(one.1.max(other.1) / other.0)),
        Line::new("  the median of the pairs' ratios, at least", low, "x", None),
        Line { bound: Some(MAKE), ..Line::new("  the median of the pairs' ratios, at most", high, "x", None) },
    ]
}

/// The range of the median with a probability of 95 %, by the sign test. That test assumes nothing about the
/// distribution of the values.
fn range_of_median(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let rank = ((count - 1.96 * count.sqrt()) / 2.0) as usize;
    (values[rank], values[values.len() - 1 - rank])
}

/// A process in the namespaces of the benchmark, which takes commands line by line.
struct Inside(Child, BufReader<std::process::ChildStdout>);

impl Inside {
    fn start(module: &Path, empty: &Path) -> Self {
        let mut child = Command::new("keyctl")
            .args(["session", "-", "unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"])
            .arg(target().join("release/pag-bench"))
            .env("PAG_MODULE", module)
            .env("PAG_EMPTY", empty)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        // keyctl session prints the keyring that it has joined on stderr, so the first line of stdout is the
        // benchmark's.
        Inside(child, output)
    }

    /// Runs each stack `runs` times, in turn and in new processes. Returns a list for each stack, in microseconds.
    fn times(&mut self, runs: usize, stacks: &[&str]) -> Vec<Vec<f64>> {
        writeln!(self.0.stdin.as_mut().unwrap(), "{runs} {}", stacks.join(" ")).unwrap();
        let mut answer = String::new();
        self.1.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// Gives a command, and waits until the process is ready again.
    fn command(&mut self, line: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        self.1.read_line(&mut answer).unwrap();
        assert_eq!(answer, "ready\n", "{line}");
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

/// Measures a login's whole cycle, with and without the module, and joins beside few and many PAGs.
fn cycles(module: &Path, empty: &Path) -> Vec<Line> {
    let mut inside = Inside::start(module, empty);
    let mut lines = Vec::new();
    inside.command("login");
    let stacks = ["permit", "keyinit", "keyinit+empty", "keyinit+pag", "join"];
    let times: Vec<(f64, f64)> = inside.times(RUNS, &stacks).into_iter().map(middle).collect();
    let [permit, keyinit, with_empty, with_pag, _] = times[..] else { panic!("five stacks") };
    let own = with_pag.0 - with_empty.0;
    let theirs = keyinit.0 - permit.0;
    let spread = with_pag.1.max(with_empty.1) / theirs;
    lines.push(Line {
        name: "a join, in times of what pam_keyinit does",
        value: own / theirs,
        unit: "x",
        spread: Some(spread),
        bound: Some(3.0),
        measurable: true,
    });
    lines.push(Line {
        name: "the whole cycle with pam_pag, in times of pam_keyinit's",
        value: with_pag.0 / keyinit.0,
        unit: "x",
        spread: Some(with_pag.1 / keyinit.0),
        bound: Some(2.5),
        measurable: true,
    });
    for (name, time) in [
        "cycle: pam_permit",
        "cycle: pam_keyinit",
        "cycle: pam_keyinit, empty",
        "cycle: pam_keyinit, pam_pag",
        // A cycle contains one such join. Its time grows with the number of all keyrings of the kernel.
        "the kernel's join by name beside 1",
    ]
    .into_iter()
    .zip(&times)
    {
        lines.push(Line::new(name, time.0, "us", Some(time.1)));
    }
    for (count, name, floor) in [
        (100, "join with 100 PAGs in the registry", "the kernel's join by name beside 100"),
        (10_000, "join with 10,000 PAGs in the registry", "the kernel's join by name beside 10,000"),
    ] {
        inside.command(&format!("populate {count}"));
        let times: Vec<(f64, f64)> =
            inside.times(51, &["keyinit+empty", "keyinit+pag", "join"]).into_iter().map(middle).collect();
        let [with_empty, with_pag, join] = times[..] else { panic!("three stacks") };
        let value = with_pag.0 - with_empty.0;
        lines.push(Line::new(name, value, "us", Some(with_pag.1)));
        lines.push(Line::new(floor, join.0, "us", Some(join.1)));
        inside.command("depopulate");
    }
    lines
}
