//! An account's name, and which Kerberos identities are the account's own.
//!
//! A PAG without an identity takes tickets of the account's own identities only. Any other identity would lend its
//! rights to the services in that PAG, or borrow theirs.
//!
//! Directories name the same account differently. sssd writes `alice@example.test` if names are fully qualified
//! (`full_name_format`, sssd.conf(5)), or `EXAMPLE\alice` if it is set up so. winbind writes `EXAMPLE\alice` with a
//! separator that the site chooses (smb.conf(5)). Each of these stands for the principal `alice@EXAMPLE.TEST`.

use std::cell::OnceCell;
use std::ffi::CStr;

use super::identity::spelled_out;
use crate::config::{self, Dirs, Settings, Subject};
use crate::krb5_conf;
use crate::sys::UserGroups;
use crate::types::Principal;

/// An account, and what decides which identities are its own.
#[derive(Debug, Clone)]
pub struct Account {
    name: String,
    identity: Vec<String>,
    /// The principal of its keytab, if the configuration names one.
    key: Option<String>,
    /// The host's default realms, read only when they decide.
    realms: OnceCell<Vec<String>>,
}

/// The domain in an account's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Domain<'a> {
    /// A domain of the DNS, as in `alice@example.test`.
    Dns(&'a str),
    /// A short name of a Windows domain, as in `EXAMPLE\alice`.
    Short(&'a str),
}

impl Account {
    /// The account of this name, as the password database has it.
    pub fn new(name: &CStr, settings: &Settings) -> Self {
        let name = name.to_string_lossy().into_owned();
        let key = settings.keytab.as_ref().and(settings.principal.clone());
        Account { name, identity: settings.identity.clone(), key, realms: OnceCell::new() }
    }

    /// The account as a seeding job sees it: with the settings of the service `pag-seed`, and without a PAM line.
    pub fn configured(name: &CStr) -> Self {
        let groups = UserGroups::new(name);
        let is_in = |group: &str| groups.is_in(group);
        let text = name.to_string_lossy();
        let subject = Subject { name: &text, is_in: &is_in };
        Account::new(name, &config::load(&Dirs::default(), "pag-seed", Some(&subject), &[]).0)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a principal is one of the account's own. These are the principal of its keytab and those that the option
    /// `identity` names. Without that option, it is the account's name in its own realm. Names are compared without
    /// case, as in Active Directory.
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
            // A name may hold an @ that begins no domain. Like any other name, it is a principal of the default realm.
            _ if name.eq_ignore_ascii_case(&self.name) => self.is_local(realm),
            Some(Domain::Dns(domain)) => bare && realm.eq_ignore_ascii_case(domain),
            // Only the domain knows which realm a short name stands for. It is mostly the first label of the realm. A
            // realm of another site may begin with that label, too, so the realm must be the host's own.
            Some(Domain::Short(domain)) => {
                let label = realm.split('.').next().unwrap_or_default();
                bare && label.eq_ignore_ascii_case(domain) && self.is_local(realm)
            }
            None => false,
        }
    }

    /// Whether the account's keytab gives tickets for this principal: by the key that the configuration names, else by
    /// the account's own.
    pub fn is_from_keytab(&self, key: Option<&str>, principal: &Principal) -> bool {
        match key {
            Some(key) => self.is_key(key, principal),
            None => self.owns(principal) || self.is_key(&key_name(&self.name), principal),
        }
    }

    /// Whether the key of this name is the principal's. Without a realm, the key is one of the host's own realm.
    fn is_key(&self, key: &str, principal: &Principal) -> bool {
        match Principal::parse(key) {
            Ok(key) => key.is_same(principal),
            Err(_) => {
                let here = Principal::parse(&format!("{key}@{}", principal.realm()));
                here.is_ok_and(|key| key.is_same(principal)) && self.is_local(principal.realm())
            }
        }
    }

    /// Whether a realm is the host's own. Each realm is, if the configuration of Kerberos names no default realm.
    fn is_local(&self, realm: &str) -> bool {
        let realms = self.realms.get_or_init(default_realms);
        realms.is_empty() || realms.iter().any(|local| local == realm)
    }
}

/// An account's name without its domain, and the domain if there is one.
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

/// The key that is taken from an account's keytab if the configuration names none: the account's name without its
/// domain, in the realm of the domain, else in the default realm.
pub fn key_name(account: &str) -> String {
    match parts(account) {
        (bare, Some(Domain::Dns(domain))) => format!("{bare}@{}", domain.to_ascii_uppercase()),
        (bare, _) => bare.to_owned(),
    }
}

/// The host's default realms, from the configuration of Kerberos: MIT's library knows one, Heimdal's may know several.
/// Empty if no file that can be read names one.
fn default_realms() -> Vec<String> {
    let found = krb5_conf::libdefault("default_realm").unwrap_or_default();
    found.split_whitespace().map(str::to_owned).collect()
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

    fn account(name: &str, identity: &[&str], realms: &[&str]) -> Account {
        let all = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Account { name: name.to_owned(), identity: all(identity), key: None, realms: OnceCell::from(all(realms)) }
    }

    #[test]
    fn an_account_owns_the_principal_of_its_keytab() {
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
            // The account of a trusted domain is in that domain's realm, and never in the host's own.
            ("alice@other.test", &["alice@OTHER.TEST"], &["alice@EXAMPLE.TEST"]),
            (
                r"EXAMPLE\alice",
                &["alice@EXAMPLE.TEST"],
                &[
                    // Another site may have a realm that begins with that label.
                    "alice@EXAMPLE.OTHER",
                    "alice@OTHER.TEST",
                    "bob@EXAMPLE.TEST",
                ],
            ),
            ("EXAMPLE+alice", &["alice@EXAMPLE.TEST"], &["alice@OTHER.TEST"]),
            // The host's own realm does not begin with DOM.
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
    fn without_a_default_realm_an_account_owns_its_name_in_each_realm() {
        let owns = |name: &str, text: &str| account(name, &[], &[]).owns(&Principal::parse(text).unwrap());
        assert!(owns("alice", "alice@ANY.TEST") && owns(r"EXAMPLE\alice", "alice@EXAMPLE.TEST"));
        assert!(!owns("alice@example.test", "alice@OTHER.TEST") && !owns(r"EXAMPLE\alice", "alice@OTHER.TEST"));
    }

    #[test]
    fn the_option_identity_replaces_the_name_in_the_own_realm() {
        let owns = |name: &str, identity: &[&str], text: &str| {
            account(name, identity, &["EXAMPLE.TEST"]).owns(&Principal::parse(text).unwrap())
        };
        assert!(owns(r"DOM\alice", &["%u@EXAMPLE.TEST"], "alice@EXAMPLE.TEST"));
        assert!(!owns(r"DOM\alice", &["%u@EXAMPLE.TEST"], "bob@EXAMPLE.TEST"));
        assert!(owns("asmith", &["%u@A.TEST", "alice/staff@B.TEST"], "alice/staff@B.TEST"));
        assert!(!owns("alice", &["%u@OTHER.TEST"], "alice@EXAMPLE.TEST"), "the option counts alone");
        // A separator in a name is part of the name.
        assert!(!owns("alice/admin", &["%u@EXAMPLE.TEST"], "alice/admin@EXAMPLE.TEST"));
        assert!(is_identity("%u@EXAMPLE.TEST") && is_identity("alice/%u@R") && is_identity("alice@R"));
        assert!(!is_identity("%u") && !is_identity("@R") && !is_identity("%u@"));
    }

    #[test]
    fn a_keys_name_is_the_accounts_in_the_domains_realm() {
        let table = [("alice", "alice"), ("alice@example.test", "alice@EXAMPLE.TEST"), (r"DOM\alice", "alice")];
        for (account, expected) in table {
            assert_eq!(key_name(account), expected);
        }
    }
}
