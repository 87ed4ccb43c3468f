//! Kerberos principals.

use std::fmt;

/// A Kerberos identity, `name/instance@REALM`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    components: Vec<String>,
    realm: String,
}

/// Longest principal that is accepted, in bytes of text.
const LONGEST: usize = 256;

/// Why a text is no principal, or bytes are no ccache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatError(pub(crate) &'static str);

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for FormatError {}

impl Principal {
    pub(crate) fn new(components: Vec<String>, realm: String) -> Result<Self, FormatError> {
        let printable = |text: &String| !text.is_empty() && !text.contains(|c: char| c.is_control() || c == ' ');
        let principal = Principal { components, realm };
        let good = !principal.components.is_empty()
            && principal.components.iter().chain([&principal.realm]).all(printable)
            && principal.to_string().len() <= LONGEST;
        if good { Ok(principal) } else { Err(FormatError("its principal is not valid")) }
    }

    /// Parses a principal as krb5_unparse_name writes it: `\` escapes a separator.
    ///
    /// # Errors
    /// For a text without a realm, and for empty or unprintable parts.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut components = vec![String::new()];
        let mut realm: Option<String> = None;
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            let (letter, escaped) = match letter {
                '\\' => match letters.next() {
                    // krb5_parse_name takes these for control characters, which no account name contains.
                    Some('n' | 't' | 'b' | '0') => return Err(FormatError("it holds a control character")),
                    Some(letter) => (letter, true),
                    None => return Err(FormatError("it ends in a backslash")),
                },
                letter => (letter, false),
            };
            match (letter, escaped, &mut realm) {
                ('@', false, None) => realm = Some(String::new()),
                ('@', false, Some(_)) => return Err(FormatError("it has two realms")),
                ('/', false, None) => components.push(String::new()),
                (letter, _, Some(realm)) => realm.push(letter),
                (letter, _, None) => {
                    if let Some(last) = components.last_mut() {
                        last.push(letter);
                    }
                }
            }
        }
        Self::new(components, realm.ok_or(FormatError("it has no realm"))?)
    }

    /// The name and the realm, if the name has one component.
    pub fn simple(&self) -> Option<(&str, &str)> {
        match &self.components[..] {
            [only] => Some((only, &self.realm)),
            _ => None,
        }
    }

    /// Its realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Whether two principals are equal, apart from the case of their names.
    pub fn is_same(&self, other: &Self) -> bool {
        let name = |principal: &Self| principal.components.join("/").to_ascii_lowercase();
        self.realm == other.realm && self.components.len() == other.components.len() && name(self) == name(other)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |text: &str| -> String {
            text.chars().flat_map(|c| matches!(c, '/' | '@' | '\\').then_some('\\').into_iter().chain([c])).collect()
        };
        let components: Vec<String> = self.components.iter().map(|part| escaped(part)).collect();
        write!(f, "{}@{}", components.join("/"), escaped(&self.realm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_are_written_as_they_are_read() {
        for text in ["alice@R", "alice/admin@R", r"a\/b@R", r"a\@b@R", r"a\\b@R"] {
            assert_eq!(Principal::parse(text).unwrap().to_string(), text);
        }
        for text in
            ["", "alice", "@R", "alice@", "a@b@c", "a b@R", "a\n@R", "a//b@R", "a\\", r"a\nb@R", &"x".repeat(300)]
        {
            assert!(Principal::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_of_one_part_is_simple() {
        assert_eq!(Principal::parse("alice@R").unwrap().simple(), Some(("alice", "R")));
        assert_eq!(Principal::parse(r"alice\/x@R").unwrap().simple(), Some(("alice/x", "R")));
        assert_eq!(Principal::parse("alice/admin@R").unwrap().simple(), None);
    }

    #[test]
    fn case_counts_in_realms_and_not_in_names() {
        let same = |one, other| Principal::parse(one).unwrap().is_same(&Principal::parse(other).unwrap());
        assert!(same("alice/admin@R", "Alice/admin@R"));
        assert!(!same("alice@R", "alice@r") && !same(r"a\/b@R", "a/b@R") && !same("alice@R", "bob@R"));
    }
}
