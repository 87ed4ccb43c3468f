//! The machine's side: PAM stacks and the units.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::outages::helper;
use crate::guest::{
    Proof, Session, assert_same, assert_token, eventually, heard, journal, knock, manager_is, pags_of, run, sh,
};

/// The PAM stacks, by file name.
fn stacks() -> BTreeMap<String, String> {
    fs::read_dir("/etc/pam.d")
        .unwrap()
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path()).unwrap()))
        .collect()
}

/// `pagctl pam check`: its exit status and its words.
fn check() -> (Option<i32>, String) {
    let output = run("pagctl", &["pam", "check"]);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_over() {
    manager_is("alice", "inactive");
    eventually("the PAG has ended", Duration::from_secs(10), || pags_of("alice").is_empty().then_some(()));
}

pub(super) fn pam_check_is_right_and_disable_takes_back(_: u32) {
    let (code, words) = check();
    assert_eq!(code, Some(0), "after the installation: {words}");

    let path = "/etc/pam.d/systemd-user";
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains("pam_pag.so"), "{text}");
    let without: Vec<&str> = text.lines().filter(|line| !line.contains("pam_pag")).collect();
    fs::write(path, format!("{}\n", without.join("\n"))).unwrap();
    let (code, words) = check();
    assert_eq!(code, Some(1), "without the line in systemd-user: {words}");
    assert!(words.contains("systemd-user"), "{words}");
    let mut alice = Session::ssh("alice", Proof::Password);
    let (shell, service) = (alice.ring(), alice.service_ring());
    assert!(shell.is_pag() && shell.identity() != service.identity(), "check is right: {shell:#?} {service:#?}");
    assert!(service.token("example.test").is_none(), "{service:#?}");
    let manager = sh("systemctl show -P MainPID user@61001.service");
    heard(
        "pag-logind-helper",
        &format!("the user manager of alice (uid 61001), process {}, is in none", manager.trim()),
    );
    alice.log_out();
    is_over();

    sh("pagctl pam enable --yes");
    let (code, words) = check();
    assert_eq!(code, Some(0), "mended: {words}");
    let mut alice = Session::ssh("alice", Proof::Password);
    assert_same("mended", &alice.ring(), &alice.service_ring());
    assert_token("mended", &alice.service_ring());
    alice.log_out();
    is_over();

    // A line before ours ends the stack.
    let path = "/etc/pam.d/sshd";
    let text = fs::read_to_string(path).unwrap();
    let (include, ends) = ("@include common-session\n", "session sufficient pam_permit.so\n");
    fs::write(path, text.replace(include, &format!("{ends}{include}"))).unwrap();
    let (code, words) = check();
    assert_eq!(code, Some(1), "a line that ends the stack is seen: {words}");
    assert!(words.contains("pam_pag.so is never reached: /etc/pam.d/sshd:"), "the line that ends it is named: {words}");
    let mended = run("pagctl", &["pam", "enable", "--yes"]);
    let mended = String::from_utf8_lossy(&mended.stdout).into_owned();
    let ours = "+-session\toptional\tpam_pag.so\n";
    assert!(mended.contains(&format!("{ours} {ends}")), "our line goes where it is reached: {mended}");
    assert_eq!(check().0, Some(0), "mended, once more");
    let mut alice = Session::ssh("alice", Proof::Password);
    assert_token("a login by the line that is reached", &alice.ring());
    alice.log_out();
    is_over();
    fs::write(path, text).unwrap();

    // Shared stacks that are links, a screen locker without our line, an unknown service, a root that is not there.
    sh("cd /etc/pam.d && mv common-session common-session-ac && ln -s /etc/pam.d/common-session-ac common-session
        echo 'auth required pam_unix.so' > swaylock; cp sshd hand-made");
    let (code, words) = check();
    let locker = "wrong: swaylock: no auth line calls pam_pag.so";
    assert!(words.contains(locker) && code == Some(1), "a screen locker without our line is named: {words}");
    let unknown = words.lines().find(|line| line.contains("not known to pagctl")).unwrap_or_default();
    assert!(unknown.contains("hand-made"), "what pagctl does not know it names: {words}");
    let fine = words.lines().next().unwrap_or_default();
    assert!(fine.starts_with("All right: ") && fine.contains("sshd"), "a link is followed: {words}");
    let nowhere = run("pagctl", &["pam", "check", "--root", "/nowhere"]);
    assert_eq!(nowhere.status.code(), Some(2), "a root that is not there is not all right: {nowhere:?}");
    sh("cd /etc/pam.d && rm swaylock hand-made && mv common-session-ac common-session");

    sh("pagctl pam disable --yes");
    let disabled = stacks();
    for (name, text) in &disabled {
        assert!(!text.contains("pam_pag"), "{name} names us still: {text}");
    }
    let changed = run("dpkg", &["--verify"]);
    let changed = String::from_utf8_lossy(&changed.stdout).into_owned();
    let changed: Vec<&str> = changed.lines().filter(|line| line.contains("/etc/pam.d/")).collect();
    assert!(changed.is_empty(), "not as Debian has them: {changed:?}");
    let (code, words) = check();
    assert_eq!(code, Some(1), "taken back: {words}");
    let mut alice = Session::ssh("alice", Proof::Password);
    let ring = alice.ring();
    assert!(!ring.is_pag() && ring.token("example.test").is_none(), "{ring:#?}");
    alice.log_out();
    sh("pagctl pam enable --yes; pagctl pam disable --yes");
    assert_eq!(stacks(), disabled, "there and back");
}

/// As sites have the auth lines of pam_afs_session, with the module's name changed.
const LOCKS_OUT: &str =
    "auth [success=ok default=die] pam_krb5.so minimum_uid=1000\nauth [default=done] pam_pag.so debug\n";

pub(super) fn a_lock_out_is_found_and_mended(_: u32) {
    let path = "/etc/pam.d/sshd";
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, text.replace("@include common-auth\n", LOCKS_OUT)).unwrap();
    let denied = knock("alice", Proof::Password).wait_with_output().unwrap();
    assert!(!denied.status.success(), "the right password is denied, which is what check must find");
    let (code, words) = check();
    assert_eq!(code, Some(1), "a lock-out: {words}");
    let line = 2 + text.lines().position(|line| line == "@include common-auth").unwrap();
    let told = format!(
        "wrong: sshd: {path}:{line}: under [default=done] pam_pag.so, which answers PAM_IGNORE, denies the login"
    );
    assert!(words.contains(&told), "the line that denies is named: {words}");

    let mended = sh("pagctl pam enable --yes");
    assert!(
        mended.contains("-auth [default=done] pam_pag.so debug\n+-auth\toptional\tpam_pag.so debug\n"),
        "the control is mended: {mended}"
    );
    let (code, words) = check();
    assert_eq!(code, Some(0), "mended: {words}");
    let mut alice = Session::ssh("alice", Proof::Password);
    assert_token("the login that was denied", &alice.ring());
    alice.log_out();
    is_over();
}

pub(super) fn wrong_order_is_said_and_put_right(_: u32) {
    let path = "/etc/pam.d/sshd";
    let text = fs::read_to_string(path).unwrap();
    let is_keyinit = |line: &&str| line.starts_with("session") && line.contains("pam_keyinit");
    let keyinit = text.lines().find(is_keyinit).unwrap_or_else(|| panic!("no pam_keyinit in {text}"));
    let include = "@include common-session\n";
    // Moved, since of two calls in one process the second does nothing.
    let wrong = text.replace(&format!("{keyinit}\n"), "").replace(include, &format!("{include}{keyinit}\n"));
    fs::write(path, wrong).unwrap();
    let (code, words) = check();
    assert_eq!(code, Some(1), "pam_keyinit after us: {words}");
    assert!(words.contains("pam_keyinit"), "{words}");
    let mut alice = Session::ssh("alice", Proof::Password);
    let ring = alice.ring();
    assert!(ring.is_pag(), "sshd asks for credentials once more, and the login is put back: {ring:#?}");
    assert_token("the login", &ring);
    assert_same("a service", &ring, &alice.service_ring());
    heard("pam_pag", "something has replaced the session keyring since this login was put into ring");
    alice.log_out();
    is_over();
}

pub(super) fn journal_explains_messages(_: u32) {
    sh("journalctl --update-catalog");
    let mut alice = Session::ssh("alice", Proof::Password);
    let serial = alice.ring().identity().0;
    let text = sh("journalctl --sync; journalctl --catalog --no-pager --output=short -t pam_pag USER_ID=61001");
    for words in ["Subject: A PAG was made", "Uid 61001 had no PAG", "Subject: Tokens were got"] {
        assert!(text.contains(words), "the catalog explains: no '{words}' in {text}");
    }
    let logs = ["", "alice", "61001", "bob"].map(|user| sh(&format!("pagctl log {user}")));
    let seen = logs.each_ref().map(|text| text.contains("Subject: A PAG was made") && text.contains(" pam_pag"));
    assert_eq!(seen, [true, true, true, false], "pagctl log shows the messages about a user: {logs:#?}");
    let made = sh("journalctl --no-pager --output=json -t pam_pag MESSAGE_ID=f3c95789ace14954ac5d6baed2eac902");
    let fields: serde_json::Value = serde_json::from_str(made.lines().last().unwrap_or_default()).unwrap();
    assert_eq!(fields["KEYRING"], serial.to_string(), "the ring is a field: {fields:#}");
    assert_eq!(fields["PAG"], pags_of("alice")[0]["pag"], "the PAG is a field: {fields:#}");
    alice.log_out();
}

pub(super) fn unit_scores(_: u32) {
    // Two are root's, since only root may read a keytab, and have the network: they cannot score 2.0. That of a named PAG also
    // runs seeders.
    let keytab = "pag-keytab@5f2e91c07ab3d846.service";
    for (unit, most) in [
        ("pag-logind-helper.service", 2.0),
        ("pag-seed@61001.service", 2.0),
        (keytab, 2.2),
        ("pag@web.service", 2.8),
        ("pag-metrics.service", 2.0),
    ] {
        let text = sh(&format!("systemd-analyze security --no-pager --offline=yes --threshold=100 {unit}"));
        let line =
            text.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{text}"));
        let score = line.rsplit(": ").next().and_then(|rest| rest.split_whitespace().next());
        let score: f64 = score.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        assert!(score <= most, "{line}\n{text}");
    }
}

/// A process's counters in the kernel.
fn count(pid: &str, of: &[&str]) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(key, _)| of.contains(key)).map(|(_, value)| value.trim().parse::<u64>().unwrap()).sum()
}

pub(super) fn helper_is_one_thread_and_sleeps(_: u32) {
    let switches = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"];
    let pid = helper();
    assert_eq!(count(&pid, &["Threads"]), 1, "with nobody there");
    assert!(pags_of("alice").is_empty());
    // The machine's own start may still tell it something.
    std::thread::sleep(Duration::from_secs(2));
    let before = count(&pid, &switches);
    std::thread::sleep(Duration::from_secs(5));
    let after = count(&pid, &switches);
    assert!(after - before <= 1, "the helper woke up {} times in 5 s with nothing to do", after - before);

    let mut alice = Session::ssh("alice", Proof::Password);
    assert_token("alice", &alice.ring());
    std::thread::sleep(Duration::from_secs(2));
    let before = count(&pid, &switches);
    std::thread::sleep(Duration::from_secs(5));
    let after = count(&pid, &switches);
    assert!(after - before <= 10, "the helper woke up {} times in 5 s with one PAG", after - before);
    let said = journal("pag-logind-helper");
    assert!(!said.contains("the user manager of"), "a manager in its PAG is nothing to speak of: {said}");
    assert_eq!(count(&pid, &["Threads"]), 1, "with somebody there");
    assert_eq!(helper(), pid, "it is the same process still");
}

pub(super) fn filled_ccache_harms_neither_systemd_nor_others(_: u32) {
    let mut alice = Session::ssh("alice", Proof::Password);
    let ccache = alice.say("systemd-run --user --quiet --wait --pipe --collect printenv KRB5CCNAME");
    let ccache = ccache.trim().strip_prefix("DIR:").expect("the manager has the PAG's ccache").to_owned();
    for (what, filling) in [
        ("bytes", format!("dd if=/dev/zero of={ccache}/x bs=1M count=100000")),
        ("files", format!("perl -e 'for (1..1000000) {{ open(F, q(>), qq(/$ARGV[0]/f$_)) or last }}' {ccache}")),
    ] {
        alice.say(&filling);
        let full = alice.say(&format!("dd if=/dev/zero of={ccache}/more bs=8k count=1"));
        assert!(full.contains("No space left on device"), "alice's ccache is full of {what}: {full}");
        sh("systemctl daemon-reload");
        sh("systemd-run --wait --quiet --collect true");
        let mut bob = Session::ssh("bob", Proof::Password);
        let sessions = sh("loginctl list-sessions --no-legend");
        assert!(sessions.contains("bob"), "logind has bob's session: {sessions}");
        assert_same("bob's login beside full ccaches", &bob.ring(), &bob.service_ring());
        assert_token("bob's login", &bob.service_ring());
        let ticket = bob.say("systemd-run --user --quiet --wait --pipe --collect klist -s && echo good");
        assert_eq!(ticket, "good\n", "bob's services have his ticket");
        bob.log_out();
        // Only alice's own tokens are lost.
        let mut second = Session::ssh("alice", Proof::Password);
        assert_same("alice's second login", &second.ring(), &alice.ring());
        second.log_out();
        alice.say(&format!("find {ccache} -type f -delete"));
    }
    alice.log_out();
    for user in ["alice", "bob"] {
        manager_is(user, "inactive");
        eventually("the PAG has ended", Duration::from_secs(10), || pags_of(user).is_empty().then_some(()));
    }
    assert_eq!(sh("systemctl is-active pag-ccache.timer"), "active\n");
    let mounted = || sh("findmnt --noheadings --output TARGET --list --types tmpfs").contains("/run/pag/ccache/");
    assert!(mounted(), "the file systems are there");
    sh("systemctl start pag-ccache.service");
    assert!(!mounted(), "those of users without a PAG are taken away");
    assert_eq!(fs::read_dir("/run/pag/ccache").unwrap().count(), 0, "with their directories");
}
