//! Apache httpd with mod_pag, in the sandbox of tier 1, and a small HTTP client for it.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::sandbox::{Sandbox, eventually};
use crate::ticket;

/// Where it listens. Sandboxes share the host's network, and only one runs at a time.
const ADDRESS: &str = "127.0.0.1:61080";

/// The uid of its children.
pub const WWW_DATA: u32 = 33;

/// The server's aklog: the principal is that of the ccache, and its ticket must be good. It fails, hangs for a principal, and
/// makes short tokens as a test says.
const SEEDER: &str = "#!/bin/sh
[ -e /run/seeder.fails ] && exit 1
klist -s || exit 1
echo \"$$ $KRB5CCNAME $*\" >> /run/seeder.log
who=$(klist 2>/dev/null | sed -n 's/^Default principal: //p')
grep -qsx \"$who\" /run/seeder.hangs && exec sleep 600
expires=$(($(date +%s) + $(cat /run/seeder.life 2>/dev/null || echo 3600)))
exec keyctl add user afs@example.test \"$who $expires\" @s >/dev/null
";

/// What all servers of the tests have. The modules' directory is Debian's.
const BASE: &str = "
ServerRoot /run/apache
ServerName localhost
Listen 127.0.0.1:61080
PidFile /run/apache/pid
DefaultRuntimeDir /run/apache
Mutex pthread
User www-data
Group www-data
ErrorLog /run/apache/error.log
LogLevel warn pag:info pag_lab:info
DocumentRoot /run/www
AccessFileName .htaccess
Timeout 20
KeepAliveTimeout 5
GracefulShutdownTimeout 10
TypesConfig /dev/null
<Directory /run/www>
  AllowOverride All
  Options +ExecCGI +Includes
  AddHandler cgi-script .cgi
  AddOutputFilter INCLUDES .shtml
</Directory>
<Location /readers>
  SetHandler lab-readers
</Location>
";

/// The modules that it loads, beside the MPM.
const MODULES: &str =
    "authn_core authz_core authz_user authz_host alias rewrite mime dir include cgi env setenvif userdir";

/// A running server.
pub struct Server {
    child: Child,
}

/// The directory with the modules and the library.
fn built() -> PathBuf {
    std::env::var_os("PAG_APACHE").expect("PAG_APACHE names what is under test").into()
}

/// Stands in for kinit, since tier 1 has no KDC: what a keytab would get lies in /run/cc. The words are kinit's.
const KINIT: &str = "#!/bin/sh
[ -e /run/kdc.away ] && echo \"kinit: Cannot contact any KDC for realm 'EXAMPLE.TEST'\" >&2 && exit 1
[ \"$1 $2\" = '-k -t' ] && exec cp \"/run/cc/${5%%@*}\" \"${KRB5CCNAME#FILE:}\"
";

/// Lays out what the server serves, and the seeder. Tickets of alice and bob are where a server would keep them. The
/// administrator who starts the server has a token.
pub fn prepare(sandbox: &Sandbox) {
    sandbox.seeder(SEEDER);
    let script = "keyctl add user afs@example.test 'root@EXAMPLE.TEST 4000000000' @s >/dev/null\n\
                  chmod 755 /run/kinit && mount --bind /run/kinit /usr/bin/kinit";
    fs::write("/run/kinit", KINIT).unwrap();
    assert!(Command::new("sh").args(["-ec", script]).status().unwrap().success(), "{script}");
    for directory in ["/run/apache", "/run/cc", "/run/www", "/run/www/files"] {
        fs::create_dir_all(directory).unwrap();
    }
    for user in ["alice", "bob", "web"] {
        delegated(user);
    }
    fs::write("/run/www/page.txt", "a page\n").unwrap();
}

/// Puts a ticket where mod_auth_gssapi would have put it for a user who delegated one.
pub fn delegated(user: &str) {
    ticket::write(&format!("/run/cc/{user}"), WWW_DATA, user, "EXAMPLE.TEST", ticket::now() + 3600);
}

/// Writes a file that the server serves.
pub fn page(name: &str, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let path = format!("/run/www/{name}");
    fs::create_dir_all(PathBuf::from(&path).parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn command(mpm: &str, configuration: &str) -> Command {
    let load = |name: &str| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
    let modules: String = format!("mpm_{mpm} {MODULES}").split_whitespace().map(load).collect();
    let ours = format!(
        "LoadModule pag_module {}\nLoadModule pag_lab_module {}\n",
        built().join("mod_pag.so").display(),
        built().join("mod_pag_lab.so").display()
    );
    fs::write("/run/apache/httpd.conf", format!("{modules}{ours}{BASE}{configuration}")).unwrap();
    let mut command = Command::new("apache2");
    command.args(["-DFOREGROUND", "-f", "/run/apache/httpd.conf"]);
    command.env("LD_LIBRARY_PATH", built()).stdin(Stdio::null());
    // It signals its whole group when it ends.
    command.process_group(0);
    command
}

/// What a server says that must not start.
pub fn refused(mpm: &str, configuration: &str) -> String {
    let _ = fs::remove_file("/run/apache/error.log");
    let child = command(mpm, configuration).stderr(Stdio::piped()).spawn().unwrap();
    let mut server = Server { child };
    let status = eventually("Apache says no, or serves", Duration::from_secs(10), || {
        let ended = server.child.try_wait().unwrap();
        ended.map(Some).or_else(|| server.log().contains("resuming normal operations").then_some(None))
    });
    assert!(status.is_some_and(|status| !status.success()), "the server starts");
    let mut text = String::new();
    server.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text + &server.log()
}

impl Server {
    /// Starts a server with an MPM (event, worker, prefork) and more lines of configuration.
    pub fn start(mpm: &str, configuration: &str) -> Self {
        let _ = fs::remove_file("/run/apache/error.log");
        let child = command(mpm, configuration).stderr(Stdio::inherit()).spawn().unwrap();
        let server = Server { child };
        eventually("Apache listens", Duration::from_secs(10), || TcpStream::connect(ADDRESS).ok());
        server
    }

    /// Has it take new children. Those that serve a request end after it.
    pub fn restart_gracefully(&self) {
        signal(self.child.id(), "USR1");
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        fs::read_to_string("/run/apache/error.log").unwrap_or_default()
    }

    /// Waits until its log says these words.
    pub fn says(&self, words: &str) {
        eventually(&format!("the log says '{words}'"), Duration::from_secs(10), || {
            self.log().contains(words).then_some(())
        });
    }

    /// Ends it, and fails unless it was there until now. It is idle then: mpm_event does not wait for its threads when it is
    /// stopped (server/mpm/event/event.c, child_main), and exit(3) unloads Apache's modules under one that still works.
    pub fn stop(mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "Apache has died: {}", self.log());
        let mut idle = 0;
        eventually("Apache is idle", Duration::from_secs(10), || {
            idle = if all_sleep_below(self.child.id()) { idle + 1 } else { 0 };
            (idle == 3).then_some(())
        });
        signal(self.child.id(), "TERM");
        self.child.wait().unwrap();
        let log = self.log();
        assert!(!log.contains("Segmentation") && !log.contains("exit signal"), "a child has crashed: {log}");
    }
}

/// Whether each thread of the children of a process sleeps.
fn all_sleep_below(parent: u32) -> bool {
    let field = |stat: &str, number: usize| {
        let behind_name = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        behind_name.split(' ').nth(number).map(str::to_owned)
    };
    let of = |path: &Path| fs::read_to_string(path.join("stat")).unwrap_or_default();
    let is_child = |path: &PathBuf| field(&of(path), 1) == Some(parent.to_string());
    let below = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut threads = below(Path::new("/proc")).filter(is_child).flat_map(|child| below(&child.join("task")));
    threads.all(|thread| field(&of(&thread), 0).is_some_and(|state| state == "S"))
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> =
                log.lines().filter(|line| !line.contains("lab: closed") && !line.contains(" is served in ")).collect();
            eprintln!("Apache: {:?}", self.child.try_wait());
            eprintln!("--- the end of Apache's log\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            signal(self.child.id(), "TERM");
            let _ = self.child.wait();
        }
    }
}

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -s {name} {pid}");
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.flat_map(|(_, value)| value.split(", ")).collect()
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}

/// A connection to the server, which it keeps from request to request.
pub struct Client {
    stream: BufReader<TcpStream>,
    /// The user that the requests name; none for requests without authentication.
    pub user: Option<&'static str>,
}

impl Client {
    /// Connects.
    pub fn of(user: Option<&'static str>) -> Self {
        let stream = TcpStream::connect(ADDRESS).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Client { stream: BufReader::with_capacity(1024, stream), user }
    }

    /// Asks, and does not wait for the answer.
    pub fn ask(&mut self, path: &str, headers: &str) {
        let user = self.user.map_or_else(String::new, |user| format!("X-User: {user}\r\n"));
        let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{user}{headers}\r\n");
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Has the kernel keep little of what the server sends, so that the server waits for this client.
    pub fn keep_little(&self) {
        let size: libc::c_int = 32768;
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        let socket = self.stream.get_ref().as_raw_fd();
        let result =
            unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, (&raw const size).cast(), length) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// Reads so many bytes of a body.
    pub fn read(&mut self, length: usize) -> String {
        let mut text = vec![0; length];
        self.stream.read_exact(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Reads the head of an answer. `None` if the connection was closed.
    pub fn head(&mut self) -> Option<Answer> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok().filter(|length| *length > 0)?;
        let status = line.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        let mut answer = Answer {
            status: status.unwrap_or_else(|| panic!("no answer: {line}")),
            headers: Vec::new(),
            body: String::new(),
        };
        loop {
            line.clear();
            self.stream.read_line(&mut line).ok().filter(|length| *length > 0)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { return Some(answer) };
            answer.headers.push((name.to_owned(), value.to_owned()));
        }
    }

    fn body(&mut self, answer: &Answer) -> Option<String> {
        if answer.first("Transfer-Encoding") == Some("chunked") {
            let mut text = String::new();
            loop {
                let mut size = String::new();
                self.stream.read_line(&mut size).ok().filter(|length| *length > 0)?;
                let size = usize::from_str_radix(size.trim(), 16).ok()?;
                text.push_str(self.read(size + 2).trim_end_matches("\r\n"));
                if size == 0 {
                    return Some(text);
                }
            }
        }
        let length = answer.first("Content-Length").and_then(|word| word.parse().ok()).unwrap_or(0);
        Some(self.read(length))
    }

    /// One request with its answer. `None` if the server has closed the connection, which it may do between requests.
    pub fn try_get(&mut self, path: &str, headers: &str) -> Option<Answer> {
        self.ask(path, headers);
        let mut answer = self.head()?;
        answer.body = self.body(&answer)?;
        Some(answer)
    }

    /// One request with its answer.
    pub fn get(&mut self, path: &str) -> Answer {
        self.get_with(path, "")
    }

    /// The same, with more headers.
    pub fn get_with(&mut self, path: &str, headers: &str) -> Answer {
        self.try_get(path, headers).unwrap_or_else(|| panic!("no answer for {path}"))
    }
}

/// One request of a user on a connection of its own.
pub fn get(user: Option<&'static str>, path: &str) -> Answer {
    Client::of(user).get(path)
}
