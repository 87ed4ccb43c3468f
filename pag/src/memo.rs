//! What a file of the host's configuration says, kept for the next hook of a login: each asks for the same again.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A file that was changed so lately may be changed again without its times telling (the kernel's clock for them ticks a
/// hundred times a second or more): what it says is not kept. In seconds.
const YOUNG: i64 = 2;

/// What was read in a file, as long as it is the same file and was not changed.
#[derive(Debug)]
pub(crate) struct Memo<T>(Mutex<Option<(Stamp, T)>>);

/// By what one knows that: device and inode, size, and when its contents and its owner or mode were changed.
type Stamp = ([u64; 3], [i64; 4]);

fn stamp(found: &Metadata) -> Stamp {
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    ([found.dev(), found.ino(), found.size()], times)
}

fn is_old(found: &Metadata, time: u64) -> bool {
    found.ctime().saturating_add(YOUNG) < i64::try_from(time).unwrap_or(0)
}

impl<T: Clone> Memo<T> {
    /// Nothing is known yet.
    pub(crate) const fn new() -> Self {
        Memo(Mutex::new(None))
    }

    /// Nothing is known any more; nothing is done while somebody looks.
    pub(crate) fn forget(&self) {
        let _ = self.0.try_lock().map(|mut known| known.take());
    }

    /// What the file at `path` says: as it is known, or as `read` reads it.
    pub(crate) fn of(&self, path: &Path, read: impl FnOnce() -> T) -> T {
        self.at(crate::now(), path, read)
    }

    /// The same at another time, in seconds since the epoch.
    fn at(&self, time: u64, path: &Path, read: impl FnOnce() -> T) -> T {
        // Before it is read: what changes it meanwhile changes the stamp that the next look finds.
        let found = std::fs::metadata(path).ok();
        let now = found.as_ref().map(stamp);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(now), Some((of, what))) = (now, &*known)
            && now == *of
        {
            return what.clone();
        }
        let what = read();
        let keep = found.is_some_and(|found| is_old(&found, time));
        *known = now.filter(|_| keep).map(|now| (now, what.clone()));
        what
    }
}

/// Files and directories, each looked at before it is read.
#[derive(Debug)]
pub(crate) struct Look {
    time: u64,
    found: Vec<(PathBuf, Option<Stamp>)>,
    /// Whether one of them was changed so lately that what it says is not kept.
    is_young: bool,
}

impl Look {
    /// Nothing is looked at yet; it is `time`, in seconds since the epoch.
    pub(crate) fn new(time: u64) -> Self {
        Look { time, found: Vec::new(), is_young: false }
    }

    /// Looks at one more, which need not be there.
    pub(crate) fn at(&mut self, path: &Path) {
        let found = std::fs::metadata(path).ok();
        self.is_young |= found.as_ref().is_some_and(|found| !is_old(found, self.time));
        self.found.push((path.to_owned(), found.as_ref().map(stamp)));
    }
}

/// What several files say together, as long as none has come, gone or changed.
#[derive(Debug)]
pub(crate) struct MemoOfAll<T>(Mutex<Option<(Look, T)>>);

impl<T: Clone> MemoOfAll<T> {
    /// Nothing is known yet.
    pub(crate) const fn new() -> Self {
        MemoOfAll(Mutex::new(None))
    }

    /// As [`Memo::forget`].
    pub(crate) fn forget(&self) {
        let _ = self.0.try_lock().map(|mut known| known.take());
    }

    /// What is known of those files that `look` has begun with, and of all that were looked at then.
    pub(crate) fn of(&self, look: &Look) -> Option<T> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, what) = known.as_ref()?;
        let rest = then.found.strip_prefix(&look.found[..])?;
        let is_same =
            |(path, then): &(PathBuf, Option<Stamp>)| std::fs::metadata(path).ok().as_ref().map(stamp) == *then;
        rest.iter().all(is_same).then(|| what.clone())
    }

    /// Keeps what was read in the files that `look` was at.
    pub(crate) fn keep(&self, look: Look, what: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (!look.is_young).then_some((look, what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_old_file_says_is_read_once_and_a_changed_one_anew() {
        static MEMO: Memo<String> = Memo::new();
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("file");
        let read = |times: &mut u32| {
            *times += 1;
            std::fs::read_to_string(&path).unwrap_or_default()
        };
        let mut times = 0;
        // Seconds after now.
        let mut look = |later: u64| MEMO.at(crate::now() + later, &path, || read(&mut times));
        let later = 60;
        assert_eq!(look(0), "");
        std::fs::write(&path, "one").unwrap();
        assert_eq!((look(0), look(0)), ("one".to_owned(), "one".to_owned()));
        std::fs::write(&path, "two").unwrap();
        assert_eq!(look(0), "two", "a young file is not believed");
        assert_eq!((look(later), look(later), look(later)), ("two".to_owned(), "two".to_owned(), "two".to_owned()));
        // As long as before, by the same name, and with another time.
        std::fs::write(&path, "six").unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000)).unwrap();
        assert_eq!(look(later), "six", "a changed file is read anew");
        std::fs::rename(&path, top.path().join("other")).unwrap();
        assert_eq!(look(later), "");
        assert_eq!(times, 7, "and an old one is read once");
    }

    #[test]
    fn what_several_files_say_is_known_until_one_comes_goes_or_changes() {
        let memo = MemoOfAll::new();
        let top = tempfile::tempdir().unwrap();
        let (directory, file) = (top.path().join("d"), top.path().join("d/file"));
        let look = |later: u64, paths: &[&Path]| {
            let mut look = Look::new(crate::now() + later);
            paths.iter().for_each(|path| look.at(path));
            look
        };
        let first = || look(60, &[&directory]);
        memo.keep(look(60, &[&directory, &file]), "nothing");
        assert_eq!(memo.of(&first()), Some("nothing"));
        std::fs::create_dir(&directory).unwrap();
        assert_eq!(memo.of(&first()), None, "one has come");
        std::fs::write(&file, "one").unwrap();
        memo.keep(look(0, &[&directory, &file]), "one");
        assert_eq!(memo.of(&first()), None, "young ones are not believed");
        memo.keep(look(60, &[&directory, &file]), "one");
        assert_eq!((memo.of(&first()), memo.of(&look(60, &[&file]))), (Some("one"), None));
        memo.forget();
        assert_eq!(memo.of(&first()), None, "it was forgotten");
        memo.keep(look(60, &[&directory, &file]), "one");
        std::fs::write(&file, "three").unwrap();
        assert_eq!(memo.of(&first()), None, "one has changed");
        memo.keep(look(60, &[&directory, &file]), "three");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(memo.of(&first()), None, "one has gone");
    }
}
