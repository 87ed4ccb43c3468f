//! The helper: installed, enabled, alive, and on the bus.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use super::finding::{Finding, Problem};
use super::host::{Host, Look, QUICK, one_line};

const UNIT: &str = "pag-logind-helper";
const UNIT_FILE: &str = "/usr/lib/systemd/system/pag-logind-helper.service";
const PROGRAM: &str = "/usr/libexec/pag-logind-helper";
const NAME: &str = "org.pam_pag.Pag1";
const MANAGER: &str = "org.pam_pag.Pag1.Manager";
/// Where the bus looks for policies.
const POLICIES: [&str; 2] = ["/usr/share/dbus-1/system.d", "/etc/dbus-1/system.d"];

/// A helper that has just been started takes its name in a moment.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// What comes of it when no helper runs.
const WITHOUT: &str =
    "logins work; tokens are not renewed, PAGs do not end after the last logout, and `pagctl list` fails";

/// The properties of a unit, as `systemctl show` prints them.
pub(super) fn properties(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

pub(super) fn check(host: &Host, look: &mut Look) {
    let wanted = "--property=LoadState,UnitFileState,ActiveState,SubState,MainPID,Result,NeedDaemonReload";
    let Some((_, out, err)) = look.ask(host, &["systemctl", "show", UNIT, wanted], QUICK) else { return };
    let unit = properties(&out);
    let is = |key: &str, value: &str| unit.get(key) == Some(&value);
    match unit.get("LoadState").copied() {
        None => {
            look.left_out(format!("the helper: systemctl says: {}", one_line(&err)));
            return;
        }
        Some("masked") => {
            let command = format!("systemctl unmask {UNIT} && systemctl enable --now {UNIT}");
            look.found(Finding::error(Problem::HelperMasked, "the helper is masked", WITHOUT).mend(command));
            return;
        }
        Some("not-found") if host.has(UNIT_FILE) => {
            let what = "systemd has not read the helper's unit";
            let command = format!("systemctl daemon-reload && systemctl enable --now {UNIT}");
            look.found(Finding::error(Problem::UnitsNotReloaded, what, WITHOUT).mend(command));
            return;
        }
        Some("not-found") => {
            let what = format!("the helper is not installed: there is no {UNIT_FILE}");
            look.found(Finding::error(Problem::HelperNotInstalled, what, WITHOUT).mend(host.install_again()));
            return;
        }
        Some(_) => {}
    }
    let is_enabled = ["enabled", "enabled-runtime", "static", "linked"].iter().any(|state| is("UnitFileState", state));
    if !is("ActiveState", "active") {
        let finding = if is_enabled { not_running(host, look, &unit) } else { disabled(true) };
        look.found(finding);
        return;
    }
    if !is_enabled {
        look.found(disabled(false));
    }
    if is("NeedDaemonReload", "yes") {
        let what = "the helper's unit has changed, and systemd has not read it";
        let why = "the helper runs with the rights and limits of the old unit";
        let command = format!("systemctl daemon-reload && systemctl restart {UNIT}");
        look.found(Finding::warning(Problem::UnitsNotReloaded, what, why).mend(command));
    }
    let program = unit.get("MainPID").map(|pid| host.at(&format!("/proc/{pid}/exe")));
    if program.and_then(|link| link.read_link().ok()).is_some_and(|path| path.to_string_lossy().ends_with(" (deleted)"))
    {
        let what = "the helper runs a program that was replaced since";
        let why = "an upgrade has not started it again; it loses nothing by a restart";
        look.found(Finding::warning(Problem::HelperOutdated, what, why).mend(format!("systemctl restart {UNIT}")));
    }
    if look.findings.is_empty() {
        look.fine("the helper is enabled and runs");
    }
    bus(host, look);
}

/// The helper is not enabled: an error if it does not run either.
fn disabled(is_down: bool) -> Finding {
    let (id, command) = (Problem::HelperDisabled, format!("systemctl enable --now {UNIT}"));
    let finding = if is_down {
        Finding::error(id, "the helper is not enabled, and does not run", WITHOUT)
    } else {
        let why = "after the next boot it does not run; the bus cannot start it either";
        Finding::warning(id, "the helper runs, and is not enabled", why)
    };
    finding.mend(command)
}

fn not_running(host: &Host, look: &mut Look, unit: &BTreeMap<&str, &str>) -> Finding {
    let of = |key: &str| unit.get(key).copied().unwrap_or("unknown");
    let state = format!("{} ({}, {})", of("ActiveState"), of("SubState"), of("Result"));
    let what = format!("the helper is enabled and does not run: its state is {state}");
    let finding = |what: String, command: &str| Finding::error(Problem::HelperNotRunning, what, WITHOUT).mend(command);
    match host.mode(PROGRAM) {
        None => return finding(format!("{what}; {PROGRAM} is not there"), host.install_again()),
        Some(mode) if mode & 0o100 == 0 => {
            let command = format!("chmod 755 {PROGRAM} && systemctl restart {UNIT}");
            return finding(format!("{what}; {PROGRAM} has the mode {mode:04o}"), &command);
        }
        Some(_) => {}
    }
    if of("ActiveState") == "inactive" || of("Result") == "start-limit-hit" {
        return finding(what, &format!("systemctl start {UNIT}"));
    }
    // It fails again and again: its own words, or systemd's about it.
    let words = ["journalctl", "-q", "-n", "1", "-o", "cat", "-u", UNIT];
    let said = look.ask(host, &words, QUICK).map(|(_, out, _)| one_line(&out)).unwrap_or_default();
    let said = if said.is_empty() { String::new() } else { format!("; the last message: {said}") };
    let changed = format!("{what}{said}");
    // A drop-in is the usual reason; the unit as installed starts on every host.
    if host.names("/etc/systemd/system/pag-logind-helper.service.d").is_empty() {
        finding(changed, &format!("journalctl -e -u {UNIT}"))
    } else {
        let what = format!("{changed}; its unit was changed in /etc/systemd/system/{UNIT}.service.d");
        finding(what, &format!("systemctl revert {UNIT} && systemctl restart {UNIT}"))
    }
}

/// How often systemd has started the helper again after it had ended. None if systemd does not tell.
pub(super) fn restarts(host: &Host) -> Option<u64> {
    let words = ["systemctl", "show", "--property=LoadState,NRestarts", UNIT];
    let (_, out, _) = Look::default().ask(host, &words, QUICK)?;
    let unit = properties(&out);
    unit.get("LoadState").filter(|state| **state == "loaded")?;
    unit.get("NRestarts")?.parse().ok()
}

/// Whether the helper owns its name, and answers. No call here may start it.
fn bus(host: &Host, look: &mut Look) {
    let bus = "org.freedesktop.DBus";
    let ask =
        ["busctl", "--system", "--timeout=3", "call", bus, "/org/freedesktop/DBus", bus, "NameHasOwner", "s", NAME];
    let mut owned = false;
    for _ in 0..TRIES {
        let Some((status, out, err)) = look.ask(host, &ask, QUICK) else { return };
        if status != 0 {
            let what = format!("the system bus does not answer: {}", one_line(&err));
            let why = "the helper is not told of logins, and pagctl cannot ask it";
            look.found(Finding::error(Problem::BusNotRunning, what, why).mend("systemctl start dbus"));
            return;
        }
        owned = out.trim() == "b true";
        if owned {
            break;
        }
        thread::sleep(PAUSE);
    }
    if !owned {
        look.found(not_on_bus(host));
        return;
    }
    let get = ["call", NAME, "/org/pam_pag/Pag1", "org.freedesktop.DBus.Properties", "Get", "ss"];
    let words = [&["busctl", "--system", "--timeout=3", "--auto-start=no"], &get[..], &[MANAGER, "Version"]].concat();
    let Some((status, out, err)) = look.ask(host, &words, Duration::from_secs(5)) else { return };
    if status != 0 {
        let what = format!("the helper runs and gives no answer: {}", one_line(&err));
        look.found(Finding::error(Problem::HelperSilent, what, WITHOUT).mend(format!("systemctl restart {UNIT}")));
        return;
    }
    let (own, its) = (env!("CARGO_PKG_VERSION"), out.trim().trim_start_matches("v s ").trim_matches('"'));
    if its == own {
        look.fine(format!("the helper answers on the bus and is of release {own}, as pagctl is"));
    } else {
        let what = format!("the helper is of release {}, pagctl of {own}", one_line(its));
        let why = "module, helper and pagctl are made for each other";
        look.found(Finding::warning(Problem::HelperOtherVersion, what, why).mend(format!("systemctl restart {UNIT}")));
    }
}

/// The helper runs, and does not own its name.
fn not_on_bus(host: &Host) -> Finding {
    let why = "the helper renews tokens and ends PAGs, but pagctl and desktops cannot ask it";
    let policy = format!("{NAME}.conf");
    if !POLICIES.iter().any(|directory| host.has(&format!("{directory}/{policy}"))) {
        let what = format!("the bus has no policy for the helper: {}/{policy} is not there", POLICIES[0]);
        return Finding::error(Problem::BusPolicyMissing, what, why).mend(host.install_again());
    }
    let what = format!("the helper runs without its name {NAME}: the bus has not read its policy");
    let command = format!("systemctl reload dbus && systemctl restart {UNIT}");
    Finding::error(Problem::BusPolicyNotRead, what, why).mend(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::programs::Ran;
    use crate::doctor::testing::{Machine, ids, says};

    fn unit(changes: &[(&str, &str)]) -> Machine {
        let mut all = BTreeMap::from([
            ("LoadState", "loaded"),
            ("UnitFileState", "enabled"),
            ("ActiveState", "active"),
            ("SubState", "running"),
            ("MainPID", "42"),
            ("Result", "success"),
            ("NeedDaemonReload", "no"),
        ]);
        all.extend(changes.iter().copied());
        let text: String = all.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        Machine::healthy().program("systemctl show pag-logind-helper", says(0, &text))
    }

    fn found(machine: Machine) -> Vec<Problem> {
        ids(&machine.look(check))
    }

    #[test]
    fn each_state_of_the_unit_has_its_word() {
        assert_eq!(found(unit(&[])), []);
        assert_eq!(found(unit(&[("LoadState", "masked"), ("ActiveState", "inactive")])), [Problem::HelperMasked]);
        assert_eq!(found(unit(&[("LoadState", "not-found")])), [Problem::UnitsNotReloaded]);
        let gone = unit(&[("LoadState", "not-found")]).without(UNIT_FILE);
        assert_eq!(found(gone), [Problem::HelperNotInstalled]);
        let off = [("UnitFileState", "disabled"), ("ActiveState", "inactive")];
        assert_eq!(found(unit(&off)), [Problem::HelperDisabled]);
        assert_eq!(found(unit(&off[..1])), [Problem::HelperDisabled]);
        assert_eq!(found(unit(&[("ActiveState", "inactive")])), [Problem::HelperNotRunning]);
        assert_eq!(found(unit(&[("NeedDaemonReload", "yes")])), [Problem::UnitsNotReloaded]);
        let silent = Machine::healthy().program("systemctl show", Ran::TooSlow);
        assert_eq!(found(silent), [Problem::NoAnswer]);
    }

    #[test]
    fn restarts_are_those_of_a_unit_that_there_is() {
        let told = |text: &str| restarts(&Machine::healthy().program("systemctl show", says(0, text)).host(true));
        assert_eq!(told("LoadState=loaded\nNRestarts=3\n"), Some(3));
        assert_eq!(told("LoadState=not-found\nNRestarts=0\n"), None);
        assert_eq!(told(""), None);
    }

    #[test]
    fn a_helper_that_fails_is_told_with_its_words_and_what_was_changed() {
        let failing = || {
            unit(&[("ActiveState", "activating"), ("SubState", "auto-restart"), ("Result", "exit-code")])
                .program("journalctl", says(0, "it is broken\n"))
        };
        let look = failing().look(check);
        assert!(look.findings[0].what.contains("it is broken"), "{look:?}");
        let changed = failing().file("/etc/systemd/system/pag-logind-helper.service.d/x.conf", "").look(check);
        assert!(changed.findings[0].command.as_deref().unwrap().starts_with("systemctl revert"), "{changed:?}");
        let gone = failing().without(PROGRAM).look(check);
        assert_eq!(gone.findings[0].command.as_deref(), Some("cargo xtask install"));
    }

    #[test]
    fn each_state_on_the_bus_has_its_word() {
        let owner = |ran| unit(&[]).program("busctl --system --timeout=3 call", ran);
        assert_eq!(found(owner(says(1, ""))), [Problem::BusNotRunning]);
        assert_eq!(found(owner(says(0, "b false\n"))), [Problem::BusPolicyNotRead]);
        let policy = "/usr/share/dbus-1/system.d/org.pam_pag.Pag1.conf";
        assert_eq!(found(owner(says(0, "b false\n")).without(policy)), [Problem::BusPolicyMissing]);
        let version = |ran| unit(&[]).program("busctl --system --timeout=3 --auto-start=no", ran);
        assert_eq!(found(version(says(1, ""))), [Problem::HelperSilent]);
        assert_eq!(found(version(says(0, "v s \"0.0.1\"\n"))), [Problem::HelperOtherVersion]);
    }
}
