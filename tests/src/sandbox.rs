//! The sandbox of tier 1: this kernel's keyrings and this host's libpam, without anything of the host that could be
//! harmed. The scenario has a pid namespace (and so its own registry) and a mount namespace. `/etc` is an overlay
//! that ends with it, `/run` is empty, and the sandbox reads the journal's socket.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::ptr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ring::{Ring, describe, keyctl, members};

/// The accounts of the sandbox. Their uids are far from those that a host uses.
pub const USERS: [(&str, u32); 4] = [("alice", 61001), ("bob", 61002), ("carol", 61003), ("dave", 61004)];

/// The gid of the handle group in the sandbox.
pub const HANDLE: u32 = 61000;

/// The cell that tokens are for.
pub const CELL: &str = "example.test";

/// The sandbox's `aklog`: it makes a token that is good for an hour, and writes a line to a log.
pub const SEEDER: &str = "#!/bin/sh
expires=$(($(date +%s) + 3600))
echo \"$$ $KRB5CCNAME $*\" >> /run/seeder.log
exec keyctl add user afs@example.test \"$(id -un)@EXAMPLE.TEST $expires\" @s >/dev/null
";

/// One prepared sandbox. There is one to a process.
pub struct Sandbox {
    journal: UnixDatagram,
    heard: Vec<Message>,
}

/// One message of the module or the helper, with its fields.
#[derive(Debug, Clone)]
pub struct Message(pub BTreeMap<String, String>);

impl Message {
    /// Its text.
    pub fn text(&self) -> &str {
        self.0.get("MESSAGE").map_or("", String::as_str)
    }
}

fn mount(source: &str, target: &str, kind: &str, flags: u64, data: &str) {
    let c = |text: &str| CString::new(text).unwrap();
    let (source_c, target_c, kind_c, data_c) = (c(source), c(target), c(kind), c(data));
    let data = if data.is_empty() { ptr::null() } else { data_c.as_ptr().cast() };
    let result = unsafe { libc::mount(source_c.as_ptr(), target_c.as_ptr(), kind_c.as_ptr(), flags, data) };
    assert_eq!(result, 0, "mount {kind} on {target}: {}", std::io::Error::last_os_error());
}

/// Mounts an empty file system for the time of the sandbox.
pub fn tmpfs(target: &str) {
    mount("tmpfs", target, "tmpfs", 0, "mode=755");
}

/// An empty `/tmp` for the time of the sandbox. If the programs of the tests are in `/tmp`, they stay there.
pub fn own_tmp() {
    fs::create_dir("/run/tmp").unwrap();
    mount("/tmp", "/run/tmp", "", libc::MS_BIND | libc::MS_REC, "");
    tmpfs("/tmp");
    fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777)).unwrap();
    if let Some(first) = own_program("").strip_prefix("/tmp").ok().and_then(|inside| inside.iter().next()) {
        let (from, to) = (Path::new("/run/tmp").join(first), Path::new("/tmp").join(first));
        fs::create_dir(&to).unwrap();
        mount(from.to_str().unwrap(), to.to_str().unwrap(), "", libc::MS_BIND | libc::MS_REC, "");
    }
}

/// Mounts a file system over a file or directory of `user`'s, as `fusermount3` does for users if fuse.conf has
/// `user_allow_other`. Its server never answers: while the returned value lives, every process that opens it waits,
/// also root's.
pub fn silent_server(target: &str, user: u32) -> fs::File {
    let server = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let mode = if Path::new(target).is_dir() { 40000 } else { 100_000 };
    let data = format!("fd={},rootmode={mode},user_id={user},group_id={user},allow_other", server.as_raw_fd());
    mount("silent", target, "fuse", 0, &data);
    server
}

/// A password database that does not answer, like a directory server that hangs. While this value lives, a process that
/// looks a user up waits.
pub struct SilentNames(());

impl SilentNames {
    const AWAY: &'static str = "/etc/passwd.away";

    /// From now on.
    pub fn begin() -> Self {
        fs::rename("/etc/passwd", Self::AWAY).unwrap();
        assert!(Command::new("mkfifo").args(["-m", "644", "/etc/passwd"]).status().unwrap().success());
        SilentNames(())
    }

    /// Whether a process has asked, and waits now: it opens a pipe that has no writer (Linux, fs/pipe.c, fifo_open).
    pub fn are_asked(&self) -> bool {
        let waits = |entry: fs::DirEntry| {
            fs::read_to_string(entry.path().join("wchan")).is_ok_and(|at| at == "wait_for_partner")
        };
        fs::read_dir("/proc").unwrap().flatten().any(waits)
    }
}

impl Drop for SilentNames {
    fn drop(&mut self) {
        // With a writer, those that wait go on. Without a reader this is refused (ENXIO).
        let _writer = fs::File::options().write(true).custom_flags(libc::O_NONBLOCK).open("/etc/passwd");
        fs::rename(Self::AWAY, "/etc/passwd").unwrap();
    }
}

/// Makes changes in `/dev` that no process outside of the sandbox sees.
pub fn own_dev() {
    for name in ["dev", "dev.work"] {
        fs::create_dir(format!("/run/{name}")).unwrap();
    }
    mount("overlay", "/dev", "overlay", 0, "lowerdir=/dev,upperdir=/run/dev,workdir=/run/dev.work");
}

impl Sandbox {
    /// Sets the sandbox up in this process, which must already have namespaces of its own (see `unshare(1)`).
    pub fn enter() -> Self {
        mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "");
        mount("tmpfs", "/run", "tmpfs", 0, "mode=755");
        for name in ["etc", "etc.work"] {
            fs::create_dir(format!("/run/{name}")).unwrap();
        }
        mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work");
        let mut passwd = fs::read_to_string("/etc/passwd").unwrap();
        let mut group = fs::read_to_string("/etc/group").unwrap();
        let ours = |line: &&str| !USERS.iter().any(|(name, _)| line.starts_with(&format!("{name}:")));
        passwd = passwd.lines().filter(ours).map(|line| format!("{line}\n")).collect();
        group = group.lines().filter(ours).filter(|line| !line.starts_with("pag:")).map(|l| format!("{l}\n")).collect();
        for (name, uid) in USERS {
            passwd.push_str(&format!("{name}:x:{uid}:{uid}::/run/home/{name}:/bin/sh\n"));
            group.push_str(&format!("{name}:x:{uid}:\n"));
            fs::create_dir_all(format!("/run/home/{name}")).unwrap();
            std::os::unix::fs::chown(format!("/run/home/{name}"), Some(uid), Some(uid)).unwrap();
        }
        for uid in 61100..61150 {
            passwd.push_str(&format!("u{uid}:x:{uid}:{uid}::/run/home:/bin/sh\n"));
        }
        group.push_str(&format!("pag:x:{HANDLE}:\n"));
        fs::write("/etc/passwd", passwd).unwrap();
        fs::write("/etc/group", group).unwrap();
        fs::create_dir_all("/etc/pag").unwrap();
        fs::write("/etc/krb5.conf", "[libdefaults]\n\tdefault_realm = EXAMPLE.TEST\n").unwrap();
        fs::create_dir_all("/run/systemd/journal").unwrap();
        fs::create_dir_all("/run/pam.d").unwrap();
        let journal = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
        fs::set_permissions("/run/systemd/journal/socket", fs::Permissions::from_mode(0o666)).unwrap();
        journal.set_nonblocking(true).unwrap();
        // A queue that never fills: the kernel admits as many datagrams as the receiver's backlog, 10 by default.
        fs::write("/proc/sys/net/unix/max_dgram_qlen", "512").ok();
        // The kernel re-uses the numbers of namespaces: an earlier sandbox may have had this one's.
        forget_registry();
        let sandbox = Sandbox { journal, heard: Vec::new() };
        sandbox.seeder(SEEDER);
        fs::write("/run/seeder.log", "").unwrap();
        fs::set_permissions("/run/seeder.log", fs::Permissions::from_mode(0o666)).unwrap();
        sandbox.configure("");
        for service in ["sshd", "login", "systemd-user", "su", "su-l", "sudo", "cron", "gdm-launch-environment"] {
            sandbox.service(service, "");
        }
        sandbox
    }

    /// Writes the configuration: the keyring as client, the sandbox's seeder, and `more` lines.
    pub fn configure(&self, more: &str) {
        let text = format!("[pag]\nclient = keyring\nprogram = /run/seeder\nafs_cells = {CELL}\n{more}\n");
        fs::write("/etc/pag/pag.conf", text).unwrap();
    }

    /// Writes the program that gets tokens.
    pub fn seeder(&self, script: &str) {
        fs::write("/run/seeder", script).unwrap();
        fs::set_permissions("/run/seeder", fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// How often the seeder has run.
    pub fn seeder_runs(&self) -> usize {
        fs::read_to_string("/run/seeder.log").unwrap().lines().count()
    }

    /// Writes a PAM service as a distribution does: pam_keyinit, then our module with these arguments.
    pub fn service(&self, name: &str, arguments: &str) {
        let module = module();
        let module = module.display();
        let text = format!(
            "auth required pam_permit.so\nauth optional {module} {arguments}\naccount required pam_permit.so\n\
             session required pam_permit.so\nsession optional pam_keyinit.so force revoke\n\
             session required {module} {arguments}\n"
        );
        self.stack(name, &text);
    }

    /// Writes a PAM service as it is.
    pub fn stack(&self, name: &str, text: &str) {
        fs::write(format!("/run/pam.d/{name}"), text).unwrap();
    }

    /// All messages since the last call.
    pub fn messages(&mut self) -> Vec<Message> {
        let mut buffer = [0; 8192];
        while let Ok(length) = self.journal.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let fields = text.lines().filter_map(|line| line.split_once('='));
            self.heard.push(Message(fields.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()));
        }
        std::mem::take(&mut self.heard)
    }

    /// Fails unless a message that contains `words` has come, and returns it. Removes all messages that have come.
    pub fn heard(&mut self, words: &str) -> Message {
        let messages = self.messages();
        let texts: Vec<&str> = messages.iter().map(Message::text).collect();
        let found = messages.iter().find(|message| message.text().contains(words));
        found.unwrap_or_else(|| panic!("no message says '{words}', but these came: {texts:#?}")).clone()
    }

    /// A PAM host for one login of `user`.
    pub fn host(&self, service: &str, user: &str) -> Host {
        Host::start(Command::new(own_program("pag-pamhost")), &[service, user])
    }

    /// A registry that is counted: (holders, keys of root, keys of a uid).
    pub fn keys_of(&self, uid: u32) -> u32 {
        key_count(uid)
    }
}

/// Unlinks the registry of this pid namespace, and so all its PAGs.
pub fn forget_registry() {
    let inode = fs::metadata("/proc/self/ns/pid").unwrap().ino();
    let own = keyctl(libc::KEYCTL_GET_KEYRING_ID, -4, 0, 0).unwrap();
    for key in members(own as i32).unwrap() {
        if describe(key).is_ok_and(|key| key.name.starts_with(&format!("pag:registry:{inode}:"))) {
            keyctl(libc::KEYCTL_UNLINK, i64::from(key), own, 0).unwrap();
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        forget_registry();
    }
}

/// The module under test.
pub fn module() -> PathBuf {
    std::env::var_os("PAG_MODULE").expect("PAG_MODULE names the module under test").into()
}

/// The command line under test, which lies beside the module.
pub fn pagctl() -> PathBuf {
    module().with_file_name("pagctl")
}

/// A program that lies beside this one.
pub fn own_program(name: &str) -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().join(name)
}

/// The number of keys that a uid has, as `/proc/key-users` counts them.
pub fn key_count(uid: u32) -> u32 {
    let text = fs::read_to_string("/proc/key-users").unwrap();
    let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{uid}:")));
    // "  uid: usage nkeys/nikeys ..."
    line.and_then(|line| line.split_whitespace().nth(2)?.split('/').next()?.parse().ok()).unwrap_or(0)
}

/// Factor for waiting times on slow machines (emulation).
pub fn patience() -> u32 {
    std::env::var("PAG_PATIENCE").ok().and_then(|word| word.parse().ok()).unwrap_or(1)
}

/// Waits until `look` finds something, at most for `limit`, and returns it. Panics with `what` if it finds nothing.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let limit = limit * patience();
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Collects orphans that have ended: the scenario is the first process of its namespace, and a zombie keeps its keyrings.
/// Call it when no [`Host`] is left.
pub fn reap() {
    while unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// Lets the kernel collect dead keys at once instead of after five minutes, until dropped.
pub struct QuickCollection(String);

impl QuickCollection {
    const DELAY: &'static str = "/proc/sys/kernel/keys/gc_delay";

    /// Sets `gc_delay` to one second.
    pub fn begin() -> Self {
        let before = fs::read_to_string(Self::DELAY).unwrap();
        // A run that was killed has left it so. Unit tests then find no dead keys.
        let before = if before.trim() == "1" { "300".to_owned() } else { before };
        fs::write(Self::DELAY, "1").unwrap();
        QuickCollection(before)
    }
}

impl Drop for QuickCollection {
    fn drop(&mut self) {
        fs::write(Self::DELAY, &self.0).ok();
    }
}

/// A PAM host that runs what a test writes to it, line by line (see `pag-pamhost`).
pub struct Host {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Host {
    /// Starts one by way of `command`, which ends in the path of `pag-pamhost`.
    pub fn start(mut command: Command, login: &[&str]) -> Self {
        command.arg("/run/pam.d").args(login).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Host { child, input, output }
    }

    /// Writes one line and does not wait for the answer.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Writes one line and returns the answer; `None` if the host has died.
    pub fn try_ask(&mut self, line: &str) -> Option<Value> {
        writeln!(self.input.as_mut().unwrap(), "{line}").ok()?;
        self.answer()
    }

    /// The next answer; `None` if the host has died.
    pub fn answer(&mut self) -> Option<Value> {
        let mut answer = String::new();
        self.output.read_line(&mut answer).ok().filter(|length| *length > 0)?;
        Some(serde_json::from_str(&answer).unwrap())
    }

    /// Writes one line and returns the answer.
    pub fn ask(&mut self, line: &str) -> Value {
        self.try_ask(line).unwrap_or_else(|| panic!("the host died over '{line}'"))
    }

    /// Writes one line. Fails unless the answer is PAM_SUCCESS.
    pub fn ok(&mut self, line: &str) -> &mut Self {
        let answer = self.ask(line);
        assert_eq!(answer["result"], 0, "{line}");
        self
    }

    /// Writes several lines. Fails unless all answers are PAM_SUCCESS.
    pub fn all_ok(&mut self, lines: &[&str]) -> &mut Self {
        for line in lines {
            self.ok(line);
        }
        self
    }

    /// The session keyring of the host.
    pub fn ring(&mut self) -> Ring {
        serde_json::from_value(self.ask("report")["session"].clone()).unwrap()
    }

    /// The host's pid in this pid namespace.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the host with SIGKILL and collects it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends the host's input and waits for its end.
    pub fn finish(mut self) -> std::process::ExitStatus {
        drop(self.input.take());
        self.child.wait().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Whether a path exists; a link at its end counts by itself.
pub fn exists(path: &str) -> bool {
    Path::new(path).symlink_metadata().is_ok()
}
