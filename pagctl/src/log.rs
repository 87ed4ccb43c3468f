//! `pagctl log`: the messages of the module, the helper and its jobs, by journalctl(1).

use std::os::unix::process::CommandExt;
use std::process::Command;

use pag::sys::{self, Who};

use crate::output::Error;

/// Those who speak: `SYSLOG_IDENTIFIER` in the journal.
const SPEAKERS: [&str; 6] = ["pam_pag", "pag-logind-helper", "pag-seed", "pag-keytab", "pag-ccache", "pagctl"];

/// The units without an instance. systemd's messages about them say why one did not start.
const UNITS: [&str; 3] = ["pag-logind-helper.service", "pag-ccache.service", "pag-metrics.service"];

#[derive(Debug, clap::Args)]
pub(crate) struct Log {
    /// Only messages about this user: a name or a uid
    user: Option<String>,
    /// Go on with what comes, until you interrupt it
    #[arg(short, long)]
    follow: bool,
    /// Without the catalog's explanations
    #[arg(short, long)]
    brief: bool,
    /// Only from this time on, as journalctl takes it: "1 hour ago", "2026-12-01 10:00", today
    #[arg(short = 'S', long, value_name = "TIME")]
    since: Option<String>,
}

/// Executes journalctl in the place of this program.
///
/// # Errors
/// There is no such user, or journalctl cannot be run.
pub(crate) fn run(log: &Log) -> Result<std::convert::Infallible, Error> {
    let uid = log.user.as_deref().map(uid_of).transpose()?;
    let source = Command::new("journalctl").args(arguments(log, uid)).exec();
    Err(Error::Run { program: "journalctl".to_owned(), source })
}

fn uid_of(user: &str) -> Result<u32, Error> {
    // A user that is gone may have left messages.
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    let name = std::ffi::CString::new(user).unwrap_or_default();
    let found = sys::passwd(Who::Name(&name)).map_err(pag::Error::system(format!("look up {user}")))?;
    found.map(|user| user.uid).ok_or_else(|| Error::Refused(format!("there is no user {user}")))
}

/// journalctl joins matches of one field by "or", those of several by "and", and sets that `+` parts by "or".
fn arguments(log: &Log, uid: Option<u32>) -> Vec<String> {
    let mut words = Vec::new();
    words.extend(log.follow.then(|| "--follow".to_owned()));
    words.extend((!log.brief).then(|| "--catalog".to_owned()));
    words.extend(log.since.iter().map(|since| format!("--since={since}")));
    words.extend(SPEAKERS.map(|speaker| format!("SYSLOG_IDENTIFIER={speaker}")));
    words.extend(uid.map(|uid| format!("USER_ID={uid}")));
    let units = match uid {
        Some(uid) => vec![format!("pag-seed@{uid}.service")],
        None => UNITS.map(str::to_owned).to_vec(),
    };
    words.push("+".to_owned());
    words.extend(units.into_iter().map(|unit| format!("UNIT={unit}")));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(log: &Log, uid: Option<u32>) -> String {
        arguments(log, uid).join(" ")
    }

    #[test]
    fn a_users_log_is_of_their_messages_and_their_unit() {
        let log = Log { user: None, follow: false, brief: false, since: None };
        let speakers = SPEAKERS.map(|speaker| format!("SYSLOG_IDENTIFIER={speaker}")).join(" ");
        let all = format!(
            "--catalog {speakers} + UNIT=pag-logind-helper.service UNIT=pag-ccache.service UNIT=pag-metrics.service"
        );
        assert_eq!(words(&log, None), all);
        let log = Log { follow: true, brief: true, since: Some("today".to_owned()), ..log };
        let alices = format!("--follow --since=today {speakers} USER_ID=61001 + UNIT=pag-seed@61001.service");
        assert_eq!(words(&log, Some(61001)), alices);
    }

    #[test]
    fn a_user_is_known_by_name_or_is_a_number() {
        assert_eq!(uid_of("root").unwrap(), 0);
        assert_eq!(uid_of("4000000").unwrap(), 4_000_000);
        assert!(uid_of("no such user").unwrap_err().to_string().contains("there is no user"));
    }
}
