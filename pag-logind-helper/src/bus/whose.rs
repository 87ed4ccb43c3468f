//! The PAG of a process, as far as it can be known from outside.
//!
//! The kernel tells nobody which session keyring another process has. What can be known is who was *put* into a PAG:
//! the processes that hold its leases, and those that come from them. So the answer is the PAG that a process was born
//! into. A process that has left it since (`keyctl session`, `pagsh`) is still answered with it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use pag::lease::Process;
use pag::registry::PagId;
use pag::sys;

use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath, proxy};

use super::board::Board;

/// Ancestors that are looked at.
const GENERATIONS: usize = 64;

/// A process that the bus has named, held so that nobody else can be taken for it.
pub(crate) struct Named {
    process: Process,
    /// From a bus that has it (D-Bus specification, GetConnectionCredentials, ProcessFD).
    pidfd: Option<OwnedFd>,
}

impl Named {
    /// Takes hold of it; none when it is gone.
    pub(crate) fn hold(pid: u32, pidfd: Option<OwnedFd>) -> Option<Self> {
        let named = Named { process: Process::find(i32::try_from(pid).ok()?)?, pidfd };
        named.is_there().then_some(named)
    }

    /// Whether all that was read of it since was its own: it is still there. A pidfd is readable when its process has
    /// ended; without one, the start time tells.
    pub(crate) fn is_there(&self) -> bool {
        match &self.pidfd {
            Some(pidfd) => !sys::readable(pidfd.as_fd(), Duration::ZERO),
            None => self.process.is_alive(),
        }
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        u32::try_from(self.process.pid).unwrap_or(0)
    }

    /// The PAG that it was born into, by its nearest ancestor, itself included, that holds a lease of any user's.
    pub(crate) fn descent(&self, board: &Board, uid: u32) -> Descent {
        let ancestors = std::iter::successors(Some(self.process), |process| process.parent());
        for process in ancestors.take(GENERATIONS) {
            let held = board.held_by(process);
            if !held.is_empty() {
                return choose(&held, uid);
            }
        }
        Descent::Unknown
    }
}

/// The PAG, of those in which one process holds leases, that `uid` has.
pub(crate) fn choose(held: &[(PagId, u32)], uid: u32) -> Descent {
    let mut own = held.iter().filter(|(_, owner)| *owner == uid);
    match (own.next(), own.next()) {
        (Some((id, _)), None) => Descent::Of(*id),
        // Another user's, or one host with two sessions of this one: which of them it is cannot be known.
        _ => Descent::Foreign,
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

/// The leader of the session that a process is in, which logind knows by its control group: of one that was orphaned
/// (nohup, tmux), this is left. The leader is the PAM host that opened the session, and so holds its lease.
pub(crate) async fn leader(connection: &Connection, pid: u32) -> Option<Process> {
    let path = SessionsProxy::new(connection).await.ok()?.get_session_by_pid(pid).await.ok()?;
    let session =
        SessionProxy::builder(connection).path(path).cache_properties(CacheProperties::No).build().await.ok()?;
    Process::find(i32::try_from(session.leader().await.ok()?).ok()?)
}

/// Where a process comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Descent {
    /// From this PAG of the caller's.
    Of(PagId),
    /// From something that is in no PAG of his.
    Foreign,
    /// Its ancestors hold no leases: it was orphaned, or comes from no login.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_lease_it_is_decides() {
        let (one, two) = (PagId::from(1), PagId::from(2));
        assert_eq!(choose(&[(one, 61001)], 61001), Descent::Of(one));
        assert_eq!(choose(&[(one, 61001), (two, 61002)], 61002), Descent::Of(two));
        assert_eq!(choose(&[(one, 61002)], 61001), Descent::Foreign);
        assert_eq!(choose(&[(one, 61001), (two, 61001)], 61001), Descent::Foreign);
    }

    #[test]
    fn one_who_has_ended_is_nobody() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id();
        let pidfd = sys::pidfd_open(i32::try_from(pid).unwrap()).unwrap();
        let (by_start, by_pidfd) = (Named::hold(pid, None).unwrap(), Named::hold(pid, Some(pidfd)).unwrap());
        assert!(by_start.is_there() && by_pidfd.is_there());
        assert_eq!(by_start.descent(&Board::default(), 0), Descent::Unknown);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!by_start.is_there() && !by_pidfd.is_there());
        assert!(Named::hold(pid, None).is_none());
    }
}
