//! Which PAG a calling process comes from, as far as it can be known from outside.
//!
//! The kernel does not tell which session keyring another process has. What can be known is which processes were *put*
//! into a PAG: those that hold its leases, and their descendants. So the answer is the PAG that a process was born into.
//! That stays the answer after the process has left this PAG (`keyctl session`, `pagsh`).

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use pag::sys;
use pag::sys::Process;
use pag::types::PagId;

use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath, proxy};

use super::visibility::VisiblePags;

/// Ancestors that are looked at.
const GENERATIONS: usize = 64;

/// A process that the bus has named, held so that no later process with its pid is taken for it.
pub(crate) struct CallerProcess {
    process: Process,
    /// From a bus that has it (D-Bus specification, GetConnectionCredentials, ProcessFD).
    pidfd: Option<OwnedFd>,
}

impl CallerProcess {
    /// Takes hold of it. None when it has ended.
    pub(crate) fn hold(pid: u32, pidfd: Option<OwnedFd>) -> Option<Self> {
        let caller = CallerProcess { process: Process::find(i32::try_from(pid).ok()?)?, pidfd };
        caller.is_alive().then_some(caller)
    }

    /// Whether it still runs, so that all that was read of this pid since was its own. A pidfd is readable when its
    /// process has ended; without one, the start time tells.
    pub(crate) fn is_alive(&self) -> bool {
        match &self.pidfd {
            Some(pidfd) => !sys::readable(pidfd.as_fd(), Duration::ZERO),
            None => self.process.is_alive(),
        }
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        u32::try_from(self.process.pid).unwrap_or(0)
    }

    /// The PAG that it was born into: that of its nearest ancestor, itself included, that holds a lease of any user's
    /// PAG.
    pub(crate) fn origin(&self, pags: &VisiblePags, uid: u32) -> Origin {
        let ancestors = std::iter::successors(Some(self.process), |process| process.parent());
        for process in ancestors.take(GENERATIONS) {
            let held = pags.held_by(process);
            if !held.is_empty() {
                return Origin::of_leases(&held, uid);
            }
        }
        Origin::Unknown
    }
}

/// Where a process comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From this PAG of the caller's user.
    Pag(PagId),
    /// From a process that is in no PAG of the caller's user.
    Foreign,
    /// Its ancestors hold no leases: it was orphaned, or comes from no login.
    Unknown,
}

impl Origin {
    /// The PAG of `uid` among those in which one process holds leases.
    pub(crate) fn of_leases(held: &[(PagId, u32)], uid: u32) -> Self {
        let mut own = held.iter().filter(|(_, owner)| *owner == uid);
        match (own.next(), own.next()) {
            (Some((id, _)), None) => Origin::Pag(*id),
            // Another user's; or one host with two sessions of this user, and it can't be known which is meant.
            _ => Origin::Foreign,
        }
    }
}

/// `org.freedesktop.login1.Manager`, for one question (org.freedesktop.login1(5)).
#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Sessions {
    #[zbus(name = "GetSessionByPID", no_autostart)]
    fn get_session_by_pid(&self, pid: u32) -> zbus::Result<OwnedObjectPath>;
}

/// `org.freedesktop.login1.Session`.
#[proxy(interface = "org.freedesktop.login1.Session", default_service = "org.freedesktop.login1")]
trait Session {
    #[zbus(property)]
    fn leader(&self) -> zbus::Result<u32>;
}

/// The leader of the session that a process is in. logind knows it by its control group, which is all that is left to
/// tell where an orphan (nohup, tmux) comes from. The leader is the PAM host that opened the session, so it holds the
/// session's lease.
pub(crate) async fn leader(connection: &Connection, pid: u32) -> Option<Process> {
    let path = SessionsProxy::new(connection).await.ok()?.get_session_by_pid(pid).await.ok()?;
    let session =
        SessionProxy::builder(connection).path(path).cache_properties(CacheProperties::No).build().await.ok()?;
    Process::find(i32::try_from(session.leader().await.ok()?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leases_decide() {
        let (one, two) = (PagId::from(1), PagId::from(2));
        assert_eq!(Origin::of_leases(&[(one, 61001)], 61001), Origin::Pag(one));
        assert_eq!(Origin::of_leases(&[(one, 61001), (two, 61002)], 61002), Origin::Pag(two));
        assert_eq!(Origin::of_leases(&[(one, 61002)], 61001), Origin::Foreign);
        assert_eq!(Origin::of_leases(&[(one, 61001), (two, 61001)], 61001), Origin::Foreign);
    }

    #[test]
    fn an_ended_process_is_not_taken_for_another() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id();
        let pidfd = sys::pidfd_open(i32::try_from(pid).unwrap()).unwrap();
        let (by_start, by_pidfd) =
            (CallerProcess::hold(pid, None).unwrap(), CallerProcess::hold(pid, Some(pidfd)).unwrap());
        assert!(by_start.is_alive() && by_pidfd.is_alive());
        assert_eq!(by_start.origin(&VisiblePags::default(), 0), Origin::Unknown);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!by_start.is_alive() && !by_pidfd.is_alive());
        assert!(CallerProcess::hold(pid, None).is_none());
    }
}
