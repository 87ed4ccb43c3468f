//! What `cargo xtask bench` measures from inside a machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cell::{self, todays_module};
use crate::guest::{Proof, Session, eventually, journal, run, sh};

/// Pairs of runs, one after the other, so that what disturbs one disturbs both.
const PAIRS: usize = 50;
/// Logins of each kind: each takes seconds.
const LOGINS: usize = 5;

/// Microseconds that open_session of a stack takes, in a fresh process, for alice with a ticket.
fn open(stack: &str) -> f64 {
    let output = run("pag-pamhost", &["/run/pam.d", stack, "alice", "open", "FILE:/run/ticket.alice"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().parse().unwrap_or_else(|_| panic!("{stack}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Seconds from the start of ssh to what the command says.
fn login(command: &str) -> f64 {
    let begun = Instant::now();
    assert_eq!(crate::guest::ssh("alice", Proof::Password, command), "here\n");
    begun.elapsed().as_secs_f64()
}

/// PAGs that the helper looks after when it is measured, and seconds for which it is left alone.
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

/// Measures, and prints the times as one line of JSON: lists by name.
pub fn afs() {
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    fs::create_dir_all("/run/pam.d").unwrap();
    let stack = |name: &str, line: &str| {
        let text = format!("session required pam_permit.so\nsession optional pam_keyinit.so force revoke\n{line}\n");
        fs::write(format!("/run/pam.d/{name}"), text).unwrap();
    };
    stack("pag", "session required pam_pag.so");
    stack("afs", "session required pam_afs_session.so program=/usr/bin/aklog");
    sh("echo alicepw | kinit -f -c FILE:/run/ticket.alice alice; chown alice /run/ticket.alice");
    // The helper works on after each login; what is measured is the login.
    sh("systemctl stop pag-logind-helper");

    for _ in 0..PAIRS {
        times.entry("make: pam_pag").or_default().push(open("pag"));
        times.entry("make: pam_afs_session").or_default().push(open("afs"));
    }
    let mut alice = Session::ssh("alice", Proof::Password);
    assert!(alice.say("tokens").contains("tokens for example.test"), "a PAG with good tokens");
    for _ in 0..PAIRS {
        times.entry("join: pam_pag").or_default().push(open("pag"));
        times.entry("join: pam_afs_session").or_default().push(open("afs"));
    }
    alice.log_out();
    cell::is_over_without_helper("alice");

    sh("systemctl start pag-logind-helper");
    let service = "systemd-run --user --quiet --wait --pipe --collect echo here";
    for (names, set_up) in [
        (["login: pam_pag", "service: pam_pag"], None),
        (["login: pam_afs_session", "service: pam_afs_session"], Some(true)),
        (["login: neither", "service: neither"], Some(false)),
    ] {
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
            for (name, command) in names.iter().zip(["echo here", service]) {
                times.entry(name).or_default().push(login(command));
                crate::guest::manager_is("alice", "inactive");
            }
        }
    }
    println!("{}", serde_json::to_string(&times).unwrap());
}
