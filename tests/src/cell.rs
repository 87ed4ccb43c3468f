//! Tier 3 from inside: a [`guest`](crate::guest) with a real AFS cell. Homes are in AFS, and each has a file
//! `secret` that only its owner can read.

use std::fs;
use std::time::Duration;

use crate::guest::{Proof, Session, eventually, key_count, manager_is, pags_of, sh, uid};
use crate::scenarios::tier3::Client;

/// A user's home, in a volume of its own.
pub fn home(user: &str) -> String {
    format!("/afs/example.test/user/{user}")
}

/// A ticket of alice's in the place that they log in from. ssh delegates it.
pub fn ticket() -> Proof {
    sh("echo alicepw | kinit -f -c FILE:/run/ticket.alice alice");
    Proof::Ticket("FILE:/run/ticket.alice")
}

/// Puts pam_afs_session into the PAM stacks, as its package does by default.
pub fn todays_module() {
    sh("cp /usr/local/share/todays-pam.d/* /etc/pam.d/");
}

/// Loads a client and mounts it, and unloads the others. Fails if a process still uses one of those.
///
/// Without a client kAFS's mount is masked: logind has the file system of a user's home mounted for their session
/// (RequiresMountsFor= of its scope), which would load kAFS.
pub fn load(client: Client) {
    let verb = if client == Client::None { "mask" } else { "unmask" };
    sh(&format!("systemctl --runtime --quiet {verb} afs.mount; lab-client {}", client.name()));
}

/// Waits until kAFS finds the cell. A machine that had just woken once answered EDESTADDRREQ, while its host was
/// busy; the cause is not known.
pub fn is_found(client: Client) {
    let is_lost = || {
        let looked = crate::guest::run("ls", &["/afs/example.test"]);
        String::from_utf8_lossy(&looked.stderr).contains("Destination address required")
    };
    if client == Client::Kafs {
        eventually("kAFS finds the cell", Duration::from_secs(20), || (!is_lost()).then_some(()));
    }
}

/// The output of a shell command that systemd runs as a service of the user's, with its errors.
pub fn service(session: &mut Session, command: &str) -> String {
    session.say(&format!("systemd-run --user --quiet --wait --pipe --collect sh -c '{command}'"))
}

/// The lines of the journal in which a user's manager, or a service of it, was denied something.
pub fn denials(user: &str) -> Vec<String> {
    let unit = format!("user@{}.service", uid(user));
    let text = sh(&format!("journalctl --sync; journalctl -q -o cat _SYSTEMD_UNIT={unit}"));
    text.lines().filter(|line| line.contains("Permission denied")).map(str::to_owned).collect()
}

/// Fails unless the kernel refused access.
pub fn assert_denied(what: &str, said: &str) {
    assert!(said.contains("Permission denied"), "{what}: a refusal is expected: {said}");
}

/// Writes a new file. Without a token the kernel refuses that; a file that was read before stays readable from the
/// cache. The command has neither `$`, which systemd-run replaces, nor quotes.
pub const WRITE: &str = "mktemp ~/new.XXXXXX >/dev/null && echo written";

/// Fails unless [`WRITE`] has written.
pub fn assert_works(what: &str, said: &str) {
    assert!(said.contains("written"), "{what}: cannot write the home: {said}");
}

/// The output of a command of root's, with its errors, whether it succeeds or fails.
pub fn as_root(command: &str) -> String {
    sh(&format!("{{ {command}; }} 2>&1 || true"))
}

/// Waits until a user's manager and PAGs are gone.
pub fn is_over(user: &str) {
    manager_is(user, "inactive");
    eventually(&format!("the PAG of {user} has ended"), Duration::from_secs(20), || {
        pags_of(user).is_empty().then_some(())
    });
}

/// As above, without a helper that reaps: what the manager has left is removed by hand.
pub fn is_over_without_helper(user: &str) {
    manager_is(user, "inactive");
    sh("systemctl start pag-logind-helper");
    is_over(user);
}

/// Waits until a file in the home holds its own name, as a member of the PAG sees it.
pub fn written(user: &str, session: &mut Session, name: &str, what: &str) {
    eventually(&format!("{what} has written {}/{name}", home(user)), Duration::from_secs(30), || {
        session.say(&format!("cat ~/{name}")).starts_with("by the ").then_some(())
    });
}

/// How many `_pag` keys there are. Root owns them, so root sees them.
pub fn afs_pags() -> u64 {
    fs::read_to_string("/proc/keys").unwrap().lines().filter(|line| line.contains(" afs_pag ")).count() as u64
}

/// Makes kAFS end its idle connections at once. They hold the keys that they were made with, and otherwise stay for
/// two minutes (net/rxrpc/conn_client.c).
pub fn let_go_of_keys_early(client: Client) {
    if client == Client::Kafs {
        sh("cd /proc/sys/net/rxrpc && echo 500 > idle_conn_expiry && echo 500 > idle_conn_fast_expiry");
    }
}

/// A number that differs when alice has a PAG more or less.
pub fn live_pags(client: Client) -> u64 {
    match client {
        Client::OpenAfs => afs_pags(),
        Client::Kafs | Client::None => u64::from(key_count(uid("alice"))),
    }
}

/// The number that OpenAFS gives to its next PAG; it counts up by one.
pub fn pag_counter(client: Client) -> Option<u64> {
    let groups = sh("pagctl new -- id -G");
    let number = groups.split_whitespace().filter_map(|gid| gid.parse::<u64>().ok()).find(|gid| gid >> 24 == 0x41);
    assert_eq!(number.is_some(), client == Client::OpenAfs, "{groups}");
    number
}

/// Writes the product's configuration.
pub fn configure(lines: &str) {
    fs::create_dir_all("/etc/pag/pag.conf.d").unwrap();
    fs::write("/etc/pag/pag.conf.d/test.conf", format!("[pag]\n{lines}")).unwrap();
    sh("systemctl reload pag-logind-helper");
}

/// The seeder for a host without an AFS client.
pub fn keyring_lines(client: Client) -> &'static str {
    match client {
        Client::None => "client = keyring\nprogram = /usr/local/bin/keyring-aklog\nafs_cells = example.test\n",
        Client::OpenAfs | Client::Kafs => "",
    }
}

/// Logs alice in by key, with a delegated ticket, so that the login itself does not need the KDC.
pub fn login_with(ccache: &str) -> Session {
    sh(&format!("chown alice {ccache}"));
    fs::write("/run/lab.env", format!("KRB5CCNAME=FILE:{ccache}\n")).unwrap();
    let stack = fs::read_to_string("/etc/pam.d/sshd").unwrap();
    let line = |kind: &str| format!("{kind} required pam_env.so readenv=1 envfile=/run/lab.env\n");
    if !stack.contains("/run/lab.env") {
        // This line must come first, since ours are in the files that the stack includes.
        fs::write("/etc/pam.d/sshd", format!("{}{}{stack}", line("auth"), line("session"))).unwrap();
    }
    Session::ssh("alice", Proof::Key)
}

/// Starts a process of the session that outlives it and for which logind keeps session and manager. Asked, it
/// answers with a command's exit status.
pub fn leave_in_session(session: &mut Session, command: &str) {
    sh("rm -rf /run/left; mkdir -m 1777 /run/left");
    session.say(&format!(
        "setsid sh -c 'echo $$ > /run/left/pid; while ! test -e /run/left/ask; do sleep 0.2; done; {command}; \
         echo $? > /run/left/code' >/dev/null 2>&1 </dev/null & while ! test -s /run/left/pid; do sleep 0.1; done"
    ));
}

/// As above, but outside of the session's control group, so that session and manager end.
pub fn leave_behind(session: &mut Session, command: &str) {
    leave_in_session(session, command);
    sh("cat /run/left/pid > /sys/fs/cgroup/$(sed -n 's/^0:://p' /proc/self/cgroup)/cgroup.procs");
}

/// Whether the command succeeds now, as the process answers.
pub fn left_behind() -> bool {
    fs::write("/run/left/ask", "").unwrap();
    let code = eventually("what was left behind answers", Duration::from_secs(20), || {
        fs::read_to_string("/run/left/code").ok().filter(|code| code.ends_with('\n'))
    });
    code.trim() == "0"
}

/// Where [`load_kafs_beside`] mounts kAFS's file system.
pub const OTHER_MOUNT: &str = "/run/kafs";

/// Loads kAFS beside OpenAFS, under another name, and mounts it apart. See [`renamed`](crate::renamed) for why.
pub fn load_kafs_beside() {
    let refused = crate::guest::run("modprobe", &["kafs"]);
    assert!(!refused.status.success(), "kAFS can be loaded beside OpenAFS as it is: then it need not be renamed here");
    let file = sh("modinfo -n kafs").trim().to_owned();
    let mut module =
        if file.ends_with(".xz") { crate::guest::run("xz", &["-dc", &file]).stdout } else { fs::read(&file).unwrap() };
    crate::renamed::rename(&mut module);
    fs::write("/run/kafs.ko", module).unwrap();
    let name = crate::renamed::NAME;
    sh(&format!(
        "for needed in $(modinfo -F depends kafs | tr , ' '); do modprobe $needed; done; insmod /run/kafs.ko; \
         kafs-preload; mkdir -p {OTHER_MOUNT}; mount -t {name} -o dyn none {OTHER_MOUNT}"
    ));
}

/// The clients of the good tokens that the processes behind a shell see, and their cells.
pub fn tokens(session: &mut Session) -> Vec<String> {
    let text = session.say("pagctl tokens --json");
    let told: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let all = told["tokens"].as_array().cloned().unwrap_or_default();
    let good = all.iter().filter(|token| token["state"] == "good");
    let mut told: Vec<_> = good
        .map(|token| format!("{} {}", token["client"].as_str().unwrap(), token["cell"].as_str().unwrap()))
        .collect();
    told.sort();
    told
}
