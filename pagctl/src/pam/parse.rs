//! A PAM file as lines: what is understood beside the text it came from, so that writing it back changes nothing.
//!
//! Syntax: pam.d(5), and Debian's `@include`. As libpam does, a backslash at its end joins a line with the next one
//! and `#` begins a comment wherever it stands (Linux-PAM, pam_handlers.c, `_pam_assemble_line`).

use std::str::FromStr;

/// What a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Facility {
    /// Who is it?
    Auth,
    /// May he come in?
    Account,
    /// A new password.
    Password,
    /// Setting up and tearing down: our place.
    Session,
}

impl Facility {
    /// All of them, in the order of pam.d(5)'s examples.
    pub(crate) const ALL: [Self; 4] = [Self::Auth, Self::Account, Self::Password, Self::Session];

    /// The word that stands in a PAM file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Account => "account",
            Self::Password => "password",
            Self::Session => "session",
        }
    }
}

impl FromStr for Facility {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|facility| word.eq_ignore_ascii_case(facility.name())).ok_or(())
    }
}

/// A line that names a module, or a file to be read in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What it is for.
    pub(crate) facility: Facility,
    /// `required`, `include`, `[success=1 default=ignore]`, ...
    pub(crate) control: String,
    /// File name or path of the module; for `include` and `substack` the service or path.
    pub(crate) target: String,
    /// What follows.
    pub(crate) args: Vec<String>,
}

impl Entry {
    /// Whether another file is read here.
    pub(crate) fn includes(&self) -> bool {
        self.control.eq_ignore_ascii_case("include") || self.control.eq_ignore_ascii_case("substack")
    }

    /// Whether it calls this module, given without directory and `.so`.
    pub(crate) fn calls(&self, module: &str) -> bool {
        let file = self.target.rsplit('/').next().unwrap_or_default();
        !self.includes() && file.strip_suffix(".so").unwrap_or(file) == module
    }

    /// Whether this word is among its arguments.
    pub(crate) fn has_arg(&self, word: &str) -> bool {
        self.args.iter().any(|arg| arg == word)
    }

    /// The longest jump that its control can make: how many of the following modules may be skipped.
    pub(crate) fn longest_jump(&self) -> usize {
        self.control
            .trim_matches(['[', ']'])
            .split_whitespace()
            .filter_map(|pair| pair.split_once('=')?.1.parse().ok())
            .max()
            .unwrap_or(0)
    }
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Empty, or a comment.
    Nothing,
    /// Debian's `@include`: the lines of all facilities of a file.
    IncludeAll(String),
    /// A module or an include.
    Entry(Entry),
    /// Not in the syntax we know.
    Unknown,
}

/// One logical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// As it stands in the file, with its line ends and joined lines.
    pub(crate) text: String,
    /// What it says.
    pub(crate) meaning: Meaning,
}

/// Splits a file. The texts of the lines, put together, are the file again.
pub(crate) fn parse(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut pending = String::new();
    for physical in text.split_inclusive('\n') {
        pending.push_str(physical);
        let body = physical.trim_end_matches(['\n', '\r']);
        let joined = body.ends_with('\\') && !body.trim_start().starts_with('#');
        if !joined {
            lines.push(line(std::mem::take(&mut pending)));
        }
    }
    if !pending.is_empty() {
        lines.push(line(pending));
    }
    lines
}

fn line(text: String) -> Line {
    let meaning = meaning(&text);
    Line { text, meaning }
}

fn meaning(text: &str) -> Meaning {
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let said = joined.split('#').next().unwrap_or_default().trim();
    if said.is_empty() {
        return Meaning::Nothing;
    }
    let (first, rest) = word(said);
    if first.eq_ignore_ascii_case("@include") {
        let (file, rest) = word(rest);
        return if file.is_empty() || !rest.is_empty() {
            Meaning::Unknown
        } else {
            Meaning::IncludeAll(file.to_owned())
        };
    }
    let Ok(facility) = first.strip_prefix('-').unwrap_or(first).parse() else {
        return Meaning::Unknown;
    };
    let (control, rest) = if rest.starts_with('[') {
        match rest.find(']') {
            Some(end) => rest.split_at(end + 1),
            None => return Meaning::Unknown,
        }
    } else {
        word(rest)
    };
    let (target, rest) = word(rest.trim_start());
    if control.is_empty() || target.is_empty() {
        return Meaning::Unknown;
    }
    Meaning::Entry(Entry { facility, control: control.to_owned(), target: target.to_owned(), args: args(rest) })
}

fn word(text: &str) -> (&str, &str) {
    match text.find(char::is_whitespace) {
        Some(end) => {
            let (word, rest) = text.split_at(end);
            (word, rest.trim_start())
        }
        None => (text, ""),
    }
}

/// Arguments; one in square brackets may hold blanks.
fn args(mut rest: &str) -> Vec<String> {
    let mut args = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return args;
        }
        let bracketed = rest.strip_prefix('[').and_then(|inner| inner.split_once(']'));
        let (arg, tail) = bracketed.unwrap_or_else(|| word(rest));
        args.push(arg.to_owned());
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(text: &str) -> Entry {
        match parse(text).remove(0).meaning {
            Meaning::Entry(entry) => entry,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_entry_is_taken_apart() {
        let e = entry("-Session  [success=1 default=ignore]\tpam_succeed_if.so service in crond quiet # why\n");
        assert_eq!(e.facility, Facility::Session);
        assert_eq!(e.control, "[success=1 default=ignore]");
        assert_eq!(e.args, ["service", "in", "crond", "quiet"]);
        assert!(e.calls("pam_succeed_if"));
        assert_eq!(e.longest_jump(), 1);
    }

    #[test]
    fn lines_are_joined_by_a_backslash_but_not_comments() {
        let lines = parse("session optional \\\n pam_pag.so\n# a comment \\\nauth required pam_deny.so");
        assert_eq!(lines.len(), 3);
        assert!(matches!(&lines[0].meaning, Meaning::Entry(e) if e.calls("pam_pag")));
        assert_eq!(lines[1].meaning, Meaning::Nothing);
    }

    #[test]
    fn includes_and_nonsense() {
        assert_eq!(parse("@include common-auth\n")[0].meaning, Meaning::IncludeAll("common-auth".into()));
        assert!(entry("auth substack /usr/lib/pam.d/x").includes());
        for odd in ["@include", "session", "session required", "session [oops pam_unix.so", "sessoin required a.so"] {
            assert_eq!(parse(odd)[0].meaning, Meaning::Unknown, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_lost_whatever_it_is(text in "(?s).{0,200}") {
            let back: String = parse(&text).iter().map(|line| line.text.as_str()).collect();
            prop_assert_eq!(back, text);
        }

        #[test]
        fn text_like_pam_is_not_lost_either(text in r"(-?(session|auth|@include)[ \t]{0,2}(\[|include|required)?[ a-z=\]\[#\\]{0,9}(\n|\\\n)?){0,9}") {
            let back: String = parse(&text).iter().map(|line| line.text.as_str()).collect();
            prop_assert_eq!(back, text);
        }
    }
}
