//! The configuration: `/etc/pag/pag.conf` with its drop-ins, and the arguments on a PAM line.
//!
//! Three stages: fragments (a text and its place) become settings by way of one table of options, and what has been
//! parsed is valid. A line that is wrong keeps its default and yields a [`Complaint`]; nothing here fails.

pub mod account;
pub mod keytab;

use std::fmt;
use std::fs::{Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::config::keytab::{Keytab, Whose};

/// How wide a PAG is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One per uid and principal.
    User,
    /// One per login.
    Session,
}

/// Whose PAG the services of a user follow who has one for each login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// That of the session which logind calls the user's display, else the newest.
    Display,
    /// That of the newest login.
    Newest,
    /// That of the login which has been there longest.
    First,
    /// Nobody's.
    None,
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
words!(Follow, "display" => Follow::Display, "newest" => Follow::Newest, "first" => Follow::First, "none" => Follow::None);
words!(Join, "always" => Join::Always, "credentials" => Join::Credentials);
words!(Retain, "none" => Retain::None, "processes" => Retain::Processes, "linger" => Retain::Linger);
words!(Role, "login" => Role::Login, "own" => Role::Own, "none" => Role::Nothing, "manager" => Role::Manager, "seed" => Role::Seed);
words!(ClientKind, "keyring" => ClientKind::Keyring, "openafs" => ClientKind::OpenAfs, "kafs" => ClientKind::Kafs);

/// Name of a cell: what DNS would take, at most 64 characters (MAXCELLCHARS of OpenAFS, src/afs/afs.h).
///
/// Upper and lower case are the same, as for every AFS client (OpenAFS, src/auth/cellconfig.c, afsconf_GetCellInfo; Linux,
/// fs/afs/cell.c, afs_alloc_cell). It is shown as it was written.
#[derive(Debug, Clone)]
pub struct Cell(String);

impl Cell {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Cell {}

impl FromStr for Cell {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        let dotted = !text.starts_with('-') && text.split('.').all(|part| !part.is_empty());
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

/// The settings for one login: a user's at a PAM service, or the host's.
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
    /// The principals that are the user's own, `%u` standing for his name. Empty: the one that his name stands for.
    pub identity: Vec<String>,
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
    /// Whom the services of a user follow who has a PAG for each login.
    pub follow: Follow,
    /// Where a kernel module has OpenAFS's interface, besides the places that are known.
    pub openafs_device: Option<PathBuf>,
    /// The keytab of a user or service who is not there to type a password.
    pub keytab: Option<PathBuf>,
    /// Whose key to take out of it.
    pub principal: Option<String>,
}

/// What kind of value an option takes.
#[derive(Debug, Clone, Copy)]
enum Value {
    /// Yes or no. On a PAM line the name alone is yes.
    Switch(fn(&mut Settings, bool)),
    /// Anything that needs a text; the error says what would be right.
    Text(fn(&mut Settings, &str) -> Result<(), String>),
}

/// Where an option may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// In every section, and on a PAM line.
    Anywhere,
    /// In every section.
    Sections,
    /// In `[service NAME]` alone.
    Service,
    /// In `[service NAME]` and `[user NAME]`.
    ServiceOrUser,
    /// In `[pag]` alone.
    Host,
}

/// One option.
#[derive(Debug)]
pub struct Opt {
    /// Its name, in files and on PAM lines.
    pub name: &'static str,
    /// Where it may stand.
    pub stands: Where,
    value: Value,
}

type Set = fn(&mut Settings, &str) -> Result<(), String>;

const fn switch(name: &'static str, set: fn(&mut Settings, bool)) -> Opt {
    Opt { name, stands: Where::Anywhere, value: Value::Switch(set) }
}

const fn text(name: &'static str, set: Set) -> Opt {
    Opt { name, stands: Where::Anywhere, value: Value::Text(set) }
}

const fn only(stands: Where, option: Opt) -> Opt {
    Opt { stands, ..option }
}

/// Every option that there is.
pub const OPTIONS: [Opt; 24] = [
    text("scope", |s, v| v.parse().map(|scope| s.scope = scope)),
    text("join", |s, v| v.parse().map(|join| s.join = join)),
    text("retain", |s, v| v.parse().map(|retain| s.retain = retain)),
    switch("retain_after_close", |s, v| {
        if v {
            s.retain = Retain::Processes;
        } else if s.retain == Retain::Processes {
            s.retain = Retain::None;
        }
    }),
    only(Where::Host, text("follow", |s, v| v.parse().map(|follow| s.follow = follow))),
    only(
        Where::Service,
        text("placement", |s, v| match (v.parse(), s.placement) {
            (Ok(role), now) if role == now => Ok(()),
            // These two are what they are, and nothing else is started like them.
            (_, Role::Manager | Role::Seed) => Err("nothing: this service is always what it is".to_owned()),
            (Ok(role @ (Role::Login | Role::Own | Role::Nothing)), _) => {
                s.placement = role;
                Ok(())
            }
            _ => Err("login or own or none".to_owned()),
        }),
    ),
    only(Where::Sections, text("identity", |s, v| identity(v).map(|words| s.identity = words))),
    text("timeout", |s, v| timeout(v).map(|timeout| s.timeout = timeout)),
    switch("strict", |s, v| s.strict = v),
    only(Where::Sections, text("client", |s, v| clients(v).map(|client| s.client = client))),
    only(Where::Sections, text("openafs_device", |s, v| device(v).map(|path| s.openafs_device = path))),
    text("program", |s, v| program(v).map(|words| s.program = words)),
    text("kafs_program", |s, v| program(v).map(|words| s.kafs_program = words)),
    text("afs_cells", |s, v| list(v).map(str::parse).collect::<Result<_, _>>().map(|cells| s.afs_cells = cells)),
    switch("always_aklog", |s, v| s.always_aklog = v),
    switch("aklog_homedir", |s, v| s.aklog_homedir = v),
    switch("ignore_root", |s, v| s.ignore_root = v),
    text("minimum_uid", |s, v| v.parse().map(|n| s.minimum_uid = n).map_err(|_| "a uid, such as 1000".to_owned())),
    switch("nopag", |s, v| s.nopag = v),
    switch("notokens", |s, v| s.notokens = v),
    switch("kdestroy", |s, v| s.kdestroy = v),
    switch("debug", |s, v| s.debug = v),
    only(Where::ServiceOrUser, text("keytab", |s, v| keytab(v).map(|path| s.keytab = path))),
    only(Where::ServiceOrUser, text("principal", |s, v| principal(v).map(|principal| s.principal = principal))),
];

/// What an option is set to, as one would write it; none for what is no option. Apart from the table, so that the PAM
/// module, which shows nothing, need not carry it.
fn shown(name: &str, s: &Settings) -> Option<String> {
    let words = |words: &Option<Vec<String>>| words.as_deref().map_or_else(String::new, |words| words.join(","));
    let path = |path: &Option<PathBuf>| path.as_deref().map_or_else(String::new, |path| path.display().to_string());
    Some(match name {
        "scope" => s.scope.to_string(),
        "join" => s.join.to_string(),
        "retain" => s.retain.to_string(),
        "retain_after_close" => yes_or_no(s.retain == Retain::Processes),
        "follow" => s.follow.to_string(),
        "placement" => s.placement.to_string(),
        "identity" => s.identity.join(","),
        "timeout" => format!("{}ms", crate::sys::millis(s.timeout)),
        "strict" => yes_or_no(s.strict),
        "client" => s.client.to_string(),
        "openafs_device" => path(&s.openafs_device),
        "program" => words(&s.program),
        "kafs_program" => words(&s.kafs_program),
        "afs_cells" => s.afs_cells.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        "always_aklog" => yes_or_no(s.always_aklog),
        "aklog_homedir" => yes_or_no(s.aklog_homedir),
        "ignore_root" => yes_or_no(s.ignore_root),
        "minimum_uid" => s.minimum_uid.to_string(),
        "nopag" => yes_or_no(s.nopag),
        "notokens" => yes_or_no(s.notokens),
        "kdestroy" => yes_or_no(s.kdestroy),
        "debug" => yes_or_no(s.debug),
        "keytab" => path(&s.keytab),
        "principal" => s.principal.clone().unwrap_or_default(),
        _ => return None,
    })
}

/// The option whose setting an option is about: two are one setting under two names.
fn setting(name: &'static str) -> &'static str {
    if name == "retain_after_close" { "retain" } else { name }
}

fn yes_or_no(on: bool) -> String {
    if on { "yes" } else { "no" }.to_owned()
}

impl fmt::Display for ClientChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientChoice::Auto => f.write_str("auto"),
            ClientChoice::None => f.write_str("none"),
            ClientChoice::Only(kinds) => {
                f.write_str(&kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
            }
        }
    }
}

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

/// A file; whether it may be used is looked at when it is. An empty value takes back what was set before.
fn keytab(value: &str) -> Result<Option<PathBuf>, String> {
    let path = Path::new(value);
    match value {
        "" => Ok(None),
        _ if path.is_absolute() && path.components().all(|part| !matches!(part, Component::ParentDir)) => {
            Ok(Some(path.to_owned()))
        }
        _ => Err("an absolute path, such as /etc/pag/keytabs/alice".to_owned()),
    }
}

/// A Kerberos identity, the realm of which may be left out. It becomes an argument of kinit.
fn principal(value: &str) -> Result<Option<String>, String> {
    match value {
        "" => Ok(None),
        _ if !value.starts_with('-') && value.bytes().all(|c| c.is_ascii_graphic()) && value.len() <= 256 => {
            Ok(Some(value.to_owned()))
        }
        _ => Err("a principal, such as alice/cron@EXAMPLE.ORG".to_owned()),
    }
}

/// Principals, in which `%u` may stand for the user's name. An empty value takes back what was set before.
fn identity(value: &str) -> Result<Vec<String>, String> {
    let words: Vec<String> = list(value).map(str::to_owned).collect();
    if words.iter().all(|word| account::is_identity(word)) {
        Ok(words)
    } else {
        Err("principals with their realms, such as %u@EXAMPLE.ORG".to_owned())
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

/// Whether the process of a service still runs as root when it ends its PAM handle, and starts the user's process later. vsftpd
/// does so (see session_support in vsftpd.conf(5)).
pub fn lives_on_without_session(service: &str) -> bool {
    matches!(service, "vsftpd" | "ftp")
}

/// What kind of program uses a PAM service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// Lets people in.
    Login,
    /// Lets people in, and unlocks their screens by authenticating them again.
    LoginAndUnlock,
    /// Unlocks screens and does nothing else.
    Unlock,
    /// `systemd --user`.
    Manager,
    /// Runs jobs of users who are not there.
    Job,
    /// Shows a login screen.
    Greeter,
    /// Changes the identity of a shell, or asks for a password: no session of its own begins.
    Nothing,
    /// `pag-seed`, the helper's own.
    Seed,
}

/// The PAM services that are known (the table of docs/design/placement.md). What is not here counts as a login.
pub const SERVICES: [(&str, Seat); 82] = [
    ("sshd", Seat::Login),
    ("dropbear", Seat::Login),
    ("login", Seat::Login),
    ("remote", Seat::Login),
    ("rlogin", Seat::Login),
    ("rsh", Seat::Login),
    ("su-l", Seat::Login),
    ("runuser-l", Seat::Login),
    ("systemd-run0", Seat::Login),
    ("gdm", Seat::Login),
    ("gdm3", Seat::Login),
    ("gdm-autologin", Seat::Login),
    ("lightdm-autologin", Seat::Login),
    ("sddm", Seat::Login),
    ("sddm-autologin", Seat::Login),
    ("plasmalogin", Seat::Login),
    ("plasmalogin-autologin", Seat::Login),
    ("greetd", Seat::Login),
    ("ly", Seat::Login),
    ("lemurs", Seat::Login),
    ("lxdm", Seat::Login),
    ("slim", Seat::Login),
    ("wdm", Seat::Login),
    ("xdm", Seat::Login),
    ("xrdp-sesman", Seat::Login),
    ("chrome-remote-desktop", Seat::Login),
    ("cockpit", Seat::Login),
    ("gdm-password", Seat::LoginAndUnlock),
    ("gdm-fingerprint", Seat::LoginAndUnlock),
    ("gdm-smartcard", Seat::LoginAndUnlock),
    ("gdm-smartcard-pkcs11-exclusive", Seat::LoginAndUnlock),
    ("gdm-smartcard-sssd-exclusive", Seat::LoginAndUnlock),
    ("gdm-smartcard-sssd-or-password", Seat::LoginAndUnlock),
    ("gdm-pin", Seat::LoginAndUnlock),
    ("gdm-switchable-auth", Seat::LoginAndUnlock),
    ("gdm-authd", Seat::LoginAndUnlock),
    ("lightdm", Seat::LoginAndUnlock),
    ("cosmic-greeter", Seat::LoginAndUnlock),
    ("kde", Seat::Unlock),
    ("kde-fingerprint", Seat::Unlock),
    ("kde-smartcard", Seat::Unlock),
    ("gnome-screensaver", Seat::Unlock),
    ("cinnamon-screensaver", Seat::Unlock),
    ("mate-screensaver", Seat::Unlock),
    ("xfce4-screensaver", Seat::Unlock),
    ("xscreensaver", Seat::Unlock),
    ("xsecurelock", Seat::Unlock),
    ("i3lock", Seat::Unlock),
    ("swaylock", Seat::Unlock),
    ("hyprlock", Seat::Unlock),
    ("vlock", Seat::Unlock),
    ("systemd-user", Seat::Manager),
    ("cron", Seat::Job),
    ("crond", Seat::Job),
    ("fcron", Seat::Job),
    ("atd", Seat::Job),
    ("at", Seat::Job),
    ("atrun", Seat::Job),
    ("batch", Seat::Job),
    ("slurm", Seat::Job),
    ("pbs", Seat::Job),
    ("torque", Seat::Job),
    ("gdm-launch-environment", Seat::Greeter),
    ("lightdm-greeter", Seat::Greeter),
    ("sddm-greeter", Seat::Greeter),
    ("plasmalogin-greeter", Seat::Greeter),
    ("greetd-greeter", Seat::Greeter),
    ("lxdm-greeter", Seat::Greeter),
    ("su", Seat::Nothing),
    ("sudo", Seat::Nothing),
    ("sudo-i", Seat::Nothing),
    ("runuser", Seat::Nothing),
    ("polkit-1", Seat::Nothing),
    ("pkexec", Seat::Nothing),
    ("doas", Seat::Nothing),
    ("passwd", Seat::Nothing),
    ("chfn", Seat::Nothing),
    ("chsh", Seat::Nothing),
    ("fcrontab", Seat::Nothing),
    // They ask for passwords, again and again, and do nothing in a user's name.
    ("cups", Seat::Nothing),
    ("dovecot", Seat::Nothing),
    ("pag-seed", Seat::Seed),
];

/// What uses a PAM service, if it is known.
pub fn seat(service: &str) -> Option<Seat> {
    SERVICES.iter().find(|(name, _)| *name == service).map(|(_, seat)| *seat)
}

/// What a PAM service is, unless `[service NAME] placement` says otherwise.
pub fn default_role(service: &str) -> Role {
    match seat(service) {
        Some(Seat::Manager) => Role::Manager,
        Some(Seat::Seed) => Role::Seed,
        // The shell keeps the ring that it inherited.
        Some(Seat::Greeter | Seat::Nothing) => Role::Nothing,
        Some(Seat::Job) => Role::Own,
        // Of a screen locker we see pam_setcred alone, which refreshes.
        Some(Seat::Login | Seat::LoginAndUnlock | Seat::Unlock) | None => Role::Login,
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

/// Whom settings are for.
pub struct Subject<'a> {
    /// His name as PAM has it.
    pub name: &'a str,
    /// Whether he is in the group of that name. Asked only where a section names one, since it takes NSS.
    pub is_in: &'a dyn Fn(&str) -> bool,
}

/// The settings for a login: of `[user NAME]`, `[group NAME]`, the PAM line's arguments, `[service NAME]`, `[pag]` and
/// the built-in defaults the first that has an option counts.
pub fn load(
    dirs: &Dirs,
    service: &str,
    subject: Option<&Subject<'_>>,
    arguments: &[&[u8]],
) -> (Settings, Vec<Complaint>) {
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
    reading.person(subject);
    reading.finish(dirs)
}

/// The settings of the host as a whole, for the helper. All other sections are looked at for what is wrong.
pub fn host(dirs: &Dirs) -> (Settings, Vec<Complaint>) {
    let mut reading = Reading::new(dirs, None);
    let of_host = reading.settings.clone();
    let services: Vec<String> = std::mem::take(&mut reading.services);
    for service in &services {
        reading.settings.placement = default_role(&service.to_ascii_lowercase());
        reading.pass(Level::Service(service));
    }
    for group in reading.groups.clone() {
        reading.pass(Level::Group(&group));
    }
    for user in reading.users.clone() {
        reading.pass(Level::User(&user));
    }
    reading.settings = of_host;
    reading.finish(dirs)
}

/// The keytabs that the configuration names. What is wrong in it is [`host`]'s to say.
pub fn keytabs(dirs: &Dirs) -> Vec<(Whose, Keytab)> {
    let mut reading = Reading::new(dirs, None);
    let services: Vec<Whose> = std::mem::take(&mut reading.services).into_iter().map(Whose::Service).collect();
    let users = std::mem::take(&mut reading.users).into_iter().map(Whose::User);
    let mut keytabs = Vec::new();
    for whose in services.into_iter().chain(users) {
        (reading.settings.keytab, reading.settings.principal) = (None, None);
        reading.pass(match &whose {
            Whose::Service(name) => Level::Service(name),
            Whose::User(name) => Level::User(name),
        });
        let Settings { keytab, principal, .. } = &reading.settings;
        if let Some(path) = keytab.clone() {
            keytabs.push((whose, Keytab { path, principal: principal.clone() }));
        }
    }
    keytabs
}

/// An option, what it is set to, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Its name.
    pub name: &'static str,
    /// Its value as one would write it.
    pub value: String,
    /// Where that was decided; none for the built-in default.
    pub place: Option<Place>,
}

/// What [`load`] would say for a login at `service`, or on the host as a whole, and which line decides each option. What
/// stands on PAM lines is not known here.
pub fn explain(dirs: &Dirs, service: Option<&str>, subject: Option<&Subject<'_>>) -> (Vec<Explained>, Vec<Complaint>) {
    let mut reading = Reading::new(dirs, service);
    reading.person(subject);
    let decided = |name| {
        let decisions = reading.decisions.iter().rev();
        decisions.into_iter().find(|(setting, _)| *setting == name).map(|(_, place)| place.clone())
    };
    let one = |option: &Opt| Explained {
        name: option.name,
        value: shown(option.name, &reading.settings).unwrap_or_default(),
        place: decided(setting(option.name)),
    };
    let explained = OPTIONS.iter().map(one).collect();
    (explained, reading.finish(dirs).1)
}

/// The sections that one pass over the files is about, from the weakest on; arguments of a PAM line come between those
/// of services and of groups.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level<'a> {
    Host,
    Service(&'a str),
    Group(&'a str),
    User(&'a str),
}

/// What the head of a section names.
enum Head<'a> {
    Host,
    Service(&'a str),
    Group(&'a str),
    User(&'a str),
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
        } else {
            Head::Unknown(text)
        }
    }

    fn is_of(&self, level: Level<'_>) -> bool {
        match (self, level) {
            (Head::Host, Level::Host) => true,
            // libpam has its services in lower case (pam_start.c, _pam_start_internal).
            (Head::Service(name), Level::Service(wanted)) => name.eq_ignore_ascii_case(wanted),
            (Head::Group(name), Level::Group(wanted)) | (Head::User(name), Level::User(wanted)) => *name == wanted,
            _ => false,
        }
    }
}

/// Where a setting was found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Pag,
    Service,
    PamLine,
    Group,
    User,
}

/// A file, and the lines of it that say something, by their numbers.
type Text = (PathBuf, Vec<(usize, String)>);

fn lines(text: &str) -> Vec<(usize, String)> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let says = |line: &str| !line.is_empty() && !line.starts_with(['#', ';']);
    lines.filter(|(_, line)| says(line)).map(|(number, line)| (number, line.to_owned())).collect()
}

struct Reading {
    settings: Settings,
    complaints: Vec<Complaint>,
    /// Complaints beyond the most that are told.
    untold: usize,
    texts: Vec<Text>,
    /// What the heads of sections name, in the order of the files.
    services: Vec<String>,
    groups: Vec<String>,
    users: Vec<String>,
    /// What was set, and where; the last counts.
    decisions: Vec<(&'static str, Place)>,
}

impl Reading {
    /// Reads the files; what they say of the host and of `service` counts from here on.
    fn new(dirs: &Dirs, service: Option<&str>) -> Self {
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
            identity: Vec::new(),
            ignore_root: false,
            minimum_uid: MINIMUM_UID,
            nopag: false,
            notokens: false,
            kdestroy: false,
            debug: false,
            placement: service.map_or(Role::Login, default_role),
            client: ClientChoice::Auto,
            follow: Follow::Display,
            openafs_device: None,
            keytab: None,
            principal: None,
        };
        let mut reading = Reading {
            settings,
            complaints: Vec::new(),
            untold: 0,
            texts: Vec::new(),
            services: Vec::new(),
            groups: Vec::new(),
            users: Vec::new(),
            decisions: Vec::new(),
        };
        if let Some(uid) = reading.file(&dirs.login_defs, dirs.owner).and_then(|text| uid_min(&text)) {
            reading.settings.minimum_uid = uid;
            reading.decisions.push(("minimum_uid", Place::File(dirs.login_defs.clone(), 0)));
        }
        reading.texts = reading.texts_of(dirs);
        // A service's own section counts over the host's, in whichever file they stand.
        reading.pass(Level::Host);
        if let Some(service) = service {
            reading.pass(Level::Service(service));
        }
        reading
    }

    /// What the configuration's files say.
    fn texts_of(&mut self, dirs: &Dirs) -> Vec<Text> {
        let mut texts = Vec::new();
        for path in self.files(dirs) {
            match self.file(&path, dirs.owner).map(String::from_utf8) {
                Some(Ok(text)) => texts.push((path, lines(&text))),
                Some(Err(_)) => {
                    self.complain(Place::File(path, 0), "it is not read".to_owned(), "UTF-8 text".to_owned());
                }
                None => {}
            }
        }
        texts
    }

    /// What the files say of a person counts over all else: his own sections, then those of his groups, of which the
    /// one that is named first counts.
    fn person(&mut self, subject: Option<&Subject<'_>>) {
        let Some(subject) = subject else { return };
        for group in self.groups.clone().iter().rev().filter(|group| (subject.is_in)(group)) {
            self.pass(Level::Group(group));
        }
        if self.users.iter().any(|user| user == subject.name) {
            self.pass(Level::User(subject.name));
        }
    }

    /// Reads the sections of one level in all files.
    fn pass(&mut self, level: Level<'_>) {
        let texts = std::mem::take(&mut self.texts);
        for (path, lines) in &texts {
            self.sections(path, lines, level);
        }
        self.texts = texts;
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

    /// What a file holds that may be trusted; nothing where there is none.
    fn file(&mut self, path: &Path, owner: u32) -> Option<Vec<u8>> {
        let place = || Place::File(path.to_owned(), 0);
        // A FIFO in its place must not hold up the login.
        let mut file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
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
        // All at once, without a look at whether there is more: this is done in every login.
        let mut bytes = vec![0; usize::try_from(metadata.len().min(LARGEST + 1)).unwrap_or(0)];
        if bytes.len() as u64 <= LARGEST && file.read_exact(&mut bytes).is_ok() {
            return Some(bytes);
        }
        self.complain(place(), "it is not read".to_owned(), "a readable file of at most 256 KiB".to_owned());
        None
    }

    /// Reads the sections of one file that are of `level`.
    fn sections(&mut self, path: &Path, lines: &[(usize, String)], level: Level<'_>) {
        let mut ours = false;
        let mut seen: Vec<&str> = Vec::new();
        let mut begun = false;
        for (number, line) in lines {
            let place = || Place::File(path.to_owned(), *number);
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
            self.once(&place(), name, &mut seen);
            let from = match level {
                Level::Host => Origin::Pag,
                Level::Service(_) => Origin::Service,
                Level::Group(_) => Origin::Group,
                Level::User(_) => Origin::User,
            };
            self.set(place(), name, Some(value), from);
        }
    }

    /// Notes what the head of a section names.
    fn head(&mut self, place: &Place, head: &Head<'_>) {
        let (names, name) = match head {
            Head::Host => return,
            Head::Service(name) => (&mut self.services, name.to_ascii_lowercase()),
            Head::Group(name) => (&mut self.groups, (*name).to_owned()),
            Head::User(name) => (&mut self.users, (*name).to_owned()),
            Head::Unknown(other) => {
                let what = format!("unknown section {}", quoted(other));
                let right = "[pag], [service NAME], [group NAME] or [user NAME]".to_owned();
                self.complain(place.clone(), what, right);
                return;
            }
        };
        if !names.contains(&name) {
            names.push(name);
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
        let refused = match (option.stands, from) {
            (Where::Sections | Where::Service | Where::ServiceOrUser, Origin::PamLine) => {
                Some(("no PAM argument", "a line in pag.conf"))
            }
            (Where::Service, Origin::Pag) => Some(("not for the whole host", "a section [service NAME]")),
            (Where::Service, Origin::Group | Origin::User) => {
                Some(("not for a user or a group", "a section [service NAME]"))
            }
            (Where::ServiceOrUser, Origin::Pag) => {
                Some(("not for the whole host", "a section [service NAME] or [user NAME]"))
            }
            (Where::ServiceOrUser, Origin::Group) => {
                Some(("not for a group", "a section [service NAME] or [user NAME]"))
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
            (Ok(()), _) => self.decisions.push((setting(option.name), place)),
            (Err(right), Some(value)) => self.complain(place, format!("{name} cannot be {}", quoted(value)), right),
            (Err(right), None) => self.complain(place, format!("'{name}' needs a value"), right),
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
        let (settings, complaints) = load(&files.dirs, "sshd", None, &arguments);
        let prefix = format!("{}/", files.top.path().display());
        (settings, complaints.iter().map(|c| c.to_string().replace(&prefix, "")).collect())
    }

    #[test]
    fn every_option_can_be_shown() {
        let settings = complaints("", &[]).0;
        for option in &OPTIONS {
            assert!(shown(option.name, &settings).is_some(), "{}", option.name);
        }
        assert_eq!(shown("colour", &settings), None);
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

    const BY_PERSON: &str = "[user alice]\nscope = session\n[group staff]\nretain = linger\njoin = credentials\n\
                             [group wheel]\nretain = processes\ntimeout = 2s\n[service sshd]\ntimeout = 3s\nstrict = yes\n\
                             [pag]\nscope = user\ntimeout = 4s\nstrict = no\nnopag = no\n";

    /// A user of that name, in these groups.
    fn with_subject<T>(name: &str, groups: &[&str], work: impl FnOnce(&Subject<'_>) -> T) -> T {
        work(&Subject { name, is_in: &|group| groups.contains(&group) })
    }

    #[test]
    fn the_first_of_user_group_line_service_and_host_counts() {
        let files = files(BY_PERSON);
        let of = |name: &str, groups: &[&str], line: &[&[u8]]| {
            let (settings, complaints) =
                with_subject(name, groups, |subject| load(&files.dirs, "sshd", Some(subject), line));
            assert!(complaints.is_empty(), "{complaints:?}");
            (settings.scope, settings.retain, settings.join, settings.timeout.as_secs(), settings.strict)
        };
        let (user, session) = (Scope::User, Scope::Session);
        let table = [
            (of("alice", &[], &[]), (session, Retain::None, Join::Always, 3, true)),
            (of("alice", &[], &[b"scope=user"]), (session, Retain::None, Join::Always, 3, true)),
            (of("bob", &[], &[b"scope=session"]), (session, Retain::None, Join::Always, 3, true)),
            (of("bob", &["wheel"], &[b"timeout=9s"]), (user, Retain::Processes, Join::Always, 2, true)),
            // Of two groups the one that stands first in the files, whatever NSS says first.
            (of("bob", &["wheel", "staff"], &[]), (user, Retain::Linger, Join::Credentials, 2, true)),
            (of("bob", &[], &[b"timeout=9s"]), (user, Retain::None, Join::Always, 9, true)),
            // A service of the user's name, and the other way round, is somebody else.
            (of("sshd", &["alice"], &[]), (user, Retain::None, Join::Always, 3, true)),
        ];
        for (index, (found, expected)) in table.into_iter().enumerate() {
            assert_eq!(found, expected, "row {index}");
        }
    }

    #[test]
    fn groups_are_looked_up_only_where_a_section_names_one() {
        let asked = std::cell::RefCell::new(Vec::new());
        let is_in = |group: &str| {
            asked.borrow_mut().push(group.to_owned());
            false
        };
        let subject = Subject { name: "alice", is_in: &is_in };
        let without = files("[pag]\nscope = session\n[user alice]\nnopag = yes\n");
        let _ = load(&without.dirs, "sshd", Some(&subject), &[]);
        assert!(asked.borrow().is_empty());
        let with = files(BY_PERSON);
        let _ = load(&with.dirs, "sshd", Some(&subject), &[]);
        assert_eq!(asked.take(), ["wheel", "staff"]);
        // The helper looks nobody up, and finds what is wrong all the same.
        let wrong = files("[group staff]\nplacement = own\n[user alice]\nfollow = first\nscope = all\n");
        let found: Vec<String> = host(&wrong.dirs).1.iter().map(|c| c.what.clone()).collect();
        let expected = [
            "'placement' is not for a user or a group",
            "'follow' is for the whole host alone",
            "scope cannot be 'all'",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_explanation_names_the_line_that_decides() {
        let files = files(BY_PERSON);
        files.write("login.defs", b"UID_MIN 500\n");
        files.write("etc/60-more.conf", b"[group wheel]\ntimeout = 1s\n");
        let explain = |name: &str, groups: &[&str], service: Option<&str>| -> Vec<String> {
            let explained = with_subject(name, groups, |subject| explain(&files.dirs, service, Some(subject))).0;
            assert_eq!(explained.len(), OPTIONS.len());
            let prefix = format!("{}/", files.top.path().display());
            let line = |e: Explained| {
                let place = e.place.map_or("built in".to_owned(), |place| place.to_string().replace(&prefix, ""));
                format!("{} {} {place}", e.name, e.value)
            };
            explained.into_iter().map(line).collect()
        };
        let has = |lines: &[String], wanted: &[&str]| {
            for line in wanted {
                assert!(lines.iter().any(|one| one == line), "{line} is not among {lines:#?}");
            }
        };
        let alice = explain("alice", &["wheel"], Some("sshd"));
        has(&alice, &["scope session pag.conf:2", "timeout 1000ms etc/60-more.conf:2", "strict yes pag.conf:11"]);
        has(&alice, &["retain processes pag.conf:7", "retain_after_close yes pag.conf:7", "kdestroy no built in"]);
        has(&alice, &["minimum_uid 500 login.defs", "placement login built in", "follow display built in"]);
        let bob = explain("bob", &[], None);
        has(&bob, &["scope user pag.conf:13", "timeout 4000ms pag.conf:14", "strict no pag.conf:15"]);
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
            "pag.conf:6: unknown section 'nonsense'; right would be [pag], [service NAME], [group NAME] or [user NAME]",
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
        let (settings, complaints) = load(&files.dirs, "systemd-user", None, &[]);
        assert_eq!((settings.placement, complaints.len()), (Role::Manager, 1));
        let (settings, complaints) = load(&files.dirs, "sshd", None, &[]);
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
        assert_eq!(load(&files.dirs, "sshd", None, &[]).1.len(), 1);
        assert!(load(&files.dirs, "cron", None, &[]).0.nopag);
    }

    #[test]
    fn a_keytab_is_a_users_or_a_services() {
        let text = "[user alice]\nkeytab = /etc/k/alice\n[user bob]\nprincipal = bob/cron\nkeytab = /etc/k/bob\n\
                    [service backup]\nkeytab = /etc/k/backup\n[user carol]\nkeytab = /etc/k/carol\nkeytab =\n";
        let files = files(text);
        let keytab =
            |path: &str, principal: Option<&str>| Keytab { path: path.into(), principal: principal.map(str::to_owned) };
        let expected = [
            (Whose::Service("backup".to_owned()), keytab("/etc/k/backup", None)),
            (Whose::User("alice".to_owned()), keytab("/etc/k/alice", None)),
            (Whose::User("bob".to_owned()), keytab("/etc/k/bob", Some("bob/cron"))),
        ];
        assert_eq!(keytabs(&files.dirs), expected);
        assert_eq!(load(&files.dirs, "sshd", None, &[b"keytab=/x"]).1.len(), 1);
        // Sections of one user are one, in whichever file they stand.
        files.write("etc/10-more.conf", b"[user alice]\nprincipal = alice/cron\n[user bob]\nkeytab =\n");
        let expected = [
            (Whose::Service("backup".to_owned()), keytab("/etc/k/backup", None)),
            (Whose::User("alice".to_owned()), keytab("/etc/k/alice", Some("alice/cron"))),
        ];
        assert_eq!(keytabs(&files.dirs), expected);
        let files = self::files("[pag]\nkeytab = /x\n[group g]\nkeytab = /x\n[user a]\nkeytab = x\nprincipal = -V\n");
        assert_eq!((keytabs(&files.dirs).len(), host(&files.dirs).1.len()), (0, 4));
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
        let page = include_str!("../../../docs/man/pam_pag.8");
        let section = page.split(".SH OPTIONS").nth(1).unwrap().split("\n.SH").next().unwrap();
        let tags = section.split("\n.TP\n").skip(1).map(|rest| rest.lines().next().unwrap());
        tags.map(|tag| tag.split(' ').nth(1).unwrap().split('=').next().unwrap()).collect()
    }

    #[test]
    fn the_manuals_name_every_option_and_no_other() {
        let (of_line, of_file): (Vec<&Opt>, Vec<&Opt>) =
            OPTIONS.iter().partition(|option| option.stands == Where::Anywhere);
        let mut names: Vec<&str> = of_line.iter().map(|option| option.name).collect();
        let mut documented = documented();
        names.sort_unstable();
        documented.sort_unstable();
        assert_eq!(documented, names);
        let page = include_str!("../../../docs/man/pag.conf.5");
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
            let _ = load(&files.dirs, "sshd", None, &[&argument]);
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
            for complaint in load(&files.dirs, "sshd", None, &[argument.as_bytes()]).1 {
                prop_assert!(!complaint.to_string().contains('\n'));
            }
        }
    }
}
