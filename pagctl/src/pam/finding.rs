//! What the tool finds about a stack or a host, and what `enable` can do about it.

use serde::Serialize;

use super::parse::Facility;
use crate::output::{FindingJson, Severity};

/// Whether something is to be done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Good to know.
    Note,
    /// Logins are or may be denied, or logins or user services are or may be outside of their PAG.
    Wrong,
}

/// What a finding is about; scripts may rely on the words that [`Problem::id`] has for it.
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
    ModuleMissing,
    /// The handle group is not there.
    GroupMissing,
    /// The handle group has members.
    GroupHasMembers,
    /// The handle group is an account's primary group.
    GroupIsPrimary,
    /// A file that pagctl must not change.
    LeftAlone,
}

/// All of them, for tests.
#[cfg(test)]
pub(crate) const PROBLEMS: [Problem; 17] = [
    Problem::Decides,
    Problem::SkipsOthers,
    Problem::Missing,
    Problem::NotReached,
    Problem::UndoneByKeyinit,
    Problem::BeforeKerberos,
    Problem::AfterSystemd,
    Problem::NoUnlock,
    Problem::UnknownOption,
    Problem::TwoModules,
    Problem::NotUnderstood,
    Problem::UnknownService,
    Problem::ModuleMissing,
    Problem::GroupMissing,
    Problem::GroupHasMembers,
    Problem::GroupIsPrimary,
    Problem::LeftAlone,
];

impl Problem {
    /// Its word in JSON, which is the doctor's.
    pub(crate) fn id(self) -> String {
        let json = serde_json::to_value(self).ok();
        let word = json.as_ref().and_then(|word| word.as_str()).unwrap_or_default();
        match self {
            Problem::ModuleMissing | Problem::GroupMissing | Problem::GroupHasMembers | Problem::GroupIsPrimary => {
                word.to_owned()
            }
            _ => format!("pam-{word}"),
        }
    }

    /// How bad it is where something is to be done about it.
    fn severity(self) -> Severity {
        match self {
            Problem::NoUnlock
            | Problem::UnknownOption
            | Problem::NotUnderstood
            | Problem::LeftAlone
            | Problem::GroupMissing => Severity::Warning,
            Problem::UnknownService => Severity::Info,
            _ => Severity::Error,
        }
    }

    /// What comes of it.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Problem::Decides => "the line decides who may log in, which is no matter of pam_pag",
            Problem::SkipsOthers => "other modules of the stack are not called",
            Problem::Missing => "what this service starts is in no PAG and has no tokens",
            Problem::NotReached => "libpam never calls the line, so this service is in no PAG",
            Problem::UndoneByKeyinit => "the PAG's ring is replaced by another keyring",
            Problem::BeforeKerberos => "the login's ticket is not there yet, so the PAG gets no tokens",
            Problem::AfterSystemd => "the user manager starts before this login's tokens are there",
            Problem::TwoModules => "two modules make PAGs, and the last one wins",
            Problem::NoUnlock => "when a screen is unlocked, tokens are not renewed",
            Problem::UnknownOption => "the option has no effect",
            Problem::UnknownService => "whether it needs a line cannot be told",
            Problem::NotUnderstood => "what the stack does is not certain",
            Problem::ModuleMissing => "libpam passes over the lines, so logins are in no PAG",
            Problem::GroupMissing => "rings then belong to gid 0, and each process with that group can enter every PAG",
            Problem::GroupHasMembers | Problem::GroupIsPrimary => "its members can enter every PAG",
            Problem::LeftAlone => "pagctl changes no file that it could damage",
        }
    }
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
#[derive(Debug, Clone, PartialEq, Eq)]
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

    /// How bad it is. A note is good to know.
    pub(crate) fn severity(&self) -> Severity {
        if self.level == Level::Note { Severity::Info } else { self.problem.severity() }
    }

    /// Whether an edit of ours may mend it.
    pub(crate) fn curable(&self) -> bool {
        self.level == Level::Wrong && self.cure != Cure::None
    }
}

impl From<&Finding> for FindingJson {
    fn from(finding: &Finding) -> Self {
        FindingJson {
            id: finding.problem.id(),
            severity: finding.severity(),
            what: finding.text.clone(),
            why: finding.problem.why().to_owned(),
            command: finding.curable().then(|| "pagctl pam enable".to_owned()),
            service: finding.service.clone(),
            file: None,
            line: None,
            right: None,
        }
    }
}
