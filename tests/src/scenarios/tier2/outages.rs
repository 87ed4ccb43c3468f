//! Outages that logins survive: the helper, logind and the bus stop and come back.

use std::time::Duration;

use serde_json::Value;

use super::logins::{kill, logins};
use crate::guest::{Proof, Session, assert_same, assert_token, eventually, heard, journal, pags_of, run, sh, uid};
use crate::ring::Ring;

/// The helper's process, once it says that it is ready.
pub(super) fn helper() -> String {
    eventually("the helper is ready", Duration::from_secs(20), || {
        let output = run("systemctl", &["show", "-P", "ActiveState", "-P", "MainPID", "pag-logind-helper"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let pid = text.lines().find(|line| line.parse::<u32>().is_ok_and(|pid| pid > 0))?.to_owned();
        text.lines().any(|line| line == "active").then_some(pid)
    })
}

/// Waits until logind is on the bus again.
pub(super) fn bus_is_back() {
    eventually("logind is on the new bus", Duration::from_secs(20), || {
        run("busctl", &["--system", "status", "org.freedesktop.login1"]).status.success().then_some(())
    });
}

/// An earlier login keeps its PAG, a new one joins it, and services see the same as both.
fn nothing_is_lost(when: &str, alice: &mut Session, ring: &Ring) {
    assert_same(&format!("{when}: the old login"), ring, &alice.ring());
    let mut new = Session::ssh("alice", Proof::Key);
    for (what, seen) in [("a new login", new.ring()), ("a service", new.service_ring())] {
        assert_same(&format!("{when}: {what}"), ring, &seen);
        assert_token(&format!("{when}: {what}"), &seen);
    }
    new.log_out();
    eventually(&format!("{when}: the new login's lease ends"), Duration::from_secs(10), || {
        (logins("alice").len() == 1).then_some(())
    });
}

pub(super) fn helper_logind_and_bus_restarts_lose_nothing(_: u32) {
    let mut alice = Session::ssh("alice", Proof::Password);
    let ring = alice.ring();
    assert_token("the first login", &ring);
    let first = helper();
    sh("systemctl kill -s KILL pag-logind-helper");
    eventually("the helper is another process", Duration::from_secs(10), || (helper() != first).then_some(()));
    nothing_is_lost("the helper was killed", &mut alice, &ring);
    sh("systemctl restart systemd-logind");
    nothing_is_lost("logind was restarted", &mut alice, &ring);
    let before = journal("pag-logind-helper").matches("connected to logind").count();
    // Not every logind finds a new bus by itself.
    sh("systemctl restart dbus systemd-logind");
    bus_is_back();
    nothing_is_lost("the bus was restarted", &mut alice, &ring);
    eventually("the helper is on the new bus", Duration::from_secs(60), || {
        (journal("pag-logind-helper").matches("connected to logind").count() > before).then_some(())
    });

    std::fs::write("/etc/pag/pag.conf.d/zz-wrong.conf", "[pag]\nflavour = sweet\n").unwrap();
    sh("systemctl reload pag-logind-helper");
    heard("pag-logind-helper", "/etc/pag/pag.conf.d/zz-wrong.conf:2: unknown option 'flavour'");
    sh("rm /etc/pag/pag.conf.d/zz-wrong.conf; systemctl reload pag-logind-helper");
    nothing_is_lost("the helper was told to reload", &mut alice, &ring);

    sh("systemctl stop pag-logind-helper");
    let mut bob = Session::ssh("bob", Proof::Password);
    assert_token("bob, without a helper", &bob.ring());
    assert_same("bob, without a helper", &bob.ring(), &bob.service_ring());
    let old = logins("alice");
    let second = Session::ssh("alice", Proof::Key);
    let new: Vec<i64> = logins("alice").into_iter().filter(|pid| !old.contains(pid)).collect();
    assert_eq!(new.len(), 1, "{old:?} {new:?}");
    kill(new[0]);
    sh("systemctl start pag-logind-helper");
    let reaped = eventually("the login that died meanwhile is reaped", Duration::from_secs(5), || {
        let left = logins("alice");
        (left == old).then_some(left)
    });
    assert_eq!(reaped.len(), 1);
    heard("pag-logind-helper", "1 leases of PAG");
    for user in ["alice", "bob"] {
        let pags = pags_of(user);
        assert_eq!(pags.len(), 1, "{pags:#?}");
        let leases = pags[0]["leases"].as_array().cloned().unwrap_or_default();
        let is = |role: &str| leases.iter().filter(|lease| lease["role"] == role && lease["alive"] == true).count();
        assert_eq!((leases.len(), is("login"), is("manager")), (2, 1, 1), "{leases:#?}");
        let cells: Vec<&Value> = pags[0]["tokens"].as_array().into_iter().flatten().map(|t| &t["cell"]).collect();
        assert_eq!(cells, ["example.test"], "{pags:#?}");
        assert_eq!(pags[0]["uid"], uid(user));
    }
    drop(second);
    assert_same("alice, at last", &ring, &alice.ring());
    assert_token("alice, at last", &alice.ring());
}
