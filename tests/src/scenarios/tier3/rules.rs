//! The rules of PAGs, from the people who make AFS ("The problem" in docs/design/README.md): one suite, unchanged
//! for the keyring, OpenAFS and kAFS. `pagctl tokens` asks the client's own interface whether a process has tokens.

use std::path::Path;
use std::time::Duration;

use super::Client;
use crate::cell;
use crate::guest::{Proof, Session, eventually, journal, sh};

/// Whether the processes behind a shell have a token: pagctl's exit status.
fn has_token(session: &mut Session, within: &str) -> bool {
    let said = session.say(&format!("{within} pagctl tokens >/dev/null 2>&1; echo $?"));
    match said.trim() {
        "0" => true,
        "1" => false,
        other => panic!("'{within} pagctl tokens' ended with {other}: {}", session.say("pagctl tokens")),
    }
}

pub(super) fn afs_rules_of_pags(client: Client) {
    if client == Client::None {
        cell::configure(cell::keyring_lines(client));
    }
    cell::let_go_of_keys_early(client);
    let seed = client.seeder();
    let mut alice = Session::ssh("alice", Proof::Password);
    let mut bob = Session::ssh("bob", Proof::Password);
    let id = alice.say("pagctl id");
    assert!(has_token(&mut alice, ""), "a login by password has a token");

    // Any process may create a PAG; its first and only member is that process.
    let new = alice.say("pagctl new -- pagctl id");
    assert_ne!(new, id, "a new PAG is another one");
    assert_eq!(alice.say("pagctl id"), id, "who made it stays where he was");
    assert!(!has_token(&mut alice, "pagctl new --"), "a new PAG has no tokens");
    assert!(has_token(&mut alice, ""), "and the old one keeps its own");

    // A child inherits its parent's one PAG: over fork, exec, and a change of uid by a setuid program.
    assert_eq!(alice.say("sh -c \"sh -c 'pagctl id'\""), id, "over fork and exec");
    let ring = alice.ring();
    let after = alice.say("echo bobpw | su bob -c /usr/local/bin/pag-probe 2>/dev/null");
    assert_eq!(crate::ring::Ring::parse(&after).identity(), ring.identity(), "over a change of uid");

    // A process may leave.
    assert!(!has_token(&mut alice, "pagctl leave --"), "who has left has no tokens");
    assert!(has_token(&mut alice, ""), "and the others keep them");

    // A thread can switch while its siblings stay.
    assert_eq!(alice.say("pag-probe --thread-leaves"), "the thread has left, its siblings have stayed\n");

    // No process can move another one into a PAG after that was created, not even with the same uid.
    let serial = ring.identity().0;
    let outside = "runuser -u alice --";
    for (what, command) in [
        ("join by name", format!("{outside} keyctl session {} pagctl tokens", ring.identity().1)),
        ("link", format!("{outside} keyctl link {serial} @s")),
        ("read", format!("{outside} keyctl rlist {serial}")),
        ("search", format!("{outside} keyctl search {serial} keyring _uid.61001")),
        ("change", format!("{outside} keyctl setperm {serial} 0x3f3f3f3f")),
        ("revoke", format!("{outside} keyctl revoke {serial}")),
    ] {
        let code = sh(&format!("{command} >/dev/null 2>&1; echo $?"));
        assert_ne!(code.trim(), "0", "alice, outside of her PAG: {what} is refused");
    }
    for keyring in sh("grep -o '_ses\\.[0-9]*' /proc/keys | sort -u || true").lines() {
        let code = sh(&format!("{outside} keyctl session {keyring} pagctl tokens >/dev/null 2>&1; echo $?"));
        assert_ne!(code.trim(), "0", "alice, outside: to join {keyring}, setpag's own ring, brings no tokens");
    }

    // All members see a token that one member sets, and no other process does.
    let mut second = Session::ssh("alice", Proof::Key);
    assert!(has_token(&mut second, ""), "a second login is in the same PAG");
    assert_eq!(alice.say("pagctl unlog >/dev/null; echo $?"), "0\n");
    assert!(!has_token(&mut second, ""), "unlog ends it for all");
    assert_eq!(alice.say(&format!("echo alicepw | kinit >/dev/null && {seed} >/dev/null && echo got")), "got\n");
    assert!(has_token(&mut second, ""), "another login sees it");
    let code = second.say("systemd-run --user --quiet --wait --pipe --collect pagctl tokens >/dev/null; echo $?");
    assert_eq!(code, "0\n", "a service sees it");
    assert!(has_token(&mut bob, ""), "bob has his own");
    assert_eq!(bob.say("pagctl unlog >/dev/null; echo $?"), "0\n");
    assert!(has_token(&mut second, ""), "and what he does with it is nothing to alice");
    let code = sh(&format!("{outside} pagctl tokens >/dev/null 2>&1; echo $?"));
    assert_eq!(code.trim(), "1", "alice, outside of her PAG, sees none");

    // The end of the last process is the end of the tokens.
    // Her kinit has the helper seed the PAG once more, within seconds, and kAFS keeps the token that is replaced.
    let seeds = || !sh("systemctl list-units --no-legend --state=active,activating 'pag-seed@*'").is_empty();
    let live = eventually("what unlog has discarded is let go of", Duration::from_secs(30), || {
        let now = cell::live_pags(client);
        std::thread::sleep(Duration::from_secs(6));
        (!seeds() && cell::live_pags(client) == now).then_some(now)
    });
    // The process stays away from the home, where kAFS holds keys for cached permissions.
    let then = "pagctl tokens >/dev/null && touch /tmp/new-pag-has-tokens; exec sleep 600";
    let said = alice.say(&format!("(cd / && exec pagctl new -- sh -c '{seed} >/dev/null; {then}') &"));
    assert_eq!(said, "", "{said}");
    eventually("the new PAG has a token", Duration::from_secs(20), || {
        Path::new("/tmp/new-pag-has-tokens").exists().then_some(())
    });
    assert!(cell::live_pags(client) > live, "and it is one more");
    sh("pkill -u alice -f sleep.600");
    // A process that has not been collected still has its session keyring. A shell that waits for a command collects
    // none.
    alice.say("wait");
    eventually("its end is the token's", Duration::from_secs(20), || (cell::live_pags(client) <= live).then_some(()));

    // `retain` decides whether a process that stays after logout keeps its tokens.
    for (retain, keeps) in [("processes", true), ("none", false)] {
        second.log_out();
        alice.log_out();
        cell::is_over("alice");
        cell::configure(&format!("retain = {retain}\n{}", cell::keyring_lines(client)));
        alice = Session::ssh("alice", Proof::Password);
        second = Session::ssh("alice", Proof::Key);
        assert!(has_token(&mut second, ""), "retain = {retain}: before");
        cell::leave_behind(&mut second, "pagctl tokens");
        second.log_out();
        alice.log_out();
        cell::is_over("alice");
        assert_eq!(cell::left_behind(), keeps, "retain = {retain}: what was left behind");
        alice = Session::ssh("alice", Proof::Password);
        second = Session::ssh("alice", Proof::Key);
    }

    // A session that goes on only for the processes left in it does not keep their tokens, either.
    assert!(has_token(&mut second, ""), "before a session that goes on");
    cell::leave_in_session(&mut second, "pagctl tokens");
    second.log_out();
    alice.log_out();
    eventually("the manager has had its time", Duration::from_secs(60), || {
        journal("pag-logind-helper").contains("its last login is gone, and the user manager stays").then_some(())
    });
    assert!(!cell::left_behind(), "retain = none: what was left in a session that goes on");
    cell::is_over("alice");
}
