//! The inside of `cargo xtask bench`: started in namespaces of its own, it does what each line says.
//!
//! `login` keeps a session of alice open, `populate N` and `depopulate` fill and empty the registry beside it, and
//! `RUNS STACK...` times each stack RUNS times, interleaved, in fresh processes, and answers with JSON.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measuring tool that never leaves the tests"
)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use pag_tests::sandbox::{HANDLE, QuickCollection, Sandbox, own_program};

fn main() {
    if let Some(name) = std::env::args().nth(1) {
        return join(&name);
    }
    let sandbox = Sandbox::enter();
    // The kernel looks a keyring up by name in one list. Dead keyrings stay in it until they are collected, and those
    // of earlier runs must not be measured.
    let _quick = QuickCollection::begin();
    let empty = std::env::var("PAG_EMPTY").expect("PAG_EMPTY names the empty module");
    let pag = std::env::var("PAG_MODULE").expect("PAG_MODULE names the module");
    let keyinit = "session optional pam_keyinit.so force revoke\n";
    let permit = "session required pam_permit.so\n";
    sandbox.stack("permit", permit);
    sandbox.stack("keyinit", &format!("{permit}{keyinit}"));
    sandbox.stack("keyinit+empty", &format!("{permit}{keyinit}session required {empty}\n"));
    sandbox.stack("keyinit+pag", &format!("{permit}{keyinit}session required {pag}\n"));
    let mut login = None;
    let mut ring = String::new();
    let mut crowd = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["login"] => {
                let mut host = sandbox.host("keyinit+pag", "alice");
                host.ok("open");
                ring = host.ring().identity().1.to_owned();
                login = Some(host);
                println!("ready");
            }
            ["populate", count] => {
                let mut child = Command::new(own_program("pag-populate"))
                    .args([count, "70000"])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut output = BufReader::new(child.stdout.take().unwrap());
                output.read_line(&mut String::new()).unwrap();
                crowd = Some(child);
                println!("ready");
            }
            ["depopulate"] => {
                let mut child = crowd.take().unwrap();
                drop(child.stdin.take());
                child.wait().unwrap();
                println!("ready");
            }
            [runs, ref stacks @ ..] => {
                let mut times = vec![Vec::new(); stacks.len()];
                for _ in 0..runs.parse().unwrap() {
                    for (times, stack) in times.iter_mut().zip(stacks) {
                        times.push(time(stack, &ring));
                    }
                }
                println!("{}", serde_json::to_string(&times).unwrap());
            }
            [] => {}
        }
    }
    drop(login);
}

/// Microseconds that one fresh process needs for a stack's whole cycle, or for the kernel's join alone.
fn time(stack: &str, ring: &str) -> f64 {
    let mut command = match stack {
        "join" => {
            let mut command = Command::new(own_program("pag-bench"));
            command.arg(ring);
            command
        }
        stack => {
            let mut command = Command::new(own_program("pag-pamhost"));
            command.args(["/run/pam.d", stack, "alice", "cycle"]);
            command
        }
    };
    let output = command.stdin(Stdio::null()).output().unwrap();
    // A stack with a module that isn't there is quick.
    assert!(output.status.success(), "{stack}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

/// The floor: the kernel's own join by name.
fn join(name: &str) {
    let name = std::ffi::CString::new(name).unwrap();
    unsafe { libc::setfsgid(HANDLE) };
    let begun = Instant::now();
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    let took = begun.elapsed();
    assert!(result > 0, "the join failed");
    println!("{}", took.as_secs_f64() * 1e6);
}
