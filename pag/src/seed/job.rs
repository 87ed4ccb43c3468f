//! The seeders of one user. They run in the ring, as the user.

use std::ffi::CString;
use std::path::Path;
use std::time::Duration;

use super::budget::Budget;
use super::excluded::Excluded;
use super::wanted::{Wanted, cell_of_path, cells, named};
use crate::afs::openafs::Device;
use crate::config::{AKLOG, AKLOG_KAFS, ConfigSource, Settings};
use crate::error::{Error, Result};
use crate::store::ring::Enter;
use crate::sys::{self, Exit, Identity, Passwd, Program, Said};
use crate::types::{Cell, Client, quoted_words};

/// The seeders to run for one user: one or more for each client.
#[derive(Debug)]
pub struct Job<'a> {
    /// The settings for this user and PAM service.
    pub settings: &'a Settings,
    /// The user that gets the tokens.
    pub user: &'a Passwd,
    /// The ids and groups that the seeders run with.
    pub identity: &'a Identity,
    /// The ccache with the ticket. None only with `always_aklog`.
    pub ccache: Option<&'a str>,
    /// The environment, `NAME=value` each.
    pub environment: &'a [CString],
    /// The tokens that the seeders must not get.
    pub excluded: Excluded,
}

/// Status of a child that is not in the ring. It has run no seeder.
const STATUS_OUTSIDE: u8 = 126;
/// Status of a child that is in no PAG of OpenAFS. It has run no seeder.
const STATUS_NO_PAG: u8 = 123;

/// One run of a seeder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The program and its arguments.
    pub(super) words: Vec<String>,
    /// Whether it gives tokens to OpenAFS.
    pub(super) openafs: bool,
    /// The cell that it gets a token for. None if it gets tokens for several cells, or for its default.
    pub(super) cell: Option<Cell>,
    /// The place that names the program. None for the default.
    pub(super) place: Option<ConfigSource>,
}

impl Run {
    /// A run of a kAFS seeder for one cell.
    fn of_cell(words: &[String], cell: &Cell, place: Option<ConfigSource>) -> Self {
        Run { words: [words, &[cell.to_string()]].concat(), openafs: false, cell: Some(cell.clone()), place }
    }

    /// Its name in messages.
    fn name(&self) -> String {
        let program = self.words.first().map_or("", String::as_str);
        self.cell.as_ref().map_or_else(|| program.to_owned(), |cell| format!("{program} {cell}"))
    }
}

/// What is run, and where its words go.
struct Task<'a> {
    /// Its name in messages.
    name: &'a str,
    /// The place that names the program.
    place: Option<&'a ConfigSource>,
    program: &'a Program,
    identity: &'a Identity,
}

impl Job<'_> {
    /// Runs the seeders of all clients that are served. They run in `ring`, or, without a ring (`nopag`), where the
    /// caller is. A seeder that fails does not stop the others. Also returns what seeders said that ended with status 0.
    ///
    /// # Errors
    /// `System` when the kernel makes no child.
    pub fn run(&self, ring: Option<&dyn Enter>, budget: &Budget) -> Result<(Outcome, Vec<String>)> {
        let (mut failures, mut words) = (Vec::new(), Vec::new());
        let (clients, exists) = (Client::present(self.settings), |path: &str| Path::new(path).exists());
        let (runs, missing) = runs(&clients, self.settings, self.user, &self.excluded, exists, Client::own_cell);
        failures.extend(missing);
        for one in runs {
            let name = one.name();
            let Some(program) = self.program(one.words) else {
                failures.push(format!("the command line of {name} holds a NUL"));
                continue;
            };
            let task = Task { name: &name, place: one.place.as_ref(), program: &program, identity: self.identity };
            let (outcome, said) = run(&task, ring, one.openafs, budget)?;
            failures.extend(outcome.err());
            words.extend(said);
        }
        Ok((if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }, words))
    }

    /// The tokens that the seeders should get.
    pub fn wanted(&self) -> Vec<Wanted> {
        let all = cells(&Client::present(self.settings), self.settings, self.user);
        all.into_iter().filter(|wanted| !self.excluded.has(wanted.cell.as_ref())).collect()
    }

    /// Destroys the login's own ccache, as the user. The PAG has its own copy by then.
    ///
    /// # Errors
    /// As [`Job::run`].
    pub fn kdestroy(&self, budget: &Budget) -> Result<Outcome> {
        self.tool("kdestroy", &["/usr/bin/kdestroy", "-q"], budget)
    }

    /// Renews the ticket-granting ticket, as the user, where the caller is.
    ///
    /// # Errors
    /// As [`Job::run`].
    pub fn renew(&self, budget: &Budget) -> Result<Outcome> {
        self.tool("kinit -R", &["/usr/bin/kinit", "-R"], budget)
    }

    /// Gets a ticket for `principal` from a keytab into the job's ccache, as the user, where the caller is.
    ///
    /// # Errors
    /// As [`Job::run`].
    pub fn kinit(&self, keytab: &str, principal: &str, budget: &Budget) -> Result<Outcome> {
        self.tool("kinit", &["/usr/bin/kinit", "-k", "-t", keytab, "--", principal], budget)
    }

    /// Runs a program of Kerberos, as the user, where the caller is.
    fn tool(&self, name: &str, words: &[&str], budget: &Budget) -> Result<Outcome> {
        match self.program(words.iter().copied().map(str::to_owned).collect()) {
            Some(program) => {
                Ok(run(&Task { name, place: None, program: &program, identity: self.identity }, None, false, budget)?.0)
            }
            None => Ok(Err(format!("the command line or the environment of {name} holds a NUL"))),
        }
    }

    /// The program with these arguments and the job's ccache in its environment. None if an argument contains a NUL.
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

/// The seeders to run. For a client without a seeder, the reason, in words. aklog-kafs takes one cell, or none for the
/// default cell of the kernel.
pub(super) fn runs(
    clients: &[Client],
    settings: &Settings,
    user: &Passwd,
    excluded: &Excluded,
    exists: impl Fn(&str) -> bool,
    own: impl Fn(Client) -> Option<Cell>,
) -> (Vec<Run>, Vec<String>) {
    let (mut runs, mut missing) = (Vec::new(), Vec::new());
    let named = named(settings, user);
    let cells: Vec<Cell> = named.iter().filter(|cell| !excluded.has(Some(cell))).cloned().collect();
    // A client of which each wanted token is excluded gets no run. Without a cell, its seeder would take its default
    // cell.
    let is_left_out = |client: &Client| {
        let home_by_link = settings.aklog_homedir && cell_of_path(user.home.to_bytes()).is_none();
        let nothing_named = named.is_empty() && !(home_by_link && *client != Client::Kafs);
        let own = || nothing_named && excluded.has(own(*client).as_ref());
        excluded.all || !named.is_empty() && cells.is_empty() && !home_by_link || own()
    };
    let clients: Vec<Client> = clients.iter().copied().filter(|client| !is_left_out(client)).collect();
    let (openafs, keyring) = (clients.contains(&Client::OpenAfs), clients.contains(&Client::Keyring));
    let default = |path: &str| exists(path).then(|| vec![path.to_owned()]);
    let [place, kafs_place] = settings.program_places.clone();
    match settings.program.clone() {
        // One run serves both clients.
        Some(words) if openafs || keyring => runs.push(Run { words, openafs, cell: None, place }),
        None if openafs => match default(AKLOG) {
            Some(words) => runs.push(Run { words, openafs, cell: None, place: None }),
            None => missing.push(format!("there is no {AKLOG}: install OpenAFS's, or set program in pag.conf")),
        },
        _ => {}
    }
    if settings.program.is_none() && keyring {
        missing.push("no seeder is configured: set program in pag.conf".to_owned());
    }
    for Run { words, .. } in &mut runs {
        words.extend(aklog_arguments(settings, user, excluded, &cells));
    }
    if clients.contains(&Client::Kafs) {
        match settings.kafs_program.clone().or_else(|| default(AKLOG_KAFS)) {
            Some(words) if named.is_empty() => {
                runs.push(Run { words, openafs: false, cell: None, place: kafs_place });
            }
            Some(words) => runs.extend(cells.iter().map(|cell| Run::of_cell(&words, cell, kafs_place.clone()))),
            None => missing.push(format!("there is no {AKLOG_KAFS}: install it, or set kafs_program in pag.conf")),
        }
    }
    (runs, missing)
}

/// The arguments of aklog for the home and for `cells`. Heimdal's afslog takes the same (OpenAFS, src/aklog/aklog.c;
/// Heimdal, appl/afsutil/afslog.c).
fn aklog_arguments(settings: &Settings, user: &Passwd, excluded: &Excluded, cells: &[Cell]) -> Vec<String> {
    let mut words = Vec::new();
    if settings.aklog_homedir && !excluded.has(cell_of_path(user.home.to_bytes()).as_ref()) {
        words.extend(["-p".to_owned(), user.home.to_string_lossy().into_owned()]);
    }
    for cell in settings.afs_cells.iter().filter(|cell| cells.contains(cell)) {
        words.extend(["-c".to_owned(), cell.to_string()]);
    }
    words
}

/// The result of a program. The error says in words what went wrong.
pub type Outcome = std::result::Result<(), String>;

/// Runs a program in `ring`, as the user. With `openafs`, it runs only in a PAG of OpenAFS. Returns how it ended, and, if
/// that was with status 0, what it said.
#[allow(unsafe_code)] // makes a child
fn run(task: &Task<'_>, ring: Option<&dyn Enter>, openafs: bool, budget: &Budget) -> Result<(Outcome, Option<String>)> {
    let left = budget.left();
    if left.is_zero() {
        return Ok((Err(format!("{} was not run: the time of this login is used up", task.name)), None));
    }
    let device = if openafs { Device::served() } else { None };
    let enter = || {
        // Outside the PAG, the tokens of a seeder would go to all processes with this uid.
        let Some(ring) = ring else { return Ok(()) };
        if !ring.is_current() && !ring.enter_in_child() {
            return Err(STATUS_OUTSIDE);
        }
        let is_member = |device: &Device| device.open().is_ok_and(|interface| interface.is_member());
        if openafs && !device.as_ref().is_some_and(is_member) { Err(STATUS_NO_PAG) } else { Ok(()) }
    };
    // Without room for its words, the program runs all the same.
    let said = Said::new().ok();
    // SAFETY: `enter` makes system calls into memory that is there; it allocates nothing and takes no lock.
    let end = unsafe { sys::run(task.program, task.identity, left, said.as_ref(), enter) };
    let end = end.map_err(Error::system(format!("run {}", task.name)))?;
    let words = words_of(said.as_ref()).filter(|_| end == Exit::Status(0));
    Ok((in_words(task, end, left, said.as_ref()), words.map(|words| format!("{} said {words}", task.name))))
}

/// The words of a program.
fn words_of(said: Option<&Said>) -> Option<String> {
    said.and_then(|said| quoted_words(&said.bytes()))
}

/// The end of a program, in words, and its own words.
fn in_words(task: &Task<'_>, end: Exit, left: Duration, said: Option<&Said>) -> Outcome {
    let name = task.name;
    let why = match end {
        Exit::Status(0) => return Ok(()),
        Exit::Status(STATUS_OUTSIDE) => {
            return Err(format!("the ring could not be entered, so {name} was not run"));
        }
        Exit::Status(STATUS_NO_PAG) => {
            return Err(format!(
                "this ring has no PAG of OpenAFS, so {name} was not run: its tokens would go to all processes with this uid"
            ));
        }
        Exit::Status(sys::STATUS_NOT_STARTED) => {
            let place = task.place.map(|place| format!(" (set at {place})")).unwrap_or_default();
            format!("{name}{place} could not be started, or ended with status 127")
        }
        Exit::Status(sys::STATUS_SIGNAL) => format!("a signal ended {name}"),
        Exit::Status(sys::STATUS_DEADLINE) | Exit::TimedOut => {
            format!("{name} was killed: it had not ended within {} ms", sys::millis(left))
        }
        Exit::Status(status) => format!("{name} ended with status {status}"),
        Exit::Signal(signal) => format!("signal {signal} ended the supervisor of {name}"),
    };
    Err(words_of(said).map_or_else(|| format!("{why}; it said nothing"), |words| format!("{why}: {words}")))
}
