//! One attempt of a login to enter a PAG, with what is known of it.

use crate::store::lease;
use std::cell::OnceCell;
use std::io;
use std::time::Duration;
use std::time::Instant;

use super::state::Request;
use crate::ccache;
use crate::ccache::CcacheName;
use crate::ccache::Contents;
use crate::ccache::Unread;
use crate::config::account::Account;
use crate::error::Error;
use crate::error::Result;
use crate::guard::HandleGroup;
use crate::policy;
use crate::report::Event;
use crate::report::report;
use crate::seed::Budget;
use crate::store::lease::Lease;
use crate::store::lease::LeaseKind;
use crate::store::record::Record;
use crate::store::ring::Ring;
use crate::sys;
use crate::sys::Identity;
use crate::sys::Process;
use crate::types::ServiceKind;
use crate::types::Token;

/// Longest wait for a uid's lock. Its holders need about a millisecond, or a few more with a ccache.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Longest time that a look into a ring, or the discarding of its tokens, may take.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Longest time for a look into the ccache that a login brings: its file system, or KCM's daemon, may not answer.
const READING: Duration = Duration::from_secs(2);

/// One attempt, with what is known about it.
pub(super) struct LoginAttempt<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) identity: OnceCell<Identity>,
    pub(super) process: OnceCell<Option<Process>>,
    /// The tokens that were in the ring before a seeder runs, where this login has looked, or the ring is new.
    pub(super) before: OnceCell<Vec<Token>>,
    pub(super) budget: Budget,
    pub(super) group: HandleGroup,
    /// The ticket that this login brings.
    pub(super) ticket: Option<Contents>,
    /// Whether it brings one, or a ccache that could not be read. Without a PAG (`nopag`) the seeder looks for itself.
    pub(super) may_have_ticket: bool,
}

impl<'a> LoginAttempt<'a> {
    pub(super) fn new(request: &'a Request<'a>, budget: Budget, group: HandleGroup) -> Self {
        LoginAttempt {
            request,
            identity: OnceCell::new(),
            process: OnceCell::new(),
            before: OnceCell::new(),
            budget,
            group,
            ticket: None,
            may_have_ticket: false,
        }
    }

    pub(super) fn uid(&self) -> u32 {
        self.request.user.uid
    }

    /// The user with his groups, as a child becomes him. Looked up when a child is to be made, and not before: NSS
    /// costs more than all the rest of a join.
    pub(super) fn identity(&self) -> &Identity {
        let user = self.request.user;
        self.identity.get_or_init(|| Identity {
            uid: user.uid,
            gid: user.gid,
            groups: sys::groups_of(&user.name, user.gid),
        })
    }

    /// The user with no more than his own group: that is enough for his ccache, and a join with good tokens needs no
    /// more.
    pub(super) fn owner(&self) -> Identity {
        let user = self.request.user;
        Identity { uid: user.uid, gid: user.gid, groups: vec![user.gid] }
    }

    /// The user as Kerberos may know him.
    pub(super) fn account(&self) -> Account {
        Account::new(&self.request.user.name, self.request.settings)
    }

    pub(super) fn is_manager(&self) -> bool {
        self.request.settings.placement == ServiceKind::Manager
    }

    /// Reads the ticket that this login brings, as the user. A manager and a seeding job bring none; neither does a login with
    /// the name of a ccache in which there is none, or none that is good for anything: some sites set KRB5CCNAME for everybody.
    pub(super) fn look_for_ticket(&mut self) {
        let Some(name) = self.request.ccache else { return };
        if !matches!(self.request.settings.placement, ServiceKind::Login | ServiceKind::Own) {
            return;
        }
        let deadline = self.budget.deadline().min(Instant::now() + READING);
        let read = |place: CcacheName| ccache::read(&place, &self.owner(), deadline);
        match CcacheName::parse(name).map_err(Unread::Refused).and_then(read) {
            Ok(contents) if contents.is_alive(crate::sys::now()) => self.ticket = Some(contents),
            Ok(_) | Err(Unread::Missing) => {
                log::debug!("no ticket for uid {}: there is none in {name:?} that is good now", self.uid());
                return;
            }
            Err(Unread::Refused(why) | Unread::NotNow(why)) => {
                report(&Event::CcacheRefused { uid: self.uid(), why });
            }
        }
        self.may_have_ticket = true;
    }

    /// The ccache for a seeder: the login's own if its ticket was read, else the PAG's. A ccache that was not read may be of
    /// another identity, whose tokens have no place in a PAG that others share. The PAG's also if the login's is in the
    /// session keyring that it had before.
    pub(super) fn ccache_to_seed_from<'b>(&'b self, record: Option<&'b Record>) -> Option<&'b str> {
        let own = self.request.ccache.zip(self.request.ccache.and_then(|name| CcacheName::parse(name).ok()));
        let is_known = self.ticket.is_some() || record.is_none();
        let own = own.filter(|(_, place)| is_known && !place.is_of_session());
        own.map(|(name, _)| name).or(record.map(|record| record.ccache.as_str()))
    }

    /// Whether the ticket that this login brings, if it brings one, has a place in the PAG with this record. `own` is the cookie of
    /// this login's lease there; without one, a single lease is taken for this login's.
    pub(super) fn may_stay(&self, record: &Record, own: Option<u64>) -> bool {
        let Some(ticket) = &self.ticket else { return true };
        let others = match own {
            Some(cookie) => record.leases.iter().any(|lease| lease.cookie != cookie || lease.sessions > 1),
            None => lease::sessions(&record.leases) > 1,
        };
        policy::may_bring(&ticket.summary.principal, record, others, &self.account())
    }

    /// This process, looked up once.
    pub(super) fn process(&self) -> Result<Process> {
        let found = *self.process.get_or_init(Process::current);
        found.ok_or_else(|| Error::system("find this process in /proc")(io::ErrorKind::NotFound.into()))
    }

    pub(super) fn lease(&self) -> Result<Lease> {
        let role = if self.is_manager() { LeaseKind::Manager } else { LeaseKind::Login };
        Lease::new(self.process()?, role, self.request.service, self.request.tty, self.request.ccache)
            .map_err(Error::system("get random bits for a lease"))
    }

    /// End time of the ticket that a seeder would use: the login's, else the PAG's.
    pub(super) fn ticket_end(&self, record: Option<&Record>) -> Option<u64> {
        let now = crate::sys::now();
        let login = self.ticket.as_ref().map(|ticket| ticket.summary.tgt_expires.unwrap_or(0));
        login.or_else(|| record.map(|record| record.ticket).filter(|ticket| *ticket > now))
    }

    /// Whether an earlier hook of this login has found good tokens, or has tried for them. In another ring than that one's,
    /// whose PAG has gone meanwhile, there is nothing of what it got.
    pub(super) fn has_tried(&self, ring: &Ring) -> bool {
        self.request.state.is_some_and(|state| state.seeded && state.ring == Some(*ring))
    }
}
