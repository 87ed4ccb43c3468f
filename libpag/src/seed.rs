//! What a PAG gets its tokens from.

use std::ffi::{CString, OsStr, OsString};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pag::config::{self, Dirs, Settings};
use pag::process_ring::ProcessRing;
use pag::seed::{Excluded, Job, run_and_judge};
use pag::sys::{self, Identity, Passwd};
use pag::types::{Cell, Client, TokenState};

use crate::error::{Error, Limit, Result};
use crate::shared::Origin;

/// The time for creating or renewing a PAG, unless the caller gives another.
const TIME: Duration = Duration::from_secs(5);

/// Where the ticket comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Source {
    /// There is none: the PAG is made without tokens.
    #[default]
    Nothing,
    /// A ccache, by its name as in KRB5CCNAME.
    Ccache(OsString),
    /// A keytab, and the principal in it.
    Keytab(PathBuf, String),
}

/// What a PAG gets its tokens from, and how long that may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    pub(crate) source: Source,
    pub(crate) cells: Vec<String>,
    pub(crate) time: Duration,
}

impl Default for Seed {
    fn default() -> Self {
        Self::nothing()
    }
}

impl Seed {
    fn new(source: Source) -> Self {
        Seed { source, cells: Vec::new(), time: TIME }
    }

    /// No tokens: the PAG alone. A program that runs inside it may get some.
    pub fn nothing() -> Self {
        Self::new(Source::Nothing)
    }

    /// The ticket in a ccache, named as in KRB5CCNAME: `FILE:/run/server/alice`. The ccache is read under the process's own
    /// ids, and is not changed.
    pub fn ccache(name: impl AsRef<OsStr>) -> Self {
        Self::new(Source::Ccache(name.as_ref().to_owned()))
    }

    /// A ticket for `principal` from a keytab. It is kept in a private directory while the tokens are made, and removed.
    pub fn keytab(file: impl AsRef<Path>, principal: impl Into<String>) -> Self {
        Self::new(Source::Keytab(file.as_ref().to_owned(), principal.into()))
    }

    /// The cells to get tokens for. Without this, those of pag.conf(5), or else the host's own cell.
    #[must_use]
    pub fn cells<I: IntoIterator<Item: Into<String>>>(self, cells: I) -> Self {
        Seed { cells: cells.into_iter().map(Into::into).collect(), ..self }
    }

    /// How long creating or renewing may take in all; 5 seconds without this.
    #[must_use]
    pub fn time(self, time: Duration) -> Self {
        Seed { time, ..self }
    }
}

/// A seed, after a check of its words, and the configuration that counts for it.
#[derive(Debug)]
pub(crate) struct Seeding<'a> {
    source: &'a Source,
    settings: Settings,
}

impl Seed {
    /// Checks its words, and reads the configuration: it says which AFS clients a PAG is made for, so this comes before
    /// the PAG is made.
    pub(crate) fn prepare(&self) -> Result<Seeding<'_>> {
        let is_empty = match &self.source {
            Source::Nothing => false,
            Source::Ccache(name) => name.is_empty(),
            Source::Keytab(file, principal) => file.as_os_str().is_empty() || principal.is_empty(),
        };
        if is_empty {
            return Err(Error::Invalid("the name of a ccache, keytab or principal is empty".to_owned()));
        }
        let cell = |name: &String| name.parse().map_err(|_| Error::Invalid(format!("'{name}' is no name of a cell")));
        let cells: Vec<Cell> = self.cells.iter().map(cell).collect::<Result<_>>()?;
        let mut settings = config::host(&Dirs::default()).0;
        // The home is that of the account, not of the identity that is served.
        settings.aklog_homedir = false;
        Client::configure(&settings);
        if !cells.is_empty() {
            settings.afs_cells = cells;
        }
        Ok(Seeding { source: &self.source, settings })
    }
}

impl Seeding<'_> {
    /// Gets tokens into `ring`. Returns when the first of them ends, in seconds since the epoch, or 0.
    ///
    /// `ring` has its name in ordinary memory as long as this takes: the child that runs the seeder enters by it.
    pub(crate) fn fill(&self, origin: &Origin, ring: &ProcessRing, limit: Limit) -> Result<u64> {
        match self.source {
            Source::Nothing => Ok(0),
            Source::Ccache(name) => self.run(origin, ring, &text(name)?, limit),
            Source::Keytab(file, principal) => {
                let private = PrivateDirectory::make(&origin.temporary)?;
                let ccache = format!("FILE:{}", text(private.0.join("cc").as_os_str())?);
                self.kinit(origin, &text(file.as_os_str())?, principal, &ccache, limit)?;
                self.run(origin, ring, &ccache, limit)
            }
        }
    }

    /// Runs the seeders.
    fn run(&self, origin: &Origin, ring: &ProcessRing, ccache: &str, limit: Limit) -> Result<u64> {
        self.job(origin, ccache, |job| {
            if job.wanted().is_empty() {
                return Err(Error::Seed(
                    "this host has no AFS client, or pag.conf(5) names none that it has".to_owned(),
                ));
            }
            let judged = run_and_judge(job, Some(ring), None, &limit.budget());
            judged.result.map_err(|why| failure(why, limit))?;
            let ends = judged.tokens.unwrap_or_default().into_iter().filter(|token| token.state == TokenState::Good);
            Ok(ends.map(|token| token.expires).filter(|end| *end != 0).min().unwrap_or(0))
        })
    }

    /// Gets a ticket from a keytab.
    fn kinit(&self, origin: &Origin, keytab: &str, principal: &str, ccache: &str, limit: Limit) -> Result<()> {
        let got = self.job(origin, ccache, |job| job.kinit(keytab, principal, &limit.budget()));
        let got = got.map_err(|error| Error::Seed(error.to_string()))?;
        got.map_err(|why| failure(format!("{why} ({keytab}, {principal})"), limit))
    }

    fn job<T>(&self, origin: &Origin, ccache: &str, work: impl FnOnce(&Job<'_>) -> T) -> T {
        let Identity { uid, gid, .. } = origin.identity;
        // Nothing that a seeder needs is in the password database.
        let user = Passwd { name: CString::default(), uid, gid, home: c"/".to_owned() };
        work(&Job {
            settings: &self.settings,
            user: &user,
            identity: &origin.identity,
            ccache: Some(ccache),
            environment: &origin.environment,
            excluded: Excluded::default(),
        })
    }
}

/// The error of a seeder that has failed.
fn failure(why: String, limit: Limit) -> Error {
    if limit.is_over() { limit.timeout("get tokens for a PAG") } else { Error::Seed(why) }
}

/// A name that goes onto a command line.
fn text(name: &OsStr) -> Result<String> {
    let text = name.to_str().filter(|text| !text.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| Error::Invalid(format!("{} is no text", name.display())))
}

/// A directory that no other user can look into, and that is removed with what is in it.
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn make(parent: &Path) -> Result<Self> {
        const DOING: &str = "make a private directory for a ticket";
        let mut bits = [0; 16];
        sys::random(&mut bits).map_err(Error::system(DOING))?;
        let path = parent.join(format!("pag-{:032x}", u128::from_ne_bytes(bits)));
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::system(DOING))?;
        Ok(PrivateDirectory(path))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
