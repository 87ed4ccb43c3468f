//! pag-seed: gets tokens for a user's PAG, away from the login. Runs as the user in `pag-seed@UID.service`, whose PAM
//! stack has put it into the ring. See pag-seed(8).

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use pag::client::Client;
use pag::config::{self, Dirs, Subject};
use pag::guard::HandleGroup;
use pag::login::run_seeder;
use pag::person::Person;
use pag::report::{Event, report, set_debug, speak_as};
use pag::ring::Ring;
use pag::seed::{Budget, Job};
use pag::sys::{self, Identity, Passwd, Who};

/// The seeder's time. The unit's own deadline, a minute, is for what outlives even this.
const TIME: Duration = Duration::from_secs(45);

fn main() -> ExitCode {
    speak_as("pag-seed");
    match seed() {
        Ok(true) => ExitCode::SUCCESS,
        // The seeder's own failure has been reported by who ran it.
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            let [uid, ..] = sys::ids().uid;
            report(&Event::NotPlaced { uid, why });
            ExitCode::FAILURE
        }
    }
}

/// Runs the configured seeder. Says whether it succeeded, or that there was nothing to do.
fn seed() -> Result<bool, String> {
    let [uid, ..] = sys::ids().uid;
    let ring = own_ring(uid)?;
    let user = user(uid)?;
    let person = Person::new(&user.name);
    let is_in = |group: &str| person.is_in(group);
    let name = user.name.to_string_lossy();
    let subject = Subject { name: &name, is_in: &is_in };
    let (settings, complaints) = config::load(&Dirs::default(), "pag-seed", Some(&subject), &[]);
    set_debug(settings.debug);
    for complaint in complaints {
        report(&Event::Complaint { what: complaint.to_string() });
    }
    if settings.notokens || Client::present(&settings).is_empty() {
        return Ok(true);
    }
    let identity = Identity { uid, gid: user.gid, groups: sys::groups_of(&user.name, user.gid) };
    let ccache = std::env::var("KRB5CCNAME").ok().filter(|name| !name.is_empty());
    let job = Job {
        settings: &settings,
        user: &user,
        identity: &identity,
        ccache: ccache.as_deref(),
        environment: &environment(),
    };
    Ok(run_seeder(&job, Some(&ring), &Budget::new(TIME, Duration::ZERO)))
}

/// The ring that this process is in: outside of one, tokens would go to the bare uid.
fn own_ring(uid: u32) -> Result<Ring, String> {
    let ring = Ring::current().ok_or("this process is in no PAG; it is started by systemd as pag-seed@UID.service")?;
    // Root's: where the user's key quota was full.
    if (ring.owner == uid || ring.owner == 0) && ring.group == HandleGroup::read() {
        Ok(ring)
    } else {
        Err(format!("ring {} belongs to uid {} and gid {}", ring.serial, ring.owner, ring.group.0))
    }
}

fn user(uid: u32) -> Result<Passwd, String> {
    let found = sys::passwd(Who::Uid(uid)).map_err(|error| format!("cannot look the user up: {error}"))?;
    found.ok_or_else(|| "there is no user with this uid".to_owned())
}

/// The environment as the seeder gets it: what PAM has set.
fn environment() -> Vec<CString> {
    let pair = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        CString::new([name.into_vec(), value.into_vec()].join(&b'=')).ok()
    };
    std::env::vars_os().filter_map(pair).collect()
}
