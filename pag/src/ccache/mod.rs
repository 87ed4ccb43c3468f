//! The PAG's own Kerberos ccache: a DIR below `/run/pag/ccache` that belongs to the user, keeps its name for the PAG's
//! life, and outlives the login that brought the ticket (pam_krb5 deletes a session's `FILE:` at its logout).
//!
//! A user's ccache is opened by a child that has become the user, never by root: its name comes from the user's side,
//! and its file system may not answer.

pub mod format;
pub mod kcm;
pub mod keyring;
mod own;

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use zeroize::Zeroizing;

use self::format::Summary;
pub use self::own::{
    directory, empty, ended, feed, make, name, of_user, open_directory, put, remove, remove_few, stamp, unmount, users,
};
use crate::sys::{self, Identity};

/// Largest ccache that is read: a few tickets with a large PAC each are a tenth of it.
const LIMIT: usize = 1 << 20;

/// Longest name of a ccache that is taken, in bytes.
const LONGEST_NAME: usize = 1024;

/// Checks what every name of a ccache must keep to: it goes into records, messages and environments. It comes from the
/// user's side, as KRB5CCNAME, and may hold anything.
///
/// # Errors
/// In words that show the name without any harm.
pub fn check_name(name: &str) -> std::result::Result<(), String> {
    let is_hidden = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
    let what = match name {
        long if long.len() > LONGEST_NAME => "is longer than any that we take",
        odd if odd.contains(is_hidden) => "holds characters that no name of a ccache has",
        _ => return Ok(()),
    };
    let shown: String = name.chars().take(100).flat_map(char::escape_default).collect();
    Err(format!("its name, KRB5CCNAME, {what}: \"{shown}\"; look for what sets it (pam_env, ~/.pam_environment, sshd)"))
}

/// Where a ccache is, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(String),
    /// A directory with a `primary`.
    Dir(String),
    /// It belongs to the uid and not to a session (KCM, a persistent or user keyring): nothing to copy.
    OfUid(String),
}

impl Place {
    /// Takes a ccache name apart as krb5_cc_resolve does: without a type it is a file.
    ///
    /// # Errors
    /// In words, why a ccache of this kind cannot serve a PAG.
    pub fn parse(name: &str) -> std::result::Result<Self, String> {
        check_name(name)?;
        let (kind, rest) = match name.split_once(':') {
            Some((kind, rest)) if !kind.contains('/') => (kind, rest),
            _ => ("FILE", name),
        };
        let absolute = |path: &str| path.starts_with('/');
        match kind {
            "FILE" | "WRFILE" if absolute(rest) => Ok(Place::File(rest.to_owned())),
            "DIR" if absolute(rest) => Ok(Place::Dir(rest.to_owned())),
            // `DIR::/path/tkt` names one cache of a collection.
            "DIR" if rest.strip_prefix(':').is_some_and(absolute) => {
                Ok(Place::File(rest.trim_start_matches(':').to_owned()))
            }
            "KCM" => Ok(Place::OfUid(name.to_owned())),
            "KEYRING" if rest.starts_with("persistent:") || rest.starts_with("user:") => {
                Ok(Place::OfUid(name.to_owned()))
            }
            "KEYRING" => Err("a KEYRING ccache of a session or process ends with the session keyring of this login; \
                              use FILE, DIR, KCM or KEYRING:persistent"
                .to_owned()),
            "FILE" | "WRFILE" | "DIR" => Err("its path is not absolute".to_owned()),
            _ => Err("its type is none that outlives a process".to_owned()),
        }
    }
}

/// A ccache that was read.
#[derive(Debug)]
pub struct Contents {
    /// Whose it is, and how long it is good.
    pub summary: Summary,
    /// The file as it is: it holds session keys, so it is wiped when it is dropped.
    bytes: Zeroizing<Vec<u8>>,
}

/// Reads a ccache as the user, in a child, at most until `deadline`.
///
/// # Errors
/// In words, what is wrong with it: missing, not the user's, not a ccache, or not read in time.
pub fn read(place: &Place, user: &Identity, deadline: Instant) -> std::result::Result<Contents, String> {
    let path = match place {
        Place::File(path) => path.clone(),
        Place::Dir(dir) => {
            let primary = read_file(&format!("{dir}/primary"), user, deadline).ok();
            let name = primary.as_ref().and_then(|bytes| str::from_utf8(bytes).ok()).map_or("tkt", str::trim_end);
            // MIT's own rule for the name in `primary` (cc_dir.c, read_primary_file): no path, and it begins with tkt.
            if name.contains('/') || !name.starts_with("tkt") {
                return Err("its `primary` names no ccache".to_owned());
            }
            format!("{dir}/{name}")
        }
        Place::OfUid(_) => return Err("it is not a file".to_owned()),
    };
    let bytes = read_file(&path, user, deadline)?;
    let summary = format::parse(&bytes).map_err(|error| error.to_string())?;
    Ok(Contents { summary, bytes })
}

fn read_file(path: &str, user: &Identity, deadline: Instant) -> std::result::Result<Zeroizing<Vec<u8>>, String> {
    let c_path = CString::new(path).map_err(|_| "its path holds a NUL".to_owned())?;
    if let Some(bytes) = read_at_once(path, user.uid) {
        return Ok(bytes);
    }
    let words = |error: io::Error| error.to_string();
    let answer = sys::ask_as(user, deadline, |put| sys::copy_file_to(&c_path, put, LIMIT)).map_err(words)?;
    answer.bytes().map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => "it could not be read in time".to_owned(),
        _ => "the user cannot read it".to_owned(),
    })
}

/// Reads a ccache without a child where it usually is and where nobody has to be waited for: `/tmp`.
fn read_at_once(path: &str, uid: u32) -> Option<Zeroizing<Vec<u8>>> {
    let name = Path::new(path).strip_prefix("/tmp").ok()?;
    let name = CString::new(name.as_os_str().as_bytes()).ok()?;
    sys::read_at_once(c"/tmp", &name, uid, LIMIT).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_a_ccache_is() {
        let file = |path: &str| Ok(Place::File(path.to_owned()));
        assert_eq!(Place::parse("/tmp/krb5cc_1"), file("/tmp/krb5cc_1"));
        assert_eq!(Place::parse("FILE:/tmp/krb5cc_1"), file("/tmp/krb5cc_1"));
        assert_eq!(Place::parse("/tmp/a:b"), file("/tmp/a:b"));
        assert_eq!(Place::parse("DIR::/run/x/tkt1"), file("/run/x/tkt1"));
        assert_eq!(Place::parse("DIR:/run/x"), Ok(Place::Dir("/run/x".to_owned())));
        assert_eq!(Place::parse("KCM:"), Ok(Place::OfUid("KCM:".to_owned())));
        let persistent = "KEYRING:persistent:61001";
        assert_eq!(Place::parse(persistent), Ok(Place::OfUid(persistent.to_owned())));
    }

    #[test]
    fn what_cannot_outlive_a_login_is_refused() {
        for name in ["", "FILE:", "FILE:relative", "KEYRING:session:x", "KEYRING:x", "MEMORY:x", "DIR:x", "\0"] {
            assert!(Place::parse(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_name_that_could_break_a_line_is_refused_and_shown_in_one() {
        let long = format!("KCM:{}", "x".repeat(LONGEST_NAME));
        for name in
            ["KCM:x\nlease 1", "FILE:/tmp/x\r", "DIR:/run/\u{1b}[2J", "/tmp/a\0b", "KCM:\u{fffd}", "KCM:\u{85}", &long]
        {
            let why = Place::parse(name).unwrap_err();
            assert!(why.is_ascii() && !why.contains(|c: char| c.is_control()), "{why}");
            assert!(why.contains("KRB5CCNAME") && why.len() < 400, "{why}");
        }
        assert!(Place::parse(&long[..LONGEST_NAME]).is_ok());
        assert!(Place::parse("FILE:/tmp/a name with spaces").is_ok());
    }
}
