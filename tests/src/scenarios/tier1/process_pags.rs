//! Several PAGs in one process, which has no right and no helper.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{long, uid};
use crate::sandbox::{QuickCollection, Sandbox, eventually, key_count, pagctl, patience};
use crate::server::code::{ENDED, FORKED, OPEN, QUOTA, SEED, TIMEOUT};
use crate::server::{PROGRAMS, Server, built};

/// A seeder that makes the token of the identity after which the ccache is named.
const SEEDER: &str = "#!/bin/sh
expires=$(($(date +%s) + 3600))
exec keyctl add user afs@example.test \"${KRB5CCNAME##*/}@EXAMPLE.TEST $expires\" @s >/dev/null
";

/// The programs, where each user can run them.
fn programs(sandbox: &Sandbox) -> [PathBuf; 2] {
    sandbox.seeder(SEEDER);
    let is_new = fs::create_dir("/run/libpag").is_ok();
    for name in PROGRAMS.into_iter().chain(["libpag.so.0"]).filter(|_| is_new) {
        fs::copy(built().join(name), format!("/run/libpag/{name}")).unwrap();
    }
    PROGRAMS.map(|name| format!("/run/libpag/{name}").into())
}

/// Each program, opened, with two PAGs: "a" is alice's and "b" is bob's. It runs as carol, who has neither identity.
fn servers(sandbox: &Sandbox) -> [Server; 2] {
    programs(sandbox).map(|program| {
        let mut server = Server::start_as(uid("carol"), &program);
        server.ok("open");
        create_both(&mut server);
        server
    })
}

fn create_both(server: &mut Server) {
    server.ok("create a ccache=FILE:/run/cc/alice");
    server.ok("create b ccache=FILE:/run/cc/bob");
}

fn is_of(token: &str, name: &str) -> bool {
    token.starts_with(&format!("{name}@EXAMPLE.TEST "))
}

pub(super) fn model(sandbox: &mut Sandbox) {
    for mut server in servers(sandbox) {
        let outside = server.ring("");
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(status.contains(line), "it has no rights: {status}");
        }
        assert_eq!(server.token(""), "none", "to create PAGs moves no thread");

        // Several at once; the active one is the thread's own.
        server.ok("enter a");
        let (in_a, of_a) = (server.ring(""), server.token(""));
        assert!(is_of(&of_a, "alice"), "a is alice's PAG: {of_a}");
        server.ok("enter b");
        let (in_b, of_b) = (server.ring(""), server.token(""));
        assert!(is_of(&of_b, "bob"), "b is bob's PAG: {of_b}");
        assert!(outside != in_a && in_a != in_b, "{outside} {in_a} {in_b}");
        server.ok("thread t leave");
        assert_eq!(server.token("thread t"), "none", "a thread alone switches");
        server.ok("thread t enter a");
        assert_eq!((server.ring("thread t"), server.ring("")), (in_a, in_b), "each thread has its own active PAG");

        // Without an active one the default holds, and without a default there is none.
        server.ok("leave");
        let in_none = server.ring("");
        assert_eq!(server.token(""), "none", "a thread that has left has no token");
        assert!(![outside, in_a, in_b].contains(&in_none), "no PAG is a keyring of its own");
        server.ok("default b");
        assert_eq!((server.ring(""), server.ring("thread t")), (in_none, in_a), "a default moves no thread");
        server.ok("leave");
        assert_eq!(server.ring(""), in_b, "without an active PAG the default holds");
        server.ok("enter a");
        server.ok("leave");
        assert_eq!(server.ring(""), in_b, "a thread goes back to the default");
        server.ok("default -");
        server.ok("leave");
        assert_eq!(server.ring(""), in_none, "without a default there is none");

        // A new PAG may be created by any process, without a configuration.
        let configuration = fs::read("/etc/pag/pag.conf").unwrap();
        fs::remove_file("/etc/pag/pag.conf").unwrap();
        server.ok("thread t create new");
        server.ok("enter new");
        let in_new = server.ring("");
        assert!(![in_none, in_a, in_b].contains(&in_new), "a new PAG is another one");
        assert_eq!(server.token(""), "none", "it has no token of another PAG");
        assert_eq!(server.ring("thread t"), in_a, "its maker is where it was");
        fs::write("/etc/pag/pag.conf", configuration).unwrap();

        // Nothing can be put into no PAG.
        server.ok("leave");
        let (status, words) = server.ask("run keyctl add user afs@example.test x @s");
        assert_ne!(status, 0, "a token was put into no PAG: {words}");
        let (again, words) = server.ask("open");
        assert_eq!(again, OPEN, "a process is opened once: {words}");
        server.ok("close");
        assert!(server.finish().success());
    }
    // What a guard does.
    let mut server = Server::start_as(uid("carol"), &programs(sandbox)[0]);
    server.ok("open");
    create_both(&mut server);
    server.ok("leave");
    let none = server.ring("");
    let nested = "inside a inside b ring";
    let (in_a, in_b): (i32, i32) = (server.ok("inside a ring").parse().unwrap(), server.ok(nested).parse().unwrap());
    assert_ne!(in_a, in_b);
    server.ok("inside a enter b");
    assert_eq!(server.ring(""), none, "a guard takes the thread back to where it was");
    server.ok("inside a leave");
    assert_eq!(server.ring(""), none, "a guard does nothing after leave");
    assert_eq!(server.ok("panic a"), none.to_string(), "a panic takes the thread out");
    server.ok("enter b");
    server.ok("inside a token");
    assert_eq!(server.ring(""), in_b, "a guard goes back to the PAG that was entered before");
    server.ok("leave");
    let steps = server.ok("disorder a b");
    assert_eq!(steps, format!("{in_a} {in_b} {none} {none}"), "guards in disorder leave no thread inside");
    server.ok("drop a");
    server.ok("drop b");
    assert!(server.finish().success());
}

pub(super) fn threads(sandbox: &mut Sandbox) {
    for mut server in servers(sandbox) {
        let wrong = server.ok("alternate 500 a b");
        assert_eq!(wrong, "0", "switches after which a thread was in the wrong PAG");
        assert_eq!(server.token(""), "none");
        server.ok("close");
        assert!(server.finish().success());
    }
    let mut server = Server::start_as(uid("carol"), &programs(sandbox)[0]);
    server.ok("open");
    create_both(&mut server);
    assert_eq!(server.ok("costs 200 a"), "0", "allocations of 200 enters and leaves");
    // The kernel would have killed the process.
    assert_eq!(server.ok("bare 200 a"), "200", "enters and leaves that call keyctl alone");
    assert!(server.finish().success());
}

/// How many names of rings stand in a process's memory.
fn names_in_memory(pid: u32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap());
        memory.seek(SeekFrom::Start(from)).unwrap();
        let mut bytes = Vec::new();
        let _ = (&mut memory).take(to - from).read_to_end(&mut bytes);
        let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        found += bytes
            .windows(37)
            .filter(|part| part.starts_with(b"pag:") && part[36] == b':' && is_hex(&part[4..36]))
            .count();
    }
    found
}

pub(super) fn children(sandbox: &mut Sandbox) {
    for mut server in servers(sandbox) {
        server.ok("enter a");
        let in_a = server.ring("");
        let pid: u32 = server.ok("fork c").parse().unwrap();
        server.ok("enter b");
        assert_eq!(server.ring("child c"), in_a, "a child stays in its PAG while its parent goes on");
        let token = server.token("child c");
        assert!(is_of(&token, "alice"), "it has the tokens of that PAG: {token}");
        let of_program = "keyctl pipe %user:afs@example.test; sleep 0; keyctl id @s";
        let words = server.ok(&format!("child c run {of_program}"));
        assert!(is_of(&words, "alice"), "a program of the child does, too: {words}");
        for command in ["enter b", "enter a", "leave", "create x", "default a", "renew a ccache=FILE:/run/cc/x"] {
            let (found, words) = server.ask(&format!("child c {command}"));
            assert_eq!(found, FORKED, "a forked child is refused: {command}: {words}");
            assert_eq!(server.ring("child c"), in_a, "and stays where it was");
        }
        server.ask("child c end b");
        server.ok("enter b");
        assert_eq!(names_in_memory(server.pid()), 3, "the parent has the names of two PAGs and of none");
        assert_eq!(names_in_memory(pid), 0, "a forked child has the names of its parent's PAGs");
        // It may open PAGs of its own.
        server.ok("child c open");
        server.ok("child c create own ccache=FILE:/run/cc/dave");
        server.ok("child c enter own");
        assert!(is_of(&server.token("child c"), "dave"), "a child has PAGs of its own");
        server.ok("child c close");
        server.ok("enter b");
        assert!(is_of(&server.token(""), "bob"), "what a child ends is its own");
        server.ok("close");
        assert!(server.finish().success());
    }
}

pub(super) fn failed_enter(sandbox: &mut Sandbox) {
    for mut server in servers(sandbox) {
        server.ok("leave");
        let none = server.ring("");
        let refused = |server: &mut Server, why: &str| {
            server.ok("enter b");
            let (found, words) = server.ask("enter a");
            assert_eq!(found, ENDED, "{why}: {words}");
            assert!(words.contains("the PAG has ended"), "{why}: {words}");
            assert_eq!(server.token(""), "none", "{why}: the thread has a token");
            assert_eq!(server.ring(""), none, "{why}: the thread is in no PAG");
            server.ok("leave");
            server.ok("end a");
            server.ok("create a ccache=FILE:/run/cc/alice");
        };
        server.ok("enter a");
        server.ok("run keyctl revoke @s");
        server.ok("leave");
        refused(&mut server, "revoked by a member");
        server.ok("enter a");
        let ring = server.ring("");
        server.ok("leave");
        // A process of the same uid can do this from outside, by the serial: it ends the PAG, and gets nothing.
        server.ok(&format!("run keyctl invalidate {ring}"));
        refused(&mut server, "invalidated from outside");
        server.ok("enter b");
        server.ok("end a");
        let (found, words) = server.ask("enter a");
        assert_eq!((found, server.ring("")), (ENDED, none), "an ended PAG: {words}");
        // The same where the way leads back.
        server.ok("create a ccache=FILE:/run/cc/alice");
        server.ok("default a");
        server.ok("end a");
        server.ok("enter b");
        let (found, words) = server.ask("leave");
        assert_eq!((found, server.ring("")), (ENDED, none), "an ended default: {words}");
        server.ok("default -");
        server.ok("close");
        assert!(server.finish().success());
    }
}

pub(super) fn outsiders(sandbox: &mut Sandbox) {
    for mut server in servers(sandbox) {
        server.ok("enter a");
        let ring = server.ring("");
        let key: i32 = server.ok("run keyctl search @s user afs@example.test").parse().unwrap();
        server.ok("enter b");
        // Of the same uid, outside of both, and then root without privilege over keys of others.
        let id = uid("carol").to_string();
        let outside = |script: &str| {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "keyctl",
                "session",
                "-",
                "sh",
                "-c",
                script,
            ]);
            let output = command.output().unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (_, keys) = outside("cat /proc/keys");
        assert!(!keys.contains("pag:"), "its uid sees the name of a ring: {keys}");
        assert!(keys.contains("_ses"), "its uid sees its own keys: {keys}");
        let root = fs::read_to_string("/proc/keys").unwrap();
        assert!(!root.contains(&format!(":{}:", server.pid())), "root sees the name of a ring: {root}");
        for tried in [
            format!("keyctl describe {ring}"),
            format!("keyctl rlist {ring}"),
            format!("keyctl link {ring} @s"),
            format!("keyctl link {ring} @u"),
            format!("keyctl search {ring} user afs@example.test"),
            format!("keyctl setperm {ring} 0x3f3f3f3f"),
            format!("keyctl revoke {ring}"),
            format!("keyctl clear {ring}"),
            format!("keyctl timeout {ring} 1"),
            format!("keyctl chgrp {ring} 0"),
            format!("keyctl add user x y {ring}"),
            format!("keyctl unlink {key} {ring}"),
            format!("keyctl pipe {key}"),
            format!("keyctl link {key} @s"),
            format!("keyctl update {key} x"),
            format!("cat /proc/{}/maps", server.pid()),
            format!("cat /proc/{}/environ", server.pid()),
        ] {
            let works = outside(&tried).0;
            // The uid's own keyring is the host's: what is left in it would be there in later scenarios.
            outside("keyctl clear @u");
            assert!(!works, "a process of the same uid can: {tried}");
        }
        // A member can use the ring. It cannot pass the ring on.
        for tried in ["keyctl link @s @u", "keyctl link @s @us", "keyctl setperm @s 0x3f3f3f3f", "keyctl timeout @s 1"]
        {
            let (status, words) = server.ask(&format!("run {tried}"));
            let linked = server.ring("");
            outside(&format!("keyctl clear @u; keyctl unlink {linked} @us"));
            assert_ne!(status, 0, "a member can: {tried}: {words}");
        }
        // A child that wants to put its parent into a keyring of its own (KEYCTL_SESSION_TO_PARENT).
        server.ok("enter a");
        let (status, words) = server.ask("run exec keyctl new_session 2>&1");
        assert_eq!(server.ring(""), ring, "a child has replaced its parent's session keyring");
        assert_ne!(status, 0, "a child may replace its parent's session keyring: {words}");
        server.ok("close");
        assert!(server.finish().success());
    }
}

/// What code of an attacker's choice in one thread of a server can do, and what it cannot.
pub(super) fn hostile_thread(sandbox: &mut Sandbox) {
    let program = &programs(sandbox)[0];
    let carol = uid("carol");
    let mut other = Server::start_as(carol, program);
    other.ok("open");
    other.ok("create d ccache=FILE:/run/cc/dave");
    other.ok("enter d");
    let others_ring = other.ring("");
    let mut server = Server::start_as(carol, program);
    server.ok("open");
    create_both(&mut server);
    server.ok("thread victim enter b");
    let in_b = server.ring("thread victim");
    server.ok("thread evil enter a");

    // It has all PAGs of its process, since the names are in the memory that it shares: no PAG, alice's and bob's.
    let stolen = server.ok("thread evil steal");
    let tokens = |stolen: &str| {
        let users: Vec<&str> = ["alice@", "bob@", "dave@"].into_iter().filter(|user| stolen.contains(user)).collect();
        (stolen.split(' ').next().unwrap().to_owned(), users.concat())
    };
    assert_eq!(tokens(&stolen), ("3".to_owned(), "alice@bob@".to_owned()), "what a thread gets: {stolen}");
    // So it can put a token of its own into bob's PAG, for all who are in it.
    server.ok("thread evil enter b");
    let planted = server.ok("thread evil run keyctl add user afs@example.test 'evil@EXAMPLE.TEST 4000000000' @s");
    let token = server.token("thread victim");
    assert!(is_of(&token, "evil"), "a member can put a token into the ring ({planted}): {token}");
    server.ok("renew b ccache=FILE:/run/cc/bob");
    assert!(is_of(&server.token("thread victim"), "bob"), "a renewal takes its place");

    // It moves no other thread, and gets nothing of another process of its uid.
    assert_eq!(server.ring("thread victim"), in_b, "another thread is where it was");
    for tried in [
        format!("keyctl describe {others_ring}"),
        format!("keyctl search {others_ring} user afs@example.test"),
        format!("keyctl link {others_ring} @s"),
        format!("keyctl add user x y {others_ring}"),
        format!("cat /proc/{}/maps", other.pid()),
    ] {
        let (status, words) = server.ask(&format!("thread evil run {tried}"));
        assert_ne!(status, 0, "a thread of another process can: {tried}: {words}");
    }

    // It keeps nothing over the end: a child, a thread, the token's key in a keyring of its own, the name.
    server.ok("thread evil fork accomplice");
    let key: i64 = server.ok("thread evil run keyctl search @s user afs@example.test").parse().unwrap();
    let (link, thread_keyring) = (8, -1); // KEYCTL_LINK, KEY_SPEC_THREAD_KEYRING
    server.ok(&format!("thread evil keyctl {link} {key} {thread_keyring}"));
    server.ok("end b");
    for member in ["child accomplice", "thread evil", "thread victim"] {
        assert_eq!(server.token(member), "none", "{member} has bob's token after the end");
    }
    let (read, describe) = (11, 6); // KEYCTL_READ, KEYCTL_DESCRIBE
    for operation in [read, describe] {
        let (status, words) = server.ask(&format!("thread evil keyctl {operation} {key} 0 0"));
        assert_ne!(status, 0, "the token's key is there after the end, for keyctl {operation}: {words}");
    }
    let stolen = server.ok("thread evil steal");
    assert_eq!(tokens(&stolen), ("2".to_owned(), "alice@".to_owned()), "what a thread gets after the end: {stolen}");
    server.ok("thread evil leave");
    assert_eq!(server.token("thread evil"), "none");
    server.ok("close");
    assert!(server.finish().success());
    assert!(is_of(&other.token(""), "dave"), "the other process goes on");
    other.ok("close");
    assert!(other.finish().success());
}

/// What an io_uring credential sees of its ring: how many keys are in it. None if the ring has been revoked.
fn ring_seen(server: &mut Server) -> Option<String> {
    let keys = server.ok("peek");
    // Flags, usage, timeout, permissions, owner, group, type and name stand behind the serial.
    let is_it = |line: &&str| line.contains(" pag:") && !line.split_whitespace().nth(1).unwrap().contains('R');
    keys.split(" | ").find(is_it).and_then(|line| line.rsplit(' ').next().map(str::to_owned))
}

pub(super) fn end_is_final(sandbox: &mut Sandbox) {
    for (number, mut server) in servers(sandbox).into_iter().enumerate() {
        server.ok("thread parked enter a");
        server.ok("enter a");
        server.ok("fork c");
        server.ok("leave");
        for member in ["thread parked", "child c"] {
            assert!(is_of(&server.token(member), "alice"), "{member} is inside");
        }
        if number == 0 {
            server.ok("thread parked uring");
            assert_eq!(
                ring_seen(&mut server).as_deref(),
                Some("1"),
                "an io_uring credential is inside: {:?}",
                server.ok("peek")
            );
        }
        server.ok("thread b enter b");
        server.ok("end a");
        for member in ["thread parked", "child c"] {
            assert_eq!(server.token(member), "none", "{member} has a token after the end");
            let (status, words) = server.ask(&format!("{member} run keyctl add user afs@example.test x @s"));
            assert_ne!(status, 0, "{member} brings the PAG to life again: {words}");
        }
        if number == 0 {
            let seen = ring_seen(&mut server);
            assert_eq!(seen, None, "an io_uring credential has the ring after the end: {:?}", server.ok("peek"));
        }
        server.ok("thread parked leave");
        assert_eq!(server.token("thread parked"), "none");
        assert!(is_of(&server.token("thread b"), "bob"), "another PAG goes on");
        server.ok("close");
        assert_eq!(server.token("thread b"), "none", "closing ends all");
        assert!(server.finish().success());
    }
}

pub(super) fn faults(sandbox: &mut Sandbox) {
    let _quick = QuickCollection::begin();
    let carol = uid("carol");
    for mut server in servers(sandbox) {
        server.ok("leave");
        let settled = |server: &mut Server| {
            // What children have left goes with the next command at the latest.
            server.ok("run true");
            eventually("keys of ended children are collected", Duration::from_secs(20), || {
                let count = key_count(carol);
                std::thread::sleep(Duration::from_millis(100));
                (key_count(carol) == count).then_some(count)
            })
        };
        let before = settled(&mut server);
        sandbox.seeder("#!/bin/sh\nexit 7\n");
        let (found, words) = server.ask("create x ccache=FILE:/run/cc/x");
        assert_eq!(found, SEED, "the seeder fails: {words}");
        assert!(words.contains("status 7"), "and why: {words}");
        sandbox.seeder("#!/bin/sh\nexit 0\n");
        let (found, words) = server.ask("create x ccache=FILE:/run/cc/x");
        assert_eq!(found, SEED, "the seeder brings nothing: {words}");
        sandbox.seeder("#!/bin/sh\nsleep 600\n");
        let begun = Instant::now();
        let (found, words) = server.ask("create x ccache=FILE:/run/cc/x ms=700");
        assert_eq!(found, TIMEOUT, "the seeder hangs: {words}");
        assert!(words.contains("700 ms"), "{words}");
        assert!(begun.elapsed() < Duration::from_secs(3) * patience(), "the deadline counts: {:?}", begun.elapsed());
        sandbox.seeder(SEEDER);
        let (found, words) = server.ask("create x keytab=/run/none principal=x@EXAMPLE.TEST");
        assert_eq!(found, SEED, "there is no keytab: {words}");
        let left: Vec<_> = fs::read_dir("/tmp").unwrap().flatten().map(|entry| entry.file_name()).collect();
        let private = left.iter().any(|name| name.to_string_lossy().starts_with("pag-") && name.len() == 36);
        assert!(!private, "the ticket's directory is gone: {left:?}");
        assert_eq!(settled(&mut server), before, "keys that are left of PAGs that were not made");

        // A renewal that fails leaves the tokens; one that succeeds brings new ones to those who are inside.
        server.ok("thread t enter a");
        sandbox.seeder("#!/bin/sh\nexit 7\n");
        let (found, words) = server.ask("renew a ccache=FILE:/run/cc/alice");
        assert_eq!(found, SEED, "the seeder fails at a renewal: {words}");
        assert!(is_of(&server.token("thread t"), "alice"), "the tokens stay");
        let ends: u64 = server.ok("expires a").parse().unwrap();
        sandbox.seeder(&SEEDER.replace("3600", "7200"));
        server.ok("renew a ccache=FILE:/run/cc/alice");
        let later: u64 = server.ok("expires a").parse().unwrap();
        assert!(later >= ends + 3500, "the end of the tokens is known: {ends} {later}");
        let token = server.token("thread t");
        assert!(token.ends_with(&format!(" {later}")), "the new token is there: {token}");
        sandbox.seeder(SEEDER);

        // The quota of the uid is full.
        let mut hog = Server::start_as(carol, &programs(sandbox)[1]);
        hog.ok("run for i in $(seq 250); do keyctl add user k$i x @s >/dev/null 2>&1 || break; done");
        let full = settled(&mut server);
        let (found, words) = server.ask("create x");
        assert_eq!(found, QUOTA, "the quota is full: {words}");
        assert!(words.contains("kernel.keys.maxkeys"), "and what to do: {words}");
        assert_eq!(settled(&mut server), full, "nothing is left of it");
        // Threads get from one PAG to another all the same, and out.
        server.ok("enter a");
        server.ok("run keyctl revoke @s");
        server.ok("enter b");
        assert_eq!(server.ask("enter a").0, ENDED);
        assert_eq!(server.token(""), "none", "a thread stays in the former PAG when the quota is full");
        assert!(hog.finish().success());
        // The kernel gives the room back bit by bit, and the next scenario needs it, too.
        eventually("there is room again", Duration::from_secs(20), || (key_count(carol) < 100).then_some(()));
        server.ok("create x");
        server.ok("close");
        assert!(server.finish().success());
    }
}

pub(super) fn is_told_apart(sandbox: &mut Sandbox) {
    fs::copy(pagctl(), "/run/pagctl").unwrap();
    let mut server = Server::start_as(uid("bob"), &programs(sandbox)[1]);
    server.ok("open");
    create_both(&mut server);
    let (pid, program) = (server.pid(), "pag-chost");
    let json = |server: &mut Server, words: &str| -> Value {
        let (status, text) = server.ask(&format!("run /run/pagctl {words} --json"));
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words}: {error}: {status} {text}"));
        crate::schema::check(words, &value);
        value
    };
    server.ok("enter a");
    let ring = server.ring("");
    let id = json(&mut server, "id");
    assert_eq!((&id["member"], &id["maker"]["pid"]), (&true.into(), &pid.into()), "made by the server: {id}");
    assert_eq!((&id["maker"]["program"], &id["session"]), (&program.into(), &ring.into()), "{id}");
    let text = server.ok("run /run/pagctl id");
    assert!(text.contains(&format!("{ring}, made by process {pid} ({program}) for itself")), "in words: {text}");
    let status = json(&mut server, "status");
    assert_eq!((&status["mine"]["ring"], &status["mine"]["maker"]["pid"]), (&ring.into(), &pid.into()), "{status}");
    assert_eq!(status["mine"]["tokens"].as_array().unwrap().len(), 1, "with its token: {status}");
    let text = server.ok("run /run/pagctl status");
    assert!(text.contains(&format!("made by process {pid} ({program}) for itself")), "in words: {text}");
    // The kernel frees the credentials of processes that have ended a moment later, so the number may be too high.
    let uses = |server: &mut Server| json(server, "id")["maker"]["uses"].as_u64().unwrap();
    eventually("few hold it", Duration::from_secs(20), || (uses(&mut server) < 12).then_some(()));
    for thread in 0..10 {
        server.ok(&format!("thread t{thread} enter a"));
    }
    let held = uses(&mut server);
    assert!(held >= 12, "ten threads more hold it, this one, and the process: {held}");
    // A thread that has left is in no PAG, whatever the client takes for one.
    server.ok("leave");
    let (status, text) = server.ask("run /run/pagctl id");
    assert_ne!(status, 0, "no PAG is none: {text}");
    assert!(
        text.contains("You are in no PAG.") && text.contains(&format!("no PAG of process {pid} ({program})")),
        "{text}"
    );
    server.ok("close");
    assert!(server.finish().success());
}

pub(super) fn thousand(sandbox: &mut Sandbox) {
    let _quick = QuickCollection::begin();
    let server = &programs(sandbox)[0];
    fs::set_permissions(server, fs::Permissions::from_mode(0o755)).unwrap();
    let root = || fs::read_to_string("/proc/key-users").unwrap().lines().next().unwrap().to_owned();
    let mut server = Server::start_as(0, server);
    server.ok("open");
    server.ok("create first");
    let count = |server: &mut Server| {
        server.ok("run true");
        eventually("the kernel has collected", Duration::from_secs(30), || {
            let before = root();
            std::thread::sleep(Duration::from_millis(200));
            (root() == before).then(|| (before.clone(), key_count(0)))
        })
    };
    let before = count(&mut server);
    let many = if long() { 10_000 } else { 1000 };
    for number in 0..many {
        server.ok(&format!("create {number}"));
    }
    assert!(key_count(0) >= before.1 + many, "{many} PAGs are there: {}", root());
    server.ok(&format!("enter {}", many - 1));
    server.ok("leave");
    for number in 0..many {
        server.ok(&format!("end {number}"));
    }
    let last = eventually("all are gone", Duration::from_secs(30), || {
        let now = count(&mut server);
        (now.1 == before.1).then_some(now)
    });
    assert_eq!(last.0, before.0, "/proc/key-users is as before");
    server.ok("close");
    assert!(server.finish().success());
}
