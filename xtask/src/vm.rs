//! One virtual machine: QEMU without KVM, so that it is the same on every host. It is resumed from a state of its memory
//! in which everything is up, and what it writes to its disk is forgotten.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use pag_tests::scenarios::tier3::Client;
use pag_tests::speed::PROGRESS;

use crate::cache::{self, scratch, try_lock};
use crate::image::{Image, SUITES, image};
use crate::machine::{Outcome, programs};
use crate::shell::{MACHINES, Profile, need_packages, sh, top};
use crate::tiers;

/// What is the same in all machines. A state of memory fits only the machine that it was taken from.
const HARDWARE: [&str; 26] = [
    "-M",
    "q35",
    "-accel",
    "tcg,thread=multi",
    // Newer ones have what costs time when it is emulated, and brings nothing here: a tenth less than `max`.
    "-cpu",
    "Nehalem",
    "-smp",
    "2",
    "-m",
    "1024",
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
    "-display",
    "none",
    "-nic",
    "none",
    "-device",
    "virtio-rng-pci",
    "-device",
    "virtio-serial-pci",
    "-device",
    "virtserialport,chardev=agent,name=lab",
    "-device",
    "virtio-blk-pci,drive=disk",
    // It is ours to say when it runs.
    "-S",
];

const KERNEL_LINE: &str = "console=ttyS0 quiet mitigations=off nokaslr no_timer_check tsc=reliable \
    random.trust_cpu=on apparmor=0 selinux=0 audit=0 panic=-1 systemd.show_status=0";

/// How a scenario is run in it.
const RUN: &str = include_str!("vm-run.sh");

/// As many machines at once as emulation has cores for on a small host.
pub(crate) const SIDE_BY_SIDE: usize = 2;

/// A place for one machine, whoever runs it on this host; it is free again with the end of the value.
fn place() -> fs::File {
    loop {
        for number in 0..SIDE_BY_SIDE {
            if let Some(place) = try_lock(&format!("vm-{number}")) {
                return place;
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Longest time for one scenario, and for one in its long form; the machine itself sees to it, and has told its journal
/// by then.
const LIMIT: Duration = Duration::from_secs(600);
const LONG_LIMIT: Duration = Duration::from_secs(3600);

/// What an image's states depend on besides what is in it.
pub(crate) fn recipe() -> String {
    let version = sh("qemu-system-x86_64 --version | head -n 1");
    format!("{HARDWARE:?} {KERNEL_LINE} {version}")
}

/// What a machine has for a disk, by names in its image's directory.
pub(crate) struct Disk<'a> {
    name: &'a str,
    format: &'a str,
    /// The overlay that keeps what is written; none: it is forgotten.
    keep: Option<&'a str>,
}

impl<'a> Disk<'a> {
    /// The image that everything begins with; what is written is kept as `keep`'s disk.
    pub(crate) fn first(name: &'a str, keep: &'a str) -> Self {
        Disk { name, format: "raw", keep: Some(keep) }
    }
}

/// A running machine, which ends with this value.
pub(crate) struct Vm {
    qemu: Child,
    monitor: Monitor,
    agent: BufReader<UnixStream>,
    image: PathBuf,
    scratch: PathBuf,
}

/// QEMU's own side, by the QEMU Machine Protocol.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn connect(path: &Path) -> Self {
        let mut monitor = Monitor(BufReader::new(connect(path)));
        let mut greeting = String::new();
        monitor.0.read_line(&mut greeting).unwrap();
        monitor.call("qmp_capabilities", json!({}));
        monitor
    }

    /// Gives a command and waits for its result; events in between are nothing to us.
    fn call(&mut self, command: &str, arguments: Value) -> Value {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.0.get_mut(), "{line}").unwrap();
        loop {
            let mut answer = String::new();
            self.0.read_line(&mut answer).unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("QEMU ended over {line}"));
            assert!(answer.get("error").is_none(), "QEMU says to {line}: {answer}");
            if let Some(result) = answer.get("return") {
                return result.clone();
            }
        }
    }

    /// Asks until the status that `command` gives is one of those.
    fn wait(&mut self, command: &str, wanted: &[&str]) -> String {
        loop {
            let result = self.call(command, json!({}));
            let status = result["status"].as_str().unwrap_or_default();
            if wanted.contains(&status) {
                return status.to_owned();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// QEMU makes its sockets when it has started.
fn connect(path: &Path) -> UnixStream {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < end, "{}: {error}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Vm {
    /// Starts a machine with a disk of an image, from the beginning or from a state.
    pub(crate) fn start(image: &Image, disk: &Disk<'_>, state: Option<&str>) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let scratch = scratch(&format!("vm-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(scratch.join("share")).unwrap();
        let s = scratch.display();
        let snapshot = if disk.keep.is_some() { "off" } else { "on" };
        let log = fs::File::create(scratch.join("qemu")).unwrap();
        // The machine ends with this program, however that ends.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(HARDWARE)
            .args(["-kernel", "kernel", "-initrd", "initrd", "-append", KERNEL_LINE])
            .args(["-serial", &format!("file:{s}/console")])
            .args(["-qmp", &format!("unix:{s}/monitor,server=on,wait=off")])
            .args(["-chardev", &format!("socket,id=agent,path={s}/agent,server=on,wait=off")])
            .args(["-virtfs", &format!("local,path={s}/share,mount_tag=lab,security_model=none,multidevs=remap")])
            .args([
                "-drive",
                &format!(
                    "file={},if=none,id=disk,format={},cache=unsafe,discard=unmap,snapshot={snapshot}",
                    disk.name, disk.format
                ),
            ])
            .current_dir(image.directory())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some(state) = state {
            command.args(["-incoming", &format!("exec:cat {state}")]);
        }
        let qemu = command.spawn().unwrap();
        let mut monitor = Monitor::connect(&scratch.join("monitor"));
        monitor.wait("query-status", &["prelaunch", "paused", "postmigrate"]);
        if let Some(keep) = disk.keep {
            let file = format!("{keep}.qcow2");
            monitor
                .call("blockdev-snapshot-sync", json!({ "device": "disk", "snapshot-file": file, "format": "qcow2" }));
        }
        let agent = BufReader::new(connect(&scratch.join("agent")));
        monitor.call("cont", json!({}));
        let mut vm = Vm { qemu, monitor, agent, image: image.directory().to_owned(), scratch };
        if state.is_some() {
            // The machine slept since its state was taken, and Kerberos looks at the time.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            vm.must(&format!("time {now}"), Duration::from_secs(300));
        }
        vm
    }

    /// Resumes the state called `name`; what is written is kept for the state `keep`, or forgotten.
    pub(crate) fn resume(image: &Image, name: &str, keep: Option<&str>) -> Self {
        let disk = Disk { name: &format!("{name}.qcow2"), format: "qcow2", keep };
        Self::start(image, &disk, Some(&format!("{name}.state")))
    }

    /// Where host and machine share files.
    pub(crate) fn share(&self) -> PathBuf {
        self.scratch.join("share")
    }

    /// What the agent says up to one of the words; an error says what came instead.
    fn hear(&mut self, words: &[&str], limit: Duration) -> Result<(String, String), String> {
        let end = Instant::now() + limit;
        let mut text = String::new();
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.agent.get_ref().set_read_timeout(Some(left)).unwrap();
            let mut line = String::new();
            match self.agent.read_line(&mut line) {
                Ok(0) => return Err(format!("the machine has ended: {text}{}", self.console())),
                Ok(_) if words.contains(&line.trim_end()) => return Ok((line.trim_end().to_owned(), text)),
                Ok(_) => text.push_str(&line),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(format!("no answer within {} s: {text}{}", limit.as_secs(), self.console()));
                }
                Err(error) => return Err(format!("{error}: {text}")),
            }
        }
    }

    /// Waits for a machine that has been started from the beginning.
    pub(crate) fn is_ready(&mut self) {
        self.hear(&["ready"], Duration::from_secs(600)).unwrap_or_else(|error| panic!("no boot: {error}"));
    }

    /// Gives an order to the agent in the machine.
    pub(crate) fn order(&mut self, order: &str, limit: Duration) -> Result<(), String> {
        writeln!(self.agent.get_mut(), "{order}").map_err(|error| error.to_string())?;
        match self.hear(&["done", "failed"], limit)? {
            (word, _) if word == "done" => Ok(()),
            (_, text) => Err(text),
        }
    }

    /// Gives an order that cannot fail.
    pub(crate) fn must(&mut self, order: &str, limit: Duration) {
        self.order(order, limit).unwrap_or_else(|error| panic!("the machine was told '{order}': {error}"));
    }

    /// The end of what the machine's console and QEMU have said.
    fn console(&self) -> String {
        let mut text = String::new();
        for name in ["console", "qemu"] {
            let all = fs::read(self.scratch.join(name)).unwrap_or_default();
            let all = String::from_utf8_lossy(&all).into_owned();
            let lines: Vec<&str> = all.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(25)..).unwrap_or_default();
            text.push_str(&format!("\n--- {name}\n{}", tail.join("\n")));
        }
        text
    }

    /// Keeps the machine's memory as the state `name`, and ends it.
    pub(crate) fn freeze(mut self, name: &str) {
        self.monitor.call("stop", json!({}));
        self.monitor.call("migrate-set-parameters", json!({ "max-bandwidth": 10_000_000_000_u64 }));
        let file = self.image.join(format!("{name}.state"));
        self.monitor.call("migrate", json!({ "uri": format!("exec:cat > '{}'", file.display()) }));
        let status = self.monitor.wait("query-migrate", &["completed", "failed", "cancelled"]);
        assert_eq!(status, "completed", "the machine was not frozen: {}", self.console());
        // Closes the disk.
        self.monitor.call("quit", json!({}));
        self.qemu.wait().unwrap();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.qemu.kill().ok();
        self.qemu.wait().ok();
        fs::remove_dir_all(&self.scratch).ok();
    }
}

/// What is to be run, and on what.
pub(crate) struct Run<'a> {
    /// The release.
    pub(crate) suite: &'a str,
    /// The AFS client that is loaded.
    pub(crate) client: Client,
    /// The command, for a shell of root's; a scenario is `pag-scenario NAME CLIENT`.
    pub(crate) command: &'a str,
    /// Where the product lies that is installed first; none for a machine without it.
    pub(crate) product: Option<&'a Path>,
    /// The directory of the tests' programs.
    pub(crate) programs: &'a Path,
    /// Whether it is the long form.
    pub(crate) long: bool,
}

/// The command that runs a scenario, or an act of the demo.
pub(crate) fn scenario(name: &str, client: Client) -> String {
    format!("exec pag-scenario {name} {}\n", client.name())
}

/// Prints how far a command says it is, as it says so, until all is over.
fn show_progress(output: &Path, over: &AtomicBool) {
    let mut shown = 0;
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(500));
        let text = fs::read(output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        // What is not a whole line yet comes next time.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter_map(|line| line.strip_prefix(PROGRESS));
        for line in lines.skip(shown) {
            println!("  {line}");
            shown += 1;
        }
    }
}

/// Resumes and runs.
pub(crate) fn run(run: &Run<'_>) -> Outcome {
    let image = image(run.suite);
    let _place = place();
    cache::sweep();
    let begun = Instant::now();
    let mut vm = Vm::resume(&image, run.client.name(), None);
    let share = vm.share();
    let s = share.display();
    let bin = vm.scratch.join("bin");
    fs::create_dir(&bin).unwrap();
    let programs = ["pag-probe", "keyring-aklog", "pag-pamhost", "pag-bigticket", "pag-scenario", "libpam_empty.so"];
    // The last one is the benchmark's, and built for that alone.
    for program in programs.into_iter().filter(|name| *name != "libpam_empty.so" || run.programs.join(name).exists()) {
        crate::shell::run(Command::new("strip").arg("-o").arg(bin.join(program)).arg(run.programs.join(program)));
    }
    sh(&format!("tar -cf '{s}/programs.tar' -C '{}' .", bin.display()));
    if let Some(product) = run.product {
        // As root's: whoever has built it may be somebody else.
        sh(&format!("tar -cf '{s}/product.tar' --owner=0 --group=0 -C '{}' .", product.display()));
    }
    fs::write(share.join("run"), RUN).unwrap();
    let long = if run.long { "export PAG_LONG=1\n" } else { "" };
    let limit = if run.long { LONG_LIMIT } else { LIMIT };
    fs::write(share.join("environment"), format!("LIMIT={}\n{long}", limit.as_secs())).unwrap();
    fs::write(share.join("command"), run.command).unwrap();
    let over = AtomicBool::new(false);
    let order = std::thread::scope(|scope| {
        scope.spawn(|| show_progress(&share.join("output"), &over));
        let order = vm.order("run", limit + Duration::from_secs(120));
        over.store(true, Ordering::Relaxed);
        order
    });
    let read = |name: &str| fs::read(share.join(name)).map(|b| String::from_utf8_lossy(&b).into_owned());
    let mut output = read("output").unwrap_or_default();
    let passed = order.is_ok() && read("status").is_ok_and(|status| status.trim() == "0");
    if let Err(error) = order {
        output.push_str(&format!("\nthe scenario did not end: {error}"));
    }
    Outcome { passed, output, journal: read("journal").unwrap_or_default(), took: begun.elapsed() }
}

/// What `cargo xtask vm` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Choice {
    /// The AFS client that is loaded: openafs, kafs or none
    #[arg(long, default_value = "openafs", value_parser = client)]
    client: Client,
    /// The Debian release
    #[arg(long, default_value = SUITES[0])]
    suite: String,
    /// Install the product first
    #[arg(long)]
    product: bool,
    /// Print the machine's journal, too
    #[arg(long)]
    journal: bool,
    /// The command, for a shell
    command: String,
}

fn client(word: &str) -> Result<Client, String> {
    Client::named(word).ok_or_else(|| "one of openafs, kafs and none is wanted".to_owned())
}

/// Runs a command; true when it ended well.
pub(crate) fn command(choice: &Choice) -> bool {
    need_packages(&MACHINES);
    let product = choice.product.then(|| tiers::product(&top(), Profile::Release));
    let outcome = run(&Run {
        suite: &choice.suite,
        client: choice.client,
        command: &choice.command,
        product: product.as_deref(),
        programs: &programs(),
        long: false,
    });
    println!("{}", outcome.output.trim_end());
    if choice.journal {
        println!("--- the journal\n{}", outcome.journal.trim_end());
    }
    println!("--- {} after {:.1} s", if outcome.passed { "ok" } else { "failed" }, outcome.took.as_secs_f64());
    outcome.passed
}
