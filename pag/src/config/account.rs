//! An account's name, and which Kerberos identities are the account's own.
//!
//! A PAG without an identity is fed and joined by tickets of an own identity only: any other one neither lends nor borrows
//! rights. What a directory calls a person differs: sssd writes `alice@example.test` where names are fully qualified
//! (`full_name_format`, sssd.conf(5)) or, told so, `EXAMPLE\alice`; winbind writes `EXAMPLE\alice` with a separator that
//! the site chooses (smb.conf(5)); each of them means the principal `alice@EXAMPLE.TEST`.

use super::identity::spelled_out;
use std::cell::OnceCell;
use std::ffi::CStr;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config::{self, Dirs, Settings, Subject};
use crate::sys::UserGroups;
use crate::types::Principal;

/// Where Kerberos's own configuration is.
const KRB5_CONF: &str = "/etc/krb5.conf";

/// Largest file that is read there, in bytes.
const LARGEST: u64 = 256 * 1024;

/// How deep files may include each other.
const DEEPEST: u32 = 3;

/// An account, with what decides about its own identities.
#[derive(Debug, Clone)]
pub struct Account {
    name: String,
    identity: Vec<String>,
    /// Whose key is in its keytab, where the configuration says so.
    key: Option<String>,
    /// Kerberos's default realms, read when they decide.
    realms: OnceCell<Vec<String>>,
}

/// The domain in an account's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Domain<'a> {
    /// That of the DNS, as in `alice@example.test`.
    Dns(&'a str),
    /// A short one of Windows, as in `EXAMPLE\alice`.
    Short(&'a str),
}

impl Account {
    /// The account of that name, which is the one that the password database has.
    pub fn new(name: &CStr, settings: &Settings) -> Self {
        let name = name.to_string_lossy().into_owned();
        let key = settings.keytab.as_ref().and(settings.principal.clone());
        Account { name, identity: settings.identity.clone(), key, realms: OnceCell::new() }
    }

    /// The account as the configuration has it for the jobs that renew: no PAM line is known, and no login's service.
    pub fn configured(name: &CStr) -> Self {
        let person = UserGroups::new(name);
        let is_in = |group: &str| person.is_in(group);
        let text = name.to_string_lossy();
        let subject = Subject { name: &text, is_in: &is_in };
        Account::new(name, &config::load(&Dirs::default(), "pag-seed", Some(&subject), &[]).0)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a principal is one of the account's own: that of its keytab, those that `identity` names, and, without that
    /// option, the account's name in its own realm. Case does not count in names, since in Active Directory it does not.
    pub fn owns(&self, principal: &Principal) -> bool {
        let (bare, domain) = parts(&self.name);
        if self.key.as_ref().is_some_and(|key| self.is_key(key, principal)) {
            return true;
        }
        if !self.identity.is_empty() {
            return self.identity.iter().any(|one| spelled_out(one, bare).is_some_and(|own| own.is_same(principal)));
        }
        let Some((name, realm)) = principal.simple() else { return false };
        let bare = name.eq_ignore_ascii_case(bare);
        match domain {
            // A name that holds an @ for another reason is a name of the default realm, like any.
            _ if name.eq_ignore_ascii_case(&self.name) => self.is_local(realm),
            Some(Domain::Dns(domain)) => bare && realm.eq_ignore_ascii_case(domain),
            // What a short name stands for only its domain knows; mostly it is the first label. Another realm may have
            // that label, too, and anybody may found one.
            Some(Domain::Short(domain)) => {
                let label = realm.split('.').next().unwrap_or_default();
                bare && label.eq_ignore_ascii_case(domain) && self.is_local(realm)
            }
            None => false,
        }
    }

    /// Whether a ticket for this principal is what the account's keytab gives: by the key that the configuration names for it,
    /// else by the account's own.
    pub fn is_from_keytab(&self, key: Option<&str>, principal: &Principal) -> bool {
        match key {
            Some(key) => self.is_key(key, principal),
            None => self.owns(principal) || self.is_key(&key_name(&self.name), principal),
        }
    }

    /// Whether a key of this name, which may lack its realm, is that principal's.
    fn is_key(&self, key: &str, principal: &Principal) -> bool {
        match Principal::parse(key) {
            Ok(key) => key.is_same(principal),
            Err(_) => {
                let here = Principal::parse(&format!("{key}@{}", principal.realm()));
                here.is_ok_and(|key| key.is_same(principal)) && self.is_local(principal.realm())
            }
        }
    }

    /// Whether a realm is the host's own. Where Kerberos's configuration does not say which is, every one is.
    fn is_local(&self, realm: &str) -> bool {
        let realms = self.realms.get_or_init(|| default_realms(Path::new(KRB5_CONF), DEEPEST));
        realms.is_empty() || realms.iter().any(|local| local == realm)
    }
}

/// What of an account's name names the person, and the domain where the name has one.
fn parts(name: &str) -> (&str, Option<Domain<'_>>) {
    let whole = |(one, other): &(&str, &str)| !one.is_empty() && !other.is_empty();
    if let Some((bare, domain)) = name.rsplit_once('@').filter(whole) {
        return (bare, Some(Domain::Dns(domain)));
    }
    match name.split_once(['\\', '+']).filter(whole) {
        Some((domain, bare)) => (bare, Some(Domain::Short(domain))),
        None => (name, None),
    }
}

/// The name under which an account's key is looked for in a keytab, unless the configuration says which: that of its person
/// in the realm of its domain, else in the default realm.
pub fn key_name(account: &str) -> String {
    match parts(account) {
        (bare, Some(Domain::Dns(domain))) => format!("{bare}@{}", domain.to_ascii_uppercase()),
        (bare, _) => bare.to_owned(),
    }
}

/// Kerberos's default realms, as its configuration and what that includes say: one with MIT's library, maybe several with
/// Heimdal's. Of several places the first counts (krb5.conf(5)). None where it says nothing, or cannot be read.
fn default_realms(path: &Path, depth: u32) -> Vec<String> {
    let Some(text) = text_of(path) else { return Vec::new() };
    let mut in_defaults = false;
    for line in text.lines().map(str::trim) {
        let found = if let Some(head) = line.strip_prefix('[') {
            in_defaults = head.split(']').next() == Some("libdefaults");
            Vec::new()
        } else if let Some((word, rest)) = line.split_once([' ', '\t']).filter(|(word, _)| word.starts_with("include"))
        {
            let paths = match word {
                "include" if depth > 0 => vec![PathBuf::from(rest.trim())],
                "includedir" if depth > 0 => included(Path::new(rest.trim())),
                _ => Vec::new(),
            };
            paths
                .iter()
                .map(|path| default_realms(path, depth - 1))
                .find(|realms| !realms.is_empty())
                .unwrap_or_default()
        } else {
            let value = line.split_once('=').filter(|(name, _)| in_defaults && name.trim() == "default_realm");
            value.map_or_else(Vec::new, |(_, value)| value.split_whitespace().map(str::to_owned).collect())
        };
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// The files of a directory that Kerberos would include: those with names of letters, digits, dashes and underscores, and
/// those that end in `.conf` (krb5.conf(5)).
fn included(directory: &Path) -> Vec<PathBuf> {
    let is_plain = |name: &str| name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
    let counts = |name: &str| is_plain(name) || !name.starts_with('.') && name.ends_with(".conf");
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(counts);
    let mut paths: Vec<PathBuf> = entries.filter(named).collect();
    paths.sort();
    paths
}

/// What a file of the administrator's says: one that nobody else can write, and that is not waited for.
fn text_of(path: &Path) -> Option<String> {
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let found = file.metadata().ok()?;
    let trusted = found.is_file() && found.uid() == 0 && found.mode() & 0o022 == 0 && found.len() <= LARGEST;
    let mut text = String::new();
    trusted.then(|| file.take(LARGEST).read_to_string(&mut text).ok())??;
    Some(text)
}

#[cfg(test)]
impl Account {
    /// An account on a host of this realm.
    pub(crate) fn of_realm(name: &str, realm: &str) -> Self {
        let realms = OnceCell::from(vec![realm.to_owned()]);
        Account { name: name.to_owned(), identity: Vec::new(), key: None, realms }
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::is_identity;
    use super::*;
    use std::fs;

    fn account(name: &str, identity: &[&str], realms: &[&str]) -> Account {
        let all = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Account { name: name.to_owned(), identity: all(identity), key: None, realms: OnceCell::from(all(realms)) }
    }

    #[test]
    fn the_identity_of_its_keytab_is_an_accounts_own() {
        let owns = |key: &str, text: &str| {
            let account = Account { key: Some(key.to_owned()), ..account("alice", &[], &["R"]) };
            account.owns(&Principal::parse(text).unwrap())
        };
        assert!(owns("alice/cron", "alice/cron@R") && owns("alice/cron@X", "alice/cron@X"));
        assert!(owns("alice/cron", "alice@R"), "besides its name");
        assert!(!owns("alice/cron", "alice/cron@X") && !owns("alice/cron", "alice/admin@R"));
    }

    #[test]
    fn an_account_owns_its_name_in_its_own_realm() {
        let local = ["EXAMPLE.TEST"];
        let table: &[(&str, &[&str], &[&str])] = &[
            (
                "alice",
                &["alice@EXAMPLE.TEST", "Alice@EXAMPLE.TEST"],
                &[
                    "alice@OTHER.TEST",
                    "alice@example.test",
                    "bob@EXAMPLE.TEST",
                    "alice/admin@EXAMPLE.TEST",
                    r"alice\/x@EXAMPLE.TEST",
                    r"alice\@EXAMPLE.TEST@OTHER.TEST",
                ],
            ),
            (
                "alice@example.test",
                &["alice@EXAMPLE.TEST", "Alice@EXAMPLE.TEST"],
                &[
                    "alice@OTHER.TEST",
                    "alice@TEST",
                    "alice@EXAMPLE.TEST.OTHER",
                    "bob@EXAMPLE.TEST",
                    "alice/admin@EXAMPLE.TEST",
                ],
            ),
            // A trusted domain's person is in that domain's realm, and never in the host's own.
            ("alice@other.test", &["alice@OTHER.TEST"], &["alice@EXAMPLE.TEST"]),
            (
                r"EXAMPLE\alice",
                &["alice@EXAMPLE.TEST"],
                &[
                    // Anybody may found a realm with that label.
                    "alice@EXAMPLE.OTHER",
                    "alice@OTHER.TEST",
                    "bob@EXAMPLE.TEST",
                ],
            ),
            ("EXAMPLE+alice", &["alice@EXAMPLE.TEST"], &["alice@OTHER.TEST"]),
            // What DOM stands for nobody can guess.
            (r"DOM\alice", &[], &["alice@EXAMPLE.TEST", "alice@DOM.TEST", "alice@DOM"]),
            ("@example.test", &[], &["alice@EXAMPLE.TEST"]),
            (r"\alice", &[], &["alice@EXAMPLE.TEST"]),
        ];
        for (name, own, others) in table {
            let account = account(name, &[], &local);
            for (principals, expected) in [(own, true), (others, false)] {
                for text in *principals {
                    assert_eq!(account.owns(&Principal::parse(text).unwrap()), expected, "{text} of {name}");
                }
            }
        }
    }

    #[test]
    fn a_keytab_gives_tickets_of_its_key_and_no_other() {
        let account = account("alice", &[], &["EXAMPLE.TEST"]);
        let table = [
            (None, "alice@EXAMPLE.TEST", true),
            (None, "bob@EXAMPLE.TEST", false),
            (None, "alice@OTHER.TEST", false),
            (Some("backup/host"), "backup/host@EXAMPLE.TEST", true),
            (Some("backup/host"), "backup/host@OTHER.TEST", false),
            (Some("backup/host"), "alice@EXAMPLE.TEST", false),
            (Some("backup@OTHER.TEST"), "backup@OTHER.TEST", true),
            (Some("backup@OTHER.TEST"), "backup@EXAMPLE.TEST", false),
        ];
        for (key, text, expected) in table {
            let verdict = account.is_from_keytab(key, &Principal::parse(text).unwrap());
            assert_eq!(verdict, expected, "{text} by the key {key:?}");
        }
    }

    #[test]
    fn where_no_default_realm_is_known_a_bare_name_is_taken_in_every_realm() {
        let owns = |name: &str, text: &str| account(name, &[], &[]).owns(&Principal::parse(text).unwrap());
        assert!(owns("alice", "alice@ANY.TEST") && owns(r"EXAMPLE\alice", "alice@EXAMPLE.TEST"));
        assert!(!owns("alice@example.test", "alice@OTHER.TEST") && !owns(r"EXAMPLE\alice", "alice@OTHER.TEST"));
    }

    #[test]
    fn the_option_says_what_cannot_be_guessed_and_counts_alone() {
        let owns = |name: &str, identity: &[&str], text: &str| {
            account(name, identity, &["EXAMPLE.TEST"]).owns(&Principal::parse(text).unwrap())
        };
        assert!(owns(r"DOM\alice", &["%u@EXAMPLE.TEST"], "alice@EXAMPLE.TEST"));
        assert!(!owns(r"DOM\alice", &["%u@EXAMPLE.TEST"], "bob@EXAMPLE.TEST"));
        assert!(owns("asmith", &["%u@A.TEST", "alice/staff@B.TEST"], "alice/staff@B.TEST"));
        assert!(!owns("alice", &["%u@OTHER.TEST"], "alice@EXAMPLE.TEST"), "in place of what would be guessed");
        // A name cannot bring separators of its own along.
        assert!(!owns("alice/admin", &["%u@EXAMPLE.TEST"], "alice/admin@EXAMPLE.TEST"));
        assert!(is_identity("%u@EXAMPLE.TEST") && is_identity("alice/%u@R") && is_identity("alice@R"));
        assert!(!is_identity("%u") && !is_identity("@R") && !is_identity("%u@"));
    }

    #[test]
    fn a_keys_name_is_the_persons_in_the_domains_realm() {
        let table = [("alice", "alice"), ("alice@example.test", "alice@EXAMPLE.TEST"), (r"DOM\alice", "alice")];
        for (account, expected) in table {
            assert_eq!(key_name(account), expected);
        }
    }

    #[test]
    fn the_default_realm_is_found_where_kerberos_finds_it() {
        let top = tempfile::tempdir().unwrap();
        if fs::metadata(top.path()).unwrap().uid() != 0 {
            return;
        }
        let at = |name: &str| top.path().join(name);
        let dir = at("d");
        fs::create_dir(&dir).unwrap();
        let read = |text: &str| {
            fs::write(at("krb5.conf"), text).unwrap();
            default_realms(&at("krb5.conf"), DEEPEST).join(" ")
        };
        assert_eq!(read("[libdefaults]\n\tdefault_realm = A.TEST\n\tdefault_realm = B.TEST\n"), "A.TEST");
        assert_eq!(read("[realms]\ndefault_realm = A.TEST\n[libdefaults]\n# default_realm = B.TEST\n"), "");
        assert_eq!(read("[libdefaults]\ndefault_realm=A.TEST B.TEST"), "A.TEST B.TEST");
        fs::write(dir.join("10-x.conf"), "[libdefaults]\ndefault_realm = D.TEST\n").unwrap();
        fs::write(dir.join(".hidden.conf"), "[libdefaults]\ndefault_realm = H.TEST\n").unwrap();
        let text = format!("includedir {}\n[libdefaults]\ndefault_realm = A.TEST\n", dir.display());
        assert_eq!(read(&text), "D.TEST", "the first one counts");
        // A file that includes itself ends.
        let text = format!("include {}\n[libdefaults]\ndefault_realm = A.TEST\n", at("krb5.conf").display());
        assert_eq!(read(&text), "A.TEST");
        // What others can write is not believed.
        fs::set_permissions(at("krb5.conf"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(default_realms(&at("krb5.conf"), DEEPEST), Vec::<String>::new());
    }
}
