//! Faults around a login: the login goes on within its time, the journal says why, and the next good moment repairs
//! it.

use std::time::{Duration, Instant};

use super::Client;
use crate::cell::{self, assert_denied, assert_works};
use crate::guest::{Proof, Session, eventually, heard, journal, sh};

/// Logs alice in by a ticket that she delegates, within a bound.
fn timed_login(what: &str) -> Session {
    let begun = Instant::now();
    let session = Session::ssh("alice", cell::ticket());
    let took = begun.elapsed();
    println!("{what}: a login took {:.1} s", took.as_secs_f64());
    // Emulation makes everything some twenty times as slow; our own budget is 5 s of real time.
    assert!(took < Duration::from_secs(40), "{what}: a login took {took:?}");
    session
}

pub(super) fn afs_login_survives_a_dead_kdc(_: Client) {
    sh("echo alicepw | kinit -c FILE:/run/ticket.kept alice");
    let refuse = |sign: &str| format!("kadmin.local modprinc {sign}allow_tix afs/example.test >/dev/null");
    // No KDC listens; one accepts and never answers; one answers, and gives no ticket.
    for (what, order) in [
        ("is not there", "systemctl stop krb5-kdc".to_owned()),
        ("does not answer", "systemctl kill -s STOP krb5-kdc".to_owned()),
        ("refuses", refuse("-")),
    ] {
        sh("systemctl start krb5-kdc");
        sh(&order);
        let said = || journal("pam_pag").matches("no tokens of cell example.test for alice (uid 61001)").count();
        let before = said();
        let begun = Instant::now();
        let mut alice = cell::login_with("/run/ticket.kept");
        println!("a KDC that {what}: a login took {:.1} s", begun.elapsed().as_secs_f64());
        // Our budget is 5 s; emulation makes the rest of a login slow.
        assert!(begun.elapsed() < Duration::from_secs(30), "a KDC that {what}: {:?}", begun.elapsed());
        assert!(alice.ring().is_pag(), "a KDC that {what}: a PAG all the same");
        assert_denied(&format!("a KDC that {what}"), &alice.say(cell::WRITE));
        assert_eq!(said(), before + 1, "the journal says why: {}", journal("pam_pag"));
        sh("systemctl kill -s CONT krb5-kdc || true");
        alice.log_out();
        cell::is_over("alice");
    }
    sh(&refuse("+"));
    // One that is slow is waited for. The next good moment: the ticket is still the same.
    cell::configure("timeout = 60s\n");
    sh("systemctl kill -s STOP krb5-kdc");
    let begun = Instant::now();
    let waker = std::thread::spawn(|| sh("sleep 4; systemctl kill -s CONT krb5-kdc"));
    let mut alice = cell::login_with("/run/ticket.kept");
    assert!(begun.elapsed() > Duration::from_secs(4), "it has waited for a slow KDC");
    waker.join().unwrap();
    assert_works("a slow KDC", &alice.say(cell::WRITE));
    assert_works("a service", &cell::service(&mut alice, cell::WRITE));
}

pub(super) fn afs_login_survives_a_dead_file_server(_: Client) {
    sh("bos shutdown afs.example.test dafs -localauth -wait");
    let mut alice = timed_login("no file server");
    assert!(alice.ring().is_pag(), "a PAG all the same");
    alice.say("pagctl tokens >/run/user/61001/tokens; true");
    sh("lab-cell");
    let begun = Instant::now();
    while !alice.say(cell::WRITE).contains("written") {
        assert!(begun.elapsed() < Duration::from_secs(120), "the file server is back, but: {}", alice.say(cell::WRITE));
    }
    assert_works("a service", &cell::service(&mut alice, cell::WRITE));
}

pub(super) fn afs_client_comes_and_goes(client: Client) {
    cell::load(Client::None);
    let mut alice = timed_login("no client");
    assert!(alice.ring().is_pag(), "without a client: a PAG all the same");
    let said = journal("pam_pag");
    assert!(!said.contains("no tokens of cell"), "no seeder is tried then: {said}");
    assert_eq!(
        said.matches("alice (uid 61001) gets no tokens of AFS: OpenAFS is configured").count(),
        1,
        "the cause is told once: {said}"
    );
    // It is loaded while she is logged in: the helper notices, and her next login, or she herself, gets tokens.
    cell::load(client);
    let mut second = timed_login("the client is there");
    assert_eq!(second.ring().identity(), alice.ring().identity(), "the same PAG");
    assert_works("the new login", &second.say(cell::WRITE));
    assert_works("the old login", &alice.say(cell::WRITE));
    assert_works("a service", &cell::service(&mut alice, cell::WRITE));
    alice.log_out();
    second.log_out();
    cell::is_over("alice");

    // It is unloaded under a login, as for its update; then it is back, and knows nothing of the PAGs that it has given.
    let mut alice = timed_login("before the client goes");
    assert_works("before the client goes", &alice.say(cell::WRITE));
    alice.say("cd /");
    cell::load(Client::None);
    // kAFS's keys are not kAFS's own (they are of rxrpc), and stay.
    let left = if client == Client::OpenAfs { 0 } else { 1 };
    assert_eq!(cell::tokens(&mut alice).len(), left, "without the client");
    let mut second = timed_login("the client is gone");
    second.say("cd /");
    assert_eq!(second.ring().identity(), alice.ring().identity(), "the same PAG");
    cell::load(client);
    let mut third = timed_login("the client is back");
    assert_eq!(third.ring().identity(), alice.ring().identity(), "the same PAG");
    for (who, session) in [("new", &mut third), ("old", &mut alice), ("middle", &mut second)] {
        assert_works(&format!("the client is back: the {who} login"), &session.say(cell::WRITE));
    }
    assert_works("the client is back: a service", &cell::service(&mut alice, cell::WRITE));
    if client == Client::OpenAfs {
        assert_eq!(cell::afs_pags(), 1, "the new `_pag` is the only one");
    }
}

/// The tokens that OpenAFS has for alice's uid: those of her processes outside of any PAG.
fn bare_tokens() -> String {
    sh("runuser -u alice -- keyctl session - tokens 2>&1")
}

pub(super) fn afs_no_tokens_outside_a_pag(_: Client) {
    // A device that answers nothing that OpenAFS would: no PAG of OpenAFS can be made or proven there.
    cell::configure("openafs_device = /proc/uptime\n");
    let mut alice = Session::ssh("alice", Proof::Password);
    assert!(alice.ring().is_pag(), "a login by a device that is none has a PAG all the same");
    assert!(!bare_tokens().contains("tokens for"), "the bare uid has got tokens: {}", bare_tokens());
    heard("pam_pag", "this ring has no PAG of OpenAFS, so /usr/bin/aklog was not run");
    assert_denied("a login by a device that is none", &alice.say(cell::WRITE));
    // Tokens that alice gets there belong to her uid, and pagctl says so.
    let said = alice.say("aklog; pagctl id; pagctl unlog");
    assert!(bare_tokens().contains("tokens for example.test"), "aklog by hand, without a PAG: {}", bare_tokens());
    assert!(said.contains("does not tell"), "{said}");
    alice.say("unlog");
    alice.log_out();
    cell::is_over("alice");
}

pub(super) fn afs_client_is_found_by_its_device(_: Client) {
    // The module's file where Arla's was, and nowhere else: aklog looks there, too.
    let nnpfs = "/proc/fs/nnpfs/afs_ioctl";
    sh(&format!(
        "touch /run/afs_ioctl; mount --bind /proc/fs/openafs/afs_ioctl /run/afs_ioctl; mount -t tmpfs none /proc/fs; \
         mkdir /proc/fs/nnpfs; touch {nnpfs}; mount --bind /run/afs_ioctl {nnpfs}"
    ));
    let mut alice = Session::ssh("alice", Proof::Password);
    assert_works("by nnpfs's file", &alice.say(cell::WRITE));
    assert_works("a service", &cell::service(&mut alice, cell::WRITE));
    assert_eq!(cell::afs_pags(), 1, "a PAG of OpenAFS");
    // A module that knows the older form alone of what a token is asked for: a child asks for its PAG first, then for tokens.
    let newer = alice.say("pagctl tokens");
    let older = alice.say(
        "strace -f -qq -e trace=ioctl -e inject=ioctl:error=EINVAL:when=2 -o /run/user/61001/calls pagctl tokens; \
         grep -c INJECTED /run/user/61001/calls >&2",
    );
    let refused = older.lines().last().and_then(|count| count.parse::<u32>().ok());
    assert!(refused > Some(0) && newer.contains("example.test"), "{newer}{older}");
    assert!(older.starts_with(&newer), "by the older form {older}, by the newer {newer}");
    // Where the configuration alone finds it.
    let another = "/proc/fs/another/afs_ioctl";
    sh(&format!(
        "umount {nnpfs}; rm {nnpfs}; mkdir /proc/fs/another; touch {another}; mount --bind /run/afs_ioctl {another}"
    ));
    assert_eq!(cell::tokens(&mut alice), [""; 0], "no client is found");
    cell::configure(&format!("openafs_device = {another}\n"));
    assert_eq!(cell::tokens(&mut alice), ["openafs example.test"], "by the file that is configured");
    sh(&format!("umount {another} /proc/fs"));
    alice.log_out();
    cell::is_over("alice");
}

pub(super) fn afs_setpag_waits_and_goes_on(_: Client) {
    // The module begins to count anew, from the second of its start: one PAG a second, or a user waits.
    cell::load(Client::None);
    cell::load(Client::OpenAfs);
    let begun = Instant::now();
    let mut alice = Session::ssh("alice", Proof::Key);
    alice.say("cd /");
    // Root does not wait, and makes as many as she then waits for.
    let mut made = 0;
    while made < begun.elapsed().as_secs() + 60 {
        sh("for n in 1 2 3 4 5 6 7 8 9 10; do pagctl new -- true; done");
        made += 10;
        assert!(made < 2000, "root makes PAGs no faster than a user may");
    }
    alice.say("pagctl new -- touch /run/user/61001/made & echo $! > /run/user/61001/pid");
    let pid = std::fs::read_to_string("/run/user/61001/pid").unwrap().trim().to_owned();
    let in_ioctl = format!("{} ", libc::SYS_ioctl);
    let waits =
        || std::fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| call.starts_with(&in_ioctl));
    eventually("setpag waits", Duration::from_secs(20), || waits().then_some(()));
    // Each time this ends the module's wait with EINTR.
    for _ in 0..3 {
        sh(&format!("kill -s STOP {pid}; sleep 0.3; kill -s CONT {pid}; sleep 0.3"));
    }
    let is_made = || std::fs::exists("/run/user/61001/made").is_ok_and(|there| there);
    assert!(waits(), "setpag goes on after a signal; made: {}", is_made());
    // A login is root's process, so it does not wait.
    drop(timed_login("while users wait"));
    assert!(waits(), "it was a login while somebody waits; made: {}", is_made());
    eventually("the PAG is made after all", Duration::from_secs(100), || is_made().then_some(()));
}

pub(super) fn afs_odd_cells_and_tickets(client: Client) {
    // A cell that there is not, beside the one that there is.
    cell::configure("afs_cells = nowhere.test,example.test\n");
    let mut alice = Session::ssh("alice", Proof::Password);
    assert_works("beside a cell that does not exist", &alice.say(cell::WRITE));
    heard("pam_pag", "nowhere.test");
    alice.log_out();
    cell::is_over("alice");
    cell::configure("");

    // The cell of the home, where the host's own is another one.
    if client == Client::OpenAfs {
        sh("cp /etc/openafs/ThisCell /run/ThisCell; echo nowhere.test > /etc/openafs/ThisCell");
        for (lines, works) in [("", false), ("aklog_homedir = yes\n", true)] {
            cell::configure(lines);
            let mut alice = Session::ssh("alice", Proof::Password);
            assert_eq!(alice.say(cell::WRITE).contains("written"), works, "in another cell's host, {lines}");
            alice.log_out();
            cell::is_over("alice");
        }
        sh("cp /run/ThisCell /etc/openafs/ThisCell");
        cell::configure("");
    }

    // A ticket for AFS of 10 KB, as one with a large PAC is.
    sh("echo alicepw | kinit -c FILE:/run/ticket.big alice; \
        KRB5CCNAME=FILE:/run/ticket.big pag-bigticket afs/example.test 9600");
    let mut alice = cell::login_with("/run/ticket.big");
    assert_works("with a ticket of 10 KB", &alice.say(cell::WRITE));
    assert_works("a service", &cell::service(&mut alice, cell::WRITE));
    assert!(alice.say("pagctl tokens").contains("example.test"), "it is listed: {}", alice.say("pagctl tokens"));
    alice.log_out();
    cell::is_over("alice");

    // A ticket that has expired.
    sh("echo alicepw | kinit -f -l 5s -c FILE:/run/ticket.short alice; sleep 6");
    let mut alice = cell::login_with("/run/ticket.short");
    assert!(alice.ring().is_pag(), "an expired ticket: a PAG all the same");
    assert_denied("an expired ticket", &alice.say(cell::WRITE));
    let said = alice.say(&format!(
        "export KRB5CCNAME=FILE:/run/user/61001/good; echo alicepw | kinit >/dev/null; {}; cat ~/secret",
        client.seeder()
    ));
    assert!(said.contains("a secret of alice's"), "a good ticket heals it: {said}");
}
