//! Which identities are an account's own, and what happens to others: names as directories write them, and a manager
//! that has only its user's tokens. Without the helper.

use std::fs;

use super::scope::{SEEDER, login, manager, whose};
use super::{pags, ticketed};
use crate::sandbox::{CELL, Host, Sandbox};
use crate::ticket;

/// Accounts as sssd and winbind name them, and a plain one; with their uids.
const ACCOUNTS: [(&str, u32); 5] = [
    ("alice", 61001),
    ("alice@example.test", 61011),
    (r"EXAMPLE\alice", 61012),
    ("EXAMPLE+alice", 61013),
    (r"DOM\alice", 61014),
];

/// A login of one of those, with a ticket of alice's in this realm.
fn login_of(sandbox: &Sandbox, (account, uid): (&str, u32), realm: &str) -> Host {
    let path = format!("/run/home/cc.{uid}.{realm}");
    let name = ticket::write(&path, uid, "alice", realm, ticket::now() + 3600);
    let mut host = sandbox.host("sshd", account);
    host.all_ok(&[&format!("putenv KRB5CCNAME={name}"), "open"]);
    host
}

fn manager_of(sandbox: &Sandbox, account: &str) -> Host {
    let mut host = sandbox.host("systemd-user", account);
    host.all_ok(&["establish", "open"]);
    host
}

pub(super) fn names_of_directories_are_their_own(sandbox: &mut Sandbox) {
    let mut passwd = fs::read_to_string("/etc/passwd").unwrap();
    for (name, uid) in &ACCOUNTS[1..] {
        passwd.push_str(&format!("{name}:x:{uid}:{uid}::/run/home:/bin/sh\n"));
    }
    fs::write("/etc/passwd", passwd).unwrap();
    for one @ (account, _) in ACCOUNTS {
        // The configuration must say what DOM stands for.
        let guessed = account != r"DOM\alice";
        for named in [false, true] {
            let section = format!("[user {account}]\nidentity = %u@EXAMPLE.TEST\n");
            sandbox.configure(if named { &section } else { "" });
            let what = format!("{account} with {}", if named { "the option" } else { "no option" });
            let mut services = manager_of(sandbox, account);
            sandbox.messages();
            // The person's name in a realm that anybody may have founded, and a manager that waits for an identity.
            for realm in ["OTHER.TEST", "EXAMPLE.OTHER"] {
                let mut other = login_of(sandbox, one, realm);
                let apart = other.ring().identity() != services.ring().identity();
                assert!(apart && other.ring().is_pag(), "{what}: a ticket of {realm} is kept apart");
                sandbox.heard(&format!("alice@{realm} is not known as an identity of {account}'s own"));
                other.all_ok(&["close", "end"]);
            }
            sandbox.messages();
            let mut own = login_of(sandbox, one, "EXAMPLE.TEST");
            let shared = own.ring().identity() == services.ring().identity();
            assert_eq!(shared, guessed || named, "{what}: whether login and manager share a PAG");
            if shared {
                assert!(services.ring().token(CELL).is_some(), "{what}: services have the login's token");
            } else {
                let said = sandbox.heard("is not known as an identity of").text().to_owned();
                let words = ["alice@EXAMPLE.TEST", account, "61014", "identity = "];
                assert!(words.iter().all(|word| said.contains(word)), "{what}: {said}");
            }
            own.all_ok(&["close", "end"]);
            services.all_ok(&["close", "end"]);
        }
    }
    // systemd escapes the names of the files that mark lingering users.
    sandbox.configure("");
    crate::sandbox::tmpfs("/var/lib/systemd");
    fs::create_dir("/var/lib/systemd/linger").unwrap();
    for (lingers, file) in [(false, r"EXAMPLE\alice"), (true, r"EXAMPLE\\alice")] {
        fs::write(format!("/var/lib/systemd/linger/{file}"), "").unwrap();
        let mut services = manager_of(sandbox, r"EXAMPLE\alice");
        let mut own = login_of(sandbox, (r"EXAMPLE\alice", 61012), "EXAMPLE.TEST");
        own.all_ok(&["close", "end"]);
        let kept = services.ring().token(CELL).is_some();
        assert_eq!(kept, !lingers, "{file}: whether a manager that may be about to stop has its token");
        services.all_ok(&["close", "end"]);
    }
}

pub(super) fn manager_keeps_to_its_users_identity(sandbox: &mut Sandbox) {
    sandbox.seeder(SEEDER);
    // The other identity comes first, and starts the manager.
    let mut admin = login(sandbox, "sshd", "alice/admin");
    let mut services = manager(sandbox);
    assert_ne!(services.ring().identity(), admin.ring().identity(), "a manager is in no PAG of another identity");
    assert_eq!(whose(&services.ring()), "alice/admin", "it has the tokens of the only login that there is");
    let mut alice = login(sandbox, "sshd", "alice");
    let rings = [alice.ring(), services.ring(), admin.ring()];
    assert_eq!(
        rings[0].identity(),
        rings[1].identity(),
        "services are with their user's own identity, once it is there"
    );
    assert_eq!(rings.each_ref().map(whose), ["alice", "alice", "alice/admin"], "and each has its own token");
    admin.all_ok(&["close", "end"]);
    assert_eq!(pags("alice").len(), 1, "the other identity's PAG ends with its last login: {:#?}", pags("alice"));
    assert_eq!(whose(&services.ring()), "alice", "which is nothing to the services");
    for host in [&mut alice, &mut services] {
        host.all_ok(&["close", "end"]);
    }

    // The user's own identity comes first.
    let mut alice = login(sandbox, "sshd", "alice");
    let mut services = manager(sandbox);
    let mut admin = login(sandbox, "sshd", "alice/admin");
    let rings = [alice.ring(), services.ring(), admin.ring()];
    assert_eq!(rings[0].identity(), rings[1].identity(), "login and manager share a PAG");
    assert_eq!(rings.each_ref().map(whose), ["alice", "alice", "alice/admin"], "and nothing changes");
    // A ticketless login is the user's, too.
    let mut key = sandbox.host("sshd", "alice");
    key.ok("open");
    assert_eq!(key.ring().identity(), rings[0].identity(), "a login without a ticket is in the user's own PAG");
    for host in [&mut alice, &mut services, &mut key] {
        host.all_ok(&["close", "end"]);
    }
    // A login without a ticket gets no rights of another identity's, even if that is the only one there.
    let mut key = sandbox.host("sshd", "alice");
    key.ok("open");
    assert_eq!(whose(&key.ring()), "nobody", "another identity lends no rights");
    key.all_ok(&["close", "end"]);

    // The other one alone, and the manager stays when it has gone.
    let mut services = manager(sandbox);
    assert_eq!(whose(&services.ring()), "alice/admin", "services have the tokens of the only login that there is");
    admin.all_ok(&["close", "end"]);
    assert_eq!(whose(&services.ring()), "nobody", "and not beyond its end");
    services.all_ok(&["close", "end"]);

    // Where the administrator wants that, they never have.
    sandbox.configure("follow = none");
    let mut admin = ticketed(sandbox, "sshd", "alice", "alice/admin");
    admin.ok("open");
    let mut services = manager(sandbox);
    assert_eq!(whose(&services.ring()), "nobody", "follow = none: services have no other identity's tokens");
    for host in [&mut admin, &mut services] {
        host.all_ok(&["close", "end"]);
    }
    assert_eq!(pags("alice").len(), 0, "no PAG is left");
}
