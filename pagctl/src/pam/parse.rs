//! The lines of a PAM file as libpam takes them apart, beside the text that they came from, so that writing a file back
//! changes nothing.
//!
//! Read in the sources of Linux-PAM 1.5.2 and 1.7.0 with Debian's patches: `_pam_assemble_line` and
//! `_pam_line_assemble` put a line together, `_pam_StrTok` and `_pam_tokenize` split it into words. `tests/libpam.rs`
//! holds this against the libpam of the host.

use std::str::FromStr;

/// What separates words. A carriage return does not: in a file with Windows' line ends it belongs to the last word.
const BLANKS: [char; 3] = [' ', '\t', '\n'];

/// libpam before 1.6.0 cuts a line that is longer than its buffer (`BUF_SIZE`).
const LONGEST: usize = 1000;

/// The differences between the libpams in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Libpam {
    /// Debian's and Ubuntu's. It knows `@include`, looks for included files in /etc/pam.d alone, and a jump says
    /// nothing in pam_setcred (patches 031_pam_include and 045_pam_dispatch_jump_is_ignore).
    pub(crate) debian: bool,
    /// Linux-PAM 1.6.0 or later. There an empty line or a comment ends a line that a backslash has continued; before,
    /// it was passed over. And there no file is included more than fifteen levels deep.
    pub(crate) since_1_6: bool,
}

impl Libpam {
    /// Upstream's newest.
    pub(crate) const NEWEST: Self = Self { debian: false, since_1_6: true };

    /// Recognizes a libpam by its file: by the words that it compares with, and by a message that is new in 1.6.0.
    pub(crate) fn of_program(file: &[u8]) -> Self {
        let holds = |words: &[u8]| file.windows(words.len()).any(|window| window == words);
        Self { debian: holds(b"@include\0"), since_1_6: holds(b"maximum level of inclusions reached") }
    }
}

/// The facility of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Facility {
    /// Authentication, and pam_setcred.
    Auth,
    /// Whether the account may be used.
    Account,
    /// Changing the password.
    Password,
    /// Opening and closing a session: the place of pam_pag.
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
    /// Its facility; none where libpam does not know the first word, and takes the line for one that must fail.
    pub(crate) facility: Option<Facility>,
    /// `required`, `include`, `success=1 default=ignore`, ...: without the square brackets.
    pub(crate) control: Option<String>,
    /// File name or path of the module; for `include` and `substack` the service or path.
    pub(crate) target: Option<String>,
    /// The module's arguments.
    pub(crate) args: Vec<String>,
}

impl Entry {
    /// Whether another file is read here.
    pub(crate) fn includes(&self) -> bool {
        self.is("include") || self.is("substack")
    }

    /// Whether its control is this word.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.control.as_ref().is_some_and(|control| control.eq_ignore_ascii_case(word))
    }

    /// The name of the module that it calls, without directory and `.so`; empty where it calls none.
    pub(crate) fn module(&self) -> &str {
        let target = self.target.as_deref().filter(|_| !self.includes()).unwrap_or_default();
        let file = target.rsplit('/').next().unwrap_or_default();
        file.strip_suffix(".so").unwrap_or(file)
    }

    /// Whether it calls this module, given without directory and `.so`.
    pub(crate) fn calls(&self, module: &str) -> bool {
        self.module() == module
    }

    /// Whether this word is among its arguments.
    pub(crate) fn has_arg(&self, word: &str) -> bool {
        self.args.iter().any(|arg| arg == word)
    }

    /// Its control as it stands in a file.
    pub(crate) fn control_as_written(&self) -> String {
        match self.control.as_deref().unwrap_or_default() {
            word if word.contains('=') || word.contains(BLANKS) => format!("[{word}]"),
            word => word.to_owned(),
        }
    }
}

/// The meaning of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Empty, or a comment.
    Nothing,
    /// Debian's `@include`: the lines of all facilities of a file.
    IncludeAll(Option<String>),
    /// A module or an include.
    Entry(Entry),
    /// A line that goes on behind the end of the file: libpam gives the file up here.
    Unfinished,
}

/// One logical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The text as it stands in the file, with its line ends and joined lines.
    pub(crate) text: String,
    /// Its meaning.
    pub(crate) meaning: Meaning,
    /// The number of its first line in the file, counted from 1.
    pub(crate) number: usize,
    /// Whether libpam before 1.6.0 and later ones take it differently.
    pub(crate) depends_on_age: bool,
}

impl Line {
    /// The entry, if the line is one.
    pub(crate) fn entry(&self) -> Option<&Entry> {
        match &self.meaning {
            Meaning::Entry(entry) => Some(entry),
            Meaning::Nothing | Meaning::IncludeAll(_) | Meaning::Unfinished => None,
        }
    }

    /// Whether it calls this module for this facility.
    pub(crate) fn calls(&self, facility: Facility, module: &str) -> bool {
        self.entry().is_some_and(|entry| entry.facility == Some(facility) && entry.calls(module))
    }
}

/// Splits a file. The texts of the lines, put together, are the file again.
pub(crate) fn parse(text: &str, libpam: Libpam) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut pending = Pending::default();
    for (index, physical) in text.split_inclusive('\n').enumerate() {
        if pending.text.is_empty() {
            pending.number = index + 1;
        }
        pending.text.push_str(physical);
        // C's strings end at a zero byte.
        let physical = physical.split('\0').next().unwrap_or_default();
        let said = physical.trim_start_matches(BLANKS);
        let nothing = said.is_empty() || said.starts_with('#');
        if !nothing && !libpam.since_1_6 {
            // Kept before 1.6.0, which shows where a continued line goes on inside of square brackets.
            pending.said.extend(physical.strip_suffix(said));
        }
        if nothing {
            pending.odd |= pending.goes_on;
            if pending.goes_on && !libpam.since_1_6 {
                continue;
            }
            // The end of an empty line that ends another one is part of that, which shows inside of square brackets.
            if !pending.said.is_empty() && said.is_empty() && physical.ends_with('\n') {
                pending.said.push('\n');
            }
        } else if let Some((said, _)) = said.split_once('#') {
            // A comment is no longer there when libpam looks for the backslash.
            pending.said.push_str(said);
        } else if let Some(said) = said.trim_end_matches(BLANKS).strip_suffix('\\') {
            pending.goes_on = true;
            // Linux-PAM 1.6.0 and later forget a line that has nothing but the backslash.
            if !said.is_empty() || !libpam.since_1_6 {
                pending.said.push_str(said);
                pending.said.push(' ');
            }
            continue;
        } else {
            pending.said.push_str(said);
        }
        lines.push(std::mem::take(&mut pending).line(libpam));
    }
    if pending.goes_on {
        let Pending { text, number, .. } = pending;
        lines.push(Line { text, meaning: Meaning::Unfinished, number, depends_on_age: false });
    }
    lines
}

/// The part of a continued line that has been read.
#[derive(Debug, Default)]
struct Pending {
    text: String,
    said: String,
    number: usize,
    goes_on: bool,
    odd: bool,
}

impl Pending {
    fn line(self, libpam: Libpam) -> Line {
        let blank = self.said.chars().all(|c| BLANKS.contains(&c));
        // A line of blanks that came by continuing is a line for libpam before 1.6.0, and one that must fail.
        let nothing = blank && (libpam.since_1_6 || !self.goes_on);
        Line {
            meaning: if nothing { Meaning::Nothing } else { meaning(&self.said, libpam) },
            depends_on_age: self.odd || self.said.len() > LONGEST || (blank && self.goes_on),
            text: self.text,
            number: self.number,
        }
    }
}

fn meaning(mut said: &str, libpam: Libpam) -> Meaning {
    let first = word(&mut said).unwrap_or_default();
    let first = first.strip_prefix('-').unwrap_or(&first);
    if libpam.debian && first.eq_ignore_ascii_case("@include") {
        return Meaning::IncludeAll(word(&mut said));
    }
    Meaning::Entry(Entry {
        facility: first.parse().ok(),
        control: word(&mut said),
        target: word(&mut said),
        args: std::iter::from_fn(|| word(&mut said)).collect(),
    })
}

/// Takes the next word off a line. One that begins with a square bracket goes to the first closing one, of which `\]` is
/// none, and loses its brackets, wherever in the line it stands.
fn word(rest: &mut &str) -> Option<String> {
    let from = rest.trim_start_matches(BLANKS);
    let Some(inner) = from.strip_prefix('[') else {
        let (word, tail) = from.split_at(from.find(BLANKS).unwrap_or(from.len()));
        *rest = tail.get(1..).unwrap_or_default();
        return (!word.is_empty()).then(|| word.to_owned());
    };
    let mut word = String::new();
    let mut after = inner.chars();
    loop {
        match after.next() {
            None | Some(']') => break,
            Some('\\') if after.as_str().starts_with(']') => word.extend(after.next()),
            Some(other) => word.push(other),
        }
    }
    *rest = after.as_str();
    Some(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEBIAN: Libpam = Libpam { debian: true, since_1_6: false };

    fn entry(text: &str) -> Entry {
        match parse(text, DEBIAN).remove(0).meaning {
            Meaning::Entry(entry) => entry,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_entry_is_taken_apart() {
        let e = entry("-Session  [success=1 default=ignore]\tpam_succeed_if.so service in crond [two words] # why\n");
        assert_eq!(e.facility, Some(Facility::Session));
        assert_eq!(e.control.as_deref(), Some("success=1 default=ignore"));
        assert_eq!(e.control_as_written(), "[success=1 default=ignore]");
        assert_eq!(e.args, ["service", "in", "crond", "two words"]);
        assert!(e.calls("pam_succeed_if"));
        assert!(entry("[auth][required][/lib/security/pam_unix.so]").calls("pam_unix"), "brackets are no part of it");
        assert_eq!(entry("auth required x.so\r\n").target.as_deref(), Some("x.so\r"));
    }

    #[test]
    fn a_backslash_joins_lines_and_a_comment_hides_it() {
        for (text, expected) in [
            ("session optional \\\n pam_pag.so\n", &["pam_pag"][..]),
            ("session optional pam_pag.so \\  \n debug\n", &["pam_pag"]),
            ("session optional a.so # ours \\\nsession optional pam_pag.so\n", &["a", "pam_pag"]),
            ("# session optional a.so \\\nsession optional pam_pag.so\n", &["pam_pag"]),
        ] {
            for since_1_6 in [false, true] {
                let lines = parse(text, Libpam { debian: true, since_1_6 });
                let modules: Vec<_> = lines.iter().filter_map(|line| Some(line.entry()?.module())).collect();
                assert_eq!(modules, expected, "{text}");
                assert!(lines.iter().all(|line| !line.depends_on_age));
            }
        }
    }

    #[test]
    fn what_stands_inside_a_continued_line_depends_on_the_version() {
        for inside in ["# why\n", "\n", "  \t\n", "# why \\\n"] {
            let text = format!("session optional \\\n{inside} pam_pag.so\n");
            let old = parse(&text, DEBIAN);
            assert!(old.len() == 1 && old[0].calls(Facility::Session, "pam_pag") && old[0].depends_on_age, "{text}");
            let new = parse(&text, Libpam::NEWEST);
            assert!(new.len() == 2 && new[0].depends_on_age, "{text}: {new:?}");
            assert_eq!(new[0].entry().unwrap().target, None);
        }
        assert_eq!(parse("\\\n\n", Libpam::NEWEST)[0].meaning, Meaning::Nothing);
        assert_eq!(parse("auth required \\\n", DEBIAN)[0].meaning, Meaning::Unfinished);
    }

    #[test]
    fn includes_and_nonsense() {
        assert_eq!(parse("@include common-auth\n", DEBIAN)[0].meaning, Meaning::IncludeAll(Some("common-auth".into())));
        assert_eq!(parse("@include common-auth\n", Libpam::NEWEST)[0].entry().unwrap().facility, None);
        assert!(entry("auth substack /usr/lib/pam.d/x").includes());
        assert!(entry("auth [include] x").includes());
        assert_eq!(entry("sessoin required a.so").facility, None);
        assert_eq!(entry("session").control, None);
    }

    proptest! {
        #[test]
        fn no_text_is_lost_whatever_it_is(text in "(?s).{0,200}", since_1_6: bool) {
            let lines = parse(&text, Libpam { debian: true, since_1_6 });
            let back: String = lines.iter().map(|line| line.text.as_str()).collect();
            prop_assert_eq!(back, text);
        }

        #[test]
        fn text_like_pam_is_not_lost_either(text in r"(-?(session|auth|@include)[ \t]{0,2}(\[|include|required)?[ a-z=\]\[#\\]{0,9}(\n|\\\n)?){0,9}", since_1_6: bool) {
            let lines = parse(&text, Libpam { debian: true, since_1_6 });
            let back: String = lines.iter().map(|line| line.text.as_str()).collect();
            prop_assert_eq!(back, text);
        }
    }
}
