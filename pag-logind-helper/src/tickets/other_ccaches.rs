//! Tells when there is a new ticket outside of the PAGs' own ccaches: in `/tmp`, in KCM, or in a keyring of the uid, where
//! logins keep their tickets. If kinit, or a Kerberos module that unlocks a screen, renews or replaces the ticket there, it
//! is meant for the PAG.
//!
//! The helper is not told of that, so it looks every few seconds. It asks for the times of a file and opens nothing. inotify
//! is of no use: kinit replaces the file, and a watch of `/tmp` would wake the helper for all that is done there. Of a
//! keyring or KCM it asks for the numbers of the tickets. A ccache that has changed is then read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pag::ccache::{self, CcacheName};
use pag::types::PagId;
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};

use crate::pags::users::reader;

/// Longest time to ask KCM, or the kernel for a user's keyrings.
const STAMP_LIMIT: Duration = Duration::from_millis(300);
/// Between two rounds of looks.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest time of a round for the ccaches that take a child each: KCM is one daemon, which may not answer.
const ROUND: Duration = Duration::from_millis(500);
/// The part of the helper's time that rounds may take: one in so many.
const SHARE: u32 = 20;
/// Most ccaches that are looked at for one PAG, which may have any number of logins.
const MOST: usize = 16;
/// The variable that names where the helper's unit shows the host's `/tmp`. The helper's own `/tmp` is another one.
const VARIABLE: &str = "PAG_TMP";

/// Another stamp means that a file was written or replaced, or a ticket in a keyring or in KCM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    File {
        inode: u64,
        length: u64,
        seconds: i64,
        nanoseconds: u32,
    },
    /// A hash of the numbers of the tickets. 0 without any.
    OfUid(u64),
}

/// A ccache that may have a ticket for these PAGs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) uid: u32,
    /// A file has its path in the helper's view of the host's `/tmp`.
    pub(crate) place: CcacheName,
    pub(crate) pags: Vec<PagId>,
}

/// A ccache that is looked at.
#[derive(Debug, Default)]
struct Watched {
    /// PAGs with a login that has this ccache.
    pags: BTreeSet<PagId>,
    /// Its stamp when it was read for all of them. None: it is to be read in any case.
    seen: Option<Stamp>,
}

impl Watched {
    /// Takes in the stamp that was found. True if the ccache is to be read.
    fn is_due(&mut self, found: Option<Stamp>) -> bool {
        // Without an answer nothing is known, and without a ticket nothing is to be read.
        let Some(found) = found else { return false };
        self.seen.replace(found) != Some(found) && found != Stamp::OfUid(0)
    }
}

/// A user, and a ccache of that user.
type Key = (u32, CcacheName);

/// What is looked at.
pub(crate) struct OtherCcaches {
    tmp: PathBuf,
    files: BTreeMap<Key, Watched>,
    /// Those in KCM and keyrings, which take a child each.
    of_uid: BTreeMap<Key, Watched>,
    next: Option<Instant>,
    /// Where a round was cut short, and the next one begins.
    cut: Option<Key>,
}

impl OtherCcaches {
    /// Looks at none yet.
    pub(crate) fn new() -> Self {
        Self::within(std::env::var_os(VARIABLE).map_or_else(|| "/tmp".into(), PathBuf::from))
    }

    fn within(tmp: PathBuf) -> Self {
        OtherCcaches { tmp, files: BTreeMap::new(), of_uid: BTreeMap::new(), next: None, cut: None }
    }

    /// Looks at these and no others: PAG, user, and ccache, a file by its path on the host. One that is new for a PAG is read:
    /// it may have been written before.
    pub(crate) fn set(&mut self, wanted: impl Iterator<Item = (PagId, u32, CcacheName)>) {
        let mut before = std::mem::take(&mut self.files);
        before.append(&mut self.of_uid);
        let mut count: BTreeMap<PagId, BTreeSet<Key>> = BTreeMap::new();
        for (pag, uid, place) in wanted {
            let place = match place {
                CcacheName::File(path) => CcacheName::File(self.seen_from_here(&path)),
                place => place,
            };
            let key = (uid, place);
            let of_pag = count.entry(pag).or_default();
            if of_pag.len() < MOST && of_pag.insert(key.clone()) {
                let all = if key.1.is_of_uid() { &mut self.of_uid } else { &mut self.files };
                all.entry(key).or_default().pags.insert(pag);
            }
        }
        for (key, watched) in self.files.iter_mut().chain(&mut self.of_uid) {
            let known = before.remove(key).filter(|before| watched.pags.is_subset(&before.pags));
            watched.seen = known.and_then(|before| before.seen);
        }
        self.next = match self.next {
            _ if self.files.is_empty() && self.of_uid.is_empty() => None,
            None => Some(Instant::now() + PAUSE),
            next => next,
        };
    }

    fn seen_from_here(&self, path: &str) -> String {
        self.tmp.join(path.strip_prefix("/tmp/").unwrap_or(path)).display().to_string()
    }

    /// The ccaches with other tickets than there were, each once.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Due> {
        if self.next.is_none_or(|moment| moment > now) {
            return Vec::new();
        }
        let (begun, mut due) = (Instant::now(), Vec::new());
        let one = |(uid, place): &Key, watched: &Watched| Due {
            uid: *uid,
            place: place.clone(),
            pags: watched.pags.iter().copied().collect(),
        };
        for (key, watched) in &mut self.files {
            let (uid, CcacheName::File(path)) = key else { continue };
            let found = stamp(Path::new(path), *uid);
            // One that was removed and comes back is read anew.
            watched.seen = watched.seen.filter(|_| found.is_some());
            if watched.is_due(found) {
                due.push(one(key, watched));
            }
        }
        let mut first = self.cut.take().map_or_else(BTreeMap::new, |cut| self.of_uid.split_off(&cut));
        let mut silent = BTreeSet::new();
        for (key, watched) in first.iter_mut().chain(&mut self.of_uid) {
            if begun.elapsed() >= ROUND {
                self.cut.get_or_insert_with(|| key.clone());
                continue;
            }
            // A user's daemon or keyring that does not answer for one ccache does not for another.
            let asked = Instant::now();
            let found = if silent.contains(&key.0) { None } else { stamp_of_uid(key) };
            if asked.elapsed() >= STAMP_LIMIT {
                silent.insert(key.0);
            }
            if watched.is_due(found) {
                due.push(one(key, watched));
            }
        }
        self.of_uid.append(&mut first);
        self.next = Some(now + PAUSE.max(begun.elapsed() * SHARE));
        due
    }

    /// This one could not be read just now: it is due with the next round again.
    pub(crate) fn put_off(&mut self, due: Due) {
        let key = (due.uid, due.place);
        if let Some(watched) = self.files.get_mut(&key).or_else(|| self.of_uid.get_mut(&key)) {
            watched.seen = None;
        }
    }

    /// When they are looked at next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }
}

/// The stamp of a ccache in KCM or a keyring. None without an answer.
fn stamp_of_uid((uid, place): &Key) -> Option<Stamp> {
    let (user, deadline) = (reader(*uid), Instant::now() + STAMP_LIMIT);
    let sum = match place {
        CcacheName::Kcm(name) => ccache::kcm::stamp(name, &user, deadline),
        CcacheName::Keyring(name) => ccache::keyring::stamp(name, &user, deadline),
        CcacheName::File(_) | CcacheName::Dir(_) => None,
    };
    sum.map(Stamp::OfUid)
}

/// The stamp of a file. None if there is none that belongs to this user. A link is not followed, and a file system that a
/// user has mounted there is not asked (statx(2), AT_STATX_DONT_SYNC).
fn stamp(path: &Path, uid: u32) -> Option<Stamp> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = statx(CWD, path, flags, StatxFlags::BASIC_STATS).ok()?;
    let is_own = found.stx_uid == uid && FileType::from_raw_mode(found.stx_mode.into()) == FileType::RegularFile;
    is_own.then_some(Stamp::File {
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

    fn due(tickets: &mut OtherCcaches) -> usize {
        let moment = tickets.next().expect("something is looked at");
        assert_eq!(tickets.due(moment - Duration::from_millis(1)), []);
        tickets.due(moment).len()
    }

    fn kcm() -> CcacheName {
        CcacheName::parse("KCM:").unwrap()
    }

    #[test]
    fn a_file_that_is_new_written_or_replaced_is_due_once() {
        let top = tempfile::tempdir().unwrap();
        let mut tickets = OtherCcaches::within(top.path().to_owned());
        let uid = std::fs::metadata(top.path()).unwrap().uid();
        let all = || ["/tmp/cc", "/tmp/link"].map(|path| (PagId::from(1), uid, CcacheName::File(path.into())));
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
        let moment = tickets.next().unwrap();
        let late = tickets.due(moment).pop().unwrap();
        assert_eq!((late.uid, &late.pags[..]), (uid, &[PagId::from(1)][..]));
        tickets.put_off(late);
        assert_eq!((due(&mut tickets), due(&mut tickets)), (1, 0), "what could not be read is due again");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(due(&mut tickets), 0);
        tickets.set(std::iter::empty());
        assert_eq!(tickets.next(), None);
    }

    #[test]
    fn a_round_that_was_cut_goes_on_where_it_has_ended() {
        let mut tickets = OtherCcaches::within("/nowhere".into());
        tickets.set((1..5).map(|uid| (PagId::from(uid), uid as u32, kcm())));
        tickets.cut = Some((3, kcm()));
        due(&mut tickets);
        assert_eq!(
            (tickets.of_uid.len(), &tickets.cut),
            (4, &None),
            "none is lost, and this time there was time for all"
        );
    }

    #[test]
    fn a_ccache_is_due_when_there_are_other_tickets() {
        let mut watched = Watched::default();
        let of_uid = |sum| Some(Stamp::OfUid(sum));
        assert!(!watched.is_due(of_uid(0)), "an empty one is of no use");
        assert!(watched.is_due(of_uid(1)));
        assert!(!watched.is_due(of_uid(1)));
        assert!(!watched.is_due(None));
        assert!(!watched.is_due(of_uid(1)), "no answer is no change");
        assert!(watched.is_due(of_uid(2)));
        assert!(!watched.is_due(of_uid(0)));
        assert!(watched.is_due(of_uid(2)), "one that comes back");
    }

    #[test]
    fn pags_of_one_user_share_a_ccache_and_its_looks() {
        let mut tickets = OtherCcaches::within("/nowhere".into());
        let of = |pag, uid| (PagId::from(pag), uid, kcm());
        tickets.set([of(1, 61001), of(2, 61001), of(3, 61002)].into_iter());
        let pags: Vec<_> = tickets.of_uid.values().map(|cache| cache.pags.len()).collect();
        assert_eq!(pags, [2, 1]);
        let own = (61001, kcm());
        let seen = |tickets: &OtherCcaches| tickets.of_uid[&own].seen;
        tickets.of_uid.get_mut(&own).unwrap().seen = Some(Stamp::OfUid(1));
        tickets.set([of(2, 61001)].into_iter());
        assert_eq!(tickets.of_uid[&own].pags, [PagId::from(2)].into());
        assert_eq!(seen(&tickets), Some(Stamp::OfUid(1)), "what was seen is known still");
        tickets.set([of(2, 61001), of(4, 61001)].into_iter());
        assert_eq!(seen(&tickets), None, "but not to a PAG that is new");
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
    fn no_more_ccaches_than_a_few_are_looked_at_for_a_pag() {
        let mut tickets = OtherCcaches::within("/nowhere".into());
        let many = |pag: u64| (0..100).map(move |n| (PagId::from(pag), 1, CcacheName::File(format!("/tmp/{pag}.{n}"))));
        tickets.set(many(1).chain(many(2)));
        assert_eq!(tickets.files.len(), 2 * MOST);
    }
}
