//! Ccaches of the kinds that need nothing but this kernel.

use std::time::{Duration, Instant};

use super::{inside, login, pags, shell};
use crate::sandbox::{CELL, Sandbox, module};
use crate::ticket;

/// Runs a script as alice in a session keyring of its own, in which her user keyring hangs, as it does in a login's.
fn as_alice(script: &str) {
    std::fs::write("/run/alice.sh", format!("keyctl link @u @s\n{script}")).unwrap();
    shell("setpriv --reuid 61001 --regid 61001 --clear-groups keyctl session - sh -e /run/alice.sh 2>/dev/null");
}

/// Takes all of it away: keyrings outlive the sandbox.
pub(super) fn forget_hers() {
    as_alice("for n in lab admin; do c=$(keyctl search @u keyring _krb_$n) && keyctl unlink $c @u || true; done");
}

/// A ccache of alice's, `KEYRING:user:COLLECTION`.
pub(super) fn make(collection: &str, name: &str, expires: u64) {
    as_alice(&ticket::keyring_script("@u", &format!("_krb_{collection}"), collection, name, "EXAMPLE.TEST", expires));
}

/// Principal and ticket, as the record has them.
fn record_of(text: &str) -> (Option<&str>, u64) {
    let word = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let ticket = word("ticket ").and_then(|line| line.split(' ').next()).and_then(|end| end.parse().ok());
    (word("principal "), ticket.unwrap_or(0))
}

pub(super) fn keyring_feeds_the_pag(sandbox: &mut Sandbox) {
    let end = ticket::now() + 3600;
    make("lab", "alice", end);
    make("admin", "alice/admin", end);
    // The services' PAG is there before, without an identity.
    let mut manager = sandbox.host("systemd-user", "alice");
    manager.ok("open");
    let own = manager.ask("getenv KRB5CCNAME")["value"].as_str().unwrap_or_default().to_owned();
    assert!(own.starts_with("DIR:/run/pag/ccache/61001/"), "services have the PAG's own ccache: {own}");

    let mut alice = sandbox.host("sshd", "alice");
    alice.all_ok(&["putenv KRB5CCNAME=KEYRING:user:lab", "open"]);
    assert_eq!(alice.ring().identity(), manager.ring().identity(), "the login joins the services' PAG");
    assert_eq!(record_of(&pags("alice")[0].text), (Some("alice@EXAMPLE.TEST"), end), "the ticket in a keyring is read");
    let file = own.trim_start_matches("DIR:").to_owned() + "/tkt";
    assert!(
        std::fs::read(&file).is_ok_and(|bytes| bytes.starts_with(&[5, 4])),
        "and is in the PAG's own ccache, {file}"
    );
    assert!(manager.ring().token(CELL).is_some(), "the services have tokens from it");

    let mut admin = sandbox.host("sshd", "alice");
    admin.all_ok(&["putenv KRB5CCNAME=KEYRING:user:admin", "open"]);
    assert_ne!(admin.ring().identity(), alice.ring().identity(), "another identity has a PAG of its own");
    let all = pags("alice");
    let mut principals: Vec<_> = all.iter().filter_map(|pag| record_of(&pag.text).0).collect();
    principals.sort_unstable();
    assert_eq!(principals, ["alice/admin@EXAMPLE.TEST", "alice@EXAMPLE.TEST"]);
    for host in [&mut admin, &mut alice, &mut manager] {
        host.all_ok(&["close", "end"]);
    }
    forget_hers();

    // In the session keyring that the login had before: the ring takes its place, so it is read before that.
    sandbox.stack("bare", &format!("session required {}\n", module().display()));
    let mut alice = sandbox.host("bare", "alice");
    alice.ok("newring");
    let script = ticket::keyring_script("@s", "_krb_lab", "lab", "alice", "EXAMPLE.TEST", end);
    std::fs::write("/run/session.sh", script).unwrap();
    let as_her = "run setpriv --reuid 61001 --regid 61001 --clear-groups sh -e /run/session.sh";
    assert_eq!(alice.ask(as_her)["status"], 0);
    alice.all_ok(&["putenv KRB5CCNAME=KEYRING:session:lab", "open"]);
    assert_eq!(
        record_of(&pags("alice")[0].text),
        (Some("alice@EXAMPLE.TEST"), end),
        "a ticket in a session keyring is read"
    );
    let runs = std::fs::read_to_string("/run/seeder.log").unwrap();
    assert!(
        runs.lines().last().is_some_and(|run| run.contains(" DIR:/run/pag/ccache/61001/")),
        "the seeder finds it: {runs}"
    );
    assert!(alice.ring().token(CELL).is_some(), "and brings tokens");
    alice.all_ok(&["close", "end"]);
    // Root's ticket there, as after `su alice` from a root shell, is not hers.
    let mut alice = sandbox.host("bare", "alice");
    alice.ok("newring");
    assert_eq!(alice.ask("run sh -e /run/session.sh")["status"], 0);
    alice.all_ok(&["putenv KRB5CCNAME=KEYRING:session:lab", "open"]);
    assert_eq!(record_of(&pags("alice")[0].text), (None, 0), "a ticket that another user has put there is not read");
    alice.all_ok(&["close", "end"]);
}

pub(super) fn no_ticket_is_no_trouble(sandbox: &mut Sandbox) {
    // A seeder that waits for a ticket, as aklog may for a KDC.
    sandbox.seeder("#!/bin/sh\necho tried >> /run/seeder.log\nsleep 1017\n");
    sandbox.stack("everybody", &format!("auth required {0}\nsession required {0} debug\n", module().display()));
    ticket::write("/tmp/cc.old", 61001, "alice/admin", "EXAMPLE.TEST", ticket::now() - 60);
    make("lab", "alice/admin", ticket::now() - 60);
    for name in [
        "KCM:",
        "KCM:61001:4711",
        "KEYRING:user:lab",
        "KEYRING:user:none",
        "KEYRING:session:x",
        "/tmp/cc.old",
        "/tmp/none",
    ] {
        let mut alice = sandbox.host("everybody", "alice");
        alice.ok(&format!("putenv KRB5CCNAME={name}"));
        let (before, begun) = (sandbox.seeder_runs(), Instant::now());
        sandbox.messages();
        alice.ok("open");
        let took = begun.elapsed();
        assert_eq!(sandbox.seeder_runs(), before, "{name}: a seeder could not do anything");
        assert!(took < Duration::from_secs(1), "{name}: the login has waited {took:?}");
        assert!(alice.ring().is_pag(), "{name}: the login is in a PAG");
        assert_eq!(record_of(&pags("alice")[0].text).0, None, "{name}: an old ticket is no identity");
        let said = sandbox.messages();
        let (debug, more): (Vec<_>, Vec<_>) =
            said.iter().partition(|one| one.0.get("PRIORITY").is_some_and(|it| it == "7"));
        assert!(
            debug.iter().any(|one| one.text().contains("no ticket for uid 61001")),
            "{name}: it is said: {debug:?}"
        );
        assert!(more.iter().all(|one| !one.text().contains("ccache")), "{name}: and no complaint: {more:?}");
        alice.ok("refresh");
        assert_eq!(sandbox.seeder_runs(), before, "{name}: a refresh has nothing to work with");
        alice.all_ok(&["close", "end"]);
    }
    forget_hers();
    sandbox.stack("nopag", &format!("session required {} nopag\n", module().display()));
    let before = sandbox.seeder_runs();
    sandbox.host("nopag", "alice").all_ok(&["putenv KRB5CCNAME=KCM:", "open", "close", "end"]);
    assert_eq!(sandbox.seeder_runs(), before, "nopag has nothing to work with");

    // If the PAG has a ticket and the login's ccache has none, tokens come from the PAG's.
    sandbox.seeder(crate::sandbox::SEEDER);
    let mut first = login(sandbox, "alice");
    assert_eq!(inside(&mut first, "alice", "keyctl unlink $(keyctl search @s user afs@example.test) @s")["status"], 0);
    let mut second = sandbox.host("everybody", "alice");
    second.all_ok(&["putenv KRB5CCNAME=KCM:", "open"]);
    let runs = std::fs::read_to_string("/run/seeder.log").unwrap();
    let last = runs.lines().last().unwrap_or_default();
    assert!(last.contains(" DIR:/run/pag/ccache/61001/"), "the seeder is given the PAG's ticket: {runs}");
    assert!(second.ring().token(CELL).is_some(), "and brings tokens");
    for host in [&mut second, &mut first] {
        host.all_ok(&["close", "end"]);
    }
}

/// A ticket of root's, which the user's child cannot read. So the module does not learn its principal.
pub(super) fn unread_ccache_seeds_nothing(sandbox: &mut Sandbox) {
    let unread = ticket::write("/run/home/alice/cc.unread", 0, "alice/admin", "EXAMPLE.TEST", ticket::now() + 3600);
    let log = || std::fs::read_to_string("/run/seeder.log").unwrap();
    let login = |sandbox: &Sandbox| {
        let mut alice = sandbox.host("sshd", "alice");
        alice.all_ok(&[&format!("putenv KRB5CCNAME={unread}"), "open"]);
        alice
    };
    let mut alice = login(sandbox);
    sandbox.heard("cannot serve the PAG: the user cannot read it");
    alice.ok("reinitialize");
    assert_eq!(log(), "", "neither a login nor an unlock that shows it runs a seeder");
    alice.all_ok(&["close", "end"]);
    // Where a seeder is to run without a ticket, too.
    sandbox.configure("always_aklog = yes");
    let mut alice = login(sandbox);
    let own = super::seeders::ccache_of(&pags("alice")[0]);
    let runs = log();
    assert!(runs.contains(&format!(" DIR:{own} ")), "always_aklog runs the seeder with the PAG's ccache: {runs}");
    assert!(!runs.contains("cc.unread"), "the seeder is given no ccache whose identity is unknown: {runs}");
    alice.all_ok(&["close", "end"]);
}
