//! The look at a whole host: every service, and what the module needs besides its lines.

use super::check::needs;
use super::finding::{Finding, Level, Problem};
use super::host::Host;
use super::parse::Facility;
use super::place::services;
use super::stack::{DIRECTORIES, Files, Opened};

/// Judges every service of the host. Returns the services that need pam_pag and are all right, and all findings.
pub(super) fn inspect(files: &dyn Files) -> (Vec<String>, Vec<Finding>) {
    let mut all_right = Vec::new();
    let mut findings = Vec::new();
    let mut unknown = Vec::new();
    let mut seats = 0;
    for service in services(files) {
        let found = service.judge(files);
        let needs_us = service.seat.map(needs).is_some_and(|needs| needs != (false, false));
        seats += usize::from(needs_us);
        if needs_us && found.iter().all(|finding| finding.level == Level::Note) {
            all_right.push(service.name.clone());
        }
        let begins = [Facility::Auth, Facility::Session].iter().any(|facility| service.stacks.has_own(*facility));
        if service.seat.is_none() && begins {
            unknown.push(service.name);
        }
        findings.extend(found);
    }
    if !unknown.is_empty() {
        let text = format!(
            "not known to pagctl: {}. Such a service counts as a login, which needs a session line of pam_pag.so, and an \
             auth line where it unlocks screens; [service NAME] placement in pag.conf(5) says what else it is",
            unknown.join(", ")
        );
        findings.push(Finding::note(Problem::UnknownService, None, text));
    }
    findings.extend(dangling(files));
    if seats == 0 {
        let text = format!("no PAM stack of a login was found in {}", DIRECTORIES.join(", "));
        findings.push(Finding::wrong(Problem::NotUnderstood, None, text));
    }
    (all_right, findings)
}

/// Findings about symbolic links that lead to no file. libpam passes over them, as if they were not there.
fn dangling(files: &dyn Files) -> Vec<Finding> {
    let mut findings = Vec::new();
    for directory in DIRECTORIES {
        for name in files.names(directory) {
            let path = format!("{directory}/{name}");
            if files.open(&path) == Opened::Missing {
                let instead = files.service(&name).unwrap_or_else(|| "the service `other`".to_owned());
                let text = format!(
                    "{path}: a symbolic link to a file that is not there, so libpam reads {instead} in its place; remove the \
                     link, or restore the file"
                );
                findings.push(Finding::wrong(Problem::NotUnderstood, Some(&name), text));
            }
        }
    }
    findings
}

/// Findings about what the stacks need from the host: the module and the handle group.
pub(super) fn surroundings(host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    // libpam loads modules from the directory of its own modules alone.
    let is_in =
        |directory: &str| ["pam_unix.so", "pam_pag.so"].map(|name| host.has(&format!("{directory}/security/{name}")));
    if !host.library_directories().iter().any(|directory| is_in(directory) == [true, true]) {
        findings.push(Finding::wrong(
            Problem::ModuleMissing,
            None,
            "pam_pag.so is in no directory of PAM modules; install it beside pam_unix.so",
        ));
    }
    let groups = host.text("/etc/group").unwrap_or_default();
    let mut group = groups.lines().filter_map(|line| line.strip_prefix("pag:"));
    let entry = group.next();
    // NAME:PASSWORD:UID:GID:...
    let gid = entry.and_then(|rest| rest.split(':').nth(1));
    let accounts = host.text("/etc/passwd").unwrap_or_default();
    let its_own = accounts.lines().filter(|line| gid.is_some() && line.split(':').nth(3) == gid);
    let its_own: Vec<_> = its_own.filter_map(|line| line.split(':').next()).collect();
    if !its_own.is_empty() {
        let what = format!(
            "group pag is the primary group of {}; no account may use it, since its members can enter every PAG; give \
             them another primary group with usermod(8)",
            its_own.join(", ")
        );
        findings.push(Finding::wrong(Problem::GroupIsPrimary, None, what));
    }
    match entry.map(|rest| rest.rsplit(':').next().unwrap_or_default().trim()) {
        None => findings.push(Finding::wrong(
            Problem::GroupMissing,
            None,
            "there is no group pag, so rings belong to gid 0; make it with systemd-sysusers(8)",
        )),
        Some("") => {}
        Some(members) => findings.push(Finding::wrong(
            Problem::GroupHasMembers,
            None,
            format!(
                "group pag has the members {members}; it must have none, since its members can enter every PAG; take them \
                 out with gpasswd(1)"
            ),
        )),
    }
    findings
}
