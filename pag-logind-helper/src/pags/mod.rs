//! The PAGs of this host, as the helper saw them last, and changes of their records.
//!
//! The registry is what counts. What is remembered here serves repairs and answers, and a restart of the helper loses
//! nothing.

pub(crate) mod keytabs;
pub(crate) mod known;
pub(crate) mod processes;
pub(crate) mod rings;
pub(crate) mod tokens;
pub(crate) mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use pag::error::Result;
use pag::guard::{Guard, HandleGroup};
use pag::store::locked::LockedUser;
use pag::store::record::Record;
use pag::store::registry::Pag;
use pag::types::PagId;

use self::keytabs::Keytabs;
use self::known::Known;

/// Longest wait for a user's lock: a login holds it for about a millisecond, and all other users wait for the helper.
pub(crate) const LOCK_WAIT: Duration = Duration::from_millis(20);

/// All PAGs.
pub(crate) struct Pags {
    group: HandleGroup,
    known: BTreeMap<PagId, Rc<Known>>,
    /// Users with PAGs that have changed since [`Pags::take_changed`].
    changed: BTreeSet<u32>,
    /// The keytabs that the configuration names.
    pub(crate) keytabs: Keytabs,
}

/// What came of a change of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edit {
    Stored,
    /// There was nothing to change.
    Unchanged,
    /// The PAG has ended.
    Gone,
}

impl Pags {
    /// Knows none yet.
    pub(crate) fn new() -> Self {
        Pags {
            group: HandleGroup::read(),
            known: BTreeMap::new(),
            changed: BTreeSet::new(),
            keytabs: Keytabs::default(),
        }
    }

    /// The handle group.
    pub(crate) fn group(&self) -> HandleGroup {
        self.group
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Known> {
        self.known.values().map(|known| &**known)
    }

    /// This one. None if it has ended.
    pub(crate) fn get(&self, id: PagId) -> Option<&Known> {
        self.known.get(&id).map(|known| &**known)
    }

    /// The user of this one. None if it has ended.
    pub(crate) fn user_of(&self, id: PagId) -> Option<u32> {
        self.get(id).map(|known| known.uid)
    }

    /// The PAGs of `uid`.
    pub(crate) fn of_user(&self, uid: u32) -> Vec<Rc<Known>> {
        self.known.values().filter(|known| known.uid == uid).cloned().collect()
    }

    /// The users with names that matter: by these keytabs are found, and whether a manager without a login lingers.
    pub(crate) fn in_want_of_names(&self) -> BTreeSet<u32> {
        let matters = |known: &&Known| known.record.has_manager() && !known.record.has_login();
        self.all().filter(|known| self.keytabs.is_any() || matters(known)).map(|known| known.uid).collect()
    }

    /// The users with PAGs that have changed since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.changed)
    }

    /// Whether the administrator has given this PAG a keytab.
    pub(crate) fn has_keytab(&self, known: &Known) -> bool {
        self.keytabs.has_one_for(known)
    }

    /// Takes over that `pags` are the PAGs of `uid` now. Gives those that have changed, each with what was known before.
    pub(crate) fn remember(&mut self, uid: u32, pags: &[Pag]) -> Vec<(Option<Rc<Known>>, Rc<Known>)> {
        let there: BTreeSet<PagId> = pags.iter().map(|pag| pag.id).collect();
        let before = self.known.len();
        self.known.retain(|id, known| known.uid != uid || there.contains(id));
        let has_ended = self.known.len() != before;
        let mut changes = Vec::new();
        for now in pags.iter().filter_map(Known::of) {
            if self.get(now.id) != Some(&now) {
                let now = Rc::new(now);
                changes.push((self.known.insert(now.id, Rc::clone(&now)), now));
            }
        }
        if has_ended || !changes.is_empty() {
            self.changed.insert(uid);
        }
        changes
    }

    /// Changes the record of a PAG under its user's lock, if `change` has anything to change.
    ///
    /// # Errors
    /// `Lock` if a login holds the lock; if keyrings cannot be read, or the record cannot be written.
    pub(crate) fn edit(&mut self, id: PagId, change: impl FnOnce(&Pag, &mut Record) -> bool) -> Result<Edit> {
        let Some(Known { uid, ring, keys, .. }) = self.get(id).cloned() else { return Ok(Edit::Gone) };
        let guard = Guard::enter(self.group)?;
        let user = LockedUser::lock(&guard, uid, LOCK_WAIT)?;
        let Some(mut pag) = user.pag(id)? else { return Ok(Edit::Gone) };
        let Ok(mut record) = pag.record.clone() else { return Ok(Edit::Gone) };
        if !change(&pag, &mut record) {
            return Ok(Edit::Unchanged);
        }
        user.store(&mut pag, record.clone())?;
        self.known.insert(id, Rc::new(Known { id, uid, ring, record, keys }));
        self.changed.insert(uid);
        Ok(Edit::Stored)
    }
}
