//! pag-keytab: gets a ticket from the keytab that pag.conf names for a PAG, and hands the ticket, and nothing else, to
//! the PAG's ccache. Runs as root in `pag-keytab@PAG.service`. See pag-seed(8).

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use pag::ccache::{self, Place};
use pag::config::{self, Dirs};
use pag::guard::{Guard, HandleGroup};
use pag::keytab::{self, Keytab};
use pag::record::Record;
use pag::registry::{PagId, Registry};
use pag::report::{Event, report, set_debug, speak_as};
use pag::sys::{self, Identity, Passwd, Who};

/// For a read or a write of a ccache. The unit has a deadline of its own.
const TIME: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    speak_as("pag-keytab");
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some(pag) = PagId::parse(&name) else {
        report(&Event::Complaint { what: "pag-keytab is started by systemd as pag-keytab@PAG.service".to_owned() });
        return ExitCode::FAILURE;
    };
    let mut uid = 0;
    match bring(pag, &mut uid) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            report(&Event::KeytabRefused { uid, pag, why });
            ExitCode::FAILURE
        }
    }
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
    let keytab = keytab::choose(&keytabs, &name, &record.leases).ok_or("pag.conf names none for it")?;
    if record.ccache != ccache::name(uid, pag) {
        return Err("its ccache is one of the user's own".to_owned());
    }
    keytab::check(&keytab.path, 0)?;
    let directory = std::env::var_os("RUNTIME_DIRECTORY").ok_or("RUNTIME_DIRECTORY is not set: systemd does that")?;
    let cache = Path::new(&directory).join("ccache");
    kinit(keytab, &name, &cache)?;
    hand_over(pag, &record, &user, &cache)
}

/// The PAG's user and record.
fn find(pag: PagId) -> Result<(u32, Record), String> {
    let group = HandleGroup::read();
    let words = |error: pag::Error| error.to_string();
    let guard = Guard::enter(group).map_err(words)?;
    let registry = Registry::find(&guard, group).map_err(words)?.ok_or("there is no PAG on this host")?;
    let pags = registry.pags(&guard).map_err(words)?;
    let found = pags.into_iter().find(|one| one.id == pag).ok_or("there is no such PAG")?;
    let record = found.record.map_err(|why| why.to_string())?;
    Ok((found.uid, record))
}

fn kinit(keytab: &Keytab, name: &str, cache: &Path) -> Result<(), String> {
    let mut place = OsString::from("FILE:");
    place.push(cache);
    let mut command = Command::new("/usr/bin/kinit");
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
    command.args(["-k", "-t"]).arg(&keytab.path).arg("-c").arg(&place);
    // Behind `--`: a name of the user database is no option, whatever it begins with.
    command.arg("--").arg(keytab.principal.as_deref().unwrap_or(name));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output().map_err(|error| format!("cannot run /usr/bin/kinit: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    // It names the principal, the KDC and the file, and no key.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("kinit ended with {}: {}", output.status, said.lines().next().unwrap_or_default()))
}

/// A child that has become the user writes the ticket: the ccache is his, and so may be what lies there.
fn hand_over(pag: PagId, record: &Record, user: &Passwd, cache: &Path) -> Result<(), String> {
    let root = Identity { uid: 0, gid: 0, groups: Vec::new() };
    let identity = Identity { uid: user.uid, gid: user.gid, groups: sys::groups_of(&user.name, user.gid) };
    let deadline = Instant::now() + TIME;
    let contents = ccache::read(&Place::File(cache.display().to_string()), &root, deadline)?;
    let principal = &contents.summary.principal;
    if let Some(other) = record.principal.as_ref().filter(|other| *other != principal) {
        return Err(format!("its identity is {other}, and the keytab's is {principal}"));
    }
    let expires = contents.summary.tgt_expires.ok_or("there is no ticket in what kinit has written")?;
    if ccache::feed(&identity, pag, &contents, deadline).map_err(|error| error.to_string())? {
        report(&Event::CcacheFed { uid: user.uid, pag, expires });
    }
    Ok(())
}
