//! Debian roots for the container tier, cached by a hash of their recipe.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cache::{self, cache, lock, scratch};
use crate::shell::sh;

/// The releases, oldest systemd first: 252, 257, and the newest.
pub(crate) const SUITES: [&str; 3] = ["bookworm", "trixie", "sid"];

const PACKAGES: &str = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,systemd-container,sshpass,\
    keyutils,procps,strace,cron,at,sudo,login,util-linux,passwd,krb5-kdc,krb5-admin-server,\
    krb5-user,libpam-krb5,libgcc-s1,polkitd,lightdm,lightdm-gtk-greeter,xvfb,xauth,dbus-x11";

/// The packages of sshd and ssh. Debian has moved GSSAPI into packages of its own after trixie.
fn ssh_packages(suite: &str) -> &'static str {
    match suite {
        "bookworm" | "trixie" => "openssh-server,openssh-client",
        _ => "openssh-server-gssapi,openssh-client-gssapi",
    }
}

/// Unpacks sssd's KCM, and no other part of sssd. Installed packages would change the PAM stacks and NSS. Some
/// directories of the packages are symbolic links in the root, so `cp` follows these.
const KCM: &str = "mkdir -p \"$1/root/kcm/partial\" && \
    APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get -y --download-only -o Dir::Cache::archives=\"$1/root/kcm\" install sssd-kcm && \
    for deb in \"$1\"/root/kcm/*.deb; do case \"$deb\" in */libpam-*|*/libnss-*) ;; *) dpkg-deb -x \"$deb\" \"$1/root/kcm/tree\" ;; esac; done && \
    for top in \"$1\"/root/kcm/tree/*; do cp -a \"$top/.\" \"$1/${top##*/}/\"; done && \
    rm -r \"$1/root/kcm\" && chroot \"$1\" ldconfig";

/// The script that runs in a root after its packages are installed.
const SETUP: &str = include_str!("root-setup.sh");

/// The root of a release. It is built if there is none of this recipe, or if the one of sid is older than a week.
pub(crate) fn root(suite: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (suite, PACKAGES, ssh_packages(suite), KCM, SETUP).hash(&mut hasher);
    let path = cache().join(format!("{suite}-{:016x}", hasher.finish()));
    let _lock = lock(suite);
    let age = fs::metadata(&path).and_then(|m| m.modified()).ok().and_then(|time| time.elapsed().ok());
    let week = Duration::from_secs(7 * 24 * 3600);
    if age.is_none_or(|age| suite == "sid" && age > week) {
        cache::sweep();
        build(suite, &path);
    }
    cache::is_used(&path);
    path
}

/// The versions of the main packages in a root.
pub(crate) fn versions(root: &Path) -> String {
    let list = sh(&format!(
        "dpkg-query --admindir={}/var/lib/dpkg -W -f '${{Package}} ${{Version}}, ' systemd libpam0g 'openssh-server*' lightdm",
        root.display()
    ));
    list.trim_end_matches(", ").to_owned()
}

fn build(suite: &str, path: &Path) {
    let begun = Instant::now();
    println!("building a Debian root of {suite} (once; kept in {})", cache().display());
    let setup = scratch("setup").join("setup.sh");
    fs::write(&setup, SETUP).unwrap();
    let new = path.with_extension("new");
    let kcm = format!("--customize-hook={KCM}");
    let hook =
        format!("--customize-hook=cp '{}' \"$1/root/setup.sh\"; chroot \"$1\" sh /root/setup.sh", setup.display());
    bootstrap(suite, suite, &format!("{PACKAGES},{}", ssh_packages(suite)), &[kcm, hook], &new);
    fs::remove_dir_all(setup.parent().unwrap()).ok();
    sh(&format!("rm -rf --one-file-system '{}'", path.display()));
    fs::rename(&new, path).unwrap();
    println!("  {suite}: built in {} s", begun.elapsed().as_secs());
}

/// Makes a tree of Debian packages at `new`, after removing the rest of an earlier attempt. `name` is for lines of
/// progress.
/// `hooks` are more arguments for mmdebstrap.
pub(crate) fn bootstrap(name: &str, suite: &str, packages: &str, hooks: &[String], new: &Path) {
    let begun = Instant::now();
    // A killed build may have left mounts of the host's /proc and /sys in it.
    cache::remove(new);
    let (mirror, security) = mirrors();
    let mut sources = vec![format!("deb {mirror} {suite} main")];
    if suite != "sid" {
        sources.push(format!("deb {security} {suite}-security main"));
    }
    let mut child = Command::new("mmdebstrap")
        .args(["--mode=root", "--variant=minbase", &format!("--include={packages}")])
        .args(["--aptopt=Acquire::Languages \"none\"", "--aptopt=APT::Install-Recommends \"false\""])
        .args(["--aptopt=Acquire::Check-Valid-Until \"false\""])
        .args(["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*"])
        .args(["--dpkgopt=path-exclude=/usr/share/locale/*"])
        .arg("--essential-hook=printf '#!/bin/sh\\nexit 101\\n' > \"$1/usr/sbin/policy-rc.d\"; chmod 755 \"$1/usr/sbin/policy-rc.d\"")
        .arg("--customize-hook=rm -f \"$1/usr/sbin/policy-rc.d\"")
        .args(hooks)
        .args([suite, new.to_str().unwrap()])
        .args(&sources)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(new.with_extension("log")).unwrap())
        .spawn()
        .unwrap();
    let mut printed = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if printed.elapsed() > Duration::from_secs(10) {
            println!("  {name}: {} s", begun.elapsed().as_secs());
            printed = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    if !status.success() {
        let log = fs::read_to_string(new.with_extension("log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(30).collect();
        panic!("no root of {name}: {}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
}

/// The Debian mirror and the security archive that this host uses.
fn mirrors() -> (String, String) {
    let text = sh("cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true");
    let addresses: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"))
        .flat_map(str::split_whitespace)
        .filter(|word| word.contains("://"))
        .map(|word| word.trim_end_matches('/'))
        .collect();
    let is_security = |address: &&&str| address.contains("security");
    let main = addresses.iter().find(|address| !is_security(address)).expect("a Debian mirror in apt's sources");
    let security = addresses.iter().find(is_security).map_or_else(|| format!("{main}-security"), ToString::to_string);
    ((*main).to_owned(), security)
}
