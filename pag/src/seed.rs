//! Seeding: running the program that turns a ccache into tokens, inside the ring, as the user, within a budget.

use std::ffi::CString;
use std::time::{Duration, Instant};

use crate::client::{Client, Token};
use crate::config::{Cell, Settings};
use crate::error::{Error, Result};
use crate::policy;
use crate::record::{Attempt, Held};
use crate::ring::Ring;
use crate::sys::{self, Exit, Identity, Passwd, Program};

/// The time that one login may spend waiting for us: all its seeders and ccaches, over setcred and open_session.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    end: Instant,
    begun: Instant,
    spent: Duration,
}

impl Budget {
    /// What is left of `total` when `spent` has been used up in an earlier hook of the same login.
    pub fn new(total: Duration, spent: Duration) -> Self {
        let begun = Instant::now();
        Budget { end: begun + total.saturating_sub(spent), begun, spent }
    }

    /// When it is used up.
    pub fn deadline(&self) -> Instant {
        self.end
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// What has been used, in this hook and the earlier ones.
    pub fn spent(&self) -> Duration {
        self.spent + self.begun.elapsed()
    }
}

/// The cells that tokens are wanted for: `afs_cells`, and with `aklog_homedir` the cell of the home, as its path names
/// it. Empty: the seeder's own default cell.
pub fn cells(settings: &Settings, user: &Passwd) -> Vec<Cell> {
    let mut cells = settings.afs_cells.clone();
    if settings.aklog_homedir
        && let Some(cell) = cell_of_path(user.home.to_bytes())
        && !cells.contains(&cell)
    {
        cells.push(cell);
    }
    cells
}

/// The cell of `/afs/CELL/...` or `/afs/.CELL/...`. Only text is looked at: a look at the directory could hang.
fn cell_of_path(path: &[u8]) -> Option<Cell> {
    let name = path.strip_prefix(b"/afs/")?.split(|byte| *byte == b'/').next()?;
    str::from_utf8(name.strip_prefix(b".").unwrap_or(name)).ok()?.parse().ok()
}

/// Whether the tokens in a ring serve: each wanted cell has a good one, and where no cell is named, some token is good
/// and none is bad.
pub fn are_good(held: &[Held], wanted: &[Cell], now: u64) -> bool {
    let good = |held: &Held| policy::is_good(held.expires, held.expires.saturating_sub(held.since), now);
    if wanted.is_empty() {
        return !held.is_empty() && held.iter().all(good);
    }
    wanted.iter().all(|cell| held.iter().any(|held| held.cell == *cell && good(held)))
}

/// What the record says of the tokens that are in the ring now. A token that was known before keeps the time when it
/// was first seen.
pub fn held(tokens: &[Token], before: &[Held], now: u64) -> Vec<Held> {
    tokens
        .iter()
        .map(|token| {
            let known = before.iter().find(|held| held.cell == token.cell && held.expires == token.expires);
            Held { cell: token.cell.clone(), expires: token.expires, since: known.map_or(now, |held| held.since) }
        })
        .collect()
}

/// One run of a seeder.
#[derive(Debug)]
pub struct Job<'a> {
    /// How it is configured.
    pub settings: &'a Settings,
    /// Whose tokens it gets.
    pub user: &'a Passwd,
    /// The same, with groups.
    pub identity: &'a Identity,
    /// The ccache to get them from; none only with `always_aklog`.
    pub ccache: Option<&'a str>,
    /// The environment, `NAME=value` each.
    pub environment: &'a [CString],
}

/// Status of a child that could not prove that it is in the ring, and so ran nothing.
const STATUS_OUTSIDE: u8 = 126;

impl Job<'_> {
    /// Runs the seeder in `ring`, or where the caller is when there is none (`nopag`).
    ///
    /// # Errors
    /// `System` when no child could be made.
    pub fn run(&self, ring: Option<&Ring>, budget: &Budget) -> Result<std::result::Result<(), String>> {
        let Some(words) = &self.settings.program else {
            return Ok(Err("no seeder is configured: set program in pag.conf".to_owned()));
        };
        let mut words = words.clone();
        if self.settings.aklog_homedir {
            words.extend(["-p".to_owned(), self.user.home.to_string_lossy().into_owned()]);
        }
        for cell in &self.settings.afs_cells {
            words.extend(["-c".to_owned(), cell.to_string()]);
        }
        let Some(program) = self.program(words) else {
            return Ok(Err("its command line holds a NUL".to_owned()));
        };
        run(&program, self.identity, ring, budget)
    }

    /// Destroys the login's own ccache, as the user; the PAG has its own copy by then.
    ///
    /// # Errors
    /// As [`Job::run`].
    pub fn kdestroy(&self, budget: &Budget) -> Result<std::result::Result<(), String>> {
        match self.program(vec!["/usr/bin/kdestroy".to_owned(), "-q".to_owned()]) {
            Some(program) => run(&program, self.identity, None, budget),
            None => Ok(Err("its environment holds a NUL".to_owned())),
        }
    }

    fn program(&self, words: Vec<String>) -> Option<Program> {
        let arguments: Vec<CString> =
            words.into_iter().map(CString::new).collect::<std::result::Result<_, _>>().ok()?;
        let named = |variable: &CString, name: &[u8]| variable.to_bytes().starts_with(name);
        let mut environment: Vec<CString> =
            self.environment.iter().filter(|variable| !named(variable, b"KRB5CCNAME=")).cloned().collect();
        if let Some(ccache) = self.ccache {
            environment.push(CString::new(format!("KRB5CCNAME={ccache}")).ok()?);
        }
        if !environment.iter().any(|variable| named(variable, b"PATH=")) {
            environment.push(c"PATH=/usr/local/bin:/usr/bin:/bin".to_owned());
        }
        Some(Program::new(arguments.first()?.clone(), arguments, environment))
    }
}

fn run(
    program: &Program,
    identity: &Identity,
    ring: Option<&Ring>,
    budget: &Budget,
) -> Result<std::result::Result<(), String>> {
    let left = budget.left();
    if left.is_zero() {
        return Ok(Err("the time of this login is used up".to_owned()));
    }
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let failed = || Error::system("run a seeder");
    let child = sys::child(|| {
        // Tokens of a seeder outside the PAG would go to the bare uid, for everybody who has it.
        let inside = ring.is_none_or(|ring| ring.is_current() || ring.join_in_child());
        if inside { sys::run_program(program, identity, millis) } else { STATUS_OUTSIDE }
    })
    .map_err(failed())?;
    // The child keeps the deadline; some time on top for it to clear away what the program has left behind.
    let end = child.wait(budget.deadline() + Duration::from_millis(1500)).map_err(failed())?;
    Ok(match end {
        Exit::Status(0) => Ok(()),
        Exit::Status(sys::STATUS_NOT_STARTED) => {
            Err("the seeder could not be started, or ended with status 127".to_owned())
        }
        Exit::Status(STATUS_OUTSIDE) => Err("the ring could not be entered, so the seeder was not run".to_owned()),
        Exit::Status(sys::STATUS_SIGNAL) => Err("a signal ended the seeder".to_owned()),
        Exit::Status(sys::STATUS_DEADLINE) | Exit::TimedOut => {
            Err(format!("the seeder was killed: it had not ended within {} ms", left.as_millis()))
        }
        Exit::Status(status) => Err(format!("the seeder ended with status {status}")),
        Exit::Signal(signal) => Err(format!("signal {signal} ended the seeder's supervisor")),
    })
}

/// What there is to do about tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: they are good, not wanted, or cannot be had.
    No,
    /// They are wanted, but an attempt was made just now.
    Later,
    /// A seeder should run.
    Now,
}

/// Decides whether a seeder should run. `ticket` is the end time of the ticket at hand, 0 without one.
pub fn need(
    settings: &Settings,
    good: bool,
    last: Option<Attempt>,
    ticket: Option<u64>,
    manager: bool,
    now: u64,
) -> Need {
    let possible = ticket.is_some() || settings.always_aklog;
    if settings.notokens || good || !possible || Client::present(&settings.client).is_empty() {
        return Need::No;
    }
    if policy::worth_seeding(last, now, ticket.unwrap_or(0), manager) { Need::Now } else { Need::Later }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str) -> Cell {
        name.parse().unwrap()
    }

    #[test]
    fn the_cell_of_a_home_is_read_from_its_path() {
        assert_eq!(cell_of_path(b"/afs/example.test/user/alice"), Some(cell("example.test")));
        assert_eq!(cell_of_path(b"/afs/.example.test/user/alice"), Some(cell("example.test")));
        for path in ["/home/alice", "/afs", "/afs/", "/afs//x", "afs/example.test", "/afs/a b/x"] {
            assert_eq!(cell_of_path(path.as_bytes()), None, "{path}");
        }
    }

    #[test]
    fn every_wanted_cell_needs_a_good_token() {
        let held = |name: &str, expires| Held { cell: cell(name), expires, since: 0 };
        let now = 100_000;
        let both = [held("a.test", now + 3600), held("b.test", now + 60)];
        assert!(are_good(&both, &[cell("a.test")], now));
        assert!(!are_good(&both, &[cell("a.test"), cell("b.test")], now));
        assert!(!are_good(&both, &[cell("c.test")], now));
        assert!(!are_good(&both, &[], now));
        assert!(are_good(&both[..1], &[], now));
        assert!(!are_good(&[], &[], now));
    }

    #[test]
    fn a_token_keeps_the_time_when_it_was_first_seen() {
        let token = Token { client: Client::Keyring, cell: cell("a.test"), principal: None, expires: 50 };
        let first = held(std::slice::from_ref(&token), &[], 10);
        assert_eq!(first[0].since, 10);
        assert_eq!(held(std::slice::from_ref(&token), &first, 20)[0].since, 10);
        assert_eq!(held(&[Token { expires: 60, ..token }], &first, 20)[0].since, 20);
    }

    #[test]
    fn a_budget_goes_on_from_hook_to_hook() {
        let budget = Budget::new(Duration::from_secs(5), Duration::from_secs(6));
        assert!(budget.left().is_zero());
        assert!(budget.spent() >= Duration::from_secs(6));
    }
}
