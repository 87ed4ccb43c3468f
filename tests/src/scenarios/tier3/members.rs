//! Members and their PAG: the tools that AFS users know, and what one member can do to the others.

use std::time::Duration;

use super::Client;
use crate::cell::{self, assert_denied, assert_works};
use crate::guest::{Proof, Session, assert_same, eventually, heard};

pub(super) fn afs_a_member_cuts_and_it_is_healed(client: Client) {
    let mut alice = Session::ssh("alice", Proof::Password);
    let mut other = Session::ssh("alice", Proof::Key);
    let ring = other.ring();
    assert_works("the other login", &other.say(cell::WRITE));
    // `keyctl clear` first looks the ring up by @s, so it works for every member.
    let mut cuts = vec!["keyctl clear @s"];
    if client == Client::OpenAfs {
        cuts.push("keyctl invalidate %afs_pag:_pag");
        cuts.push("for key in $(keyctl rlist @s); do keyctl invalidate $key; done");
    }
    for cut in cuts {
        let said = alice.say(cut);
        assert_denied(&format!("right after '{cut}' ({said})"), &alice.say(cell::WRITE));
        eventually(&format!("a service works again after '{cut}'"), Duration::from_secs(40), || {
            cell::service(&mut other, cell::WRITE).contains("written").then_some(())
        });
        assert_works(&format!("the other login after '{cut}'"), &other.say(cell::WRITE));
        assert_same(&format!("the ring after '{cut}'"), &ring, &other.ring());
    }
    if client == Client::OpenAfs {
        heard("pag-logind-helper", "its tokens of OpenAFS, which a member had cut, are there again");
        heard("pag-logind-helper", "it has a new PAG of OpenAFS");
        assert_eq!(cell::afs_pags(), 1, "there is never a second `_pag` for a PAG");
    }
}

/// OpenAFS's `tokens` about the cell.
const OURS: &str = "tokens for example.test";

pub(super) fn afs_tools_do_what_they_say(client: Client) {
    let mut alice = Session::ssh("alice", Proof::Password);
    let mut other = Session::ssh("alice", Proof::Key);
    let secret = "cat ~/secret";
    match client {
        Client::OpenAfs => {
            assert!(alice.say("tokens").contains(OURS), "{}", alice.say("tokens"));
            alice.say("unlog");
            assert!(!other.say("tokens").contains(OURS), "unlog is for all members");
            assert_denied("a service after unlog", &cell::service(&mut other, cell::WRITE));
            alice.say("aklog");
            assert_works("another login after aklog", &other.say(cell::WRITE));
            assert_works("a service after aklog", &cell::service(&mut other, cell::WRITE));
            // A PAG beside ours, with the tools of OpenAFS.
            let said = alice.say("pagsh -c 'tokens; aklog; tokens; unlog; tokens'");
            assert_eq!(said.matches(OURS).count(), 1, "pagsh has tokens of its own: {said}");
            assert_works("the PAG beside which pagsh was", &alice.say(cell::WRITE));
            // Without -force aklog does nothing if the process has the same token already, and makes no PAG.
            let said = alice.say("sh -c 'aklog -setpag -force; tokens; unlog; tokens'");
            assert_eq!(said.matches(OURS).count(), 1, "aklog -setpag, then unlog: {said}");
            assert_works("the PAG that aklog -setpag has left", &alice.say(cell::WRITE));
        }
        Client::Kafs => {
            let said = alice.say("aklog-kafs >/dev/null && echo got");
            assert!(said.contains("got"), "aklog-kafs: {said}");
            assert_works("a service after aklog-kafs", &cell::service(&mut other, cell::WRITE));
            alice.say("keyctl unlink %rxrpc:afs@example.test @s");
            assert_denied("another login after the token's unlinking", &other.say(cell::WRITE));
            alice.say("aklog-kafs");
            assert_works("another login after aklog-kafs", &other.say(cell::WRITE));
            // A revoked key differs from none: kAFS then answers with an error. In a PAG that is not renewed.
            let said =
                alice.say("pagctl new -- sh -c 'aklog-kafs; keyctl revoke %rxrpc:afs@example.test; pagctl tokens'");
            assert!(said.contains("revoked"), "a revoked token: {said}");
            let said = alice.say(
                "pagctl new -- sh -c 'export KRB5CCNAME=FILE:/run/user/61001/short; echo alicepw | kinit -l 20s >/dev/null; \
                 aklog-kafs; pagctl tokens; sleep 21; pagctl tokens'",
            );
            let (before, after) =
                said.split_once("CELL").and_then(|(_, rest)| rest.split_once("CELL")).unwrap_or_default();
            assert!(before.contains("good") && after.contains("expired"), "an expired token: {said}");
        }
        Client::None => unreachable!("it is run on clients"),
    }
    // The ticket and the token are two things.
    alice.say("kdestroy");
    assert_works("after kdestroy", &alice.say(cell::WRITE));
    assert!(alice.say("klist 2>&1").contains("No credentials cache found"), "kdestroy: {}", alice.say("klist"));

    // The same by our own words, on either client.
    assert!(alice.say("pagctl tokens").contains("example.test"), "{}", alice.say("pagctl tokens"));
    assert_works("pagctl unlog", &alice.say("pagctl unlog example.test && echo written"));
    assert_denied("a service after pagctl unlog", &cell::service(&mut other, cell::WRITE));
    let said = alice.say("pagctl tokens >/dev/null; echo $?");
    assert_eq!(said, "1\n", "no tokens: that is its exit status");
    let said =
        alice.say(&format!("pagctl new -- sh -c 'echo alicepw | kinit >/dev/null; {}; {secret}'", client.seeder()));
    assert!(said.contains("a secret of alice's"), "pagctl new, then a token: {said}");
    assert_denied("the PAG beside which pagctl new was", &alice.say(cell::WRITE));
    let said = alice.say(&format!("echo alicepw | kinit >/dev/null; {}; {secret}", client.seeder()));
    assert!(said.contains("a secret of alice's"), "a token by hand: {said}");
    assert_denied("pagctl leave", &alice.say(&format!("pagctl leave -- sh -c '{}'", cell::WRITE)));
    // For kAFS each session keyring is a PAG, also that of a process that has left.
    let outside = if client == Client::OpenAfs { "1\n" } else { "0\n" };
    assert_eq!(alice.say("pagctl leave -- pagctl id >/dev/null 2>&1; echo $?"), outside, "what pagctl id says outside");
    assert_works("the PAG that a child has left", &alice.say(cell::WRITE));
}
