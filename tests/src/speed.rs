//! What `cargo xtask bench --afs` measures, from inside the machine.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use crate::cell::{self, todays_module};
use crate::guest::{Proof, Session, run, sh};

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
