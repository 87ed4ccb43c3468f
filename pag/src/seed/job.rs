//! A seeding job: its programs, run in the ring as the user.

use super::wanted::{cell_of_path, named};
use std::ffi::CString;
use std::path::Path;
use std::time::Duration;

use super::budget::Budget;
use super::excluded::Excluded;
use super::wanted::Wanted;
use super::wanted::cells;
use crate::afs::openafs::Device;
use crate::config::{AKLOG, AKLOG_KAFS, Settings};
use crate::error::Error;
use crate::error::Result;
use crate::store::ring::Ring;
use crate::sys;
use crate::sys::Exit;
use crate::sys::Identity;
use crate::sys::Passwd;
use crate::sys::Program;
use crate::types::Cell;
use crate::types::Client;

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
    pub excluded: Excluded,
}

/// Status of a child that could not prove that it is in the ring, and so ran nothing.
const STATUS_OUTSIDE: u8 = 126;
/// Status of a child that OpenAFS says is in no PAG, and so ran nothing.
const STATUS_NO_PAG: u8 = 123;

/// One program to be run, and for whom.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) words: Vec<String>,
    /// Whether it gives tokens to OpenAFS.
    pub(super) openafs: bool,
    /// The one cell that it is for; none: there are several, or its default.
    pub(super) cell: Option<Cell>,
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
        let (runs, missing) = runs(&clients, self.settings, self.user, &self.excluded, exists, Client::own_cell);
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
        all.into_iter().filter(|wanted| !self.excluded.has(wanted.cell.as_ref())).collect()
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
    // Where all that is named is left out, a seeder would get its default instead.
    let is_left_out = |client: &Client| {
        let home_by_link = settings.aklog_homedir && cell_of_path(user.home.to_bytes()).is_none();
        let nothing_named = named.is_empty() && !(home_by_link && *client != Client::Kafs);
        let own = || nothing_named && excluded.has(own(*client).as_ref());
        excluded.all || !named.is_empty() && cells.is_empty() && !home_by_link || own()
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
        if settings.aklog_homedir && !excluded.has(cell_of_path(user.home.to_bytes()).as_ref()) {
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

#[allow(unsafe_code)] // makes a child
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
    // SAFETY: `enter` makes system calls into memory that is there; it allocates nothing and takes no lock.
    let end = unsafe { sys::run(program, identity, left, enter) }.map_err(Error::system("run a seeder"))?;
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
