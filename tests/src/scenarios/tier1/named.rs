//! Named PAGs: a keeper makes one, root's programs enter it by its name, and it ends with its unit.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{shell, uid};
use crate::bus::{Bus, Caller, Helper};
use crate::sandbox::{QuickCollection, Sandbox, eventually, key_count, pagctl};
use crate::ticket;

/// Prints the token of the PAG that it is in.
const TOKEN: &str = "keyctl pipe %user:afs@example.test";

/// A keytab, a kinit that takes any, and a seeder of tokens that tell one from the other.
fn install(sandbox: &Sandbox) {
    fs::copy(pagctl(), "/run/pagctl").unwrap();
    sandbox.seeder(
        "#!/bin/sh\necho \"$(id -u) $KRB5CCNAME\" >> /run/seeder.log\nnumber=$(wc -l < /run/seeder.log)\n\
         exec keyctl add user afs@example.test \"$number@EXAMPLE.TEST $(($(date +%s) + 3600))\" @s >/dev/null\n",
    );
    fs::write("/run/kinit", "#!/bin/sh\ncp /run/web.cc \"${KRB5CCNAME#FILE:}\"\n").unwrap();
    ticket::write("/run/web.cc", 0, "web", "EXAMPLE.TEST", ticket::now() + 3600);
    shell("chmod 755 /run/kinit; mount --bind /run/kinit /usr/bin/kinit; umask 77; echo secret >/run/keytab");
}

/// A keeper as its unit starts it, and what it tells the service manager.
struct Keeper(Child, UnixDatagram);

impl Keeper {
    fn start() -> Self {
        fs::remove_file("/run/notify").ok();
        let told = UnixDatagram::bind("/run/notify").unwrap();
        told.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut command = Command::new("/run/pagctl");
        command.args(["keep", "web"]).env("NOTIFY_SOCKET", "/run/notify").stdin(Stdio::null());
        let keeper = Keeper(command.spawn().unwrap(), told);
        keeper.tells("READY=1");
        keeper
    }

    /// Waits until it tells a text with these words.
    fn tells(&self, words: &str) {
        let mut all = String::new();
        while !all.contains(words) {
            let mut bytes = [0; 4096];
            let length = self.1.recv(&mut bytes).unwrap_or_else(|error| panic!("it tells {words}: {error}: {all}"));
            all += &String::from_utf8_lossy(&bytes[..length]);
        }
    }

    fn signal(&self, name: &str) {
        shell(&format!("kill -{name} {}", self.0.id()));
    }

    /// Its status, after this signal.
    fn ends(mut self, name: &str) -> Option<i32> {
        self.signal(name);
        self.0.wait().unwrap().code()
    }
}

fn run(words: &[&str]) -> Output {
    Command::new("/run/pagctl").args(words).stdin(Stdio::null()).output().unwrap()
}

/// Fails unless it ends with this status, and says these words.
fn answers(words: &[&str], status: i32, said: &str) -> String {
    let output = run(words);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(status), "{words:?}: {text}");
    assert!(text.contains(said), "{words:?} says '{said}': {text}");
    text
}

/// A process in the PAG that prints its token for each line that it reads.
fn member() -> (Child, BufReader<std::process::ChildStdout>) {
    let script = format!("while read line; do echo \"$({TOKEN} 2>/dev/null || echo none)\"; done");
    let mut command = Command::new("/run/pagctl");
    command.args(["run", "--name", "web", "--user", "bob", "--", "sh", "-c", &script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

fn ask((child, output): &mut (Child, BufReader<std::process::ChildStdout>)) -> String {
    writeln!(child.stdin.as_mut().unwrap()).unwrap();
    let mut line = String::new();
    assert_ne!(output.read_line(&mut line).unwrap(), 0, "the member answers");
    line.trim_end().to_owned()
}

pub(super) fn is_kept(sandbox: &mut Sandbox) {
    install(sandbox);
    let _quick = QuickCollection::begin();
    let _bus = Bus::start();
    let _helper = Helper::serving();
    let before = [0, uid("bob")].map(key_count);
    answers(&["keep", "web"], 2, "pag.conf(5) has no section [pag web] with keytab = FILE and principal = PRINCIPAL");
    sandbox.configure("[pag web]\nkeytab = /run/keytab\nprincipal = web@EXAMPLE.TEST");
    answers(&["run", "--name", "web", "true"], 125, "there is no PAG web: pag@web.service makes it");

    let keeper = Keeper::start();
    let mut one = member();
    let first = ask(&mut one);
    assert!(first.contains("@EXAMPLE.TEST "), "a program that enters the PAG has its tokens: {first}");
    let script = format!("id -un; env | grep -c ^KRB5; keyctl id @s; {TOKEN}; cat /run/keytab");
    let said = run(&["run", "--name", "web", "--user", "bob", "--", "sh", "-c", &script]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.starts_with("bob\n0\n") && said.ends_with(&first), "as bob, in the same PAG, without keytab: {said}");
    let ring = said.lines().nth(2).unwrap().to_owned();

    // It is known by its name.
    let shown = || -> Value {
        let said = run(&["show", "pag@web", "--json"]);
        serde_json::from_slice(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    };
    let is_shown = || {
        let said = run(&["show", "web", "--json"]);
        let shown: Option<Value> = serde_json::from_slice(&said.stdout).ok();
        shown.filter(|pag| pag["tokens"].as_array().is_some_and(|tokens| !tokens.is_empty()))
    };
    eventually("the helper shows the PAG and its tokens", Duration::from_secs(20), is_shown);
    let pag = shown();
    assert_eq!((pag["ring"].to_string(), &pag["leases"][0]["service"]), (ring.clone(), &"pag@web".into()), "{pag}");
    assert_eq!((&pag["user"], &pag["principal"]), (&"root".into(), &"web@EXAMPLE.TEST".into()), "{pag}");
    answers(&["list"], 0, "pag@web");
    answers(&["renew", "web"], 2, "`systemctl reload pag@web.service`");
    let id = pag["pag"].as_str().unwrap().to_owned();
    assert_eq!(Caller::new(uid("bob")).pags(), Vec::<String>::new(), "no user is shown it");

    // Each renewal reaches the members.
    keeper.signal("HUP");
    let second = eventually("a reload brings new tokens", Duration::from_secs(20), || {
        Some(ask(&mut one)).filter(|now| *now != first && now != "none")
    });

    // What a member cuts, a reload brings back.
    shell("/run/pagctl run --name web --user bob -- keyctl clear @s");
    assert_eq!(ask(&mut one), "none");
    keeper.signal("HUP");
    let second = eventually("a reload brings back what a member has cut", Duration::from_secs(20), || {
        Some(ask(&mut one)).filter(|now| *now != second && now != "none")
    });

    // A killed keeper takes nothing with it, and the next one goes on with the same PAG.
    assert_eq!(keeper.ends("KILL"), None);
    // The helper is told of a process's end before it is told of a later login.
    let mut login = sandbox.host("sshd", "carol");
    login.ok("open");
    eventually("the helper shows a later login", Duration::from_secs(20), || {
        String::from_utf8_lossy(&run(&["list"]).stdout).contains("carol").then_some(())
    });
    assert_eq!(ask(&mut one), second, "without its keeper the PAG has its tokens");
    let repaired = sandbox.messages().into_iter().find(|message| message.text().contains("had emptied"));
    assert!(repaired.is_none(), "renewed tokens are taken for a ring that a member has emptied: {repaired:?}");
    answers(&["show", "pag@web"], 0, &id);
    login.all_ok(&["close", "end"]);
    assert!(login.finish().success());
    let keeper = Keeper::start();
    let third = ask(&mut one);
    assert!(third != second && third != "none", "the next keeper gets new tokens for the same members: {third}");
    assert_eq!(shown()["ring"].to_string(), ring);

    // Who may not, does not.
    let bob = uid("bob").to_string();
    let as_bob = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &bob, "--regid", &bob, "--clear-groups", "--inh-caps=-all", "/run/pagctl"])
            .args(words);
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, said) = as_bob(&["keep", "web"]);
    assert!(status == Some(2) && said.contains("keytab /run/keytab is refused"), "{said}");
    let (status, said) = as_bob(&["run", "--name", "web", "sh", "-c", TOKEN]);
    assert!(status == Some(125) && said.contains("there is no ticket"), "a user's --name is a name alone: {said}");

    // Its end is that of its tokens.
    assert_eq!(keeper.ends("TERM"), Some(0));
    assert_eq!(ask(&mut one), "none", "members have no tokens behind the end");
    eventually("the helper knows of its end", Duration::from_secs(20), || {
        (run(&["list"]).stdout == b"There are no PAGs that you may see.\n").then_some(())
    });
    drop(one.0.stdin.take());
    one.0.wait().unwrap();

    // A member that breaks the ring ends the PAG, and the next keeper makes a new one.
    let keeper = Keeper::start();
    assert_ne!(shown_ring(), ring);
    assert_eq!(keeper.ends("INT"), Some(0));
    shell("umount /usr/bin/kinit");
    sandbox.configure("");
    eventually("no key is left", Duration::from_secs(20), || {
        ([0, uid("bob")].map(key_count).iter().zip(before).all(|(now, before)| *now <= before + 2)).then_some(())
    });
}

fn shown_ring() -> String {
    let said = run(&["run", "--name", "web", "--", "keyctl", "id", "@s"]);
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}
