//! Where a line of ours fits: each place is tried in a draft, and the result is judged as `check` would.

use pag::config::{SERVICES, Seat, seat};

use super::answers::{can_replace, is_ours, landings};
use super::check::{Rival, judge, rival};
use super::draft::Draft;
use super::edit::{ETC, Edit, Refusal, insert, objection, our_line, overlay, replace};
use super::finding::{Cure, Finding, Level, Problem};
use super::parse::{Entry, Facility, Line, parse};
use super::stack::{DIRECTORIES, Files, Stacks, Step};

/// A service and its stacks.
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: String,
    /// Its kind, if pagctl knows it.
    pub(crate) seat: Option<Seat>,
    /// Its stacks as libpam reads them.
    pub(crate) stacks: Stacks,
}

impl Service {
    /// The findings about it.
    pub(crate) fn judge(&self, files: &dyn Files) -> Vec<Finding> {
        judge(&self.name, self.seat, &self.stacks, files.libpam())
    }

    /// How many findings are wrong, and how many of those decide about logins or other modules.
    fn faults(&self, files: &dyn Files) -> [usize; 2] {
        let found = self.judge(files);
        let wrong = || found.iter().filter(|finding| finding.level == Level::Wrong);
        let decides = |finding: &&Finding| matches!(finding.problem, Problem::Decides | Problem::SkipsOthers);
        [wrong().count(), wrong().filter(decides).count()]
    }

    fn reads(&self, path: &str) -> bool {
        self.stacks.files.iter().any(|file| file == path)
    }

    /// The lines for a facility that are not ours.
    fn others(&self, facility: Facility) -> Vec<&Step> {
        self.stacks.steps(facility).iter().filter(|step| !is_ours(step)).collect()
    }
}

/// The services that have a file: first those that pagctl knows. A file that another one includes is a shared stack and no
/// service.
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
    // Files that editors and package managers leave behind are no services either, although libpam would read them.
    let leftover = |name: &str| {
        let left = [".rpmnew", ".rpmsave", ".rpmorig", ".dpkg-", ".pam-", ".bak", ".orig", ".old", "~"];
        name == "other" || name.starts_with('.') || left.iter().any(|word| name.contains(word))
    };
    services.retain(|(service, own)| service.seat.is_some() || (!included.contains(own) && !leftover(&service.name)));
    let place = |name: &str| SERVICES.iter().position(|(known, _)| *known == name).unwrap_or(SERVICES.len());
    services.sort_by_key(|(service, _)| place(&service.name));
    services.into_iter().map(|(service, _)| service).collect()
}

/// The services that read this file.
fn readers(draft: &Draft<'_>, path: &str) -> Vec<Service> {
    services(draft).into_iter().filter(|service| service.reads(path)).collect()
}

/// Puts a line of ours into a service's stack, in the file where it fits best.
///
/// `locked` returns why pagctl must not change a file below /etc/pam.d. A vendor's file is never changed: a file of the same
/// name in /etc/pam.d includes it and adds our line, so that it follows the vendor.
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
    let before: Vec<Service> = services(draft);
    let before: Vec<_> = before.into_iter().map(|service| (service.faults(draft), service)).collect();
    let mut refusals: Vec<(u8, Refusal)> = Vec::new();
    for (path, at) in places(steps, &own, facility) {
        match try_at(draft, name, facility, (&path, at), &args, &before, locked) {
            Ok(()) => return Ok(()),
            Err(refusal) => refusals.push(refusal),
        }
    }
    draft.restore(&own, edited);
    // Of the refusals with the most weight the first one.
    refusals.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    let first = refusals.into_iter().next().map(|(_, why)| why);
    Err(first.unwrap_or_else(|| format!("{own}: no place fits a line of pam_pag.so")))
}

/// The places where a line of ours may go, the best first: before pam_systemd, else as late as possible in the service's
/// own file, else in another one.
fn places(steps: &[Step], own: &str, facility: Facility) -> Vec<(String, usize)> {
    let mut all = Vec::new();
    if let Some(systemd) = steps.iter().find(|step| step.calls("pam_systemd") && facility == Facility::Session) {
        all.push((systemd.path.clone(), systemd.line));
        all.push((own.to_owned(), systemd.top));
    }
    let around = |path: &str, line: usize| [(path.to_owned(), line + 1), (path.to_owned(), line)];
    all.extend(steps.iter().rev().flat_map(|step| around(own, step.top)));
    all.extend(steps.iter().rev().flat_map(|step| around(&step.path, step.line)));
    if steps.is_empty() {
        all.push((own.to_owned(), usize::MAX));
    }
    let mut places = Vec::new();
    for place in all {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// Tries one place. A refusal comes with its weight: how much it explains.
fn try_at(
    draft: &mut Draft<'_>,
    name: &str,
    facility: Facility,
    (path, at): (&str, usize),
    args: &[String],
    before: &[([usize; 2], Service)],
    locked: &dyn Fn(&str) -> Option<String>,
) -> Result<(), (u8, Refusal)> {
    let libpam = draft.libpam();
    let vendors = || Some("it is the vendor's file, which pagctl does not change".to_owned());
    if let Some(why) = if path.starts_with(ETC) { locked(path) } else { vendors() } {
        return Err((2, format!("{path}: {why}")));
    }
    if !before.iter().any(|(_, service)| service.name == name && service.reads(path)) {
        return Err((0, format!("{path}: is not a file of {name}")));
    }
    let text = draft.text(path).unwrap_or_default();
    if let Some(why) = objection(&parse(&text, libpam)) {
        return Err((4, format!("{path}: {why}")));
    }
    let edited = draft.edited(path);
    draft.edit(Edit { path: path.to_owned(), text: Some(insert(&text, libpam, at, facility, args)) });
    let after = readers(draft, path);
    let own = after.iter().find(|service| service.name == name).map(|service| service.judge(draft));
    let left = own.into_iter().flatten().find(|finding| finding.curable() && finding.cure == Cure::Line(facility));
    let before = before.iter().filter(|(_, service)| service.reads(path));
    let harm = before.zip(&after).find_map(|((faults, before), after)| {
        let others = before.others(facility);
        let same = |(old, new): (&&Step, &Step)| (&old.path, &old.entry) == (&new.path, &new.entry);
        let new = after.others(facility);
        if others.len() != new.len() || !others.iter().zip(new).all(same) {
            let why = "with a line of pam_pag.so it would no longer have those of `other`";
            return Some((3, format!("{}: has no {} lines, and {why}", before.name, facility.name())));
        }
        let (old, new) = (landings(before.stacks.steps(facility)), landings(after.stacks.steps(facility)));
        if let Some(((from, ..), _)) = old.into_iter().zip(new).find(|(old, new)| old != new) {
            let place = others.get(from).map(|step| step.place()).unwrap_or_default();
            return Some((3, format!("{path}: a new line would change where {place} jumps to")));
        }
        let worse = after.faults(draft).iter().zip(faults).any(|(new, old)| new > old);
        worse.then(|| (1, format!("{path}: a line that {name} needs would harm {}", before.name)))
    });
    let unfit = |finding: Finding| {
        (1, format!("{path}: no line of pam_pag.so would be in order and reached: {}", finding.text))
    };
    match harm.or_else(|| left.map(unfit)) {
        None => Ok(()),
        Some(why) => {
            draft.restore(path, edited);
            Err(why)
        }
    }
}

/// Mends lines that are there: puts pam_pag into the place of pam_afs_session, and gives lines of pam_pag a control that
/// makes nothing of their answer. Files of other tools stay as they are, and files that no service reads are no stacks.
pub(crate) fn mend_lines(
    draft: &mut Draft<'_>,
    is_managed: &dyn Fn(&str) -> bool,
    locked: &dyn Fn(&str) -> Option<String>,
) -> Vec<Finding> {
    let mut remarks = Vec::new();
    for name in draft.names(ETC.trim_end_matches('/')) {
        let path = format!("{ETC}{name}");
        if is_managed(&path) {
            continue;
        }
        let mut at = 0;
        while let Some(line) = parse(&draft.text(&path).unwrap_or_default(), draft.libpam()).get(at) {
            remarks.extend(mend_line(draft, &path, at, line, locked));
            at += 1;
        }
    }
    remarks
}

fn mend_line(
    draft: &mut Draft<'_>,
    path: &str,
    at: usize,
    line: &Line,
    locked: &dyn Fn(&str) -> Option<String>,
) -> Option<Finding> {
    let entry = line.entry()?;
    let facility = entry.facility?;
    let harmless = ["optional", "required", "requisite"].iter().any(|word| entry.is(word));
    let ours = entry.calls("pam_pag") && !harmless;
    let works_here = matches!(facility, Facility::Auth | Facility::Session);
    let is_rival = works_here && rival(entry) == Some(Rival::Replaceable);
    if !(ours || is_rival) || readers(draft, path).is_empty() {
        return None;
    }
    let (place, module) = (format!("{path}:{}", line.number), entry.module());
    let lines = parse(&draft.text(path).unwrap_or_default(), draft.libpam());
    if let Some(why) = locked(path).or_else(|| objection(&lines)) {
        let text = format!("{place}: {module}.so keeps its line: {why}");
        return Some(Finding::note(Problem::LeftAlone, None, text));
    }
    if ours {
        mend_control(draft, path, at, facility, entry);
        return None;
    }
    match stand_in(draft, path, at, facility, entry) {
        Some(StandIn::Ours) => None,
        Some(StandIn::WithPermit) => {
            let text =
                format!("{place}: pam_permit.so answers PAM_SUCCESS where {module}.so did, since pam_pag.so does not");
            Some(Finding::note(Problem::Decides, None, text))
        }
        None => {
            let text = format!(
                "{place}: {module}.so keeps its line: without its answer PAM_SUCCESS other users could log in than before"
            );
            Some(Finding::wrong(Problem::LeftAlone, None, text))
        }
    }
}

/// Gives a line of ours the right control, where that helps.
fn mend_control(draft: &mut Draft<'_>, path: &str, at: usize, facility: Facility, entry: &Entry) {
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

/// The lines in the place of another module's line.
enum StandIn {
    /// Our line, if there is none yet.
    Ours,
    /// The same, and a line of pam_permit for the answer PAM_SUCCESS.
    WithPermit,
}

/// Puts our line into the place of another module's line that always answers PAM_SUCCESS, so that the same users can log in
/// as before. None where there is no way.
fn stand_in(draft: &mut Draft<'_>, path: &str, at: usize, facility: Facility, entry: &Entry) -> Option<StandIn> {
    let libpam = draft.libpam();
    let text = draft.text(path).unwrap_or_default();
    let ours = our_line(facility, &entry.args);
    let permit = format!("{} {} pam_permit.so", facility.name(), entry.control_as_written());
    let there = parse(&text, libpam).iter().any(|line: &Line| line.calls(facility, "pam_pag"));
    let ways: &[&[&String]] =
        if there { &[&[], &[&permit]] } else { &[&[&ours], &[&ours, &permit], &[&permit, &ours]] };
    let before = readers(draft, path);
    let edited = draft.edited(path);
    for way in ways {
        let lines: Vec<String> = way.iter().map(|line| (*line).clone()).collect();
        draft.edit(Edit { path: path.to_owned(), text: Some(replace(&text, libpam, at, &lines, true)) });
        let old = |step: &Step| is_ours(step) || (step.path == path && step.line == at);
        let written = at..=at + lines.len();
        let new = |step: &Step| is_ours(step) || (step.path == path && written.contains(&step.line));
        let after = readers(draft, path);
        let the_same = before.len() == after.len()
            && before.iter().zip(&after).all(|(before, after)| {
                can_replace(before.stacks.steps(facility), after.stacks.steps(facility), facility, libpam, (&old, &new))
            });
        if the_same {
            return Some(if lines.contains(&permit) { StandIn::WithPermit } else { StandIn::Ours });
        }
        draft.restore(path, edited.clone());
    }
    None
}
