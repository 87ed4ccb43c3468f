//! The host whose PAM files are looked at: reading below its root, drafts of changes, and writing them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::edit::Edit;
use super::stack::Files;
use crate::error::Error;

/// Where the texts go that were replaced: out of libpam's sight.
const BACKUPS: &str = "/var/lib/pag/pam-backup";
/// More symbolic links in a row are a loop.
const LINKS: usize = 8;

/// A host's file system. Paths are absolute, as seen by that host.
#[derive(Debug)]
pub(crate) struct Host {
    root: PathBuf,
}

impl Host {
    /// The host whose `/` is here.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Whether it is the running system.
    pub(crate) fn is_running(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The directory that is its `/`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a path of the host is for us, symbolic links of the last component followed inside the root.
    pub(crate) fn find(&self, path: &str) -> PathBuf {
        let mut here = self.outside(Path::new(path));
        for _ in 0..LINKS {
            let Ok(target) = fs::read_link(&here) else {
                break;
            };
            here = if target.is_absolute() {
                self.outside(&target)
            } else {
                here.parent().unwrap_or(&self.root).join(target)
            };
        }
        here
    }

    fn outside(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether a file or directory is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.find(path).exists()
    }

    /// Where a symbolic link points, if it is one.
    pub(crate) fn link(&self, path: &str) -> Option<PathBuf> {
        fs::read_link(self.outside(Path::new(path))).ok()
    }

    /// Why a file is not fit to be changed, if it is not.
    pub(crate) fn unfit(&self, path: &str) -> Option<String> {
        if let Some(target) = self.link(path) {
            return Some(format!("a symbolic link to {}: another tool looks after it", target.display()));
        }
        let path = self.find(path);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(error.to_string()),
            Ok(file) if !file.is_file() => Some("not a regular file".to_owned()),
            Ok(file) if file.nlink() > 1 => Some("it has a second name (hard link)".to_owned()),
            Ok(_) => match fs::read(&path).map(String::from_utf8) {
                Ok(Ok(_)) => None,
                Ok(Err(_)) => Some("not UTF-8 text".to_owned()),
                Err(error) => Some(error.to_string()),
            },
        }
    }

    /// The names in a directory, sorted; none when it is not there.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.find(directory)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Carries out an edit: keeps what was there, then replaces the file in one step. Says where the old text is.
    pub(crate) fn write(&self, edit: &Edit, before: Option<&str>) -> Result<Option<String>, Error> {
        let path = self.outside(Path::new(&edit.path));
        if self.text(&edit.path).as_deref() != before {
            return Err(Error::Changed(path));
        }
        let backup = before.map(|text| self.back_up(&path, text)).transpose()?;
        match &edit.text {
            None => fs::remove_file(&path).map_err(Error::file("remove", &path))?,
            Some(text) => self.replace(&path, text)?,
        }
        let directory = path.parent().unwrap_or(&self.root);
        File::open(directory).and_then(|dir| dir.sync_all()).map_err(Error::file("sync", directory))?;
        Ok(backup)
    }

    fn back_up(&self, path: &Path, text: &str) -> Result<String, Error> {
        let directory = self.outside(Path::new(BACKUPS));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&directory)
            .map_err(Error::file("make directory", &directory))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let mut number = 0;
        loop {
            let name = format!("{name}.{seconds}.{number}");
            let copy = directory.join(&name);
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy) {
                Ok(mut file) => {
                    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
                    written.map_err(Error::file("write", &copy))?;
                    return Ok(format!("{BACKUPS}/{name}"));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(Error::file("create", &copy)(error)),
            }
        }
    }

    /// A login that begins now sees the old file or the new one, never half of one.
    fn replace(&self, path: &Path, text: &str) -> Result<(), Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // No service has a name like this; it is gone in a moment.
        let draft = path.with_file_name(format!(".{name}.pagctl.{}", std::process::id()));
        let done = fill(&draft, path, text).and_then(|()| fs::rename(&draft, path));
        done.map_err(|error| {
            let _ = fs::remove_file(&draft);
            Error::file("write", path)(error)
        })
    }
}

fn fill(draft: &Path, like: &Path, text: &str) -> io::Result<()> {
    let before = fs::metadata(like).ok();
    let mode = before.as_ref().map_or(0o644, |file| file.mode() & 0o7777);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    if let Some(before) = &before {
        fchown(&file, Some(before.uid()), Some(before.gid()))?;
        // Access lists and the SELinux label: cp knows how, on every kernel. Without it the directory's default is right.
        let _ = Command::new("cp")
            .args(["--attributes-only", "--preserve=all", "--"])
            .args([like, draft])
            .stderr(Stdio::null())
            .status();
    }
    file.write_all(text.as_bytes())?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.sync_all()
}

impl Files for Host {
    fn text(&self, path: &str) -> Option<String> {
        let path = self.find(path);
        // Not a fifo, which would hang us.
        fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        // What is no UTF-8 is not understood later on, and left alone.
        fs::read(&path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A host as it will be.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    host: &'a Host,
    /// What others will have written, by their path.
    assumed: BTreeMap<String, String>,
    /// What we will write.
    edited: BTreeMap<String, Option<String>>,
}

impl<'a> Draft<'a> {
    /// Nothing changed yet.
    pub(crate) fn new(host: &'a Host) -> Self {
        Self { host, assumed: BTreeMap::new(), edited: BTreeMap::new() }
    }

    /// From now on a file reads like this, without our doing.
    pub(crate) fn assume(&mut self, path: &str, text: String) {
        self.assumed.insert(path.to_owned(), text);
    }

    /// From now on a file reads like this, by our doing.
    pub(crate) fn edit(&mut self, edit: Edit) {
        self.edited.insert(edit.path, edit.text);
    }

    /// Takes the last word on a file back.
    pub(crate) fn restore(&mut self, path: &str, text: Option<Option<String>>) {
        match text {
            Some(text) => self.edited.insert(path.to_owned(), text),
            None => self.edited.remove(path),
        };
    }

    /// Our word on a file so far.
    pub(crate) fn edited(&self, path: &str) -> Option<Option<String>> {
        self.edited.get(path).cloned()
    }

    /// What is to be written: the edits that change something.
    pub(crate) fn edits(&self) -> Vec<Edit> {
        let edits = self.edited.iter().filter(|(path, text)| self.host.text(path) != **text);
        edits.map(|(path, text)| Edit { path: path.clone(), text: text.clone() }).collect()
    }
}

impl Files for Draft<'_> {
    fn text(&self, path: &str) -> Option<String> {
        match self.edited.get(path) {
            Some(text) => text.clone(),
            None => self.assumed.get(path).cloned().or_else(|| self.host.text(path)),
        }
    }
}
