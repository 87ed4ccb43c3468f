//! Containers without a user namespace: their root can enter the PAGs of the host.

use std::collections::BTreeMap;
use std::fs;

use super::finding::{Finding, Problem};
use super::host::{Host, Look};

/// CAP_SYS_ADMIN, which a container that may join keyrings and namespaces has.
const SYS_ADMIN: u64 = 1 << 21;

pub(super) fn check(host: &Host, look: &mut Look) {
    let namespace = |process: &str, kind: &str| fs::read_link(host.at(&format!("/proc/{process}/ns/{kind}"))).ok();
    let (own, own_users) = (namespace("self", "pid"), namespace("self", "user"));
    let mut found = BTreeMap::new();
    for process in host.names("/proc").into_iter().filter(|name| name.bytes().all(|c| c.is_ascii_digit())) {
        let Some(pids) = namespace(&process, "pid").filter(|pids| Some(pids) != own.as_ref()) else { continue };
        if namespace(&process, "user") != own_users {
            continue;
        }
        let status = host.text(&format!("/proc/{process}/status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let is_first = field("NSpid:").split_whitespace().last() == Some("1");
        let is_root = field("Uid:").split_whitespace().nth(1) == Some("0");
        let rights = u64::from_str_radix(field("CapEff:").trim(), 16).unwrap_or(0);
        if is_first && is_root && rights & SYS_ADMIN != 0 {
            found.insert(pids, format!("{} (process {process})", field("Name:").trim()));
        }
    }
    if found.is_empty() {
        look.fine("no container has the host's root as its root");
        return;
    }
    let names: Vec<String> = found.into_values().collect();
    let what = format!("containers run without a user namespace of their own: {}", names.join(", "));
    let why = "their root is the host's root, and can enter every PAG if it learns the key";
    let command = "systemd-nspawn --private-users=pick ... (or the like of the container's manager)";
    look.found(Finding::info(Problem::ContainerEntersPags, what, why).mend(command));
}
