//! The files of a release, and their places.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{Profile, build, run, sh, target_of, top};
use crate::{apache, libpag};

/// Where a file of a release comes from.
enum Source {
    /// A file of the tree.
    File(PathBuf),
    /// A program or library, by its name in cargo's directory, with its mode.
    Built(&'static str, u32),
    /// A text that is made for this system.
    Text(String),
    /// A symbolic link to a name beside it.
    Link(&'static str),
    /// What pagctl prints for this shell's completion.
    Completion(&'static str),
}

/// The directory for libraries. Debian has one for each architecture, with names of its own. Other systems have PAM
/// modules in lib64 or lib, and so their libraries.
fn libraries() -> PathBuf {
    let multiarch = match std::env::consts::ARCH {
        "x86" => "i386-linux-gnu".to_owned(),
        "arm" => "arm-linux-gnueabihf".to_owned(),
        "powerpc64" => "powerpc64le-linux-gnu".to_owned(),
        other => format!("{other}-linux-gnu"),
    };
    let places = [format!("usr/lib/{multiarch}"), "usr/lib64".to_owned(), "usr/lib".to_owned()];
    let has_modules = |place: &&String| Path::new("/").join(place).join("security/pam_unix.so").exists();
    PathBuf::from(places.iter().find(has_modules).unwrap_or(&places[0]))
}

/// The files of a release of the tree at `tree`, and their places below the root.
fn files(tree: &Path) -> Vec<(PathBuf, Source)> {
    let libraries = libraries();
    let program = |name, place: &str| (PathBuf::from(place).join(name), Source::Built(name, 0o755));
    let mut files = vec![
        (libraries.join("security/pam_pag.so"), Source::Built("libpam_pag.so", 0o644)),
        program("pag-logind-helper", "usr/libexec"),
        program("pag-seed", "usr/libexec"),
        program("pag-ccache", "usr/libexec"),
        program("pag-keytab", "usr/libexec"),
        program("pagctl", "usr/bin"),
        (libraries.join(LIBPAG), Source::Built("libpag.so", 0o644)),
        (libraries.join(libpag::SONAME), Source::Link(LIBPAG)),
        (libraries.join("libpag.so"), Source::Link(libpag::SONAME)),
        ("usr/include/pag.h".into(), Source::File(tree.join("libpag/include/pag.h"))),
        ("usr/share/bash-completion/completions/pagctl".into(), Source::Completion("bash")),
        ("usr/share/zsh/site-functions/_pagctl".into(), Source::Completion("zsh")),
        ("usr/share/fish/vendor_completions.d/pagctl.fish".into(), Source::Completion("fish")),
        (libraries.join("pkgconfig/libpag.pc"), Source::Text(pkg_config(tree, &libraries))),
    ];
    let units = tree.join("units");
    let below = sh(&format!("cd '{}' && find . -type f -printf '%P\\n'", units.display()));
    files.extend(below.lines().map(|file| (file.into(), Source::File(units.join(file)))));
    let pages = tree.join("docs/man");
    for page in sh(&format!("ls '{}'", pages.display())).lines() {
        let section = page.rsplit('.').next().unwrap();
        files.push((format!("usr/share/man/man{section}/{page}").into(), Source::File(pages.join(page))));
    }
    // One page tells all calls of the library, and one all programs that the helper starts. Each name leads to it.
    let link = |name: &str, section: u8, page: &str| {
        let place = format!("usr/share/man/man{section}/{name}.{section}");
        (place.into(), Source::Text(format!(".so man{section}/{page}.{section}\n")))
    };
    files.extend(libpag::calls(tree).iter().map(|call| link(call, 3, "libpag")));
    files.extend(["pag-ccache", "pag-keytab"].map(|name| link(name, 8, "pag-logind-helper")));
    files
}

/// The library's file. The linker's and the loader's names for it are links.
const LIBPAG: &str = concat!("libpag.so.", env!("CARGO_PKG_VERSION"));

/// What pkg-config(1) tells about the library.
fn pkg_config(tree: &Path, libraries: &Path) -> String {
    let text = fs::read_to_string(tree.join("libpag/libpag.pc.in")).unwrap();
    let libraries = libraries.strip_prefix("usr").unwrap();
    text.replace("@PREFIX@", "/usr")
        .replace("@LIBDIR@", &format!("${{prefix}}/{}", libraries.display()))
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
}

/// Builds the product of the tree at `tree` and lays it out below `destination`.
pub(crate) fn layout(tree: &Path, profile: Profile, destination: &Path) {
    build(tree, &["--profile", profile.name(), "-p", "pam_pag", "-p", "pag-logind-helper", "-p", "pagctl"]);
    libpag::link(tree, profile);
    put(files(tree), &target_of(tree).join(profile.name()), destination);
}

/// mod_pag's files. Apache finds its modules where Debian has them.
fn apache_files(tree: &Path) -> Vec<(PathBuf, Source)> {
    let available =
        |name| (PathBuf::from("etc/apache2/mods-available").join(name), Source::File(tree.join("mod_pag").join(name)));
    let module = ("usr/lib/apache2/modules/mod_pag.so".into(), Source::Built("mod_pag.so", 0o644));
    vec![module, available("pag.load"), available("pag.conf")]
}

/// Builds mod_pag of the tree at `tree`, where [`layout`] has built the library, and lays it out below `destination`.
pub(crate) fn layout_apache(tree: &Path, profile: Profile, destination: &Path) {
    let built = target_of(tree).join(profile.name());
    apache::module(tree, &built.join("libpag.so"), &built);
    put(apache_files(tree), &built, destination);
}

/// Puts files in their places below `destination`. `built` is cargo's directory.
fn put(files: Vec<(PathBuf, Source)>, built: &Path, destination: &Path) {
    for (place, source) in files {
        let to = destination.join(&place);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        // Written under another name and renamed: a running sshd has mapped the old module, which must not change.
        let new = to.with_file_name(format!("{}.pag-new", to.file_name().unwrap().display()));
        fs::remove_file(&new).ok();
        let from = match &source {
            Source::File(from) => from.clone(),
            Source::Built(name, _) => built.join(name),
            Source::Text(text) => {
                fs::write(&new, text).unwrap();
                new.clone()
            }
            Source::Completion(shell) => {
                let text = sh(&format!("'{}' completion {shell}", built.join("pagctl").display()));
                fs::write(&new, text).unwrap();
                new.clone()
            }
            Source::Link(name) => {
                symlink(name, &new).unwrap();
                fs::rename(&new, &to).unwrap();
                continue;
            }
        };
        // An existing configuration file is the administrator's, and stays.
        if place.starts_with("etc") && to.exists() {
            continue;
        }
        if from != new {
            fs::copy(&from, &new).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        }
        let mode = if let Source::Built(_, mode) = source { mode } else { 0o644 };
        fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(&new, &to).unwrap();
    }
}

/// Removes the files below `destination`, but for the administrator's.
fn remove(files: Vec<(PathBuf, Source)>, destination: &Path) {
    for (place, _) in files.into_iter().filter(|(place, _)| !place.starts_with("etc")) {
        fs::remove_file(destination.join(place)).ok();
    }
}

/// `cargo xtask install`.
pub(crate) fn install(destination: &Path, with_apache: bool) -> bool {
    layout(&top(), Profile::Release, destination);
    if with_apache {
        layout_apache(&top(), Profile::Release, destination);
    }
    if destination == Path::new("/") {
        let _ = Command::new("ldconfig").status();
        run(Command::new("systemd-sysusers").arg("pag.conf"));
        let _ = Command::new("systemd-tmpfiles").args(["--create", "pag.conf"]).status();
        let _ = Command::new("systemctl").arg("daemon-reload").status();
        // dbus-daemon sees a new policy by itself, dbus-broker does not.
        let _ = Command::new("systemctl").args(["reload", "dbus"]).status();
        let _ = Command::new("journalctl").arg("--update-catalog").status();
        // After an upgrade. The helper loses nothing, since its state is in the kernel.
        let _ = Command::new("systemctl").args(["try-restart", "pag-logind-helper"]).status();
        println!("installed. Next: pagctl pam enable; systemctl enable --now pag-logind-helper");
    }
    true
}

/// `cargo xtask uninstall`: removes all but /etc/pag. It refuses while PAM stacks name pam_pag.
pub(crate) fn uninstall(destination: &Path) -> bool {
    if destination == Path::new("/") {
        if sh("grep -ls pam_pag /etc/pam.d/* || true").lines().next().is_some() {
            eprintln!("the PAM stacks still name pam_pag; first run: pagctl pam disable");
            return false;
        }
        if Path::new("/etc/apache2/mods-enabled/pag.load").exists() {
            eprintln!("Apache still loads mod_pag; first run: a2dismod pag");
            return false;
        }
        let _ = Command::new("systemctl").args(["disable", "--now", "pag-logind-helper"]).status();
        let _ = Command::new("systemctl").args(["stop", "pag-ccache.timer"]).status();
        let _ = Command::new("systemctl").args(["disable", "--now", "pag-metrics.timer"]).status();
        // Keepers of named PAGs that run go on, and so do the services that require them; none is started at the next boot.
        sh("rm -f /etc/systemd/system/multi-user.target.wants/pag@*.service");
        // Old numbers would tell that the helper is well.
        fs::remove_file("/var/lib/prometheus/node-exporter/pag.prom").ok();
    }
    remove(files(&top()), destination);
    remove(apache_files(&top()), destination);
    if destination == Path::new("/") {
        let _ = Command::new("ldconfig").status();
        let _ = Command::new("systemctl").arg("daemon-reload").status();
        let _ = Command::new("systemctl").args(["reload", "dbus"]).status();
        let _ = Command::new("journalctl").arg("--update-catalog").status();
        println!(
            "uninstalled. What stays: /etc/pag, the group pag, and PAGs that have not ended, until the next boot."
        );
    }
    true
}

/// Copies a product that [`layout`] has laid out into the root of a machine, and configures it as an administrator
/// would, with the seeder of the tests.
pub(crate) fn into_root(product: &Path, root: &Path) {
    let (product, r) = (product.display(), root.display());
    sh(&format!("cp -a {product}/. {r}/"));
    fs::create_dir_all(root.join("etc/pag/pag.conf.d")).unwrap();
    let settings = "[pag]\nclient = keyring\nprogram = /usr/local/bin/keyring-aklog\nafs_cells = example.test\n";
    fs::write(root.join("etc/pag/pag.conf.d/lab.conf"), settings).unwrap();
    sh(&format!(
        "chroot {r} systemd-sysusers pag.conf && chroot {r} pagctl pam enable --yes >{r}/var/log/pam-enable.log 2>&1 || \
         {{ cat {r}/var/log/pam-enable.log >&2; exit 1; }}; systemctl --root={r} enable pag-logind-helper >/dev/null 2>&1"
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_uninstalled_but_for_the_configuration() {
        let place = std::env::temp_dir().join(format!("pag-install-{}", std::process::id()));
        let (built, root) = (place.join("built"), place.join("root"));
        fs::create_dir_all(&built).unwrap();
        let files = || files(&top()).into_iter().chain(apache_files(&top())).collect::<Vec<_>>();
        for (_, source) in files() {
            if let Source::Built(name, _) = source {
                fs::write(built.join(name), format!("#!/bin/sh\necho {name} \"$@\"\n")).unwrap();
                fs::set_permissions(built.join(name), fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        fs::create_dir_all(root.join("etc/pag")).unwrap();
        fs::write(root.join("etc/pag/pag.conf"), "the administrator's").unwrap();
        // The second time as an upgrade.
        for _ in 0..2 {
            put(files(), &built, &root);
        }
        let there = || sh(&format!("cd '{}' && find . ! -type d | sort", root.display()));
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        assert!(!there().contains("pag-new"), "{}", there());
        assert_eq!(read("etc/pag/pag.conf"), "the administrator's");
        let library = fs::read_to_string(root.join(libraries()).join("libpag.so")).unwrap();
        assert!(library.contains("echo libpag.so "), "by two links: {library}");
        assert_eq!(read("usr/share/bash-completion/completions/pagctl"), "pagctl completion bash\n");
        let program = fs::metadata(root.join("usr/bin/pagctl")).unwrap().permissions().mode() & 0o777;
        assert!(read("usr/bin/pagctl").contains("echo pagctl "));
        assert_eq!(program, 0o755);
        assert!(read("usr/share/man/man3/libpag.3").contains("pag_enter"));
        assert_eq!(read("usr/share/man/man3/pag_enter.3"), ".so man3/libpag.3\n");
        assert!(read("usr/include/pag.h").contains("pag_enter"));
        let told = fs::read_to_string(root.join(libraries()).join("pkgconfig/libpag.pc")).unwrap();
        assert!(told.contains("Version: 0.") && told.contains("/usr") && !told.contains('@'), "{told}");
        assert!(read("etc/apache2/mods-available/pag.load").contains("usr/lib/apache2/modules/mod_pag.so"));
        remove(files(), &root);
        let stays = there();
        fs::remove_dir_all(&place).unwrap();
        assert!(stays.lines().all(|file| file.starts_with("./etc/")), "{stays}");
        assert!(stays.contains("./etc/pag/pag.conf"), "{stays}");
    }
}
