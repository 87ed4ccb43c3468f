//! The PAM stacks: what `pagctl pam check` finds, in the doctor's words.

use super::finding::{Finding, Problem};
use super::host::{Host, Look};
use super::module;
use crate::output::Severity;
use crate::pam;

/// The doctor's problem of the same word. Another one is left to the subjects that look for it themselves.
fn problem(of_stack: pam::Problem) -> Option<Problem> {
    Some(match of_stack {
        pam::Problem::Decides => Problem::PamDecides,
        pam::Problem::SkipsOthers => Problem::PamSkipsOthers,
        pam::Problem::Missing => Problem::PamMissing,
        pam::Problem::NotReached => Problem::PamNotReached,
        pam::Problem::UndoneByKeyinit => Problem::PamUndoneByKeyinit,
        pam::Problem::BeforeKerberos => Problem::PamBeforeKerberos,
        pam::Problem::AfterSystemd => Problem::PamAfterSystemd,
        pam::Problem::TwoModules => Problem::PamTwoModules,
        pam::Problem::NoUnlock => Problem::PamNoUnlock,
        pam::Problem::UnknownOption => Problem::PamUnknownOption,
        pam::Problem::NotUnderstood => Problem::PamNotUnderstood,
        pam::Problem::UnknownService => Problem::PamUnknownService,
        // `module` and `group` look at these, and `pam enable` alone leaves a file.
        pam::Problem::ModuleMissing
        | pam::Problem::GroupMissing
        | pam::Problem::GroupHasMembers
        | pam::Problem::GroupIsPrimary
        | pam::Problem::LeftAlone => return None,
    })
}

pub(super) fn check(host: &Host, look: &mut Look) {
    let (all_right, findings) = match pam::survey(&host.root) {
        Ok(found) => found,
        Err(error) => {
            look.left_out(format!("the PAM stacks: {error}"));
            return;
        }
    };
    if !module::is_named(host) {
        let what = "no PAM stack calls pam_pag";
        let why = "no login and no user manager gets into a PAG";
        look.found(Finding::error(Problem::PamNotEnabled, what, why).mend("pagctl pam enable"));
        return;
    }
    let mut told: Vec<&str> = Vec::new();
    for finding in &findings {
        let Some(problem) = problem(finding.problem) else { continue };
        // A finding about a shared file is told once, with all services.
        if told.contains(&finding.text.as_str()) {
            continue;
        }
        told.push(&finding.text);
        let services =
            findings.iter().filter(|other| other.text == finding.text).filter_map(|one| one.service.as_deref());
        let services = services.collect::<Vec<_>>().join(", ");
        let what = if services.is_empty() { finding.text.clone() } else { format!("{services}: {}", finding.text) };
        let command = if finding.curable() { "pagctl pam enable" } else { "pagctl pam check" };
        let why = finding.problem.why();
        let told = match finding.severity() {
            Severity::Error => Finding::error(problem, what, why),
            Severity::Warning => Finding::warning(problem, what, why),
            Severity::Info | Severity::Ok => Finding::info(problem, what, why),
        };
        look.found(told.mend(command));
    }
    if !all_right.is_empty() {
        look.fine(format!("these PAM services call pam_pag as they should: {}", all_right.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{Machine, ids};

    #[test]
    fn a_problem_has_the_same_word_in_pam_check() {
        for of_stack in pam::PROBLEMS {
            if let Some(problem) = problem(of_stack) {
                assert_eq!(of_stack.id(), problem.id());
            }
        }
        let others = [Problem::ModuleMissing, Problem::GroupMissing, Problem::GroupHasMembers, Problem::GroupIsPrimary];
        for (other, of_stack) in others.into_iter().zip(&pam::PROBLEMS[12..]) {
            assert_eq!(other.id(), of_stack.id());
        }
    }

    #[test]
    fn what_pam_check_finds_the_doctor_tells() {
        assert_eq!(ids(&Machine::healthy().look(check)), []);
        let manager = "session required pam_keyinit.so force revoke\nsession optional pam_pag.so\n";
        let file = "/etc/pam.d/systemd-user";
        let with = |text: &str| ids(&Machine::healthy().file(file, text).look(check));
        assert_eq!(with(manager), []);
        assert_eq!(with("session required pam_unix.so\n"), [Problem::PamMissing]);
        let wrong = "session optional pam_pag.so\nsession required pam_keyinit.so force revoke\n";
        assert_eq!(with(wrong), [Problem::PamUndoneByKeyinit]);
        assert_eq!(with(&format!("session sufficient pam_permit.so\n{manager}")), [Problem::PamNotReached]);
        let none = Machine::healthy().file(file, "").file("/etc/pam.d/sshd", "session required pam_unix.so\n");
        assert_eq!(ids(&none.look(check)), [Problem::PamNotEnabled]);
    }
}
