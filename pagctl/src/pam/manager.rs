//! The tools that write PAM files, and how they learn of pam_pag. pagctl never edits the files of these tools.

use std::process::{Command, Stdio};

use super::draft::Draft;
use super::edit::managed;
use super::finding::{Finding, Problem};
use super::host::Host;
use super::parse::{Facility, parse};
use super::stack::{Files, Opened};
use crate::output::Error;

/// Our profile, which the package installs.
const PROFILE: &str = "/usr/share/pam-configs/pag";
/// The mark that pam-auth-update looks for in its files, too (pam-auth-update, `diff_profiles`).
const MARK: &str = "# end of pam-auth-update config";
/// Its files that get our lines.
const COMMON: [(&str, Facility); 3] = [
    ("/etc/pam.d/common-auth", Facility::Auth),
    ("/etc/pam.d/common-session", Facility::Session),
    ("/etc/pam.d/common-session-noninteractive", Facility::Session),
];
/// authselect's configuration: the profile, then its features, one a line (authselect, src/lib/files/config.c).
const AUTHSELECT: &str = "/etc/authselect/authselect.conf";
/// authselect's stacks that open sessions.
const STACKS: [&str; 5] = ["system-auth", "password-auth", "fingerprint-auth", "smartcard-auth", "switchable-auth"];

/// The tool that writes the shared stacks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    /// None: the administrator writes them.
    None,
    /// Debian's.
    PamAuthUpdate,
    /// Fedora's, with its configuration.
    Authselect {
        /// `sssd`, `custom/ours`, ...
        profile: String,
        /// `with-mkhomedir`, ...
        features: Vec<String>,
    },
}

impl Manager {
    /// Finds the tool of this host.
    pub(crate) fn of(host: &Host) -> Self {
        if let Some(text) = host.text(AUTHSELECT) {
            let mut words = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
            if let Some(profile) = words.next() {
                return Self::Authselect { profile, features: words.collect() };
            }
        }
        let marked = host.text("/etc/pam.d/common-session").is_some_and(|text| text.contains(MARK));
        if marked && host.has("/usr/share/pam-configs") { Self::PamAuthUpdate } else { Self::None }
    }

    /// Why a file is not pagctl's to edit, if the tool writes it.
    pub(crate) fn owns(&self, path: &str) -> Option<String> {
        let name = path.strip_prefix("/etc/pam.d/")?;
        match self {
            Self::PamAuthUpdate if name.starts_with("common-") => Some("pam-auth-update looks after it".to_owned()),
            Self::Authselect { .. } if STACKS.contains(&name) || name == "postlogin" => {
                Some("authselect looks after it".to_owned())
            }
            _ => None,
        }
    }

    /// The tool's files that need a line of ours.
    fn files(&self) -> Vec<(String, Facility)> {
        match self {
            Self::None => Vec::new(),
            Self::PamAuthUpdate => COMMON.map(|(path, facility)| (path.to_owned(), facility)).to_vec(),
            Self::Authselect { .. } => STACKS.map(|name| (format!("/etc/pam.d/{name}"), Facility::Session)).to_vec(),
        }
    }

    /// Puts the tool's files into a draft as they will be once it knows pam_pag. Returns whether that changes them.
    pub(crate) fn assume(&self, draft: &mut Draft<'_>) -> bool {
        let mut differs = false;
        for (path, facility) in self.files() {
            if let Some(text) = draft.text(&path) {
                let then = managed(&text, draft.libpam(), facility);
                differs |= then != text;
                draft.assume(&path, then);
            }
        }
        differs
    }

    /// Whether the tool's files call pam_pag now.
    pub(crate) fn knows_us(&self, host: &Host) -> bool {
        let texts = self.files().into_iter().filter_map(|(path, _)| host.text(&path));
        let mut lines = texts.flat_map(|text| parse(&text, host.libpam()));
        lines.any(|line| line.entry().is_some_and(|entry| entry.calls("pam_pag")))
    }

    /// A note about the profile of pam_afs_session: ours names it as a conflict, so pam-auth-update switches it off.
    pub(crate) fn rival(&self, host: &Host, enable: bool) -> Option<Finding> {
        let there = *self == Self::PamAuthUpdate && host.has("/usr/share/pam-configs/afs-session");
        let used = host.text("/etc/pam.d/common-session").is_some_and(|text| text.contains("pam_afs_session.so"));
        let text = match (there, enable, used) {
            (true, true, true) => "pam-auth-update switches its profile afs-session off: two modules would make PAGs",
            (true, false, false) => "if afs-session was in use before: `pam-auth-update --enable afs-session`",
            _ => return None,
        };
        Some(Finding::note(Problem::TwoModules, None, text))
    }

    /// The commands for an administrator to run, where pagctl does not run them.
    pub(crate) fn advice(&self, files: &dyn Files, enable: bool) -> Vec<String> {
        let Self::Authselect { profile, features } = self else {
            return Vec::new();
        };
        if !enable {
            return vec!["authselect disable-feature with-pag".to_owned()];
        }
        let mut advice = Vec::new();
        let custom = match profile.strip_prefix("custom/") {
            Some(name) => name,
            None => {
                advice.push(format!("authselect create-profile pag --base-on={profile} --symlink-meta"));
                "pag"
            }
        };
        // Older profiles have no switchable-auth.
        let there = STACKS.iter().filter(|stack| files.open(&format!("/etc/pam.d/{stack}")) != Opened::Missing);
        advice.push(format!(
            r#"sed -i '/^-\?session.*pam_systemd\.so/i -session     optional     pam_pag.so     {{include if "with-pag"}}' {}"#,
            there.map(|stack| format!("/etc/authselect/custom/{custom}/{stack}")).collect::<Vec<_>>().join(" ")
        ));
        let features = features.iter().map(|feature| format!(" {feature}")).collect::<String>();
        advice.push(format!("authselect select custom/{custom}{features} with-pag"));
        advice
    }
}

/// A run of pam-auth-update.
#[derive(Debug)]
pub(crate) struct Run {
    argv: Vec<String>,
    enable: bool,
}

impl Run {
    /// Switches our profile on or off in this host.
    pub(crate) fn new(host: &Host, enable: bool) -> Self {
        let mut argv = Vec::new();
        if !host.is_running() {
            // Its own --root takes templates from the running system.
            argv.extend(["chroot".to_owned(), host.root().display().to_string()]);
        }
        let verb = if enable { "--enable" } else { "--disable" };
        argv.extend(["pam-auth-update", "--package", verb, "pag"].map(str::to_owned));
        Self { argv, enable }
    }

    /// The command as a user would type it.
    pub(crate) fn line(&self) -> String {
        self.argv.join(" ")
    }

    /// Runs it, and checks the files afterwards: pam-auth-update exits with 0 also where it refuses.
    pub(crate) fn execute(&self, host: &Host) -> Result<(), Error> {
        let failed = |why: String| Error::Command { command: self.line(), why };
        if self.enable && !host.has(PROFILE) {
            return Err(failed(format!("{PROFILE} is missing; install the package's files first")));
        }
        let Some((program, args)) = self.argv.split_first() else {
            return Ok(());
        };
        let output = Command::new(program)
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(error.to_string()))?;
        let messages = [output.stderr, output.stdout].concat();
        let messages = String::from_utf8_lossy(&messages);
        if !output.status.success() {
            return Err(failed(format!("{}: {}", output.status, messages.trim())));
        }
        if Manager::PamAuthUpdate.knows_us(host) == self.enable {
            return Ok(());
        }
        Err(failed(format!(
            "pam-auth-update left the common-* files as they were, perhaps because they were edited by hand: {}",
            messages.trim()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_builds_on_what_is_selected() {
        let manager = Manager::Authselect { profile: "sssd".into(), features: vec!["with-mkhomedir".into()] };
        let files = std::collections::BTreeMap::from([("/etc/pam.d/system-auth", "")]);
        let advice = manager.advice(&files, true);
        assert!(advice[1].ends_with(" /etc/authselect/custom/pag/system-auth"), "{}", advice[1]);
        assert_eq!(advice.first().unwrap(), "authselect create-profile pag --base-on=sssd --symlink-meta");
        assert_eq!(advice.last().unwrap(), "authselect select custom/pag with-mkhomedir with-pag");
        let custom = Manager::Authselect { profile: "custom/afs".into(), features: vec![] };
        assert_eq!(custom.advice(&files, true).len(), 2);
    }
}
