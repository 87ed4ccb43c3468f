//! Looks at the tickets that logins keep for themselves, in `/tmp`: who renews or replaces his there, by kinit or by a
//! Kerberos module that locks screens, has done it for his PAG.
//!
//! A look asks for a file's times and opens nothing, every few seconds: a kinit replaces the file, so a watch of inotify's
//! would be lost with the first, and one of the directory would wake us for whatever anybody does in `/tmp`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pag::registry::PagId;
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};

/// Between two looks at a file.
const PAUSE: Duration = Duration::from_secs(5);
/// A user's files that are looked at for one PAG; he may have any number of logins.
const MOST: usize = 16;
/// Names where our unit shows us the host's `/tmp`: what the unit gives us for `/tmp` is another.
const VARIABLE: &str = "PAG_TMP";

/// By what one notices that a file was written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    seconds: i64,
    nanoseconds: u32,
}

/// The files that are looked at.
pub(crate) struct Tickets {
    tmp: PathBuf,
    seen: BTreeMap<(PagId, PathBuf), (u32, Option<Stamp>)>,
    next: Option<Instant>,
}

impl Tickets {
    /// Looks at none yet.
    pub(crate) fn new() -> Self {
        Self::within(std::env::var_os(VARIABLE).map_or_else(|| "/tmp".into(), PathBuf::from))
    }

    fn within(tmp: PathBuf) -> Self {
        Tickets { tmp, seen: BTreeMap::new(), next: None }
    }

    /// Looks at these files and no others: PAG, user, and the file's path on the host.
    pub(crate) fn set(&mut self, wanted: impl Iterator<Item = (PagId, u32, PathBuf)>) {
        let mut before = std::mem::take(&mut self.seen);
        for (pag, uid, path) in wanted {
            let place = (pag, self.tmp.join(path.strip_prefix("/tmp").unwrap_or(&path)));
            // One that is new is looked into: something may have been written while nobody looked.
            let seen = before.remove(&place).unwrap_or((uid, None));
            if self.seen.range((pag, PathBuf::new())..).take_while(|((of, _), _)| *of == pag).count() < MOST {
                self.seen.insert(place, seen);
            }
        }
        self.next = match self.next {
            _ if self.seen.is_empty() => None,
            None => Some(Instant::now() + PAUSE),
            next => next,
        };
    }

    /// The files that are other than they were, and the PAGs that they are to be read for.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(PagId, PathBuf)> {
        if self.next.is_none_or(|moment| moment > now) {
            return Vec::new();
        }
        self.next = Some(now + PAUSE);
        let mut due = Vec::new();
        for ((pag, path), (uid, seen)) in &mut self.seen {
            let found = stamp(path, *uid);
            if found.is_some() && found != *seen {
                due.push((*pag, path.clone()));
            }
            *seen = found;
        }
        due
    }

    /// When they are looked at next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }
}

/// None for what is not there, or no file of this user's own. A link is not followed, and a file system that a user has
/// mounted there is not asked (statx(2), AT_STATX_DONT_SYNC).
fn stamp(path: &Path, uid: u32) -> Option<Stamp> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = statx(CWD, path, flags, StatxFlags::BASIC_STATS).ok()?;
    let is_his = found.stx_uid == uid && FileType::from_raw_mode(found.stx_mode.into()) == FileType::RegularFile;
    is_his.then_some(Stamp {
        inode: found.stx_ino,
        length: found.stx_size,
        seconds: found.stx_mtime.tv_sec,
        nanoseconds: found.stx_mtime.tv_nsec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn due(tickets: &mut Tickets) -> usize {
        let moment = tickets.next().expect("something is looked at");
        assert_eq!(tickets.due(moment - Duration::from_millis(1)), []);
        tickets.due(moment).len()
    }

    #[test]
    fn a_file_that_is_new_written_or_replaced_is_due_once() {
        let top = tempfile::tempdir().unwrap();
        let mut tickets = Tickets::within(top.path().to_owned());
        let uid = std::fs::metadata(top.path()).unwrap().uid();
        let all =
            || [(PagId::from(1), uid, PathBuf::from("/tmp/cc")), (PagId::from(1), uid, PathBuf::from("/tmp/link"))];
        let file = top.path().join("cc");
        tickets.set(all().into_iter());
        std::os::unix::fs::symlink("cc", top.path().join("link")).unwrap();
        assert_eq!(due(&mut tickets), 0);
        std::fs::write(&file, "a ticket").unwrap();
        assert_eq!(due(&mut tickets), 1);
        assert_eq!(due(&mut tickets), 0);
        std::fs::write(&file, "another ticket").unwrap();
        tickets.set(all().into_iter());
        assert_eq!(due(&mut tickets), 1);
        std::fs::write(top.path().join("new"), "another ticket").unwrap();
        std::fs::rename(top.path().join("new"), &file).unwrap();
        assert_eq!(due(&mut tickets), 1);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(due(&mut tickets), 0);
        tickets.set(std::iter::empty());
        assert_eq!(tickets.next(), None);
    }

    #[test]
    fn a_strangers_file_and_what_is_no_file_are_passed_over() {
        let top = tempfile::tempdir().unwrap();
        let uid = std::fs::metadata(top.path()).unwrap().uid();
        std::fs::write(top.path().join("cc"), "").unwrap();
        assert!(stamp(&top.path().join("cc"), uid).is_some());
        assert_eq!(stamp(&top.path().join("cc"), uid + 1), None);
        assert_eq!(stamp(top.path(), uid), None);
    }

    #[test]
    fn no_more_files_than_a_few_are_looked_at_for_a_pag() {
        let mut tickets = Tickets::within("/nowhere".into());
        let many = |pag: u64| (0..100).map(move |n| (PagId::from(pag), 1, PathBuf::from(format!("/tmp/{n}"))));
        tickets.set(many(1).chain(many(2)));
        assert_eq!(tickets.seen.len(), 2 * MOST);
    }
}
