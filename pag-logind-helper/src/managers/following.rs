//! User managers that follow a session (`scope = session`), and whether their rings have its tokens: see
//! `pag::mirror::follow`. What is remembered here only saves work: the records say which PAG follows which.

use std::collections::{BTreeMap, BTreeSet};

use pag::ccache;
use pag::error::Result;
use pag::keyring::Serial;
use pag::mirror::follow;
use pag::policy;
use pag::report::{Event, report};
use pag::store::locked::LockedUser;
use pag::store::record::Record;
use pag::store::registry::Pag;
use pag::types::PagId;

use crate::managers::leaders::Leaders;
use crate::messages::HelperEvent;
use crate::pags::rings::{self, keys_of};
use crate::tickets::copy::{COPIED, TicketCopy};

/// The followers of this host.
pub(crate) struct Following {
    /// Which PAG each of them should follow.
    pub(crate) leaders: Leaders,
    /// What the rings of followers had when they were last brought into step.
    steps: BTreeMap<PagId, Step>,
    /// Followers that are out of step for a reason that was reported.
    reported: BTreeSet<PagId>,
    /// Followers that could not be given their ticket.
    without_ticket: BTreeSet<PagId>,
    /// Tickets that are to be copied, by a child and not under the user's lock.
    pub(crate) copies: Vec<TicketCopy>,
}

/// What a follower's ring had when it was last brought into step.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    leader: PagId,
    /// The keys in both rings. If they change, two children read the tokens in them.
    theirs: Vec<Serial>,
    ours: Vec<Serial>,
    /// When the followed ticket was written.
    ticket: Option<(i64, i64, u64)>,
}

impl Following {
    /// Knows no follower yet.
    pub(crate) fn new() -> Self {
        Following {
            leaders: Leaders::new(),
            steps: BTreeMap::new(),
            reported: BTreeSet::new(),
            without_ticket: BTreeSet::new(),
            copies: Vec::new(),
        }
    }

    /// Whether rings must be surveyed now and then: the helper is not told when a token in a ring is replaced.
    pub(crate) fn must_look(&self) -> bool {
        !self.steps.is_empty() || !self.reported.is_empty()
    }

    /// Whether something is to be done about a follower among a user's PAGs.
    pub(crate) fn is_out_of_step(&self, uid: u32, pags: &[Pag]) -> bool {
        pags.iter().any(|pag| {
            let Ok(record) = &pag.record else { return false };
            let leader = self.leaders.choose(uid, pags, record);
            if leader != record.follows {
                return true;
            }
            let leader = leader.and_then(|id| pags.iter().find(|other| other.id == id));
            leader.is_some_and(|leader| self.steps.get(&pag.id) != Some(&step(pag, leader)))
        })
    }

    /// Gives the followers among a user's PAGs the tokens and the ticket of the session that they should follow. True if
    /// that depends on what logind says of the user. Under the user's lock.
    pub(crate) fn bring_into_step(&mut self, user: &LockedUser<'_>, pags: &mut [Pag]) -> bool {
        let uid = user.uid();
        let ids: Vec<PagId> = pags.iter().map(|pag| pag.id).collect();
        let mut has_follower = false;
        for id in ids {
            let Some(mut pag) = pags.iter().find(|pag| pag.id == id).cloned() else { continue };
            let Ok(record) = pag.record.clone() else { continue };
            has_follower |= policy::is_follower(&record, pag::sys::now());
            let leader = self.leaders.choose(uid, pags, &record);
            let leader = leader.and_then(|id| pags.iter().find(|other| other.id == id)).cloned();
            let done = match &leader {
                Some(leader) => self.follow(user, &mut pag, leader),
                None => self.end_following(user, &mut pag),
            };
            match done {
                Ok(()) if self.without_ticket.contains(&id) => {}
                Ok(()) => {
                    self.reported.remove(&id);
                }
                Err(why) => self.failed(uid, id, why.to_string()),
            }
            if let Some(place) = pags.iter_mut().find(|other| other.id == id) {
                *place = pag;
            }
        }
        if !has_follower {
            self.leaders.forget(uid);
        }
        has_follower
    }

    /// Reports that a follower is out of step: once.
    fn failed(&mut self, uid: u32, id: PagId, why: String) {
        self.steps.remove(&id);
        if self.reported.insert(id) {
            report(&HelperEvent::FollowFailed { uid, pag: id, why });
        }
    }

    /// The ticket of a PAG has ended with its last login, and is to be taken out of its ccache, too.
    pub(crate) fn forget_ticket(&mut self, uid: u32, pag: PagId) {
        self.copies.push(TicketCopy { uid, pag, leader: None });
    }

    /// What has come of [`TicketCopy::work`]: nothing where its child could not report.
    pub(crate) fn copied(&mut self, uid: u32, pag: PagId, report: &str) {
        match report {
            COPIED => {
                self.without_ticket.remove(&pag);
                self.reported.remove(&pag);
            }
            why => {
                self.without_ticket.insert(pag);
                let why = if why.is_empty() { "its ccache is out of reach" } else { why };
                self.failed(uid, pag, why.to_owned());
            }
        }
    }

    /// PAGs that have ended do not follow.
    pub(crate) fn forget_all_but(&mut self, is_there: impl Fn(&PagId) -> bool) {
        self.steps.retain(|id, _| is_there(id));
        self.reported.retain(&is_there);
        self.without_ticket.retain(&is_there);
    }

    fn follow(&mut self, user: &LockedUser<'_>, pag: &mut Pag, leader: &Pag) -> Result<()> {
        let uid = user.uid();
        let before = pag.record.as_ref().ok().and_then(|record| record.follows);
        if before == Some(leader.id) && self.steps.get(&pag.id) == Some(&step(pag, leader)) {
            return Ok(());
        }
        if before.is_none() {
            forget_own(user, pag)?;
        }
        // Read before the ring is changed, so that what comes meanwhile is seen the next time.
        let seen = step(pag, leader);
        follow::mirror(user, pag, leader)?;
        if before != Some(leader.id) {
            let session = leader.record.as_ref().ok().and_then(|record| self.leaders.session_of(uid, record));
            report(&Event::Follows { uid: pag.uid, pag: pag.id, followed: leader.id, session });
        }
        let last = self.steps.get(&pag.id).filter(|last| last.leader == leader.id);
        if last.is_none_or(|last| last.ticket != seen.ticket) {
            let own = ccache::name(leader.uid, leader.id);
            let has_own = leader.record.as_ref().is_ok_and(|record| record.ccache == own);
            self.copies.push(TicketCopy { uid, pag: pag.id, leader: Some((leader.id, has_own)) });
        }
        let ours = pag.ring.as_ref().map(keys_of).unwrap_or_default();
        self.steps.insert(pag.id, Step { ours, ..seen });
        Ok(())
    }

    fn end_following(&mut self, user: &LockedUser<'_>, pag: &mut Pag) -> Result<()> {
        self.steps.remove(&pag.id);
        let (Ok(ring), Ok(mut record)) = (pag.ring.clone(), pag.record.clone()) else { return Ok(()) };
        if record.follows.is_none() {
            return Ok(());
        }
        // A login that has just come has put its own ticket there.
        let own = record.has_login();
        follow::end_following(&ring, pag.afs_keyring, &mut record);
        user.store(pag, record)?;
        report(&Event::FollowsNobody { uid: pag.uid, pag: pag.id });
        self.without_ticket.remove(&pag.id);
        if !own {
            self.copies.push(TicketCopy { uid: pag.uid, pag: pag.id, leader: None });
        }
        Ok(())
    }
}

/// What a follower of `leader` and the leader have now.
fn step(pag: &Pag, leader: &Pag) -> Step {
    let keys = |pag: &Pag| pag.ring.as_ref().map(keys_of).unwrap_or_default();
    Step { leader: leader.id, theirs: keys(leader), ours: keys(pag), ticket: ccache::stamp(leader.uid, leader.id) }
}

/// Takes away what a login has left in a PAG that begins to follow: it belongs to another identity.
fn forget_own(user: &LockedUser<'_>, pag: &mut Pag) -> Result<()> {
    let (Ok(ring), Ok(record)) = (pag.ring.clone(), pag.record.clone()) else { return Ok(()) };
    if record.principal.is_none() && record.tokens.is_empty() {
        return Ok(());
    }
    rings::discard(&ring, None)?;
    let blank = Record {
        principal: None,
        ticket: 0,
        renewable: 0,
        authenticated: 0,
        tokens: Vec::new(),
        discarded: Vec::new(),
        last_seeding: None,
        reseed: false,
        ..record
    };
    user.store(pag, blank)
}
