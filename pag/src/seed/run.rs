//! Runs the seeders of a job, and notes the tokens that they have brought.

use std::time::{Duration, Instant};

use super::budget::Budget;
use super::job::{Job, Outcome};
use super::outcome::{Alias, Brought, brought, held, missed, note_aliases};
use super::wanted::Wanted;
use crate::error::Result;
use crate::guard::HandleGroup;
use crate::report::{Event, report};
use crate::store::locked;
use crate::store::record::Held;
use crate::store::ring::{Enter, Ring};
use crate::types::{PagId, Token};
use crate::{afs, keyring, sys};

/// Longest time for reading the tokens of a ring.
const LOOK: Duration = Duration::from_secs(1);

/// The result of [`run_seeder`].
#[derive(Debug)]
pub struct Seeding {
    /// Whether the ring has all tokens that it should get. True, too, if there were none to get.
    pub ok: bool,
    /// Why it has not, in words.
    pub failure: Option<String>,
    /// The tokens in the ring afterwards. None if they could not be read.
    pub tokens: Option<Vec<Token>>,
    /// The tokens that came under another name of their cell.
    pub aliases: Vec<Alias>,
}

/// The reason for a failure if the seeder ended with status 0 and has brought no token.
const NOTHING_THERE: &str = "the seeder ended with status 0, and no such token is in the ring. It must end when the \
     tokens are there: what it leaves in the background is killed";

/// What the seeders of a job have brought.
#[derive(Debug)]
pub struct Judged {
    /// The wanted tokens that came, and those that did not.
    pub brought: Brought,
    /// Whether all wanted tokens came; else why not, in words.
    pub result: Outcome,
    /// The tokens in the ring afterwards. None if they could not be read.
    pub tokens: Option<Vec<Token>>,
}

/// Runs the seeders of a job and reports the result. `before` are the tokens in the ring, if the caller has read them.
pub fn run_seeder(job: &Job<'_>, ring: Option<&Ring>, before: Option<&Vec<Token>>, budget: &Budget) -> Seeding {
    let begun = Instant::now();
    if job.wanted().is_empty() && !job.excluded.is_nothing() {
        return Seeding { ok: true, failure: None, tokens: None, aliases: Vec::new() };
    }
    let uid = job.user.uid;
    let place = ring.map(|ring| ring.serial);
    let Judged { brought, result, tokens } = run_and_judge(job, ring.map(|ring| ring as &dyn Enter), before, budget);
    let ok = result.is_ok();
    if !brought.got.is_empty() {
        let (client, cell) = names(&brought.got);
        report(&Event::Seeded { uid, ring: place, client, cell, millis: sys::millis(begun.elapsed()) });
    }
    let failure = result.err();
    if let Some(why) = failure.clone() {
        let (client, cell) = names(&brought.missed);
        report(&Event::SeedFailed { uid, ring: place, client, cell, why });
    }
    Seeding { ok, failure, tokens, aliases: brought.aliases }
}

/// Runs the seeders of a job. The tokens in the ring decide, not the status of a seeder. `before` are the tokens in the
/// ring, if the caller has read them.
pub fn run_and_judge(job: &Job<'_>, ring: Option<&dyn Enter>, before: Option<&Vec<Token>>, budget: &Budget) -> Judged {
    let wanted = job.wanted();
    let look = |time: Duration| afs::tokens(ring.filter(|_| !time.is_zero())?, Instant::now() + time).ok();
    let before = before.cloned().or_else(|| look(budget.left().min(LOOK)));
    let before = before.as_deref();
    let (result, words) = job.run(ring, budget).unwrap_or_else(|error| (Err(error.to_string()), Vec::new()));
    let after = look(LOOK);
    let (brought, result) = match (result, &after) {
        (Ok(()), None) => (Brought { got: wanted, ..Brought::default() }, Ok(())),
        (Ok(()), Some(after)) => {
            let brought = brought(&wanted, before, after);
            let all = brought.missed.is_empty();
            let why = || [&[NOTHING_THERE.to_owned()], &words[..]].concat().join("; ");
            (brought, if all { Ok(()) } else { Err(why()) })
        }
        // A seeder of several cells does not say for which of them it has failed.
        (Err(why), after) => {
            let known = before.zip(after.as_deref()).map(|(before, after)| missed(&wanted, before, after));
            let missed = known.unwrap_or_else(|| wanted.clone());
            let got = wanted.into_iter().filter(|wanted| !missed.contains(wanted)).collect();
            (Brought { got, missed, aliases: Vec::new() }, Err(why))
        }
    };
    let quota = || keyring::quota_is_short(job.user.uid).map(|quota| format!("; {quota}")).unwrap_or_default();
    Judged { brought, result: result.map_err(|why| why + &quota()), tokens: after }
}

/// The clients and the cells of these tokens, for a message: each once, in the order of `wanted`.
fn names(wanted: &[Wanted]) -> (String, String) {
    fn add(list: &mut Vec<String>, name: String) {
        if !list.contains(&name) {
            list.push(name);
        }
    }
    let (mut clients, mut cells) = (Vec::new(), Vec::new());
    for one in wanted {
        add(&mut clients, one.client.to_string());
        add(&mut cells, one.to_string());
    }
    let cells = if cells.is_empty() { "the default cell".to_owned() } else { cells.join(", ") };
    (clients.join(", "), cells)
}

/// Notes the result of a seeding in the record. Waits at most `wait` for the uid's lock.
///
/// # Errors
/// `Lock` when other processes held the lock all that time. Without this note, the next login runs a seeder again.
pub fn note_seeding(group: HandleGroup, uid: u32, id: PagId, seeding: &Seeding, wait: Duration) -> Result<()> {
    locked::change_record(group, uid, id, wait, |record| {
        if let Some(last) = &mut record.last_seeding {
            last.ok = seeding.ok;
        }
        // A ring that could not be read says nothing of the tokens.
        let Some(tokens) = &seeding.tokens else { return };
        let now = crate::sys::now();
        let mut held = held(tokens, &record.tokens, now);
        note_aliases(&mut held, &seeding.aliases);
        // These tokens were there, and no user has discarded them, so a member has cut them out of the ring. The record
        // keeps them, so that the helper gets them back.
        if seeding.ok && record.discarded.is_empty() {
            let is_cut = |known: &&Held| {
                known.expires > now && !held.iter().any(|one| one.client == known.client && one.cell == known.cell)
            };
            let cut: Vec<Held> = record.tokens.iter().filter(is_cut).cloned().collect();
            held.extend(cut);
        }
        record.hold(held);
    })
}
