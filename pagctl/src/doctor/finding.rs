//! What the doctor finds: a problem with a stable name, and in words what it is, why it matters, and what mends it.

use serde::Serialize;

use crate::output::{FindingJson, Severity};

/// What a finding is about. Scripts may rely on these words. They stand in the order of cause and effect: of two problems
/// that are equally bad the earlier one is printed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Problem {
    // The kernel.
    KeyringsMissing,
    KeyQuotaFull,
    KeyQuotaLow,
    // The PAM module's file.
    ModuleMissing,
    LeftOverLines,
    ModuleNotLoadable,
    ModuleOtherVersion,
    // The group that rings belong to.
    GroupHasMembers,
    GroupIsPrimary,
    GroupMissing,
    // pag.conf.
    ConfigWrong,
    // AFS clients.
    AfsModuleNotBuilt,
    AfsModuleNotLoaded,
    AfsNotMounted,
    NoAfsClient,
    CellUnknown,
    CellWithoutServers,
    // Kerberos.
    Krb5ConfUnreadable,
    KdcUnreachable,
    ClockOff,
    ClockUnsynchronised,
    CcacheNotShared,
    // Seeders.
    SeederMissing,
    SeederNotExecutable,
    // The PAM stacks.
    SshdWithoutPam,
    PamNotEnabled,
    PamDecides,
    PamSkipsOthers,
    PamMissing,
    PamNotReached,
    PamUndoneByKeyinit,
    PamBeforeKerberos,
    PamAfterSystemd,
    PamTwoModules,
    PamNoUnlock,
    PamUnknownOption,
    PamNotUnderstood,
    PamUnknownService,
    // The helper.
    HelperNotInstalled,
    UnitsNotReloaded,
    HelperMasked,
    HelperDisabled,
    HelperNotRunning,
    BusNotRunning,
    BusPolicyMissing,
    BusPolicyNotRead,
    HelperNotOnBus,
    HelperSilent,
    HelperOutdated,
    HelperOtherVersion,
    // User managers and their services.
    UnitLeavesPag,
    ManagerOutside,
    ManagerAdopted,
    ProbeFailed,
    ProbeOutside,
    // What comes of all this.
    MandatoryDenied,
    PagTrouble,
    SeederFailed,
    UserWithoutPag,
    TokensMissing,
    TokensExpired,
    // Other things.
    SshdKeepsTickets,
    ContainerEntersPags,
    /// A check did not end in time.
    NoAnswer,
}

use Problem::{
    AfsModuleNotBuilt, AfsModuleNotLoaded, AfsNotMounted, CellUnknown, CellWithoutServers, ClockOff, HelperDisabled,
    HelperMasked, HelperNotInstalled, HelperNotOnBus, HelperNotRunning, HelperSilent, KdcUnreachable, KeyQuotaFull,
    KeyringsMissing, Krb5ConfUnreadable, LeftOverLines, ManagerOutside, ModuleMissing, ModuleNotLoadable, PamDecides,
    PamMissing, PamNotEnabled, PamNotReached, PamSkipsOthers, PamUndoneByKeyinit, ProbeFailed, ProbeOutside,
    SeederFailed, SeederMissing, SeederNotExecutable, SshdWithoutPam, TokensExpired, TokensMissing, UserWithoutPag,
};

/// What keeps a login or a manager from its PAG.
const NO_PAG: [Problem; 12] = [
    KeyringsMissing,
    KeyQuotaFull,
    ModuleMissing,
    LeftOverLines,
    ModuleNotLoadable,
    SshdWithoutPam,
    PamNotEnabled,
    PamDecides,
    PamSkipsOthers,
    PamMissing,
    PamNotReached,
    PamUndoneByKeyinit,
];
/// What keeps a seeder from getting tokens.
const NO_TOKENS: [Problem; 10] = [
    KeyQuotaFull,
    AfsModuleNotBuilt,
    AfsModuleNotLoaded,
    AfsNotMounted,
    CellUnknown,
    Krb5ConfUnreadable,
    KdcUnreachable,
    ClockOff,
    SeederMissing,
    SeederNotExecutable,
];
/// What keeps the helper from renewing tokens.
const NO_RENEWAL: [Problem; 5] = [HelperNotInstalled, HelperMasked, HelperDisabled, HelperNotRunning, HelperSilent];

impl Problem {
    /// Its word, as in JSON.
    pub(super) fn id(self) -> String {
        let json = serde_json::to_value(self).ok();
        json.and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// The problems of which this one is a consequence. Where one of them is found, this one is not told on its own.
    pub(super) fn causes(self) -> Vec<Problem> {
        match self {
            Problem::NoAfsClient => vec![AfsModuleNotBuilt, AfsModuleNotLoaded],
            Problem::PamNotEnabled => vec![ModuleMissing],
            ManagerOutside | UserWithoutPag => NO_PAG.to_vec(),
            ProbeOutside => [&NO_PAG[..], &[ManagerOutside]].concat(),
            SeederFailed => NO_TOKENS.into_iter().chain([CellWithoutServers]).collect(),
            TokensMissing => [&NO_PAG[..], &NO_TOKENS, &[SeederFailed, UserWithoutPag]].concat(),
            TokensExpired => [&NO_TOKENS[..], &NO_RENEWAL, &[HelperNotOnBus, SeederFailed]].concat(),
            ProbeFailed => vec![KeyQuotaFull],
            _ => Vec::new(),
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(super) id: Problem,
    pub(super) severity: Severity,
    /// What is the matter, in one line.
    pub(super) what: String,
    /// What comes of it.
    pub(super) why: String,
    /// The command that mends it, where there is one.
    pub(super) command: Option<String>,
}

impl Finding {
    fn new(severity: Severity, id: Problem, what: impl Into<String>, why: impl Into<String>) -> Self {
        Finding { id, severity, what: what.into(), why: why.into(), command: None }
    }

    pub(super) fn error(id: Problem, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Severity::Error, id, what, why)
    }

    pub(super) fn warning(id: Problem, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Severity::Warning, id, what, why)
    }

    pub(super) fn info(id: Problem, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Severity::Info, id, what, why)
    }

    /// Names the command that mends it.
    pub(super) fn mend(self, command: impl Into<String>) -> Self {
        Finding { command: Some(command.into()), ..self }
    }
}

impl From<&Finding> for FindingJson {
    fn from(finding: &Finding) -> Self {
        FindingJson {
            id: finding.id.id(),
            severity: finding.severity,
            what: finding.what.clone(),
            why: finding.why.clone(),
            command: finding.command.clone(),
            service: None,
            file: None,
            line: None,
            right: None,
        }
    }
}
