//! What `check`, `enable` and `disable` print: a report in JSON, or lines for people.

use serde::{Serialize, Serializer};
use similar::TextDiff;

use super::edit::Edit;
use super::finding::{Finding, Level};
use crate::output::{self, FindingJson, out, outln};

/// All that was found and done; the JSON answer.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// The services that have the right stacks.
    pub(super) all_right: Vec<String>,
    #[serde(serialize_with = "in_json")]
    pub(super) findings: Vec<Finding>,
    pub(super) changes: Vec<Written>,
    /// Commands that were run, or would be.
    pub(super) commands: Vec<String>,
    /// Commands for the administrator to run.
    pub(super) advice: Vec<String>,
    /// Whether the changes were made.
    pub(super) done: bool,
}

/// Findings in the shape that they have in the JSON of every command.
fn in_json<S: Serializer>(findings: &[Finding], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(findings.iter().map(FindingJson::from))
}

/// A changed file.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    path: String,
    diff: String,
    /// The path of the old text.
    pub(super) backup: Option<String>,
    /// Whether the file was there before, and whether it is afterwards.
    #[serde(skip)]
    there: (bool, bool),
}

impl Written {
    /// The change that an edit makes of a file with this text.
    pub(super) fn of(edit: &Edit, before: Option<&str>) -> Self {
        let there = (before.is_some(), edit.text.is_some());
        let name =
            |there: bool, letter: char| if there { format!("{letter}{}", edit.path) } else { "/dev/null".to_owned() };
        let (old, new) = (before.unwrap_or_default(), edit.text.as_deref().unwrap_or_default());
        let (from, to) = (name(there.0, 'a'), name(there.1, 'b'));
        let diff = TextDiff::from_lines(old, new).unified_diff().header(&from, &to).to_string();
        Written { path: edit.path.clone(), diff, backup: None, there }
    }
}

impl Report {
    /// Prints what would be changed, for people.
    pub(super) fn print_plan(&self) {
        for command in &self.commands {
            outln!("Command: {command}");
        }
        for change in &self.changes {
            out!("{}", change.diff);
        }
        if !self.advice.is_empty() {
            outln!("authselect looks after the shared stacks. Run this as root, then `pagctl pam enable` again:");
            self.advice.iter().for_each(|command| outln!("  {command}"));
        }
    }

    /// Prints what was found and done.
    pub(super) fn print(&self, json: bool) {
        if json {
            output::json(self);
            return;
        }
        for change in self.changes.iter().filter(|_| self.done) {
            let done = match change.there {
                (_, false) => "removed",
                (false, true) => "made",
                (true, true) => "changed",
            };
            let kept = change.backup.as_ref().map(|backup| format!("; the old text is in {backup}"));
            outln!("{}: {done}{}", change.path, kept.unwrap_or_default());
        }
        if !self.all_right.is_empty() {
            outln!("All right: {}", self.all_right.join(", "));
        }
        let mut printed: Vec<&Finding> = Vec::new();
        for finding in &self.findings {
            let same = |other: &&Finding| (other.level, &other.text) == (finding.level, &finding.text);
            if printed.iter().any(same) {
                continue;
            }
            printed.push(finding);
            let level = match finding.level {
                Level::Note => "note",
                Level::Wrong => "wrong",
            };
            // A finding about a shared file is printed once, with all services.
            let services = self.findings.iter().filter(same).filter_map(|finding| finding.service.as_deref());
            match services.collect::<Vec<_>>().join(", ") {
                none if none.is_empty() => outln!("{level}: {}", finding.text),
                services => outln!("{level}: {services}: {}", finding.text),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Cure, PROBLEMS};
    use super::super::parse::Facility;
    use super::*;
    use crate::output::schema;

    #[test]
    fn json_has_the_shape_of_its_page() {
        let cured =
            |problem| Finding { cure: Cure::Line(Facility::Session), ..Finding::wrong(problem, Some("sshd"), "x") };
        let findings = PROBLEMS.into_iter().flat_map(|problem| [cured(problem), Finding::note(problem, None, "y")]);
        let edit = Edit { path: "/etc/pam.d/sshd".to_owned(), text: Some("new\n".to_owned()) };
        let changes = vec![Written::of(&edit, None)];
        let report = Report { findings: findings.collect(), changes, ..Report::default() };
        let json = serde_json::to_value(&report).unwrap();
        schema::check("pam enable", &json);
        let first = &json["findings"][0];
        assert_eq!((&first["id"], &first["severity"]), (&"pam-decides".into(), &"error".into()));
        assert_eq!((&first["command"], &first["service"]), (&"pagctl pam enable".into(), &"sshd".into()));
        assert_eq!(
            (&json["findings"][1]["severity"], &json["findings"][1]["command"]),
            (&"info".into(), &serde_json::Value::Null)
        );
    }
}
