//! A host with both clients: each has a token of its own in the one PAG.

use super::Client;
use crate::cell::{self, assert_denied, assert_works, tokens};
use crate::guest::{Proof, Session, heard, journal};

const OPENAFS: &str = "openafs example.test";
const KAFS: &str = "kafs example.test";

/// [`cell::WRITE`] by way of kAFS: both clients mount the same cell, so the home is the same.
const WRITE_BY_KAFS: &str = "mktemp /run/kafs/example.test/user/alice/new.XXXXXX >/dev/null && echo written";

/// Both clients write the home, from a login and from a service.
fn assert_both_work(when: &str, alice: &mut Session) {
    for (how, command) in [("OpenAFS", cell::WRITE), ("kAFS", WRITE_BY_KAFS)] {
        assert_works(&format!("{when}: by {how}"), &alice.say(command));
        assert_works(&format!("{when}: a service, by {how}"), &cell::service(alice, command));
    }
}

pub(super) fn afs_both_clients_at_once(_: Client) {
    cell::load_kafs_beside();
    // `auto`: each that is there, by its own program.
    let mut alice = Session::ssh("alice", Proof::Password);
    assert_eq!(tokens(&mut alice), [KAFS, OPENAFS], "a login, with what is found: {}", journal("pam_pag"));
    assert_both_work("with what is found", &mut alice);

    // Each client's own tools end its own token, and no other.
    alice.say("unlog");
    assert_eq!(tokens(&mut alice), [KAFS], "after OpenAFS's unlog");
    assert_denied("by OpenAFS, after its unlog", &alice.say(cell::WRITE));
    assert_works("by kAFS, after OpenAFS's unlog", &alice.say(WRITE_BY_KAFS));
    alice.say("aklog");
    alice.say("keyctl unlink %rxrpc:afs@example.test @s");
    assert_eq!(tokens(&mut alice), [OPENAFS], "after the unlinking of kAFS's key");
    assert_works("by OpenAFS, after the unlinking of kAFS's key", &alice.say(cell::WRITE));
    assert_denied("by kAFS, after the unlinking of its key", &alice.say(WRITE_BY_KAFS));

    // A login misses what the other one has lost, of either client, and gets it for both.
    let mut second = Session::ssh("alice", Proof::Password);
    assert_eq!(tokens(&mut second), [KAFS, OPENAFS], "a second login gets what is missing");
    assert_both_work("the first login, after the second", &mut alice);
    second.log_out();

    // Ours ends both.
    assert_eq!(alice.say("pagctl unlog example.test"), "Discarded 2 tokens of cell example.test.\n");
    assert_denied("by OpenAFS, after pagctl unlog", &alice.say(cell::WRITE));
    assert_denied("by kAFS, after pagctl unlog", &alice.say(WRITE_BY_KAFS));
    // A further PAG is a PAG for both clients. A process that leaves its PAG leaves both.
    alice.say("aklog; aklog-kafs");
    let inside = "sh -c 'pagctl tokens >/dev/null; echo $?; aklog; aklog-kafs; pagctl tokens; exec pagctl unlog'";
    let said = alice.say(&format!("pagctl new -- {inside}"));
    assert!(said.starts_with("1\n") && said.contains("Discarded 2 tokens"), "pagctl new: {said}");
    assert_eq!(tokens(&mut alice), [KAFS, OPENAFS], "the PAG beside which pagctl new was");
    let said = alice.say(&format!("pagctl leave -- sh -c '{}; {WRITE_BY_KAFS}'", cell::WRITE));
    assert_eq!(said.matches("Permission denied").count(), 2, "pagctl leave: {said}");
    alice.log_out();
    cell::is_over("alice");

    // Either client can be left out. If the program of one fails, the other still gets its tokens.
    for (lines, wanted) in [
        ("client = openafs\n", &[OPENAFS][..]),
        ("client = kafs\n", &[KAFS]),
        ("client = openafs,kafs\n", &[KAFS, OPENAFS]),
        ("program = /bin/false\n", &[KAFS]),
        ("kafs_program = /bin/false\n", &[OPENAFS]),
    ] {
        cell::configure(lines);
        let mut alice = Session::ssh("alice", Proof::Password);
        assert_eq!(tokens(&mut alice), wanted, "with {lines}{}", journal("pam_pag"));
        let pags = u64::from(!lines.starts_with("client = kafs"));
        assert_eq!(cell::afs_pags(), pags, "PAGs of OpenAFS, with {lines}");
        alice.log_out();
        cell::is_over("alice");
    }
    heard("pam_pag", "/bin/false");
}
