//! Gates in a guest: each stops a login at one place until a test has done something meanwhile.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::guest::{eventually, sh};

/// `lab-gate NAME`: writes which process has come, and waits while the gate is shut. It gives up in time if the test
/// has gone.
const GATE: &str = r#"#!/bin/sh
[ -e /run/gate/$1.shut ] && [ "$PAM_TYPE" != close_session ] || exit 0
echo $PPID > /run/gate/$1.new && mv /run/gate/$1.new /run/gate/$1.here
n=0
while [ -e /run/gate/$1.shut ] && [ $n -lt 600 ]; do sleep 0.05; n=$((n + 1)); done
"#;

/// A seeder that stops at a gate.
const SEEDER: &str = "#!/bin/sh\nlab-gate seeder\nexec /usr/local/bin/keyring-aklog \"$@\"\n";

/// The places at which a login can be stopped, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// The user has authenticated; pam_pag has not been called.
    Before,
    /// The login is in its PAG, and its seeder runs.
    Seeder,
    /// pam_pag has finished; pam_systemd has not been called.
    After,
    /// The login waits in pam_systemd for the user manager. The manager's process is in its PAG and does not run
    /// systemd yet.
    Manager,
}

impl Gate {
    /// All of them.
    pub const ALL: [Gate; 4] = [Gate::Before, Gate::Seeder, Gate::After, Gate::Manager];

    fn name(self) -> &'static str {
        match self {
            Gate::Before => "before",
            Gate::Seeder => "seeder",
            Gate::After => "after",
            Gate::Manager => "manager",
        }
    }

    fn path(self, what: &str) -> String {
        format!("/run/gate/{}.{what}", self.name())
    }

    /// Shuts the gate for the next login.
    pub fn shut(self) {
        fs::remove_file(self.path("here")).ok();
        fs::write(self.path("shut"), "").unwrap();
    }

    /// Waits until a process stops at the gate, and returns it: a login's sshd, its seeder, or the manager to be.
    pub fn reached(self) -> i64 {
        let path = self.path("here");
        let text = eventually(&format!("a login comes to gate {self:?}"), Duration::from_secs(20), || {
            fs::read_to_string(&path).ok()
        });
        text.trim().parse().unwrap()
    }

    /// Opens the gate.
    pub fn open(self) {
        fs::remove_file(self.path("shut")).unwrap();
    }
}

fn program(path: &str, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Puts lines around the first line that matches in a PAM file.
fn around(path: &str, is_it: impl Fn(&str) -> bool, before: &str, after: &str) {
    let text = fs::read_to_string(path).unwrap();
    let at = text.lines().position(is_it).unwrap_or_else(|| panic!("no such line in {path}: {text}"));
    let mut lines: Vec<&str> = text.lines().collect();
    lines.splice(at..=at, [before, lines[at], after]);
    fs::write(path, format!("{}\n", lines.join("\n"))).unwrap();
}

/// Builds all gates into the machine, open.
pub fn build() {
    sh("install -d -m 1777 /run/gate");
    program("/usr/local/bin/lab-gate", GATE);
    program("/usr/local/bin/lab-aklog", SEEDER);
    let line =
        |kind: &str, gate: Gate| format!("{kind} optional pam_exec.so quiet /usr/local/bin/lab-gate {}", gate.name());
    let is_session = |line: &str| line.contains("session") && line.contains("pam_pag.so");
    around("/etc/pam.d/sshd", |line| line.contains("common-account"), "", &line("account", Gate::Before));
    around("/etc/pam.d/common-session", is_session, "", &line("session", Gate::After));
    around("/etc/pam.d/systemd-user", is_session, "", &line("session", Gate::Manager));
    // A seeder gets more time than a test needs meanwhile.
    sh("sed -i -e 's|keyring-aklog|lab-aklog|' -e '$ a timeout = 60s' /etc/pag/pag.conf.d/lab.conf");
}
