//! What `pagctl doctor` prints: lines for people, JSON, or one line for Nagios.

use serde::Serialize;

use super::finding::Finding;
use super::round::Round;
use crate::output::{self, FindingJson, Severity};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct DoctorJson<'a> {
    /// The severity of the worst finding.
    worst: Severity,
    findings: Vec<FindingJson>,
    /// Findings that those above explain.
    consequences: Vec<FindingJson>,
    fine: &'a [String],
    /// What was not looked at.
    left_out: &'a [String],
}

impl<'a> From<&'a Round> for DoctorJson<'a> {
    fn from(round: &'a Round) -> Self {
        DoctorJson {
            worst: round.worst(),
            findings: round.findings.iter().map(FindingJson::from).collect(),
            consequences: round.consequences.iter().map(FindingJson::from).collect(),
            fine: &round.fine,
            left_out: &round.left_out,
        }
    }
}

/// Prints the whole round as JSON.
pub(super) fn json(round: &Round) {
    output::json(&DoctorJson::from(round));
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The numbers of what was found, in one line.
fn summary(round: &Round) -> String {
    let of = |severity| round.findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings, notes) = (of(Severity::Error), of(Severity::Warning), of(Severity::Info));
    let mut parts = Vec::new();
    parts.extend((errors > 0).then(|| count(errors, "error")));
    parts.extend((warnings > 0).then(|| count(warnings, "warning")));
    parts.extend((notes > 0).then(|| count(notes, "note")));
    if !round.consequences.is_empty() {
        let ids: Vec<String> = round.consequences.iter().map(|finding| finding.id.id()).collect();
        parts.push(format!("consequences of these: {}", ids.join(", ")));
    }
    parts.push(format!("{} fine", count(round.fine.len(), "thing")));
    parts.extend((!round.left_out.is_empty()).then(|| format!("{} left out", round.left_out.len())));
    parts.join(", ")
}

/// The line that Nagios shows.
pub(super) fn nagios(round: &Round) -> String {
    let state = match round.worst() {
        Severity::Ok | Severity::Info => "OK",
        Severity::Warning => "WARNING",
        Severity::Error => "CRITICAL",
    };
    let bad: Vec<&Finding> = round.findings.iter().filter(|finding| finding.severity >= Severity::Warning).collect();
    let text = match bad.split_first() {
        None => summary(round),
        Some((first, [])) => first.what.clone(),
        Some((first, rest)) => format!("{} (and {} more)", first.what, rest.len()),
    };
    // Nagios takes what stands behind a bar for figures.
    format!("PAG {state} - {}\n", text.replace('|', "/"))
}

/// The colour of a severity's word on a terminal.
fn word(severity: Severity, colours: bool) -> String {
    let (colour, word) = match severity {
        Severity::Error => ("1;31", severity.as_str()),
        Severity::Warning => ("1;33", severity.as_str()),
        Severity::Info => ("36", "note"),
        Severity::Ok => ("32", severity.as_str()),
    };
    if colours { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() }
}

/// The lines for people.
pub(super) fn words(round: &Round, verbose: bool, colours: bool) -> String {
    let mut text = String::new();
    for finding in &round.findings {
        text += &format!("{}: {} [{}]\n", word(finding.severity, colours), finding.what, finding.id.id());
        text += &format!("    why: {}\n", finding.why);
        if let Some(command) = &finding.command {
            text += &format!("    do:  {command}\n");
        }
    }
    if verbose {
        for fine in &round.fine {
            text += &format!("{}: {fine}\n", word(Severity::Ok, colours));
        }
        for finding in &round.consequences {
            text += &format!("consequence: {} [{}]\n", finding.what, finding.id.id());
        }
        for left_out in &round.left_out {
            text += &format!("left out: {left_out}\n");
        }
    }
    let hint = if verbose { "" } else { " (-v lists all)" };
    text + &format!("{}{hint}\n", summary(round))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Problem;

    fn round() -> Round {
        let error = Finding::error(Problem::HelperMasked, "a is b", "so c").mend("do d");
        let warning = Finding::warning(Problem::KeyQuotaLow, "e | f", "so g");
        Round { findings: vec![error, warning], fine: vec!["h".to_owned()], ..Round::default() }
    }

    #[test]
    fn json_has_the_shape_of_its_page() {
        output::schema::check("doctor", &serde_json::to_value(DoctorJson::from(&round())).unwrap());
    }

    #[test]
    fn a_finding_is_one_line_what_one_why_and_one_command() {
        let expected = "error: a is b [helper-masked]\n    why: so c\n    do:  do d\n\
                        warning: e | f [key-quota-low]\n    why: so g\n\
                        1 error, 1 warning, 1 thing fine (-v lists all)\n";
        assert_eq!(words(&round(), false, false), expected);
        assert!(words(&round(), true, false).contains("ok: h\n"));
        assert!(words(&round(), false, true).starts_with("\x1b[1;31merror\x1b[0m: a is b"));
    }

    #[test]
    fn nagios_gets_one_line_without_a_bar() {
        assert_eq!(nagios(&round()), "PAG CRITICAL - a is b (and 1 more)\n");
        let mut other = round();
        other.findings.remove(0);
        assert_eq!(nagios(&other), "PAG WARNING - e / f\n");
        other.findings.clear();
        assert_eq!(nagios(&other), "PAG OK - 1 thing fine\n");
    }
}
