//! Where a line of ours fits: each place is tried in a draft, and what comes of it is judged as `check` would.

use pag::config::{SERVICES, Seat, seat};

use super::answers::{can_replace, is_ours, landings};
use super::check::{Cure, Finding, Level, Problem, Rival, judge, our_line, rival};
use super::edit::{ETC, Edit, Refusal, insert, objection, overlay, replace};
use super::host::Draft;
use super::parse::{Entry, Facility, Line, Meaning, parse};
use super::stack::{DIRECTORIES, Files, Stacks, Step};

/// A service and its stacks.
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: String,
    /// What uses it, where we know.
    pub(crate) seat: Option<Seat>,
    /// What libpam makes of its file.
    pub(crate) stacks: Stacks,
}

impl Service {
    /// What is right and wrong about it.
    pub(crate) fn judge(&self, files: &dyn Files) -> Vec<Finding> {
        judge(&self.name, self.seat, &self.stacks, files.libpam())
    }

    fn faults(&self, files: &dyn Files) -> usize {
        self.judge(files).iter().filter(|finding| finding.level == Level::Wrong).count()
    }
}

/// The services that have a file: those that we know, and then the others. A file that another one includes is a shared
/// stack, and none.
pub(crate) fn services(files: &dyn Files) -> Vec<Service> {
    let mut names: Vec<String> = DIRECTORIES.iter().flat_map(|directory| files.names(directory)).collect();
    names.sort();
    names.dedup();
    let found = |name: String| {
        let path = files.service(&name)?;
        Some((Service { seat: seat(&name), stacks: Stacks::of(files, &path), name }, path))
    };
    let mut services: Vec<(Service, String)> = names.into_iter().filter_map(found).collect();
    let mut included: Vec<String> = Vec::new();
    for (service, own) in &services {
        let others = service.stacks.files.iter().filter(|file| *file != own);
        included.extend(others.flat_map(|file| [file.clone(), files.real_path(file)]));
    }
    // What editors and package managers leave behind is no service either, whatever libpam would make of it.
    let leftover = |name: &str| {
        let left = [".rpmnew", ".rpmsave", ".rpmorig", ".dpkg-", ".pam-", ".bak", ".orig", ".old", "~"];
        name == "other" || name.starts_with('.') || left.iter().any(|word| name.contains(word))
    };
    services.retain(|(service, own)| service.seat.is_some() || (!included.contains(own) && !leftover(&service.name)));
    let place = |name: &str| SERVICES.iter().position(|(known, _)| *known == name).unwrap_or(SERVICES.len());
    services.sort_by_key(|(service, _)| place(&service.name));
    services.into_iter().map(|(service, _)| service).collect()
}

impl Service {
    fn reads(&self, path: &str) -> bool {
        self.stacks.files.iter().any(|file| file == path)
    }
}

/// The services whose stacks this file is part of.
fn readers(draft: &Draft<'_>, path: &str) -> Vec<Service> {
    services(draft).into_iter().filter(|service| service.reads(path)).collect()
}

/// Puts a line of ours into a service's stack, in the file where it fits best.
///
/// `locked` says why a file below /etc/pam.d is not ours to change. A vendor's file is never changed: one of the same
/// name in /etc/pam.d reads it and adds our line, so that it follows the vendor.
pub(crate) fn place(
    draft: &mut Draft<'_>,
    name: &str,
    facility: Facility,
    locked: &dyn Fn(&str) -> Option<String>,
) -> Result<(), Refusal> {
    let own = format!("{ETC}{name}");
    let edited = draft.edited(&own);
    if let Some(vendor) = draft.service(name).filter(|path| *path != own) {
        let text = overlay(draft, &vendor);
        draft.edit(Edit { path: own.clone(), text: Some(text) });
    }
    let stacks = Stacks::of(draft, &own);
    let steps = stacks.steps(facility);
    let args = steps.iter().find(|step| is_ours(step)).map(|step| step.entry.args.clone()).unwrap_or_default();
    let before: Vec<(Service, usize)> = services(draft)
        .into_iter()
        .map(|service| {
            let faults = service.faults(draft);
            (service, faults)
        })
        .collect();
    let mut refusals: Vec<(u8, Refusal)> = Vec::new();
    for (path, at) in places(steps, &own, facility) {
        match try_at(draft, name, facility, (&path, at), &args, &before, locked) {
            Ok(()) => return Ok(()),
            Err(refusal) => refusals.push(refusal),
        }
    }
    draft.restore(&own, edited);
    // The first of the weightiest.
    refusals.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    Err(refusals
        .into_iter()
        .next()
        .map_or_else(|| format!("{own}: there is no place for a line of ours"), |(_, why)| why))
}

/// The places where a line of ours may go, the best first: before pam_systemd, else as late as possible in the service's
/// own file, else in another one.
fn places(steps: &[Step], own: &str, facility: Facility) -> Vec<(String, usize)> {
    let mut places = Vec::new();
    if let Some(systemd) = steps.iter().find(|step| step.calls("pam_systemd") && facility == Facility::Session) {
        places.push((systemd.path.clone(), systemd.line));
        places.push((own.to_owned(), systemd.top));
    }
    let around = |path: &str, line: usize| [(path.to_owned(), line + 1), (path.to_owned(), line)];
    places.extend(steps.iter().rev().flat_map(|step| around(own, step.top)));
    places.extend(steps.iter().rev().flat_map(|step| around(&step.path, step.line)));
    if steps.is_empty() {
        places.push((own.to_owned(), usize::MAX));
    }
    let mut seen = Vec::new();
    places.retain(|place| {
        !seen.contains(place) && {
            seen.push(place.clone());
            true
        }
    });
    places
}

/// Tries one place. Why not, and how much that says.
fn try_at(
    draft: &mut Draft<'_>,
    name: &str,
    facility: Facility,
    (path, at): (&str, usize),
    args: &[String],
    before: &[(Service, usize)],
    locked: &dyn Fn(&str) -> Option<String>,
) -> Result<(), (u8, Refusal)> {
    let libpam = draft.libpam();
    let lock =
        if path.starts_with(ETC) { locked(path) } else { Some("the vendor's file is not ours to change".to_owned()) };
    if let Some(why) = lock {
        return Err((2, format!("{path}: {why}")));
    }
    let text = draft.text(path).unwrap_or_default();
    if let Some(why) = objection(&parse(&text, libpam)) {
        return Err((4, format!("{path}: {why}")));
    }
    let before: Vec<&(Service, usize)> = before.iter().filter(|(service, _)| service.reads(path)).collect();
    let edited = draft.edited(path);
    draft.edit(Edit { path: path.to_owned(), text: Some(insert(&text, libpam, at, facility, args)) });
    let problem = {
        let after = readers(draft, path);
        let own = after.iter().find(|service| service.name == name);
        let left = own.map(|service| service.judge(draft)).unwrap_or_default();
        let left = left.into_iter().find(|finding| finding.curable() && finding.cure == Cure::Line(facility));
        let jumps = before.iter().zip(&after).find_map(|((before, _), after)| {
            let (old, new) = (before.stacks.steps(facility), after.stacks.steps(facility));
            let changed = landings(old).into_iter().zip(landings(new)).find(|(old, new)| old != new);
            let others: Vec<&Step> = old.iter().filter(|step| !is_ours(step)).collect();
            changed.and_then(|((from, ..), _)| others.get(from).map(|step| step.place()))
        });
        let worse = after.iter().zip(&before).find(|(service, (_, faults))| service.faults(draft) > *faults);
        match (jumps, left, worse) {
            (Some(place), ..) => Some((3, format!("{path}: a new line would change where {place} jumps to"))),
            (None, Some(finding), _) => {
                Some((1, format!("{path}: no place for a line of ours is in order and is reached: {}", finding.text)))
            }
            (None, None, Some((service, _))) => {
                Some((1, format!("{path}: a line that {name} needs would harm {}", service.name)))
            }
            (None, None, None) => None,
        }
    };
    problem.map_or(Ok(()), |problem| {
        draft.restore(path, edited);
        Err(problem)
    })
}

/// Mends lines that are there: puts ours into the place of pam_afs_session's, and gives ours a control that makes nothing
/// of their answer. What else there is to say.
pub(crate) fn mend_lines(draft: &mut Draft<'_>, locked: &dyn Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut remarks = Vec::new();
    for name in draft.names(ETC.trim_end_matches('/')) {
        let path = format!("{ETC}{name}");
        let lines = |draft: &Draft<'_>| parse(&draft.text(&path).unwrap_or_default(), draft.libpam());
        let mut at = 0;
        while let Some(line) = lines(draft).get(at).cloned() {
            at += 1;
            let Meaning::Entry(entry) = &line.meaning else { continue };
            let Some(facility) = entry.facility else { continue };
            let ours =
                entry.calls("pam_pag") && !["optional", "required", "requisite"].iter().any(|word| entry.is(word));
            let theirs = rival(entry) == Some(Rival::Replaceable);
            if !ours && !theirs {
                continue;
            }
            let place = format!("{path}:{}", line.number);
            let why = locked(&path).or_else(|| objection(&lines(draft)));
            if let Some(why) = why.filter(|_| theirs) {
                let text = format!("{place}: {}.so stays: {why}", entry.module());
                remarks.push(Finding::note(Problem::LeftAlone, None, text));
                continue;
            } else if locked(&path).is_some() {
                continue;
            }
            let with_yes = if ours {
                control(draft, &path, at - 1, facility, entry);
                continue;
            } else {
                stand_in(draft, &path, at - 1, facility, entry)
            };
            remarks.extend(match with_yes {
                Some(false) => None,
                Some(true) => Some(Finding::note(
                    Problem::Decides,
                    None,
                    format!(
                        "{place}: pam_permit.so says yes to pam_authenticate where {}.so did; pam_pag.so never does",
                        entry.module()
                    ),
                )),
                None => Some(Finding::wrong(
                    Problem::LeftAlone,
                    None,
                    format!(
                        "{place}: {}.so stays: no line of ours in its place would leave the other modules as they are",
                        entry.module()
                    ),
                )),
            });
        }
    }
    remarks
}

/// Gives a line of ours the right control, where that helps.
fn control(draft: &mut Draft<'_>, path: &str, at: usize, facility: Facility, entry: &Entry) {
    let faults = |draft: &Draft<'_>| -> (usize, usize) {
        let found = readers(draft, path).into_iter().flat_map(|service| service.judge(draft));
        let wrong: Vec<Finding> = found.filter(|finding| finding.level == Level::Wrong).collect();
        (wrong.iter().filter(|finding| finding.cure == Cure::Rewrite).count(), wrong.len())
    };
    let (before, edited) = (faults(draft), draft.edited(path));
    let text = draft.text(path).unwrap_or_default();
    let new = replace(&text, draft.libpam(), at, &[our_line(facility, &entry.args)], false);
    draft.edit(Edit { path: path.to_owned(), text: Some(new) });
    let after = faults(draft);
    if after.0 >= before.0 || after.1 > before.1 {
        draft.restore(path, edited);
    }
}

/// Puts ours into the place of another module's line that always says yes, so that nothing changes for the others.
/// Whether something must say yes in its stead; none where there is no way.
fn stand_in(draft: &mut Draft<'_>, path: &str, at: usize, facility: Facility, entry: &Entry) -> Option<bool> {
    let libpam = draft.libpam();
    let text = draft.text(path).unwrap_or_default();
    let ours = our_line(facility, &entry.args);
    let yes = format!("{} {} pam_permit.so", facility.name(), entry.control_as_written());
    let there = parse(&text, libpam).iter().any(|line: &Line| line.calls(facility, "pam_pag"));
    let ways: &[&[&String]] = if there { &[&[], &[&yes]] } else { &[&[&ours], &[&ours, &yes], &[&yes, &ours]] };
    let before = readers(draft, path);
    let edited = draft.edited(path);
    for way in ways {
        let lines: Vec<String> = way.iter().map(|line| (*line).clone()).collect();
        draft.edit(Edit { path: path.to_owned(), text: Some(replace(&text, libpam, at, &lines, true)) });
        let old = |step: &Step| is_ours(step) || (step.path == path && step.line == at);
        let written = at..=at + lines.len();
        let new = |step: &Step| is_ours(step) || (step.path == path && written.contains(&step.line));
        let after = readers(draft, path);
        let as_before = before.len() == after.len()
            && before.iter().zip(&after).all(|(before, after)| {
                can_replace(before.stacks.steps(facility), after.stacks.steps(facility), facility, libpam, (&old, &new))
            });
        if as_before {
            return Some(lines.contains(&yes));
        }
        draft.restore(path, edited.clone());
    }
    None
}
