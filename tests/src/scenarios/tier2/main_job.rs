//! The main job: a login's PAG reaches every user service.

use std::time::{Duration, Instant};

use crate::guest::{
    Proof, Session, assert_same, assert_token, eventually, manager_is, pags_of, run, seeder_runs, sh, ssh, uid,
};
use crate::ring::Ring;

pub(super) fn control_without_pam_pag(_: u32) {
    let mut alice = Session::ssh("alice", Proof::Password);
    let (shell, service) = (alice.ring(), alice.service_ring());
    assert_ne!(shell.identity(), service.identity(), "without us two rings are expected");
    for ring in [&shell, &service] {
        assert!(!ring.is_pag() && ring.keys.iter().all(|key| !key.name.starts_with("afs@")), "{ring:#?}");
    }
}

/// Writes unit files as a user does, and a bus name that starts one of them.
const UNITS: &str = r#"
mkdir -p ~/.config/systemd/user ~/.local/share/dbus-1/services
cat > ~/.config/systemd/user/probe-timer.service <<X
[Service]
Type=oneshot
ExecStart=/usr/local/bin/pag-probe %t/timer.ring
X
cat > ~/.config/systemd/user/probe-timer.timer <<X
[Timer]
OnActiveSec=100ms
AccuracySec=10ms
X
cat > ~/.config/systemd/user/probe-bus.service <<X
[Service]
Type=oneshot
ExecStart=/usr/local/bin/pag-probe %t/bus.ring
X
cat > ~/.local/share/dbus-1/services/test.Probe.service <<X
[D-BUS Service]
Name=test.Probe
Exec=/bin/false
SystemdService=probe-bus.service
X
systemctl --user daemon-reload
busctl --user call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig
"#;

fn ring_in(uid: u32, name: &str) -> Ring {
    let path = format!("/run/user/{uid}/{name}");
    Ring::parse(&eventually(&path, Duration::from_secs(10), || std::fs::read_to_string(&path).ok()))
}

pub(super) fn ssh_login_and_user_services_share_ring_and_token(_: u32) {
    for proof in [Proof::Password, Proof::Key] {
        everything_is_in_the_pag(proof);
    }
}

fn everything_is_in_the_pag(proof: Proof) {
    let mut alice = Session::ssh("alice", proof);
    let shell = alice.ring();
    assert!(shell.is_pag(), "{proof:?}: the shell is in no PAG: {shell:#?}");
    if matches!(proof, Proof::Key) {
        // No ticket came with the key; the user gets one, and tokens from it.
        alice.say("echo alicepw | KRB5CCNAME=/tmp/mine kinit && KRB5CCNAME=/tmp/mine keyring-aklog -c example.test");
    }
    assert_token("the shell", &alice.ring());
    alice.say(UNITS);
    alice.say("systemctl --user start probe-timer.timer");
    alice.say("timeout 3 busctl --user call test.Probe / test.Probe Nothing");
    let others = [
        ("a service", alice.service_ring()),
        ("a scope", Ring::parse(&alice.say("systemd-run --user --quiet --scope --collect pag-probe"))),
        ("a timer", ring_in(uid("alice"), "timer.ring")),
        ("a bus-activated service", ring_in(uid("alice"), "bus.ring")),
    ];
    for (what, ring) in &others {
        assert_same(&format!("{proof:?}: {what}"), &shell, ring);
        assert_token(&format!("{proof:?}: {what}"), ring);
    }
    let said = alice.say("systemd-run --user --quiet --wait --pipe --collect pagctl status --json");
    let status: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(status["mine"]["ring"], shell.identity().0, "{proof:?}: pagctl says which PAG a service is in: {said}");
    assert_eq!(status["mine"]["tokens"][0]["cell"], "example.test", "{proof:?}: and its tokens: {said}");
    assert!(status["all"].is_null(), "{proof:?}: and nothing of others: {said}");
    let ccache = others[0].1.ccache.clone().expect("the service has KRB5CCNAME");
    assert!(ccache.starts_with("DIR:/run/pag/ccache/61001/"), "{ccache}");
    if matches!(proof, Proof::Password) {
        the_ticket_outlives_its_login(alice, &ccache);
    } else {
        alice.log_out();
    }
    manager_is("alice", "inactive");
    eventually("the PAG has ended", Duration::from_secs(10), || pags_of("alice").is_empty().then_some(()));
}

/// A second login keeps the PAG; the first one, which brought the ticket, ends, and pam_krb5 deletes its ccache.
fn the_ticket_outlives_its_login(first: Session, ccache: &str) {
    let mut second = Session::ssh("alice", Proof::Key);
    assert_same("the second login", &second.ring(), &second.service_ring());
    first.log_out();
    eventually("the first login's ccache is gone", Duration::from_secs(5), || {
        sh("ls /tmp | grep -c '^krb5cc_61001_' || true").trim().eq("0").then_some(())
    });
    let list = second.say("systemd-run --user --quiet --wait --pipe --collect klist");
    assert!(list.contains(ccache.trim_start_matches("DIR:")), "{list}");
    assert!(list.contains("krbtgt/EXAMPLE.TEST@EXAMPLE.TEST"), "the service cannot use the PAG's ticket: {list}");
    assert_token("after the first login's end", &second.service_ring());
    assert_eq!(seeder_runs(), 1, "one seeder run for two logins");
    second.log_out();
}

pub(super) fn lingering_manager_is_joined_by_a_later_login(_: u32) {
    manager_is("alice", "active");
    let pags = pags_of("alice");
    assert_eq!(pags.len(), 1, "{pags:#?}");
    // A service from before any login; it answers when it is asked.
    let start = "systemd-run --quiet --machine=alice@ --user --unit=early --collect \
                 sh -c 'while ! test -e /run/user/61001/ask; do sleep 0.1; done; pag-probe /run/user/61001/early.ring; sleep 1000'";
    sh(start);
    let manager = sh("systemctl show -P MainPID user@61001.service");
    let mut alice = Session::ssh("alice", Proof::Password);
    let shell = alice.ring();
    assert_token("the shell", &shell);
    alice.say("touch /run/user/61001/ask");
    let early = ring_in(61001, "early.ring");
    assert_same("a service from before the login", &shell, &early);
    assert_token("a service from before the login", &early);
    assert_eq!(manager, sh("systemctl show -P MainPID user@61001.service"), "the manager was not restarted");
    alice.log_out();
    eventually("the tokens go with the last login", Duration::from_secs(15), || {
        let pags = pags_of("alice");
        (pags.len() == 1 && pags[0]["tokens"].as_array().is_some_and(Vec::is_empty)).then_some(())
    });
    let _ = ssh("alice", Proof::Key, "true");
}

pub(super) fn manager_from_before_is_adopted(_: u32) {
    // As on a host where pam_pag has just been installed: the manager was started without us.
    let stack = std::fs::read_to_string("/etc/pam.d/systemd-user").unwrap();
    let without: Vec<&str> = stack.lines().filter(|line| !line.contains("pam_pag")).collect();
    std::fs::write("/etc/pam.d/systemd-user", format!("{}\n", without.join("\n"))).unwrap();
    let mut alice = Session::ssh("alice", Proof::Password);
    std::fs::write("/etc/pam.d/systemd-user", &stack).unwrap();
    let (shell, before) = (alice.ring(), alice.service_ring());
    assert_token("the shell", &shell);
    assert!(!before.is_pag() && before.token("example.test").is_none(), "the manager is outside: {before:#?}");
    let refused = run("runuser", &["-u", "alice", "--", "pagctl", "adopt", "alice"]);
    assert!(!refused.status.success(), "only root lends tokens");
    // What alice's manager starts answers with a flood that has no line.
    let units = "~/.config/systemd/user/service.d";
    alice.say(&format!(
        "mkdir -p {units}; printf '[Service]\\nExecStart=\\nExecStart=/bin/cat /dev/zero\\n' >{units}/flood.conf; \
         systemctl --user daemon-reload"
    ));
    let begun = Instant::now();
    let flooded = run("pagctl", &["adopt", "alice"]);
    let (took, why) = (begun.elapsed(), String::from_utf8_lossy(&flooded.stderr).into_owned());
    assert!(!flooded.status.success() && why.contains("did not answer as it should"), "{why}");
    assert!(took < Duration::from_secs(8), "root listens to no flood of a user's manager, and did for {took:?}");
    alice.say(&format!("rm -r {units}; systemctl --user daemon-reload"));
    let outside = |count: u32| {
        // Here it has a lease, and pam_keyinit took it out again: the helper looks 3 s after the login.
        eventually(&format!("metrics count {count} managers outside"), Duration::from_secs(20), || {
            sh("pagctl metrics").contains(&format!("\npag_managers_outside {count}\n")).then_some(())
        });
    };
    outside(1);
    let preview = run("pagctl", &["adopt", "--all", "--dry-run"]);
    let words = String::from_utf8_lossy(&preview.stdout).into_owned();
    assert!(preview.status.code() == Some(1) && words.contains("user@61001.service of alice"), "{words}");
    outside(1);
    let said = sh("pagctl adopt --all");
    assert!(said.contains("has 1 tokens of PAG"), "every manager outside is adopted: {said}");
    outside(0);
    assert_eq!(sh("pagctl adopt --all"), "No user manager runs outside of its PAG.\n");
    let after = alice.service_ring();
    assert_eq!(after.identity(), before.identity(), "the manager keeps the keyring that it has");
    assert_eq!(
        after.token("example.test").map(|key| key.serial),
        shell.token("example.test").map(|key| key.serial),
        "an adopted manager's services find the token of the PAG: {after:#?}"
    );
    let ccache = after.ccache.clone().expect("services have KRB5CCNAME");
    assert!(ccache.starts_with("DIR:/run/pag/ccache/61001/"), "{ccache}");
    let masks = [&before, &after].map(|ring| ring.ring.as_ref().map_or("", |ring| &ring.mask));
    assert_eq!(masks, ["3f030000", "3f033f00"], "its keyring is open to its members and to root, as ours are");
    let leases = pags_of("alice")[0]["leases"].as_array().cloned().unwrap_or_default();
    assert!(leases.iter().any(|lease| lease["role"] == "manager" && lease["alive"] == true), "{leases:#?}");
    // A token that the PAG gets anew, as another key, and one that it loses.
    let key = |ring: &Ring| ring.token("example.test").map(|key| key.serial);
    alice.say("keyctl purge user afs@example.test; keyring-aklog -c example.test");
    let renewed = key(&alice.ring());
    assert!(renewed.is_some() && renewed != key(&shell), "another key");
    eventually("an adopted manager has the new token", Duration::from_secs(7), || {
        (key(&alice.service_ring()) == renewed).then_some(())
    });
    alice.say("keyctl purge user afs@example.test");
    eventually("and loses what the PAG has lost", Duration::from_secs(7), || {
        key(&alice.service_ring()).is_none().then_some(())
    });
    alice.say("keyring-aklog -c example.test");
    let said = sh("pagctl adopt --json alice");
    assert!(said.contains("has 1 tokens of PAG"), "once more: {said}");
    crate::schema::check("adopt", &serde_json::from_str(&said).unwrap());
    let again = pags_of("alice")[0]["leases"].as_array().map(Vec::len);
    assert_eq!(again, Some(leases.len()), "one lease, however often");
    alice.log_out();
    manager_is("alice", "inactive");
    eventually("the PAG ends with the adopted manager", Duration::from_secs(10), || {
        pags_of("alice").is_empty().then_some(())
    });
    assert!(!run("pagctl", &["adopt", "alice"]).status.success(), "without a manager there is nothing to adopt");
}
