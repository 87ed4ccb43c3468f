//! pag-seed: gets tokens for a user's PAG, away from the login. Runs as the user in `pag-seed@UID.service`. The PAM stack of
//! that unit has put it into the ring. See pag-seed(8).

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pag::afs;
use pag::ccache::format::Summary;
use pag::ccache::{self, CcacheName, Contents};
use pag::command_line;
use pag::config::account::Account;
use pag::config::{self, Dirs, Subject};
use pag::guard::HandleGroup;
use pag::policy;
use pag::report::{Event, name_users_by, report, set_debug, speak_as};
use pag::seed::run_seeder;
use pag::seed::{self, Budget, EXCLUDED_ENV, Excluded, IDENTITY_ENV, Job};
use pag::store::ring::Ring;
use pag::sys::{self, Identity, Passwd, UserGroups, Who};
use pag::types::Client;

/// The seeder's time. The unit's own deadline, a minute, is for what outlives even this.
const TIME: Duration = Duration::from_secs(45);

fn main() -> ExitCode {
    let purpose = "pag-seed gets tokens for the PAG that it is in: it takes no arguments.";
    if let Some(status) = command_line::answer("pag-seed", 0, purpose) {
        return status.into();
    }
    speak_as("pag-seed");
    name_users_by(name_of);
    let ccache = std::env::var("KRB5CCNAME").ok().and_then(|name| CcacheName::parse(&name).ok());
    // The helper tells who asked for tokens.
    let leave = |why: Option<&str>| ccache.iter().for_each(|place| ccache::leave_reason(place, why));
    leave(None);
    match seed() {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        // These are reported.
        Ok(failures) => {
            leave(Some(&failures.join("; ")));
            ExitCode::FAILURE
        }
        Err(why) => {
            leave(Some(&why));
            let [uid, ..] = sys::ids().uid;
            report(&Event::NotPlaced { uid, why });
            ExitCode::FAILURE
        }
    }
}

/// Runs the configured seeder, and renews the ticket where its time has come. Gives what has failed of that, in words.
///
/// # Errors
/// If this job is in no PAG of its user.
fn seed() -> Result<Vec<String>, String> {
    let [uid, ..] = sys::ids().uid;
    let ring = own_ring(uid)?;
    let user = user(uid)?;
    let person = UserGroups::new(&user.name);
    let is_in = |group: &str| person.is_in(group);
    let name = user.name.to_string_lossy();
    let subject = Subject { name: &name, is_in: &is_in };
    let (settings, complaints) = config::load(&Dirs::default(), "pag-seed", Some(&subject), &[]);
    set_debug(settings.debug);
    for complaint in complaints {
        report(&Event::Complaint { what: complaint.to_string() });
    }
    if settings.notokens || Client::present(&settings).is_empty() {
        return Ok(Vec::new());
    }
    let identity = Identity { uid, gid: user.gid, groups: sys::groups_of(&user.name, user.gid) };
    let ccache = std::env::var("KRB5CCNAME").ok().filter(|name| !name.is_empty());
    let job = Job {
        settings: &settings,
        user: &user,
        identity: &identity,
        ccache: ccache.as_deref(),
        environment: &environment(),
        excluded: Excluded::parse(&std::env::var(EXCLUDED_ENV).unwrap_or_default()),
    };
    let budget = Budget::new(TIME, Duration::ZERO);
    let ticket = ticket(&job);
    // The module sets this variable for a PAG without an identity, too, and it is empty then. If it is not set, no module has put
    // this job into a PAG, and there is nothing to compare.
    if let (Some(ticket), Ok(identity)) = (&ticket, std::env::var(IDENTITY_ENV)) {
        let account = Account::new(&user.name, &settings);
        if let Some(why) = seed::not_of_pag(&ticket.summary.principal, &identity, &account) {
            report(&Event::CcacheRefused { uid, why: why.clone() });
            return Ok(vec![why]);
        }
    }
    let not_renewed = renew(&job, ticket.as_ref(), &budget).err();
    // If the ticket could not be renewed, the seeder uses what is left of it.
    let not_seeded = run_seeder(&job, Some(&ring), None, &budget).failure;
    // A seeder may choose the cell, and the configuration may name it by an alias: the token tells which it was.
    for cell in &job.excluded.cells {
        if let Err(why) = afs::discard_here(Some(cell), Instant::now() + DISCARDING) {
            report(&Event::Complaint { what: why.to_string() });
        }
    }
    Ok(not_renewed.into_iter().chain(not_seeded).collect())
}

/// Time for a token to be discarded.
const DISCARDING: Duration = Duration::from_secs(5);

/// Time for `kinit -R`, so that the seeder has some left where the KDC does not answer.
const RENEWAL: Duration = Duration::from_secs(20);

/// What is in the ccache, where that can be read.
fn ticket(job: &Job<'_>) -> Option<Contents> {
    let place = job.ccache.and_then(|name| CcacheName::parse(name).ok())?;
    ccache::read(&place, job.identity, Instant::now() + Duration::from_secs(5)).ok()
}

/// Renews the ticket where its time has come, and reports a failure.
///
/// # Errors
/// Why it has failed, in words.
fn renew(job: &Job<'_>, ticket: Option<&Contents>, budget: &Budget) -> Result<(), String> {
    if !ticket.is_some_and(|contents| is_time(&contents.summary, pag::sys::now())) {
        return Ok(());
    }
    let limited = Budget::new(RENEWAL.min(budget.left()), Duration::ZERO);
    let renewed = job.renew(&limited).unwrap_or_else(|error| Err(error.to_string()));
    renewed.map_err(|why| {
        report(&Event::NotRenewed { uid: job.user.uid, why: why.clone() });
        format!("the ticket was not renewed: {why}")
    })
}

/// Whether a ticket is to be renewed now.
fn is_time(ticket: &Summary, now: u64) -> bool {
    let (Some(starts), Some(end)) = (ticket.tgt_starts, ticket.tgt_expires) else { return false };
    policy::is_ticket_due(starts, end, ticket.tgt_renew_until.unwrap_or(0), now)
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

/// The name of a user, for messages. This job may wait for a name service: the unit has a deadline.
fn name_of(uid: u32) -> Option<String> {
    user(uid).ok().map(|user| user.name.to_string_lossy().into_owned())
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
