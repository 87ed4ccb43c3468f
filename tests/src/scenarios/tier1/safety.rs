//! Processes outside cannot reach a PAG, and members cannot spoil it.

use std::process::Command;
use std::time::{Duration, Instant};

use pag::guard::{Guard, HandleGroup};
use pag::keyring::Serial;
use pag::store::locked::LockedUser;
use pag::store::record::Record;

use super::{inside, login, own_keyring, pags, registry, shell, uid};
use crate::ring::{describe, keyctl, members};
use crate::sandbox::{CELL, HANDLE, Host, Message, Sandbox, own_program, pagctl};

/// Whether `keyctl` succeeds for a process of these ids that is outside every PAG.
pub(super) fn can(uid: u32, gid: u32, groups: &str, words: &[&str]) -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string()]);
    if groups.is_empty() {
        command.arg("--clear-groups")
    } else {
        command.args(["--groups", groups])
    };
    let output = command.args(["keyctl", "session", "-", "keyctl"]).args(words).output().unwrap();
    output.status.success()
}

pub(super) fn strangers_get_nothing(sandbox: &mut Sandbox) {
    let mut member = login(sandbox, "alice");
    let ring = member.ring();
    let (serial, name) = ring.identity();
    let (serial, name) = (serial.to_string(), name.to_owned());
    let token = ring.token(CELL).expect("alice has a token").serial.to_string();
    let alice = uid("alice");
    for (uid, gid, groups) in [(61002, 61002, ""), (61002, 0, ""), (61002, 61002, "0"), (alice, alice, "")] {
        let tries: &[&[&str]] = &[
            &["link", &serial, "@s"],
            &["read", &serial],
            &["search", &serial, "user", "afs@example.test"],
            &["setperm", &serial, "0x3f3f3f3f"],
            &["chown", &serial, &uid.to_string()],
            &["revoke", &serial],
            &["invalidate", &serial],
            &["clear", &serial],
            &["timeout", &serial, "1"],
            &["unlink", &token, &serial],
            &["add", "user", "afs@evil.test", "x", &serial],
        ];
        for words in tries {
            assert!(!can(uid, gid, groups, words), "uid {uid} gid {gid} groups '{groups}' can: {words:?}");
        }
        // Joining a name that one may not find makes a keyring of one's own.
        let uid_word = uid.to_string();
        let gid_word = gid.to_string();
        let output = Command::new("setpriv")
            .args(["--reuid", &uid_word, "--regid", &gid_word, "--clear-groups", "keyctl", "session", &name])
            .args(["keyctl", "search", "@s", "user", "afs@example.test"])
            .output()
            .unwrap();
        assert!(!output.status.success(), "uid {uid} joins by name");
    }
    let after = member.ring();
    assert_eq!(after.identity(), (serial.parse().unwrap(), &name[..]), "the ring is as it was");
    assert!(after.token(CELL).is_some(), "and so is the token");
}

pub(super) fn member_breaks_ring(sandbox: &mut Sandbox) {
    // What a member does, whether the ring is lost by it, and the message at the next login.
    let acts = [
        ("revoke", true, &["cannot be joined any more, it was revoked", "a new one is made", "made PAG"][..]),
        ("invalidate", true, &["cannot be joined any more", "a new one is made", "made PAG"][..]),
        ("clear", false, &["got tokens of cell"][..]),
    ];
    for (act, lost, said) in acts {
        let mut first = login(sandbox, "carol");
        let before = first.ring().identity().0;
        let done = inside(&mut first, "carol", &format!("keyctl {act} @s"));
        assert_eq!(done["status"], 0, "a member can {act} the ring: {done}");
        sandbox.messages();
        let mut second = login(sandbox, "carol");
        let ring = second.ring();
        assert!(ring.is_pag(), "after {act} the next login has a PAG: {ring:?}");
        assert!(ring.token(CELL).is_some(), "after {act} the next login has a token: {ring:?}");
        assert_eq!(ring.identity().0 != before, lost, "after {act}: whether the ring is another");
        let messages = sandbox.messages();
        let texts: Vec<&str> = messages.iter().map(|message| message.text()).collect();
        for words in said {
            assert!(texts.iter().any(|text| text.contains(words)), "after {act} '{words}' is said: {texts:#?}");
        }
        let broken = texts.iter().filter(|text| text.contains("cannot be joined")).count();
        assert_eq!(broken, usize::from(lost), "after {act}: the loss is said once, or not: {texts:#?}");
        assert_eq!(pags("carol").len(), 1, "after {act}: one PAG is left");
        second.all_ok(&["close", "end"]);
        first.ok("close");
        assert_eq!(first.ring().error, None, "after {act}: a host that goes on has a session keyring that works");
        assert!(!first.ring().is_pag(), "after {act}: a host that goes on is in no PAG");
        assert_eq!(pags("carol").len(), 0, "after {act}: and it ends");
    }
}

pub(super) fn root_stays_out(sandbox: &mut Sandbox) {
    let mut alice = login(sandbox, "alice");
    let token = alice.ring().token(CELL).expect("alice has a token").serial;
    for (service, user) in [("sshd", "root"), ("sshd", "daemon"), ("su-l", "root"), ("gdm-launch-environment", "alice")]
    {
        let mut host = sandbox.host(service, user);
        host.ok("open");
        let ring = host.ring();
        assert!(!ring.is_pag(), "{service} of {user} has no PAG: {ring:?}");
        assert!(ring.keys.iter().all(|key| key.serial != token), "{service} of {user} sees alice's token");
        host.all_ok(&["close", "end"]);
    }
    // Without pam_keyinit `su -` keeps its caller's session keyring, even if the caller has revoked it.
    sandbox.stack("su-l", &format!("session required {}\n", crate::sandbox::module().display()));
    for act in ["revoke", "invalidate"] {
        for user in ["root", "daemon"] {
            let mut caller = login(sandbox, "carol");
            let done = inside(&mut caller, "carol", &format!("keyctl {act} @s"));
            assert_eq!(done["status"], 0, "a member can {act} the ring: {done}");
            caller.all_ok(&[&format!("start su-l {user}"), "open"]);
            let ring = caller.ring();
            assert_eq!(ring.error, None, "su - {user} in a ring after {act}: it has a clean session keyring");
            assert!(!ring.is_pag(), "su - {user} in a ring after {act}: it is in no PAG: {ring:?}");
            let made = caller.ask("run keyctl add user x y @s");
            assert_eq!(made["status"], 0, "su - {user} in a ring after {act}: it can keep keys: {made}");
        }
    }
    // su within the PAG changes nothing.
    sandbox.stack("su", &format!("session required {}\n", crate::sandbox::module().display()));
    let before = alice.ring();
    alice.all_ok(&["start su bob", "open"]);
    assert_eq!(alice.ring().identity(), before.identity(), "su changes nothing");
}

/// A user's own keyring that a scenario has filled, emptied at its end: it would outlive the sandbox.
struct Filled(&'static str);

impl Filled {
    fn keyctl(&self, script: &str) -> String {
        let uid = uid(self.0);
        shell(&format!("setpriv --reuid {uid} --regid {uid} --clear-groups sh -ec '{script}'"))
    }

    /// As above, with a session keyring of its own: a process possesses what it makes only in one.
    fn session(&self, script: &str) -> String {
        self.keyctl(&format!("exec keyctl session - sh -ec \"{script}\""))
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.keyctl("keyctl clear @u");
    }
}

pub(super) fn hostile_keys_harm_nobody(sandbox: &mut Sandbox) {
    let mut first = login(sandbox, "alice");
    let before = first.ring();
    let script = "for name in 'a;b' 'zz;b' 'afs@;' 'afs@' 'afs@a b' 'pag:record' \"$(printf '\\377\\376')\" \
                  \"afs@$(printf '\\377\\376')\" \"$(printf '%04000d' 0)\"; do keyctl add user \"$name\" ';x 1' @s; done\n\
                  keyctl add user afs@garbled.test '\u{1b}[2J' @s\n\
                  keyctl newring pag:00000000000000000000000000000000 @s\n\
                  keyctl newring 'pag:registry:1;2' @s\n\
                  for n in $(seq 150); do keyctl add user k$n x @s; done\n";
    let done = inside(&mut first, "alice", script);
    assert_eq!(done["status"], 0, "a member may put anything into his ring: {done}");
    sandbox.messages();
    let mut second = login(sandbox, "alice");
    assert_eq!(second.ring().identity(), before.identity(), "the next login joins");
    assert!(second.ring().keys.len() > 160, "the keys are there");
    assert_eq!(sandbox.seeder_runs(), 1, "the token among them is found: no seeder runs");
    // As pagctl and the helper list tokens, from outside.
    let group = HandleGroup::read();
    let guard = Guard::enter(group).unwrap();
    let serial = Serial::new(before.identity().0).unwrap();
    let ring = pag::store::ring::Ring::look(serial, uid("alice"), group).unwrap();
    drop(guard);
    let tokens = pag::afs::tokens(&ring, Instant::now() + Duration::from_secs(2)).unwrap();
    let cells: Vec<String> = tokens.iter().map(|token| token.cell.to_string()).collect();
    assert_eq!(cells, [CELL], "one token, and nothing that only looks like one");
    second.all_ok(&["close", "end"]);
    assert!(first.ring().token(CELL).is_some(), "the token stays while a login lives");
    first.all_ok(&["close", "end"]);
    assert!(pags("alice").is_empty(), "the PAG ends");
    for message in sandbox.messages() {
        assert!(!message.text().contains("cannot"), "all went well: {message:?}");
        assert!(!message.text().contains('\u{1b}'), "nothing of a key's text is in a message: {message:?}");
    }
}

pub(super) fn full_quota(sandbox: &mut Sandbox) {
    let full = Filled("bob");
    full.keyctl("n=0; while keyctl add user k$n x @u >/dev/null 2>&1; do n=$((n+1)); done; test $n -gt 100");
    let mut first = login(sandbox, "bob");
    let mut second = login(sandbox, "bob");
    let ring = first.ring();
    assert!(ring.is_pag(), "a user without quota has a PAG: {ring:?}");
    assert_eq!(ring.ring.as_ref().unwrap().uid, 0, "the ring is root's");
    assert_eq!(ring.identity(), second.ring().identity(), "and is shared");
    sandbox.heard("of the user's key quota are used");
    second.all_ok(&["close", "end"]);
    // Room for a token: the same ring takes it.
    full.keyctl("keyctl clear @u");
    std::thread::sleep(Duration::from_secs(1));
    let done = inside(&mut first, "bob", "keyctl add user afs@example.test 'bob@EXAMPLE.TEST 1' @s");
    assert_eq!(done["status"], 0, "a member can put a token into a ring of root's: {done}");
    first.all_ok(&["close", "end"]);
    assert!(pags("bob").is_empty(), "the PAG ends");
}

pub(super) fn damaged_and_foreign_records(sandbox: &mut Sandbox) {
    for garbage in
        ["x", "pag-record 1", "pag-record 1\nuid 61002\nkind user\nmade 1\nretain none", "pag-record -1\n\u{1b}"]
    {
        let mut first = login(sandbox, "alice");
        let record = pags("alice")[0].record;
        keyctl(libc::KEYCTL_UPDATE, record.into(), garbage.as_ptr() as i64, garbage.len() as i64).unwrap();
        sandbox.messages();
        let mut second = login(sandbox, "alice");
        let message = sandbox.heard("it was written anew, and the tokens will not be discarded at the end");
        assert!(!message.text().contains('\u{1b}'), "nothing of the garbage is said: {message:?}");
        assert_eq!(first.ring().identity(), second.ring().identity(), "{garbage:?}: the PAG is joined all the same");
        let (record, leases) = (&pags("alice")[0].text, pags("alice")[0].leases().len());
        assert_eq!(leases, 1, "{garbage:?}: the record is whole again: {record}");
        second.all_ok(&["close", "end"]);
        assert!(first.ring().token(CELL).is_some(), "{garbage:?}: a login that the record forgot keeps its token");
        first.all_ok(&["close", "end"]);
        assert!(pags("alice").is_empty(), "{garbage:?}: the PAG ends");
    }
    let foreign = "pag-record 9\nwhat only that version knows\n";
    let mut first = login(sandbox, "bob");
    let old = pags("bob").remove(0);
    keyctl(libc::KEYCTL_UPDATE, old.record.into(), foreign.as_ptr() as i64, foreign.len() as i64).unwrap();
    sandbox.messages();
    let mut second = login(sandbox, "bob");
    let message = sandbox.heard("is left alone: its record has version 9");
    assert_eq!(message.0.get("PRIORITY").map(String::as_str), Some("4"), "it is a warning: {message:?}");
    assert_ne!(first.ring().identity(), second.ring().identity(), "a PAG of another version is not joined");
    assert!(second.ring().token(CELL).is_some(), "the new PAG has a token");
    let mut third = login(sandbox, "bob");
    assert_eq!(second.ring().identity(), third.ring().identity(), "the next login joins the new PAG");
    let again: Vec<Message> = sandbox.messages().into_iter().filter(|one| one.text().contains("version 9")).collect();
    assert!(again.is_empty(), "a PAG of another version is told of once, and not by each login: {again:#?}");
    let status = shell(&format!("{} status", pagctl().display()));
    assert!(status.contains("record     of version 9, left alone") && !status.contains("trouble"), "{status}");
    third.all_ok(&["close", "end"]);
    for host in [&mut second, &mut first] {
        host.all_ok(&["close", "end"]);
        let left = pags("bob").into_iter().find(|pag| pag.name == old.name);
        let left = left.expect("the PAG of another version is not ended");
        assert_eq!((left.record, &left.text[..]), (old.record, foreign), "and its record is as it was");
    }
    assert_eq!(pags("bob").len(), 1, "the new PAG has ended");
}

/// KRB5CCNAME is a user's: pam_env takes it from `~/.pam_environment` on many systems.
pub(super) fn forged_ccache_names(sandbox: &mut Sandbox) {
    let stat = std::fs::read_to_string("/proc/1/stat").unwrap();
    let start = stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap();
    let lines =
        format!("%0Aprincipal alice/admin@EXAMPLE.TEST%0Alease 1 {start} 1 login sshd ssh -").replace(' ', "\\ ");
    let long = format!("KCM:{}", "x".repeat(40_000));
    for (name, shown) in [
        (&*format!("KCM:x{lines}"), "KCM:x\\nprincipal alice/admin@EXAMPLE.TEST\\nlease 1"),
        (&*format!("FILE:/tmp/cc{lines}"), "FILE:/tmp/cc\\nprincipal"),
        ("KEYRING:persistent:61001%1B[2J", "KEYRING:persistent:61001\\u{1b}[2J"),
        ("KCM:%FF", "KCM:\\u{fffd}"),
        (&*long, "KCM:xxx"),
    ] {
        sandbox.messages();
        let forged = |sandbox: &Sandbox| {
            let mut host = sandbox.host("sshd", "alice");
            host.all_ok(&[&format!("putenv KRB5CCNAME={name}"), "establish", "open"]);
            host
        };
        let mut first = forged(sandbox);
        let messages = sandbox.messages();
        let texts: Vec<&str> = messages.iter().map(Message::text).collect();
        assert!(first.ring().is_pag(), "{shown}: the login has a PAG, which nobody has forged: {texts:#?}");
        let mut second = forged(sandbox);
        assert_eq!(first.ring().identity(), second.ring().identity(), "{shown}: and the next login joins it");
        let pag = pags("alice").remove(0);
        let own = [first.pid(), second.pid()].map(|pid| format!("lease {pid} "));
        let leases = pag.leases();
        let is_own = |lease: &&str| own.iter().any(|own| lease.starts_with(own));
        assert!(leases.len() == 2 && leases.iter().all(is_own), "{shown}: leases are those of logins: {}", pag.text);
        assert!(
            !pag.text.contains("\nprincipal"),
            "{shown}: the PAG has no identity that was not proved: {}",
            pag.text
        );
        assert!(pag.text.len() < 1000 && !pag.text.contains('\u{1b}'), "{shown}: {}", pag.text);
        assert!(
            texts.iter().any(|text| text.contains("cannot serve the PAG") && text.contains(shown)),
            "{shown}: the name is told in one line: {texts:#?}"
        );
        for host in [&mut first, &mut second] {
            host.all_ok(&["close", "end"]);
        }
        assert!(pags("alice").is_empty(), "{shown}: it ends with them");
    }
}

pub(super) fn lost_registry(sandbox: &mut Sandbox) {
    for operation in [libc::KEYCTL_UNLINK, libc::KEYCTL_REVOKE] {
        let mut first = login(sandbox, "alice");
        let before = registry().expect("a registry");
        keyctl(operation, before.into(), own_keyring().into(), 0).unwrap();
        let mut second = login(sandbox, "alice");
        let ring = second.ring();
        assert!(ring.is_pag(), "{operation}: the next login has a PAG: {ring:?}");
        assert!(ring.token(CELL).is_some(), "{operation}: and a token");
        assert_ne!(registry(), Some(before), "{operation}: there is a new registry");
        assert_eq!(login(sandbox, "alice").ring().identity(), ring.identity(), "{operation}: which the next one finds");
        first.all_ok(&["close", "end"]);
        assert!(second.ring().token(CELL).is_some(), "{operation}: the old login's end harms nobody");
        second.all_ok(&["close", "end"]);
    }
}

pub(super) fn squatted_name(sandbox: &mut Sandbox) {
    let squat = Filled("dave");
    let take = |name: &str| {
        let script = format!(
            "keyctl newring {name} @s; keyctl link %keyring:{name} @u; keyctl setperm %keyring:{name} 0x3f3f3f3f; keyctl search @s keyring {name}"
        );
        last_line(&squat.session(&script)).parse::<i32>().unwrap()
    };
    // The name of an existing ring: a process that joins it reaches the ring.
    let mut first = login(sandbox, "alice");
    let name = first.ring().identity().1.to_owned();
    let squatter = take(&name);
    let mut second = login(sandbox, "alice");
    assert_eq!(second.ring().identity(), first.ring().identity(), "the squatter is passed by");
    // The ring is gone, and only the squatter is left.
    inside(&mut first, "alice", "keyctl revoke @s");
    let mut third = login(sandbox, "alice");
    assert!(third.ring().is_pag(), "a new PAG is made");
    assert_ne!(third.ring().identity().0, squatter, "and it is not the squatter's");
    assert_ne!(third.ring().identity().1, name, "it has a name of its own");
    assert!(third.ring().token(CELL).is_some(), "it has a token");
    for host in [&mut first, &mut second, &mut third] {
        host.all_ok(&["close", "end"]);
    }
    // The squatter knows the ring's name. The ring looks whole, but its name leads elsewhere, and only a look
    // afterwards shows it. No user can know a name before, so the test puts the ring in its place by hand.
    let name = "pag:0123456789abcdef0123456789abcdef";
    let squatter = take(name);
    let mut first = login(sandbox, "alice");
    let pag = pags("alice").remove(0);
    let (holder, ring, alice) = (pag.holder, pag.ring, uid("alice"));
    shell(&format!(
        "keyctl session - sh -ec 'id=$(keyctl newring {name} @s); keyctl setperm $id 0x3f3f3f00; \
         keyctl link $id {holder}; keyctl unlink {ring} {holder}; keyctl chgrp $id {HANDLE}; \
         keyctl chown $id {alice}; keyctl setperm $id 0x0f013f00'"
    ));
    sandbox.messages();
    let mut second = login(sandbox, "alice");
    sandbox.heard("cannot be joined any more");
    let ring = second.ring();
    assert!(ring.is_pag(), "a new PAG is made in the squatted one's stead: {ring:?}");
    assert_ne!(ring.identity().0, squatter, "the login is not in the squatter's keyring");
    assert_ne!(ring.identity().1, name, "nor in one of that name");
    assert!(ring.token(CELL).is_some(), "it has a token");
    let seen = squat.keyctl(&format!("keyctl list {squatter}"));
    assert!(!seen.contains("afs@"), "the squatter gets no token: {seen}");
    second.all_ok(&["close", "end"]);
    first.ok("close");
}

/// The last line of a program's output.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

pub(super) fn another_pid_namespace(sandbox: &mut Sandbox) {
    let mut outside = login(sandbox, "alice");
    let here = registry();
    // A namespace that has ended may have had the same number, and its registry does not end with it.
    let before = members(own_keyring()).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(own_program("pag-pamhost"));
    let mut within = Host::start(command, &["sshd", "alice"]);
    within.ok("putenv KRB5CCNAME=FILE:/run/home/alice/cc.alice");
    within.ok("open");
    let ring = within.ring();
    let inode = within.ask("run stat -Lc %i /proc/self/ns/pid")["stdout"].as_str().unwrap().trim().to_owned();
    let theirs = |key: &i32| describe(*key).is_ok_and(|key| key.name.starts_with(&format!("pag:registry:{inode}:")));
    let mut made: Vec<i32> = members(own_keyring()).unwrap().into_iter().filter(theirs).collect();
    made.retain(|key| !before.contains(key));
    // The keys that the namespace has made in root's keyring do not end with it.
    for key in &made {
        keyctl(libc::KEYCTL_UNLINK, i64::from(*key), own_keyring().into(), 0).unwrap();
    }
    assert!(outside.ring().token(CELL).is_some(), "the host's login has its token");
    assert!(ring.is_pag(), "a login in another pid namespace has a PAG: {ring:?}");
    assert_ne!(ring.identity(), outside.ring().identity(), "it is not the host's");
    assert_eq!(made.len(), 1, "it is in a registry of its own");
    assert_eq!(registry(), here, "the host's registry is as it was");
    assert_eq!(pags("alice").len(), 1, "and so are its PAGs");
    assert_eq!(pags("alice")[0].leases().len(), 1, "the host's PAG has no lease of another namespace");
}

pub(super) fn root_keyring_holds_no_token(sandbox: &mut Sandbox) {
    let mut alice = login(sandbox, "alice");
    assert!(alice.ring().token(CELL).is_some(), "alice has a token");
    let bob = uid("bob");
    for become_whom in ["", &format!("setpriv --reuid {bob} --regid {bob} --clear-groups"), "setpriv --ruid 61002"] {
        for look in
            ["search @s user afs@example.test", "search @u user afs@example.test", "request user afs@example.test"]
        {
            let script = format!(
                "keyctl session - sh -c 'keyctl link @u @s; exec {become_whom} keyctl {look}' 2>/dev/null || true"
            );
            let said = shell(&script);
            assert_eq!(said.trim(), "", "root{become_whom} finds a token by '{look}'");
        }
    }
}

pub(super) fn failure_is_a_line(sandbox: &mut Sandbox) {
    let module = crate::sandbox::module();
    let module = module.display();
    for (name, options) in [("lenient", ""), ("strict", "strict")] {
        sandbox.stack(name, &format!("auth required {module} {options}\nsession required {module} {options}\n"));
    }
    // A container with a seccomp filter that forbids keyrings.
    for error in ["ENOSYS", "EPERM"] {
        for (service, result) in [("lenient", 0), ("strict", 14)] {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=keyctl,add_key,request_key"]);
            strace
                .args(["-e", &format!("inject=keyctl,add_key,request_key:error={error}")])
                .arg(own_program("pag-pamhost"));
            let mut host = Host::start(strace, &[service, "alice"]);
            sandbox.messages();
            let before = host.ask("report");
            assert_eq!(host.ask("open")["result"], result, "{service}, {error}: the result of open_session");
            sandbox.heard("goes on without a PAG and without tokens");
            let after = host.ask("report");
            for id in ["uid", "gid", "groups", "fds", "children"] {
                assert_eq!(after[id], before[id], "{service}, {error}: {id} as before");
            }
            host.ask("close");
            assert!(host.finish().success(), "{service}, {error}: the host lives on");
        }
    }
    // The user cannot be looked up: there is no name service to ask.
    let switch = std::fs::read("/etc/nsswitch.conf").unwrap();
    std::fs::write("/etc/nsswitch.conf", "passwd: files\ngroup: files\n").unwrap();
    for (service, result) in [("lenient", 0), ("strict", 14)] {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-P", "/etc/passwd", "-e", "inject=open,openat:error=ENFILE"]);
        strace.arg(own_program("pag-pamhost"));
        let mut host = Host::start(strace, &[service, "alice"]);
        sandbox.messages();
        assert_eq!(host.ask("open")["result"], result, "{service}: the result of open_session for nobody knows whom");
        sandbox.heard("look the user up");
    }
    std::fs::write("/etc/nsswitch.conf", switch).unwrap();
    // Another process holds the lock: after a bounded wait the login gets a PAG outside the registry.
    let mut shared = login(sandbox, "alice");
    let mut ending = login(sandbox, "alice");
    let held = std::fs::File::options().write(true).open(format!("/run/pag/lock/{}", uid("alice"))).unwrap();
    held.lock().unwrap();
    let before = pags("alice").remove(0);
    sandbox.messages();
    let begun = Instant::now();
    let mut private = login(sandbox, "alice");
    assert!(begun.elapsed() < Duration::from_secs(5), "a held lock delays for {:?} only", begun.elapsed());
    sandbox.heard("gets a PAG that no other process can join");
    let ring = private.ring();
    assert!(ring.is_pag() && ring.token(CELL).is_some(), "it has a PAG and a token: {ring:?}");
    assert_ne!(ring.identity(), shared.ring().identity(), "the shared PAG is not touched unlocked");
    assert_eq!(pags("alice").len(), 1, "nor the registry");
    assert_eq!(pags("alice")[0].text, before.text, "nor a record");
    private.all_ok(&["close", "end"]);
    assert!(!private.ring().is_pag(), "a private PAG is left, too");
    // A seeding job is for a PAG of the registry: in one of its own it would bring tokens that no program has.
    sandbox.stack("pag-seed", &format!("session required {module} strict\n"));
    let mut job = sandbox.host("pag-seed", "alice");
    assert_eq!(job.ask("open")["result"], 14, "a seeding job gets no PAG of its own");
    assert!(!job.ring().is_pag(), "nor is it in one");
    job.ask("end");
    sandbox.messages();
    ending.ok("close");
    let said = sandbox.heard("the end of a session of alice (uid 61001) is not noted");
    assert!(said.text().contains("was held by another process all the time"), "it says why: {}", said.text());
    drop(held);
    ending.finish();
    // Only root can have broken this.
    std::fs::rename("/run/pag/lock", "/run/pag/lock.away").unwrap();
    std::fs::write("/run/pag/lock", "").unwrap();
    let mut private = login(sandbox, "alice");
    sandbox.heard("gets a PAG that no other process can join");
    assert!(private.ring().token(CELL).is_some(), "it has a token");
    private.all_ok(&["close", "end"]);
    std::fs::remove_file("/run/pag/lock").unwrap();
    std::fs::rename("/run/pag/lock.away", "/run/pag/lock").unwrap();
    assert!(shared.ring().token(CELL).is_some(), "the shared PAG has its token");
    shared.all_ok(&["close", "end"]);
    assert!(pags("alice").is_empty(), "and ends");
}

/// A login of `user` with a call to `keyctl` that fails: the first with these words in its arguments. So do the calls of
/// `others`, as strace's option `inject` names them.
fn strikes(sandbox: &mut Sandbox, user: &str, words: &str, error: &str, others: &[&str]) -> Host {
    let traced = |options: &[&str]| {
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-e", "trace=keyctl,add_key"]).args(options).arg(own_program("pag-pamhost"));
        let mut host = Host::start(strace, &["sshd", user]);
        host.ok("open");
        host
    };
    let mut host = traced(&["-o", "/run/trace"]);
    host.all_ok(&["close", "end"]);
    host.finish();
    let calls = std::fs::read_to_string("/run/trace").unwrap();
    let mut calls = calls.lines().filter(|line| line.starts_with("keyctl("));
    let number = 1 + calls.position(|line| line.contains(words)).unwrap_or_else(|| panic!("no call has {words}"));
    let strike = format!("inject=keyctl:error={error}:when={number}");
    for _ in 0..20 {
        sandbox.messages();
        let mut host = traced(&[&["-o", "/run/struck", "-e", &strike], others].concat());
        let calls = std::fs::read_to_string("/run/struck").unwrap();
        if calls.lines().any(|line| line.contains("(INJECTED)") && line.contains(words)) {
            return host;
        }
        // A login makes a call more while the kernel still describes the holder of a PAG that has just ended.
        host.ask("close");
        host.ask("end");
    }
    panic!("no call with {words} was struck");
}

pub(super) fn trouble_of_one_login(sandbox: &mut Sandbox) {
    let mut first = login(sandbox, "alice");
    let before = pags("alice").remove(0);
    let (ring, record) = (before.ring, before.record);
    let private = "gets a PAG that no other process can join";
    let troubles = [
        ("KEYCTL_JOIN_SESSION_KEYRING, \"pag:".to_owned(), "ENOMEM", private),
        ("KEYCTL_JOIN_SESSION_KEYRING, \"pag:".to_owned(), "EACCES", private),
        (format!("KEYCTL_DESCRIBE, {ring}"), "ENOMEM", "its ring cannot be used"),
        (format!("KEYCTL_DESCRIBE, {record}"), "EACCES", "its record cannot be read now"),
        (format!("KEYCTL_READ, {record}"), "ENOMEM", "its record cannot be read now"),
    ];
    let record_now = || pags("alice").into_iter().find(|pag| pag.holder == before.holder).map(|pag| pag.text);
    for (call, error, said) in troubles {
        let text = record_now();
        let mut struck = strikes(sandbox, "alice", &call, error, &[]);
        let what = format!("{error} at {call}");
        sandbox.heard(said);
        assert!(struck.ring().is_pag(), "{what}: the login has a PAG");
        assert_ne!(struck.ring().identity(), first.ring().identity(), "{what}: and it is another one");
        assert_eq!(record_now(), text, "{what}: the PAG of the other login is not ended, nor its record changed");
        let mut third = login(sandbox, "alice");
        assert_eq!(third.ring().identity(), first.ring().identity(), "{what}: the next login joins it");
        third.all_ok(&["close", "end"]);
        struck.all_ok(&["close", "end"]);
    }
    // The record of a new PAG, with the login's ticket, can neither be changed nor made anew. Ring, holder and record are
    // the keys that were made before.
    login(sandbox, "bob").all_ok(&["close", "end"]);
    let mut struck = strikes(sandbox, "bob", "KEYCTL_UPDATE", "ENOMEM", &["-e", "inject=add_key:error=EDQUOT:when=4"]);
    let said = sandbox.heard("goes on without a PAG and without tokens");
    assert!(said.text().contains("cannot make pag:record"), "it says why: {}", said.text());
    assert!(!struck.ring().is_pag(), "a login is in no ring of a PAG that is not in the registry: {:?}", struck.ring());
    assert!(pags("bob").is_empty(), "and that PAG has ended");
    struck.all_ok(&["close", "end"]);
    assert!(first.ring().token(CELL).is_some(), "the other login has its token all the time");
    first.all_ok(&["close", "end"]);
    assert!(pags("alice").is_empty(), "and all PAGs end");
}

/// Whoever holds the lock of a user may change that user's PAGs, and no other's.
pub(super) fn lock_is_for_its_own_user(sandbox: &mut Sandbox) {
    let mut bob = login(sandbox, "bob");
    let before = pags("bob").remove(0);
    let guard = Guard::enter(HandleGroup(HANDLE)).unwrap();
    let mut his = LockedUser::lock(&guard, uid("bob"), Duration::from_secs(2)).unwrap().pags().unwrap().remove(0);
    let record = his.record.clone().unwrap();
    let alice = LockedUser::lock(&guard, uid("alice"), Duration::from_secs(2)).unwrap();
    let retired = alice.retire(&his);
    let stored = alice.store(&mut his, Record { reseed: true, ..record });
    drop(alice);
    drop(guard);
    assert!(stored.is_err(), "a record of bob's is not written under the lock of alice");
    assert!(retired.is_err(), "nor is a PAG of bob's ended");
    assert_eq!(pags("bob").first().map(|pag| &*pag.text), Some(&*before.text), "it is as it was");
    bob.all_ok(&["close", "end"]);
}

pub(super) fn member_passes_nothing_on(sandbox: &mut Sandbox) {
    let mut member = login(sandbox, "alice");
    let before = member.ring();
    let pag = pags("alice").remove(0);
    let (ring, holder, record, registry) = (pag.ring, pag.holder, pag.record, registry().unwrap());
    let tries = [
        // A keyring of the user's own that outlives the PAG, or that another process could be in.
        "link @s @u".to_owned(),
        "link @s @us".to_owned(),
        "move @s @s @u".to_owned(),
        "setperm @s 0x3f3f3f3f".to_owned(),
        format!("chown @s {}", uid("bob")),
        "chgrp @s 61002".to_owned(),
        "timeout @s 1".to_owned(),
        // The holder that anchors the PAG.
        format!("unlink {ring} {holder}"),
        format!("clear {holder}"),
        format!("revoke {holder}"),
        format!("invalidate {holder}"),
        format!("unlink {holder} {registry}"),
        format!("read {registry}"),
        format!("describe {record}"),
        format!("read {record}"),
        format!("update {record} x"),
        format!("link {holder} @s"),
        format!("search {registry} user pag:record"),
    ];
    for words in tries {
        let done = inside(&mut member, "alice", &format!("keyctl {words}"));
        assert_ne!(done["status"], 0, "a member can: keyctl {words}: {done}");
    }
    assert_eq!(member.ring(), before, "the ring is as it was");
    assert_eq!(pags("alice")[0].text, pag.text, "and the record");
}
