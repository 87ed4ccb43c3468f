//! How PAGs begin, are shared, and end.

use std::process::Command;
use std::time::Duration;

use super::long;
use crate::ccache;
use crate::ring::Ring;
use crate::sandbox::{CELL, Host, QuickCollection, Sandbox, eventually, exists, key_count, own_program};

const ALICE: u32 = 61001;

fn login(sandbox: &Sandbox, user: &str, principal: Option<&str>) -> Host {
    let mut host = sandbox.host("sshd", user);
    if let Some(principal) = principal {
        let path = format!("/run/home/{user}/cc-{}", principal.replace('/', "-"));
        ccache::write(&path, principal, 36_000, ALICE);
        host.ok(&format!("putenv KRB5CCNAME=FILE:{path}"));
    }
    host.ok("open");
    host
}

/// What a child of the host reports: any member that the host has started.
fn probe(host: &mut Host) -> Ring {
    let probe = own_program("pag-probe");
    Ring::parse(host.ask(&format!("run {}", probe.display()))["stdout"].as_str().unwrap())
}

/// All holders of the registry, by way of the library: how many PAGs there are for a uid.
pub(super) fn pags_of(uid: u32) -> Vec<pag::registry::Pag> {
    let group = pag::guard::HandleGroup::read();
    let guard = pag::guard::Guard::enter(group).unwrap();
    let registry = pag::registry::Registry::find(&guard, group).unwrap();
    registry.map_or_else(Vec::new, |registry| registry.pags(&guard, Some(uid)).unwrap())
}

pub(super) fn second_login_joins(sandbox: &mut Sandbox) {
    let mut first = login(sandbox, "alice", Some("alice"));
    let mut second = login(sandbox, "alice", Some("alice"));
    let (one, two) = (probe(&mut first), probe(&mut second));
    assert_eq!(one.identity(), two.identity(), "a second login has the same ring");
    assert!(one.is_pag() && two.token(CELL).is_some(), "{two:#?}");
    assert_eq!(sandbox.seeder_runs(), 1, "no second seeder run while the tokens are good");
    // A token that any member obtains is there for all, at once.
    second.ask("run keyctl add user afs@other.test alice@EXAMPLE.TEST\\ 1 @s");
    assert!(probe(&mut first).token("other.test").is_some(), "the first login finds the second's token");
    assert_eq!(pags_of(ALICE).len(), 1);
    let record = pags_of(ALICE).remove(0).record.unwrap();
    assert_eq!(record.leases.len(), 2, "a lease for each login");
    assert_eq!(record.ccache.split('/').take(5).collect::<Vec<_>>().join("/"), "DIR:/run/pag/ccache/61001");
}

pub(super) fn another_principal_gets_its_own_pag(sandbox: &mut Sandbox) {
    let mut alice = login(sandbox, "alice", Some("alice"));
    let mut admin = login(sandbox, "alice", Some("alice/admin"));
    let mut again = login(sandbox, "alice", Some("alice/admin"));
    let mut plain = login(sandbox, "alice", None);
    let rings: Vec<Ring> = [&mut alice, &mut admin, &mut again, &mut plain].map(|host| host.ring()).into();
    assert_ne!(rings[0].identity(), rings[1].identity(), "another principal has a ring of its own");
    assert_eq!(rings[1].identity(), rings[2].identity(), "and shares it with itself");
    assert_eq!(rings[0].identity(), rings[3].identity(), "a login without a ticket joins the first PAG");
}

pub(super) fn the_last_login_ends_the_tokens(sandbox: &mut Sandbox) {
    let _quick = QuickCollection::begin();
    let mut idle = sandbox.host("su", "alice");
    idle.ok("open");
    let before = (key_count(0), key_count(ALICE));
    let mut first = login(sandbox, "alice", Some("alice"));
    let mut second = login(sandbox, "alice", None);
    // A process that stays, as nohup leaves it.
    let mut stayed = login(sandbox, "alice", None);
    first.all_ok(&["close", "end"]);
    assert!(second.ring().token(CELL).is_some(), "nothing is lost while another login lives");
    assert!(!first.ring().is_pag(), "a host that goes on is out of the ring");
    second.all_ok(&["close", "end"]);
    let stays = stayed.ask("run sh -c true");
    assert_eq!(stays["status"], 0);
    stayed.all_ok(&["close", "end"]);
    assert!(pags_of(ALICE).is_empty(), "the last lease has gone, and so has the PAG");
    assert!(!exists("/run/pag/ccache/61001"), "its ccache is removed");
    assert_eq!(sandbox.heard("ended PAG").text().contains("discarded"), true);
    for host in [first, second, stayed] {
        host.finish();
    }
    eventually("the keys are gone", Duration::from_secs(10), || {
        // The registry itself stays, and with it one key of root's.
        (key_count(0) <= before.0 + 1 && key_count(ALICE) <= before.1).then_some(())
    });
}

pub(super) fn retain_decides_what_stays(sandbox: &mut Sandbox) {
    for (retain, kept) in [("none", false), ("processes", true), ("linger", false)] {
        sandbox.configure(&format!("retain = {retain}"));
        let mut host = login(sandbox, "alice", Some("alice"));
        // What stays behind: a process of the session that has nothing to do with PAM any more.
        host.ask("run sh -c (sleep\\ 1000)&");
        let mut stays = std::process::Command::new(own_program("pag-pamhost"));
        stays.arg("/run/pam.d");
        let ring = pags_of(ALICE).remove(0).ring.unwrap();
        let guard = pag::guard::Guard::enter(ring.group).unwrap();
        ring.join(&guard).unwrap();
        drop(guard);
        host.all_ok(&["close", "end"]);
        let left = crate::ring::report().token(CELL).is_some();
        assert_eq!(left, kept, "retain = {retain}: whether a process that stays keeps the tokens");
        pag::ring::leave().unwrap();
    }
    // A lingering manager keeps its ring; the tokens only with retain = linger.
    for (retain, kept) in [("none", false), ("linger", true)] {
        sandbox.configure(&format!("retain = {retain}"));
        crate::sandbox::tmpfs("/var/lib/systemd");
        std::fs::create_dir_all("/var/lib/systemd/linger").unwrap();
        std::fs::write("/var/lib/systemd/linger/alice", "").unwrap();
        let mut manager = sandbox.host("systemd-user", "alice");
        manager.ok("open");
        let mut host = login(sandbox, "alice", Some("alice"));
        assert_eq!(manager.ring().identity(), host.ring().identity());
        host.all_ok(&["close", "end"]);
        assert!(manager.ring().is_pag(), "a lingering manager keeps its ring");
        assert_eq!(manager.ring().token(CELL).is_some(), kept, "retain = {retain}: tokens of a lingering manager");
        manager.kill();
        login(sandbox, "alice", None).all_ok(&["close", "end"]);
    }
}

pub(super) fn many_logins_leak_nothing(sandbox: &mut Sandbox) {
    let _quick = QuickCollection::begin();
    let rounds = if long() { 200 } else { 30 };
    login(sandbox, "alice", Some("alice")).all_ok(&["close", "end"]);
    let files = || Command::new("find").arg("/run/pag").output().unwrap().stdout;
    let (before, files_before) = ((key_count(0), key_count(ALICE)), files());
    for _ in 0..rounds {
        let mut host = login(sandbox, "alice", Some("alice"));
        host.all_ok(&["close", "end"]);
        assert_eq!(host.ask("report")["children"], serde_json::Value::Null);
        assert!(host.finish().success());
    }
    assert!(pags_of(ALICE).is_empty());
    assert_eq!(String::from_utf8(files()).unwrap(), String::from_utf8(files_before).unwrap(), "files in /run/pag");
    eventually("the key counts are back", Duration::from_secs(10), || {
        (key_count(0) <= before.0 && key_count(ALICE) <= before.1).then_some(())
    });
    let mine = std::fs::read_dir("/proc").unwrap().flatten().filter(|e| e.file_name().to_str().is_some_and(|n| n.parse::<u32>().is_ok()));
    assert!(mine.count() <= 2, "no process of a login is left");
}

/// Kills a host at its `when`th call of `call` during `line`; false when it did not get that far.
fn killed_at(sandbox: &Sandbox, call: &str, when: u32, before: &[&str], line: &str) -> bool {
    let _ = sandbox;
    let mut host = Host::start(Command::new(own_program("pag-pamhost")), &["sshd", "alice"]);
    ccache::write("/run/home/alice/cc", "alice", 36_000, ALICE);
    host.ok("putenv KRB5CCNAME=FILE:/run/home/alice/cc");
    for line in before {
        host.ok(line);
    }
    let mut strace = Command::new("strace")
        .args(["-f", "-q", "-o", "/run/strace", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=KILL:when={when}"), "-p", &host.pid().to_string()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("strace is attached", Duration::from_secs(5), || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
        (!status.contains("TracerPid:\t0")).then_some(())
    });
    let survived = host.try_ask(line).is_some();
    drop(host);
    strace.wait().unwrap();
    !survived
}

pub(super) fn a_killed_process_leaves_a_pag_or_none(sandbox: &mut Sandbox) {
    let _quick = QuickCollection::begin();
    login(sandbox, "alice", Some("alice")).all_ok(&["close", "end"]);
    let before = (key_count(0), key_count(ALICE));
    let stride = if long() { 1 } else { 7 };
    let mut kills = 0;
    let stages: [(&str, &[&str], bool); 3] = [("open", &[], false), ("open", &[], true), ("close", &["open"], false)];
    for (line, first, join) in stages {
        // For a join there is another login already.
        let other = join.then(|| login(sandbox, "alice", Some("alice")));
        for call in ["keyctl", "add_key", "flock", "rename"] {
            let mut when = 1;
            while killed_at(sandbox, call, when, first, line) {
                kills += 1;
                let mut next = login(sandbox, "alice", Some("alice"));
                assert!(next.ring().token(CELL).is_some(), "{line} killed at {call} {when}: the next login has no token");
                let pags = pags_of(ALICE);
                assert_eq!(pags.len(), 1, "{line} killed at {call} {when}: {pags:#?}");
                if let Some(other) = &other {
                    let _ = other;
                    assert_eq!(pags[0].record.as_ref().unwrap().leases.len(), 2, "{line} killed at {call} {when}");
                }
                next.all_ok(&["close", "end"]);
                when += stride;
            }
        }
        if let Some(mut other) = other {
            assert!(other.ring().token(CELL).is_some(), "the login that stayed has lost its token");
            other.all_ok(&["close", "end"]);
        }
    }
    assert!(kills >= if long() { 100 } else { 15 }, "only {kills} kills");
    login(sandbox, "alice", Some("alice")).all_ok(&["close", "end"]);
    assert!(pags_of(ALICE).is_empty());
    eventually("the key counts are back", Duration::from_secs(10), || {
        (key_count(0) <= before.0 && key_count(ALICE) <= before.1).then_some(())
    });
    assert!(!exists("/run/pag/ccache/61001"), "what a killed login has left of its ccache is swept away");
}

pub(super) fn logins_at_once_make_one_ring(sandbox: &mut Sandbox) {
    let at_once = |users: Vec<String>| -> Vec<(i32, String)> {
        let mut hosts: Vec<Host> = users.iter().map(|user| sandbox.host("sshd", user)).collect();
        for host in &mut hosts {
            host.tell("open");
        }
        let rings = hosts.iter_mut().map(|host| {
            assert_eq!(host.answer().unwrap()["result"], 0);
            let ring = host.ring();
            assert!(ring.is_pag(), "{ring:#?}");
            (ring.identity().0, ring.identity().1.to_owned())
        });
        rings.collect()
    };
    let mut one = at_once(vec!["alice".to_owned(); 20]);
    one.sort();
    one.dedup();
    assert_eq!(one.len(), 1, "20 first logins of one user make one ring");
    let mut many = at_once((61100..61150).map(|uid| format!("u{uid}")).collect());
    many.sort();
    many.dedup();
    assert_eq!(many.len(), 50, "50 users at once make 50 rings");
}
