//! A PAM host for tests: it runs each line of its standard input and answers with one line of JSON. So a test can
//! put it into the state of any real host: gdm, su, a threaded one, one that calls everything twice.
//!
//! `pag-pamhost CONFDIR SERVICE USER` makes the first PAM handle. The lines are listed in [`Host::obey`].
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)] // A host is C at heart; this one never leaves the tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::io::{BufRead, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use serde_json::{Value, json};

#[repr(C)]
struct Conversation {
    talk: extern "C" fn(c_int, *const *const c_void, *mut *mut c_void, *mut c_void) -> c_int,
    data: *mut c_void,
}

extern "C" fn refuse(_: c_int, _: *const *const c_void, _: *mut *mut c_void, _: *mut c_void) -> c_int {
    19 // PAM_CONV_ERR
}

#[link(name = "pam")]
unsafe extern "C" {
    fn pam_start_confdir(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        confdir: *const c_char,
        handle: *mut *mut c_void,
    ) -> c_int;
    fn pam_end(handle: *mut c_void, status: c_int) -> c_int;
    fn pam_open_session(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_close_session(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_setcred(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_authenticate(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_putenv(handle: *mut c_void, text: *const c_char) -> c_int;
    fn pam_set_item(handle: *mut c_void, item: c_int, text: *const c_void) -> c_int;
    fn pam_getenv(handle: *mut c_void, name: *const c_char) -> *const c_char;
}

/// Leaked on purpose: libpam keeps the pointer for as long as there is a handle.
fn conversation() -> *const Conversation {
    Box::leak(Box::new(Conversation { talk: refuse, data: ptr::null_mut() }))
}

struct Host {
    confdir: CString,
    handles: Vec<*mut c_void>,
    /// The handle that the next lines are about.
    current: usize,
}

impl Host {
    fn start(&mut self, service: &str, user: &str) -> c_int {
        let mut handle = ptr::null_mut();
        let (service, user) = (CString::new(service).unwrap(), CString::new(user).unwrap());
        let result = unsafe {
            pam_start_confdir(service.as_ptr(), user.as_ptr(), conversation(), self.confdir.as_ptr(), &raw mut handle)
        };
        self.handles.push(handle);
        self.current = self.handles.len() - 1;
        result
    }

    /// Runs one line. In it `\ ` is a space in a word, and in `putenv` `%0A` is a byte.
    ///
    /// Lines: `start SERVICE USER`, `use N`, `user NAME`, `open`, `close`, `establish`, `delete`, `reinitialize`,
    /// `refresh`, `authenticate`, `end`, `end-in-child`, `putenv K=V`, `getenv K`; `egid N` and `gid N` (as gdm),
    /// `ruid N` (as a setuid program), `become N` (for good), `groups N,N`, `umask OCTAL`, `pdeathsig N`,
    /// `sigchld ignore|default`, `thread` (one that waits for ever), `exec` (this program anew), `chroot PATH`, `newring` (a
    /// session keyring as pam_keyinit makes it), `link SERIAL RING`, `report`, and `run PROGRAM ARG...` (as the user,
    /// without the PAM environment, to look from inside).
    fn obey(&mut self, line: &str) -> Value {
        let words: Vec<String> =
            line.replace("\\ ", "\u{1}").split_whitespace().map(|word| word.replace('\u{1}', " ")).collect();
        let mut words = words.iter().map(String::as_str);
        let verb = words.next().unwrap_or("");
        let rest: Vec<&str> = words.collect();
        let number = || rest[0].parse::<u32>().unwrap();
        let handle = self.handles.get(self.current).copied().unwrap_or(ptr::null_mut());
        let result = match verb {
            "start" => self.start(rest[0], rest[1]),
            "use" => {
                self.current = number() as usize;
                0
            }
            "user" => {
                let name = CString::new(rest[0]).unwrap();
                unsafe { pam_set_item(handle, 2, name.as_ptr().cast()) }
            }
            "open" => unsafe { pam_open_session(handle, 0) },
            "close" => unsafe { pam_close_session(handle, 0) },
            "establish" => unsafe { pam_setcred(handle, 2) },
            "delete" => unsafe { pam_setcred(handle, 4) },
            "reinitialize" => unsafe { pam_setcred(handle, 8) },
            "refresh" => unsafe { pam_setcred(handle, 16) },
            "authenticate" => unsafe { pam_authenticate(handle, 0) },
            "end" => {
                self.handles.remove(self.current);
                self.current = 0;
                unsafe { pam_end(handle, 0) }
            }
            // As a child does that is about to execute the user's program: it ends its copy of the handle.
            "end-in-child" => unsafe {
                let pid = libc::fork();
                if pid == 0 {
                    libc::_exit(pam_end(handle, 0));
                }
                let mut status = 0;
                assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
                libc::WEXITSTATUS(status)
            },
            "putenv" => {
                let text = CString::new(decoded(rest[0])).unwrap();
                unsafe { pam_putenv(handle, text.as_ptr()) }
            }
            "getenv" => {
                let name = CString::new(rest[0]).unwrap();
                let value = unsafe { pam_getenv(handle, name.as_ptr()) };
                let value = (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned());
                return json!({ "value": value });
            }
            "egid" => unsafe { libc::setegid(number()) },
            "gid" => unsafe { libc::setresgid(number(), number(), number()) },
            "ruid" => unsafe { libc::setresuid(number(), u32::MAX, u32::MAX) },
            "become" => unsafe {
                libc::setresgid(number(), number(), number()) | libc::setresuid(number(), number(), number())
            },
            "groups" => {
                let groups: Vec<u32> = rest[0].split(',').map(|n| n.parse().unwrap()).collect();
                unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }
            }
            "umask" => {
                unsafe { libc::umask(u32::from_str_radix(rest[0], 8).unwrap()) };
                0
            }
            "pdeathsig" => unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, number()) },
            "sigchld" => {
                let action = if rest[0] == "ignore" { libc::SIG_IGN } else { libc::SIG_DFL };
                unsafe { libc::signal(libc::SIGCHLD, action) };
                0
            }
            "thread" => {
                std::thread::spawn(|| {
                    loop {
                        std::thread::park();
                    }
                });
                0
            }
            // The same process, as another program without these handles.
            "exec" => {
                println!("{}", json!({ "result": 0 }));
                let confdir = OsStr::from_bytes(self.confdir.as_bytes());
                let error = Command::new("/proc/self/exe").arg(confdir).exec();
                panic!("exec: {error}");
            }
            "chroot" => {
                let path = CString::new(rest[0]).unwrap();
                unsafe { libc::chroot(path.as_ptr()) + libc::chdir(c"/".as_ptr()) }
            }
            "newring" => {
                let null: *const c_char = ptr::null();
                i32::from(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, null) } < 0)
            }
            "report" => return report(),
            "run" => return run(&rest),
            other => panic!("no such verb: {other}"),
        };
        json!({ "result": result })
    }
}

/// A text in which `%XX` stands for a byte.
fn decoded(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend(before.bytes());
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(b'%'));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    bytes.extend(rest.bytes());
    bytes
}

/// The state of the process that a module must not change.
fn report() -> Value {
    // Which a chroot may not have.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let mut signal: c_int = 0;
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    unsafe { libc::sigaction(libc::SIGCHLD, ptr::null(), &raw mut action) };
    let session = pag_tests::ring::report();
    json!({
        "pid": std::process::id(),
        "uid": field("Uid"), "gid": field("Gid"), "groups": field("Groups"), "threads": field("Threads"),
        "umask": field("Umask"), "sigcgt": field("SigCgt"), "sigblk": field("SigBlk"),
        "capeff": field("CapEff"),
        "pdeathsig": signal,
        "dumpable": unsafe { libc::prctl(libc::PR_GET_DUMPABLE) },
        "sigchld": if action.sa_sigaction == libc::SIG_IGN { "ignore" } else { "other" },
        "fds": std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() - 1),
        "cwd": std::env::current_dir().ok(),
        "children": std::fs::read_to_string("/proc/self/task/self/children").ok(),
        "process_ring": pag_tests::ring::process_members(),
        "session": session,
    })
}

/// Runs a program as a child and returns what it writes.
fn run(words: &[&str]) -> Value {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    json!({
        "status": output.status.code(),
        "stdout": String::from_utf8_lossy(&output.stdout),
        "stderr": String::from_utf8_lossy(&output.stderr),
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let confdir = CString::new(arguments[1].as_str()).unwrap();
    let mut host = Host { confdir, handles: Vec::new(), current: 0 };
    // With a fourth word it runs the whole cycle and answers with the microseconds that it took, for the benchmark.
    if let [_, _, service, user, _] = &arguments[..] {
        let begun = std::time::Instant::now();
        let started = host.start(service, user);
        let results = ["open", "close", "end"].map(|line| host.obey(line)["result"].as_i64());
        println!("{}", begun.elapsed().as_secs_f64() * 1e6);
        assert_eq!((started, results), (0, [Some(0); 3]));
        return;
    }
    if let [_, _, service, user] = &arguments[..] {
        assert_eq!(host.start(service, user), 0, "pam_start_confdir");
    }
    for line in std::io::stdin().lock().lines() {
        let answer = host.obey(&line.unwrap());
        println!("{answer}");
        std::io::stdout().flush().unwrap();
    }
}
