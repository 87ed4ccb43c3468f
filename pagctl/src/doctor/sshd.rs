//! sshd's own options.

use super::finding::{Finding, Problem};
use super::host::{Host, Look, QUICK, one_line};

/// The file that sets an option: of several the first one counts, and Debian includes the directory first.
fn setting_file(host: &Host, option: &str) -> Option<String> {
    let folder = "/etc/ssh/sshd_config.d";
    let drop_ins = host.names(folder).into_iter().filter(|name| name.ends_with(".conf"));
    let mut files = drop_ins.map(|name| format!("{folder}/{name}")).chain(["/etc/ssh/sshd_config".to_owned()]);
    let names = |line: &str| line.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case(option));
    files.find(|file| host.text(file).is_some_and(|text| text.lines().any(names)))
}

pub(super) fn check(host: &Host, look: &mut Look) {
    if !host.has("/usr/sbin/sshd") {
        look.fine("there is no sshd");
        return;
    }
    let Some((status, out, err)) = look.ask(host, &["/usr/sbin/sshd", "-T"], QUICK) else { return };
    if status != 0 {
        look.left_out(format!("sshd's options: sshd -T says: {}", one_line(&err)));
        return;
    }
    let is = |option: &str| out.lines().any(|line| line.eq_ignore_ascii_case(option));
    if is("usepam no") {
        let what = "sshd does not use PAM (UsePAM no)";
        let why = "ssh logins are in no PAG and have no tokens";
        let set = match setting_file(host, "UsePAM") {
            Some(file) => format!("sed -i 's/^[[:space:]]*UsePAM[[:space:]].*/UsePAM yes/I' {file}"),
            None => "sed -i '1i UsePAM yes' /etc/ssh/sshd_config".to_owned(),
        };
        let unit = if host.has("/usr/lib/systemd/system/sshd.service") { "sshd" } else { "ssh" };
        let command = format!("{set} && systemctl reload {unit}");
        look.found(Finding::error(Problem::SshdWithoutPam, what, why).mend(command));
    } else {
        look.fine("sshd uses PAM");
    }
    if is("gssapiauthentication yes") && is("gssapicleanupcredentials no") {
        let what = "sshd keeps delegated tickets after the logout (GSSAPICleanupCredentials no)";
        let why = "they stay in /tmp until their end; the PAG has a copy of its own and does not need them";
        look.found(Finding::info(Problem::SshdKeepsTickets, what, why).mend("sshd -T | grep -i gssapi"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{Machine, ids, says};

    #[test]
    fn an_sshd_without_pam_is_an_error() {
        let with =
            |said: &str| Machine::healthy().file("/usr/sbin/sshd", "").program("/usr/sbin/sshd -T", says(0, said));
        assert_eq!(ids(&with("usepam yes\n").look(check)), []);
        let file = "/etc/ssh/sshd_config.d/x.conf";
        let look = with("port 22\nusepam no\n").file(file, "\tusepam no\n").look(check);
        assert_eq!(ids(&look), [Problem::SshdWithoutPam]);
        assert!(look.findings[0].command.as_deref().unwrap().contains(file), "{look:?}");
        let keeps = with("usepam yes\ngssapiauthentication yes\ngssapicleanupcredentials no\n");
        assert_eq!(ids(&keeps.look(check)), [Problem::SshdKeepsTickets]);
    }
}
