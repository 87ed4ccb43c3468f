//! A login's attempt to enter a PAG.

use std::cell::OnceCell;
use std::io;
use std::time::{Duration, Instant};

use super::state::Request;
use crate::afs::MissingClients;
use crate::ccache::{self, CcacheName, Contents, Unread};
use crate::config::account::Account;
use crate::error::{Error, Result};
use crate::guard::HandleGroup;
use crate::policy;
use crate::report::{Event, report};
use crate::seed::Budget;
use crate::store::lease::{self, Lease, LeaseKind};
use crate::store::record::Record;
use crate::store::ring::Ring;
use crate::sys::{self, Identity, Process};
use crate::types::{Client, ServiceKind, Token};

/// Longest wait for a uid's lock. Processes hold it for about a millisecond, or a few more with a ccache.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Longest time for reading the tokens of a ring, or for discarding them.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Longest time for reading the ccache that a login brings. Its file system, or KCM's daemon, may not answer.
const READING: Duration = Duration::from_secs(2);

/// A login's attempt to enter a PAG: the request, and what the login finds out on the way.
pub(super) struct LoginAttempt<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) identity: OnceCell<Identity>,
    pub(super) process: OnceCell<Option<Process>>,
    clients: OnceCell<Vec<Client>>,
    /// The tokens in the ring before a seeder runs. Unset while this login has not read an old ring.
    pub(super) before: OnceCell<Vec<Token>>,
    pub(super) budget: Budget,
    pub(super) group: HandleGroup,
    /// The ticket that this login brings.
    pub(super) ticket: Option<Contents>,
    /// Whether this login brings a ticket, or a ccache that could not be read. With `nopag`, the seeder reads that
    /// ccache itself.
    pub(super) may_have_ticket: bool,
}

impl<'a> LoginAttempt<'a> {
    pub(super) fn new(request: &'a Request<'a>, budget: Budget, group: HandleGroup) -> Self {
        LoginAttempt {
            request,
            identity: OnceCell::new(),
            process: OnceCell::new(),
            clients: OnceCell::new(),
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

    /// The uid and all groups that a child of this login gets. Looked up only when a child needs them, since NSS costs
    /// more than the rest of a join.
    pub(super) fn identity(&self) -> &Identity {
        let user = self.request.user;
        self.identity.get_or_init(|| Identity {
            uid: user.uid,
            gid: user.gid,
            groups: sys::groups_of(&user.name, user.gid),
        })
    }

    /// The uid with the user's primary group only. That is enough to read and write the user's ccache, and it needs no
    /// NSS.
    pub(super) fn owner(&self) -> Identity {
        let user = self.request.user;
        Identity { uid: user.uid, gid: user.gid, groups: vec![user.gid] }
    }

    /// The AFS clients that are served. The host is asked once.
    pub(super) fn clients(&self) -> &[Client] {
        self.clients.get_or_init(|| Client::present(self.request.settings))
    }

    /// Reports, once for a login that may want tokens, that an AFS client is configured and its module not loaded. A cron
    /// job without a ticket wants none.
    pub(super) fn report_missing_client(&self) {
        let Request { settings, state, .. } = self.request;
        let may_want_tokens = match settings.placement {
            ServiceKind::Login => true,
            ServiceKind::Own => self.may_have_ticket || settings.always_aklog,
            ServiceKind::Manager | ServiceKind::Seed | ServiceKind::Nothing => false,
        };
        if state.is_none()
            && may_want_tokens
            && !settings.notokens
            && let Some(missing) = MissingClients::find(settings, self.clients())
        {
            report(&Event::ClientMissing { uid: Some(self.uid()), why: missing.to_string() });
        }
    }

    /// The Kerberos names that this account may have.
    pub(super) fn account(&self) -> Account {
        Account::new(&self.request.user.name, self.request.settings)
    }

    pub(super) fn is_manager(&self) -> bool {
        self.request.settings.placement == ServiceKind::Manager
    }

    /// Reads, as the user, the ticket that this login brings. A manager and a seeding job bring none. A ccache that is
    /// missing, or has no ticket that is valid now, is no fault: some sites set KRB5CCNAME for every login.
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

    /// The ccache for a seeder: the one that the login brings, if its ticket was read, else the PAG's own. An unread
    /// ccache may be of another identity, and tokens of that have no place in a PAG that others share. A ccache in the
    /// session keyring is lost when the login enters its ring, so the PAG's is taken then, too. A PAG outside the
    /// registry has no ccache of its own.
    pub(super) fn ccache_to_seed_from<'b>(&'b self, record: Option<&'b Record>) -> Option<&'b str> {
        let own = self.request.ccache.zip(self.request.ccache.and_then(|name| CcacheName::parse(name).ok()));
        let is_known = self.ticket.is_some() || record.is_none();
        let own = own.filter(|(_, place)| is_known && !place.is_of_session());
        own.map(|(name, _)| name).or(record.map(|record| record.ccache.as_str()))
    }

    /// Whether this login may be in the PAG with this record. Without a ticket it may, else [`policy::may_bring`]
    /// decides. `own` is the cookie of its lease in that PAG. Without `own`, one session of the PAG is taken for this
    /// login.
    pub(super) fn may_stay(&self, record: &Record, own: Option<u64>) -> bool {
        let Some(ticket) = &self.ticket else { return true };
        let others = match own {
            Some(cookie) => record.leases.iter().any(|lease| lease.cookie != cookie || lease.sessions > 1),
            None => lease::sessions(&record.leases) > 1,
        };
        policy::may_bring(&ticket.summary.principal, record, others, &self.account())
    }

    /// This process. It is looked up once.
    ///
    /// # Errors
    /// When `/proc` does not show it.
    pub(super) fn process(&self) -> Result<Process> {
        let found = *self.process.get_or_init(Process::current);
        found.ok_or_else(|| Error::system("find this process in /proc")(io::ErrorKind::NotFound.into()))
    }

    /// A new lease for this login.
    ///
    /// # Errors
    /// When `/proc` does not show this process, or the kernel gives no random bits.
    pub(super) fn lease(&self) -> Result<Lease> {
        let role = if self.is_manager() { LeaseKind::Manager } else { LeaseKind::Login };
        Lease::new(self.process()?, role, self.request.service, self.request.tty, self.request.ccache)
            .map_err(Error::system("get random bits for a lease"))
    }

    /// End of the ticket that a seeder would use, in seconds since the epoch: the login's ticket, else the PAG's if it
    /// is still valid. 0 if the login brings service tickets only.
    pub(super) fn ticket_end(&self, record: Option<&Record>) -> Option<u64> {
        let now = crate::sys::now();
        let login = self.ticket.as_ref().map(|ticket| ticket.summary.tgt_expires.unwrap_or(0));
        login.or_else(|| record.map(|record| record.ticket).filter(|ticket| *ticket > now))
    }

    /// Whether an earlier hook of this login has found good tokens in `ring` or tried to get some. If the PAG of that
    /// hook has ended and `ring` is another one, its tokens are gone, and this hook has to try again.
    pub(super) fn has_tried(&self, ring: &Ring) -> bool {
        self.request.state.is_some_and(|state| state.seeded && state.ring == Some(*ring))
    }
}
