//! How wide a PAG is: `scope = session` beside `scope = user`, and what a manager's PAG gets from a session that it
//! follows. The helper does not run; the scenarios call the library that it uses.

use std::fs;
use std::time::Duration;

use pag::guard::{Guard, HandleGroup};
use pag::mirror::follow;
use pag::store::locked::LockedUser;

use super::{inside, pags, shell, ticketed, uid};
use crate::ring::Ring;
use crate::sandbox::{CELL, Host, Sandbox};
use crate::ticket;

/// A seeder that names the ccache of [`ticketed`] from which a token comes as the token's principal.
pub(super) const SEEDER: &str = "#!/bin/sh
expires=$(($(date +%s) + 3600))
who=$(echo \"${KRB5CCNAME##*/cc.}\" | tr . /)
echo \"$who\" >> /run/seeder.log
exec keyctl add user afs@example.test \"$who@EXAMPLE.TEST $expires\" @s >/dev/null
";

pub(super) fn login(sandbox: &Sandbox, service: &str, principal: &str) -> Host {
    let mut host = ticketed(sandbox, service, "alice", principal);
    host.ok("open");
    host
}

pub(super) fn manager(sandbox: &Sandbox) -> Host {
    let mut host = sandbox.host("systemd-user", "alice");
    host.all_ok(&["establish", "open"]);
    host
}

/// The user that the token in a ring names; the text `nobody` without a token.
pub(super) fn whose(ring: &Ring) -> &str {
    let payload = ring.token(CELL).and_then(|key| key.payload.as_deref());
    payload.and_then(|text| text.split('@').next()).unwrap_or("nobody")
}

fn kinds() -> Vec<String> {
    let of = |pag: super::Pag| pag.text.lines().find_map(|line| line.strip_prefix("kind ").map(str::to_owned));
    let mut kinds: Vec<String> = pags("alice").into_iter().filter_map(of).collect();
    kinds.sort();
    kinds
}

fn follows() -> usize {
    pags("alice").iter().filter(|pag| pag.text.lines().any(|line| line.starts_with("follows "))).count()
}

pub(super) fn sessions_keep_to_themselves(sandbox: &mut Sandbox) {
    sandbox.configure("scope = session\nfollow = none");
    sandbox.seeder(SEEDER);
    let mut alice = ticketed(sandbox, "sshd", "alice", "alice");
    alice.all_ok(&["establish", "open", "establish"]);
    assert_eq!(pags("alice").len(), 1, "the hooks of one login make one PAG");
    assert_eq!(pags("alice")[0].leases().len(), 1, "with one lease: {:#?}", pags("alice"));
    let mut again = login(sandbox, "sshd", "alice");
    let mut admin = login(sandbox, "sshd", "alice/admin");
    let mut manager = manager(sandbox);
    let rings = [alice.ring(), again.ring(), admin.ring(), manager.ring()];
    let mut names: Vec<&str> = rings.iter().map(|ring| ring.identity().1).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 4, "each has a ring of its own: {rings:#?}");
    assert!(rings.iter().all(Ring::is_pag), "and each is a PAG: {rings:#?}");
    assert_eq!(rings.each_ref().map(whose), ["alice", "alice", "alice/admin", "nobody"], "each sees its own token");
    assert_eq!(kinds(), ["session", "session", "session", "user"], "{:#?}", pags("alice"));
    let ccache = manager.ask("getenv KRB5CCNAME")["value"].as_str().unwrap_or_default().to_owned();
    assert!(ccache.starts_with("DIR:/run/pag/ccache/61001/"), "the manager has a ccache of its own: '{ccache}'");
    // The first end is that login's alone.
    alice.all_ok(&["close", "end"]);
    assert_eq!([again.ring(), admin.ring()].each_ref().map(whose), ["alice", "alice/admin"], "the others go on");
    assert_eq!(kinds(), ["session", "session", "user"], "{:#?}", pags("alice"));
    for mut host in [again, admin, manager] {
        host.all_ok(&["close", "end"]);
    }
    assert_eq!(pags("alice").len(), 0, "no PAG is left");
}

pub(super) fn scope_is_chosen(sandbox: &mut Sandbox) {
    let shares = |sandbox: &Sandbox, service: &str, user: &str| {
        let mut hosts = [sandbox.host(service, user), sandbox.host(service, user)];
        let rings = hosts.each_mut().map(|host| {
            host.ok("open");
            host.ring()
        });
        let shared = rings[0].identity() == rings[1].identity();
        hosts.iter_mut().for_each(|host| {
            host.all_ok(&["close", "end"]);
        });
        shared
    };
    let group = fs::read_to_string("/etc/group").unwrap();
    fs::write("/etc/group", format!("{group}first:x:61200:bob,carol\nsecond:x:61201:carol\n")).unwrap();
    sandbox.configure(
        "[service login]\nscope = session\n[user alice]\nscope = session\n[group first]\nscope = session\n\
         [group second]\nscope = user\n[user dave]\nscope = user",
    );
    sandbox.service("su-l", "scope=session");
    for (service, user, expected, why) in [
        ("sshd", "dave", true, "his own section"),
        ("login", "dave", true, "his own section, over the service's"),
        ("su-l", "dave", true, "his own section, over the PAM line"),
        ("sshd", "alice", false, "her own section"),
        ("sshd", "bob", false, "his group's section"),
        ("sshd", "carol", false, "the group that stands first"),
        ("sshd", "u61100", true, "the host"),
        ("login", "u61100", false, "the service"),
        ("su-l", "u61100", false, "the PAM line"),
    ] {
        assert_eq!(shares(sandbox, service, user), expected, "{user} at {service} goes by {why}");
    }

    // A change of the host's setting is for logins to come.
    sandbox.configure("");
    sandbox.service("su-l", "");
    let mut old = login(sandbox, "sshd", "alice");
    sandbox.configure("scope = session");
    let mut new = login(sandbox, "sshd", "alice");
    assert_ne!(old.ring().identity(), new.ring().identity(), "a new login has the new scope");
    let before = old.ring();
    old.all_ok(&["establish", "reinitialize", "open"]);
    assert_eq!(old.ring().identity(), before.identity(), "an old one stays where it is");
    assert!(old.ring().token(CELL).is_some(), "with its token");
    sandbox.configure("");
    let mut third = login(sandbox, "sshd", "alice");
    assert_eq!(third.ring().identity(), before.identity(), "and back: it joins the one that is shared");
    new.all_ok(&["establish", "close", "end"]);
    assert!(old.ring().token(CELL).is_some(), "the session's end takes nothing of the shared one's");
    for mut host in [old, third] {
        host.all_ok(&["close", "end"]);
    }
    assert_eq!(pags("alice").len(), 0, "no PAG is left");

    // The screen of a desktop that is older than the scope is unlocked as before.
    sandbox.service("gdm-password", "");
    for (then, now) in [("user", "session"), ("session", "user")] {
        sandbox.configure(&format!("scope = {then}"));
        let mut old = login(sandbox, "gdm-password", "alice");
        sandbox.configure(&format!("scope = {now}"));
        let mut new = login(sandbox, "sshd", "alice");
        for host in [&mut old, &mut new] {
            host.ask("run keyctl purge user afs@example.test");
        }
        unlock(sandbox, "alice", ticket::now() + 9000).ok("reinitialize");
        let found = [old.ring(), new.ring()].map(|ring| ring.token(CELL).is_some());
        assert_eq!(
            found,
            [true, false],
            "from {then} to {now}: an unlock refreshes the old desktop, and no other login"
        );
        for mut host in [old, new] {
            host.all_ok(&["close", "end"]);
        }
    }
}

/// A screen unlock, as gdm has it: a process outside of the session, with a ticket that it has just got.
fn unlock(sandbox: &Sandbox, principal: &str, expires: u64) -> Host {
    let path = format!("/run/home/alice/cc.{}", principal.replace('/', "."));
    let cache = ticket::write(&path, uid("alice"), principal, "EXAMPLE.TEST", expires);
    let mut unlock = sandbox.host("gdm-password", "alice");
    unlock.ok(&format!("putenv KRB5CCNAME={cache}"));
    unlock
}

pub(super) fn refresh_finds_its_session(sandbox: &mut Sandbox) {
    sandbox.configure("scope = session");
    sandbox.seeder(SEEDER);
    sandbox.service("gdm-password", "");
    let mut alice = login(sandbox, "login", "alice");
    let mut admin = login(sandbox, "sshd", "alice/admin");
    let serials = |hosts: [&mut Host; 2]| hosts.map(|host| host.ring().token(CELL).map(|key| key.serial));
    let drop_both = |hosts: [&mut Host; 2]| {
        for host in hosts {
            host.ask("run keyctl purge user afs@example.test");
            assert_eq!(whose(&host.ring()), "nobody", "the token was taken away");
        }
    };
    drop_both([&mut alice, &mut admin]);
    // From outside, as a screen unlock comes; its own session keyring is not touched.
    for (principal, expected) in [("alice/admin", ["nobody", "alice/admin"]), ("alice", ["alice", "alice/admin"])] {
        let mut unlock = unlock(sandbox, principal, ticket::now() + 7200);
        let before = unlock.ring();
        unlock.ok("reinitialize");
        assert_eq!(unlock.ring().identity(), before.identity(), "an unlock stays where it is");
        assert_eq!(
            [alice.ring(), admin.ring()].each_ref().map(whose),
            expected,
            "{principal} is refreshed from outside"
        );
    }
    assert_eq!(kinds(), ["session", "session"], "no unlock makes a PAG");
    // A stranger's ticket goes nowhere.
    let before = serials([&mut alice, &mut admin]);
    let runs = sandbox.seeder_runs();
    unlock(sandbox, "eve", ticket::now() + 9000).ok("reinitialize");
    assert_eq!(
        (serials([&mut alice, &mut admin]), sandbox.seeder_runs()),
        (before, runs),
        "another's ticket goes nowhere"
    );
    // The handle that has opened the session refreshes that one, whatever it is.
    drop_both([&mut alice, &mut admin]);
    let path = "/run/home/alice/cc.alice.admin";
    let cache = ticket::write(path, uid("alice"), "alice/admin", "EXAMPLE.TEST", ticket::now() + 9000);
    admin.all_ok(&[&format!("putenv KRB5CCNAME={cache}"), "refresh"]);
    assert_eq!([alice.ring(), admin.ring()].each_ref().map(whose), ["nobody", "alice/admin"], "sshd refreshes its own");
}

/// Makes the manager's PAG follow the PAG of the login `leader`, as the helper does.
fn follow(leader: &mut Host) {
    let leader = leader.ring().identity().0;
    let group = HandleGroup::read();
    let guard = Guard::enter(group).unwrap();
    let user = LockedUser::lock(&guard, uid("alice"), Duration::from_secs(2)).unwrap();
    let pags = user.pags().unwrap();
    let of = |serial| pags.iter().find(|pag| pag.ring.as_ref().is_ok_and(|ring| ring.serial.get() == serial));
    let leader = of(leader).unwrap();
    let manager = pags.iter().find(|pag| pag.record.as_ref().is_ok_and(|record| record.has_manager())).unwrap();
    follow::mirror(&user, &mut manager.clone(), leader).unwrap();
}

fn serial(ring: &Ring) -> i32 {
    ring.token(CELL).map_or(0, |key| key.serial)
}

pub(super) fn manager_follows_from_its_start(sandbox: &mut Sandbox) {
    sandbox.seeder(SEEDER);
    for (setting, expected) in [("display", "alice/admin"), ("first", "alice"), ("none", "nobody")] {
        sandbox.configure(&format!("scope = session\nfollow = {setting}"));
        let mut alice = login(sandbox, "login", "alice");
        let mut admin = login(sandbox, "sshd", "alice/admin");
        let mut services = sandbox.host("systemd-user", "alice");
        services.ok("open");
        assert_eq!(whose(&services.ring()), expected, "follow = {setting}: a manager has tokens when it starts");
        assert_eq!(follows(), usize::from(setting != "none"), "follow = {setting}: {:#?}", pags("alice"));
        services.all_ok(&["close", "end"]);
        assert_eq!(
            [alice.ring(), admin.ring()].each_ref().map(whose),
            ["alice", "alice/admin"],
            "follow = {setting}: they stay"
        );
        for mut host in [alice, admin] {
            host.all_ok(&["close", "end"]);
        }
    }
    // A manager that starts first has no session to follow.
    sandbox.configure("scope = session");
    let mut services = manager(sandbox);
    assert_eq!((whose(&services.ring()), follows()), ("nobody", 0), "nobody is there");
    services.all_ok(&["close", "end"]);
}

pub(super) fn following_mirrors_and_takes_away(sandbox: &mut Sandbox) {
    sandbox.configure("scope = session\nfollow = none");
    sandbox.seeder(SEEDER);
    let mut alice = login(sandbox, "login", "alice");
    let mut admin = login(sandbox, "sshd", "alice/admin");
    let mut services = manager(sandbox);
    assert_eq!(whose(&services.ring()), "nobody", "services have no tokens until they follow");
    follow(&mut admin);
    assert_eq!(serial(&services.ring()), serial(&admin.ring()), "services have the followed session's very key");
    follow(&mut alice);
    assert_eq!(serial(&services.ring()), serial(&alice.ring()), "and then the other's");
    assert_eq!(whose(&admin.ring()), "alice/admin", "who is not followed any more has what he had");

    // The followed PAG gets a new key and a second cell, and loses a cell.
    alice.ask("run keyctl purge user afs@example.test");
    alice.ask(&format!("run keyctl add user afs@{CELL} alice@EXAMPLE.TEST\\ {} @s", ticket::now() + 7200));
    alice.ask(&format!("run keyctl add user afs@b.test alice@B.TEST\\ {} @s", ticket::now() + 7200));
    follow(&mut alice);
    assert_eq!(serial(&services.ring()), serial(&alice.ring()), "a new token is followed");
    assert!(services.ring().token("b.test").is_some(), "and one of another cell");
    alice.ask("run keyctl purge user afs@b.test");
    follow(&mut alice);
    assert!(services.ring().token("b.test").is_none(), "one that is gone there is gone here");

    // A token that a service has got for itself is its own.
    inside(&mut services, "alice", &format!("keyctl add user afs@c.test alice@C.TEST\\ {} @s", ticket::now() + 7200));
    alice.ask(&format!("run keyctl add user afs@c.test mallory@C.TEST\\ {} @s", ticket::now() + 7200));
    follow(&mut alice);
    let of_c = |ring: &Ring| ring.token("c.test").and_then(|key| key.payload.clone()).unwrap_or_default();
    assert!(of_c(&services.ring()).starts_with("alice@"), "a service's own token counts over the followed one");
    follow(&mut admin);
    assert!(of_c(&services.ring()).starts_with("alice@"), "and stays when another is followed");
    assert_eq!(whose(&services.ring()), "alice/admin", "which the rest of the tokens are");

    // The manager's end discards its own tokens, and none of the session's.
    services.all_ok(&["close", "end"]);
    assert_eq!(whose(&admin.ring()), "alice/admin", "the followed session outlives its follower with its token");
    assert_eq!(kinds(), ["session", "session"], "{:#?}", pags("alice"));
    for mut host in [alice, admin] {
        host.all_ok(&["close", "end"]);
    }
}

pub(super) fn login_ends_following(sandbox: &mut Sandbox) {
    sandbox.configure("[service login]\nscope = session");
    sandbox.seeder(SEEDER);
    let mut admin = login(sandbox, "login", "alice/admin");
    let mut services = manager(sandbox);
    follow(&mut admin);
    assert_eq!((whose(&services.ring()), follows()), ("alice/admin", 1), "services follow the session");
    let ccache = services.ask("getenv KRB5CCNAME")["value"].as_str().unwrap().trim_start_matches("DIR:").to_owned();
    shell(&format!(
        "cp /run/home/alice/cc.alice.admin {ccache}/tkt; echo tkt > {ccache}/primary; chown alice {ccache}/*"
    ));

    // One without a ticket: nothing of the other identity is left to it, in the ring or in the ccache.
    let mut plain = sandbox.host("sshd", "alice");
    plain.ok("open");
    assert_eq!(plain.ring().identity(), services.ring().identity(), "it shares the manager's PAG");
    assert_eq!((whose(&plain.ring()), follows()), ("nobody", 0), "and finds no token of the session's there");
    assert!(fs::metadata(format!("{ccache}/tkt")).is_err(), "nor its ticket");
    assert_eq!(whose(&admin.ring()), "alice/admin", "the session has its token still");
    sandbox.heard("follow no session");
    plain.all_ok(&["close", "end"]);

    // A token that a service has put in the place of a followed one is its own: the end of following leaves it.
    follow(&mut admin);
    let own = ticket::now() + 7200;
    let replace = format!(
        "keyctl unlink $(keyctl search @s user afs@{CELL}) @s; keyctl add user afs@{CELL} mine@EXAMPLE.TEST\\ {own} @s"
    );
    inside(&mut services, "alice", &replace);
    let mut plain = sandbox.host("sshd", "alice");
    plain.ok("open");
    assert_eq!(whose(&services.ring()), "mine", "a service's own token outlives what it has displaced");
    plain.all_ok(&["close", "end"]);

    // One with a ticket: its token is another key than the session's.
    follow(&mut admin);
    assert_eq!(follows(), 1, "followed again");
    let mut alice = login(sandbox, "sshd", "alice");
    assert_eq!(alice.ring().identity(), services.ring().identity(), "it shares the manager's PAG");
    assert_eq!((whose(&services.ring()), follows()), ("alice", 0), "services have the login's token");
    assert_eq!(whose(&admin.ring()), "alice/admin", "the session's own was not written over");
    alice.all_ok(&["close", "end"]);
}
