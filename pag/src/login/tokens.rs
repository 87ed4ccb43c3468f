//! The ticket and the tokens of a login.

use std::time::Instant;

use super::attempt::{LOCK_WAIT, LOOK, LoginAttempt};
use super::ccache_work::CcacheWork;
use super::own_ccache::note_ticket;
use super::placed::Placed;
use crate::report::{Event, User, report};
use crate::seed::{self, Excluded, Job, Need, note_seeding, run_seeder};
use crate::store::record::{LastSeeding, Record};
use crate::store::ring::Ring;
use crate::types::{PagId, ServiceKind};
use crate::{afs, ccache};

/// What this login knows of the PAG that it takes its ticket into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PagState {
    /// The PAG was there before.
    Known,
    /// An earlier hook of this login has read or sought the tokens of this PAG.
    Tried,
    /// This login has made the PAG. `filled`: it has made the ccache with its ticket in it.
    New { filled: bool },
}

/// Takes the login's ticket into the PAG's record. Runs under the uid's lock.
///
/// The PAG has the ticket's principal from then on, so that no other identity can join it. Returns whether a seeder
/// should run, and the work that remains on the PAG's ccache. If a seeder should run now, the record says that one
/// does, so that no other login starts another. A new PAG has no ccache and no tokens yet, which saves a child for
/// reading each of them.
pub(super) fn take_ticket<'a>(
    attempt: &'a LoginAttempt<'_>,
    record: &mut Record,
    id: PagId,
    ring: &Ring,
    found: PagState,
) -> (Need, CcacheWork<'a>) {
    // A PAG of another identity gets neither this ticket nor tokens from it.
    if !matches!(found, PagState::New { .. }) && !attempt.may_stay(record, None) {
        return (Need::No, CcacheWork::None);
    }
    let work = note_principal(attempt, record, id, found);
    // The first of a login's hooks has read the tokens already.
    let need = match found {
        PagState::Tried => Need::No,
        PagState::Known | PagState::New { .. } => need(attempt, Some(&*record), ring, found != PagState::Known),
    };
    if need == Need::Now {
        let ticket = attempt.ticket_end(Some(&*record)).unwrap_or(0);
        record.last_seeding = Some(LastSeeding { at: crate::sys::now(), ok: false, ticket });
        // A new login wants all tokens again. A seeding job does not: it leaves out what the user has discarded.
        if attempt.request.settings.placement != ServiceKind::Seed {
            record.discarded.clear();
        }
    }
    (need, work)
}

/// Notes the principal of the login's ticket in the record, and returns the work that remains on the PAG's ccache.
fn note_principal<'a>(
    attempt: &'a LoginAttempt<'_>,
    record: &mut Record,
    id: PagId,
    found: PagState,
) -> CcacheWork<'a> {
    let Some(ticket) = &attempt.ticket else { return CcacheWork::None };
    let principal = &ticket.summary.principal;
    if record.principal.as_ref().is_some_and(|known| known != principal) {
        return CcacheWork::None;
    }
    record.principal = Some(principal.clone());
    let expires = ticket.summary.tgt_expires.unwrap_or(0);
    if expires <= record.ticket || record.ccache != ccache::name(attempt.uid(), id) {
        return CcacheWork::None;
    }
    match found {
        PagState::New { filled: true } => {
            note_ticket(record, ticket);
            report(&Event::CcacheFed { uid: attempt.uid(), pag: id, expires });
            CcacheWork::None
        }
        PagState::New { filled: false } => CcacheWork::Replace(ticket),
        PagState::Known | PagState::Tried => CcacheWork::Feed(ticket),
    }
}

/// Whether this login needs a seeder for the PAG with this ring. A `new` ring has no tokens, so it is not read.
pub(super) fn need(attempt: &LoginAttempt<'_>, record: Option<&Record>, ring: &Ring, new: bool) -> Need {
    let settings = attempt.request.settings;
    let ticket = attempt.ticket_end(record);
    let last = record.and_then(seeding_to_count_on);
    let now = crate::sys::now();
    // The start of a manager does not bring back tokens that a user has discarded.
    if attempt.is_manager() && record.is_some_and(|record| !record.discarded.is_empty()) {
        return Need::No;
    }
    // The tokens are read only if they can change the answer.
    let clients = attempt.clients();
    match seed::need(settings, clients, last, ticket, attempt.is_manager(), now) {
        Need::No => Need::No,
        need if new => {
            let _ = attempt.before.set(Vec::new());
            need
        }
        need => {
            let known = record.map_or(&[][..], |record| &record.tokens);
            let held = match afs::tokens(ring, Instant::now() + LOOK) {
                Ok(tokens) => seed::held(attempt.before.get_or_init(|| tokens), known, now),
                // A ring that cannot be read may have tokens. The record says which it had.
                Err(why) => {
                    log::debug!("{why}: what the record says counts");
                    known.to_vec()
                }
            };
            if seed::are_good(&held, &seed::cells(clients, settings, attempt.request.user), now) {
                Need::Good
            } else {
                need
            }
        }
    }
}

/// The last seeding of a PAG, unless tokens were discarded since it began: those it does not bring back.
fn seeding_to_count_on(record: &Record) -> Option<LastSeeding> {
    record.last_seeding.filter(|last| record.discarded.iter().all(|one| one.at < last.at))
}

/// Why no seeder runs for a login, for those who debug it.
fn why_none(attempt: &LoginAttempt<'_>, placed: &Placed<'_>) -> &'static str {
    let settings = attempt.request.settings;
    let record = placed.pag.as_ref().map(|(_, record)| record);
    match placed.need {
        Need::Good => "the tokens are good",
        _ if settings.notokens => "no tokens are wanted (notokens)",
        _ if attempt.clients().is_empty() => "this host has none of the AFS clients that are configured",
        _ if attempt.ticket_end(record).is_none() && !settings.always_aklog => "there is no ticket",
        _ if record.is_some_and(|record| !attempt.may_stay(record, None)) => "the ticket is of another identity",
        _ => "the tokens were discarded, and this is no new login",
    }
}

/// Runs a seeder if this login needs one, and notes its result. Returns whether one ran. Not under the uid's lock.
pub(super) fn seed(attempt: &LoginAttempt<'_>, placed: &mut Placed<'_>) -> bool {
    if attempt.has_tried(&placed.ring) || attempt.request.settings.placement == ServiceKind::Seed {
        return false;
    }
    match placed.need {
        Need::No | Need::Good => {
            log::debug!("no seeder for {}: {}", User(attempt.uid()), why_none(attempt, placed));
            placed.seeded |= placed.need == Need::Good;
            return false;
        }
        Need::Later => {
            if let Some((pag, _)) = &placed.pag {
                report(&Event::SeedPutOff { uid: attempt.uid(), pag: pag.id });
            }
            placed.seeded = true;
            return false;
        }
        Need::Now => placed.seeded = true,
    }
    let record = placed.pag.as_ref().map(|(_, record)| record);
    let job = Job {
        settings: attempt.request.settings,
        user: attempt.request.user,
        identity: attempt.identity(),
        ccache: attempt.ccache_to_seed_from(record),
        environment: &attempt.request.environment,
        excluded: Excluded::default(),
    };
    let seeding = run_seeder(&job, Some(&placed.ring), attempt.before.get(), &attempt.budget);
    if let Some((pag, record)) = &placed.pag {
        let ok = seeding.ok;
        let _ = note_seeding(attempt.group, attempt.uid(), pag.id, &seeding, LOCK_WAIT);
        let end = attempt.ticket.as_ref().and_then(|ticket| ticket.summary.tgt_expires);
        let fed = end.is_some_and(|end| end <= record.ticket);
        // Only the login's ccache, which `kdestroy` is about, and not the PAG's own.
        if ok && fed && attempt.request.settings.kdestroy && job.ccache == attempt.request.ccache {
            let destroyed = job.kdestroy(&attempt.budget).unwrap_or_else(|error| Err(error.to_string()));
            if let Err(why) = destroyed {
                report(&Event::CcacheRefused { uid: attempt.uid(), why: format!("kdestroy: {why}") });
            }
        }
    }
    true
}
