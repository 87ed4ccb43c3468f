//! The options that a site brings from pam_afs_session, one by one: the effect of each, and that there is none
//! without it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{life, login, pags, shell, ticketed, uid};
use crate::ring::Ring;
use crate::sandbox::{CELL, Host, Sandbox, exists, module, pagctl};
use crate::ticket;

/// The results of one whole login.
struct Seen {
    /// The session keyring before and after open_session.
    before: Ring,
    during: Ring,
    /// The lines that its seeders wrote.
    runs: Vec<String>,
    /// The texts of its messages, with their priorities.
    said: Vec<(String, String)>,
    /// The view of a process of the session after its end.
    after: String,
}

fn write_seeder(path: &str, mark: &str) {
    let text = crate::sandbox::SEEDER.replace("$$ $KRB5CCNAME", &format!("{mark} $KRB5CCNAME"));
    fs::write(path, text).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

/// A login with `options` on our line of the stack.
fn seen(sandbox: &mut Sandbox, user: &str, options: &str, ticket: bool) -> Seen {
    let module = module();
    let module = module.display();
    let line = format!("required {module} {options}");
    sandbox.stack("optional", &format!("auth {line}\nsession {line}\n"));
    let mut host: Host =
        if ticket { ticketed(sandbox, "optional", user, user) } else { sandbox.host("optional", user) };
    host.ok("newring");
    fs::write("/run/seeder.log", "").unwrap();
    sandbox.messages();
    let before = host.ring();
    host.ok("open");
    let during = host.ring();
    life::linger_on(&mut host);
    host.all_ok(&["close", "end"]);
    let runs = fs::read_to_string("/run/seeder.log").unwrap().lines().map(str::to_owned).collect();
    let field = |message: &crate::sandbox::Message, name: &str| message.0.get(name).cloned().unwrap_or_default();
    let said = sandbox.messages().iter().map(|m| (m.text().to_owned(), field(m, "PRIORITY"))).collect();
    if user != "root" {
        assert!(pags(user).is_empty(), "{options}: the PAG has ended");
    }
    Seen { before, during, runs, said, after: life::linger_saw() }
}

pub(super) fn pam_afs_session_options(sandbox: &mut Sandbox) {
    sandbox.configure("");
    write_seeder("/run/other", "other");
    let plain = seen(sandbox, "alice", "", true);
    assert!(plain.during.is_pag() && plain.during.token(CELL).is_some(), "without options: a PAG with a token");
    assert_eq!(plain.runs.len(), 1, "without options: one seeder");
    assert!(plain.runs[0].ends_with(&format!("-c {CELL}")), "without options: the cells of the file: {:?}", plain.runs);
    assert!(!plain.after.contains("afs@"), "without options: tokens go with the last login: {}", plain.after);
    assert!(exists("/run/home/alice/cc.alice"), "without options: the login's ccache stays");
    assert!(plain.said.iter().all(|(_, priority)| priority != "7"), "without options: no debugging: {:?}", plain.said);

    let found = seen(sandbox, "alice", "program=/run/other,-x", true);
    assert!(found.runs.len() == 1 && found.runs[0].starts_with("other FILE:"), "program is run: {:?}", found.runs);
    assert!(found.runs[0].ends_with(&format!(" -x -c {CELL}")), "program has its arguments: {:?}", found.runs);

    let found = seen(sandbox, "alice", "afs_cells=a.test,b.test", true);
    assert!(found.runs[0].ends_with("-c a.test -c b.test"), "afs_cells are handed over: {:?}", found.runs);

    let found = seen(sandbox, "alice", "", false);
    assert!(found.during.is_pag() && found.runs.is_empty(), "without a ticket no seeder runs: {:?}", found.runs);
    let found = seen(sandbox, "alice", "always_aklog", false);
    assert_eq!(found.runs.len(), 1, "always_aklog runs it without a ticket");

    let found = seen(sandbox, "alice", "aklog_homedir", true);
    assert!(
        found.runs[0].ends_with(&format!("-p /run/home/alice -c {CELL}")),
        "aklog_homedir names the home: {:?}",
        found.runs
    );

    for options in ["", "ignore_root", "ignore_root=no", "minimum_uid=0"] {
        let found = seen(sandbox, "root", options, false);
        assert_eq!(found.during, found.before, "'{options}': root is left alone");
        assert!(found.runs.is_empty() && found.said.is_empty(), "'{options}': without a word: {:?}", found.said);
    }

    let found = seen(sandbox, "alice", "minimum_uid=61002", true);
    assert_eq!(found.during, found.before, "minimum_uid leaves a lower uid alone");
    assert!(found.runs.is_empty(), "minimum_uid: no seeder for a lower uid");
    let found = seen(sandbox, "bob", "minimum_uid=61002", true);
    assert!(found.during.is_pag(), "minimum_uid: that uid itself has a PAG");

    // The name of a ccache alone is no ticket; where it is kept is no matter.
    let mut first = login(sandbox, "alice");
    super::ccaches::make("lab", "alice", crate::ticket::now() + 3600);
    for (ccache, count, what) in [
        ("", 2, "without a ticket has a PAG of its own"),
        ("KCM:", 2, "without one in KCM has, too"),
        ("KEYRING:user:lab", 1, "with one in a keyring joins"),
    ] {
        sandbox.stack("choosy", &format!("session required {} join=credentials\n", module().display()));
        let mut host = sandbox.host("choosy", "alice");
        if !ccache.is_empty() {
            host.ok(&format!("putenv KRB5CCNAME={ccache}"));
        }
        host.ok("open");
        assert_eq!(pags("alice").len(), count, "join=credentials: a login {what}");
        host.all_ok(&["close", "end"]);
    }
    super::ccaches::forget_hers();
    first.all_ok(&["close", "end"]);

    let found = seen(sandbox, "alice", "nopag", true);
    assert_eq!(found.during.identity(), found.before.identity(), "nopag leaves the login where it is");
    assert_eq!(found.runs.len(), 1, "nopag runs the seeder");
    assert!(found.during.token(CELL).is_some(), "nopag puts the token there: {:?}", found.during);
    assert!(found.after.contains("afs@"), "nopag leaves the token there: {}", found.after);

    let found = seen(sandbox, "alice", "notokens", true);
    assert!(found.during.is_pag(), "notokens makes a PAG");
    assert!(found.runs.is_empty() && found.during.token(CELL).is_none(), "notokens runs no seeder: {:?}", found.runs);

    let found = seen(sandbox, "alice", "retain_after_close", true);
    assert!(found.after.contains("afs@"), "retain_after_close leaves tokens to what stays: {}", found.after);
    let found = seen(sandbox, "alice", "retain_after_close=no", true);
    assert!(!found.after.contains("afs@"), "retain_after_close=no takes it back: {}", found.after);

    let found = seen(sandbox, "alice", "kdestroy", true);
    assert!(found.during.token(CELL).is_some(), "kdestroy: there is a token");
    assert!(!exists("/run/home/alice/cc.alice"), "kdestroy destroys the login's ccache: {:?}", found.said);
    // Not when the seeder has failed: that ticket is then all that the user has.
    sandbox.seeder("#!/bin/sh\nexit 1\n");
    let found = seen(sandbox, "alice", "kdestroy", true);
    assert!(found.during.token(CELL).is_none(), "the seeder has failed");
    assert!(exists("/run/home/alice/cc.alice"), "kdestroy leaves the ccache of a failed login");
    sandbox.seeder(crate::sandbox::SEEDER);

    // Nor a ccache of service tickets: the PAG has no copy of those.
    sandbox.stack("optional", &format!("session required {} kdestroy\n", module().display()));
    let path = "/run/home/alice/cc.service";
    let name = ticket::write_of_service(path, uid("alice"), "alice", "EXAMPLE.TEST", ticket::now() + 3600);
    let mut host = sandbox.host("optional", "alice");
    host.all_ok(&[&format!("putenv KRB5CCNAME={name}"), "open"]);
    assert!(host.ring().token(CELL).is_some(), "a ccache of service tickets serves the seeder");
    assert!(exists(path), "kdestroy leaves tickets of which the PAG has no copy");
    host.all_ok(&["close", "end"]);

    let found = seen(sandbox, "alice", "debug", true);
    for step in ["is placed as", "is in ring", "the lease of"] {
        let said = found.said.iter().any(|(text, priority)| priority == "7" && text.contains(step));
        assert!(said, "debug says each step, '{step}' among them: {:?}", found.said);
    }
    let found = seen(sandbox, "alice", "debug=no", true);
    assert!(found.said.iter().all(|(_, priority)| priority != "7"), "debug=no is quiet: {:?}", found.said);
}

/// `pagctl config check` with these words: its status, and all that it says.
fn check(words: &[&str]) -> (Option<i32>, String) {
    let begun = Instant::now();
    let done = Command::new(pagctl()).args(["config", "check"]).args(words).output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{words:?}: it waits for nothing: {:?}", begun.elapsed());
    let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (done.status.code(), text)
}

/// Before a configuration is installed, as Ansible and Puppet ask for it, and afterwards.
pub(super) fn config_check(sandbox: &mut Sandbox) {
    assert_eq!(check(&[]), (Some(0), "No mistakes.\n".to_owned()));
    fs::create_dir("/run/new").unwrap();
    fs::write("/run/plain", "no program").unwrap();
    let mistakes = "[pag]\nretian = none\nprogram = /usr/bin/aklgo\n[service cron]\nkafs_program = /run/plain,-x\n\
                    scope = all\n[user alice]\nprincipal = alice\n[user bob]\nkeytab = /run/none\n[groop x]\n";
    // As a tool writes it: it is not root's yet.
    fs::write("/run/new/pag.conf", mistakes).unwrap();
    std::os::unix::fs::chown("/run/new/pag.conf", Some(uid("alice")), None).unwrap();
    let (status, said) = check(&["/run/new/pag.conf"]);
    assert_eq!(status, Some(1), "mistakes have a status of their own: {said}");
    let lines: Vec<&str> = said.lines().collect();
    for (line, words) in [
        (2, "unknown option 'retian'; right would be perhaps 'retain'"),
        (3, "program /usr/bin/aklgo does not exist"),
        (5, "kafs_program /run/plain is not executable"),
        (6, "scope cannot be 'all'; right would be"),
        (8, "principal alice has no keytab in its section"),
        (10, "keytab: /run/none: No such file"),
        (11, "unknown section 'groop x'"),
    ] {
        let place = format!("/run/new/pag.conf:{line}: ");
        assert!(lines.iter().any(|one| one.starts_with(&place) && one.contains(words)), "{words} is named: {said}");
    }
    assert_eq!(lines.len(), 7, "and nothing else: {said}");
    let (status, json) = check(&["/run/new/pag.conf", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    crate::schema::check("config check", &json);
    let first = &json["findings"][0];
    assert_eq!((status, &first["line"], &first["file"]), (Some(1), &2.into(), &"/run/new/pag.conf".into()), "{json}");
    fs::write("/run/new/many", format!("[pag]\n{}", "x = 1\n".repeat(50))).unwrap();
    assert_eq!(check(&["/run/new/many"]).1.lines().count(), 50, "all mistakes are named");

    // What is no configuration is called what it is.
    for (name, make, words) in [
        ("fifo", "mkfifo /run/new/fifo", "it is a FIFO"),
        ("dir", "mkdir /run/new/dir", "it is a directory"),
        ("latin", "printf '[pag]\\n# Jos\\351\\n' > /run/new/latin", "line 2 has the byte 0xe9"),
        ("long", "head -c 300000 /dev/zero > /run/new/long", "it is larger than 256 KiB"),
        ("none", "true", "no such file"),
    ] {
        shell(make);
        let (status, said) = check(&[&format!("/run/new/{name}")]);
        assert_eq!(status, Some(2), "{name} cannot be read: {said}");
        assert!(said.contains(words) && !said.contains("os error"), "{name}: {said}");
    }
    fs::write("/run/new/mark", "\u{feff}[pag]\nstrict = yes\n").unwrap();
    let (status, said) = check(&["/run/new/mark"]);
    assert!(status == Some(1) && said.contains(":1: it begins with a byte order mark"), "{said}");
    assert_eq!(said.lines().count(), 1, "and the rest is read: {said}");

    // Another root, with a link that leads to a program inside.
    shell(
        "mkdir -p /run/root/etc/pag/pag.conf.d /run/root/usr/bin; cp /bin/true /run/root/usr/bin/real\n\
         ln -s /usr/bin/real /run/root/usr/bin/seeder; echo '[pag]' > /run/root/etc/pag/pag.conf\n\
         printf '[pag]\\nprogram = /usr/bin/seeder\\n' > /run/root/etc/pag/pag.conf.d/a.conf",
    );
    assert_eq!(check(&["--root", "/run/root"]).0, Some(0), "{:?}", check(&["--root", "/run/root"]));
    fs::write("/run/root/etc/pag/pag.conf.d/b.conf", "[service x]\nprogram = /bin/sh\n").unwrap();
    let (status, said) = check(&["--root", "/run/root"]);
    assert!(status == Some(1) && said.contains("b.conf:2: program /bin/sh does not exist"), "{said}");

    // A wrong line is told once per login, by whichever hook comes first, and status --explain tells those of all sections.
    sandbox.configure("retian = none\n[service other]\nscope = all");
    for service in ["sshd", "su"] {
        sandbox.messages();
        let mut host = ticketed(sandbox, service, "alice", "alice");
        host.all_ok(&["establish", "open", "close", "end"]);
        let told = sandbox.messages().iter().filter(|one| one.text().contains("unknown option 'retian'")).count();
        assert_eq!(told, 1, "a login at {service} tells a wrong line once");
    }
    let explained = Command::new(pagctl()).args(["status", "--explain"]).output().unwrap();
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.contains("scope cannot be 'all'"), "status --explain names what is wrong in any section: {text}");
    assert_eq!(explained.status.code(), Some(1), "{text}");
    let (status, said) = check(&[]);
    assert!(status == Some(1) && said.contains("retian") && said.contains("scope cannot be 'all'"), "{said}");
}
