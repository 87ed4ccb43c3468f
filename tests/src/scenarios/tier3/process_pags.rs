//! Several PAGs in one process, on a real cell.

use std::path::Path;
use std::time::Duration;

use super::Client;
use crate::cell::{self, home, let_go_of_keys_early};
use crate::guest::{QuickCollection, eventually, key_count, sh};
use crate::server::{PROGRAMS, Server};
use crate::ticket;

/// The account of a server: Debian's www-data.
const ACCOUNT: u32 = 33;

fn secret(user: &str) -> String {
    format!("{}/secret", home(user))
}

/// Fails unless a thread is refused a file.
fn refused(server: &mut Server, of: &str, command: &str) {
    let (status, words) = server.ask(format!("{of} {command}").trim_start());
    assert!(status != 0 && words.contains("denied"), "{of}: {command} must be refused: {words}");
}

/// Fails unless a thread reads a user's own file.
fn reads(server: &mut Server, of: &str, user: &str) {
    let words = server.ok(format!("{of} read {}", secret(user)).trim_start());
    assert_eq!(words, format!("a secret of {user}'s"), "{of}: read of {user}'s file");
}

pub(super) fn afs_one_process_serves_two_users(client: Client) {
    let _quick = QuickCollection::begin();
    let_go_of_keys_early(client);
    sh(
        "mkdir -p /run/server; for user in alice bob; do echo ${user}pw | kinit -c FILE:/run/server/$user $user >/dev/null; done; \
        kadmin.local ktadd -k /run/server/keytab -norandkey alice >/dev/null; chown -R 33:33 /run/server",
    );
    // Nothing of the product but the library and pag.conf is needed.
    sh("systemctl stop pag-logind-helper");
    let mut before = (key_count(ACCOUNT), cell::afs_pags());
    for program in PROGRAMS {
        serves_two_users(client, program);
        if client == Client::Kafs {
            // It holds a key for each file that has cached permissions (fs/afs/security.c, afs_cache_permit).
            sh("umount -l /afs");
        }
        let left = || (key_count(ACCOUNT), cell::afs_pags());
        if client == Client::Kafs && program == PROGRAMS[0] {
            // What kAFS keeps for itself, it keeps once.
            before = eventually("the counts have settled", Duration::from_secs(20), || {
                let now = left();
                std::thread::sleep(Duration::from_millis(1500));
                (left() == now).then_some(now)
            });
            sh("systemctl start afs.mount");
        } else {
            let is_as_before = || (left() == before).then_some(());
            eventually(
                &format!("nothing is left of the PAGs of {program} beside {before:?}"),
                Duration::from_secs(20),
                is_as_before,
            );
        }
    }
}

/// By the Rust interface, or by the C interface with the library as it is installed.
fn serves_two_users(client: Client, program: &str) {
    let mut server = Server::start_as(ACCOUNT, &Path::new("/usr/local/bin").join(program));
    server.ok("open");
    server.ok("create a ccache=FILE:/run/server/alice ms=60000");
    server.ok("create b ccache=FILE:/run/server/bob ms=60000");

    // Each reads its own user's file and is refused the other's, and outside no file is read.
    server.ok("enter a");
    reads(&mut server, "", "alice");
    refused(&mut server, "", &format!("read {}", secret("bob")));
    server.ok("enter b");
    reads(&mut server, "", "bob");
    refused(&mut server, "", &format!("read {}", secret("alice")));
    server.ok("leave");
    refused(&mut server, "", &format!("read {}", secret("alice")));

    let wrong = server.ok(&format!("files 40 a b {} {}", secret("alice"), secret("bob")));
    // The second number is of the program in Rust, which can ask OpenAFS.
    assert!(
        wrong.split(' ').all(|number| number == "0"),
        "{program}: looks with the wrong identity, and wrong PAGs of OpenAFS, after switches in opposite phase: {wrong}"
    );
    if client == Client::OpenAfs && program == PROGRAMS[0] {
        let [outside, of_a, of_b] = ["getpag", "inside a getpag", "inside b getpag"].map(|ask| server.ok(ask));
        assert_eq!(outside, "none", "a thread that has left is in no PAG of OpenAFS");
        assert!(of_a != "none" && of_b != "none" && of_a != of_b, "{of_a} {of_b}");
    }

    // A keytab, for which no user has a ticket here.
    server.ok("create k keytab=/run/server/keytab principal=alice@EXAMPLE.TEST ms=60000");
    server.ok("enter k");
    reads(&mut server, "", "alice");
    server.ok("leave");
    let left = sh("ls /tmp");
    assert!(!left.lines().any(|name| name.starts_with("pag-")), "the ticket is gone: {left}");
    let (expires, now) = (server.ok("expires k").parse::<u64>().unwrap(), ticket::now());
    assert!(expires > now, "the end of its token is known: {expires}, now {now}");

    // A child stays where it was born.
    server.ok("enter a");
    server.ok("fork c");
    server.ok("enter b");
    reads(&mut server, "", "bob");
    reads(&mut server, "child c", "alice");
    refused(&mut server, "child c", &format!("read {}", secret("bob")));
    let said = server.ok(&format!("child c run cat {}", secret("alice")));
    assert_eq!(said, "a secret of alice's", "a program of the child reads alice's file");

    // A renewal reaches those who are inside, and the end is final for them.
    server.ok("thread parked enter a");
    server.ok("renew a ccache=FILE:/run/server/alice ms=60000");
    server.ok(&format!("thread parked write {}/by-a-server", home("alice")));
    server.ok("end a");
    for member in ["thread parked", "child c"] {
        refused(&mut server, member, &format!("write {}/after-the-end", home("alice")));
    }
    server.ok(&format!("write {}/by-a-server", home("bob")));
    server.ok("thread parked leave");
    server.ok("close");
    assert!(server.finish().success());
}
