//! `pagctl pam`: finds the PAM stacks that need us, says what is wrong, makes the edits and takes them back.

mod check;
mod edit;
mod host;
mod manager;
mod parse;
mod stack;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use serde::Serialize;
use similar::TextDiff;

use self::check::{Finding, Kind, Level, Problem, SERVICES};
use self::edit::Edit;
use self::host::{Draft, Host};
use self::manager::{Manager, Run};
use self::parse::Facility;
use self::stack::{DIRECTORIES, Files, resolve};
use crate::Answer;
use crate::error::Error;
use crate::out::{self, errln, out, outln};

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
        Verb::Check(look) => Ok(look_at(look)),
        Verb::Enable(change) => {
            let host = Host::new(&change.look.root);
            let plan = enable(&host);
            carry_out(change, &host, plan, true)
        }
        Verb::Disable(change) => {
            let host = Host::new(&change.look.root);
            let plan = disable(&host);
            carry_out(change, &host, plan, false)
        }
    }
}

fn look_at(look: &Look) -> Answer {
    let host = Host::new(&look.root);
    let mut report = Report::default();
    (report.all_right, report.findings) = inspect(&host);
    report.findings.extend(surroundings(&host));
    if report.all_right.is_empty() && report.findings.iter().all(|finding| finding.service.is_none()) {
        report.findings.push(Finding::note(Problem::NotUnderstood, None, "no PAM stack that we know was found"));
    }
    let answer = answer(report.findings.iter().any(|finding| finding.level == Level::Wrong));
    let repairable = report.findings.iter().filter(|finding| finding.placement()).count();
    say(look, &report);
    if !look.json && repairable > 0 {
        outln!("`pagctl pam enable` shows and makes the edits that {repairable} of these need.");
    }
    answer
}

fn answer(to_do: bool) -> Answer {
    if to_do { Answer::ToDo } else { Answer::AllRight }
}

/// Judges every service that is there: those which are all right, and the findings about all.
fn inspect(files: &dyn Files) -> (Vec<String>, Vec<Finding>) {
    let mut all_right = Vec::new();
    let mut findings = Vec::new();
    for (service, kind) in SERVICES {
        if let Some(path) = files.service(service) {
            let found = judge(files, service, kind, &path);
            if found.iter().all(|finding| finding.level == Level::Note) {
                all_right.push(service.to_owned());
            }
            findings.extend(found);
        }
    }
    (all_right, findings)
}

fn judge(files: &dyn Files, service: &str, kind: Kind, path: &str) -> Vec<Finding> {
    let session = resolve(files, path, Facility::Session);
    let auth = resolve(files, path, Facility::Auth);
    check::stack(service, kind, &session, &auth)
}

/// What a stack needs from its host: the module and the handle group.
fn surroundings(host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    let multiarch = ["/usr/lib", "/lib"].into_iter().flat_map(|base| {
        host.names(base).into_iter().filter(|name| name.contains("-linux-")).map(move |name| format!("{base}/{name}"))
    });
    let plain = ["/usr/lib64", "/usr/lib", "/lib64", "/lib"].map(str::to_owned);
    // Beside libpam's own: it looks nowhere else.
    let is_in =
        |directory: &str| ["pam_unix.so", "pam_pag.so"].map(|name| host.has(&format!("{directory}/security/{name}")));
    if !plain.into_iter().chain(multiarch).any(|directory| is_in(&directory) == [true, true]) {
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
    let mut remarks = Vec::new();
    for (service, kind) in SERVICES {
        let Some(path) = draft.service(service) else {
            continue;
        };
        let now = draft.text(&path).unwrap_or_default();
        let vendor = DIRECTORIES.iter().skip(1).map(|dir| format!("{dir}/{service}"));
        let vendor = vendor.into_iter().find(|path| draft.text(path).is_some());
        if let Some(vendor) = vendor.filter(|_| edit::is_overlay(&now)) {
            // The vendor's file may have another set of facilities since.
            let text = edit::overlay(&draft, &vendor);
            draft.edit(Edit { path: path.clone(), text: Some(text) });
        }
        let needs = |draft: &Draft<'_>, unlock: bool| {
            let path = draft.service(service).unwrap_or_default();
            let found = judge(draft, service, kind, &path);
            found.iter().filter(|f| f.placement() && (f.problem == Problem::NoUnlock) == unlock).count()
        };
        for unlock in [false, true] {
            let before = needs(&draft, unlock);
            if before == 0 {
                continue;
            }
            let edit = if unlock {
                edit::auth(&draft, &draft.service(service).unwrap_or_default(), &locked)
            } else {
                edit::session(&draft, service, &path, kind, &locked)
            };
            let refused = match edit {
                Err(refusal) => Some(refusal),
                Ok(edit) => {
                    let (path, old) = (edit.path.clone(), draft.edited(&edit.path));
                    draft.edit(edit);
                    let helped = needs(&draft, unlock) < before;
                    if !helped {
                        draft.restore(&path, old);
                    }
                    (!helped).then(|| format!("{path}: a line of ours alone can't mend it"))
                }
            };
            remarks.extend(refused.map(|text| Finding::wrong(Problem::LeftAlone, Some(service), text)));
        }
    }
    remarks.extend(manager.rival(host, true).filter(|_| behind));
    let (run, advice) = match manager {
        Manager::PamAuthUpdate if behind => (Some(Run::new(host, true)), Vec::new()),
        Manager::Authselect { .. } if behind => (None, manager.advice(true)),
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
        let edit = edit::take_back(&path, &text).filter(|_| unfit.is_none());
        let after = edit.as_ref().map_or(Some(text.as_str()), |edit| edit.text.as_deref());
        if after.is_some_and(edit::strangers) {
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
        Manager::Authselect { .. } if knows => (None, manager.advice(false)),
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
    let placement = enable && report.findings.iter().any(Finding::placement);
    let to_do = pending
        || placement
        || !report.advice.is_empty()
        || plan.remarks.iter().any(|remark| remark.level == Level::Wrong);
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
    let heard = if out::finish().is_err() || out::is_closed() { Ok(0) } else { io::stdin().read_line(&mut said) };
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
        match serde_json::to_string_pretty(report) {
            Ok(text) => outln!("{text}"),
            Err(error) => errln!("pagctl: {error}"),
        }
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
    for finding in &report.findings {
        let level = match finding.level {
            Level::Note => "note",
            Level::Wrong => "wrong",
        };
        match &finding.service {
            Some(service) => outln!("{level}: {service}: {}", finding.text),
            None => outln!("{level}: {}", finding.text),
        }
    }
}

#[cfg(test)]
mod tests;
