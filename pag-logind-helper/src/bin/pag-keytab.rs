//! pag-keytab: gets a ticket from the keytab that pag.conf names for a PAG, and hands the ticket, and nothing else, to
//! the PAG's ccache. Runs as root in `pag-keytab@PAG.service`. See pag-seed(8).
//!
//! `kinit` reads what the network answers, so it runs as a system user that owns nothing. Root opens the keytab and gives
//! `kinit` a copy in memory that it cannot change, and reads the ticket as that user.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use pag::ccache::{self, CcacheName};
use pag::command_line;
use pag::config::account::{self, Account};
use pag::config::keytab::{self, Keytab};
use pag::config::{self, Dirs};
use pag::guard::{Guard, HandleGroup};
use pag::report::{Event, NO_UID, name_users_by, report, set_debug, speak_as};
use pag::store::lock::Lock;
use pag::store::record::Record;
use pag::store::registry::Registry;
use pag::sys::{self, Answer, Identity, Passwd, Who};
use pag::types::PagId;
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, memfd_create};

/// For a read or a write of a ccache. The unit has a deadline of its own.
const TIME: Duration = Duration::from_secs(10);

/// Longest wait for another keytab's job: less than half of the unit's time.
const TURN: Duration = Duration::from_secs(25);

/// The user that `kinit` runs as, made by systemd-sysusers.
const KINIT_USER: &std::ffi::CStr = c"pag-keytab";

/// Where `kinit` writes the ticket: `/tmp` is this unit's own, and ends with it (PrivateTmp=).
const CCACHE: &str = "/tmp/ccache";

/// Largest keytab: it is read into memory.
const LARGEST: u64 = 1 << 20;

/// Most of what `kinit` says that is listened to.
const WORDS: u64 = 4096;

fn main() -> ExitCode {
    let purpose = "pag-keytab gets a ticket from a keytab for a PAG: systemd starts it as pag-keytab@PAG.service.";
    if let Some(status) = command_line::answer("pag-keytab", 1, purpose) {
        return status.into();
    }
    speak_as("pag-keytab");
    name_users_by(name_of);
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some(pag) = PagId::parse(&name) else {
        report(&Event::Complaint { what: "pag-keytab is started by systemd as pag-keytab@PAG.service".to_owned() });
        return ExitCode::from(2);
    };
    let mut uid = NO_UID;
    match bring(pag, &mut uid) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            report(&Event::KeytabRefused { uid, pag, why });
            ExitCode::FAILURE
        }
    }
}

/// The name of a user, for messages. This job may wait for a name service: the unit has a deadline.
fn name_of(uid: u32) -> Option<String> {
    let user = sys::passwd(Who::Uid(uid)).ok().flatten();
    user.map(|user| user.name.to_string_lossy().into_owned())
}

/// Gets the ticket and feeds the PAG's ccache with it.
fn bring(pag: PagId, of: &mut u32) -> Result<(), String> {
    let (settings, _) = config::host(&Dirs::default());
    set_debug(settings.debug);
    let (uid, record) = find(pag)?;
    *of = uid;
    let user = sys::passwd(Who::Uid(uid)).ok().flatten().ok_or("its user is not in the password database")?;
    let name = user.name.to_string_lossy().into_owned();
    let keytabs = config::keytabs(&Dirs::default());
    let keytab = pag::policy::keytab(&keytabs, &name, &record.leases).ok_or("pag.conf names none for it")?;
    if record.ccache != ccache::name(uid, pag) {
        return Err("its ccache is one of the user's own".to_owned());
    }
    keytab::check(&keytab.path, 0)?;
    let found = sys::passwd(Who::Name(KINIT_USER)).ok().flatten();
    let kinit_user = found
        .filter(|user| user.uid != 0)
        .ok_or("there is no system user pag-keytab for kinit to run as; make it with: systemd-sysusers pag.conf")?;
    let kinit_user = Identity { uid: kinit_user.uid, gid: kinit_user.gid, groups: Vec::new() };
    let _alone = be_alone(&kinit_user)?;
    kinit(keytab, &name, &kinit_user)?;
    hand_over(pag, &user, keytab, &kinit_user)
}

/// Sees to it that no other process runs as `kinit_user`, as long as the lock is held: it could trace `kinit`, and so read
/// another user's keytab and change the ticket. What an earlier job has left behind is killed.
#[allow(unsafe_code)] // makes a child
fn be_alone(kinit_user: &Identity) -> Result<Lock, String> {
    let alone = Lock::of_keytabs(TURN).map_err(|error| format!("it waits for another PAG's keytab: {error}"))?;
    // SAFETY: this program has one thread, so no lock is held, and no program is executed.
    let killed = unsafe { sys::ask_as(kinit_user, Instant::now() + TIME, |_| sys::kill_all_others()) };
    killed
        .and_then(Answer::bytes)
        .map_err(|error| format!("processes of the user pag-keytab cannot be killed: {error}"))?;
    Ok(alone)
}

/// The PAG's user and record.
fn find(pag: PagId) -> Result<(u32, Record), String> {
    let group = HandleGroup::read();
    let words = |error: pag::Error| error.to_string();
    let guard = Guard::enter(group).map_err(words)?;
    let registry = Registry::find(&guard).map_err(words)?.ok_or("there is no PAG on this host")?;
    let pags = registry.pags(&guard).map_err(words)?;
    let found = pags.into_iter().find(|one| one.id == pag).ok_or("there is no such PAG")?;
    let record = found.record.map_err(|why| why.to_string())?;
    Ok((found.uid, record))
}

/// Runs `kinit` as `user`, with a copy of the keytab.
fn kinit(keytab: &Keytab, name: &str, user: &Identity) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot run /usr/bin/kinit: {error}");
    let copy = copy_of(&keytab.path).map_err(|error| format!("cannot read {}: {error}", keytab.path.display()))?;
    let mut command = Command::new("/usr/bin/kinit");
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
    command.args(["-k", "-t", &format!("FILE:/proc/self/fd/{}", copy.as_raw_fd()), "-c", &format!("FILE:{CCACHE}")]);
    // Behind `--`: a name of the user database is no option, whatever it begins with.
    command.arg("--").arg(keytab.principal.clone().unwrap_or_else(|| account::key_name(name)));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Without other groups (std sets none, as root, where a uid is given).
    command.uid(user.uid).gid(user.gid);
    let mut child = command.spawn().map_err(failed)?;
    let mut said = Vec::new();
    if let Some(words) = child.stderr.take() {
        let _ = words.take(WORDS).read_to_end(&mut said);
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    // It names the principal, the KDC and the file, and no key.
    let said = String::from_utf8_lossy(&said).into_owned();
    Err(format!("kinit ended with {status}: {}", said.lines().next().unwrap_or_default()))
}

/// A copy of a keytab in memory, which a program that is started from here inherits, and can read and not change.
fn copy_of(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let found = file.metadata()?;
    // What was checked by its path is what was opened.
    if !found.is_file() || found.uid() != 0 || found.mode() & 0o077 != 0 || found.len() > LARGEST {
        return Err(std::io::ErrorKind::PermissionDenied.into());
    }
    let mut copy = File::from(memfd_create("keytab", MemfdFlags::ALLOW_SEALING)?);
    std::io::copy(&mut file.take(LARGEST), &mut copy)?;
    fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(copy.into())
}

/// A child with the user's identity writes the ticket: the ccache is the user's, and so may be what lies there.
fn hand_over(pag: PagId, user: &Passwd, keytab: &Keytab, kinit_user: &Identity) -> Result<(), String> {
    let identity = Identity { uid: user.uid, gid: user.gid, groups: sys::groups_of(&user.name, user.gid) };
    let deadline = Instant::now() + TIME;
    let place = CcacheName::File(CCACHE.to_owned());
    let contents = ccache::read(&place, kinit_user, deadline).map_err(|why| why.to_string())?;
    let principal = &contents.summary.principal;
    // kinit has parsed what the network answers: what it has written may be a ticket of any principal.
    if !Account::configured(&user.name).is_from_keytab(keytab.principal.as_deref(), principal) {
        return Err(format!("kinit has brought a ticket of {principal}, which is not the keytab's principal"));
    }
    // Looked at once more: kinit may have taken long, and a login may have given the PAG an identity meanwhile. One that
    // comes now waits for the lock before it writes its own ticket.
    let _lock = Lock::of_tickets(user.uid, TIME).map_err(|error| error.to_string())?;
    let (_, record) = find(pag)?;
    if let Some(other) = record.principal.as_ref().filter(|other| *other != principal) {
        return Err(format!("its identity is {other}, and the keytab's is {principal}"));
    }
    let expires = contents.summary.tgt_expires.ok_or("there is no ticket in what kinit has written")?;
    if ccache::feed(&identity, pag, &contents, deadline).map_err(|error| error.to_string())? {
        report(&Event::CcacheFed { uid: user.uid, pag, expires });
    }
    Ok(())
}
