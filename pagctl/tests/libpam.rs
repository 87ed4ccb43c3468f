//! libpam is the judge: random stacks are run by the libpam of this host, with a module that notes when it is called and
//! answers what it is told, and by our reading of them. Order, reach, arguments and result must be the same.
//!
//! The first line says the seed. `PAG_SEED=N cargo test -p pagctl --test libpam` begins with the stack of that number.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)] // libpam is C.
#![allow(dead_code, unreachable_pub, missing_docs)] // The modules are pagctl's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, clippy::print_stderr)]

#[path = "../src/pam/control.rs"]
mod control;
#[path = "../src/pam/parse.rs"]
mod parse;
#[path = "../src/pam/run.rs"]
mod run;
#[path = "../src/pam/stack.rs"]
mod stack;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{fs, ptr};

use self::parse::{Facility, Libpam};
use self::run::run;
use self::stack::{Files, Opened, Stacks, Step};

/// So many stacks are compared.
const STACKS: usize = 10_000;
/// What libpam has for the answer of a module that it cannot load.
const MODULE_UNKNOWN: i32 = 28;

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
    fn pam_authenticate(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_setcred(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_acct_mgmt(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_open_session(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_close_session(handle: *mut c_void, flags: c_int) -> c_int;
    fn pam_putenv(handle: *mut c_void, line: *const c_char) -> c_int;
    fn pam_getenv(handle: *mut c_void, name: *const c_char) -> *const c_char;
    fn dladdr(address: *const c_void, info: *mut [*const c_char; 4]) -> c_int;
}

// libpam complains of each bad line. These are found before libc's, so the host's log is spared; and the audit system is
// asked for nothing, for which a kernel without it would start modprobe each time.
#[unsafe(no_mangle)]
extern "C" fn __syslog_chk(_: c_int, _: c_int, _: *const c_char) {}
#[unsafe(no_mangle)]
extern "C" fn syslog(_: c_int, _: *const c_char) {}
#[unsafe(no_mangle)]
extern "C" fn audit_open() -> c_int {
    unsafe { *libc_errno() = 93 }; // EPROTONOSUPPORT: a kernel without it
    -1
}
unsafe extern "C" {
    #[link_name = "__errno_location"]
    fn libc_errno() -> *mut c_int;
}

/// The calls of an application, in their order.
const CALLS: [(&str, unsafe extern "C" fn(*mut c_void, c_int) -> c_int, Facility); 5] = [
    ("authenticate", pam_authenticate, Facility::Auth),
    ("setcred", pam_setcred, Facility::Auth),
    ("acct_mgmt", pam_acct_mgmt, Facility::Account),
    ("open_session", pam_open_session, Facility::Session),
    ("close_session", pam_close_session, Facility::Session),
];

/// What is seen of one call: the arguments of each module that was called, in order, and libpam's answer.
type Seen = (&'static str, Vec<Vec<String>>, i32);

/// What libpam does; none when it refuses the service.
fn by_libpam(confdir: &Path, calls: &[usize]) -> Option<Vec<Seen>> {
    let confdir = CString::new(confdir.to_str().unwrap()).unwrap();
    let conversation = Conversation { talk: refuse, data: ptr::null_mut() };
    let mut handle = ptr::null_mut();
    let started = unsafe {
        pam_start_confdir(c"x".as_ptr(), c"alice".as_ptr(), &raw const conversation, confdir.as_ptr(), &raw mut handle)
    };
    if started != 0 {
        return None;
    }
    let seen = calls.iter().map(|call| {
        let (name, call, _) = CALLS[*call];
        let result = unsafe { call(handle, 0) };
        let noted = unsafe { pam_getenv(handle, c"NOTED".as_ptr()) };
        let noted = if noted.is_null() { c"" } else { unsafe { CStr::from_ptr(noted) } };
        let noted = noted.to_str().unwrap().split('\u{1e}').skip(1);
        let noted = noted.map(|args| args.split_terminator('\u{1f}').map(str::to_owned).collect()).collect();
        unsafe { pam_putenv(handle, c"NOTED".as_ptr()) };
        (name, noted, result)
    });
    let seen = seen.collect();
    unsafe { pam_end(handle, 0) };
    Some(seen)
}

/// What we think that it does.
fn by_us(stacks: &Stacks, libpam: Libpam, module: &Path, calls: &[usize]) -> Option<Vec<Seen>> {
    if stacks.refused {
        return None;
    }
    let is_there = |step: &Step| step.entry.target.as_deref() == module.to_str();
    let mut frozen: [Option<Vec<Option<i32>>>; 2] = [None, None];
    let seen = calls.iter().map(|call| {
        let (name, _, facility) = CALLS[*call];
        let steps = stacks.steps(facility);
        let second = *call == 1 || *call == 4;
        let kept = &mut frozen[usize::from(facility == Facility::Session)];
        let answer = &mut |at: usize| match &steps[at] {
            step if is_there(step) => number(step.entry.args.get(usize::from(second))),
            _ => MODULE_UNKNOWN,
        };
        let nothing_kept = vec![None; steps.len()];
        let outcome = match second {
            true => run(steps, libpam, Some(kept.as_deref().unwrap_or(&nothing_kept)), answer),
            false => run(steps, libpam, None, answer),
        };
        if !second {
            *kept = Some(outcome.answers);
        }
        let called: Vec<&Step> = outcome.called.iter().map(|at| &steps[*at]).collect();
        let noted = called.into_iter().filter(|step| is_there(step)).map(|step| step.entry.args.clone());
        (name, noted.collect(), outcome.result)
    });
    Some(seen.collect())
}

/// C's atoi.
fn number(arg: Option<&String>) -> i32 {
    let arg = arg.map_or("", |arg| arg.trim_start());
    let end = arg.char_indices().find(|(at, c)| !(c.is_ascii_digit() || (*at == 0 && *c == '-')));
    arg[..end.map_or(arg.len(), |(at, _)| at)].parse().unwrap_or(0)
}

/// The files of a temporary directory, as libpam with that for its directory finds them.
struct Disk<'a> {
    confdir: &'a Path,
    libpam: Libpam,
}

impl Files for Disk<'_> {
    fn open(&self, path: &str) -> Opened {
        match fs::metadata(path) {
            Ok(file) if file.is_dir() => Opened::Text(String::new()),
            Ok(_) => Opened::Text(fs::read_to_string(path).unwrap()),
            Err(_) => Opened::Missing,
        }
    }

    fn libpam(&self) -> Libpam {
        self.libpam
    }

    fn names(&self, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn service(&self, name: &str) -> Option<String> {
        let path = format!("{}/{name}", self.confdir.display());
        (self.open(&path) != Opened::Missing).then_some(path)
    }
}

/// Random numbers that a seed repeats (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// Writes one random stack into a directory.
struct Writer<'a> {
    random: Random,
    confdir: &'a Path,
    module: &'a Path,
    calls: usize,
}

/// The files, each of which may include those behind it.
const NAMES: [&str; 5] = ["x", "a", "b", "c", "d"];

impl Writer<'_> {
    fn write(&mut self) {
        for (depth, name) in NAMES.into_iter().enumerate() {
            let lines = if depth == 0 { 2 + self.random.below(6) } else { self.random.below(5) };
            let text: String = (0..lines).map(|_| self.line(depth)).collect();
            self.put(name, &text);
        }
        let other = self.line(NAMES.len());
        self.put("other", &other);
        // Substacks in substacks, until libpam has enough.
        let module = self.module.display();
        let deep = format!("auth optional {module} 0 0 deep\nauth substack {}/deep\n", self.confdir.display());
        self.put("deep", &deep);
    }

    /// A new file each time: ext4 waits for the disk when an old one is emptied.
    fn put(&self, name: &str, text: &str) {
        let path = self.confdir.join(name);
        fs::remove_file(&path).ok();
        fs::write(path, text).unwrap();
    }

    fn line(&mut self, depth: usize) -> String {
        if self.random.one_in(12) {
            let odd = [
                "\n",
                "# a comment\n",
                "  \t\n",
                "#\\\n",
                " # a comment that seems to go on \\\n",
                "\\\n",
                "\r\n",
                "nonsense\n",
                "auth\n",
            ];
            return self.random.of(&odd).to_owned();
        }
        let mut line = String::new();
        if self.random.one_in(15) {
            line.push_str(self.random.of(&[" ", "\t", "\\\n"]));
        }
        if depth < NAMES.len() - 1 && self.random.one_in(14) {
            let target = self.target(depth);
            line.push_str(self.random.of(&["@include", "@include", "-@Include"]));
            line.push_str(&self.gap());
            line.push_str(&target);
        } else {
            let facilities = [
                "auth",
                "auth",
                "auth",
                "session",
                "session",
                "session",
                "account",
                "password",
                "-auth",
                "-session",
                "Auth",
                "[session]",
            ];
            let facility = if self.random.one_in(40) { "sessoin" } else { self.random.of(&facilities) };
            line.push_str(facility);
            line.push_str(&self.gap());
            if depth < NAMES.len() - 1 && self.random.one_in(4) {
                line.push_str(self.random.of(&["include", "include", "substack", "substack", "INCLUDE", "[include]"]));
                line.push_str(&self.gap());
                line.push_str(&self.target(depth));
            } else {
                self.call(&mut line);
            }
        }
        let ends = ["\n", "\n", "\n", "\n", "\n", " # a comment\n", "# a comment \\\n", " \n", " \\\n", ""];
        let end = if self.random.one_in(4) { self.random.of(&ends) } else { "\n" };
        line + end
    }

    fn call(&mut self, line: &mut String) {
        let control = match self.random.below(10) {
            0..5 => self
                .random
                .of(&["required", "requisite", "optional", "sufficient", "Optional", "[required]"])
                .to_owned(),
            5..9 => format!("[{}]", self.actions()),
            _ => self.random.of(&["nonsense", "success=ok", "[]", "[success=ok", "[a \\] b]"]).to_owned(),
        };
        line.push_str(&control);
        line.push_str(&self.gap());
        let module = self.module.display().to_string();
        let missing = "/nonexistent/module.so";
        line.push_str(if self.random.one_in(15) { missing } else { &module });
        self.calls += 1;
        for arg in [self.answer(), self.answer(), self.calls.to_string()] {
            line.push_str(&self.gap());
            line.push_str(&arg);
        }
        if self.random.one_in(8) {
            line.push_str(self.random.of(&[
                " [two words]",
                " [a \\] b]tail",
                " x=[y z]",
                " ]",
                " [open",
                " back\\slash",
                " []",
            ]));
        }
    }

    fn answer(&mut self) -> String {
        match self.random.below(20) {
            0..11 => "0".to_owned(),
            11..14 => "25".to_owned(),
            14..18 => self.random.of(&["7", "14", "12", "6", "28"]).to_owned(),
            18 => self.random.below(31).to_string(),
            _ => self.random.of(&["40", "-1", "32"]).to_owned(),
        }
    }

    fn actions(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..1 + self.random.below(4) {
            let codes = [
                "success",
                "success",
                "default",
                "default",
                "ignore",
                "auth_err",
                "session_err",
                "new_authtok_reqd",
                "perm_denied",
                "module_unknown",
                "user_unknown",
            ];
            let actions = ["ok", "ok", "done", "ignore", "ignore", "bad", "die", "reset", "1", "1", "2", "3"];
            let (code, action) = (self.random.of(&codes), self.random.of(&actions));
            let equals = if self.random.one_in(10) { " = " } else { "=" };
            let gap = if self.random.one_in(10) { "" } else { " " };
            write!(text, "{code}{equals}{action}{gap}").unwrap();
        }
        if self.random.one_in(30) {
            text.push_str(self.random.of(&["success=0", "nonsense=ok", "success=", "success", "default=12345"]));
        }
        text
    }

    fn target(&mut self, depth: usize) -> String {
        if self.random.one_in(60) {
            return self.random.of(&["/nonexistent/stack", "no-such-stack"]).to_owned();
        }
        if self.random.one_in(40) {
            return format!("{}/deep", self.confdir.display());
        }
        let name = NAMES[depth + 1 + self.random.below(NAMES.len() - depth - 1)];
        // Above the root is the root, from whatever directory libpam takes a name.
        let up = if self.random.one_in(3) { "../../../../../../.." } else { "" };
        format!("{up}{}/{name}", self.confdir.display())
    }

    fn gap(&mut self) -> String {
        let odd = [
            "\t",
            "  ",
            " \\\n",
            "\\\n",
            " \\ \t\n\t",
            " \\\n# a comment\n",
            " \\\n\n",
            " \\\n # a comment \\\n",
            "\r",
        ];
        if self.random.one_in(16) { self.random.of(&odd).to_owned() } else { " ".to_owned() }
    }
}

/// The libpam that this program has loaded.
fn libpam() -> Libpam {
    let mut info = [ptr::null(); 4];
    assert_ne!(unsafe { dladdr(pam_end as *const c_void, &raw mut info) }, 0);
    let path = unsafe { CStr::from_ptr(info[0]) }.to_str().unwrap();
    let libpam = Libpam::of_program(&fs::read(path).unwrap());
    println!("{path}: {libpam:?}");
    libpam
}

fn module(directory: &Path) -> std::path::PathBuf {
    let module = directory.join("noting.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/noting.c");
    // Who builds Rust has it: rustc links with it.
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&module, &source]).status().unwrap();
    assert!(built.success());
    module
}

#[test]
fn stacks_are_read_and_run_as_libpam_does() {
    let begun = Instant::now();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed: u64 = std::env::var("PAG_SEED").map_or(now, |seed| seed.parse().unwrap());
    println!("PAG_SEED={seed}");
    let libpam = libpam();
    let scratch = tempfile::tempdir().unwrap();
    let module = module(scratch.path());
    let confdir = scratch.path().join("pam.d");
    fs::create_dir(&confdir).unwrap();
    let (mut compared, mut refused, mut unsure, mut passed, mut index) = (0, 0, 0, 0, 0);
    while compared < STACKS {
        let seed = seed.wrapping_add(index);
        index += 1;
        let mut writer = Writer { random: Random(seed), confdir: &confdir, module: &module, calls: 0 };
        writer.write();
        // One in four applications takes credentials or ends a session without having begun.
        let calls: &[usize] = if writer.random.one_in(4) { &[1, 2, 4] } else { &[0, 1, 2, 3, 4] };
        let stacks = Stacks::of(&Disk { confdir: &confdir, libpam }, confdir.join("x").to_str().unwrap());
        if stacks.trouble.iter().any(|trouble| trouble.unsure) {
            unsure += 1;
            continue;
        }
        let (ours, theirs) = (by_us(&stacks, libpam, &module, calls), by_libpam(&confdir, calls));
        assert!(ours == theirs, "PAG_SEED={seed}\nwe: {ours:?}\nlibpam: {theirs:?}\n{}", texts(&confdir));
        compared += 1;
        refused += usize::from(theirs.is_none());
        passed += theirs.iter().flatten().filter(|(_, called, result)| *result == 0 && !called.is_empty()).count();
    }
    println!(
        "{compared} stacks compared, {refused} of them refused, {passed} calls of libpam succeeded, {unsure} are chance; {} ms",
        begun.elapsed().as_millis()
    );
    assert!(refused < compared / 4 && passed > compared / 4 && unsure < compared / 4, "the stacks say little");
}

fn texts(confdir: &Path) -> String {
    let each = NAMES.iter().chain(&["other"]);
    each.map(|name| format!("--- {name}\n{}", fs::read_to_string(confdir.join(name)).unwrap())).collect()
}
