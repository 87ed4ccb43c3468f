//! User units that leave the PAG: with another KeyringMode= than systemd's default for them.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Finding, Problem};
use super::host::{Host, Look};

/// Where user units are, the first before the others (systemd.unit(5)).
const DIRECTORIES: [&str; 5] = [
    "/etc/systemd/user",
    "/run/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
    "/lib/systemd/user",
];

/// The last KeyringMode= of a file.
fn mode(text: &str) -> Option<&str> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("KeyringMode")?.trim_start().strip_prefix('='))
        .next_back()
        .map(str::trim)
}

/// The file that decides a service's KeyringMode=, and that mode.
fn deciding(host: &Host, unit: &str) -> Option<(String, String)> {
    let mut files: Vec<String> = Vec::new();
    files.extend(DIRECTORIES.iter().map(|place| format!("{place}/{unit}")).find(|file| host.has(file)));
    // Of two drop-ins with one name the one in the earlier directory counts; they apply in the order of their names.
    let mut drop_ins: BTreeMap<String, String> = BTreeMap::new();
    for place in DIRECTORIES {
        for folder in [format!("{place}/{unit}.d"), format!("{place}/service.d")] {
            for name in host.names(&folder).into_iter().filter(|name| name.ends_with(".conf")) {
                drop_ins.entry(name.clone()).or_insert(format!("{folder}/{name}"));
            }
        }
    }
    files.extend(drop_ins.into_values());
    let mut decided = files.iter().filter_map(|file| Some((file.clone(), mode(&host.text(file)?)?.to_owned())));
    decided.next_back()
}

pub(super) fn check(host: &Host, look: &mut Look) {
    let mut units = BTreeSet::new();
    for place in DIRECTORIES {
        let names = host.names(place).into_iter().map(|name| name.trim_end_matches(".d").to_owned());
        units.extend(names.filter(|name| name.ends_with(".service")));
    }
    let count = units.len();
    for unit in units {
        let Some((file, mode)) = deciding(host, &unit) else { continue };
        if !matches!(mode.as_str(), "private" | "shared") {
            continue;
        }
        let what = format!("the user unit {unit} has KeyringMode={mode} ({file})");
        let why = "it runs in a keyring of its own, outside of the PAG, and has no tokens";
        let command = if file.starts_with("/etc/") || file.starts_with("/run/") {
            format!("sed -i 's/^[[:space:]]*KeyringMode[[:space:]]*=.*/KeyringMode=inherit/' {file}")
        } else {
            let folder = format!("/etc/systemd/user/{unit}.d");
            format!("mkdir -p {folder} && printf '[Service]\\nKeyringMode=inherit\\n' > {folder}/zz-pag.conf")
        };
        let command = format!("{command} && systemctl daemon-reload");
        look.found(Finding::warning(Problem::UnitLeavesPag, what, why).mend(command));
    }
    if look.findings.is_empty() {
        look.fine(format!("none of {count} user units leaves the PAG"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{Machine, ids};

    #[test]
    fn the_file_that_counts_decides() {
        let unit = |mode: &str| format!("[Service]\nExecStart=/bin/true\nKeyringMode={mode}\n");
        let machine = || Machine::healthy().file("/usr/lib/systemd/user/a.service", &unit("private"));
        let look = machine().look(check);
        assert_eq!(ids(&look), [Problem::UnitLeavesPag]);
        assert!(look.findings[0].command.as_deref().unwrap().contains("/etc/systemd/user/a.service.d/zz-pag.conf"));
        assert_eq!(ids(&machine().file("/etc/systemd/user/a.service", &unit("inherit")).look(check)), []);
        let mended = machine().file("/etc/systemd/user/a.service.d/zz-pag.conf", "[Service]\nKeyringMode = inherit\n");
        assert_eq!(ids(&mended.look(check)), []);
        assert_eq!(ids(&mended.file("/etc/systemd/user/service.d/zzz.conf", &unit("shared")).look(check)).len(), 1);
    }
}
