//! Copies the ticket of a followed PAG into the ccache that the follower's services know.

use std::time::Instant;

use pag::ccache::{self, CcacheName};
use pag::guard::HandleGroup;
use pag::store::lock::Lock;
use pag::store::record::Record;
use pag::sys::Identity;
use pag::types::PagId;

use super::errand::{Errand, record_of};
use crate::errands::{self, Work};
use crate::pags::users::passwd;

/// The report of a ticket that was copied, or was not to be copied any more.
pub(crate) const COPIED: &str = "copied";

/// A ticket that is to be copied into a follower's ccache, or taken out of it.
#[derive(Debug)]
pub(crate) struct TicketCopy {
    pub(crate) uid: u32,
    /// The follower.
    pub(crate) pag: PagId,
    /// The PAG that it follows, and whether that has a ccache of its own. None: the follower's ccache is to be emptied.
    pub(crate) leader: Option<(PagId, bool)>,
}

impl TicketCopy {
    /// What the errand is for.
    pub(crate) fn errand(&self) -> Errand {
        Errand::Copy { pag: self.pag, leader: self.leader.map(|(id, _)| id) }
    }

    /// What a child does. It reports [`COPIED`], or why it could not.
    pub(crate) fn work(self, group: HandleGroup) -> Work {
        Box::new(move || {
            // Looked up by the child, and not by the helper's loop: name services may be slow. The ccaches belong to the user
            // alone, so the user's other groups are not needed.
            let user = Identity { uid: self.uid, gid: passwd(self.uid).gid, groups: Vec::new() };
            let deadline = Instant::now() + errands::TIME;
            let followed = self.leader.filter(|(_, own)| *own).map(|(id, _)| ccache::name(self.uid, id));
            let place = followed.and_then(|name| CcacheName::parse(&name).ok());
            let contents = place.and_then(|place| ccache::read(&place, &user, deadline).ok());
            // A login may have made the PAG its own meanwhile, and put its ticket there. A login that comes now waits for the
            // lock before it writes.
            let lock = match Lock::of_tickets(self.uid, deadline.saturating_duration_since(Instant::now())) {
                Ok(lock) => lock,
                Err(why) => return why.to_string(),
            };
            if !self.is_wanted(group) {
                return COPIED.to_owned();
            }
            let done = match contents {
                Some(contents) => ccache::put(&user, self.pag, &contents, deadline),
                None => ccache::empty(&user, self.pag, deadline),
            };
            drop(lock);
            done.map_or_else(|why| why.to_string(), |()| COPIED.to_owned())
        })
    }

    /// Whether the follower still follows the same PAG, or follows none and has no ticket of its own, and has no login.
    fn is_wanted(&self, group: HandleGroup) -> bool {
        let leader = self.leader.map(|(id, _)| id);
        let fits = |record: Record| {
            record.follows == leader && (leader.is_some() || record.ticket == 0) && !record.has_login()
        };
        record_of(self.pag, group).is_some_and(fits)
    }
}
