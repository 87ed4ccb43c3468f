//! The ccache that Kerberos programs use without KRB5CCNAME: `default_ccache_name` of krb5.conf(5).

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::CcacheName;

/// The first configuration file of MIT's and Heimdal's libraries.
const FILE: &str = "/etc/krb5.conf";
/// Most bytes that are read of a file.
const LARGEST: u64 = 256 * 1024;
/// Most files that are read.
const FILES: usize = 64;

/// The default ccache of each user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultName(String);

impl DefaultName {
    /// Reads krb5.conf.
    pub fn read() -> Self {
        let mut text = String::new();
        read(Path::new(FILE), &mut text, &mut 0);
        DefaultName(setting(&text).unwrap_or("FILE:/tmp/krb5cc_%{uid}").to_owned())
    }

    /// The default ccache of this uid. None if the module reads no ccaches of its type, or if only the user's own
    /// processes can tell its name.
    pub fn of(&self, uid: u32) -> Option<CcacheName> {
        CcacheName::parse(&expand(&self.0, uid)?).ok()
    }
}

/// The value of `default_ccache_name`. The first one counts (MIT krb5, src/util/profile/prof_get.c, profile_get_value).
fn setting(text: &str) -> Option<&str> {
    let (mut ours, mut depth) = (false, 0_u32);
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            (ours, depth) = (section.starts_with("libdefaults]"), 0);
        } else if line.ends_with('{') {
            depth = depth.saturating_add(1);
        } else if line.starts_with('}') {
            depth = depth.saturating_sub(1);
        } else if let Some((name, value)) = line.split_once('=').filter(|_| ours && depth == 0)
            && name.trim() == "default_ccache_name"
        {
            let value = value.trim();
            return Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value));
        }
    }
    None
}

/// Replaces the parameters of krb5.conf(5), "Parameter expansion". None for one that only the user's own processes can
/// tell.
fn expand(name: &str, uid: u32) -> Option<String> {
    let mut parts = name.split("%{");
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let (token, rest) = part.split_once('}')?;
        match token {
            "uid" | "euid" | "USERID" => text += &uid.to_string(),
            "TEMP" => text += "/tmp",
            "null" => {}
            _ => return None,
        }
        text += rest;
    }
    Some(text)
}

/// Adds a configuration file to `text`, and each file that it includes at the place of the include.
fn read(path: &Path, text: &mut String, files: &mut usize) {
    *files += 1;
    if *files > FILES {
        return;
    }
    let Some(own) = contents(path) else { return };
    for line in own.lines() {
        match line.split_once(char::is_whitespace).map(|(word, rest)| (word, Path::new(rest.trim()))) {
            Some(("include", path)) if path.is_absolute() => read(path, text, files),
            Some(("includedir", path)) if path.is_absolute() => {
                for path in included(path) {
                    read(&path, text, files);
                }
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
}

/// The text of a file. A FIFO is not waited for.
fn contents(path: &Path) -> Option<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The files of a directory that Kerberos includes (krb5.conf(5)), in order.
fn included(directory: &Path) -> Vec<PathBuf> {
    let is_one = |name: &str| {
        let plain = name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
        plain || name.ends_with(".conf") && !name.starts_with('.')
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(is_one)).map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_setting_of_the_section_counts() {
        let found = |text: &str| setting(text).map(str::to_owned);
        assert_eq!(
            found("[libdefaults]\n  default_ccache_name = KCM:\n default_ccache_name = FILE:/x\n").as_deref(),
            Some("KCM:")
        );
        assert_eq!(
            found("[libdefaults]\n\tdefault_ccache_name=\"KEYRING:user:a b\"").as_deref(),
            Some("KEYRING:user:a b")
        );
        let none = [
            "",
            "default_ccache_name = KCM:",
            "[realms]\ndefault_ccache_name = KCM:",
            "[libdefaults]\n# default_ccache_name = KCM:",
            "[libdefaults]\n;default_ccache_name = KCM:",
            "[libdefaults]\nx = {\ndefault_ccache_name = KCM:\n}",
            "[libdefaults]\n[realms]\ndefault_ccache_name = KCM:",
        ];
        for text in none {
            assert_eq!(found(text), None, "{text}");
        }
        assert!(found("[libdefaults]\nx = {\n}\ndefault_ccache_name = KCM:").is_some());
    }

    #[test]
    fn parameters_of_a_name_are_replaced() {
        let of = |name: &str| expand(name, 61001);
        assert_eq!(of("KEYRING:persistent:%{uid}").as_deref(), Some("KEYRING:persistent:61001"));
        assert_eq!(of("FILE:%{TEMP}/%{null}cc_%{euid}").as_deref(), Some("FILE:/tmp/cc_61001"));
        assert_eq!((of("FILE:/%{username}"), of("FILE:/%{uid")), (None, None));
    }

    #[test]
    fn an_included_file_counts_at_the_place_of_its_include() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        let write = |name: &str, value: &str| std::fs::write(at(name), value).unwrap();
        std::fs::create_dir(at("d")).unwrap();
        for (name, value) in
            [("d/b", "KCM:"), ("d/c.conf", "FILE:/c"), ("d/a.rpmnew", "FILE:/a"), ("d/.a.conf", "FILE:/b")]
        {
            write(name, &format!("[libdefaults]\ndefault_ccache_name = {value}\n"));
        }
        let main = format!(
            "includedir {}\ninclude {0}/b\n[libdefaults]\ndefault_ccache_name = FILE:/main\n",
            at("d").display()
        );
        write("main", &main);
        let found = |file: &str| {
            let mut text = String::new();
            read(&at(file), &mut text, &mut 0);
            setting(&text).map(str::to_owned)
        };
        assert_eq!(found("main").as_deref(), Some("KCM:"));
        write("circle", &format!("include {}\n[libdefaults]\ndefault_ccache_name = X\n", at("circle").display()));
        assert_eq!(found("circle").as_deref(), Some("X"));
        assert_eq!(found("missing"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(\\[libdefaults\\]\n)?(.*\n){0,5}", name in ".*(%\\{.*)?") {
            setting(&text);
            expand(&name, 7);
        }
    }
}
