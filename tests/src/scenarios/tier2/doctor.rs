//! `pagctl doctor` on machines that are each broken in one way. What breaks them knows nothing of how the doctor looks.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::guest::{Proof, Session, eventually, manager_is, pags_of, run, sh};

/// What puts a machine right again.
enum Cure {
    /// The command that the doctor names, as it is printed.
    AsPrinted,
    /// This, since the machine has nothing to install from, or an editor would be needed.
    ByHand(&'static str),
}
use Cure::{AsPrinted, ByHand};

/// How a machine is broken, the cause that must be named first, and the cure.
type Fault = (&'static str, &'static str, Cure);

const RESTART: &str = "systemctl restart pag-logind-helper";

const FAULTS: &[Fault] = &[
    ("systemctl stop pag-logind-helper", "helper-not-running", AsPrinted),
    ("systemctl disable --now pag-logind-helper 2>&1", "helper-disabled", AsPrinted),
    ("systemctl mask --now pag-logind-helper 2>&1", "helper-masked", AsPrinted),
    (
        "mkdir -p /etc/systemd/system/pag-logind-helper.service.d
         printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' > /etc/systemd/system/pag-logind-helper.service.d/a.conf
         systemctl daemon-reload; systemctl restart --no-block pag-logind-helper; sleep 0.3",
        "helper-not-running",
        AsPrinted,
    ),
    (
        "chmod 600 /usr/libexec/pag-logind-helper; systemctl restart --no-block pag-logind-helper; sleep 0.3",
        "helper-not-running",
        AsPrinted,
    ),
    ("echo '# changed' >> /usr/lib/systemd/system/pag-logind-helper.service", "units-not-reloaded", AsPrinted),
    (
        "cd /usr/libexec && cp -p pag-logind-helper new && mv new pag-logind-helper",
        "helper-outdated",
        AsPrinted,
    ),
    ("kill -STOP $(systemctl show -P MainPID pag-logind-helper)", "helper-silent", AsPrinted),
    (
        "cd /usr/share/dbus-1 && cp -a system.d /run/policies && rm /run/policies/*pag*
         mount --bind /run/policies system.d && systemctl reload dbus && systemctl restart pag-logind-helper && umount system.d",
        "bus-policy-not-read",
        AsPrinted,
    ),
    (
        "mv /usr/share/dbus-1/system.d/*pag* /run/policy && systemctl reload dbus && systemctl restart pag-logind-helper",
        "bus-policy-missing",
        ByHand("mv /run/policy /usr/share/dbus-1/system.d/org.pam_pag.Pag1.conf; systemctl reload dbus; systemctl restart pag-logind-helper"),
    ),
    ("mv $(find /usr/lib -name pam_pag.so) /run/module", "module-missing", ByHand("mv /run/module $PAM/pam_pag.so")),
    (
        "cp -p $PAM/pam_pag.so /run/module; truncate -s 20000 $PAM/pam_pag.so",
        "module-not-loadable",
        ByHand("mv /run/module $PAM/pam_pag.so"),
    ),
    (
        "cp -p $PAM/pam_pag.so /run/module; sed -i 's/-release=[0-9]/-release=9/' $PAM/pam_pag.so",
        "module-other-version",
        ByHand("mv /run/module $PAM/pam_pag.so"),
    ),
    ("usermod -aG pag bob", "group-has-members", AsPrinted),
    (
        "printf '[pag]\\nscop = session\\n' > /etc/pag/pag.conf.d/typo.conf",
        "config-wrong",
        ByHand("rm /etc/pag/pag.conf.d/typo.conf"),
    ),
    ("pagctl pam disable --yes", "pam-not-enabled", AsPrinted),
    ("sed -i /pam_pag/d /etc/pam.d/systemd-user", "pam-undone-by-keyinit", AsPrinted),
    (
        "sed -i 's/^@include common-session/session sufficient pam_permit.so\\n&/' /etc/pam.d/sshd",
        "pam-not-reached",
        AsPrinted,
    ),
    (
        "sed -i 's/^@include common-auth/auth [success=ok default=die] pam_krb5.so\\nauth [default=done] pam_pag.so/' /etc/pam.d/sshd",
        "pam-decides",
        AsPrinted,
    ),
    (
        "mv /usr/local/bin/keyring-aklog /run/seeder",
        "seeder-missing",
        ByHand("mv /run/seeder /usr/local/bin/keyring-aklog"),
    ),
    ("chmod 640 /usr/local/bin/keyring-aklog", "seeder-not-executable", AsPrinted),
    (
        "mkdir /etc/openafs; echo example.test > /etc/openafs/ThisCell
         printf '[pag]\\nclient = auto\\n' > /etc/pag/pag.conf.d/z.conf",
        "afs-module-not-loaded",
        ByHand("rm -r /etc/openafs /etc/pag/pag.conf.d/z.conf"),
    ),
    ("chmod 600 /etc/krb5.conf", "krb5-conf-unreadable", AsPrinted),
    ("systemctl stop krb5-kdc", "kdc-unreachable", ByHand("systemctl start krb5-kdc")),
    (
        "sed -i 's/^.libdefaults./&\\n\\tdefault_ccache_name = KEYRING:session:me/' /etc/krb5.conf",
        "ccache-not-shared",
        AsPrinted,
    ),
    (
        "printf '[Service]\\nExecStart=/bin/true\\nKeyringMode=private\\n' > /etc/systemd/user/mine.service",
        "unit-leaves-pag",
        AsPrinted,
    ),
    ("sed -i 's/^UsePAM.*/UsePAM no/' /etc/ssh/sshd_config.d/lab.conf; systemctl reload ssh", "sshd-without-pam", AsPrinted),
];

/// What breaks or cures a machine, with the directory of PAM modules in PAM.
fn as_root(script: &str) {
    sh(&format!("PAM=$(dirname $(find /usr/lib -name pam_unix.so)); {script}"));
}

/// What the doctor finds: its exit status and its JSON.
fn doctor(arguments: &[&str]) -> (i32, Value) {
    let output = run("pagctl", &[&["doctor", "--json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{output:?}"));
    (output.status.code().unwrap(), json)
}

/// The names of the findings that something is to be done about.
fn causes(json: &Value) -> Vec<String> {
    let bad = |finding: &&Value| finding["severity"] == "error" || finding["severity"] == "warning";
    let findings = json["findings"].as_array().unwrap().iter().filter(bad);
    findings.map(|finding| finding["id"].as_str().unwrap().to_owned()).collect()
}

fn is_green(after: &str) {
    let (status, json) = doctor(&[]);
    assert_eq!(status, 0, "the machine is in order after '{after}': {json:#}");
}

/// Runs a command as it is printed. One that asks is typed at a terminal, and gets a `y`.
fn as_printed(command: &str) {
    let asks = command.starts_with("pagctl pam");
    let typed = format!("echo y | timeout 60 script -qec '{command}' /dev/null");
    sh(&format!("{} || echo failed", if asks { &typed } else { command }));
}

pub(super) fn doctor_names_the_cause_first(_: u32) {
    let begun = Instant::now();
    let words = run("pagctl", &["doctor", "-v"]);
    let (took, text) = (begun.elapsed(), String::from_utf8_lossy(&words.stdout).into_owned());
    assert_eq!(words.status.code(), Some(0), "a healthy machine is green: {text}");
    assert!(took < Duration::from_secs(10), "a healthy machine is looked at in {took:?}");
    assert!(text.contains("is of release ") && text.contains("answers on the bus"), "what is fine is listed: {text}");
    assert!(!text.contains('\u{1b}'), "no colour without a terminal: {text}");

    // The cures of the stacks leave lines of others that broke them.
    sh("cp -p /etc/pam.d/sshd /run/sshd.pam");
    for (breaks, cause, cure) in FAULTS {
        as_root(breaks);
        let (status, json) = doctor(&[]);
        assert_eq!(causes(&json).first().map(String::as_str), Some(*cause), "the first cause of '{breaks}': {json:#}");
        assert!((1..=2).contains(&status), "{cause}: the exit status tells it: {status}");
        let printed = json["findings"][0]["command"].as_str().unwrap_or_default().to_owned();
        match cure {
            AsPrinted => as_printed(&printed),
            ByHand(script) => as_root(script),
        }
        is_green(if let AsPrinted = cure { &printed } else { breaks });
    }
    sh("mv /run/sshd.pam /etc/pam.d/sshd");

    // Two faults at once: each is named.
    as_root("systemctl mask --now pag-logind-helper 2>&1; chmod 640 /usr/local/bin/keyring-aklog");
    let (status, json) = doctor(&[]);
    assert_eq!((status, causes(&json)), (2, vec!["seeder-not-executable".to_owned(), "helper-masked".to_owned()]));
    let nagios = run("pagctl", &["doctor", "--nagios"]);
    let line = String::from_utf8_lossy(&nagios.stdout).into_owned();
    assert!(line.starts_with("PAG CRITICAL - ") && line.lines().count() == 1, "one line for Nagios: {line}");
    as_root(
        "systemctl unmask pag-logind-helper; systemctl enable --now pag-logind-helper; chmod 755 /usr/local/bin/keyring-aklog",
    );
    as_root(RESTART);
    a_manager_from_before();
}

/// A manager that was started before pam_pag was in its stack; and the look at one login.
fn a_manager_from_before() {
    as_root(
        "cp /etc/pam.d/systemd-user /run/manager.pam
         printf 'account required pam_permit.so\nsession required pam_keyinit.so force revoke\nsession optional pam_systemd.so\n' > /etc/pam.d/systemd-user",
    );
    let alice = Session::ssh("alice", Proof::Password);
    as_root("mv /run/manager.pam /etc/pam.d/systemd-user");
    let (_, json) = doctor(&["--user", "alice"]);
    assert_eq!(causes(&json), ["manager-outside"], "the manager is older: {json:#}");
    let printed = json["findings"][0]["command"].as_str().unwrap_or_default().to_owned();
    as_printed(&printed);
    is_green(&printed);
    alice.log_out();
    manager_is("alice", "inactive");
    eventually("the PAG has ended", Duration::from_secs(10), || pags_of("alice").is_empty().then_some(()));

    let mut alice = Session::ssh("alice", Proof::Password);
    let (status, json) = doctor(&["--user", "alice"]);
    assert_eq!(status, 0, "alice's login is in order: {json:#}");
    assert!(json["fine"].to_string().contains("a service that the manager of alice"), "a service was tried: {json:#}");
    let own = alice.say("pagctl doctor -v; echo status $?");
    assert!(own.contains("status 0") && own.contains("only root can look"), "what alice sees herself: {own}");
    alice.say("pagctl unlog");
    let (status, json) = doctor(&["--user", "alice"]);
    assert_eq!((status, causes(&json)), (1, vec!["tokens-missing".to_owned()]), "{json:#}");
    alice.log_out();
}
