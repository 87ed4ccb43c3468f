//! Who cannot reach a PAG, and what those who are in it cannot spoil.

use std::process::Command;

use super::{inside, login, pags, uid};
use crate::sandbox::{CELL, Sandbox};

/// Whether `keyctl` succeeds for a process of these ids that is outside every PAG.
fn can(uid: u32, gid: u32, groups: &str, words: &[&str]) -> bool {
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
    // What is done, whether the ring is lost, and what is said of it at the next login.
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
    // su within the PAG changes nothing.
    sandbox.stack("su", &format!("session required {}\n", crate::sandbox::module().display()));
    let before = alice.ring();
    alice.all_ok(&["start su bob", "open"]);
    assert_eq!(alice.ring().identity(), before.identity(), "su changes nothing");
}
