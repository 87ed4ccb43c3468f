//! User managers that run outside of their users' PAGs.

use std::collections::BTreeMap;

use pag::report::User;
use pag::store::lease::LeaseKind;
use pag::store::registry::Pag;

use super::finding::{Finding, Problem};
use super::helper::properties;
use super::host::{Host, Look, QUICK};
use super::registry::pags;

/// Most managers that are looked at.
const MOST: usize = 200;

/// The running managers: uid and process.
pub(super) fn running(host: &Host, look: &mut Look) -> Option<BTreeMap<u32, i32>> {
    let list = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active", "user@*.service"];
    let (_, out, _) = look.ask(host, &list, QUICK)?;
    let units: Vec<&str> = out.lines().filter_map(|line| line.split_whitespace().next()).take(MOST).collect();
    if units.is_empty() {
        return Some(BTreeMap::new());
    }
    let words = [&["systemctl", "show", "--property=Id,MainPID"], &units[..]].concat();
    let (_, out, _) = look.ask(host, &words, QUICK)?;
    let manager = |part: &str| {
        let unit = properties(part);
        let uid = unit.get("Id")?.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok()?;
        Some((uid, unit.get("MainPID")?.parse().ok().filter(|pid| *pid > 0)?))
    };
    Some(out.split("\n\n").filter_map(manager).collect())
}

/// Where a manager is.
#[derive(Debug, PartialEq, Eq)]
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
    let Some(managers) = running(host, look) else { return };
    let pags = match pags(host) {
        Ok(pags) => pags,
        Err(why) => {
            look.left_out(format!("whether user managers are in their PAGs: {why}"));
            return;
        }
    };
    let (mut inside, mut outside) = (0, 0);
    for (uid, pid) in managers {
        let settings = host.settings_of("systemd-user", uid);
        if uid < settings.minimum_uid || settings.nopag {
            continue;
        }
        let unit = format!("user@{uid}.service");
        let user = User(uid);
        match place(uid, pid, &pags) {
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
