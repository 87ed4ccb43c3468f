//! A PAG's life: made by the first login, shared by the next, ended with the last.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{login, long, pags, registry, ticketed, uid};
use crate::ring::{Ring, describe, members};
use crate::sandbox::{
    CELL, Host, QuickCollection, Sandbox, SilentNames, eventually, forget_registry, key_count, own_program,
};
use crate::ticket;

/// The PAGs that the registry of this pid namespace has, by the names of their holders.
fn live() -> Vec<String> {
    let inside = members(registry().expect("a registry")).unwrap().into_iter().filter_map(|key| describe(key).ok());
    inside.map(|key| key.name).collect()
}

/// The numbers of keys that root and a user have, once they stay the same.
fn settled_counts(user: &str) -> (u32, u32) {
    eventually("key counts settle", Duration::from_secs(20), || {
        let counts = (key_count(0), key_count(uid(user)));
        std::thread::sleep(Duration::from_millis(1500));
        (counts == (key_count(0), key_count(uid(user)))).then_some(counts)
    })
}

fn counts_are_back(user: &str, before: (u32, u32)) {
    crate::sandbox::reap();
    let what = format!("the key counts of root and user are back at {before:?}");
    eventually(&what, Duration::from_secs(10), || {
        let (root, own) = (key_count(0), key_count(uid(user)));
        (root <= before.0 && own <= before.1).then_some(())
    });
}

/// Leaves a process behind in the session of `host`, as nohup does. It looks for tokens when [asked](linger_saw).
pub(super) fn linger_on(host: &mut Host) {
    fs::write(
        "/run/wait",
        "while ! [ -e /run/go ]; do sleep 0.05; done; keyctl list @s >/run/seen.new; mv /run/seen.new /run/seen",
    )
    .unwrap();
    fs::write("/run/leave", "setsid sh /run/wait </dev/null >/dev/null 2>&1 &").unwrap();
    host.ask("run sh /run/leave");
}

/// What the process that was left behind sees now. It ends.
pub(super) fn linger_saw() -> String {
    fs::write("/run/go", "").unwrap();
    let seen = eventually("the process that stayed has looked", Duration::from_secs(5), || {
        fs::read_to_string("/run/seen").ok()
    });
    fs::remove_file("/run/go").unwrap();
    fs::remove_file("/run/seen").unwrap();
    seen
}

pub(super) fn second_login_joins(sandbox: &mut Sandbox) {
    // Where there is a registry, a login leaves a hint for the next.
    let _another = login(sandbox, "bob");
    let mut first = login(sandbox, "alice");
    let mut second = login(sandbox, "alice");
    let (one, two) = (first.ring(), second.ring());
    assert!(one.is_pag(), "the first login has a PAG: {one:?}");
    assert_eq!(one.identity(), two.identity(), "the second login joins");
    assert!(two.token(CELL).is_some(), "the second login has the token: {two:?}");
    assert_eq!(sandbox.seeder_runs(), 2, "no second seeder for alice while tokens are good");
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
    admin.all_ok(&["close", "end"]);
    // A login that shows its ticket only when the session is opened is with the others until then.
    let mut late = sandbox.host("sshd", "alice");
    late.ok("establish");
    assert_eq!(late.ring().identity(), plain.ring().identity(), "a login without a ticket joins the user's PAG");
    let runs = sandbox.seeder_runs();
    let ccache =
        ticket::write("/run/home/alice/cc.late", uid("alice"), "alice/admin", "EXAMPLE.TEST", ticket::now() + 3600);
    late.all_ok(&[&format!("putenv KRB5CCNAME={ccache}"), "open"]);
    assert_ne!(
        late.ring().identity(),
        plain.ring().identity(),
        "another identity that comes late leaves the user's PAG"
    );
    assert!(late.ring().token(CELL).is_some(), "and has tokens where it is");
    assert_eq!(sandbox.seeder_runs(), runs + 1, "by one run of the seeder");
    let mut leases: Vec<_> = pags("alice").iter().map(|pag| pag.leases().len()).collect();
    leases.sort_unstable();
    assert_eq!(leases, [1, 1], "each login has one lease, in its own PAG");
    late.all_ok(&["close", "end"]);
    plain.all_ok(&["close", "end"]);
    assert_eq!(live(), Vec::<String>::new(), "no PAG is left");
}

pub(super) fn last_end_discards(sandbox: &mut Sandbox) {
    let _quick = QuickCollection::begin();
    // Only the first login makes these, and they stay: registry and user keyring.
    login(sandbox, "alice").all_ok(&["close", "end"]);
    let before = settled_counts("alice");
    let mut first = login(sandbox, "alice");
    let mut second = login(sandbox, "alice");
    first.all_ok(&["close", "end"]);
    assert!(second.ring().token(CELL).is_some(), "one of two ends: nothing is lost");
    // A process that outlives the login looks once more. The host itself has left the ring by then.
    linger_on(&mut second);
    second.all_ok(&["close", "end"]);
    assert!(!second.ring().is_pag(), "the host has left the ring");
    let seen = linger_saw();
    assert!(!seen.contains("afs@"), "the last ends: tokens are discarded: {seen}");
    assert_eq!(live(), Vec::<String>::new(), "no PAG is left");
    first.finish();
    second.finish();
    counts_are_back("alice", before);
}

pub(super) fn retain_decides(sandbox: &mut Sandbox) {
    for (line, kept) in [("none", false), ("processes", true), ("linger", false)] {
        sandbox.configure(&format!("retain = {line}"));
        let mut host = login(sandbox, "alice");
        linger_on(&mut host);
        host.all_ok(&["close", "end"]);
        let seen = linger_saw();
        assert_eq!(seen.contains("afs@"), kept, "retain = {line}: tokens of a process that stays: {seen}");
        assert_eq!(live(), Vec::<String>::new(), "retain = {line}: no PAG is left");
    }
    crate::sandbox::tmpfs("/var/lib/systemd");
    fs::create_dir("/var/lib/systemd/linger").unwrap();
    for lingers in [true, false] {
        for retain in ["none", "linger", "processes"] {
            let kept = !lingers || retain != "none";
            if lingers {
                fs::write("/var/lib/systemd/linger/alice", "").unwrap();
            } else {
                fs::remove_file("/var/lib/systemd/linger/alice").ok();
            }
            sandbox.configure(&format!("retain = {retain}"));
            let mut manager = sandbox.host("systemd-user", "alice");
            manager.ok("open");
            let mut host = login(sandbox, "alice");
            assert_eq!(manager.ring().identity(), host.ring().identity(), "manager and login share a PAG");
            assert!(manager.ring().token(CELL).is_some(), "the manager has the login's token");
            host.all_ok(&["close", "end"]);
            let ring = manager.ring();
            assert!(ring.is_pag(), "the manager keeps its ring");
            let what = format!("retain = {retain}, lingering: {lingers}: the manager's token");
            assert_eq!(ring.token(CELL).is_some(), kept, "{what}");
            // The next login is with it again, with a token.
            let mut next = login(sandbox, "alice");
            let same = next.ring().identity() == ring.identity();
            assert!(same, "the manager's PAG goes on: {:#?}", sandbox.messages());
            assert!(manager.ring().token(CELL).is_some(), "and has tokens again");
            next.all_ok(&["close", "end"]);
            manager.all_ok(&["close", "end"]);
            assert_eq!(live(), Vec::<String>::new(), "the manager's end is the PAG's");
        }
    }
}

pub(super) fn logout_asks_no_name_service(sandbox: &mut Sandbox) {
    crate::sandbox::tmpfs("/var/lib/systemd");
    fs::create_dir("/var/lib/systemd/linger").unwrap();
    fs::write("/var/lib/systemd/linger/alice", "").unwrap();
    let mut manager = sandbox.host("systemd-user", "alice");
    manager.ok("open");
    // The last login of a user who lingers: what becomes of the tokens depends on the user's name.
    // A login that has taken credentials only ends with its handle.
    for (begin, end) in [("open", &["close", "end"][..]), ("establish", &["end"])] {
        let mut host = ticketed(sandbox, "sshd", "alice", "alice");
        host.ok(begin);
        assert!(manager.ring().token(CELL).is_some(), "after {begin} the manager has the login's token");
        let names = SilentNames::begin();
        for line in end {
            host.tell(line);
        }
        eventually("the last logout takes the tokens, while no name service answers", Duration::from_secs(5), || {
            manager.ring().token(CELL).is_none().then_some(())
        });
        for line in end {
            assert_eq!(host.answer().unwrap()["result"], 0, "{line}");
        }
        assert!(!names.are_asked(), "no process waits for one");
    }
    manager.all_ok(&["close", "end"]);
}

fn files() -> Vec<String> {
    let output = Command::new("find").args(["/run/pag"]).output().unwrap();
    let mut names: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    names.sort();
    names
}

pub(super) fn cycles_leak_nothing(sandbox: &mut Sandbox) {
    let cache = ticket::write("/run/home/alice/cc", uid("alice"), "alice", "EXAMPLE.TEST", ticket::now() + 3600);
    let cycle =
        ["start sshd alice", &format!("putenv KRB5CCNAME={cache}"), "establish", "open", "close", "delete", "end"];
    let mut command = Command::new(own_program("pag-pamhost"));
    command.stderr(fs::File::create("/run/stderr").unwrap());
    let mut host = Host::start(command, &[]);
    host.all_ok(&cycle).ok("newring");
    let (report, before) = (host.ask("report"), files());
    let pages = |host: &Host| -> u64 {
        let sizes = fs::read_to_string(format!("/proc/{}/statm", host.pid())).unwrap();
        sizes.split(' ').next().unwrap().parse().unwrap()
    };
    let memory = pages(&host);
    let count = if long() { 500 } else { 30 };
    for _ in 0..count {
        // Its standard output holds answers only, one a line: a text of the module's would be a wrong answer.
        host.all_ok(&cycle);
    }
    let after = host.ask("report");
    assert_eq!(live(), Vec::<String>::new(), "no PAG is left");
    assert_eq!(sandbox.seeder_runs(), count + 1, "each login has its seeder");
    assert_eq!(fs::read_to_string("/run/stderr").unwrap(), "", "the module writes nothing");
    assert_eq!(after["fds"], report["fds"], "no descriptor is left");
    assert_eq!(after["threads"], report["threads"], "no thread is left");
    assert_eq!(after["children"], report["children"], "no process is left");
    assert_eq!(files(), before, "no file is left");
    // Which loads and unloads the module each time.
    assert!(pages(&host) < memory + 512, "no memory is left: {memory} pages before, and {} after", pages(&host));
}

/// The rings of hosts that log in all at once.
fn rush(sandbox: &Sandbox, users: &[String]) -> Vec<Ring> {
    let mut hosts: Vec<Host> = users.iter().map(|user| sandbox.host("sshd", user)).collect();
    // They are all up and wait for a word, then all have it before any answer is read.
    hosts.iter_mut().for_each(|host| {
        host.ok("umask 022");
    });
    hosts.iter_mut().for_each(|host| host.tell("open"));
    for host in &mut hosts {
        assert_eq!(host.answer().expect("the host lives")["result"], 0, "the login succeeds");
    }
    hosts.iter_mut().map(Host::ring).collect()
}

pub(super) fn rush_makes_one(sandbox: &mut Sandbox) {
    let names = |rings: &[Ring]| {
        assert!(rings.iter().all(Ring::is_pag), "each has a PAG: {rings:?}");
        let mut names: Vec<String> = rings.iter().map(|ring| ring.identity().1.to_owned()).collect();
        names.sort();
        names.dedup();
        names.len()
    };
    assert_eq!(names(&rush(sandbox, &vec!["alice".to_owned(); 20])), 1, "one user, one ring");
    // The first logins ever race for the registry, too.
    forget_registry();
    let users: Vec<String> = (61100..61150).map(|uid| format!("u{uid}")).collect();
    let rings = rush(sandbox, &users);
    assert_eq!(live().len(), 50, "all in one registry");
    assert_eq!(names(&rings), 50, "each user its own ring");
}

/// Runs `lines` in a host that is killed at its `when`th call of `name`. True if the host survived.
fn dies_at(lines: &[&str], name: &str, when: usize) -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={name}")]);
    strace.args(["-e", &format!("inject={name}:signal=KILL:when={when}")]).arg(own_program("pag-pamhost"));
    let mut host = Host::start(strace, &["sshd", "bob"]);
    let cache = ticket::write("/run/home/bob/cc.killed", uid("bob"), "bob", "EXAMPLE.TEST", ticket::now() + 3600);
    host.ok(&format!("putenv KRB5CCNAME={cache}"));
    let survived = lines.iter().all(|line| host.try_ask(line).is_some());
    host.finish();
    survived
}

pub(super) fn killed_anywhere(sandbox: &mut Sandbox) {
    let _quick = QuickCollection::begin();
    login(sandbox, "bob").all_ok(&["close", "end"]);
    let before = settled_counts("bob");
    let step = if long() { 1 } else { 3 };
    let mut kills = 0;
    // Which makes a PAG, which joins one, and which first ends that of a login that was killed before.
    for (joins, reaps) in [(false, false), (true, false), (false, true)] {
        for call in ["keyctl", "add_key", "flock", "rename"] {
            let mut when = 1;
            loop {
                let mut other = joins.then(|| login(sandbox, "bob"));
                if reaps {
                    login(sandbox, "bob").kill();
                }
                let survived = dies_at(&["open", "close", "end"], call, when);
                if let Some(other) = &mut other {
                    let ring = other.ring();
                    assert!(ring.is_pag(), "after death at {call} {when} the other login has its PAG");
                    assert!(ring.token(CELL).is_some(), "after death at {call} {when} the other login has its token");
                }
                let mut next = login(sandbox, "bob");
                assert!(next.ring().token(CELL).is_some(), "after death at {call} {when} the next login has a token");
                let pags = pags("bob");
                assert_eq!(pags.len(), 1, "after death at {call} {when}: one live PAG: {pags:#?}");
                let leases = pags[0].leases();
                assert_eq!(
                    leases.len(),
                    1 + usize::from(joins),
                    "after death at {call} {when}: a lease each: {pags:#?}"
                );
                for mut host in [Some(next), other].into_iter().flatten() {
                    host.all_ok(&["close", "end"]);
                }
                if survived {
                    break;
                }
                kills += 1;
                when += step;
            }
        }
    }
    assert!(kills >= if long() { 120 } else { 45 }, "the calls of a login were struck: {kills} times");
    assert_eq!(live(), Vec::<String>::new(), "no PAG is left");
    login(sandbox, "bob").all_ok(&["close", "end"]);
    // The user's file system stays for the next login.
    let is_left = |name: &String| name.strip_prefix("/run/pag/ccache/").is_some_and(|name| name.contains('/'));
    let left: Vec<String> = files().into_iter().filter(is_left).collect();
    assert_eq!(left, Vec::<String>::new(), "what killed logins left of their ccaches is swept away");
    counts_are_back("bob", before);
}
