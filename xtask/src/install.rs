//! The files of a release, and their places.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{Profile, build, run, sh, target_of, top};

/// The files that cargo builds: name, place and mode.
fn built() -> [(String, PathBuf, u32); 6] {
    // Debian has a directory for each architecture, with names of its own. Other systems have PAM modules in lib64 or
    // lib.
    let multiarch = match std::env::consts::ARCH {
        "x86" => "i386-linux-gnu".to_owned(),
        "arm" => "arm-linux-gnueabihf".to_owned(),
        "powerpc64" => "powerpc64le-linux-gnu".to_owned(),
        other => format!("{other}-linux-gnu"),
    };
    let places = [format!("usr/lib/{multiarch}"), "usr/lib64".to_owned(), "usr/lib".to_owned()];
    let has_modules = |place: &&String| Path::new("/").join(place).join("security/pam_unix.so").exists();
    let modules = places.iter().find(has_modules).unwrap_or(&places[0]);
    [
        ("libpam_pag.so".to_owned(), PathBuf::from(modules).join("security/pam_pag.so"), 0o644),
        ("pag-logind-helper".to_owned(), "usr/libexec/pag-logind-helper".into(), 0o755),
        ("pag-seed".to_owned(), "usr/libexec/pag-seed".into(), 0o755),
        ("pag-ccache".to_owned(), "usr/libexec/pag-ccache".into(), 0o755),
        ("pag-keytab".to_owned(), "usr/libexec/pag-keytab".into(), 0o755),
        ("pagctl".to_owned(), "usr/bin/pagctl".into(), 0o755),
    ]
}

/// Builds the product of the tree at `tree` and lays it out below `destination`.
pub(crate) fn layout(tree: &Path, profile: Profile, destination: &Path) {
    build(tree, &["--profile", profile.name(), "-p", "pam_pag", "-p", "pag-logind-helper", "-p", "pagctl"]);
    for (name, place, mode) in built() {
        copy(&target_of(tree).join(profile.name()).join(name), &destination.join(place), mode);
    }
    let units = tree.join("units");
    for file in sh(&format!("cd '{}' && find . -type f", units.display())).lines() {
        let place = destination.join(file);
        // An existing configuration file is the administrator's, and stays.
        if !(file.starts_with("./etc/") && place.exists()) {
            copy(&units.join(file), &place, 0o644);
        }
    }
    for file in sh(&format!("ls '{}'", tree.join("docs/man").display())).lines() {
        let section = file.rsplit('.').next().unwrap();
        copy(&tree.join("docs/man").join(file), &destination.join(format!("usr/share/man/man{section}/{file}")), 0o644);
    }
}

fn copy(from: &Path, to: &Path, mode: u32) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    // Written under another name and renamed: a running sshd has mapped the old module, which must not change.
    let new = to.with_extension("pag-new");
    fs::copy(from, &new).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(&new, to).unwrap();
}

/// `cargo xtask install`.
pub(crate) fn install(destination: &Path) -> bool {
    layout(&top(), Profile::Release, destination);
    if destination == Path::new("/") {
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
        let _ = Command::new("systemctl").args(["disable", "--now", "pag-logind-helper"]).status();
        let _ = Command::new("systemctl").args(["stop", "pag-ccache.timer"]).status();
    }
    let units = sh(&format!("cd '{}' && find . -type f -not -path './etc/*'", top().join("units").display()));
    let pages = sh(&format!("ls '{}'", top().join("docs/man").display()));
    let places = built().into_iter().map(|(_, place, _)| place);
    let places = places.chain(units.lines().map(PathBuf::from));
    let places =
        places.chain(pages.lines().map(|f| format!("usr/share/man/man{}/{f}", f.rsplit('.').next().unwrap()).into()));
    for place in places {
        fs::remove_file(destination.join(place)).ok();
    }
    if destination == Path::new("/") {
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
