//! `pagctl run`: a PAG for one command, without root and without the helper.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::safety::can;
use super::uid;
use crate::sandbox::{QuickCollection, Sandbox, eventually, key_count, pagctl, patience, reap};
use crate::ticket;

/// The key that is alice's token.
const TOKEN: &str = "keyctl pipe %user:afs@example.test";

/// A seeder that makes a token of so many seconds, for the identity after which the ccache is named.
fn seeder(seconds: u32) -> String {
    format!(
        "#!/bin/sh\necho \"$(id -u) $KRB5CCNAME\" >> /run/seeder.log\nexpires=$(($(date +%s) + {seconds}))\n\
         exec keyctl add user afs@example.test \"${{KRB5CCNAME##*/}}@EXAMPLE.TEST $expires\" @s >/dev/null\n"
    )
}

/// Puts pagctl where every user can run it, and gives alice a ticket.
fn install(sandbox: &Sandbox) {
    fs::copy(pagctl(), "/run/pagctl").unwrap();
    sandbox.seeder(&seeder(3600));
    give_ticket(3600);
}

fn give_ticket(seconds: u64) {
    ticket::write("/run/home/alice/alice", uid("alice"), "alice", "EXAMPLE.TEST", ticket::now() + seconds);
}

/// A process that becomes `pagctl run` of `words`, as alice, with her ccache in its environment and without rights.
fn alices(words: &[&str]) -> Command {
    let id = uid("alice").to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all", "keyctl", "session", "-"]);
    command.args(["/run/pagctl", "run"]).args(words);
    command.env("KRB5CCNAME", "FILE:/run/home/alice/alice").env("KRB5_KTNAME", "/run/home/alice/key");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(words: &[&str]) -> Output {
    alices(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it. Fails unless it ends with status 0, and returns what it says.
fn says(words: &[&str]) -> String {
    let output = run(words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    text(&output.stdout)
}

/// Fails unless pagctl says why it does not start the command, within `limit`, and ends with this status.
fn refuses(mut command: Command, status: i32, words: &str) {
    let begun = Instant::now();
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{words}: {said}");
    assert!(said.contains(words), "it says '{words}': {said}");
    assert!(!fs::exists("/run/home/alice/started").unwrap(), "{words}: the command was started: {said}");
    assert!(begun.elapsed() < Duration::from_secs(4) * patience(), "{words}: {:?}", begun.elapsed());
}

/// The keepers that are there. Their seeders are their children; this process, the first of its namespace, inherits the
/// keepers themselves.
fn keepers() -> Vec<i32> {
    reap();
    let is_keeper = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        line.starts_with(b"/run/pagctl\0run\0") && status.contains("PPid:\t1\n")
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_keeper).collect()
}

/// Waits until alice has as many keys as before, and no keeper is there.
fn nothing_is_left(before: u32, of: &str) {
    eventually(&format!("no keeper is left of {of}"), Duration::from_secs(20), || keepers().is_empty().then_some(()));
    eventually(&format!("no key is left of {of}"), Duration::from_secs(20), || {
        reap();
        (key_count(uid("alice")) <= before).then_some(())
    });
}

/// A command that waits for a line on its standard input, behind what it says first.
fn waiting(words: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = alices(words).stdin(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

fn line(output: &mut BufReader<std::process::ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn end_of(token: &str) -> u64 {
    let end = token.rsplit(' ').next().and_then(|end| end.parse().ok());
    end.unwrap_or_else(|| panic!("a token with its end: '{token}'"))
}

pub(super) fn command_has_tokens(sandbox: &mut Sandbox) {
    install(sandbox);
    let _quick = QuickCollection::begin();
    let before = key_count(uid("alice"));
    let token = says(&["keyctl", "pipe", "%user:afs@example.test"]);
    assert!(token.starts_with("alice@EXAMPLE.TEST "), "the tokens are there before the command starts: {token}");
    let two = says(&["--", "sh", "-c", &format!("{TOKEN}; {TOKEN}")]);
    assert_eq!(two.matches("alice@").count(), 2, "its children have them, too: {two}");

    let inside = says(&["unshare", "-Ur", "sh", "-c", &format!("id -u; {TOKEN}")]);
    assert!(inside.starts_with("0\nalice@"), "a user namespace changes nothing, as in a container: {inside}");

    // The command is what its caller has started: its pid, its status, its signals, its files.
    let child = alices(&["--name", "mirror", "sh", "-c", "echo $$; exec /run/pagctl id"]).spawn().unwrap();
    let pid = child.id();
    let said = text(&child.wait_with_output().unwrap().stdout);
    assert!(said.starts_with(&format!("{pid}\n")), "the command has another pid than {pid}: {said}");
    assert!(said.contains(&format!("process {pid} (mirror)")), "pagctl id tells the PAG's name: {said}");
    assert_eq!(run(&["sh", "-c", "exit 7"]).status.code(), Some(7), "the status is the command's");
    assert_eq!(run(&["sh", "-c", "kill -TERM $$"]).status.signal(), Some(15), "so is the signal that ends it");
    assert_eq!(run(&["/nonexistent/command"]).status.code(), Some(127), "there is no such command");
    assert_eq!(run(&["/run/home"]).status.code(), Some(126), "it cannot be run");
    let children = says(&["sh", "-c", "cat /proc/$$/task/$$/children"]);
    assert_eq!(children.split_whitespace().count(), 1, "it has a child that it has not started: {children}");
    let (mut child, mut output) = waiting(&[
        "sh",
        "-c",
        "read line; echo \"got $line\"; trap 'echo usr; exit 3' USR1; echo; while :; do sleep 0.05; done",
    ]);
    writeln!(child.stdin.as_mut().unwrap(), "hello").unwrap();
    assert_eq!((line(&mut output), line(&mut output)), ("got hello".to_owned(), String::new()), "standard input");
    let pid = i32::try_from(child.id()).unwrap();
    let send =
        |signal: &str| assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    };
    send("-TSTP");
    eventually("a stop reaches the command", Duration::from_secs(5), || (state() == 'T').then_some(()));
    send("-CONT");
    send("-USR1");
    assert_eq!((line(&mut output), child.wait().unwrap().code()), ("usr".to_owned(), Some(3)), "signals reach it");

    // A terminal, its foreground, and a shell's job control.
    let script = "tty >/dev/null && test \"$(ps -o tpgid= -p $$ | tr -d ' ')\" = \"$(ps -o pgid= -p $$ | tr -d ' ')\" && echo in front";
    fs::write("/run/script", script).unwrap();
    fs::write(
        "/run/shell",
        "set -m\n/run/pagctl run sh /run/script\n/run/pagctl run sh -c 'kill -STOP $$; echo goes on'\njobs\nfg\n",
    )
    .unwrap();
    let mut shell = Command::new("script");
    shell.args(["-qec", "bash /run/shell", "/dev/null"]).stdin(Stdio::null());
    let output = shell.env("KRB5CCNAME", "FILE:/run/home/alice/alice").output().unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("in front"), "the command has the terminal: {said}");
    assert!(said.contains("Stopped") && said.contains("goes on"), "a shell stops it and lets it go on: {said}");

    // What the caller has for itself does not reach it, and pagctl leaves nothing open.
    let script = "env | grep -c ^KRB5; ls /proc/$$/fd";
    let said = says(&["sh", "-c", script]);
    let mut without = Command::new("sh");
    let without = without.args(["-c", script]).stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(said, text(&without.stdout), "no variable leads to tickets, and no file is open");
    let said = says(&["env", "KRB5CCNAME=FILE:/x", "sh", "-c", "echo $KRB5CCNAME"]);
    assert_eq!(said, "FILE:/x\n", "but one that is given");

    let pinned = run(&["--pin", "sh", "-c", &format!("keyctl session - true || {TOKEN}")]);
    assert!(text(&pinned.stdout).starts_with("alice@"), "a pinned command stays in its PAG: {pinned:?}");
    nothing_is_left(before, "commands that have ended");
}

pub(super) fn keeper_renews(sandbox: &mut Sandbox) {
    install(sandbox);
    let _quick = QuickCollection::begin();
    let before = key_count(uid("alice"));
    sandbox.seeder(&seeder(3));
    // It says each token with its end, and each look without one, until its standard input ends. What it leaves behind is told
    // by a file, long after its own end.
    let script = format!(
        "setsid sh -c 'while ! test -e /run/home/alice/stop; do {TOKEN} >/run/home/alice/new; sleep 0.1; done' </dev/null >/dev/null 2>&1 &\n\
         last=; for i in $(seq 400); do now=$({TOKEN}) || now=none; test \"$now\" = \"$last\" || echo $now; last=$now; \
         test ! -e /run/home/alice/end || exit 5; sleep 0.05; done"
    );
    let (mut child, mut output) = waiting(&["sh", "-c", &script]);
    let first = line(&mut output);
    assert!(first.starts_with("alice@"), "a token from the beginning: {first}");
    let second = line(&mut output);
    assert!(second.starts_with("alice@") && end_of(&second) > end_of(&first), "renewed in time: {first}, {second}");
    assert!(ticket::now() < end_of(&first) + 1, "before the first one ends: {first}");
    let keeper = keepers();
    assert_eq!(keeper.len(), 1, "one process renews: {keeper:?}");
    assert!(sandbox.heard("got tokens of cell example.test for").text().contains("alice"), "the journal says so");

    // The command ends, and what it has left behind keeps the PAG and its tokens.
    fs::write("/run/home/alice/end", "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5), "pagctl waits for nothing else");
    let kept = || fs::read_to_string("/run/home/alice/new").ok().filter(|text| !text.is_empty());
    let last = end_of(&second);
    eventually("a process that is left has renewed tokens", Duration::from_secs(20), || {
        (end_of(&kept()?) > last + 2).then_some(())
    });
    assert_eq!(keepers(), keeper, "the same keeper is there");
    fs::write("/run/home/alice/stop", "").unwrap();
    nothing_is_left(before, "a PAG whose last process has ended");

    // Members that discard their tokens do not get them back.
    let script = "/run/pagctl unlog >/dev/null; echo; read line";
    let (mut child, mut output) = waiting(&["sh", "-c", script]);
    line(&mut output);
    let runs = sandbox.seeder_runs();
    std::thread::sleep(Duration::from_millis(3500));
    assert_eq!(sandbox.seeder_runs(), runs, "discarded tokens are not brought back");
    drop(child.stdin.take());
    child.wait().unwrap();

    // If the keeper is killed, the tokens stay until they end, and nothing is left afterwards.
    sandbox.seeder(&seeder(3600));
    let (mut child, mut output) = waiting(&["sh", "-c", &format!("echo; read line; {TOKEN}")]);
    line(&mut output);
    for pid in eventually("its keeper", Duration::from_secs(10), || Some(keepers()).filter(|found| !found.is_empty())) {
        assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    }
    eventually("the keeper is gone", Duration::from_secs(10), || keepers().is_empty().then_some(()));
    writeln!(child.stdin.take().unwrap()).unwrap();
    assert!(line(&mut output).starts_with("alice@"), "the command has its tokens without a keeper");
    child.wait().unwrap();
    nothing_is_left(before, "a PAG without a keeper");
    for name in ["end", "stop", "new"] {
        fs::remove_file(format!("/run/home/alice/{name}")).ok();
    }
}

pub(super) fn refuses_with_a_line(sandbox: &mut Sandbox) {
    install(sandbox);
    let _quick = QuickCollection::begin();
    let before = key_count(uid("alice"));
    let touch = ["touch", "/run/home/alice/started"];
    let with = |options: &[&'static str]| alices(&[options, &touch].concat());
    let with_ccache = |name: &str| {
        let mut command = with(&[]);
        command.env("KRB5CCNAME", name);
        command
    };
    let key = "/run/home/alice/key";
    fs::write(key, "").unwrap();
    chown(key, Some(uid("alice")), None).unwrap();
    let by_keytab = &["--keytab", key, "--principal", "alice"];
    fs::set_permissions(key, fs::Permissions::from_mode(0o640)).unwrap();
    refuses(
        with(by_keytab),
        125,
        "keytab /run/home/alice/key is refused: /run/home/alice/key: group or others may use it",
    );
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    chown(key, Some(uid("bob")), None).unwrap();
    refuses(with(by_keytab), 125, "it does not belong to uid 61001");
    chown(key, Some(uid("alice")), None).unwrap();
    refuses(with(by_keytab), 125, "keytab /run/home/alice/key brings no ticket of alice: kinit ended with status");
    refuses(with(&["--keytab", key]), 125, "--principal");
    refuses(
        with_ccache("FILE:/run/home/alice/none"),
        125,
        "no tokens for alice (uid 61001): there is no ticket in ccache FILE:/run/home/alice/none; get one with kinit",
    );
    refuses(with_ccache("KEYRING:session:x"), 125, "is in the session keyring");
    refuses(with_ccache("MEMORY:x"), 125, "its type is none");
    refuses(with(&["--user", "bob"]), 125, "only root can run a command as another user");
    give_ticket(0);
    refuses(with(&[]), 125, "the ticket in ccache FILE:/run/home/alice/alice has ended");
    give_ticket(3600);
    sandbox.seeder("#!/bin/sh\nexit 7\n");
    refuses(with(&[]), 125, "/run/seeder ended with status 7; it said nothing; the command was not started");
    sandbox.seeder("#!/bin/sh\nexit 0\n");
    refuses(with(&[]), 125, "no such token is in the ring");
    sandbox.configure("timeout = 1");
    sandbox.seeder("#!/bin/sh\nsleep 600\n");
    refuses(with(&[]), 125, "it had not ended within");
    // With --wait it tries again, and says so.
    sandbox.seeder("#!/bin/sh\nexit 7\n");
    refuses(with(&["--wait=1"]), 125, "it said nothing; the next attempt is in 1 s");
    let mut waits = alices(&["--wait", "sh", "-c", TOKEN]).spawn().unwrap();
    let mut progress = BufReader::new(waits.stderr.take().unwrap()).lines();
    assert!(progress.any(|line| line.unwrap().contains("no tokens yet for alice")), "progress is told");
    sandbox.seeder(&seeder(3600));
    let mut said = String::new();
    waits.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(
        waits.wait().unwrap().success() && said.starts_with("alice@"),
        "with --wait the command starts later: {said}"
    );
    fs::write("/etc/pag/pag.conf", "[pag]\nclient = none\n").unwrap();
    refuses(with(&[]), 125, "this host has no AFS client");
    sandbox.configure("");
    let left: Vec<_> = fs::read_dir("/tmp").unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().starts_with("pagctl-")),
        "a directory for a ticket is left: {left:?}"
    );
    nothing_is_left(before, "commands that were not started");
}

pub(super) fn keeps_to_itself(sandbox: &mut Sandbox) {
    install(sandbox);
    let (alice, bob) = (uid("alice"), uid("bob"));
    let (mut child, mut output) = waiting(&["sh", "-c", "keyctl id @s; keyctl id %user:afs@example.test; read line"]);
    let (ring, token) = (line(&mut output), line(&mut output));
    let keeper = eventually("its keeper", Duration::from_secs(10), || keepers().first().copied()).to_string();
    // Root is that of a container without a user namespace, too.
    for outsider in [alice, bob, 0] {
        let tries: &[&[&str]] = &[
            &["describe", &ring],
            &["link", &ring, "@s"],
            &["search", &ring, "user", "afs@example.test"],
            &["setperm", &ring, "0x3f3f3f3f"],
            &["clear", &ring],
            &["revoke", &ring],
            &["add", "user", "afs@evil.test", "x", &ring],
            &["pipe", &token],
            &["link", &token, "@s"],
        ];
        for words in tries {
            assert!(!can(outsider, outsider, "", words), "outside of the PAG uid {outsider} can: {words:?}");
        }
        if outsider == 0 {
            continue;
        }
        let id = outsider.to_string();
        for script in [
            format!("head -c 1 /proc/{keeper}/maps"),
            format!("head -c 1 /proc/{keeper}/environ"),
            "grep ' pag:[0-9a-f]*:[0-9]' /proc/keys".to_owned(),
        ] {
            let mut looks = Command::new("setpriv");
            looks.args([
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "keyctl",
                "session",
                "-",
                "sh",
                "-c",
                &script,
            ]);
            let output = looks.output().unwrap();
            assert!(!output.status.success(), "uid {outsider} sees the way into the PAG: {script}: {output:?}");
        }
    }
    drop(child.stdin.take());
    child.wait().unwrap();

    // For root: the command is another user, who gets nothing that is root's.
    fs::write(
        "/run/kinit",
        "#!/bin/sh\ncp /run/alice.cc \"${KRB5CCNAME#FILE:}\"\necho \"$(id -u) $KRB5CCNAME\" >> /run/kinit.log\n",
    )
    .unwrap();
    ticket::write("/run/alice.cc", 0, "alice", "EXAMPLE.TEST", ticket::now() + 3600);
    super::shell("chmod 755 /run/kinit; mount --bind /run/kinit /usr/bin/kinit; umask 77; echo secret >/run/keytab");
    let script = "id -un; id -G; echo $HOME $USER; env | grep -c ^KRB5; cat /run/keytab; ls -d /run/pagctl-*; grep -c ^Cap.*0000000000000000 /proc/self/status; ";
    let words = ["run", "--keytab", "/run/keytab", "--principal", "alice", "--user", "bob", "--", "sh", "-c"];
    let command = |script: &str| Command::new("/run/pagctl").args(words).arg(script).output().unwrap();
    let done = command(&format!("{script}{TOKEN}"));
    let said = text(&done.stdout);
    assert!(said.starts_with(&format!("bob\n{bob}\n/run/home/bob bob\n0\n")), "the command is bob: {done:?}");
    assert!(!said.contains("secret") && !said.contains("pagctl-"), "it sees no keytab and no ticket: {done:?}");
    assert!(said.contains("@EXAMPLE.TEST "), "and it has the tokens: {done:?}");
    let log = fs::read_to_string("/run/kinit.log").unwrap();
    assert!(log.starts_with("0 FILE:/run/pagctl-"), "root gets the ticket, in memory: {log}");
    let left = super::shell("ls /run | grep -c ^pagctl- || true");
    assert_eq!(left.trim(), "0", "the ticket is gone");
    // An engine of that name. With a user namespace, or if root says so, it is started.
    fs::write("/run/podman", "#!/bin/sh\necho started\n").unwrap();
    super::shell("chmod 755 /run/podman");
    let engine = |options: &[&str], given: &[&str]| {
        let by_keytab = ["run", "--keytab", "/run/keytab", "--principal", "alice"];
        let done = Command::new("/run/pagctl")
            .args([&by_keytab, options, &["--", "/run/podman", "run"], given].concat())
            .output();
        let done = done.unwrap();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    };
    let (status, said, why) = engine(&[], &["web"]);
    assert!(
        status == Some(125)
            && said.is_empty()
            && why.contains("without a user namespace")
            && why.contains("--host-root"),
        "a container without a user namespace is refused: {status:?} {said}{why}"
    );
    assert_eq!(engine(&["--host-root"], &["web"]).1, "started\n");
    assert_eq!(engine(&[], &["--userns=auto", "web"]).1, "started\n");
    super::shell("umount /usr/bin/kinit");
    eventually("no keeper is left", Duration::from_secs(20), || keepers().is_empty().then_some(()));
}
