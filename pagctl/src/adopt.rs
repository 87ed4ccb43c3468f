//! `pagctl adopt`: tokens for a user manager that was started outside of its user's PAG, before pam_pag was installed.
//!
//! One of the manager's services, this very program, opens their keyring to its owner for a moment, in which root gives it
//! to the handle group: see [`pag::mirror::adopt`]. No ring is opened to anybody.

use std::ffi::CStr;
use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pag::config::account::Account;
use pag::guard::{Guard, HandleGroup};
use pag::keyring::{self, Mask, Serial};
use pag::mirror::adopt;
use pag::policy::{self, Candidate, Newcomer, Placement};
use pag::store::lease::{Lease, Process, Role};
use pag::store::lock::Lock;
use pag::store::registry::{Pag, Registry};
use pag::sys::{self, Passwd, Who};

use crate::output::{Answer, Error, outln};

/// What a session keyring lets its owner do while it is given to the handle group: VIEW, READ and SETATTR, and its
/// possessor everything, as always.
const OPEN: Mask = Mask(0x3f23_0000);
/// What it lets him do otherwise: see that it is there, and what is in it (security/keys/process_keys.c,
/// install_session_keyring_to_cred).
const CLOSED: Mask = Mask(0x3f03_0000);

/// Longest wait for a lock and for a child.
const WAIT: Duration = Duration::from_secs(5);

/// Longest wait for what the user's manager starts, and for its end. The user decides how long either takes.
const SERVICE: Duration = Duration::from_secs(20);

/// Most bytes of what it says that are listened to.
const WORDS: usize = 1024;

/// Gives the running manager of `user` the tokens of his PAG.
///
/// # Errors
/// In words: no manager, no PAG, or a keyring that the kernel does not let us fill; the remedy is then to start the
/// manager again.
pub(crate) fn run(user: &str) -> Result<Answer, Error> {
    let user = person(user)?;
    let name = user.name.to_string_lossy().into_owned();
    let unit = format!("user@{}.service", user.uid);
    let manager = manager(&unit)?;
    let group = HandleGroup::read();
    let guard = Guard::enter(group)?;
    let lock = Lock::of_uid(user.uid, WAIT)?;
    let registry = Registry::find(&guard, group)?;
    let pags = registry.map(|registry| registry.pags_of(&guard, &lock, user.uid)).transpose()?.unwrap_or_default();
    drop((lock, guard));
    let mut inside = Inside::start(&user)?;
    let keyring = inside.keyring()?;
    if let Some(pag) = pags.iter().find(|pag| pag.ring.as_ref().is_ok_and(|ring| ring.serial == keyring.serial)) {
        outln!("{unit} is in PAG {} already", pag.id);
        inside.end("")?;
        return Ok(Answer::AllRight);
    }
    let Some(mut pag) = chosen(pags, &user.name) else {
        inside.end("")?;
        let why = format!(
            "{name} has no PAG that could be lent; a login through a stack with pam_pag makes one, unless its ticket is of another identity than the account's own"
        );
        return Err(Error::Refused(why));
    };
    let lent = keyring.opened(&unit).and_then(|keyring| lend(&mut pag, keyring, manager));
    let ccache = pag.record.as_ref().map_or(String::new(), |record| record.ccache.clone());
    inside.end(lent.as_ref().map_or("", |_| &ccache))?;
    let count = lent?;
    pag::nudge::nudge(user.uid);
    outln!("{unit} has {count} tokens of PAG {}; new services get KRB5CCNAME={ccache}", pag.id);
    Ok(Answer::AllRight)
}

/// Gives the manager's keyring to the handle group and links the PAG's tokens into it; how many there are. The helper
/// keeps it in step from then on.
fn lend(pag: &mut Pag, keyring: Serial, manager: Process) -> Result<usize, Error> {
    let (group, uid) = (HandleGroup::read(), pag.uid);
    let ring = pag.ring.clone().map_err(|why| Error::Refused(format!("PAG {}: {why}", pag.id)))?;
    adopt::take_charge(pag, &ring, keyring, Instant::now() + WAIT)?;
    let guard = Guard::enter(group)?;
    let lock = Lock::of_uid(uid, WAIT)?;
    let gone = || Error::Refused(format!("PAG {} has ended meanwhile", pag.id));
    let registry = Registry::find(&guard, group)?.ok_or_else(gone)?;
    let found = registry.pags_of(&guard, &lock, uid)?.into_iter().find(|other| other.id == pag.id);
    *pag = found.ok_or_else(gone)?;
    let mut record = pag.record.clone().map_err(|why| Error::Refused(why.to_string()))?;
    // Once more is all anew: what a member has put in the place of a token gives way.
    (record.adopted, record.lent) = (Some(keyring), Vec::new());
    // A lease of the manager's, so that the tokens do not end before its services do. It has one already where it was
    // placed by Debian's common-session, and pam_keyinit came after that.
    if !record.leases.iter().any(|lease| lease.process == manager) {
        let lease = Lease::new(manager, Role::Manager, "adopted", "", None);
        record.leases.push(lease.map_err(pag::Error::system("make a lease"))?);
    }
    registry.store(&guard, pag, record)?;
    Ok(adopt::bring_into_step(&guard, &registry, pag)?)
}

fn person(user: &str) -> Result<Passwd, Error> {
    let name = std::ffi::CString::new(user).unwrap_or_default();
    let who = user.parse().map_or(Who::Name(&name), Who::Uid);
    let found = sys::passwd(who).map_err(pag::Error::system(format!("look up {user}")))?;
    found.ok_or_else(|| Error::Refused(format!("there is no user {user}")))
}

/// The process of a unit that runs.
fn manager(unit: &str) -> Result<Process, Error> {
    let command = || format!("systemctl show -P MainPID {unit}");
    let failed = |why: String| Error::Command { command: command(), why };
    let output = Command::new("systemctl").args(["show", "-P", "MainPID", unit]).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    let pid = String::from_utf8_lossy(&output.stdout).trim().parse().ok().filter(|pid| *pid > 1);
    pid.and_then(Process::find).ok_or_else(|| Error::Refused(format!("{unit} does not run: there is nothing to adopt")))
}

/// The PAG that the manager would have joined.
fn chosen(pags: Vec<Pag>, name: &CStr) -> Option<Pag> {
    let candidates: Vec<Candidate<'_>> = pags
        .iter()
        .filter(|pag| pag.ring.is_ok())
        .filter_map(|pag| Some(Candidate { id: pag.id, record: pag.record.as_ref().ok()? }))
        .collect();
    let Placement::Join(id) = policy::place(Newcomer::Manager, &Account::configured(name), &candidates) else {
        return None;
    };
    pags.into_iter().find(|pag| pag.id == id)
}

/// The keyring that a manager shares with its services.
struct Shared {
    serial: Serial,
    /// Whether it is open to its owner now.
    open: bool,
}

impl Shared {
    fn opened(&self, unit: &str) -> Result<Serial, Error> {
        let why = || {
            format!(
                "the kernel does not let the manager's keyring be opened; the remedy is to start the manager again, which \
                 ends its services: systemctl restart {unit}"
            )
        };
        if self.open { Ok(self.serial) } else { Err(Error::Refused(why())) }
    }
}

/// This program as a service of the manager. The user has a hand in all of it: what it says is bounded, and so is its time.
struct Inside {
    child: std::process::Child,
    deadline: Instant,
}

impl Inside {
    fn start(user: &Passwd) -> Result<Self, Error> {
        let words = format!("as {}: systemd-run --user pagctl adopt --inside", user.name.to_string_lossy());
        let failed = |why: String| Error::Command { command: words.clone(), why };
        let own = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        // As the user, and with nothing of root's: the user's manager is at the other end. Nor with root's terminal, into
        // which a process of the user's could type.
        let child = Command::new("setsid")
            .arg("setpriv")
            .args([&format!("--reuid={}", user.uid), &format!("--regid={}", user.gid), "--init-groups", "--reset-env"])
            .args(["env", &format!("XDG_RUNTIME_DIR=/run/user/{}", user.uid)])
            .args(["timeout", "20", "systemd-run", "--user", "--quiet", "--wait", "--pipe", "--collect"])
            .args(["--property=RuntimeMaxSec=15", "--"])
            .arg(own)
            .args(["adopt", "--inside"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        Ok(Inside { child, deadline: Instant::now() + SERVICE })
    }

    /// The manager's session keyring, as the service says.
    fn keyring(&mut self) -> Result<Shared, Error> {
        let output = self.child.stdout.take();
        let line = output.map(|output| first_line(output.as_fd(), self.deadline)).transpose().ok().flatten();
        let said = line.as_deref().and_then(|line| line.trim().split_once(' '));
        let said = said.and_then(|(word, number)| Some((word == "open", number.parse().ok()?)));
        let shared = said.and_then(|(open, number)| Some(Shared { serial: Serial::new(number)?, open }));
        shared.ok_or_else(|| self.failure())
    }

    /// Why the service has not said which keyring is the manager's.
    fn failure(&mut self) -> Error {
        let _ = self.child.kill();
        let words = self.child.stderr.take();
        let words = words.and_then(|words| first_line(words.as_fd(), Instant::now() + Duration::from_millis(200)).ok());
        // For root's terminal: nothing of the user's that it would obey.
        let words: String = words.unwrap_or_default().trim().chars().filter(|c| !c.is_control()).collect();
        let why = "a service of the user's manager could not be started, or did not answer as it should";
        let more = if words.is_empty() { String::new() } else { format!(": {words}") };
        Error::Refused(format!("{why}{more}"))
    }

    /// Has the keyring closed, and the manager told about the ccache.
    fn end(mut self, ccache: &str) -> Result<(), Error> {
        if let Some(mut input) = self.child.stdin.take() {
            let _ = writeln!(input, "close {ccache}");
        }
        // Whoever has more to say has nobody to listen.
        self.child.stderr.take();
        let left = self.deadline.saturating_duration_since(Instant::now());
        let pid = i32::try_from(self.child.id()).unwrap_or(0);
        if !sys::pidfd_open(pid).is_ok_and(|end| sys::readable(end.as_fd(), left)) {
            let _ = self.child.kill();
        }
        let status = self.child.wait();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Error::Refused(format!("the service that closes the keyring again ended with {status}"))),
            Err(error) => Err(Error::Refused(error.to_string())),
        }
    }
}

/// The first line that comes, without waiting for more of it than there is room for, or than there is time for.
fn first_line(from: BorrowedFd<'_>, deadline: Instant) -> io::Result<String> {
    let mut line = Vec::new();
    let mut buffer = [0; WORDS];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !sys::readable(from, left) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let length = sys::read(from, &mut buffer)?;
        line.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok(String::from_utf8_lossy(&line).into_owned());
        }
        if length == 0 || line.len() > WORDS {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// What the service does: opens the keyring that it shares with its manager, waits for a line, closes it.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn inside() -> Result<Answer, Error> {
    let failed = |what: &'static str| pag::Error::key(what);
    let keyring = keyring::session().map_err(failed("find the session keyring"))?;
    let before = keyring::describe(keyring, |found| found.mask).map_err(failed("look at the session keyring"))?;
    let opened = keyring::set_mask(keyring, OPEN).is_ok();
    outln!("{} {keyring}", if opened { "open" } else { "shut" });
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if opened {
        // What was wider than usual (setpag of OpenAFS leaves it so) is closed, too. What root has given to the handle
        // group meanwhile stays.
        let given = keyring::describe(keyring, |found| found.mask == adopt::MASK).unwrap_or(false);
        let after = if given { adopt::MASK } else { Mask(before.0 & CLOSED.0) };
        keyring::set_mask(keyring, after).map_err(failed("close the session keyring again"))?;
    }
    let ccache = line.trim_end().strip_prefix("close ").filter(|_| read.is_ok()).unwrap_or_default();
    if !ccache.is_empty() {
        let setting = format!("KRB5CCNAME={ccache}");
        let _ = Command::new("systemctl").args(["--user", "set-environment", &setting]).status();
    }
    Ok(Answer::AllRight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_users_service_says_is_bounded_in_length_and_time() {
        let said = |words: &[u8]| {
            let (read, write) = sys::pipe().unwrap();
            assert!(sys::write_all(write.as_fd(), words));
            drop(write);
            first_line(read.as_fd(), Instant::now() + Duration::from_secs(5)).map_err(|error| error.kind())
        };
        assert_eq!(said(b"open 17\nand more\n"), Ok("open 17".to_owned()));
        assert_eq!(said(b"open 17"), Err(io::ErrorKind::InvalidData), "half a line is none");
        let (read, write) = sys::pipe().unwrap();
        assert!(sys::write_all(write.as_fd(), &[0; 60_000]));
        let flood = first_line(read.as_fd(), Instant::now() + Duration::from_millis(500)).map_err(|error| error.kind());
        assert_eq!(flood, Err(io::ErrorKind::InvalidData), "no more is read than a line may have");
        let (read, write) = sys::pipe().unwrap();
        let begun = Instant::now();
        let silent = first_line(read.as_fd(), begun + Duration::from_millis(50)).map_err(|error| error.kind());
        assert_eq!(silent, Err(io::ErrorKind::TimedOut));
        assert!(begun.elapsed() < Duration::from_secs(2), "and not waited for: {:?}", begun.elapsed());
        drop(write);
    }
}
