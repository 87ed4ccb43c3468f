//! `pagctl metrics`: numbers for monitoring, as a text that Prometheus reads.

mod numbers;
mod text;

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pag::guard::{Guard, HandleGroup};
use pag::store::registry::Registry;
use pag::sys;

use self::numbers::{Facts, families};
use crate::output::{Answer, Error, out};
use crate::{doctor, remote};

#[derive(Debug, clap::Args)]
pub(crate) struct Metrics {
    /// Replace this file, in one step, instead of printing
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Prints the numbers, or writes them to a file.
///
/// # Errors
/// The caller is not root, the registry cannot be read, or the file cannot be written.
pub(crate) fn run(metrics: &Metrics) -> Result<Answer, Error> {
    let guard = Guard::enter(HandleGroup::read())?;
    let registry = Registry::find(&guard)?;
    let pags = registry.map_or(Ok(Vec::new()), |registry| registry.pags(&guard))?;
    drop(guard);
    let helper = remote::statistics();
    let facts = Facts {
        restarts: doctor::helper_restarts(),
        outside: doctor::managers_outside(&pags, helper.as_ref()).map(|managers| managers.len()),
        helper,
        records: pags.into_iter().map(|pag| pag.record.ok()).collect(),
    };
    let text = text::render(&families(&facts, sys::now(), |lease| lease.process.is_alive()));
    match &metrics.output {
        Some(file) => replace(file, &text).map_err(Error::file("write", file))?,
        None => out!("{text}"),
    }
    Ok(Answer::AllRight)
}

/// Replaces a file in one step: the collector never reads half of it. The name that the file has before that is none that
/// the collector reads (it takes `*.prom`). The directory may belong to the collector, so no link in it is followed.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let name = file.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let new = file.with_file_name(hidden);
    // A process that was killed may have left it, and had our number.
    let _ = fs::remove_file(&new);
    let write = || {
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        to.write_all(text.as_bytes())?;
        to.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(&new, file)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn a_file_is_replaced_in_one_step() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("pag.prom");
        let victim = place.path().join("victim");
        fs::write(&victim, "theirs").unwrap();
        symlink(&victim, &file).unwrap();
        replace(&file, "one\n").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "theirs", "a link is replaced, and not followed");
        let before = fs::metadata(&file).unwrap().ino();
        let open = fs::File::open(&file).unwrap();
        replace(&file, "two\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two\n");
        assert_ne!(fs::metadata(&file).unwrap().ino(), before, "it is another file");
        assert_eq!(io::read_to_string(open).unwrap(), "one\n", "who reads the old one reads all of it");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        fs::create_dir(place.path().join("directory.prom")).unwrap();
        replace(&place.path().join("directory.prom"), "x").unwrap_err();
        replace(Path::new("/"), "x").unwrap_err();
        let names = fs::read_dir(place.path()).unwrap().count();
        assert_eq!(names, 3, "nothing is left behind");
    }
}
