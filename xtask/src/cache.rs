//! The cache of roots and images, which lies outside the source tree and outlives a run. Its locks keep runs at the
//! same time apart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A root or an image that no run has used for this long is removed at the next build.
const FORGOTTEN: Duration = Duration::from_secs(14 * 24 * 3600);

/// The directory of the cache.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("PAG_LAB_CACHE").map_or_else(|| "/var/cache/pag-lab".into(), PathBuf::from)
}

/// A scratch directory on the cache's file system.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let path = cache().join(format!("run-{}-{name}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

/// Takes a lock of the cache, unless another process has it. Dropping the value gives it back.
pub(crate) fn try_lock(name: &str) -> Option<fs::File> {
    fs::create_dir_all(cache()).unwrap();
    let file = fs::File::create(cache().join(format!("{name}.lock"))).unwrap();
    file.try_lock().is_ok().then_some(file)
}

/// Takes a lock of the cache, and waits for it. Dropping the value gives it back.
pub(crate) fn lock(name: &str) -> fs::File {
    fs::create_dir_all(cache()).unwrap();
    let file = fs::File::create(cache().join(format!("{name}.lock"))).unwrap();
    let begun = Instant::now();
    file.lock().unwrap();
    WAITED.fetch_add(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    file
}

static WAITED: AtomicU64 = AtomicU64::new(0);

/// The time that this program has waited for locks of other runs, in all.
pub(crate) fn waited() -> Duration {
    Duration::from_millis(WAITED.load(Ordering::Relaxed))
}

/// The file with the time of the last use of a root or an image. The root or image itself has the time when it was
/// made.
fn stamp(path: &Path) -> PathBuf {
    path.with_extension("used")
}

/// Notes the use of a root or an image.
pub(crate) fn is_used(path: &Path) {
    fs::write(stamp(path), "").ok();
}

/// Removes roots and images that are no longer used, and the scratch directories of killed runs. The rest of a killed
/// build stays until the next build of the same root, which has the lock for it.
pub(crate) fn sweep() {
    sweep_in(&cache());
}

fn sweep_in(cache: &Path) {
    for entry in fs::read_dir(cache).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let owner = name.strip_prefix("run-").and_then(|rest| rest.split('-').next());
        let dead = owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        // Without a stamp, the time of the directory counts.
        let used = [stamp(&path), path.clone()].iter().find_map(|file| fs::metadata(file).ok()?.modified().ok());
        let age = used.and_then(|time| SystemTime::now().duration_since(time).ok());
        let forgotten = owner.is_none() && path.is_dir() && age.is_some_and(|age| age > FORGOTTEN);
        if forgotten {
            println!("  removing {name}, which no run has used for two weeks");
            for extension in ["log", "used"] {
                fs::remove_file(path.with_extension(extension)).ok();
            }
        }
        if dead || forgotten {
            remove(&path);
        }
    }
}

/// Unmounts all that is mounted in a tree, and removes the tree.
pub(crate) fn remove(path: &Path) {
    let script = "awk -v n=\"$1/\" 'index($2, n) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l; \
                  rm -rf --one-file-system \"$1\"";
    let _ = Command::new("sh").args(["-c", script, "sh"]).arg(path).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_removes_unused_roots_and_the_scratch_of_killed_runs() {
        let place = std::env::temp_dir().join(format!("pag-sweep-{}", std::process::id()));
        let long_ago = SystemTime::now() - FORGOTTEN - Duration::from_secs(60);
        let living = format!("run-{}-vm-0", std::process::id());
        for name in ["sid-forgotten", "vm-sid-used", "sid-new", "run-4194305-vm-0", &living] {
            fs::create_dir_all(place.join(name).join("etc")).unwrap();
        }
        for name in ["sid-forgotten", "vm-sid-used"] {
            fs::write(place.join(name).with_extension("log"), "").unwrap();
            fs::File::open(place.join(name)).unwrap().set_modified(long_ago).unwrap();
        }
        is_used(&place.join("vm-sid-used"));
        sweep_in(&place);
        let mut left: Vec<_> = fs::read_dir(&place).unwrap().flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, [living.as_str(), "sid-new", "vm-sid-used", "vm-sid-used.log", "vm-sid-used.used"]);
        remove(&place);
        assert!(!place.exists());
    }
}
