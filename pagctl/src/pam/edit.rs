//! The edits: pure functions from texts to texts, and taking them back.

use super::check::{Kind, window};
use super::parse::{Facility, Line, Meaning, parse};
use super::stack::{Files, resolve};

/// Stands before each line that we add; what it marks we may take back.
const MARK: &str = "# The next line was added by `pagctl pam enable`; `pagctl pam disable` removes it.\n";
/// First line of a file that is ours as a whole.
const OVERLAY: &str = "# Written by `pagctl pam enable`; `pagctl pam disable` removes it. Follows the vendor's file.\n";
/// Directory of the files that an administrator may change.
const ETC: &str = "/etc/pam.d/";

/// The line for a facility. With `-` libpam does not complain when the module is gone.
fn ours(facility: Facility) -> String {
    format!("-{}\toptional\tpam_pag.so\n", facility.name())
}

/// What a file is to be afterwards; no text: it is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    /// Which file.
    pub(crate) path: String,
    /// Its new text.
    pub(crate) text: Option<String>,
}

/// Why a service is left alone, in words.
pub(crate) type Refusal = String;

/// Adds our session line to a service's stack, in the file where it fits best.
///
/// `locked` says why a file below /etc/pam.d is not ours to change. A vendor's file is never changed: one of the same
/// name in /etc/pam.d reads it and adds our line, so that it follows the vendor.
pub(crate) fn session(
    files: &dyn Files,
    service: &str,
    path: &str,
    kind: Kind,
    locked: &dyn Fn(&str) -> Option<String>,
) -> Result<Edit, Refusal> {
    let own = format!("{ETC}{service}");
    if path != own {
        return Ok(Edit { path: own, text: Some(overlay(files, path)) });
    }
    let refuse = |path: &str| match path.starts_with(ETC) {
        true => locked(path),
        false => Some("the vendor's file is not ours to change".to_owned()),
    };
    let stack = resolve(files, path, Facility::Session);
    let bounds = window(&stack, kind);
    let mut places = Vec::new();
    if let (Some(before), false) = (bounds.before.and_then(|at| stack.steps.get(at)), bounds.closed()) {
        places.push((before.path.clone(), before.line));
        let lower = bounds.after.and_then(|at| stack.steps.get(at));
        if lower.is_none_or(|lower| lower.top < before.top) {
            places.push((path.to_owned(), before.top));
        }
    }
    if bounds.before.is_none() || bounds.closed() {
        let last = if bounds.closed() { bounds.after.and_then(|at| stack.steps.get(at)) } else { stack.steps.last() };
        places.push((path.to_owned(), last.map_or(usize::MAX, |step| step.top + 1)));
    }
    let mut refusal = format!("{path}: no place between the modules that we need before us and pam_systemd.so");
    for (path, line) in places {
        if let Some(why) = refuse(&path) {
            refusal = format!("{path}: {why}");
            continue;
        }
        let lines = parse(&files.text(&path).unwrap_or_default());
        match objection(&lines, line, Facility::Session) {
            None => {
                return Ok(Edit { path, text: Some(insert(lines, line, Facility::Session)) });
            }
            Some(why) => refusal = format!("{path}: {why}"),
        }
    }
    Err(refusal)
}

/// Adds our line at the end of a service's auth stack. It answers PAM_IGNORE there, so it decides nothing.
pub(crate) fn auth(files: &dyn Files, path: &str, locked: &dyn Fn(&str) -> Option<String>) -> Result<Edit, Refusal> {
    if !path.starts_with(ETC) {
        return Err(format!("{path}: the vendor's file is not ours to change"));
    }
    if let Some(why) = locked(path) {
        return Err(format!("{path}: {why}"));
    }
    let stack = resolve(files, path, Facility::Auth);
    let lines = parse(&files.text(path).unwrap_or_default());
    let line = stack.steps.last().map_or(usize::MAX, |step| step.top + 1);
    match objection(&lines, line, Facility::Auth) {
        None => Ok(Edit { path: path.to_owned(), text: Some(insert(lines, line, Facility::Auth)) }),
        Some(why) => Err(format!("{path}: {why}")),
    }
}

/// Takes back what we wrote into a file; none when nothing is ours.
pub(crate) fn take_back(path: &str, text: &str) -> Option<Edit> {
    if text.starts_with(OVERLAY) {
        let only_ours = parse(text).iter().all(|line| match &line.meaning {
            Meaning::Nothing => line.text == OVERLAY,
            Meaning::Entry(entry) => entry.calls("pam_pag") || (entry.includes() && entry.target.starts_with('/')),
            Meaning::IncludeAll(_) | Meaning::Unknown => false,
        });
        // Somebody else's lines in it stay, with what they need.
        return only_ours.then(|| Edit { path: path.to_owned(), text: None });
    }
    let mut kept = String::new();
    let mut marked = false;
    let mut taken = false;
    for line in parse(text) {
        let call = matches!(&line.meaning, Meaning::Entry(entry) if entry.calls("pam_pag"));
        if marked && call {
            taken = true;
        } else {
            if marked {
                kept.push_str(MARK);
            }
            if line.text != MARK {
                kept.push_str(&line.text);
            }
        }
        marked = line.text == MARK;
    }
    if marked {
        kept.push_str(MARK);
    }
    taken.then(|| Edit { path: path.to_owned(), text: Some(kept) })
}

/// Whether a file is one that we wrote to read the vendor's.
pub(crate) fn is_overlay(text: &str) -> bool {
    text.starts_with(OVERLAY)
}

/// A file for /etc/pam.d which reads all that the vendor's file has and adds our line.
///
/// An `auth` line is written only where the vendor has one: without, libpam takes the service `other` for setcred, and
/// the vendor may count on that (systemd before 262 has none).
pub(crate) fn overlay(files: &dyn Files, vendor: &str) -> String {
    let mut text = String::from(OVERLAY);
    for facility in Facility::ALL {
        if !resolve(files, vendor, facility).steps.is_empty() {
            text.push_str(&format!("{}\tinclude\t{vendor}\n", facility.name()));
        }
    }
    text.push_str(&ours(Facility::Session));
    text
}

/// What pam-auth-update or authselect will make of one of its files: our line before pam_systemd, or last.
pub(crate) fn managed(text: &str, facility: Facility) -> String {
    let lines = parse(text);
    let has =
        lines.iter().any(|l| matches!(&l.meaning, Meaning::Entry(e) if e.calls("pam_pag") && e.facility == facility));
    if has {
        return text.to_owned();
    }
    let of = |line: &Line, systemd: bool| match &line.meaning {
        Meaning::Entry(entry) => entry.facility == facility && (!systemd || entry.calls("pam_systemd")),
        _ => false,
    };
    let at = lines.iter().position(|line| of(line, true));
    let at = at.or(lines.iter().rposition(|line| of(line, false)).map(|last| last + 1));
    at.map_or_else(|| text.to_owned(), |at| insert(lines, at, facility))
}

fn insert(lines: Vec<Line>, at: usize, facility: Facility) -> String {
    let mut text = String::new();
    let mut done = false;
    for (number, line) in lines.into_iter().enumerate() {
        if number == at {
            text.push_str(MARK);
            text.push_str(&ours(facility));
            done = true;
        }
        text.push_str(&line.text);
    }
    if !done {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(MARK);
        text.push_str(&ours(facility));
    }
    text
}

/// Why a line inserted at this place could change what the others do.
fn objection(lines: &[Line], at: usize, facility: Facility) -> Option<Refusal> {
    if let Some(line) = lines.iter().find(|line| line.meaning == Meaning::Unknown) {
        return Some(format!("this line is not understood: {:?}", line.text.trim()));
    }
    if let Some(line) = lines.last().filter(|line| line.text.trim_end_matches(['\r', '\n']).ends_with('\\')) {
        return Some(format!("its last line goes on and has no end: {:?}", line.text.trim()));
    }
    // A jump that lands behind the new line would skip one module less.
    let before = lines.iter().take(at).rev().filter_map(|line| match &line.meaning {
        Meaning::Entry(entry) if entry.facility == facility => Some((line, entry.longest_jump())),
        Meaning::IncludeAll(_) => Some((line, 0)),
        _ => None,
    });
    let behind = before.enumerate().find(|(distance, (_, jump))| jump > distance);
    behind.map(|(_, (line, _))| format!("a new line would change where this one jumps to: {:?}", line.text.trim()))
}

/// Calls of our module that stand in a file without our mark: somebody else's, which stay.
pub(crate) fn strangers(text: &str) -> bool {
    let rest = take_back("", text).map_or_else(|| text.to_owned(), |edit| edit.text.unwrap_or_default());
    parse(&rest).iter().any(|line| matches!(&line.meaning, Meaning::Entry(entry) if entry.calls("pam_pag")))
}
