//! A user manager from before the installation, on the cell.

use std::fs;
use std::time::Duration;

use super::Client;
use crate::cell::{self, WRITE, assert_denied, assert_works};
use crate::guest::{Proof, Session, eventually, manager_is, sh};

/// How soon a token that was got anew, as another key, is with the services: the helper looks every 5 s.
const LOOKED_AT: Duration = Duration::from_secs(7);

pub(super) fn afs_manager_from_before_is_adopted(client: Client) {
    let stack = fs::read_to_string("/etc/pam.d/systemd-user").unwrap();
    let without: Vec<&str> = stack.lines().filter(|line| !line.contains("pam_pag")).collect();
    fs::write("/etc/pam.d/systemd-user", format!("{}\n", without.join("\n"))).unwrap();
    let mut alice = Session::ssh("alice", Proof::Password);
    fs::write("/etc/pam.d/systemd-user", &stack).unwrap();
    assert_works("the login", &alice.say(WRITE));
    assert_denied("a service of the manager from before", &cell::service(&mut alice, WRITE));
    // One that goes on: it is not restarted, either.
    alice.say("systemd-run --user --quiet --unit=before sh -c 'while sleep 0.2; do mktemp ~/new.XXXXXX >/run/user/61001/last; done'");
    let pids = || {
        sh(
            "systemctl show -P MainPID user@61001; cat /proc/$(pgrep -u alice -f 'while sleep 0.2' | head -1)/stat | cut -d' ' -f1,22",
        )
    };
    let before = pids();

    let said = sh("pagctl adopt alice");
    assert!(said.contains("of PAG"), "{said}");
    assert_works("a service, adopted", &cell::service(&mut alice, WRITE));
    let last = || fs::read_to_string("/run/user/61001/last").unwrap_or_default();
    eventually("a service that ran before works, too", Duration::from_secs(5), || {
        last().contains("/new.").then_some(())
    });
    assert_eq!(pids(), before, "nothing was restarted");
    if client == Client::OpenAfs {
        assert_eq!(cell::afs_pags(), 1, "there is one `_pag` for PAG and manager");
    }

    alice.say("pagctl unlog");
    eventually("services lose what the PAG has lost", LOOKED_AT, || {
        cell::service(&mut alice, WRITE).contains("Permission denied").then_some(())
    });
    alice.say(client.seeder());
    assert_works("the login again", &alice.say(WRITE));
    eventually("services have the new token", LOOKED_AT, || {
        cell::service(&mut alice, WRITE).contains("written").then_some(())
    });
    // A member of either empties its keyring: on OpenAFS S0 is linked anew, on kAFS there is a new token.
    alice.say("keyctl clear @s");
    eventually("the login works after its ring was emptied and healed", Duration::from_secs(40), || {
        alice.say(WRITE).contains("written").then_some(())
    });
    eventually("and services do", LOOKED_AT, || cell::service(&mut alice, WRITE).contains("written").then_some(()));

    alice.log_out();
    manager_is("alice", "inactive");
    cell::is_over("alice");
    if client == Client::OpenAfs {
        eventually("no PAG of OpenAFS is left", Duration::from_secs(10), || (cell::afs_pags() == 0).then_some(()));
    }
    // The next manager is in the PAG by itself.
    let mut alice = Session::ssh("alice", Proof::Password);
    assert_works("a service of the next manager", &cell::service(&mut alice, WRITE));
}
