//! The control of a line: what libpam does about each answer of the module (pam_misc.c, `_pam_parse_control`, and the
//! words that pam_handlers.c, `_pam_parse_conf_file`, knows).

/// The answers of modules, by their numbers (pam_tokens.h).
const CODES: [&str; 32] = [
    "success",
    "open_err",
    "symbol_err",
    "service_err",
    "system_err",
    "buf_err",
    "perm_denied",
    "auth_err",
    "cred_insufficient",
    "authinfo_unavail",
    "user_unknown",
    "maxtries",
    "new_authtok_reqd",
    "acct_expired",
    "session_err",
    "cred_unavail",
    "cred_expired",
    "cred_err",
    "no_module_data",
    "conv_err",
    "authtok_err",
    "authtok_recover_err",
    "authtok_lock_busy",
    "authtok_disable_aging",
    "try_again",
    "ignore",
    "abort",
    "authtok_expired",
    "module_unknown",
    "bad_item",
    "conv_again",
    "incomplete",
];

/// An answer of a module: a number of [`CODES`], or nonsense.
pub(crate) type Code = i32;
/// PAM_SUCCESS.
pub(crate) const SUCCESS: Code = 0;
/// PAM_PERM_DENIED: libpam's own answer for a line that it cannot call.
pub(crate) const PERM_DENIED: Code = 6;
/// PAM_AUTH_ERR: a wrong password, and the answer of pam_deny.
pub(crate) const AUTH_ERR: Code = 7;
/// PAM_NEW_AUTHTOK_REQD: counts as success for `required` and its like.
const NEW_AUTHTOK_REQD: Code = 12;
/// PAM_SESSION_ERR: the session could not be set up.
pub(crate) const SESSION_ERR: Code = 14;
/// PAM_IGNORE: the answer of pam_pag wherever it has nothing to do.
pub(crate) const IGNORE: Code = 25;

/// What libpam does about an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    Ignore,
    /// The answer becomes the stack's, unless the stack has failed.
    Ok,
    /// The same, and the stack ends.
    Done,
    /// The stack has failed.
    Bad,
    /// The same, and the stack ends.
    Die,
    /// All answers of this stack are forgotten.
    Reset,
    /// libpam skips so many modules.
    Jump(u32),
}

/// The words for all actions but jumps.
const ACTIONS: [(&str, Action); 6] = [
    ("ignore", Action::Ignore),
    ("ok", Action::Ok),
    ("done", Action::Done),
    ("bad", Action::Bad),
    ("die", Action::Die),
    ("reset", Action::Reset),
];

/// What libpam does about each answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Control([Action; CODES.len()]);

impl Control {
    /// All answers are failures: a line without a control, or with one that libpam does not understand.
    pub(crate) const BAD: Self = Self([Action::Bad; CODES.len()]);
    /// No answer of the module counts.
    pub(crate) const IGNORE: Self = Self([Action::Ignore; CODES.len()]);

    /// Reads a control, without its brackets.
    pub(crate) fn of(word: &str) -> Self {
        let simple = |success, ignore, default| {
            let mut control = Self([default; CODES.len()]);
            control.set(SUCCESS, success);
            control.set(NEW_AUTHTOK_REQD, success);
            control.set(IGNORE, ignore);
            control
        };
        match word.to_ascii_lowercase().as_str() {
            "required" => simple(Action::Ok, Action::Ignore, Action::Bad),
            "requisite" => simple(Action::Ok, Action::Ignore, Action::Die),
            "optional" => simple(Action::Ok, Action::Ignore, Action::Ignore),
            "sufficient" => simple(Action::Done, Action::Ignore, Action::Ignore),
            _ => Self::parse(word).unwrap_or(Self::BAD),
        }
    }

    /// `ANSWER=ACTION ...`. libpam looks for no end of a word: `success=okdefault=die` are two of them. `default` is for
    /// what has no action so far, and what has none at the end is a failure.
    fn parse(mut rest: &str) -> Option<Self> {
        let mut actions = [None; CODES.len()];
        loop {
            rest = skip_space(rest);
            if rest.is_empty() {
                return Some(Self(actions.map(|action| action.unwrap_or(Action::Bad))));
            }
            let named = CODES.iter().enumerate().find(|(_, name)| rest.starts_with(**name));
            let (code, name) = named.map_or((None, "default"), |(code, name)| (Some(code), *name));
            let (action, after) = action(skip_space(skip_space(rest.strip_prefix(name)?).strip_prefix('=')?))?;
            rest = after;
            match code.and_then(|code| actions.get_mut(code)) {
                Some(slot) => *slot = Some(action),
                None => actions.iter_mut().for_each(|slot| *slot = slot.or(Some(action))),
            }
        }
    }

    fn set(&mut self, code: Code, action: Action) {
        if let Some(slot) = usize::try_from(code).ok().and_then(|code| self.0.get_mut(code)) {
            *slot = action;
        }
    }

    /// The action for this answer; none for a number that is no answer.
    pub(crate) fn action(&self, code: Code) -> Option<Action> {
        usize::try_from(code).ok().and_then(|code| self.0.get(code)).copied()
    }

    /// The lengths of all its jumps.
    pub(crate) fn jumps(&self) -> impl Iterator<Item = u32> {
        self.0.iter().filter_map(|action| match action {
            Action::Jump(far) => Some(*far),
            _ => None,
        })
    }
}

fn action(text: &str) -> Option<(Action, &str)> {
    if let Some((word, action)) = ACTIONS.iter().find(|(word, _)| text.starts_with(word)) {
        return Some((*action, text.get(word.len()..)?));
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = text.split_at_checked(digits)?;
    // Larger numbers are errors since 1.6.0. A jump of 0 is always one.
    let far: i32 = number.parse().ok()?;
    Some((Action::Jump(u32::try_from(far).ok().filter(|far| *far > 0)?), rest))
}

/// C's isspace.
fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r'])
}

/// The name of an answer, as pam(3) has it.
pub(crate) fn name(code: Code) -> String {
    let known = usize::try_from(code).ok().and_then(|code| CODES.get(code));
    known.map_or_else(|| code.to_string(), |name| format!("PAM_{}", name.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_read_as_libpam_reads_them() {
        let action = |word: &str, code| Control::of(word).action(code).unwrap();
        assert_eq!(action("Required", SUCCESS), Action::Ok);
        assert_eq!(action("requisite", AUTH_ERR), Action::Die);
        assert_eq!(action("success=1 default=ignore", SUCCESS), Action::Jump(1));
        assert_eq!(action("default=die success=ok", SUCCESS), Action::Ok);
        assert_eq!(action("default=die default=ok", AUTH_ERR), Action::Die);
        assert_eq!(action("success=okdefault = die", IGNORE), Action::Die);
        assert_eq!(action("success=ok", IGNORE), Action::Bad);
        for odd in ["success", "success=", "success=0", "success=oky", "succes=ok", "success=99999999999", "nonsense"] {
            assert_eq!(Control::of(odd), Control::BAD, "{odd}");
        }
        assert_eq!(Control::of("").action(SUCCESS), Some(Action::Bad));
        assert_eq!(Control::BAD.action(-1), None);
        assert_eq!(Control::of("success=2 ignore=3 default=bad").jumps().collect::<Vec<_>>(), [2, 3]);
    }
}
