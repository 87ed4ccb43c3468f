//! What `cargo xtask bench --afs` measures, from inside the machine.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use crate::cell::{self, todays_module};
use crate::guest::{Proof, Session, run, sh};

/// Pairs of runs, one after the other, so that what disturbs one disturbs both.
const PAIRS: usize = 60;
/// Logins of each kind: each takes seconds.
const LOGINS: usize = 5;

/// What is compared: the stack of each, by its name.
const STACKS: [&str; 2] = ["pam_pag", "pam_afs_session"];

/// How a line begins that tells whoever waits how far this is.
pub const PROGRESS: &str = "# ";

/// Microseconds that the module's open_session takes, and nothing of libpam's, in a fresh process, for alice with a
/// ticket.
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

/// Times by what was timed: for pairs, the two lists are in the order in which they were taken.
type Times = BTreeMap<String, Vec<f64>>;

fn pairs(times: &mut Times, what: &str) {
    // What only the first ever does: the ticket for AFS, pages of programs.
    for stack in STACKS {
        open(stack);
    }
    for pair in 0..PAIRS {
        let mut order = STACKS;
        // Neither is always the one that comes after the other.
        order.rotate_left(pair % 2);
        for stack in order {
            times.entry(format!("{what}: {stack}")).or_default().push(open(stack));
        }
        if (pair + 1) % 10 == 0 {
            println!("{PROGRESS}{what}: {} of {PAIRS} pairs", pair + 1);
        }
    }
}

/// Measures, and prints the times as one line of JSON.
pub fn afs() {
    let mut times = Times::new();
    fs::create_dir_all("/run/pam.d").unwrap();
    let program = "program=/usr/bin/aklog";
    for (stack, line, other) in [
        (STACKS[0], "pam_pag.so".to_owned(), STACKS[1]),
        (STACKS[1], format!("pam_afs_session.so {program}"), STACKS[0]),
    ] {
        // Both modules are loaded, and one is called, between two looks at a clock.
        let clock = "session required /usr/local/bin/libpam_empty.so clock";
        let text = format!("{clock}\nsession required {line}\n{clock}\nauth optional {other}.so\n");
        fs::write(format!("/run/pam.d/{stack}"), text).unwrap();
    }
    sh("echo alicepw | kinit -f -c FILE:/run/ticket.alice alice; chown alice /run/ticket.alice");
    // The helper works on after each login; what is measured is the login.
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
