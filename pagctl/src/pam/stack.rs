//! The stacks of a service, as libpam puts them together from its files.
//!
//! Read in pam_handlers.c (`_pam_parse_conf_file`, `_pam_load_conf_file`, `_pam_add_handler`) of Linux-PAM 1.5.2 and 1.7.0
//! with Debian's patches.

use super::control::Control;
use super::parse::{Entry, Facility, Libpam, Meaning, parse};

/// Where libpam looks for a service, first match wins (Linux-PAM, pam_handlers.c, `_pam_open_config_file`: /etc, then
/// the distribution's directory, then the vendor's where one was configured).
pub(crate) const DIRECTORIES: [&str; 4] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d", "/usr/share/pam.d"];

/// libpam refuses deeper nesting, too (`PAM_SUBSTACK_MAX_LEVEL`).
pub(super) const DEPTH: usize = 16;
/// No real stack reads more files; includes that multiply stop here.
const READS: usize = 400;

/// The result of opening a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opened {
    /// Its text.
    Text(String),
    /// It does not exist.
    Missing,
    /// It exists and we cannot read it, for this reason. libpam may be able to.
    Unreadable(String),
}

/// A source of PAM files. Paths are absolute, as the host sees them that the files are for.
pub(crate) trait Files {
    /// Opens a file.
    fn open(&self, path: &str) -> Opened;

    /// The libpam that will read them.
    fn libpam(&self) -> Libpam;

    /// The names in a directory, sorted; none when it is not there.
    fn names(&self, directory: &str) -> Vec<String>;

    /// The path of a file with all symbolic links followed.
    fn real_path(&self, path: &str) -> String {
        path.to_owned()
    }

    /// The text of a file that can be read.
    fn text(&self, path: &str) -> Option<String> {
        match self.open(path) {
            Opened::Text(text) => Some(text),
            Opened::Missing | Opened::Unreadable(_) => None,
        }
    }

    /// The file of a service.
    fn service(&self, name: &str) -> Option<String> {
        let path = DIRECTORIES.iter().map(|dir| format!("{dir}/{name}"));
        path.into_iter().find(|path| self.open(path) != Opened::Missing)
    }
}

/// What libpam does at a step of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// It calls the module.
    Module,
    /// It calls nothing, and has the answer PAM_PERM_DENIED.
    MustFail,
    /// A substack begins after it.
    Substack,
}

/// One place in a stack.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// What libpam does here.
    pub(crate) call: Call,
    /// What libpam does about the answer.
    pub(crate) control: Control,
    /// How many substacks it is in.
    pub(crate) level: usize,
    /// Its line.
    pub(crate) entry: Entry,
    /// The file that it stands in.
    pub(crate) path: String,
    /// Its line there, counted from 0 in logical lines.
    pub(crate) line: usize,
    /// The number of that line, as editors count.
    pub(crate) number: usize,
    /// The line of the service's own file that brought it.
    pub(crate) top: usize,
}

impl Step {
    /// Whether libpam calls this module here.
    pub(crate) fn calls(&self, module: &str) -> bool {
        self.call == Call::Module && self.entry.calls(module)
    }

    /// Its place, for people.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.path, self.number)
    }
}

/// A mistake in a stack's files, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// In words.
    pub(crate) text: String,
    /// Whether libpam's answer is unknown, to us or in principle.
    pub(crate) unsure: bool,
}

/// A service's stacks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stacks {
    /// By facility, in the order of [`Facility::ALL`].
    steps: [Vec<Step>; 4],
    /// In the order of reading.
    pub(crate) trouble: Vec<Trouble>,
    /// Whether libpam gives up at once (pam_start fails).
    pub(crate) refused: bool,
    /// The files that make them up.
    pub(crate) files: Vec<String>,
    /// The facilities that are not taken from `other`.
    own: Vec<Facility>,
}

impl Stacks {
    /// Reads a service's file, without the stacks of `other`: see [`Stacks::of`].
    pub(crate) fn of_file(files: &dyn Files, path: &str) -> Self {
        let mut stacks = Self::default();
        let mut reader = Reader { files, libpam: files.libpam(), stacks: &mut stacks, reads: 0 };
        let done = reader.load(path, Reading { requested: None, includes: 0, level: 0, top: None });
        // A service without a file of its own has the stacks of `other`.
        stacks.refused = done.is_err() && files.open(path) != Opened::Missing;
        stacks
    }

    /// Reads the stacks of a service. For a facility without a line in the service's own file these are the stacks of `other`.
    pub(crate) fn of(files: &dyn Files, path: &str) -> Self {
        let mut stacks = Self::of_file(files, path);
        stacks.own = Facility::ALL.into_iter().filter(|facility| !stacks.steps(*facility).is_empty()).collect();
        if let Some(other) = files.service("other") {
            let other = Self::of_file(files, &other);
            stacks.refused |= other.refused;
            for (own, others) in stacks.steps.iter_mut().zip(other.steps).filter(|(own, _)| own.is_empty()) {
                *own = others;
            }
        }
        stacks
    }

    /// Its steps for a facility.
    pub(crate) fn steps(&self, facility: Facility) -> &[Step] {
        self.steps.get(facility as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether its own file, or a file that it includes, has a line for a facility.
    pub(crate) fn has_own(&self, facility: Facility) -> bool {
        self.own.contains(&facility)
    }

    /// All steps of all facilities.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Facility, &Step)> {
        Facility::ALL.into_iter().flat_map(|facility| self.steps(facility).iter().map(move |step| (facility, step)))
    }
}

/// libpam gives up what it is reading (PAM_ABORT).
struct Abort;

/// How a file is read.
#[derive(Clone, Copy)]
struct Reading {
    /// The facility of the lines that are wanted, if not all are.
    requested: Option<Facility>,
    includes: usize,
    level: usize,
    /// The line of the service's own file.
    top: Option<usize>,
}

/// A line that is being read.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a str,
    /// Counted from 0 in logical lines.
    line: usize,
    /// As editors count.
    number: usize,
    how: Reading,
}

struct Reader<'a> {
    files: &'a dyn Files,
    libpam: Libpam,
    stacks: &'a mut Stacks,
    reads: usize,
}

impl Reader<'_> {
    fn complain(&mut self, unsure: bool, text: String) {
        self.stacks.trouble.push(Trouble { text, unsure });
    }

    fn complain_at(&mut self, unsure: bool, at: At<'_>, text: &str) {
        self.complain(unsure, format!("{}:{}: {text}", at.path, at.number));
    }

    /// Reads a file.
    fn load(&mut self, path: &str, how: Reading) -> Result<(), Abort> {
        let text = match self.files.open(path) {
            Opened::Text(text) => text,
            Opened::Missing => return Err(Abort),
            Opened::Unreadable(why) => {
                self.complain(true, format!("{path}: cannot be read: {why}"));
                return Err(Abort);
            }
        };
        self.reads += 1;
        if !self.stacks.files.iter().any(|known| known == path) {
            self.stacks.files.push(path.to_owned());
        }
        for (index, line) in parse(&text, self.libpam).into_iter().enumerate() {
            let at = At { path, line: index, number: line.number, how };
            if line.depends_on_age {
                let text = "libpam before 1.6.0 and later ones take this line differently: it is very long, or an \
                            empty line or a comment stands inside of it";
                self.complain_at(false, at, text);
            }
            match line.meaning {
                Meaning::Nothing => {}
                Meaning::Unfinished => {
                    self.complain_at(false, at, "the last line goes on and has no end");
                    return Err(Abort);
                }
                Meaning::IncludeAll(target) => {
                    if self.include(target.as_deref(), how.requested, at).is_err() {
                        // libpam has a failure of no facility then, which is none of its own, or takes the actions of
                        // whatever line it has read before.
                        let Some(facility) = how.requested else { return Err(Abort) };
                        self.complain_at(true, at, "what libpam does about a missing file here is chance");
                        let entry = Entry { facility: Some(facility), control: None, target: None, args: Vec::new() };
                        self.add(facility, Call::MustFail, Control::BAD, entry, at)?;
                    }
                }
                Meaning::Entry(entry) => self.entry(entry, at)?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry, at: At<'_>) -> Result<(), Abort> {
        // libpam takes a line of an unknown facility for one of auth.
        let facility = entry.facility.or(at.how.requested).unwrap_or(Facility::Auth);
        if at.how.requested.is_some_and(|requested| requested != facility) {
            return Ok(());
        }
        let mut call = if entry.facility.is_some() { Call::Module } else { Call::MustFail };
        if entry.facility.is_none() {
            let text = format!("begins with no facility; libpam takes it for {} and fails", facility.name());
            self.complain_at(false, at, &text);
        }
        let mut control = entry.control.as_deref().map_or(Control::BAD, Control::of);
        if entry.includes() {
            let mut inner = at;
            if entry.is("substack") {
                self.add(facility, Call::Substack, Control::IGNORE, entry.clone(), at)?;
                inner.how.level += 1;
            }
            if self.include(entry.target.as_deref(), Some(facility), inner).is_ok() {
                return Ok(());
            }
            (call, control) = (Call::MustFail, Control::BAD);
        } else if entry.target.is_none() {
            self.complain_at(false, at, "names no module; libpam fails here");
            call = Call::MustFail;
        }
        self.add(facility, call, control, entry, at)
    }

    /// Reads an included file.
    fn include(&mut self, target: Option<&str>, requested: Option<Facility>, at: At<'_>) -> Result<(), Abort> {
        let Some(target) = target else {
            // Debian's libpam reads the first letter of the missing name.
            self.complain_at(self.libpam.debian, at, "names no file; libpam fails here, Debian's crashes");
            return Err(Abort);
        };
        let (includes, level, top) = (at.how.includes + 1, at.how.level, at.how.top.or(Some(at.line)));
        let too_deep = if self.libpam.since_1_6 { includes >= DEPTH } else { level >= DEPTH };
        if too_deep || includes > 2 * DEPTH || self.reads > READS {
            if self.stacks.trouble.len() < READS {
                self.complain_at(!too_deep, at, "includes nest too deep; libpam fails here");
            }
            return Err(Abort);
        }
        let path = match target {
            absolute if absolute.starts_with('/') => Some(absolute.to_owned()),
            name if self.libpam.debian => Some(format!("{}/{name}", DIRECTORIES[0])),
            name => self.files.service(name),
        };
        let Some(path) = path.filter(|path| self.files.open(path) != Opened::Missing) else {
            self.complain_at(false, at, &format!("includes {target:?}, which is not there; libpam fails here"));
            return Err(Abort);
        };
        self.load(&path, Reading { requested, includes, level, top })
    }

    fn add(&mut self, facility: Facility, call: Call, control: Control, entry: Entry, at: At<'_>) -> Result<(), Abort> {
        let At { path, line, number, how } = at;
        // `extract_modulename`: a name that auditing could not show ends it all. That of an include is not looked at.
        let named = entry.target.as_deref().filter(|_| call == Call::Substack || !entry.includes());
        let name = named.map(|target| target.rsplit('/').next().unwrap_or_default());
        let stem = name.map(|name| name.rsplit_once('.').map_or(name, |(stem, _)| stem));
        if stem.is_some_and(|stem| stem.is_empty() || stem == "?") {
            // libpam keeps a half-made step in the stack, and goes on using that stack if this file was included.
            let text = format!("{named:?} is no name for a module; libpam gives up here");
            self.complain_at(how.includes > 0 && !self.libpam.since_1_6, at, &text);
            return Err(Abort);
        }
        let (path, top) = (path.to_owned(), how.top.unwrap_or(line));
        let step = Step { call, control, level: how.level, entry, path, line, number, top };
        if let Some(steps) = self.stacks.steps.get_mut(facility as usize) {
            steps.push(step);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    impl Files for BTreeMap<&str, &str> {
        fn open(&self, path: &str) -> Opened {
            self.get(path).map_or(Opened::Missing, |text| Opened::Text((*text).to_owned()))
        }

        fn libpam(&self) -> Libpam {
            Libpam { debian: self.contains_key("/etc/debian_version"), ..Libpam::NEWEST }
        }

        fn names(&self, directory: &str) -> Vec<String> {
            let inside = self.keys().filter_map(|path| path.strip_prefix(directory)?.strip_prefix('/'));
            inside.map(str::to_owned).collect()
        }
    }

    #[test]
    fn includes_are_followed_etc_first_and_by_facility() {
        let mut files = BTreeMap::from([
            (
                "/etc/pam.d/sshd",
                "auth include a\nsession required one.so\n@include c\nsession include /usr/lib/pam.d/c\nsession include d\n",
            ),
            ("/etc/pam.d/c", "auth required x.so\nsession required two.so\n"),
            ("/usr/lib/pam.d/c", "session required three.so\n"),
            ("/usr/lib/pam.d/d", "session required four.so\n"),
            ("/etc/debian_version", "12\n"),
        ]);
        let stacks = Stacks::of(&files, "/etc/pam.d/sshd");
        let seen: Vec<_> = stacks.steps(Facility::Session).iter().map(|s| (s.entry.module(), s.top)).collect();
        assert_eq!(seen, [("one", 1), ("two", 2), ("three", 3), ("", 4)], "Debian's looks in /etc alone");
        let auth = stacks.steps(Facility::Auth);
        assert_eq!((auth[0].call, auth[1].entry.module()), (Call::MustFail, "x"));
        assert_eq!(stacks.trouble.len(), 2);
        assert!(stacks.trouble[0].text.starts_with("/etc/pam.d/sshd:1: includes \"a\", which is not there"));
        files.remove("/etc/debian_version");
        let stacks = Stacks::of(&files, "/etc/pam.d/sshd");
        let last = stacks.steps(Facility::Session).last().unwrap();
        assert_eq!(last.entry.module(), "four");
        assert!(stacks.trouble.iter().any(|trouble| trouble.text.contains(":3: begins with no facility")));
    }

    #[test]
    fn the_service_other_fills_in_missing_facilities() {
        let files = BTreeMap::from([
            ("/etc/pam.d/x", "session required one.so\n"),
            ("/etc/pam.d/other", "auth required two.so\nsession required three.so\n"),
        ]);
        let stacks = Stacks::of(&files, "/etc/pam.d/x");
        let modules: Vec<_> = stacks.all().map(|(_, step)| step.entry.module()).collect();
        assert_eq!(modules, ["two", "one"]);
    }

    #[test]
    fn includes_that_multiply_end() {
        let text = "session include x\n".repeat(50);
        let files = BTreeMap::from([("/etc/pam.d/x", text.as_str())]);
        let stacks = Stacks::of(&files, "/etc/pam.d/x");
        assert!(stacks.trouble.len() < 2 * READS && !stacks.trouble.is_empty());
    }
}
