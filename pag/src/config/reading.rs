//! Reading the configuration: files and arguments become settings.

use super::complaint::quoted;
use super::files::{Dirs, LARGEST, MOST, Named, TRUSTED, is_trusted, not_text, other_kind, uid_min};
use super::options::{OF_NAMED, OPTIONS, PAG_NAMES, Value, Where, is_pag_name, nearest, setting, switched};
use super::services::default_role;
use super::settings::Settings;
use crate::types::ServiceKind;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::complaint::{Complaint, ConfigSource};

/// The user that settings are for.
pub struct Subject<'a> {
    /// The user's name, as PAM has it.
    pub name: &'a str,
    /// Whether the user is in the group of this name. Called only if a section names a group, since it needs NSS.
    pub is_in: &'a dyn Fn(&str) -> bool,
}

/// The sections that one pass over the files reads, the weakest first. The arguments of a PAM line count over those of
/// services, and those of groups count over the arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level<'a> {
    Host,
    Service(&'a str),
    Group(&'a str),
    User(&'a str),
    /// A named PAG, for which no other level counts but the host's.
    Named(&'a str),
}

/// The head of a section.
enum Head<'a> {
    Host,
    Service(&'a str),
    Group(&'a str),
    User(&'a str),
    Named(&'a str),
    Unknown(&'a str),
}

impl<'a> Head<'a> {
    fn parse(text: &'a str) -> Self {
        let named = |word| {
            let rest: &str = text.strip_prefix(word)?;
            rest.starts_with([' ', '\t']).then(|| rest.trim())
        };
        if text == "pag" {
            Head::Host
        } else if let Some(name) = named("service") {
            Head::Service(name)
        } else if let Some(name) = named("group") {
            Head::Group(name)
        } else if let Some(name) = named("user") {
            Head::User(name)
        } else if let Some(name) = named("pag") {
            Head::Named(name)
        } else {
            Head::Unknown(text)
        }
    }

    fn is_of(&self, level: Level<'_>) -> bool {
        match (self, level) {
            (Head::Host, Level::Host) => true,
            // libpam has its services in lower case (pam_start.c, _pam_start_internal).
            (Head::Service(name), Level::Service(wanted)) => name.eq_ignore_ascii_case(wanted),
            (Head::Group(name), Level::Group(wanted))
            | (Head::User(name), Level::User(wanted))
            | (Head::Named(name), Level::Named(wanted)) => *name == wanted,
            _ => false,
        }
    }
}

/// The place of a setting, as far as it decides which options may stand there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Pag,
    Service,
    PamLine,
    Group,
    User,
    Named,
}

/// A file, and its lines with their numbers. Blank lines and comments are left out.
pub(super) type Text = (PathBuf, Vec<(usize, String)>);

fn lines(text: &str) -> Vec<(usize, String)> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let is_content = |line: &str| !line.is_empty() && !line.starts_with(['#', ';']);
    lines.filter(|(_, line)| is_content(line)).map(|(number, line)| (number, line.to_owned())).collect()
}

/// The configuration while it is read.
pub(super) struct Reading {
    pub(super) settings: Settings,
    pub(super) complaints: Vec<Complaint>,
    /// The most complaints.
    pub(super) most: usize,
    /// The number of complaints beyond `most`.
    unreported: usize,
    texts: Vec<Text>,
    /// The services, groups and users with a section, in the order of the files.
    pub(super) services: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) users: Vec<String>,
    /// The PAGs with a section of their own.
    pub(super) pags: Vec<String>,
    /// The options that were set, and the places. The last one counts.
    pub(super) decisions: Vec<(&'static str, ConfigSource)>,
    /// The files that options name.
    pub(super) named: Vec<Named>,
}

impl Reading {
    /// Reads the files, and applies the sections of the host and of `service`.
    pub(super) fn new(dirs: &Dirs, service: Option<&str>) -> Self {
        Self::with_most(dirs, service, MOST)
    }

    /// As [`Reading::new`], with at most this many complaints.
    pub(super) fn with_most(dirs: &Dirs, service: Option<&str>, most: usize) -> Self {
        let placement = service.map_or(ServiceKind::Login, default_role);
        let mut reading = Reading {
            settings: Settings { placement, ..Settings::default() },
            complaints: Vec::new(),
            most,
            unreported: 0,
            texts: Vec::new(),
            services: Vec::new(),
            groups: Vec::new(),
            users: Vec::new(),
            pags: Vec::new(),
            decisions: Vec::new(),
            named: Vec::new(),
        };
        if let Some(uid) = reading.file(&dirs.login_defs, dirs.owner).and_then(|text| uid_min(&text)) {
            reading.settings.minimum_uid = uid;
            reading.decisions.push(("minimum_uid", ConfigSource::File(dirs.login_defs.clone(), 0)));
        }
        reading.texts = reading.texts_of(dirs);
        // The section of a service counts over the host's, also if it stands in an earlier file.
        reading.apply(Level::Host);
        if let Some(service) = service {
            reading.apply(Level::Service(service));
        }
        reading
    }

    /// The lines of all files of the configuration.
    fn texts_of(&mut self, dirs: &Dirs) -> Vec<Text> {
        let mut texts = Vec::new();
        for path in self.files(dirs) {
            match self.file(&path, dirs.owner).map(String::from_utf8) {
                Some(Ok(text)) => {
                    let text = self.without_mark(&path, &text);
                    texts.push((path, lines(text)));
                }
                Some(Err(error)) => {
                    let what = not_text(error.as_bytes(), error.utf8_error().valid_up_to());
                    self.complain(
                        ConfigSource::File(path, 0),
                        format!("{what}; it is not read"),
                        "UTF-8 text".to_owned(),
                    );
                }
                None => {}
            }
        }
        texts
    }

    /// The text without a byte order mark, which some editors write at its beginning.
    fn without_mark<'t>(&mut self, path: &Path, text: &'t str) -> &'t str {
        let Some(rest) = text.strip_prefix('\u{feff}') else { return text };
        let what = "it begins with a byte order mark, which is passed over".to_owned();
        self.complain(ConfigSource::File(path.to_owned(), 1), what, "UTF-8 text without one".to_owned());
        rest
    }

    /// Reads the text of one file alone, and applies the section of the host.
    pub(super) fn of_text(path: &Path, text: &str) -> Self {
        let nothing = Dirs { main: PathBuf::new(), drop_ins: Vec::new(), login_defs: PathBuf::new(), owner: 0 };
        let mut reading = Reading::new(&nothing, None);
        reading.complaints.clear();
        reading.most = usize::MAX;
        let text = reading.without_mark(path, text);
        reading.texts = vec![(path.to_owned(), lines(text))];
        reading.apply(Level::Host);
        reading
    }

    /// Applies all sections that are not the host's, for their mistakes, and for what they name.
    pub(super) fn apply_all(&mut self) {
        for service in self.services.clone() {
            self.settings.placement = default_role(&service.to_ascii_lowercase());
            self.apply(Level::Service(&service));
        }
        for group in self.groups.clone() {
            self.apply(Level::Group(&group));
        }
        for user in self.users.clone() {
            self.apply(Level::User(&user));
        }
        for pag in self.pags.clone() {
            self.apply(Level::Named(&pag));
        }
    }

    /// Applies the sections of a user, which count over all else, and below them those of the user's groups. Of two
    /// groups, the one that the files name first counts.
    pub(super) fn apply_user(&mut self, subject: Option<&Subject<'_>>) {
        let Some(subject) = subject else { return };
        for group in self.groups.clone().iter().rev().filter(|group| (subject.is_in)(group)) {
            self.apply(Level::Group(group));
        }
        if self.users.iter().any(|user| user == subject.name) {
            self.apply(Level::User(subject.name));
        }
    }

    /// Applies the sections of one level from all files.
    pub(super) fn apply(&mut self, level: Level<'_>) {
        let texts = std::mem::take(&mut self.texts);
        for (path, lines) in &texts {
            self.sections(path, lines, level);
        }
        self.texts = texts;
    }

    /// The settings and the complaints. The last complaint says how many more there would be.
    pub(super) fn finish(mut self, dirs: &Dirs) -> (Settings, Vec<Complaint>) {
        if self.unreported > 0 {
            let what = format!("{} more lines or arguments are wrong", self.unreported);
            let place = ConfigSource::File(dirs.main.clone(), 0);
            self.complaints.push(Complaint { place, what, right: "what pag.conf(5) says".to_owned() });
        }
        self.settings.program_places = ["program", "kafs_program"].map(|name| self.decided(name));
        (self.settings, self.complaints)
    }

    /// The place that decides an option. None for the built-in default.
    pub(super) fn decided(&self, name: &str) -> Option<ConfigSource> {
        let last = self.decisions.iter().rev().find(|(setting, _)| *setting == name);
        last.map(|(_, place)| place.clone())
    }

    pub(super) fn complain(&mut self, place: ConfigSource, what: String, right: String) {
        if self.complaints.len() < self.most {
            self.complaints.push(Complaint { place, what, right });
        } else {
            self.unreported += 1;
        }
    }

    /// The files to read, in this order: the main file, then the drop-ins by their names.
    fn files(&mut self, dirs: &Dirs) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = Vec::new();
        for directory in &dirs.drop_ins {
            let entries = match std::fs::read_dir(directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    let place = ConfigSource::File(directory.clone(), 0);
                    self.complain(place, error.to_string(), "a directory that root can read".to_owned());
                    continue;
                }
            };
            // An account that can write to a directory could move a file of root into it.
            if !std::fs::metadata(directory).is_ok_and(|metadata| is_trusted(&metadata, dirs.owner)) {
                self.complain(
                    ConfigSource::File(directory.clone(), 0),
                    "it is not read".to_owned(),
                    TRUSTED.to_owned(),
                );
                continue;
            }
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.extension().is_some_and(|extension| extension == "conf") {
                    let place = found.partition_point(|other| other.file_name() < path.file_name());
                    match found.get_mut(place).filter(|other| other.file_name() == path.file_name()) {
                        Some(hidden) => *hidden = path,
                        None => found.insert(place, path),
                    }
                }
            }
        }
        found.insert(0, dirs.main.clone());
        found
    }

    /// The bytes of a file. None if there is no such file, and, with a complaint, if it is not to be trusted or can't
    /// be read.
    fn file(&mut self, path: &Path, owner: u32) -> Option<Vec<u8>> {
        let place = || ConfigSource::File(path.to_owned(), 0);
        // A FIFO in its place must not hold up the login.
        let mut file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                self.complain(place(), error.to_string(), "a file that root can read".to_owned());
                return None;
            }
        };
        let found = file.metadata().ok();
        let Some(metadata) = found.as_ref().filter(|metadata| metadata.is_file() && is_trusted(metadata, owner)) else {
            let what = match found.as_ref().and_then(other_kind) {
                Some(kind) => format!("it is {kind}, and not read"),
                None => "it is not read".to_owned(),
            };
            self.complain(place(), what, TRUSTED.to_owned());
            return None;
        };
        // With one read of the size that the metadata gives, since each login does this.
        let mut bytes = vec![0; usize::try_from(metadata.len().min(LARGEST + 1)).unwrap_or(0)];
        if bytes.len() as u64 <= LARGEST && file.read_exact(&mut bytes).is_ok() {
            return Some(bytes);
        }
        self.complain(place(), "it is not read".to_owned(), "a readable file of at most 256 KiB".to_owned());
        None
    }

    /// Applies the sections of `level` from one file.
    fn sections(&mut self, path: &Path, lines: &[(usize, String)], level: Level<'_>) {
        let mut ours = false;
        let mut seen: Vec<&str> = Vec::new();
        let mut begun = false;
        for (number, line) in lines {
            let place = || ConfigSource::File(path.to_owned(), *number);
            if let Some(head) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                begun = true;
                seen.clear();
                let head = Head::parse(head.trim());
                ours = head.is_of(level);
                if level == Level::Host {
                    self.head(&place(), &head);
                }
                continue;
            }
            if !begun {
                if level == Level::Host {
                    let what = format!("{} stands in no section", quoted(line));
                    self.complain(place(), what, "a [pag] above it".to_owned());
                }
                continue;
            }
            if !ours {
                continue;
            }
            let Some((name, value)) = line.split_once('=').map(|(name, value)| (name.trim(), value.trim())) else {
                self.complain(place(), format!("{} is no setting", quoted(line)), "NAME = VALUE".to_owned());
                continue;
            };
            self.check_once(&place(), name, &mut seen);
            let from = match level {
                Level::Host => Origin::Pag,
                Level::Service(_) => Origin::Service,
                Level::Group(_) => Origin::Group,
                Level::User(_) => Origin::User,
                Level::Named(_) => Origin::Named,
            };
            self.set(place(), name, Some(value), from);
        }
    }

    /// Notes the service, group, user or PAG that the head of a section names.
    fn head(&mut self, place: &ConfigSource, head: &Head<'_>) {
        let (names, name) = match head {
            Head::Host => return,
            Head::Service(name) => (&mut self.services, name.to_ascii_lowercase()),
            Head::Group(name) => (&mut self.groups, (*name).to_owned()),
            Head::User(name) => (&mut self.users, (*name).to_owned()),
            Head::Named(name) if is_pag_name(name) => (&mut self.pags, (*name).to_owned()),
            Head::Named(name) => {
                let what = format!("{} is no name for a PAG", quoted(name));
                self.complain(place.clone(), what, PAG_NAMES.to_owned());
                return;
            }
            Head::Unknown(other) => {
                let what = format!("unknown section {}", quoted(other));
                let right = "[pag], [service NAME], [group NAME], [user NAME] or [pag NAME]".to_owned();
                self.complain(place.clone(), what, right);
                return;
            }
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }

    /// Applies an argument of a PAM line. `seen` are the options that stand before it on that line.
    pub(super) fn argument<'b>(&mut self, place: ConfigSource, argument: &'b str, seen: &mut Vec<&'b str>) {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        self.check_once(&place, name, seen);
        self.set(place, name, value, Origin::PamLine);
    }

    /// Complains if `name` is among the options that were `seen` in the same section or on the same PAM line.
    fn check_once<'b>(&mut self, place: &ConfigSource, name: &'b str, seen: &mut Vec<&'b str>) {
        // Only names of options are kept, so that `seen` stays short for a file of made-up names.
        if seen.contains(&name) {
            let what = format!("{} is set twice, and the later counts", quoted(name));
            self.complain(place.clone(), what, "one of them".to_owned());
        } else if OPTIONS.iter().any(|option| option.name == name) {
            seen.push(name);
        }
    }

    fn set(&mut self, place: ConfigSource, name: &str, value: Option<&str>, from: Origin) {
        let Some(option) = OPTIONS.iter().find(|option| option.name == name) else {
            let right =
                nearest(name).map_or("one of those in pag.conf(5)".to_owned(), |near| format!("perhaps '{near}'"));
            self.complain(place, format!("unknown option {}", quoted(name)), right);
            return;
        };
        let refused = match (option.stands, from) {
            (Where::Sections | Where::Service | Where::Keytab, Origin::PamLine) => {
                Some(("no PAM argument", "a line in pag.conf"))
            }
            (Where::Service, Origin::Pag) => Some(("not for the whole host", "a section [service NAME]")),
            (Where::Service, Origin::Group | Origin::User) => {
                Some(("not for a user or a group", "a section [service NAME]"))
            }
            (Where::Keytab, Origin::Pag) => {
                Some(("not for the whole host", "a section [service NAME], [user NAME] or [pag NAME]"))
            }
            (Where::Keytab, Origin::Group) => {
                Some(("not for a group", "a section [service NAME], [user NAME] or [pag NAME]"))
            }
            (_, Origin::Named) if !OF_NAMED.contains(&name) => {
                Some(("not for a named PAG", "a section for logins, or no such line"))
            }
            (Where::Host, Origin::Service | Origin::PamLine | Origin::Group | Origin::User) => {
                Some(("for the whole host alone", "a line in the section [pag]"))
            }
            _ => None,
        };
        if let Some((what, right)) = refused {
            self.complain(place, format!("'{name}' is {what}"), right.to_owned());
            return;
        }
        let result = match (option.value, value) {
            (_, Some(value)) if value.contains(|c: char| c.is_control() && c != '\t') => {
                Err("a value without control characters".to_owned())
            }
            (Value::Switch(set), value) => switched(value).map(|on| set(&mut self.settings, on)),
            (Value::Text(set), Some(value)) => set(&mut self.settings, value),
            (Value::Text(_), None) => Err(format!("{name}=VALUE")),
        };
        match (result, value) {
            (Ok(()), value) => {
                if let (Some(value), "program" | "kafs_program" | "keytab") = (value, option.name) {
                    self.named.push(Named { option: option.name, value: value.to_owned(), place: place.clone() });
                }
                self.decisions.push((setting(option.name), place));
            }
            (Err(right), Some(value)) => self.complain(place, format!("{name} cannot be {}", quoted(value)), right),
            (Err(right), None) => self.complain(place, format!("'{name}' needs a value"), right),
        }
    }
}
