//! The names of ccaches, as in KRB5CCNAME and krb5.conf.

use super::{kcm, keyring};

/// Longest name of a ccache, in bytes.
const LONGEST_NAME: usize = 1024;

/// Checks that a name of a ccache can go into records, messages and environments. It comes from the user, as
/// KRB5CCNAME, and may contain any character.
///
/// # Errors
/// In words. The name in them is escaped.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_hidden = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
    let what = match name {
        long if long.len() > LONGEST_NAME => "is longer than 1024 bytes",
        odd if odd.contains(is_hidden) => "contains characters that no name of a ccache has",
        _ => return Ok(()),
    };
    let shown: String = name.chars().take(100).flat_map(char::escape_default).collect();
    Err(format!("its name, KRB5CCNAME, {what}: \"{shown}\"; look for what sets it (pam_env, ~/.pam_environment, sshd)"))
}

/// The name of a ccache, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CcacheName {
    /// A file.
    File(String),
    /// A directory with a `primary`.
    Dir(String),
    /// In KCM, the daemon that keeps ccaches for each uid.
    Kcm(kcm::Name),
    /// In a keyring.
    Keyring(keyring::Name),
}

impl CcacheName {
    /// Takes a name apart as krb5_cc_resolve does. A name without a type is a file.
    ///
    /// # Errors
    /// Why a PAG can't use such a ccache, in words.
    pub fn parse(name: &str) -> Result<Self, String> {
        check_name(name)?;
        let (kind, rest) = match name.split_once(':') {
            Some((kind, rest)) if !kind.contains('/') => (kind, rest),
            _ => ("FILE", name),
        };
        let absolute = |path: &str| path.starts_with('/');
        match kind {
            "FILE" | "WRFILE" if absolute(rest) => Ok(CcacheName::File(rest.to_owned())),
            "DIR" if absolute(rest) => Ok(CcacheName::Dir(rest.to_owned())),
            // `DIR::/path/tkt` names one ccache of a collection.
            "DIR" if rest.strip_prefix(':').is_some_and(absolute) => {
                Ok(CcacheName::File(rest.trim_start_matches(':').to_owned()))
            }
            "KCM" => Ok(CcacheName::Kcm(kcm::Name::new(rest))),
            "KEYRING" => keyring::Name::parse(rest).map(CcacheName::Keyring),
            "FILE" | "WRFILE" | "DIR" => Err("its path is not absolute".to_owned()),
            _ => Err("its type is none that the PAM module can read; use FILE, DIR, KCM or KEYRING".to_owned()),
        }
    }

    /// Whether all processes of the uid can read the ccache: it is in KCM, or in a keyring of the uid.
    pub fn is_of_uid(&self) -> bool {
        match self {
            CcacheName::File(_) | CcacheName::Dir(_) => false,
            CcacheName::Kcm(_) => true,
            CcacheName::Keyring(name) => !name.is_of_session(),
        }
    }

    /// Whether the ccache is in the session keyring of the login. The login loses it when it joins the PAG's ring.
    pub fn is_of_session(&self) -> bool {
        matches!(self, CcacheName::Keyring(name) if name.is_of_session())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_gives_the_path_of_a_ccache() {
        let file = |path: &str| Ok(CcacheName::File(path.to_owned()));
        assert_eq!(CcacheName::parse("/tmp/krb5cc_1"), file("/tmp/krb5cc_1"));
        assert_eq!(CcacheName::parse("FILE:/tmp/krb5cc_1"), file("/tmp/krb5cc_1"));
        assert_eq!(CcacheName::parse("/tmp/a:b"), file("/tmp/a:b"));
        assert_eq!(CcacheName::parse("DIR::/run/x/tkt1"), file("/run/x/tkt1"));
        assert_eq!(CcacheName::parse("DIR:/run/x"), Ok(CcacheName::Dir("/run/x".to_owned())));
    }

    #[test]
    fn ccaches_of_the_uid_and_of_the_session_are_told_apart() {
        let of = |name: &str| CcacheName::parse(name).map(|place| (place.is_of_uid(), place.is_of_session()));
        for name in
            ["KCM:", "KCM:61001", "KCM:61001:4711", "KEYRING:persistent:61001", "KEYRING:persistent:", "KEYRING:user:x"]
        {
            assert_eq!(of(name), Ok((true, false)), "{name}");
        }
        for name in ["KEYRING:session:x", "KEYRING:legacy:x:y", "KEYRING:x"] {
            assert_eq!(of(name), Ok((false, true)), "{name}");
        }
        for name in ["FILE:/tmp/x", "DIR:/tmp/x"] {
            assert_eq!(of(name), Ok((false, false)), "{name}");
        }
    }

    #[test]
    fn names_that_a_pag_cannot_use_are_refused() {
        let names = [
            "",
            "FILE:",
            "FILE:relative",
            "MEMORY:x",
            "DIR:x",
            "\0",
            "KCM:a\0b",
            "KCM:a\nb",
            "KEYRING:process:x",
            "KEYRING:thread:x",
            "KEYRING:other:x",
            "KEYRING:persistent:alice",
            "KEYRING:user:a\0b",
            "KEYRING:",
        ];
        for name in names {
            assert!(CcacheName::parse(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_name_that_could_break_a_line_is_refused_and_escaped() {
        let long = format!("KCM:{}", "x".repeat(LONGEST_NAME));
        for name in
            ["KCM:x\nlease 1", "FILE:/tmp/x\r", "DIR:/run/\u{1b}[2J", "/tmp/a\0b", "KCM:\u{fffd}", "KCM:\u{85}", &long]
        {
            let why = CcacheName::parse(name).unwrap_err();
            assert!(why.is_ascii() && !why.contains(|c: char| c.is_control()), "{why}");
            assert!(why.contains("KRB5CCNAME") && why.len() < 400, "{why}");
        }
        assert!(CcacheName::parse(&long[..LONGEST_NAME]).is_ok());
        assert!(CcacheName::parse("FILE:/tmp/a name with spaces").is_ok());
    }

    proptest! {
        #[test]
        fn no_name_makes_the_parser_panic(name in ".*", kind in "(FILE|DIR|KCM|KEYRING):(persistent|user|session)?:?") {
            let _ = (CcacheName::parse(&name), CcacheName::parse(&format!("{kind}{name}")));
        }
    }
}
