//! Kerberos's configuration, krb5.conf(5), as far as the settings of its section `libdefaults`.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The first configuration file of MIT's and Heimdal's libraries.
const FILE: &str = "/etc/krb5.conf";

/// Largest file that is read, in bytes.
const LARGEST: u64 = 256 * 1024;

/// Most files that are read, so that files that include each other end.
const MOST_FILES: usize = 64;

/// The value of a setting in `libdefaults`. The first one counts (MIT krb5, src/util/profile/prof_get.c,
/// profile_get_value). None if no file has it that belongs to root and that no other account can write.
pub(crate) fn libdefault(name: &str) -> Option<String> {
    find(Path::new(FILE), 0, name, &mut 0)
}

/// Looks for the setting in a file of `owner`, and in the files that it includes, at the place of the include. An included
/// file has sections of its own (krb5.conf(5)): the section of its parent goes on after it.
fn find(path: &Path, owner: u32, name: &str, files: &mut usize) -> Option<String> {
    *files += 1;
    if *files > MOST_FILES {
        return None;
    }
    let text = trusted_text(path, owner)?;
    let (mut in_defaults, mut depth) = (false, 0_u32);
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            (in_defaults, depth) = (section.starts_with("libdefaults]"), 0);
        } else if let Some(found) = included(line).iter().find_map(|path| find(path, owner, name, files)) {
            return Some(found);
        } else if line.ends_with('{') {
            depth = depth.saturating_add(1);
        } else if line.starts_with('}') {
            depth = depth.saturating_sub(1);
        } else if let Some((word, value)) = line.split_once('=').filter(|_| in_defaults && depth == 0)
            && word.trim() == name
        {
            let value = value.trim();
            let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            return Some(quoted.unwrap_or(value).to_owned());
        }
    }
    None
}

/// The files that a line includes, in order. Of a directory, Kerberos includes files of letters, digits, dashes and
/// underscores, and those that end in `.conf` (krb5.conf(5)).
fn included(line: &str) -> Vec<PathBuf> {
    let is_plain = |name: &str| name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
    let counts = |name: &str| is_plain(name) || name.ends_with(".conf") && !name.starts_with('.');
    match line.split_once(char::is_whitespace).map(|(word, rest)| (word, Path::new(rest.trim()))) {
        Some(("include", path)) if path.is_absolute() => vec![path.to_owned()],
        Some(("includedir", directory)) if directory.is_absolute() => {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let counted = entries.filter(|entry| entry.file_name().to_str().is_some_and(counts));
            let mut paths: Vec<PathBuf> = counted.map(|entry| entry.path()).collect();
            paths.sort();
            paths
        }
        _ => Vec::new(),
    }
}

/// The text of a file that belongs to `owner` and that no other account can write. A FIFO is not waited for.
fn trusted_text(path: &Path, owner: u32) -> Option<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let found = file.metadata().ok()?;
    let is_trusted = found.is_file() && found.uid() == owner && found.mode() & 0o022 == 0 && found.len() <= LARGEST;
    let mut text = String::new();
    is_trusted.then(|| file.take(LARGEST).read_to_string(&mut text).ok())??;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    struct Files(tempfile::TempDir);

    impl Files {
        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.at(name), text).unwrap();
            fs::set_permissions(self.at(name), Permissions::from_mode(0o644)).unwrap();
        }

        fn find(&self, file: &str) -> Option<String> {
            let owner = fs::metadata(self.0.path()).unwrap().uid();
            find(&self.at(file), owner, "name", &mut 0)
        }

        fn find_in(&self, text: &str) -> Option<String> {
            self.write("main", text);
            self.find("main")
        }
    }

    fn files() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    #[test]
    fn the_first_setting_of_the_section_counts() {
        let files = files();
        let table = [
            ("[libdefaults]\n  name = KCM:\n name = FILE:/x\n", Some("KCM:")),
            ("[libdefaults]\n\tname=\"KEYRING:user:a b\"", Some("KEYRING:user:a b")),
            ("[libdefaults]\nname=A.TEST B.TEST", Some("A.TEST B.TEST")),
            ("[libdefaults]\nx = {\n}\nname = KCM:", Some("KCM:")),
            ("", None),
            ("name = KCM:", None),
            ("[realms]\nname = KCM:\n[libdefaults]\n# name = KCM:", None),
            ("[libdefaults]\n;name = KCM:", None),
            ("[libdefaults]\nx = {\nname = KCM:\n}", None),
            ("[libdefaults]\n[realms]\nname = KCM:", None),
        ];
        for (text, expected) in table {
            assert_eq!(files.find_in(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn an_included_file_counts_at_the_place_of_its_include() {
        let files = files();
        fs::create_dir(files.at("d")).unwrap();
        for (name, value) in [("d/b", "B"), ("d/c.conf", "C"), ("d/a.rpmnew", "A"), ("d/.a.conf", "HIDDEN")] {
            files.write(name, &format!("[libdefaults]\nname = {value}\n"));
        }
        let directory = files.at("d").display().to_string();
        assert_eq!(
            files.find_in(&format!("includedir {directory}\n[libdefaults]\nname = MAIN\n")).as_deref(),
            Some("B")
        );
        assert_eq!(
            files.find_in(&format!("[libdefaults]\nname = MAIN\ninclude {directory}/b\n")).as_deref(),
            Some("MAIN")
        );
        files.write("other", "[realms]\nx = y\n");
        let main = format!("[libdefaults]\ninclude {}\nname = MAIN\n", files.at("other").display());
        assert_eq!(files.find_in(&main).as_deref(), Some("MAIN"), "the section goes on after the include");
        let circle = format!("include {}\n[libdefaults]\nname = MAIN\n", files.at("main").display());
        assert_eq!(files.find_in(&circle).as_deref(), Some("MAIN"), "files that include each other end");
        assert_eq!(files.find("missing"), None);
    }

    #[test]
    fn a_file_that_others_can_write_is_not_read() {
        let files = files();
        let text = "[libdefaults]\nname = MAIN\n";
        assert!(files.find_in(text).is_some());
        fs::set_permissions(files.at("main"), Permissions::from_mode(0o666)).unwrap();
        assert_eq!(files.find("main"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(\\[libdefaults\\]\n)?(.*\n){0,5}") {
            files().find_in(&text);
        }
    }
}
