//! Ends that are not where one looks for them: in a chroot, by another handle, in a process that goes on.

use std::fs;
use std::process::Command;

use super::hosts::{another, bare, works_for};
use super::{login, pags, shell, ticketed};
use crate::sandbox::{CELL, Host, Sandbox, own_program};

/// What is in a directory, but for a `proc`.
fn files(directory: &str) -> String {
    shell(&format!("cd {directory}; find . -path ./proc -prune -o -print | sort"))
}

/// A host of root's that may not look into other processes, as proftpd's is.
fn without_ptrace(login: &[&str]) -> Host {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]).arg(own_program("pag-pamhost"));
    Host::start(command, login)
}

/// As proftpd does it, which is in a chroot of the user's home by then.
pub(super) fn host_closes_in_a_chroot(sandbox: &mut Sandbox) {
    bare(sandbox, &["proftpd", "sshd"]);
    let site = "/run/home/alice/site";
    shell(&format!("mkdir -p {site}/proc; chown -R alice: {site}"));
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
        for ends in [&["close", "end"][..], &["delete", "close", "end"], &["establish", "refresh", "close"]] {
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
