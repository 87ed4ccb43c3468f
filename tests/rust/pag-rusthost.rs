//! A process with several PAGs, made by the Rust interface. It does what a test writes to it, line by line, and answers
//! each line with one: a code of `pag.h`, and words, which are those of the error after a failure. `tests/c/pag-chost.c`
//! does the same by the C interface; what only one of them can do stands last.
//!
//! ```text
//! open                              close
//! create NAME [KEY=VALUE]...        renew NAME [KEY=VALUE]...     keys: ccache keytab principal cells ms
//! enter NAME   leave                default NAME ("-" is none)    end NAME    expires NAME
//! token                             what this thread's PAG has for the cell example.test, or "none"
//! ring                              the serial of this thread's session keyring, or -1
//! run COMMAND                       a shell command's output in one line, as child of this thread
//! alternate COUNT NAME NAME         two threads enter both PAGs in opposite phase; words: how often one had a wrong token
//! thread T COMMAND...               in the thread T, which is started outside all PAGs by its first command
//! start T COMMAND...   wait T       the same, and the answer later
//! fork C   child C COMMAND...       in a child process, which was forked by the calling thread
//!
//! inside NAME COMMAND...            with a guard around the command
//! disorder NAME NAME                enters both, drops the outer guard first; words: the rings after each step
//! panic NAME                        panics inside, and catches it
//! drop NAME                         forgets the PAG, which ends it
//! costs COUNT NAME                  enters and leaves, with a counting allocator; words: how often memory was allocated
//! bare COUNT NAME                   the same in a thread that the kernel kills if it calls anything but keyctl
//! bench COUNT NAME                  a bare join in nanoseconds, and an enter and a leave in times of bare joins, with spreads
//! uring                             opens an io_uring and registers this thread's credentials with it
//! peek                              /proc/keys in one line, opened by the io_uring with those credentials
//! read FILE   write FILE            the beginning of a file, read by this thread; one line, written by it
//! steal                             enters each PAG by the names that stand in this process's memory, and leaves; words: their number
//!                                   and the tokens
//! getpag                            the PAG of OpenAFS that this thread is in, or "none"
//! files COUNT A B FILEA FILEB       two threads in opposite phase, one file for each PAG; words: how often one read what it
//!                                   must not, or did not read what it must, or was in another PAG of OpenAFS
//! keyctl OPERATION A B C            one keyctl call of this thread; words: its result, or the error's name
//! personalities COUNT               an open by io_uring in nanoseconds, and how much longer it takes with credentials that were
//!                                   registered before, with spreads; -1 where the kernel has no io_uring
//! requests WAY DIRECTORY NAME...    serves one request of each identity NAME, for DIRECTORY/NAME/page; words: nanoseconds for
//!                                   all. WAY is "libpag": in the PAG NAME;
//!                                   "settok": with the token of the PAG NAME, which this thread sets in its own; "fork": in a
//!                                   child, which makes a PAG and runs aklog with the ccache /run/tickets/NAME; "same": as this
//!                                   thread is
//! ```
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)] // for tests alone
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, LazyLock, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use libpag::{Pag, Process, Seed};
use pag::afs::openafs::Device;

/// Counts what this process allocates.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Default)]
struct Host {
    process: Mutex<Option<&'static Process>>,
    pags: Mutex<HashMap<String, Pag>>,
    workers: Mutex<HashMap<String, Worker>>,
    uring: Mutex<Option<Uring>>,
}

static HOST: LazyLock<Host> = LazyLock::new(Host::default);

type Answer = (i32, String);

fn done(result: libpag::Result<()>) -> Answer {
    said(result.map(|()| String::new()))
}

fn said(result: libpag::Result<String>) -> Answer {
    result.map_or_else(|error| (error.code() as i32, error.to_string()), |words| (0, words))
}

fn process() -> &'static Process {
    HOST.process.lock().unwrap().expect("'open' comes first")
}

fn pag(name: &str) -> Pag {
    HOST.pags.lock().unwrap().get(name).unwrap_or_else(|| panic!("there is no PAG {name}")).clone()
}

fn seed(words: &str) -> Seed {
    let pairs: HashMap<&str, &str> = words.split(' ').filter_map(|word| word.split_once('=')).collect();
    let mut seed = match (pairs.get("ccache"), pairs.get("keytab")) {
        (Some(name), _) => Seed::ccache(name),
        (None, Some(file)) => Seed::keytab(file, pairs["principal"]),
        (None, None) => Seed::nothing(),
    };
    if let Some(cells) = pairs.get("cells") {
        seed = seed.cells(cells.split(','));
    }
    if let Some(ms) = pairs.get("ms") {
        seed = seed.time(Duration::from_millis(ms.parse().unwrap()));
    }
    seed
}

fn keyctl(operation: u32, a: i64, b: i64, c: i64) -> Result<i64, std::io::Error> {
    let result = unsafe { libc::syscall(libc::SYS_keyctl, i64::from(operation), a, b, c, 0) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

fn ring() -> i64 {
    keyctl(libc::KEYCTL_GET_KEYRING_ID, -3, 0, 0).unwrap_or(-1)
}

fn token() -> String {
    let (kind, name) = (c"user".as_ptr() as i64, c"afs@example.test".as_ptr() as i64);
    let mut text = [0_u8; 256];
    let read = keyctl(libc::KEYCTL_SEARCH, -3, kind, name)
        .and_then(|key| keyctl(libc::KEYCTL_READ, key, text.as_mut_ptr() as i64, text.len() as i64));
    read.map_or("none".to_owned(), |length| String::from_utf8_lossy(&text[..length as usize]).into_owned())
}

fn run(command: &str) -> Answer {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&words).trim_end().replace('\n', " "))
}

/// Two threads enter both PAGs in opposite phase. How often one of them was in the wrong one.
fn alternate(count: usize, pags: [Pag; 2]) -> i64 {
    let tokens = [0, 1].map(|it: usize| pags[it].within(token).unwrap());
    if tokens[0] == tokens[1] {
        return -1;
    }
    let barrier = Barrier::new(2);
    let one = |first: usize| {
        let mut wrong = 0;
        for turn in (first..).take(count) {
            let inside = pags[turn % 2].enter();
            barrier.wait();
            wrong += i64::from(inside.is_err() || token() != tokens[turn % 2]);
            barrier.wait();
        }
        wrong + i64::from(token() != "none")
    };
    std::thread::scope(|threads| {
        let other = threads.spawn(|| one(1));
        one(0) + other.join().unwrap()
    })
}

/// The PAG of OpenAFS that this thread is in.
fn getpag() -> Option<u32> {
    Device::opened().unwrap().and_then(|interface| interface.getpag().unwrap())
}

fn read(file: &str) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(80).read_to_string(&mut text)?;
    Ok(text.trim_end().to_owned())
}

/// Two threads in opposite phase read the files of both PAGs.
fn files(count: usize, pags: [Pag; 2], files: [&str; 2]) -> String {
    let texts = [0, 1].map(|it: usize| pags[it].within(|| (read(files[it]).unwrap(), getpag())).unwrap());
    let barrier = Barrier::new(2);
    let one = |first: usize| {
        let (mut wrong, mut number) = (0, 0);
        for turn in (first..).take(count) {
            let (own, other) = (turn % 2, (turn + 1) % 2);
            let inside = pags[own].enter().unwrap();
            barrier.wait();
            number += u32::from(getpag() != texts[own].1);
            wrong += u32::from(read(files[own]).ok().as_ref() != Some(&texts[own].0));
            // The file server slows down those whom it has refused ten times in a row.
            wrong += u32::from(turn % 5 == 0 && read(files[other]).is_ok());
            barrier.wait();
            drop(inside);
        }
        (wrong, number)
    };
    let (mine, its) = std::thread::scope(|threads| {
        let other = threads.spawn(|| one(1));
        (one(0), other.join().unwrap())
    });
    format!("{} {}", mine.0 + its.0, mine.1 + its.1)
}

/// A thread or a child, which does one command at a time.
struct Worker {
    to: UnixStream,
    from: BufReader<UnixStream>,
}

impl Worker {
    fn of(ours: UnixStream) -> Self {
        Worker { to: ours.try_clone().unwrap(), from: BufReader::new(ours) }
    }
}

fn tell(name: &str, command: &str) {
    let mut workers = HOST.workers.lock().unwrap();
    let worker = workers.entry(name.to_owned()).or_insert_with(|| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || serve(BufReader::new(theirs.try_clone().unwrap()), theirs));
        Worker::of(ours)
    });
    writeln!(worker.to, "{command}").unwrap();
}

fn hear(name: &str) -> Answer {
    let mut worker = HOST.workers.lock().unwrap().remove(name).expect("a worker of this name");
    let mut line = String::new();
    worker.from.read_line(&mut line).unwrap();
    HOST.workers.lock().unwrap().insert(name.to_owned(), worker);
    match line.trim_end_matches('\n').split_once(' ') {
        Some((code, words)) => (code.parse().unwrap(), words.to_owned()),
        None => (-1, "it has ended".to_owned()),
    }
}

fn fork(name: &str) -> Answer {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        drop(ours);
        serve(BufReader::new(theirs.try_clone().unwrap()), theirs);
        unsafe { libc::_exit(0) };
    }
    HOST.workers.lock().unwrap().insert(name.to_owned(), Worker::of(ours));
    (0, pid.to_string())
}

fn disorder(first: &Pag, second: &Pag) -> libpag::Result<String> {
    let outer = first.enter()?;
    let in_first = ring();
    let inner = second.enter()?;
    let in_second = ring();
    drop(outer);
    let without_outer = ring();
    drop(inner);
    Ok(format!("{in_first} {in_second} {without_outer} {}", ring()))
}

fn costs(count: usize, pag: &Pag) -> libpag::Result<String> {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..count {
        drop(pag.enter()?);
        pag.switch()?;
        process().leave()?;
    }
    Ok((ALLOCATIONS.load(Ordering::Relaxed) - before).to_string())
}

/// Lets the kernel kill the process if this thread makes another call than keyctl, write, or those that end a thread.
fn call_only_keyctl() {
    let allowed = [
        libc::SYS_keyctl,
        libc::SYS_write,
        libc::SYS_exit,
        libc::SYS_munmap,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
    ];
    let step = |code: u32, k: u32, jt: u8| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (index, call) in allowed.iter().enumerate() {
        let jump = (allowed.len() - index) as u8;
        filter.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *call as u32, jump));
    }
    filter.push(step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS, 0));
    filter.push(step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const program), 0);
    }
}

fn bare(count: usize, pag: Pag) -> libpag::Result<String> {
    let entered = std::thread::spawn(move || {
        drop(pag.enter()?);
        call_only_keyctl();
        for _ in 0..count {
            drop(pag.enter()?);
            pag.switch()?;
            process().leave()?;
        }
        std::mem::forget(pag);
        Ok(())
    });
    entered.join().unwrap().map(|()| count.to_string())
}

/// The median and the distance of the quartiles.
fn middle(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values[(values.len() - 1) * part / 4];
    [at(2), at(3) - at(1)]
}

/// The time of a bare join in nanoseconds, and of an enter and a leave in times of bare joins that were made just before:
/// medians, each with the distance of its quartiles. The bare joins go by turns into the two rings into which the library goes.
/// Their names are read while this thread is inside.
fn bench(count: usize, pag: &Pag) -> libpag::Result<String> {
    let name = || {
        let mut text = vec![0_u8; 200];
        let length = keyctl(libc::KEYCTL_DESCRIBE, -3, text.as_mut_ptr() as i64, text.len() as i64).unwrap() as usize;
        text.truncate(length);
        text.rsplitn(2, |byte| *byte == b';').next().unwrap().to_vec()
    };
    let of_pag = pag.within(name)?;
    process().leave()?;
    let of_none = name();
    let join = |name: &[u8]| keyctl(libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr() as i64, 0, 0).unwrap();
    let (mut bare, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let begun = Instant::now();
        join(&of_pag);
        join(&of_none);
        let joins = begun.elapsed().as_nanos() as f64;
        let begun = Instant::now();
        drop(pag.enter()?);
        ratios.push(begun.elapsed().as_nanos() as f64 / joins);
        bare.push(joins / 2.0);
    }
    let [join, spread] = middle(bare);
    let [ratio, ratio_spread] = middle(ratios);
    Ok(format!("{join} {spread} {ratio} {ratio_spread}"))
}

/// An io_uring with one registered personality.
struct Uring {
    fd: OwnedFd,
    personality: u16,
    rings: *mut u8,
    entries: *mut u8,
    offsets: [u32; 4],
}

unsafe impl Send for Uring {}

impl Uring {
    /// Numbers of linux/io_uring.h: struct io_uring_params has 120 bytes, sq_off at 40, cq_off at 80.
    fn open() -> Self {
        Self::try_open().unwrap_or_else(|| panic!("io_uring_setup: {}", std::io::Error::last_os_error()))
    }

    /// None where the kernel has no io_uring, or does not let this process have one.
    fn try_open() -> Option<Self> {
        let mut parameters = [0_u32; 30];
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) };
        if fd < 0 {
            return None;
        }
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let map = |offset: i64| unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
            let place = libc::mmap(ptr::null_mut(), 4096, protection, flags, fd.as_raw_fd(), offset);
            assert_ne!(place, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
            place.cast::<u8>()
        };
        // sq_off: head, tail, mask, entries, flags, dropped, array; cq_off: head, tail, mask, entries, overflow, cqes.
        let offsets = [parameters[11], parameters[16], parameters[20], parameters[25]];
        let (rings, entries) = (map(0), map(0x1000_0000));
        let register = 9; // IORING_REGISTER_PERSONALITY
        let null = ptr::null::<u8>();
        let personality = unsafe { libc::syscall(libc::SYS_io_uring_register, fd.as_raw_fd(), register, null, 0) };
        assert!(personality > 0, "io_uring_register: {}", std::io::Error::last_os_error());
        Some(Uring { fd, personality: personality as u16, rings, entries, offsets })
    }

    /// Opens a file with the registered credentials.
    fn open_file(&self, path: &std::ffi::CStr) -> std::io::Result<File> {
        let word = |offset: u32| unsafe { self.rings.add(offset as usize).cast::<u32>() };
        let [tail, array, head, entries] = self.offsets;
        unsafe {
            ptr::write_bytes(self.entries, 0, 64);
            *self.entries = 18; // IORING_OP_OPENAT
            self.entries.add(4).cast::<i32>().write(libc::AT_FDCWD);
            self.entries.add(16).cast::<u64>().write(path.as_ptr() as u64);
            self.entries.add(28).cast::<u32>().write((libc::O_RDONLY | libc::O_CLOEXEC) as u32);
            self.entries.add(42).cast::<u16>().write(self.personality);
            *word(array) = 0;
            let at = word(tail).read();
            *word(array + 4 * (at % 4)) = 0;
            (*word(tail).cast::<std::sync::atomic::AtomicU32>()).store(at + 1, Ordering::Release);
            let wait = 1; // IORING_ENTER_GETEVENTS
            let null = ptr::null::<u8>();
            let done = libc::syscall(libc::SYS_io_uring_enter, self.fd.as_raw_fd(), 1, 1, wait, null, 0);
            assert_eq!(done, 1, "io_uring_enter: {}", std::io::Error::last_os_error());
            let at = word(head).read();
            let result = word(entries + 16 * (at % 8) + 8).cast::<i32>().read();
            (*word(head).cast::<std::sync::atomic::AtomicU32>()).store(at + 1, Ordering::Release);
            if result < 0 {
                return Err(std::io::Error::from_raw_os_error(-result));
            }
            Ok(File::from_raw_fd(result))
        }
    }
}

fn peek() -> Answer {
    let uring = HOST.uring.lock().unwrap();
    let mut text = String::new();
    match uring.as_ref().unwrap().open_file(c"/proc/keys") {
        Ok(mut file) => {
            file.read_to_string(&mut text).unwrap();
            (0, text.trim_end().replace('\n', " | "))
        }
        Err(error) => (1, error.to_string()),
    }
}

/// The names of rings in the memory of this process.
fn names_in_memory() -> Vec<CString> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut names = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw") && !line.ends_with("[stack]")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|number| usize::from_str_radix(number, 16).unwrap());
        // Memory that was given back since is not read: the kernel copies.
        let mut bytes = vec![0_u8; to - from];
        let (into, out) = (
            libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() },
            libc::iovec { iov_base: from as *mut libc::c_void, iov_len: bytes.len() },
        );
        unsafe { libc::process_vm_readv(libc::getpid(), &raw const into, 1, &raw const out, 1, 0) };
        let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let begins = |part: &[u8]| part.starts_with(b"pag:") && part[36] == b':' && is_hex(&part[4..36]);
        let places = bytes.windows(37).enumerate().filter(|(_, part)| begins(part)).map(|(place, _)| place);
        let name = |place: usize| CString::new(bytes[place..].split(|byte| *byte == 0).next().unwrap()).unwrap();
        names.extend(places.map(name).filter(|name| name.as_bytes().len() < 80));
        bytes.fill(0);
    }
    names.sort_unstable();
    names.dedup();
    names
}

fn steal() -> String {
    let names = names_in_memory();
    let token_of = |name: &CString| {
        keyctl(libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr() as i64, 0, 0).map_or("refused".to_owned(), |_| token())
    };
    let tokens: Vec<String> = names.iter().map(token_of).collect();
    format!("{} {}", names.len(), tokens.join(" "))
}

/// What an open by io_uring costs with and without registered credentials, measured by turns.
fn personalities(count: usize) -> String {
    let Some(mut uring) = Uring::try_open() else { return "-1".to_owned() };
    let registered = uring.personality;
    let mut times = [Vec::new(), Vec::new()];
    for turn in 0..2 * count {
        uring.personality = if turn % 2 == 0 { 0 } else { registered };
        let begun = Instant::now();
        drop(uring.open_file(c"/dev/null").unwrap());
        times[turn % 2].push(begun.elapsed().as_nanos() as f64);
    }
    let [without, with] = times.map(middle);
    format!("{} {} {} {}", without[0], without[1], with[0] - without[0], with[1])
}

/// VIOCGETTOK and VIOCSETTOK of OpenAFS (src/config/vioc.h): the group and the numbers.
const TOKENS: (u8, u8, u8) = (b'V', 8, 3);

/// The token of this thread's PAG, in the form in which VIOCSETTOK takes it, which is that of VIOCGETTOK's answer.
fn own_token(module: &OwnedFd) -> Vec<u8> {
    let mut answer = vec![0; 12 * 1024];
    pag::sys::afs_pioctl(module.as_fd(), TOKENS.0, TOKENS.1, &0_i32.to_ne_bytes(), &mut answer).unwrap();
    let number = |at: usize| i32::from_ne_bytes(answer[at..at + 4].try_into().unwrap()) as usize;
    let clear = 4 + number(0);
    let cell = clear + 4 + number(clear) + 4;
    let length = answer[cell..].iter().position(|byte| *byte == 0).unwrap();
    answer.truncate(cell + length + 1);
    answer
}

/// What Apache does for a request of a page: it looks at each part of the path, and reads the file in pieces of 8,000 bytes.
fn request(directory: &str) -> bool {
    let page = Path::new(directory).join("page");
    if !page.ancestors().all(|part| std::fs::symlink_metadata(part).is_ok()) {
        return false;
    }
    let (mut piece, mut length) = ([0; 8000], 0);
    let Ok(mut file) = File::open(&page) else { return false };
    while let Ok(read @ 1..) = file.read(&mut piece) {
        length += read as u64;
    }
    length > 0 && file.metadata().is_ok_and(|found| found.len() == length)
}

/// The same in a child with a new PAG of OpenAFS, as a CGI program of today that runs `pagsh` and `aklog`.
fn request_of_child(directory: &str, ccache: &str) -> bool {
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let is_in = Device::opened().unwrap().is_some_and(|interface| interface.setpag().is_ok());
        let seeded = || Command::new("aklog").env("KRB5CCNAME", ccache).status().is_ok_and(|status| status.success());
        let served = is_in && seeded() && request(directory);
        unsafe { libc::_exit(i32::from(!served)) };
    }
    let mut status = 0;
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status == 0
}

fn requests(way: &str, directory: &str, names: &[&str]) -> Answer {
    let pags: Vec<Pag> = names.iter().filter(|_| ["libpag", "settok"].contains(&way)).map(|name| pag(name)).collect();
    let module = pag::sys::open_file(c"/proc/fs/openafs/afs_ioctl").unwrap();
    let settok = way == "settok";
    let tokens: Vec<_> = pags.iter().filter(|_| settok).map(|pag| pag.within(|| own_token(&module)).unwrap()).collect();
    let begun = Instant::now();
    for (number, name) in names.iter().enumerate() {
        let directory = &format!("{directory}/{name}");
        let served = match way {
            "libpag" => pags[number].within(|| request(directory)).unwrap(),
            "settok" => {
                pag::sys::afs_pioctl(module.as_fd(), TOKENS.0, TOKENS.2, &tokens[number], &mut []).unwrap();
                request(directory)
            }
            "fork" => request_of_child(directory, &format!("FILE:/run/tickets/{name}")),
            _ => request(directory),
        };
        if !served {
            return (1, format!("{way}: {name} is not served"));
        }
    }
    (0, begun.elapsed().as_nanos().to_string())
}

fn obey(line: &str) -> Answer {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (first, more) = rest.split_once(' ').unwrap_or((rest, ""));
    match verb {
        "open" => done(Process::open().map(|process| {
            *HOST.process.lock().unwrap() = Some(Box::leak(Box::new(process)));
        })),
        "close" => {
            let process: *const Process = HOST.process.lock().unwrap().take().unwrap();
            drop(unsafe { Box::from_raw(process.cast_mut()) });
            (0, String::new())
        }
        "create" => done(process().create(&seed(more)).map(|pag| {
            HOST.pags.lock().unwrap().insert(first.to_owned(), pag);
        })),
        "renew" => done(pag(first).renew(&seed(more))),
        "enter" => done(pag(first).switch()),
        "leave" => done(process().leave()),
        "default" if first == "-" => done(process().set_default(None)),
        "default" => done(process().set_default(Some(&pag(first)))),
        "end" => done(pag(first).end()),
        "drop" => {
            HOST.pags.lock().unwrap().remove(first).unwrap();
            (0, String::new())
        }
        "expires" => {
            let end = pag(first).expires().map(|end| end.duration_since(UNIX_EPOCH).unwrap().as_secs());
            (0, end.unwrap_or(0).to_string())
        }
        "token" => (0, token()),
        "steal" => (0, steal()),
        "ring" => (0, ring().to_string()),
        "run" => run(rest),
        "alternate" => {
            let (one, other) = more.split_once(' ').unwrap();
            (0, alternate(first.parse().unwrap(), [pag(one), pag(other)]).to_string())
        }
        "thread" | "child" => {
            tell(first, more);
            hear(first)
        }
        "start" => {
            tell(first, more);
            (0, String::new())
        }
        "wait" => hear(first),
        "fork" => fork(first),
        "inside" => match pag(first).within(|| obey(more)) {
            Ok(answer) => answer,
            Err(error) => done(Err(error)),
        },
        "disorder" => said(disorder(&pag(first), &pag(more))),
        "panic" => {
            let inside = std::panic::catch_unwind(|| pag(first).within(|| panic!("on purpose")));
            assert!(inside.is_err());
            (0, ring().to_string())
        }
        "costs" => said(costs(first.parse().unwrap(), &pag(more))),
        "bare" => said(bare(first.parse().unwrap(), pag(more))),
        "bench" => said(bench(first.parse().unwrap(), &pag(more))),
        "uring" => {
            *HOST.uring.lock().unwrap() = Some(Uring::open());
            (0, String::new())
        }
        "peek" => peek(),
        "personalities" => (0, personalities(first.parse().unwrap())),
        "requests" => {
            let words: Vec<&str> = more.split(' ').collect();
            requests(first, words[0], &words[1..])
        }
        "read" => read(rest).map_or_else(|error| (1, error.to_string()), |text| (0, text)),
        "write" => {
            std::fs::write(rest, "written\n").map_or_else(|error| (1, error.to_string()), |()| (0, String::new()))
        }
        "getpag" => (0, getpag().map_or("none".to_owned(), |number| number.to_string())),
        "files" => {
            let words: Vec<&str> = more.split(' ').collect();
            (0, files(first.parse().unwrap(), [pag(words[0]), pag(words[1])], [words[2], words[3]]))
        }
        "keyctl" => {
            let numbers: Vec<i64> = rest.split(' ').map(|word| word.parse().unwrap()).collect();
            let at = |place: usize| numbers.get(place).copied().unwrap_or(0);
            let result = keyctl(at(0) as u32, at(1), at(2), at(3));
            result.map_or_else(|error| (error.raw_os_error().unwrap(), error.to_string()), |it| (0, it.to_string()))
        }
        other => panic!("no such command: {other}"),
    }
}

fn serve(input: impl BufRead, mut output: impl Write) {
    for line in input.lines() {
        let (code, words) = obey(&line.unwrap());
        writeln!(output, "{code} {words}").unwrap();
        output.flush().unwrap();
    }
}

fn main() {
    serve(std::io::stdin().lock(), std::io::stdout());
}
