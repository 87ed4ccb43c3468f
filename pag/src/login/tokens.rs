//! The ticket and the tokens of a login.

use crate::seed;
use std::time::Instant;

use super::attempt::LOCK_WAIT;
use super::attempt::LOOK;
use super::attempt::LoginAttempt;
use super::ccache_work::CcacheWork;
use super::own_ccache::note_ticket;
use super::placed::Placed;
use crate::afs;
use crate::ccache;
use crate::report::Event;
use crate::report::report;
use crate::seed::Excluded;
use crate::seed::Job;
use crate::seed::Need;
use crate::seed::note_seeding;
use crate::seed::run_seeder;
use crate::store::record::LastSeeding;
use crate::store::record::Record;
use crate::store::ring::Ring;
use crate::types::Client;
use crate::types::PagId;
use crate::types::ServiceKind;

/// Whether the PAG that a ticket is brought to was there before: if so, whether this login has tried for its tokens, and
/// if not, whether its ccache has been made with the ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PagState {
    Known,
    Tried,
    New { filled: bool },
}

/// Takes the login's ticket into the PAG's record: its principal at once, so that no other identity slips in. Says what
/// is to be done to the ccache, and whether a seeder should run; if so, it notes that one does, so that no other login
/// starts one meanwhile. A PAG that is new has neither a ccache nor tokens: a child less for each look. Under the uid's
/// lock.
pub(super) fn take_ticket(
    attempt: &LoginAttempt<'_>,
    record: &mut Record,
    id: PagId,
    ring: &Ring,
    found: PagState,
) -> (Need, CcacheWork) {
    let mut work = CcacheWork::None;
    // Neither its ticket nor tokens from it go to a PAG of another identity.
    if !matches!(found, PagState::New { .. }) && !attempt.may_stay(record, None) {
        return (Need::No, work);
    }
    if let Some(ticket) = &attempt.ticket {
        let principal = &ticket.summary.principal;
        let same = record.principal.as_ref().is_none_or(|known| known == principal);
        if same {
            record.principal = Some(principal.clone());
            let expires = ticket.summary.tgt_expires.unwrap_or(0);
            if expires > record.ticket && record.ccache == ccache::name(attempt.uid(), id) {
                work = match found {
                    PagState::New { filled: true } => {
                        note_ticket(record, ticket);
                        report(&Event::CcacheFed { uid: attempt.uid(), pag: id, expires });
                        CcacheWork::None
                    }
                    PagState::New { filled: false } => CcacheWork::Replace,
                    PagState::Known | PagState::Tried => CcacheWork::Feed,
                };
            }
        }
    }
    // Of two hooks of a login the first looks at the tokens.
    let need = match found {
        PagState::Tried => Need::No,
        PagState::Known | PagState::New { .. } => need(attempt, Some(&*record), ring, found != PagState::Known),
    };
    if need == Need::Now {
        let ticket = attempt.ticket_end(Some(&*record)).unwrap_or(0);
        record.last_seeding = Some(LastSeeding { at: crate::sys::now(), ok: false, ticket });
        // A login begins anew; a job that has waited for long is none.
        if attempt.request.settings.placement != ServiceKind::Seed {
            record.discarded.clear();
        }
    }
    (need, work)
}

pub(super) fn need(attempt: &LoginAttempt<'_>, record: Option<&Record>, ring: &Ring, new: bool) -> Need {
    let settings = attempt.request.settings;
    let ticket = attempt.ticket_end(record);
    let last = record.and_then(|record| record.last_seeding);
    let now = crate::sys::now();
    // The start of a manager is no wish for what somebody has discarded.
    if attempt.is_manager() && record.is_some_and(|record| !record.discarded.is_empty()) {
        return Need::No;
    }
    // The ring is looked into only when that can change anything.
    let clients = Client::present(settings);
    match seed::need(settings, &clients, last, ticket, attempt.is_manager(), now) {
        Need::No => Need::No,
        need if new => {
            let _ = attempt.before.set(Vec::new());
            need
        }
        need => {
            let tokens = afs::tokens(ring, Instant::now() + LOOK).map(|tokens| attempt.before.get_or_init(|| tokens));
            let tokens = tokens.map_or(&[][..], Vec::as_slice);
            let held = seed::held(tokens, record.map_or(&[], |record| &record.tokens), now);
            if seed::are_good(&held, &seed::cells(&clients, settings, attempt.request.user), now) {
                Need::Good
            } else {
                need
            }
        }
    }
}

/// Runs a seeder where one is wanted; whether it did.
pub(super) fn seed(attempt: &LoginAttempt<'_>, placed: &mut Placed) -> bool {
    if attempt.has_tried(&placed.ring) || attempt.request.settings.placement == ServiceKind::Seed {
        return false;
    }
    match placed.need {
        Need::No | Need::Good => {
            log::debug!("no seeder for uid {}: tokens are good, not wanted, or cannot be had", attempt.uid());
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
        let fed = attempt.ticket.as_ref().is_some_and(|t| t.summary.tgt_expires.unwrap_or(0) <= record.ticket);
        // Not the PAG's own.
        if ok && fed && attempt.request.settings.kdestroy && job.ccache == attempt.request.ccache {
            let destroyed = job.kdestroy(&attempt.budget).unwrap_or_else(|error| Err(error.to_string()));
            if let Err(why) = destroyed {
                report(&Event::CcacheRefused { uid: attempt.uid(), why: format!("kdestroy: {why}") });
            }
        }
    }
    true
}
