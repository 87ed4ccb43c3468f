//! A PAG's life: made by the first login, shared by the next, ended with the last.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{login, long, ticketed, uid};
use crate::ring::{Ring, describe, keyctl, members};
use crate::sandbox::{CELL, Host, QuickCollection, Sandbox, eventually, key_count, own_program};

/// The PAGs that the registry of this pid namespace has, by the names of their holders. Rings themselves show
/// themselves only to the handle group.
fn live() -> Vec<String> {
    let inode = fs::read_link("/proc/self/ns/pid").unwrap().display().to_string();
    let inode = inode.trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
    let top = keyctl(libc::KEYCTL_GET_KEYRING_ID, -4, 0, 0).unwrap();
    let inside = |ring| members(ring).unwrap().into_iter().filter_map(|key| describe(key).ok());
    let registry = inside(top as i32).find(|key| key.name.starts_with(&format!("pag:registry:{inode}:")));
    inside(registry.expect("a registry").serial).map(|key| key.name).collect()
}

pub(super) fn second_login_joins(sandbox: &mut Sandbox) {
    let mut first = login(sandbox, "alice");
    let mut second = login(sandbox, "alice");
    let (one, two) = (first.ring(), second.ring());
    assert!(one.is_pag(), "the first login has a PAG: {one:?}");
    assert_eq!(one.identity(), two.identity(), "the second login joins");
    assert!(two.token(CELL).is_some(), "the second login has the token: {two:?}");
    assert_eq!(sandbox.seeder_runs(), 1, "no second seeder while tokens are good");
    // A token that one member obtains is every member's.
    second.ask("run keyctl add user afs@other.test alice@EXAMPLE.TEST @s");
    assert!(first.ring().token("other.test").is_some(), "a member's new token is found by all");
}

pub(super) fn another_principal(sandbox: &mut Sandbox) {
    let mut plain = login(sandbox, "alice");
    let mut admin = ticketed(sandbox, "sshd", "alice", "alice/admin");
    admin.ok("open");
    assert_ne!(plain.ring().identity(), admin.ring().identity(), "another identity is apart");
    assert!(admin.ring().is_pag(), "it has a PAG");
}

pub(super) fn last_end_discards(sandbox: &mut Sandbox) {
    let _quick = QuickCollection::begin();
    // The first login ever makes what stays: registry and user keyring.
    login(sandbox, "alice").all_ok(&["close", "end"]);
    let settled = || {
        let counts = (key_count(0), key_count(uid("alice")));
        std::thread::sleep(Duration::from_millis(1500));
        (counts == (key_count(0), key_count(uid("alice")))).then_some(counts)
    };
    let before = eventually("key counts settle", Duration::from_secs(20), settled);
    let mut first = login(sandbox, "alice");
    let mut second = login(sandbox, "alice");
    first.all_ok(&["close", "end"]);
    assert!(second.ring().token(CELL).is_some(), "one of two ends: nothing is lost");
    // A process that outlives the login looks once more. The host itself has left the ring by then.
    fs::write("/run/after", "setsid sh -c 'sleep 0.5; keyctl list @s >/run/seen' >/dev/null 2>&1 &").unwrap();
    second.ask("run sh /run/after");
    second.all_ok(&["close", "end"]);
    assert!(!second.ring().is_pag(), "the host has left the ring");
    std::thread::sleep(Duration::from_secs(1));
    let seen = fs::read_to_string("/run/seen").unwrap();
    assert!(!seen.contains("afs@"), "the last ends: tokens are discarded: {seen}");
    assert_eq!(live(), Vec::<String>::new(), "no PAG is left");
    first.finish();
    second.finish();
    crate::sandbox::reap();
    let what = format!("the key counts of root and user are back at {before:?}");
    eventually(&what, Duration::from_secs(10), || {
        let (root, user) = (key_count(0), key_count(uid("alice")));
        (root <= before.0 && user <= before.1).then_some(())
    });
}

fn files() -> Vec<String> {
    let output = Command::new("find").args(["/run/pag"]).output().unwrap();
    let mut names: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    names.sort();
    names
}

pub(super) fn cycles_leak_nothing(sandbox: &mut Sandbox) {
    let mut host = login(sandbox, "alice");
    host.all_ok(&["close", "end", "newring"]);
    let (report, before) = (host.ask("report"), files());
    let count = if long() { 200 } else { 30 };
    for _ in 0..count {
        host.all_ok(&["start sshd alice", "open", "close", "end"]);
    }
    let after = host.ask("report");
    assert_eq!(after["fds"], report["fds"], "no descriptor is left");
    assert_eq!(after["threads"], report["threads"], "no thread is left");
    assert_eq!(after["children"], report["children"], "no process is left");
    assert_eq!(files(), before, "no file is left");
    assert_eq!(live(), Vec::<String>::new(), "no PAG is left");
}

pub(super) fn rush_makes_one(sandbox: &mut Sandbox) {
    let all = |users: Vec<String>| -> Vec<Ring> {
        let mut hosts: Vec<Host> = users.iter().map(|user| sandbox.host("sshd", user)).collect();
        std::thread::scope(|scope| {
            let work: Vec<_> = hosts
                .iter_mut()
                .map(|host| {
                    scope.spawn(|| {
                        host.ok("open");
                    })
                })
                .collect();
            work.into_iter().for_each(|one| one.join().unwrap());
        });
        hosts.iter_mut().map(Host::ring).collect()
    };
    let names = |rings: Vec<Ring>| {
        assert!(rings.iter().all(Ring::is_pag), "each has a PAG: {rings:?}");
        let mut names: Vec<String> = rings.iter().map(|ring| ring.identity().1.to_owned()).collect();
        names.sort();
        names.dedup();
        names.len()
    };
    assert_eq!(names(all(vec!["alice".to_owned(); 20])), 1, "one user, one ring");
    assert_eq!(names(all((61100..61150).map(|uid| format!("u{uid}")).collect())), 50, "each user its own ring");
}

/// Runs `lines` in a host whose `when`th call of `name` is its death; whether it survived.
fn dies_at(lines: &[&str], name: &str, when: usize) -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={name}")]);
    strace.args(["-e", &format!("inject={name}:signal=KILL:when={when}")]).arg(own_program("pag-pamhost"));
    let mut host = Host::start(strace, &["sshd", "bob"]);
    let survived = lines.iter().all(|line| host.try_ask(line).is_some());
    host.finish();
    survived
}

pub(super) fn killed_anywhere(sandbox: &mut Sandbox) {
    let step = if long() { 1 } else { 3 };
    for joins in [false, true] {
        for call in ["keyctl", "add_key", "flock", "rename"] {
            let mut when = 1;
            loop {
                let other = joins.then(|| login(sandbox, "bob"));
                let survived = dies_at(&["open", "close", "end"], call, when);
                drop(other);
                let mut next = login(sandbox, "bob");
                assert!(next.ring().is_pag(), "after death at {call} {when} the next login has a PAG");
                assert_eq!(live().len(), 1, "after death at {call} {when}: one live PAG");
                next.all_ok(&["close", "end"]);
                if survived {
                    break;
                }
                when += step;
            }
        }
    }
}
