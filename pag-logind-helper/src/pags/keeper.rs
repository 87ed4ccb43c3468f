//! The PAGs that the helper looks after: what it remembers of them, and how it brings registry, rings and leases back
//! into line. The memory is for healing only; whatever the registry says is right, and a restart loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pag::afs::s0::{self, Equipped};
use pag::afs::{self};
use pag::ccache::CcacheName;
use pag::ccache::format::Summary;
use pag::ccache::{self, Contents, Unread};
use pag::config::account::Account;
use pag::config::keytab::{Keytab, Whose};
use pag::error::{Error, Result};
use pag::guard::{Guard, HandleGroup};
use pag::keyring::{self, Serial};
use pag::login;
use pag::policy::{self, Fate};
use pag::report::{Event, report};
use pag::seed;
use pag::store::lease::LeaseKind;
use pag::store::lock::Lock;
use pag::store::locked::LockedUser;
use pag::store::record::{Attempt, PagKind, Record};
use pag::store::registry::{Pag, Registry};
use pag::store::ring::Ring;
use pag::sys::Process;
use pag::sys::{self, Identity, Passwd, Who};
use pag::types::Cell;
use pag::types::Client;
use pag::types::Follow;
use pag::types::PagId;
use pag::types::Principal;

use crate::errands::{self, Work};
use crate::event::HelperEvent;
use crate::managers::adopted::Adopted;
use crate::managers::following::{Following, record_of};
use crate::order::{Outcome, Trouble};
use crate::pags::clear::clear;
use crate::pags::leaving::Leaving;
use crate::pags::processes::{Coverage, Watch};
use crate::pags::repair;
use crate::tickets::other_ccaches::{Due, NOGROUP};

/// Longest wait for a uid's lock: a login that holds it needs about a millisecond, and everybody else waits for us.
const LOCK_WAIT: Duration = Duration::from_millis(20);
/// Longest time for a look into a ring.
const INSIDE: Duration = Duration::from_secs(1);

/// The first line of a report about a ccache that was read.
const READ: &str = "read";

/// All PAGs of the host, as they were seen last.
pub(crate) struct Keeper {
    group: HandleGroup,
    known: BTreeMap<PagId, Rc<Known>>,
    /// Users of whose PAGs more is known, or other things, than when that was last asked for.
    changed: BTreeSet<u32>,
    /// PAGs that were in a registry that is gone.
    orphans: BTreeSet<PagId>,
    /// PAGs that cannot be looked after, and of which that was said.
    said: BTreeSet<PagId>,
    /// PAGs whose records a newer release has written, and their users: nobody here knows who is in them.
    foreign: BTreeMap<PagId, u32>,
    /// Users of whose processes the kernel will not tell the end.
    blind: BTreeSet<u32>,
    /// PAGs whose seeders have ended, which a login's lock did not let us note.
    unnoted: BTreeSet<PagId>,
    /// Users whose directories take longer to be cleared away than there was time for.
    uncleared: BTreeSet<u32>,
    /// Whom managers follow.
    pub(crate) following: Following,
    /// Managers that no login is with any more.
    pub(crate) leaving: Leaving,
    /// Managers outside of their PAGs that have their tokens.
    adopted: Adopted,
    /// The keytabs that the configuration names.
    keytabs: Vec<(Whose, Keytab)>,
    /// Names of users, looked up when there are keytabs.
    names: BTreeMap<u32, String>,
}

/// A PAG as it was seen last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: PagId,
    pub(crate) uid: u32,
    pub(crate) ring: Ring,
    pub(crate) record: Record,
    /// The keys in its ring.
    pub(crate) keys: Box<[Serial]>,
}

/// What has come of bringing one user's PAGs into line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// These PAGs wait for tokens.
    pub(crate) waiting: Vec<PagId>,
    /// It is to be done once more: a login had the lock, or a process has ended meanwhile.
    pub(crate) again: bool,
    /// Everybody's PAGs are to be looked at.
    pub(crate) all: bool,
    /// What logind says of this user decides whom his services follow: it is to be asked.
    pub(crate) ask: bool,
}

impl Keeper {
    /// Knows nobody yet.
    pub(crate) fn new() -> Self {
        Keeper {
            group: HandleGroup::read(),
            known: BTreeMap::new(),
            changed: BTreeSet::new(),
            orphans: BTreeSet::new(),
            said: BTreeSet::new(),
            foreign: BTreeMap::new(),
            blind: BTreeSet::new(),
            unnoted: BTreeSet::new(),
            uncleared: BTreeSet::new(),
            following: Following::new(),
            leaving: Leaving::default(),
            adopted: Adopted::default(),
            keytabs: Vec::new(),
            names: BTreeMap::new(),
        }
    }

    /// One line about how much there is to look after.
    pub(crate) fn status(&self) -> String {
        format!("looking after {} PAGs with {} leases", self.pags(), self.leases())
    }

    /// The users of whose PAGs anything has changed since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.changed)
    }

    /// The PAGs of `uid`.
    pub(crate) fn pags_of(&self, uid: u32) -> Vec<Rc<Known>> {
        self.known.values().filter(|known| known.uid == uid).cloned().collect()
    }

    /// The end of the ticket in a PAG's ccache, as it is known.
    pub(crate) fn ticket_of(&self, id: PagId) -> Option<u64> {
        self.known.get(&id).map(|known| known.record.ticket)
    }

    /// Whose this PAG is; none when it has ended.
    pub(crate) fn user_of(&self, id: PagId) -> Option<u32> {
        self.known.get(&id).map(|known| known.uid)
    }

    /// The handle group.
    pub(crate) fn group(&self) -> HandleGroup {
        self.group
    }

    /// The users whose managers have had their time to stop, and go on.
    pub(crate) fn left(&mut self, now: Instant) -> Vec<u32> {
        let due = self.leaving.due(now);
        due.into_iter().filter_map(|id| self.user_of(id)).collect()
    }

    /// How many PAGs there are.
    pub(crate) fn pags(&self) -> usize {
        self.known.len()
    }

    /// How many leases they have.
    pub(crate) fn leases(&self) -> usize {
        self.known.values().map(|known| known.record.leases.len()).sum()
    }

    /// Whether something can happen of which nobody would tell: a member empties a ring that has tokens, or a process
    /// ends that cannot be watched. Or whether something is left to do.
    pub(crate) fn must_look(&self) -> bool {
        let now = pag::sys::now();
        !self.blind.is_empty()
            || !self.uncleared.is_empty()
            || self.following.must_look()
            || self.adopted.must_look()
            || self.known.values().any(|known| repair::holds_tokens(&known.record, now))
    }

    /// The users who have a login, or a manager, in a PAG that is not one job's alone, and whether a manager is among
    /// those who hold one.
    pub(crate) fn managers(&self) -> BTreeMap<u32, bool> {
        let mut managers = BTreeMap::new();
        // Of a record that was written anew nobody knows which leases it had.
        for known in self.known.values().filter(|known| known.record.kind != PagKind::Own) {
            let placed = known.record.leases.iter().any(|lease| lease.role == LeaseKind::Manager);
            if known.record.has_login() || placed {
                // A newer release may have put it into one of its own.
                let elsewhere = known.record.unsure || self.foreign.values().any(|uid| *uid == known.uid);
                *managers.entry(known.uid).or_default() |= placed || elsewhere;
            }
        }
        managers
    }

    /// Looks at every PAG without a lock and remembers those that are in order. Names the users of the others.
    ///
    /// # Errors
    /// When keyrings cannot be read at all.
    pub(crate) fn survey(&mut self, watch: &mut Watch) -> Result<BTreeSet<u32>> {
        let guard = Guard::enter(self.group)?;
        let registry = Registry::find(&guard)?;
        if registry.is_none() {
            self.lose_registry();
        }
        let pags = registry.as_ref().map(|registry| registry.pags(&guard)).transpose()?.unwrap_or_default();
        let there: BTreeSet<PagId> = pags.iter().map(|pag| pag.id).collect();
        let is_foreign = |pag: &&Pag| login::of_newer_release(pag).is_some();
        self.foreign = pags.iter().filter(is_foreign).map(|pag| (pag.id, pag.uid)).collect();
        self.said.retain(|id| there.contains(id));
        let mut of_uid: BTreeMap<u32, Vec<Pag>> = BTreeMap::new();
        for pag in pags {
            of_uid.entry(pag.uid).or_default().push(pag);
        }
        let missing = self.known.iter().filter(|(id, _)| !there.contains(id)).map(|(_, known)| known.uid);
        let left_behind =
            |uid: &u32| ccache::of_user(*uid).iter().any(|id| !there.contains(id)) || !ccache::ended(*uid).is_empty();
        let mut uids: BTreeSet<u32> = missing.chain(ccache::users().into_iter().filter(left_behind)).collect();
        uids.extend(self.blind.iter().copied());
        for (uid, pags) in of_uid {
            if pags.iter().any(|pag| self.is_out_of_line(pag, watch))
                || self.following.is_out_of_step(uid, &pags)
                || self.adopted.is_out_of_step(&pags)
            {
                uids.insert(uid);
            }
            if !uids.contains(&uid) && self.remember(uid, &pags, watch) {
                uids.insert(uid);
            }
        }
        // Until now: without it no ring shows what is in it, and all of them would look emptied.
        drop(guard);
        Ok(uids)
    }

    /// Whether there is something to be done about a PAG.
    fn is_out_of_line(&self, pag: &Pag, watch: &Watch) -> bool {
        let (Ok(ring), Ok(record)) = (&pag.ring, &pag.record) else { return !self.said.contains(&pag.id) };
        // The end of a watched process is told: only the others need a look.
        let gone = |process: Process| !watch.covers(process) && !process.is_alive();
        let before = self.known.get(&pag.id).map(|known| &*known.keys);
        record.leases.is_empty()
            || record.leases.iter().any(|lease| gone(lease.process))
            || self.was_cut(before, &keys_of(ring), pag, record)
    }

    /// Whether a member has cut something out of the ring, or OpenAFS has come to the host since.
    fn was_cut(&self, before: Option<&[Serial]>, keys: &[Serial], pag: &Pag, record: &Record) -> bool {
        repair::was_cleared(before, keys, record, pag::sys::now())
            || record.follows.is_none() && s0::lacks(keys, pag.nested)
    }

    /// All that is remembered has lost its place.
    fn lose_registry(&mut self) {
        let lost: Vec<PagId> = self.known.keys().copied().filter(|id| !self.orphans.contains(id)).collect();
        if !lost.is_empty() {
            report(&HelperEvent::RegistryLost { why: "it is not in root's user keyring any more".to_owned() });
            self.orphans.extend(lost);
        }
    }

    /// Brings the PAGs of `uid` into line, under his lock. `users` are those whom logind knows, where that is known.
    ///
    /// # Errors
    /// When keyrings cannot be read at all, or the lock's directory is not to be had.
    pub(crate) fn settle(&mut self, uid: u32, watch: &mut Watch, users: Option<&BTreeSet<u32>>) -> Result<Settled> {
        if !self.concerns(uid)? {
            return Ok(Settled::default());
        }
        if !self.note_seedings(uid) {
            return Ok(Settled { again: true, ..Settled::default() });
        }
        let guard = Guard::enter(self.group)?;
        let user = match LockedUser::lock(&guard, uid, LOCK_WAIT) {
            Err(Error::Lock { source, .. }) if source.kind() == io::ErrorKind::TimedOut => {
                return Ok(Settled { again: true, ..Settled::default() });
            }
            other => other?,
        };
        let is_lost = user.registry()?.is_none();
        let all = is_lost && !self.known.is_empty();
        if is_lost {
            self.lose_registry();
        }
        let mut pags = user.pags()?;
        self.anchor_again(&user, &mut pags);
        let mut aside = self.set_aside(&user, &mut pags, users);
        // The user is looked up only then: a name service may be slow, and everything waits for this loop.
        if pags.iter().any(is_over_or_broken) {
            login::tidy(&user, &mut pags, &passwd(uid), PagKind::User);
        }
        self.end_leaving(&user, &mut pags);
        let mut waiting = Vec::new();
        for pag in &mut pags {
            if self.restore(&user, pag) {
                waiting.push(pag.id);
            }
        }
        let ask = self.following.bring_into_step(&user, &mut pags);
        self.adopted.bring_into_step(&user, &mut pags);
        let again = self.remember(uid, &pags, watch);
        aside.extend(pags.iter().map(|pag| pag.id));
        if sweep(uid, &aside) {
            self.uncleared.insert(uid);
        } else {
            self.uncleared.remove(&uid);
        }
        Ok(Settled { waiting, again, all, ask })
    }

    /// Whether there is anything of this user: a nudge with any number in it should cost nothing.
    fn concerns(&self, uid: u32) -> Result<bool> {
        if self.known.values().any(|known| known.uid == uid)
            || !ccache::of_user(uid).is_empty()
            || !ccache::ended(uid).is_empty()
        {
            return Ok(true);
        }
        let guard = Guard::enter(self.group)?;
        let registry = Registry::find(&guard)?;
        Ok(registry
            .is_some_and(|registry| registry.pags(&guard).is_ok_and(|pags| pags.iter().any(|pag| pag.uid == uid))))
    }

    /// Discards the tokens of managers that have had their time to stop. Who lingers has tokens for a reason of his own, if he
    /// has any; so has who has a keytab.
    fn end_leaving(&mut self, user: &LockedUser<'_>, pags: &mut [Pag]) {
        for pag in pags {
            let Ok(record) = pag.record.clone() else { continue };
            if !self.leaving.take(pag.id) || self.known.get(&pag.id).is_some_and(|known| self.has_keytab(known)) {
                continue;
            }
            if !login::is_lingering(&passwd(pag.uid)) {
                login::settle(user, pag, record, || true);
            }
        }
    }

    /// Puts back what was cut out of the registry: a PAG that was not ended, whose ring is whole, and of whose leases
    /// at least one lives.
    fn anchor_again(&mut self, user: &LockedUser<'_>, pags: &mut Vec<Pag>) {
        let uid = user.uid();
        let ccaches = ccache::of_user(uid);
        let there: BTreeSet<PagId> = pags.iter().map(|pag| pag.id).collect();
        let missing = self.known.iter().filter(|(id, known)| known.uid == uid && !there.contains(id));
        for (id, known) in missing {
            if !repair::was_cut(self.orphans.contains(id), ccaches.contains(id)) || !known.is_alive() {
                continue;
            }
            let mut record = known.record.clone();
            record.leases.retain(|lease| lease.process.is_alive());
            let anchored = match Ring::look(known.ring.serial, uid, self.group) {
                Ok(ring) if ring == known.ring => user.anchor(*id, &ring, record).map_err(|error| error.to_string()),
                Ok(_) => Err("its ring is gone".to_owned()),
                Err(why) => Err(why),
            };
            match anchored {
                Ok(mut pag) => {
                    s0::hold_again(user.guard(), &mut pag);
                    let what = "it had been taken out of the registry and is anchored again".to_owned();
                    report(&Event::Healed { uid, pag: *id, what });
                    pags.push(pag);
                }
                Err(why) => report(&HelperEvent::HealFailed { uid, pag: *id, why }),
            }
        }
    }

    /// Takes the PAGs out of `pags` whose records cannot be read, and repairs those that we remember. Names the rest.
    fn set_aside(&mut self, user: &LockedUser<'_>, pags: &mut Vec<Pag>, users: Option<&BTreeSet<u32>>) -> Vec<PagId> {
        let mut aside = Vec::new();
        pags.retain_mut(|pag| {
            let (uid, id) = (pag.uid, pag.id);
            if let Some(event) = login::of_newer_release(pag) {
                self.foreign.insert(id, uid);
                if self.said.insert(id) {
                    report(&event);
                }
                aside.push(id);
                return false;
            }
            let why = match &pag.record {
                Ok(_) => return true,
                // What is wrong with its ring is worse.
                Err(_) if pag.ring.is_err() => return true,
                Err(why) => why.to_string(),
            };
            if let Some(known) = self.known.get(&id) {
                let stored = user.store(pag, known.record.clone());
                let what = format!("{why}; it is written again as it was");
                match stored {
                    Ok(()) => report(&Event::Healed { uid, pag: id, what }),
                    Err(error) => report(&HelperEvent::HealFailed { uid, pag: id, why: error.to_string() }),
                }
                return pag.record.is_ok();
            }
            if users.is_some_and(|users| !users.contains(&uid)) {
                // Whose leases these were is not known, but nobody of this user is there any more.
                match user.retire(pag) {
                    Ok(()) => report(&Event::Ended { uid, pag: id, tokens: "left to its processes" }),
                    Err(error) => report(&Event::EndFailed { uid, pag: id, why: error.to_string() }),
                }
                return false;
            }
            if self.said.insert(id) {
                report(&HelperEvent::HealFailed { uid, pag: id, why });
            }
            aside.push(id);
            false
        });
        aside
    }

    /// Restores what a member has cut out of the ring. True when tokens are missed that could be had again.
    fn restore(&mut self, user: &LockedUser<'_>, pag: &mut Pag) -> bool {
        let (Ok(ring), Ok(record)) = (pag.ring.clone(), pag.record.clone()) else { return false };
        let (uid, id) = (pag.uid, pag.id);
        let now = pag::sys::now();
        let keys = keys_of(&ring);
        let before = self.known.get(&id).map(|known| &*known.keys);
        if !self.was_cut(before, &keys, pag, &record) {
            return false;
        }
        match s0::equip(user.guard(), pag) {
            Ok(Equipped::AsBefore) => {}
            Ok(Equipped::Relinked) => {
                let what = "its tokens of OpenAFS, which a member had cut, are there again".to_owned();
                report(&Event::Healed { uid, pag: id, what });
            }
            Ok(Equipped::Anew) => {
                let what = "it has a new PAG of OpenAFS".to_owned();
                report(&Event::Healed { uid, pag: id, what });
            }
            // Said once: it is tried again with every look.
            Err(error) if self.said.insert(id) => report(&Event::NotEquipped { uid, pag: id, why: error.to_string() }),
            Err(_) => {}
        }
        match ring.link_user_keyring(user.guard(), uid) {
            Ok(()) if before.is_some() => {
                let what = "a member had emptied its ring; the user keyring is linked again".to_owned();
                report(&Event::Healed { uid, pag: id, what });
            }
            Ok(()) => {}
            Err(error) => report(&Event::UserKeyringNotLinked { uid, why: error.to_string() }),
        }
        if policy::fate(&record, || login::is_lingering(&passwd(uid))) != Fate::Keep
            || !repair::has_ticket(&record, id, now)
            || !lacks_tokens(&ring, &record, now)
        {
            return false;
        }
        // Kept where a restart of ours finds it.
        if let Err(error) = user.store(pag, Record { reseed: true, ..record }) {
            report(&HelperEvent::HealFailed { uid, pag: id, why: error.to_string() });
        }
        true
    }

    /// Remembers the user's PAGs as they are now, and watches the processes that hold them. True when one of those has
    /// ended meanwhile.
    fn remember(&mut self, uid: u32, pags: &[Pag], watch: &mut Watch) -> bool {
        let there: BTreeSet<PagId> = pags.iter().map(|pag| pag.id).collect();
        let before = self.known.len();
        self.known.retain(|id, known| known.uid != uid || there.contains(id));
        let mut changed = self.known.len() != before;
        let mut processes = Vec::new();
        for pag in pags {
            let (Ok(ring), Ok(record)) = (&pag.ring, &pag.record) else { continue };
            processes.extend(record.leases.iter().map(|lease| lease.process));
            let known = Known { id: pag.id, uid, ring: *ring, record: record.clone(), keys: keys_of(ring).into() };
            let before = self.known.get(&pag.id);
            if before.is_none_or(|before| **before != known) {
                if record.ticket == 0 && known.has_ccache() && before.is_some_and(|before| before.record.ticket > 0) {
                    self.following.forget_ticket(uid, pag.id);
                }
                self.leaving.changed(pag.id, record, Instant::now());
                self.known.insert(pag.id, Rc::new(known));
                changed = true;
            }
            self.said.remove(&pag.id);
        }
        if changed {
            self.changed.insert(uid);
        }
        let known = &self.known;
        self.orphans.retain(|id| known.contains_key(id) && !there.contains(id));
        self.following.forget_all_but(|id| known.contains_key(id));
        self.leaving.forget_all_but(|id| known.contains_key(id));
        self.adopted.forget_all_but(|id| known.contains_key(id));
        let coverage = watch.set(uid, &processes);
        if coverage == Coverage::Partial {
            self.blind.insert(uid);
        } else {
            self.blind.remove(&uid);
        }
        coverage == Coverage::Stale
    }

    /// Makes this PAG the one that the next seeding job of its user goes to. False when it is no more, or misses no
    /// tokens any more, nobody has `asked` for new ones, and this is no `renewal`; or it has begun to follow another
    /// meanwhile, whose tokens a renewal is not to touch.
    ///
    /// # Errors
    /// When the record cannot be written just now.
    pub(crate) fn prepare_seeding(&self, id: PagId, asked: bool, renewal: bool) -> Result<bool> {
        let Some(known) = self.known.get(&id) else { return Ok(false) };
        let uid = known.uid;
        if !asked && !renewal && !lacks_tokens(&known.ring, &known.record, pag::sys::now()) {
            return Ok(false);
        }
        let guard = Guard::enter(self.group)?;
        let user = LockedUser::lock(&guard, uid, LOCK_WAIT)?;
        let now = pag::sys::now();
        let mut is_there = false;
        for mut pag in user.pags()? {
            let Ok(record) = pag.record.clone() else { continue };
            let reseed = pag.id == id && (asked || !renewal || record.follows.is_none());
            is_there |= reseed;
            // Tells logins that somebody sees to it.
            let ticket = record.ticket;
            let attempt = if reseed { Some(Attempt { at: now, ok: false, ticket }) } else { record.attempt };
            // Who asks wants all that there is.
            let discarded = if reseed && asked { Vec::new() } else { record.discarded.clone() };
            if reseed || record.reseed {
                user.store(&mut pag, Record { reseed, attempt, discarded, ..record })?;
            }
        }
        Ok(is_there)
    }

    /// Notes that tokens are about to be discarded, for one cell or for all: what the record names and is missed would be
    /// brought back, and renewal would bring what it does not.
    ///
    /// # Errors
    /// When there is no such PAG, a login holds the lock, or the record cannot be written.
    pub(crate) fn forget_tokens(&mut self, id: PagId, cell: Option<&Cell>) -> Outcome {
        let Some(uid) = self.user_of(id) else { return Err(Trouble::Gone) };
        let guard = Guard::enter(self.group)?;
        let user = LockedUser::lock(&guard, uid, LOCK_WAIT)?;
        let Some(mut pag) = user.pag(id)? else { return Err(Trouble::Gone) };
        let (Ok(ring), Ok(record)) = (pag.ring.clone(), pag.record.clone()) else { return Err(Trouble::Gone) };
        let mut record = Record { reseed: record.reseed && cell.is_some(), ..record };
        record.discard(cell, pag::sys::now());
        user.store(&mut pag, record.clone())?;
        self.known.insert(id, Rc::new(Known { id, uid, ring, record, keys: keys_of(&ring).into() }));
        self.changed.insert(uid);
        Ok(())
    }

    /// Discards what somebody has discarded while a job ran that was not told of it, and may have brought it back.
    pub(crate) fn discard_again(&self, id: PagId) {
        let Some(known) = self.known.get(&id) else { return };
        let begun = known.record.attempt.map_or(0, |last| last.at);
        for late in known.record.discarded.iter().filter(|one| one.at >= begun) {
            let deadline = Instant::now() + INSIDE;
            let discarded = match &late.cell {
                Some(cell) => afs::discard_cell(&known.ring, cell, deadline),
                None => afs::discard(&known.ring, deadline),
            };
            if let Err(why) = discarded {
                report(&Event::Complaint { what: why.to_string() });
            }
        }
    }

    /// Has the services of a PAG's user follow it, from the next [`Keeper::settle`] on, or no longer for that reason.
    ///
    /// # Errors
    /// As [`Keeper::forget_tokens`], and when this PAG cannot be followed.
    pub(crate) fn choose(&self, id: PagId, on: bool) -> Outcome {
        let Some(uid) = self.user_of(id) else { return Err(Trouble::Gone) };
        let guard = Guard::enter(self.group)?;
        let user = LockedUser::lock(&guard, uid, LOCK_WAIT)?;
        let mut pags = user.pags()?;
        let record_of = |pag: &Pag| pag.record.clone().ok();
        let Some(record) = pags.iter().find(|pag| pag.id == id).and_then(record_of) else { return Err(Trouble::Gone) };
        let is_follower =
            |pag: &Pag| pag.record.as_ref().is_ok_and(|record| policy::is_follower(record, pag::sys::now()));
        let trouble = match record {
            _ if !on => None,
            _ if self.following.setting() == Follow::None => {
                Some("the administrator wants services to follow nobody (follow = none in pag.conf)")
            }
            record if !policy::can_be_followed(&record) => Some(
                "only the PAG that a login has to itself (scope = session), or one of another identity, can be followed",
            ),
            _ if !pags.iter().any(is_follower) => {
                Some("no user manager is there to follow it, or the manager shares its PAG with a login")
            }
            _ => None,
        };
        if let Some(trouble) = trouble {
            return Err(Trouble::Failed(trouble.to_owned()));
        }
        // The others first: whoever is killed in between leaves at most one.
        pags.sort_by_key(|pag| pag.id == id);
        for mut pag in pags.into_iter().filter(|pag| on || pag.id == id) {
            let Some(record) = record_of(&pag) else { continue };
            let chosen = on && pag.id == id;
            if record.chosen != chosen {
                user.store(&mut pag, Record { chosen, ..record })?;
            }
        }
        Ok(())
    }

    /// Whether the services of `uid` follow this PAG.
    pub(crate) fn is_followed(&self, uid: u32, id: PagId) -> bool {
        self.known.values().any(|known| known.uid == uid && known.record.follows == Some(id))
    }

    /// Looks which tokens are in the ring, and notes those that serve, and those that a member has discarded. True when they
    /// are others than the record says. What a job of ours is to bring back was not `had`.
    pub(crate) fn note_tokens(&mut self, id: PagId, had: bool) -> bool {
        let Some(known) = self.known.get(&id) else { return false };
        let Ok(tokens) = afs::tokens(&known.ring, Instant::now() + INSIDE) else { return false };
        let now = pag::sys::now();
        let held = seed::held(&tokens, &known.record.tokens, now);
        let discarded = if had { repair::discarded(&known.record, &tokens, now, Client::is_there) } else { Vec::new() };
        if discarded.is_empty() && (held.is_empty() || held == known.record.tokens) {
            return false;
        }
        let (ring, before) = (known.ring, known.keys.clone());
        let blank = tokens.is_empty();
        self.change(id, |keeper, pag, record| {
            // What was cut by whoever emptied the ring is healed instead, and then looked for again.
            if !discarded.is_empty() && keeper.was_cut(Some(&before), &keys_of(&ring), pag, record) {
                return false;
            }
            for cell in &discarded {
                record.discard(Some(cell), now);
            }
            if blank && !discarded.is_empty() {
                record.discard(None, now);
            } else {
                record.hold(held);
            }
            true
        })
        .is_some()
    }

    /// Whether tokens of this PAG were discarded and are not to be brought back.
    pub(crate) fn has_discarded(&self, id: PagId) -> bool {
        self.known.get(&id).is_some_and(|known| !known.record.discarded.is_empty())
    }

    /// Changes a PAG's record, in the registry and in our memory, under the lock of its user, if `change` has anything to
    /// change. Gives the record as it is then; none where a login holds the lock, or there is no such PAG.
    fn change(&mut self, id: PagId, change: impl FnOnce(&Self, &Pag, &mut Record) -> bool) -> Option<&Record> {
        let known = self.known.get(&id)?;
        let guard = Guard::enter(self.group).ok()?;
        let user = LockedUser::lock(&guard, known.uid, LOCK_WAIT).ok()?;
        let mut pag = user.pag(id).ok()??;
        let mut record = pag.record.clone().ok()?;
        if !change(self, &pag, &mut record) {
            return None;
        }
        user.store(&mut pag, record.clone()).ok()?;
        let Known { uid, ring, ref keys, .. } = **known;
        let known = Rc::new(Known { id, uid, ring, record, keys: keys.clone() });
        self.changed.insert(uid);
        self.known.insert(id, known);
        self.known.get(&id).map(|known| &known.record)
    }

    /// Takes in which keytabs there are.
    pub(crate) fn set_keytabs(&mut self, keytabs: Vec<(Whose, Keytab)>) {
        self.keytabs = keytabs;
        self.names.clear();
    }

    /// The PAGs that have a ccache of their own, and their users. That of a follower is a copy.
    pub(crate) fn ccaches(&self) -> impl Iterator<Item = (PagId, u32)> {
        self.known.values().filter(|known| known.has_ccache()).map(|known| (known.id, known.uid))
    }

    /// The tickets outside of the PAGs' own ccaches: files of logins, keyrings, KCM. Cron's are its own affair.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = (PagId, u32, CcacheName)> {
        let default = ccache::DefaultName::read();
        let open = self.known.values().filter(|known| known.has_ccache() && known.record.kind != PagKind::Own);
        open.flat_map(move |known| {
            let default = default.of(known.uid);
            let places = known.record.leases.iter().filter_map(move |lease| lease.tickets(default.as_ref()));
            places.map(|place| (known.id, known.uid, place))
        })
    }

    /// All PAGs.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Known> {
        self.known.values().map(|known| &**known)
    }

    /// Looks up the names of users, where there are keytabs.
    pub(crate) fn look_names_up(&mut self) {
        if !self.keytabs.is_empty() {
            for known in self.known.values() {
                if let std::collections::btree_map::Entry::Vacant(vacant) = self.names.entry(known.uid) {
                    let found = sys::passwd(Who::Uid(known.uid)).ok().flatten();
                    found.map(|user| vacant.insert(user.name.to_string_lossy().into_owned()));
                }
            }
        }
    }

    /// Whether the administrator has given this PAG a keytab.
    pub(crate) fn has_keytab(&self, known: &Known) -> bool {
        let name = self.names.get(&known.uid);
        name.is_some_and(|name| policy::keytab(&self.keytabs, name, &known.record.leases).is_some())
    }

    /// The errand that looks at the ticket in a PAG's own ccache, as its user. It reports what [`Keeper::note_ticket`] takes.
    pub(crate) fn look_at_ticket(&self, id: PagId) -> Option<(u32, Work)> {
        let known = self.known.get(&id).filter(|known| known.has_ccache())?;
        let (uid, has_identity) = (known.uid, known.record.principal.is_some());
        let place = CcacheName::Dir(ccache::directory(uid, id).display().to_string());
        let work = move || {
            let Ok(contents) = ccache::read(&place, &reader(uid), Instant::now() + errands::TIME) else {
                return String::new();
            };
            // Where the record has an identity, that decides. Else the child asks the name services: they may be slow.
            let owned = !has_identity && Account::configured(&passwd(uid).name).owns(&contents.summary.principal);
            Ticket::of(contents.summary, owned).to_string()
        };
        Some((uid, Box::new(work)))
    }

    /// Notes the ticket that a look has found in a PAG's own ccache. True when it is another than the record says, and tokens
    /// are to be had from it: somebody has renewed or replaced it. A job of `ours` may have done that; a user who proves anew
    /// who he is, and does not merely renew, wants the tokens back that were discarded.
    pub(crate) fn note_ticket(&mut self, id: PagId, report: &str, ours: bool) -> bool {
        let Some(Ticket { expires: ticket, renewable, authenticated, owned, principal }) = Ticket::parse(report) else {
            return false;
        };
        let Some(known) = self.known.get(&id).filter(|known| known.has_ccache()) else { return false };
        // Tokens of another identity have no place in this PAG.
        match &known.record.principal {
            Some(known) if *known != principal => return false,
            // A PAG without an identity takes the natural principal's ticket and no other, as in [`Keeper::feed`].
            None if !owned => {
                let uid = known.uid;
                log::debug!(
                    "the ticket of {principal} in PAG {id} of uid {uid} is not the user's own: it is not taken"
                );
                return false;
            }
            _ => {}
        }
        if (known.record.ticket, known.record.renewable) == (ticket, renewable) {
            return false;
        }
        let now = pag::sys::now();
        let noted = self.change(id, |_, _, record| {
            // A login has noted the ticket that it brought, since this record was read.
            if (record.ticket, record.renewable) == (ticket, renewable) {
                return false;
            }
            if !ours && authenticated != record.authenticated {
                record.discarded.clear();
            }
            (record.ticket, record.renewable, record.authenticated) = (ticket, renewable, authenticated);
            record.principal.get_or_insert(principal);
            true
        });
        // A login that has brought the ticket, or a job, is at it.
        noted.is_some_and(|record| {
            let shorter = record.tokens.iter().any(|token| token.expires.saturating_add(2) < ticket);
            let wanted = record.tokens.is_empty() && record.discarded.is_empty() && record.has_login();
            (shorter || wanted && ticket > now) && policy::worth_seeding(record.attempt, now, ticket, true)
        })
    }

    /// The errand that puts the ticket of a login, which is in a ccache of the login's own, into the ccaches of the PAGs, where it is
    /// of the PAG's identity and a later one than what is there. A PAG without an identity takes the natural principal's and no
    /// other: it lends and borrows no rights.
    pub(crate) fn feed(&self, due: &Due) -> Work {
        let of = |id: &PagId| self.known.get(id).filter(|known| known.has_ccache());
        let pags = due.pags.iter().filter_map(of).map(|known| {
            let Known { id, record: Record { principal, ticket, .. }, .. } = &**known;
            (*id, principal.clone(), *ticket)
        });
        let (pags, place, uid, group) = (pags.collect::<Vec<_>>(), due.place.clone(), due.uid, self.group);
        Box::new(move || {
            // Looked up here, and not by the helper's loop: name services may be slow.
            let user = passwd(uid);
            let account = Account::configured(&user.name);
            let deadline = Instant::now() + errands::TIME;
            let all = match ccache::read_all(&place, &reader(uid), deadline) {
                Ok(all) => all,
                Err(Unread::NotNow(_)) => return String::new(),
                Err(_) => return READ.to_owned(),
            };
            let identity = Identity { uid, gid: user.gid, groups: vec![user.gid] };
            let mut report = READ.to_owned();
            for (id, principal, ticket) in pags {
                let is_its_own = |contents: &&Contents| match (&principal, &contents.summary.principal) {
                    (Some(its), principal) => its == principal,
                    (None, principal) => account.owns(principal),
                };
                let latest = |fits: &dyn Fn(&&Contents) -> bool| {
                    let later = |contents: &&Contents| contents.summary.tgt_expires > Some(ticket.max(pag::sys::now()));
                    all.iter().filter(fits).filter(later).max_by_key(|contents| contents.summary.tgt_expires)
                };
                let Some(contents) = latest(&is_its_own) else {
                    if let Some(other) = latest(&|_| true).filter(|_| principal.is_none()) {
                        // A name may hold what it likes, but no newline and no colon (passwd(5)).
                        report += &format!("\n{id} apart {}:{}", account.name(), other.summary.principal);
                    }
                    continue;
                };
                let expires = contents.summary.tgt_expires.unwrap_or(0);
                // A login may have given the PAG another identity meanwhile. One that comes now waits for the lock before it
                // writes its own ticket.
                let Ok(_lock) = Lock::of_tickets(uid, deadline.saturating_duration_since(Instant::now())) else {
                    return String::new();
                };
                let has_place = |record: Record| record.principal.is_none_or(|its| its == contents.summary.principal);
                if !record_of(id, group).is_some_and(has_place) {
                    continue;
                }
                match ccache::feed(&identity, id, contents, deadline) {
                    Ok(true) => report += &format!("\n{id} fed {expires}"),
                    Ok(false) => {}
                    Err(why) => report += &format!("\n{id} refused {why}"),
                }
            }
            report
        })
    }

    /// Says what has come of [`Keeper::feed`]. False where the ccache could not be read in time.
    pub(crate) fn fed(uid: u32, said: &str) -> bool {
        let mut lines = said.lines();
        let read = lines.next() == Some(READ);
        for line in lines {
            let mut words = line.splitn(3, ' ');
            let pag = words.next().and_then(PagId::parse);
            match (pag, words.next(), words.next()) {
                (Some(pag), Some("fed"), Some(end)) => {
                    report(&Event::CcacheFed { uid, pag, expires: end.parse().unwrap_or(0) });
                }
                (Some(pag), Some("apart"), Some(whose)) => {
                    let (name, principal) = whose.split_once(':').unwrap_or(("", whose));
                    report(&Event::Apart { uid, name: name.to_owned(), pag, principal: principal.to_owned() });
                }
                (_, _, why) => report(&Event::CcacheRefused { uid, why: why.unwrap_or_default().to_owned() }),
            }
        }
        read
    }

    /// Says that a seeder has brought this PAG nothing. One that it did not need is not tried again.
    pub(crate) fn not_seeded(&self, id: PagId, why: &str, needed: bool) {
        let Some(known) = self.known.get(&id) else { return };
        let tokens = afs::tokens(&known.ring, Instant::now() + INSIDE).unwrap_or_default();
        let (client, cell) = repair::missed(&known.record, &tokens);
        let why = format!("{why}; it will {}be tried again", if needed { "" } else { "not " });
        report(&Event::SeedFailed { uid: known.uid, ring: Some(known.ring.serial), client, cell, why });
    }

    /// Notes that a seeder has brought tokens into this PAG, which it needed, or not yet.
    pub(crate) fn seeded(&mut self, id: PagId, needed: bool) {
        let Some(known) = self.known.get(&id) else { return };
        if needed && !lacks_tokens(&known.ring, &known.record, pag::sys::now()) {
            let what = "its tokens are back".to_owned();
            report(&Event::Healed { uid: known.uid, pag: id, what });
        }
        self.unnoted.insert(id);
        self.note_seedings(known.uid);
    }

    /// Notes which tokens seeders have brought into the PAGs of `uid`. False when a login holds the lock: this is then to
    /// be done later, since nobody waits for one user's lock here.
    fn note_seedings(&mut self, uid: u32) -> bool {
        let (known, group) = (&self.known, self.group);
        let mut done = true;
        self.unnoted.retain(|id| {
            let Some(known) = known.get(id) else { return false };
            if known.uid != uid {
                return true;
            }
            let tokens = afs::tokens(&known.ring, Instant::now() + INSIDE).ok();
            let seeding = login::Seeding { ok: true, tokens, aliases: Vec::new() };
            let noted = login::note_seeding(group, uid, *id, &seeding, LOCK_WAIT);
            let later = matches!(noted, Err(Error::Lock { source, .. }) if source.kind() == io::ErrorKind::TimedOut);
            done &= !later;
            later
        });
        done
    }
}

impl Known {
    /// Whether it has a ccache of its own, with a ticket of its own.
    fn has_ccache(&self) -> bool {
        self.record.follows.is_none() && self.record.ccache == ccache::name(self.uid, self.id)
    }

    fn is_alive(&self) -> bool {
        self.record.leases.iter().any(|lease| lease.process.is_alive())
    }
}

/// The word by which an errand reports that a ticket is of the user's natural principal.
const OWNED: &str = "owned";

/// What is to be known of a ticket, as an errand reports it.
struct Ticket {
    expires: u64,
    renewable: u64,
    authenticated: u64,
    /// Whether it was found to be of the user's natural principal; not asked where the PAG had an identity.
    owned: bool,
    principal: Principal,
}

impl Ticket {
    fn of(summary: Summary, owned: bool) -> Self {
        Ticket {
            owned,
            expires: summary.tgt_expires.unwrap_or(0),
            renewable: summary.tgt_renew_until.unwrap_or(0),
            authenticated: summary.tgt_authenticated.unwrap_or(0),
            principal: summary.principal,
        }
    }

    fn parse(report: &str) -> Option<Self> {
        let mut words = report.splitn(5, ' ');
        let mut number = || words.next()?.parse().ok();
        let (expires, renewable, authenticated) = (number()?, number()?, number()?);
        let owned = words.next()? == OWNED;
        Some(Ticket { expires, renewable, authenticated, owned, principal: Principal::parse(words.next()?).ok()? })
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owned = if self.owned { OWNED } else { "-" };
        write!(f, "{} {} {} {owned} {}", self.expires, self.renewable, self.authenticated, self.principal)
    }
}

/// Whether leases of a PAG have ended without its record saying so, or it has none, or its ring is no good.
fn is_over_or_broken(pag: &Pag) -> bool {
    let (Ok(_), Ok(record)) = (&pag.ring, &pag.record) else { return true };
    record.leases.is_empty() || record.leases.iter().any(|lease| !lease.process.is_alive())
}

/// The keys in a ring, seen from outside, under a guard: the handle group may READ it. None of a ring that has just broken.
pub(crate) fn keys_of(ring: &Ring) -> Vec<Serial> {
    keyring::members(ring.serial).unwrap_or_default()
}

/// Looks for the record's tokens inside the ring. A ring that cannot be looked into lacks nothing that we could bring.
fn lacks_tokens(ring: &Ring, record: &Record, now: u64) -> bool {
    afs::tokens(ring, Instant::now() + INSIDE).is_ok_and(|tokens| repair::lacks_tokens(record, &tokens, now))
}

/// The user, or a nameless one where he is gone from the password database: he lingers no more.
pub(crate) fn passwd(uid: u32) -> Passwd {
    let nobody = || Passwd { name: c"".to_owned(), uid, gid: uid, home: c"/".to_owned() };
    sys::passwd(Who::Uid(uid)).ok().flatten().unwrap_or_else(nobody)
}

/// The user as a child becomes him that reads a file of his own: that needs no group, and to ask for one takes NSS.
fn reader(uid: u32) -> Identity {
    Identity { uid, gid: NOGROUP, groups: Vec::new() }
}

/// Removes the ccaches of PAGs that are no more. Under the uid's lock: a login makes the ccache before the PAG. True when
/// there was not enough time.
fn sweep(uid: u32, living: &[PagId]) -> bool {
    let ended = ccache::of_user(uid).into_iter().filter(|id| !living.contains(id));
    ended.for_each(|id| ccache::remove(uid, id));
    // The first one for which there is not enough time is enough of what a user has filled.
    ccache::ended(uid).iter().any(|filled| {
        let done = clear(filled);
        ccache::remove_few(uid, filled);
        !done
    })
}
