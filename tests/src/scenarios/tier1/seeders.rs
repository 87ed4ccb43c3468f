//! Programs that get tokens, or do not.

use std::process::Command;
use std::time::{Duration, Instant};

use super::{login, pags, ticketed, uid};
use crate::sandbox::{CELL, Sandbox, eventually};
use crate::ticket;

/// What [`pag::login::note_seeding`] sees when a member empties the ring between the seeder's end and the look.
pub(super) fn cut_tokens_are_not_forgotten(sandbox: &mut Sandbox) {
    let mut alice = login(sandbox, "alice");
    let known = || pags("alice")[0].text.lines().filter(|line| line.starts_with("token ")).count();
    assert_eq!(known(), 1, "a token");
    sandbox.seeder("#!/bin/sh\nkeyctl clear @s\n");
    let cache = ticket::write("/run/home/alice/cc.later", uid("alice"), "alice", "EXAMPLE.TEST", ticket::now() + 9000);
    alice.all_ok(&[&format!("putenv KRB5CCNAME={cache}"), "refresh"]);
    assert!(alice.ring().token(CELL).is_none(), "which has been cut away: {:?}", alice.ring());
    assert_eq!(known(), 1, "what a seeder has brought and a member has cut is known still");
    alice.all_ok(&["close", "end"]);
}

pub(super) fn bad_seeders(sandbox: &mut Sandbox) {
    let seeders = [
        ("hangs", "#!/bin/sh\nexec sleep 1017\n"),
        ("crashes", "#!/bin/sh\nkill -SEGV $$\n"),
        ("forks", "#!/bin/sh\nsetsid sleep 1017 &\nexit 0\n"),
        ("floods", "#!/bin/sh\nyes & yes >&2\n"),
        ("refuses", "#!/bin/sh\nexit 3\n"),
        ("missing", ""),
    ];
    sandbox.configure("timeout = 500ms");
    for (name, script) in seeders {
        if script.is_empty() {
            std::fs::remove_file("/run/seeder").unwrap()
        } else {
            sandbox.seeder(script)
        }
        let mut host = ticketed(sandbox, "sshd", "dave", "dave");
        sandbox.messages();
        let begun = Instant::now();
        host.all_ok(&["establish", "open"]);
        assert!(begun.elapsed() < Duration::from_millis(1500), "{name}: within one budget, not {:?}", begun.elapsed());
        assert!(host.ring().is_pag(), "{name}: the login has a PAG");
        if name != "forks" {
            sandbox.heard("no tokens of cell");
        }
        let left = Command::new("pgrep").args(["-u", "61004", "."]).output().unwrap().stdout;
        assert!(left.is_empty(), "{name}: no process stays: {}", String::from_utf8_lossy(&left));
        host.all_ok(&["close", "end"]);
    }
    // A login that is killed over its seeder takes it along, with all that it has forked.
    sandbox.seeder("#!/bin/sh\nsleep 1017 & sh -c 'sleep 1018; :' & wait\n");
    sandbox.configure("timeout = 30s");
    let mut host = ticketed(sandbox, "sshd", "dave", "dave");
    host.tell("open");
    let running = || Command::new("pgrep").args(["-c", "-u", "61004", "sleep"]).output().unwrap().stdout;
    eventually("the seeder runs", Duration::from_secs(5), || (running() == b"2\n").then_some(()));
    host.kill();
    eventually("a seeder goes with its host", Duration::from_secs(5), || (running() == b"0\n").then_some(()));
}
