//! How the modules of a stack may answer, and what becomes of a login then.

use super::control::{AUTH_ERR, Code, Control, IGNORE, SESSION_ERR, SUCCESS};
use super::parse::{Facility, Libpam};
use super::run::{Outcome, jump, run};
use super::stack::Step;

/// Modules that test a condition, or need a finger or a key of the user: a login may go on either way.
const CONDITIONS: [&str; 15] = [
    "pam_access",
    "pam_exec",
    "pam_fprintd",
    "pam_listfile",
    "pam_localuser",
    "pam_nologin",
    "pam_rootok",
    "pam_securetty",
    "pam_shells",
    "pam_succeed_if",
    "pam_systemd_home",
    "pam_time",
    "pam_u2f",
    "pam_usertype",
    "pam_wheel",
];
/// Modules for users that are not in the local files.
const DIRECTORIES: [&str; 4] = ["pam_krb5", "pam_ldap", "pam_sss", "pam_winbind"];
/// Each combination of so many conditions is tried; the conditions after those hold.
const COMBINED: usize = 6;
/// Each pair of so many modules is tried; the modules after those succeed.
const PAIRED: usize = 30;

/// Whether a step calls our module.
pub(crate) fn is_ours(step: &Step) -> bool {
    step.calls("pam_pag")
}

/// The answer of each step when a login begins; pam_pag's as it really is.
pub(crate) type Answers = Vec<Code>;

/// The outcome of a login's calls for one facility: pam_authenticate and pam_setcred, pam_open_session and
/// pam_close_session, or the one call of the other facilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passage {
    /// The first call.
    pub(crate) first: Outcome,
    /// The second call: the first decides which modules it calls.
    pub(crate) second: Option<Outcome>,
}

impl Passage {
    /// Whether the login goes on.
    pub(crate) fn succeeds(&self) -> bool {
        self.first.passes() && self.second.as_ref().is_none_or(Outcome::passes)
    }

    /// The positions of the called modules, in order, in the call for which pam_pag is there.
    pub(crate) fn called(&self, facility: Facility) -> &[usize] {
        match &self.second {
            Some(second) if facility == Facility::Auth => &second.called,
            _ => &self.first.called,
        }
    }
}

/// Runs the calls of a facility with these answers.
pub(crate) fn pass(steps: &[Step], facility: Facility, libpam: Libpam, answers: &[Code]) -> Passage {
    let given = |at: usize| answers.get(at).copied().unwrap_or(SUCCESS);
    let first = run(steps, libpam, None, &mut |at| given(at));
    let second = matches!(facility, Facility::Auth | Facility::Session).then(|| {
        run(steps, libpam, Some(&first.answers), &mut |at| match steps.get(at) {
            Some(step) if is_ours(step) => SUCCESS,
            _ => given(at),
        })
    });
    Passage { first, second }
}

fn failure(facility: Facility) -> Code {
    if facility == Facility::Session { SESSION_ERR } else { AUTH_ERR }
}

/// The answers when all goes well and all conditions hold.
fn best(steps: &[Step], facility: Facility) -> Answers {
    let answer = |step: &Step| match step {
        ours if is_ours(ours) && facility != Facility::Session => IGNORE,
        deny if deny.calls("pam_deny") => failure(facility),
        _ => SUCCESS,
    };
    steps.iter().map(answer).collect()
}

/// Chooses some of the steps.
pub(crate) type Which<'a> = &'a dyn Fn(&Step) -> bool;

fn positions(steps: &[Step], wanted: impl Fn(&Step) -> bool) -> Vec<usize> {
    steps.iter().enumerate().filter(|(_, step)| wanted(step)).map(|(at, _)| at).collect()
}

fn with(answers: &[Code], changed: &[usize], code: Code) -> Answers {
    let each = answers.iter().enumerate();
    each.map(|(at, answer)| if changed.contains(&at) { code } else { *answer }).collect()
}

/// The answers with which a login goes well: whatever can succeed does, and conditions hold or do not.
pub(crate) fn usual(steps: &[Step], facility: Facility) -> Vec<Answers> {
    let best = best(steps, facility);
    // A good login may then be one of a user that pam_unix does not know.
    let directories = steps.iter().any(|step| DIRECTORIES.contains(&step.entry.module()));
    let mut conditions =
        positions(steps, |step| CONDITIONS.contains(&step.entry.module()) || (directories && step.calls("pam_unix")));
    conditions.truncate(COMBINED);
    let combinations = 0..1_usize << conditions.len();
    let chosen = |set: usize| -> Vec<usize> {
        let each = conditions.iter().enumerate();
        each.filter(|(bit, _)| set & (1 << bit) != 0).map(|(_, at)| *at).collect()
    };
    combinations.map(|set| with(&best, &chosen(set), failure(facility))).collect()
}

/// The usual answers, and others: each module alone, each pair, and each leading part of the stack fails or answers
/// PAM_IGNORE. Steps that are `fixed` never do.
pub(crate) fn any(steps: &[Step], facility: Facility, fixed: Which<'_>) -> Vec<Answers> {
    let best = best(steps, facility);
    let others =
        positions(steps, |step| !is_ours(step) && !fixed(step) && !step.calls("pam_deny") && !step.calls("pam_permit"));
    let mut ways = usual(steps, facility);
    for code in [failure(facility), IGNORE] {
        for (index, at) in others.iter().enumerate() {
            ways.push(with(&best, &[*at], code));
            ways.push(with(&best, others.get(..=index).unwrap_or_default(), code));
            let second = others.iter().take(PAIRED).skip(index + 1).filter(|_| index < PAIRED);
            ways.extend(second.map(|second| with(&best, &[*at, *second], code)));
        }
    }
    ways
}

/// The stack with a control of one step that ignores every answer.
pub(crate) fn without(steps: &[Step], at: usize) -> Vec<Step> {
    let mut steps = steps.to_vec();
    if let Some(step) = steps.get_mut(at) {
        step.control = Control::IGNORE;
    }
    steps
}

/// Whether a new stack can take the place of an old one in which a step always answers PAM_SUCCESS. The new one may not
/// let in a user that the old one refused. Where another module vouched for the user, and for sessions, the same modules
/// must be called in the same order, and the login must go on or fail as before. `aside` names the steps of the old and of
/// the new stack that are not compared.
pub(crate) fn can_replace(
    old: &[Step],
    new: &[Step],
    facility: Facility,
    libpam: Libpam,
    aside: (Which<'_>, Which<'_>),
) -> bool {
    let others = |steps: &[Step], aside: Which<'_>| positions(steps, |step| !aside(step));
    let (in_old, in_new) = (others(old, aside.0), others(new, aside.1));
    if in_old.len() != in_new.len() {
        return false;
    }
    let seen = |passage: &Passage, others: &[usize]| -> Vec<Vec<usize>> {
        let rank = |at: &usize| others.iter().position(|other| other == at);
        let calls = [Some(&passage.first), passage.second.as_ref()].into_iter().flatten();
        calls.map(|outcome| outcome.called.iter().filter_map(rank).collect()).collect()
    };
    any(old, facility, aside.0).into_iter().all(|answers| {
        let mut theirs = best(new, facility);
        for (from, to) in in_old.iter().zip(&in_new) {
            if let (Some(answer), Some(slot)) = (answers.get(*from), theirs.get_mut(*to)) {
                *slot = *answer;
            }
        }
        let (was, is) = (pass(old, facility, libpam, &answers), pass(new, facility, libpam, &theirs));
        let vouches = |at: &usize| {
            let succeeds = answers.get(*at) == Some(&SUCCESS) && in_old.contains(at);
            succeeds && old.get(*at).is_some_and(|step| !step.calls("pam_permit"))
        };
        let vouched = facility == Facility::Session || was.first.called.iter().any(vouches);
        match (was.succeeds(), vouched) {
            (true, false) => true,
            (succeeded, _) => succeeded == is.succeeds() && seen(&was, &in_old) == seen(&is, &in_new),
        }
    })
}

/// Where each jump of a stack lands. Steps of pam_pag do not count, neither as jumps nor as places to land.
pub(crate) fn landings(steps: &[Step]) -> Vec<(usize, u32, Option<usize>)> {
    let others = positions(steps, |step| !is_ours(step));
    let rank = |from: usize| others.iter().position(|at| *at >= from).unwrap_or(others.len());
    let mut landings = Vec::new();
    for (from, at) in others.iter().enumerate() {
        let jumps = steps.get(*at).into_iter().flat_map(|step| step.control.jumps());
        landings.extend(jumps.map(|far| match jump(steps, *at, far) {
            (last, 0) => (from, far, Some(rank(last + 1))),
            _ => (from, far, None),
        }));
    }
    landings.dedup();
    landings
}
