//! `/run/pag`, where the state of the running system lies: locks, the PAGs' own ccaches, the helper's socket.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys;

/// The directory.
pub const TOP: &str = "/run/pag";

/// Where the locks lie.
pub fn locks() -> PathBuf {
    Path::new(TOP).join("lock")
}

/// Where the PAGs' own ccaches lie.
pub fn ccaches() -> PathBuf {
    Path::new(TOP).join("ccache")
}

/// Makes `/run/pag` and what belongs below it, for systems where the helper has not run yet.
///
/// # Errors
/// What the file system says, and `PermissionDenied` for a directory that somebody else has put there.
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
