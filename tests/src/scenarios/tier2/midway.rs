//! Events in the middle of a login: the helper, logind or the bus stops, or the login itself is killed.

use std::fs;
use std::thread;
use std::time::Duration;

use super::logins::{ccaches, kill, logins};
use super::long;
use super::outages::{bus_is_back, helper};
use crate::gate::{self, Gate};
use crate::guest::{
    Proof, Session, assert_same, assert_token, eventually, journal, key_count, knock, manager_is, pags_of, run, sh, uid,
};
use crate::ring::Ring;

#[derive(Debug, Clone, Copy)]
enum Outage {
    HelperKilled,
    HelperRestarted,
    LogindKilled,
    LogindRestarted,
    BusRestarted,
}

impl Outage {
    const ALL: [Outage; 5] = [
        Outage::HelperKilled,
        Outage::HelperRestarted,
        Outage::LogindKilled,
        Outage::LogindRestarted,
        Outage::BusRestarted,
    ];

    /// Makes it happen. A killed process need not be back yet.
    fn happen(self) {
        match self {
            Outage::HelperKilled => sh("systemctl kill -s KILL pag-logind-helper"),
            Outage::HelperRestarted => sh("systemctl restart pag-logind-helper"),
            Outage::LogindKilled => sh("systemctl kill -s KILL systemd-logind"),
            Outage::LogindRestarted => sh("systemctl restart systemd-logind"),
            Outage::BusRestarted => sh("systemctl restart dbus systemd-logind"),
        };
        if matches!(self, Outage::BusRestarted) {
            bus_is_back();
        }
    }
}

/// A service of the user's manager, even if no logind has given the session its environment.
fn service_ring(session: &mut Session) -> Ring {
    let run = "XDG_RUNTIME_DIR=/run/user/$(id -u) systemd-run --user --quiet --wait --pipe --collect pag-probe";
    Ring::parse(&session.say(run))
}

/// Nothing is left of alice: no manager, no PAG, no process, no ccache.
fn all_is_over(when: &str) {
    manager_is("alice", "inactive");
    eventually(&format!("{when}: the PAG has ended"), Duration::from_secs(10), || {
        pags_of("alice").is_empty().then_some(())
    });
    eventually(&format!("{when}: no process of alice's is left"), Duration::from_secs(10), || {
        run("pgrep", &["-u", "alice"]).stdout.is_empty().then_some(())
    });
    assert_eq!(ccaches(uid("alice")), 0, "{when}: no ccache is left");
}

fn login_goes_on(gate: Gate, outage: Outage) {
    let when = format!("{outage:?}, login at {gate:?}");
    let made = || journal("pam_pag").lines().filter(|line| line.contains("made PAG") && line.contains("61001")).count();
    let before = made();
    gate.shut();
    let login = thread::spawn(|| Session::ssh("alice", Proof::Password));
    gate.reached();
    outage.happen();
    gate.open();
    let mut alice = login.join().unwrap_or_else(|_| panic!("{when}: the login does not work"));
    let ring = alice.ring();
    assert!(ring.is_pag(), "{when}: the login is in no PAG: {ring:#?}");
    assert_token(&format!("{when}: the login"), &ring);
    manager_is("alice", "active");
    let service = service_ring(&mut alice);
    assert_same(&format!("{when}: a service"), &ring, &service);
    assert_token(&format!("{when}: a service"), &service);
    helper();
    let pags = pags_of("alice");
    assert_eq!(pags.len(), 1, "{when}: one PAG: {pags:#?}");
    let leases = pags[0]["leases"].as_array().cloned().unwrap_or_default();
    let alive = |role: &str| leases.iter().filter(|lease| lease["role"] == role && lease["alive"] == true).count();
    assert_eq!((alive("login"), alive("manager")), (1, 1), "{when}: a lease each: {leases:#?}");
    assert_eq!(made() - before, 1, "{when}: it is the PAG that it began with");
    alice.log_out();
    all_is_over(&when);
}

pub(super) fn outages_midway_lose_nothing(_: u32) {
    gate::build();
    let mut bob = Session::ssh("bob", Proof::Password);
    let before = bob.ring();
    assert_token("bob", &before);
    let short = [
        (Gate::Before, Outage::HelperKilled),
        (Gate::Seeder, Outage::HelperRestarted),
        (Gate::Seeder, Outage::BusRestarted),
        (Gate::After, Outage::LogindRestarted),
        (Gate::Manager, Outage::HelperKilled),
    ];
    let all = || Gate::ALL.into_iter().flat_map(|gate| Outage::ALL.into_iter().map(move |outage| (gate, outage)));
    let chosen: Vec<_> = if long() { all().collect() } else { short.to_vec() };
    for (gate, outage) in chosen {
        login_goes_on(gate, outage);
        assert_eq!(logins("bob").len(), 1, "{outage:?} at {gate:?}: bob's lease");
        assert_same(&format!("{outage:?} at {gate:?}: bob"), &before, &bob.ring());
        assert_token(&format!("{outage:?} at {gate:?}: bob's service"), &bob.service_ring());
    }
}

pub(super) fn login_killed_midway_is_reaped(_: u32) {
    gate::build();
    Session::ssh("alice", Proof::Password).log_out();
    all_is_over("a first login");
    let before = key_count(uid("alice"));
    for gate in Gate::ALL {
        let when = format!("killed at {gate:?}");
        gate.shut();
        let mut client = knock("alice", Proof::Password);
        let there = gate.reached();
        let leader = if matches!(gate, Gate::Before | Gate::After) { there } else { logins("alice")[0] };
        let name = fs::read_to_string(format!("/proc/{leader}/comm")).unwrap();
        assert!(name.starts_with("sshd"), "{when}: the leader is {name}");
        // logind may not know her yet, and then the helper has no name for her.
        let is_reaped = |line: &&str| line.contains("uid 61001") && line.contains("had ended without saying so");
        let reaped = || journal("pag-logind-helper").lines().filter(is_reaped).count();
        let old = reaped();
        kill(leader);
        if gate != Gate::Before {
            eventually(&format!("{when}: its lease is reaped"), Duration::from_secs(10), || {
                (reaped() > old).then_some(())
            });
        }
        if gate == Gate::Seeder {
            eventually(&format!("{when}: its seeder has gone with it"), Duration::from_secs(5), || {
                run("pgrep", &["-u", "alice"]).stdout.is_empty().then_some(())
            });
        }
        gate.open();
        client.wait().unwrap();
        all_is_over(&when);
        let mut next = Session::ssh("alice", Proof::Password);
        let ring = next.ring();
        assert_token(&format!("the login after one {when}"), &ring);
        assert_same(&format!("a service after one {when}"), &ring, &next.service_ring());
        next.log_out();
        all_is_over(&format!("the login after one {when}"));
    }
    eventually("alice's key count is back", Duration::from_secs(10), || {
        (key_count(uid("alice")) <= before).then_some(())
    });
}
