//! The machine that is examined, and what one look at it has found.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pag::config::{self, Complaint, Dirs, Settings, Subject};
use pag::sys::{self, UserGroups, Who};

use super::finding::{Finding, Problem};
use super::programs::{Programs, Ran};

/// Largest file that is read, in bytes.
const LARGEST: u64 = 16 << 20;
/// Longest run of most programs; they need milliseconds.
pub(super) const QUICK: Duration = Duration::from_secs(4);

/// The account that the doctor is to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A machine.
pub(super) struct Host {
    /// Its `/`. Another one than ours only in tests.
    pub(super) root: PathBuf,
    /// Runs its programs.
    pub(super) programs: Box<dyn Programs>,
    /// Whether we are root there.
    pub(super) is_root: bool,
    /// The user to look at, too.
    pub(super) person: Option<Person>,
    /// What pag.conf says for the host.
    pub(super) settings: Settings,
    /// What is wrong in it.
    pub(super) complaints: Vec<Complaint>,
    dirs: Dirs,
}

impl Host {
    pub(super) fn new(root: &Path, programs: Box<dyn Programs>, is_root: bool, person: Option<Person>) -> Self {
        let below = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
        let real = Dirs::default();
        let dirs = Dirs {
            main: below(&real.main),
            drop_ins: real.drop_ins.iter().map(|path| below(path)).collect(),
            login_defs: below(&real.login_defs),
            owner: fs::metadata(root).map_or(0, |found| found.uid()),
        };
        let (settings, complaints) = config::host(&dirs);
        Host { root: root.to_owned(), programs, is_root, person, settings, complaints, dirs }
    }

    /// What pag.conf says for a user at a PAM service.
    pub(super) fn settings_of(&self, service: &str, uid: u32) -> Settings {
        let found = sys::passwd(Who::Uid(uid)).ok().flatten();
        let Some(user) = found else { return config::load(&self.dirs, service, None, &[]).0 };
        let groups = UserGroups::new(&user.name);
        let subject = Subject { name: &user.name.to_string_lossy(), is_in: &|group| groups.is_in(group) };
        config::load(&self.dirs, service, Some(&subject), &[]).0
    }

    /// Whether it is the machine that we run on.
    pub(super) fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The place of a file of the machine.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The command that puts the product's files back: that of Debian's package, if dpkg has it (its list of files says so).
    pub(super) fn install_again(&self) -> &'static str {
        if self.has("/var/lib/dpkg/info/libpam-pag.list") {
            "apt-get install --reinstall libpam-pag"
        } else {
            "cargo xtask install"
        }
    }

    pub(super) fn has(&self, path: &str) -> bool {
        // A file that we may not look at is there.
        self.at(path).try_exists().unwrap_or(true)
    }

    /// The text of a file. A FIFO is not waited for.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        self.bytes(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The bytes of a file.
    pub(super) fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let path = self.at(path);
        fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(LARGEST).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// The names in a directory, sorted.
    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(directory)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The permission bits of a file.
    pub(super) fn mode(&self, path: &str) -> Option<u32> {
        fs::metadata(self.at(path)).ok().map(|found| found.permissions().mode() & 0o7777)
    }
}

/// What one look has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) findings: Vec<Finding>,
    /// What is as it should be, in words.
    pub(super) fine: Vec<String>,
    /// What was not looked at, and why.
    pub(super) left_out: Vec<String>,
}

impl Look {
    pub(super) fn found(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    pub(super) fn fine(&mut self, words: impl Into<String>) {
        self.fine.push(words.into());
    }

    pub(super) fn left_out(&mut self, words: impl Into<String>) {
        self.left_out.push(words.into());
    }

    /// Asks a program of the host: its status, and what it wrote to standard output and to standard error. None, and a
    /// note of that, if it is not there or ran out of time.
    pub(super) fn ask(&mut self, host: &Host, words: &[&str], limit: Duration) -> Option<(i32, String, String)> {
        match host.programs.run(words, limit) {
            Ran::Done { status, out, err } => Some((status, out, err)),
            Ran::NotThere => {
                let program = words.first().unwrap_or(&"");
                self.left_out(format!("what {program} tells: this host does not have it"));
                None
            }
            Ran::TooSlow => {
                self.ran_out(&words.join(" "), limit);
                None
            }
        }
    }

    /// Notes that something did not end in time.
    pub(super) fn ran_out(&mut self, what: &str, limit: Duration) {
        let words = format!("no answer within {} s: {what}", limit.as_secs());
        let why = "what this would have told is not known";
        self.found(Finding::warning(Problem::NoAnswer, words, why).mend(what));
    }
}

/// The words of another program or of a user: one line, without control characters, and not too long.
pub(super) fn one_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().map(|c| if c.is_control() { '?' } else { c }).take(300).collect()
}
