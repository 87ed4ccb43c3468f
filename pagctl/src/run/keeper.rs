//! The keeper: the process that renews the tokens of a PAG that `pagctl run` has made.
//!
//! It is outside of the PAG and holds nothing of it: the ring lives by its members alone, and the kernel destroys it with
//! the last one. The keeper knows the ring's name, with which its seeders enter, and looks by the ring's number whether it
//! is still there.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use pag::report::{Event, report, speak_as};
use pag::seed::Excluded;
use pag::store::ring::Enter;
use pag::types::{Cell, PagId, Token, TokenState};
use pag::{afs, keyring, policy, sys};

use super::ticket::{Ticket, first_end};
use crate::output::Error;

/// Longest sleep while the command runs: the clock may have been set, or the machine been asleep.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The time between two looks whether the ring is still there, after the end of the command: at first, and at last.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Longest time for reading the tokens of the ring.
const TOKENS: Duration = Duration::from_secs(2);

/// When to look again for tokens of which no client tells the end, in seconds.
const UNKNOWN_END: u64 = 1200;

#[derive(Debug)]
pub(super) struct Keeper<R> {
    ticket: Ticket,
    ring: R,
    /// Fixes the place of a renewal in the life of a token.
    place: PagId,
    /// The tokens that should be there, and since when.
    held: Vec<Token>,
    since: u64,
    /// The cells of tokens that a member has discarded.
    discarded: Vec<Cell>,
    /// The last attempt that has brought nothing, and why.
    tried: Option<u64>,
    said: Option<String>,
}

impl<R: Enter> Keeper<R> {
    /// For a ring with these tokens, which have just come.
    pub(super) fn new(ticket: Ticket, ring: R, held: Vec<Token>) -> Self {
        let place = PagId::from(u64::from(ring.serial().get().unsigned_abs()));
        Keeper { ticket, ring, place, held, since: sys::now(), discarded: Vec::new(), tried: None, said: None }
    }

    /// Starts the keeper. This process, which becomes the command, is its PAG's only member then.
    ///
    /// # Errors
    /// When no process can be made.
    #[allow(unsafe_code)] // makes a process
    pub(super) fn start(mut self) -> Result<(), Error> {
        let doing = || pag::Error::system("start the process that renews the tokens");
        let this = i32::try_from(std::process::id()).unwrap_or(0);
        let ring = self.ring.serial();
        // It inherits the ring. If it stayed there, the PAG would never end.
        let leave = || keyring::join(None).is_ok() && keyring::session().is_ok_and(|session| session != ring);
        let work = |ready: sys::Ready| {
            let Ok(command) = sys::pidfd_open(this) else { return 1 };
            ready.tell();
            speak_as("pagctl");
            self.keep(|time| sys::readable(command.as_fd(), time));
            0
        };
        // SAFETY: this process has one thread, so that no lock is held, and `work` executes no program by itself.
        Ok(unsafe { sys::detached(leave, work) }.map_err(doing())?)
    }

    /// Renews the tokens until the ring is gone. `ends` waits for the end of the command, and is true when that has come.
    fn keep(&mut self, ends: impl Fn(Duration) -> bool) {
        let (mut look, longest) = LOOKS;
        let mut is_running = true;
        while !keyring::is_gone(self.ring.serial()) {
            let now = sys::now();
            let due = self.due(now);
            if now >= due {
                self.renew(now);
            } else if is_running {
                is_running = !ends(Duration::from_secs(due - now).min(LONGEST_SLEEP));
            } else {
                std::thread::sleep(look);
                look = (look * 2).min(longest);
            }
        }
    }

    /// The tokens that should be there.
    pub(super) fn held(&self) -> &[Token] {
        &self.held
    }

    /// Why the last attempt has brought nothing. None if it has, or before the first.
    pub(super) fn failure(&self) -> Option<&str> {
        self.said.as_deref()
    }

    /// Since when the token that ends first is there, and its end.
    fn life(&self) -> (u64, u64) {
        (self.since, first_end(&self.held).unwrap_or(self.since + UNKNOWN_END))
    }

    /// When to renew, in seconds since the epoch.
    pub(super) fn due(&self, now: u64) -> u64 {
        let (since, end) = self.life();
        let due = policy::renewal_of_token(self.place, since, end);
        match self.tried {
            // Noted by a clock that has been set back.
            Some(tried) if tried > now.saturating_add(1) => now,
            Some(tried) if tried >= due => policy::next_attempt(tried, end),
            _ => due,
        }
    }

    /// Gets new tokens, but those that a member has discarded, and reports it.
    pub(super) fn renew(&mut self, now: u64) {
        self.tried = Some(now);
        // A ring that is gone, or does not let itself be read, tells nothing of its tokens.
        let Ok(present) = afs::tokens(&self.ring, Instant::now() + TOKENS) else { return };
        self.note_discarded(&present, now);
        let excluded = Excluded { all: false, cells: self.discarded.clone() };
        if self.ticket.wants_any_but(&excluded) {
            self.seed(excluded);
        }
    }

    /// As [`renew`](Self::renew), with those that a member has discarded: an administrator asks for it.
    pub(super) fn renew_all(&mut self, now: u64) {
        self.tried = Some(now);
        self.discarded.clear();
        self.seed(Excluded::default());
    }

    fn seed(&mut self, excluded: Excluded) {
        let begun = Instant::now();
        let (uid, ring) = (self.ticket.uid(), Some(self.ring.serial()));
        match self.ticket.renew(&self.ring, excluded, self.life()) {
            Ok(tokens) => {
                let (client, cell) = names(&tokens);
                self.held = tokens;
                (self.since, self.tried, self.said) = (sys::now(), None, None);
                report(&Event::Seeded { uid, ring, client, cell, millis: sys::millis(begun.elapsed()) });
            }
            Err(_) if keyring::is_gone(self.ring.serial()) => {}
            Err(why) if self.said.as_ref() == Some(&why) => {}
            Err(why) => {
                let (client, cell) = names(&self.held);
                report(&Event::SeedFailed { uid, ring, client, cell, why: why.clone() });
                self.said = Some(why);
            }
        }
    }

    /// Notes which tokens a member has discarded: they are not there, and have not ended. One that is there again is no
    /// longer discarded.
    fn note_discarded(&mut self, present: &[Token], now: u64) {
        let is_there = |cell: &Cell| present.iter().any(|one| one.cell == *cell && one.state == TokenState::Good);
        self.discarded.retain(|cell| !is_there(cell));
        let cut = self.held.iter().filter(|token| token.expires > now && !is_there(&token.cell));
        self.discarded.extend(cut.map(|token| token.cell.clone()).collect::<Vec<_>>());
    }
}

/// The clients and the cells of tokens, for a message.
pub(super) fn names(tokens: &[Token]) -> (String, String) {
    let list = |words: Vec<String>| {
        let mut words = words;
        words.dedup();
        words.join(", ")
    };
    let clients = tokens.iter().map(|token| token.client.to_string()).collect();
    let cells = tokens.iter().map(|token| token.cell.to_string()).collect();
    (list(clients), list(cells))
}
