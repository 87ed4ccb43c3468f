//! Checks the configuration for whoever has written it: all mistakes in its lines, and what its lines name and is not there.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::complaint::Complaint;
use super::files::{Dirs, LARGEST, MOST, Named, not_text, other_kind};
use super::keytab;
use super::reading::{Level, Reading};
use crate::sys::{self, Answer};

/// Longest wait for the file system of a program: it may be on a file server that does not answer.
const LOOK: Duration = Duration::from_secs(2);

/// Where the files are that the configuration names.
pub struct Names<'a> {
    /// The path of a file of the checked host, as this process sees it.
    pub find: &'a dyn Fn(&Path) -> io::Result<PathBuf>,
    /// Whether a program is looked for. A service may not see all directories.
    pub is_visible: &'a dyn Fn(&Path) -> bool,
    /// Whether keytabs are looked at, which only root can.
    pub keytabs: bool,
    /// Whether the host is the running one, on which keytabs must be safe from other accounts.
    pub is_running: bool,
}

/// Every complaint about the files of the configuration, and about programs and keytabs that they name.
pub fn check(dirs: &Dirs, names: &Names<'_>) -> Vec<Complaint> {
    look(Reading::with_most(dirs, None, usize::MAX), names)
}

/// As [`check`], for the text of one file.
pub fn check_text(path: &Path, text: &str, names: &Names<'_>) -> Vec<Complaint> {
    look(Reading::of_text(path, text), names)
}

/// The complaints about programs that the configuration names and this host does not have. For the helper: not more than a
/// few.
pub fn missing_programs(dirs: &Dirs, is_visible: &dyn Fn(&Path) -> bool) -> Vec<Complaint> {
    let mut reading = Reading::new(dirs, None);
    reading.apply_all();
    let find = |path: &Path| Ok(path.to_owned());
    let names = Names { find: &find, is_visible, keytabs: false, is_running: true };
    let found = reading.named.iter().filter_map(|named| wrong(named, &names));
    found.take(MOST).collect()
}

fn look(mut reading: Reading, names: &Names<'_>) -> Vec<Complaint> {
    reading.apply_all();
    let mut complaints = std::mem::take(&mut reading.complaints);
    complaints.extend(reading.named.iter().filter_map(|named| wrong(named, names)));
    complaints.extend(principals_without_keytab(&mut reading));
    complaints.sort_by(|a, b| a.place.cmp(&b.place));
    complaints
}

/// A principal is that of a keytab in the same section, and has no effect without.
fn principals_without_keytab(reading: &mut Reading) -> Vec<Complaint> {
    let (services, users) = (reading.services.clone(), reading.users.clone());
    let levels = services.iter().map(|name| Level::Service(name)).chain(users.iter().map(|name| Level::User(name)));
    let mut found = Vec::new();
    for level in levels {
        (reading.settings.keytab, reading.settings.principal) = (None, None);
        reading.apply(level);
        if let (None, Some(principal), Some(place)) =
            (&reading.settings.keytab, &reading.settings.principal, reading.decided("principal"))
        {
            let what = format!("principal {principal} has no keytab in its section, and no effect");
            found.push(Complaint { place, what, right: "a line 'keytab = PATH' beside it".to_owned() });
        }
    }
    found
}

/// What is wrong with a file that the configuration names.
fn wrong(named: &Named, names: &Names<'_>) -> Option<Complaint> {
    let Named { option, value, place } = named;
    let path = Path::new(value.split([',', ' ', '\t']).next().filter(|word| !word.is_empty())?);
    let complain = |what: String, right: &str| Some(Complaint { place: place.clone(), what, right: right.to_owned() });
    if *option == "keytab" {
        let why = names.keytabs.then(|| keytab_fault(Path::new(value), names)).flatten()?;
        return complain(
            format!("keytab: {why}"),
            "a keytab that belongs to root, mode 0600, below root's directories",
        );
    }
    if !(names.is_visible)(path) {
        return None;
    }
    let here = (names.find)(path).unwrap_or_else(|_| path.to_owned());
    let what = match kind_of_program(&here) {
        Some(Kind::Program) => return None,
        Some(Kind::None) => "does not exist",
        Some(Kind::NoFile) => "is no file",
        Some(Kind::NotExecutable) => "is not executable",
        Some(Kind::Unseen) => "cannot be looked at",
        None => "is on a file system that does not answer",
    };
    complain(format!("{option} {} {what}", path.display()), "the path of an installed program")
}

/// What lies at the path of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Program,
    None,
    NoFile,
    NotExecutable,
    Unseen,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Program, Kind::None, Kind::NoFile, Kind::NotExecutable, Kind::Unseen];

    fn of(found: &io::Result<Metadata>) -> Self {
        match found {
            Ok(found) if !found.is_file() => Kind::NoFile,
            Ok(found) if found.mode() & 0o111 == 0 => Kind::NotExecutable,
            Ok(_) => Kind::Program,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Kind::None,
            Err(_) => Kind::Unseen,
        }
    }
}

/// Has a child look, for a bounded time. None if its file system does not answer.
#[allow(unsafe_code)] // makes a child
fn kind_of_program(path: &Path) -> Option<Kind> {
    // SAFETY: programs that check the configuration have one thread, so that a child may allocate; it executes nothing.
    let answer = unsafe {
        sys::ask(Instant::now() + LOOK, |put| {
            let kind = Kind::of(&std::fs::metadata(path));
            put(&[Kind::ALL.iter().position(|one| *one == kind).map_or(0, |index| index as u8)])
        })
    };
    let bytes = answer.and_then(Answer::bytes).ok()?;
    Kind::ALL.get(usize::from(*bytes.first()?)).copied()
}

fn keytab_fault(path: &Path, names: &Names<'_>) -> Option<String> {
    if names.is_running {
        return keytab::check(path, 0).err();
    }
    let here = (names.find)(path).unwrap_or_else(|_| path.to_owned());
    match std::fs::metadata(here) {
        Ok(found) if !found.is_file() => Some(format!("{}: it is no file", path.display())),
        Ok(found) if found.mode() & 0o077 != 0 => Some(format!("{}: group or others may use it", path.display())),
        Ok(_) => None,
        Err(error) => Some(format!("{}: {error}", path.display())),
    }
}

/// Reads a file of the configuration for a check. It is never waited for: a FIFO is called what it is. None if there is no
/// such file.
///
/// # Errors
/// Why it is not read, in words.
pub fn read_text(path: &Path) -> Result<Option<String>, String> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let opened = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let found = file.metadata().map_err(|error| error.to_string())?;
    if let Some(kind) = other_kind(&found) {
        return Err(format!("it is {kind}"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LARGEST {
        return Err("it is larger than 256 KiB".to_owned());
    }
    String::from_utf8(bytes).map(Some).map_err(|error| not_text(error.as_bytes(), error.utf8_error().valid_up_to()))
}
