//! pag-logind-helper does for PAGs what outlives a login: it watches logind and the processes that hold leases, ends PAGs
//! that are over, repairs what was cut, and renews tokens. See pag-logind-helper(8).
//!
//! It has one thread and one loop ([`daemon`]). It keeps no state of its own on disk: all that matters is in the registry.

mod agenda;
mod daemon;
mod dbus;
mod errands;
mod jobs;
mod mailbox;
mod managers;
mod messages;
mod names;
mod notify;
mod nudges;
mod order;
mod pags;
mod reconcile;
mod systemd;
mod tickets;
mod work;

use std::process::ExitCode;

use pag::command_line;
use pag::report::{Event, name_users_by, report, speak_as};

fn main() -> ExitCode {
    let purpose = "pag-logind-helper is a daemon, which systemd starts: it takes no arguments.";
    if let Some(status) = command_line::answer("pag-logind-helper", 0, purpose) {
        return status.into();
    }
    speak_as("pag-logind-helper");
    name_users_by(names::find);
    match zbus::block_on(daemon::run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&Event::Complaint { what: format!("cannot go on: {error}") });
            ExitCode::FAILURE
        }
    }
}
