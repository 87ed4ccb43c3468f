//! Whole hosts: the files as distributions lay them out, and what the tool makes of them.

use super::parse::Facility;
use super::stack::Stacks;
use super::*;
use std::fs;
use std::path::Path;

/// A host in a temporary directory.
struct Scene {
    root: tempfile::TempDir,
}

impl Scene {
    fn new(files: &[(&str, &str)]) -> Self {
        // In memory where that is: each edit waits for the disk.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let scene = Self { root: root.unwrap() };
        scene.put("/etc/group", "root:x:0:\npag:x:995:\n");
        scene.put("/usr/lib/security/pam_unix.so", "");
        scene.put("/usr/lib/security/pam_pag.so", "");
        for (path, text) in files {
            scene.put(path, text);
        }
        scene
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn get(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.at(path)).ok()
    }

    fn host(&self) -> Host {
        Host::new(self.root.path()).unwrap()
    }

    fn change(&self) -> Change {
        let look = Look { root: self.root.path().to_owned(), json: false };
        Change { look, dry_run: false, yes: true }
    }

    fn enable(&self) -> Answer {
        run(&Verb::Enable(self.change())).unwrap()
    }

    fn disable(&self) -> Answer {
        run(&Verb::Disable(self.change())).unwrap()
    }

    fn check(&self) -> Answer {
        run(&Verb::Check(Look { root: self.root.path().to_owned(), json: true })).unwrap()
    }

    /// Everything below /etc/pam.d.
    fn files(&self) -> Vec<(String, Option<String>)> {
        let names = self.host().names("/etc/pam.d").into_iter();
        names.map(|name| (name.clone(), self.get(&format!("/etc/pam.d/{name}")))).collect()
    }

    /// Enables, checks, enables again, disables: the story that each distribution must live through.
    fn goes_in_and_out(&self) {
        let before = self.files();
        assert_eq!(self.check(), Answer::ToDo);
        assert_eq!(self.enable(), Answer::AllRight, "{:?}", inspect(&self.host()).1);
        assert_eq!(self.check(), Answer::AllRight);
        let after = self.files();
        assert_ne!(before, after);
        assert_eq!(self.enable(), Answer::AllRight);
        assert_eq!(self.files(), after, "twice is once");
        assert_eq!(self.disable(), Answer::AllRight);
        assert_eq!(self.files(), before);
        assert_eq!(self.disable(), Answer::AllRight);
    }

    /// The modules of a session stack that matter to the order.
    fn order(&self, service: &str) -> Vec<String> {
        let host = self.host();
        let stacks = Stacks::of(&host, &host.service(service).unwrap());
        let names = stacks.steps(Facility::Session).iter().map(|step| step.entry.module().to_owned());
        names.filter(|name| ["pam_keyinit", "pam_krb5", "pam_systemd", "pam_pag"].contains(&name.as_str())).collect()
    }
}

const DEBIAN_SESSION: &str = "\
# here are the per-package modules (the \"Primary\" block)
session\t[default=1]\t\t\tpam_permit.so
# here's the fallback if no module succeeds
session\trequisite\t\t\tpam_deny.so
session\trequired\t\t\tpam_permit.so
# and here are more per-package modules (the \"Additional\" block)
session\toptional\t\t\tpam_krb5.so minimum_uid=1000
session\trequired\tpam_unix.so 
PAG_HERE# end of pam-auth-update config
";
const DEBIAN_AUTH: &str = "\
auth\t[success=1 default=ignore]\tpam_unix.so nullok
auth\trequisite\t\t\tpam_deny.so
auth\trequired\t\t\tpam_permit.so
PAG_HERE# end of pam-auth-update config
";
const DEBIAN_MANAGER: &str = "\
# Used by systemd --user instances.
@include common-account
session  required pam_selinux.so close
session  required pam_selinux.so nottys open
session  required pam_loginuid.so
session  required pam_limits.so
@include common-session-noninteractive
session  optional pam_keyinit.so force revoke
session  optional pam_systemd.so
";
const RUNUSER_L: &str = "\
#%PAM-1.0
auth\t\tinclude\t\trunuser
session\t\toptional\tpam_keyinit.so force revoke
-session\toptional\tpam_systemd.so
session\t\tinclude\t\trunuser
";

/// Debian 12 and 13, after pam-auth-update has run with our profile, or before.
fn debian(profile: bool) -> Scene {
    let session = if profile { "session\toptional\tpam_pag.so \n" } else { "" };
    let auth = if profile { "auth\toptional\tpam_pag.so \n" } else { "" };
    let interactive = format!("{session}session\toptional\tpam_systemd.so \n");
    Scene::new(&[
        ("/etc/debian_version", "13\n"),
        ("/usr/share/pam-configs/unix", "Name: Unix authentication\n"),
        ("/etc/pam.d/common-session", &DEBIAN_SESSION.replace("PAG_HERE", &interactive)),
        ("/etc/pam.d/common-session-noninteractive", &DEBIAN_SESSION.replace("PAG_HERE", session)),
        ("/etc/pam.d/common-auth", &DEBIAN_AUTH.replace("PAG_HERE", auth)),
        ("/etc/pam.d/common-account", "account required pam_unix.so\n"),
        (
            "/etc/pam.d/sshd",
            "@include common-auth\nsession optional pam_keyinit.so force revoke\n@include common-session\n",
        ),
        ("/etc/pam.d/lightdm", "@include common-auth\nsession required pam_limits.so\n@include common-session\n"),
        ("/etc/pam.d/su", "@include common-auth\n@include common-session\n"),
        ("/etc/pam.d/su-l", "auth include su\nsession optional pam_keyinit.so force revoke\nsession include su\n"),
        (
            "/etc/pam.d/runuser",
            "auth sufficient pam_rootok.so\nsession optional pam_keyinit.so revoke\nsession required pam_unix.so\n",
        ),
        ("/etc/pam.d/runuser-l", RUNUSER_L),
        ("/etc/pam.d/lightdm-greeter", "session optional pam_systemd.so\n"),
        ("/usr/lib/pam.d/systemd-user", DEBIAN_MANAGER),
    ])
}

#[test]
fn debian_with_the_profile_needs_systemd_user_and_runuser_l() {
    let scene = debian(true);
    let common = scene.get("/etc/pam.d/common-session");
    assert_eq!(scene.enable(), Answer::AllRight, "{:?}", inspect(&scene.host()).1);
    let manager = scene.get("/etc/pam.d/systemd-user").unwrap();
    let lines: Vec<&str> = manager.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        lines,
        [
            "account\tinclude\t/usr/lib/pam.d/systemd-user",
            "session\tinclude\t/usr/lib/pam.d/systemd-user",
            "-session\toptional\tpam_pag.so"
        ]
    );
    assert_eq!(scene.order("systemd-user"), ["pam_krb5", "pam_pag", "pam_keyinit", "pam_systemd", "pam_pag"]);
    assert_eq!(scene.order("runuser-l"), ["pam_keyinit", "pam_pag", "pam_systemd", "pam_keyinit"]);
    assert_eq!(scene.get("/etc/pam.d/common-session"), common);
    assert_eq!(scene.enable(), Answer::AllRight);
}

#[test]
fn debian_without_the_profile_plans_the_same_edits_and_asks_pam_auth_update() {
    let scene = debian(false);
    let plan = enable(&scene.host());
    assert!(plan.run.unwrap().line().ends_with("pam-auth-update --package --enable pag"));
    let paths: Vec<&str> = plan.edits.iter().map(|edit| edit.path.as_str()).collect();
    assert_eq!(paths, ["/etc/pam.d/runuser-l", "/etc/pam.d/systemd-user"]);
    assert!(plan.remarks.is_empty());
}

#[test]
fn a_vendor_that_gains_auth_lines_gets_them_into_our_file() {
    let scene = debian(true);
    scene.enable();
    scene.put("/usr/lib/pam.d/systemd-user", &format!("auth required pam_rootok.so\n{DEBIAN_MANAGER}"));
    assert_eq!(scene.enable(), Answer::AllRight);
    let manager = scene.get("/etc/pam.d/systemd-user").unwrap();
    assert!(manager.contains("auth\tinclude\t/usr/lib/pam.d/systemd-user\n"));
}

#[test]
fn an_own_systemd_user_is_appended_to_and_restored() {
    let scene = Scene::new(&[
        ("/etc/debian_version", "13\n"),
        ("/etc/pam.d/systemd-user", DEBIAN_MANAGER),
        ("/etc/pam.d/common-account", "account required pam_unix.so\n"),
        ("/etc/pam.d/common-session-noninteractive", "session required pam_unix.so\n"),
    ]);
    scene.goes_in_and_out();
    let backups = scene.host().names("/var/lib/pag/pam-backup");
    assert!(backups.iter().any(|name| name.starts_with("systemd-user.")), "{backups:?}");
}

const FEDORA_AUTH: &str = "\
auth        required                                     pam_env.so
auth        sufficient                                   pam_unix.so nullok
auth        required                                     pam_deny.so
account     required                                     pam_unix.so
session     optional                                     pam_keyinit.so revoke
session     required                                     pam_limits.so
PAG_HERE-session    optional                                     pam_systemd.so
session     [success=1 default=ignore]                   pam_succeed_if.so service in crond quiet use_uid
session     required                                     pam_unix.so
session     optional                                     pam_sss.so
";
const FEDORA_MANAGER: &str = "\
account  include system-auth
session  required pam_selinux.so close
session  required pam_selinux.so nottys open
session  required pam_loginuid.so
session  optional pam_keyinit.so force revoke
session  include system-auth
";
const FEDORA_SSHD: &str = "\
#%PAM-1.0
auth       substack     password-auth
session    required     pam_loginuid.so
session    optional     pam_keyinit.so force revoke
session    include      password-auth
";

/// Fedora and RHEL 9: authselect's files stand behind links.
fn fedora(pag: bool, authselect: bool) -> Scene {
    let stack = FEDORA_AUTH.replace("PAG_HERE", if pag { "session optional pam_pag.so\n" } else { "" });
    let scene = Scene::new(&[
        ("/etc/pam.d/sshd", FEDORA_SSHD),
        ("/etc/pam.d/gdm-password", FEDORA_SSHD),
        ("/etc/pam.d/su-l", "session optional pam_keyinit.so force revoke\nsession include system-auth\n"),
        ("/usr/lib/pam.d/systemd-user", FEDORA_MANAGER),
    ]);
    for name in ["system-auth", "password-auth"] {
        if authselect {
            scene.put("/etc/authselect/authselect.conf", "sssd\nwith-mkhomedir\n");
            scene.put(&format!("/etc/authselect/{name}"), &stack);
            std::os::unix::fs::symlink(format!("/etc/authselect/{name}"), scene.at(&format!("/etc/pam.d/{name}")))
                .unwrap();
        } else {
            scene.put(&format!("/etc/pam.d/{name}"), &stack);
        }
    }
    scene
}

#[test]
fn authselects_files_stay_and_its_commands_are_printed() {
    let scene = fedora(false, true);
    let plan = enable(&scene.host());
    assert!(plan.run.is_none());
    assert_eq!(plan.advice.last().unwrap(), "authselect select custom/pag with-mkhomedir with-pag");
    let paths: Vec<&str> = plan.edits.iter().map(|edit| edit.path.as_str()).collect();
    assert_eq!(paths, ["/etc/pam.d/gdm-password"], "its auth line, for unlocking");
    assert_eq!(scene.enable(), Answer::ToDo);
    assert!(scene.host().link("/etc/pam.d/system-auth").is_some());

    let followed = fedora(true, true);
    assert_eq!(followed.enable(), Answer::AllRight);
    assert_eq!(followed.order("systemd-user"), ["pam_keyinit", "pam_keyinit", "pam_pag", "pam_systemd"]);
}

#[test]
fn fedora_without_authselect_is_edited_before_pam_systemd() {
    let scene = fedora(false, false);
    scene.goes_in_and_out();
    scene.enable();
    assert_eq!(scene.order("sshd"), ["pam_keyinit", "pam_keyinit", "pam_pag", "pam_systemd"]);
    assert_eq!(scene.order("su-l"), ["pam_keyinit", "pam_keyinit", "pam_pag", "pam_systemd"]);
}

#[test]
fn arch_gets_its_line_in_system_login() {
    let system_login = "\
auth       required   pam_shells.so
auth       include    system-auth
session    optional   pam_loginuid.so
session    optional   pam_keyinit.so       force revoke
session    include    system-auth
session    optional   pam_motd.so
-session   optional   pam_systemd.so
session    required   pam_env.so
";
    let scene = Scene::new(&[
        ("/etc/pam.d/system-login", system_login),
        (
            "/etc/pam.d/system-auth",
            "auth required pam_unix.so\nsession required pam_limits.so\nsession required pam_unix.so\n",
        ),
        ("/etc/pam.d/system-remote-login", "auth include system-login\nsession include system-login\n"),
        ("/etc/pam.d/sshd", "auth include system-remote-login\nsession include system-remote-login\n"),
        ("/etc/pam.d/login", "auth include system-login\nsession include system-login\n"),
        ("/usr/lib/pam.d/sddm", "auth include system-login\nsession include system-login\n"),
        (
            "/etc/pam.d/systemd-user",
            "account include system-login\nsession required pam_loginuid.so\nsession include system-login\n",
        ),
    ]);
    scene.goes_in_and_out();
    scene.enable();
    for service in ["sshd", "login", "sddm"] {
        assert_eq!(scene.order(service), ["pam_keyinit", "pam_pag", "pam_systemd"], "{service}");
    }
    assert!(scene.get("/etc/pam.d/sddm").is_none(), "an include does it");
}

#[test]
fn suse_keyinit_behind_pam_systemd_leaves_the_place_after_it() {
    // pam-config looks after common-*-pc, behind links; pam_keyinit stands in the service's own file.
    let scene = Scene::new(&[
        (
            "/etc/pam.d/common-session-pc",
            "session required pam_limits.so\nsession optional pam_systemd.so\nsession required pam_unix.so\n",
        ),
        (
            "/usr/lib/pam.d/sshd",
            "auth include common-auth\nsession required pam_loginuid.so\nsession include common-session\nsession optional pam_keyinit.so force revoke\n",
        ),
        ("/etc/pam.d/common-auth", "auth required pam_unix.so\n"),
        (
            "/usr/lib/pam.d/systemd-user",
            "auth include common-auth\naccount include common-auth\nsession optional pam_keyinit.so force revoke\nsession include common-session\n",
        ),
    ]);
    std::os::unix::fs::symlink("common-session-pc", scene.at("/etc/pam.d/common-session")).unwrap();
    let pc = scene.get("/etc/pam.d/common-session-pc");
    scene.goes_in_and_out();
    scene.enable();
    assert_eq!(scene.get("/etc/pam.d/common-session-pc"), pc);
    assert_eq!(scene.order("sshd"), ["pam_systemd", "pam_keyinit", "pam_pag"]);
    let (_, findings) = inspect(&scene.host());
    assert_eq!(
        findings.iter().map(|f| (f.level, f.problem)).collect::<Vec<_>>(),
        [(Level::Note, Problem::AfterSystemd)]
    );
}

#[test]
fn a_line_never_changes_where_a_jump_lands() {
    let text = "session [success=1 default=ignore] pam_succeed_if.so uid < 1000\nsession optional pam_systemd.so\n";
    let safe = Scene::new(&[("/etc/pam.d/sshd", text)]);
    assert_eq!(safe.enable(), Answer::AllRight);
    assert_eq!(safe.order("sshd"), ["pam_pag", "pam_systemd"]);
    assert!(safe.get("/etc/pam.d/sshd").unwrap().ends_with(text), "before the jump, not behind it");

    let text = "session [success=ok default=1] pam_keyinit.so force\nsession optional pam_systemd.so\n";
    let narrow = Scene::new(&[("/etc/pam.d/sshd", text)]);
    let plan = enable(&narrow.host());
    assert_eq!(plan.remarks.len(), 1, "{:?}", plan.edits);
    assert!(plan.remarks[0].text.contains("where /etc/pam.d/sshd:1 jumps"), "{}", plan.remarks[0].text);
    assert_eq!(narrow.enable(), Answer::ToDo);
    assert_eq!(narrow.get("/etc/pam.d/sshd").unwrap(), text);
}

#[test]
fn lines_of_somebody_else_stay_and_are_named() {
    let text = "session optional pam_pag.so\nsession optional pam_systemd.so\n";
    let scene = Scene::new(&[("/etc/pam.d/sshd", text)]);
    assert_eq!(scene.enable(), Answer::AllRight);
    assert_eq!(scene.disable(), Answer::ToDo);
    assert_eq!(scene.get("/etc/pam.d/sshd").unwrap(), text);
}

#[test]
fn an_overlay_that_somebody_added_to_is_left() {
    let scene = debian(true);
    scene.enable();
    let more = format!("{}session optional pam_mail.so\n", scene.get("/etc/pam.d/systemd-user").unwrap());
    scene.put("/etc/pam.d/systemd-user", &more);
    let plan = disable(&scene.host());
    assert!(plan.edits.iter().all(|edit| edit.path != "/etc/pam.d/systemd-user"));
    assert_eq!(plan.remarks.len(), 1);
}

#[test]
fn mode_and_what_is_odd_are_kept() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new(&[("/etc/pam.d/login", "session optional pam_systemd.so")]);
    fs::set_permissions(scene.at("/etc/pam.d/login"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(scene.at("/etc/pam.d/sshd"), b"session optional pam_systemd.so \xff\n").unwrap();
    assert_eq!(scene.enable(), Answer::ToDo, "one of them can't be edited");
    assert_eq!(fs::metadata(scene.at("/etc/pam.d/login")).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read(scene.at("/etc/pam.d/sshd")).unwrap(), b"session optional pam_systemd.so \xff\n");
    assert!(scene.host().names("/etc/pam.d").iter().all(|name| !name.starts_with('.')));
    assert_eq!(scene.order("login"), ["pam_pag", "pam_systemd"]);
}

#[test]
fn a_dry_run_changes_nothing() {
    let scene = debian(true);
    let before = scene.files();
    let dry = Change { dry_run: true, yes: false, ..scene.change() };
    assert_eq!(run(&Verb::Enable(dry)).unwrap(), Answer::ToDo);
    assert_eq!(scene.files(), before);
}

#[test]
fn the_surroundings_are_looked_at() {
    let scene = Scene::new(&[]);
    assert!(surroundings(&scene.host()).is_empty());
    scene.put("/etc/group", "pag:x:995:mallory\n");
    assert_eq!(surroundings(&scene.host())[0].problem, Problem::GroupHasMembers);
    scene.put("/etc/group", "pag:x:995:\n");
    scene.put("/etc/passwd", "root:x:0:0::/root:/bin/sh\nmallory:x:1002:995::/home/mallory:/bin/sh\n");
    assert_eq!(surroundings(&scene.host())[0].problem, Problem::GroupIsPrimary);
    scene.put("/etc/passwd", "mallory:x:995:1002::/home/mallory:/bin/sh\n");
    assert_eq!(surroundings(&scene.host()).len(), 0);
    fs::remove_file(scene.at("/usr/lib/security/pam_pag.so")).unwrap();
    assert_eq!(surroundings(&scene.host())[0].problem, Problem::ModuleMissing);
}

#[test]
fn a_file_changed_meanwhile_is_left() {
    let scene = Scene::new(&[("/etc/pam.d/login", "session optional pam_systemd.so\n")]);
    let host = scene.host();
    let plan = enable(&host);
    scene.put("/etc/pam.d/login", "session optional pam_unix.so\n");
    let error = host.write(&plan.edits[0], Some("session optional pam_systemd.so\n")).unwrap_err();
    assert!(error.to_string().contains("etc/pam.d/login has changed since it was read"), "{error}");
}

proptest::proptest! {
    #[test]
    fn hostile_files_neither_panic_nor_lose_text(text in r"(-?(session|auth|@include)[ \t]{0,2}(\[success=[0-9]{0,22} x\]|include|optional)?[ \t](sshd|pam_(pag|systemd|keyinit).so|login)?[ a-z#\\]{0,5}(\n|\\\n)?){0,12}") {
        let scene = Scene::new(&[("/etc/pam.d/sshd", &text), ("/etc/pam.d/login", "session include sshd\n")]);
        let before = scene.files();
        scene.enable();
        let once = scene.files();
        scene.enable();
        proptest::prop_assert_eq!(&scene.files(), &once);
        scene.disable();
        let after = scene.files();
        for ((name, old), (_, new)) in before.iter().zip(&after) {
            // A last line without its end has one now.
            proptest::prop_assert_eq!(old.as_deref().map(str::trim_end), new.as_deref().map(str::trim_end), "{}", name);
        }
    }
}

#[test]
fn pam_afs_session_is_replaced_by_lines_that_let_the_same_people_in() {
    let session = "session optional pam_keyinit.so force revoke\nsession required pam_afs_session.so minimum_uid=100 debug\nsession optional pam_systemd.so\n";
    let ours = "-auth\toptional\tpam_pag.so";
    for (auth, expected) in [
        (
            "auth [success=ok default=die] pam_krb5.so\nauth [default=done] pam_afs_session.so program=/usr/bin/aklog\n",
            vec!["auth [success=ok default=die] pam_krb5.so", "-auth\toptional\tpam_pag.so program=/usr/bin/aklog"],
        ),
        (
            "auth required pam_krb5.so\nauth [success=ok default=bad] pam_afs_session.so\n",
            vec!["auth required pam_krb5.so", ours],
        ),
        (
            "auth required pam_krb5.so\nauth [success=1 default=ignore] pam_afs_session.so\nauth requisite pam_deny.so\nauth required pam_env.so\n",
            vec![
                "auth required pam_krb5.so",
                ours,
                "auth [success=1 default=ignore] pam_permit.so",
                "auth requisite pam_deny.so",
                "auth required pam_env.so",
            ],
        ),
        (
            "auth [success=1 default=ignore] pam_krb5.so\nauth requisite pam_deny.so\nauth [default=done] pam_afs_session.so\n",
            vec![
                "auth [success=1 default=ignore] pam_krb5.so",
                "auth requisite pam_deny.so",
                ours,
                "auth [default=done] pam_permit.so",
            ],
        ),
        (
            "auth sufficient pam_unix.so\nauth requisite pam_krb5.so\nauth [success=1 ignore=ignore default=die] pam_afs_session.so\nauth requisite pam_deny.so\nauth optional pam_permit.so\n",
            vec![
                "auth sufficient pam_unix.so",
                "auth requisite pam_krb5.so",
                ours,
                "auth [success=1 ignore=ignore default=die] pam_permit.so",
                "auth requisite pam_deny.so",
                "auth optional pam_permit.so",
            ],
        ),
    ] {
        let text = format!("{auth}account required pam_unix.so\n{session}");
        let scene = Scene::new(&[("/etc/pam.d/sshd", &text)]);
        assert_eq!(scene.enable(), Answer::AllRight, "{auth}");
        let now = scene.get("/etc/pam.d/sshd").unwrap();
        let said: Vec<&str> = now.lines().filter(|line| !line.starts_with('#') && line.contains("auth")).collect();
        assert_eq!(said, expected, "{now}");
        assert!(now.contains("\n-session\toptional\tpam_pag.so minimum_uid=100 debug\n"), "{now}");
        assert_eq!(scene.check(), Answer::AllRight, "{now}");
        assert_eq!(scene.enable(), Answer::AllRight);
        assert_eq!(scene.get("/etc/pam.d/sshd").unwrap(), now, "twice is once");
        assert_eq!(scene.disable(), Answer::AllRight);
        assert_eq!(scene.get("/etc/pam.d/sshd").unwrap(), text);
    }
}

#[test]
fn pam_afs_session_beside_ours_goes() {
    let text = "auth required pam_krb5.so\nauth [default=done] pam_afs_session.so\nauth optional pam_pag.so\n\
                session required pam_afs_session.so\nsession optional pam_pag.so scope=session\n";
    let scene = Scene::new(&[("/etc/pam.d/sshd", text)]);
    assert_eq!(scene.check(), Answer::ToDo);
    assert_eq!(scene.enable(), Answer::AllRight);
    let now = scene.get("/etc/pam.d/sshd").unwrap();
    let said: Vec<&str> = now.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        said,
        ["auth required pam_krb5.so", "auth optional pam_pag.so", "session optional pam_pag.so scope=session"]
    );
    scene.disable();
    assert_eq!(scene.get("/etc/pam.d/sshd").unwrap(), text);
}

#[test]
fn a_control_that_locks_people_out_is_mended() {
    for auth in [
        "auth [success=ok default=die] pam_krb5.so\nauth [default=done] pam_pag.so scope=session\n",
        "auth required pam_krb5.so\nauth [success=ok default=bad] pam_pag.so scope=session\n",
    ] {
        let scene = Scene::new(&[(
            "/etc/pam.d/sshd",
            &format!("{auth}session sufficient pam_pag.so\nsession required pam_limits.so\n"),
        )]);
        assert_eq!(scene.check(), Answer::ToDo);
        assert_eq!(scene.enable(), Answer::AllRight, "{:?}", inspect(&scene.host()).1);
        let now = scene.get("/etc/pam.d/sshd").unwrap();
        assert!(now.contains("\n-auth\toptional\tpam_pag.so scope=session\n-session\toptional\tpam_pag.so\n"), "{now}");
    }
    // Where nothing else says yes the tool writes no yes of its own, and says what there is to decide.
    let text = "auth requisite pam_unix.so\nauth [success=1 default=ignore] pam_pag.so\nauth requisite pam_deny.so\nsession optional pam_pag.so\n";
    let scene = Scene::new(&[("/etc/pam.d/sshd", text)]);
    assert_eq!(scene.enable(), Answer::ToDo);
    assert_eq!(scene.get("/etc/pam.d/sshd").unwrap(), text);
}

#[test]
fn a_line_goes_where_it_is_reached() {
    for before in ["session sufficient pam_permit.so\n", "session [success=1 default=ignore] pam_permit.so\n"] {
        let text = format!(
            "session optional pam_keyinit.so force\n{before}session optional pam_pag.so debug\nsession optional pam_systemd.so\n"
        );
        let scene = Scene::new(&[("/etc/pam.d/sshd", &text)]);
        assert_eq!(scene.check(), Answer::ToDo);
        assert_eq!(scene.enable(), Answer::AllRight, "{:?}", inspect(&scene.host()).1);
        let now = scene.get("/etc/pam.d/sshd").unwrap();
        assert!(now.contains("\n-session\toptional\tpam_pag.so debug\n"), "{now}");
        assert_eq!(scene.check(), Answer::AllRight, "{now}");
    }
    for (auth, line) in [
        ("auth sufficient pam_unix.so\nauth required pam_deny.so\n", 0),
        ("auth required pam_env.so\nauth [success=done default=ignore] pam_sss.so\nauth required pam_deny.so\n", 1),
        ("auth required pam_env.so\nauth include ends\n", 1),
        ("auth required pam_env.so\nauth substack ends\n", 2),
    ] {
        let text = format!("{auth}account required pam_unix.so\nsession optional pam_pag.so\n");
        let ends = "auth sufficient pam_unix.so\nauth required pam_deny.so\n";
        let scene = Scene::new(&[("/etc/pam.d/gdm-password", &text), ("/etc/pam.d/ends", ends)]);
        assert_eq!(scene.check(), Answer::ToDo);
        assert_eq!(scene.enable(), Answer::AllRight, "{auth}: {:?}", inspect(&scene.host()).1);
        let now = scene.get("/etc/pam.d/gdm-password").unwrap();
        let said: Vec<&str> = now.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(said[line], "-auth\toptional\tpam_pag.so", "{now}");
        assert_eq!(scene.get("/etc/pam.d/ends").unwrap(), ends);
    }
    // After pam_krb5, which brings the ticket, nothing is reached here.
    let text = "auth sufficient pam_krb5.so\nauth required pam_deny.so\nsession optional pam_pag.so\n";
    let scene = Scene::new(&[("/etc/pam.d/gdm-password", text)]);
    let plan = enable(&scene.host());
    assert!(
        plan.edits.is_empty() && plan.remarks[0].text.contains("(sufficient pam_krb5.so) ends the stack"),
        "{:?}",
        plan.remarks
    );
}

#[test]
fn each_seat_has_its_own_needs_and_strangers_are_named() {
    let auth = "auth required pam_unix.so\naccount required pam_unix.so\n";
    let session = "auth required pam_unix.so\nsession required pam_unix.so\n";
    for (service, needs) in [
        ("gdm-pin", vec![Problem::Missing, Problem::NoUnlock]),
        ("gdm-switchable-auth", vec![Problem::Missing, Problem::NoUnlock]),
        ("gdm-authd", vec![Problem::Missing, Problem::NoUnlock]),
        ("chrome-remote-desktop", vec![Problem::Missing]),
        ("xrdp-sesman", vec![Problem::Missing]),
        ("cockpit", vec![Problem::Missing]),
        ("i3lock", vec![Problem::NoUnlock]),
        ("swaylock", vec![Problem::NoUnlock]),
        ("xscreensaver", vec![Problem::NoUnlock]),
        ("xsecurelock", vec![Problem::NoUnlock]),
        ("mate-screensaver", vec![Problem::NoUnlock]),
        ("cinnamon-screensaver", vec![Problem::NoUnlock]),
        ("xfce4-screensaver", vec![Problem::NoUnlock]),
        ("kde-fingerprint", vec![Problem::NoUnlock]),
        ("kde-smartcard", vec![Problem::NoUnlock]),
        ("fcron", vec![]),
        ("lightdm-greeter", vec![]),
        ("sudo", vec![]),
    ] {
        let scene = Scene::new(&[
            ("/etc/pam.d/sshd", "session optional pam_pag.so\n"),
            (&format!("/etc/pam.d/{service}"), session),
        ]);
        let found: Vec<Problem> = inspect(&scene.host()).1.into_iter().map(|finding| finding.problem).collect();
        assert_eq!(found, needs, "{service}");
        assert_eq!(scene.enable(), Answer::AllRight, "{service}");
    }
    let scene = Scene::new(&[
        ("/etc/pam.d/sshd", "auth include shared\nsession optional pam_pag.so\n"),
        ("/etc/pam.d/shared", auth),
        ("/etc/pam.d/strange-locker", auth),
        ("/etc/pam.d/sshd.dpkg-old", auth),
        ("/etc/pam.d/other", auth),
        ("/usr/lib/pam.d/vendors-own", session),
    ]);
    let findings = inspect(&scene.host()).1;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].text.starts_with("not known to pagctl: strange-locker, vendors-own. "), "{}", findings[0].text);
}

#[test]
fn a_locker_of_the_vendors_gets_its_auth_line() {
    let scene = Scene::new(&[
        ("/usr/lib/pam.d/swaylock", "auth include login\n"),
        ("/usr/lib/pam.d/login", "auth required pam_unix.so\nsession optional pam_pag.so\n"),
    ]);
    scene.goes_in_and_out();
    scene.enable();
    let text = scene.get("/etc/pam.d/swaylock").unwrap();
    let said: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(said, ["auth\tinclude\t/usr/lib/pam.d/swaylock", "-auth\toptional\tpam_pag.so"]);
}

#[test]
fn links_lead_to_files_of_the_root_that_was_named() {
    let stack = "session optional pam_keyinit.so revoke\nsession optional pam_systemd.so\n";
    let scene = Scene::new(&[
        ("/etc/pam.d/sshd", "session include password-auth\n"),
        ("/etc/pam.d/password-auth-ac", stack),
        ("/elsewhere/login", "session optional pam_pag.so\n"),
    ]);
    let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, scene.at(at)).unwrap();
    link("/etc/pam.d/password-auth-ac", "/etc/pam.d/password-auth");
    link("/elsewhere", "/usr/lib/pam.d");
    link("../../../../../../elsewhere/login", "/etc/pam.d/login");
    link("/etc/pam.d/su-l", "/etc/pam.d/su-l");
    let host = scene.host();
    assert_eq!(host.find("/usr/lib/pam.d/login").unwrap(), scene.at("/elsewhere/login"));
    assert_eq!(host.find("/etc/pam.d/../pam.d/password-auth").unwrap(), scene.at("/etc/pam.d/password-auth-ac"));
    let (right, findings) = inspect(&host);
    assert_eq!(right, ["login"]);
    let texts: Vec<&str> = findings.iter().map(|finding| finding.text.as_str()).collect();
    assert!(
        texts.iter().any(|text| text.contains("/etc/pam.d/su-l: cannot be read: too many symbolic links")),
        "{texts:?}"
    );
    assert!(!texts.iter().any(|text| text.contains("password-auth-ac")), "it is no service: {texts:?}");
    scene.enable();
    assert_eq!(scene.order("sshd"), ["pam_pag", "pam_keyinit", "pam_systemd"]);
    assert_eq!(scene.get("/etc/pam.d/password-auth-ac").unwrap(), stack, "it belongs to the tool that made the link");
}

#[test]
fn nothing_to_look_at_is_not_all_right() {
    let gone = Look { root: "/nonexistent/root".into(), json: true };
    let error = run(&Verb::Check(gone)).unwrap_err();
    assert!(error.to_string().starts_with("cannot look below /nonexistent/root: No such file"), "{error}");
    assert_eq!(Scene::new(&[]).check(), Answer::ToDo, "no stack at all");
    let scene = Scene::new(&[("/etc/pam.d/sshd", "session include gone\nsession optional pam_pag.so\n")]);
    assert_eq!(scene.check(), Answer::ToDo);
    let scene = Scene::new(&[("/etc/pam.d/sshd", "session optional pam_pag.so\n"), ("/etc/pam.d/login", "")]);
    fs::remove_file(scene.at("/etc/pam.d/login")).unwrap();
    std::os::unix::net::UnixListener::bind(scene.at("/etc/pam.d/login")).unwrap();
    let (right, findings) = inspect(&scene.host());
    assert_eq!((right, findings.len()), (vec!["sshd".to_owned()], 1), "{findings:?}");
    assert!(findings[0].text.starts_with("/etc/pam.d/login: cannot be read: not a regular file"), "{findings:?}");
}

#[test]
fn a_link_that_leads_nowhere_is_named() {
    let line = "session optional pam_pag.so\n";
    let scene = Scene::new(&[("/etc/pam.d/sshd", line), ("/usr/lib/pam.d/login", line)]);
    for name in ["login", "su-l"] {
        std::os::unix::fs::symlink("/etc/authselect/gone", scene.at(&format!("/etc/pam.d/{name}"))).unwrap();
    }
    let (right, findings) = inspect(&scene.host());
    assert_eq!(right, ["sshd", "login"], "libpam reads the vendor's file");
    let texts: Vec<&str> = findings.iter().map(|finding| finding.text.as_str()).collect();
    let nowhere = "a symbolic link to a file that is not there, so libpam reads";
    let expected = [("login", "/usr/lib/pam.d/login"), ("su-l", "the service `other`")];
    for ((name, instead), text) in expected.into_iter().zip(&texts) {
        let begin = format!("/etc/pam.d/{name}: {nowhere} {instead} in its place");
        assert!(text.starts_with(&begin), "{texts:?}");
    }
    assert_eq!(findings.len(), 2, "{texts:?}");
    assert_eq!(scene.check(), Answer::ToDo);
}

#[test]
fn a_service_that_has_the_lines_of_other_keeps_them() {
    let scene = Scene::new(&[
        ("/etc/pam.d/swaylock", "account required pam_unix.so\n"),
        ("/etc/pam.d/other", "auth required pam_unix.so\nsession required pam_unix.so\n"),
        ("/etc/pam.d/login", "auth required pam_unix.so\n"),
        ("/etc/pam.d/sshd", "session optional pam_pag.so\n"),
    ]);
    let before = scene.files();
    let plan = enable(&scene.host());
    let texts: Vec<&str> = plan.remarks.iter().map(|remark| remark.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "login: has no session lines, and with a line of pam_pag.so it would no longer have those of `other`",
            "swaylock: has no auth lines, and with a line of pam_pag.so it would no longer have those of `other`",
        ]
    );
    scene.enable();
    assert_eq!(scene.files(), before);
}

#[test]
fn files_that_no_service_reads_are_left() {
    let text = "session required pam_afs_session.so\n";
    let scene = Scene::new(&[("/etc/pam.d/sshd", "session optional pam_pag.so\n"), ("/etc/pam.d/sshd.dpkg-old", text)]);
    assert_eq!(scene.enable(), Answer::AllRight);
    assert_eq!(scene.get("/etc/pam.d/sshd.dpkg-old").unwrap(), text);
}
