//! `pagctl adopt`: tokens for a user manager that was started outside of its user's PAG, before pam_pag was installed.
//!
//! The manager's services share one session keyring. One of them, this very program, opens that keyring to its owner for a
//! moment, and in that moment root gives it to the handle group (see [`pag::mirror::adopt`]). No ring is ever opened.

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
use pag::report::User;
use pag::store::lease::{Lease, LeaseKind};
use pag::store::locked::LockedUser;
use pag::store::registry::{Pag, Registry};
use pag::sys::{self, Passwd, Process, Who};

use crate::output::{self, ActionJson, Answer, Error, outln};
use crate::{doctor, remote};

/// The permissions of the manager's keyring while root gives it to the handle group: VIEW, READ and SETATTR for its owner;
/// everything for its possessor, as always.
const OPENED: Mask = Mask(0x3f23_0000);
/// Its permissions otherwise: VIEW and READ for its owner (security/keys/process_keys.c,
/// install_session_keyring_to_cred).
const CLOSED: Mask = Mask(0x3f03_0000);

/// Longest wait for a lock and for a child.
const WAIT: Duration = Duration::from_secs(5);

/// Longest wait for the service to start, and for its end. The user decides how long either takes.
const SERVICE: Duration = Duration::from_secs(20);

/// Longest line that is read from the service, in bytes.
const LONGEST_LINE: usize = 1024;

/// Gives the running manager of `user` the tokens of the user's PAG.
///
/// # Errors
/// No manager runs, the user has no PAG, or the kernel does not let us change the keyring; the remedy is then to start
/// the manager again.
pub(crate) fn run(user: &str, json: bool) -> Result<Answer, Error> {
    let action = adopt(user)?;
    if json {
        output::json(&[action]);
    } else {
        outln!("{}", action.what);
    }
    Ok(Answer::AllRight)
}

/// See [`run`]. Gives what was done.
fn adopt(user: &str) -> Result<ActionJson, Error> {
    let user = account(user)?;
    let unit = format!("user@{}.service", user.uid);
    let manager = manager(&unit)?;
    let group = HandleGroup::read();
    let guard = Guard::enter(group)?;
    let pags = LockedUser::lock(&guard, user.uid, WAIT)?.pags()?;
    drop(guard);
    let mut service = Service::start(&user)?;
    let keyring = service.keyring()?;
    if let Some(pag) = pags.iter().find(|pag| pag.ring.as_ref().is_ok_and(|ring| ring.serial == keyring.serial)) {
        service.end("")?;
        return Ok(done(pag, format!("{unit} is in PAG {} already", pag.id)));
    }
    let Some(mut pag) = pag_to_join(pags, &user.name) else {
        service.end("")?;
        let why = format!(
            "{} has no PAG with tokens for the manager; a login through a stack with pam_pag makes one, unless its ticket is \
             of another identity than the account's own",
            User(user.uid)
        );
        return Err(Error::Refused(why));
    };
    let lent = keyring.open(&unit).and_then(|keyring| lend(&mut pag, keyring, manager));
    let ccache = pag.record.as_ref().map_or(String::new(), |record| record.ccache.clone());
    service.end(lent.as_ref().map_or("", |_| &ccache))?;
    let count = lent?;
    pag::nudge::nudge(user.uid);
    Ok(done(&pag, format!("{unit} has {count} tokens of PAG {}; new services get KRB5CCNAME={ccache}", pag.id)))
}

/// What was done for a PAG.
fn done(pag: &Pag, what: String) -> ActionJson {
    ActionJson::new("adopt", Some(pag.id.to_string()), true, what).of(pag.uid)
}

/// Does what [`run`] does for each running manager that is outside of its user's PAG, and says what came of it. With
/// `dry_run` it says which these are, and does nothing. The answer is the worst of all.
///
/// # Errors
/// The registry cannot be read, or systemd does not tell which managers run.
pub(crate) fn run_all(json: bool, dry_run: bool) -> Result<Answer, Error> {
    let guard = Guard::enter(HandleGroup::read())?;
    let registry = Registry::find(&guard)?;
    let pags = registry.map_or(Ok(Vec::new()), |registry| registry.pags(&guard))?;
    drop(guard);
    let silent = || Error::Refused("systemd does not tell which user managers run; see: systemctl status".to_owned());
    let outside = doctor::managers_outside(&pags, remote::statistics().as_ref()).ok_or_else(silent)?;
    if outside.is_empty() && !json {
        outln!("No user manager runs outside of its PAG.");
    }
    let (mut actions, mut worst) = (Vec::new(), Answer::AllRight);
    for uid in outside {
        let manager = format!("user@{uid}.service of {}", User(uid));
        let not_done = |what| ActionJson::new("adopt", None, false, what).of(uid);
        let (answer, action) = if !pags.iter().any(|pag| pag.uid == uid) {
            (Answer::ToDo, not_done(format!("{manager} is not adopted: the user has no PAG; a login makes one")))
        } else if dry_run {
            (Answer::ToDo, not_done(format!("{manager} would be adopted")))
        } else {
            // One manager that cannot be adopted does not keep others from it.
            match adopt(&uid.to_string()) {
                Ok(action) => (Answer::AllRight, action),
                Err(error) => (Answer::Broken, not_done(format!("{manager} is not adopted: {error}"))),
            }
        };
        if !json {
            outln!("{}", action.what);
        }
        actions.push(action);
        worst = worse(worst, answer);
    }
    if json {
        output::json(&actions);
    }
    Ok(worst)
}

fn worse(one: Answer, other: Answer) -> Answer {
    match (one, other) {
        (Answer::Broken, _) | (_, Answer::Broken) => Answer::Broken,
        (Answer::ToDo, _) | (_, Answer::ToDo) => Answer::ToDo,
        (Answer::AllRight, Answer::AllRight) => Answer::AllRight,
    }
}

/// Gives the manager's keyring to the handle group and links the PAG's tokens into it; returns how many. From then on the
/// helper keeps the keyring in step with the PAG.
fn lend(pag: &mut Pag, keyring: Serial, manager: Process) -> Result<usize, Error> {
    let (group, uid) = (HandleGroup::read(), pag.uid);
    let ring = pag.ring.clone().map_err(|why| Error::Refused(format!("PAG {}: {why}", pag.id)))?;
    adopt::give_to_handle_group(pag, &ring, keyring, Instant::now() + WAIT)?;
    let guard = Guard::enter(group)?;
    let user = LockedUser::lock(&guard, uid, WAIT)?;
    let gone = || Error::Refused(format!("PAG {} has ended in the meantime; run pagctl adopt again", pag.id));
    *pag = user.pag(pag.id)?.ok_or_else(gone)?;
    let mut record = pag.record.clone().map_err(|why| Error::Refused(why.to_string()))?;
    // A second adoption begins anew: it replaces what a member has put in the place of a token.
    (record.adopted, record.lent) = (Some(keyring), Vec::new());
    // The manager gets a lease, so that the tokens do not end before its services do. It has one already where Debian's
    // common-session placed it and pam_keyinit took it out of the ring after that.
    if !record.leases.iter().any(|lease| lease.process == manager) {
        let lease = Lease::new(manager, LeaseKind::Manager, "adopted", "", None);
        record.leases.push(lease.map_err(pag::Error::system("make a lease"))?);
    }
    user.store(pag, record)?;
    Ok(adopt::bring_into_step(&user, pag)?)
}

fn account(user: &str) -> Result<Passwd, Error> {
    let name = std::ffi::CString::new(user).unwrap_or_default();
    let who = user.parse().map_or(Who::Name(&name), Who::Uid);
    let found = sys::passwd(who).map_err(pag::Error::system(format!("look up {user}")))?;
    found.ok_or_else(|| Error::Refused(format!("there is no user {user}")))
}

/// The main process of a running unit.
fn manager(unit: &str) -> Result<Process, Error> {
    let command = || format!("systemctl show -P MainPID {unit}");
    let failed = |why: String| Error::Command { command: command(), why };
    let output = Command::new("systemctl").args(["show", "-P", "MainPID", unit]).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    let pid = String::from_utf8_lossy(&output.stdout).trim().parse().ok().filter(|pid| *pid > 1);
    pid.and_then(Process::find).ok_or_else(|| Error::Refused(format!("{unit} does not run: there is nothing to adopt")))
}

/// The PAG that the manager would join now.
fn pag_to_join(pags: Vec<Pag>, name: &CStr) -> Option<Pag> {
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
    /// Whether the service could open it to its owner.
    is_open: bool,
}

impl Shared {
    fn open(&self, unit: &str) -> Result<Serial, Error> {
        let why = || {
            format!(
                "the kernel does not let the manager's keyring be opened; the remedy is to start the manager again, which \
                 ends its services: systemctl restart {unit}"
            )
        };
        if self.is_open { Ok(self.serial) } else { Err(Error::Refused(why())) }
    }
}

/// This program, run by the manager as one of its services ([`inside`]). The user controls all of it, so its answers are
/// bounded in length and time.
struct Service {
    child: std::process::Child,
    deadline: Instant,
}

impl Service {
    fn start(user: &Passwd) -> Result<Self, Error> {
        let words = format!("as {}: systemd-run --user pagctl adopt --inside", user.name.to_string_lossy());
        let failed = |why: String| Error::Command { command: words.clone(), why };
        let own = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        // As the user, without anything that is root's, since the user's manager is at the other end. Without root's
        // terminal, too: a process of the user could type into it.
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
        Ok(Service { child, deadline: Instant::now() + SERVICE })
    }

    /// The manager's session keyring, as the service reports it.
    fn keyring(&mut self) -> Result<Shared, Error> {
        let output = self.child.stdout.take();
        let line = output.map(|output| first_line(output.as_fd(), self.deadline)).transpose().ok().flatten();
        let answer = line.as_deref().and_then(|line| line.trim().split_once(' '));
        let answer = answer.and_then(|(word, number)| Some((word == "open", number.parse().ok()?)));
        let shared = answer.and_then(|(is_open, number)| Some(Shared { serial: Serial::new(number)?, is_open }));
        shared.ok_or_else(|| self.failure())
    }

    /// Why the service did not report the keyring.
    fn failure(&mut self) -> Error {
        let _ = self.child.kill();
        let words = self.child.stderr.take();
        let words = words.and_then(|words| first_line(words.as_fd(), Instant::now() + Duration::from_millis(200)).ok());
        // The words are the user's and go to root's terminal: no control characters.
        let words: String = words.unwrap_or_default().trim().chars().filter(|c| !c.is_control()).collect();
        let why = "pagctl could not start a service of the user's manager, or the service did not answer as it should";
        let more = if words.is_empty() { String::new() } else { format!(": {words}") };
        Error::Refused(format!("{why}{more}"))
    }

    /// Has the service close the keyring, and set the manager's KRB5CCNAME to `ccache` unless that is empty.
    fn end(mut self, ccache: &str) -> Result<(), Error> {
        if let Some(mut input) = self.child.stdin.take() {
            let _ = writeln!(input, "close {ccache}");
        }
        // A service that writes more fails instead of waiting for a reader.
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

/// The first line, if it is short enough and comes in time.
fn first_line(from: BorrowedFd<'_>, deadline: Instant) -> io::Result<String> {
    let mut line = Vec::new();
    let mut buffer = [0; LONGEST_LINE];
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
        if length == 0 || line.len() > LONGEST_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// The part of the service: opens the keyring that it shares with its manager, waits for a line, closes it.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn inside() -> Result<Answer, Error> {
    let failed = |what: &'static str| pag::Error::key(what);
    let keyring = keyring::session().map_err(failed("find the session keyring"))?;
    let before = keyring::describe(keyring, |found| found.mask).map_err(failed("look at the session keyring"))?;
    let opened = keyring::set_mask(keyring, OPENED).is_ok();
    outln!("{} {keyring}", if opened { "open" } else { "shut" });
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if opened {
        // A mask that was wider than usual, as OpenAFS's setpag leaves it, becomes narrow, too. When root has given the
        // keyring to the handle group, its mask stays.
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
    fn what_a_users_service_writes_is_bounded_in_length_and_time() {
        let said = |words: &[u8]| {
            let (read, write) = sys::pipe().unwrap();
            assert!(sys::write_all(write.as_fd(), words));
            drop(write);
            first_line(read.as_fd(), Instant::now() + Duration::from_secs(5)).map_err(|error| error.kind())
        };
        assert_eq!(said(b"open 17\nand more\n"), Ok("open 17".to_owned()));
        assert_eq!(said(b"open 17"), Err(io::ErrorKind::InvalidData), "half a line is no answer");
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
