//! What is right and wrong about a service's stacks: pure functions from stacks to findings, in words.
//!
//! The order that matters (docs/design/pam-stacks.md): after pam_keyinit, which would replace our ring; after pam_krb5,
//! which brings the ccache; before pam_systemd, which starts the user manager. pam_sss has its ccache already from
//! authentication, so its place does not matter.

use pag::config::{OPTIONS, Seat, Where};

use super::answers::{Passage, any, is_ours, pass, usual, without};
use super::control::{Action, IGNORE, SUCCESS, name};
use super::edit::our_line;
use super::finding::{Cure, Finding, Level, Problem};
use super::parse::{Entry, Facility, Libpam};
use super::stack::{Stacks, Step};

/// Our line for a facility, in a message.
fn right_line(facility: Facility, entry: &Entry) -> String {
    our_line(facility, &entry.args).replace('\t', " ")
}

/// Whether a kind of service needs a session line, and an auth line.
pub(crate) fn needs(seat: Seat) -> (bool, bool) {
    match seat {
        Seat::Login | Seat::Manager => (true, false),
        Seat::LoginAndUnlock => (true, true),
        Seat::Unlock => (false, true),
        Seat::Job | Seat::Greeter | Seat::Nothing | Seat::Seed => (false, false),
    }
}

/// Looks at the stacks of one service. Of a service that pagctl does not know it judges our lines alone.
pub(crate) fn judge(service: &str, seat: Option<Seat>, stacks: &Stacks, libpam: Libpam) -> Vec<Finding> {
    let judge = Judge { service, stacks, libpam };
    let (session, auth) = seat.map_or((false, false), needs);
    let mut findings = judge.lines();
    let concerned = session || auth || stacks.all().any(|(_, step)| is_ours(step));
    if concerned {
        findings.extend(judge.files());
    }
    if concerned || seat == Some(Seat::Job) {
        findings.extend(judge.rivals());
    }
    if stacks.refused {
        return findings;
    }
    if session {
        findings.extend(judge.session(seat == Some(Seat::Manager)));
    }
    if auth && !stacks.steps(Facility::Auth).is_empty() {
        findings.extend(judge.unlock());
    }
    findings
}

struct Judge<'a> {
    service: &'a str,
    stacks: &'a Stacks,
    libpam: Libpam,
}

impl Judge<'_> {
    fn wrong(&self, problem: Problem, text: String, cure: Cure) -> Finding {
        Finding { cure, ..Finding::wrong(problem, Some(self.service), text) }
    }

    /// Findings about the files themselves.
    fn files(&self) -> Vec<Finding> {
        let trouble = self.stacks.trouble.iter().map(|trouble| trouble.text.clone());
        let sure = self.stacks.trouble.iter().all(|trouble| !trouble.unsure);
        let refused = (self.stacks.refused && sure).then(|| "libpam refuses this service as a whole".to_owned());
        trouble.chain(refused).map(|text| self.wrong(Problem::NotUnderstood, text, Cure::None)).collect()
    }

    /// Findings about our lines: what they do to a login, and their options.
    fn lines(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for facility in Facility::ALL {
            let steps = self.stacks.steps(facility);
            for (at, step) in steps.iter().enumerate().filter(|(_, step)| is_ours(step)) {
                findings.extend(self.harm(facility, steps, at, step));
                for arg in &step.entry.args {
                    let name = arg.split('=').next().unwrap_or_default();
                    if !OPTIONS.iter().any(|option| option.stands == Where::Anywhere && option.name == name) {
                        let text = format!("{}: pam_pag.so has no option {arg:?}", step.place());
                        findings.push(self.wrong(Problem::UnknownOption, text, Cure::None));
                    }
                }
            }
        }
        findings
    }

    /// The harm that a line of ours does by its control, whatever the other modules answer.
    fn harm(&self, facility: Facility, steps: &[Step], at: usize, step: &Step) -> Option<Finding> {
        let answer = if facility == Facility::Session { SUCCESS } else { IGNORE };
        match step.control.action(answer) {
            // Most lines are like these: the answers of the other modules decide as before.
            Some(Action::Ignore) => return self.needs_success(facility, steps, at, step),
            Some(Action::Ok) if answer == SUCCESS => return None,
            _ => {}
        }
        let neutral = without(steps, at);
        let (mut denies, mut may_deny, mut admits, mut lost) = (false, false, false, None);
        let usual = usual(steps, facility).len();
        for (index, answers) in any(steps, facility, &|_| false).into_iter().enumerate() {
            let now = pass(steps, facility, self.libpam, &answers);
            let then = pass(&neutral, facility, self.libpam, &answers);
            may_deny |= then.succeeds() && !now.succeeds();
            denies |= may_deny && index < usual;
            // If ours is the only session line, the session opens because of it. The auth and account stacks decide who may log in.
            admits |= now.succeeds() && !then.succeeds() && facility != Facility::Session;
            let mut missed = then.first.called.iter().filter(|other| !now.first.called.contains(other));
            lost = lost.or(missed.next().copied());
        }
        let answer = name(answer);
        let (place, control) = (step.place(), step.entry.control_as_written());
        let remedy = format!("write instead: {}", right_line(facility, &step.entry));
        let (problem, what) = if denies {
            (Problem::Decides, "denies the login".to_owned())
        } else if admits {
            (Problem::Decides, "lets in users that no other module let in".to_owned())
        } else if let Some(lost) = lost.and_then(|at| steps.get(at)) {
            (Problem::SkipsOthers, format!("keeps {} from being called", described(lost)))
        } else if may_deny {
            (Problem::Decides, "denies some logins".to_owned())
        } else {
            return self.needs_success(facility, steps, at, step);
        };
        let text = format!("{place}: under {control} pam_pag.so, which answers {answer}, {what}; {remedy}");
        Some(self.wrong(problem, text, Cure::Rewrite))
    }

    /// Whether a stack needs a success of our line, as pam_afs_session answers it.
    fn needs_success(&self, facility: Facility, steps: &[Step], at: usize, step: &Step) -> Option<Finding> {
        let ways = usual(steps, facility);
        let succeeds = |answers: &[i32]| pass(steps, facility, self.libpam, answers).succeeds();
        let with_success = |answers: &[i32]| -> Vec<i32> {
            answers.iter().enumerate().map(|(other, answer)| if other == at { SUCCESS } else { *answer }).collect()
        };
        let denied = !ways.iter().any(|answers| succeeds(answers))
            && ways.iter().any(|answers| succeeds(&with_success(answers)));
        denied.then(|| {
            let (place, control) = (step.place(), step.entry.control_as_written());
            let text = format!(
                "{place}: every login is denied: the stack needs a success of this line, and pam_pag.so answers \
                 {}. If a success is right here, write two lines instead: {} {control} pam_permit.so, and before it: {}",
                name(IGNORE),
                facility.name(),
                right_line(facility, &step.entry),
            );
            self.wrong(Problem::Decides, text, Cure::None)
        })
    }

    /// Findings about other modules that make PAGs or get tokens.
    fn rivals(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        for (_, step) in self.stacks.all() {
            let Some(rival) = rival(&step.entry) else { continue };
            let (place, module) = (step.place(), step.entry.module());
            let (by, remedy) = match rival {
                Rival::Replaceable | Rival::Module => (String::new(), "take it out"),
                Rival::Option(option) => (format!(" with {option}"), "write ignore_afs in the place of that option"),
            };
            let text = format!("{place}: {module}.so{by} makes PAGs, too, beside pam_pag.so; {remedy}");
            let cure = if rival == Rival::Replaceable { Cure::Rewrite } else { Cure::None };
            let finding = self.wrong(Problem::TwoModules, text, cure);
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        findings
    }

    /// The usual ways in which a login goes well; all usual ways where it never does.
    fn passages(&self, facility: Facility) -> Vec<Passage> {
        let steps = self.stacks.steps(facility);
        let ways = usual(steps, facility).into_iter().map(|answers| pass(steps, facility, self.libpam, &answers));
        let (good, bad): (Vec<_>, Vec<_>) = ways.partition(Passage::succeeds);
        if good.is_empty() { bad } else { good }
    }

    /// Findings about our line in the session stack.
    fn session(&self, manager: bool) -> Vec<Finding> {
        let steps = self.stacks.steps(Facility::Session);
        let mut findings: Vec<Finding> = Vec::new();
        let passages = self.passages(Facility::Session);
        for passage in &passages {
            let called: Vec<&Step> = passage.called(Facility::Session).iter().filter_map(|at| steps.get(*at)).collect();
            for finding in self.order(&called, manager) {
                if !findings.contains(&finding) {
                    findings.push(finding);
                }
            }
        }
        findings.extend(self.reach(Facility::Session, &passages, Problem::Missing, "no session line calls pam_pag.so"));
        findings
    }

    /// Findings about our line in the auth stack of a screen locker.
    fn unlock(&self) -> Vec<Finding> {
        let passages = self.passages(Facility::Auth);
        let nothing = "no auth line calls pam_pag.so: unlocking the screen renews no tokens";
        let mut findings = self.reach(Facility::Auth, &passages, Problem::NoUnlock, nothing);
        let steps = self.stacks.steps(Facility::Auth);
        let early = passages.iter().find_map(|passage| {
            let called = passage.called(Facility::Auth);
            let last =
                |module: &str| called.iter().rposition(|at| steps.get(*at).is_some_and(|step| step.calls(module)));
            let (ours, krb5) = (last("pam_pag")?, last("pam_krb5")?);
            (ours < krb5).then(|| called.get(ours).and_then(|at| steps.get(*at)))?
        });
        findings.extend(early.map(|step| {
            let text = "pam_krb5.so stands after pam_pag.so, which finds the old ticket when a screen is unlocked";
            self.wrong(Problem::BeforeKerberos, format!("{}: {text}", step.place()), Cure::Line(Facility::Auth))
        }));
        findings
    }

    /// Findings about lines of ours that libpam does not reach.
    fn reach(&self, facility: Facility, passages: &[Passage], none: Problem, text: &str) -> Vec<Finding> {
        let steps = self.stacks.steps(facility);
        let ours: Vec<usize> = steps.iter().enumerate().filter(|(_, step)| is_ours(step)).map(|(at, _)| at).collect();
        let misses = |passage: &&Passage| !ours.iter().any(|at| passage.called(facility).contains(at));
        let missing: Vec<&Passage> = passages.iter().filter(misses).collect();
        let Some(passage) = missing.first() else { return Vec::new() };
        if ours.is_empty() {
            return vec![self.wrong(none, text.to_owned(), Cure::Line(facility))];
        }
        let reached_at_times = missing.len() < passages.len();
        let lines = ours.iter().filter_map(|at| {
            let step = steps.get(*at)?;
            let last = passage.called(facility).iter().rfind(|called| *called < at);
            let before = last.and_then(|at| steps.get(*at)).map_or_else(|| "libpam".to_owned(), described);
            let (place, facility) = (step.place(), facility.name());
            Some(match reached_at_times {
                true => format!("{place}: whether this {facility} line of pam_pag.so is reached depends on {before}"),
                false => format!(
                    "{place}: this {facility} line of pam_pag.so is never reached: {before} ends the stack or jumps \
                     over it; the line belongs before that one"
                ),
            })
        });
        let finding = |text| match reached_at_times {
            true => Finding::note(Problem::NotReached, Some(self.service), text),
            false => self.wrong(Problem::NotReached, text, Cure::Line(facility)),
        };
        lines.map(finding).collect()
    }

    /// The order check: where pam_pag stands among the modules that a session calls. None where it is not among them.
    fn order(&self, called: &[&Step], manager: bool) -> Vec<Finding> {
        let places = |module: &'static str| {
            let each = called.iter().enumerate();
            each.filter(move |(_, step)| step.calls(module)).map(|(at, _)| at)
        };
        let wrong = |problem, at: usize, text: &str| {
            let place = called.get(at).map(|step| step.place()).unwrap_or_default();
            self.wrong(problem, format!("{place}: {text}"), Cure::Line(Facility::Session))
        };
        let systemd = places("pam_systemd").next().filter(|_| !manager);
        // Without `force` pam_keyinit keeps a ring that is there (pam_keyinit.c, `do_keyinit`); of several with it the
        // first one acts and the others see that it did.
        let forced = places("pam_keyinit").find(|at| called.get(*at).is_some_and(|step| step.entry.has_arg("force")));
        let early = |module| places(module).filter(|at| systemd.is_none_or(|systemd| *at < systemd)).max();
        let after = [forced, early("pam_keyinit"), early("pam_krb5")].into_iter().flatten().max();
        let fits = |at: usize| after.is_none_or(|after| after < at) && systemd.is_none_or(|systemd| at < systemd);
        let mut lasting = places("pam_pag").filter(|at| forced.is_none_or(|forced| forced < *at));
        let best = lasting.clone().find(|at| fits(*at)).or_else(|| lasting.next_back());
        let Some(at) = best else {
            let undone =
                "pam_keyinit.so force stands after pam_pag.so and replaces its ring; pam_pag.so must come after it";
            return places("pam_pag")
                .next_back()
                .map(|at| wrong(Problem::UndoneByKeyinit, at, undone))
                .into_iter()
                .collect();
        };
        let mut findings = Vec::new();
        if places("pam_krb5").any(|krb5| at < krb5 && after.is_some_and(|after| krb5 <= after)) {
            let text = "pam_krb5.so stands after pam_pag.so, which finds no tickets; pam_pag.so must come after it";
            findings.push(wrong(Problem::BeforeKerberos, at, text));
        }
        if let Some(systemd) = systemd.filter(|systemd| *systemd < at) {
            let text = "pam_systemd.so stands before pam_pag.so: the user manager starts without this login's tokens";
            let no_better_place = after.is_some_and(|after| systemd < after);
            let level = if no_better_place { Level::Note } else { Level::Wrong };
            findings.push(Finding { level, ..wrong(Problem::AfterSystemd, at, text) });
        }
        findings
    }
}

/// A line of a stack, for people.
fn described(step: &Step) -> String {
    let target = step.entry.target.as_deref().unwrap_or_default();
    format!("{} ({} {target})", step.place(), step.entry.control_as_written())
}

/// How another module does the work of ours.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rival<'a> {
    /// `enable` puts pam_pag in its place: the options have the same names.
    Replaceable,
    /// All of it does.
    Module,
    /// It does with this option.
    Option(&'a str),
}

/// Whether a line calls another module that makes PAGs or gets tokens.
pub(crate) fn rival(entry: &Entry) -> Option<Rival<'_>> {
    match entry.module() {
        "pam_afs_session" => Some(Rival::Replaceable),
        "pam_kafs_session" | "pam_openafs_session" | "pam_krb5afs" | "pam_newpag" | "pam_afs" | "pam_afs2" => {
            Some(Rival::Module)
        }
        // Red Hat's; the module of the same name in Debian has no such options.
        "pam_krb5" if !entry.has_arg("ignore_afs") => {
            let afs = |arg: &&String| {
                let name = arg.split('=').next().unwrap_or_default();
                ["afs_cells", "tokens", "null_afs", "token_strategy"].contains(&name)
            };
            entry.args.iter().find(afs).map(|option| Rival::Option(option))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn findings(seat: Seat, text: &str) -> Vec<Finding> {
        let files = BTreeMap::from([("/etc/pam.d/x", text)]);
        judge("x", Some(seat), &Stacks::of(&files, "/etc/pam.d/x"), Libpam::NEWEST)
    }

    fn problems(seat: Seat, text: &str) -> Vec<(Level, Problem)> {
        findings(seat, text).into_iter().map(|f| (f.level, f.problem)).collect()
    }

    #[test]
    fn the_order_is_judged_as_the_modules_behave() {
        use Level::{Note, Wrong};
        let keyinit = "session optional pam_keyinit.so force revoke\n";
        let gentle = "session optional pam_keyinit.so revoke\n";
        let systemd = "-session optional pam_systemd.so\n";
        let krb5 = "session optional pam_krb5.so\n";
        let pag = "-session optional pam_pag.so\n";
        for (seat, lines, expected) in [
            (Seat::Login, vec![keyinit, krb5, pag, systemd], vec![]),
            (Seat::Login, vec![keyinit, krb5, systemd], vec![(Wrong, Problem::Missing)]),
            (Seat::Login, vec![pag, keyinit], vec![(Wrong, Problem::UndoneByKeyinit)]),
            (Seat::Login, vec![pag, gentle], vec![]),
            (Seat::Login, vec![keyinit, pag, systemd, keyinit], vec![]),
            (Seat::Login, vec![pag, krb5, systemd], vec![(Wrong, Problem::BeforeKerberos)]),
            (Seat::Login, vec![systemd, pag], vec![(Wrong, Problem::AfterSystemd)]),
            (Seat::Login, vec![systemd, keyinit, pag], vec![(Note, Problem::AfterSystemd)]),
            (Seat::Manager, vec![pag, keyinit, systemd], vec![(Wrong, Problem::UndoneByKeyinit)]),
            (Seat::Manager, vec![pag, keyinit, systemd, pag], vec![]),
            (Seat::Unlock, vec![systemd], vec![]),
            (
                Seat::Login,
                vec!["session required pam_pag.so scope=user nopga\n"],
                vec![(Wrong, Problem::UnknownOption)],
            ),
        ] {
            assert_eq!(problems(seat, &lines.concat()), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_control_that_makes_something_of_our_answer_is_found() {
        let krb5 = "auth [success=ok default=die] pam_krb5.so\n";
        let session = "session optional pam_pag.so\n";
        for (text, what) in [
            (format!("{krb5}auth [default=done] pam_pag.so\n"), ":2: under [default=done] pam_pag.so, which answers PAM_IGNORE, denies the login"),
            ("auth required pam_krb5.so\nauth [success=ok default=bad] pam_pag.so\n".into(), ":2: under [success=ok default=bad]"),
            (format!("{krb5}auth [ignore=ok] pam_pag.so\n"), "denies the login"),
            (format!("{krb5}auth [ignore=reset] pam_pag.so\n"), "denies the login"),
            ("auth optional pam_permit.so\nauth [default=1] pam_pag.so\nauth requisite pam_deny.so\n".into(), "lets in users that no other module let in"),
            ("auth required pam_unix.so\nauth [success=1 default=ignore] pam_pag.so\nauth requisite pam_deny.so\nauth required pam_permit.so\n".into(), ":2: every login is denied"),
            ("auth [success=1 default=ignore] pam_krb5.so\nauth requisite pam_deny.so\nauth optional pam_pag.so\n".into(), ":3: every login is denied: the stack needs a success"),
        ] {
            let found = findings(Seat::Login, &format!("{text}{session}"));
            assert_eq!(found.iter().map(|f| (f.level, f.problem)).collect::<Vec<_>>(), [(Level::Wrong, Problem::Decides)], "{text}");
            assert!(found[0].text.contains(what), "{}", found[0].text);
        }
        for (text, expected) in [
            (
                "session sufficient pam_pag.so\nsession required pam_limits.so\n",
                vec![(Level::Wrong, Problem::SkipsOthers)],
            ),
            (
                "session required pam_unix.so\nsession [success=1 default=ignore] pam_pag.so\nsession required pam_limits.so\n",
                vec![(Level::Wrong, Problem::SkipsOthers)],
            ),
            (
                "session required pam_limits.so\nsession [success=die] pam_pag.so\n",
                vec![(Level::Wrong, Problem::Decides)],
            ),
            ("session required pam_limits.so\nsession sufficient pam_pag.so\n", vec![]),
            ("auth required pam_unix.so\nauth required pam_pag.so\nsession required pam_pag.so\n", vec![]),
            (
                "account [default=bad] pam_pag.so\naccount required pam_unix.so\nsession required pam_pag.so\n",
                vec![(Level::Wrong, Problem::Decides)],
            ),
        ] {
            assert_eq!(problems(Seat::Login, text), expected, "{text}");
        }
    }

    #[test]
    fn a_line_that_is_not_reached_does_not_count() {
        for before in ["session sufficient pam_permit.so\n", "session [success=1 default=ignore] pam_permit.so\n"] {
            let found = findings(
                Seat::Login,
                &format!("{before}session optional pam_pag.so\nsession required pam_limits.so\n"),
            );
            assert_eq!((found.len(), found[0].problem), (1, Problem::NotReached), "{found:?}");
            assert!(
                found[0].text.contains("/etc/pam.d/x:2: ") && found[0].text.contains("/etc/pam.d/x:1 ("),
                "{found:?}"
            );
        }
        let session = "session optional pam_pag.so\n";
        for (before, expected) in [
            ("auth sufficient pam_unix.so\n", vec![(Level::Wrong, Problem::NotReached)]),
            ("auth [success=done default=ignore] pam_unix.so\n", vec![(Level::Wrong, Problem::NotReached)]),
            ("auth include ends\n", vec![(Level::Wrong, Problem::NotReached)]),
            ("auth substack ends\n", vec![]),
            ("auth sufficient pam_rootok.so\n", vec![(Level::Note, Problem::NotReached)]),
            ("auth sufficient pam_unix.so\nauth required pam_krb5.so\n", vec![(Level::Note, Problem::NotReached)]),
            ("auth sufficient pam_unix.so\nauth sufficient pam_krb5.so\n", vec![(Level::Wrong, Problem::NotReached)]),
            ("auth required pam_unix.so\n", vec![]),
        ] {
            let text = format!("{before}auth optional pam_pag.so\nauth required pam_permit.so\n{session}");
            let files = BTreeMap::from([
                ("/etc/pam.d/x", text.as_str()),
                ("/etc/pam.d/ends", "auth sufficient pam_unix.so\nauth required pam_deny.so\n"),
            ]);
            let found = judge("x", Some(Seat::LoginAndUnlock), &Stacks::of(&files, "/etc/pam.d/x"), Libpam::NEWEST);
            assert_eq!(found.iter().map(|f| (f.level, f.problem)).collect::<Vec<_>>(), expected, "{before}");
        }
    }

    #[test]
    fn rivals_are_known_as_a_kind() {
        for (line, is_one) in [
            ("session required pam_afs_session.so", true),
            ("session required /lib/security/pam_kafs_session.so", true),
            ("auth optional pam_openafs_session.so", true),
            ("auth sufficient pam_krb5afs.so", true),
            ("session optional pam_krb5.so afs_cells=example.org", true),
            ("session optional pam_krb5.so tokens", true),
            ("session optional pam_krb5.so tokens ignore_afs", false),
            ("session optional pam_krb5.so minimum_uid=1000", false),
        ] {
            let found = problems(Seat::Login, &format!("{line}\nsession optional pam_pag.so\n"));
            assert_eq!(found.contains(&(Level::Wrong, Problem::TwoModules)), is_one, "{line}: {found:?}");
        }
    }
}
