//! The table of options, by which the configuration is read, checked and shown, and the built-in defaults.

use super::files::MINIMUM_UID;
use crate::types::Follow;
use crate::types::Join;
use crate::types::Scope;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::identity::is_identity;
use super::settings::Settings;
use crate::types::{Client, ClientChoice, Retain, ServiceKind};

/// The kind of value that an option takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    /// Yes or no. On a PAM line the name alone is yes.
    Switch(fn(&mut Settings, bool)),
    /// A text. The error says which text would be right.
    Text(fn(&mut Settings, &str) -> Result<(), String>),
}

/// The places of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// In every section, and on a PAM line.
    Anywhere,
    /// In every section.
    Sections,
    /// In `[service NAME]` alone.
    Service,
    /// In `[service NAME]`, `[user NAME]` and `[pag NAME]`.
    Keytab,
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
    pub(super) value: Value,
}

type Set = fn(&mut Settings, &str) -> Result<(), String>;

const fn switch(name: &'static str, set: fn(&mut Settings, bool)) -> Opt {
    Opt { name, stands: Where::Anywhere, value: Value::Switch(set) }
}

pub(super) const fn text(name: &'static str, set: Set) -> Opt {
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
            // Only systemd starts a user manager, and only the helper a seeding job. Their placements are fixed.
            (_, ServiceKind::Manager | ServiceKind::Seed) => {
                Err("no such line, since the placement of this service is fixed".to_owned())
            }
            (Ok(role @ (ServiceKind::Login | ServiceKind::Own | ServiceKind::Nothing)), _) => {
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
    only(Where::Keytab, text("keytab", |s, v| keytab(v).map(|path| s.keytab = path))),
    only(Where::Keytab, text("principal", |s, v| principal(v).map(|principal| s.principal = principal))),
];

/// The options that may stand in `[pag NAME]`.
pub(super) const OF_NAMED: [&str; 6] = ["keytab", "principal", "afs_cells", "program", "kafs_program", "timeout"];

/// The names that [`is_pag_name`] takes, for a complaint.
pub(super) const PAG_NAMES: &str = "up to 28 letters, digits, '.', '_' and '-', with a letter or digit first";

/// Whether a PAG can have this name. A unit and a lease are called by it.
pub(super) fn is_pag_name(name: &str) -> bool {
    let is_usual = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    name.len() <= 28 && name.bytes().all(is_usual) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// The value of an option, as a configuration file has it. None if there is no such option. This is not in the table,
/// since the PAM module shows no options and should not carry it.
pub(super) fn shown(name: &str, s: &Settings) -> Option<String> {
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

/// The option that an option sets: `retain_after_close` is another name for `retain`.
pub(super) fn setting(name: &'static str) -> &'static str {
    if name == "retain_after_close" { "retain" } else { name }
}

fn yes_or_no(on: bool) -> String {
    if on { "yes" } else { "no" }.to_owned()
}

/// Words separated by commas, spaces or tabs, as pam_afs_session splits its lists (pam-util/vector.c).
fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split([',', ' ', '\t']).filter(|word| !word.is_empty())
}

/// A program and its arguments, separated by commas. No shell reads them. An empty value takes back an earlier setting.
pub(super) fn program(value: &str) -> Result<Option<Vec<String>>, String> {
    let words: Vec<String> = list(value).map(str::to_owned).collect();
    match words.first() {
        None => Ok(None),
        Some(path) if path.starts_with('/') => Ok(Some(words)),
        _ => Err("an absolute path, then arguments, separated by commas".to_owned()),
    }
}

/// A file in /proc: any other file could be on a file system that does not answer. An empty value takes back an earlier
/// setting.
fn device(value: &str) -> Result<Option<PathBuf>, String> {
    let path = Path::new(value);
    let plain = path.components().all(|part| !matches!(part, Component::ParentDir));
    match value {
        "" => Ok(None),
        _ if path.starts_with("/proc") && plain && path != Path::new("/proc") => Ok(Some(path.to_owned())),
        _ => Err("a path in /proc, such as /proc/fs/auristorfs/afs_ioctl".to_owned()),
    }
}

/// A file. The program that uses it checks it. An empty value takes back an earlier setting.
pub(super) fn keytab(value: &str) -> Result<Option<PathBuf>, String> {
    let path = Path::new(value);
    match value {
        "" => Ok(None),
        _ if path.is_absolute() && path.components().all(|part| !matches!(part, Component::ParentDir)) => {
            Ok(Some(path.to_owned()))
        }
        _ => Err("an absolute path, such as /etc/pag/keytabs/alice".to_owned()),
    }
}

/// A principal, with or without its realm. It becomes an argument of kinit.
pub(super) fn principal(value: &str) -> Result<Option<String>, String> {
    match value {
        "" => Ok(None),
        _ if !value.starts_with('-') && value.bytes().all(|c| c.is_ascii_graphic()) && value.len() <= 256 => {
            Ok(Some(value.to_owned()))
        }
        _ => Err("a principal, such as alice/cron@EXAMPLE.ORG".to_owned()),
    }
}

/// Principals, in which `%u` may stand for the user's name. An empty value takes back an earlier setting.
pub(super) fn identity(value: &str) -> Result<Vec<String>, String> {
    let words: Vec<String> = list(value).map(str::to_owned).collect();
    if words.iter().all(|word| is_identity(word)) {
        Ok(words)
    } else {
        Err("principals with their realms, such as %u@EXAMPLE.ORG".to_owned())
    }
}

/// A time from 100 ms to 60 s. A number without a unit is in seconds.
pub(super) fn timeout(value: &str) -> Result<Duration, String> {
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
            let clients: Option<Vec<Client>> = list(value).map(Client::parse).collect();
            clients
                .filter(|clients| !clients.is_empty())
                .map(ClientChoice::Only)
                .ok_or_else(|| "auto or none, or any of keyring, openafs and kafs, separated by commas".to_owned())
        }
    }
}

/// A switch, as pam_afs_session reads it (pam-util/options.c, convert_boolean).
pub(super) fn switched(value: Option<&str>) -> Result<bool, String> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("yes" | "true" | "on" | "1") => Ok(true),
        Some("no" | "false" | "off" | "0") => Ok(false),
        Some(_) => Err("yes or no".to_owned()),
    }
}

/// The name of an option that differs least from `name`, if `name` is likely a misspelling of it.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let near = OPTIONS.iter().map(|option| (distance(name, option.name), option.name)).min()?;
    (name.len() <= 32 && near.0 <= 2).then_some(near.1)
}

/// The number of insertions, deletions and replacements that lead from one word to another.
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

/// The seeder of OpenAFS if `program` names none.
pub const AKLOG: &str = "/usr/bin/aklog";
/// The seeder of kAFS if `kafs_program` names none.
pub const AKLOG_KAFS: &str = "/usr/bin/aklog-kafs";

/// The built-in defaults. The manuals and pag.conf state them, too, and a test compares them with these.
impl Default for Settings {
    fn default() -> Self {
        Settings {
            scope: Scope::User,
            join: Join::Always,
            retain: Retain::None,
            timeout: Duration::from_secs(5),
            strict: false,
            program: None,
            kafs_program: None,
            program_places: [None, None],
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
            placement: ServiceKind::Login,
            client: ClientChoice::Auto,
            follow: Follow::Display,
            openafs_device: None,
            keytab: None,
            principal: None,
        }
    }
}
