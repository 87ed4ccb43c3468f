//! A login writes its ticket into the PAG's own ccache.

use std::time::{Duration, Instant};

use super::attempt::{LOCK_WAIT, LoginAttempt};
use super::ccache_work::CcacheWork;
use super::placed::Placed;
use crate::ccache::{self, Contents};
use crate::nudge::nudge;
use crate::report::{Event, report};
use crate::store::lock::Lock;
use crate::store::locked::change_record;
use crate::store::record::Record;
use crate::types::PagId;

/// Does the work that remains on the PAG's ccache, and notes the result in the record. Not under the uid's lock.
pub(super) fn write_ccache(attempt: &LoginAttempt<'_>, placed: &mut Placed<'_>) {
    let work = std::mem::replace(&mut placed.work, CcacheWork::None);
    if let Some((pag, record)) = &mut placed.pag {
        do_ccache_work(attempt, work, pag.id, record);
    }
}

/// Does `work` on the ccache of a PAG, as the user, and notes the ticket in `record` and in the registry.
pub(super) fn do_ccache_work(attempt: &LoginAttempt<'_>, work: CcacheWork<'_>, id: PagId, record: &mut Record) {
    if matches!(work, CcacheWork::None) {
        return;
    }
    let uid = attempt.uid();
    let user = attempt.owner();
    // At least 200 ms, even with no budget left: a ticket of another identity must not stay in this ccache.
    let until = || attempt.budget.deadline().max(Instant::now() + Duration::from_millis(200));
    // The helper may have begun to write another ticket before this login was in the record. The lock makes this
    // login's ticket the last one. A login that does not get the lock writes its ticket, too.
    let lock = Lock::share_of_tickets(uid, until().saturating_duration_since(Instant::now()));
    let deadline = until();
    // The ticket that is in the ccache then, and whether this login has put it there.
    let done = match work {
        CcacheWork::None => return,
        CcacheWork::Feed(ticket) => ccache::feed(&user, id, ticket, deadline).map(|put| Some((ticket, put))),
        CcacheWork::Replace(ticket) => ccache::put(&user, id, ticket, deadline).map(|()| Some((ticket, true))),
        CcacheWork::Empty => ccache::empty(&user, id, deadline).map(|()| None),
    };
    drop(lock);
    match done {
        Err(why) => report(&Event::CcacheRefused { uid, why: why.to_string() }),
        Ok(None) => {}
        Ok(Some((ticket, put))) => {
            note_ticket(record, ticket);
            if put {
                report(&Event::CcacheFed { uid, pag: id, expires: record.ticket });
            }
            // If this fails, the helper sees that the ccache has changed, and notes the ticket.
            let noted = change_record(attempt.group, uid, id, LOCK_WAIT, |record| note_ticket(record, ticket));
            match noted {
                // The helper must not take this ticket for one that the user got without a login.
                Ok(()) => nudge(uid),
                Err(why) => log::debug!("the ticket of PAG {id} is not noted yet: {why}"),
            }
        }
    }
}

/// Notes in a record which ticket is in the PAG's ccache.
pub(super) fn note_ticket(record: &mut Record, ticket: &Contents) {
    let summary = &ticket.summary;
    record.ticket = summary.tgt_expires.unwrap_or(0);
    record.renewable = summary.tgt_renew_until.unwrap_or(0);
    record.authenticated = summary.tgt_authenticated.unwrap_or(0);
}
