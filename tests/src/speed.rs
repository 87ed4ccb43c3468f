//! The measurements of `cargo xtask bench` inside a machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cell::{self, todays_module};
use crate::guest::{Proof, Session, eventually, journal, sh};
use crate::server::Server;

/// Number of pairs of runs. The runs of a pair follow each other, so that a disturbance hits both.
const PAIRS: usize = 60;
/// Processes that open a session and do no more.
const FRESH: usize = 10;
/// Logins of each kind: each takes seconds.
const LOGINS: usize = 5;

/// The stacks that are compared, by name.
const STACKS: [&str; 2] = ["pam_pag", "pam_afs_session"];

/// The beginning of a line that reports progress.
pub const PROGRESS: &str = "# ";

/// A process that has loaded both modules and keeps them, as a display manager does. In emulation a module's code is
/// translated when a process runs it for the first time, which takes twenty times as long as the code itself.
struct Host(Child, BufReader<ChildStdout>);

impl Host {
    fn start() -> Self {
        let mut child = Command::new("pag-pamhost")
            .args(["/run/pam.d", "keep", "alice"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Host(child, output)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Makes it do something.
    fn say(&mut self, line: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
        assert_eq!(self.line(), r#"{"result":0}"#, "{line}");
    }

    /// Microseconds for a module's open_session alone, without libpam, for alice with a ticket.
    fn open(&mut self, stack: &str) -> f64 {
        self.say(&format!("start {stack} alice"));
        self.say("putenv KRB5CCNAME=FILE:/tmp/krb5cc.alice");
        // As after pam_keyinit.
        self.say("newring");
        writeln!(self.0.stdin.as_mut().unwrap(), "open").unwrap();
        let time = self.line();
        assert_eq!(self.line(), r#"{"result":0}"#, "open {stack}");
        self.say("close");
        self.say("end");
        time.parse().unwrap_or_else(|_| panic!("{stack}: the clock says {time}"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

/// Seconds from the start of ssh to the command's output.
fn login(command: &str) -> f64 {
    let begun = Instant::now();
    assert_eq!(crate::guest::ssh("alice", Proof::Password, command), "here\n");
    begun.elapsed().as_secs_f64()
}

/// How many PAGs the helper looks after when it is measured, and for how many seconds it is left alone.
const PAGS: u64 = 1000;
const IDLE: u64 = 60;

/// Measures the helper with many PAGs, each with a process of its own, and prints one line of JSON: numbers by name.
pub fn helper() {
    let mut crowd = Command::new("pag-populate")
        .args([&PAGS.to_string(), "70000", "each"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(crowd.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    sh("systemctl restart pag-logind-helper");
    eventually("the helper has found them", Duration::from_secs(20), || {
        journal("pag-logind-helper").contains(&format!("looking after {PAGS} PAGs with {PAGS} leases")).then_some(())
    });
    let pid = sh("systemctl show -P MainPID pag-logind-helper").trim().to_owned();
    let of = |names: &[&str]| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let values =
            lines.filter(|(key, _)| names.contains(key)).filter_map(|(_, value)| value.split_whitespace().next());
        values.map(|value| value.parse::<u64>().unwrap()).sum()
    };
    std::thread::sleep(Duration::from_secs(5));
    let switches = ["voluntary_ctxt_switches"];
    let (resident, threads, before) = (of(&["VmRSS"]), of(&["Threads"]), of(&switches));
    std::thread::sleep(Duration::from_secs(IDLE));
    let wakeups = (of(&switches) - before) * 60 / IDLE;
    let pags = sh("pagctl status --json | grep -c '\"pag\"'").trim().parse::<u64>().unwrap();
    assert_eq!(pags, PAGS, "they are all there still");
    println!("{}", serde_json::json!({ "resident": resident, "threads": threads, "wakeups": wakeups }));
    drop(crowd.stdin.take());
    crowd.wait().unwrap();
}

/// Times by name. The two lists of a pair are in the order of measurement.
type Times = BTreeMap<String, Vec<f64>>;

fn pairs(times: &mut Times, what: &str) {
    let mut host = Host::start();
    // Not measured: the first run also gets the ticket for AFS and loads the code of both.
    for stack in STACKS {
        let first = host.open(stack);
        times.entry(format!("first {what}: {stack}")).or_default().push(first);
    }
    for pair in 0..PAIRS {
        let mut order = STACKS;
        // The two take turns in coming second.
        order.rotate_left(pair % 2);
        for stack in order {
            times.entry(format!("{what}: {stack}")).or_default().push(host.open(stack));
        }
        if (pair + 1) % 10 == 0 {
            println!("{PROGRESS}{what}: {} of {PAIRS} pairs", pair + 1);
        }
    }
    drop(host);
    for _ in 0..FRESH {
        for stack in STACKS {
            times.entry(format!("first {what}: {stack}")).or_default().push(Host::start().open(stack));
        }
    }
}

/// The identities that a server has at once.
const IDENTITIES: usize = 50;
/// The rounds that are measured, in each of which each identity asks once. The quick ways go in pairs.
const QUICK: usize = 100;
/// Rounds with a token that is set for each request, which takes a hundred times as long.
const SET: usize = 6;
/// Rounds with a child for each request, which takes a thousand times as long.
const FORKED: usize = 2;
/// The bytes of a page.
const PAGE: usize = 65536;
const PLACE: &str = "/afs/example.test/requests";

/// Makes the identities: each has a directory with a page that it alone can read, beside one identity that reads all.
fn make_identities(names: &[String]) {
    let all = names.join(" ");
    sh(&format!(
        "{{ echo addprinc -pw pw reader; for name in {all}; do echo addprinc -pw pw $name; done; }} | kadmin.local >/dev/null 2>&1
         {{ echo createuser reader; for name in {all}; do echo createuser $name; done; }} | pts interactive -localauth >/dev/null
         mkdir -p /run/tickets; for name in reader {all}; do echo pw | kinit -c FILE:/run/tickets/$name $name >/dev/null; done
         echo adminpw | kinit -c FILE:/run/tickets/admin admin >/dev/null
         head -c {PAGE} /dev/urandom > /run/page
         pagsh -c 'export KRB5CCNAME=FILE:/run/tickets/admin; set -e; aklog; mkdir {PLACE}
         for name in {all}; do
            mkdir {PLACE}/$name; cp /run/page {PLACE}/$name/page
            fs setacl {PLACE}/$name -clear -acl $name read reader read
         done'"
    ));
}

/// How often the file server was asked for the status of a file, and how many connections it has.
fn asked() -> [f64; 2] {
    let calls = sh("xstat_fs_test -fsname afs.example.test -collID 2 -onceonly");
    let server = sh("rxdebug afs.example.test 7000 -rxstats -noconns");
    let number = |text: &str, before: &str, after: &str| {
        let line = text.lines().find(|line| line.contains(before) && line.contains(after));
        let words = line.and_then(|line| line[line.find(before)? + before.len()..].split_whitespace().next());
        words.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no '{before}' before '{after}': {text}"))
    };
    [number(&calls, "FetchStatus:", " ops"), number(&server, "   ", " server connections")]
}

/// Serves requests of many identities by turns: by libpag, with a token that is set for each, with a child for each, and with no
/// switch at all. Prints one line of JSON: the microseconds of a request by round, and what a request has cost the file server.
pub fn requests() {
    let mut times = Times::new();
    let names: Vec<String> = (0..IDENTITIES).map(|number| format!("u{number}")).collect();
    make_identities(&names);
    println!("{PROGRESS}requests: {IDENTITIES} identities are there");
    // As root, whom OpenAFS lets make PAGs without a pause.
    let mut server = Server::start_as(0, "/usr/local/bin/pag-rusthost".as_ref());
    server.ok("open");
    for name in names.iter().map(String::as_str).chain(["reader"]) {
        server.ok(&format!("create {name} ccache=FILE:/run/tickets/{name} ms=60000"));
    }
    server.ok("create setter");
    println!("{PROGRESS}requests: each has its PAG");
    let all = names.join(" ");
    let mut round = |way: &str| -> f64 {
        match way {
            "same" => server.ok("enter reader"),
            "settok" => server.ok("enter setter"),
            _ => server.ok("leave"),
        };
        let nanoseconds: f64 = server.ok(&format!("requests {way} {PLACE} {all}")).parse().unwrap();
        nanoseconds / 1000.0 / IDENTITIES as f64
    };
    // Not measured: the first look of each identity at its files.
    for way in ["libpag", "same", "settok"] {
        round(way);
    }
    let mut note = |way: &str, what: &str, value: f64| {
        times.entry(format!("{what}: {way}")).or_default().push(value);
    };
    for number in 0..QUICK {
        let mut pair = ["libpag", "same"];
        pair.rotate_left(number % 2);
        for way in pair {
            note(way, "request", round(way));
        }
    }
    println!("{PROGRESS}requests: in PAGs, and without a switch");
    for (way, count) in [("settok", SET), ("fork", FORKED)] {
        for _ in 0..count {
            note(way, "request", round(way));
        }
        println!("{PROGRESS}requests: {way}");
    }
    for way in ["libpag", "same", "settok", "fork"] {
        let before = asked();
        round(way);
        let after = asked();
        for (what, place) in [("status calls", 0), ("connections", 1)] {
            note(way, what, (after[place] - before[place]) / IDENTITIES as f64);
        }
    }
    server.ok("close");
    assert!(server.finish().success());
    println!("{}", serde_json::to_string(&times).unwrap());
}

/// Measures, and prints the times as one line of JSON.
pub fn afs() {
    let mut times = Times::new();
    fs::create_dir_all("/run/pam.d").unwrap();
    let stack = |name: &str, text: &str| fs::write(format!("/run/pam.d/{name}"), text).unwrap();
    for (name, module) in STACKS.into_iter().zip(["pam_pag.so", "pam_afs_session.so program=/usr/bin/aklog"]) {
        let clock = "session required /usr/local/bin/libpam_empty.so clock";
        stack(name, &format!("{clock}\nsession required {module}\n{clock}\n"));
    }
    stack(
        "keep",
        "auth required pam_pag.so\nauth required pam_afs_session.so\nauth required /usr/local/bin/libpam_empty.so\n",
    );
    sh("echo alicepw | kinit -f -c FILE:/tmp/krb5cc.alice alice; chown alice /tmp/krb5cc.alice");
    // The helper still works after each login, but only the login is measured.
    sh("systemctl stop pag-logind-helper");
    pairs(&mut times, "make");
    let mut alice = Session::ssh("alice", Proof::Password);
    assert!(alice.say("tokens").contains("tokens for example.test"), "a PAG with good tokens");
    pairs(&mut times, "join");
    alice.log_out();
    cell::is_over_without_helper("alice");

    let service = "systemd-run --user --quiet --wait --pipe --collect echo here";
    for (kind, set_up) in [("pam_pag", None), ("pam_afs_session", Some(true)), ("neither", Some(false))] {
        match set_up {
            None => {}
            Some(todays) => {
                sh("pagctl pam disable --yes >/dev/null 2>&1 || true");
                if todays {
                    todays_module();
                } else {
                    sh("sed -i /pam_afs_session/d /etc/pam.d/common-*");
                }
            }
        }
        for _ in 0..LOGINS {
            for (name, command) in [("login", "echo here"), ("service", service)] {
                times.entry(format!("{name}: {kind}")).or_default().push(login(command));
                crate::guest::manager_is("alice", "inactive");
            }
        }
        println!("{PROGRESS}ssh logins with {kind}");
    }
    println!("{}", serde_json::to_string(&times).unwrap());
}
