//! The configuration: `/etc/pag/pag.conf` with its drop-ins, and the arguments on a PAM line.
//!
//! Three stages: fragments (a text and its place) become settings by way of one table of options, and what has been
//! parsed is valid. A line that is wrong keeps its default and yields a [`Complaint`]; nothing here fails.

use std::fmt;
use std::fs::{Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How wide a PAG is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One per uid and principal.
    User,
    /// One per login.
    Session,
}

/// Which logins join the user's PAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// All of them.
    Always,
    /// Those that bring a ticket; the others get one of their own.
    Credentials,
}

/// What becomes of the tokens when the last lease is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retain {
    /// They are discarded.
    None,
    /// They are left to the processes that stay.
    Processes,
    /// A lingering user manager keeps them, too.
    Linger,
}

/// What a PAM service is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A login of the user.
    Login,
    /// `systemd-user`.
    Manager,
    /// Something that gets a PAG of its own.
    Own,
    /// Nothing: it keeps what it inherited.
    Nothing,
    /// `pag-seed`, the helper's own.
    Seed,
}

/// An AFS client, as the configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKind {
    /// Keys of type `user`.
    Keyring,
    /// OpenAFS and AuriStorFS.
    OpenAfs,
    /// The kernel's own.
    Kafs,
}

/// Which clients are to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientChoice {
    /// Those that the host has.
    Auto,
    /// None: PAGs without tokens.
    None,
    /// These, if the host has them.
    Only(Vec<ClientKind>),
}

/// Words of an option and what they mean, in one place for reading, writing and for messages.
macro_rules! words {
    ($type:ty, $($word:literal => $value:expr),+ $(,)?) => {
        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err([$($word),+].join(" or ")),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(if *self == $value {
                    return f.write_str($word);
                })+
                Ok(())
            }
        }
    };
}

words!(Scope, "user" => Scope::User, "session" => Scope::Session);
words!(Join, "always" => Join::Always, "credentials" => Join::Credentials);
words!(Retain, "none" => Retain::None, "processes" => Retain::Processes, "linger" => Retain::Linger);
words!(Role, "login" => Role::Login, "own" => Role::Own, "none" => Role::Nothing, "manager" => Role::Manager, "seed" => Role::Seed);
words!(ClientKind, "keyring" => ClientKind::Keyring, "openafs" => ClientKind::OpenAfs, "kafs" => ClientKind::Kafs);

/// Name of a cell: what DNS would take, at most 64 characters (MAXCELLCHARS of OpenAFS, src/afs/afs.h).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cell(String);

impl Cell {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Cell {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        let dotted = !text.starts_with(['.', '-']) && !text.ends_with('.') && !text.contains("..");
        if (1..=64).contains(&text.len()) && text.bytes().all(fits) && dotted {
            Ok(Cell(text.to_owned()))
        } else {
            Err("the name of a cell, such as example.org".to_owned())
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The settings for one PAM service, or for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How wide a PAG is.
    pub scope: Scope,
    /// Which logins join.
    pub join: Join,
    /// What becomes of tokens at the end.
    pub retain: Retain,
    /// The time that one login may wait for us in all.
    pub timeout: Duration,
    /// Whether a failure of ours fails the login.
    pub strict: bool,
    /// The seeder of OpenAFS and of the client `keyring`, as a program and its arguments.
    pub program: Option<Vec<String>>,
    /// The seeder of kAFS.
    pub kafs_program: Option<Vec<String>>,
    /// The cells that tokens are wanted for.
    pub afs_cells: Vec<Cell>,
    /// Whether the seeder runs without a ticket, too.
    pub always_aklog: bool,
    /// Whether the cell of the home directory is wanted, too.
    pub aklog_homedir: bool,
    /// Accepted for pam_afs_session's sake: root is left alone in any case.
    pub ignore_root: bool,
    /// Users with a lower uid are left alone.
    pub minimum_uid: u32,
    /// Tokens without a PAG.
    pub nopag: bool,
    /// A PAG without tokens.
    pub notokens: bool,
    /// Whether the login's ccache is destroyed once the PAG has its ticket.
    pub kdestroy: bool,
    /// Whether steps are told to the journal.
    pub debug: bool,
    /// What the PAM service is.
    pub placement: Role,
    /// Which AFS clients are served.
    pub client: ClientChoice,
    /// Where a kernel module has OpenAFS's interface, besides the places that are known.
    pub openafs_device: Option<PathBuf>,
}

/// What kind of value an option takes.
#[derive(Debug, Clone, Copy)]
enum Value {
    /// Yes or no. On a PAM line the name alone is yes.
    Switch(fn(&mut Settings, bool)),
    /// Anything that needs a text; the error says what would be right.
    Text(fn(&mut Settings, &str) -> Result<(), String>),
}

/// One option.
#[derive(Debug)]
pub struct Opt {
    /// Its name, in files and on PAM lines.
    pub name: &'static str,
    value: Value,
    /// Whether it may stand on a PAM line; the others concern the host, or a service as a whole.
    pub on_pam_line: bool,
    in_pag: bool,
}

const fn switch(name: &'static str, set: fn(&mut Settings, bool)) -> Opt {
    Opt { name, value: Value::Switch(set), on_pam_line: true, in_pag: true }
}

const fn text(name: &'static str, set: fn(&mut Settings, &str) -> Result<(), String>) -> Opt {
    Opt { name, value: Value::Text(set), on_pam_line: true, in_pag: true }
}

const fn file_only(name: &'static str, set: fn(&mut Settings, &str) -> Result<(), String>) -> Opt {
    Opt { name, value: Value::Text(set), on_pam_line: false, in_pag: true }
}

const fn service_only(name: &'static str, set: fn(&mut Settings, &str) -> Result<(), String>) -> Opt {
    Opt { name, value: Value::Text(set), on_pam_line: false, in_pag: false }
}

/// Every option that there is.
pub const OPTIONS: [Opt; 20] = [
    text("program", |s, v| program(v).map(|words| s.program = words)),
    text("kafs_program", |s, v| program(v).map(|words| s.kafs_program = words)),
    text("afs_cells", |s, v| list(v).map(str::parse).collect::<Result<_, _>>().map(|cells| s.afs_cells = cells)),
    switch("always_aklog", |s, v| s.always_aklog = v),
    switch("aklog_homedir", |s, v| s.aklog_homedir = v),
    switch("ignore_root", |s, v| s.ignore_root = v),
    text("minimum_uid", |s, v| v.parse().map(|n| s.minimum_uid = n).map_err(|_| "a uid, such as 1000".to_owned())),
    switch("nopag", |s, v| s.nopag = v),
    switch("notokens", |s, v| s.notokens = v),
    switch("retain_after_close", |s, v| {
        if v {
            s.retain = Retain::Processes;
        } else if s.retain == Retain::Processes {
            s.retain = Retain::None;
        }
    }),
    switch("kdestroy", |s, v| s.kdestroy = v),
    switch("debug", |s, v| s.debug = v),
    text("scope", |s, v| v.parse().map(|scope| s.scope = scope)),
    text("join", |s, v| v.parse().map(|join| s.join = join)),
    text("retain", |s, v| v.parse().map(|retain| s.retain = retain)),
    text("timeout", |s, v| timeout(v).map(|timeout| s.timeout = timeout)),
    switch("strict", |s, v| s.strict = v),
    file_only("client", |s, v| clients(v).map(|client| s.client = client)),
    file_only("openafs_device", |s, v| device(v).map(|path| s.openafs_device = path)),
    service_only("placement", |s, v| match (v.parse(), s.placement) {
        (Ok(role), now) if role == now => Ok(()),
        // These two are what they are, and nothing else is started like them.
        (_, Role::Manager | Role::Seed) => Err("nothing: this service is always what it is".to_owned()),
        (Ok(role @ (Role::Login | Role::Own | Role::Nothing)), _) => {
            s.placement = role;
            Ok(())
        }
        _ => Err("login or own or none".to_owned()),
    }),
];

/// Words separated by commas, spaces or tabs, as pam_afs_session splits its lists (pam-util/vector.c).
fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split([',', ' ', '\t']).filter(|word| !word.is_empty())
}

/// A program and its arguments, separated by commas; no shell is involved. An empty value takes back what was set before.
fn program(value: &str) -> Result<Option<Vec<String>>, String> {
    let words: Vec<String> = list(value).map(str::to_owned).collect();
    match words.first() {
        None => Ok(None),
        Some(path) if path.starts_with('/') => Ok(Some(words)),
        _ => Err("an absolute path, then arguments, separated by commas".to_owned()),
    }
}

/// A file in /proc: one anywhere else could be on a file system that does not answer. An empty value takes back what was
/// set before.
fn device(value: &str) -> Result<Option<PathBuf>, String> {
    let path = Path::new(value);
    let plain = path.components().all(|part| !matches!(part, Component::ParentDir));
    match value {
        "" => Ok(None),
        _ if path.starts_with("/proc") && plain && path != Path::new("/proc") => Ok(Some(path.to_owned())),
        _ => Err("a path in /proc, such as /proc/fs/auristorfs/afs_ioctl".to_owned()),
    }
}

fn timeout(value: &str) -> Result<Duration, String> {
    let right = || "a time from 100ms to 60s, such as 5s".to_owned();
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at_checked(digits).ok_or_else(right)?;
    let number: u64 = number.parse().map_err(|_| right())?;
    let millis = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "min" => number.checked_mul(60_000),
        _ => None,
    };
    millis.filter(|m| (100..=60_000).contains(m)).map(Duration::from_millis).ok_or_else(right)
}

fn clients(value: &str) -> Result<ClientChoice, String> {
    match value {
        "auto" => Ok(ClientChoice::Auto),
        "none" => Ok(ClientChoice::None),
        _ => {
            let kinds: Result<Vec<ClientKind>, _> = list(value).map(str::parse).collect();
            kinds
                .ok()
                .filter(|kinds| !kinds.is_empty())
                .map(ClientChoice::Only)
                .ok_or_else(|| "auto or none, or any of keyring, openafs and kafs, separated by commas".to_owned())
        }
    }
}

/// What a PAM service is, unless `[service NAME] placement` says otherwise (the table of docs/design.md, section 5).
pub fn default_role(service: &str) -> Role {
    match service {
        "systemd-user" => Role::Manager,
        "pag-seed" => Role::Seed,
        // They change who somebody is, not where he works: the shell keeps the ring that it inherited.
        "su" | "sudo" | "sudo-i" | "runuser" | "polkit-1" | "pkexec" | "doas" => Role::Nothing,
        "gdm-launch-environment" | "lightdm-greeter" | "sddm-greeter" | "greetd-greeter" | "lxdm-greeter" => {
            Role::Nothing
        }
        "cron" | "crond" | "atd" | "at" | "atrun" | "batch" | "slurm" | "pbs" | "torque" => Role::Own,
        _ => Role::Login,
    }
}

/// Where something stands that was complained about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of a file; 0 is the file as a whole.
    File(PathBuf, usize),
    /// An argument, counted from 1, on the line of a PAM service.
    Argument(usize, String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path, 0) => f.write_str(&clean(&path.to_string_lossy())),
            Place::File(path, line) => write!(f, "{}:{line}", clean(&path.to_string_lossy())),
            Place::Argument(number, service) => write!(f, "PAM argument {number} of {}", clean(service)),
        }
    }
}

/// Something in the configuration that is wrong, and was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Where it stands.
    pub place: Place,
    /// What is wrong with it.
    pub what: String,
    /// What would be right.
    pub right: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; right would be {}", self.place, self.what, self.right)
    }
}

/// What of a text may be repeated in a message.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(200).collect()
}

fn quoted(text: &str) -> String {
    format!("'{}'", clean(text))
}

/// Where the configuration lies.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// The main file.
    pub main: PathBuf,
    /// Directories of drop-ins; of two files with the same name the one in the later directory counts.
    pub drop_ins: Vec<PathBuf>,
    /// Where UID_MIN is looked up.
    pub login_defs: PathBuf,
    /// Who must own what is read here: nobody else may tell the module what to run.
    pub owner: u32,
}

impl Default for Dirs {
    fn default() -> Self {
        Dirs {
            main: "/etc/pag/pag.conf".into(),
            drop_ins: ["/usr/lib", "/run", "/etc"].map(|top| PathBuf::from(top).join("pag/pag.conf.d")).into(),
            login_defs: "/etc/login.defs".into(),
            owner: 0,
        }
    }
}

/// Largest file that is read, in bytes.
const LARGEST: u64 = 256 * 1024;

/// How many complaints are told one by one: a login must not flood the journal.
const MOST: usize = 20;

/// The settings for a PAM service: built-in defaults, `[pag]`, `[service NAME]`, the line's arguments; the later wins.
pub fn load(dirs: &Dirs, service: &str, arguments: &[&[u8]]) -> (Settings, Vec<Complaint>) {
    let mut reading = Reading::new(dirs, Some(service));
    let mut seen = Vec::new();
    for (index, argument) in arguments.iter().enumerate() {
        let place = Place::Argument(index + 1, service.to_owned());
        match str::from_utf8(argument) {
            Ok(argument) => reading.argument(place, argument, &mut seen),
            Err(_) => {
                let what = format!("{} is no text", quoted(&String::from_utf8_lossy(argument)));
                reading.complain(place, what, "an option of pam_pag(8)".to_owned());
            }
        }
    }
    reading.finish(dirs)
}

/// The settings of the host as a whole, for the helper. The sections of services are looked at for what is wrong.
pub fn host(dirs: &Dirs) -> (Settings, Vec<Complaint>) {
    Reading::new(dirs, None).finish(dirs)
}

/// Where a setting was found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Pag,
    Service,
    PamLine,
}

/// What the lines of a section are to us.
enum Section {
    Ours,
    Others,
}

struct Reading<'a> {
    settings: Settings,
    complaints: Vec<Complaint>,
    /// Complaints beyond the most that are told.
    untold: usize,
    service: Option<&'a str>,
}

impl<'a> Reading<'a> {
    fn new(dirs: &Dirs, service: Option<&'a str>) -> Self {
        let settings = Settings {
            scope: Scope::User,
            join: Join::Always,
            retain: Retain::None,
            timeout: Duration::from_secs(5),
            strict: false,
            program: None,
            kafs_program: None,
            afs_cells: Vec::new(),
            always_aklog: false,
            aklog_homedir: false,
            ignore_root: false,
            minimum_uid: MINIMUM_UID,
            nopag: false,
            notokens: false,
            kdestroy: false,
            debug: false,
            placement: service.map_or(Role::Login, default_role),
            client: ClientChoice::Auto,
            openafs_device: None,
        };
        let mut reading = Reading { settings, complaints: Vec::new(), untold: 0, service };
        if let Some(bytes) = reading.file(&dirs.login_defs, dirs.owner) {
            reading.settings.minimum_uid = uid_min(&bytes).unwrap_or(MINIMUM_UID);
        }
        let mut texts = Vec::new();
        for path in reading.files(dirs) {
            match reading.file(&path, dirs.owner).map(String::from_utf8) {
                Some(Ok(text)) => texts.push((path, text)),
                Some(Err(_)) => {
                    reading.complain(Place::File(path, 0), "it is not read".to_owned(), "UTF-8 text".to_owned());
                }
                None => {}
            }
        }
        // A service's own section counts over the host's, in whichever file they stand.
        for (path, text) in &texts {
            reading.sections(path, text, false);
        }
        let of_host = reading.settings.clone();
        for (path, text) in &texts {
            reading.sections(path, text, true);
        }
        if service.is_none() {
            reading.settings = of_host;
        }
        reading
    }

    fn finish(mut self, dirs: &Dirs) -> (Settings, Vec<Complaint>) {
        if self.untold > 0 {
            let what = format!("{} more lines or arguments are wrong", self.untold);
            let place = Place::File(dirs.main.clone(), 0);
            self.complaints.push(Complaint { place, what, right: "what pag.conf(5) says".to_owned() });
        }
        (self.settings, self.complaints)
    }

    fn complain(&mut self, place: Place, what: String, right: String) {
        if self.complaints.len() < MOST {
            self.complaints.push(Complaint { place, what, right });
        } else {
            self.untold += 1;
        }
    }

    /// The files to read, in order.
    fn files(&mut self, dirs: &Dirs) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = Vec::new();
        for directory in &dirs.drop_ins {
            let entries = match std::fs::read_dir(directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    let place = Place::File(directory.clone(), 0);
                    self.complain(place, error.to_string(), "a directory that root can read".to_owned());
                    continue;
                }
            };
            // Whoever can write there could bring a file of root's under another name.
            if !std::fs::metadata(directory).is_ok_and(|metadata| is_trusted(&metadata, dirs.owner)) {
                self.complain(Place::File(directory.clone(), 0), "it is not read".to_owned(), TRUSTED.to_owned());
                continue;
            }
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.extension().is_some_and(|extension| extension == "conf") {
                    found.retain(|other| other.file_name() != path.file_name());
                    found.push(path);
                }
            }
        }
        found.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
        found.insert(0, dirs.main.clone());
        found
    }

    /// What a file holds that may be trusted; nothing where there is none.
    fn file(&mut self, path: &Path, owner: u32) -> Option<Vec<u8>> {
        let place = || Place::File(path.to_owned(), 0);
        // A FIFO in its place must not hold up the login.
        let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                self.complain(place(), error.to_string(), "a file that root can read".to_owned());
                return None;
            }
        };
        let trusted = file.metadata().ok().filter(|metadata| metadata.is_file() && is_trusted(metadata, owner));
        let Some(metadata) = trusted else {
            self.complain(place(), "it is not read".to_owned(), TRUSTED.to_owned());
            return None;
        };
        // All at once: a reader that knows no size begins with 32 bytes, and this is done in every login.
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(LARGEST) + 1).unwrap_or(0));
        let read = file.take(LARGEST + 1).read_to_end(&mut bytes);
        if read.is_ok() && bytes.len() as u64 <= LARGEST {
            return Some(bytes);
        }
        self.complain(place(), "it is not read".to_owned(), "a readable file of at most 256 KiB".to_owned());
        None
    }

    /// Reads the sections of one file that concern us: `[pag]`, or those of services.
    fn sections(&mut self, path: &Path, text: &str, services: bool) {
        let mut section = Section::Others;
        let mut seen: Vec<&str> = Vec::new();
        let mut begun = false;
        for (index, line) in text.lines().enumerate() {
            let place = || Place::File(path.to_owned(), index + 1);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                begun = true;
                seen.clear();
                let header = header.trim();
                section = match (header, services) {
                    ("pag", false) => Section::Ours,
                    ("pag", true) => Section::Others,
                    (other, _) => match other.strip_prefix("service").filter(|rest| rest.starts_with([' ', '\t'])) {
                        Some(name) if services => self.concern(name.trim()),
                        Some(_) => Section::Others,
                        None => {
                            if !services {
                                let what = format!("unknown section {}", quoted(other));
                                self.complain(place(), what, "[pag] or [service NAME]".to_owned());
                            }
                            Section::Others
                        }
                    },
                };
                continue;
            }
            if !begun {
                if !services {
                    let what = format!("{} stands in no section", quoted(line));
                    self.complain(place(), what, "a [pag] above it".to_owned());
                }
                continue;
            }
            if matches!(section, Section::Others) {
                continue;
            }
            let Some((name, value)) = line.split_once('=').map(|(name, value)| (name.trim(), value.trim())) else {
                self.complain(place(), format!("{} is no setting", quoted(line)), "NAME = VALUE".to_owned());
                continue;
            };
            self.once(&place(), name, &mut seen);
            let from = if services { Origin::Service } else { Origin::Pag };
            self.set(place(), name, Some(value), from);
        }
    }

    /// What the section of the service `name` is to us. To the helper all are something to be checked.
    fn concern(&mut self, name: &str) -> Section {
        match self.service {
            // libpam has its services in lower case (pam_start.c, _pam_start_internal).
            Some(service) if service.eq_ignore_ascii_case(name) => Section::Ours,
            Some(_) => Section::Others,
            None => {
                self.settings.placement = default_role(&name.to_ascii_lowercase());
                Section::Ours
            }
        }
    }

    fn argument<'b>(&mut self, place: Place, argument: &'b str, seen: &mut Vec<&'b str>) {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        self.once(&place, name, seen);
        self.set(place, name, value, Origin::PamLine);
    }

    fn once<'b>(&mut self, place: &Place, name: &'b str, seen: &mut Vec<&'b str>) {
        // A file of nothing but new names would make this quadratic; there are not that many options.
        if seen.contains(&name) {
            let what = format!("{} is set twice, and the later counts", quoted(name));
            self.complain(place.clone(), what, "one of them".to_owned());
        } else if OPTIONS.iter().any(|option| option.name == name) {
            seen.push(name);
        }
    }

    fn set(&mut self, place: Place, name: &str, value: Option<&str>, from: Origin) {
        let Some(option) = OPTIONS.iter().find(|option| option.name == name) else {
            let right =
                nearest(name).map_or("one of those in pag.conf(5)".to_owned(), |near| format!("perhaps '{near}'"));
            self.complain(place, format!("unknown option {}", quoted(name)), right);
            return;
        };
        match from {
            Origin::PamLine if !option.on_pam_line => {
                self.complain(place, format!("'{name}' is no PAM argument"), "a line in pag.conf".to_owned());
                return;
            }
            Origin::Pag if !option.in_pag => {
                let what = format!("'{name}' is not for the whole host");
                self.complain(place, what, "a section [service NAME]".to_owned());
                return;
            }
            _ => {}
        }
        let result = match (option.value, value) {
            (_, Some(value)) if value.contains(|c: char| c.is_control() && c != '\t') => {
                Err("a value without control characters".to_owned())
            }
            (Value::Switch(set), value) => switched(value).map(|on| set(&mut self.settings, on)),
            (Value::Text(set), Some(value)) => set(&mut self.settings, value),
            (Value::Text(_), None) => Err(format!("{name}=VALUE")),
        };
        if let Err(right) = result {
            let what = match value {
                Some(value) => format!("{name} cannot be {}", quoted(value)),
                None => format!("'{name}' needs a value"),
            };
            self.complain(place, what, right);
        }
    }
}

/// As pam_afs_session reads it (pam-util/options.c, convert_boolean).
fn switched(value: Option<&str>) -> Result<bool, String> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("yes" | "true" | "on" | "1") => Ok(true),
        Some("no" | "false" | "off" | "0") => Ok(false),
        Some(_) => Err("yes or no".to_owned()),
    }
}

/// What would be right where a file or directory is not.
const TRUSTED: &str = "one that belongs to root and that nobody else can write";

fn is_trusted(metadata: &Metadata, owner: u32) -> bool {
    metadata.uid() == owner && metadata.mode() & 0o022 == 0
}

/// Where people's uids begin when login.defs does not say (shadow, lib/find_new_uid.c, get_ranges).
const MINIMUM_UID: u32 = 1000;

/// UID_MIN of login.defs; of several the last, as shadow reads it. The file is long, nearly all of it comments, and this
/// is done in every login: its bytes are looked through once, and only the line that counts is taken for text.
fn uid_min(bytes: &[u8]) -> Option<u32> {
    let value = |line: &[u8]| {
        let value = line.trim_ascii_start().strip_prefix(b"UID_MIN")?;
        let text = str::from_utf8(value).ok().filter(|text| text.starts_with([' ', '\t']))?;
        text.split_ascii_whitespace().next()?.parse().ok()
    };
    bytes.split(|byte| *byte == b'\n').rev().find_map(value)
}

/// The option whose name differs least from `name`, if it is near enough to be meant.
fn nearest(name: &str) -> Option<&'static str> {
    let near = OPTIONS.iter().map(|option| (distance(name, option.name), option.name)).min()?;
    (name.len() <= 32 && near.0 <= 2).then_some(near.1)
}

/// How many insertions, deletions and replacements lead from one word to another.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate().take(64) {
        let mut before = i;
        let mut left = i + 1;
        for (place, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let best = (before + usize::from(x != y)).min(*place + 1).min(left + 1);
            before = std::mem::replace(place, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    struct Files {
        top: tempfile::TempDir,
        dirs: Dirs,
    }

    impl Files {
        fn write(&self, name: &str, text: &[u8]) {
            let path = self.top.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        }
    }

    fn files(main: impl AsRef<[u8]>) -> Files {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        for name in ["usr", "run", "etc"] {
            fs::create_dir(path(name)).unwrap();
        }
        let dirs = Dirs {
            main: path("pag.conf"),
            drop_ins: vec![path("usr"), path("run"), path("etc")],
            login_defs: path("login.defs"),
            owner: fs::metadata(top.path()).unwrap().uid(),
        };
        let files = Files { top, dirs };
        for name in ["usr", "run", "etc"] {
            fs::set_permissions(files.top.path().join(name), Permissions::from_mode(0o755)).unwrap();
        }
        files.write("pag.conf", main.as_ref());
        files
    }

    fn complaints(main: &str, arguments: &[&str]) -> (Settings, Vec<String>) {
        let files = files(main);
        let arguments: Vec<&[u8]> = arguments.iter().map(|a| a.as_bytes()).collect();
        let (settings, complaints) = load(&files.dirs, "sshd", &arguments);
        let prefix = format!("{}/", files.top.path().display());
        (settings, complaints.iter().map(|c| c.to_string().replace(&prefix, "")).collect())
    }

    #[test]
    fn the_later_and_the_nearer_word_counts() {
        let (settings, complaints) = complaints(
            "[service sshd]\nretain = linger\n[pag]\nretain = processes\ntimeout = 2s\n",
            &["timeout=300ms"],
        );
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!((settings.retain, settings.timeout), (Retain::Linger, Duration::from_millis(300)));
    }

    #[test]
    fn another_services_section_is_not_ours() {
        let (settings, _) = complaints("[service cron]\nplacement = none\nnopag = yes\n", &[]);
        assert_eq!((settings.placement, settings.nopag), (Role::Login, false));
    }

    #[test]
    fn options_of_pam_afs_session_mean_what_they_meant() {
        let line =
            ["program=/usr/bin/aklog,-force", "afs_cells=a.test,b.test", "always_aklog", "minimum_uid=500", "debug=no"];
        let (settings, complaints) = complaints("", &[&line[..], &["retain_after_close", "ignore_root"]].concat());
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!(settings.program.unwrap(), ["/usr/bin/aklog", "-force"]);
        assert_eq!(settings.afs_cells.len(), 2);
        assert!(settings.always_aklog && !settings.debug && settings.ignore_root);
        assert_eq!((settings.minimum_uid, settings.retain), (500, Retain::Processes));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_what_would_be_right() {
        let text = "x = 1\n[pag]\nretian = none\nretain = sometimes\nscope\n[nonsense]\na = b\n";
        let (settings, complaints) = complaints(text, &["timeout=1h", "client=kafs", "program=aklog", "afs_cells"]);
        assert_eq!(settings.retain, Retain::None);
        let expected = [
            "pag.conf:1: 'x = 1' stands in no section; right would be a [pag] above it",
            "pag.conf:3: unknown option 'retian'; right would be perhaps 'retain'",
            "pag.conf:4: retain cannot be 'sometimes'; right would be none or processes or linger",
            "pag.conf:5: 'scope' is no setting; right would be NAME = VALUE",
            "pag.conf:6: unknown section 'nonsense'; right would be [pag] or [service NAME]",
            "PAM argument 1 of sshd: timeout cannot be '1h'; right would be a time from 100ms to 60s, such as 5s",
            "PAM argument 2 of sshd: 'client' is no PAM argument; right would be a line in pag.conf",
            "PAM argument 3 of sshd: program cannot be 'aklog'; right would be an absolute path, then arguments, separated by commas",
            "PAM argument 4 of sshd: 'afs_cells' needs a value; right would be afs_cells=VALUE",
        ];
        assert_eq!(complaints, expected);
    }

    #[test]
    fn drop_ins_are_read_by_name_and_the_later_directory_hides_the_earlier() {
        let files = files("[pag]\ntimeout = 1s\n");
        let write = |name: &str, text: &str| files.write(name, text.as_bytes());
        write("usr/50-site.conf", "[pag]\ntimeout = 2s\nnopag = yes\n");
        write("etc/50-site.conf", "[pag]\ntimeout = 3s\n");
        write("run/60-more.conf", "[pag]\nstrict = yes\n");
        write("etc/README", "timeout = 9s\n");
        let (settings, complaints) = host(&files.dirs);
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!((settings.timeout, settings.nopag, settings.strict), (Duration::from_secs(3), false, true));
    }

    #[test]
    fn a_file_that_others_can_write_is_not_read() {
        let files = files("[pag]\nprogram = /tmp/evil\n");
        fs::set_permissions(&files.dirs.main, Permissions::from_mode(0o664)).unwrap();
        let (settings, complaints) = host(&files.dirs);
        assert_eq!((settings.program, complaints.len()), (None, 1));
        fs::set_permissions(&files.dirs.main, Permissions::from_mode(0o644)).unwrap();
        let stranger = Dirs { owner: files.dirs.owner.wrapping_add(1), ..files.dirs.clone() };
        // The file, and each of the three directories.
        assert_eq!(host(&stranger).1.len(), 4);
    }

    #[test]
    fn the_manager_and_the_seeding_job_cannot_be_made_anything_else() {
        let files = files("[service systemd-user]\nplacement = none\n[service sshd]\nplacement = manager\n");
        let (settings, complaints) = load(&files.dirs, "systemd-user", &[]);
        assert_eq!((settings.placement, complaints.len()), (Role::Manager, 1));
        let (settings, complaints) = load(&files.dirs, "sshd", &[]);
        assert_eq!((settings.placement, complaints.len()), (Role::Login, 1));
    }

    #[test]
    fn system_users_end_where_login_defs_says() {
        let files = files("");
        assert_eq!(host(&files.dirs).0.minimum_uid, 1000);
        files.write("login.defs", b"#UID_MIN 5\nUID_MIN 9\n UID_MIN\t\t  500\nSYS_UID_MIN 7\nUID_MINI 8\n# Jos\xe9\n");
        assert_eq!(host(&files.dirs).0.minimum_uid, 500);
    }

    #[test]
    fn the_helper_looks_at_the_sections_of_all_services() {
        let files = files("[service cron]\nplacement = nowhere\nnopag = YES\n[service SSHD]\nnopag = maybe\n");
        let (settings, complaints) = host(&files.dirs);
        assert_eq!((settings.nopag, settings.placement, complaints.len()), (false, Role::Login, 2));
        assert_eq!(load(&files.dirs, "sshd", &[]).1.len(), 1);
        assert!(load(&files.dirs, "cron", &[]).0.nopag);
    }

    #[test]
    fn an_empty_value_takes_back_what_was_set() {
        let (settings, complaints) =
            complaints("[pag]\nprogram = /bin/x\nafs_cells = a b\n", &["program=", "afs_cells="]);
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!((settings.program, settings.afs_cells), (None, vec![]));
    }

    #[test]
    fn a_device_of_openafs_is_in_proc() {
        let set = |value: &str| complaints(&format!("[pag]\nopenafs_device = {value}\n"), &[]);
        let (settings, complaints) = set("/proc/fs/other/afs_ioctl");
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!(settings.openafs_device.unwrap(), Path::new("/proc/fs/other/afs_ioctl"));
        for bad in ["/dev/afs", "/proc", "/process/afs", "/proc/../dev/afs", "proc/fs/afs_ioctl"] {
            let (settings, complaints) = set(bad);
            assert_eq!((settings.openafs_device, complaints.len()), (None, 1), "{bad}");
        }
        assert_eq!(set("").0.openafs_device, None);
    }

    #[test]
    fn what_is_said_twice_is_named_and_the_later_counts() {
        let (settings, complaints) = complaints("[pag]\njoin = credentials\njoin = always\n", &["strict", "strict=No"]);
        assert_eq!((settings.join, settings.strict), (Join::Always, false));
        let expected = [
            "pag.conf:3: 'join' is set twice, and the later counts; right would be one of them",
            "PAM argument 2 of sshd: 'strict' is set twice, and the later counts; right would be one of them",
        ];
        assert_eq!(complaints, expected);
    }

    #[test]
    fn a_service_is_placed_by_its_section_alone() {
        let text = "[pag]\nplacement = own\n[service sshd]\nplacement = none\n";
        let (settings, complaints) = complaints(text, &[]);
        assert_eq!((settings.placement, complaints.len()), (Role::Nothing, 1));
    }

    #[test]
    fn a_file_that_is_all_wrong_does_not_flood_the_journal() {
        let (_, complaints) = complaints(&format!("[pag]\n{}", "x = 1\n".repeat(100)), &[]);
        assert_eq!(complaints.len(), MOST + 1);
        assert_eq!(
            complaints[MOST],
            "pag.conf: 80 more lines or arguments are wrong; right would be what pag.conf(5) says"
        );
    }

    #[test]
    fn files_that_cannot_be_read_hold_nobody_up() {
        let files = files("");
        let conf = |name: &str| files.top.path().join("etc").join(name);
        files.write("etc/long.conf", &vec![b'#'; LARGEST as usize + 1]);
        files.write("etc/latin.conf", b"[pag]\n# Jos\xe9\n");
        fs::create_dir(conf("dir.conf")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(conf("fifo.conf")).status().unwrap().success());
        std::os::unix::fs::symlink("nowhere", conf("dangling.conf")).unwrap();
        let complaints = host(&files.dirs).1;
        assert_eq!(complaints.len(), 4, "{complaints:?}");
        fs::set_permissions(files.top.path().join("etc"), Permissions::from_mode(0o775)).unwrap();
        assert_eq!(host(&files.dirs).1.len(), 1);
    }

    /// The options of the manual's section OPTIONS: a tag is a line after `.TP`, its first word is the name.
    fn documented() -> Vec<&'static str> {
        let page = include_str!("../../docs/man/pam_pag.8");
        let section = page.split(".SH OPTIONS").nth(1).unwrap().split("\n.SH").next().unwrap();
        let tags = section.split("\n.TP\n").skip(1).map(|rest| rest.lines().next().unwrap());
        tags.map(|tag| tag.split(' ').nth(1).unwrap().split('=').next().unwrap()).collect()
    }

    #[test]
    fn the_manuals_name_every_option_and_no_other() {
        let (of_line, of_file): (Vec<&Opt>, Vec<&Opt>) = OPTIONS.iter().partition(|option| option.on_pam_line);
        let mut names: Vec<&str> = of_line.iter().map(|option| option.name).collect();
        let mut documented = documented();
        names.sort_unstable();
        documented.sort_unstable();
        assert_eq!(documented, names);
        let page = include_str!("../../docs/man/pag.conf.5");
        let words = |line: &'static str| line.split(|c: char| !c.is_ascii_lowercase() && c != '_');
        let bold: Vec<&str> = page.lines().filter(|line| line.starts_with(".B")).flat_map(words).collect();
        for option in of_line.iter().chain(&of_file) {
            assert!(bold.contains(&option.name), "{}", option.name);
        }
    }

    #[test]
    fn cells_have_the_names_of_cells() {
        for good in ["example.org", "a", "cs_dept.example.org"] {
            assert!(good.parse::<Cell>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "a..b", "a b", "-c", "a/b", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<Cell>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}", argument in proptest::collection::vec(any::<u8>(), 0..40)) {
            let files = files(format!("[pag]\n{text}"));
            let _ = load(&files.dirs, "sshd", &[&argument]);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let files = files(&bytes);
            let _ = host(&files.dirs);
        }

        #[test]
        fn a_good_time_is_read_as_it_is_written(millis in 100_u64..=60_000) {
            prop_assert_eq!(timeout(&format!("{millis}ms")), Ok(Duration::from_millis(millis)));
        }

        #[test]
        fn complaints_are_one_line(argument in "[\\x00-\\x7f]{0,60}") {
            let files = files("");
            for complaint in load(&files.dirs, "sshd", &[argument.as_bytes()]).1 {
                prop_assert!(!complaint.to_string().contains('\n'));
            }
        }
    }
}
