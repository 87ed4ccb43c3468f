//! `/run/pag`, which holds the state of the running system: locks, the PAGs' own ccaches, the helper's
//! socket.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys;

/// The directory.
pub const TOP: &str = "/run/pag";

/// The directory of the locks.
pub fn locks() -> PathBuf {
    Path::new(TOP).join("lock")
}

/// The directory of the PAGs' own ccaches.
pub fn ccaches() -> PathBuf {
    Path::new(TOP).join("ccache")
}

/// Makes `/run/pag` and its subdirectories, for systems where the helper has not run yet. Needs root.
///
/// # Errors
/// What the file system reports; `PermissionDenied` if a path is no directory, or not root's.
pub fn make_directories() -> io::Result<()> {
    let run = Path::new(TOP);
    for (path, mode) in [(run.to_owned(), 0o755), (locks(), 0o700), (ccaches(), 0o711)] {
        match sys::make_directory(&path, mode) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let found = std::fs::symlink_metadata(&path)?;
                if !found.is_dir() || found.uid() != 0 {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
