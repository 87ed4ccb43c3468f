//! `pagctl pam`: finds the PAM stacks that need pam_pag, reports what is wrong with them, edits them and takes the edits
//! back.

mod answers;
mod check;
mod control;
mod draft;
mod edit;
mod finding;
mod host;
mod inspect;
mod manager;
mod parse;
mod place;
mod plan;
mod report;
mod run;
mod stack;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

#[cfg(test)]
pub(crate) use self::finding::PROBLEMS;
pub(crate) use self::finding::{Finding, Level, Problem};
pub(crate) use self::host::Host;
use self::inspect::{inspect, surroundings};
use self::manager::Run;
use self::plan::{Plan, disable, enable};
use self::report::{Report, Written};
use self::stack::Files;
use crate::output::{self, Answer, Error, out, outln};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Report what is wrong with the PAM stacks; change nothing
    Check(Look),
    /// Put pam_pag into the stacks that need it
    Enable(Change),
    /// Take the lines of `enable` out again
    Disable(Change),
}

/// Which system to look at, and how to answer.
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

/// Runs a command of this room.
///
/// # Errors
/// When a file cannot be read or written, another tool refuses, or the user does.
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

/// What `check` finds below `root`: the services that are all right, and the findings about stacks.
///
/// # Errors
/// There is no such directory.
pub(crate) fn survey(root: &Path) -> Result<(Vec<String>, Vec<Finding>), Error> {
    Ok(inspect(&Host::new(root)?))
}

fn look_at(look: &Look) -> Result<Answer, Error> {
    let host = Host::new(&look.root)?;
    let mut report = Report::default();
    (report.all_right, report.findings) = inspect(&host);
    report.findings.extend(surroundings(&host));
    let answer = answer(report.findings.iter().any(|finding| finding.level == Level::Wrong));
    let repairable = report.findings.iter().filter(|finding| finding.curable()).count();
    report.print(look.json);
    if !look.json && repairable > 0 {
        outln!("`pagctl pam enable` shows and makes the edits that {repairable} of these need.");
    }
    Ok(answer)
}

fn answer(to_do: bool) -> Answer {
    if to_do { Answer::ToDo } else { Answer::AllRight }
}

/// Shows a plan, asks, carries it out, and reports what is left to do.
fn carry_out(change: &Change, host: &Host, plan: Plan, enable: bool) -> Result<Answer, Error> {
    let mut report = Report { advice: plan.advice, ..Report::default() };
    report.commands.extend(plan.run.iter().map(Run::line));
    let before: Vec<Option<String>> = plan.edits.iter().map(|edit| host.text(&edit.path)).collect();
    report.changes =
        plan.edits.iter().zip(&before).map(|(edit, before)| Written::of(edit, before.as_deref())).collect();
    let idle = report.commands.is_empty() && report.changes.is_empty();
    if !change.look.json {
        report.print_plan();
    }
    if !idle && !change.dry_run {
        confirm(change)?;
        // enable changes the shared stacks first, disable last: if the other tool refuses, no service has our line in a file
        // of its own.
        if let Some(run) = plan.run.as_ref().filter(|_| enable) {
            run.execute(host)?;
        }
        for ((edit, before), written) in plan.edits.iter().zip(&before).zip(&mut report.changes) {
            written.backup = host.write(edit, before.as_deref())?;
        }
        if let Some(run) = plan.run.as_ref().filter(|_| !enable) {
            run.execute(host)?;
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
        // The diff and the commands show it already.
        report.findings.clear();
    }
    report.findings.extend(plan.remarks);
    report.print(change.look.json);
    Ok(answer(to_do))
}

fn confirm(change: &Change) -> Result<(), Error> {
    if change.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || change.look.json {
        return Err(Error::Refused(
            "standard input is no terminal, so pagctl cannot ask; --yes makes these changes, --dry-run only shows them"
                .to_owned(),
        ));
    }
    out!("Make these changes? [y/N] ");
    let mut answer = String::new();
    // A question that could not be printed has no answer.
    let read =
        if output::finish().is_err() || output::is_closed() { Ok(0) } else { io::stdin().read_line(&mut answer) };
    match read {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Error::Refused("nothing was changed".to_owned())),
    }
}

#[cfg(test)]
mod tests;
