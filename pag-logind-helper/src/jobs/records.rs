//! What token jobs note in the records of PAGs: that one is under way, and which tokens there are then.

use std::collections::BTreeSet;
use std::io;

use pag::error::{Error, Result};
use pag::guard::Guard;
use pag::report::{Event, report};
use pag::seed;
use pag::store::locked::LockedUser;
use pag::store::record::{LastSeeding, Record};
use pag::types::{Client, PagId, Token};

use crate::pags::rings::{self, is_cut, keys_of, lacks_tokens, tokens_in};
use crate::pags::tokens::TokenName;
use crate::pags::{Edit, LOCK_WAIT, Pags, tokens};

/// Makes this PAG the one that the next job of its user is for. False in three cases. The PAG has ended. It lacks no tokens
/// any more, and the job was not `asked` for and is no `renewal`. Or it has begun to follow another PAG: a renewal must not
/// touch the tokens of that one.
///
/// # Errors
/// If the record cannot be written just now.
pub(super) fn prepare(pags: &Pags, id: PagId, asked: bool, renewal: bool) -> Result<bool> {
    let Some(known) = pags.get(id) else { return Ok(false) };
    if !asked && !renewal && !lacks_tokens(&known.ring, &known.record, pag::sys::now()) {
        return Ok(false);
    }
    let now = pag::sys::now();
    let guard = Guard::enter(pags.group())?;
    let user = LockedUser::lock(&guard, known.uid, LOCK_WAIT)?;
    let mut is_there = false;
    for mut pag in user.pags()? {
        let Ok(record) = pag.record.clone() else { continue };
        let reseed = pag.id == id && (asked || !renewal || record.follows.is_none());
        is_there |= reseed;
        // Tells logins that a job sees to it.
        let ticket = record.ticket;
        let last_seeding = if reseed { Some(LastSeeding { at: now, ok: false, ticket }) } else { record.last_seeding };
        // A caller wants the tokens of all cells.
        let discarded = if reseed && asked { Vec::new() } else { record.discarded.clone() };
        if reseed || record.reseed {
            user.store(&mut pag, Record { reseed, last_seeding, discarded, ..record })?;
        }
    }
    Ok(is_there)
}

/// Reads which tokens are in the ring, and notes those that serve, and those that a member has discarded. True if they are
/// other tokens than the record says. Tokens that a job is still to bring back are not taken for discarded: `may_be_discarded`
/// is false then.
pub(super) fn note_tokens(pags: &mut Pags, id: PagId, may_be_discarded: bool) -> bool {
    let Some(known) = pags.get(id) else { return false };
    let Ok(found) = tokens_in(&known.ring) else { return false };
    let now = pag::sys::now();
    let held = seed::held(&found, &known.record.tokens, now);
    let discarded =
        if may_be_discarded { tokens::discarded(&known.record, &found, now, Client::is_there) } else { Vec::new() };
    if discarded.is_empty() && (held.is_empty() || held == known.record.tokens) {
        return false;
    }
    let (ring, before) = (known.ring, known.keys.clone());
    let edit = pags.edit(id, |pag, record| {
        // If a member has emptied the ring, that is repaired instead, and then looked at again.
        if !discarded.is_empty() && is_cut(Some(&before), &keys_of(&ring), pag, record) {
            return false;
        }
        for cell in &discarded {
            record.discard(Some(cell), now);
        }
        if found.is_empty() && !discarded.is_empty() {
            record.discard(None, now);
        } else {
            record.hold(held);
        }
        true
    });
    matches!(edit, Ok(Edit::Stored))
}

/// Whether tokens of this PAG were discarded, and a renewal is not to bring them back.
pub(super) fn has_discarded(pags: &Pags, id: PagId) -> bool {
    pags.get(id).is_some_and(|known| !known.record.discarded.is_empty())
}

/// Discards what was discarded while a job ran that did not know of it, and may have brought it back.
pub(super) fn discard_again(pags: &Pags, id: PagId) {
    let Some(known) = pags.get(id) else { return };
    let begun = known.record.last_seeding.map_or(0, |last| last.at);
    for late in known.record.discarded.iter().filter(|one| one.at >= begun) {
        if let Err(why) = rings::discard(&known.ring, late.cell.as_ref()) {
            report(&Event::Complaint { what: why.to_string() });
        }
    }
}

/// The tokens that a job which has ended `ok` has got for this PAG, or those that one which has failed has not.
pub(super) fn outcome(pags: &Pags, id: PagId, ok: bool) -> Vec<TokenName> {
    let Some(known) = pags.get(id) else { return Vec::new() };
    let found = tokens_in(&known.ring).unwrap_or_default();
    if ok { tokens::good(&found) } else { tokens::missed(&known.record, &found) }
}

/// Reports that a seeder has brought this PAG nothing. If the PAG does not need it, it is not tried again.
pub(super) fn not_seeded(pags: &Pags, id: PagId, why: &str, needed: bool) {
    let Some(known) = pags.get(id) else { return };
    let found = tokens_in(&known.ring).unwrap_or_default();
    let (client, cell) = tokens::in_words(&tokens::missed(&known.record, &found));
    let why = format!("{why}; it will {}be tried again", if needed { "" } else { "not " });
    report(&Event::SeedFailed { uid: known.uid, ring: Some(known.ring.serial), client, cell, why });
}

/// PAGs that jobs have brought tokens into, while a login's lock kept the helper from noting which.
#[derive(Default)]
pub(super) struct Unnoted(BTreeSet<PagId>);

impl Unnoted {
    /// Notes that a job has brought tokens into this PAG, which it `needed`, or later.
    pub(super) fn seeded(&mut self, pags: &Pags, id: PagId, needed: bool) {
        let Some(known) = pags.get(id) else { return };
        let has_all = |found: Vec<Token>| !tokens::are_missing(&known.record, &found, pag::sys::now());
        if needed && tokens_in(&known.ring).is_ok_and(has_all) {
            report(&Event::Healed { uid: known.uid, pag: id, what: "its tokens are back".to_owned() });
        }
        self.0.insert(id);
        self.note(pags, known.uid);
    }

    /// Notes which tokens jobs have brought into the PAGs of `uid`. False if a login holds the lock: this is then to be done
    /// later, since the helper does not wait for the lock of one user.
    pub(super) fn note(&mut self, pags: &Pags, uid: u32) -> bool {
        let group = pags.group();
        let mut done = true;
        self.0.retain(|id| {
            let Some(known) = pags.get(*id) else { return false };
            if known.uid != uid {
                return true;
            }
            let seeding =
                seed::Seeding { ok: true, failure: None, tokens: tokens_in(&known.ring).ok(), aliases: Vec::new() };
            let noted = seed::note_seeding(group, uid, *id, &seeding, LOCK_WAIT);
            let later = matches!(noted, Err(Error::Lock { source, .. }) if source.kind() == io::ErrorKind::TimedOut);
            done &= !later;
            later
        });
        done
    }
}
