//! The edits: pure functions from texts to texts, and taking them back.

use super::parse::{Entry, Facility, Libpam, Line, Meaning, parse};
use super::stack::{Files, Stacks};

/// The comment before each line that `enable` adds; `disable` removes the lines that it marks.
const MARK: &str = "# The next line was added by `pagctl pam enable`; `pagctl pam disable` removes it.\n";
/// The beginning of the comment that keeps a replaced line; how many lines stand in for it follows, and the line itself.
const REPLACED: &str = "# Replaced by `pagctl pam enable`; `pagctl pam disable` puts it back for the next ";
/// The first line of a file that `enable` wrote as a whole.
const OVERLAY: &str = "# Written by `pagctl pam enable`; `pagctl pam disable` removes it. Follows the vendor's file.\n";
/// Directory of the files that an administrator may change.
pub(crate) const ETC: &str = "/etc/pam.d/";

/// Our line for a facility. With `-` libpam does not complain when the module is gone.
pub(crate) fn our_line(facility: Facility, args: &[String]) -> String {
    let bracketed = |arg: &String| if arg.contains([' ', '\t']) { format!(" [{arg}]") } else { format!(" {arg}") };
    let args: String = args.iter().map(bracketed).collect();
    format!("-{}\toptional\tpam_pag.so{args}", facility.name())
}

/// A file's new text; none where the file is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    /// Which file.
    pub(crate) path: String,
    /// Its new text.
    pub(crate) text: Option<String>,
}

/// Why a file or a service is left as it is, in words.
pub(crate) type Refusal = String;

/// Why no line of this file may be changed, if so.
pub(crate) fn objection(lines: &[Line]) -> Option<Refusal> {
    lines.iter().find_map(|line| {
        let why = match line.meaning {
            Meaning::Unfinished => "has no end",
            _ if line.depends_on_age => "means different things to libpam before 1.6.0 and to later ones",
            _ => return None,
        };
        Some(format!("line {} {why}: {:?}", line.number, line.text.trim()))
    })
}

/// Adds our line, with these arguments, before the logical line `at`.
pub(crate) fn insert(text: &str, libpam: Libpam, mut at: usize, facility: Facility, args: &[String]) -> String {
    let lines = parse(text, libpam);
    let ours = format!("{}{}\n", if is_overlay(text) { "" } else { MARK }, our_line(facility, args));
    // A comment of ours stays with its line.
    while at > 0 && lines.get(at - 1).is_some_and(|line| line.text == MARK || replaced(&line.text).is_some()) {
        at -= 1;
    }
    let mut new = String::new();
    for line in lines.iter().take(at) {
        new.push_str(&line.text);
    }
    if !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    new.push_str(&ours);
    new.extend(lines.iter().skip(at).map(|line| line.text.as_str()));
    new
}

/// Puts lines into the place of the logical line `at`. With `keep` a comment keeps the old line, so that it can be put back.
pub(crate) fn replace(text: &str, libpam: Libpam, at: usize, new: &[String], keep: bool) -> String {
    let lines = parse(text, libpam);
    let mut result = String::new();
    for (number, line) in lines.iter().enumerate() {
        if number != at {
            result.push_str(&line.text);
            continue;
        }
        if keep {
            let (number, old) = (new.len(), one_line(line));
            result.push_str(&format!("{REPLACED}{number}: {old}\n"));
        }
        for line in new {
            result.push_str(line);
            result.push('\n');
        }
    }
    result
}

/// A line as one of the file's lines.
fn one_line(line: &Line) -> String {
    let text = line.text.trim_end_matches('\n');
    match &line.meaning {
        Meaning::Entry(entry) if text.contains('\n') => written(entry),
        _ => text.to_owned(),
    }
}

fn written(entry: &Entry) -> String {
    let facility = entry.facility.map_or("", Facility::name);
    let words = [Some(facility.to_owned()), Some(entry.control_as_written()), entry.target.clone()];
    let args = entry.args.iter().map(|arg| if arg.contains([' ', '\t']) { format!("[{arg}]") } else { arg.clone() });
    words.into_iter().flatten().chain(args).collect::<Vec<_>>().join(" ")
}

/// The line that a comment of ours keeps, and how many lines stand in for it.
fn replaced(comment: &str) -> Option<(usize, &str)> {
    let (number, old) = comment.strip_prefix(REPLACED)?.split_once(": ")?;
    Some((number.parse().ok()?, old))
}

/// Takes back what we wrote into a file; none when nothing is ours.
pub(crate) fn take_back(path: &str, text: &str, libpam: Libpam) -> Option<Edit> {
    if is_overlay(text) {
        // Lines of an administrator in it stay, with what they need.
        return only_ours(text, libpam).then(|| Edit { path: path.to_owned(), text: None });
    }
    let lines = parse(text, libpam);
    let mut kept = String::new();
    let mut at = 0;
    let mut taken = false;
    while let Some(line) = lines.get(at) {
        at += 1;
        let behind = |number: usize| lines.get(at..at + number).unwrap_or_default();
        let calls_us = |line: &Line| line.entry().is_some_and(|entry| entry.calls("pam_pag"));
        if line.text == MARK && behind(1).first().is_some_and(calls_us) {
            at += 1;
            taken = true;
            continue;
        }
        if let Some((number, old)) = replaced(&line.text) {
            let stand_in = |line: &Line| calls_us(line) || line.entry().is_some_and(|entry| entry.calls("pam_permit"));
            if number <= 2 && behind(number).len() == number && behind(number).iter().all(stand_in) {
                at += number;
                kept.push_str(old);
                taken = true;
                continue;
            }
        }
        kept.push_str(&line.text);
    }
    taken.then(|| Edit { path: path.to_owned(), text: Some(kept) })
}

/// Whether a file is one that we wrote to read the vendor's.
pub(crate) fn is_overlay(text: &str) -> bool {
    text.starts_with(OVERLAY)
}

/// Whether such a file holds nothing but what `enable` wrote.
pub(crate) fn only_ours(text: &str, libpam: Libpam) -> bool {
    parse(text, libpam).iter().all(|line| match &line.meaning {
        Meaning::Nothing => line.text == OVERLAY || line.text == MARK,
        Meaning::Entry(entry) => {
            let vendors = || entry.target.as_ref().is_some_and(|target| target.starts_with('/'));
            entry.calls("pam_pag") || (entry.includes() && vendors())
        }
        Meaning::IncludeAll(_) | Meaning::Unfinished => false,
    })
}

/// A file for /etc/pam.d which reads all that the vendor's file has.
///
/// An `auth` line is written only where the vendor has one: without, libpam takes the service `other` for setcred, and
/// the vendor may count on that (systemd before 262 has none).
pub(crate) fn overlay(files: &dyn Files, vendor: &str) -> String {
    let stacks = Stacks::of_file(files, vendor);
    let mut text = String::from(OVERLAY);
    for facility in Facility::ALL.into_iter().filter(|facility| !stacks.steps(*facility).is_empty()) {
        text.push_str(&format!("{}\tinclude\t{vendor}\n", facility.name()));
    }
    text
}

/// What pam-auth-update or authselect will make of one of its files: our line before pam_systemd, or last.
pub(crate) fn managed(text: &str, libpam: Libpam, facility: Facility) -> String {
    let lines = parse(text, libpam);
    if lines.iter().any(|line| line.calls(facility, "pam_pag")) {
        return text.to_owned();
    }
    let of = |line: &Line| line.entry().is_some_and(|entry| entry.facility == Some(facility));
    let at = lines.iter().position(|line| line.calls(facility, "pam_systemd"));
    let at = at.or(lines.iter().rposition(of).map(|last| last + 1));
    at.map_or_else(|| text.to_owned(), |at| insert(text, libpam, at, facility, &[]))
}

/// Whether a file calls pam_pag without our mark: such a line is an administrator's and stays.
pub(crate) fn has_foreign_call(text: &str, libpam: Libpam) -> bool {
    let rest = take_back("", text, libpam).map_or_else(|| text.to_owned(), |edit| edit.text.unwrap_or_default());
    parse(&rest, libpam).iter().filter_map(Line::entry).any(|entry| entry.calls("pam_pag"))
}
