//! The identity of a user's services on a booted machine: their user's own, under any name that a directory gives
//! the user, and another one only while it is the only one there.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::scope::{
    SOON, TWO_IDENTITIES, admin, configure, is_over, start_watcher, ticket_of_a_service, watcher_sees, whose,
};
use crate::guest::{Proof, Session, assert_same, assert_token, eventually, heard, manager_is, pags_of, sh};

pub(super) fn services_keep_to_their_users_identity(_: u32) {
    sh(TWO_IDENTITIES);
    // The other identity comes first, and starts the manager.
    let mut second = admin();
    start_watcher(&mut second);
    watcher_sees("alice/admin", "the only login there is", SOON);
    assert_ne!(second.ring().identity(), second.service_ring().identity(), "services are not in its PAG");
    heard("pam_pag", "alice/admin@EXAMPLE.TEST is not known as an identity of alice's own (uid 61001)");
    let mut first = Session::ssh("alice", Proof::Password);
    watcher_sees("alice", "the user's own identity has come", SOON);
    assert_same("a service and the user's own login", &first.ring(), &first.service_ring());
    assert_eq!(ticket_of_a_service(&mut first), "alice@EXAMPLE.TEST", "with the user's own ticket");
    assert_eq!(whose(&second.ring()), "alice/admin", "the other one has its own");
    second.log_out();
    eventually("the other identity's PAG ends with its login", Duration::from_secs(5), || {
        (pags_of("alice").len() == 1).then_some(())
    });
    watcher_sees("alice", "the other identity has gone", SOON);

    // It comes second, and the user's own goes first.
    let second = admin();
    watcher_sees("alice", "the other identity has come", SOON);
    first.log_out();
    watcher_sees("alice/admin", "the other one is the only one left", Duration::from_secs(5));
    second.log_out();
    watcher_sees("nobody", "all have gone", SOON);
    is_over();

    // It comes alone, and the manager lingers.
    sh("loginctl enable-linger alice");
    manager_is("alice", "active");
    let mut second = admin();
    start_watcher(&mut second);
    watcher_sees("alice/admin", "the only login there is, once more", SOON);
    second.log_out();
    watcher_sees("nobody", "it has gone, and the manager stays", SOON);
    assert_eq!(sh("find /run/pag/ccache/61001 -name tkt"), "", "no ticket of it is left to services");
    let pags = pags_of("alice");
    assert!(pags.len() == 1 && pags[0]["principal"].is_null(), "nor is its name: {pags:#?}");
    sh("loginctl disable-linger alice");
    is_over();
}

/// Accounts as sssd and winbind name them, with what the tests call them by their uids.
const ACCOUNTS: [(&str, &str, u32); 3] =
    [(r"EXAMPLE\alice", "u50", 61150), ("alice@example.test", "u51", 61151), (r"DOM\alice", "u52", 61152)];

pub(super) fn accounts_of_directories_have_their_tickets(_: u32) {
    configure("[pag]\nretain = none\n");
    for (name, alias, uid) in ACCOUNTS {
        sh(&format!(
            "printf '%s\\n' '{name}:x:{uid}:{uid}::/home/{alias}:/bin/bash' >> /etc/passwd
             printf '%s\\n' '{name}:*:19000::::::' >> /etc/shadow
             cp -r /home/alice /home/{alias}; chown -R {uid}:{uid} /home/{alias}; loginctl enable-linger {uid}
             printf 'Host %s\\n\\tHostName 127.0.0.1\\n\\tUser %s\\n' {alias} '{name}' >> /root/.ssh/config"
        ));
        manager_is(alias, "active");
    }
    let mut sessions = ACCOUNTS.map(|(name, alias, _)| {
        // By the client's configuration file: OpenSSH 10.6 refuses a backslash in a name on its command line.
        let mut session = Session::start(Command::new("ssh").args(["-q", alias, "sh"]));
        assert_eq!(session.say("echo alicepw | kinit alice@EXAMPLE.TEST >/dev/null"), "", "{name}");
        session
    });
    let soon = Duration::from_secs(25);
    let has_token = |session: &mut Session| {
        let ring = session.service_ring();
        ring.token("example.test").is_some().then_some(ring)
    };
    for ((name, ..), session) in ACCOUNTS.iter().zip(&mut sessions).take(2) {
        let ring = eventually(&format!("a kinit of {name} brings its services a token"), soon, || has_token(session));
        assert_same(&format!("login and services of {name}"), &session.ring(), &ring);
    }
    heard("pag-logind-helper", r"alice@EXAMPLE.TEST is not known as an identity of DOM\alice's own (uid 61152)");
    let [.., dom] = &mut sessions;
    assert!(has_token(dom).is_none(), "what DOM stands for nobody has said");
    configure("[pag]\nretain = none\n[user DOM\\alice]\nidentity = %u@EXAMPLE.TEST\n");
    assert_eq!(dom.say("echo alicepw | kinit alice@EXAMPLE.TEST >/dev/null"), "");
    assert_token("a service, once the option says it", &eventually("the option counts", soon, || has_token(dom)));

    // They linger, under names that systemd escapes. Their tokens end at once with the last login.
    for ((name, alias, uid), mut session) in ACCOUNTS.into_iter().zip(sessions) {
        let script = format!("while ! test -e /tmp/ask; do sleep 0.1; done; pag-probe /tmp/{uid}.ring");
        session.say(&format!("systemd-run --user --quiet --collect sh -c '{script}'"));
        session.log_out();
        eventually("the login's lease has ended", Duration::from_secs(10), || {
            super::logins::logins(alias).is_empty().then_some(())
        });
        heard("pam_pag", &format!("of {name} (uid {uid}): its last login is gone, and the user manager stays"));
        assert!(!fs::exists(format!("/var/lib/systemd/linger/{name}")).unwrap() || !name.contains('\\'), "{name}");
    }
    fs::write("/tmp/ask", "").unwrap();
    for (name, _, uid) in ACCOUNTS {
        let ring = super::logins::ring_at(&format!("/tmp/{uid}.ring"));
        assert!(ring.is_pag() && ring.token("example.test").is_none(), "{name} lingers without a token: {ring:#?}");
        sh(&format!("loginctl disable-linger {uid}"));
    }
}
