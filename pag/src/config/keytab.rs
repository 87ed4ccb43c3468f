//! Keytabs. With a key from a keytab, a user or service gets tickets without a password. Only root reads keytabs. Other
//! accounts get the tickets and not the key.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The user or service that a keytab is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeytabOwner {
    /// All PAGs of the user of this name.
    User(String),
    /// The PAGs of logins at this PAM service, such as a system service with `PAMName=`.
    Service(String),
}

/// A keytab as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keytab {
    /// The file.
    pub path: PathBuf,
    /// The principal of the key to take from it. None stands for [`key_name`](super::account::key_name).
    pub principal: Option<String>,
}

/// Checks that only root and `owner` can read a keytab or replace it. The file belongs to `owner` and has no bits for
/// group and others. The directories above it belong to `owner` or root, and group and others can't write them. No part
/// of the path is a link.
///
/// # Errors
/// In words: the path that is wrong, and the reason.
pub fn check(path: &Path, owner: u32) -> Result<(), String> {
    let wrong = |at: &Path, what: &str| Err(format!("{}: {what}", at.display()));
    let mut directories: Vec<&Path> = path.ancestors().skip(1).collect();
    directories.reverse();
    for directory in directories {
        match directory.symlink_metadata() {
            Err(error) => return wrong(directory, &error.to_string()),
            Ok(found) if !found.is_dir() => return wrong(directory, "it is a link or no directory"),
            Ok(found) if (found.uid() != owner && found.uid() != 0) || found.mode() & 0o022 != 0 => {
                return wrong(directory, &format!("other accounts than {} can write it", account(owner)));
            }
            Ok(_) => {}
        }
    }
    match path.symlink_metadata() {
        Err(error) => wrong(path, &error.to_string()),
        Ok(found) if !found.is_file() => wrong(path, "it is a link or no file"),
        Ok(found) if found.uid() != owner => wrong(
            path,
            &if owner == 0 {
                "it does not belong to root".to_owned()
            } else {
                format!("it does not belong to uid {owner}")
            },
        ),
        Ok(found) if found.mode() & 0o077 != 0 => wrong(path, "group or others may use it; right would be mode 0600"),
        Ok(_) => Ok(()),
    }
}

/// The owner of a keytab, for a message.
fn account(owner: u32) -> String {
    if owner == 0 { "root".to_owned() } else { format!("root and uid {owner}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_keytab_that_others_could_read_or_replace_is_refused() {
        // Not in /tmp, which each account can write.
        let top = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let owner = fs::metadata(top.path()).unwrap().uid();
        let (directory, path) = (top.path().join("keys"), top.path().join("keys/alice"));
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        fs::create_dir(&directory).unwrap();
        fs::write(&path, "").unwrap();
        let verdict = || check(&path, owner).map_err(|why| why.rsplit(": ").next().unwrap().to_owned());
        mode(&directory, 0o755);
        mode(&path, 0o600);
        if check(top.path(), owner).is_err_and(|why| why.contains("can write it")) {
            // Others can write a directory above the source tree. The check refuses all paths below it.
            assert!(verdict().is_err());
            return;
        }
        assert_eq!(verdict(), Ok(()));
        for bad in [0o640, 0o604, 0o620, 0o601] {
            mode(&path, bad);
            assert!(verdict().unwrap_err().starts_with("group or others"), "{bad:o}");
        }
        mode(&path, 0o600);
        for bad in [0o775, 0o757, 0o1777] {
            mode(&directory, bad);
            assert!(verdict().unwrap_err().starts_with("other accounts than root"), "{bad:o}");
        }
        mode(&directory, 0o755);
        let link = top.path().join("keys/link");
        symlink(&path, &link).unwrap();
        assert!(check(&link, owner).unwrap_err().contains("it is a link"));
        symlink(&directory, top.path().join("other")).unwrap();
        assert!(check(&top.path().join("other/alice"), owner).unwrap_err().contains("it is a link"));
        assert!(check(&top.path().join("keys/missing"), owner).is_err());
        assert!(check(&path, owner.wrapping_add(1)).is_err());
    }
}
