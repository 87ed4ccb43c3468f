//! The host with the PAM files: reading below its root, and writing edits.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::edit::Edit;
use super::parse::Libpam;
use super::stack::{Files, Opened};
use crate::output::Error;

/// The directory for the old texts of changed files; libpam does not look there.
const BACKUPS: &str = "/var/lib/pag/pam-backup";
/// A path that leads over more symbolic links is a loop.
const LINKS: usize = 40;

/// A host's file system. Paths are absolute, as seen by that host.
#[derive(Debug)]
pub(crate) struct Host {
    root: PathBuf,
    libpam: Libpam,
}

impl Host {
    /// The host with its `/` in this directory.
    pub(crate) fn new(root: &Path) -> Result<Self, Error> {
        let found = fs::metadata(root).and_then(|found| match found.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        });
        found.map_err(Error::file("look below", root))?;
        let mut host = Self { root: root.to_owned(), libpam: Libpam::NEWEST };
        host.libpam = host.read_libpam();
        Ok(host)
    }

    /// The kind of its libpam; the newest of its distribution where none is installed.
    fn read_libpam(&self) -> Libpam {
        let program = self.library_directories().into_iter().find_map(|directory| {
            let path = self.find(&format!("{directory}/libpam.so.0")).ok()?;
            fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
            fs::read(path).ok()
        });
        match program {
            Some(program) => Libpam::of_program(&program),
            None => Libpam { debian: self.has("/etc/debian_version"), ..Libpam::NEWEST },
        }
    }

    /// The directories for libraries; PAM modules are in `security` below them.
    pub(crate) fn library_directories(&self) -> Vec<String> {
        let multiarch = ["/usr/lib", "/lib"].into_iter().flat_map(|base| {
            let names = self.names(base).into_iter().filter(|name| name.contains("-linux-"));
            names.map(move |name| format!("{base}/{name}"))
        });
        let plain = ["/usr/lib64", "/usr/lib", "/lib64", "/lib"].map(str::to_owned);
        plain.into_iter().chain(multiarch).collect()
    }

    /// Whether it is the running system.
    pub(crate) fn is_running(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The directory that is its `/`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The path of the host's file as we see it. Symbolic links are followed inside the root, as in a chroot. A user that
    /// can change the root at the same time is trusted.
    pub(crate) fn find(&self, path: &str) -> io::Result<PathBuf> {
        let mut here = PathBuf::new();
        let mut rest: Vec<PathBuf> = parts(Path::new(path));
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == Path::new("..") {
                here.pop();
                continue;
            }
            let next = here.join(part);
            match fs::read_link(self.root.join(&next)) {
                Ok(_) if links == LINKS => return Err(io::Error::other("too many symbolic links")),
                Ok(target) => {
                    links += 1;
                    if target.is_absolute() {
                        here = PathBuf::new();
                    }
                    rest.extend(parts(&target));
                }
                Err(_) => here = next,
            }
        }
        Ok(self.root.join(here))
    }

    /// The same, but a symbolic link at the end of the path is not followed.
    fn place(&self, path: &str) -> io::Result<PathBuf> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(self.find(directory)?.join(name))
    }

    /// Whether a file or directory is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.find(path).is_ok_and(|path| path.exists())
    }

    /// Where a symbolic link points, if it is one.
    pub(crate) fn link(&self, path: &str) -> Option<PathBuf> {
        self.place(path).and_then(fs::read_link).ok()
    }

    /// Why a file is not fit to be changed, if it is not.
    pub(crate) fn unfit(&self, path: &str) -> Option<String> {
        if let Some(target) = self.link(path) {
            let target = target.display();
            return Some(format!(
                "a symbolic link to {target}: the tool that made it looks after it, and is to add the line"
            ));
        }
        let path = match self.place(path) {
            Ok(path) => path,
            Err(error) => return Some(error.to_string()),
        };
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

    /// Carries out an edit: keeps the old text, then replaces the file in one step. Returns the path of the old text.
    pub(crate) fn write(&self, edit: &Edit, before: Option<&str>) -> Result<Option<String>, Error> {
        let path = self.place(&edit.path).map_err(Error::file("find", Path::new(&edit.path)))?;
        if self.text(&edit.path).as_deref() != before {
            let why = format!("{} has changed since it was read, so it is left as it is; try again", path.display());
            return Err(Error::Refused(why));
        }
        let directory = path.parent().unwrap_or(&self.root);
        // A host may have the vendor's directory alone.
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(Error::file("make", directory))?;
        let backup = before.map(|text| back_up(self, &path, text)).transpose()?;
        match &edit.text {
            None => fs::remove_file(&path).map_err(Error::file("remove", &path))?,
            Some(text) => replace(&path, text)?,
        }
        File::open(directory).and_then(|dir| dir.sync_all()).map_err(Error::file("sync", directory))?;
        Ok(backup)
    }
}

/// Keeps the old text of a file. Returns where.
fn back_up(host: &Host, path: &Path, text: &str) -> Result<String, Error> {
    let directory = host.find(BACKUPS).map_err(Error::file("find", Path::new(BACKUPS)))?;
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
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // No service has a name like this; it is gone in a moment.
    let draft = path.with_file_name(format!(".{name}.pagctl.{}", std::process::id()));
    let done = fill(&draft, path, text).and_then(|()| fs::rename(&draft, path));
    done.map_err(|error| {
        let _ = fs::remove_file(&draft);
        Error::file("write", path)(error)
    })
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

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let named = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    named.rev().map(|part| PathBuf::from(part.as_os_str())).collect()
}

impl Files for Host {
    fn open(&self, path: &str) -> Opened {
        let found = self.find(path).and_then(|path| {
            let file = fs::metadata(&path)?;
            match () {
                // libpam can open a directory, too, and reads nothing from it.
                () if file.is_dir() => Ok(Vec::new()),
                // A fifo would hang us.
                () if !file.is_file() => Err(io::Error::other("not a regular file")),
                () => fs::read(&path),
            }
        });
        match found {
            // Text that is not UTF-8 is not understood later on, and stays as it is.
            Ok(bytes) => Opened::Text(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Opened::Missing,
                io::ErrorKind::PermissionDenied => Opened::Unreadable(format!("{error}; run pagctl as root")),
                _ => Opened::Unreadable(error.to_string()),
            },
        }
    }

    fn libpam(&self) -> Libpam {
        self.libpam
    }

    fn real_path(&self, path: &str) -> String {
        let found = self.find(path).ok();
        let inside = found.as_ref().and_then(|found| found.strip_prefix(&self.root).ok()?.to_str());
        inside.map_or_else(|| path.to_owned(), |inside| format!("/{}", inside.trim_start_matches('/')))
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = self.find(directory).and_then(fs::read_dir).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}
