//! Debian's packages of the product: installed, upgraded, removed and purged while users are logged in.

use std::time::Duration;

use crate::guest::{Proof, Session, assert_same, assert_token, eventually, manager_is, run, sh};

/// The files of the machine with their modes and owners, the sizes of those in /usr and /var, and the contents of those in
/// /etc, but for what dpkg and systemd keep about packages, and caches and logs.
const FILES: &str = r"
find /etc ! -name ld.so.cache ! -name .pwd.lock ! -name '*-' -printf '%p %y %m %u %g %l\n'
find /etc -type f ! -name ld.so.cache ! -name .pwd.lock ! -name '*-' -exec sha256sum {} + | sed 's/\([^ ]*\)  \(.*\)/\2 \1/'
find /usr /var -xdev \( -path /var/lib/dpkg -o -path /var/log -o -path /var/cache -o -path /var/tmp -o -path /var/lib/systemd \
    -o -path /var/lib/pam -o -path /var/spool -o -path /usr/local \) -prune -o -type d -printf '%p %y %m %u %g\n' \
    -o -printf '%p %y %m %u %g %s %l\n'
";

/// What the machine configures for the tests, as `install` does where the product is laid out without packages.
const SETTINGS: &str = "mkdir -p /etc/pag/pag.conf.d && printf '[pag]\\nclient = keyring\\nprogram = \
    /usr/local/bin/keyring-aklog\\nafs_cells = example.test\\n' > /etc/pag/pag.conf.d/lab.conf";

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

fn dpkg(arguments: &str) -> String {
    sh(&format!("DEBIAN_FRONTEND=noninteractive dpkg --force-unsafe-io {arguments} 2>&1"))
}

/// What differs from the packages' files, but for the manuals that this machine's dpkg leaves out.
fn verified() -> String {
    let said = sh("dpkg --verify libpam-pag libpag0 || true");
    said.lines().filter(|line| !line.contains("/usr/share/man/") && !line.contains("/usr/share/doc/")).collect()
}

/// The file with numbers for monitoring, in the directory that Debian's node_exporter reads.
const NUMBERS: &str = "/var/lib/prometheus/node-exporter/pag.prom";

pub(super) fn packages_come_and_go(_: u32) {
    sh("mkdir -p /var/lib/prometheus/node-exporter");
    let before = sh(FILES);
    let said = dpkg("-i /lab/packages/libpam-pag_*.deb /lab/packages/libpag0_*.deb");
    assert!(said.contains("pagctl pam enable"), "the package says what is next: {said}");
    assert_eq!(verified(), "", "what was installed is what the packages have");
    assert_eq!(
        sh("systemctl is-enabled pag-logind-helper; systemctl is-active pag-logind-helper"),
        "enabled\nactive\n"
    );
    assert!(
        run("grep", &["-rq", "pam_pag", "/etc/pam.d"]).stdout.is_empty() && !named_in_stacks(),
        "it changes no stack"
    );
    sh(SETTINGS);
    sh("pagctl pam enable --yes");
    let mut alice = Session::ssh("alice", Proof::Password);
    let ring = alice.ring();
    assert_token("alice's login", &ring);
    assert_same("alice's services", &ring, &alice.service_ring());

    // The same version again goes the way of an upgrade.
    dpkg("-i /lab/packages/libpam-pag_*.deb /lab/packages/libpag0_*.deb");
    assert_eq!(sh("systemctl is-active pag-logind-helper"), "active\n", "the helper runs after an upgrade");
    assert!(named_in_stacks(), "an upgrade leaves the stacks as they are");
    assert_same("alice's services after an upgrade", &ring, &alice.service_ring());
    assert_token("alice's services after an upgrade", &alice.service_ring());
    // Numbers for monitoring, once the administrator wants them.
    let enabled = run("systemctl", &["is-enabled", "pag-metrics.timer"]).stdout;
    assert_eq!(String::from_utf8_lossy(&enabled), "disabled\n", "the package enables no monitoring");
    sh("systemctl enable --now pag-metrics.timer 2>&1");
    let told = eventually("the timer has the numbers written", Duration::from_secs(30), || {
        std::fs::read_to_string(NUMBERS).ok()
    });
    for line in
        ["pag_helper_up 1", "pag_pags{kind=\"user\"} 1", "pag_managers_outside 0", "pag_helper_restarts_total 0"]
    {
        assert!(told.contains(&format!("\n{line}\n")), "the numbers have {line}: {told}");
    }
    assert_eq!(sh(&format!("stat -c %a {NUMBERS}")), "644\n");

    let mut bob = Session::ssh("bob", Proof::Password);
    assert_token("bob's login after an upgrade", &bob.ring());
    bob.log_out();

    dpkg("-r libpam-pag");
    assert!(!std::path::Path::new(NUMBERS).exists(), "old numbers do not tell that the helper is well");
    assert!(!named_in_stacks(), "no stack names a module that is gone: {}", sh("grep -r pam_pag /etc/pam.d || true"));
    assert_token("alice's login, which was open while the package was removed", &alice.ring());
    let mut bob = Session::ssh("bob", Proof::Password);
    assert!(!bob.ring().is_pag(), "a login without the package is in no PAG");
    bob.log_out();
    alice.log_out();
    manager_is("alice", "inactive");
    manager_is("bob", "inactive");

    let said = dpkg("-P libpam-pag libpag0");
    // Alice's PAG has not ended: without the module and the helper there was none to end it.
    let group = run("getent", &["group", "pag"]);
    assert!(group.status.success(), "while there are PAGs, the group that can enter them stays: {said}");
    assert!(said.contains("the group pag stays"), "and the package says so: {said}");
    let after = sh(FILES);
    let (before, after) = (lines(&before), lines(&after));
    // The accounts, where the group stays.
    let accounts = ["/etc/group", "/etc/gshadow", "/etc/passwd", "/etc/shadow"];
    let differ = |line: &&&str| !accounts.iter().any(|file| line.starts_with(&format!("{file} ")));
    let more: Vec<_> = after.iter().filter(|line| !before.contains(line)).filter(differ).collect();
    let less: Vec<_> = before.iter().filter(|line| !after.contains(line)).filter(differ).collect();
    assert!(more.is_empty() && less.is_empty(), "a purge leaves {more:#?} and takes {less:#?}");
    assert_eq!(
        sh("systemctl list-unit-files 'pag-*' --no-legend | grep -v ^pag-scenario || true"),
        "",
        "no unit is left"
    );
    eventually("no process of ours is left", Duration::from_secs(10), || {
        run("pgrep", &["-f", "/usr/libexec/pag-"]).stdout.is_empty().then_some(())
    });
}

fn named_in_stacks() -> bool {
    run("grep", &["-rqs", "pam_pag", "/etc/pam.d"]).status.success()
}
