//! The configuration: `/etc/pag/pag.conf` with its drop-ins, and the arguments on a PAM line.
//!
//! One table of options turns lines and arguments into [`Settings`], and all settings are valid. A wrong line yields a
//! [`Complaint`], and its option keeps its default. Reading the configuration never fails.

pub mod account;
mod check;
mod complaint;
#[cfg(test)]
mod documented;
mod files;
mod identity;
pub mod keytab;
mod options;
mod reading;
mod services;
mod settings;

pub use self::check::{Names, check, check_text, missing_programs, read_text};
use self::complaint::quoted;
pub use self::complaint::{Complaint, ConfigSource};
pub use self::files::Dirs;
pub use self::options::{AKLOG, AKLOG_KAFS, OPTIONS, Opt, Where};
use self::options::{setting, shown};
pub use self::reading::Subject;
use self::reading::{Level, Reading};
pub use self::services::{SERVICES, Seat, default_role, lives_on_without_session, seat};
pub use self::settings::Settings;

use crate::config::keytab::{Keytab, KeytabOwner};

/// The settings for a login. An option is taken from the first of these that has it: `[user NAME]`, `[group NAME]`, the
/// arguments of the PAM line, `[service NAME]`, `[pag]`, and the built-in defaults.
pub fn load(
    dirs: &Dirs,
    service: &str,
    subject: Option<&Subject<'_>>,
    arguments: &[&[u8]],
) -> (Settings, Vec<Complaint>) {
    let mut reading = Reading::new(dirs, Some(service));
    let mut seen = Vec::new();
    for (index, argument) in arguments.iter().enumerate() {
        let place = ConfigSource::Argument(index + 1, service.to_owned());
        match str::from_utf8(argument) {
            Ok(argument) => reading.argument(place, argument, &mut seen),
            Err(_) => {
                let what = format!("{} is no text", quoted(&String::from_utf8_lossy(argument)));
                reading.complain(place, what, "an option of pam_pag(8)".to_owned());
            }
        }
    }
    reading.apply_user(subject);
    reading.finish(dirs)
}

/// The settings of the host as a whole, for the helper. The other sections are read for their mistakes only.
pub fn host(dirs: &Dirs) -> (Settings, Vec<Complaint>) {
    let mut reading = Reading::new(dirs, None);
    let (of_host, decisions) = (reading.settings.clone(), reading.decisions.clone());
    reading.apply_all();
    (reading.settings, reading.decisions) = (of_host, decisions);
    reading.finish(dirs)
}

/// The keytabs that the configuration names. [`host`] gives the complaints.
pub fn keytabs(dirs: &Dirs) -> Vec<(KeytabOwner, Keytab)> {
    let mut reading = Reading::new(dirs, None);
    let services: Vec<KeytabOwner> =
        std::mem::take(&mut reading.services).into_iter().map(KeytabOwner::Service).collect();
    let users = std::mem::take(&mut reading.users).into_iter().map(KeytabOwner::User);
    let mut keytabs = Vec::new();
    for owner in services.into_iter().chain(users) {
        (reading.settings.keytab, reading.settings.principal) = (None, None);
        reading.apply(match &owner {
            KeytabOwner::Service(name) => Level::Service(name),
            KeytabOwner::User(name) => Level::User(name),
        });
        let Settings { keytab, principal, .. } = &reading.settings;
        if let Some(path) = keytab.clone() {
            keytabs.push((owner, Keytab { path, principal: principal.clone() }));
        }
    }
    keytabs
}

/// The settings of a named PAG: those of `[pag NAME]`, and below them those of `[pag]`. None if the
/// configuration has no such section. [`host`] gives the complaints.
pub fn named_pag(dirs: &Dirs, name: &str) -> Option<Settings> {
    let mut reading = Reading::new(dirs, None);
    reading.pags.iter().any(|known| known == name).then(|| {
        reading.apply(Level::Named(name));
        reading.finish(dirs).0
    })
}

/// The value of an option, and the place that decides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Its name.
    pub name: &'static str,
    /// Its value, as a configuration file has it.
    pub value: String,
    /// The place that sets it. None for the built-in default.
    pub place: Option<ConfigSource>,
}

/// The settings that [`load`] gives for a login at `service`, or for the host as a whole, and the line that decides
/// each option. This does not know the arguments of PAM lines.
pub fn explain(dirs: &Dirs, service: Option<&str>, subject: Option<&Subject<'_>>) -> (Vec<Explained>, Vec<Complaint>) {
    let mut reading = Reading::new(dirs, service);
    reading.apply_user(subject);
    let one = |option: &Opt| Explained {
        name: option.name,
        value: shown(option.name, &reading.settings).unwrap_or_default(),
        place: reading.decided(setting(option.name)),
    };
    let explained = OPTIONS.iter().map(one).collect();
    // Those of all sections: a mistake may be what keeps a section from being this one's.
    (explained, host(dirs).1)
}

#[cfg(test)]
mod tests {
    use super::files::{LARGEST, MOST};
    use super::options::timeout;
    use super::*;
    use crate::types::{Join, Retain, Scope, ServiceKind};
    use proptest::prelude::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;
    use std::time::Duration;

    struct Files {
        top: tempfile::TempDir,
        dirs: Dirs,
    }

    impl Files {
        fn write(&self, name: &str, text: &[u8]) {
            let path = self.top.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        }
    }

    fn files(main: impl AsRef<[u8]>) -> Files {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        for name in ["usr", "run", "etc"] {
            fs::create_dir(path(name)).unwrap();
        }
        let dirs = Dirs {
            main: path("pag.conf"),
            drop_ins: vec![path("usr"), path("run"), path("etc")],
            login_defs: path("login.defs"),
            owner: fs::metadata(top.path()).unwrap().uid(),
        };
        let files = Files { top, dirs };
        for name in ["usr", "run", "etc"] {
            fs::set_permissions(files.top.path().join(name), Permissions::from_mode(0o755)).unwrap();
        }
        files.write("pag.conf", main.as_ref());
        files
    }

    fn complaints(main: &str, arguments: &[&str]) -> (Settings, Vec<String>) {
        let files = files(main);
        let arguments: Vec<&[u8]> = arguments.iter().map(|a| a.as_bytes()).collect();
        let (settings, complaints) = load(&files.dirs, "sshd", None, &arguments);
        let prefix = format!("{}/", files.top.path().display());
        (settings, complaints.iter().map(|c| c.to_string().replace(&prefix, "")).collect())
    }

    #[test]
    fn every_option_can_be_shown() {
        let settings = complaints("", &[]).0;
        for option in &OPTIONS {
            assert!(shown(option.name, &settings).is_some(), "{}", option.name);
        }
        assert_eq!(shown("colour", &settings), None);
    }

    #[test]
    fn the_pam_line_counts_over_the_service_and_the_service_over_the_host() {
        let (settings, complaints) = complaints(
            "[service sshd]\nretain = linger\n[pag]\nretain = processes\ntimeout = 2s\n",
            &["timeout=300ms"],
        );
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!((settings.retain, settings.timeout), (Retain::Linger, Duration::from_millis(300)));
    }

    const BY_USER: &str = "[user alice]\nscope = session\n[group staff]\nretain = linger\njoin = credentials\n\
                             [group wheel]\nretain = processes\ntimeout = 2s\n[service sshd]\ntimeout = 3s\nstrict = yes\n\
                             [pag]\nscope = user\ntimeout = 4s\nstrict = no\nnopag = no\n";

    /// A user of that name, in these groups.
    fn with_subject<T>(name: &str, groups: &[&str], work: impl FnOnce(&Subject<'_>) -> T) -> T {
        work(&Subject { name, is_in: &|group| groups.contains(&group) })
    }

    #[test]
    fn the_first_of_user_group_line_service_and_host_counts() {
        let files = files(BY_USER);
        let of = |name: &str, groups: &[&str], line: &[&[u8]]| {
            let (settings, complaints) =
                with_subject(name, groups, |subject| load(&files.dirs, "sshd", Some(subject), line));
            assert!(complaints.is_empty(), "{complaints:?}");
            (settings.scope, settings.retain, settings.join, settings.timeout.as_secs(), settings.strict)
        };
        let (user, session) = (Scope::User, Scope::Session);
        let table = [
            (of("alice", &[], &[]), (session, Retain::None, Join::Always, 3, true)),
            (of("alice", &[], &[b"scope=user"]), (session, Retain::None, Join::Always, 3, true)),
            (of("bob", &[], &[b"scope=session"]), (session, Retain::None, Join::Always, 3, true)),
            (of("bob", &["wheel"], &[b"timeout=9s"]), (user, Retain::Processes, Join::Always, 2, true)),
            // Of two groups, the one that stands first in the files, in any order of NSS.
            (of("bob", &["wheel", "staff"], &[]), (user, Retain::Linger, Join::Credentials, 2, true)),
            (of("bob", &[], &[b"timeout=9s"]), (user, Retain::None, Join::Always, 9, true)),
            // A user with the name of a service, in a group with the name of another user.
            (of("sshd", &["alice"], &[]), (user, Retain::None, Join::Always, 3, true)),
        ];
        for (index, (found, expected)) in table.into_iter().enumerate() {
            assert_eq!(found, expected, "row {index}");
        }
    }

    #[test]
    fn a_named_pag_has_its_own_settings_and_those_of_the_host() {
        let files = files(
            "[pag web]\nkeytab = /etc/web.keytab\nprincipal = web\ntimeout = 7s\n[pag]\nafs_cells = a.test\ntimeout = 2s\n\
             [pag job]\nkeytab = /etc/job.keytab\n",
        );
        let of = |name: &str| {
            named_pag(&files.dirs, name).map(|s| (s.keytab, s.principal, s.timeout.as_secs(), s.afs_cells))
        };
        let cells = vec!["a.test".parse().unwrap()];
        assert_eq!(of("web"), Some((Some("/etc/web.keytab".into()), Some("web".to_owned()), 7, cells.clone())));
        assert_eq!(of("job"), Some((Some("/etc/job.keytab".into()), None, 2, cells)));
        assert_eq!([of("Web"), of(""), of("other")], [None, None, None]);
        // Logins and the helper have nothing of it.
        let (settings, complaints) = host(&files.dirs);
        assert_eq!((settings.keytab, settings.timeout.as_secs(), complaints), (None, 2, vec![]));
        assert_eq!(load(&files.dirs, "web", None, &[]).0.keytab, None);
        let wrong = super::tests::files("[pag a/b]\nkeytab = /x\n[pag ]\n[pag web]\nscope = session\nkeytab = web\n");
        let found: Vec<String> = host(&wrong.dirs).1.iter().map(|c| c.what.clone()).collect();
        let expected = ["'a/b' is no name for a PAG", "'scope' is not for a named PAG", "keytab cannot be 'web'"];
        assert_eq!(found, expected);
    }

    #[test]
    fn groups_are_looked_up_only_where_a_section_names_one() {
        let asked = std::cell::RefCell::new(Vec::new());
        let is_in = |group: &str| {
            asked.borrow_mut().push(group.to_owned());
            false
        };
        let subject = Subject { name: "alice", is_in: &is_in };
        let without = files("[pag]\nscope = session\n[user alice]\nnopag = yes\n");
        let _ = load(&without.dirs, "sshd", Some(&subject), &[]);
        assert!(asked.borrow().is_empty());
        let with = files(BY_USER);
        let _ = load(&with.dirs, "sshd", Some(&subject), &[]);
        assert_eq!(asked.take(), ["wheel", "staff"]);
        // The helper looks up no user, and finds the mistakes all the same.
        let wrong = files("[group staff]\nplacement = own\n[user alice]\nfollow = first\nscope = all\n");
        let found: Vec<String> = host(&wrong.dirs).1.iter().map(|c| c.what.clone()).collect();
        let expected = [
            "'placement' is not for a user or a group",
            "'follow' is for the whole host alone",
            "scope cannot be 'all'",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn explain_names_the_line_that_decides() {
        let files = files(BY_USER);
        files.write("login.defs", b"UID_MIN 500\n");
        files.write("etc/60-more.conf", b"[group wheel]\ntimeout = 1s\n");
        let explain = |name: &str, groups: &[&str], service: Option<&str>| -> Vec<String> {
            let explained = with_subject(name, groups, |subject| explain(&files.dirs, service, Some(subject))).0;
            assert_eq!(explained.len(), OPTIONS.len());
            let prefix = format!("{}/", files.top.path().display());
            let line = |e: Explained| {
                let place = e.place.map_or("built in".to_owned(), |place| place.to_string().replace(&prefix, ""));
                format!("{} {} {place}", e.name, e.value)
            };
            explained.into_iter().map(line).collect()
        };
        let has = |lines: &[String], wanted: &[&str]| {
            for line in wanted {
                assert!(lines.iter().any(|one| one == line), "{line} is not among {lines:#?}");
            }
        };
        let alice = explain("alice", &["wheel"], Some("sshd"));
        has(&alice, &["scope session pag.conf:2", "timeout 1000ms etc/60-more.conf:2", "strict yes pag.conf:11"]);
        has(&alice, &["retain processes pag.conf:7", "retain_after_close yes pag.conf:7", "kdestroy no built in"]);
        has(&alice, &["minimum_uid 500 login.defs", "placement login built in", "follow display built in"]);
        let bob = explain("bob", &[], None);
        has(&bob, &["scope user pag.conf:13", "timeout 4000ms pag.conf:14", "strict no pag.conf:15"]);
    }

    #[test]
    fn the_section_of_another_service_does_not_count() {
        let (settings, _) = complaints("[service cron]\nplacement = none\nnopag = yes\n", &[]);
        assert_eq!((settings.placement, settings.nopag), (ServiceKind::Login, false));
    }

    #[test]
    fn options_of_pam_afs_session_mean_what_they_meant() {
        let line =
            ["program=/usr/bin/aklog,-force", "afs_cells=a.test,b.test", "always_aklog", "minimum_uid=500", "debug=no"];
        let (settings, complaints) = complaints("", &[&line[..], &["retain_after_close", "ignore_root"]].concat());
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!(settings.program.unwrap(), ["/usr/bin/aklog", "-force"]);
        assert_eq!(settings.afs_cells.len(), 2);
        assert!(settings.always_aklog && !settings.debug && settings.ignore_root);
        assert_eq!((settings.minimum_uid, settings.retain), (500, Retain::Processes));
    }

    #[test]
    fn a_complaint_names_the_place_the_mistake_and_what_would_be_right() {
        let text = "x = 1\n[pag]\nretian = none\nretain = sometimes\nscope\n[nonsense]\na = b\n";
        let (settings, complaints) = complaints(text, &["timeout=1h", "client=kafs", "program=aklog", "afs_cells"]);
        assert_eq!(settings.retain, Retain::None);
        let expected = [
            "pag.conf:1: 'x = 1' stands in no section; right would be a [pag] above it",
            "pag.conf:3: unknown option 'retian'; right would be perhaps 'retain'",
            "pag.conf:4: retain cannot be 'sometimes'; right would be none or processes or linger",
            "pag.conf:5: 'scope' is no setting; right would be NAME = VALUE",
            "pag.conf:6: unknown section 'nonsense'; right would be [pag], [service NAME], [group NAME], [user NAME] or [pag NAME]",
            "PAM argument 1 of sshd: timeout cannot be '1h'; right would be a time from 100ms to 60s, such as 5s",
            "PAM argument 2 of sshd: 'client' is no PAM argument; right would be a line in pag.conf",
            "PAM argument 3 of sshd: program cannot be 'aklog'; right would be an absolute path, then arguments, separated by commas",
            "PAM argument 4 of sshd: 'afs_cells' needs a value; right would be afs_cells=VALUE",
        ];
        assert_eq!(complaints, expected);
    }

    #[test]
    fn drop_ins_are_read_by_name_and_the_later_directory_hides_the_earlier() {
        let files = files("[pag]\ntimeout = 1s\n");
        let write = |name: &str, text: &str| files.write(name, text.as_bytes());
        write("usr/50-site.conf", "[pag]\ntimeout = 2s\nnopag = yes\n");
        write("etc/50-site.conf", "[pag]\ntimeout = 3s\n");
        write("run/60-more.conf", "[pag]\nstrict = yes\n");
        write("etc/README", "timeout = 9s\n");
        let (settings, complaints) = host(&files.dirs);
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!((settings.timeout, settings.nopag, settings.strict), (Duration::from_secs(3), false, true));
    }

    #[test]
    fn a_file_that_others_can_write_is_not_read() {
        let files = files("[pag]\nprogram = /tmp/evil\n");
        fs::set_permissions(&files.dirs.main, Permissions::from_mode(0o664)).unwrap();
        let (settings, complaints) = host(&files.dirs);
        assert_eq!((settings.program, complaints.len()), (None, 1));
        fs::set_permissions(&files.dirs.main, Permissions::from_mode(0o644)).unwrap();
        let stranger = Dirs { owner: files.dirs.owner.wrapping_add(1), ..files.dirs.clone() };
        // The file, and each of the three directories.
        assert_eq!(host(&stranger).1.len(), 4);
    }

    #[test]
    fn the_placement_of_the_manager_and_the_seeding_job_is_fixed() {
        let files = files("[service systemd-user]\nplacement = none\n[service sshd]\nplacement = manager\n");
        let (settings, complaints) = load(&files.dirs, "systemd-user", None, &[]);
        assert_eq!((settings.placement, complaints.len()), (ServiceKind::Manager, 1));
        let (settings, complaints) = load(&files.dirs, "sshd", None, &[]);
        assert_eq!((settings.placement, complaints.len()), (ServiceKind::Login, 1));
    }

    #[test]
    fn login_defs_sets_the_minimum_uid() {
        let files = files("");
        assert_eq!(host(&files.dirs).0.minimum_uid, 1000);
        files.write("login.defs", b"#UID_MIN 5\nUID_MIN 9\n UID_MIN\t\t  500\nSYS_UID_MIN 7\nUID_MINI 8\n# Jos\xe9\n");
        assert_eq!(host(&files.dirs).0.minimum_uid, 500);
    }

    #[test]
    fn the_helper_checks_the_sections_of_all_services() {
        let files = files("[service cron]\nplacement = nowhere\nnopag = YES\n[service SSHD]\nnopag = maybe\n");
        let (settings, complaints) = host(&files.dirs);
        assert_eq!((settings.nopag, settings.placement, complaints.len()), (false, ServiceKind::Login, 2));
        assert_eq!(load(&files.dirs, "sshd", None, &[]).1.len(), 1);
        assert!(load(&files.dirs, "cron", None, &[]).0.nopag);
    }

    #[test]
    fn a_keytab_is_a_users_or_a_services() {
        let text = "[user alice]\nkeytab = /etc/k/alice\n[user bob]\nprincipal = bob/cron\nkeytab = /etc/k/bob\n\
                    [service backup]\nkeytab = /etc/k/backup\n[user carol]\nkeytab = /etc/k/carol\nkeytab =\n";
        let files = files(text);
        let keytab =
            |path: &str, principal: Option<&str>| Keytab { path: path.into(), principal: principal.map(str::to_owned) };
        let expected = [
            (KeytabOwner::Service("backup".to_owned()), keytab("/etc/k/backup", None)),
            (KeytabOwner::User("alice".to_owned()), keytab("/etc/k/alice", None)),
            (KeytabOwner::User("bob".to_owned()), keytab("/etc/k/bob", Some("bob/cron"))),
        ];
        assert_eq!(keytabs(&files.dirs), expected);
        assert_eq!(load(&files.dirs, "sshd", None, &[b"keytab=/x"]).1.len(), 1);
        // The sections of one user in several files count as one.
        files.write("etc/10-more.conf", b"[user alice]\nprincipal = alice/cron\n[user bob]\nkeytab =\n");
        let expected = [
            (KeytabOwner::Service("backup".to_owned()), keytab("/etc/k/backup", None)),
            (KeytabOwner::User("alice".to_owned()), keytab("/etc/k/alice", Some("alice/cron"))),
        ];
        assert_eq!(keytabs(&files.dirs), expected);
        let files = self::files("[pag]\nkeytab = /x\n[group g]\nkeytab = /x\n[user a]\nkeytab = x\nprincipal = -V\n");
        assert_eq!((keytabs(&files.dirs).len(), host(&files.dirs).1.len()), (0, 4));
    }

    #[test]
    fn an_empty_value_takes_back_an_earlier_setting() {
        let (settings, complaints) =
            complaints("[pag]\nprogram = /bin/x\nafs_cells = a b\n", &["program=", "afs_cells="]);
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!((settings.program, settings.afs_cells), (None, vec![]));
    }

    #[test]
    fn a_device_of_openafs_is_in_proc() {
        let set = |value: &str| complaints(&format!("[pag]\nopenafs_device = {value}\n"), &[]);
        let (settings, complaints) = set("/proc/fs/other/afs_ioctl");
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!(settings.openafs_device.unwrap(), Path::new("/proc/fs/other/afs_ioctl"));
        for bad in ["/dev/afs", "/proc", "/process/afs", "/proc/../dev/afs", "proc/fs/afs_ioctl"] {
            let (settings, complaints) = set(bad);
            assert_eq!((settings.openafs_device, complaints.len()), (None, 1), "{bad}");
        }
        assert_eq!(set("").0.openafs_device, None);
    }

    #[test]
    fn an_option_that_is_set_twice_is_named_and_the_later_counts() {
        let (settings, complaints) = complaints("[pag]\njoin = credentials\njoin = always\n", &["strict", "strict=No"]);
        assert_eq!((settings.join, settings.strict), (Join::Always, false));
        let expected = [
            "pag.conf:3: 'join' is set twice, and the later counts; right would be one of them",
            "PAM argument 2 of sshd: 'strict' is set twice, and the later counts; right would be one of them",
        ];
        assert_eq!(complaints, expected);
    }

    #[test]
    fn a_service_is_placed_by_its_section_alone() {
        let text = "[pag]\nplacement = own\n[service sshd]\nplacement = none\n";
        let (settings, complaints) = complaints(text, &[]);
        assert_eq!((settings.placement, complaints.len()), (ServiceKind::Nothing, 1));
    }

    #[test]
    fn a_file_full_of_mistakes_does_not_flood_the_journal() {
        let (_, complaints) = complaints(&format!("[pag]\n{}", "x = 1\n".repeat(100)), &[]);
        assert_eq!(complaints.len(), MOST + 1);
        assert_eq!(
            complaints[MOST],
            "pag.conf: 80 more lines or arguments are wrong; right would be what pag.conf(5) says"
        );
    }

    #[test]
    fn files_that_cannot_be_read_do_not_block_a_login() {
        let files = files("");
        let conf = |name: &str| files.top.path().join("etc").join(name);
        files.write("etc/long.conf", &vec![b'#'; LARGEST as usize + 1]);
        files.write("etc/latin.conf", b"[pag]\n# Jos\xe9\n");
        fs::create_dir(conf("dir.conf")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(conf("fifo.conf")).status().unwrap().success());
        std::os::unix::fs::symlink("nowhere", conf("dangling.conf")).unwrap();
        let complaints = host(&files.dirs).1;
        assert_eq!(complaints.len(), 4, "{complaints:?}");
        fs::set_permissions(files.top.path().join("etc"), Permissions::from_mode(0o775)).unwrap();
        assert_eq!(host(&files.dirs).1.len(), 1);
    }

    /// The options of the manual's section OPTIONS. A tag is the line after `.TP`, and its first word is the name.
    fn documented() -> Vec<&'static str> {
        let page = include_str!("../../../docs/man/pam_pag.8");
        let section = page.split(".SH OPTIONS").nth(1).unwrap().split("\n.SH").next().unwrap();
        let tags = section.split("\n.TP\n").skip(1).map(|rest| rest.lines().next().unwrap());
        tags.map(|tag| tag.split(' ').nth(1).unwrap().split('=').next().unwrap()).collect()
    }

    #[test]
    fn the_manuals_name_every_option_and_no_other() {
        let (of_line, of_file): (Vec<&Opt>, Vec<&Opt>) =
            OPTIONS.iter().partition(|option| option.stands == Where::Anywhere);
        let mut names: Vec<&str> = of_line.iter().map(|option| option.name).collect();
        let mut documented = documented();
        names.sort_unstable();
        documented.sort_unstable();
        assert_eq!(documented, names);
        let page = include_str!("../../../docs/man/pag.conf.5");
        let words = |line: &'static str| line.split(|c: char| !c.is_ascii_lowercase() && c != '_');
        let bold: Vec<&str> = page.lines().filter(|line| line.starts_with(".B")).flat_map(words).collect();
        for option in of_line.iter().chain(&of_file) {
            assert!(bold.contains(&option.name), "{}", option.name);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}", argument in proptest::collection::vec(any::<u8>(), 0..40)) {
            let files = files(format!("[pag]\n{text}"));
            let _ = load(&files.dirs, "sshd", None, &[&argument]);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let files = files(&bytes);
            let _ = host(&files.dirs);
        }

        #[test]
        fn a_good_time_is_read_as_it_is_written(millis in 100_u64..=60_000) {
            prop_assert_eq!(timeout(&format!("{millis}ms")), Ok(Duration::from_millis(millis)));
        }

        #[test]
        fn complaints_are_one_line(argument in "[\\x00-\\x7f]{0,60}") {
            let files = files("");
            for complaint in load(&files.dirs, "sshd", None, &[argument.as_bytes()]).1 {
                prop_assert!(!complaint.to_string().contains('\n'));
            }
        }
    }
}
