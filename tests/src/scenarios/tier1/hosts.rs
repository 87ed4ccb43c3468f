//! The module in its host.

use std::process::Command;

use super::{login, long, ticketed};
use crate::sandbox::{CELL, Sandbox, module};

pub(super) fn host_unchanged(sandbox: &mut Sandbox) {
    let module = module();
    let module = module.display();
    // Without pam_keyinit, which itself clears the parent death signal.
    sandbox.stack("bare", &format!("auth required {module}\nsession required {module}\n"));
    let states: &[&[&str]] = &[
        &[],
        &["egid 61001"],
        &["gid 61001"],
        &["ruid 61001"],
        &["groups 61001,61002"],
        &["thread", "thread"],
        &["umask 077", "pdeathsig 15"],
        &["sigchld ignore"],
    ];
    let orders: &[&[&str]] = &[
        &["open", "close"],
        &["establish", "open", "close", "delete"],
        &["open", "establish", "delete", "close"],
        &["establish", "establish", "open", "open", "close", "close"],
        &["establish", "delete"],
    ];
    for state in states {
        for order in orders {
            let mut host = ticketed(sandbox, "bare", "alice", "alice");
            host.all_ok(state);
            let before = host.ask("report");
            for line in *order {
                host.ok(line);
                let now = host.ask("report");
                for (name, value) in before.as_object().unwrap() {
                    if name != "session" {
                        assert_eq!(&now[name], value, "{name} after {line} of {order:?} in state {state:?}");
                    }
                }
                let entered = !matches!(*line, "close" | "delete");
                if entered {
                    assert!(host.ring().is_pag(), "a PAG after {line} of {order:?} in state {state:?}");
                }
            }
            host.ok("end");
        }
    }
}

pub(super) fn keyinit_after_us(sandbox: &mut Sandbox) {
    let mut host = login(sandbox, "alice");
    let before = host.ring().identity().0;
    sandbox.messages();
    host.ok("newring");
    host.ok("establish");
    assert_eq!(host.ring().identity().0, before, "it is put back");
    sandbox.heard("session keyring");
    assert!(host.ring().token(CELL).is_some(), "with its token");
}

pub(super) fn exports(_: &mut Sandbox) {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(module()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
    names.sort_unstable();
    let six = [
        "pam_sm_acct_mgmt",
        "pam_sm_authenticate",
        "pam_sm_chauthtok",
        "pam_sm_close_session",
        "pam_sm_open_session",
        "pam_sm_setcred",
    ];
    assert_eq!(names, six, "exactly the six entry points");
}

pub(super) fn panic_is_a_line(sandbox: &mut Sandbox) {
    let module = std::env::var("PAG_MODULE_FAULT").expect("PAG_MODULE_FAULT names a module with the feature `fault`");
    let count = if long() { 500 } else { 10 };
    for (hook, lines) in [("session", ["open", "close"]), ("setcred", ["establish", "delete"])] {
        let line = format!("required {module} fault={hook}");
        sandbox.stack("faulty", &format!("auth {line}\naccount required pam_permit.so\nsession {line}\n"));
        let mut host = ticketed(sandbox, "faulty", "alice", "alice");
        // Ids that our guard changes for the time of its work, in which the panic comes.
        host.all_ok(&["ruid 61001", "egid 61002"]);
        let before = host.ask("report");
        sandbox.messages();
        for line in lines.iter().cycle().take(count) {
            host.ok(line);
            let message = sandbox.heard("internal error at");
            assert!(message.text().contains(".rs:"), "the message names a source place: {message:?}");
            for (name, value) in before.as_object().unwrap() {
                assert_eq!(&host.ask("report")[name], value, "{name} after a panic in {line} is as it was");
            }
        }
        host.ok("end");
    }
}

pub(super) fn bad_configuration(sandbox: &mut Sandbox) {
    sandbox.service("odd", "colour=red timeout=soon");
    let mut host = ticketed(sandbox, "odd", "alice", "alice");
    sandbox.messages();
    host.ok("open");
    let texts: Vec<String> = sandbox.messages().iter().map(|message| message.text().to_owned()).collect();
    for word in ["colour", "timeout"] {
        let count = texts.iter().filter(|text| text.contains(word)).count();
        assert_eq!(count, 1, "one message about {word}: {texts:#?}");
    }
    assert!(host.ring().is_pag(), "the login goes on with the default");
    sandbox.configure("flavour = sweet");
    let mut host = ticketed(sandbox, "sshd", "alice", "alice");
    host.ok("open");
    let message = sandbox.heard("flavour");
    assert!(message.text().contains("/etc/pag/pag.conf"), "it names the file: {message:?}");
}
