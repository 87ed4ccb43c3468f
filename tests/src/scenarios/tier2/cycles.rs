//! Many logins: in a row, and at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::logins::{leave_cgroup, logins, ring_at};
use super::long;
use super::outages::helper;
use crate::guest::{
    CELL, Proof, Session, assert_same, assert_token, eventually, key_count, manager_is, pags_of, run, seeder_runs, sh,
    ssh, uid,
};
use crate::ring::Ring;

/// The things that logins could leave behind on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Remains {
    /// The numbers of keys that root and alice have.
    keys: [u32; 2],
    files: BTreeSet<String>,
    /// By name: how many processes there are, and how many descriptors the lasting ones have.
    processes: BTreeMap<String, usize>,
    descriptors: BTreeMap<String, usize>,
}

fn remains() -> Remains {
    let files = sh("find /run/pag /tmp /run/user -xdev 2>/dev/null || true");
    let mut processes = BTreeMap::new();
    for name in sh("ps -e -o comm=").lines() {
        // The programs of the measurement, and the kernel's own.
        if !["ps", "sh", "pag-scenario"].contains(&name) && !name.starts_with("kworker") {
            *processes.entry(name.to_owned()).or_default() += 1;
        }
    }
    let units = ["pag-logind-helper", "ssh", "systemd-logind", "dbus"];
    let descriptors = units.map(|unit| {
        let pid = sh(&format!("systemctl show -P MainPID {unit}"));
        (unit.to_owned(), fs::read_dir(format!("/proc/{}/fd", pid.trim())).unwrap().count())
    });
    Remains {
        keys: [key_count(0), key_count(uid("alice"))],
        files: files.lines().map(str::to_owned).collect(),
        processes,
        descriptors: descriptors.into(),
    }
}

/// Waits until nothing more is there than was before.
fn nothing_remains(what: &str, before: &Remains) {
    let mut last = None;
    let back = |now: &Remains| {
        now.keys[0] <= before.keys[0]
            && now.keys[1] <= before.keys[1]
            && now.files.is_subset(&before.files)
            && now.processes.iter().all(|(name, count)| count <= before.processes.get(name).unwrap_or(&0))
            && now.descriptors.iter().all(|(name, count)| *count <= before.descriptors[name])
    };
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !last.as_ref().is_some_and(back) {
        assert!(std::time::Instant::now() < end, "{what} leave something: before {before:#?}, after {last:#?}");
        thread::sleep(Duration::from_millis(200));
        last = Some(remains());
    }
}

/// The end of all that alice has on the machine, without logind's delay.
fn end_alice() {
    run("loginctl", &["terminate-user", "alice"]);
    manager_is("alice", "inactive");
    eventually("the PAG has ended", Duration::from_secs(10), || pags_of("alice").is_empty().then_some(()));
}

pub(super) fn many_logins_leak_nothing(_: u32) {
    // Only the first logins make these, and they stay: registry, user keyring, the lock of the uid, and that of its tickets,
    // which the second ticket in a PAG takes.
    let keeper = Session::ssh("alice", Proof::Password);
    ssh("alice", Proof::Key, "true");
    // One that ends later than the first: times of tickets are whole seconds.
    let tickets = Path::new("/run/pag/lock").join(format!("{}.tickets", uid("alice")));
    eventually("a second ticket has come", Duration::from_secs(15), || {
        ssh("alice", Proof::Password, "true");
        tickets.exists().then_some(())
    });
    keeper.log_out();
    end_alice();
    let helper_before = helper();
    thread::sleep(Duration::from_secs(1));
    let before = remains();
    let (count, lives) = if long() { (200, 20) } else { (20, 3) };

    // Each life of a PAG is one login.
    for _ in 0..lives {
        ssh("alice", Proof::Password, "true");
        end_alice();
    }
    nothing_remains("lives of PAGs", &before);

    // Logins that come and go in one PAG, which the user's manager keeps.
    let runs = seeder_runs();
    let mut keeper = Session::ssh("alice", Proof::Password);
    let ring = keeper.ring();
    for number in 0..count {
        let proof = if number % 2 == 0 { Proof::Password } else { Proof::Key };
        let seen = Ring::parse(&ssh("alice", proof, "pag-probe"));
        assert_same("each login", &ring, &seen);
    }
    assert_token("the login that stays", &keeper.ring());
    assert_eq!(seeder_runs(), runs + 1, "one seeder run for all these logins");
    eventually("their leases have ended", Duration::from_secs(10), || (logins("alice").len() == 1).then_some(()));
    keeper.log_out();
    end_alice();
    nothing_remains("logins in a row", &before);
    assert_eq!(helper(), helper_before, "the helper is the same process still");
}

pub(super) fn first_logins_at_once_make_one_ring(_: u32) {
    let crowd = |users: Vec<String>| -> Vec<Session> {
        let rush: Vec<_> =
            users.into_iter().map(|user| thread::spawn(move || Session::ssh(&user, Proof::Password))).collect();
        rush.into_iter().map(|one| one.join().unwrap()).collect()
    };
    let mut sessions = crowd(vec!["alice".to_owned(); 20]);
    let first = sessions[0].ring();
    assert!(first.is_pag(), "{first:#?}");
    for session in &mut sessions {
        let ring = session.ring();
        assert_same("twenty first logins at once", &first, &ring);
        assert_token("twenty first logins at once", &ring);
    }
    assert_eq!(logins("alice").len(), 20, "a lease each: {:#?}", pags_of("alice"));
    assert_same("a service", &first, &sessions[7].service_ring());
    sessions.into_iter().for_each(Session::log_out);
    manager_is("alice", "inactive");
    eventually("the PAG has ended", Duration::from_secs(10), || pags_of("alice").is_empty().then_some(()));
    if long() {
        let users: Vec<String> = (0..50).map(|n| format!("u{n}")).collect();
        let mut sessions = crowd(users.clone());
        let rings: BTreeSet<(i32, String)> = sessions
            .iter_mut()
            .map(|session| {
                let ring = session.ring();
                assert!(ring.is_pag(), "{ring:#?}");
                assert_token("fifty users at once", &ring);
                assert_same("fifty users at once: a service", &ring, &session.service_ring());
                (ring.identity().0, ring.identity().1.to_owned())
            })
            .collect();
        assert_eq!(rings.len(), 50, "fifty users, fifty rings");
    }
}

/// A process that a user leaves running. The test asks it by the path of its files what it sees.
struct Stayer(String);

impl Stayer {
    /// A process of the shell's, as nohup leaves it.
    fn of_shell(session: &mut Session, user: &str) -> Self {
        Self::start(session, user, "nohup", ">/dev/null 2>&1 </dev/null &", "$$")
    }

    /// A service of the user's manager, for which a dollar would be systemd-run's.
    fn of_manager(session: &mut Session, user: &str) -> Self {
        Self::start(session, user, "systemd-run --user --quiet --collect", "", "there")
    }

    fn start(session: &mut Session, user: &str, by: &str, how: &str, mark: &str) -> Self {
        let path = format!("/home/{user}/stayer");
        let script =
            format!("echo {mark} > {path}.pid; while ! test -e {path}.ask; do sleep 0.1; done; pag-probe {path}.ring");
        let said = session.say(&format!(
            "rm -f {path}.*\n{by} sh -c '{script}' {how}\nwhile ! test -s {path}.pid; do sleep 0.1; done"
        ));
        assert_eq!(said, "", "{by}");
        Stayer(path)
    }

    fn pid(&self) -> String {
        fs::read_to_string(format!("{}.pid", self.0)).unwrap().trim().to_owned()
    }

    /// What the process sees now. It ends.
    fn sees(self) -> Ring {
        fs::write(format!("{}.ask", self.0), "").unwrap();
        ring_at(&format!("{}.ring", self.0))
    }
}

pub(super) fn retain_decides_over_ssh(_: u32) {
    for (retain, processes, lingering) in [("none", false, false), ("processes", true, true), ("linger", false, true)] {
        fs::write("/etc/pag/pag.conf.d/zz-retain.conf", format!("[pag]\nretain = {retain}\n")).unwrap();
        sh("loginctl enable-linger bob");
        let (mut alice, mut bob) = (Session::ssh("alice", Proof::Password), Session::ssh("bob", Proof::Password));
        let (alices, bobs) = (alice.ring(), bob.ring());
        assert_token("alice", &alices);
        assert_token("bob", &bobs);
        let (left, below) = (Stayer::of_shell(&mut alice, "alice"), Stayer::of_manager(&mut bob, "bob"));
        // Out of the session's control group: logind would keep the manager for it.
        leave_cgroup(&left.pid());
        alice.log_out();
        bob.log_out();
        manager_is("alice", "inactive");
        eventually("the PAG has ended", Duration::from_secs(10), || pags_of("alice").is_empty().then_some(()));
        eventually("the login's lease has ended", Duration::from_secs(10), || logins("bob").is_empty().then_some(()));
        let found = [
            ("what was left running", alices, left.sees(), processes),
            ("a service of a manager that lingers", bobs, below.sees(), lingering),
        ];
        for (what, before, after, kept) in found {
            assert_same(&format!("retain = {retain}: {what}"), &before, &after);
            let has_it = after.token("example.test").is_some();
            assert_eq!(has_it, kept, "retain = {retain}: whether {what} has its token: {after:#?}");
        }
        sh("loginctl disable-linger bob");
        manager_is("bob", "inactive");
        eventually("bob's PAG has ended", Duration::from_secs(10), || pags_of("bob").is_empty().then_some(()));
    }

    // The usual case: the process that was left runs in the session, and logind keeps session and manager for it. The
    // tokens still end with the last login, once services have had their time to stop.
    let own = "[pag]\nretain = none\n[user dave]\nretain = processes\n";
    fs::write("/etc/pag/pag.conf.d/zz-retain.conf", own).unwrap();
    let left = ["carol", "dave"].map(|user| {
        let mut session = Session::ssh(user, Proof::Password);
        let ring = session.ring();
        assert_token(user, &ring);
        let pid = leave_watcher(&mut session, user);
        session.log_out();
        (user, ring, pid)
    });
    for (user, ..) in &left {
        eventually("the login's lease has ended", Duration::from_secs(10), || logins(user).is_empty().then_some(()));
    }
    watcher_sees("carol", "nobody", "retain = none: the last login has gone, and the session goes on", 30);
    watcher_sees("dave", "dave", "retain = processes: what was left running keeps its token", 1);
    for (user, ring, pid) in left {
        manager_is(user, "active");
        let tickets = sh(&format!("find /run/pag/ccache/{} -name tkt", uid(user)));
        assert_eq!(tickets.is_empty(), user == "carol", "the PAG's ticket goes with the tokens: {tickets}");
        // As with tmux or mosh: the next login is in the same PAG, and the process that was left has its tokens.
        let mut next = Session::ssh(user, Proof::Password);
        assert_same("the next login", &ring, &next.ring());
        watcher_sees(user, user, "what was left running has the next login's token", 2);
        next.say(&format!("kill {pid}"));
        next.log_out();
        manager_is(user, "inactive");
        eventually("the PAG has ended", Duration::from_secs(10), || pags_of(user).is_empty().then_some(()));
    }
}

/// Leaves a process in the session that writes down, again and again, which user's token it finds. Returns its pid.
fn leave_watcher(session: &mut Session, user: &str) -> String {
    let script = format!(
        "while sleep 0.1; do who=nobody; key=$(keyctl search @s user afs@{CELL} 2>/dev/null) && who=$(keyctl pipe $key)\n\
         echo ${{who%%@*}} > /home/{user}/who.new; mv /home/{user}/who.new /home/{user}/who; done"
    );
    fs::write("/usr/local/bin/left-watcher", format!("#!/bin/sh\n{script}\n")).unwrap();
    sh(&format!("install -m 755 /usr/local/bin/left-watcher /usr/local/bin/left-{user}"));
    session.say(&format!("setsid left-{user} >/dev/null 2>&1 </dev/null & echo $!")).trim().to_owned()
}

fn watcher_sees(user: &str, whom: &str, what: &str, seconds: u64) {
    eventually(&format!("{what}: {user}'s sees the token of {whom}"), Duration::from_secs(seconds), || {
        let seen = fs::read_to_string(format!("/home/{user}/who")).unwrap_or_default();
        (seen.trim() == whom).then_some(())
    });
}
