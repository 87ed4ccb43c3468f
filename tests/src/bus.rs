//! The sandbox's own system bus, with the shipped policy, the helper under test, and users that call it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use zbus::object_server::SignalEmitter;
use zbus::{ObjectPath, interface};

use crate::sandbox::{eventually, own_program};

const SOCKET: &str = "/run/dbus/system_bus_socket";
/// The host's object.
pub const HOST: &str = "/org/pam_pag/Pag1";
/// Its interface.
pub const MANAGER: &str = "org.pam_pag.Pag1.Manager";
/// The interface of a PAG's object.
pub const PAG: &str = "org.pam_pag.Pag1.Pag";
/// See the D-Bus specification.
pub const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// See the D-Bus specification.
pub const OBJECTS: &str = "org.freedesktop.DBus.ObjectManager";

/// A file or directory that xtask passes in this environment variable.
fn given(variable: &str) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set")).into()
}

/// A bus as distributions configure it (system.conf of dbus-daemon), with our policy file. Root may also own the
/// names of polkit, systemd and logind.
pub struct Bus(Child);

impl Bus {
    /// Starts the bus and waits until it listens.
    pub fn start() -> Self {
        let policy = given("PAG_UNITS").join("usr/share/dbus-1/system.d/org.pam_pag.Pag1.conf");
        let others = ["org.freedesktop.PolicyKit1", "org.freedesktop.systemd1", "org.freedesktop.login1"];
        let stand_ins: String =
            others.iter().map(|name| format!("<allow own=\"{name}\"/><allow send_destination=\"{name}\"/>")).collect();
        let config = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"\n \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig>\n\
             <type>system</type>\n<auth>EXTERNAL</auth>\n<listen>unix:path={SOCKET}</listen>\n\
             <policy context=\"default\">\n<allow user=\"*\"/><deny own=\"*\"/><deny send_type=\"method_call\"/>\n\
             <allow send_type=\"signal\"/>\n<allow send_requested_reply=\"true\" send_type=\"method_return\"/>\n\
             <allow send_requested_reply=\"true\" send_type=\"error\"/>\n<allow receive_type=\"method_call\"/>\n\
             <allow receive_type=\"method_return\"/><allow receive_type=\"error\"/><allow receive_type=\"signal\"/>\n\
             <allow send_destination=\"org.freedesktop.DBus\" send_interface=\"org.freedesktop.DBus\"/>\n</policy>\n\
             <include>{}</include>\n<policy user=\"root\">{stand_ins}</policy>\n</busconfig>\n",
            policy.display()
        );
        fs::create_dir_all("/run/dbus").unwrap();
        fs::remove_file(SOCKET).ok();
        fs::write("/run/dbus/bus.conf", config).unwrap();
        let daemon = Command::new("dbus-daemon")
            .args(["--config-file=/run/dbus/bus.conf", "--nofork", "--nopidfile"])
            .stdin(Stdio::null())
            // The bus logs each call that it refuses.
            .stderr(fs::File::create("/run/dbus/log").unwrap())
            .spawn()
            .expect("dbus-daemon");
        eventually("the bus listens", Duration::from_secs(10), || {
            std::os::unix::net::UnixStream::connect(SOCKET).is_ok().then_some(())
        });
        Bus(daemon)
    }

    /// Ends the bus.
    pub fn stop(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        fs::remove_file(SOCKET).ok();
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The helper under test.
pub struct Helper(Child);

impl Helper {
    /// Starts the helper without waiting for anything.
    pub fn start() -> Self {
        Helper(Command::new(given("PAG_HELPER")).stdin(Stdio::null()).spawn().expect("the helper"))
    }

    /// Starts the helper under strace with these options, and waits until it serves. strace ends with the helper.
    pub fn traced(options: &[&str]) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-D", "-f", "-qq", "-o", "/dev/null"]).args(options).arg(given("PAG_HELPER"));
        let mut helper = Helper(strace.stdin(Stdio::null()).spawn().expect("strace"));
        helper.serves();
        helper
    }

    /// Starts the helper and waits until it serves.
    pub fn serving() -> Self {
        let mut helper = Self::start();
        helper.serves();
        helper
    }

    /// Waits until it serves.
    pub fn serves(&mut self) {
        eventually("the helper serves its name", Duration::from_secs(20), || {
            self.lives();
            let answer = Caller::once(0, &["call", HOST, "org.freedesktop.DBus.Peer", "Ping"]);
            (answer["error"] == Value::Null).then_some(())
        });
    }

    /// Fails if the helper has ended.
    pub fn lives(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "the helper is there");
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// A number from `/proc/PID/status`, such as VmRSS in KiB.
    pub fn status(&self, field: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// `setpriv` for a program that runs as `uid`.
pub fn as_user(uid: u32) -> Command {
    let mut command = Command::new("setpriv");
    let word = uid.to_string();
    command.args(["--reuid", &word, "--regid", &word, "--clear-groups"]);
    command
}

/// A user on the bus (see `pag-buscaller`).
pub struct Caller {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The user's unique name on the bus.
    pub name: String,
}

impl Caller {
    /// Connects.
    pub fn new(uid: u32) -> Self {
        let mut child = as_user(uid)
            .arg(own_program("pag-buscaller"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("pag-buscaller");
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let hello: Value = serde_json::from_str(&line).expect("a caller that has connected");
        Caller { child, input, output, name: hello["name"].as_str().unwrap().to_owned() }
    }

    /// Connects, runs one line and ends.
    pub fn once(uid: u32, words: &[&str]) -> Value {
        let output = as_user(uid).arg(own_program("pag-buscaller")).args(words).stderr(Stdio::null()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| serde_json::json!({ "error": "no bus" }))
    }

    /// Writes a line without waiting for the answer.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// The next answer.
    pub fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the caller has ended"))
    }

    /// Writes a line and returns the answer.
    pub fn say(&mut self, line: &str) -> Value {
        self.tell(line);
        self.answer()
    }

    /// Calls a method of the host and returns the whole answer.
    pub fn manager(&mut self, call: &str) -> Value {
        self.say(&format!("call {HOST} {MANAGER} {call}"))
    }

    /// Calls a method of the host that must succeed.
    pub fn ok(&mut self, call: &str) -> Value {
        let answer = self.manager(call);
        assert_eq!(answer["error"], Value::Null, "{call}: {answer}");
        answer["ok"].clone()
    }

    /// Calls a method of the host that must be refused. Returns the last word of the error's name.
    pub fn refused(&mut self, call: &str) -> String {
        error(&self.manager(call))
    }

    /// The properties of a PAG.
    pub fn properties(&mut self, id: &str) -> Value {
        self.say(&format!("call {HOST}/pag/{id} {PROPERTIES} GetAll {PAG}"))
    }

    /// The ids of the PAGs that the user sees.
    pub fn pags(&mut self) -> Vec<String> {
        let list = self.ok("ListPags");
        list.as_array().unwrap().iter().map(|line| line[0].as_str().unwrap().to_owned()).collect()
    }

    /// The helper's signals that have come, or come within so many milliseconds, as member and object.
    pub fn signals(&mut self, millis: u64) -> Vec<Value> {
        let all = self.say(&format!("signals {millis}"));
        let ours = |signal: &&Value| signal["sender"] != "org.freedesktop.DBus";
        all.as_array().unwrap().iter().filter(ours).cloned().collect()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The last word of an error's name. Panics if the answer is no error.
pub fn error(answer: &Value) -> String {
    let name = answer["error"].as_str().unwrap_or_else(|| panic!("no error: {answer}"));
    name.rsplit('.').next().unwrap().to_owned()
}

/// Serves `object` at `path` under `name`, in a thread, until the test ends.
fn stand_in<I: zbus::object_server::Interface>(name: &'static str, path: &'static str, object: I) {
    let (ready, waits) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        zbus::block_on(async {
            let served = zbus::connection::Builder::system().serve_at(path, object).name(name).build().await.unwrap();
            ready.send(()).unwrap();
            served.closed().await;
        });
    });
    waits.recv_timeout(Duration::from_secs(10)).expect("a stand-in on the bus");
}

/// A stand-in for polkit: what it will answer, and the questions that it got.
#[derive(Debug, Default)]
pub struct Polkit {
    /// Granted, and whether it would have to ask.
    pub answer: (bool, bool),
    /// If set: it answers once this file exists.
    pub waits_for: Option<&'static str>,
    /// Each question: the subject, the action and the flags.
    pub asked: Vec<(String, String, u32)>,
}

struct PolkitObject(Arc<Mutex<Polkit>>);

#[interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl PolkitObject {
    async fn check_authorization(
        &self,
        subject: (String, std::collections::HashMap<String, zbus::OwnedVariant>),
        action_id: String,
        _details: std::collections::HashMap<String, String>,
        flags: u32,
        _cancellation_id: String,
    ) -> (bool, bool, std::collections::HashMap<String, String>) {
        let (kind, details) = subject;
        assert_eq!(kind, "system-bus-name");
        let name: &str = details["name"].downcast_ref().unwrap();
        let gate = {
            let mut polkit = self.0.lock().unwrap();
            polkit.asked.push((name.to_owned(), action_id, flags));
            polkit.waits_for
        };
        while gate.is_some_and(|path| !crate::sandbox::exists(path)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let (granted, challenge) = self.0.lock().unwrap().answer;
        (granted, challenge, std::collections::HashMap::new())
    }
}

/// Starts a polkit that refuses everything until the test says otherwise.
pub fn polkit() -> Arc<Mutex<Polkit>> {
    let polkit = Arc::new(Mutex::new(Polkit::default()));
    stand_in("org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority", PolkitObject(Arc::clone(&polkit)));
    polkit
}

struct SystemdObject<F>(F);

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl<F: Fn(&str) -> bool + Send + Sync + 'static> SystemdObject<F> {
    async fn start_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> ObjectPath<'static> {
        let job = ObjectPath::from_static_str_unchecked("/org/freedesktop/systemd1/job/7");
        let result = if (self.0)(&name) { "done" } else { "failed" };
        Self::job_removed(&emitter, 7, job.clone(), &name, result).await.unwrap();
        job
    }

    /// Whichever: see [`systemd_with_manager`].
    async fn get_unit(&self, _name: &str) -> ObjectPath<'static> {
        ObjectPath::from_static_str_unchecked(MANAGER_UNIT)
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

/// Starts a systemd that runs each unit by calling `run`, which returns whether it succeeded.
pub fn systemd(run: impl Fn(&str) -> bool + Send + Sync + 'static) {
    stand_in("org.freedesktop.systemd1", "/org/freedesktop/systemd1", SystemdObject(run));
}

/// The object of the one unit that [`systemd_with_manager`] has.
const MANAGER_UNIT: &str = "/org/freedesktop/systemd1/unit/user_40manager_2eservice";

struct UnitObject;

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl UnitObject {
    #[zbus(property)]
    async fn active_state(&self) -> String {
        "active".to_owned()
    }
}

struct ServiceObject(u32);

#[interface(name = "org.freedesktop.systemd1.Service")]
impl ServiceObject {
    #[zbus(property, name = "MainPID")]
    async fn main_pid(&self) -> u32 {
        self.0
    }
}

/// Starts a systemd that names this process as the manager of every user.
pub fn systemd_with_manager(pid: u32) {
    let (ready, waits) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        zbus::block_on(async {
            let served = zbus::connection::Builder::system()
                .serve_at("/org/freedesktop/systemd1", SystemdObject(|_: &str| true))
                .serve_at(MANAGER_UNIT, UnitObject)
                .serve_at(MANAGER_UNIT, ServiceObject(pid))
                .name("org.freedesktop.systemd1")
                .build()
                .await
                .unwrap();
            ready.send(()).unwrap();
            served.closed().await;
        });
    });
    waits.recv_timeout(Duration::from_secs(10)).expect("a stand-in on the bus");
}

struct LogindObject;

#[interface(name = "org.freedesktop.login1.Manager")]
impl LogindObject {
    #[zbus(name = "GetSessionByPID")]
    async fn get_session_by_pid(&self, _pid: u32) -> ObjectPath<'static> {
        ObjectPath::from_static_str_unchecked("/org/freedesktop/login1/session/_31")
    }
}

struct SessionObject(u32);

#[interface(name = "org.freedesktop.login1.Session")]
impl SessionObject {
    #[zbus(property)]
    async fn leader(&self) -> u32 {
        self.0
    }
}

/// Starts a logind that puts every process into the session of this leader.
pub fn logind(leader: u32) {
    let (ready, waits) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        zbus::block_on(async {
            let served = zbus::connection::Builder::system()
                .serve_at("/org/freedesktop/login1", LogindObject)
                .serve_at("/org/freedesktop/login1/session/_31", SessionObject(leader))
                .name("org.freedesktop.login1")
                .build()
                .await
                .unwrap();
            ready.send(()).unwrap();
            served.closed().await;
        });
    });
    waits.recv_timeout(Duration::from_secs(10)).expect("a stand-in on the bus");
}

/// Runs `pagctl` as a user. Returns its status and its output.
pub fn pagctl(uid: u32, words: &[&str]) -> (Option<i32>, String) {
    let output = as_user(uid).arg(crate::sandbox::pagctl()).args(words).stdin(Stdio::null()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

/// What each of our programs answers `--version`.
pub fn versions() -> Vec<String> {
    let helper = given("PAG_HELPER");
    let beside = ["pag-logind-helper", "pag-seed", "pag-keytab", "pag-ccache"].map(|name| helper.with_file_name(name));
    let told = |program: &PathBuf| {
        let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{} tells its version: {output:?}",
            program.display()
        );
        String::from_utf8(output.stdout).unwrap()
    };
    beside.iter().chain([&crate::sandbox::pagctl()]).map(told).collect()
}

/// The program `pag-seed`, beside the helper.
pub fn pag_seed() -> PathBuf {
    let path = given("PAG_HELPER").with_file_name("pag-seed");
    assert_ne!(fs::metadata(&path).expect("pag-seed").permissions().mode() & 0o111, 0);
    path
}
