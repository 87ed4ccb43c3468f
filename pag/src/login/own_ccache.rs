//! The ticket of a login in the PAG's own ccache.

use crate::store::locked::change_record;
use std::time::Duration;
use std::time::Instant;

use super::attempt::LOCK_WAIT;
use super::attempt::LoginAttempt;
use super::ccache_work::CcacheWork;
use super::placed::Placed;
use crate::ccache;
use crate::ccache::Contents;
use crate::nudge::nudge;
use crate::report::Event;
use crate::report::report;
use crate::store::lock::Lock;
use crate::store::record::Record;
use crate::types::PagId;

/// Does to the PAG's ccache what is to be done, and notes what has come of it. Not under the uid's lock.
pub(super) fn write_ccache(attempt: &LoginAttempt<'_>, placed: &mut Placed) {
    let work = std::mem::replace(&mut placed.work, CcacheWork::None);
    if let Some((pag, record)) = &mut placed.pag {
        do_ccache_work(attempt, work, pag.id, record);
    }
}

pub(super) fn do_ccache_work(attempt: &LoginAttempt<'_>, work: CcacheWork, id: PagId, record: &mut Record) {
    let uid = attempt.uid();
    // However little of its time the login has left: no ticket of another identity is to stay there.
    let user = attempt.owner();
    let until = || attempt.budget.deadline().max(Instant::now() + Duration::from_millis(200));
    // The helper may have begun to write another ticket there before the record told of this login, whose ticket is to be
    // the last. Without the lock it is written all the same.
    let share = || Lock::share_of_tickets(uid, until().saturating_duration_since(Instant::now()));
    let lock = (work != CcacheWork::None).then(share);
    let deadline = until();
    let done = match (work, &attempt.ticket) {
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
            let Some(ticket) = &attempt.ticket else { return };
            note_ticket(record, ticket);
            if put {
                report(&Event::CcacheFed { uid, pag: id, expires: record.ticket });
            }
            // Best effort: the helper sees that the ccache was written, and notes the same.
            let noted = change_record(attempt.group, uid, id, LOCK_WAIT, |record| note_ticket(record, ticket));
            match noted {
                // The helper is not to take this ticket for one that the user got without a login.
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
