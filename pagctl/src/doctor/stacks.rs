//! The PAM stacks: what `pagctl pam check` finds, in the doctor's words.

use super::finding::{Finding, Problem, Severity};
use super::host::{Host, Look};
use super::module;
use crate::pam;

/// What an earlier check calls its problem, here.
fn problem(of_stack: pam::Problem) -> Option<(Problem, Severity)> {
    let (problem, severity) = match of_stack {
        pam::Problem::Decides => (Problem::PamDecides, Severity::Error),
        pam::Problem::SkipsOthers => (Problem::PamSkipsOthers, Severity::Error),
        pam::Problem::Missing => (Problem::PamMissing, Severity::Error),
        pam::Problem::NotReached => (Problem::PamNotReached, Severity::Error),
        pam::Problem::UndoneByKeyinit => (Problem::PamUndoneByKeyinit, Severity::Error),
        pam::Problem::BeforeKerberos => (Problem::PamBeforeKerberos, Severity::Error),
        pam::Problem::AfterSystemd => (Problem::PamAfterSystemd, Severity::Error),
        pam::Problem::TwoModules => (Problem::PamTwoModules, Severity::Error),
        pam::Problem::NoUnlock => (Problem::PamNoUnlock, Severity::Warning),
        pam::Problem::UnknownOption => (Problem::PamUnknownOption, Severity::Warning),
        pam::Problem::NotUnderstood | pam::Problem::LeftAlone => (Problem::PamNotUnderstood, Severity::Warning),
        pam::Problem::UnknownService => (Problem::PamUnknownService, Severity::Info),
        // The subjects `module` and `group` look at these.
        pam::Problem::NoModule | pam::Problem::HandleGroup => return None,
    };
    Some((problem, severity))
}

fn why(problem: Problem) -> &'static str {
    match problem {
        Problem::PamDecides => "the line decides who may log in, which is no matter of pam_pag",
        Problem::PamSkipsOthers => "other modules of the stack are not called",
        Problem::PamMissing => "what this service starts is in no PAG and has no tokens",
        Problem::PamNotReached => "libpam never calls the line, so this service is in no PAG",
        Problem::PamUndoneByKeyinit => "the PAG's ring is replaced by another keyring",
        Problem::PamBeforeKerberos => "the login's ticket is not there yet, so the PAG gets no tokens",
        Problem::PamAfterSystemd => "the user manager starts before this login's tokens are there",
        Problem::PamTwoModules => "two modules make PAGs, and the last one wins",
        Problem::PamNoUnlock => "when a screen is unlocked, tokens are not renewed",
        Problem::PamUnknownOption => "the option has no effect",
        Problem::PamUnknownService => "whether it needs a line cannot be told",
        _ => "what the stack does is not certain",
    }
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
        let Some((problem, severity)) = problem(finding.problem) else { continue };
        // A finding about a shared file is told once, with all services.
        if told.contains(&finding.text.as_str()) {
            continue;
        }
        told.push(&finding.text);
        let services =
            findings.iter().filter(|other| other.text == finding.text).filter_map(|one| one.service.as_deref());
        let services = services.collect::<Vec<_>>().join(", ");
        let what = if services.is_empty() { finding.text.clone() } else { format!("{services}: {}", finding.text) };
        let severity = if finding.level == pam::Level::Note { Severity::Info } else { severity };
        let command = if finding.curable() { "pagctl pam enable" } else { "pagctl pam check" };
        let told = match severity {
            Severity::Error => Finding::error(problem, what, why(problem)),
            Severity::Warning => Finding::warning(problem, what, why(problem)),
            Severity::Info | Severity::Ok => Finding::info(problem, what, why(problem)),
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
