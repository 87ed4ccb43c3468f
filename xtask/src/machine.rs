//! One boot of a container: a pristine copy of a root, a real systemd as PID 1, one scenario.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cache::{lock, scratch};
use crate::roots::root;
use crate::shell::sh;
use crate::{install, shell};

/// The result of a scenario.
pub(crate) struct Outcome {
    /// Whether it passed.
    pub(crate) passed: bool,
    /// Its output.
    pub(crate) output: String,
    /// The machine's journal.
    pub(crate) journal: String,
    /// Its time, from the copy of the root to its end.
    pub(crate) took: Duration,
}

/// One run of a scenario, and its machine.
pub(crate) struct Run<'a> {
    /// The release.
    pub(crate) suite: &'a str,
    /// The scenario, as `pag-scenario` knows it.
    pub(crate) scenario: &'a str,
    /// The directory of the product that is installed first. None for a machine without it.
    pub(crate) product: Option<&'a Path>,
    /// Debian's packages that the machine has at hand.
    pub(crate) packages: &'a [PathBuf],
    /// The directory of the tests' programs.
    pub(crate) programs: &'a Path,
    /// Users that linger.
    pub(crate) linger: &'a [&'a str],
    /// The number of boots.
    pub(crate) boots: u32,
    /// Whether it is the long form.
    pub(crate) long: bool,
}

/// Longest time for one boot and the scenario in it.
const LIMIT: Duration = Duration::from_secs(600);
/// Longest time for both in the long form.
const LONG_LIMIT: Duration = Duration::from_secs(2700);

/// An overlay over a root. Dropping it unmounts and removes it.
pub(crate) struct Overlay {
    scratch: PathBuf,
}

impl Overlay {
    /// Mounts an overlay, in a scratch directory with `name` in its path.
    pub(crate) fn of(root: &Path, name: &str) -> Self {
        let scratch = scratch(name);
        for part in ["upper", "work", "merged", "share"] {
            fs::create_dir_all(scratch.join(part)).unwrap();
        }
        let s = scratch.display();
        let lower = root.display();
        sh(&format!("mount -t overlay overlay -o lowerdir={lower},upperdir={s}/upper,workdir={s}/work {s}/merged"));
        Overlay { scratch }
    }

    /// The root with its changes.
    pub(crate) fn tree(&self) -> PathBuf {
        self.scratch.join("merged")
    }

    fn share(&self) -> PathBuf {
        self.scratch.join("share")
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let s = self.scratch.display();
        let _ = Command::new("sh").args(["-c", &format!("umount -l {s}/merged; rm -rf {s}")]).status();
    }
}

/// Control groups of the host, made for the container. Without them, its systemd would manage the host's root group.
struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    fn new() -> Self {
        let name = format!("pag-lab.{}", std::process::id());
        let hybrid = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"].map(PathBuf::from);
        let tops: Vec<PathBuf> = hybrid.into_iter().filter(|path| path.join("cgroup.procs").exists()).collect();
        let tops = if tops.is_empty() { vec![PathBuf::from("/sys/fs/cgroup")] } else { tops };
        let leaves: Vec<PathBuf> = tops.into_iter().map(|top| top.join(&name)).collect();
        for leaf in &leaves {
            fs::create_dir_all(leaf).unwrap();
        }
        Cgroups(leaves)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for leaf in &self.0 {
            let _ = Command::new("find")
                .arg(leaf)
                .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// The registries of containers in root's user keyring. A container shares that keyring with the host, so its registry
/// stays there and has to be removed. The host's own registry has the number of the host's pid namespace in its name.
fn registries() -> BTreeSet<String> {
    let text = Command::new("keyctl").args(["rlist", "@u"]).output().map(|o| o.stdout).unwrap_or_default();
    let serials = String::from_utf8_lossy(&text).into_owned();
    let host = format!("pag:registry:{}:", fs::metadata("/proc/self/ns/pid").unwrap().ino());
    serials
        .split_whitespace()
        .filter(|serial| {
            let described = Command::new("keyctl").args(["rdescribe", serial]).output();
            described.is_ok_and(|output| {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.contains("pag:registry:") && !text.contains(&host)
            })
        })
        .map(str::to_owned)
        .collect()
}

/// Boots the machine and runs the scenario.
pub(crate) fn run(run: &Run<'_>) -> Outcome {
    // Machines share the kernel's keyrings and key quotas, so only one of them runs on this host at a time.
    let _lock = lock("machines");
    let begun = Instant::now();
    let before = registries();
    let copy = Overlay::of(&root(run.suite), &format!("{}-{}", run.suite, run.scenario));
    let tree = copy.tree();
    for program in ["pag-probe", "keyring-aklog", "pag-pamhost", "pag-greeter", "pag-populate"] {
        fs::copy(run.programs.join(program), tree.join("usr/local/bin").join(program)).unwrap();
    }
    fs::copy(run.programs.join("pag-scenario"), copy.share().join("pag-scenario")).unwrap();
    fs::write(tree.join("etc/tmpfiles.d/lab.conf"), "f /run/seeder.log 0666 root root -\n").unwrap();
    for user in run.linger {
        fs::create_dir_all(tree.join("var/lib/systemd/linger")).unwrap();
        fs::write(tree.join("var/lib/systemd/linger").join(user), "").unwrap();
    }
    if let Some(product) = run.product {
        install::into_root(product, &tree);
    }
    for package in run.packages {
        let place = copy.share().join("packages");
        fs::create_dir_all(&place).unwrap();
        fs::copy(package, place.join(package.file_name().unwrap())).unwrap();
    }
    let (mut passed, mut output, mut journal) = (true, String::new(), String::new());
    for boot in 1..=run.boots {
        let share = copy.share();
        for name in ["status", "output", "journal"] {
            fs::remove_file(share.join(name)).ok();
        }
        let long = if run.long { "PAG_LONG=1\n" } else { "" };
        fs::write(share.join("environment"), format!("SCENARIO={}\nBOOT={boot}\n{long}", run.scenario)).unwrap();
        let console = boot_once(&tree, &share, if run.long { LONG_LIMIT } else { LIMIT });
        let read = |name: &str| fs::read(share.join(name)).map(|b| String::from_utf8_lossy(&b).into_owned());
        output = read("output").unwrap_or_default();
        journal = read("journal").unwrap_or_default();
        passed = read("status").is_ok_and(|status| status.trim() == "0");
        if !passed {
            if read("status").is_err() {
                output.push_str(&format!("\nthe scenario did not end; the console said:\n{console}"));
            }
            break;
        }
    }
    drop(copy);
    for registry in registries().difference(&before) {
        let _ = Command::new("keyctl").args(["unlink", registry, "@u"]).stdout(Stdio::null()).status();
    }
    Outcome { passed, output, journal, took: begun.elapsed() }
}

fn boot_once(tree: &Path, share: &Path, limit: Duration) -> String {
    let cgroups = Cgroups::new();
    let enter: String = cgroups.0.iter().map(|leaf| format!("echo $$ > {}/cgroup.procs; ", leaf.display())).collect();
    let console = share.join("console");
    let command = format!(
        "{enter} exec timeout -k 5 {} systemd-nspawn -q -D {} --machine=lab --register=no --keep-unit \
         --system-call-filter='add_key keyctl request_key' --bind={}:/lab --private-network --console=pipe \
         --resolv-conf=off --timezone=off -b",
        limit.as_secs(),
        tree.display(),
        share.display()
    );
    let log = fs::File::create(&console).unwrap();
    // With a session keyring of its own, so that the machine has no key of the caller.
    let _ = Command::new("keyctl")
        .args(["session", "-", "sh", "-c", &command])
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .status();
    let text = fs::read(&console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let tail: Vec<&str> = text.lines().rev().take(25).collect();
    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Builds the programs of the tests, and returns their directory.
pub(crate) fn programs() -> PathBuf {
    shell::build(&shell::top(), &["-p", "pag-tests", "--bins"]);
    shell::target().join("debug")
}
