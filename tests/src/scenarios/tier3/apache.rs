//! Apache with mod_pag and mod_auth_gssapi: it serves files in AFS to the users who delegate their tickets, as these users.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Client, long};
use crate::cell;
use crate::guest::{Proof, Session, eventually, key_count, patience, sh};

const SERVER: &str = "http://afs.example.test:8080";
const WWW_DATA: u32 = 33;

/// Homes by delegated tickets, a service's files by a keytab, and a program that reads what it is asked for.
const CONFIGURATION: &str = r#"
ServerRoot /run/apache
ServerName afs.example.test
Listen 10.99.0.10:8080
PidFile /run/apache/pid
DefaultRuntimeDir /run/apache
Mutex pthread
User www-data
Group www-data
ErrorLog /run/apache/error.log
LogLevel warn pag:info
DocumentRoot /run/www
TypesConfig /dev/null
Timeout 60
KeepAliveTimeout 60
StartServers 2
PagTimeout 60
MaxRequestWorkers 50
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authn_core_module /usr/lib/apache2/modules/mod_authn_core.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule authz_user_module /usr/lib/apache2/modules/mod_authz_user.so
LoadModule auth_gssapi_module /usr/lib/apache2/modules/mod_auth_gssapi.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule mime_module /usr/lib/apache2/modules/mod_mime.so
LoadModule cgi_module /usr/lib/apache2/modules/mod_cgi.so
LoadModule dav_module /usr/lib/apache2/modules/mod_dav.so
LoadModule dav_fs_module /usr/lib/apache2/modules/mod_dav_fs.so
LoadModule pag_module /usr/lib/apache2/modules/mod_pag.so
DavLockDB /run/apache/locks
<Directory />
  AllowOverride None
</Directory>
Alias /home /afs/example.test/user
Alias /admin /afs/example.test/admin
Alias /web /afs/example.test/web
ScriptAlias /read /run/www/read
<LocationMatch ^/(home|read|admin)>
  AuthType GSSAPI
  AuthName AFS
  GssapiCredStore keytab:/etc/http.keytab
  GssapiDelegCcacheDir /run/tickets
  GssapiConnectionBound On
  Require valid-user
  PagEnable On
</LocationMatch>
<Location /home>
  Dav On
</Location>
<Location /web>
  PagEnable On
  PagKeytab /etc/web.keytab web@EXAMPLE.TEST
</Location>
<Location /none>
  PagEnable On
</Location>
"#;

/// Reads a user's file; and both users' files, once its request has ended.
const PROGRAM: &str = "#!/bin/sh
printf 'Content-Type: text/plain\\n\\n'
read_of() { cat /afs/example.test/user/$1/secret 2>/dev/null || echo refused; }
case $QUERY_STRING in
later.*) (
	while [ ! -e /run/www/ended ]; do sleep 0.2; done
	{ read_of alice; read_of bob; } > /run/apache/new.$QUERY_STRING
	mv /run/apache/new.$QUERY_STRING /run/apache/$QUERY_STRING
) </dev/null >/dev/null 2>&1 & ;;
*) read_of $QUERY_STRING ;;
esac
";

fn start(client: Client) {
    cell::let_go_of_keys_early(client);
    sh(
        "install -d -m 755 /run/www; install -d -m 755 -o www-data /run/apache; install -d -m 700 -o www-data /run/tickets",
    );
    fs::write("/run/apache/httpd.conf", CONFIGURATION).unwrap();
    fs::write("/run/www/read", PROGRAM).unwrap();
    fs::write("/run/www/none", "for all\n").unwrap();
    sh("chmod 755 /run/www/read; systemd-run --quiet --unit=web --property=KeyringMode=private \
        /usr/sbin/apache2 -DFOREGROUND -f /run/apache/httpd.conf");
    for user in ["alice", "bob"] {
        sh(&format!("echo {user}pw | kinit -f -c FILE:/run/ticket.{user} {user}"));
    }
    eventually("Apache answers", Duration::from_secs(20), || {
        fetch("", &["/none"]).first().is_some_and(|(status, _)| *status == 200).then_some(())
    });
}

fn log() -> String {
    fs::read_to_string("/run/apache/error.log").unwrap_or_default()
}

/// curl, as a user who delegates their ticket, or as none, asks for paths one after the other on one connection.
fn curl(user: &str, paths: &[&str]) -> Child {
    curl_with(user, &[], paths)
}

fn curl_with(user: &str, options: &[&str], paths: &[&str]) -> Child {
    let mut command = Command::new("curl");
    command.args(options);
    command.args(["-s", "-f", "--negotiate", "-u", ":", "--delegation", "always", "-w", "\n=== %{http_code}\n"]);
    command.args(paths.iter().map(|path| format!("{SERVER}{path}")));
    command
        .env("KRB5CCNAME", if user.is_empty() { "FILE:/none".to_owned() } else { format!("FILE:/run/ticket.{user}") });
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}

/// The answers: status and body each.
fn answers(child: Child) -> Vec<(u16, String)> {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut all, mut body) = (Vec::new(), String::new());
    for line in text.lines() {
        match line.strip_prefix("=== ") {
            Some(status) => all.push((status.parse().unwrap(), std::mem::take(&mut body).trim().to_owned())),
            None => body.push_str(&format!("{line}\n")),
        }
    }
    all
}

fn fetch(user: &str, paths: &[&str]) -> Vec<(u16, String)> {
    answers(curl(user, paths))
}

pub(super) fn afs_apache_serves_users_at_once(client: Client) {
    let before = cell::afs_pags();
    start(client);
    // In the long form 2,000 requests of each user.
    let rounds = if long() { 42 } else { 2 };
    // Successes between refusals: after ten refusals in a row the file server answers slowly.
    let of = |user: &'static str| {
        let other = if user == "alice" { "bob" } else { "alice" };
        let secret = |name: &str| format!("a secret of {name}'s");
        let one = vec![
            (format!("/home/{user}/secret"), 200, secret(user)),
            (format!("/home/{other}/secret"), 403, String::new()),
            (format!("/read?{user}"), 200, secret(user)),
            (format!("/read?{other}"), 200, "refused".to_owned()),
            ("/web/secret".to_owned(), 200, secret("web")),
            ("/none".to_owned(), 200, "for all".to_owned()),
        ];
        (0..rounds).flat_map(|_| one.clone()).collect::<Vec<_>>()
    };
    let wanted: Vec<_> = (0..16).map(|number| ["alice", "bob"][number % 2]).map(|user| (user, of(user))).collect();
    let running: Vec<Child> = wanted
        .iter()
        .map(|(user, wanted)| curl(user, &wanted.iter().map(|(path, ..)| &path[..]).collect::<Vec<_>>()))
        .collect();
    eventually("both users are served", Duration::from_secs(60), || {
        let log = log();
        ["alice@", "bob@", "web@"]
            .iter()
            .all(|who| log.contains(&format!("of {who}EXAMPLE.TEST is made from")))
            .then_some(())
    });
    sh("kill -USR1 $(cat /run/apache/pid)");
    a_ticket_ends();
    for ((user, wanted), child) in wanted.iter().zip(running) {
        let got = answers(child);
        assert_eq!(got.len(), wanted.len(), "each request of {user} has an answer; {}", log());
        for ((path, status, body), got) in wanted.iter().zip(&got) {
            assert_eq!((*status, &body[..]), (got.0, &got.1[..]), "{path} for {user}; {}", log());
        }
    }
    let nobody = fetch("", &["/home/alice/secret", "/read?alice", "/none"]);
    let statuses: Vec<u16> = nobody.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [401, 401, 200], "without a ticket: {nobody:?}");
    programs_outlive_their_requests();
    sh("systemctl stop web");
    if client == Client::Kafs {
        // It keeps dead tokens with the permissions of directories that are mount points.
        cell::load(Client::None);
    }
    let end = Instant::now() + Duration::from_secs(10) * patience();
    while key_count(WWW_DATA) > 2 || cell::afs_pags() > before {
        assert!(Instant::now() < end, "the server's keys are gone: {}", sh("cat /proc/key-users /proc/keys"));
        sleep(Duration::from_millis(200));
    }
    let left = sh("ls /tmp");
    assert!(!left.lines().any(|name| name.starts_with("pag-")), "the service's tickets are gone: {left}");
}

/// The ticket of alice/admin ends while they use one connection: the requests are refused from then on, and a new ticket renews
/// the PAG. All this goes on beside the requests of others.
fn a_ticket_ends() {
    const SECRET: &str = "a secret of alice/admin's";
    let path = "/admin/alice/secret";
    let is_served = |answer: &(u16, String)| answer.0 == 200;
    let got = eventually("alice/admin is served before a short ticket ends", Duration::from_secs(30), || {
        sh("echo adminpw | kinit -f -l 10s -c FILE:/run/ticket.admin alice/admin");
        let got = answers(curl_with("admin", &["--rate", "60/m"], &[path; 13]));
        got.first().is_some_and(is_served).then_some(got)
    });
    let end =
        got.iter().position(|answer| !is_served(answer)).unwrap_or_else(|| panic!("the ticket has no end: {got:?}"));
    for (number, (status, body)) in got.iter().enumerate() {
        let is_right = if number < end { body == SECRET } else { [401, 403, 503].contains(status) && body.is_empty() };
        assert!(is_right, "request {number} of alice/admin, whose ticket ends at {end}: {got:?}");
    }
    assert!(log().contains("no PAG for alice/admin@EXAMPLE.TEST"), "the log says what has ended: {}", log());
    sh("echo adminpw | kinit -f -c FILE:/run/ticket.admin alice/admin");
    eventually("the PAG of alice/admin is renewed", Duration::from_secs(30), || {
        let got = fetch("admin", &[path]);
        // A failure stands for a moment.
        assert!(got[0].0 == 503 || got == [(200, SECRET.to_owned())], "with a new ticket: {got:?}");
        log().contains("of alice/admin@EXAMPLE.TEST is renewed from").then_some(())
    });
}

/// A program that goes on after its request has ended stays its user's.
fn programs_outlive_their_requests() {
    for user in ["alice", "bob"] {
        let got = fetch(user, &[&format!("/read?later.{user}"), "/none"]);
        assert_eq!(got.last(), Some(&(200, "for all".to_owned())), "a program that goes on holds up no request");
    }
    fs::write("/run/www/ended", "").unwrap();
    for (user, wanted) in [("alice", "a secret of alice's\nrefused\n"), ("bob", "refused\na secret of bob's\n")] {
        let path = format!("/run/apache/later.{user}");
        let read = eventually(&path, Duration::from_secs(20), || fs::read_to_string(&path).ok());
        assert_eq!(read, wanted, "what a program of {user}'s reads after its request");
    }
}

/// A file is read to its end inside its user's PAG, however slowly the client takes it.
pub(super) fn afs_apache_reads_no_file_outside(client: Client) {
    start(client);
    writes(client);
    // The kernel would take the whole file at once.
    sh("cd /proc/sys/net/ipv4; for size in tcp_rmem tcp_wmem; do echo 4096 16384 65536 > $size; done");
    let mut alice = Session::ssh("alice", Proof::Password);
    alice.say("head -c 6000000 /dev/urandom > ~/big");
    let sum = alice.say("sha256sum < ~/big");
    alice.log_out();
    // What the client has in its cache could be read by all.
    if client == Client::OpenAfs {
        sh("fs flushall >/dev/null 2>&1 || true");
    }
    let slow = sh(&format!(
        "export KRB5CCNAME=FILE:/run/ticket.alice; curl -s --negotiate -u : --delegation always --limit-rate 2M \
         {SERVER}/home/alice/big | sha256sum"
    ));
    assert_eq!(slow, sum, "a file that a slow client gets; {}", log());
    let part = sh(&format!(
        "export KRB5CCNAME=FILE:/run/ticket.alice; curl -s --negotiate -u : --delegation always -r 5000000-5000999 \
         {SERVER}/home/alice/big | wc -c"
    ));
    assert_eq!(part.trim(), "1000", "a part of it");
    assert_eq!(fetch("bob", &["/home/alice/big"]), [(403, String::new())], "and nothing of it for bob");
    if client == Client::OpenAfs {
        loses_its_client();
    }
    sh("systemctl stop web");
}

/// A file that a request writes is stored as its user: OpenAFS loses what is closed outside of the PAG.
fn writes(client: Client) {
    let put = |user: &str, name: &str| {
        let got = answers(curl_with(user, &["-T", "/run/page"], &[name]));
        got.first().map_or(0, |answer| answer.0)
    };
    sh("head -c 200000 /dev/urandom | base64 > /run/page");
    assert_eq!(put("alice", "/home/alice/page"), 201, "alice writes a file; {}", log());
    assert_eq!(put("bob", "/home/alice/other"), 403, "bob writes none there; {}", log());
    if client == Client::OpenAfs {
        sh("fs flushall >/dev/null 2>&1 || true");
    }
    let page = fs::read_to_string("/run/page").unwrap();
    let got = fetch("alice", &["/home/alice/page", "/home/alice/other"]);
    assert!(got.len() == 2 && got[0].0 == 200 && got[0].1 == page.trim(), "what alice has written is stored");
    assert_eq!(got[1].0, 404, "what bob has not written is not there");
}

/// The client's module is unloaded while the server runs, as for its update.
fn loses_its_client() {
    cell::load(Client::None);
    let got = fetch("", &["/web/secret"]);
    assert_eq!(got, [(503, String::new())], "a new PAG without a client; {}", log());
    let words = "no PAG for web@EXAMPLE.TEST (keytab /etc/web.keytab), so the answer is 503: cannot get a token: this host has \
        no AFS client";
    assert!(log().contains(words), "the log says why: {}", log());
    let got = fetch("alice", &["/home/alice/secret", "/none"]);
    assert!(got[0].0 != 200 && got[0].1.is_empty(), "an old PAG without a client: {got:?}");
    assert_eq!(got[1], (200, "for all".to_owned()), "what needs no client is served");
    // The new module knows nothing of the PAGs of the old one, so the server makes them anew.
    cell::load(Client::OpenAfs);
    sh("kill -USR1 $(cat /run/apache/pid)");
    eventually("alice is served by the new module", Duration::from_secs(20), || {
        let got = fetch("alice", &["/home/alice/secret"]);
        let served = got == [(200, "a secret of alice's".to_owned())];
        assert!(served || got[0].1.is_empty(), "by the new module: {got:?}");
        served.then_some(())
    });
    assert_eq!(fetch("bob", &["/home/alice/secret"])[0].0, 403, "and bob is refused");
    assert_eq!(fetch("", &["/web/secret"]), [(200, "a secret of web's".to_owned())], "the service, too");
}
