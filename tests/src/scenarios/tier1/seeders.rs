//! Programs that get tokens, and those that fail.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{inside, login, pags, shell, ticketed, uid};
use crate::sandbox::{CELL, Sandbox, eventually, exists, own_tmp, silent_server};
use crate::ticket;

/// [`pag::seed::note_seeding`] looks after a member has emptied the ring and the seeder has ended.
pub(super) fn cut_tokens_are_not_forgotten(sandbox: &mut Sandbox) {
    let mut alice = login(sandbox, "alice");
    let known = || pags("alice")[0].text.lines().filter(|line| line.starts_with("token ")).count();
    assert_eq!(known(), 1, "a token");
    sandbox.seeder("#!/bin/sh\nkeyctl clear @s\n");
    let cache = ticket::write("/run/home/alice/cc.later", uid("alice"), "alice", "EXAMPLE.TEST", ticket::now() + 9000);
    alice.all_ok(&[&format!("putenv KRB5CCNAME={cache}"), "refresh"]);
    assert!(alice.ring().token(CELL).is_none(), "which has been cut away: {:?}", alice.ring());
    assert_eq!(known(), 1, "what a seeder has brought and a member has cut is known still");
    alice.all_ok(&["close", "end"]);
}

/// A device of OpenAFS that is there and cannot be opened, as by a host that has no descriptor left.
pub(super) fn unseen_tokens_are_not_missing(sandbox: &mut Sandbox) {
    let mut alice = login(sandbox, "alice");
    let before = pags("alice").remove(0);
    let lines_of = |name: &str| -> Vec<String> {
        pags("alice")[0].text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    };
    let tokens = lines_of("token ");
    assert_eq!(tokens.len(), 1, "the login has a token: {}", before.text);
    let _device = UnixListener::bind("/run/afs_ioctl").unwrap();
    let config = format!(
        "[pag]\nclient = keyring, openafs\nopenafs_device = /proc/1/root/run/afs_ioctl\nprogram = /run/seeder\nafs_cells = {CELL}\n"
    );
    fs::write("/etc/pag/pag.conf", config).unwrap();
    sandbox.messages();
    let mut second = login(sandbox, "alice");
    sandbox.heard("this ring has no PAG of OpenAFS, so /run/seeder was not run");
    assert_eq!(lines_of("token "), tokens, "a ring that cannot be read is not noted as one without tokens");
    second.all_ok(&["close", "end"]);

    // The last seeder has run long ago, and brought a token of each client.
    let late = ticket::now() - 1000;
    let text: String = pags("alice")[0]
        .text
        .lines()
        .map(|line| if line.starts_with("attempt ") { format!("attempt {late} ok 0\n") } else { format!("{line}\n") })
        .collect();
    let text = text.replace(&tokens[0], &format!("{}\n{}", tokens[0], tokens[0].replace("keyring", "openafs")));
    fs::write("/run/record", &text).unwrap();
    shell(&format!("keyctl pupdate {} < /run/record", before.record));
    sandbox.messages();
    let mut third = login(sandbox, "alice");
    let messages = sandbox.messages();
    let sought = messages.iter().any(|message| message.text().contains("no tokens of cell"));
    assert!(!sought, "no seeder runs for tokens that cannot be looked at and are good: {messages:#?}");
    assert_eq!(lines_of("token ").len(), 2, "and they stay in the record");

    let tool = crate::sandbox::pagctl().display().to_string();
    for (words, status) in [("tokens", 2), ("unlog", 2), ("status", 0)] {
        let said = inside(&mut alice, "alice", &format!("{tool} {words} 2>&1"));
        assert_eq!(said["status"], status, "pagctl {words}: {said}");
        let said = said["stdout"].as_str().unwrap();
        assert!(said.contains("cannot list the tokens in"), "pagctl {words} does not say that there are none: {said}");
    }
    alice.all_ok(&["close", "end"]);
    sandbox.messages();
    // This login is the last one, and its configuration names the device.
    third.all_ok(&["close", "end"]);
    let messages = sandbox.messages();
    let has = |words: &str| messages.iter().any(|message| message.text().contains(words));
    assert!(has("cannot discard the tokens in ring"), "the end says what it could not do: {messages:#?}");
    assert!(has("its tokens were left to its processes"), "and does not call the tokens discarded: {messages:#?}");
}

/// sshd calls setcred before it opens the session. A refresh is a new request.
pub(super) fn first_hook_looks(sandbox: &mut Sandbox) {
    let mut first = login(sandbox, "alice");
    // With the same ticket: a later one would be a reason to run the seeder.
    let mut second = sandbox.host("sshd", "alice");
    second.all_ok(&["putenv KRB5CCNAME=FILE:/run/home/alice/cc.alice", "establish"]);
    let runs = sandbox.seeder_runs();
    assert_eq!(runs, 1, "the second login finds good tokens");
    assert_eq!(inside(&mut first, "alice", "keyctl clear @s")["status"], 0);
    second.ok("open");
    assert_eq!(sandbox.seeder_runs(), runs, "the first hook of a login looks at the tokens, and the second does not");
    second.ok("refresh");
    assert_eq!(sandbox.seeder_runs(), runs + 1, "a refresh looks at them");
    second.all_ok(&["close", "end"]);
    first.all_ok(&["close", "end"]);
}

/// In `/tmp`, where sshd and kinit put tickets, and every user can put something else.
pub(super) fn hostile_tickets(sandbox: &mut Sandbox) {
    own_tmp();
    sandbox.configure("timeout = 500ms");
    let good = |name: &str, user: &str| {
        let path = format!("/tmp/{name}");
        ticket::write(&path, uid(user), user, "EXAMPLE.TEST", ticket::now() + 3600);
        path
    };
    good("cc.alice", "alice");
    good("cc.bob", "bob");
    shell("mkdir /tmp/of.bob; mv /tmp/cc.bob /tmp/of.bob; chown bob /tmp/of.bob; chmod 700 /tmp/of.bob");
    shell(
        "ln -s cc.alice /tmp/link; mkfifo -m 666 /tmp/fifo; ln -s of.bob /tmp/through; head -c 2000000 /dev/zero >/tmp/large",
    );
    shell("chown -h alice /tmp/link /tmp/fifo /tmp/through /tmp/large");
    good("server", "alice");
    let server = silent_server("/tmp/server", uid("alice"));
    // A process that waits for it anyway ends after that time.
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let answering = std::thread::spawn(move || {
        let _ = ended.recv_timeout(Duration::from_secs(5));
        drop(server);
    });
    for (name, why) in [
        ("of.bob/cc.bob", "the user cannot read it"),
        ("through/cc.bob", "the user cannot read it"),
        ("link", "the user cannot read it"),
        ("fifo", ""),
        ("large", "the user cannot read it"),
        ("server", "it could not be read in time"),
    ] {
        let mut host = sandbox.host("sshd", "alice");
        host.ok(&format!("putenv KRB5CCNAME=FILE:/tmp/{name}"));
        sandbox.messages();
        let begun = Instant::now();
        host.ok("open");
        assert!(begun.elapsed() < Duration::from_millis(1500), "{name}: the login has waited {:?}", begun.elapsed());
        assert!(host.ring().is_pag() && host.ring().token(CELL).is_none(), "{name}: a PAG without tokens");
        assert!(!pags("alice")[0].text.contains("principal "), "{name}: nobody's identity: {}", pags("alice")[0].text);
        sandbox.heard(&format!("cannot serve the PAG: {why}"));
        host.all_ok(&["close", "end"]);
    }
    drop(end);
    answering.join().unwrap();
    let mut host = sandbox.host("sshd", "alice");
    host.all_ok(&["putenv KRB5CCNAME=/tmp/cc.alice", "open"]);
    assert!(host.ring().token(CELL).is_some(), "his own ticket is taken");
    host.all_ok(&["close", "end"]);
}

/// A login brings a later ticket, and waits for a file system that its user has mounted over the PAG's ccache.
pub(super) fn slow_ccache_holds_no_lock(sandbox: &mut Sandbox) {
    own_tmp();
    sandbox.configure("timeout = 3s");
    let mut first = login(sandbox, "alice");
    let ccache = ccache_of(&pags("alice")[0]);
    let server = silent_server(&format!("{ccache}/tkt"), uid("alice"));
    let later = ticket::write("/tmp/cc.later", uid("alice"), "alice", "EXAMPLE.TEST", ticket::now() + 9000);
    let mut second = sandbox.host("sshd", "alice");
    second.ok(&format!("putenv KRB5CCNAME={later}"));
    second.tell("open");
    let child =
        || Command::new("pgrep").args(["-u", "61001", "-P", &second.pid().to_string()]).output().unwrap().stdout;
    let mut seen = Vec::new();
    eventually("the second login waits for the ccache", Duration::from_secs(2), || {
        let now = child();
        let stays = !now.is_empty() && now == seen;
        seen = now;
        std::thread::sleep(Duration::from_millis(100));
        stays.then_some(())
    });
    let mut third = sandbox.host("sshd", "alice");
    let begun = Instant::now();
    third.ok("open");
    let waited = begun.elapsed();
    println!("a login beside one that waits for its ccache: {waited:?}");
    assert!(waited < Duration::from_millis(500), "a third login has waited for another login's ccache: {waited:?}");
    assert_eq!(third.ring().identity(), first.ring().identity(), "and is in the PAG");
    assert_eq!(second.answer().unwrap()["result"], 0, "the login that waits succeeds, too");
    assert_eq!(second.ring().identity(), first.ring().identity(), "and is in the PAG");
    drop(server);
    for mut host in [first, second, third] {
        host.all_ok(&["close", "end"]);
    }
}

/// alice fills her PAG's ccache with bytes, and then with files.
pub(super) fn ccaches_share_no_room(sandbox: &mut Sandbox) {
    let mut alices = login(sandbox, "alice");
    let ccache = ccache_of(&pags("alice")[0]);
    let room = |what: &str| -> u64 {
        let free = shell("stat -f -c '%a %d' /run");
        free.split_whitespace().nth(usize::from(what == "files")).unwrap().parse().unwrap()
    };
    let fillings = [
        ("bytes", format!("dd if=/dev/zero of={ccache}/x bs=1M count=1024 2>/dev/null || true; stat -c %s {ccache}/x")),
        (
            "files",
            format!("perl -e 'for (1..1000000) {{ open(F, q(>), qq($ARGV[0]/f$_)) or last; print 1 }}' {ccache}"),
        ),
    ];
    for (what, filling) in fillings {
        let before = room(what);
        let done = inside(&mut alices, "alice", &format!("{{ {filling}; }} >/run/home/alice/filled"));
        assert_eq!(done["status"], 0, "{done}");
        let words = std::fs::read_to_string("/run/home/alice/filled").unwrap();
        let filled = if what == "bytes" { words.trim().parse().unwrap() } else { words.len() };
        assert!(filled <= if what == "bytes" { 16 << 20 } else { 4096 }, "alice has filled /run with {filled} {what}");
        println!("alice's ccache takes {filled} {what}");
        assert!(before - room(what) < 1000, "what is free of {what} on /run is what was: {before}, {}", room(what));
        // Bob's login lacks nothing, and alice's has what she left in it.
        let mut bobs = login(sandbox, "bob");
        assert!(bobs.ring().token(CELL).is_some(), "bob has his token");
        assert!(std::fs::exists(format!("{}/tkt", ccache_of(&pags("bob")[0]))).unwrap(), "and his ticket in a ccache");
        bobs.all_ok(&["close", "end"]);
        let mut second = login(sandbox, "alice");
        assert_eq!(second.ring().identity(), alices.ring().identity(), "alice's next login joins");
        second.all_ok(&["close", "end"]);
        shell(&format!("find {ccache} -type f -delete"));
    }
    // A host that does not see the mounted file system makes a PAG of alice's: it mounts nothing over it.
    let mut command = Command::new("unshare");
    let host = "umount -l /run/pag/ccache/61001 && exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", host]).arg(crate::sandbox::own_program("pag-pamhost"));
    let cache = ticket::write("/run/home/alice/cc2", uid("alice"), "alice2", "EXAMPLE.TEST", ticket::now() + 3600);
    let mut apart = crate::sandbox::Host::start(command, &["sshd", "alice"]);
    sandbox.messages();
    apart.all_ok(&[&format!("putenv KRB5CCNAME={cache}"), "open"]);
    assert_ne!(apart.ring().identity(), alices.ring().identity(), "the other principal has a PAG of its own");
    assert!(std::fs::exists(&ccache).unwrap(), "alice's ccache is hidden by a file system over it");
    sandbox.heard("one is mounted already where this process does not see it");
    apart.all_ok(&["close", "end"]);
    assert!(std::fs::exists(&ccache).unwrap(), "and is there afterwards");
    alices.all_ok(&["close", "end"]);
    // Where it cannot be mounted there is no ccache, and nothing that a user could write.
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"])
        .arg(crate::sandbox::own_program("pag-pamhost"));
    let cache = ticket::write("/run/home/carol/cc", uid("carol"), "carol", "EXAMPLE.TEST", ticket::now() + 3600);
    let mut carols = crate::sandbox::Host::start(command, &["sshd", "carol"]);
    sandbox.messages();
    carols.all_ok(&[&format!("putenv KRB5CCNAME={cache}"), "open"]);
    assert_eq!(shell("find /run/pag/ccache/61003 -uid 61003"), "", "nothing there is carol's");
    sandbox.heard("no file system could be mounted on /run/pag/ccache/61003");
    assert!(carols.ring().token(CELL).is_some(), "carol has her token: {:?}", carols.ring());
    carols.all_ok(&["close", "end"]);
}

/// Where a PAG's own ccache is.
pub(super) fn ccache_of(pag: &super::Pag) -> String {
    let name = pag.text.lines().find_map(|line| line.strip_prefix("ccache DIR:"));
    name.expect("a PAG with a ccache of its own").to_owned()
}

pub(super) fn bad_seeders(sandbox: &mut Sandbox) {
    let seeders = [
        ("hangs", "#!/bin/sh\nexec sleep 1017\n"),
        ("crashes", "#!/bin/sh\nkill -SEGV $$\n"),
        ("forks", "#!/bin/sh\nsetsid sleep 1017 &\nexit 0\n"),
        ("floods", "#!/bin/sh\nyes & yes >&2\n"),
        ("refuses", "#!/bin/sh\nexit 3\n"),
        ("missing", ""),
    ];
    sandbox.configure("timeout = 500ms");
    for (name, script) in seeders {
        if script.is_empty() {
            std::fs::remove_file("/run/seeder").unwrap()
        } else {
            sandbox.seeder(script)
        }
        let mut host = ticketed(sandbox, "sshd", "dave", "dave");
        sandbox.messages();
        let begun = Instant::now();
        host.all_ok(&["establish", "open"]);
        assert!(begun.elapsed() < Duration::from_millis(1500), "{name}: within one budget, not {:?}", begun.elapsed());
        assert!(host.ring().is_pag(), "{name}: the login has a PAG");
        if name != "forks" {
            sandbox.heard("no tokens of cell");
        }
        let left = Command::new("pgrep").args(["-u", "61004", "."]).output().unwrap().stdout;
        assert!(left.is_empty(), "{name}: no process stays: {}", String::from_utf8_lossy(&left));
        host.all_ok(&["close", "end"]);
    }
    // A login that is killed over its seeder takes it along, with all that it has forked.
    sandbox.seeder("#!/bin/sh\nsleep 1017 & sh -c 'sleep 1018; :' & wait\n");
    sandbox.configure("timeout = 30s");
    let mut host = ticketed(sandbox, "sshd", "dave", "dave");
    host.tell("open");
    let running = || Command::new("pgrep").args(["-c", "-u", "61004", "sleep"]).output().unwrap().stdout;
    eventually("the seeder runs", Duration::from_secs(5), || (running() == b"2\n").then_some(()));
    host.kill();
    eventually("a seeder goes with its host", Duration::from_secs(5), || (running() == b"0\n").then_some(()));
}

/// A seeder runs as the user, who can have it say whatever they like (by a ccache, or a file that the seeder reads).
pub(super) fn seeders_own_words(sandbox: &mut Sandbox) {
    sandbox.configure("timeout = 2s");
    let failure = |sandbox: &mut Sandbox, script: &str| {
        sandbox.seeder(script);
        let mut host = ticketed(sandbox, "sshd", "dave", "dave");
        sandbox.messages();
        let begun = Instant::now();
        host.all_ok(&["establish", "open"]);
        assert!(begun.elapsed() < Duration::from_millis(4500), "no words hold a login up: {:?}", begun.elapsed());
        let message = sandbox.heard("no tokens of cell example.test for dave (uid 61004)");
        host.all_ok(&["close", "end"]);
        message
    };
    let plain = failure(sandbox, "#!/bin/sh\necho \"aklog: can't get afs configuration\" >&2\nexit 3\n");
    let words = "/run/seeder ended with status 3: \"aklog: can't get afs configuration\"";
    assert!(plain.text().ends_with(words), "the seeder's own words are told: {}", plain.text());
    let silent = failure(sandbox, "#!/bin/sh\nexit 3\n");
    assert!(silent.text().ends_with("/run/seeder ended with status 3; it said nothing"), "{}", silent.text());

    // Words that would be fields, or another line on a terminal.
    let hostile = "#!/bin/sh\nprintf 'x\\033[2J\\nFORGED=yes\\nPRIORITY=0\\nUSER_ID=0\\r\\342\\200\\256\\377\"; all is well\\n' >&2\nexit 3\n";
    let hostile = failure(sandbox, hostile);
    let field = |name: &str| hostile.0.get(name).map(String::as_str);
    assert_eq!((field("FORGED"), field("USER_ID")), (None, Some("61004")), "no field is forged: {hostile:?}");
    assert_eq!((field("PRIORITY"), field("MESSAGE_ID")), (Some("4"), Some("a4ea3938d4294c52810915b0875b0b21")));
    let hidden = |c: char| c.is_control() || c == '\u{202e}';
    assert!(!hostile.text().contains(hidden) && hostile.text().ends_with("all is well\""), "{:?}", hostile.text());
    assert_eq!(hostile.text().matches('"').count(), 2, "and what is quoted stays so: {}", hostile.text());

    // Words without end, and a process that keeps the seeder's standard error open.
    let endless = failure(sandbox, "#!/bin/sh\nwhile :; do echo words; done >&2\n");
    assert!(endless.text().contains("/run/seeder was killed"), "{}", endless.text());
    assert!(endless.text().contains("words / words") && endless.text().len() < 700, "{}", endless.text());
    let kept = failure(sandbox, "#!/bin/sh\nsetsid sleep 1017 &\necho kept >&2\nexit 4\n");
    assert!(kept.text().ends_with("ended with status 4: \"kept\""), "{}", kept.text());
    let background = failure(sandbox, "#!/bin/sh\necho refused >&2\nexit 0\n");
    assert!(background.text().ends_with("/run/seeder said \"refused\""), "status 0: {}", background.text());

    // A program that is not there is named, with the line that names it.
    sandbox.configure("timeout = 2s\nprogram = /usr/bin/aklgo");
    let line =
        fs::read_to_string("/etc/pag/pag.conf").unwrap().lines().position(|line| line.contains("aklgo")).unwrap();
    let missing = failure(sandbox, "");
    let words = format!("/usr/bin/aklgo (set at /etc/pag/pag.conf:{}) could not be started", line + 1);
    assert!(missing.text().contains(&words), "the line that names the program is told: {}", missing.text());
    assert!(missing.text().contains("there is no such file"), "and why it does not start: {}", missing.text());
}

/// After an update of the kernel, for which no module was built.
pub(super) fn client_is_not_loaded(sandbox: &mut Sandbox) {
    const WORDS: &str = "alice (uid 61001) gets no tokens of AFS: ";
    for path in ["/proc/fs/openafs", "/proc/fs/afs", "/etc/openafs", "/usr/vice/etc", "/etc/kafs"] {
        assert!(!exists(path), "this scenario needs a host without AFS, and there is {path}");
    }
    let configure = |lines: &str| {
        fs::write("/etc/pag/pag.conf", format!("[pag]\nprogram = /run/seeder\nafs_cells = {CELL}\n{lines}\n")).unwrap();
    };
    let said = |sandbox: &mut Sandbox, service: &str| {
        sandbox.messages();
        let mut host = ticketed(sandbox, service, "alice", "alice");
        host.all_ok(&["establish", "open", "close", "end"]);
        let all: Vec<_> = sandbox.messages().into_iter().filter(|message| message.text().contains(WORDS)).collect();
        all
    };
    for quiet in ["", "client = keyring", "client = none", "client = openafs\nnotokens = yes"] {
        configure(quiet);
        assert!(said(sandbox, "sshd").is_empty(), "a host without AFS stays silent with '{quiet}'");
    }
    fs::create_dir("/etc/openafs").unwrap();
    fs::write("/etc/openafs/ThisCell", "example.test\n").unwrap();
    fs::write("/etc/openafs/afs.conf.client", "AFS_CLIENT=false\n").unwrap();
    configure("");
    assert!(said(sandbox, "sshd").is_empty(), "a client that is switched off is not missed");
    fs::remove_file("/etc/openafs/afs.conf.client").unwrap();
    let found = said(sandbox, "sshd");
    assert_eq!(found.len(), 1, "a login names the client that is not loaded, once: {found:#?}");
    let field = |name: &str| found[0].0.get(name).map(String::as_str);
    assert_eq!((field("PRIORITY"), field("USER_ID")), (Some("4"), Some("61001")), "{found:#?}");
    for words in
        ["OpenAFS is configured (/etc/openafs/ThisCell)", "modprobe openafs", "systemctl status openafs-client"]
    {
        assert!(found[0].text().contains(words), "{words}: {found:#?}");
    }
    assert!(said(sandbox, "systemd-user").is_empty(), "the user manager does not say it again");
    configure("client = kafs");
    let found = said(sandbox, "login");
    assert!(found.len() == 1 && found[0].text().contains("modprobe kafs"), "{found:#?}");

    // What the user is told.
    fs::copy(crate::sandbox::pagctl(), "/run/pagctl").unwrap();
    let mut host = login(sandbox, "alice");
    let tokens = inside(&mut host, "alice", "/run/pagctl tokens");
    assert_eq!(tokens["status"], 1, "{tokens}");
    for words in ["tokens", "status"] {
        let told = inside(&mut host, "alice", &format!("/run/pagctl {words} || true"));
        assert!(told["stdout"].as_str().unwrap().contains("modprobe kafs"), "pagctl {words} names it, too: {told}");
        let told = inside(&mut host, "alice", &format!("/run/pagctl {words} --json || true"));
        assert!(told["stdout"].as_str().unwrap().contains("\"missing_client\": \"kAFS is"), "{told}");
    }
    sandbox.configure("");
    let told = inside(&mut host, "alice", "/run/pagctl tokens --json || true");
    assert!(told["stdout"].as_str().unwrap().contains("\"missing_client\": null"), "{told}");
    host.all_ok(&["close", "end"]);
}

/// A process that the seeder leaves in the background is killed: the seeder has brought no token, whatever its
/// status is.
pub(super) fn background_seeder(sandbox: &mut Sandbox) {
    sandbox.seeder("#!/bin/sh\n(sleep 1; keyctl add user afs@example.test 'alice@R 4000000000' @s) &\nexit 0\n");
    let mut host = login(sandbox, "alice");
    let messages = sandbox.messages();
    let texts: Vec<&str> = messages.iter().map(crate::sandbox::Message::text).collect();
    assert!(!texts.iter().any(|text| text.contains("got tokens")), "nothing is told that is not there: {texts:#?}");
    let told = texts.iter().any(|text| text.contains("no tokens of cell example.test") && text.contains("background"));
    assert!(told, "what is wrong is told: {texts:#?}");
    let record = &pags("alice")[0].text;
    assert!(record.lines().any(|line| line.starts_with("attempt ") && line.contains(" failed ")), "{record}");
    host.all_ok(&["close", "end"]);
}

/// Cells are compared without case, and an alias is known by the token that it has brought.
pub(super) fn names_of_cells(sandbox: &mut Sandbox) {
    for name in ["EXAMPLE.TEST", "ex"] {
        let config = format!("[pag]\nclient = keyring\nprogram = /run/seeder\nafs_cells = {name}\n");
        std::fs::write("/etc/pag/pag.conf", config).unwrap();
        let before = sandbox.seeder_runs();
        let mut hosts: Vec<_> = (0..3).map(|_| login(sandbox, "alice")).collect();
        let runs = sandbox.seeder_runs() - before;
        let record = pags("alice")[0].text.clone();
        assert_eq!(runs, 1, "{name}: the token that the first login got is good for the others: {record}");
        // The new token is that cell's, whichever program gets it.
        let cache =
            ticket::write("/run/home/alice/cc.later", uid("alice"), "alice", "EXAMPLE.TEST", ticket::now() + 9000);
        hosts[0].all_ok(&[&format!("putenv KRB5CCNAME={cache}"), "refresh"]);
        hosts.push(login(sandbox, "alice"));
        assert_eq!(sandbox.seeder_runs() - before, 2, "{name}: nor does a login after a refresh run it");
        std::fs::copy(crate::sandbox::pagctl(), "/run/pagctl").unwrap();
        let unlog = inside(&mut hosts[0], "alice", "/run/pagctl unlog EXAMPLE.TEST");
        assert_eq!(unlog["stdout"], "Discarded one token of cell EXAMPLE.TEST.\n", "{name}: {unlog}");
        assert!(hosts[0].ring().token(CELL).is_none(), "{name}: it is discarded by any spelling");
        for host in &mut hosts {
            host.all_ok(&["close", "end"]);
        }
    }
    sandbox.configure("");
}
