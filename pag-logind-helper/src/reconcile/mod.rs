//! Brings the PAGs of a user into the state that they should be in: leases that have ended go, what members cut is repaired, and
//! user managers have the tokens that they should have. After each change the helper does this for the user; now and then
//! it surveys all PAGs and finds those that need it.

mod clear_ccaches;
mod leaving;
mod repair;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::io;
use std::time::Instant;

use pag::ccache;
use pag::error::{Error, Result};
use pag::guard::Guard;
use pag::login;
use pag::store::lease::LeaseKind;
use pag::store::locked::LockedUser;
use pag::store::record::PagKind;
use pag::store::registry::{Pag, Registry};
use pag::sys::Process;
use pag::types::{PagId, Retain};
use zruntime::SharedRuntime;

use self::clear_ccaches::clear;
use self::leaving::Leaving;
use self::repair::{Repairs, report_lost};
use crate::managers::adopted::Adopted;
use crate::managers::following::Following;
use crate::names;
use crate::pags::processes::{Coverage, Processes};
use crate::pags::rings::{is_cut, keys_of};
use crate::pags::users::name_of;
use crate::pags::{LOCK_WAIT, Pags, tokens};

/// What it takes besides the PAGs themselves. It saves work, and says each thing once.
pub(crate) struct Reconciler {
    /// The processes that hold leases.
    pub(crate) processes: Processes,
    /// User managers that follow sessions.
    pub(crate) following: Following,
    /// User managers outside of their PAGs that have the tokens of those.
    adopted: Adopted,
    /// User managers that have lost their last login.
    leaving: Leaving,
    repairs: Repairs,
    /// Users with processes that hold leases and cannot be watched.
    unwatched: BTreeSet<u32>,
    /// Users with ended ccaches that could not be cleared away in time.
    uncleared: BTreeSet<u32>,
    /// The users that logind knows. None while logind cannot be asked.
    pub(crate) users: Option<BTreeSet<u32>>,
}

/// What came of it for one user.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reconciled {
    /// PAGs that lack tokens, which can be had again.
    pub(crate) lacking: Vec<PagId>,
    /// It is to be done once more: a login had the lock, or a process has ended meanwhile.
    pub(crate) again: bool,
    /// What logind says of this user decides which session the services follow: it is to be asked.
    pub(crate) ask_logind: bool,
    /// Leases that have ended stay until the user's name is known.
    pub(crate) ask_for_name: bool,
}

impl Reconciler {
    /// Knows nothing yet.
    ///
    /// # Errors
    /// If processes cannot be watched.
    pub(crate) fn new(runtime: &SharedRuntime) -> io::Result<Self> {
        Ok(Reconciler {
            processes: Processes::new(runtime)?,
            following: Following::new(),
            adopted: Adopted::default(),
            leaving: Leaving::default(),
            repairs: Repairs::default(),
            unwatched: BTreeSet::new(),
            uncleared: BTreeSet::new(),
            users: None,
        })
    }

    /// Looks at every PAG without a lock and remembers those that are in order. Gives the users of the others.
    ///
    /// # Errors
    /// If keyrings cannot be read at all.
    pub(crate) fn survey(&mut self, pags: &mut Pags) -> Result<BTreeSet<u32>> {
        let guard = Guard::enter(pags.group())?;
        let registry = Registry::find(&guard)?;
        let found = registry.as_ref().map(|registry| registry.pags(&guard)).transpose()?.unwrap_or_default();
        let there: BTreeSet<PagId> = found.iter().map(|pag| pag.id).collect();
        self.repairs.surveyed(&found);
        let missing = pags.all().filter(|known| !there.contains(&known.id)).map(|known| known.uid);
        let left_behind = |uid: &u32| !ccache::begun(*uid).is_empty() || !ccache::ended(*uid).is_empty();
        let mut uids: BTreeSet<u32> = missing.chain(ccache::users().into_iter().filter(left_behind)).collect();
        uids.extend(self.unwatched.iter().copied());
        let mut of_uid: BTreeMap<u32, Vec<Pag>> = BTreeMap::new();
        for pag in found {
            of_uid.entry(pag.uid).or_default().push(pag);
        }
        for (uid, found) in of_uid {
            if found.iter().any(|pag| self.needs_work(pag, pags))
                || self.following.is_out_of_step(uid, &found)
                || self.adopted.is_out_of_step(&found)
            {
                uids.insert(uid);
            }
            if !uids.contains(&uid) && self.remember(uid, &found, pags) {
                uids.insert(uid);
            }
        }
        // Held until now: without it no ring shows what is in it, and all of them would look emptied.
        drop(guard);
        Ok(uids)
    }

    /// Whether there is something to be done about a PAG.
    fn needs_work(&self, pag: &Pag, pags: &Pags) -> bool {
        let (Ok(ring), Ok(record)) = (&pag.ring, &pag.record) else { return self.repairs.is_news(pag.id) };
        // The kernel tells the end of a watched process: only the others need a look.
        let gone = |process: Process| !self.processes.covers(process) && !process.is_alive();
        let before = pags.get(pag.id).map(|known| &*known.keys);
        record.leases.is_empty()
            || record.leases.iter().any(|lease| gone(lease.process))
            || is_cut(before, &keys_of(ring), pag, record)
    }

    /// Reconciles the PAGs of `uid`, under the user's lock.
    ///
    /// # Errors
    /// If keyrings cannot be read at all, or there is no directory for the lock.
    pub(crate) fn reconcile(&mut self, uid: u32, pags: &mut Pags) -> Result<Reconciled> {
        if !concerns(uid, pags)? {
            return Ok(Reconciled::default());
        }
        let guard = Guard::enter(pags.group())?;
        let Some(user) = lock(&guard, uid)? else { return Ok(Reconciled { again: true, ..Reconciled::default() }) };
        let name = name_of(uid);
        let mut result = Reconciled::default();
        let mut found = user.pags()?;
        report_lost(uid, &found, pags);
        result.again = found.iter().any(|pag| login::out_of_sight(pag).is_some());
        self.repairs.set_aside(&user, &mut found, pags, self.users.as_ref());
        if found.iter().any(is_over_or_broken) {
            result.ask_for_name = !names::is_settled(uid) && found.iter().any(may_linger);
            if !result.ask_for_name {
                login::reap(&user, &mut found, &name, PagKind::User);
            }
        }
        self.end_leaving(&user, &mut found, pags, &name);
        for pag in &mut found {
            if self.repairs.repair_ring(&user, pag, pags, &name) {
                result.lacking.push(pag.id);
            }
        }
        result.ask_logind = self.following.bring_into_step(&user, &mut found);
        self.adopted.bring_into_step(&user, &mut found);
        result.again |= self.remember(uid, &found, pags);
        if clear_ended(uid) {
            self.uncleared.remove(&uid);
        } else {
            self.uncleared.insert(uid);
        }
        Ok(result)
    }

    /// Discards the tokens of managers that have had their time to stop. One that lingers, or has a keytab, keeps them.
    fn end_leaving(&mut self, user: &LockedUser<'_>, found: &mut [Pag], pags: &Pags, name: &CStr) {
        for pag in found {
            let Ok(record) = pag.record.clone() else { continue };
            if !self.leaving.take(pag.id) || pags.get(pag.id).is_some_and(|known| pags.has_keytab(known)) {
                continue;
            }
            if !login::is_lingering(name) {
                login::apply_fate(user, pag, record, || true);
            }
        }
    }

    /// Remembers the user's PAGs as they are now, and watches the processes that hold them. True if one of those has
    /// ended meanwhile.
    fn remember(&mut self, uid: u32, found: &[Pag], pags: &mut Pags) -> bool {
        for (before, now) in pags.remember(uid, found) {
            let had_ticket = before.is_some_and(|before| before.record.ticket > 0);
            if had_ticket && now.record.ticket == 0 && now.has_own_ccache() {
                self.following.forget_ticket(uid, now.id);
            }
            self.leaving.changed(now.id, &now.record, Instant::now());
        }
        self.repairs.remembered(found);
        let is_there = |id: &PagId| pags.get(*id).is_some();
        self.following.forget_all_but(is_there);
        self.leaving.forget_all_but(is_there);
        self.adopted.forget_all_but(is_there);
        let records = found.iter().filter(|pag| pag.ring.is_ok()).filter_map(|pag| pag.record.as_ref().ok());
        let processes: Vec<Process> =
            records.flat_map(|record| record.leases.iter().map(|lease| lease.process)).collect();
        let coverage = self.processes.set(uid, &processes);
        if coverage == Coverage::Partial {
            self.unwatched.insert(uid);
        } else {
            self.unwatched.remove(&uid);
        }
        coverage == Coverage::Stale
    }

    /// Whether all PAGs are to be surveyed now and then: a member may empty a ring that has tokens, or a process may end that
    /// cannot be watched, and the helper is not told. Or something is left to do.
    pub(crate) fn must_survey(&self, pags: &Pags) -> bool {
        let now = pag::sys::now();
        !self.unwatched.is_empty()
            || !self.uncleared.is_empty()
            || self.following.must_look()
            || self.adopted.must_look()
            || pags.all().any(|known| tokens::are_named(&known.record, now))
    }

    /// The users that have a login, or a manager, in a PAG that is not one job's alone, and whether a manager is among the
    /// processes that hold it.
    pub(crate) fn managers(&self, pags: &Pags) -> BTreeMap<u32, bool> {
        let mut managers = BTreeMap::new();
        for known in pags.all().filter(|known| known.record.kind != PagKind::Own) {
            let is_placed = known.record.leases.iter().any(|lease| lease.role == LeaseKind::Manager);
            if known.record.has_login() || is_placed {
                // The leases of a record that was written anew are not known, and a newer release may have put the manager
                // into a PAG of its own.
                let may_be_elsewhere = known.record.unsure || self.repairs.has_newer_record(known.uid);
                *managers.entry(known.uid).or_default() |= is_placed || may_be_elsewhere;
            }
        }
        managers
    }

    /// The users of managers that have had their time to stop, and go on.
    pub(crate) fn due(&mut self, pags: &Pags, now: Instant) -> Vec<u32> {
        self.leaving.due(now).into_iter().filter_map(|id| pags.user_of(id)).collect()
    }

    /// When [`Reconciler::due`] has some next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.leaving.next()
    }
}

/// Whether there is anything of this user: a nudge with any number in it should cost little.
fn concerns(uid: u32, pags: &Pags) -> Result<bool> {
    if pags.all().any(|known| known.uid == uid) || !ccache::begun(uid).is_empty() || !ccache::ended(uid).is_empty() {
        return Ok(true);
    }
    let guard = Guard::enter(pags.group())?;
    let Some(registry) = Registry::find(&guard)? else { return Ok(false) };
    Ok(registry.pags(&guard).is_ok_and(|found| found.iter().any(|pag| pag.uid == uid)))
}

/// Takes the lock of `uid`. None if a login holds it.
fn lock(guard: &Guard, uid: u32) -> Result<Option<LockedUser<'_>>> {
    match LockedUser::lock(guard, uid, LOCK_WAIT) {
        Err(Error::Lock { source, .. }) if source.kind() == io::ErrorKind::TimedOut => Ok(None),
        locked => locked.map(Some),
    }
}

/// Whether it matters for the PAG's tokens that its user lingers.
fn may_linger(pag: &Pag) -> bool {
    pag.ring.is_ok() && pag.record.as_ref().is_ok_and(|record| record.has_manager() && record.retain == Retain::None)
}

/// Whether leases of a PAG have ended and its record does not say so, or the PAG has no lease, or is broken.
fn is_over_or_broken(pag: &Pag) -> bool {
    let (Ok(_), Ok(record)) = (&pag.ring, &pag.record) else { return true };
    record.leases.is_empty() || record.leases.iter().any(|lease| !lease.process.is_alive())
}

/// Removes the ccaches of PAGs that have ended. Under the user's lock: a login makes the ccache before the PAG. False if
/// there was not enough time.
fn clear_ended(uid: u32) -> bool {
    ccache::begun(uid).into_iter().for_each(|id| ccache::remove(uid, id));
    // The first directory that takes too long is enough of what a user has filled.
    ccache::ended(uid).iter().all(|filled| {
        let done = clear(filled);
        ccache::remove_few(uid, filled);
        done
    })
}
