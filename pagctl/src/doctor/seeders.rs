//! The programs that get tokens.

use pag::config::{AKLOG, AKLOG_KAFS};
use pag::types::Client;

use super::client::expected;
use super::finding::{Finding, Problem};
use super::host::{Host, Look};

/// The seeder of a client, and the option that names it.
fn seeder(host: &Host, client: Client) -> Option<(String, &'static str)> {
    let of = |words: &Option<Vec<String>>| words.as_ref().and_then(|words| words.first().cloned());
    match client {
        Client::Keyring => of(&host.settings.program).map(|path| (path, "program")),
        Client::OpenAfs => Some((of(&host.settings.program).unwrap_or(AKLOG.to_owned()), "program")),
        Client::Kafs => Some((of(&host.settings.kafs_program).unwrap_or(AKLOG_KAFS.to_owned()), "kafs_program")),
    }
}

/// The program that runs a script, by its first line.
fn interpreter(host: &Host, path: &str) -> Option<String> {
    let bytes = host.bytes(path)?;
    let line = bytes.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line.get(..line.len().min(200))?).into_owned();
    line.split_whitespace().next().map(str::to_owned)
}

pub(super) fn check(host: &Host, look: &mut Look) {
    if host.settings.notokens {
        look.fine("pag.conf says notokens = yes: no seeder is run");
        return;
    }
    for client in expected(host) {
        let name = client.as_str();
        let Some((path, option)) = seeder(host, client) else {
            let what = "the client keyring has no seeder: `program` in pag.conf is not set";
            let why = "no tokens are got; this client has no default";
            let command = "pagctl status --explain";
            look.found(Finding::error(Problem::SeederMissing, what, why).mend(command));
            continue;
        };
        let why = format!("logins and renewals get no tokens of {name}");
        match host.mode(&path) {
            None => {
                let what = format!("the seeder of {name} is not there: {path} ({option} in pag.conf)");
                let command = match path.as_str() {
                    AKLOG => "apt install openafs-krb5",
                    AKLOG_KAFS => "apt install kafs-client",
                    _ => "pagctl status --explain",
                };
                look.found(Finding::error(Problem::SeederMissing, what, why).mend(command));
            }
            Some(mode) if mode & 0o001 == 0 || !host.at(&path).is_file() => {
                let what = format!("users may not execute the seeder of {name}: {path} has the mode {mode:04o}");
                look.found(Finding::error(Problem::SeederNotExecutable, what, why).mend(format!("chmod 755 {path}")));
            }
            Some(_) if interpreter(host, &path).is_some_and(|program| !host.has(&program)) => {
                let program = interpreter(host, &path).unwrap_or_default();
                let what = format!("the seeder of {name}, {path}, begins with #!{program}, which is not there");
                look.found(Finding::error(Problem::SeederNotExecutable, what, why).mend(format!("head -n 1 {path}")));
            }
            Some(_) => look.fine(format!("the seeder of {name} is there: {path}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{Machine, SEEDER, ids};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_seeder_is_there_and_users_may_run_it() {
        assert_eq!(ids(&Machine::healthy().look(check)), []);
        assert_eq!(ids(&Machine::healthy().without(SEEDER).look(check)), [Problem::SeederMissing]);
        let machine = Machine::healthy();
        std::fs::set_permissions(machine.at(SEEDER), std::fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(ids(&machine.look(check)), [Problem::SeederNotExecutable]);
        let script = Machine::healthy();
        std::fs::write(script.at(SEEDER), "#!/no/such/shell\n").unwrap();
        assert_eq!(ids(&script.look(check)), [Problem::SeederNotExecutable]);
        let without = Machine::healthy().file("/etc/pag/pag.conf.d/lab.conf", "[pag]\nclient = keyring\n");
        assert_eq!(ids(&without.look(check)), [Problem::SeederMissing]);
    }
}
