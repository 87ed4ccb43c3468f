//! Runs programs, and knows the directories.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The top of the source tree.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top().join("target"), |path| std::path::absolute(path).unwrap())
}

/// Runs a program. Panics if it fails.
pub(crate) fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?} ended with {status}");
}

/// Runs a shell command and returns its output. Panics if it fails.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "'{command}' ended with {}: {error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How the product is built.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Profile {
    /// As it is shipped.
    Release,
    /// As it is built for each break: with less optimization, in less time.
    Prove,
}

impl Profile {
    /// The name of the profile and of its directory in cargo.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Profile::Release => "release",
            Profile::Prove => "prove",
        }
    }
}

/// Cargo's target directory for the tree at `tree`. Cargo knows a package by its place in the workspace. With one
/// target directory, it would take the results of one tree for those of another.
pub(crate) fn target_of(tree: &Path) -> PathBuf {
    if tree == top() { target() } else { target().join("other-tree") }
}

/// Builds packages with cargo, in the tree at `tree`.
pub(crate) fn build(tree: &Path, arguments: &[&str]) {
    run(Command::new("cargo")
        .arg("build")
        .arg("--quiet")
        .args(arguments)
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", target_of(tree)));
}

/// The packages that a host needs to run virtual machines.
pub(crate) const MACHINES: [&str; 2] = ["qemu-system-x86", "e2fsprogs"];

/// Installs the missing packages that the tests need, and `more`, and prints their names.
pub(crate) fn need_packages(more: &[&str]) {
    const PACKAGES: [&str; 12] = [
        "mmdebstrap",
        "systemd-container",
        "debian-archive-keyring",
        "keyutils",
        "krb5-user",
        "strace",
        "dbus-daemon",
        "libpam0g-dev",
        "gcc",
        "g++",
        "python3",
        "util-linux",
    ];
    assert!(effective_uid() == 0, "this needs root: containers, keyrings of several uids, namespaces");
    let missing: Vec<&str> = PACKAGES
        .into_iter()
        .chain(more.iter().copied())
        .filter(|package| {
            let known = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).output();
            !known.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).ends_with("ok installed"))
        })
        .collect();
    if !missing.is_empty() {
        println!("installing from Debian: {}", missing.join(" "));
        sh("apt-get update -qq");
        sh(&format!(
            "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends {}",
            missing.join(" ")
        ));
    }
}

/// The effective uid, without a system call of our own.
fn effective_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid()
}
