//! What libpam does with a stack: which modules it calls in what order, and what it answers.
//!
//! Read in pam_dispatch.c (`_pam_dispatch_aux`) of Linux-PAM 1.5.2 and 1.7.0 with Debian's patches.

use super::control::{Action, Code, IGNORE, PERM_DENIED, SUCCESS};
use super::parse::Libpam;
use super::stack::{Call, DEPTH, Step};

/// The outcome of running a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Positions of the modules that were called, in this order.
    pub(crate) called: Vec<usize>,
    /// libpam's answer.
    pub(crate) result: Code,
    /// The answer of each step: libpam keeps it for pam_setcred and pam_close_session.
    pub(crate) answers: Vec<Option<Code>>,
}

impl Outcome {
    /// Whether the application lets the user in.
    pub(crate) fn passes(&self) -> bool {
        self.result == SUCCESS
    }
}

/// The stack's result so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Impression {
    Undefined,
    Positive,
    Negative,
}

/// libpam's mark for a step that it has not called yet.
const NEVER: Code = -1;

/// Runs a stack with these answers of its modules.
///
/// For pam_setcred and pam_close_session `frozen` holds the answers of pam_authenticate and pam_open_session. These decide
/// which modules are called; the new answers decide the result, and the way on from a step that was not called before.
pub(crate) fn run(
    steps: &[Step],
    libpam: Libpam,
    frozen: Option<&[Option<Code>]>,
    answer: &mut dyn FnMut(usize) -> Code,
) -> Outcome {
    let mut outcome = Outcome { called: Vec::new(), result: PERM_DENIED, answers: vec![None; steps.len()] };
    if steps.is_empty() {
        return outcome;
    }
    let (mut impression, mut status) = (Impression::Undefined, PERM_DENIED);
    // Both as they were when each substack began.
    let mut before = [(impression, status); DEPTH + 1];
    let mut at = 0;
    let mut last_level = 0;
    while let Some(step) = steps.get(at) {
        let level = step.level;
        if let Some(slot) = before.get_mut(level).filter(|_| last_level < level) {
            *slot = (impression, status);
        }
        last_level = level;
        let mut answered = match step.call {
            Call::Substack => {
                at += 1;
                continue;
            }
            Call::MustFail => PERM_DENIED,
            Call::Module => {
                outcome.called.push(at);
                answer(at)
            }
        };
        if let Some(slot) = outcome.answers.get_mut(at) {
            *slot = Some(answered);
        }
        let deciding = frozen.and_then(|frozen| frozen.get(at).copied().flatten());
        let deciding = deciding.filter(|code| *code != NEVER).unwrap_or(answered);
        let action = step.control.action(deciding).unwrap_or_else(|| {
            answered = PERM_DENIED;
            Action::Bad
        });
        let open = impression == Impression::Undefined || (impression == Impression::Positive && status == SUCCESS);
        // In a frozen run PAM_IGNORE counts only where the first answer was PAM_IGNORE, too.
        let counts = answered != IGNORE || deciding == answered;
        let mut ended = false;
        match action {
            Action::Ignore => {}
            Action::Reset => (impression, status) = before.get(level).copied().unwrap_or((impression, status)),
            Action::Ok | Action::Done => {
                if open && counts {
                    (impression, status) = (Impression::Positive, answered);
                }
                ended = action == Action::Done && impression == Impression::Positive;
            }
            Action::Bad | Action::Die => {
                if impression != Impression::Negative {
                    (impression, status) =
                        (Impression::Negative, if answered == IGNORE { PERM_DENIED } else { answered });
                }
                ended = action == Action::Die;
            }
            Action::Jump(far) => {
                if frozen.is_some() && !libpam.debian && open && counts {
                    (impression, status) = (Impression::Positive, answered);
                }
                let (last, missing) = jump(steps, at, far);
                at = last;
                if missing > 0 {
                    (impression, status) = (Impression::Negative, PERM_DENIED);
                }
            }
        }
        if ended {
            while steps.get(at + 1).is_some_and(|next| next.level >= level) {
                at += 1;
            }
        }
        at += 1;
    }
    outcome.result = if status == SUCCESS && impression != Impression::Positive { PERM_DENIED } else { status };
    outcome
}

/// Jumps over so many steps; a substack is one step. Returns the last of them, and how many steps the stack is short of.
pub(crate) fn jump(steps: &[Step], from: usize, mut far: u32) -> (usize, u32) {
    let level = steps.get(from).map_or(0, |step| step.level);
    let next = |at: usize| steps.get(at + 1).map(|step| step.level);
    let mut at = from;
    while far > 0 && next(at).is_some_and(|next| next >= level) {
        at += 1;
        while next(at).is_some_and(|next| next > level) {
            at += 1;
        }
        far -= 1;
    }
    (at, far)
}
