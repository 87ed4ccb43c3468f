//! mod_pag for Apache httpd, built by its own Makefile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::libpag;
use crate::shell::{Profile, run, target_of, top};

/// The packages that build the module and run a server with it.
pub(crate) const PACKAGES: [&str; 3] = ["apache2-bin", "apache2-dev", "make"];

/// Builds the module of the tree at `tree` with the library in the file `library`, and returns the module's file, in `place`.
pub(crate) fn module(tree: &Path, library: &Path, place: &Path) -> PathBuf {
    fs::create_dir_all(place).unwrap();
    run(Command::new("make")
        .args(["-s", "-C"])
        .arg(tree.join("mod_pag"))
        .arg(format!("OUT={}", place.display()))
        .arg(format!("PAG_LIBS={}", library.display())));
    place.join("mod_pag.so")
}

/// Lays out the module, its library and the module of the tests, in one directory, and returns it.
pub(crate) fn for_tests(tree: &Path, profile: Profile) -> PathBuf {
    let place = target_of(tree).join(profile.name()).join("apache-tests");
    fs::create_dir_all(&place).unwrap();
    let library = place.join(libpag::SONAME);
    fs::copy(libpag::link(tree, profile), &library).unwrap();
    module(tree, &library, &place);
    run(Command::new("make")
        .args(["-s", "-C"])
        .arg(top().join("tests/apache"))
        .arg(format!("OUT={}", place.display())));
    place
}
