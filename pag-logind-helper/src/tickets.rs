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
const NOGROUP: u32 = 65534;
/// Between two rounds of looks.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest time for the looks of a round that take a child each: one daemon that does not answer is KCM for everybody.
const ROUND: Duration = Duration::from_millis(500);
/// The part of our time that rounds may take: one in so many.
const SHARE: u32 = 20;
/// A user's files that are looked at for one PAG; he may have any number of logins.
const MOST: usize = 16;
/// Names where our unit shows us the host's `/tmp`: what the unit gives us for `/tmp` is another.
const VARIABLE: &str = "PAG_TMP";

/// Where a ticket is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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

/// What is looked at.
pub(crate) struct Tickets {
    tmp: PathBuf,
    seen: BTreeMap<(PagId, Place), (u32, Option<Stamp>)>,
    next: Option<Instant>,
    /// Where a round has ended before its time, and the next one begins.
    cut: Option<(PagId, Place)>,
}

impl Tickets {
    /// Looks at none yet.
    pub(crate) fn new() -> Self {
        Self::within(std::env::var_os(VARIABLE).map_or_else(|| "/tmp".into(), PathBuf::from))
    }

    fn within(tmp: PathBuf) -> Self {
        Tickets { tmp, seen: BTreeMap::new(), next: None, cut: None }
    }

    /// Looks at these and no others: PAG, user, and where the ticket is, a file by its path on the host.
    pub(crate) fn set(&mut self, wanted: impl Iterator<Item = (PagId, u32, Place)>) {
        let mut before = std::mem::take(&mut self.seen);
        for (pag, uid, place) in wanted {
            let place = match place {
                Place::File(path) => Place::File(self.tmp.join(path.strip_prefix("/tmp").unwrap_or(&path))),
                of_uid => of_uid,
            };
            let place = (pag, place);
            // A file that is new is looked into: something may have been written while nobody looked.
            let seen = before.remove(&place).unwrap_or((uid, None));
            if self.seen.keys().filter(|(of, _)| *of == pag).count() < MOST {
                self.seen.insert(place, seen);
            }
        }
        self.next = match self.next {
            _ if self.seen.is_empty() => None,
            None => Some(Instant::now() + PAUSE),
            next => next,
        };
    }

    /// The tickets that are others than they were: a file's once, one of the uid's until [`Tickets::settle`] is called.
    /// Once, too, one of the uid's that nobody could look at before.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(PagId, Place, Change)> {
        if self.next.is_none_or(|moment| moment > now) {
            return Vec::new();
        }
        let (begun, mut due) = (Instant::now(), Vec::new());
        let mut first = self.cut.take().map_or_else(BTreeMap::new, |cut| self.seen.split_off(&cut));
        for ((pag, place), (uid, seen)) in first.iter_mut().chain(&mut self.seen) {
            if matches!(place, Place::OfUid(_)) && begun.elapsed() >= ROUND {
                self.cut.get_or_insert_with(|| (*pag, place.clone()));
                continue;
            }
            let found = place.stamp(*uid);
            let change = match (place, &found, &*seen) {
                (_, None, _) => None,
                (Place::File(_), Some(_), None) => Some(Change::Another),
                // No job can make a token of it.
                (Place::OfUid(_), Some(found), _) if found.is_empty() => None,
                (Place::OfUid(_), Some(_), None) => Some(Change::First),
                (_, Some(found), Some(before)) => found.is_another(before).then_some(Change::Another),
            };
            due.extend(change.map(|change| (*pag, place.clone(), change)));
            match place {
                Place::File(_) => *seen = found,
                // A job will have seen to it.
                Place::OfUid(_) if change == Some(Change::Another) => {}
                Place::OfUid(_) => *seen = found.or(seen.take()),
            }
        }
        self.seen.append(&mut first);
        self.next = Some(now + PAUSE.max(begun.elapsed() * SHARE));
        due
    }

    /// A job has been at a PAG's ccache: what has changed in it is known.
    pub(crate) fn settle(&mut self, pag: PagId) {
        for ((_, place), (uid, seen)) in self.seen.iter_mut().filter(|((of, _), _)| *of == pag) {
            if matches!(place, Place::OfUid(_)) {
                *seen = place.stamp(*uid).or(seen.take());
            }
        }
    }

    /// When they are looked at next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }
}

impl Place {
    fn stamp(&self, uid: u32) -> Option<Stamp> {
        match self {
            Place::File(path) => stamp(path, uid),
            Place::OfUid(name) => {
                let (identity, deadline) =
                    (Identity { uid, gid: NOGROUP, groups: Vec::new() }, Instant::now() + INSIDE);
                if name.starts_with("KCM:") {
                    ccache::kcm::tickets(name, &identity, deadline).map(Stamp::Kcm)
                } else {
                    ccache::keyring::stamp(name, &identity, deadline).map(Stamp::Keyring)
                }
            }
        }
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
        assert_eq!(tickets.due(moment - Duration::from_millis(1)), []);
        tickets.due(moment).len()
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
        let all = || (1..5).map(|pag| (PagId::from(pag), 1, Place::OfUid("none".to_owned())));
        tickets.set(all());
        tickets.cut = Some((PagId::from(3), Place::OfUid("none".to_owned())));
        assert_eq!((due(&mut tickets), tickets.seen.len()), (0, 4), "none is lost");
        assert_eq!(tickets.cut, None, "and this time there was time for all");
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
        let kcm = |numbers: &[u8]| Stamp::Kcm(numbers.iter().map(|number| [*number; 16]).collect());
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
        assert_eq!(tickets.seen.len(), 2 * MOST);
    }
}
