//! The group `pag`, which the rings belong to.

use super::finding::{Finding, Problem};
use super::host::{Host, Look, QUICK};

pub(super) fn check(host: &Host, look: &mut Look) {
    // The name service: members may stand in a directory.
    let Some((status, out, _)) = look.ask(host, &["getent", "group", "pag"], QUICK) else { return };
    if status != 0 {
        let what = "there is no group pag";
        let why = "rings then belong to gid 0, and each process with that group can enter every PAG";
        look.found(Finding::warning(Problem::GroupMissing, what, why).mend("systemd-sysusers pag.conf"));
        return;
    }
    // NAME:PASSWORD:GID:MEMBERS
    let mut fields = out.trim().split(':').skip(2);
    let (gid, members) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    let members: Vec<&str> = members.split(',').filter(|name| !name.is_empty()).collect();
    let why = "who has this group can enter, read and end every PAG of the host";
    if !members.is_empty() {
        let commands: Vec<String> = members.iter().map(|name| format!("gpasswd -d {name} pag")).collect();
        let what = format!("group pag has members: {}", members.join(", "));
        look.found(Finding::error(Problem::GroupHasMembers, what, why).mend(commands.join(" && ")));
    }
    let accounts = host.text("/etc/passwd").unwrap_or_default();
    // NAME:PASSWORD:UID:GID:...
    let with_gid = accounts.lines().filter(|line| line.split(':').nth(3) == Some(gid));
    let names: Vec<&str> = with_gid.filter_map(|line| line.split(':').next()).collect();
    if !names.is_empty() {
        let what = format!("group pag is the primary group of {}", names.join(", "));
        let commands: Vec<String> = names.iter().map(|name| format!("usermod -g users {name}")).collect();
        look.found(Finding::error(Problem::GroupIsPrimary, what, why).mend(commands.join(" && ")));
    }
    if members.is_empty() && names.is_empty() {
        look.fine("the group pag is there and has no members");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{Machine, ids, says};

    #[test]
    fn the_group_is_there_and_is_no_persons() {
        let with = |line: &str| ids(&Machine::healthy().program("getent group pag", says(0, line)).look(check));
        assert_eq!(with("pag:x:990:\n"), []);
        assert_eq!(with("pag:x:990:alice,bob\n"), [Problem::GroupHasMembers]);
        assert_eq!(with("pag:x:61001:\n"), [Problem::GroupIsPrimary]);
        assert_eq!(
            ids(&Machine::healthy().program("getent group pag", says(2, "")).look(check)),
            [Problem::GroupMissing]
        );
    }
}
