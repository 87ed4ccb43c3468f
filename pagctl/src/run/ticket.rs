//! Where the tokens come from: a ccache or a keytab, and the seeders.

use std::ffi::CString;
use std::fs::{DirBuilder, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, io};

use pag::ccache::{self, CcacheName, Contents, DefaultName, Unread};
use pag::config::{Settings, keytab};
use pag::policy;
use pag::seed::{Budget, Excluded, Job, run_and_judge};
use pag::store::ring::Enter;
use pag::sys::{self, Identity, Passwd, Who};
use pag::types::{Cell, Token, TokenState};

/// Shortest and longest pause between two attempts to get the first tokens.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The source of tickets, as the caller named it.
#[derive(Debug)]
pub(super) enum Source {
    /// A ccache: its name, and the name taken apart.
    Ccache(String, CcacheName),
    /// A keytab, and the principal in it.
    Keytab(String, String),
}

impl Source {
    /// A principal in a keytab.
    pub(super) fn keytab(file: &Path, principal: &str) -> Result<Self, String> {
        let file = file.to_str().ok_or_else(|| format!("{} is no text", file.display()))?;
        check_keytab(file)?;
        Ok(Source::Keytab(file.to_owned(), principal.to_owned()))
    }

    /// The source that the options name, or else the caller's default ccache.
    pub(super) fn new(keytab: Option<&Path>, principal: Option<&str>, ccache: Option<&str>) -> Result<Self, String> {
        if let (Some(file), Some(principal)) = (keytab, principal) {
            // The keeper looks for it again, from another directory.
            let file = std::path::absolute(file).map_err(|error| format!("{}: {error}", file.display()))?;
            return Source::keytab(&file, principal);
        }
        let named = ccache.map(str::to_owned).or_else(|| env::var("KRB5CCNAME").ok().filter(|name| !name.is_empty()));
        let [_, uid, _] = sys::ids().uid;
        let name = named
            .or_else(|| DefaultName::read().name_of(uid))
            .ok_or("which ccache is yours cannot be told: set KRB5CCNAME, or give --ccache NAME")?;
        let parsed = CcacheName::parse(&name).map_err(|why| format!("ccache {name} cannot be used: {why}"))?;
        if parsed.is_of_session() {
            return Err(format!(
                "ccache {name} is in the session keyring, which the new PAG replaces; give --ccache with one of type FILE, \
                 DIR, KCM or KEYRING:persistent"
            ));
        }
        Ok(Source::Ccache(name, parsed))
    }
}

/// Fails unless the keytab belongs to the caller, and no other account can read or replace it.
fn check_keytab(file: &str) -> Result<(), String> {
    let [_, uid, _] = sys::ids().uid;
    keytab::check(Path::new(file), uid).map_err(|why| format!("keytab {file} is refused: {why}"))
}

/// Why a ticket brings no tokens, in words, and what to do.
type Why = String;

/// How to get tokens.
#[derive(Debug)]
pub(super) struct Ticket {
    source: Source,
    settings: Settings,
    /// The caller, who runs the seeders.
    identity: Identity,
    user: Passwd,
    environment: Vec<CString>,
}

impl Ticket {
    pub(super) fn new(source: Source, mut settings: Settings, cells: &[Cell]) -> Self {
        if !cells.is_empty() {
            settings.afs_cells = cells.to_vec();
        }
        // The home is the caller's. Other identities have theirs elsewhere.
        if !cells.is_empty() || matches!(source, Source::Keytab(..)) {
            settings.aklog_homedir = false;
        }
        let ids = sys::ids();
        let ([_, uid, _], [_, gid, _]) = (ids.uid, ids.gid);
        let found = if settings.aklog_homedir { sys::passwd(Who::Uid(uid)).ok().flatten() } else { None };
        // Else nothing that a seeder needs is in the password database, and asking it may take long.
        let user = found.unwrap_or_else(|| Passwd { name: CString::default(), uid, gid, home: c"/".to_owned() });
        let variable = |name: &str| {
            let value = env::var_os(name)?;
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
        };
        Ticket {
            source,
            settings,
            identity: Identity { uid, gid, groups: Vec::new() },
            user,
            environment: ["KRB5_CONFIG", "KRB5_TRACE"].into_iter().filter_map(variable).collect(),
        }
    }

    /// The caller.
    pub(super) fn uid(&self) -> u32 {
        self.identity.uid
    }

    /// How long one attempt may take.
    pub(super) fn time(&self) -> Duration {
        self.settings.timeout
    }

    /// Gets the first tokens.
    ///
    /// # Errors
    /// In words.
    pub(super) fn fill(&self, ring: &dyn Enter) -> Result<Vec<Token>, Why> {
        let budget = Budget::new(self.time(), Duration::ZERO);
        if let Source::Ccache(name, _) = &self.source {
            let contents = self.read(budget.deadline())?;
            if !contents.is_alive(sys::now()) && !self.settings.always_aklog {
                return Err(format!("the ticket in ccache {name} has ended; get a new one with kinit"));
            }
        }
        self.seed(ring, Excluded::default(), &budget)
    }

    /// Gets new tokens in the place of those that are there since `since` and end at `end`. A ticket that can be renewed is
    /// renewed in the caller's ccache, as krenew(1) does.
    ///
    /// # Errors
    /// In words.
    pub(super) fn renew(
        &self,
        ring: &dyn Enter,
        excluded: Excluded,
        (since, end): (u64, u64),
    ) -> Result<Vec<Token>, Why> {
        let budget = Budget::new(self.time(), Duration::ZERO);
        let Source::Ccache(name, _) = &self.source else { return self.seed(ring, excluded, &budget) };
        let mut ticket = self.read(budget.deadline())?.summary;
        let now = sys::now();
        let [starts, ends, until] =
            [ticket.tgt_starts, ticket.tgt_expires, ticket.tgt_renew_until].map(Option::unwrap_or_default);
        if policy::is_ticket_due(starts, ends, until, now) {
            let renewed = self.job(Some(name), Excluded::default(), |job| job.renew(&budget));
            renewed
                .map_err(|error| error.to_string())?
                .map_err(|why| format!("the ticket in ccache {name} is not renewed: {why}"))?;
            ticket = self.read(budget.deadline())?.summary;
        }
        if !policy::is_later(ticket.last_end, since, end) && now < end {
            return Err(format!(
                "the ticket in ccache {name} ends no later than the tokens, and cannot be renewed; get a new one with kinit"
            ));
        }
        self.seed(ring, excluded, &budget)
    }

    /// Whether any token is wanted but those that are excluded.
    pub(super) fn wants_any_but(&self, excluded: &Excluded) -> bool {
        self.job(None, excluded.clone(), |job| !job.wanted().is_empty())
    }

    /// Reads the ccache. Not with a keytab.
    fn read(&self, deadline: Instant) -> Result<Contents, Why> {
        let Source::Ccache(name, parsed) = &self.source else { return Err("there is no ccache".to_owned()) };
        ccache::read(parsed, &self.identity, deadline).map_err(|why| match why {
            Unread::Missing => format!(
                "there is no ticket in ccache {name}; get one with kinit, or give --keytab FILE --principal PRINCIPAL"
            ),
            why => format!("ccache {name} cannot be used: {why}"),
        })
    }

    fn seed(&self, ring: &dyn Enter, excluded: Excluded, budget: &Budget) -> Result<Vec<Token>, Why> {
        match &self.source {
            Source::Ccache(name, _) => self.run(ring, name, excluded, budget),
            Source::Keytab(file, principal) => {
                check_keytab(file)?;
                let private = PrivateDirectory::make(self.identity.uid)
                    .map_err(|error| format!("cannot make a private directory for the ticket: {error}"))?;
                let ccache = format!("FILE:{}", private.0.join("cc").display());
                let got = self.job(Some(&ccache), Excluded::default(), |job| job.kinit(file, principal, budget));
                got.map_err(|error| error.to_string())?
                    .map_err(|why| format!("keytab {file} brings no ticket of {principal}: {why}"))?;
                self.run(ring, &ccache, excluded, budget)
            }
        }
    }

    /// Runs the seeders.
    fn run(&self, ring: &dyn Enter, ccache: &str, excluded: Excluded, budget: &Budget) -> Result<Vec<Token>, Why> {
        self.job(Some(ccache), excluded, |job| {
            if job.wanted().is_empty() {
                return Err("this host has no AFS client, or pag.conf(5) names none that it has".to_owned());
            }
            let judged = run_and_judge(job, Some(ring), None, budget);
            judged.result?;
            Ok(judged.tokens.unwrap_or_default())
        })
    }

    fn job<T>(&self, ccache: Option<&str>, excluded: Excluded, work: impl FnOnce(&Job<'_>) -> T) -> T {
        work(&Job {
            settings: &self.settings,
            user: &self.user,
            identity: &self.identity,
            ccache,
            environment: &self.environment,
            excluded,
        })
    }
}

/// The end of the token that ends first, in seconds since the epoch. None if no token tells.
pub(super) fn first_end(tokens: &[Token]) -> Option<u64> {
    tokens.iter().filter(|token| token.state == TokenState::Good && token.expires > 0).map(|token| token.expires).min()
}

/// A directory that no other user can look into. It is removed with what is in it.
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    /// In memory: below /run for root, in the runtime directory of any other user that has one, and else in /tmp.
    fn make(uid: u32) -> io::Result<Self> {
        let is_own = |found: Metadata| found.is_dir() && found.uid() == uid && found.mode() & 0o077 == 0;
        let runtime = || {
            let path = PathBuf::from(env::var_os("XDG_RUNTIME_DIR")?);
            path.symlink_metadata().is_ok_and(is_own).then_some(path)
        };
        let parent = if uid == 0 { "/run".into() } else { runtime().unwrap_or_else(|| "/tmp".into()) };
        let mut bits = [0; 16];
        sys::random(&mut bits)?;
        let path = parent.join(format!("pagctl-{:032x}", u128::from_ne_bytes(bits)));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(PrivateDirectory(path))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
