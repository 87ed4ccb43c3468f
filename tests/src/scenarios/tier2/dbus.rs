//! The D-Bus interface where everything around it is real: the system bus, systemd, logind and polkit.

use std::fs;
use std::time::Duration;

use super::outages::helper;
use crate::guest::{Proof, Session, assert_token, eventually, heard, pags_of, run, seeder_runs, sh};

const MANAGER: &str = "org.pam_pag.Pag1 /org/pam_pag/Pag1 org.pam_pag.Pag1.Manager";

/// The id of the one PAG that a user has.
fn id(user: &str) -> String {
    let pags = pags_of(user);
    assert_eq!(pags.len(), 1, "one PAG of {user} expected: {pags:#?}");
    pags[0]["pag"].as_str().unwrap().to_owned()
}

/// `busctl`'s output for root.
fn call(words: &str) -> String {
    let output = run("sh", &["-c", &format!("busctl --system call {MANAGER} {words} 2>&1")]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(super) fn dbus_interface_is_real(_: u32) {
    let mut alice = Session::ssh("alice", Proof::Password);
    assert_token("alice", &alice.ring());
    let hers = id("alice");
    let ask = format!("busctl --system call {MANAGER} GetMyPag");
    let path = format!("o \"/org/pam_pag/Pag1/pag/{hers}\"\n");

    // Processes of a login, of a user service, and an orphan of a login.
    assert_eq!(alice.say(&ask), path, "in a shell");
    let service = alice.say(&format!("systemd-run --user --quiet --wait --pipe --collect {ask}"));
    assert_eq!(service, path, "in a user service");
    alice.say(&format!(
        "(setsid sh -c 'while [ $(cut -d\" \" -f4 /proc/$$/stat) != 1 ]; do sleep 0.1; done; {ask} >~/orphan.new 2>&1; \
         mv ~/orphan.new ~/orphan' </dev/null >/dev/null 2>&1 &)"
    ));
    let orphan =
        eventually("the orphan has asked", Duration::from_secs(10), || fs::read_to_string("/home/alice/orphan").ok());
    assert_eq!(orphan, path, "orphaned, in its session's scope");

    // The tool, and a seeder in its unit.
    let shown = alice.say("pagctl show");
    assert!(shown.contains(&hers) && shown.contains("token      example.test as alice@EXAMPLE.TEST until "), "{shown}");
    let runs = seeder_runs();
    assert_eq!(alice.say("pagctl renew && echo renewed"), "renewed\n");
    assert_eq!(seeder_runs(), runs + 1, "a seeder has run");
    heard("pag-seed", "got tokens of cell example.test for alice (uid 61001)");

    // The helper is killed: a caller meanwhile waits for the next helper.
    assert_eq!(sh("systemctl show -P BusName pag-logind-helper").trim(), "org.pam_pag.Pag1");
    let first = helper();
    sh("systemctl kill -s KILL pag-logind-helper");
    // A call to the killed helper is lost if the bus has not seen its end yet; the bus answers with an error.
    let served_by = || {
        sh(
            "busctl call org.freedesktop.DBus / org.freedesktop.DBus GetConnectionUnixProcessID s org.pam_pag.Pag1 2>&1 || true",
        )
    };
    let is_gone = || (served_by().trim() != format!("u {first}")).then_some(());
    eventually("the bus has seen its end", Duration::from_secs(10), is_gone);
    let said = call("ListPags");
    assert!(said.contains(&hers), "a call in the middle of a restart is answered: {said}");
    assert_ne!(helper(), first);
    // The bus ends, and the helper does not.
    let second = helper();
    sh("systemctl restart dbus systemd-logind");
    eventually("the interface is on the new bus", Duration::from_secs(30), || {
        call("ListPags").contains(&hers).then_some(())
    });
    assert_eq!(helper(), second, "the helper outlives the bus");

    // Polkit, as an administrator of the machine has set it up.
    let mut bob = Session::ssh("bob", Proof::Password);
    let known = sh("pkaction --verbose --action-id org.pam_pag.manage-others");
    assert!(known.contains("auth_admin_keep"), "{known}");
    let all = bob.say("pagctl list --all");
    assert!(all.contains("prove that you are an administrator"), "without a rule bob must prove something: {all}");
    let refused = bob.say(&format!("pagctl show {hers}"));
    assert!(refused.contains("that you may see"), "{refused}");
    let rule = "polkit.addRule(function(action, subject) {\n  if (action.id == \"org.pam_pag.manage-others\" && \
                subject.user == \"bob\") return polkit.Result.YES;\n});\n";
    fs::create_dir_all("/etc/polkit-1/rules.d").unwrap();
    fs::write("/etc/polkit-1/rules.d/10-lab.rules", rule).unwrap();
    eventually("the rule lets bob see all", Duration::from_secs(10), || {
        bob.say("pagctl list --all").contains(&hers).then_some(())
    });
    let shown = bob.say(&format!("pagctl show {hers}"));
    assert!(shown.contains(&hers), "{shown}");
    assert!(!bob.say("pagctl list").contains(&hers), "his own list is his own");
    let refused = alice.say("pagctl list --all");
    assert!(refused.contains("prove that you are an administrator"), "the rule is bob's: {refused}");

    // The helper is disabled: only an administrator can start it again.
    sh("systemctl disable --now pag-logind-helper 2>/dev/null");
    let said = call("ListPags");
    assert!(!said.contains(&hers), "a disabled helper is not started by a call: {said}");
    sh("systemctl enable --now pag-logind-helper 2>/dev/null");
    let said = alice.say("pagctl list");
    assert!(said.contains(&hers), "{said}");
}
