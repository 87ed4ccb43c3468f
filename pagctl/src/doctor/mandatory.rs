//! What SELinux and AppArmor have denied, as far as a log tells.

use super::finding::{Finding, Problem};
use super::host::{Host, Look, QUICK, one_line};

/// Whether a line of a log is about us: keys, or programs that we run.
fn is_ours(line: &str) -> bool {
    ["tclass=key ", "pag-", "pam_pag", "aklog", "/run/pag", "/etc/pag"].iter().any(|word| line.contains(word))
}

fn denied(look: &mut Look, by: &str, line: &str, command: &str) {
    let what = format!("{by} has denied something to pam_pag or a seeder: {}", one_line(line));
    let why = "logins may be in no PAG or without tokens; the policy needs a rule";
    look.found(Finding::warning(Problem::MandatoryDenied, what, why).mend(command));
}

pub(super) fn check(host: &Host, look: &mut Look) {
    let selinux = host.text("/sys/fs/selinux/enforce").is_some_and(|text| text.trim() == "1");
    let apparmor = host.text("/sys/module/apparmor/parameters/enabled").is_some_and(|text| text.trim() == "Y");
    if selinux && let Some((_, out, _)) = look.ask(host, &["ausearch", "-m", "avc", "-ts", "today"], QUICK) {
        if let Some(line) = out.lines().rfind(|line| line.contains("denied") && is_ours(line)) {
            denied(look, "SELinux", line, "ausearch -m avc -ts today | audit2allow -w");
        } else {
            look.fine("SELinux has denied nothing today to pam_pag or a seeder");
        }
    }
    if apparmor {
        let words = ["journalctl", "-q", "-k", "-b", "-o", "cat", "-S", "-1d"];
        let Some((_, out, _)) = look.ask(host, &words, QUICK) else { return };
        let is_denial = |line: &&str| line.contains("apparmor=\"DENIED\"") && is_ours(line);
        if let Some(line) = out.lines().rfind(is_denial) {
            denied(look, "AppArmor", line, "journalctl -k -b | grep 'apparmor=\"DENIED\"'");
        } else {
            look.fine("AppArmor has denied nothing since yesterday to pam_pag or a seeder");
        }
    }
    if !selinux && !apparmor {
        look.fine("neither SELinux nor AppArmor is enforced");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{Machine, ids, says};

    #[test]
    fn only_denials_that_concern_us_are_told() {
        let machine = |said: &str| {
            let machine = Machine::healthy().file("/sys/fs/selinux/enforce", "1").program("ausearch", says(0, said));
            ids(&machine.look(check))
        };
        assert_eq!(
            machine("avc:  denied  { link } for comm=\"sshd\" tclass=key permissive=0\n"),
            [Problem::MandatoryDenied]
        );
        assert_eq!(machine("avc:  denied  { read } for comm=\"x\" tclass=file permissive=0\n"), []);
        let line = "audit: apparmor=\"DENIED\" operation=\"exec\" profile=\"sshd\" name=\"/usr/bin/aklog\"\n";
        let look = Machine::healthy().file("/sys/module/apparmor/parameters/enabled", "Y\n");
        assert_eq!(ids(&look.program("journalctl -q -k", says(0, line)).look(check)), [Problem::MandatoryDenied]);
    }
}
