//! One virtual machine: QEMU without KVM, so that it is the same on each host. It resumes from a state of its memory in
//! which all services run. Its writes to the disk are discarded.

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

/// The hardware of all machines. A state of memory fits only the hardware that it was taken from.
const HARDWARE: [&str; 26] = [
    "-M",
    "q35",
    "-accel",
    "tcg,thread=multi",
    // Newer processors have features that are slow to emulate. This one takes a tenth less time than `max`.
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
    // The machine starts by a command of this program.
    "-S",
];

const KERNEL_LINE: &str = "console=ttyS0 quiet mitigations=off nokaslr no_timer_check tsc=reliable \
    random.trust_cpu=on apparmor=0 selinux=0 audit=0 panic=-1 systemd.show_status=0";

/// The script that runs a scenario in the machine.
const RUN: &str = include_str!("vm-run.sh");

/// The number of machines at the same time. Each needs a core of a small host.
pub(crate) const SIDE_BY_SIDE: usize = 2;

/// Waits for one of the host's places for machines. Dropping the value gives the place back.
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

/// Longest time for one scenario. The machine itself ends a longer one, and then sends its journal.
const LIMIT: Duration = Duration::from_secs(600);
/// Longest time for one scenario in the long form.
const LONG_LIMIT: Duration = Duration::from_secs(3600);

/// The things outside an image that its states depend on.
pub(crate) fn recipe() -> String {
    let version = sh("qemu-system-x86_64 --version | head -n 1");
    format!("{HARDWARE:?} {KERNEL_LINE} {version}")
}

/// A machine's disk, by names in the directory of its image.
pub(crate) struct Disk<'a> {
    name: &'a str,
    format: &'a str,
    /// The overlay that keeps the writes. None discards them.
    keep: Option<&'a str>,
}

impl<'a> Disk<'a> {
    /// The first disk of an image. The writes are kept as the disk of the state `keep`.
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

/// A connection to QEMU, by the QEMU Machine Protocol.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn connect(path: &Path) -> Self {
        let mut monitor = Monitor(BufReader::new(connect(path)));
        let mut greeting = String::new();
        monitor.0.read_line(&mut greeting).unwrap();
        monitor.call("qmp_capabilities", json!({}));
        monitor
    }

    /// Gives a command and waits for its result. Events in between are ignored.
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

    /// Gives `command` again and again, until it returns one of these states.
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
        // The machine ends with this program, also when a signal kills it.
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
            // The machine's clock stands at the time of its state, and Kerberos needs the right time.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            vm.must(&format!("time {now}"), Duration::from_secs(300));
        }
        vm
    }

    /// Resumes the state `name`. The writes are kept for the state `keep`, or discarded.
    pub(crate) fn resume(image: &Image, name: &str, keep: Option<&str>) -> Self {
        let disk = Disk { name: &format!("{name}.qcow2"), format: "qcow2", keep };
        Self::start(image, &disk, Some(&format!("{name}.state")))
    }

    /// The directory that host and machine share.
    pub(crate) fn share(&self) -> PathBuf {
        self.scratch.join("share")
    }

    /// The agent's output up to one of these words. The error has the output that came instead.
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

    /// Waits until a machine has booted.
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

    /// Gives an order to the agent. Panics if it fails.
    pub(crate) fn must(&mut self, order: &str, limit: Duration) {
        self.order(order, limit).unwrap_or_else(|error| panic!("the machine was told '{order}': {error}"));
    }

    /// The last lines of the machine's console and of QEMU.
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

    /// Keeps the machine's memory as the state `name`, and ends the machine.
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

/// One run of a command, and its machine.
pub(crate) struct Run<'a> {
    /// The release.
    pub(crate) suite: &'a str,
    /// The AFS client that is loaded.
    pub(crate) client: Client,
    pub(crate) command: &'a str,
    /// The directory of the product that is installed first. None for a machine without it.
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

/// Prints the progress of a command, line by line, until it has ended.
fn show_progress(output: &Path, over: &AtomicBool) {
    let mut shown = 0;
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(500));
        let text = fs::read(output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        // An incomplete line is printed next time.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter_map(|line| line.strip_prefix(PROGRESS));
        for line in lines.skip(shown) {
            println!("  {line}");
            shown += 1;
        }
    }
}

/// Resumes a machine and runs the command.
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
    // The last one is for the benchmark, and is built only for that.
    for program in programs.into_iter().filter(|name| *name != "libpam_empty.so" || run.programs.join(name).exists()) {
        crate::shell::run(Command::new("strip").arg("-o").arg(bin.join(program)).arg(run.programs.join(program)));
    }
    sh(&format!("tar -cf '{s}/programs.tar' -C '{}' .", bin.display()));
    if let Some(product) = run.product {
        // As files of root, since another user may have built them.
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

/// The arguments of `cargo xtask vm`.
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

/// Runs a command. True if it ended well.
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
