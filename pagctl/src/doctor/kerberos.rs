//! Kerberos: krb5.conf, the KDCs of the default realm, the clock, and where tickets are kept.

use std::thread;
use std::time::Duration;

use pag::sys;

use super::finding::{Finding, Problem};
use super::host::{Host, Look, QUICK, one_line};
use super::kdc;
use super::krb5_conf::Krb5Conf;

const FILE: &str = "/etc/krb5.conf";
/// Longest wait for one KDC, by each of UDP and TCP.
const PATIENCE: Duration = Duration::from_secs(2);
/// Kerberos's limit for the difference of clocks, in seconds, where `clockskew` sets no other.
const SKEW: u64 = 300;
/// Most KDCs that are asked, all at once.
const MOST: usize = 8;

pub(super) fn check(host: &Host, look: &mut Look) {
    let Some(conf) = Krb5Conf::read(host, FILE) else {
        let there = host.has(FILE);
        let what = if there { format!("{FILE} cannot be read") } else { format!("there is no {FILE}") };
        let why = "logins and seeders do not know their realm, and get no tickets and no tokens";
        let command = if there { format!("chmod 644 {FILE}") } else { "dpkg-reconfigure krb5-config".to_owned() };
        look.found(Finding::error(Problem::Krb5ConfUnreadable, what, why).mend(command));
        return;
    };
    if let Some(mode) = host.mode(FILE).filter(|mode| mode & 0o004 == 0) {
        let what = format!("users cannot read {FILE}: its mode is {mode:04o}");
        let why = "seeders run as the user, and get no tokens";
        look.found(Finding::error(Problem::Krb5ConfUnreadable, what, why).mend(format!("chmod 644 {FILE}")));
    }
    ccache(&conf, look);
    let Some(realm) = conf.value(&["libdefaults"], "default_realm") else {
        look.left_out("the KDC: krb5.conf has no default_realm, so DNS tells the realm of each name");
        return;
    };
    let kdcs: Vec<String> = conf.values(&["realms", realm], "kdc").into_iter().map(str::to_owned).collect();
    if kdcs.is_empty() {
        by_library(host, look, realm);
        return;
    }
    let skew = conf.value(&["libdefaults"], "clockskew").and_then(|text| text.parse().ok()).unwrap_or(SKEW);
    ask_all(look, realm, kdcs, skew);
}

/// A ccache that only one process, or only the login's session, can have.
fn ccache(conf: &Krb5Conf, look: &mut Look) {
    let Some(name) = conf.value(&["libdefaults"], "default_ccache_name") else { return };
    let shut = ["MEMORY:", "KEYRING:session", "KEYRING:process", "KEYRING:thread", "API:", "MSLSA:"];
    let odd = |name: &str| shut.iter().any(|kind| name.starts_with(kind)) || name == "KEYRING:";
    if odd(name) {
        let what = format!("default_ccache_name in {FILE} is {name}, which no other session or service can read");
        let why = "user services and renewals cannot use a ticket that users get by kinit";
        let command =
            format!("sed -i 's/^\\([[:space:]]*default_ccache_name\\).*/\\1 = KEYRING:persistent:%{{uid}}/' {FILE}");
        look.found(Finding::warning(Problem::CcacheNotShared, what, why).mend(command));
    } else {
        look.fine(format!("tickets are kept in {name}"));
    }
}

fn ask_all(look: &mut Look, realm: &str, kdcs: Vec<String>, skew: u64) {
    let ask = |kdc: String| {
        let realm = realm.to_owned();
        thread::spawn(move || (kdc::ask(&kdc, &realm, PATIENCE), kdc, sys::now()))
    };
    let askers: Vec<_> = kdcs.into_iter().take(MOST).map(ask).collect();
    let answers: Vec<_> = askers.into_iter().filter_map(|asker| asker.join().ok()).collect();
    let mut silent = Vec::new();
    let mut answered = false;
    for (reply, kdc, now) in answers {
        match reply {
            Err(why) => silent.push(format!("{kdc} ({why})")),
            Ok(reply) => {
                answered = true;
                clock(look, &kdc, reply.time, now, skew);
            }
        }
    }
    if !answered {
        look.found(unreachable(realm, &silent.join(", ")));
    } else if silent.is_empty() {
        look.fine(format!("the KDCs of {realm} answer"));
    } else {
        look.fine(format!("a KDC of {realm} answers; these do not: {}", silent.join(", ")));
    }
}

fn unreachable(realm: &str, which: &str) -> Finding {
    let what = format!("no KDC of {realm} answers: {which}");
    let why = "there are no new tickets and no new tokens; those that are there last until their end";
    Finding::error(Problem::KdcUnreachable, what, why).mend(format!("KRB5_TRACE=/dev/stderr kinit -n @{realm}"))
}

fn clock(look: &mut Look, kdc: &str, time: Option<u64>, now: u64, skew: u64) {
    let Some(off) = time.map(|time| time.abs_diff(now)) else { return };
    let direction = if time.is_some_and(|time| time > now) { "behind" } else { "ahead of" };
    let what = format!("this host's clock is {off} s {direction} that of the KDC {kdc}");
    let command = "systemctl restart systemd-timesyncd || chronyc makestep";
    if off > skew {
        let why = format!("Kerberos refuses a difference of more than {skew} s, so there are no tickets and no tokens");
        look.found(Finding::error(Problem::ClockOff, what, why).mend(command));
    } else if off * 2 > skew {
        let why = format!("from {skew} s on there are no tickets and no tokens");
        look.found(Finding::warning(Problem::ClockOff, what, why).mend(command));
    } else {
        look.fine(format!("this host's clock agrees with that of the KDC {kdc}"));
    }
}

/// The KDCs stand in DNS: Kerberos's library looks for them there.
fn by_library(host: &Host, look: &mut Look, realm: &str) {
    let principal = format!("@{realm}");
    let words = ["kinit", "-n", "-c", "MEMORY:doctor", &principal];
    let Some((_, out, err)) = look.ask(host, &words, QUICK) else { return };
    let said = format!("{out}\n{err}");
    if said.contains("annot contact any KDC") || said.contains("annot find KDC") || said.contains("annot resolve") {
        look.found(unreachable(realm, &one_line(&err)));
    } else {
        look.fine(format!("a KDC of {realm}, which DNS names, answers"));
    }
}

/// Whether the clock is kept by a time server.
pub(super) fn synchronised(host: &Host, look: &mut Look) {
    let words = ["timedatectl", "show", "--property=NTPSynchronized", "--value"];
    let Some((0, out, _)) = look.ask(host, &words, QUICK) else { return };
    if out.trim() == "no" {
        let what = "no time server keeps this host's clock";
        let why = "Kerberos refuses a clock that is five minutes off";
        let finding = Finding::info(Problem::ClockUnsynchronised, what, why);
        look.found(finding.mend("timedatectl set-ntp true"));
    } else {
        look.fine("a time server keeps this host's clock");
    }
}

#[cfg(test)]
mod tests {
    use super::super::kdc::tests::kdc;
    use super::*;
    use crate::doctor::testing::{Machine, ids, says};
    use std::os::unix::fs::PermissionsExt;

    fn machine(kdcs: &str, more: &str) -> Machine {
        let text = format!(
            "[libdefaults]\n default_realm = EXAMPLE.TEST\n clockskew = 4000000000\n{more}[realms]\n EXAMPLE.TEST = {{\n{kdcs} }}\n"
        );
        Machine::healthy().file("/etc/krb5.conf", &text)
    }

    #[test]
    fn kdcs_are_asked_and_their_clock_is_compared() {
        let found = |machine: Machine| ids(&machine.look(check));
        let good = format!("kdc = {}\n", kdc("20261130230000Z"));
        assert_eq!(found(machine(&good, "")), []);
        assert_eq!(found(machine("kdc = 127.0.0.1:1\n", "")), [Problem::KdcUnreachable]);
        assert_eq!(found(machine(&format!("kdc = 127.0.0.1:1\n{good}"), "")), [], "one is enough");
        let old = format!("[libdefaults]\ndefault_realm = A\n[realms]\nA = {{\nkdc = {}\n}}\n", kdc("20010101000000Z"));
        assert_eq!(found(Machine::healthy().file("/etc/krb5.conf", &old)), [Problem::ClockOff]);
        let by_dns = |said: &str| {
            let ran = crate::doctor::programs::Ran::Done { status: 1, out: String::new(), err: said.to_owned() };
            found(machine("", "").program("kinit -n", ran))
        };
        assert_eq!(by_dns("kinit: Cannot find KDC for realm"), [Problem::KdcUnreachable]);
        assert_eq!(by_dns("kinit: Client not found"), []);
    }

    #[test]
    fn krb5_conf_is_there_for_all_and_its_ccaches_can_be_shared() {
        assert_eq!(ids(&Machine::healthy().look(check)), [Problem::Krb5ConfUnreadable]);
        let good = format!("kdc = {}\n", kdc("20261130230000Z"));
        let private = machine(&good, "");
        std::fs::set_permissions(private.at("/etc/krb5.conf"), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(ids(&private.look(check)), [Problem::Krb5ConfUnreadable]);
        let with = |name: &str| ids(&machine(&good, &format!("default_ccache_name = {name}\n")).look(check));
        assert_eq!(with("KEYRING:session:x"), [Problem::CcacheNotShared]);
        assert_eq!(with("MEMORY:"), [Problem::CcacheNotShared]);
        assert_eq!(with("KEYRING:persistent:%{uid}"), []);
    }

    #[test]
    fn a_clock_that_no_server_keeps_is_a_note() {
        let with = |said: &str| ids(&Machine::healthy().program("timedatectl", says(0, said)).look(synchronised));
        assert_eq!((with("yes\n"), with("no\n")), (vec![], vec![Problem::ClockUnsynchronised]));
    }
}
