//! `pagctl pam`: finds the PAM stacks that need us, says what is wrong, makes the edits and takes them back.

mod answers;
mod check;
mod control;
mod edit;
mod host;
mod manager;
mod parse;
mod place;
mod stack;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use pag::config::{SERVICES, seat};
use serde::Serialize;
use similar::TextDiff;

use self::check::{Cure, Finding, Level, Problem, needs};
use self::edit::Edit;
use self::host::{Draft, Host};
use self::manager::{Manager, Run};
use self::parse::Facility;
use self::place::{mend_lines, place, services};
use self::stack::{DIRECTORIES, Files, Stacks};
use crate::output::{self, Answer, Error, out, outln};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Say what is wrong; change nothing
    Check(Look),
    /// Put pam_pag into the stacks that need it
    Enable(Change),
    /// Take out what `enable` put in
    Disable(Change),
}

/// Where to look and how to say it.
#[derive(Debug, clap::Args)]
pub(crate) struct Look {
    /// Look at the system below this directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// How to change things.
#[derive(Debug, clap::Args)]
pub(crate) struct Change {
    #[command(flatten)]
    look: Look,
    /// Show the changes, make none
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

/// All that was found and done; the JSON answer.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Services whose stacks are as they should be.
    all_right: Vec<String>,
    findings: Vec<Finding>,
    changes: Vec<Written>,
    /// Commands that were run, or would be.
    commands: Vec<String>,
    /// Commands for the administrator to run.
    advice: Vec<String>,
    /// Whether the changes were made.
    done: bool,
}

/// A changed file.
#[derive(Debug, Serialize)]
struct Written {
    path: String,
    diff: String,
    /// Where the old text is kept.
    backup: Option<String>,
    /// Whether the file was there before, and whether it is afterwards.
    #[serde(skip)]
    there: (bool, bool),
}

/// What is to be done.
struct Plan {
    edits: Vec<Edit>,
    run: Option<Run>,
    advice: Vec<String>,
    /// What was left alone, and what else the person should know.
    remarks: Vec<Finding>,
}

/// Does what was asked.
pub(crate) fn run(verb: &Verb) -> Result<Answer, Error> {
    match verb {
        Verb::Check(look) => look_at(look),
        Verb::Enable(change) => {
            let host = Host::new(&change.look.root)?;
            let plan = enable(&host);
            carry_out(change, &host, plan, true)
        }
        Verb::Disable(change) => {
            let host = Host::new(&change.look.root)?;
            let plan = disable(&host);
            carry_out(change, &host, plan, false)
        }
    }
}

fn look_at(look: &Look) -> Result<Answer, Error> {
    let host = Host::new(&look.root)?;
    let mut report = Report::default();
    (report.all_right, report.findings) = inspect(&host);
    report.findings.extend(surroundings(&host));
    let answer = answer(report.findings.iter().any(|finding| finding.level == Level::Wrong));
    let repairable = report.findings.iter().filter(|finding| finding.curable()).count();
    say(look, &report);
    if !look.json && repairable > 0 {
        outln!("`pagctl pam enable` shows and makes the edits that {repairable} of these need.");
    }
    Ok(answer)
}

fn answer(to_do: bool) -> Answer {
    if to_do { Answer::ToDo } else { Answer::AllRight }
}

/// Judges every service that is there: those that need us and are all right, and the findings about all.
fn inspect(files: &dyn Files) -> (Vec<String>, Vec<Finding>) {
    let mut all_right = Vec::new();
    let mut findings = Vec::new();
    let mut unknown = Vec::new();
    let mut seats = 0;
    for service in services(files) {
        let found = service.judge(files);
        let needs_us = service.seat.map(needs).is_some_and(|needs| needs != (false, false));
        seats += usize::from(needs_us);
        if needs_us && found.iter().all(|finding| finding.level == Level::Note) {
            all_right.push(service.name.clone());
        }
        let begins = [Facility::Auth, Facility::Session].iter().any(|facility| service.stacks.says(*facility));
        if service.seat.is_none() && begins {
            unknown.push(service.name);
        }
        findings.extend(found);
    }
    if !unknown.is_empty() {
        let text = format!(
            "not known to pagctl: {}. Such a service counts as a login, which needs a session line of pam_pag.so, and an \
             auth line where it unlocks screens; [service NAME] placement in pag.conf(5) says what else it is",
            unknown.join(", ")
        );
        findings.push(Finding::note(Problem::UnknownService, None, text));
    }
    if seats == 0 {
        let text = format!("no PAM stack of a login was found in {}", DIRECTORIES.join(", "));
        findings.push(Finding::wrong(Problem::NotUnderstood, None, text));
    }
    (all_right, findings)
}

/// What a stack needs from its host: the module and the handle group.
fn surroundings(host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Beside libpam's own: it looks nowhere else.
    let is_in =
        |directory: &str| ["pam_unix.so", "pam_pag.so"].map(|name| host.has(&format!("{directory}/security/{name}")));
    if !host.library_directories().iter().any(|directory| is_in(directory) == [true, true]) {
        findings.push(Finding::wrong(Problem::NoModule, None, "pam_pag.so is in no directory of PAM modules"));
    }
    let groups = host.text("/etc/group").unwrap_or_default();
    let mut group = groups.lines().filter_map(|line| line.strip_prefix("pag:"));
    let entry = group.next();
    // NAME:PASSWORD:UID:GID:...
    let gid = entry.and_then(|rest| rest.split(':').nth(1));
    let accounts = host.text("/etc/passwd").unwrap_or_default();
    let its_own = accounts.lines().filter(|line| gid.is_some() && line.split(':').nth(3) == gid);
    let its_own: Vec<_> = its_own.filter_map(|line| line.split(':').next()).collect();
    if !its_own.is_empty() {
        let what = format!("the group pag must be nobody's own group, who has it could enter every PAG: {its_own:?}");
        findings.push(Finding::wrong(Problem::HandleGroup, None, what));
    }
    match entry.map(|rest| rest.rsplit(':').next().unwrap_or_default().trim()) {
        None => findings.push(Finding::wrong(
            Problem::HandleGroup,
            None,
            "there is no group pag; systemd-sysusers makes it (rings now belong to gid 0)",
        )),
        Some("") => {}
        Some(members) => findings.push(Finding::wrong(
            Problem::HandleGroup,
            None,
            format!("the group pag must have no members, they could enter every PAG: {members:?}"),
        )),
    }
    findings
}

fn enable(host: &Host) -> Plan {
    let manager = Manager::of(host);
    let mut draft = Draft::new(host);
    let behind = manager.assume(&mut draft);
    let locked = |path: &str| manager.owns(path).or_else(|| host.unfit(path));
    let mut remarks = mend_lines(&mut draft, &|path| manager.owns(path).is_some(), &locked);
    for (service, _) in SERVICES {
        let own = format!("{}{service}", edit::ETC);
        let now = draft.text(&own).unwrap_or_default();
        let vendor = DIRECTORIES.iter().skip(1).map(|dir| format!("{dir}/{service}"));
        let vendor = vendor.into_iter().find(|path| draft.text(path).is_some());
        if let Some(vendor) = vendor.filter(|_| edit::is_overlay(&now) && edit::only_ours(&now, host.libpam())) {
            // The vendor's file may have another set of facilities since.
            let text = edit::overlay(&draft, &vendor);
            draft.edit(Edit { path: own, text: Some(text) });
        }
        for facility in [Facility::Session, Facility::Auth] {
            let Some(path) = draft.service(service) else { continue };
            let stacks = Stacks::of(&draft, &path);
            let found = check::judge(service, seat(service), &stacks, draft.libpam());
            if !found.iter().any(|finding| finding.curable() && finding.cure == Cure::Line(facility)) {
                continue;
            }
            let refused = place(&mut draft, service, facility, &locked).err();
            remarks.extend(refused.map(|text| Finding::wrong(Problem::LeftAlone, Some(service), text)));
        }
    }
    remarks.extend(manager.rival(host, true).filter(|_| behind));
    let (run, advice) = match manager {
        Manager::PamAuthUpdate if behind => (Some(Run::new(host, true)), Vec::new()),
        Manager::Authselect { .. } if behind => (None, manager.advice(host, true)),
        _ => (None, Vec::new()),
    };
    Plan { edits: draft.edits(), run, advice, remarks }
}

fn disable(host: &Host) -> Plan {
    let manager = Manager::of(host);
    let mut edits = Vec::new();
    let mut remarks = Vec::new();
    for name in host.names("/etc/pam.d") {
        let path = format!("/etc/pam.d/{name}");
        let Some(text) = host.text(&path).filter(|_| manager.owns(&path).is_none()) else {
            continue;
        };
        let unfit = host.unfit(&path);
        let edit = edit::take_back(&path, &text, host.libpam()).filter(|_| unfit.is_none());
        let after = edit.as_ref().map_or(Some(text.as_str()), |edit| edit.text.as_deref());
        if after.is_some_and(|text| edit::strangers(text, host.libpam())) {
            let why = unfit.unwrap_or_else(|| "not written by this tool".to_owned());
            let text = format!("{path}: calls pam_pag.so and is left alone: {why}");
            remarks.push(Finding::wrong(Problem::LeftAlone, None, text));
        }
        edits.extend(edit);
    }
    let knows = manager.knows_us(host);
    remarks.extend(manager.rival(host, false).filter(|_| knows));
    let (run, advice) = match manager {
        Manager::PamAuthUpdate if knows => (Some(Run::new(host, false)), Vec::new()),
        Manager::Authselect { .. } if knows => (None, manager.advice(host, false)),
        _ => (None, Vec::new()),
    };
    Plan { edits, run, advice, remarks }
}

/// Shows a plan, asks, does it, and says what is left to do.
fn carry_out(change: &Change, host: &Host, plan: Plan, enable: bool) -> Result<Answer, Error> {
    let mut report = Report { advice: plan.advice, ..Report::default() };
    report.commands.extend(plan.run.iter().map(Run::line));
    let before: Vec<Option<String>> = plan.edits.iter().map(|edit| host.text(&edit.path)).collect();
    for (edit, before) in plan.edits.iter().zip(&before) {
        let diff = diff(edit, before.as_deref());
        report.changes.push(Written {
            path: edit.path.clone(),
            diff,
            backup: None,
            there: (before.is_some(), edit.text.is_some()),
        });
    }
    let idle = report.commands.is_empty() && report.changes.is_empty();
    if !change.look.json {
        show(&report);
    }
    if !idle && !change.dry_run {
        confirm(change)?;
        // The shared stacks come first when we go in and last when we go out: no service has our line in its own file
        // while another tool refuses its part.
        if let Some(run) = plan.run.as_ref().filter(|_| enable) {
            run.go(host)?;
        }
        for ((edit, before), written) in plan.edits.iter().zip(&before).zip(&mut report.changes) {
            written.backup = host.write(edit, before.as_deref())?;
        }
        if let Some(run) = plan.run.as_ref().filter(|_| !enable) {
            run.go(host)?;
        }
        report.done = true;
    }
    if enable {
        (report.all_right, report.findings) = inspect(host);
        report.findings.extend(surroundings(host));
    }
    let pending = !idle && !report.done;
    let decides = |finding: &Finding| finding.level == Level::Wrong && finding.problem == Problem::Decides;
    let left = enable && report.findings.iter().any(|finding| finding.curable() || decides(finding));
    let to_do =
        pending || left || !report.advice.is_empty() || plan.remarks.iter().any(|remark| remark.level == Level::Wrong);
    if pending {
        // What was shown says it already.
        report.findings.clear();
    }
    report.findings.extend(plan.remarks);
    say(&change.look, &report);
    Ok(answer(to_do))
}

fn diff(edit: &Edit, before: Option<&str>) -> String {
    let side = |there: bool, letter: char| match there {
        true => format!("{letter}{}", edit.path),
        false => "/dev/null".to_owned(),
    };
    let (old, new) = (before.unwrap_or_default(), edit.text.as_deref().unwrap_or_default());
    let (from, to) = (side(before.is_some(), 'a'), side(edit.text.is_some(), 'b'));
    TextDiff::from_lines(old, new).unified_diff().header(&from, &to).to_string()
}

fn confirm(change: &Change) -> Result<(), Error> {
    if change.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || change.look.json {
        return Err(Error::Unconfirmed("nobody to ask; say --yes to make these changes, --dry-run to only see them"));
    }
    out!("Make these changes? [y/N] ");
    let mut said = String::new();
    // Nobody says yes to a question that could not be put.
    let heard = if output::finish().is_err() || output::is_closed() { Ok(0) } else { io::stdin().read_line(&mut said) };
    match heard {
        Ok(_) if matches!(said.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Error::Unconfirmed("nothing was changed")),
    }
}

/// The changes, for a person.
fn show(report: &Report) {
    for command in &report.commands {
        outln!("Command: {command}");
    }
    for change in &report.changes {
        out!("{}", change.diff);
    }
    if !report.advice.is_empty() {
        outln!("authselect looks after the shared stacks. Run this as root, then `pagctl pam enable` again:");
        report.advice.iter().for_each(|command| outln!("  {command}"));
    }
}

/// What was found and done.
fn say(look: &Look, report: &Report) {
    if look.json {
        output::json(report);
        return;
    }
    for change in report.changes.iter().filter(|_| report.done) {
        let deed = match change.there {
            (_, false) => "removed",
            (false, true) => "made",
            (true, true) => "changed",
        };
        let kept = change.backup.as_ref().map(|backup| format!("; the old text is in {backup}"));
        outln!("{}: {deed}{}", change.path, kept.unwrap_or_default());
    }
    if !report.all_right.is_empty() {
        outln!("All right: {}", report.all_right.join(", "));
    }
    let mut said: Vec<&Finding> = Vec::new();
    for finding in &report.findings {
        let same = |other: &&Finding| (other.level, &other.text) == (finding.level, &finding.text);
        if said.iter().any(same) {
            continue;
        }
        said.push(finding);
        let level = match finding.level {
            Level::Note => "note",
            Level::Wrong => "wrong",
        };
        // What is wrong with a shared file is said once.
        let services = report.findings.iter().filter(same).filter_map(|finding| finding.service.as_deref());
        match services.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => outln!("{level}: {}", finding.text),
            services => outln!("{level}: {services}: {}", finding.text),
        }
    }
}

#[cfg(test)]
mod tests;
