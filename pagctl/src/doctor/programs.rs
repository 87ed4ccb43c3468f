//! Other programs that the doctor asks, each within a limit.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longest answer that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Where programs are found. A user's own PATH may lack the directories of root's.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The status of timeout(1) for a program that it ended or had to kill, and for one that is not there.
const ENDED: i32 = 124;
const KILLED: i32 = 137;
const NOT_THERE: i32 = 127;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It ended by itself, with this status, and wrote this.
    Done { status: i32, out: String, err: String },
    /// This host does not have it.
    NotThere,
    /// It did not end in time.
    TooSlow,
}

/// Whoever runs programs: this host, or a test.
pub(crate) trait Programs: Send + Sync {
    /// Runs a program and reads its output, for at most `limit`.
    fn run(&self, words: &[&str], limit: Duration) -> Ran;
}

/// The programs of this host.
#[derive(Debug)]
pub(super) struct OfHost;

impl Programs for OfHost {
    fn run(&self, words: &[&str], limit: Duration) -> Ran {
        let seconds = limit.as_secs_f32().to_string();
        // A program that waits in the kernel cannot be killed. It is left behind then.
        let end = Instant::now() + limit + Duration::from_millis(1500);
        let child = Command::new("timeout")
            .args(["--kill-after=1", &seconds])
            .args(words)
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .env("SYSTEMD_PAGER", "")
            .env("SYSTEMD_COLORS", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else { return Ran::NotThere };
        let (out, err) = (child.stdout.take().map(reader), child.stderr.take().map(reader));
        let (send, status) = channel();
        thread::spawn(move || send.send(child.wait()));
        let Ok(Ok(status)) = status.recv_timeout(end.saturating_duration_since(Instant::now())) else {
            return Ran::TooSlow;
        };
        let text = |from: Option<Receiver<String>>| {
            // A process that the program left behind may still have the pipe.
            let wait = end.saturating_duration_since(Instant::now()).min(Duration::from_millis(500));
            from.and_then(|from| from.recv_timeout(wait).ok()).unwrap_or_default()
        };
        // timeout(1) ends by the signal that ended the program.
        match status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(ENDED) {
            ENDED | KILLED => Ran::TooSlow,
            NOT_THERE => Ran::NotThere,
            status => Ran::Done { status, out: text(out), err: text(err) },
        }
    }
}

/// Reads a pipe to its end, in a thread of its own.
fn reader(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, text) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.take(LONGEST).read_to_end(&mut bytes);
        send.send(String::from_utf8_lossy(&bytes).into_owned())
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_its_time_and_no_more() {
        let run = |words: &[&str], seconds| OfHost.run(words, Duration::from_secs(seconds));
        let echo = run(&["sh", "-c", "echo out; echo err >&2; exit 3"], 20);
        assert_eq!(echo, Ran::Done { status: 3, out: "out\n".to_owned(), err: "err\n".to_owned() });
        assert_eq!(run(&["no-such-program"], 20), Ran::NotThere);
        let broken = Ran::Done { status: 135, out: String::new(), err: String::new() };
        assert_eq!(run(&["sh", "-c", "ulimit -c 0; kill -BUS $$"], 20), broken, "a signal is no lack of time");
        let begun = Instant::now();
        assert_eq!(run(&["sleep", "60"], 1), Ran::TooSlow);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        // A process that stays behind with the pipe is not waited for.
        let begun = Instant::now();
        assert!(matches!(run(&["sh", "-c", "setsid sleep 30 & exit 0"], 20), Ran::Done { status: 0, .. }));
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    }
}
