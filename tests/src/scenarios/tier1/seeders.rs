//! Programs that get tokens, or do not.

use std::process::Command;
use std::time::{Duration, Instant};

use super::ticketed;
use crate::sandbox::{Sandbox, eventually};

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
