//! What goes wrong around a login: it goes on within its time, the journal says why, and the next good moment heals it.

use std::time::{Duration, Instant};

use super::Client;
use crate::cell::{self, assert_denied, assert_works};
use crate::guest::{Proof, Session, heard, journal, sh};

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
    // Nobody listens; or somebody does who takes what he gets and never answers.
    for (what, order) in [("refuses", "stop krb5-kdc"), ("does not answer", "kill -s STOP krb5-kdc")] {
        sh("systemctl start krb5-kdc");
        sh(&format!("systemctl {order}"));
        let said = || journal("pam_pag").matches("no tokens of cell example.test for uid 61001").count();
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
    sh("systemctl start krb5-kdc");
    // The next good moment: the ticket is still the same.
    let mut alice = cell::login_with("/run/ticket.kept");
    assert_works("the KDC is back", &alice.say(cell::WRITE));
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
    assert!(!journal("pam_pag").contains("no tokens"), "nobody wants tokens then: {}", journal("pam_pag"));
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
