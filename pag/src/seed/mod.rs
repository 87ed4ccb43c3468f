//! Seeding: running the program that turns a ccache into tokens, inside the ring, as the user, within a budget.

use std::ffi::CString;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::afs::openafs::Device;
use crate::config::account::Account;
use crate::config::{AKLOG, AKLOG_KAFS, Settings};
use crate::error::{Error, Result};
use crate::policy;
use crate::store::record::{Attempt, Held, Record};
use crate::store::ring::Ring;
use crate::sys::{self, Exit, Identity, Passwd, Program};
use crate::types::Cell;
use crate::types::Client;
use crate::types::Principal;
use crate::types::Token;
use crate::types::TokenState;

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

/// A token that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of which client.
    pub client: Client,
    /// For which cell. None: for the seeder's own default.
    pub cell: Option<Cell>,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cell {
            Some(cell) => cell.fmt(f),
            None => f.write_str("the default cell"),
        }
    }
}

/// What a seeder is not to get: tokens that somebody has discarded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Without {
    /// Nothing at all is to be got.
    pub all: bool,
    /// Nothing of these cells.
    pub cells: Vec<Cell>,
}

/// The variable by which the PAM module tells a seeding job of it.
pub const WITHOUT: &str = "PAG_DISCARDED";

/// The variable by which the PAM module tells a seeding job the PAG's identity. Empty: the PAG has none.
pub const IDENTITY: &str = "PAG_IDENTITY";

/// Why a ticket of `principal` is not for the PAG that a job gets tokens for, where it is not. `identity` is what [`IDENTITY`]
/// holds. A PAG without an identity takes the tickets of its user's own.
pub fn not_of_pag(principal: &Principal, identity: &str, account: &Account) -> Option<String> {
    if identity.is_empty() {
        let why = || format!("it holds a ticket of {principal}, which is not {}'s own identity", account.name());
        return (!account.owns(principal)).then(why);
    }
    let is_it = Principal::parse(identity).is_ok_and(|known| known == *principal);
    (!is_it).then(|| {
        format!(
            "it holds a ticket of {principal}, and the PAG is {identity}'s; log in as {principal} for a PAG of its own"
        )
    })
}

impl Without {
    /// What a record says of it.
    pub fn of(record: &Record) -> Self {
        let cells = record.discarded.iter().filter_map(|one| one.cell.clone()).collect();
        Without { all: record.discarded.iter().any(|one| one.cell.is_none()), cells }
    }

    /// Reads what [`Without`] writes; what is no cell is passed over.
    pub fn parse(text: &str) -> Self {
        let words = || text.split(' ');
        Without { all: words().any(|word| word == "*"), cells: words().filter_map(|word| word.parse().ok()).collect() }
    }

    /// Whether there is nothing to be left out.
    pub fn is_nothing(&self) -> bool {
        !self.all && self.cells.is_empty()
    }

    fn has(&self, cell: Option<&Cell>) -> bool {
        self.all || cell.is_some_and(|cell| self.cells.contains(cell))
    }
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = self.cells.iter().map(ToString::to_string);
        let words: Vec<String> = self.all.then(|| "*".to_owned()).into_iter().chain(cells).collect();
        f.write_str(&words.join(" "))
    }
}

/// The tokens that are wanted, for each of `clients`: `afs_cells`, and with `aklog_homedir` the cell of the home, as its
/// path names it; where neither names one, the host's own.
pub fn cells(clients: &[Client], settings: &Settings, user: &Passwd) -> Vec<Wanted> {
    wanted(clients, settings, user, Client::own_cell)
}

fn wanted(clients: &[Client], settings: &Settings, user: &Passwd, own: impl Fn(Client) -> Option<Cell>) -> Vec<Wanted> {
    let named = named(settings, user);
    let of_client = |client: &Client| {
        let client = *client;
        let cells: Vec<Option<Cell>> = match (&named[..], client) {
            // What it gets is the cell of a home that is in AFS by way of a link, and that link is not looked at here.
            ([], Client::OpenAfs | Client::Keyring) if settings.aklog_homedir => vec![None],
            ([], _) => vec![own(client)],
            (named, _) => named.iter().cloned().map(Some).collect(),
        };
        cells.into_iter().map(move |cell| Wanted { client, cell })
    };
    clients.iter().flat_map(of_client).collect()
}

/// The cells that the configuration names.
fn named(settings: &Settings, user: &Passwd) -> Vec<Cell> {
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

/// Whether the tokens in a ring serve: each that is wanted is there and good, by its cell's own name or by all that it is an
/// alias of; and where no cell is named, some token of that client is good and none is bad.
pub fn are_good(held: &[Held], wanted: &[Wanted], now: u64) -> bool {
    let good = |held: &&Held| policy::is_good(held.expires, held.expires.saturating_sub(held.since), now);
    let all_good = |held: Vec<&Held>| !held.is_empty() && held.iter().all(good);
    wanted.iter().all(|wanted| {
        let of_client = held.iter().filter(|held| held.client == wanted.client);
        match &wanted.cell {
            Some(cell) if of_client.clone().any(|held| held.cell == *cell) => {
                of_client.filter(|held| held.cell == *cell).any(|held| good(&held))
            }
            Some(cell) => all_good(of_client.filter(|held| held.is_of(cell)).collect()),
            None => all_good(of_client.collect()),
        }
    })
}

/// Those of the wanted tokens that a seeder which has failed did not get, by what was in the ring before and is now: what
/// is missing or no good, and what is as it was while another's is newer. All of them, where that tells nothing.
pub fn missed(wanted: &[Wanted], before: &[Token], after: &[Token]) -> Vec<Wanted> {
    let of = |tokens: &[Token], wanted: &Wanted| -> Vec<Token> {
        let is_it = |token: &&Token| {
            let cell = wanted.cell.as_ref().is_none_or(|cell| token.cell == *cell);
            token.client == wanted.client && token.state == TokenState::Good && cell
        };
        tokens.iter().filter(is_it).cloned().collect()
    };
    let is_new = |wanted: &Wanted| of(before, wanted) != of(after, wanted);
    let newest = wanted.iter().filter(|wanted| is_new(wanted)).flat_map(|wanted| of(after, wanted));
    let newest = newest.map(|token| token.expires).max().unwrap_or(0);
    let is_missed = |wanted: &&Wanted| {
        let there = of(after, wanted);
        there.is_empty() || !is_new(wanted) && there.iter().all(|token| token.expires < newest)
    };
    let missed: Vec<Wanted> = wanted.iter().filter(is_missed).cloned().collect();
    if missed.is_empty() { wanted.to_vec() } else { missed }
}

/// A token that came when its cell was asked for by another name: in other letters it is the same name, but OpenAFS knows
/// aliases, too (CellAlias, and the short names of linked cells in CellServDB).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Whose token it is.
    pub client: Client,
    /// The name that was asked for.
    pub name: Cell,
    /// The name that the token has.
    pub cell: Cell,
}

/// What a seeder has brought that says that all went well.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// What is there of what was wanted.
    pub got: Vec<Wanted>,
    /// What is not.
    pub missed: Vec<Wanted>,
    /// The tokens that are there under other names.
    pub aliases: Vec<Alias>,
}

/// Tells by the tokens in the ring what a seeder has brought that says that all went well. A name that no token has is an
/// alias of the cells of which tokens are new and that nothing else has asked for. Where nobody has looked `before`, the
/// seeder is believed as to such a name. Where tokens are gone that were there before, a member has cut them away, and
/// perhaps those that the seeder has brought: it is not blamed then.
pub fn brought(wanted: &[Wanted], before: Option<&[Token]>, after: &[Token]) -> Brought {
    let good =
        |client: Client| after.iter().filter(move |token| token.client == client && token.state == TokenState::Good);
    let is_there =
        |one: &Wanted| good(one.client).any(|token| one.cell.as_ref().is_none_or(|cell| token.cell == *cell));
    let is_wanted = |token: &Token| {
        wanted.iter().any(|one| one.client == token.client && one.cell.as_ref().is_none_or(|cell| token.cell == *cell))
    };
    let mut brought = Brought::default();
    for one in wanted {
        let Some(name) = one.cell.as_ref().filter(|_| !is_there(one)) else {
            if is_there(one) { &mut brought.got } else { &mut brought.missed }.push(one.clone());
            continue;
        };
        let Some(before) = before else {
            brought.got.push(one.clone());
            continue;
        };
        let others = good(one.client).filter(|token| !before.contains(token) && !is_wanted(token));
        let aliases: Vec<Alias> =
            others.map(|token| Alias { client: one.client, name: name.clone(), cell: token.cell.clone() }).collect();
        if aliases.is_empty() { &mut brought.missed } else { &mut brought.got }.push(one.clone());
        brought.aliases.extend(aliases);
    }
    let is_gone = |old: &Token| old.state == TokenState::Good && !good(old.client).any(|token| token.cell == old.cell);
    if before.is_some_and(|before| before.iter().any(is_gone)) {
        brought.missed.clear();
    }
    brought
}

/// Notes in what a record says of tokens by which other names they were asked for.
pub fn note_aliases(held: &mut [Held], aliases: &[Alias]) {
    for Alias { client, name, cell } in aliases {
        let of_cell = held.iter_mut().filter(|held| held.client == *client && held.cell == *cell);
        of_cell.filter(|held| !held.is_of(name)).for_each(|held| held.aliases.push(name.clone()));
    }
}

/// What the record says of the tokens that are in the ring now and serve. A token that was known before keeps the time
/// when it was first seen.
pub fn held(tokens: &[Token], before: &[Held], now: u64) -> Vec<Held> {
    tokens
        .iter()
        .filter(|token| token.state == TokenState::Good)
        .map(|token| {
            let (client, cell, expires) = (token.client, token.cell.clone(), token.expires);
            let known = || before.iter().filter(|held| held.client == client && held.cell == cell);
            let since = known().find(|held| held.expires == expires).map_or(now, |held| held.since);
            // A cell keeps its names, whoever has got its token anew.
            let aliases = known().next().map_or_else(Vec::new, |held| held.aliases.clone());
            Held { client, cell, expires, since, aliases }
        })
        .collect()
}

/// The getting of tokens for a user: a run of each client's seeder.
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
    /// What it is not to get.
    pub without: Without,
}

/// Status of a child that could not prove that it is in the ring, and so ran nothing.
const STATUS_OUTSIDE: u8 = 126;
/// Status of a child that OpenAFS says is in no PAG, and so ran nothing.
const STATUS_NO_PAG: u8 = 123;

/// One program to be run, and for whom.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    words: Vec<String>,
    /// Whether it gives tokens to OpenAFS.
    openafs: bool,
    /// The one cell that it is for; none: there are several, or its default.
    cell: Option<Cell>,
}

impl Run {
    /// What it is called where there are others.
    fn name(&self) -> String {
        let program = self.words.first().map_or("", String::as_str);
        self.cell.as_ref().map_or_else(|| program.to_owned(), |cell| format!("{program} {cell}"))
    }
}

impl Job<'_> {
    /// Runs the seeders of all clients that are served in `ring`, or where the caller is when there is none (`nopag`).
    /// Every one is run, also when an earlier one has failed.
    ///
    /// # Errors
    /// `System` when no child could be made.
    pub fn run(&self, ring: Option<&Ring>, budget: &Budget) -> Result<Outcome> {
        let mut failures = Vec::new();
        let (clients, exists) = (Client::present(self.settings), |path: &str| Path::new(path).exists());
        let (runs, missing) = runs(&clients, self.settings, self.user, &self.without, exists, Client::own_cell);
        failures.extend(missing);
        let several = runs.len() + failures.len() > 1;
        for one in runs {
            let name = one.name();
            let done = match self.program(one.words) {
                Some(program) => run(&program, self.identity, ring, one.openafs, budget)?,
                None => Err("its command line holds a NUL".to_owned()),
            };
            failures.extend(done.err().map(|why| if several { format!("{name}: {why}") } else { why }));
        }
        Ok(if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) })
    }

    /// The tokens that it is to get.
    pub fn wanted(&self) -> Vec<Wanted> {
        let all = cells(&Client::present(self.settings), self.settings, self.user);
        all.into_iter().filter(|wanted| !self.without.has(wanted.cell.as_ref())).collect()
    }

    /// Destroys the login's own ccache, as the user; the PAG has its own copy by then.
    ///
    /// # Errors
    /// As [`Job::run`].
    pub fn kdestroy(&self, budget: &Budget) -> Result<Outcome> {
        match self.program(vec!["/usr/bin/kdestroy".to_owned(), "-q".to_owned()]) {
            Some(program) => run(&program, self.identity, None, false, budget),
            None => Ok(Err("its environment holds a NUL".to_owned())),
        }
    }

    /// Renews the ticket-granting ticket, as the user, where the caller is.
    ///
    /// # Errors
    /// As [`Job::run`].
    pub fn renew(&self, budget: &Budget) -> Result<Outcome> {
        match self.program(vec!["/usr/bin/kinit".to_owned(), "-R".to_owned()]) {
            Some(program) => Ok(run(&program, self.identity, None, false, budget)?
                .map_err(|why| why.replacen("the seeder", "kinit -R", 1))),
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

/// The programs to run, and why there is none for a client.
///
/// aklog and Heimdal's afslog take the same arguments for cells and paths (OpenAFS, src/aklog/aklog.c; Heimdal,
/// appl/afsutil/afslog.c). aklog-kafs takes one cell, or none for the kernel's own.
fn runs(
    clients: &[Client],
    settings: &Settings,
    user: &Passwd,
    without: &Without,
    exists: impl Fn(&str) -> bool,
    own: impl Fn(Client) -> Option<Cell>,
) -> (Vec<Run>, Vec<String>) {
    let (mut runs, mut missing) = (Vec::new(), Vec::new());
    let named = named(settings, user);
    let cells: Vec<Cell> = named.iter().filter(|cell| !without.has(Some(cell))).cloned().collect();
    // Where all that is named is left out, a seeder would get its default instead.
    let is_left_out = |client: &Client| {
        let home_by_link = settings.aklog_homedir && cell_of_path(user.home.to_bytes()).is_none();
        let nothing_named = named.is_empty() && !(home_by_link && *client != Client::Kafs);
        let own = || nothing_named && without.has(own(*client).as_ref());
        without.all || !named.is_empty() && cells.is_empty() && !home_by_link || own()
    };
    let clients: Vec<Client> = clients.iter().copied().filter(|client| !is_left_out(client)).collect();
    let (openafs, keyring) = (clients.contains(&Client::OpenAfs), clients.contains(&Client::Keyring));
    let default = |path: &str| exists(path).then(|| vec![path.to_owned()]);
    match settings.program.clone() {
        // Both clients have it for their seeder: it is run once.
        Some(words) if openafs || keyring => runs.push(Run { words, openafs, cell: None }),
        None if openafs => match default(AKLOG) {
            Some(words) => runs.push(Run { words, openafs, cell: None }),
            None => missing.push(format!("there is no {AKLOG}: install OpenAFS's, or set program in pag.conf")),
        },
        _ => {}
    }
    if settings.program.is_none() && keyring {
        missing.push("no seeder is configured: set program in pag.conf".to_owned());
    }
    for Run { words, .. } in &mut runs {
        if settings.aklog_homedir && !without.has(cell_of_path(user.home.to_bytes()).as_ref()) {
            words.extend(["-p".to_owned(), user.home.to_string_lossy().into_owned()]);
        }
        for cell in settings.afs_cells.iter().filter(|cell| cells.contains(cell)) {
            words.extend(["-c".to_owned(), cell.to_string()]);
        }
    }
    if clients.contains(&Client::Kafs) {
        match settings.kafs_program.clone().or_else(|| default(AKLOG_KAFS)) {
            Some(words) => {
                let with = |cell: &Cell| [&words[..], &[cell.to_string()]].concat();
                let of = |cell: &Cell| Run { words: with(cell), openafs: false, cell: Some(cell.clone()) };
                if named.is_empty() {
                    runs.push(Run { words, openafs: false, cell: None });
                } else {
                    runs.extend(cells.iter().map(of));
                }
            }
            None => missing.push(format!("there is no {AKLOG_KAFS}: install it, or set kafs_program in pag.conf")),
        }
    }
    (runs, missing)
}

/// What has come of running a program: nothing, or in words what went wrong.
pub type Outcome = std::result::Result<(), String>;

fn run(program: &Program, identity: &Identity, ring: Option<&Ring>, openafs: bool, budget: &Budget) -> Result<Outcome> {
    let left = budget.left();
    if left.is_zero() {
        return Ok(Err("the time of this login is used up".to_owned()));
    }
    let device = if openafs { Device::served() } else { None };
    let enter = || {
        // Tokens of a seeder outside the PAG would go to the bare uid, for everybody who has it.
        let Some(ring) = ring else { return Ok(()) };
        if !ring.is_current() && !ring.join_in_child() {
            return Err(STATUS_OUTSIDE);
        }
        let is_member = |device: &Device| device.open().is_ok_and(|interface| interface.is_member());
        if openafs && !device.as_ref().is_some_and(is_member) { Err(STATUS_NO_PAG) } else { Ok(()) }
    };
    let end = sys::run(program, identity, left, enter).map_err(Error::system("run a seeder"))?;
    Ok(in_words(end, left))
}

fn in_words(end: Exit, left: Duration) -> Outcome {
    match end {
        Exit::Status(0) => Ok(()),
        Exit::Status(sys::STATUS_NOT_STARTED) => {
            Err("the seeder could not be started, or ended with status 127".to_owned())
        }
        Exit::Status(STATUS_OUTSIDE) => Err("the ring could not be entered, so the seeder was not run".to_owned()),
        Exit::Status(STATUS_NO_PAG) => {
            Err("this ring has no PAG of OpenAFS, so the seeder was not run: its tokens would be everybody's who has this uid".to_owned())
        }
        Exit::Status(sys::STATUS_SIGNAL) => Err("a signal ended the seeder".to_owned()),
        Exit::Status(sys::STATUS_DEADLINE) | Exit::TimedOut => {
            Err(format!("the seeder was killed: it had not ended within {} ms", sys::millis(left)))
        }
        Exit::Status(status) => Err(format!("the seeder ended with status {status}")),
        Exit::Signal(signal) => Err(format!("signal {signal} ended the seeder's supervisor")),
    }
}

/// What there is to do about tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: they are not wanted, or cannot be had.
    No,
    /// Nothing: they are good.
    Good,
    /// They are wanted, but an attempt was made just now.
    Later,
    /// A seeder should run.
    Now,
}

/// Decides whether a seeder should run for one of `clients`, if there are no good tokens. `ticket` is the end time of the
/// ticket at hand, 0 without one.
pub fn need(
    settings: &Settings,
    clients: &[Client],
    last: Option<Attempt>,
    ticket: Option<u64>,
    manager: bool,
    now: u64,
) -> Need {
    let possible = ticket.is_some() || settings.always_aklog;
    if settings.notokens || !possible || clients.is_empty() {
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
    fn a_ticket_of_another_identity_is_not_for_the_pag() {
        let account = Account::of_realm("alice", "R");
        let why = |who: &str, identity: &str| not_of_pag(&Principal::parse(who).unwrap(), identity, &account);
        for (who, identity) in [("alice@R", "alice@R"), ("alice/admin@R", "alice/admin@R"), ("alice@R", "")] {
            assert_eq!(why(who, identity), None, "{who} in a PAG of {identity:?}");
        }
        for (who, identity) in [("alice/admin@R", "alice@R"), ("alice@R", "alice/admin@R"), ("alice/admin@R", "")] {
            assert!(why(who, identity).is_some_and(|why| why.contains(who)), "{who} in a PAG of {identity:?}");
        }
    }

    #[test]
    fn the_cell_of_a_home_is_read_from_its_path() {
        assert_eq!(cell_of_path(b"/afs/example.test/user/alice"), Some(cell("example.test")));
        assert_eq!(cell_of_path(b"/afs/.example.test/user/alice"), Some(cell("example.test")));
        for path in ["/home/alice", "/afs", "/afs/", "/afs//x", "afs/example.test", "/afs/a b/x"] {
            assert_eq!(cell_of_path(path.as_bytes()), None, "{path}");
        }
    }

    fn want(client: Client, cells: &[&str]) -> Vec<Wanted> {
        cells.iter().map(|name| Wanted { client, cell: Some(cell(name)) }).collect()
    }

    #[test]
    fn every_wanted_cell_needs_a_good_token() {
        let held = |name: &str, expires| Held {
            client: Client::Keyring,
            cell: cell(name),
            expires,
            since: 0,
            aliases: vec![],
        };
        let want = |cells: &[&str]| want(Client::Keyring, cells);
        let any = [Wanted { client: Client::Keyring, cell: None }];
        let now = 100_000;
        let both = [held("a.test", now + 3600), held("b.test", now + 60)];
        assert!(are_good(&both, &want(&["a.test"]), now));
        assert!(!are_good(&both, &want(&["a.test", "b.test"]), now));
        assert!(!are_good(&both, &want(&["c.test"]), now));
        assert!(!are_good(&both, &any, now));
        assert!(are_good(&both[..1], &any, now));
        assert!(!are_good(&[], &any, now));
    }

    #[test]
    fn every_client_needs_a_good_token_of_its_own() {
        let held = |client| Held { client, cell: cell("a.test"), expires: 3600, since: 0, aliases: vec![] };
        let both = [want(Client::OpenAfs, &["a.test"]), want(Client::Kafs, &["a.test"])].concat();
        assert!(!are_good(&[held(Client::OpenAfs)], &both, 0));
        assert!(are_good(&[held(Client::OpenAfs), held(Client::Kafs)], &both, 0));
        let any = [Wanted { client: Client::Kafs, cell: None }];
        assert!(!are_good(&[held(Client::OpenAfs)], &any, 0));
    }

    fn settings(more: &str) -> Settings {
        let top = tempfile::tempdir().unwrap();
        let main = top.path().join("pag.conf");
        std::fs::write(&main, format!("[pag]\n{more}\n")).unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&main).unwrap());
        let dirs = crate::config::Dirs { main, drop_ins: vec![], login_defs: "/dev/null".into(), owner };
        let (settings, complaints) = crate::config::host(&dirs);
        assert!(complaints.iter().all(|c| c.to_string().contains("/dev/null")), "{complaints:?}");
        settings
    }

    fn alice(home: &str) -> Passwd {
        Passwd { name: c"alice".to_owned(), uid: 1001, gid: 1001, home: CString::new(home).unwrap() }
    }

    #[test]
    fn the_hosts_own_cell_is_wanted_where_no_other_is_named() {
        let own = |client| Some(cell(if client == Client::Kafs { "kafs.test" } else { "own.test" }));
        let both = [Client::OpenAfs, Client::Kafs];
        let told = |more: &str, home: &str| {
            let all = wanted(&both, &settings(more), &alice(home), own);
            all.iter().map(|one| format!("{} {one}", one.client)).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(told("", "/home/alice"), "openafs own.test, kafs kafs.test");
        assert_eq!(told("afs_cells = a.test", "/afs/b.test/x"), "openafs a.test, kafs a.test");
        let named = "afs_cells = a.test\naklog_homedir = yes";
        assert_eq!(told(named, "/afs/b.test/x"), "openafs a.test, openafs b.test, kafs a.test, kafs b.test");
        assert_eq!(told("aklog_homedir = yes", "/home/alice"), "openafs the default cell, kafs kafs.test");
    }

    #[test]
    fn each_client_has_its_own_seeder() {
        let told = |clients: &[Client], more: &str, there: bool| {
            let nothing = Without::default();
            let (runs, missing) =
                runs(clients, &settings(more), &alice("/afs/b.test/x"), &nothing, |_| there, |_| None);
            let runs =
                runs.into_iter().map(|run| format!("{}{}", run.words.join(" "), if run.openafs { "!" } else { "" }));
            runs.chain(missing.iter().map(|why| why.split(':').next().unwrap().to_owned())).collect::<Vec<_>>()
        };
        let all = [Client::Keyring, Client::OpenAfs, Client::Kafs];
        let (openafs, kafs) = (&all[1..2], &all[2..]);
        assert_eq!(told(openafs, "", true), ["/usr/bin/aklog!"]);
        assert_eq!(told(openafs, "", false), ["there is no /usr/bin/aklog"]);
        let full = "afs_cells = a.test,c.test\naklog_homedir = yes";
        assert_eq!(told(openafs, full, true), ["/usr/bin/aklog -p /afs/b.test/x -c a.test -c c.test!"]);
        assert_eq!(
            told(kafs, full, true),
            ["/usr/bin/aklog-kafs a.test", "/usr/bin/aklog-kafs c.test", "/usr/bin/aklog-kafs b.test"]
        );
        assert_eq!(told(kafs, "kafs_program = /x,-q", false), ["/x -q"]);
        assert_eq!(told(kafs, "program = /x", false), ["there is no /usr/bin/aklog-kafs"]);
        assert_eq!(told(&all, "program = /x,-y", true), ["/x -y!", "/usr/bin/aklog-kafs"]);
        assert_eq!(told(&all[..1], "", true), ["no seeder is configured"]);
        assert_eq!(told(&all[..1], "program = /x", true), ["/x"]);
        assert_eq!(told(&[], "program = /x", true), [""; 0]);
    }

    #[test]
    fn what_was_discarded_is_not_got() {
        let own = |_| Some(cell("own.test"));
        let told = |clients: &[Client], more: &str, home: &str, without: &str| {
            let (runs, _) = runs(clients, &settings(more), &alice(home), &Without::parse(without), |_| true, own);
            runs.into_iter().map(|run| run.words.join(" ")).collect::<Vec<_>>()
        };
        let (openafs, kafs) = (&[Client::OpenAfs][..], &[Client::Kafs][..]);
        let both = "afs_cells = a.test,b.test";
        assert_eq!(told(openafs, both, "/home/x", "b.test"), ["/usr/bin/aklog -c a.test"]);
        assert_eq!(told(kafs, both, "/home/x", "b.test"), ["/usr/bin/aklog-kafs a.test"]);
        let home = "afs_cells = a.test\naklog_homedir = yes";
        assert_eq!(told(openafs, home, "/afs/b.test/x", "b.test"), ["/usr/bin/aklog -c a.test"]);
        assert_eq!(told(openafs, home, "/afs/b.test/x", "a.test"), ["/usr/bin/aklog -p /afs/b.test/x"]);
        // Its cell is not to be seen; what it brings is discarded again.
        assert_eq!(told(openafs, home, "/home/x", "a.test"), ["/usr/bin/aklog -p /home/x"]);
        for clients in [openafs, kafs] {
            assert_eq!(told(clients, both, "/home/x", "a.test b.test"), [""; 0]);
            assert_eq!(told(clients, home, "/afs/b.test/x", "a.test b.test"), [""; 0]);
            assert_eq!(told(clients, "", "/home/x", "own.test"), [""; 0], "the host's own cell");
            assert_eq!(told(clients, "", "/home/x", "other.test").len(), 1);
            assert_eq!(told(clients, both, "/home/x", "*"), [""; 0]);
        }
    }

    #[test]
    fn what_is_left_out_is_told_in_a_variable() {
        let one = Without { all: true, cells: vec![cell("a.test"), cell("b.test")] };
        assert_eq!(one.to_string(), "* a.test b.test");
        assert_eq!(Without::parse(&one.to_string()), one);
        assert!(Without::parse("").is_nothing() && !Without::parse("a.test").is_nothing());
    }

    #[test]
    fn a_failure_names_the_cells_that_it_is_about() {
        let token = |name: &str, expires| Token {
            client: Client::Kafs,
            cell: cell(name),
            principal: None,
            vice_id: None,
            kind: None,
            expires,
            state: TokenState::Good,
        };
        let told = |before: &[Token], after: &[Token]| -> String {
            let missed = missed(&want(Client::Kafs, &["a.test", "b.test"]), before, after);
            missed.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let (a, b) = (token("a.test", 50), token("b.test", 50));
        let later = token("a.test", 90);
        assert_eq!(told(&[], std::slice::from_ref(&a)), "b.test");
        assert_eq!(told(&[], &[]), "a.test b.test");
        assert_eq!(told(&[a.clone(), b.clone()], &[later, b.clone()]), "b.test", "it is the old one still");
        let revoked = Token { state: TokenState::Revoked, ..b.clone() };
        assert_eq!(told(&[a.clone(), b.clone()], &[a.clone(), revoked]), "b.test");
        assert_eq!(told(&[a.clone(), b.clone()], &[a, b]), "a.test b.test", "it cannot be told");
    }

    fn tokens(client: Client, all: &[(&str, u64)]) -> Vec<Token> {
        let token = |(name, expires): &(&str, u64)| Token {
            client,
            cell: cell(name),
            principal: None,
            vice_id: None,
            kind: None,
            expires: *expires,
            state: TokenState::Good,
        };
        all.iter().map(token).collect()
    }

    #[test]
    fn what_the_ring_holds_decides_what_a_seeder_has_brought() {
        let told = |names: &[&str], before: Option<&[(&str, u64)]>, after: &[(&str, u64)]| -> String {
            let before = before.map(|before| tokens(Client::OpenAfs, before));
            let after = tokens(Client::OpenAfs, after);
            let Brought { got, missed, aliases } = brought(&want(Client::OpenAfs, names), before.as_deref(), &after);
            let list = |all: &[Wanted]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let aliases: Vec<String> = aliases.iter().map(|one| format!("{}={}", one.name, one.cell)).collect();
            format!("{}|{}|{}", list(&got), list(&missed), aliases.join(" "))
        };
        let none = Some(&[][..]);
        assert_eq!(told(&["a.test"], none, &[("a.test", 9)]), "a.test||");
        assert_eq!(told(&["A.TEST"], none, &[("a.test", 9)]), "A.TEST||", "upper and lower case are the same");
        assert_eq!(told(&["a.test"], none, &[]), "|a.test|", "it has gone into the background");
        assert_eq!(told(&["a"], none, &[("a.test", 9)]), "a||a=a.test");
        assert_eq!(told(&["a"], Some(&[("b.test", 9)]), &[("b.test", 9)]), "|a|", "what was there before is not its");
        assert_eq!(told(&["a"], Some(&[("a.test", 8)]), &[("a.test", 9)]), "a||a=a.test");
        assert_eq!(told(&["a", "b.test"], none, &[("a.test", 9), ("b.test", 9)]), "a b.test||a=a.test");
        assert_eq!(told(&["a", "b.test"], none, &[("b.test", 9)]), "b.test|a|", "one token is not for two names");
        assert_eq!(told(&["a"], None, &[("a.test", 9)]), "a||", "nobody has looked before");
        assert_eq!(told(&["a.test"], Some(&[("a.test", 9)]), &[]), "||", "a member has cut it away");
        let default = [Wanted { client: Client::OpenAfs, cell: None }];
        assert_eq!(brought(&default, None, &tokens(Client::OpenAfs, &[("x.test", 9)])).got, default);
        assert_eq!(brought(&default, None, &tokens(Client::Kafs, &[("x.test", 9)])).missed, default);
    }

    #[test]
    fn a_name_that_has_brought_a_token_is_known_at_the_next_login() {
        let of = |all: &[(&str, u64)], before: &[Held]| held(&tokens(Client::OpenAfs, all), before, 0);
        let alias = |name: &str, of: &str| Alias { client: Client::OpenAfs, name: cell(name), cell: cell(of) };
        let mut first = of(&[("a.test", 3600), ("b.test", 3600)], &[]);
        let wanted = want(Client::OpenAfs, &["EX", "B.TEST"]);
        assert!(!are_good(&first, &wanted, 0));
        note_aliases(&mut first, &[alias("EX", "a.test"), alias("ex", "a.test"), alias("A.test", "a.test")]);
        assert_eq!(first[0].aliases, [cell("ex")], "each name once, and not its own");
        assert!(are_good(&first, &wanted, 0));
        let renewed = of(&[("a.test", 7200), ("b.test", 3600)], &first);
        assert!(are_good(&renewed, &wanted, 0), "a new token of the cell has the cell's names");
        assert!(!are_good(&of(&[("b.test", 3600)], &first), &wanted, 0), "without the token the name is of no use");
        let mut both = of(&[("a.test", 3600), ("b.test", 5)], &[]);
        note_aliases(&mut both, &[alias("ex", "a.test"), alias("ex", "b.test")]);
        assert!(!are_good(&both, &want(Client::OpenAfs, &["ex"]), 4), "of two that a name has brought both must serve");
    }

    #[test]
    fn a_token_keeps_the_time_when_it_was_first_seen() {
        let token = Token {
            client: Client::Kafs,
            cell: cell("a.test"),
            principal: None,
            vice_id: None,
            kind: None,
            expires: 50,
            state: TokenState::Good,
        };
        let again = |token: Token, before: &[Held]| held(&[token], before, 20)[0].since;
        let first = held(std::slice::from_ref(&token), &[], 10);
        assert_eq!(first[0].since, 10);
        assert_eq!(again(token.clone(), &first), 10);
        assert_eq!(again(Token { expires: 60, ..token.clone() }, &first), 20);
        assert_eq!(again(Token { client: Client::OpenAfs, ..token.clone() }, &first), 20);
        assert!(held(&[Token { state: TokenState::Revoked, ..token }], &first, 20).is_empty());
    }

    #[test]
    fn a_budget_goes_on_from_hook_to_hook() {
        let budget = Budget::new(Duration::from_secs(5), Duration::from_secs(6));
        assert!(budget.left().is_zero());
        assert!(budget.spent() >= Duration::from_secs(6));
    }
}
