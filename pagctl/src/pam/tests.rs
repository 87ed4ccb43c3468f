//! Whole hosts: the files as distributions lay them out, and what the tool makes of them.

use super::*;
use std::fs;
use std::path::Path;

/// A host in a temporary directory.
struct Scene {
    root: tempfile::TempDir,
}

impl Scene {
    fn new(files: &[(&str, &str)]) -> Self {
        let scene = Self { root: tempfile::tempdir().unwrap() };
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
        Host::new(self.root.path())
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
        let stack = resolve(&host, &host.service(service).unwrap(), Facility::Session);
        let names = stack.steps.iter().map(|step| step.entry.target.trim_end_matches(".so").to_owned());
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
fn where_authselect_manages_its_files_are_left_and_the_commands_are_told() {
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
fn a_line_behind_a_jump_is_not_inserted() {
    let text = "session [success=1 default=ignore] pam_succeed_if.so uid < 1000\nsession optional pam_systemd.so\n";
    let safe = Scene::new(&[("/etc/pam.d/sshd", text)]);
    let plan = enable(&safe.host());
    assert_eq!(plan.remarks.len(), 1, "{:?}", plan.edits);
    assert!(plan.remarks[0].text.contains("jumps"), "{}", plan.remarks[0].text);
    assert_eq!(safe.enable(), Answer::ToDo);
    assert_eq!(safe.get("/etc/pam.d/sshd").unwrap(), text);
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
    assert_eq!(surroundings(&scene.host())[0].problem, Problem::HandleGroup);
    scene.put("/etc/group", "pag:x:995:\n");
    scene.put("/etc/passwd", "root:x:0:0::/root:/bin/sh\nmallory:x:1002:995::/home/mallory:/bin/sh\n");
    assert_eq!(surroundings(&scene.host())[0].problem, Problem::HandleGroup);
    scene.put("/etc/passwd", "mallory:x:995:1002::/home/mallory:/bin/sh\n");
    assert_eq!(surroundings(&scene.host()).len(), 0);
    fs::remove_file(scene.at("/usr/lib/security/pam_pag.so")).unwrap();
    assert_eq!(surroundings(&scene.host())[0].problem, Problem::NoModule);
}

#[test]
fn a_file_changed_meanwhile_is_left() {
    let scene = Scene::new(&[("/etc/pam.d/login", "session optional pam_systemd.so\n")]);
    let host = scene.host();
    let plan = enable(&host);
    scene.put("/etc/pam.d/login", "session optional pam_unix.so\n");
    let error = host.write(&plan.edits[0], Some("session optional pam_systemd.so\n")).unwrap_err();
    assert!(matches!(error, Error::Changed(path) if path.ends_with(Path::new("etc/pam.d/login"))));
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
