//! Leases: the logins and user managers for which a PAG is kept.

use crate::sys::Process;
use crate::types::Word;
use std::io;

use crate::ccache::CcacheName;
use crate::sys;

/// What kind of process holds a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaseKind {
    /// The PAM host of a login.
    Login,
    /// `systemd --user`.
    Manager,
}

impl LeaseKind {
    /// The word in records and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            LeaseKind::Login => "login",
            LeaseKind::Manager => "manager",
        }
    }

    /// The kind that a word names.
    pub fn parse(word: &str) -> Option<Self> {
        [LeaseKind::Login, LeaseKind::Manager].into_iter().find(|role| role.as_str() == word)
    }
}

/// A login or a user manager for which a PAG is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The process that holds the lease. Its end ends the lease.
    pub process: Process,
    /// Tells apart two PAM transactions of one process.
    pub cookie: u64,
    /// What kind of process it is.
    pub role: LeaseKind,
    /// PAM service.
    pub service: Word,
    /// Terminal, as PAM names it.
    pub tty: Word,
    /// The login's own KRB5CCNAME: `-` if it has none, `?` if the name cannot be kept.
    pub ccache: Word,
    /// How many sessions of its process it stands for. More than one only after the process has as many leases as it
    /// may have.
    pub sessions: u32,
}

/// How many leases one process can have in a PAG. Otherwise a host that opens sessions and closes none would fill
/// the record, and the user's other logins would find no room.
pub const OF_ONE_PROCESS: usize = 16;

/// Adds `lease` and returns the lease that stands for the session. This is `lease` itself. If its process has all
/// the leases that it may have, it is the newest one of the process for the same PAM service (else the newest one),
/// and that lease then stands for one session more.
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

/// Ends one session of the lease with this cookie. The lease goes with its last session.
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

/// The process that has the most sessions open, and their number.
pub fn busiest(leases: &[Lease]) -> Option<(Process, u32)> {
    let each = leases.iter().map(|lease| (lease.process, sessions_of(leases, lease.process)));
    each.max_by_key(|(_, sessions)| *sessions)
}

impl Lease {
    /// Where the login's own Kerberos programs keep its tickets: the ccache that KRB5CCNAME names, else `default`.
    /// Only for a ccache that can be reached from outside the login: a file in `/tmp`, KCM, or a keyring of the uid's.
    /// The user controls it, so it may be opened only as the user.
    pub fn tickets(&self, default: Option<&CcacheName>) -> Option<CcacheName> {
        let place = match (self.role, self.ccache.as_str()) {
            (LeaseKind::Manager, _) => None,
            (LeaseKind::Login, "-") => default.cloned(),
            (LeaseKind::Login, name) => CcacheName::parse(name).ok(),
        };
        place.filter(|place| match place {
            // Only files directly in /tmp: another path may lead to a file system that does not answer.
            CcacheName::File(path) => {
                path.strip_prefix("/tmp/").is_some_and(|name| !name.is_empty() && !name.contains('/'))
            }
            place => place.is_of_uid(),
        })
    }

    /// A new lease of `process`.
    ///
    /// # Errors
    /// If the kernel gives no random bits.
    pub fn new(process: Process, role: LeaseKind, service: &str, tty: &str, ccache: Option<&str>) -> io::Result<Self> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ccache::kcm;

    #[test]
    fn a_process_that_opens_many_sessions_has_few_leases() {
        let me = Process::current().unwrap();
        let other = Process { pid: me.pid + 1, ..me };
        let new = |process, service| Lease::new(process, LeaseKind::Login, service, "ssh", None).unwrap();
        let mut leases = vec![new(other, "hub")];
        let mut cookies: Vec<u64> = Vec::new();
        for number in 0..100 {
            // Each of the two services shares its own lease.
            let service = if number % 2 == 0 { "hub" } else { "spawner" };
            let admitted = admit(&mut leases, new(me, service));
            assert_eq!(admitted.service.as_str(), service);
            cookies.push(admitted.cookie);
            assert_eq!(sessions_of(&leases, me), number + 1);
        }
        assert_eq!((leases.len(), busiest(&leases)), (OF_ONE_PROCESS + 1, Some((me, 100))));
        let all = |leases: &[Lease]| cookies.iter().all(|cookie| leases.iter().any(|lease| lease.cookie == *cookie));
        assert!(all(&leases), "each session has a lease that stands for it");
        // Whichever session ends first, the last one keeps the PAG in use.
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
        let default = CcacheName::Kcm(kcm::Name::new(""));
        let of = |role, ccache: Option<&str>| {
            let me = Process::current().unwrap();
            Lease::new(me, role, "sshd", "ssh", ccache).unwrap().tickets(Some(&default))
        };
        assert_eq!(of(LeaseKind::Login, None).as_ref(), Some(&default));
        for name in [
            "FILE:/tmp/krb5cc_61001_Qx",
            "/tmp/krb5cc",
            "KCM:",
            "KCM:61001:7",
            "KEYRING:persistent:61001",
            "KEYRING:user:x",
        ] {
            assert_eq!(of(LeaseKind::Login, Some(name)), CcacheName::parse(name).ok(), "{name}");
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
            assert_eq!(of(LeaseKind::Login, Some(name)), None, "{name}");
        }
        for name in [None, Some("KCM:")] {
            assert_eq!(of(LeaseKind::Manager, name), None);
        }
    }
}
