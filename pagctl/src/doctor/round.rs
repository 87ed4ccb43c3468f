//! The round: each subject in a thread of its own, within a limit; then causes before their consequences.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::finding::{Finding, Problem};
use super::host::{Host, Look};
use crate::output::{Severity, user_name};

/// A part of the machine that is looked at.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) check: fn(&Host, &mut Look),
    /// Whether only root can look.
    pub(super) for_root: bool,
}

/// What the whole round has found.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The findings to print: the worst first, and of these the causes.
    pub(super) findings: Vec<Finding>,
    /// Findings that other findings explain.
    pub(super) consequences: Vec<Finding>,
    pub(super) fine: Vec<String>,
    pub(super) left_out: Vec<String>,
}

impl Round {
    /// Looks at all subjects, for at most `limit` in all. A look that does not end is named and left behind: it may wait
    /// for a file system, a name service or a bus that does not answer.
    pub(super) fn make(host: Host, subjects: &[Subject], limit: Duration) -> Self {
        let end = Instant::now() + limit;
        let host = Arc::new(host);
        let (send, looks) = channel();
        let mut round = Round::default();
        let mut waiting = BTreeSet::new();
        for (number, subject) in subjects.iter().enumerate() {
            if subject.for_root && !host.is_root {
                round.left_out.push(format!("{}: only root can look at that", subject.name));
                continue;
            }
            waiting.insert(number);
            let (host, send, check) = (Arc::clone(&host), send.clone(), subject.check);
            thread::spawn(move || {
                pag::report::name_users_by(user_name);
                let mut look = Look::default();
                check(&host, &mut look);
                send.send((number, look))
            });
        }
        drop(send);
        let mut done: Vec<(usize, Look)> = Vec::new();
        while !waiting.is_empty() {
            let Ok((number, look)) = looks.recv_timeout(end.saturating_duration_since(Instant::now())) else { break };
            waiting.remove(&number);
            done.push((number, look));
        }
        for number in waiting {
            let mut look = Look::default();
            let name = subjects.get(number).map_or("", |subject| subject.name);
            let what = format!("the check of {name} did not end within {} s", limit.as_secs());
            let why = "a file system, a name service or a bus may not answer; what the check would tell is not known";
            look.found(Finding::warning(Problem::NoAnswer, what, why));
            done.push((number, look));
        }
        done.sort_by_key(|(number, _)| *number);
        for (_, look) in done {
            round.findings.extend(look.findings);
            round.fine.extend(look.fine);
            round.left_out.extend(look.left_out);
        }
        round.left_out.dedup();
        round.sort();
        round
    }

    /// Puts the worst first, and of equally bad findings the causes. Takes out what others explain.
    fn sort(&mut self) {
        let all = std::mem::take(&mut self.findings);
        let bad: Vec<Problem> = all.iter().filter(|one| one.severity >= Severity::Warning).map(|one| one.id).collect();
        let is_explained = |finding: &Finding| finding.id.causes().iter().any(|cause| bad.contains(cause));
        (self.consequences, self.findings) = all.into_iter().partition(is_explained);
        self.findings.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.id));
        self.consequences.sort_by_key(|finding| finding.id);
    }

    /// How bad the worst finding is.
    pub(super) fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::Machine;

    fn round(subjects: &[Subject], is_root: bool, limit: Duration) -> Round {
        Round::make(Machine::healthy().host(is_root), subjects, limit)
    }

    const fn subject(name: &'static str, check: fn(&Host, &mut Look)) -> Subject {
        Subject { name, check, for_root: false }
    }

    #[test]
    fn causes_come_first_and_their_consequences_are_left_out() {
        let subjects = [
            subject("tokens", |_, look| look.found(Finding::error(Problem::TokensMissing, "no tokens", ""))),
            subject("other", |_, look| look.found(Finding::warning(Problem::KeyQuotaLow, "low", ""))),
            subject("client", |_, look| look.found(Finding::error(Problem::AfsModuleNotLoaded, "no module", ""))),
        ];
        let both = round(&subjects, true, Duration::from_secs(60));
        let ids: Vec<Problem> = both.findings.iter().map(|finding| finding.id).collect();
        assert_eq!(ids, [Problem::AfsModuleNotLoaded, Problem::KeyQuotaLow]);
        assert_eq!(both.consequences.len(), 1);
        let alone = round(&subjects[..2], true, Duration::from_secs(60));
        assert_eq!(alone.findings[0].id, Problem::TokensMissing, "without a cause it is told");
        assert_eq!((alone.worst(), round(&[], true, Duration::ZERO).worst()), (Severity::Error, Severity::Ok));
    }

    #[test]
    fn a_look_that_hangs_is_named_and_holds_up_no_other() {
        let subjects = [
            subject("the moon", |_, _| thread::sleep(Duration::from_secs(600))),
            subject("the sun", |_, look| look.fine("it shines")),
            Subject { name: "the core", check: |_, _| {}, for_root: true },
        ];
        let begun = Instant::now();
        let found = round(&subjects, false, Duration::from_secs(2));
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        assert_eq!((found.fine, found.left_out.len()), (vec!["it shines".to_owned()], 1));
        assert_eq!(found.findings[0].id, Problem::NoAnswer);
        assert!(found.findings[0].what.contains("the moon"), "{:?}", found.findings);
    }

    #[test]
    fn no_problem_causes_itself() {
        for problem in [Problem::TokensMissing, Problem::TokensExpired, Problem::ProbeOutside, Problem::SeederFailed] {
            let mut behind = problem.causes();
            assert!(!behind.is_empty());
            for _ in 0..5 {
                assert!(!behind.contains(&problem), "{problem:?}");
                behind = behind.into_iter().flat_map(Problem::causes).collect();
            }
        }
    }
}
