//! Sessions that end in unusual ways: in a chroot, by another handle, in a process that goes on.

use std::fs;
use std::process::Command;

use super::hosts::{another, bare, works_for};
use super::{inside, login, pags, shell, ticketed, uid};
use crate::sandbox::{CELL, Host, Message, Sandbox, own_program};

/// The files in a directory, without those in its `proc`.
fn files(directory: &str) -> String {
    shell(&format!("cd {directory}; find . -path ./proc -prune -o -print | sort"))
}

/// A host that runs as root and may not look into other processes, as proftpd.
fn without_ptrace(login: &[&str]) -> Host {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]).arg(own_program("pag-pamhost"));
    Host::start(command, login)
}

/// proftpd closes the session when it is in a chroot of the user's home.
pub(super) fn host_closes_in_a_chroot(sandbox: &mut Sandbox) {
    bare(sandbox, &["proftpd", "sshd"]);
    let site = "/run/home/alice/site";
    shell(&format!("mkdir -p {site}/proc {site}/run; chown -R alice: {site}"));
    let empty = files(site);
    let mut other = login(sandbox, "alice");
    for (what, mount, can_trace) in [
        ("without a /proc", "", true),
        ("with a /proc", "mount --bind /proc", true),
        ("with a /proc, for a host that may not look at process 1", "mount --bind /proc", false),
    ] {
        if !mount.is_empty() {
            shell(&format!("{mount} {site}/proc"));
        }
        for ends in [&["close", "end"][..], &["delete", "close", "end"], &["end"], &["establish", "refresh", "close"]] {
            let when = format!("in a chroot {what}, after {ends:?}");
            let mut host = if can_trace {
                Host::start(Command::new(own_program("pag-pamhost")), &[])
            } else {
                without_ptrace(&[])
            };
            // The second handle never enters, and is asked to close all the same.
            host.ok("start proftpd alice");
            another(&mut host, "proftpd", "alice");
            host.ok("open");
            works_for(&mut host, Some("alice"), "before the chroot");
            host.ok(&format!("chroot {site}")).all_ok(ends);
            if ends.contains(&"end") {
                works_for(&mut host, None, &when);
            }
            host.all_ok(&["use 0", "close"]);
            assert_eq!(files(site), empty, "{when}: no file of root's is made there");
            assert!(other.ring().token(CELL).is_some(), "{when}: the other login keeps its token");
            assert_eq!(pags("alice")[0].leases().len(), 2, "{when}: and the lease stays as long as its process");
            host.finish();
            let mut next = login(sandbox, "alice");
            assert_eq!(pags("alice")[0].leases().len(), 2, "{when}: which the next login sees ended");
            next.all_ok(&["close", "end"]);
        }
        if !mount.is_empty() {
            shell(&format!("umount {site}/proc"));
        }
    }
    // A host that is in one when it opens can't share the lock with the others.
    shell(&format!(
        "mkdir {site}/etc; cp -a /etc/passwd /etc/group /etc/nsswitch.conf /etc/login.defs /etc/pag {site}/etc"
    ));
    let before = (files(site), pags("alice")[0].text.clone());
    let mut host = ticketed(sandbox, "proftpd", "alice", "alice");
    host.all_ok(&[&format!("chroot {site}"), "open"]);
    assert!(host.ring().is_pag(), "a host that opens in a chroot has a PAG: {:?}", host.ring());
    assert_ne!(host.ring().identity(), other.ring().identity(), "a host that opens in a chroot has a PAG of its own");
    host.all_ok(&["close", "end"]);
    works_for(&mut host, None, "after a session that was opened in a chroot");
    assert_eq!(files(site), before.0, "a host that opens in a chroot makes no file there");
    assert_eq!(pags("alice")[0].text, before.1, "nor does it change the record");
    // The same kind of fault: a /proc that hides others' processes says nothing about them.
    let mut host = without_ptrace(&["sshd", "alice"]);
    host.ok("open");
    shell("mount -o remount,hidepid=2 /proc");
    host.all_ok(&["close", "end"]);
    shell("mount -o remount,hidepid=0 /proc");
    assert!(other.ring().token(CELL).is_some(), "a login whose process is hidden keeps its token");
    assert_eq!(pags("alice")[0].leases().len(), 1, "and its lease, and no other is left");
    other.all_ok(&["close", "end"]);
    assert!(pags("alice").is_empty(), "the PAG ends");
    fs::remove_dir_all(site).unwrap();
}

/// How a program that this host starts as `user` sees a PAG.
fn program(host: &mut Host, user: &str) -> String {
    inside(host, user, "keyctl show @s 2>&1")["stdout"].as_str().unwrap().to_owned()
}

/// JupyterHub does so, by pamela.
pub(super) fn another_handle_closes(sandbox: &mut Sandbox) {
    bare(sandbox, &["hub", "spawner", "sshd"]);
    let mut host = Host::start(Command::new(own_program("pag-pamhost")), &[]);
    let open = |host: &mut Host, service: &str, user: &str| {
        another(host, service, user);
        host.all_ok(&["open", "end"]);
        works_for(host, None, &format!("{service}, after the end of the handle that has opened {user}'s session"));
    };
    let close = |host: &mut Host, service: &str, user: &str| {
        host.all_ok(&[&format!("start {service} {user}"), "close", "end"]);
    };
    let leases = |user: &str| pags(user).first().map_or(0, |pag| pag.leases().len());
    for user in ["alice", "bob"] {
        open(&mut host, "hub", user);
        let mut other = login(sandbox, user);
        works_for(&mut other, Some(user), "another login of a user whose session is open");
        other.all_ok(&["close", "end"]);
        assert_eq!(leases(user), 1, "the session of {user} stays open after the end of its handle");
    }
    for user in ["alice", "bob"] {
        let seen = program(&mut host, user);
        assert!(!seen.contains("pag:") && !seen.contains("afs@"), "a program of {user}'s is in no PAG: {seen}");
    }
    // Another process cannot close it, nor can a handle of another service.
    let mut stranger = Host::start(Command::new(own_program("pag-pamhost")), &[]);
    close(&mut stranger, "hub", "alice");
    close(&mut host, "spawner", "alice");
    assert_eq!((leases("alice"), leases("bob")), (1, 1), "a close of another process or service ends nothing");
    close(&mut host, "hub", "alice");
    assert_eq!((leases("alice"), leases("bob")), (0, 1), "a session is closed by another handle");
    assert!(pags("alice").is_empty(), "and the PAG ends");
    close(&mut host, "hub", "bob");
    assert!(pags("bob").is_empty(), "a session is closed by another handle, the other user's, too");
    // A call ends one session. A handle that has had its own session ends no other.
    open(&mut host, "hub", "alice");
    open(&mut host, "hub", "alice");
    another(&mut host, "hub", "alice");
    host.all_ok(&["establish", "open", "delete", "close", "close", "delete", "end"]);
    assert_eq!(leases("alice"), 2, "a second close of a handle ends no other session");
    host.all_ok(&["start hub alice", "delete", "close", "close", "end"]);
    assert_eq!(leases("alice"), 1, "a handle without a session closes one");
    close(&mut host, "hub", "alice");
    assert!(pags("alice").is_empty(), "and the next handle the next one");
    // A handle that is still there.
    another(&mut host, "hub", "alice");
    host.ok("open");
    works_for(&mut host, Some("alice"), "a session whose handle is there");
    host.all_ok(&["start hub alice", "close"]);
    works_for(&mut host, None, "a session that another handle has closed");
    assert!(pags("alice").is_empty(), "a session that another handle has closed has ended");
    host.all_ok(&["end", "use 0", "close", "end"]);
    // The session belongs to a process that has become the user before it ends its handle.
    let uid = uid("alice");
    another(&mut host, "hub", "alice");
    host.all_ok(&["open", &format!("become {uid}"), "end"]);
    works_for(&mut host, Some("alice"), "a process that has become the user, after the end of its handle");
}

/// JupyterHub may open a session for each server, and close none.
pub(super) fn many_sessions_of_one_process(sandbox: &mut Sandbox) {
    const SESSIONS: usize = 700;
    sandbox.configure("notokens");
    bare(sandbox, &["hub", "sshd", "systemd-user"]);
    let mut host = Host::start(Command::new(own_program("pag-pamhost")), &[]);
    for _ in 0..SESSIONS {
        host.all_ok(&["start hub alice", "open"]);
    }
    let ring = host.ring();
    let pag = pags("alice").remove(0);
    assert_eq!(pag.leases().len(), 16, "a process has a bounded number of leases: {pag:?}");
    assert!(pag.leases()[15].ends_with(&format!(" {}", SESSIONS - 15)), "and the last stands for the rest: {pag:?}");
    let said = sandbox.messages();
    let said: Vec<&str> = said.iter().map(Message::text).filter(|text| text.contains("open sessions")).collect();
    assert!((1..=12).contains(&said.len()), "that is said, but not each time: {said:#?}");
    let named = format!("process {} (pag-pamhost) has 17 open sessions of alice (uid 61001)", host.pid());
    assert!(said[0].contains(&named), "the message names the process and how many it has: {said:#?}");
    for service in ["sshd", "systemd-user"] {
        let mut other = sandbox.host(service, "alice");
        other.ok("open");
        assert_eq!(other.ring().identity(), ring.identity(), "{service} of the same user is in the PAG");
        assert_eq!(pags("alice")[0].leases().len(), 17, "{service} of the same user has a lease");
        other.all_ok(&["close", "end"]);
    }
    // The order in which it closes them does not matter: the last one has its tokens.
    for number in (0..SESSIONS).rev().filter(|number| *number != 300) {
        host.all_ok(&[&format!("use {number}"), "close"]);
    }
    assert_eq!(pags("alice").len(), 1, "the PAG is in use as long as one session is open");
    host.all_ok(&["use 300", "close"]);
    assert!(pags("alice").is_empty(), "and ends with the last session");
    // Many processes with one session each: logins beyond what fits are in the PAG without a lease, and the manager has one.
    let mut first = sandbox.host("sshd", "alice");
    first.ok("open");
    let pag = pags("alice").remove(0);
    let lease = pag.leases()[0].to_owned();
    let mut text = pag.text.clone();
    while text.len() < 31_000 {
        text += &format!("{lease}\n");
    }
    // KEYCTL_UPDATE takes no more than a page (Linux, security/keys/keyctl.c, keyctl_update_key).
    fs::write("/run/record", text).unwrap();
    shell(&format!("keyctl padd user pag:record {} </run/record", pag.holder));
    let full = pags("alice")[0].leases().len();
    sandbox.messages();
    let mut late = sandbox.host("sshd", "alice");
    late.ok("open");
    assert_eq!(late.ring().identity(), first.ring().identity(), "a login for which there is no room is in the PAG");
    let message = sandbox.heard("no room for another");
    let named = format!("process {} (pag-pamhost) has most sessions open: {full}", first.pid());
    assert!(message.text().contains(&named), "the message names the process with most sessions: {message:?}");
    let mut manager = sandbox.host("systemd-user", "alice");
    manager.ok("open");
    assert_eq!(pags("alice")[0].leases().len(), full + 1, "the user manager has a lease all the same");
    late.all_ok(&["close", "end"]);
    assert_eq!(pags("alice")[0].leases().len(), full + 1, "the end of a login without a lease ends no other lease");
    drop((first, manager, late));
    sandbox.configure("");
    login(sandbox, "alice").all_ok(&["close", "end"]);
    assert!(pags("alice").is_empty(), "the PAG ends with its processes");
}
