//! Leases: what keeps a PAG in use. A login, a live user manager, later a `pagctl new`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use crate::ccache::Place;
use crate::sys;

/// What kind of process holds a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The PAM host of a login.
    Login,
    /// `systemd --user`.
    Manager,
}

impl Role {
    /// The word in records and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Login => "login",
            Role::Manager => "manager",
        }
    }

    /// The role that a word names.
    pub fn parse(word: &str) -> Option<Self> {
        [Role::Login, Role::Manager].into_iter().find(|role| role.as_str() == word)
    }
}

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

    /// Its pid and its name, for people. The process can choose its name.
    pub fn label(self) -> String {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        format!("process {} ({})", self.pid, name.trim_end())
    }

    /// Its parent, if both are there.
    pub fn parent(self) -> Option<Self> {
        let parent = || {
            let mut stat = [0; STAT];
            let stat = read_stat(self.pid, &mut stat)?;
            (start_time(stat)? == self.start).then(|| parent_pid(stat))?
        };
        let found = Self::find(parent()?)?;
        // A pid is given to another only after its process has left its children: the child had this parent before
        // and after the look.
        (parent()? == found.pid).then_some(found)
    }

    /// Whether it is the calling process, and not one that this was forked off from.
    pub fn is_this(self) -> bool {
        i32::try_from(std::process::id()) == Ok(self.pid)
    }

    /// Whether it still runs. A process that `/proc` does not show may run all the same: a chroot may have no `/proc`, or that
    /// of another pid namespace, and `hidepid=` hides processes from a root without CAP_SYS_PTRACE (Linux, fs/proc/base.c,
    /// has_pid_permissions). Where nothing tells the process counts as running.
    pub fn is_alive(self) -> bool {
        let mut stat = [0; STAT];
        match read_stat(self.pid, &mut stat) {
            Some(stat) => start_time(stat) == Some(self.start) || !Self::sees_itself(),
            None => sys::is_process(self.pid),
        }
    }

    /// Whether `/proc` shows the calling process under its own pid: it is then that of its pid namespace.
    pub fn sees_itself() -> bool {
        let shown = std::fs::read_link("/proc/self");
        shown.is_ok_and(|shown| shown.to_str() == Some(&*std::process::id().to_string()))
    }
}

/// Longest line of `/proc/PID/stat`.
const STAT: usize = 1024;

/// The text of `/proc/PID/stat`, by one read: this is done several times in every login.
fn read_stat(pid: i32, space: &mut [u8; STAT]) -> Option<&[u8]> {
    let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(space).ok()?;
    space.get(..length)
}

/// Start time in the text of `/proc/PID/stat`; none for a zombie. The second field is the process's name in
/// parentheses, which the process chooses: spaces and parentheses in it are passed by taking the last one.
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

/// Pid of the parent in the text of `/proc/PID/stat`: field 4. None for the first process of a pid namespace.
fn parent_pid(stat: &[u8]) -> Option<i32> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat.get(end_of_name + 1..)?.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    str::from_utf8(fields.nth(1)?).ok()?.parse().ok().filter(|pid| *pid > 0)
}

/// Why a PAG is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The process whose end ends the lease.
    pub process: Process,
    /// Tells apart two PAM transactions of one process.
    pub cookie: u64,
    /// What kind of process it is.
    pub role: Role,
    /// PAM service.
    pub service: Word,
    /// Terminal, as PAM names it.
    pub tty: Word,
    /// The login's own KRB5CCNAME: `-` where it has none, `?` where that is nothing to keep.
    pub ccache: Word,
    /// How many sessions of its process it stands for: more than one where the process has more than it may have leases.
    pub sessions: u32,
}

/// How many leases one process can have in a PAG. A host that opens sessions and closes none would otherwise fill the record, in
/// which the user's other logins need room.
pub const OF_ONE_PROCESS: usize = 16;

/// Adds `lease`, and gives the lease that stands for the session. This is `lease` itself, or, where its process has no lease
/// left, the process's newest one of the same PAM service (else its newest one), which stands for one session more then.
pub fn admit(leases: &mut Vec<Lease>, lease: Lease) -> Lease {
    let of_process = |known: &&mut Lease| known.process == lease.process;
    if leases.iter_mut().filter(of_process).count() < OF_ONE_PROCESS {
        leases.push(lease.clone());
        return lease;
    }
    let newest = leases.iter_mut().filter(of_process).max_by_key(|known| known.service == lease.service);
    newest.map_or(lease, |newest| {
        newest.sessions = newest.sessions.saturating_add(1);
        newest.clone()
    })
}

/// Ends one session that the lease with this cookie stands for, and with the last of them the lease.
pub fn release(leases: &mut Vec<Lease>, cookie: u64) {
    leases.retain_mut(|lease| {
        if lease.cookie == cookie {
            lease.sessions = lease.sessions.saturating_sub(1);
        }
        lease.sessions > 0
    });
}

/// How many sessions all these leases stand for.
pub fn sessions(leases: &[Lease]) -> u32 {
    leases.iter().map(|lease| lease.sessions).fold(0, u32::saturating_add)
}

/// How many sessions `process` has open.
pub fn sessions_of(leases: &[Lease], process: Process) -> u32 {
    leases.iter().filter(|lease| lease.process == process).map(|lease| lease.sessions).fold(0, u32::saturating_add)
}

/// The process that has most sessions open, and how many.
pub fn busiest(leases: &[Lease]) -> Option<(Process, u32)> {
    let each = leases.iter().map(|lease| (lease.process, sessions_of(leases, lease.process)));
    each.max_by_key(|(_, sessions)| *sessions)
}

impl Lease {
    /// Where the login's own Kerberos programs keep its tickets, where that can be seen from outside: in a file in `/tmp`, in KCM,
    /// or in a keyring of the uid's. It is what KRB5CCNAME names, else `default`. It is the user's: not to be opened but as the
    /// user.
    pub fn tickets(&self, default: Option<&Place>) -> Option<Place> {
        let place = match (self.role, self.ccache.as_str()) {
            (Role::Manager, _) => None,
            (Role::Login, "-") => default.cloned(),
            (Role::Login, name) => Place::parse(name).ok(),
        };
        place.filter(|place| match place {
            // Nothing but /tmp itself is passed through: elsewhere a path may lead into what does not answer.
            Place::File(path) => path.strip_prefix("/tmp/").is_some_and(|name| !name.is_empty() && !name.contains('/')),
            place => place.is_of_uid(),
        })
    }

    /// A new lease of `process`.
    ///
    /// # Errors
    /// When the kernel has no randomness to give.
    pub fn new(process: Process, role: Role, service: &str, tty: &str, ccache: Option<&str>) -> io::Result<Self> {
        let mut cookie = [0; 8];
        sys::random(&mut cookie)?;
        Ok(Lease {
            process,
            cookie: u64::from_ne_bytes(cookie),
            role,
            service: Word::clean(service),
            tty: Word::clean(tty),
            ccache: Word::whole(ccache.unwrap_or_default()),
            sessions: 1,
        })
    }
}

/// A short printable text without spaces, for records and for people; `-` where there is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Word(String);

impl Word {
    const LENGTH: usize = 32;
    const WHOLE: usize = 128;

    /// Takes what is harmless of `text`.
    pub fn clean(text: &str) -> Self {
        Self::clean_to(text, Self::LENGTH)
    }

    fn clean_to(text: &str, length: usize) -> Self {
        let text: String = text.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).take(length).collect();
        Word(if text.is_empty() { "-".to_owned() } else { text })
    }

    /// Takes `text` as it is, or, where that is not harmless or too long, `?`.
    pub fn whole(text: &str) -> Self {
        let is_harmless = text.len() <= Self::WHOLE && text.bytes().all(|c| c.is_ascii_graphic());
        if is_harmless { Self::clean_to(text, Self::WHOLE) } else { Word("?".to_owned()) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ccache::kcm;

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
    fn text_that_is_no_stat_line_is_nobody() {
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
        assert!(sys::is_process(pid), "a zombie, or it runs still");
        child.wait().unwrap();
        assert!(!sys::is_process(pid));
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

    #[test]
    fn words_hold_nothing_that_breaks_a_line() {
        assert_eq!(Word::clean("a b\nc").as_str(), "a?b?c");
        assert_eq!(Word::clean("").as_str(), "-");
        assert_eq!(Word::clean(&"x".repeat(99)).as_str().len(), 32);
    }

    #[test]
    fn a_process_that_opens_many_sessions_has_few_leases() {
        let me = Process::current().unwrap();
        let other = Process { pid: me.pid + 1, ..me };
        let new = |process, service| Lease::new(process, Role::Login, service, "ssh", None).unwrap();
        let mut leases = vec![new(other, "hub")];
        let mut cookies: Vec<u64> = Vec::new();
        for number in 0..100 {
            // Of two services: each shares its own lease.
            let service = if number % 2 == 0 { "hub" } else { "spawner" };
            let admitted = admit(&mut leases, new(me, service));
            assert_eq!(admitted.service.as_str(), service);
            cookies.push(admitted.cookie);
            assert_eq!(sessions_of(&leases, me), number + 1);
        }
        assert_eq!((leases.len(), busiest(&leases)), (OF_ONE_PROCESS + 1, Some((me, 100))));
        let all = |leases: &[Lease]| cookies.iter().all(|cookie| leases.iter().any(|lease| lease.cookie == *cookie));
        assert!(all(&leases), "each session has a lease that stands for it");
        // Whichever ends first, the last of them keeps the PAG in use.
        for (left, cookie) in (1..100).rev().zip(&cookies[1..]) {
            release(&mut leases, *cookie);
            assert_eq!(sessions_of(&leases, me), left);
        }
        assert!(leases.iter().any(|lease| lease.process == me && lease.cookie == cookies[0]));
        release(&mut leases, cookies[0]);
        release(&mut leases, cookies[0]);
        assert_eq!((leases.len(), leases[0].process), (1, other));
    }

    #[test]
    fn a_logins_tickets_are_looked_for_in_tmp_kcm_and_keyrings_of_the_uid() {
        let default = Place::Kcm(kcm::Name::new(""));
        let of = |role, ccache: Option<&str>| {
            let me = Process::current().unwrap();
            Lease::new(me, role, "sshd", "ssh", ccache).unwrap().tickets(Some(&default))
        };
        assert_eq!(of(Role::Login, None).as_ref(), Some(&default));
        for name in [
            "FILE:/tmp/krb5cc_61001_Qx",
            "/tmp/krb5cc",
            "KCM:",
            "KCM:61001:7",
            "KEYRING:persistent:61001",
            "KEYRING:user:x",
        ] {
            assert_eq!(of(Role::Login, Some(name)), Place::parse(name).ok(), "{name}");
        }
        let elsewhere = [
            "FILE:/tmp/a/b",
            "FILE:/tmp/",
            "FILE:/home/alice/cc",
            "FILE:/tmp/a b",
            "FILE:/tmp/../x",
            "DIR:/tmp/x",
            "KEYRING:session:x",
            "MEMORY:x",
        ];
        for name in elsewhere.into_iter().chain([&*format!("FILE:/tmp/{}", "x".repeat(200))]) {
            assert_eq!(of(Role::Login, Some(name)), None, "{name}");
        }
        for name in [None, Some("KCM:")] {
            assert_eq!(of(Role::Manager, name), None);
        }
    }
}
