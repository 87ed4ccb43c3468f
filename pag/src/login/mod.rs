//! A process enters a PAG, leaves it, or has its credentials refreshed: what the PAM module does, without PAM.
//!
//! Everything that touches the registry runs under a [`Guard`] and the uid's [`Lock`]; a seeder runs under neither.

use crate::types::Retain;
use std::cell::OnceCell;
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::afs::s0::{self, Equipped};
use crate::afs::{self};
use crate::ccache::{self, CcacheName, Contents, Unread};
use crate::config::account::Account;
use crate::config::{self, Settings};
use crate::error::{Error, Result};
use crate::guard::{Guard, HandleGroup};
use crate::keyring;
use crate::mirror::follow;
use crate::nudge::{Moment, nudge, nudge_of_manager};
use crate::policy::{self, Candidate, Fate, Newcomer, Placement};
use crate::report::{Event, report};
use crate::seed::{self, Alias, Brought, Budget, Job, Need, Wanted, Without};
use crate::store::lease::{self, Lease, LeaseKind};
use crate::store::lock::Lock;
use crate::store::locked::LockedUser;
use crate::store::record::{Attempt, Held, PagKind, Record, Unreadable};
use crate::store::registry::{self, Pag};
use crate::store::ring::{self, Ring};
use crate::sys::Process;
use crate::sys::{self, Identity, Passwd, RootDirectory, Who};
use crate::types::Client;
use crate::types::PagId;
use crate::types::Scope;
use crate::types::ServiceKind;
use crate::types::Token;
use crate::types::Word;

/// Longest wait for a uid's lock. Its holders need about a millisecond, or a few more with a ccache.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Longest time for a look into the ccache that a login brings: its file system, or KCM's daemon, may not answer.
const READING: Duration = Duration::from_secs(2);

/// Longest time that a look into a ring, or the discarding of its tokens, may take.
const INSIDE: Duration = Duration::from_secs(1);

/// Keeps a login that gets no PAG, root's above all, out of the one that its caller is in: `su -` in a stack without
/// pam_keyinit would take the caller's ring along. A ring that a member has revoked or invalidated can't be looked at any
/// more, so a session keyring in that state is taken for one.
///
/// # Errors
/// When no clean session keyring could be made.
pub fn keep_out(user: &Passwd) -> Result<()> {
    let is_in_a_ring = Ring::current().is_some_and(|ring| ring.owner != user.uid || user.uid == 0);
    if !is_in_a_ring && !keyring::session_is_dead() {
        return Ok(());
    }
    match Guard::enter(HandleGroup::read()) {
        Ok(guard) => ring::fresh(&guard, user.uid),
        Err(_) => Ok(()),
    }
}

/// Who asks, and how.
#[derive(Debug)]
pub struct Request<'a> {
    /// The user of the login, not the one who called su.
    pub user: &'a Passwd,
    /// PAM service.
    pub service: &'a str,
    /// Terminal as PAM names it, or nothing.
    pub tty: &'a str,
    /// The configuration for this service.
    pub settings: &'a Settings,
    /// KRB5CCNAME of the PAM environment.
    pub ccache: Option<&'a str>,
    /// The PAM environment.
    pub environment: Vec<CString>,
    /// What an earlier hook of this login left.
    pub marker: Option<Marker>,
    /// Whether the session is being opened. Debian's stack of the user manager has us before pam_keyinit and after it:
    /// that the second time puts right what pam_keyinit has replaced is then nothing to complain about.
    pub opening: bool,
    /// Whether this process has sessions of other users open, too. It is in no ring between its hooks then.
    pub several: bool,
}

/// What a login remembers from hook to hook. Plain values: a fork of the host has them too, and so does its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// The user.
    pub uid: u32,
    /// The PAG and where it is kept; none for one outside the registry.
    pub pag: Option<(PagId, registry::HolderRef)>,
    /// Its ring; none with `nopag`.
    pub ring: Option<Ring>,
    /// The process that entered.
    pub process: Process,
    /// Its root directory then.
    pub root: Option<RootDirectory>,
    /// The lease's cookie.
    pub cookie: u64,
    /// Time spent so far, of the budget.
    pub spent: Duration,
    /// Whether this login has come to the point where its tokens were good, or were tried for.
    pub seeded: bool,
    /// Whether the session was opened, so that no later module should replace the session keyring.
    pub opened: bool,
    /// Whether it has put the process into the ring, which was not there before.
    pub moved: bool,
    /// Whether the process becomes the user's own after the end of its handle.
    pub lives_on: bool,
    /// `strict` and `debug`, as the login that entered had them: its end reads no configuration.
    pub strict: bool,
    /// See `strict`.
    pub debug: bool,
}

impl Marker {
    /// Whether the process has entered a chroot since (proftpd). There the paths of lock, configuration, `/proc` and sockets lead
    /// to other files, which may be a user's. Keyrings have no paths.
    fn is_out_of_reach(&self) -> bool {
        self.root != sys::root_directory()
    }
}

/// What has come of entering.
#[derive(Debug)]
pub struct Entered {
    /// To be remembered.
    pub marker: Marker,
    /// KRB5CCNAME for a user manager: the PAG's own ccache.
    pub ccache: Option<String>,
    /// What a seeding job is not to get.
    pub without: Without,
    /// The PAG's identity, for a seeding job; empty where it has none.
    pub identity: String,
}

/// Puts the calling thread into the right PAG, feeds the PAG's ccache and seeds tokens. Idempotent: a thread that is
/// where it belongs stays there, one whose session keyring somebody has replaced is put back. Needs root.
///
/// # Errors
/// When there is no PAG for this login; it then has a clean session keyring, or what it had, and no tokens.
pub fn enter(request: &Request<'_>) -> Result<Entered> {
    Client::configure(request.settings);
    if let Some(marker) = request.marker.filter(Marker::is_out_of_reach) {
        log::debug!("uid {} stays where it is: this process has entered a chroot since its login", marker.uid);
        return Ok(Entered { marker, ccache: None, without: Without::default(), identity: String::new() });
    }
    let budget = Budget::new(request.settings.timeout, request.marker.map_or(Duration::ZERO, |m| m.spent));
    let mut entering = Entering::new(request, budget, HandleGroup::read());
    entering.look_for_ticket();
    if request.settings.nopag {
        return entering.without_pag();
    }
    let moment = (entering.is_manager() && request.opening).then(|| moment_of_manager(request.user.uid));
    let mut placed = entering.place()?;
    if let Some(moment) = moment {
        nudge_of_manager(request.user.uid, moment);
    }
    // Before the seeder: who is killed over that would leave a lease of which nobody has told the helper.
    nudge(request.user.uid);
    entering.write_ccache(&mut placed);
    if entering.seed(&mut placed) {
        nudge(request.user.uid);
    }
    Ok(entering.entered(placed))
}

/// Where the user manager's stack calls us, before we do anything. pam_keyinit gives the user a keyring of his own
/// (Linux-PAM, pam_keyinit.c, init_keyrings); before that the session keyring is what PID 1 has, or our ring from an
/// earlier call. And libpam has loaded all modules of a service before it calls the first one (pam_handlers.c,
/// _pam_init_handlers): where pam_keyinit is not even there, nothing will come.
fn moment_of_manager(uid: u32) -> Moment {
    let users = |found: keyring::Description<'_>| found.uid == uid;
    let by_keyinit =
        Ring::current().is_none() && keyring::session().and_then(|key| keyring::describe(key, users)).unwrap_or(false);
    let will_come = || std::fs::read("/proc/self/maps").is_ok_and(|maps| holds(&maps, b"/pam_keyinit.so"));
    if !by_keyinit && will_come() { Moment::BeforeKeyinit } else { Moment::Lasting }
}

fn holds(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}

/// One entering, with what is known about it.
struct Entering<'a> {
    request: &'a Request<'a>,
    identity: OnceCell<Identity>,
    process: OnceCell<Option<Process>>,
    /// The tokens that were in the ring before a seeder runs, where this login has looked, or the ring is new.
    before: OnceCell<Vec<Token>>,
    budget: Budget,
    group: HandleGroup,
    /// The ticket that this login brings.
    ticket: Option<Contents>,
    /// Whether it brings one, or a ccache that could not be read.
    may_have_ticket: bool,
}

/// Where a newcomer goes, among the PAGs that were read.
enum Choice {
    Join(usize, Ring),
    Make(PagKind),
    Nowhere,
}

/// Whether the PAG that a ticket is brought to was there before: if so, whether this login has tried for its tokens, and
/// if not, whether its ccache has been made with the ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Known,
    Tried,
    New { filled: bool },
}

/// What is to be done to the PAG's ccache. A child does it as the user, who decides how long that takes (a file system of
/// their own, mounted over the ccache): so it is done when the uid's lock is released, and never under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CcacheWork {
    /// Nothing.
    None,
    /// The ticket of this login goes there, unless a later one is there.
    Feed,
    /// The ticket of this login goes there, whatever is there.
    Replace,
    /// What is there is another identity's, and goes.
    Empty,
}

/// The PAGs that could be joined.
pub fn candidates(pags: &[Pag]) -> Vec<Candidate<'_>> {
    let whole = pags.iter().filter(|pag| pag.ring.is_ok());
    whole.filter_map(|pag| Some(Candidate { id: pag.id, record: pag.record.as_ref().ok()? })).collect()
}

/// Where it has led.
struct Placed {
    ring: Ring,
    /// The PAG with the record as it was when the lock was released; none outside the registry.
    pag: Option<(Pag, Record)>,
    cookie: u64,
    need: Need,
    /// What is left to do to the PAG's ccache.
    work: CcacheWork,
    seeded: bool,
    /// Whether the process was somewhere else before.
    moved: bool,
}

impl<'a> Entering<'a> {
    fn new(request: &'a Request<'a>, budget: Budget, group: HandleGroup) -> Self {
        Entering {
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

    fn uid(&self) -> u32 {
        self.request.user.uid
    }

    /// The user with his groups, as a child becomes him. Looked up when a child is to be made, and not before: NSS
    /// costs more than all the rest of a join.
    fn identity(&self) -> &Identity {
        let user = self.request.user;
        self.identity.get_or_init(|| Identity {
            uid: user.uid,
            gid: user.gid,
            groups: sys::groups_of(&user.name, user.gid),
        })
    }

    /// The user with no more than his own group: that is enough for his ccache, and a join with good tokens needs no
    /// more.
    fn owner(&self) -> Identity {
        let user = self.request.user;
        Identity { uid: user.uid, gid: user.gid, groups: vec![user.gid] }
    }

    /// The user as Kerberos may know him.
    fn account(&self) -> Account {
        Account::new(&self.request.user.name, self.request.settings)
    }

    fn is_manager(&self) -> bool {
        self.request.settings.placement == ServiceKind::Manager
    }

    /// Reads the ticket that this login brings, as the user. A manager and a seeding job bring none; neither does a login with
    /// the name of a ccache in which there is none, or none that is good for anything: some sites set KRB5CCNAME for everybody.
    fn look_for_ticket(&mut self) {
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

    /// The ccache for a seeder: the login's own, or the PAG's, where the login's is in the session keyring that it had before,
    /// or has no ticket while the PAG's has one.
    fn ccache_to_seed_from<'b>(&'b self, record: Option<&'b Record>) -> Option<&'b str> {
        let own = self.request.ccache.zip(self.request.ccache.and_then(|name| CcacheName::parse(name).ok()));
        let has_better = |record: &Record| self.ticket.is_none() && record.ticket > crate::sys::now();
        let own = own.filter(|(_, place)| !place.is_of_session() && !record.is_some_and(has_better));
        own.map(|(name, _)| name).or(record.map(|record| record.ccache.as_str()))
    }

    fn place(&self) -> Result<Placed> {
        let guard = Guard::enter(self.group)?;
        let ring_before = Ring::current();
        let strangers = if ring_before.is_some() || self.is_manager() { 0 } else { ring::strangers_in_session() };
        let mut placed = match self.place_in_registry(&guard) {
            Ok(placed) => placed,
            // The registry is out of reach: alone is better than not at all, and an unlocked registry is not touched.
            Err(why @ (Error::Lock { .. } | Error::System { .. })) => {
                report(&Event::Private { uid: self.uid(), why: why.to_string() });
                self.private(&guard)?
            }
            Err(why) => {
                // Not in what a failed join has left, nor in what was unusable before: no key would be found there.
                if matches!(why, Error::NotJoined { .. }) || keyring::session().is_err() {
                    ring::fresh(&guard, self.uid())?;
                }
                return Err(why);
            }
        };
        placed.moved = ring_before.is_none_or(|ring| ring != placed.ring);
        if let Err(why) = placed.ring.link_user_keyring(&guard, self.uid()) {
            report(&Event::UserKeyringNotLinked { uid: self.uid(), why: why.to_string() });
        }
        if strangers > 0 {
            report(&Event::StrangersLost { uid: self.uid(), count: strangers });
        }
        Ok(placed)
    }

    fn place_in_registry(&self, guard: &Guard) -> Result<Placed> {
        let user =
            LockedUser::lock(guard, self.uid(), LOCK_WAIT.min(self.budget.left().max(Duration::from_millis(200))))?;
        let mut placed = match self.again(&user)? {
            Some(placed) => placed,
            None => self.choose_place(&user)?,
        };
        if self.is_manager()
            && let Err(why) = self.follow_at_once(&user, &mut placed)
        {
            // The helper has reason to try again, and says so.
            log::debug!("the services of uid {} follow nobody yet: {why}", self.uid());
        }
        Ok(placed)
    }

    /// A manager reads its user's units when it starts: it has the tokens of a session by then, of the newest one, since
    /// nobody has asked logind yet. The helper has it follow another where that is right.
    fn follow_at_once(&self, user: &LockedUser<'_>, placed: &mut Placed) -> Result<()> {
        let Some((pag, record)) = &mut placed.pag else { return Ok(()) };
        if record.follows.is_some() || !policy::is_follower(record, crate::sys::now()) {
            return Ok(());
        }
        let pags = user.pags()?;
        let followed = policy::followed(self.request.settings.follow, &candidates(&pags), None, None, |_| None);
        let Some(leader) = pags.iter().find(|other| Some(other.id) == followed) else { return Ok(()) };
        follow::mirror(user, pag, leader)?;
        report(&Event::Follows { uid: pag.uid, pag: pag.id, followed: leader.id, session: None });
        if let Ok(now) = &pag.record {
            *record = now.clone();
        }
        Ok(())
    }

    fn choose_place(&self, user: &LockedUser<'_>) -> Result<Placed> {
        let mut pags = user.pags()?;
        let known: Vec<PagId> = pags.iter().map(|pag| pag.id).collect();
        let foreign: Vec<Event> = pags.iter().filter_map(of_newer_release).collect();
        tidy(user, &mut pags, self.request.user, self.repaired());
        let lease = self.lease()?;
        let kind = match self.choose(&pags) {
            Choice::Join(index, chosen) => match chosen.join(user.guard()) {
                Ok(()) => {
                    // A seeding job is no reason to keep a PAG.
                    let lease = (self.request.settings.placement != ServiceKind::Seed).then_some(lease);
                    return self.joined(user, pags.swap_remove(index), chosen, lease);
                }
                Err(why) => {
                    self.abandon(user, &pags, index, &why.to_string())?;
                    PagKind::User
                }
            },
            Choice::Make(kind) => {
                // Once, and not by each login that joins the one that is made now.
                foreign.iter().for_each(|event| report(event));
                kind
            }
            Choice::Nowhere => {
                let nothing = io::Error::from_raw_os_error(libc::ENOENT);
                return Err(Error::key(format!("find a PAG of uid {} to seed", self.uid()))(nothing));
            }
        };
        self.sweep(&known);
        // A second time when the first new ring cannot be joined either, and no third.
        match self.make(user, kind, lease.clone()) {
            Err(Error::NotJoined { .. }) => {
                ring::fresh(user.guard(), self.uid())?;
                self.make(user, kind, lease)
            }
            made => made,
        }
    }

    /// A hook that comes after another of the same login: the PAG is chosen already.
    fn again(&self, user: &LockedUser<'_>) -> Result<Option<Placed>> {
        let Some(marker) = self.request.marker.filter(|marker| marker.uid == self.uid()) else { return Ok(None) };
        let (Some(ring), Some((id, place))) = (marker.ring, marker.pag) else { return Ok(None) };
        let Some(pag) = user.look_up(place, id)? else { return Ok(None) };
        // What is damaged is put right by going the whole way.
        if pag.ring.as_ref() != Ok(&ring) || pag.record.is_err() {
            return Ok(None);
        }
        // The ticket that an earlier hook came without may be of an identity that has no place there.
        if pag.record.as_ref().is_ok_and(|record| !self.may_stay(record, Some(marker.cookie))) {
            end_session(user, pag, marker.cookie);
            ring::fresh(user.guard(), self.uid())?;
            return Ok(None);
        }
        if !ring.is_current() {
            if marker.opened && !self.request.opening && !self.request.several {
                report(&Event::Displaced { uid: self.uid(), ring: ring.serial });
            }
            if ring.join(user.guard()).is_err() {
                return Ok(None);
            }
        }
        // The lease is there, unless close_session came in between.
        let has_it = pag.record.as_ref().is_ok_and(|r| r.leases.iter().any(|lease| lease.cookie == marker.cookie));
        let lease = if has_it { None } else { Some(self.lease()?) };
        let mut placed = self.joined(user, pag, ring, lease)?;
        if has_it {
            placed.cookie = marker.cookie;
        }
        placed.seeded |= marker.seeded;
        Ok(Some(placed))
    }

    /// Whether the ticket that this login brings, if it brings one, has a place in the PAG with this record. `own` is the cookie of
    /// this login's lease there; without one, a single lease is taken for this login's.
    fn may_stay(&self, record: &Record, own: Option<u64>) -> bool {
        let Some(ticket) = &self.ticket else { return true };
        let others = match own {
            Some(cookie) => record.leases.iter().any(|lease| lease.cookie != cookie || lease.sessions > 1),
            None => lease::sessions(&record.leases) > 1,
        };
        policy::may_bring(&ticket.summary.principal, record, others, &self.account())
    }

    fn choose(&self, pags: &[Pag]) -> Choice {
        let newcomer = match self.request.settings.placement {
            ServiceKind::Manager => Newcomer::Manager,
            ServiceKind::Seed => Newcomer::Seed,
            ServiceKind::Own => Newcomer::Own,
            ServiceKind::Login | ServiceKind::Nothing => Newcomer::Login {
                principal: self.ticket.as_ref().map(|ticket| &ticket.summary.principal),
                join: self.request.settings.join,
                scope: self.request.settings.scope,
            },
        };
        match policy::place(newcomer, &self.account(), &candidates(pags)) {
            Placement::Make(kind) => Choice::Make(kind),
            Placement::Nowhere => Choice::Nowhere,
            Placement::Join(id) => pags
                .iter()
                .enumerate()
                .find_map(|(index, pag)| (pag.id == id).then_some(Choice::Join(index, *pag.ring.as_ref().ok()?)))
                .unwrap_or(Choice::Nowhere),
        }
    }

    /// What a PAG is taken for whose record was lost: one that this newcomer may join only where logins share theirs.
    fn repaired(&self) -> PagKind {
        if self.request.settings.scope == Scope::User { PagKind::User } else { PagKind::Session }
    }

    /// Where a refreshed ticket belongs: never into a new PAG, and never into one of another identity. The login's own
    /// PAG, when this process has opened it; else the one that it is in, as a screen locker is; else, from outside, the
    /// one of the login that it looks like, whatever scope that has come under; else the one that would be joined.
    fn refreshes(&self, pags: &[Pag]) -> Option<(usize, Ring)> {
        let account = self.account();
        let brought = self.ticket.as_ref().map(|ticket| &ticket.summary.principal);
        let fits = |record: &Record| match (&record.principal, brought) {
            (Some(there), Some(brought)) => there == brought,
            (None, Some(brought)) => account.owns(brought),
            (_, None) => true,
        };
        let at = |wanted: &dyn Fn(&Pag) -> bool| {
            let found = pags.iter().enumerate().find(|(_, pag)| wanted(pag) && pag.record.as_ref().is_ok_and(fits));
            found.and_then(|(index, pag)| Some((index, *pag.ring.as_ref().ok()?)))
        };
        let opened = self.request.marker.and_then(|marker| marker.pag);
        if let Some(own) = opened.and_then(|(id, _)| at(&|pag| pag.id == id)) {
            return Some(own);
        }
        if let Some(current) = Ring::current()
            && let Some(inside) = at(&|pag| pag.ring.as_ref() == Ok(&current))
        {
            return Some(inside);
        }
        if self.request.settings.placement == ServiceKind::Login {
            let (tty, service) = (Word::clean(self.request.tty), Word::clean(self.request.service));
            let scope = self.request.settings.scope;
            let news = policy::Refreshed { principal: brought, tty: &tty, service: &service, scope };
            if let Some(id) = policy::refreshed(&candidates(pags), news, &account) {
                return at(&|pag| pag.id == id);
            }
        }
        match self.choose(pags) {
            Choice::Join(index, ring) => Some((index, ring)),
            _ => None,
        }
    }

    /// Removes what logins that were killed between two steps have left: directories without a PAG.
    fn sweep(&self, known: &[PagId]) {
        for id in ccache::of_user(self.uid()) {
            if !known.contains(&id) {
                ccache::remove(self.uid(), id);
            }
        }
        ccache::ended(self.uid()).iter().for_each(|path| ccache::remove_few(self.uid(), path));
    }

    /// A ring that looked whole could not be joined: its PAG is taken out of the registry, so that nobody tries again.
    fn abandon(&self, user: &LockedUser<'_>, pags: &[Pag], index: usize, why: &str) -> Result<()> {
        if let Some(pag) = pags.get(index) {
            report(&Event::RingBroken { uid: self.uid(), pag: pag.id, why: why.to_owned() });
            user.retire(pag)?;
        }
        ring::fresh(user.guard(), self.uid())
    }

    /// This process, looked up once.
    fn process(&self) -> Result<Process> {
        let found = *self.process.get_or_init(Process::current);
        found.ok_or_else(|| Error::system("find this process in /proc")(io::ErrorKind::NotFound.into()))
    }

    fn lease(&self) -> Result<Lease> {
        let role = if self.is_manager() { LeaseKind::Manager } else { LeaseKind::Login };
        Lease::new(self.process()?, role, self.request.service, self.request.tty, self.request.ccache)
            .map_err(Error::system("get random bits for a lease"))
    }

    fn make(&self, user: &LockedUser<'_>, kind: PagKind, lease: Lease) -> Result<Placed> {
        let uid = self.uid();
        let id = PagId::random()?;
        let cookie = lease.cookie;
        let (ccache, filled) = self.new_ccache(id);
        let mut record = Record::new(uid, kind, ccache, self.request.settings.retain);
        record.leases.push(lease);
        let anchored = Ring::make(user.guard(), self.group, uid).and_then(|ring| {
            let pag = user.anchor(id, &ring, record);
            ring.release();
            Ok((ring, pag?))
        });
        if anchored.is_err() {
            ccache::remove(uid, id);
        }
        let (ring, mut pag) = anchored?;
        // Before the join: the members of a ring without its S0 are in no PAG of OpenAFS.
        self.equip(user.guard(), &mut pag);
        if let Err(why) = ring.join(user.guard()) {
            user.retire(&pag)?;
            ccache::remove(uid, id);
            return Err(why);
        }
        report(&Event::Made { uid, pag: id, ring: ring.serial });
        self.say_if_apart(id, kind);
        let mut record =
            pag.record.clone().unwrap_or_else(|_| Record::new(uid, kind, String::new(), self.request.settings.retain));
        let (need, work) = self.take_ticket(&mut record, id, &ring, Found::New { filled });
        user.store(&mut pag, record.clone())?;
        Ok(Placed { ring, pag: Some((pag, record)), cookie, need, work, seeded: false, moved: true })
    }

    /// Says that a login has a PAG apart from its user's services because of whom its ticket names: what an account's own
    /// identity is called cannot always be guessed.
    fn say_if_apart(&self, pag: PagId, kind: PagKind) {
        let account = self.account();
        let brought = self.ticket.as_ref().map(|ticket| &ticket.summary.principal);
        if let Some(principal) = brought.filter(|brought| kind == PagKind::User && !account.owns(brought)) {
            let (name, principal) = (account.name().to_owned(), principal.to_string());
            report(&Event::Apart { uid: self.uid(), name, pag, principal });
        }
    }

    /// Sees to it that the PAG is one of OpenAFS, too. Without that it has no tokens of OpenAFS; the others are not
    /// concerned.
    fn equip(&self, guard: &Guard, pag: &mut Pag) {
        match s0::equip(guard, pag) {
            Ok(Equipped::Relinked) => {
                let what = "its tokens of OpenAFS, which a member had cut, are there again".to_owned();
                report(&Event::Healed { uid: self.uid(), pag: pag.id, what });
            }
            Ok(Equipped::AsBefore | Equipped::Anew) => {}
            Err(why) => report(&Event::NotEquipped { uid: self.uid(), pag: pag.id, why: why.to_string() }),
        }
    }

    /// The name of a new PAG's ccache, and whether the login's ticket is in it.
    fn new_ccache(&self, id: PagId) -> (String, bool) {
        let ticket = self.ticket.as_ref().filter(|ticket| ticket.summary.tgt_expires.is_some());
        let made = ccache::make(self.uid(), self.request.user.gid, id, ticket);
        if let Err(why) = &made {
            report(&Event::CcacheRefused { uid: self.uid(), why: why.to_string() });
        }
        (ccache::name(self.uid(), id), made.is_ok() && ticket.is_some())
    }

    fn joined(&self, user: &LockedUser<'_>, mut pag: Pag, ring: Ring, lease: Option<Lease>) -> Result<Placed> {
        let uid = self.uid();
        let Ok(mut record) = pag.record.clone() else {
            return Err(Error::key(format!("read the record of PAG {}", pag.id))(io::ErrorKind::InvalidData.into()));
        };
        let before = record.clone();
        let mut cookie = 0;
        let mut followed = false;
        // A lease may be from before its login had a ticket.
        if let (Some(marker), Some(ccache)) = (self.request.marker, self.request.ccache) {
            let own = record.leases.iter_mut().find(|lease| lease.cookie == marker.cookie);
            own.into_iter().for_each(|lease| lease.ccache = Word::whole(ccache));
        }
        if let Some(lease) = lease {
            log::debug!("PAG {} (ring {}) of uid {uid}: joined", pag.id, ring.serial);
            cookie = self.take_lease(&mut record, pag.id, lease);
            if self.request.settings.placement == ServiceKind::Login {
                record.retain = self.request.settings.retain;
                // At once and not by the helper: tokens of this login's would be put into the PAG that is followed.
                if record.follows.is_some() {
                    follow::take_away(&ring, pag.nested, &mut record);
                    followed = true;
                    report(&Event::FollowsNobody { uid, pag: pag.id });
                    pag.record = Ok(record.clone());
                }
            }
        }
        if self.request.settings.placement == ServiceKind::Seed {
            record.reseed = false;
        }
        self.equip(user.guard(), &mut pag);
        let found = if self.has_tried(&ring) { Found::Tried } else { Found::Known };
        let (need, work) = self.take_ticket(&mut record, pag.id, &ring, found);
        // The copy of another identity's ticket goes, whether this login brings one or not.
        let work = match work {
            CcacheWork::None if followed => CcacheWork::Empty,
            _ if followed => CcacheWork::Replace,
            work => work,
        };
        if record != before
            && let Err(why) = user.store(&mut pag, record.clone())
        {
            // A member without a lease would lose its tokens with somebody else's logout.
            ring::fresh(user.guard(), uid)?;
            return Err(why);
        }
        Ok(Placed { ring, pag: Some((pag, record)), cookie, need, work, seeded: false, moved: true })
    }

    /// Adds this login's lease to the record, and gives its cookie, or 0 where the record has no room. A login without a lease is
    /// in the PAG all the same, and loses its tokens with the last login that has one.
    fn take_lease(&self, record: &mut Record, id: PagId, lease: Lease) -> u64 {
        let (uid, process, before) = (self.uid(), lease.process, record.leases.clone());
        let admitted = lease::admit(&mut record.leases, lease);
        if !record.has_room(admitted.role) {
            record.leases = before;
            let (leases, busiest) = (record.leases.len(), lease::busiest(&record.leases));
            let (busiest, sessions) = busiest.map_or_else(Default::default, |(of, count)| (of.label(), count));
            report(&Event::RecordFull { uid, pag: id, leases, busiest, sessions });
            return 0;
        }
        // Said at 2, 4, 8, ... of them: a host that goes on like that would fill the journal.
        if admitted.sessions > 1 && admitted.sessions.is_power_of_two() {
            let sessions = lease::sessions_of(&record.leases, process);
            report(&Event::ManySessions { uid, pag: id, process: process.label(), sessions });
        }
        admitted.cookie
    }

    /// A PAG outside the registry, that ends with its processes and that nobody else can join.
    fn private(&self, guard: &Guard) -> Result<Placed> {
        let ring = Ring::make(guard, self.group, self.uid())?;
        let joined = ring.join(guard);
        ring.release();
        joined?;
        let (need, work) = (self.need(None, &ring, true), CcacheWork::None);
        Ok(Placed { ring, pag: None, cookie: 0, need, work, seeded: false, moved: true })
    }

    /// Takes the login's ticket into the PAG's record: its principal at once, so that no other identity slips in. Says what
    /// is to be done to the ccache, and whether a seeder should run; if so, it notes that one does, so that no other login
    /// starts one meanwhile. A PAG that is new has neither a ccache nor tokens: a child less for each look. Under the uid's
    /// lock.
    fn take_ticket(&self, record: &mut Record, id: PagId, ring: &Ring, found: Found) -> (Need, CcacheWork) {
        let mut work = CcacheWork::None;
        // Neither its ticket nor tokens from it go to a PAG of another identity.
        if !matches!(found, Found::New { .. }) && !self.may_stay(record, None) {
            return (Need::No, work);
        }
        if let Some(ticket) = &self.ticket {
            let principal = &ticket.summary.principal;
            let same = record.principal.as_ref().is_none_or(|known| known == principal);
            if same {
                record.principal = Some(principal.clone());
                let expires = ticket.summary.tgt_expires.unwrap_or(0);
                if expires > record.ticket && record.ccache == ccache::name(self.uid(), id) {
                    work = match found {
                        Found::New { filled: true } => {
                            note_ticket(record, ticket);
                            report(&Event::CcacheFed { uid: self.uid(), pag: id, expires });
                            CcacheWork::None
                        }
                        Found::New { filled: false } => CcacheWork::Replace,
                        Found::Known | Found::Tried => CcacheWork::Feed,
                    };
                }
            }
        }
        // Of two hooks of a login the first looks at the tokens.
        let need = match found {
            Found::Tried => Need::No,
            Found::Known | Found::New { .. } => self.need(Some(&*record), ring, found != Found::Known),
        };
        if need == Need::Now {
            let ticket = self.ticket_end(Some(&*record)).unwrap_or(0);
            record.attempt = Some(Attempt { at: crate::sys::now(), ok: false, ticket });
            // A login begins anew; a job that has waited for long is none.
            if self.request.settings.placement != ServiceKind::Seed {
                record.discarded.clear();
            }
        }
        (need, work)
    }

    /// Does to the PAG's ccache what is to be done, and notes what has come of it. Not under the uid's lock.
    fn write_ccache(&self, placed: &mut Placed) {
        let work = std::mem::replace(&mut placed.work, CcacheWork::None);
        if let Some((pag, record)) = &mut placed.pag {
            self.do_ccache_work(work, pag.id, record);
        }
    }

    fn do_ccache_work(&self, work: CcacheWork, id: PagId, record: &mut Record) {
        let uid = self.uid();
        // However little of its time the login has left: no ticket of another identity is to stay there.
        let user = self.owner();
        let until = || self.budget.deadline().max(Instant::now() + Duration::from_millis(200));
        // The helper may have begun to write another ticket there before the record told of this login, whose ticket is to be
        // the last. Without the lock it is written all the same.
        let share = || Lock::share_of_tickets(uid, until().saturating_duration_since(Instant::now()));
        let lock = (work != CcacheWork::None).then(share);
        let deadline = until();
        let done = match (work, &self.ticket) {
            (CcacheWork::None, _) => return,
            (CcacheWork::Feed, Some(ticket)) => ccache::feed(&user, id, ticket, deadline),
            (CcacheWork::Replace, Some(ticket)) => ccache::put(&user, id, ticket, deadline).map(|()| true),
            (CcacheWork::Empty | CcacheWork::Feed | CcacheWork::Replace, _) => {
                ccache::empty(&user, id, deadline).map(|()| false)
            }
        };
        drop(lock);
        match done {
            Err(why) => report(&Event::CcacheRefused { uid, why: why.to_string() }),
            Ok(_) if work == CcacheWork::Empty => {}
            Ok(put) => {
                let Some(ticket) = &self.ticket else { return };
                note_ticket(record, ticket);
                if put {
                    report(&Event::CcacheFed { uid, pag: id, expires: record.ticket });
                }
                // Best effort: the helper sees that the ccache was written, and notes the same.
                let noted = change_record(self.group, uid, id, LOCK_WAIT, |record| note_ticket(record, ticket));
                match noted {
                    // The helper is not to take this ticket for one that the user got without a login.
                    Ok(()) => nudge(uid),
                    Err(why) => log::debug!("the ticket of PAG {id} is not noted yet: {why}"),
                }
            }
        }
    }

    /// End time of the ticket that a seeder would use: the login's, else the PAG's.
    fn ticket_end(&self, record: Option<&Record>) -> Option<u64> {
        let now = crate::sys::now();
        let login = self.ticket.as_ref().map(|ticket| ticket.summary.tgt_expires.unwrap_or(0));
        login.or_else(|| record.map(|record| record.ticket).filter(|ticket| *ticket > now))
    }

    fn need(&self, record: Option<&Record>, ring: &Ring, new: bool) -> Need {
        let settings = self.request.settings;
        let ticket = self.ticket_end(record);
        let attempt = record.and_then(|record| record.attempt);
        let now = crate::sys::now();
        // The start of a manager is no wish for what somebody has discarded.
        if self.is_manager() && record.is_some_and(|record| !record.discarded.is_empty()) {
            return Need::No;
        }
        // The ring is looked into only when that can change anything.
        let clients = Client::present(settings);
        match seed::need(settings, &clients, attempt, ticket, self.is_manager(), now) {
            Need::No => Need::No,
            need if new => {
                let _ = self.before.set(Vec::new());
                need
            }
            need => {
                let tokens =
                    afs::tokens(ring, Instant::now() + INSIDE).map(|tokens| self.before.get_or_init(|| tokens));
                let tokens = tokens.map_or(&[][..], Vec::as_slice);
                let held = seed::held(tokens, record.map_or(&[], |record| &record.tokens), now);
                if seed::are_good(&held, &seed::cells(&clients, settings, self.request.user), now) {
                    Need::Good
                } else {
                    need
                }
            }
        }
    }

    /// Whether an earlier hook of this login has found good tokens, or has tried for them. In another ring than that one's,
    /// whose PAG has gone meanwhile, there is nothing of what it got.
    fn has_tried(&self, ring: &Ring) -> bool {
        self.request.marker.is_some_and(|marker| marker.seeded && marker.ring == Some(*ring))
    }

    /// Runs a seeder where one is wanted; whether it did.
    fn seed(&self, placed: &mut Placed) -> bool {
        if self.has_tried(&placed.ring) || self.request.settings.placement == ServiceKind::Seed {
            return false;
        }
        match placed.need {
            Need::No | Need::Good => {
                log::debug!("no seeder for uid {}: tokens are good, not wanted, or cannot be had", self.uid());
                placed.seeded |= placed.need == Need::Good;
                return false;
            }
            Need::Later => {
                if let Some((pag, _)) = &placed.pag {
                    report(&Event::SeedPutOff { uid: self.uid(), pag: pag.id });
                }
                placed.seeded = true;
                return false;
            }
            Need::Now => placed.seeded = true,
        }
        let record = placed.pag.as_ref().map(|(_, record)| record);
        let job = Job {
            settings: self.request.settings,
            user: self.request.user,
            identity: self.identity(),
            ccache: self.ccache_to_seed_from(record),
            environment: &self.request.environment,
            without: Without::default(),
        };
        let seeding = run_seeder(&job, Some(&placed.ring), self.before.get(), &self.budget);
        if let Some((pag, record)) = &placed.pag {
            let ok = seeding.ok;
            let _ = note_seeding(self.group, self.uid(), pag.id, &seeding, LOCK_WAIT);
            let fed = self.ticket.as_ref().is_some_and(|t| t.summary.tgt_expires.unwrap_or(0) <= record.ticket);
            // Not the PAG's own.
            if ok && fed && self.request.settings.kdestroy && job.ccache == self.request.ccache {
                let destroyed = job.kdestroy(&self.budget).unwrap_or_else(|error| Err(error.to_string()));
                if let Err(why) = destroyed {
                    report(&Event::CcacheRefused { uid: self.uid(), why: format!("kdestroy: {why}") });
                }
            }
        }
        true
    }

    /// `nopag`: tokens for wherever the login is, as pam_afs_session has it, and nothing else.
    fn without_pag(&self) -> Result<Entered> {
        let process = self.process()?;
        let tried = self.request.marker.is_some_and(|marker| marker.seeded);
        let ticket = self.may_have_ticket.then_some(0);
        let clients = Client::present(self.request.settings);
        let need = seed::need(self.request.settings, &clients, None, ticket, self.is_manager(), crate::sys::now());
        if !tried && !self.is_manager() && need == Need::Now {
            let job = Job {
                settings: self.request.settings,
                user: self.request.user,
                identity: self.identity(),
                ccache: self.request.ccache,
                environment: &self.request.environment,
                without: Without::default(),
            };
            run_seeder(&job, None, None, &self.budget);
        }
        let marker = Marker {
            uid: self.uid(),
            pag: None,
            ring: None,
            process,
            root: sys::root_directory(),
            cookie: 0,
            spent: self.budget.spent(),
            seeded: true,
            opened: false,
            moved: false,
            lives_on: false,
            strict: self.request.settings.strict,
            debug: self.request.settings.debug,
        };
        Ok(Entered { marker, ccache: None, without: Without::default(), identity: String::new() })
    }

    fn entered(&self, placed: Placed) -> Entered {
        let (pag, ccache, without, identity) = match placed.pag {
            Some((pag, record)) => {
                let without = Without::of(&record);
                let identity = record.principal.map(|principal| principal.to_string()).unwrap_or_default();
                (Some((pag.id, pag.place())), Some(record.ccache), without, identity)
            }
            None => (None, None, Without::default(), String::new()),
        };
        let before = self.request.marker;
        // Without /proc the start time is unknown, but the pid is enough for the process to leave the ring when it closes.
        let unknown = Process { pid: i32::try_from(std::process::id()).unwrap_or(0), start: 0 };
        let process = before.map(|marker| marker.process).or_else(|| self.process.get().copied().flatten());
        let marker = Marker {
            uid: self.uid(),
            pag,
            ring: Some(placed.ring),
            process: process.unwrap_or(unknown),
            root: sys::root_directory(),
            cookie: placed.cookie,
            spent: self.budget.spent(),
            seeded: placed.seeded,
            opened: before.is_some_and(|marker| marker.opened),
            moved: before.map_or(placed.moved, |marker| marker.moved),
            lives_on: config::lives_on_without_session(self.request.service),
            strict: self.request.settings.strict,
            debug: self.request.settings.debug,
        };
        let wanted = matches!(self.request.settings.placement, ServiceKind::Manager | ServiceKind::Seed);
        Entered { marker, ccache: ccache.filter(|name| wanted && !name.is_empty()), without, identity }
    }
}

/// What has come of a seeding.
#[derive(Debug)]
pub struct Seeding {
    /// Whether all went well; also when there was nothing to be got.
    pub ok: bool,
    /// The tokens in the ring afterwards, where they were seen.
    pub tokens: Option<Vec<Token>>,
    /// Those that came for other names than their own.
    pub aliases: Vec<Alias>,
}

/// What is wrong with a seeder that ended well and has brought nothing.
const NOTHING_THERE: &str = "the seeder ended with status 0, and no such token is in the ring. It must end when the \
     tokens are there: what it leaves in the background is killed";

/// Runs the seeders of a job and says what came of it. What the ring holds decides, and not what a seeder says. `before` are
/// the tokens in it, where somebody has looked already.
pub fn run_seeder(job: &Job<'_>, ring: Option<&Ring>, before: Option<&Vec<Token>>, budget: &Budget) -> Seeding {
    let begun = Instant::now();
    let wanted = job.wanted();
    if wanted.is_empty() && !job.without.is_nothing() {
        return Seeding { ok: true, tokens: None, aliases: Vec::new() };
    }
    let look = |time: Duration| afs::tokens(ring.filter(|_| !time.is_zero())?, Instant::now() + time).ok();
    let before = before.cloned().or_else(|| look(budget.left().min(INSIDE)));
    let before = before.as_deref();
    let uid = job.user.uid;
    let place = ring.map(|ring| ring.serial);
    let result = job.run(ring, budget).unwrap_or_else(|error| Err(error.to_string()));
    let after = look(INSIDE);
    let (brought, result) = match (result, &after) {
        (Ok(()), None) => (Brought { got: wanted, ..Brought::default() }, Ok(())),
        (Ok(()), Some(after)) => {
            let brought = seed::brought(&wanted, before, after);
            let all = brought.missed.is_empty();
            (brought, if all { Ok(()) } else { Err(NOTHING_THERE.to_owned()) })
        }
        // A seeder of several cells says that it has failed, and not for which.
        (Err(why), after) => {
            let told = before.zip(after.as_deref()).map(|(before, after)| seed::missed(&wanted, before, after));
            let missed = told.unwrap_or_else(|| wanted.clone());
            let got = wanted.into_iter().filter(|wanted| !missed.contains(wanted)).collect();
            (Brought { got, missed, aliases: Vec::new() }, Err(why))
        }
    };
    let ok = result.is_ok();
    if !brought.got.is_empty() {
        let (client, cell) = names(&brought.got);
        report(&Event::Seeded { uid, ring: place, client, cell, millis: sys::millis(begun.elapsed()) });
    }
    if let Err(why) = result {
        let quota = keyring::quota_is_short(uid).map(|quota| format!("; {quota}")).unwrap_or_default();
        let why = why + &quota;
        let (client, cell) = names(&brought.missed);
        report(&Event::SeedFailed { uid, ring: place, client, cell, why });
    }
    Seeding { ok, tokens: after, aliases: brought.aliases }
}

/// Clients and cells, for people: each once, in the order in which they are wanted.
fn names(wanted: &[Wanted]) -> (String, String) {
    fn add(list: &mut Vec<String>, name: String) {
        if !list.contains(&name) {
            list.push(name);
        }
    }
    let (mut clients, mut cells) = (Vec::new(), Vec::new());
    for one in wanted {
        add(&mut clients, one.client.to_string());
        add(&mut cells, one.to_string());
    }
    let cells = if cells.is_empty() { "the default cell".to_owned() } else { cells.join(", ") };
    (clients.join(", "), cells)
}

/// Notes in a record which ticket is in the PAG's ccache.
fn note_ticket(record: &mut Record, ticket: &Contents) {
    let summary = &ticket.summary;
    record.ticket = summary.tgt_expires.unwrap_or(0);
    record.renewable = summary.tgt_renew_until.unwrap_or(0);
    record.authenticated = summary.tgt_authenticated.unwrap_or(0);
}

/// Changes the record of a PAG that is there still, under the uid's lock.
fn change_record(
    group: HandleGroup,
    uid: u32,
    id: PagId,
    wait: Duration,
    change: impl FnOnce(&mut Record),
) -> Result<()> {
    let guard = Guard::enter(group)?;
    LockedUser::lock(&guard, uid, wait)?.edit(id, change)
}

/// Notes in the record what a seeder has brought. Waits at most `wait` for the uid's lock.
///
/// # Errors
/// `Lock` when another process held it all the time. Without the note the next login tries once more.
pub fn note_seeding(group: HandleGroup, uid: u32, id: PagId, seeding: &Seeding, wait: Duration) -> Result<()> {
    let tokens = seeding.tokens.as_deref().unwrap_or_default();
    change_record(group, uid, id, wait, |record| {
        let now = crate::sys::now();
        let mut held = seed::held(tokens, &record.tokens, now);
        seed::note_aliases(&mut held, &seeding.aliases);
        // A seeder that has succeeded has brought them: somebody has cut them away since, and they are to be had back.
        if seeding.ok && record.discarded.is_empty() {
            let is_cut = |known: &&Held| {
                known.expires > now && !held.iter().any(|one| one.client == known.client && one.cell == known.cell)
            };
            let cut: Vec<Held> = record.tokens.iter().filter(is_cut).cloned().collect();
            held.extend(cut);
        }
        record.hold(held);
        if let Some(attempt) = &mut record.attempt {
            attempt.ok = seeding.ok;
        }
    })
}

/// Whether the user's manager stays when he has logged out: the file that `loginctl enable-linger` makes
/// (systemd, src/login/logind-user.c, user_check_linger_file).
pub fn is_lingering(user: &Passwd) -> bool {
    let name = user.name.to_bytes();
    let file = OsString::from_vec(linger_file(name));
    !name.is_empty() && !name.contains(&b'/') && Path::new("/var/lib/systemd/linger").join(file).exists()
}

/// What systemd calls a user's file there: what is no printable ASCII, and what means something between quotes, is escaped as
/// in C (src/basic/escape.c, cescape_char), so that `DOM\alice` has the file `DOM\\alice`.
fn linger_file(name: &[u8]) -> Vec<u8> {
    let escaped = |letter: &u8| match letter {
        7 => b"\\a".to_vec(),
        8 => b"\\b".to_vec(),
        12 => b"\\f".to_vec(),
        11 => b"\\v".to_vec(),
        b'\n' => b"\\n".to_vec(),
        b'\r' => b"\\r".to_vec(),
        b'\t' => b"\\t".to_vec(),
        b'\\' | b'"' | b'\'' => vec![b'\\', *letter],
        b' '..=b'~' => vec![*letter],
        other => format!("\\{other:03o}").into_bytes(),
    };
    name.iter().flat_map(escaped).collect()
}

/// The PAGs of a user that logins hold, those of jobs excepted. While there is one, logind keeps the manager.
fn with_logins(pags: &[Pag]) -> Vec<PagId> {
    let is_one = |record: &Record| {
        record.kind != PagKind::Own
            && record.leases.iter().any(|lease| lease.role == LeaseKind::Login && lease.process.is_alive())
    };
    pags.iter().filter(|pag| pag.record.as_ref().is_ok_and(is_one)).map(|pag| pag.id).collect()
}

/// What is to be said of a PAG whose record a newer release has written; none of any other.
pub fn of_newer_release(pag: &Pag) -> Option<Event> {
    let why = pag.record.as_ref().err().filter(|why| matches!(why, Unreadable::Foreign(_)))?;
    Some(Event::RecordForeign { uid: pag.uid, pag: pag.id, why: why.to_string() })
}

/// Takes dead leases out of the user's PAGs and ends those that are over; what stays in `pags` can be used. Repairs a
/// damaged record, as one of kind `repaired`, and leaves those of a newer release alone. Held under the uid's lock.
pub fn tidy(locked: &LockedUser<'_>, pags: &mut Vec<Pag>, user: &Passwd, repaired: PagKind) {
    let with_logins = with_logins(pags);
    pags.retain_mut(|pag| {
        if matches!(pag.record, Err(Unreadable::Foreign(_))) {
            return false;
        }
        if let Err(why) = &pag.ring {
            report(&Event::RingBroken { uid: pag.uid, pag: pag.id, why: why.clone() });
            let _ = locked.retire(pag);
            ccache::remove(pag.uid, pag.id);
            return false;
        }
        let mut record = match &pag.record {
            Ok(record) => record.clone(),
            Err(why) => {
                report(&Event::RecordDamaged { uid: pag.uid, pag: pag.id, why: why.to_string() });
                let ccache = ccache::name(pag.uid, pag.id);
                let record = Record { unsure: true, ..Record::new(pag.uid, repaired, ccache, Retain::None) };
                // Whoever is about to join it brings the first lease: it is not over yet.
                return locked.store(pag, record).is_ok();
            }
        };
        let before = record.leases.len();
        record.leases.retain(|lease| lease.process.is_alive());
        let gone = before - record.leases.len();
        if gone > 0 {
            report(&Event::Reaped { uid: pag.uid, pag: pag.id, count: gone });
        } else if before > 0 {
            return true;
        }
        let id = pag.id;
        let stays = || with_logins.iter().any(|other| *other != id) || is_lingering(user);
        settle(locked, pag, record, stays)
    });
}

/// Gives a PAG the record `record`, from which leases have gone, and what follows from it. True when the PAG goes on.
pub fn settle(user: &LockedUser<'_>, pag: &mut Pag, mut record: Record, stays: impl FnOnce() -> bool) -> bool {
    let (uid, id) = (pag.uid, pag.id);
    let discard = |pag: &Pag| match &pag.ring {
        Ok(ring) => {
            // In a ring that a member has emptied the tokens of OpenAFS would not be found.
            if let Some(s0) = pag.nested {
                let _ = keyring::link(s0, ring.serial);
            }
            afs::discard(ring, Instant::now() + INSIDE)
        }
        Err(_) => Ok(()),
    };
    let fate = policy::fate(&record, stays);
    // What is followed is another PAG's, and must not be discarded with what is this one's own. The helper links it
    // again where this one goes on.
    if fate != Fate::Keep
        && record.follows.is_some()
        && let Ok(ring) = &pag.ring
    {
        follow::take_away(ring, pag.nested, &mut record);
    }
    match fate {
        Fate::Keep => {
            let _ = user.store(pag, record);
            true
        }
        Fate::DropTokens => {
            let some = |ring| afs::tokens(ring, Instant::now() + INSIDE).is_ok_and(|tokens| !tokens.is_empty());
            if pag.ring.as_ref().is_ok_and(some) {
                if let Err(why) = discard(pag) {
                    report(&Event::EndFailed { uid, pag: id, why: why.to_string() });
                }
                report(&Event::TokensDropped { uid, pag: id });
            }
            record.tokens.clear();
            // Services would have the tokens back from it, and a new manager gets some when it starts. The helper takes it out
            // of the ccache, which is the user's: nobody waits for that under the lock.
            (record.ticket, record.renewable, record.authenticated) = (0, 0, 0);
            // Whoever has a keytab for it need not wait, and it was the logins' that were discarded.
            record.attempt = None;
            record.discarded.clear();
            let _ = user.store(pag, record);
            true
        }
        Fate::End { discard: wanted } => {
            if wanted && let Err(why) = discard(pag) {
                report(&Event::EndFailed { uid, pag: id, why: why.to_string() });
            }
            if let Err(why) = user.retire(pag) {
                report(&Event::EndFailed { uid, pag: id, why: why.to_string() });
            } else {
                let tokens = if wanted { "discarded" } else { "left to its processes" };
                report(&Event::Ended { uid, pag: id, tokens });
            }
            ccache::remove(uid, id);
            false
        }
    }
}

/// Ends a login's lease, and with the last one the PAG. A host that goes on is taken out of the ring: it must not run
/// later work as this user. Without root (the user manager's `(sd-pam)`) nothing is done; the helper sees to it.
///
/// # Errors
/// When the registry is out of reach: the lease ends with its process all the same.
pub fn leave(marker: &Marker) -> Result<()> {
    end(marker, true)
}

/// The same for a login that has opened no session, and of which no more will be heard. A process that was in the ring before
/// it stays there: a password was asked for, no more.
///
/// # Errors
/// As [`leave`].
pub fn give_up(marker: &Marker) -> Result<()> {
    end(marker, marker.moved)
}

/// Takes a process out of the ring of a session that stays open, where the process goes on as root: it has ended the handle
/// (JupyterHub), or has a session of another user open, too, so its next program may be that of any user. A process that has
/// become the user is the session, and stays.
///
/// # Errors
/// EDQUOT: then it is still in the ring.
pub fn step_out(marker: &Marker) -> Result<()> {
    let Some(ring) = marker.ring else { return Ok(()) };
    let [_, effective, _] = sys::ids().uid;
    let goes_on = effective == 0 && marker.process.is_this();
    if goes_on && (ring.is_current() || keyring::session_is_dead()) { ring::leave() } else { Ok(()) }
}

/// Ends a session that this process has opened with another handle: the newest of this user and PAM service. JupyterHub (by
/// pamela) and smbd start a handle for each call, and end it.
///
/// # Errors
/// When the registry is out of reach: the lease ends with its process all the same.
pub fn leave_by_another_handle(user: &Passwd, service: &str) -> Result<()> {
    let group = HandleGroup::read();
    let guard = match Guard::enter(group) {
        Err(Error::NotRoot) => return Ok(()),
        guard => guard?,
    };
    let Some(process) = Process::current() else { return Ok(()) };
    let locked = LockedUser::lock(&guard, user.uid, LOCK_WAIT)?;
    let service = Word::clean(service);
    let is_meant =
        |lease: &&Lease| lease.process == process && lease.role == LeaseKind::Login && lease.service == service;
    let newest = |pag: Pag| {
        let record = pag.record.as_ref().ok()?;
        let cookie = record.leases.iter().rev().find(is_meant)?.cookie;
        Some((record.made, cookie, pag))
    };
    let open = locked.pags()?.into_iter().filter_map(newest);
    let Some((_, cookie, pag)) = open.max_by_key(|(made, ..)| *made) else {
        log::debug!("this process has no session of uid {} open for {service}", user.uid);
        return Ok(());
    };
    let is_inside = pag.ring.as_ref().is_ok_and(Ring::is_current);
    end_session(&locked, pag, cookie);
    drop(locked);
    drop(guard);
    if is_inside {
        ring::leave()?;
    }
    nudge(user.uid);
    Ok(())
}

fn end(marker: &Marker, out: bool) -> Result<()> {
    let Some(ring) = marker.ring else { return Ok(()) };
    // A ring that a member has revoked leaves the host with a session keyring in which nothing works.
    let current = ring.is_current() || keyring::session_is_dead();
    // pam_keyinit makes the user's keyring; what another session of this host has left, when it closed, is the host's
    // own, and its ring, while it is open, is not this session's affair.
    let users = |d: keyring::Description<'_>| d.uid == marker.uid;
    let replaced = || keyring::session().and_then(|serial| keyring::describe(serial, users)).unwrap_or(false);
    let is_out_of_reach = marker.is_out_of_reach();
    if marker.opened && !is_out_of_reach && !current && Ring::current().is_none() && replaced() {
        report(&Event::Displaced { uid: marker.uid, ring: ring.serial });
    }
    let result = if is_out_of_reach {
        // The lease ends with the process, as the helper and the next login see.
        log::debug!("uid {} keeps its lease until this process ends, which has entered a chroot", marker.uid);
        Guard::enter(ring.group).map(drop)
    } else {
        end_lease(marker, &ring)
    };
    if matches!(result, Err(Error::NotRoot)) {
        return Ok(());
    }
    // Not a process that was forked off: the ring is its own affair.
    if out && current && marker.process.is_this() {
        ring::leave()?;
    }
    if !is_out_of_reach {
        nudge(marker.uid);
    }
    result
}

fn end_lease(marker: &Marker, ring: &Ring) -> Result<()> {
    let guard = Guard::enter(ring.group)?;
    let Some((id, place)) = marker.pag else { return Ok(()) };
    let user = LockedUser::lock(&guard, marker.uid, LOCK_WAIT)?;
    if let Some(pag) = user.look_up(place, id)? {
        end_session(&user, pag, marker.cookie);
    }
    Ok(())
}

/// Ends one session that the lease with this cookie stands for.
fn end_session(user: &LockedUser<'_>, mut pag: Pag, cookie: u64) {
    let Ok(mut record) = pag.record.clone() else { return };
    let (uid, id) = (pag.uid, pag.id);
    lease::release(&mut record.leases, cookie);
    record.leases.retain(|lease| lease.process.is_alive());
    let stays = || {
        let pags = user.pags().unwrap_or_default();
        let lingers = |user: Option<Passwd>| user.is_some_and(|user| is_lingering(&user));
        with_logins(&pags).iter().any(|other| *other != id) || sys::passwd(Who::Uid(uid)).is_ok_and(lingers)
    };
    settle(user, &mut pag, record, stays);
}

/// Brings a refreshed ticket into the PAG that it belongs to, and fresh tokens from it, without putting the caller into
/// the PAG: a screen unlock runs in a process outside the session. Without root, as a screen locker of the user's own
/// has it, the seeder runs if the caller is in a PAG.
///
/// # Errors
/// When the registry is out of reach.
pub fn refresh(request: &Request<'_>) -> Result<()> {
    if request.marker.as_ref().is_some_and(Marker::is_out_of_reach) {
        return Ok(());
    }
    Client::configure(request.settings);
    let user = request.user;
    let budget = Budget::new(request.settings.timeout, request.marker.map_or(Duration::ZERO, |m| m.spent));
    if request.settings.notokens || Client::present(request.settings).is_empty() {
        return Ok(());
    }
    let group = HandleGroup::read();
    let mut entering = Entering::new(request, budget, group);
    entering.look_for_ticket();
    if !entering.may_have_ticket && !request.settings.always_aklog {
        return Ok(());
    }
    let job = Job {
        settings: request.settings,
        user,
        // Asked for before the lock is held: NSS may be slow.
        identity: entering.identity(),
        ccache: entering.ccache_to_seed_from(None),
        environment: &request.environment,
        without: Without::default(),
    };
    let guard = match Guard::enter(group) {
        Ok(guard) => guard,
        Err(Error::NotRoot) => {
            if let Some(ring) = Ring::current().filter(|ring| ring.owner == user.uid) {
                run_seeder(&job, Some(&ring), entering.before.get(), &entering.budget);
            }
            return Ok(());
        }
        Err(other) => return Err(other),
    };
    let locked = LockedUser::lock(&guard, user.uid, LOCK_WAIT)?;
    let mut pags = locked.pags()?;
    tidy(&locked, &mut pags, user, entering.repaired());
    let Some((index, ring)) = entering.refreshes(&pags) else { return Ok(()) };
    let mut pag = pags.swap_remove(index);
    let Ok(mut record) = pag.record.clone() else { return Ok(()) };
    // No login's: what is brought there would go to the session that it follows.
    if record.follows.is_some() {
        return Ok(());
    }
    let tried = record.attempt;
    let (_, work) = entering.take_ticket(&mut record, pag.id, &ring, Found::Known);
    // Good tokens are worth renewing only with a ticket that they were not made from: sshd, for one, refreshes the
    // credentials of a login that has just got them.
    let news = entering.ticket_end(Some(&record)).unwrap_or(0);
    let stale = tried.is_none_or(|last| {
        news > last.ticket || (news == 0 && policy::worth_seeding(tried, crate::sys::now(), 0, true))
    });
    let wanted = stale || record.attempt != tried;
    if wanted {
        record.attempt = Some(Attempt { at: crate::sys::now(), ok: false, ticket: news });
        record.discarded.clear();
    }
    locked.store(&mut pag, record.clone())?;
    drop(locked);
    drop(guard);
    entering.do_ccache_work(work, pag.id, &mut record);
    if wanted {
        let job = Job { ccache: entering.ccache_to_seed_from(Some(&record)), ..job };
        let seeding = run_seeder(&job, Some(&ring), entering.before.get(), &entering.budget);
        let _ = note_seeding(group, user.uid, pag.id, &seeding, LOCK_WAIT);
    }
    nudge(user.uid);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_user_who_lingers_has_the_name_that_systemd_gives_it() {
        let table: [(&[u8], &[u8]); 6] = [
            (b"alice", b"alice"),
            (b"alice@example.test", b"alice@example.test"),
            (br"DOM\alice", br"DOM\\alice"),
            ("j\u{f6}rg".as_bytes(), br"j\303\266rg"),
            (b"o'neil \"x\"", br#"o\'neil \"x\""#),
            (b"\x07\x08\x0c\x0b\n\r\t\x01\x7f", br"\a\b\f\v\n\r\t\001\177"),
        ];
        for (name, expected) in table {
            assert_eq!(linger_file(name), expected, "{}", String::from_utf8_lossy(name));
        }
    }
}
