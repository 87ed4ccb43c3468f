//! The behaviour of today's tools, so that the comparison stays true: pam_krb5, pam_afs_session, aklog.

use crate::cell::{self, home};
use crate::guest::{Proof, Session, run};

use super::Client;

pub(super) fn afs_control_without_pam_pag(client: Client) {
    cell::todays_module();
    let refused = run("ls", &[&home("alice")]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("Permission denied"), "root has no token: {error}");

    let mut alice = Session::ssh("alice", Proof::Password);
    match client {
        Client::OpenAfs => {
            assert_eq!(alice.say("cat ~/secret"), "a secret of alice's\n", "the shell has a token");
            assert!(
                alice.say("tokens").contains("tokens for example.test"),
                "the shell has a token: {}",
                alice.say("tokens")
            );
        }
        Client::Kafs => {
            cell::assert_denied("the shell: pam_afs_session takes AFS for absent", &alice.say("cat ~/secret"));
            let said = alice.say("aklog-kafs && cat ~/secret");
            assert_eq!(said, "a secret of alice's\n", "a token by hand helps the shell");
        }
        Client::None => unreachable!("it is run on clients"),
    }
    cell::assert_denied("a user service", &cell::service(&mut alice, "cat ~/secret"));

    // The manager looked for its units when it started, and so found none of those in the home.
    assert_eq!(alice.say("printf '[Service]\nExecStart=true\n' > ~/.config/systemd/user/mine.service"), "");
    let said = alice.say("systemctl --user daemon-reload; systemctl --user start mine");
    assert!(said.contains("mine.service not found"), "the manager can't see a unit in the home: {said}");
    let denials = cell::denials("alice");
    assert!(!denials.is_empty(), "the manager's journal tells of no denial");
    println!("{} denials in the manager's journal, as: {}", denials.len(), denials[0]);
    alice.log_out();
}
