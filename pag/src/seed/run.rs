//! Running the seeders of a job, and noting what they have brought.

use super::budget::Budget;
use super::job::Job;
use super::outcome::{Alias, Brought, brought, held, missed, note_aliases};
use super::wanted::Wanted;

use std::time::{Duration, Instant};

use crate::afs;
use crate::error::Result;
use crate::guard::HandleGroup;
use crate::keyring;
use crate::report::{Event, report};
use crate::store::locked;
use crate::store::record::Held;
use crate::store::ring::Ring;
use crate::sys;
use crate::types::{PagId, Token};

/// Longest time that a look into a ring may take.
const LOOK: Duration = Duration::from_secs(1);

/// What has come of a seeding.
#[derive(Debug)]
pub struct Seeding {
    /// Whether all went well; also when there was nothing to be got.
    pub ok: bool,
    /// The tokens in the ring afterwards, where they were seen.
    pub tokens: Option<Vec<Token>>,
    /// Those that came for other names than their own.
    pub aliases: Vec<Alias>,
}

/// What is wrong with a seeder that ended well and has brought nothing.
const NOTHING_THERE: &str = "the seeder ended with status 0, and no such token is in the ring. It must end when the \
     tokens are there: what it leaves in the background is killed";

/// Runs the seeders of a job and says what came of it. What the ring holds decides, and not what a seeder says. `before` are
/// the tokens in it, where somebody has looked already.
pub fn run_seeder(job: &Job<'_>, ring: Option<&Ring>, before: Option<&Vec<Token>>, budget: &Budget) -> Seeding {
    let begun = Instant::now();
    let wanted = job.wanted();
    if wanted.is_empty() && !job.excluded.is_nothing() {
        return Seeding { ok: true, tokens: None, aliases: Vec::new() };
    }
    let look = |time: Duration| afs::tokens(ring.filter(|_| !time.is_zero())?, Instant::now() + time).ok();
    let before = before.cloned().or_else(|| look(budget.left().min(LOOK)));
    let before = before.as_deref();
    let uid = job.user.uid;
    let place = ring.map(|ring| ring.serial);
    let result = job.run(ring, budget).unwrap_or_else(|error| Err(error.to_string()));
    let after = look(LOOK);
    let (brought, result) = match (result, &after) {
        (Ok(()), None) => (Brought { got: wanted, ..Brought::default() }, Ok(())),
        (Ok(()), Some(after)) => {
            let brought = brought(&wanted, before, after);
            let all = brought.missed.is_empty();
            (brought, if all { Ok(()) } else { Err(NOTHING_THERE.to_owned()) })
        }
        // A seeder of several cells says that it has failed, and not for which.
        (Err(why), after) => {
            let told = before.zip(after.as_deref()).map(|(before, after)| missed(&wanted, before, after));
            let missed = told.unwrap_or_else(|| wanted.clone());
            let got = wanted.into_iter().filter(|wanted| !missed.contains(wanted)).collect();
            (Brought { got, missed, aliases: Vec::new() }, Err(why))
        }
    };
    let ok = result.is_ok();
    if !brought.got.is_empty() {
        let (client, cell) = names(&brought.got);
        report(&Event::Seeded { uid, ring: place, client, cell, millis: sys::millis(begun.elapsed()) });
    }
    if let Err(why) = result {
        let quota = keyring::quota_is_short(uid).map(|quota| format!("; {quota}")).unwrap_or_default();
        let why = why + &quota;
        let (client, cell) = names(&brought.missed);
        report(&Event::SeedFailed { uid, ring: place, client, cell, why });
    }
    Seeding { ok, tokens: after, aliases: brought.aliases }
}

/// Clients and cells, for people: each once, in the order in which they are wanted.
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

/// Notes in the record what a seeder has brought. Waits at most `wait` for the uid's lock.
///
/// # Errors
/// `Lock` when another process held it all the time. Excluded the note the next login tries once more.
pub fn note_seeding(group: HandleGroup, uid: u32, id: PagId, seeding: &Seeding, wait: Duration) -> Result<()> {
    let tokens = seeding.tokens.as_deref().unwrap_or_default();
    locked::change_record(group, uid, id, wait, |record| {
        let now = crate::sys::now();
        let mut held = held(tokens, &record.tokens, now);
        note_aliases(&mut held, &seeding.aliases);
        // A seeder that has succeeded has brought them: somebody has cut them away since, and they are to be had back.
        if seeding.ok && record.discarded.is_empty() {
            let is_cut = |known: &&Held| {
                known.expires > now && !held.iter().any(|one| one.client == known.client && one.cell == known.cell)
            };
            let cut: Vec<Held> = record.tokens.iter().filter(is_cut).cloned().collect();
            held.extend(cut);
        }
        record.hold(held);
        if let Some(last) = &mut record.last_seeding {
            last.ok = seeding.ok;
        }
    })
}
