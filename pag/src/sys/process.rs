//! Processes.

use super::host::is_process;
use std::fs::File;
use std::io::Read;

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// Process id, in the pid namespace that the registry is named after.
    pub pid: i32,
    /// Start time in clock ticks since boot: field 22 of `/proc/PID/stat` (proc(5)).
    pub start: u64,
}

impl Process {
    /// The process with this pid, if there is one. A zombie counts as gone: it runs nothing more.
    pub fn find(pid: i32) -> Option<Self> {
        let mut stat = [0; STAT];
        Some(Process { pid, start: start_time(read_stat(pid, &mut stat)?)? })
    }

    /// The calling process.
    pub fn current() -> Option<Self> {
        Self::find(i32::try_from(std::process::id()).ok()?)
    }

    /// Its pid and its name, for people. The process chooses its name.
    pub fn label(self) -> String {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        format!("process {} ({})", self.pid, name.trim_end())
    }

    /// Its parent, if both run.
    pub fn parent(self) -> Option<Self> {
        let parent = || {
            let mut stat = [0; STAT];
            let stat = read_stat(self.pid, &mut stat)?;
            (start_time(stat)? == self.start).then(|| parent_pid(stat))?
        };
        let found = Self::find(parent()?)?;
        // The kernel gives a pid to another process only after the old process has left its children. So the child had
        // this parent if it has it both before and after the look.
        (parent()? == found.pid).then_some(found)
    }

    /// Whether it is the calling process, and not a process from which the calling one was forked.
    pub fn is_this(self) -> bool {
        i32::try_from(std::process::id()) == Ok(self.pid)
    }

    /// Whether it still runs. A process that `/proc` does not show may still run: a chroot may have no `/proc` or that
    /// of another pid namespace, and `hidepid=` hides processes from a root without CAP_SYS_PTRACE (Linux,
    /// fs/proc/base.c, has_pid_permissions). If nothing tells, the process counts as running.
    pub fn is_alive(self) -> bool {
        let mut stat = [0; STAT];
        match read_stat(self.pid, &mut stat) {
            Some(stat) => start_time(stat) == Some(self.start) || !Self::sees_itself(),
            None => is_process(self.pid),
        }
    }

    /// Whether `/proc` shows the calling process under its own pid. Then `/proc` belongs to its pid namespace.
    pub fn sees_itself() -> bool {
        let shown = std::fs::read_link("/proc/self");
        shown.is_ok_and(|shown| shown.to_str() == Some(&*std::process::id().to_string()))
    }
}

/// Longest line of `/proc/PID/stat`, in bytes.
const STAT: usize = 1024;

/// The text of `/proc/PID/stat`, with one read: every login does this several times.
fn read_stat(pid: i32, space: &mut [u8; STAT]) -> Option<&[u8]> {
    let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(space).ok()?;
    space.get(..length)
}

/// Start time in the text of `/proc/PID/stat`; `None` for a zombie. The second field is the process's name in
/// parentheses. The process chooses the name, so it may hold spaces and parentheses: the field ends at the last
/// closing one.
fn start_time(stat: &[u8]) -> Option<u64> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat.get(end_of_name + 1..)?.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let state = fields.next()?;
    if matches!(state, b"Z" | b"X") {
        return None;
    }
    // The state is field 3, so the start time, field 22, is the nineteenth after it.
    str::from_utf8(fields.nth(18)?).ok()?.parse().ok()
}

/// Pid of the parent in the text of `/proc/PID/stat`: field 4. `None` for the first process of a pid namespace.
fn parent_pid(stat: &[u8]) -> Option<i32> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat.get(end_of_name + 1..)?.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    str::from_utf8(fields.nth(1)?).ok()?.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(name: &str, state: &str) -> Vec<u8> {
        format!("17 ({name}) {state} 1 17 17 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 8214 9 0\n").into_bytes()
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_start_time() {
        for name in ["sshd", "a) S 1 (b", ") Z", "((", " "] {
            assert_eq!(start_time(&stat(name, "S")), Some(8214), "{name}");
        }
    }

    #[test]
    fn a_zombie_is_gone() {
        assert_eq!(start_time(&stat("sshd", "Z")), None);
    }

    #[test]
    fn text_that_is_no_stat_line_is_no_process() {
        for text in ["", ")", "1 (x) S", "1 (x) S 1 2 3"] {
            assert_eq!(start_time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn this_process_is_alive_and_an_earlier_one_of_its_pid_is_not() {
        let me = Process::current().unwrap();
        assert!(me.is_alive());
        assert!(!Process { start: me.start.wrapping_sub(1), ..me }.is_alive());
        assert!(Process::sees_itself());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(is_process(pid), "a zombie, or it runs still");
        child.wait().unwrap();
        assert!(!is_process(pid));
    }

    #[test]
    fn a_parent_is_found_however_a_process_calls_itself() {
        for name in ["sh", "a) S 9 (b", ") R 7"] {
            assert_eq!(parent_pid(&stat(name, "S")), Some(1), "{name}");
        }
        assert_eq!(parent_pid(b"1 (init) S 0 1 1"), None);
        let me = Process::current().unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let sleeper = Process::find(i32::try_from(child.id()).unwrap()).unwrap();
        assert_eq!(sleeper.parent(), Some(me));
        assert_eq!(Process { start: sleeper.start + 1, ..sleeper }.parent(), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(sleeper.parent(), None);
    }
}
