//! A process with several PAGs, which does what a scenario tells it: `tests/c/pag-chost.c`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

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
