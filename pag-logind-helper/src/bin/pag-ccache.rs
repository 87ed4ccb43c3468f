//! pag-ccache: takes away the file systems that hold the ccaches of users without a PAG. Runs as root in
//! `pag-ccache.service`, which a timer starts: the helper has neither the right to unmount nor the host's mounts.
//! See pag-logind-helper(8).

use std::process::ExitCode;
use std::time::Duration;

use pag::ccache;
use pag::command_line;
use pag::guard::{Guard, HandleGroup};
use pag::report::{Event, User, name_users_by, report, speak_as};
use pag::store::locked::LockedUser;
use pag::sys::{self, Who};

/// Longest wait for a uid's lock: a login has it, and the user is to keep the file system.
const WAIT: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let purpose = "pag-ccache unmounts the ccaches of users without a PAG: it takes no arguments.";
    if let Some(status) = command_line::answer("pag-ccache", 0, purpose) {
        return status.into();
    }
    speak_as("pag-ccache");
    name_users_by(name_of);
    let group = HandleGroup::read();
    let tidied = ccache::users().into_iter().filter_map(|uid| Some((uid, tidy(uid, group).err()?)));
    let failed: Vec<(u32, String)> = tidied.collect();
    for (uid, why) in &failed {
        report(&Event::Complaint { what: format!("the ccaches of {} stay: {why}", User(*uid)) });
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Takes away the file system of `uid`, where this user has no PAG. Under the uid's lock: a login makes a ccache before it
/// makes the PAG. A PAG with a directory that is missing in the registry has not ended: root has cut it out, and its
/// members still use the ccache.
fn tidy(uid: u32, group: HandleGroup) -> Result<(), String> {
    let words = |error: pag::Error| format!("cannot look for the user's PAGs: {error}");
    let guard = Guard::enter(group).map_err(words)?;
    let Ok(user) = LockedUser::lock(&guard, uid, WAIT) else { return Ok(()) };
    // Root has removed the registry, or no login has made one.
    if user.registry().map_err(words)?.is_none() {
        return Ok(());
    }
    let has_pag = !user.pags().map_err(words)?.is_empty() || !ccache::of_user(uid).is_empty();
    if !has_pag && !ccache::unmount(uid) {
        return Err("they cannot be unmounted, and the user has no PAG any more".to_owned());
    }
    Ok(())
}

/// The name of a user, for messages. This job may wait for a name service: no lock is held then.
fn name_of(uid: u32) -> Option<String> {
    let user = sys::passwd(Who::Uid(uid)).ok().flatten();
    user.map(|user| user.name.to_string_lossy().into_owned())
}
