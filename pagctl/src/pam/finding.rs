//! What the tool finds about a stack or a host, and what `enable` can do about it.

use serde::Serialize;

use super::parse::Facility;

/// Whether something is to be done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Good to know.
    Note,
    /// Logins are or may be denied, or logins or user services are or may be outside of their PAG.
    Wrong,
}

/// What a finding is about; scripts may rely on these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Problem {
    /// The control of our line denies logins, or lets in users that the other modules don't let in.
    Decides,
    /// The control of our line keeps other modules from being called.
    SkipsOthers,
    /// No line of ours.
    Missing,
    /// A line of ours that libpam does not reach.
    NotReached,
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
    /// Another module makes PAGs or gets tokens, too.
    TwoModules,
    /// A line, a file or an include that could not be followed.
    NotUnderstood,
    /// A service that the tool does not know.
    UnknownService,
    /// The module's file is not there.
    NoModule,
    /// The handle group is not there, or has members.
    HandleGroup,
    /// A file that pagctl must not change.
    LeftAlone,
}

/// What an edit can do about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cure {
    /// Nothing.
    None,
    /// Another line in the place of one that is there.
    Rewrite,
    /// A line of ours for this facility.
    Line(Facility),
}

/// One finding.
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
    /// What `enable` does about it.
    #[serde(skip)]
    pub(crate) cure: Cure,
}

impl Finding {
    /// Something to be done.
    pub(crate) fn wrong(problem: Problem, service: Option<&str>, text: impl Into<String>) -> Self {
        let (service, text) = (service.map(Into::into), text.into());
        Self { level: Level::Wrong, problem, service, text, cure: Cure::None }
    }

    /// Good to know.
    pub(crate) fn note(problem: Problem, service: Option<&str>, text: impl Into<String>) -> Self {
        Self { level: Level::Note, ..Self::wrong(problem, service, text) }
    }

    /// Whether an edit of ours may mend it.
    pub(crate) fn curable(&self) -> bool {
        self.level == Level::Wrong && self.cure != Cure::None
    }
}
