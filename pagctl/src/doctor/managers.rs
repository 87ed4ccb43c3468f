//! User managers that run outside of their users' PAGs.

use std::collections::BTreeMap;

use pag::report::User;
use pag::store::lease::LeaseKind;
use pag::store::registry::Pag;

use super::finding::{Finding, Problem};
use super::helper::properties;
use super::host::{Host, Look, QUICK, one_line};
use super::registry::pags;

/// Most managers that are looked at.
const MOST: usize = 200;

/// The running managers: uid and process.
pub(super) fn running(host: &Host, look: &mut Look) -> Option<BTreeMap<u32, i32>> {
    let list = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active", "user@*.service"];
    let out = answer(host, look, &list)?;
    let units: Vec<&str> = out.lines().filter_map(|line| line.split_whitespace().next()).take(MOST).collect();
    if units.is_empty() {
        return Some(BTreeMap::new());
    }
    let words = [&["systemctl", "show", "--property=Id,MainPID"], &units[..]].concat();
    let out = answer(host, look, &words)?;
    let manager = |part: &str| {
        let unit = properties(part);
        let uid = unit.get("Id")?.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok()?;
        Some((uid, unit.get("MainPID")?.parse().ok().filter(|pid| *pid > 0)?))
    };
    Some(out.split("\n\n").filter_map(manager).collect())
}

/// What systemctl writes. None, and a note of that, if it fails: then it is not known which managers run.
fn answer(host: &Host, look: &mut Look, words: &[&str]) -> Option<String> {
    let (status, out, err) = look.ask(host, words, QUICK)?;
    if status != 0 {
        look.left_out(format!("which user managers run: {}", one_line(&err)));
    }
    (status == 0).then_some(out)
}

/// A running manager that should be in a PAG, and where it is.
struct Manager {
    uid: u32,
    pid: i32,
    place: Place,
}

/// The running managers of users that get PAGs. None, and a note of that, if systemd does not tell.
fn placed(host: &Host, look: &mut Look, pags: &[Pag]) -> Option<Vec<Manager>> {
    let all = running(host, look)?.into_iter();
    let gets_pag = |(uid, _): &(u32, i32)| {
        let settings = host.settings_of("systemd-user", *uid);
        *uid >= settings.minimum_uid && !settings.nopag
    };
    Some(all.filter(gets_pag).map(|(uid, pid)| Manager { uid, pid, place: place(uid, pid, pags) }).collect())
}

/// The users with managers that run outside of their PAGs. None if systemd does not tell. `told` are those that the helper has
/// found, by uid and process; they may have ended or been adopted since.
pub(super) fn outside(host: &Host, pags: &[Pag], told: &[(u32, u32)]) -> Option<Vec<u32>> {
    let is_adopted = |uid| {
        let records = pags.iter().filter(|pag| pag.uid == uid).filter_map(|pag| pag.record.as_ref().ok());
        records.into_iter().any(|record| record.adopted.is_some())
    };
    let is_told = |uid, pid| told.iter().any(|(of, process)| *of == uid && i32::try_from(*process) == Ok(pid));
    let is_outside = |manager: &Manager| {
        let Manager { uid, pid, place } = *manager;
        place == Place::Outside || is_told(uid, pid) && !is_adopted(uid)
    };
    let managers = placed(host, &mut Look::default(), pags)?.into_iter();
    Some(managers.filter(is_outside).map(|manager| manager.uid).collect())
}

/// Where a manager is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Inside,
    Adopted,
    Outside,
}

fn place(uid: u32, pid: i32, pags: &[Pag]) -> Place {
    let leases = pags.iter().filter(|pag| pag.uid == uid).filter_map(|pag| pag.record.as_ref().ok());
    let mut of_it = leases
        .flat_map(|record| &record.leases)
        .filter(|lease| lease.role == LeaseKind::Manager && lease.process.pid == pid && lease.process.is_alive());
    match of_it.next() {
        None => Place::Outside,
        Some(lease) if lease.service.to_string() == "adopted" => Place::Adopted,
        Some(_) => Place::Inside,
    }
}

pub(super) fn check(host: &Host, look: &mut Look) {
    let pags = match pags(host) {
        Ok(pags) => pags,
        Err(why) => {
            look.left_out(format!("whether user managers are in their PAGs: {why}"));
            return;
        }
    };
    let Some(managers) = placed(host, look, &pags) else { return };
    let (mut inside, mut outside) = (0, 0);
    for Manager { uid, pid, place } in managers {
        let unit = format!("user@{uid}.service");
        let user = User(uid);
        match place {
            Place::Inside => inside += 1,
            Place::Adopted => {
                let what = format!("the user manager of {user} is older than its PAG, and was adopted");
                let why = "its services have the PAG's tokens, in another ring, until it is started again";
                let finding = Finding::info(Problem::ManagerAdopted, what, why);
                look.found(finding.mend(format!("systemctl restart {unit}")));
            }
            Place::Outside => {
                outside += 1;
                let what = format!("the user manager of {user}, process {pid}, is outside of its PAG");
                let why = "its services have no tokens: it was started before pam_pag was in its PAM stack";
                let command = match pags.iter().any(|pag| pag.uid == uid) {
                    true => format!("pagctl adopt {uid}"),
                    false => format!("systemctl restart {unit}"),
                };
                look.found(Finding::warning(Problem::ManagerOutside, what, why).mend(command));
            }
        }
    }
    if outside == 0 {
        look.fine(format!("{inside} user managers run, in their PAGs"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{Machine, says};

    const UNITS: &str = "user@61001.service loaded active running\nuser@0.service loaded active running\n";
    const SHOWN: &str = "Id=user@61001.service\nMainPID=7\n\nId=user@0.service\nMainPID=8\n";

    fn outside_of(machine: &Machine) -> Option<Vec<u32>> {
        outside(&machine.host(true), &[], &[])
    }

    #[test]
    fn managers_that_no_pag_has_are_outside_but_for_roots() {
        let machine = || Machine::healthy().program("systemctl list-units", says(0, UNITS));
        assert_eq!(outside_of(&machine().program("systemctl show", says(0, SHOWN))), Some(vec![61001]));
        assert_eq!(outside_of(&Machine::healthy().program("systemctl list-units", says(0, ""))), Some(vec![]));
    }

    #[test]
    fn what_systemd_does_not_tell_is_not_taken_for_none() {
        assert_eq!(outside_of(&Machine::healthy().program("systemctl list-units", says(1, ""))), None);
        let machine = Machine::healthy().program("systemctl list-units", says(0, UNITS));
        assert_eq!(outside_of(&machine.program("systemctl show", says(1, ""))), None);
    }
}
