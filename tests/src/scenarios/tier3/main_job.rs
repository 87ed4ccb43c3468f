//! The main job with homes in AFS: what systemd starts for a user reads and writes the home.

use std::time::Duration;

use super::Client;
use crate::cell::{self, assert_denied, assert_works};
use crate::guest::{Proof, Session, assert_same, eventually, heard, journal, manager_is, pags_of, sh};

/// Units in the home, a timer, and a bus name that starts one of them.
const UNITS: &str = r#"
cat > ~/.config/systemd/user/mine.service <<X
[Service]
Type=oneshot
ExecStart=sh -c 'echo by the unit > ~/by-unit'
[Install]
WantedBy=default.target
X
cat > ~/.config/systemd/user/tick.service <<X
[Service]
Type=oneshot
ExecStart=sh -c 'echo by the timer > ~/by-timer'
X
cat > ~/.config/systemd/user/tick.timer <<X
[Timer]
OnActiveSec=100ms
AccuracySec=10ms
X
cat > ~/.config/systemd/user/called.service <<X
[Service]
Type=oneshot
ExecStart=sh -c 'echo by the bus > ~/by-bus'
X
cat > ~/.local/share/dbus-1/services/test.Called.service <<X
[D-BUS Service]
Name=test.Called
Exec=/bin/false
SystemdService=called.service
X
systemctl --user daemon-reload
systemctl --user --quiet enable mine.service
"#;

pub(super) fn afs_services_work_in_the_home(client: Client) {
    let mut alice = Session::ssh("alice", Proof::Password);
    assert_eq!(alice.say("cat ~/secret"), "a secret of alice's\n", "the shell reads the home");
    assert_eq!(cell::service(&mut alice, "cat ~/secret"), "a secret of alice's\n", "a service reads the home");
    assert_works("a service", &cell::service(&mut alice, cell::WRITE));
    assert_same("a service", &alice.ring(), &alice.service_ring());
    assert_eq!(cell::denials("alice"), [""; 0], "nothing was denied to the manager");
    alice.say(UNITS);
    alice.log_out();
    cell::is_over("alice");

    // A manager that starts now finds its units in the home.
    let by_ticket = cell::ticket();
    for (proof, last) in [(Proof::Password, false), (by_ticket, true)] {
        let mut alice = Session::ssh("alice", proof);
        cell::written("alice", &mut alice, "by-unit", "a unit of the home, at the manager's start");
        alice.say("systemctl --user start tick.timer");
        cell::written("alice", &mut alice, "by-timer", "a timer");
        alice.say("timeout 5 busctl --user call test.Called / test.Called Nothing");
        cell::written("alice", &mut alice, "by-bus", "a bus-activated service");
        assert_eq!(cell::denials("alice"), [""; 0], "nothing was denied to the manager of a login by {proof:?}");
        if last {
            assert_token_is(client);
        }
        alice.say("rm ~/by-*");
        alice.log_out();
        cell::is_over("alice");
    }
}

fn assert_token_is(client: Client) {
    let pags = pags_of("alice");
    assert_eq!(pags[0]["tokens"][0]["client"], client.name(), "{pags:#?}");
    assert_eq!(pags[0]["tokens"][0]["cell"], "example.test", "{pags:#?}");
}

pub(super) fn afs_a_late_token_reaches_what_runs(client: Client) {
    let mut alice = Session::ssh("alice", Proof::Key);
    assert!(alice.ring().is_pag(), "a login without a ticket has a PAG");
    assert_denied("the shell, without a ticket", &alice.say("cat ~/secret"));
    assert_denied("a service, without a ticket", &cell::service(&mut alice, "cat ~/secret"));
    // It was there before, and answers when it is asked.
    alice.say(
        "systemd-run --user --quiet --unit=early --collect sh -c \
         'while ! test -e /run/user/61001/ask; do sleep 0.2; done; touch ~/early && touch /run/user/61001/early-ok'",
    );
    let said = alice.say(&format!("echo alicepw | kinit >/dev/null && {} && cat ~/secret", client.seeder()));
    assert_eq!(said, "a secret of alice's\n", "kinit and {}, by hand", client.seeder());
    alice.say("touch /run/user/61001/ask");
    eventually("a service from before writes the home", Duration::from_secs(20), || {
        std::fs::exists("/run/user/61001/early-ok").is_ok_and(|there| there).then_some(())
    });
    // A manager that was started without a ticket finds the units of the home when it is told to reload, and so does
    // the bus.
    alice.say(UNITS);
    alice.say("systemctl --user start tick.timer");
    cell::written("alice", &mut alice, "by-timer", "a timer, after a late token");
    alice.say("busctl --user call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig");
    alice.say("timeout 5 busctl --user call test.Called / test.Called Nothing");
    cell::written("alice", &mut alice, "by-bus", "a bus-activated service, after a late token");
    // The end of the last login is also the end of these tokens: no other session had asked for them.
    alice.log_out();
    cell::is_over("alice");
    assert_denied("root", &cell::as_root("cat /afs/example.test/user/alice/secret"));
}

pub(super) fn afs_logins_share_and_the_last_one_ends(client: Client) {
    let mut first = Session::ssh("alice", Proof::Password);
    let mut second = Session::ssh("alice", Proof::Password);
    assert_same("the second login", &first.ring(), &second.ring());
    let seeded = journal("pam_pag").matches("got tokens").count();
    assert_eq!(seeded, 1, "one seeder for two logins: {}", journal("pam_pag"));
    // Out of the login's control group, so that nothing but `retain` decides about it.
    second.say("systemd-run --user --quiet --scope --unit=left sh -c 'sleep 600' >/dev/null 2>&1 &");
    let mut bob = Session::ssh("bob", Proof::Password);
    for (who, session, own, other) in [("alice", &mut second, "alice", "bob"), ("bob", &mut bob, "bob", "alice")] {
        assert_works(who, &session.say(cell::WRITE));
        assert_works(&format!("a service of {who}'s"), &cell::service(session, cell::WRITE));
        let theirs = cell::home(other);
        assert_denied(&format!("{own} in the home of {other}"), &session.say(&format!("cat {theirs}/secret")));
        let said = cell::service(session, &format!("cat {theirs}/secret"));
        assert_denied(&format!("a service of {own}'s in the home of {other}"), &said);
    }
    bob.log_out();
    first.log_out();
    eventually("one login of alice's is left", Duration::from_secs(20), || {
        let leases = pags_of("alice")[0]["leases"].as_array().cloned().unwrap_or_default();
        (leases.iter().filter(|lease| lease["role"] == "login").count() == 1).then_some(())
    });
    assert_works("the login that stays", &second.say(cell::WRITE));
    assert_works("its services", &cell::service(&mut second, cell::WRITE));
    second.log_out();
    cell::is_over("alice");
    heard("pag-logind-helper", "of alice (uid 61001); its tokens were discarded");
    if client == Client::OpenAfs {
        eventually("no PAG of OpenAFS is left", Duration::from_secs(10), || (cell::afs_pags() == 0).then_some(()));
    }
}

pub(super) fn afs_a_lingering_manager_gets_the_tokens(_: Client) {
    sh("mkdir -p /var/lib/systemd/linger && loginctl enable-linger alice");
    manager_is("alice", "active");
    assert!(!cell::denials("alice").is_empty(), "without a ticket the home is closed to the manager, too");
    let start = "systemd-run --quiet --machine=alice@ --user --unit=early --collect sh -c \
                 'while ! test -e /run/user/61001/ask; do sleep 0.2; done; touch ~/early && touch /run/user/61001/early-ok; \
                 while ! test -e /run/user/61001/late; do sleep 0.2; done; \
                 { touch ~/late && echo written || echo refused; } >/run/user/61001/said; sleep 600'";
    sh(start);
    let mut alice = Session::ssh("alice", Proof::Password);
    assert_works("the login", &alice.say(cell::WRITE));
    alice.say("touch /run/user/61001/ask");
    eventually("a service from before writes the home", Duration::from_secs(20), || {
        std::fs::exists("/run/user/61001/early-ok").is_ok_and(|there| there).then_some(())
    });
    alice.log_out();
    eventually("the tokens go with the last login", Duration::from_secs(30), || {
        let pags = pags_of("alice");
        (pags.len() == 1 && pags[0]["tokens"].as_array().is_some_and(Vec::is_empty)).then_some(())
    });
    // Asked by a file: systemd-run would log in for it, and be a login with tokens.
    std::fs::write("/run/user/61001/late", "").unwrap();
    let said = eventually("the lingering manager's service answers", Duration::from_secs(20), || {
        std::fs::read_to_string("/run/user/61001/said").ok().filter(|said| said.ends_with('\n'))
    });
    assert_eq!(said, "refused\n", "the lingering manager's services, after the last login");
}

pub(super) fn afs_outages_lose_nothing(_: Client) {
    let mut alice = Session::ssh("alice", Proof::Password);
    let mut other = Session::ssh("alice", Proof::Key);
    sh("systemctl kill -s KILL pag-logind-helper");
    assert_works("with the helper killed", &alice.say(cell::WRITE));
    assert_works("a service, with the helper killed", &cell::service(&mut alice, cell::WRITE));
    sh("systemctl stop pag-logind-helper");
    let mut bob = Session::ssh("bob", Proof::Password);
    assert_works("a login without a helper", &bob.say(cell::WRITE));
    assert_works("a service of it", &cell::service(&mut bob, cell::WRITE));
    bob.log_out();
    sh("systemctl start pag-logind-helper");
    cell::is_over("bob");
    // The leader of the login that brought the ticket.
    let pags = pags_of("alice");
    let leases = pags[0]["leases"].as_array().cloned().unwrap_or_default();
    let leader = leases.iter().find(|lease| lease["role"] == "login").and_then(|lease| lease["pid"].as_i64()).unwrap();
    sh(&format!("kill -9 {leader}"));
    eventually("the killed login is reaped", Duration::from_secs(20), || {
        let left = pags_of("alice")[0]["leases"].as_array().map_or(0, Vec::len);
        (left == leases.len() - 1).then_some(())
    });
    assert_works("the login that stays", &other.say(cell::WRITE));
    assert_works("its services", &cell::service(&mut other, cell::WRITE));
}

pub(super) fn afs_root_and_strangers_are_refused(_: Client) {
    let mut alice = Session::ssh("alice", Proof::Password);
    assert_works("alice", &alice.say(cell::WRITE));
    let secret = "cat /afs/example.test/user/alice/secret";
    for (who, command) in [
        ("root", secret.to_owned()),
        ("su - root", format!("su - root -c '{secret}'")),
        ("a service of root's", format!("systemd-run --quiet --wait --pipe --collect {secret}")),
        (
            "a service of root's with KeyringMode=shared",
            format!("systemd-run --quiet --wait --pipe --collect -p KeyringMode=shared {secret}"),
        ),
        ("a uid that root becomes", format!("setpriv --reuid=61001 --regid=61001 --clear-groups {secret}")),
        ("the same uid outside the PAG", format!("runuser -u alice -- {secret}")),
    ] {
        assert_denied(who, &cell::as_root(&command));
    }
    // su without `-` changes the uid, but neither the PAG nor its rights: AFS does not look at the uid.
    let mut bob = Session::ssh("bob", Proof::Password);
    let said = bob.say(&format!(
        "echo alicepw | su alice -c 'id -un; cat {}/secret; cat {}/secret' 2>&1 | grep -v Password",
        cell::home("bob"),
        cell::home("alice")
    ));
    assert!(said.contains("alice\na secret of bob's\n"), "su: bob's PAG reads bob's home: {said}");
    assert_denied("su: alice's uid in bob's PAG", &said);
    bob.log_out();
    // A caller of `su -` gets nothing of the other user's, who is in their own PAG.
    let said = alice.say(&format!("echo bobpw | su - bob -c 'cat {}/secret' 2>/dev/null", cell::home("bob")));
    assert_eq!(said, "a secret of bob's\n", "su - with a password is a login of bob's");
    assert_denied("alice, after su - bob", &alice.say(&format!("cat {}/secret", cell::home("bob"))));
    assert_works("alice, after su - bob", &alice.say(cell::WRITE));
}
