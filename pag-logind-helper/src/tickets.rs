//! Looks at the tickets that are not in a PAG's own ccache: those that logins keep for themselves in `/tmp`, and those of
//! the uid in keyrings or KCM. Who renews or replaces his there, by kinit or by a Kerberos module that unlocks screens, has done
//! it for his PAG.
//!
//! Nobody tells of them, so there is a look every few seconds. It asks for a file's times and opens nothing: a kinit
//! replaces the file, so a watch of inotify's would be lost with the first, and one of the directory would wake us for
//! whatever anybody does in `/tmp`. Of a keyring or KCM it asks which tickets are in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pag::ccache;
use pag::registry::PagId;
use pag::sys::Identity;
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};

/// Longest time for a look into a user's keyrings, or for KCM's answer.
const INSIDE: Duration = Duration::from_millis(300);
/// The group of a child that only looks at these: none.
pub(crate) const NOGROUP: u32 = 65534;
/// Between two rounds of looks.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest time for the looks of a round that take a child each: one daemon that does not answer is KCM for everybody.
const ROUND: Duration = Duration::from_millis(500);
/// The part of our time that rounds may take: one in so many.
const SHARE: u32 = 20;
/// Pause after a job that could make no use of a ticket, and the longest, as the pauses double.
const FAILED: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(600);
/// A user's files that are looked at for one PAG; he may have any number of logins.
const MOST: usize = 16;
/// Names where our unit shows us the host's `/tmp`: what the unit gives us for `/tmp` is another.
const VARIABLE: &str = "PAG_TMP";

/// Where a ticket is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A file of a login's, which the PAG's ccache is fed from.
    File(PathBuf),
    /// The PAG's ccache itself, in keyrings of the uid's or in KCM.
    OfUid(String),
}

/// By what one notices that a file was written or replaced, or a ticket in a keyring or in KCM.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stamp {
    File { inode: u64, length: u64, seconds: i64, nanoseconds: u32 },
    Keyring(u64),
    Kcm(BTreeSet<ccache::kcm::Number>),
}

impl Stamp {
    /// Whether nothing is there that a token could be made from.
    fn is_empty(&self) -> bool {
        match self {
            Stamp::File { .. } => false,
            Stamp::Keyring(sum) => *sum == 0,
            Stamp::Kcm(tickets) => tickets.is_empty(),
        }
    }

    /// Whether it is of another ticket than `before` was. In KCM tickets for services are among them, which come by
    /// themselves; a new ticket-granting ticket leaves none of what was there.
    fn is_another(&self, before: &Stamp) -> bool {
        match (self, before) {
            (Stamp::Kcm(now), Stamp::Kcm(before)) => now.is_disjoint(before),
            _ => self != before,
        }
    }
}

/// What is new about a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is another than it was.
    Another,
    /// It is the first that is known of: the tokens that there are may be from it.
    First,
}

/// What has to be seen to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A login's file, which may have a ticket for this PAG.
    File(PagId, PathBuf),
    /// A ccache of the uid's, and the PAGs whose ccache that is.
    OfUid { uid: u32, name: String, pags: Vec<PagId>, change: Change },
}

/// A ccache of a uid's own.
#[derive(Debug, Default)]
struct Cache {
    /// Whose it is: PAGs of one user may share it.
    pags: BTreeSet<PagId>,
    /// What tokens are from. None: nobody has looked.
    seen: Option<Stamp>,
    /// What the last look has found.
    found: Option<Stamp>,
    failure: Option<Failure>,
}

/// A job that could make no use of what it found.
#[derive(Debug)]
struct Failure {
    /// What it has left: it may have renewed the ticket, and then failed.
    left: Option<Stamp>,
    /// When another is worth while, if nothing is new.
    until: Instant,
    times: u32,
}

impl Cache {
    fn change(&self, now: Instant) -> Option<Change> {
        // No job can make a token of what is empty.
        let found = self.found.as_ref().filter(|found| !found.is_empty())?;
        let change = match &self.seen {
            None => Change::First,
            Some(seen) if found.is_another(seen) => Change::Another,
            Some(_) => return None,
        };
        let is_new = |left: &Option<Stamp>| left.as_ref().is_some_and(|left| found.is_another(left));
        let waits = self.failure.as_ref().is_some_and(|failure| now < failure.until && !is_new(&failure.left));
        (!waits).then_some(change)
    }
}

/// What is looked at.
pub(crate) struct Tickets {
    tmp: PathBuf,
    files: BTreeMap<(PagId, PathBuf), (u32, Option<Stamp>)>,
    caches: BTreeMap<(u32, String), Cache>,
    next: Option<Instant>,
    /// Where a round has ended before its time, and the next one begins.
    cut: Option<(u32, String)>,
}

impl Tickets {
    /// Looks at none yet.
    pub(crate) fn new() -> Self {
        Self::within(std::env::var_os(VARIABLE).map_or_else(|| "/tmp".into(), PathBuf::from))
    }

    fn within(tmp: PathBuf) -> Self {
        Tickets { tmp, files: BTreeMap::new(), caches: BTreeMap::new(), next: None, cut: None }
    }

    /// Looks at these and no others: PAG, user, and where the ticket is, a file by its path on the host.
    pub(crate) fn set(&mut self, wanted: impl Iterator<Item = (PagId, u32, Place)>) {
        let (mut files, mut caches) = (std::mem::take(&mut self.files), std::mem::take(&mut self.caches));
        caches.values_mut().for_each(|cache| cache.pags.clear());
        for (pag, uid, place) in wanted {
            match place {
                Place::File(path) => {
                    let file = (pag, self.tmp.join(path.strip_prefix("/tmp").unwrap_or(&path)));
                    // One that is new is looked into: something may have been written while nobody looked.
                    let seen = files.remove(&file).unwrap_or((uid, None));
                    if self.files.keys().filter(|(of, _)| *of == pag).count() < MOST {
                        self.files.insert(file, seen);
                    }
                }
                Place::OfUid(name) => {
                    let key = (uid, name);
                    let before = caches.remove(&key);
                    self.caches.entry(key).or_insert_with(|| before.unwrap_or_default()).pags.insert(pag);
                }
            }
        }
        self.next = match self.next {
            _ if self.files.is_empty() && self.caches.is_empty() => None,
            None => Some(Instant::now() + PAUSE),
            next => next,
        };
    }

    /// The tickets that are others than they were: a file's once; one of the uid's until a job has made use of it, which
    /// [`Tickets::settle`] is told, or nobody wants to ([`Tickets::accept`]). So, too, one that nobody could look at
    /// before. A uid that `is_busy` has a job, which renews the ticket itself.
    pub(crate) fn due(&mut self, now: Instant, is_busy: impl Fn(u32) -> bool) -> Vec<Due> {
        if self.next.is_none_or(|moment| moment > now) {
            return Vec::new();
        }
        let (begun, mut due) = (Instant::now(), Vec::new());
        for ((pag, path), (uid, seen)) in &mut self.files {
            let found = stamp(path, *uid);
            if found.is_some() && found != *seen {
                due.push(Due::File(*pag, path.clone()));
            }
            *seen = found;
        }
        let mut first = self.cut.take().map_or_else(BTreeMap::new, |cut| self.caches.split_off(&cut));
        let mut silent = BTreeSet::new();
        for ((uid, name), cache) in first.iter_mut().chain(&mut self.caches).filter(|((uid, _), _)| !is_busy(*uid)) {
            if begun.elapsed() >= ROUND {
                self.cut.get_or_insert_with(|| (*uid, name.clone()));
                continue;
            }
            // Who does not answer for one does not for another.
            let asked = Instant::now();
            cache.found = if silent.contains(uid) { None } else { stamp_of_uid(name, *uid) };
            if asked.elapsed() >= INSIDE {
                silent.insert(*uid);
            }
            match cache.change(now) {
                Some(change) => {
                    let pags = cache.pags.iter().copied().collect();
                    due.push(Due::OfUid { uid: *uid, name: name.clone(), pags, change });
                }
                // In KCM a ticket for a service has come or gone, or all of them have.
                None if cache.failure.is_none() && cache.found.is_some() => cache.seen.clone_from(&cache.found),
                None => {}
            }
        }
        self.caches.append(&mut first);
        self.next = Some(now + PAUSE.max(begun.elapsed() * SHARE));
        due
    }

    /// Nobody has a use for what has changed in this ccache.
    pub(crate) fn accept(&mut self, uid: u32, name: String) {
        if let Some(cache) = self.caches.get_mut(&(uid, name)) {
            (cache.seen, cache.failure) = (cache.found.take(), None);
        }
    }

    /// A job of this PAG has ended: if it is `ok`, tokens are from what is there now. Other names of its user's may be
    /// names of the same ccache.
    pub(crate) fn settle(&mut self, pag: PagId, ok: bool, now: Instant) {
        let Some(user) = self.caches.iter().find_map(|((uid, _), cache)| cache.pags.contains(&pag).then_some(*uid))
        else {
            return;
        };
        let begun = Instant::now();
        for ((uid, name), cache) in self.caches.iter_mut().filter(|((uid, _), _)| *uid == user) {
            let found = if begun.elapsed() < ROUND { stamp_of_uid(name, *uid) } else { None };
            if ok {
                (cache.seen, cache.failure) = (found.or(cache.seen.take()), None);
            } else {
                let times = cache.failure.as_ref().map_or(0, |failure| failure.times);
                let pause = FAILED.saturating_mul(2_u32.saturating_pow(times)).min(LONGEST);
                cache.failure = Some(Failure { left: found, until: now + pause, times: times.saturating_add(1) });
            }
        }
    }

    /// When they are looked at next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }
}

/// None without an answer.
fn stamp_of_uid(name: &str, uid: u32) -> Option<Stamp> {
    let (identity, deadline) = (Identity { uid, gid: NOGROUP, groups: Vec::new() }, Instant::now() + INSIDE);
    if name.starts_with("KCM:") {
        ccache::kcm::tickets(name, &identity, deadline).map(Stamp::Kcm)
    } else {
        ccache::keyring::stamp(name, &identity, deadline).map(Stamp::Keyring)
    }
}

/// None for what is not there, or no file of this user's own. A link is not followed, and a file system that a user has
/// mounted there is not asked (statx(2), AT_STATX_DONT_SYNC).
fn stamp(path: &Path, uid: u32) -> Option<Stamp> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = statx(CWD, path, flags, StatxFlags::BASIC_STATS).ok()?;
    let is_his = found.stx_uid == uid && FileType::from_raw_mode(found.stx_mode.into()) == FileType::RegularFile;
    is_his.then_some(Stamp::File {
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
        assert_eq!(tickets.due(moment - Duration::from_millis(1), |_| false), []);
        tickets.due(moment, |_| false).len()
    }

    #[test]
    fn a_file_that_is_new_written_or_replaced_is_due_once() {
        let top = tempfile::tempdir().unwrap();
        let mut tickets = Tickets::within(top.path().to_owned());
        let uid = std::fs::metadata(top.path()).unwrap().uid();
        let all = || ["/tmp/cc", "/tmp/link"].map(|path| (PagId::from(1), uid, Place::File(path.into())));
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
    fn a_round_that_was_cut_goes_on_where_it_has_ended() {
        let mut tickets = Tickets::within("/nowhere".into());
        let all = || (1..5).map(|uid| (PagId::from(uid), uid as u32, Place::OfUid("none".to_owned())));
        tickets.set(all());
        tickets.cut = Some((3, "none".to_owned()));
        assert_eq!((due(&mut tickets), tickets.caches.len()), (0, 4), "none is lost");
        assert_eq!(tickets.cut, None, "and this time there was time for all");
    }

    fn kcm(numbers: &[u8]) -> Stamp {
        Stamp::Kcm(numbers.iter().map(|number| [*number; 16]).collect())
    }

    #[test]
    fn a_ccache_is_due_until_a_job_has_made_use_of_it() {
        let now = Instant::now();
        let mut cache = Cache { found: Some(kcm(&[])), ..Cache::default() };
        assert_eq!(cache.change(now), None, "an empty one is of no use");
        cache.found = Some(kcm(&[1]));
        assert_eq!(cache.change(now), Some(Change::First));
        cache.seen = Some(kcm(&[1]));
        assert_eq!(cache.change(now), None);
        cache.found = Some(kcm(&[2]));
        assert_eq!(cache.change(now), Some(Change::Another));
        // A job has renewed it, and then failed; nothing has happened since.
        cache.found = Some(kcm(&[3]));
        let until = now + FAILED;
        cache.failure = Some(Failure { left: cache.found.clone(), until, times: 1 });
        assert_eq!(cache.change(now), None, "not at once");
        assert_eq!(cache.change(until), Some(Change::Another), "but in its time");
        cache.found = Some(kcm(&[4]));
        assert_eq!(cache.change(now), Some(Change::Another), "and what the user has got since at once");
    }

    #[test]
    fn pags_of_one_user_share_a_ccache_and_its_looks() {
        let mut tickets = Tickets::within("/nowhere".into());
        let of = |pag, uid| (PagId::from(pag), uid, Place::OfUid("KCM:".to_owned()));
        tickets.set([of(1, 61001), of(2, 61001), of(3, 61002)].into_iter());
        let pags: Vec<_> = tickets.caches.values().map(|cache| cache.pags.len()).collect();
        assert_eq!(pags, [2, 1]);
        let his = (61001, "KCM:".to_owned());
        tickets.caches.get_mut(&his).unwrap().seen = Some(kcm(&[1]));
        tickets.settle(PagId::from(2), false, Instant::now());
        assert_eq!(tickets.caches[&his].failure.as_ref().map(|failure| failure.times), Some(1));
        assert!(tickets.caches[&(61002, "KCM:".to_owned())].failure.is_none(), "another user's is no concern");
        tickets.set([of(2, 61001)].into_iter());
        assert_eq!(tickets.caches[&his].pags, [PagId::from(2)].into());
        assert_eq!(tickets.caches[&his].seen, Some(kcm(&[1])), "and what was seen is known still");
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
    fn a_ticket_for_a_service_is_no_other_ticket_in_kcm() {
        assert!(!kcm(&[1, 2]).is_another(&kcm(&[1])), "a ticket for a service has come");
        assert!(kcm(&[3]).is_another(&kcm(&[1, 2])), "the cache was emptied first");
        assert!(kcm(&[3]).is_another(&kcm(&[])));
        assert!(kcm(&[]).is_empty() && !kcm(&[1]).is_empty());
    }

    #[test]
    fn no_more_files_than_a_few_are_looked_at_for_a_pag() {
        let mut tickets = Tickets::within("/nowhere".into());
        let many = |pag: u64| (0..100).map(move |n| (PagId::from(pag), 1, Place::File(format!("/tmp/{n}").into())));
        tickets.set(many(1).chain(many(2)));
        assert_eq!(tickets.files.len(), 2 * MOST);
    }
}
