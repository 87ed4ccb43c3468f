//! `cargo xtask dist`: packages of a release for Debian, built by debhelper from `debian/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::install;
use crate::shell::{Profile, need_packages, sh, target, top};

/// What a host needs to build the packages.
pub(crate) const PACKAGES: [&str; 3] = ["debhelper", "dpkg-dev", "apache2-dev"];

/// `cargo xtask dist`: builds a release, and its packages from that. False if lintian finds what has no reason.
pub(crate) fn run() -> bool {
    need_packages(&[&PACKAGES[..], &["lintian"]].concat());
    let place = target().join("dist");
    fs::remove_dir_all(&place).ok();
    let layout = place.join("layout");
    println!("building a release");
    install::layout(&top(), Profile::Release, &layout);
    install::layout_apache(&top(), Profile::Release, &layout);
    println!("building packages");
    let packages = debian(&top(), &layout, &place);
    packages.iter().for_each(|package| println!("{}", package.display()));
    println!("running lintian");
    // These packages are not Debian's, so there is no bug that asks for them.
    let ours = ["--allow-root", "--suppress-tags", "initial-upload-closes-no-bugs"];
    let lintian = Command::new("lintian").args(ours).args(["--fail-on", "error,warning"]).args(&packages).status();
    lintian.is_ok_and(|status| status.success())
}

/// Builds the packages of a product that the tests have built from the tree at `source`, and returns them.
pub(crate) fn for_tests(source: &Path, product: &Path) -> Vec<PathBuf> {
    let place = product.with_extension("dist");
    let layout = place.join("layout");
    fs::remove_dir_all(&place).ok();
    fs::create_dir_all(&layout).unwrap();
    // The tests' own programs are in usr/local.
    sh(&format!(
        "cp -a '{}/.' '{layout}' && rm -rf '{layout}/usr/local'",
        product.display(),
        layout = layout.display()
    ));
    debian(source, &layout, &place)
}

/// Builds Debian's packages of the files in `layout`, in a directory below `place`, and returns them. What `debian/rules`
/// prints is shown if it fails.
fn debian(source: &Path, layout: &Path, place: &Path) -> Vec<PathBuf> {
    let tree = place.join("pam-pag");
    fs::remove_dir_all(&tree).ok();
    fs::create_dir_all(&tree).unwrap();
    sh(&format!("cd '{}' && cp -a --parents debian docs README.md '{}'", source.display(), tree.display()));
    // Rust comes from rustup where Debian's is too old, so dpkg does not know of it.
    let output = Command::new("dpkg-buildpackage")
        .args(["--build=binary", "--no-sign", "--no-check-builddeps"])
        .current_dir(&tree)
        .env("PAG_LAYOUT", layout)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("dpkg-buildpackage: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let mut packages: Vec<PathBuf> = fs::read_dir(place).unwrap().flatten().map(|entry| entry.path()).collect();
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    packages.sort();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_changelog_has_the_version() {
        let text = fs::read_to_string(top().join("debian/changelog")).unwrap();
        let first = format!("pam-pag ({}-", env!("CARGO_PKG_VERSION"));
        assert!(text.starts_with(&first), "the first line of debian/changelog is not of {first}");
    }
}
