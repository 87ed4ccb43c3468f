//! What a member can do about its own PAG, by `pagctl` and without root.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::safety::can;
use super::{inside, login, uid};
use crate::ring::Ring;
use crate::sandbox::{CELL, Host, Sandbox, pagctl};
use crate::schema;

/// Puts pagctl where every user can run it.
fn install() {
    fs::copy(pagctl(), "/run/pagctl").unwrap();
}

/// pagctl's JSON and exit status.
fn told(host: &mut Host, script: &str) -> (Value, i64) {
    let done = inside(host, "alice", script);
    let text = done["stdout"].as_str().unwrap();
    let value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{script}: {error}: {done}"));
    let verb = script.rsplit("pagctl ").next().unwrap().split(" --json").next().unwrap();
    schema::check(verb, &value);
    (value, done["status"].as_i64().unwrap())
}

/// pagctl's text, with its complaints, and exit status.
fn said(host: &mut Host, script: &str) -> (String, i64) {
    let done = inside(host, "alice", script);
    let text = format!("{}{}", done["stdout"].as_str().unwrap(), done["stderr"].as_str().unwrap());
    (text, done["status"].as_i64().unwrap())
}

/// A token of `cell` in the session keyring, by the member himself; good, or ended long ago.
fn add(cell: &str, end: u32) -> String {
    format!("keyctl add user afs@{cell} 'alice@EXAMPLE.TEST {end}' @s >/dev/null\n")
}

pub(super) fn tokens_and_unlog(sandbox: &mut Sandbox) {
    install();
    let (mut first, mut second) = (login(sandbox, "alice"), login(sandbox, "alice"));
    let mut bob = login(sandbox, "bob");
    let tokens = |host: &mut Host| {
        let (told, status) = told(host, "exec /run/pagctl tokens --json");
        let mut lines: Vec<String> = told["tokens"].as_array().unwrap().iter().map(Value::to_string).collect();
        lines.sort_unstable();
        (lines, status)
    };
    let (told, status) = told(&mut first, "exec /run/pagctl tokens --json");
    assert_eq!(status, 0, "there is a good token: {told}");
    assert_eq!(told["tokens"].as_array().unwrap().len(), 1, "one token: {told}");
    let token = &told["tokens"][0];
    assert_eq!((&token["cell"], &token["client"]), (&CELL.into(), &"keyring".into()), "whose it is: {told}");
    assert_eq!((&token["principal"], &token["state"]), (&"alice@EXAMPLE.TEST".into(), &"good".into()), "{told}");
    assert!(token["expires"].as_u64().unwrap() > crate::ticket::now(), "its end is told: {told}");

    inside(&mut first, "alice", &(add("ended.test", 1000) + &add("other.test", 4_000_000_000)));
    let (text, status) = said(&mut second, "exec /run/pagctl tokens");
    assert_eq!(status, 0, "{text}");
    let line =
        |cell: &str| text.lines().find(|line| line.starts_with(cell)).unwrap_or_else(|| panic!("{cell}: {text}"));
    assert!(line("ended.test").ends_with("expired"), "an expired token is one: {text}");
    assert!(line("other.test").contains("alice@EXAMPLE.TEST  keyring  -     good until 2"), "in columns: {text}");

    let all = tokens(&mut second).0;
    let (text, status) = said(&mut first, "exec /run/pagctl unlog nowhere.test");
    assert_eq!(
        (status, &text[..]),
        (0, "This PAG has no tokens of cell nowhere.test.\n"),
        "it says that there are none"
    );
    let (text, status) = said(&mut first, "exec /run/pagctl unlog 'no cell'");
    assert_eq!(status, 2, "what is no cell's name is refused: {text}");
    assert_eq!(tokens(&mut second).0, all, "and nothing has changed");
    // Where no search in the ring comes.
    inside(
        &mut first,
        "alice",
        "k=$(keyctl search @s user afs@other.test); keyctl link $k @us; echo $k > /run/home/alice/kept",
    );
    let (text, status) = said(&mut first, "exec /run/pagctl unlog other.test");
    assert_eq!((status, &text[..]), (0, "Discarded one token of cell other.test.\n"));
    let (text, status) = said(&mut second, "keyctl describe $(cat /run/home/alice/kept)");
    assert_ne!(status, 0, "what is discarded is dead wherever it is kept: {text}");
    assert_eq!(tokens(&mut second).0.len(), 2, "the tokens of other cells stay");

    let (text, status) = said(&mut first, "exec /run/pagctl unlog");
    assert_eq!((status, &text[..]), (0, "Discarded 2 tokens.\n"));
    assert_eq!(tokens(&mut second), (Vec::new(), 1), "unlog ends the tokens of all members");
    assert!(second.ring().token(CELL).is_none(), "and no key of one is left: {:?}", second.ring());
    assert!(bob.ring().token(CELL).is_some(), "another user's are there as before: {:?}", bob.ring());
    let (text, status) = said(&mut first, "exec /run/pagctl unlog");
    assert_eq!((status, &text[..]), (0, "This PAG has no tokens.\n"), "with nothing left it is no error");
    let (json, status) = self::told(&mut first, "exec /run/pagctl unlog --json");
    assert_eq!((status, &json[0]["done"], &json[0]["uid"]), (0, &true.into(), &uid("alice").into()), "{json}");

    // A user who has locked themselves out gets a message.
    let script = "k=$(keyctl add user afs@kept.test 'alice@EXAMPLE.TEST 4000000000' @s)\n\
                  keyctl setperm $k 0x03030000; keyctl setperm @s 0x1b030000\nexec /run/pagctl unlog";
    fs::write("/run/script", script).unwrap();
    let (text, status) = said(&mut first, "exec /run/pagctl new sh -e /run/script");
    assert_eq!(status, 2, "tokens that stay are an error: {text}");
    assert!(text.contains("1 tokens are still there"), "in words: {text}");
    for host in [&mut first, &mut second, &mut bob] {
        host.all_ok(&["close", "end"]);
    }
}

pub(super) fn new_and_leave(sandbox: &mut Sandbox) {
    install();
    let mut host = login(sandbox, "alice");
    let before: Ring = host.ring();
    let ring = before.identity().0;
    let (id, status) = told(&mut host, "exec /run/pagctl id --json");
    assert_eq!((status, &id["member"], &id["ring"]), (0, &true.into(), &ring.into()), "the login's PAG: {id}");
    let (text, _) = said(&mut host, "exec /run/pagctl id");
    assert!(text.contains(&format!("ring       {ring} of alice (uid {})", uid("alice"))), "in words: {text}");
    assert!(!text.contains(before.identity().1), "its name opens it, and is told to nobody: {text}");

    for verb in ["new", "leave"] {
        let (id, status) = told(&mut host, &format!("exec /run/pagctl {verb} -- /run/pagctl id --json"));
        let session = id["session"].as_i64().unwrap();
        assert_ne!(session, i64::from(ring), "{verb} is out of the login's ring: {id}");
        assert_eq!(id["ring"], Value::Null, "{verb}: no ring of a login's: {id}");
        assert_eq!((status, &id["by_session"][0]), (0, &"keyring".into()), "{verb}: a PAG for this client: {id}");
        let (told, status) = told(&mut host, &format!("exec /run/pagctl {verb} -- /run/pagctl tokens --json"));
        assert_eq!((status, told["tokens"].as_array().unwrap().len()), (1, 0), "{verb}: no tokens: {told}");
        let (text, _) = said(&mut host, &format!("exec /run/pagctl {verb} -- keyctl show @s"));
        assert!(text.contains("_uid."), "{verb}: the user's own keyring is there: {text}");

        // Its children share its tokens; no other process does.
        let script = format!("{}/run/pagctl tokens | grep -c new.test", add("new.test", 4_000_000_000));
        let (text, status) = said(&mut host, &format!("exec /run/pagctl {verb} -- sh -ec \"{script}\""));
        assert_eq!((status, text.trim()), (0, "1"), "{verb}: a token of its own");

        let (_, status) = said(&mut host, &format!("exec /run/pagctl {verb} -- sh -c 'exit 7'"));
        assert_eq!(status, 7, "{verb}: the status is the command's");
        let (text, status) = said(&mut host, &format!("exec /run/pagctl {verb} /nonexistent/command"));
        assert_eq!(status, 127, "{verb}: a command that is not there: {text}");
        let (text, status) = said(&mut host, &format!("export SHELL=/usr/bin/env X=here\nexec /run/pagctl {verb}"));
        assert!(status == 0 && text.contains("X=here"), "{verb}: the shell without a command: {text}");
        let (text, status) = said(&mut host, &format!("unset SHELL\necho 'echo $0; exit 5' | /run/pagctl {verb}"));
        assert_eq!((status, &text[..]), (5, "/bin/sh\n"), "{verb}: and without that variable");
    }
    assert_eq!(host.ring(), before, "the login itself is where it was, with all that it had");
    same_uid_stays_outside();

    // A session keyring is a PAG only for a client that takes it for one. Otherwise its keys are not ours to discard.
    fs::write("/etc/pag/pag.conf", "[pag]\nclient = none\n").unwrap();
    let (id, status) = told(&mut host, "exec /run/pagctl id --json");
    assert_eq!((status, &id["ring"]), (0, &ring.into()), "a ring is one, whatever is served: {id}");
    let (text, status) = said(&mut host, "exec /run/pagctl leave /run/pagctl id");
    assert!(status == 1 && text.starts_with("You are in no PAG.\n"), "who has left is in none: {text}");
    let (json, status) = told(&mut host, "exec /run/pagctl leave /run/pagctl unlog --json");
    assert_eq!(
        (status, &json[0]["done"], &json[0]["tokens"]),
        (1, &false.into(), &Value::Null),
        "outside unlog says so: {json}"
    );
    let script =
        add("kept.test", 4_000_000_000) + "/run/pagctl unlog || echo status $?\nkeyctl search @s user afs@kept.test";
    fs::write("/run/script", script).unwrap();
    let (text, status) = said(&mut host, "exec /run/pagctl leave sh -e /run/script");
    assert!(text.contains("nothing was discarded") && text.contains("status 1\n"), "outside unlog says so: {text}");
    assert_eq!(status, 0, "outside of any PAG nothing is discarded: {text}");
    sandbox.configure("");
    host.all_ok(&["close", "end"]);
}

/// Other processes of the same uid cannot enter a PAG that `pagctl new` has made.
fn same_uid_stays_outside() {
    let alice = uid("alice");
    let script = format!(
        "{}keyctl id @s; read line; keyctl search @s user afs@new.test >/dev/null; echo $?",
        add("new.test", 4_000_000_000)
    );
    let id = alice.to_string();
    let mut child = Command::new("setpriv")
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "/run/pagctl", "new", "--", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let serial = output.next().unwrap().unwrap();
    let tries: &[&[&str]] = &[
        &["link", &serial, "@s"],
        &["search", &serial, "user", "afs@new.test"],
        &["setperm", &serial, "0x3f3f3f3f"],
        &["add", "user", "afs@evil.test", "x", &serial],
        &["clear", &serial],
        &["revoke", &serial],
        &["invalidate", &serial],
        &["timeout", &serial, "1"],
    ];
    assert!(can(alice, alice, "", &["describe", &serial]), "it is alice's keyring {serial}");
    for words in tries {
        assert!(!can(alice, alice, "", words), "outside of it alice can: {words:?}");
    }
    writeln!(child.stdin.take().unwrap()).unwrap();
    assert_eq!(output.next().unwrap().unwrap(), "0", "the member still has his token");
    child.wait().unwrap();
}

/// As in a service with `PrivateUsers=`.
pub(super) fn user_namespace(sandbox: &mut Sandbox) {
    install();
    let mut host = login(sandbox, "alice");
    let ring = host.ring().identity().0;
    // Root in alice's ring: not every kernel lets plain users make such a namespace.
    let mut pagctl = |words: &str| {
        let done = host.ask(&format!("run unshare --user /run/pagctl {words}"));
        (done["stdout"].as_str().unwrap().to_owned(), done["status"].as_i64().unwrap(), done["stderr"].clone())
    };
    // The configuration is not believed there, since its owner is not shown either: no client is served.
    let (text, status, errors) = pagctl("id");
    assert!(
        text.contains("the kernel does not show the group that would prove it") && !text.contains("no ring of"),
        "a ring of ours is nobody else's there: {text}"
    );
    assert!(text.starts_with("It cannot be told from inside") && status == 1, "status {status}: {text}{errors}");
    let (id, _, _) = pagctl("id --json");
    let id: Value = serde_json::from_str(&id).unwrap();
    assert_eq!((&id["ring"], &id["untold"], &id["session"]), (&Value::Null, &true.into(), &ring.into()), "{id}");
    let (text, status, _) = pagctl("status");
    assert!(text.starts_with(&format!("You are in a PAG: ring {ring} of an owner that this user")), "{status}: {text}");
    // Outside of the namespace, in its own keyring, pagctl shows everything.
    let (id, _) = told(&mut host, "exec /run/pagctl id --json");
    assert_eq!((&id["ring"], &id["untold"]), (&ring.into(), &false.into()), "{id}");
    let done = host.ask("run keyctl session - unshare --user /run/pagctl id");
    assert!(done["stdout"].as_str().unwrap().contains("no ring of pam_pag's"), "{done}");
    host.all_ok(&["close", "end"]);
}
