//! Container engines that would start a container without a user namespace. Root in it is the host's root to the kernel's
//! keyrings, and so to the PAGs of logins.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// An engine, as far as its command line tells.
struct Engine {
    name: &'static str,
    /// The word that makes it start a container. None: each call does.
    verb: Option<&'static str>,
    /// Options that give a user namespace, alone or with `=VALUE` or a VALUE behind them.
    options: &'static [&'static str],
    /// What to say to have one.
    remedy: &'static str,
    /// What lets a program in the container call keyctl.
    profile: &'static str,
}

const ENGINES: [Engine; 5] = [
    Engine {
        name: "podman",
        verb: Some("run"),
        options: &["--userns", "--uidmap", "--subuidname", "--pod"],
        remedy: "--userns=auto or --uidmap 0:100000:65536",
        profile: "its default profile allows keyctl",
    },
    Engine {
        name: "systemd-nspawn",
        verb: None,
        options: &["-U", "--private-users"],
        remedy: "-U",
        profile: "--system-call-filter=@keyring allows keyctl",
    },
    Engine {
        name: "bwrap",
        verb: None,
        options: &["--unshare-user", "--unshare-all", "--userns"],
        remedy: "--unshare-user",
        profile: "it filters no system calls",
    },
    Engine { name: "crun", verb: Some("run"), options: &[], remedy: IN_BUNDLE, profile: OF_BUNDLE },
    Engine { name: "runc", verb: Some("run"), options: &[], remedy: IN_BUNDLE, profile: OF_BUNDLE },
];

const IN_BUNDLE: &str = "a namespace of type user in its config.json";
const OF_BUNDLE: &str = "keyctl is open unless linux.seccomp of its config.json forbids it";

/// Values of an option that give none.
const NONE: [&str; 5] = ["host", "no", "false", "0", "off"];

/// Why the command would start a container without a user namespace, and what helps. None if it has one, is no container,
/// or if that cannot be told.
pub(super) fn without_namespace(program: &OsStr, arguments: &[OsString]) -> Option<String> {
    let name = Path::new(program).file_name()?;
    let engine = ENGINES.iter().find(|engine| name == engine.name)?;
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    if engine.verb.is_some_and(|verb| !words.contains(&verb)) {
        return None;
    }
    let has_one = match engine.options {
        [] => bundle_has_one(&bundle(&words))?,
        options => options.iter().any(|option| is_given(&words, option)),
    };
    let Engine { name, remedy, profile, .. } = engine;
    (!has_one).then(|| {
        format!(
            "{name} would start a container without a user namespace, and root in it can enter the PAGs of this host's \
             logins ({profile}); give it {remedy}, or say --host-root"
        )
    })
}

/// Whether an option stands on the command line, with a value that switches it on.
fn is_given(words: &[&str], option: &str) -> bool {
    let value_of = |(index, word): (usize, &&str)| {
        let rest = word.strip_prefix(option)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value.to_owned()),
            None if rest.is_empty() => Some(words.get(index + 1).map_or_else(String::new, |next| (*next).to_owned())),
            None => None,
        }
    };
    words.iter().enumerate().find_map(value_of).is_some_and(|value| !NONE.contains(&value.as_str()))
}

/// The bundle that crun or runc is to run.
fn bundle(words: &[&str]) -> PathBuf {
    let named = words.iter().enumerate().find_map(|(index, word)| match *word {
        "-b" | "--bundle" => words.get(index + 1).copied(),
        word => word.strip_prefix("--bundle="),
    });
    named.unwrap_or(".").into()
}

/// Whether the configuration of a bundle gives a user namespace. None if it cannot be read: the engine will say so.
fn bundle_has_one(bundle: &Path) -> Option<bool> {
    let text = std::fs::read(bundle.join("config.json")).ok()?;
    let all: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let namespaces = all.pointer("/linux/namespaces")?.as_array()?;
    Some(namespaces.iter().any(|one| one.get("type").is_some_and(|kind| kind == "user")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> bool {
        let mut words = line.split(' ').map(OsString::from);
        let program = words.next().unwrap();
        without_namespace(&program, &words.collect::<Vec<_>>()).is_some()
    }

    #[test]
    fn engines_are_told_by_their_options() {
        for line in [
            "podman run --rm web",
            "/usr/bin/podman --root /x run -v /afs:/afs web",
            "podman run --userns=host web",
            "podman run --userns host web",
            "systemd-nspawn -D /var/lib/machines/web",
            "systemd-nspawn --private-users=no -D /x",
            "bwrap --bind / / true",
        ] {
            assert!(refused(line), "{line}");
        }
        for line in [
            "podman run --userns=auto web",
            "podman run --userns keep-id web",
            "podman run --uidmap 0:100000:65536 web",
            "podman ps",
            "systemd-nspawn -U -D /x",
            "systemd-nspawn --private-users=pick -D /x",
            "bwrap --unshare-all true",
            "sh -c true",
            "/opt/runc.d/other run",
            "runc run --bundle /nonexistent web",
        ] {
            assert!(!refused(line), "{line}");
        }
    }

    #[test]
    fn a_bundle_tells_by_its_configuration() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().display();
        let write = |namespaces: &str| {
            let text = format!("{{\"linux\":{{\"namespaces\":[{namespaces}]}}}}");
            std::fs::write(top.path().join("config.json"), text).unwrap();
        };
        write("{\"type\":\"pid\"}");
        for line in [format!("crun run -b {path} web"), format!("runc run --bundle={path} web")] {
            assert!(refused(&line), "{line}");
        }
        write("{\"type\":\"pid\"},{\"type\":\"user\"}");
        assert!(!refused(&format!("crun run --bundle {path} web")));
    }
}
