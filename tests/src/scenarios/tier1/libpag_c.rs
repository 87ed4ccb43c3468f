//! libpag from C: the library as it is installed, and programs that were compiled with its header.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::uid;
use crate::sandbox::{QuickCollection, Sandbox, eventually, patience, reap};
use crate::server::code::{ENDED, FORKED, INVALID, NOPAG, OPEN, QUOTA, SEED, SYSTEM, TIMEOUT};
use crate::server::{Server, built};
use crate::ticket;

/// A seeder that makes a token for the principal of the ccache.
const SEEDER: &str = "#!/bin/sh
who=$(klist 2>/dev/null | sed -n 's/^Default principal: //p')
[ \"$who\" ] || exit 1
exec keyctl add user afs@example.test \"$who $(($(date +%s) + 3600))\" @s >/dev/null
";

/// The account that the servers run as.
const ACCOUNT: &str = "dave";

/// Puts library, programs and tickets where the account can use them.
fn prepare(sandbox: &Sandbox) {
    assert!(Command::new("cp").arg("-r").arg(built()).arg("/run/libpag").status().unwrap().success());
    sandbox.seeder(SEEDER);
    for name in ["alice", "bob", "carol"] {
        ticket_of(name, 3600);
    }
}

/// Writes a ticket that the server has for a user.
fn ticket_of(name: &str, life: u64) -> String {
    ticket::write(&format!("/run/home/{ACCOUNT}/{name}.cc"), uid(ACCOUNT), name, "EXAMPLE.TEST", ticket::now() + life)
}

/// A program of the library's, run by the account.
fn program(name: &str) -> Command {
    let mut command = Command::new(format!("/run/libpag/{name}"));
    command.uid(uid(ACCOUNT)).gid(uid(ACCOUNT)).env("LD_LIBRARY_PATH", "/run/libpag").current_dir("/");
    command
}

/// A server that has been opened and has PAGs of these users.
fn server(sandbox: &Sandbox, users: &[&str]) -> Server {
    prepare(sandbox);
    let mut server = Server::start(program("pag-chost"));
    server.ok("open 0");
    for user in users {
        create(&mut server, user);
    }
    server
}

fn create(server: &mut Server, user: &str) {
    server.ok(&format!("create {user} ccache=FILE:/run/home/{ACCOUNT}/{user}.cc"));
}

/// The user that a thread acts as: `token` is the command that asks it.
fn user(server: &mut Server, token: &str) -> String {
    let words = server.ok(token);
    words.split('@').next().unwrap().to_owned()
}

pub(super) fn exports(_: &mut Sandbox) {
    let read = |program: &str, arguments: &[&str], file: &str| {
        let output = Command::new(program).args(arguments).arg(built().join(file)).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let header = fs::read_to_string(built().join("pag.h")).unwrap();
    let declared = header.lines().filter(|line| line.ends_with(");") && !line.starts_with([' ', '/', '#']));
    let mut declared: Vec<String> = declared
        .map(|line| format!("{}@@LIBPAG_0.1", line.split('(').next().unwrap().rsplit([' ', '*']).next().unwrap()))
        .chain(["LIBPAG_0.1".to_owned()])
        .collect();
    declared.sort_unstable();
    let defined = read("nm", &["-D", "--defined-only"], "libpag.so.0");
    let mut defined: Vec<&str> = defined.lines().filter_map(|line| line.split_whitespace().last()).collect();
    defined.sort_unstable();
    assert_eq!(defined, declared, "the library exports the calls of its header, with their version, and no more");

    let undefined = read("nm", &["-D", "--undefined-only"], "libpag.so.0");
    let foreign = |line: &&str| !line.contains("@GLIBC_") && !line.contains("@GCC_") && !line.contains(" w ");
    let foreign: Vec<&str> = undefined.lines().filter(foreign).collect();
    assert!(foreign.is_empty(), "the library needs symbols that are not of libc: {foreign:?}");

    let dynamic = read("readelf", &["-dW"], "libpag.so.0");
    let value = |kind: &str| {
        let lines = dynamic.lines().filter(|line| line.contains(kind)).filter_map(|line| line.split(['[', ']']).nth(1));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(value("(SONAME)"), ["libpag.so.0"]);
    let needed = value("(NEEDED)");
    let usual =
        |name: &String| name.starts_with("libc.so") || name.starts_with("libgcc_s.so") || name.starts_with("ld-linux");
    assert!(needed.iter().all(usual), "the library needs others: {needed:?}");
    assert!(dynamic.contains("NODELETE"), "dlclose takes away the code in which a thread sleeps: {dynamic}");
    let size = fs::metadata(built().join("libpag.so.0")).unwrap().len();
    println!("figures: libpag.so.0: {} KB", size / 1000);
}

pub(super) fn model(sandbox: &mut Sandbox) {
    prepare(sandbox);
    let mut server = Server::start(program("pag-chost"));
    let before = server.ok("ring");
    server.ok("open 0");
    for user in ["alice", "bob"] {
        create(&mut server, user);
    }
    assert_eq!(server.ok("ring"), before, "opening and creating move no thread");
    assert_eq!(
        user(&mut server, "thread t token"),
        "none",
        "a process has several PAGs, and a thread is in none of them at first"
    );

    server.ok("enter alice");
    server.ok("thread t enter bob");
    assert_eq!(user(&mut server, "token"), "alice", "a thread has entered a PAG");
    assert_eq!(user(&mut server, "thread t token"), "bob", "another thread has entered another PAG");
    assert_eq!(user(&mut server, "thread u token"), "alice", "a thread that is started inside is born there");
    server.ok("fork c");
    server.ok("enter bob");
    assert_eq!(user(&mut server, "token"), "bob", "a thread that is inside enters another PAG");
    assert_eq!(
        user(&mut server, "child c token"),
        "alice",
        "a child stays where it was born, wherever its parent goes"
    );
    let keys = server.ok("run keyctl print $(keyctl search @s user afs@example.test)");
    assert!(keys.starts_with("bob@"), "a program is in the PAG of the thread that runs it: {keys}");
    server.ok("leave");
    assert_eq!(user(&mut server, "token"), "none", "a thread that has left is in no PAG");
    assert_eq!(user(&mut server, "thread t token"), "bob", "others stay");

    server.ok("default alice");
    assert_eq!(user(&mut server, "token"), "none", "the default moves no thread");
    server.ok("leave");
    assert_eq!(user(&mut server, "token"), "alice", "a thread returns to the default PAG");
    server.ok("enter bob");
    server.ok("leave");
    assert_eq!(user(&mut server, "token"), "alice", "a thread returns to the default PAG from another one");
    server.ok("default -");
    server.ok("leave");
    assert_eq!(user(&mut server, "token"), "none", "without a default, a thread returns to no PAG");

    let count = 500 / patience();
    assert_eq!(
        server.ok(&format!("alternate {count} alice bob")),
        "0",
        "two threads in opposite phase had wrong tokens"
    );

    let times = server.ok("bench 500 alice");
    println!(
        "figures: a bare join in ns, and an enter and a leave from C in times of bare joins, with spreads: {times}"
    );

    let end = |server: &mut Server| server.ok("expires bob").parse::<u64>().unwrap();
    let first = end(&mut server);
    assert!(first > ticket::now() + 3000, "the end of the tokens: {first}");
    sandbox.seeder(&SEEDER.replace("3600", "7200"));
    server.ok(&format!("renew bob ccache={}", ticket_of("bob", 7200)));
    assert!(end(&mut server) > first + 3000, "the end of the new tokens");
    let new = server.ok("thread t token");
    assert!(new.ends_with(&end(&mut server).to_string()), "a thread that is inside has the new token: {new}");

    server.ok("thread t fork d");
    server.ok("enter alice");
    server.ok("end bob");
    assert_eq!(user(&mut server, "thread t token"), "none", "the end is final for a thread that is inside");
    assert_eq!(user(&mut server, "child d token"), "none", "the end is final for a child");
    assert_eq!(user(&mut server, "token"), "alice", "other PAGs live on");
    server.fails("enter bob", ENDED, "ended");
    assert_eq!(user(&mut server, "token"), "none", "after a failed enter, a thread is in no PAG");
    server.ok("thread t leave");
    create(&mut server, "carol");
    server.fails("thread t enter bob", ENDED, "ended");
    assert_eq!(user(&mut server, "thread t token"), "none", "the handle of an ended PAG entered the next one");
    server.ok("thread t enter carol");
    assert_eq!(user(&mut server, "thread t token"), "carol");
    server.ok("thread t leave");
    server.finish();
}

pub(super) fn errors(sandbox: &mut Sandbox) {
    let mut server = server(sandbox, &["alice", "bob"]);
    let alice = format!("ccache=FILE:/run/home/{ACCOUNT}/alice.cc");
    assert_eq!(server.ok("last"), "same ", "no call has failed");
    server.fails("open 0", OPEN, "opened already");
    server.fails("thread t open 1", INVALID, "flags");
    for (seed, words) in [
        ("size=8", "seed.size"),
        ("size=1000000", "seed.size"),
        ("keytab=/etc/krb5.keytab", "seed.principal"),
        ("principal=alice", "seed.keytab"),
        (&format!("{alice} keytab=/etc/krb5.keytab"), "one of them"),
    ] {
        server.fails(&format!("create wrong {seed}"), INVALID, words);
        server.fails(&format!("renew alice {seed}"), INVALID, words);
    }
    let last = server.ok("last");
    assert!(last.starts_with("same ") && last.contains("one of them"), "the words of the last failure stay: {last}");
    assert!(server.ok("thread t last").contains("flags"), "each thread has its own last failure");
    for (code, words) in [(0, "done"), (ENDED, "ended"), (QUOTA, "quota"), (99, "no code"), (-1, "no code")] {
        let told = server.ok(&format!("code {code}"));
        assert!(told.contains(words), "{code}: {told}");
    }

    // No handle, and handles of others. Each time the thread was inside a PAG.
    for handle in ["-", "stray"] {
        server.ok("enter alice");
        server.fails(&format!("enter {handle}"), INVALID, "in no PAG");
        assert_eq!(
            user(&mut server, "token"),
            "none",
            "after entering {handle}, the thread is in the PAG that it was in before"
        );
        server.fails(&format!("expires {handle}"), INVALID, "0");
        server.fails(&format!("renew {handle} {alice}"), INVALID, "handle");
        server.ok("enter alice");
        server.fails(&format!("leave {handle}"), INVALID, "in no PAG");
        assert_eq!(user(&mut server, "token"), "none", "after leaving by {handle}, the thread is in the PAG");
        server.ok(&format!("end {handle}"));
    }
    server.fails("default stray", INVALID, "handle");
    server.fails("errno enter -", INVALID, "42");
    server.fails("errno create wrong ccache=FILE:/nonexistent", SEED, "42");
    assert_eq!(server.ok("errno enter alice"), "42", "errno after a call that succeeds");
    server.fails("signal -", INVALID, "in no PAG");
    server.ok("signal bob");
    assert_eq!(user(&mut server, "token"), "bob", "a signal handler has entered");
    server.ok("leave");

    // A forked child.
    server.ok("enter alice");
    server.ok("fork c");
    for line in ["enter bob", "leave", "default -", &format!("create new {alice}"), &format!("renew bob {alice}")] {
        server.fails(&format!("child c {line}"), FORKED, "parent");
    }
    server.ok("child c end bob");
    server.ok("child c close");
    assert_eq!(user(&mut server, "child c token"), "alice", "the child is where it was born");
    server.ok("enter bob");
    assert_eq!(user(&mut server, "token"), "bob", "the child's end is not the parent's");
    server.ok("leave");

    // A seeder that fails, and one that hangs.
    let keys = sandbox.keys_of(uid(ACCOUNT));
    sandbox.seeder("#!/bin/sh\nexit 3\n");
    server.fails(&format!("create wrong {alice}"), SEED, "token");
    server.fails(&format!("renew alice {alice}"), SEED, "token");
    sandbox.seeder("#!/bin/sh\nexec sleep 60\n");
    let begun = Instant::now();
    server.fails(&format!("create wrong {alice} ms=500"), TIMEOUT, "500 ms");
    assert!(begun.elapsed() < Duration::from_secs(3) * patience(), "within its time: {:?}", begun.elapsed());
    server.fails("enter wrong", INVALID, "in no PAG");
    let _quick = QuickCollection::begin();
    eventually("nothing is left of a PAG that was not made", Duration::from_secs(20), || {
        (sandbox.keys_of(uid(ACCOUNT)) <= keys).then_some(())
    });

    // A full quota: by a key that takes the room of many. It is gone with the thread.
    sandbox.seeder(SEEDER);
    server.ok("thread t run head -c 19000 /dev/zero | keyctl padd user full @s");
    let full = (0..100).map(|number| server.ask(&format!("create more{number}"))).find(|(code, _)| *code != 0);
    let (code, words) = full.expect("a quota that is full");
    assert!(code == QUOTA && words.contains("quota"), "a full quota has its own code: {code}: {words}");
    server.fails("enter -", INVALID, "in no PAG");
    server.ok("enter alice");
    assert_eq!(user(&mut server, "token"), "alice", "a full quota keeps no thread from its PAG");
    server.ok("thread t run keyctl unlink $(keyctl search @s user full) @s");
    server.finish();
    eventually("the room is given back", Duration::from_secs(20), || {
        reap();
        (sandbox.keys_of(uid(ACCOUNT)) < keys).then_some(())
    });

    // An AFS client that makes no PAG: the configured device is none, or is closed. The first PAG of a process minds that, too.
    let before = sandbox.keys_of(uid(ACCOUNT));
    let mut server = Server::start(program("pag-chost"));
    server.ok("open 0");
    for (device, words) in
        [("/proc/uptime", "(setpag)"), ("/proc/kmsg", "open the device of OpenAFS: Permission denied")]
    {
        fs::write("/etc/pag/pag.conf", format!("[pag]\nclient = openafs\nopenafs_device = {device}\n")).unwrap();
        server.fails("create wrong", NOPAG, words);
    }
    sandbox.configure("");
    create(&mut server, "alice");
    server.finish();
    // A system call that fails: the account may have no process more than this one and its second thread.
    let id = uid(ACCOUNT).to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "prlimit", "--nproc=2", "/run/libpag/pag-chost"]);
    command.env("LD_LIBRARY_PATH", "/run/libpag");
    let mut server = Server::start(command);
    server.fails("open 0", SYSTEM, "make a PAG: Resource temporarily unavailable");
    server.finish();
    eventually("nothing is left of PAGs that were not made", Duration::from_secs(20), || {
        reap();
        (sandbox.keys_of(uid(ACCOUNT)) <= before).then_some(())
    });
}

pub(super) fn close_ends_all(sandbox: &mut Sandbox) {
    let _quick = QuickCollection::begin();
    let before = sandbox.keys_of(uid(ACCOUNT));
    let mut server = server(sandbox, &["alice", "bob"]);
    server.ok("thread t enter bob");
    server.ok("thread t fork d");
    server.ok("close");
    assert_eq!(user(&mut server, "thread t token"), "none", "closing ends the PAGs, for threads that are inside");
    assert_eq!(user(&mut server, "child d token"), "none", "closing ends the PAGs, for children");
    for line in ["enter alice", "leave"] {
        server.fails(line, ENDED, "ended, or the process was closed; create another one; the thread is where it was");
    }
    server.fails("create new", ENDED, "ended");
    server.ok("close");
    // A PAG that is created while the process is closed: its seeder has begun, and takes its time.
    sandbox.seeder(&SEEDER.replace("exec", "echo >>/run/seeder.log; sleep 0.3; exec"));
    server.ok("open 0");
    server.ok(&format!("start t create carol ccache=FILE:/run/home/{ACCOUNT}/carol.cc"));
    eventually("the seeder runs", Duration::from_secs(10), || (sandbox.seeder_runs() > 0).then_some(()));
    server.ok("close");
    // The process is open for others at once.
    server.ok("open 0");
    server.fails("wait t", ENDED, "ended");
    server.fails("thread t enter carol", INVALID, "in no PAG");
    server.ok("close");
    server.ok("open 0");
    create(&mut server, "alice");
    server.ok("enter alice");
    assert_eq!(user(&mut server, "token"), "alice", "the process was opened again");
    server.ok("leave");
    server.ok("close");
    server.finish();
    eventually("all keys are gone with the process", Duration::from_secs(20), || {
        reap();
        (sandbox.keys_of(uid(ACCOUNT)) <= before).then_some(())
    });
}

pub(super) fn allocates_nothing(sandbox: &mut Sandbox) {
    prepare(sandbox);
    let ccaches = ["alice", "bob"].map(|name| format!("FILE:/run/home/{ACCOUNT}/{name}.cc"));
    let output = program("pag-allocations").arg("/run/libpag/libpag.so.0").args(ccaches).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    for call in ["the first enter of a thread", "the first leave of a thread", "a failed enter"] {
        assert!(text.contains(&format!("{call}: 0 calls of the allocator")), "{call} allocates: {text}");
    }
}

/// The example in Python, with a port of its own.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Gets a page over HTTP: its status and body.
fn get(port: u16, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.to_owned(), body.to_owned()))
}

pub(super) fn examples(sandbox: &mut Sandbox) {
    prepare(sandbox);
    // No AFS here: /proc/keys shows the reader's keys. Each user's token has a name of its own, and only its PAG sees it.
    let seeder = "#!/bin/sh
        who=$(klist 2>/dev/null | sed -n 's/^Default principal: //p')
        key=$(keyctl add user afs@${who%@*}.test \"$who $(($(date +%s) + 3600))\" @s) && keyctl setperm $key 0x3f000000\n";
    sandbox.seeder(seeder);
    let ccache = |name: &str| format!("FILE:/run/home/{ACCOUNT}/{name}.cc");
    let tokens = |text: &str| ["alice", "bob"].map(|name| text.contains(&format!("afs@{name}.test")));
    for (first, second) in [("alice", "bob"), ("bob", "alice")] {
        let alone = program("together").args([ccache(first), "/proc/keys".to_owned()]).output().unwrap();
        assert!(alone.status.success(), "{alone:?}");
        let text = String::from_utf8_lossy(&alone.stdout).into_owned();
        assert_eq!(tokens(&text), [first == "alice", first == "bob"], "the example in C reads as {first}: {text}");
        let both = [ccache(first), "/proc/keys".to_owned(), ccache(second), "/proc/keys".to_owned()];
        let both = program("together").args(both).output().unwrap();
        let text = String::from_utf8_lossy(&both.stdout).into_owned();
        assert_eq!(tokens(&text), [true, true], "the example in C reads as both: {text} {both:?}");
    }
    let failed = program("together").args(["FILE:/nonexistent", "/proc/keys"]).output().unwrap();
    assert!(!failed.status.success() && !failed.stderr.is_empty(), "it tells a failure: {failed:?}");

    for (language, words) in
        [("Python", &["/usr/bin/python3", "/run/libpag/serve.py"][..]), ("Rust", &["/run/libpag/serve"])]
    {
        serves(language, words, ["alice", "bob"].map(|name| format!("{name}={}", ccache(name))), tokens);
    }
}

/// An example that serves HTTP gives each user what its own PAG sees.
fn serves(language: &str, words: &[&str], users: [String; 2], tokens: impl Fn(&str) -> [bool; 2] + Copy + Send + Sync) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Command::new(words[0]);
    server.args(&words[1..]).arg(port.to_string()).args(users);
    server.uid(uid(ACCOUNT)).gid(uid(ACCOUNT)).env("LD_LIBRARY_PATH", "/run/libpag").stderr(Stdio::null());
    let _served = Example(server.spawn().unwrap());
    let serves = format!("the example in {language} serves");
    let serves = &serves;
    eventually(serves, Duration::from_secs(30), || get(port, "/nobody/").map(drop));
    std::thread::scope(|threads| {
        for name in ["alice", "bob", "alice", "bob"] {
            threads.spawn(move || {
                for _ in 0..20 {
                    let (status, body) = get(port, &format!("/{name}/proc/keys")).unwrap();
                    assert_eq!(status, "200", "{body}");
                    let wanted = [name == "alice", name == "bob"];
                    assert_eq!(tokens(&body), wanted, "{serves} {name}: {body}");
                }
            });
        }
    });
    assert_eq!(get(port, "/carol/proc/keys").unwrap().0, "403", "who has no PAG is not served");
}
