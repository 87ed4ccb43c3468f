//! The PAGs that callers may see. A caller asks as a uid, and gets no answer about a PAG that this uid may not see.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use pag::store::ring::Ring;
use pag::sys::Process;
use pag::types::PagId;

use super::properties::Properties;
use super::token_list::Token;
use crate::pags::known::Known;

/// A token list that is younger than this is good enough for an answer.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// The tokens in rings that were read.
pub(crate) type TokenLists = BTreeMap<PagId, Vec<Token>>;

/// All PAGs.
#[derive(Default)]
pub(crate) struct VisiblePags(BTreeMap<PagId, Entry>);

/// One PAG.
struct Entry {
    known: Rc<Known>,
    tokens: Vec<Token>,
    /// When the tokens in its ring were read.
    read: Option<Instant>,
}

/// The difference between the PAGs of a user before and after.
#[derive(Default)]
pub(super) struct Difference {
    /// New ones, and those with other properties.
    pub(super) changed: Vec<PagId>,
    pub(super) ended: Vec<PagId>,
}

impl VisiblePags {
    /// Takes over that these are the PAGs of `uid` now.
    pub(super) fn replace(&mut self, uid: u32, pags: Vec<Rc<Known>>) -> Difference {
        let there: BTreeSet<PagId> = pags.iter().map(|known| known.id).collect();
        let stays = |id: &PagId, entry: &Entry| entry.known.uid != uid || there.contains(id);
        let mut difference = Difference::default();
        self.0.retain(|id, entry| {
            let stays = stays(id, entry);
            difference.ended.extend((!stays).then_some(*id));
            stays
        });
        for known in pags {
            let id = known.id;
            match self.0.get_mut(&id) {
                Some(entry) if Rc::ptr_eq(&entry.known, &known) => continue,
                Some(entry) => {
                    // Its tokens may have changed, too.
                    entry.read = None;
                    entry.known = known;
                }
                None => {
                    self.0.insert(id, Entry { known, tokens: Vec::new(), read: None });
                }
            }
            difference.changed.push(id);
        }
        difference
    }

    /// The PAGs that `uid` may see.
    pub(crate) fn seen_by(&self, uid: u32) -> Vec<PagId> {
        self.of(|of| may_see(uid, of)).collect()
    }

    /// The PAGs of the users for which `is_one` is true.
    pub(super) fn of(&self, is_one: impl Fn(u32) -> bool) -> impl Iterator<Item = PagId> {
        self.0.values().filter(move |entry| is_one(entry.known.uid)).map(|entry| entry.known.id)
    }

    /// All of them, for callers that may see all.
    pub(crate) fn all(&self) -> Vec<PagId> {
        self.0.keys().copied().collect()
    }

    /// Whether there is this PAG, and `uid` may see it.
    pub(crate) fn is_seen_by(&self, uid: u32, id: PagId) -> bool {
        self.known(id).is_some_and(|known| may_see(uid, known.uid))
    }

    /// What the helper knows of a PAG.
    pub(crate) fn known(&self, id: PagId) -> Option<&Known> {
        self.0.get(&id).map(|entry| &*entry.known)
    }

    /// Its properties.
    pub(crate) fn properties(&self, id: PagId) -> Option<Properties> {
        self.0.get(&id).map(|entry| Properties::new(&entry.known, &entry.tokens, |lease| lease.process.is_alive()))
    }

    /// Its properties, as if the processes of all leases ran: to look at each costs much.
    pub(super) fn presumed_properties(&self, id: PagId) -> Option<Properties> {
        self.0.get(&id).map(|entry| Properties::new(&entry.known, &entry.tokens, |_| true))
    }

    /// The PAGs in which this process holds leases, each with the uid of its user.
    pub(crate) fn held_by(&self, process: Process) -> Vec<(PagId, u32)> {
        let holds = |entry: &&Entry| entry.known.record.leases.iter().any(|lease| lease.process == process);
        self.0.values().filter(holds).map(|entry| (entry.known.id, entry.known.uid)).collect()
    }

    /// The rings, of these PAGs, with token lists that are too old to be told.
    pub(crate) fn stale(&self, pags: &[PagId], now: Instant) -> Vec<(PagId, Ring)> {
        let entries = pags.iter().filter_map(|id| self.0.get(id));
        let stale = entries.filter(|entry| entry.read.is_none_or(|read| now.duration_since(read) >= FRESH));
        stale.map(|entry| (entry.known.id, entry.known.ring)).collect()
    }

    /// Takes over what was read in these rings, and gives the PAGs that have other tokens now. Without `found`, they could not
    /// be read, and the last lists stay.
    pub(super) fn tokens_read(
        &mut self,
        rings: &[(PagId, Ring)],
        mut found: Option<TokenLists>,
        now: Instant,
    ) -> Vec<PagId> {
        let mut changed = Vec::new();
        for (id, ring) in rings {
            let Some(entry) = self.0.get_mut(id).filter(|entry| entry.known.ring == *ring) else { continue };
            entry.read = Some(now);
            let Some(found) = &mut found else { continue };
            // A ring that can't be entered has no tokens that a process could use.
            let tokens = found.remove(id).unwrap_or_default();
            if entry.tokens != tokens {
                entry.tokens = tokens;
                changed.push(*id);
            }
        }
        changed
    }

    /// Takes over that the tokens of this PAG have just been changed. Nothing is known of them until they are read.
    pub(super) fn tokens_changed(&mut self, id: PagId) {
        if let Some(entry) = self.0.get_mut(&id) {
            entry.read = None;
        }
    }
}

/// Root sees all PAGs.
const ROOT: u32 = 0;

/// Whether `uid` may see the PAGs of `owner`. No other code here decides this.
pub(super) fn may_see(uid: u32, owner: u32) -> bool {
    uid == ROOT || uid == owner
}
