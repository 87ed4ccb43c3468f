//! `pagctl doctor`: looks at one machine, and at one login on it, from end to end, and says what is wrong, why that
//! matters, and which command mends it. It changes nothing.
//!
//! Each subject is a plain function over a [`host::Host`]. `round` runs all of them at once, within a limit.

mod client;
mod containers;
mod finding;
mod group;
mod helper;
mod host;
mod journal;
mod kdc;
mod kerberos;
mod kernel;
mod krb5_conf;
mod login;
mod managers;
mod mandatory;
mod module;
mod programs;
mod registry;
mod report;
mod round;
mod seeders;
mod settings;
mod sshd;
mod stacks;
#[cfg(test)]
mod testing;
mod units;

use std::ffi::CString;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use pag::store::registry::Pag;
use pag::sys::{self, Who};

use self::host::{Host, Person, QUICK};
use self::programs::OfHost;
use self::round::{Round, Subject};
use crate::output::{Answer, Error, Severity, out};
use crate::remote::Statistics;

/// The longest time that all checks may take together.
const LIMIT: Duration = Duration::from_secs(15);

const fn subject(name: &'static str, check: fn(&Host, &mut host::Look)) -> Subject {
    Subject { name, check, for_root: false }
}

const fn for_root(name: &'static str, check: fn(&Host, &mut host::Look)) -> Subject {
    Subject { name, check, for_root: true }
}

/// What is looked at.
const SUBJECTS: &[Subject] = &[
    subject("the kernel's keyrings", kernel::check),
    subject("the PAM module", module::check),
    subject("the group pag", group::check),
    subject("pag.conf", settings::check),
    subject("AFS clients", client::check),
    subject("seeders", seeders::check),
    subject("the PAM stacks", stacks::check),
    subject("the helper", helper::check),
    subject("Kerberos", kerberos::check),
    subject("the clock", kerberos::synchronised),
    subject("user units", units::check),
    subject("one login", login::check),
    for_root("sshd's options", sshd::check),
    for_root("the PAGs", registry::check),
    for_root("user managers", managers::check),
    for_root("what seeders said", journal::check),
    for_root("SELinux and AppArmor", mandatory::check),
    for_root("containers", containers::check),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Look at this user's login, too. Needs root
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Print JSON
    #[arg(long, conflicts_with = "nagios")]
    json: bool,
    /// Print one line for Nagios
    #[arg(long)]
    nagios: bool,
    /// List what is fine and what was left out, too
    #[arg(short, long)]
    verbose: bool,
}

/// Examines the machine.
///
/// # Errors
/// There is no such user, or another user than root asks for one.
pub(crate) fn run(doctor: &Doctor) -> Result<Answer, Error> {
    let [uid, ..] = sys::ids().uid;
    let person = match &doctor.user {
        Some(name) => Some(person(name, uid)?),
        // Without a name service the rest is looked at all the same.
        None if uid > 0 => person(&uid.to_string(), uid).ok(),
        None => None,
    };
    let host = Host::new(Path::new("/"), Box::new(OfHost), uid == 0, person);
    let round = Round::make(host, SUBJECTS, LIMIT);
    if doctor.json {
        report::json(&round);
    } else if doctor.nagios {
        out!("{}", report::nagios(&round));
    } else {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        out!("{}", report::words(&round, doctor.verbose, colours));
    }
    Ok(match round.worst() {
        Severity::Ok | Severity::Info => Answer::AllRight,
        Severity::Warning => Answer::ToDo,
        Severity::Error => Answer::Broken,
    })
}

/// The users with managers that run outside of their PAGs, in a machine with these `pags`. None if systemd does not tell.
/// A manager that has a lease may be outside all the same: pam_keyinit took it out of its PAG. The `helper` tells of these.
pub(crate) fn managers_outside(pags: &[Pag], helper: Option<&Statistics>) -> Option<Vec<u32>> {
    managers::outside(&this_host(), pags, helper.map_or(&[], |helper| &helper.outside))
}

/// How often systemd has started the helper again after it had ended. None if systemd does not tell.
pub(crate) fn helper_restarts() -> Option<u64> {
    helper::restarts(&this_host())
}

/// This machine, for root.
fn this_host() -> Host {
    Host::new(Path::new("/"), Box::new(OfHost), true, None)
}

/// The account of a name or uid. A name service that does not answer is not waited for.
fn person(word: &str, own: u32) -> Result<Person, Error> {
    let name = CString::new(word).unwrap_or_default();
    let (send, answer) = channel();
    let wanted = word.parse().ok();
    thread::spawn(move || send.send(sys::passwd(wanted.map_or(Who::Name(&name), Who::Uid))));
    let silent = || Error::Refused(format!("the name service does not answer who {word} is; try getent passwd {word}"));
    let found = answer.recv_timeout(QUICK).map_err(|_| silent())?;
    let found = found.map_err(pag::Error::system(format!("look up {word}")))?;
    let found = found.ok_or_else(|| Error::Refused(format!("there is no user {word}")))?;
    if own != 0 && found.uid != own {
        return Err(Error::Refused(format!("only root can look at the login of {word}; run it as root")));
    }
    Ok(Person { name: found.name.to_string_lossy().into_owned(), uid: found.uid, gid: found.gid })
}
