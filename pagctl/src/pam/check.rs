//! What is right and wrong about a service's stack: pure functions from stacks to findings.
//!
//! The order that matters (design page, section 4): after pam_keyinit, which would replace our ring; after pam_krb5,
//! which brings the ccache; before pam_systemd, which starts the user manager. pam_sss has its ccache already from
//! authentication, so its place does not matter.

use pag::config::{OPTIONS, Where};
use serde::Serialize;

use super::stack::Stack;

/// What a service is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lets people in.
    Login,
    /// Lets people in, and unlocks their screens by authenticating again: setcred goes through the auth stack.
    Unlocking,
    /// `systemd --user`.
    Manager,
}

/// The services that need us. Greeters are left out: they are nobody's login.
pub(crate) const SERVICES: [(&str, Kind); 36] = [
    ("sshd", Kind::Login),
    ("dropbear", Kind::Login),
    ("login", Kind::Login),
    ("remote", Kind::Login),
    ("rlogin", Kind::Login),
    ("rsh", Kind::Login),
    ("su-l", Kind::Login),
    ("runuser-l", Kind::Login),
    ("systemd-run0", Kind::Login),
    ("gdm", Kind::Login),
    ("gdm3", Kind::Login),
    ("gdm-password", Kind::Unlocking),
    ("gdm-fingerprint", Kind::Unlocking),
    ("gdm-smartcard", Kind::Unlocking),
    ("gdm-smartcard-pkcs11-exclusive", Kind::Unlocking),
    ("gdm-smartcard-sssd-exclusive", Kind::Unlocking),
    ("gdm-smartcard-sssd-or-password", Kind::Unlocking),
    ("gdm-autologin", Kind::Login),
    ("lightdm", Kind::Unlocking),
    ("lightdm-autologin", Kind::Login),
    ("sddm", Kind::Login),
    ("sddm-autologin", Kind::Login),
    ("plasmalogin", Kind::Login),
    ("plasmalogin-autologin", Kind::Login),
    ("kde", Kind::Unlocking),
    ("greetd", Kind::Login),
    ("cosmic-greeter", Kind::Unlocking),
    ("ly", Kind::Login),
    ("lemurs", Kind::Login),
    ("lxdm", Kind::Login),
    ("slim", Kind::Login),
    ("wdm", Kind::Login),
    ("xdm", Kind::Login),
    ("xrdp-sesman", Kind::Login),
    ("cockpit", Kind::Login),
    ("systemd-user", Kind::Manager),
];

/// Whether something is to be done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Good to know.
    Note,
    /// Logins or user services are outside their PAG, or may be.
    Wrong,
}

/// What a finding is about; scripts may rely on these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Problem {
    /// No line of ours.
    Missing,
    /// pam_keyinit stands after our line and replaces the ring.
    UndoneByKeyinit,
    /// pam_krb5 stands after our line.
    BeforeKerberos,
    /// pam_systemd stands before our line.
    AfterSystemd,
    /// No line in the auth stack of something that unlocks screens.
    NoUnlock,
    /// An argument that pam_pag does not know.
    UnknownOption,
    /// pam_afs_session makes PAGs, too.
    TwoModules,
    /// A line or an include that could not be followed.
    NotUnderstood,
    /// The module's file is not there.
    NoModule,
    /// The handle group is not there, or has members.
    HandleGroup,
    /// A file that is not ours to change.
    LeftAlone,
}

/// One thing that the tool noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Whether something is to be done.
    pub(crate) level: Level,
    /// What it is about.
    pub(crate) problem: Problem,
    /// The PAM service, where it is about one.
    pub(crate) service: Option<String>,
    /// In words.
    pub(crate) text: String,
}

impl Finding {
    /// Something to be done.
    pub(crate) fn wrong(problem: Problem, service: Option<&str>, text: impl Into<String>) -> Self {
        Self { level: Level::Wrong, problem, service: service.map(Into::into), text: text.into() }
    }

    /// Good to know.
    pub(crate) fn note(problem: Problem, service: Option<&str>, text: impl Into<String>) -> Self {
        Self { level: Level::Note, ..Self::wrong(problem, service, text) }
    }

    /// Whether an edit of ours can mend it.
    pub(crate) fn placement(&self) -> bool {
        use Problem::{AfterSystemd, BeforeKerberos, Missing, NoUnlock, UndoneByKeyinit};
        self.level == Level::Wrong
            && matches!(self.problem, Missing | UndoneByKeyinit | BeforeKerberos | AfterSystemd | NoUnlock)
    }
}

/// Where in a session stack our line belongs: positions of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// It must come after this step.
    pub(crate) after: Option<usize>,
    /// It should come before this one.
    pub(crate) before: Option<usize>,
}

impl Window {
    /// Whether the order of the other modules leaves it no place.
    pub(crate) fn closed(self) -> bool {
        self.before.is_some_and(|before| self.after.is_some_and(|after| before < after))
    }

    fn holds(self, at: usize) -> bool {
        self.after.is_none_or(|after| after < at) && self.before.is_none_or(|before| at < before)
    }
}

/// The window that a stack's other modules leave.
pub(crate) fn window(stack: &Stack, kind: Kind) -> Window {
    let before = match kind {
        Kind::Manager => None,
        Kind::Login | Kind::Unlocking => stack.calls("pam_systemd").map(|(at, _)| at).next(),
    };
    // Without `force` pam_keyinit keeps a ring that is there (pam_keyinit.c, `do_keyinit`); of several with it the first
    // one acts and the others see that it did.
    let forced = stack.calls("pam_keyinit").find(|(_, step)| step.entry.has_arg("force")).map(|(at, _)| at);
    let early = |module| stack.calls(module).map(|(at, _)| at).filter(|at| before.is_none_or(|b| *at < b)).max();
    let after = [forced, early("pam_keyinit"), early("pam_krb5")].into_iter().flatten().max();
    Window { after, before }
}

/// Looks at one service's session and auth stacks.
pub(crate) fn stack(service: &str, kind: Kind, session: &Stack, auth: &Stack) -> Vec<Finding> {
    let mut findings = Vec::new();
    let wrong = |problem, text: &str| Finding::wrong(problem, Some(service), text);
    let window = window(session, kind);
    let forced = session.calls("pam_keyinit").find(|(_, step)| step.entry.has_arg("force")).map(|(at, _)| at);
    let ours: Vec<usize> = session.calls("pam_pag").map(|(at, _)| at).collect();
    let mut lasting = ours.iter().copied().filter(|at| forced.is_none_or(|forced| forced < *at));
    match lasting.clone().find(|at| window.holds(*at)).or_else(|| lasting.next_back()) {
        None if ours.is_empty() => findings.push(wrong(Problem::Missing, "no session line calls pam_pag.so")),
        None => findings.push(wrong(
            Problem::UndoneByKeyinit,
            "pam_keyinit.so force stands after pam_pag.so and replaces its ring; pam_pag.so must come after it",
        )),
        Some(at) => {
            if session.calls("pam_krb5").any(|(krb5, _)| at < krb5 && window.after.is_some_and(|after| krb5 <= after)) {
                findings.push(wrong(
                    Problem::BeforeKerberos,
                    "pam_krb5.so stands after pam_pag.so, which finds no tickets; pam_pag.so must come after it",
                ));
            }
            if window.before.is_some_and(|systemd| systemd < at) {
                let level = if window.closed() { Level::Note } else { Level::Wrong };
                let text =
                    "pam_systemd.so stands before pam_pag.so: the user manager starts without this login's tokens";
                findings.push(Finding { level, ..wrong(Problem::AfterSystemd, text) });
            }
        }
    }
    if kind == Kind::Unlocking && auth.calls("pam_pag").next().is_none() && !auth.steps.is_empty() {
        findings.push(wrong(Problem::NoUnlock, "no auth line calls pam_pag.so: unlocking the screen renews no tokens"));
    }
    for (_, step) in session.calls("pam_pag").chain(auth.calls("pam_pag")) {
        for arg in &step.entry.args {
            let name = arg.split('=').next().unwrap_or_default();
            if !OPTIONS.iter().any(|option| option.stands == Where::Anywhere && option.name == name) {
                let text = format!("{}: pam_pag.so has no option {arg:?}", step.path);
                findings.push(wrong(Problem::UnknownOption, &text));
            }
        }
    }
    if let Some((_, step)) = session.calls("pam_afs_session").chain(auth.calls("pam_afs_session")).next() {
        let text = format!("{}: pam_afs_session.so makes PAGs beside pam_pag.so; take one of them out", step.path);
        findings.push(wrong(Problem::TwoModules, &text));
    }
    for trouble in session.trouble.iter().chain(&auth.trouble) {
        findings.push(Finding::note(Problem::NotUnderstood, Some(service), trouble));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::parse::Facility;
    use super::super::stack::resolve;
    use super::*;
    use std::collections::BTreeMap;

    fn problems(kind: Kind, session: &str) -> Vec<(Level, Problem)> {
        let files = BTreeMap::from([("/etc/pam.d/x", session)]);
        let session = resolve(&files, "/etc/pam.d/x", Facility::Session);
        stack("x", kind, &session, &Stack::default()).into_iter().map(|f| (f.level, f.problem)).collect()
    }

    #[test]
    fn the_order_is_judged_as_the_modules_behave() {
        use Level::{Note, Wrong};
        let keyinit = "session optional pam_keyinit.so force revoke\n";
        let gentle = "session optional pam_keyinit.so revoke\n";
        let systemd = "-session optional pam_systemd.so\n";
        let krb5 = "session optional pam_krb5.so\n";
        let pag = "-session optional pam_pag.so\n";
        for (kind, lines, expected) in [
            (Kind::Login, vec![keyinit, krb5, pag, systemd], vec![]),
            (Kind::Login, vec![keyinit, krb5, systemd], vec![(Wrong, Problem::Missing)]),
            (Kind::Login, vec![pag, keyinit], vec![(Wrong, Problem::UndoneByKeyinit)]),
            (Kind::Login, vec![pag, gentle], vec![]),
            (Kind::Login, vec![keyinit, pag, systemd, keyinit], vec![]),
            (Kind::Login, vec![pag, krb5, systemd], vec![(Wrong, Problem::BeforeKerberos)]),
            (Kind::Login, vec![systemd, pag], vec![(Wrong, Problem::AfterSystemd)]),
            (Kind::Login, vec![systemd, keyinit, pag], vec![(Note, Problem::AfterSystemd)]),
            (Kind::Manager, vec![pag, keyinit, systemd], vec![(Wrong, Problem::UndoneByKeyinit)]),
            (Kind::Manager, vec![pag, keyinit, systemd, pag], vec![]),
            (Kind::Login, vec!["session required pam_afs_session.so\n", pag], vec![(Wrong, Problem::TwoModules)]),
            (
                Kind::Login,
                vec!["session required pam_pag.so scope=user nopga\n"],
                vec![(Wrong, Problem::UnknownOption)],
            ),
        ] {
            assert_eq!(problems(kind, &lines.concat()), expected, "{lines:?}");
        }
    }
}
