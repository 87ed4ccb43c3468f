//! A process with several PAGs, which does what a scenario tells it: `tests/rust/pag-rusthost.rs`, and its twin by the C
//! interface, `tests/c/pag-chost.c`, which list the commands.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

/// The codes of pag.h.
pub mod code {
    /// An argument is wrong.
    pub const INVALID: i32 = 1;
    /// The handle belongs to the parent process.
    pub const FORKED: i32 = 2;
    /// The process has been opened already.
    pub const OPEN: i32 = 3;
    /// The PAG has ended, or the process was closed.
    pub const ENDED: i32 = 4;
    /// The uid has no room for more keys.
    pub const QUOTA: i32 = 5;
    /// It was not done in time.
    pub const TIMEOUT: i32 = 6;
    /// No token could be made.
    pub const SEED: i32 = 7;
    /// An AFS client makes no PAG.
    pub const NOPAG: i32 = 8;
    /// A system call failed.
    pub const SYSTEM: i32 = 9;
}

/// The programs, by the interface that they use.
pub const PROGRAMS: [&str; 2] = ["pag-rusthost", "pag-chost"];

/// The directory of libpag and its programs, as the tree under test has them.
pub fn built() -> PathBuf {
    std::env::var_os("PAG_LIBPAG").expect("PAG_LIBPAG names the directory of the library under test").into()
}

/// The process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Server { child, input, output }
    }

    /// Starts a program as `uid`, without rights or groups, and in a session keyring of its own.
    pub fn start_as(uid: u32, program: &Path) -> Self {
        let id = uid.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs", "--inh-caps=-all"]);
        // keyctl names the keyring there.
        command.args(["keyctl", "session", "-"]).arg(program).stderr(Stdio::null());
        Self::start(command)
    }

    /// The session keyring of a thread. `of` is the command with which it is asked ("thread T", "child C"), or empty.
    pub fn ring(&mut self, of: &str) -> i32 {
        self.ok(format!("{of} ring").trim_start()).parse().unwrap()
    }

    /// The token that a thread has, or "none".
    pub fn token(&mut self, of: &str) -> String {
        self.ok(format!("{of} token").trim_start())
    }

    /// Writes one line, and returns the answer's code and words.
    pub fn ask(&mut self, line: &str) -> (i32, String) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        let (code, words) = answer.trim_end_matches('\n').split_once(' ').unwrap_or_else(|| {
            panic!("the process has ended over '{line}' with '{answer}': {:?}", self.child.wait());
        });
        (code.parse().unwrap(), words.to_owned())
    }

    /// Writes one line. Fails unless the answer's code is 0, and returns its words.
    pub fn ok(&mut self, line: &str) -> String {
        let (code, words) = self.ask(line);
        assert_eq!(code, 0, "{line}: {words}");
        words
    }

    /// Writes one line. Fails unless the answer has this code and these words.
    pub fn fails(&mut self, line: &str, code: i32, words: &str) {
        let answer = self.ask(line);
        assert!(answer.0 == code && answer.1.contains(words), "{line}: not {code} '{words}' but {answer:?}");
    }

    /// The process's pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the input, and waits for the end.
    pub fn finish(mut self) -> ExitStatus {
        drop(self.input.take());
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
