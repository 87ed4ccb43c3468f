//! Tiers 2 and 3 from inside: a booted Debian with systemd as PID 1, logind, sshd and a KDC. Users log in over ssh,
//! as on a real host.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use crate::ring::Ring;
pub use crate::sandbox::{QuickCollection, eventually, key_count, patience};

/// The cell that tokens are for.
pub const CELL: &str = "example.test";

/// How a user authenticates.
#[derive(Debug, Clone, Copy)]
pub enum Proof {
    /// By password: pam_krb5 then gets a ticket.
    Password,
    /// By ssh key: no ticket.
    Key,
    /// By a Kerberos ticket in this ccache. sshd gets a copy of it.
    Ticket(&'static str),
}

/// The uid of one of the accounts of the machine.
pub fn uid(user: &str) -> u32 {
    match user {
        "alice" => 61001,
        "bob" => 61002,
        "carol" => 61003,
        "dave" => 61004,
        numbered => 61100 + numbered.trim_start_matches('u').parse::<u32>().unwrap(),
    }
}

/// Runs a program and returns its output. Fails if it cannot be started.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// Runs a shell command as root and returns its output. Fails if it fails.
pub fn sh(command: &str) -> String {
    let output = run("sh", &["-c", command]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "'{command}' ended with {}: {out}{err}", output.status);
    out.into_owned()
}

fn ssh_command(user: &str, proof: Proof) -> Command {
    let mut host = "127.0.0.1";
    let mut command = match proof {
        Proof::Password => {
            let mut command = Command::new("sshpass");
            command.args(["-p", &format!("{user}pw"), "ssh", "-o", "PreferredAuthentications=password"]);
            command
        }
        Proof::Key => Command::new("ssh"),
        Proof::Ticket(ccache) => {
            // The client's ticket is for the name of the host, for which sshd has its key from the KDC.
            host = if fs::exists("/etc/openafs").unwrap_or(false) { "afs.example.test" } else { "lab" };
            let mut command = Command::new("ssh");
            command.args(["-o", "PreferredAuthentications=gssapi-with-mic", "-o", "GSSAPIAuthentication=yes"]);
            command.args(["-o", "GSSAPIDelegateCredentials=yes"]).env("KRB5CCNAME", ccache);
            command
        }
    };
    command.args(["-q", "-o", "ConnectTimeout=60", &format!("{user}@{host}")]);
    command
}

/// Starts a login over ssh and does not wait for it.
pub fn knock(user: &str, proof: Proof) -> Child {
    ssh_command(user, proof)
        .arg("sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The output of a command that a user runs over ssh. Fails if the login or the command fails.
pub fn ssh(user: &str, proof: Proof, command: &str) -> String {
    let output = ssh_command(user, proof).arg(command).stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "ssh {user} '{command}' ended with {}: {out}{err}", output.status);
    out.into_owned()
}

/// A user at a shell.
pub struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// Logs in over ssh and stays.
    pub fn ssh(user: &str, proof: Proof) -> Self {
        Self::start(ssh_command(user, proof).arg("sh"))
    }

    /// Starts a shell by another way of logging in, by its standard input and output.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut session = Session { child, input, output };
        assert_eq!(session.say("echo hello"), "hello\n", "the shell is there");
        session
    }

    /// Runs a command in the shell and returns its output, with its errors.
    pub fn say(&mut self, command: &str) -> String {
        writeln!(self.input, "{{ {command}\n}} 2>&1; echo; echo '=== end'").expect("the shell is there");
        let mut text = String::new();
        loop {
            let mut line = String::new();
            let length = self.output.read_line(&mut line).unwrap();
            assert!(length > 0, "the shell ended over '{command}': {text}");
            if line == "=== end\n" {
                // Without the line break that keeps the mark on its own line.
                text.pop();
                return text;
            }
            text.push_str(&line);
        }
    }

    /// The ring of the shell.
    pub fn ring(&mut self) -> Ring {
        Ring::parse(&self.say("pag-probe"))
    }

    /// The ring of a service that systemd starts for the user.
    pub fn service_ring(&mut self) -> Ring {
        Ring::parse(&self.say("systemd-run --user --quiet --wait --pipe --collect pag-probe"))
    }

    /// Logs out and waits for the end of the connection.
    pub fn log_out(mut self) {
        let _ = writeln!(self.input, "exit");
        self.child.wait().unwrap();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// All messages of `identifier` in the journal, one a line.
pub fn journal(identifier: &str) -> String {
    sh(&format!("journalctl --sync >/dev/null 2>&1; journalctl -q -o cat -t {identifier} || true"))
}

/// Waits for a message of `identifier` that contains `words`.
pub fn heard(identifier: &str, words: &str) {
    let found = |_: ()| journal(identifier).contains(words).then_some(());
    let end = std::time::Instant::now() + Duration::from_secs(10) * patience();
    while found(()).is_none() {
        assert!(std::time::Instant::now() < end, "no message says '{words}': {}", journal(identifier));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// `pagctl status --json`, as root sees it.
pub fn status() -> serde_json::Value {
    let output = run("pagctl", &["status", "--json"]);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("pagctl status: {e}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The PAGs of a user, as root sees them.
pub fn pags_of(user: &str) -> Vec<serde_json::Value> {
    let all = status()["all"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|pag| pag["uid"] == uid(user)).collect()
}

/// How often the seeder has run.
pub fn seeder_runs() -> usize {
    fs::read_to_string("/run/seeder.log").map_or(0, |text| text.lines().count())
}

/// Waits until a user's manager runs, or no longer runs.
pub fn manager_is(user: &str, state: &str) {
    let unit = format!("user@{}.service", uid(user));
    eventually(&format!("{unit} is {state}"), Duration::from_secs(30), || {
        let output = run("systemctl", &["is-active", &unit]);
        (String::from_utf8_lossy(&output.stdout).trim() == state).then_some(())
    });
}

/// Fails, and shows both rings, if they differ.
pub fn assert_same(what: &str, one: &Ring, other: &Ring) {
    assert_eq!(one.identity(), other.identity(), "{what}: one ring expected\none:   {one:#?}\nother: {other:#?}");
}

/// Fails when there is no token in the ring.
pub fn assert_token(what: &str, ring: &Ring) {
    assert!(ring.token(CELL).is_some(), "{what}: no token in {ring:#?}");
}
