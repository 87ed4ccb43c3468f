//! What outlives a run, in a place of its own outside of the source tree: roots and images, and locks for those who run at
//! the same time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// What nobody has used for this long is removed when something is built.
const FORGOTTEN: Duration = Duration::from_secs(14 * 24 * 3600);

/// Where it is.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("PAG_LAB_CACHE").map_or_else(|| "/var/cache/pag-lab".into(), PathBuf::from)
}

/// A scratch directory on the cache's file system.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let path = cache().join(format!("run-{}-{name}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

/// A lock of the cache's, if nobody has it; it ends with the value.
pub(crate) fn try_lock(name: &str) -> Option<fs::File> {
    fs::create_dir_all(cache()).unwrap();
    let file = fs::File::create(cache().join(format!("{name}.lock"))).unwrap();
    file.try_lock().is_ok().then_some(file)
}

/// A lock that others who use the cache wait for; it ends with the value.
pub(crate) fn lock(name: &str) -> fs::File {
    fs::create_dir_all(cache()).unwrap();
    let file = fs::File::create(cache().join(format!("{name}.lock"))).unwrap();
    let begun = Instant::now();
    file.lock().unwrap();
    WAITED.fetch_add(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    file
}

static WAITED: AtomicU64 = AtomicU64::new(0);

/// How long this program has waited for others who use the cache, in all.
pub(crate) fn waited() -> Duration {
    Duration::from_millis(WAITED.load(Ordering::Relaxed))
}

/// The file whose age tells when a root or an image was last used. The age of the thing itself tells when it was made.
fn stamp(path: &Path) -> PathBuf {
    path.with_extension("used")
}

/// Notes that a root or an image is used.
pub(crate) fn is_used(path: &Path) {
    fs::write(stamp(path), "").ok();
}

/// Removes roots and images that are not used any more, and what programs have left that were killed. A build that was cut
/// off is for whoever builds the same again: he has its lock.
pub(crate) fn sweep() {
    sweep_in(&cache());
}

fn sweep_in(cache: &Path) {
    for entry in fs::read_dir(cache).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let owner = name.strip_prefix("run-").and_then(|rest| rest.split('-').next());
        let dead = owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        // Before there is a stamp, the directory tells.
        let used = [stamp(&path), path.clone()].iter().find_map(|file| fs::metadata(file).ok()?.modified().ok());
        let age = used.and_then(|time| SystemTime::now().duration_since(time).ok());
        let forgotten = owner.is_none() && path.is_dir() && age.is_some_and(|age| age > FORGOTTEN);
        if forgotten {
            println!("  removing {name}, which nobody has used for two weeks");
            for extension in ["log", "used"] {
                fs::remove_file(path.with_extension(extension)).ok();
            }
        }
        if dead || forgotten {
            remove(&path);
        }
    }
}

/// Removes a tree, and before that what is mounted in it.
pub(crate) fn remove(path: &Path) {
    let script = "awk -v n=\"$1/\" 'index($2, n) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l; \
                  rm -rf --one-file-system \"$1\"";
    let _ = Command::new("sh").args(["-c", script, "sh"]).arg(path).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sweep_takes_what_is_forgotten_and_what_the_dead_left() {
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
