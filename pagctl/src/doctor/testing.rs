//! A machine for tests: files below a directory, and programs that answer from a table.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::finding::Problem;
use super::host::{Host, Look};
use super::programs::{Programs, Ran};

pub(super) const MODULE: &str = "/usr/lib/x86_64-linux-gnu/security/pam_pag.so";
pub(super) const SEEDER: &str = "/usr/local/bin/seeder";

/// Answers by the beginning of the command line; the longest beginning counts.
#[derive(Clone, Default)]
struct Table(BTreeMap<String, Ran>);

impl Programs for Table {
    fn run(&self, words: &[&str], _: Duration) -> Ran {
        let line = words.join(" ");
        let fits = self.0.iter().filter(|(beginning, _)| line.starts_with(*beginning));
        fits.max_by_key(|(beginning, _)| beginning.len()).map_or(Ran::NotThere, |(_, ran)| ran.clone())
    }
}

pub(super) fn says(status: i32, out: &str) -> Ran {
    Ran::Done { status, out: out.to_owned(), err: String::new() }
}

pub(super) fn ids(look: &Look) -> Vec<Problem> {
    look.findings.iter().map(|finding| finding.id).collect()
}

/// A machine, which is healthy but for what a test changes.
pub(super) struct Machine {
    top: tempfile::TempDir,
    programs: Table,
}

impl Machine {
    pub(super) fn healthy() -> Self {
        let machine = Machine { top: tempfile::tempdir().unwrap(), programs: Table::default() };
        let release = concat!("pam_pag-release=", env!("CARGO_PKG_VERSION"), ";");
        let ours = "session required pam_keyinit.so force revoke\nsession optional pam_pag.so\n";
        let machine = machine
            .file("/proc/keys", "")
            .file("/proc/key-users", "0: 9 9/9 9/1000000 99/25000000\n")
            .file("/usr/lib/x86_64-linux-gnu/security/pam_unix.so", "")
            .file(MODULE, release)
            .file("/bin/sh", "")
            .file(SEEDER, "#!/bin/sh\n")
            .file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:61001:61001::/home/alice:/bin/sh\n")
            .file("/etc/group", "root:x:0:\npag:x:990:\n")
            .file("/etc/pag/pag.conf", "")
            .file("/etc/pag/pag.conf.d/lab.conf", "[pag]\nclient = keyring\nprogram = /usr/local/bin/seeder\n")
            .file("/etc/pam.d/sshd", ours)
            .file("/etc/pam.d/systemd-user", ours)
            .file("/usr/lib/systemd/system/pag-logind-helper.service", "")
            .file("/usr/libexec/pag-logind-helper", "")
            .file("/usr/share/dbus-1/system.d/org.pam_pag.Pag1.conf", "")
            .program("env LD_PRELOAD", says(0, ""))
            .program("getent group pag", says(0, "pag:x:990:\n"))
            .program("busctl --system --timeout=3 call", says(0, "b true\n"))
            .program(
                "busctl --system --timeout=3 --auto-start=no",
                says(0, &format!("v s \"{}\"\n", env!("CARGO_PKG_VERSION"))),
            );
        for program in [SEEDER, "/usr/libexec/pag-logind-helper"] {
            fs::set_permissions(machine.at(program), Permissions::from_mode(0o755)).unwrap();
        }
        machine
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.top.path().join(path.trim_start_matches('/'))
    }

    /// Writes a file.
    pub(super) fn file(self, path: &str, text: &str) -> Self {
        let place = self.at(path);
        for directory in place.ancestors().skip(1).take_while(|place| *place != self.top.path()) {
            fs::create_dir_all(directory).unwrap();
            fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(&place, text).unwrap();
        fs::set_permissions(&place, Permissions::from_mode(0o644)).unwrap();
        self
    }

    /// Removes a file.
    pub(super) fn without(self, path: &str) -> Self {
        fs::remove_file(self.at(path)).unwrap();
        self
    }

    /// Sets the answer of a program.
    pub(super) fn program(mut self, beginning: &str, ran: Ran) -> Self {
        self.programs.0.insert(beginning.to_owned(), ran);
        self
    }

    pub(super) fn host(&self, is_root: bool) -> Host {
        Host::new(self.top.path(), Box::new(self.programs.clone()), is_root, None)
    }

    /// What a check finds here.
    pub(super) fn look(&self, check: fn(&Host, &mut Look)) -> Look {
        let mut look = Look::default();
        check(&self.host(true), &mut look);
        look
    }
}
