//! Apache with mod_pag: each request is served in its user's PAG. Its handlers and its bodies are those of a module of the
//! tests, which tells by the token of the thread who looks at a path, reads a body or closes a file.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::apache::{Answer, Client, Server, WWW_DATA, get, page, prepare, refused};
use crate::sandbox::{Sandbox, eventually, key_count, reap};

pub(super) const ALICE: Option<&str> = Some("alice");
pub(super) const BOB: Option<&str> = Some("bob");

/// Users have their own PAG below /own, and requests below /open need no user. Nothing is said of /off.
pub(super) const LOCATIONS: &str = "
<Location /own>
  AuthType Lab
  AuthName lab
  Require valid-user
  PagEnable On
  PagCells example.test
</Location>
<Location /open>
  PagEnable On
</Location>
<LocationMatch ^/(own|open|off|late)/whoami>
  SetHandler lab-whoami
</LocationMatch>
<LocationMatch ^/(own|open|off)/readers>
  SetHandler lab-readers
</LocationMatch>
<LocationMatch ^/(own|open|off)/redirect>
  SetHandler lab-redirect
</LocationMatch>
<Location /own/ring>
  SetHandler lab-ring
</Location>
<Location /own/suspend>
  SetHandler lab-suspend
</Location>
";

/// Prints the identity of the program: at once, and into a file once its server's request has ended.
const CGI: &str = "#!/bin/sh
who() { key=$(keyctl search @s user afs@example.test 2>/dev/null) && keyctl print $key | cut -d' ' -f1 || echo nobody; }
printf 'Content-Type: text/plain\\n\\n'
who
[ -z \"$QUERY_STRING\" ] || {
  (
    while [ ! -e /run/request.ended ]; do sleep 0.05; done
    who > /run/apache/new.$QUERY_STRING && mv /run/apache/new.$QUERY_STRING /run/apache/later.$QUERY_STRING
  ) </dev/null >/dev/null 2>&1 &
}
";

/// Tries to get at another user's PAG, by the number of its ring, at the server and at the ticket, and prints what worked.
const HOSTILE: &str = "#!/bin/sh
ring=$QUERY_STRING
printf 'Content-Type: text/plain\\n\\n'
try() { keyctl \"$@\" >/dev/null 2>&1 && echo \"can $*\"; }
try rlist $ring; try rdescribe $ring; try search $ring user afs@example.test; try link $ring @s; try link $ring @p
try add user afs@example.test evil $ring; try setperm $ring 0x3f3f3f3f; try clear $ring; try timeout $ring 1
try revoke $ring; grep ' keyring *pag:' /proc/keys | grep -v \"^$(printf %08x $(keyctl id @s))\"; try invalidate $ring
works() { what=$1; shift; \"$@\" >/dev/null 2>&1 && echo \"can $what\"; }
works 'see the memory of the server' cat /proc/$PPID/maps
works 'read the memory of the server' head -c 1 /proc/$PPID/mem
works 'read the environment of the server' cat /proc/$PPID/environ
works 'see the files of the server' ls /proc/$PPID/fd/
works 'enter the namespaces of the server' ls -L /proc/$PPID/ns/mnt
works 'write to the log of the server' sh -c 'echo >> /run/apache/error.log'
works 'signal the server' kill -0 $PPID
works 'read the ticket' cat /run/cc/bob
echo tried
";

pub(super) fn serve(sandbox: &Sandbox) {
    prepare(sandbox);
    std::os::unix::fs::chown("/run/apache", Some(WWW_DATA), None).unwrap();
    for place in ["own", "open", "off", "late"] {
        page(&format!("{place}/id.cgi"), CGI, 0o755);
        page(&format!("{place}/page.txt"), "a page\n", 0o644);
    }
}

fn principal(user: Option<&str>) -> String {
    user.map_or_else(|| "nobody".to_owned(), |user| format!("{user}@EXAMPLE.TEST"))
}

/// Fails unless each line of a body, of whatever length, was read by `user`.
fn assert_read_by(what: &str, user: Option<&str>, body: &str) {
    let who = principal(user);
    let other = body.lines().find(|line| !line.is_empty() && line.trim() != who && line.len() == 63);
    assert!(other.is_none(), "{what}: a body of {who} was read by {}", other.unwrap_or_default().trim());
}

/// One request of a mix: fails unless its answer is its user's own.
fn one_of_many(client: &mut Client, number: usize) -> Option<()> {
    let user = client.user;
    let place = if user.is_some() { "own" } else { "open" };
    let what = format!("request {number} of {}", principal(user));
    match number % 8 {
        0 => {
            let answer = client.try_get(&format!("/{place}/id.cgi"), "")?;
            assert_eq!(
                (answer.status, answer.body.trim()),
                (200, &principal(user)[..]),
                "{what}: a program's identity"
            );
        }
        1 | 2 => {
            let answer = client.try_get(&format!("/{place}/readers?200000"), "")?;
            assert_eq!((answer.status, answer.body.len()), (200, 200_000), "{what}: a long body");
            assert_read_by(&what, user, &answer.body);
        }
        3 if user.is_some() => {
            client.user = None;
            let answer = client.try_get("/own/whoami", "")?;
            client.user = user;
            assert_eq!(answer.status, 401, "{what}: without a user: {answer:?}");
        }
        4 => {
            let answer = client.try_get(&format!("/{place}/page.txt"), "")?;
            assert_eq!((answer.status, &answer.body[..]), (200, "a page\n"), "{what}: a file");
            let looked = answer.all("X-Looked");
            assert!(!looked.is_empty(), "{what}: no look at a path was seen: {answer:?}");
            assert!(looked.iter().all(|who| *who == principal(user)), "{what}: paths were looked at as {looked:?}");
        }
        _ => {
            let answer = client.try_get(&format!("/{place}/whoami"), "")?;
            assert_eq!(
                (answer.status, answer.body.trim()),
                (200, &principal(user)[..]),
                "{what}: the thread's identity"
            );
        }
    }
    Some(())
}

/// Many requests at once over 16 connections, each of one user or of none.
fn many(mpm: &str, requests: usize) {
    let server = Server::start(
        mpm,
        &format!(
            "{LOCATIONS}StartServers 2\nMaxRequestWorkers 32\nThreadsPerChild {}\n",
            if mpm == "prefork" { 1 } else { 16 }
        )
        .replace("ThreadsPerChild 1\n", ""),
    );
    let done = AtomicUsize::new(0);
    std::thread::scope(|threads| {
        for number in 0..16 {
            let done = &done;
            threads.spawn(move || {
                let user = [ALICE, BOB, None, ALICE, BOB][number % 5];
                let mut client = Client::of(user);
                for turn in 0..requests {
                    // A graceful restart closes connections between requests.
                    while one_of_many(&mut client, number + turn).is_none() {
                        client = Client::of(user);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("a third of the requests is served", Duration::from_secs(20), || {
            (done.load(Ordering::Relaxed) > requests * 16 / 3).then_some(())
        });
        server.restart_gracefully();
    });
    let time = |path: &str| {
        // Apache closes a connection after 100 requests.
        let mut client = Client::of(ALICE);
        client.get(path);
        let begun = Instant::now();
        (0..90).for_each(|_| drop(client.get(path)));
        begun.elapsed().as_micros() / 90
    };
    let (outside, inside) = (time("/off/whoami"), time("/own/whoami"));
    println!("figures: mpm_{mpm}: {outside} µs for a request outside, {inside} µs for one in a PAG");
    let log = server.log();
    assert!(
        log.contains("is served in PAG") && log.contains("of alice@EXAMPLE.TEST"),
        "the log says who is served: {log}"
    );
    server.stop();
}

pub(super) fn serves_users_at_once(sandbox: &mut Sandbox) {
    serve(sandbox);
    let before = key_count(WWW_DATA);
    many("event", 60);
    many("worker", 12);
    many("prefork", 12);
    eventually("what the servers had is released", Duration::from_secs(10), || {
        reap();
        (key_count(WWW_DATA) <= before).then_some(())
    });
}

pub(super) fn keeps_files_inside(sandbox: &mut Sandbox) {
    serve(sandbox);
    page("own/parts.shtml", "<!--#include virtual=\"/own/whoami\" -->", 0o644);
    page("own/other.shtml", "<!--#include virtual=\"/off/whoami\" -->", 0o644);
    page("own/service.shtml", "<!--#include virtual=\"/service/whoami\" -->", 0o644);
    page("open/parts.shtml", "<!--#include virtual=\"/own/whoami\" -->", 0o644);
    page("own/hostile.cgi", HOSTILE, 0o755);
    page("own/secret.txt", "a secret\n", 0o000);
    page("own/index.html", "an index\n", 0o644);
    let server = Server::start(
        "event",
        &format!(
            "{LOCATIONS}SendBufferSize 32768\nCoreDumpDirectory /run/apache\nErrorDocument 403 /off/whoami\n<Location /own/told>\nErrorDocument 404 /own/whoami\n</Location>\n\
             <Location /service>\nPagEnable On\nPagKeytab /run/no.keytab HTTP/lab@EXAMPLE.TEST\n</Location>\nDirectoryIndex index.html\nRewriteEngine On\nRewriteRule ^/short$ /own/whoami [PT]\n"
        ),
    );
    // What a slow client has not read yet when the handler is done is read inside, too.
    const LENGTH: usize = 600_000;
    let mut slow = Client::of(ALICE);
    slow.keep_little();
    slow.ask(&format!("/own/readers?{LENGTH}"), "");
    let head = slow.head().unwrap();
    assert_eq!(head.status, 200, "{head:?}");
    let mut body = slow.read(LENGTH - 40 * 8000);
    for _ in 0..40 {
        body.push_str(&slow.read(8000));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_read_by("what a slow client reads", ALICE, &body);
    server.says("lab: closed /own/readers?600000 as");
    assert!(
        server.log().contains("closed /own/readers?600000 as alice@"),
        "a request's files are closed inside its PAG: {}",
        server.log()
    );
    // The thread is out of it, and the connection goes on.
    slow.user = BOB;
    assert_eq!(slow.get("/own/whoami").body, "bob@EXAMPLE.TEST\n", "the next request on the connection");
    slow.user = None;
    assert_eq!(slow.get("/open/whoami").body, "nobody\n", "and one without a user");
    assert_eq!(slow.get("/off/whoami").body, "nobody\n", "and one outside of any location");

    // A client that goes away in the middle.
    let mut gone = Client::of(BOB);
    gone.ask("/own/readers?3000000", "");
    gone.read(5000);
    drop(gone);
    server.says("lab: closed /own/readers?3000000 as bob@");

    let mut alice = Client::of(ALICE);
    let part = alice.get_with("/own/readers?1000000", "Range: bytes=640000-640639\r\n");
    assert_eq!((part.status, part.body.len()), (206, 640), "a range: {part:?}");
    assert_read_by("a range", ALICE, &part.body);
    // Requests in a row, before the answer to the first.
    alice.ask("/own/readers?300000", "");
    alice.ask("/own/whoami", "");
    alice.user = None;
    alice.ask("/off/readers?300000", "");
    alice.user = BOB;
    alice.ask("/own/whoami", "");
    for (who, length) in [(ALICE, 300_000), (ALICE, 19), (None, 300_000), (BOB, 17)] {
        let head = alice.head().unwrap();
        assert_eq!(head.status, 200, "{head:?}");
        let chunked = head.all("Transfer-Encoding") == ["chunked"];
        let body = if chunked { String::new() } else { alice.read(length) };
        assert_read_by("requests in a row", who, &body);
        assert!(chunked || body.trim() != "", "requests in a row: a body");
    }

    // Parts of a request are served in its PAG. A part of another identity is refused, and so is what would be another's.
    assert_eq!(get(ALICE, "/own/parts.shtml").body, "alice@EXAMPLE.TEST\n", "a part");
    assert_eq!(get(ALICE, "/own/").body, "an index\n", "a directory's index");
    for (user, page, other) in [
        (ALICE, "/own/other.shtml", "none, since it has no PagEnable"),
        (ALICE, "/own/service.shtml", "HTTP/lab@EXAMPLE.TEST"),
        (None, "/open/parts.shtml", "the user's"),
    ] {
        let body = get(user, page).body;
        assert!(
            body.contains("an error occurred") && !body.contains('@'),
            "{page}: a part of another identity: {body}"
        );
        server.says(&format!("has another identity ({other})"));
    }
    // A redirect is a request of its own.
    assert_eq!(get(ALICE, "/own/redirect?/own/whoami").body, "alice@EXAMPLE.TEST\n", "a redirect within");
    assert_eq!(get(ALICE, "/own/redirect?/off/whoami").body, "nobody\n", "a redirect to a location without PAGs");
    assert_eq!(get(ALICE, "/off/redirect?/own/whoami").body, "alice@EXAMPLE.TEST\n", "a redirect into a PAG");
    assert_eq!(get(None, "/off/redirect?/own/whoami").status, 401, "a redirect, by no user");
    assert_eq!(get(ALICE, "/short").body, "alice@EXAMPLE.TEST\n", "a path that is rewritten into a PAG");
    let refusal = get(ALICE, "/own/secret.txt");
    assert_eq!((refusal.status, &refusal.body[..]), (403, "nobody\n"), "an error page without a PAG");
    let missing = get(BOB, "/own/told/nothing");
    assert_eq!((missing.status, &missing.body[..]), (404, "bob@EXAMPLE.TEST\n"), "an error page in the user's PAG");
    assert_eq!(get(None, "/off/whoami").body, "nobody\n", "and no thread has stayed inside");

    // Authentication is had before Apache looks at the file system, and once.
    let page = get(ALICE, "/own/page.txt");
    assert_eq!(page.all("X-Authenticated"), ["once"], "a token is accepted once: {page:?}");
    assert!(page.all("X-Looked").iter().all(|who| *who == "alice@EXAMPLE.TEST"), "a look at a path: {page:?}");
    assert!(page.all("X-Looked").len() >= 2, "looks at paths are seen: {page:?}");
    assert!(
        get(None, "/own/page.txt").all("X-Looked").is_empty(),
        "no path is looked at for a request without its user"
    );

    // A program that outlives its request stays in its user's PAG.
    for user in [ALICE, BOB] {
        let name = user.unwrap();
        assert_eq!(get(user, &format!("/own/id.cgi?{name}")).body.trim(), principal(user), "a program");
    }
    fs::write("/run/request.ended", "").unwrap();
    for user in [ALICE, BOB] {
        let path = format!("/run/apache/later.{}", user.unwrap());
        let later = eventually(&path, Duration::from_secs(10), || fs::read_to_string(&path).ok());
        assert_eq!(later.trim(), principal(user), "a program after its request");
    }

    // A program of alice's does not get at bob's PAG, although both belong to the server's uid.
    // CoreDumpDirectory has Apache open its children's memory, and mod_pag closes it.
    let ring = get(BOB, "/own/ring").body;
    let tried = get(ALICE, &format!("/own/hostile.cgi?{}", ring.trim())).body;
    let can = format!("can invalidate {}\ncan signal the server\ncan read the ticket\ntried\n", ring.trim());
    assert_eq!(tried, can, "what a program can do to another PAG");
    // It can end the PAG, as it could kill the server's processes. The PAG is then made anew. With the ticket it can make a PAG
    // of its own.
    eventually("bob is served again", Duration::from_secs(10), || {
        let body = get(BOB, "/own/whoami").body;
        assert!(["nobody\n", "bob@EXAMPLE.TEST\n"].contains(&&body[..]), "in an ended PAG: {body}");
        (get(BOB, "/own/ring").body != ring && body.starts_with("bob")).then_some(())
    });

    // A handler that would go on in another thread is cut off.
    let mut suspended = Client::of(ALICE);
    suspended.ask("/own/suspend", "");
    server.says("its handler has suspended it");
    assert_eq!(get(None, "/off/whoami").body, "nobody\n", "the thread has left");
    server.stop();
}

/// Fails unless an answer is 503, and the log says these words.
pub(super) fn assert_refused(server: &Server, what: &str, answer: &Answer, words: &str) {
    assert_eq!(answer.status, 503, "{what}: {answer:?}");
    assert!(!answer.body.contains("EXAMPLE.TEST"), "{what}: the answer is no content: {answer:?}");
    server.says(words);
}

pub(super) fn serves_by_keytab(sandbox: &mut Sandbox) {
    serve(sandbox);
    let keytab = "/run/web.keytab web@EXAMPLE.TEST";
    let server = Server::start(
        "event",
        &format!(
            "{LOCATIONS}StartServers 1\nServerLimit 1\nMaxRequestWorkers 25\n\
             <Location /service>\nPagEnable On\nPagKeytab {keytab}\n</Location>\n\
             <Location /service/whoami>\nSetHandler lab-whoami\n</Location>\n\
             <Location /default>\nPagEnable On\nPagDefault {keytab}\n</Location>\n\
             <Location /default/whoami>\nSetHandler lab-whoami\n</Location>\n\
             <Location /service/own>\nAuthType Lab\nAuthName lab\nRequire valid-user\nPagCcache env\nSetHandler lab-whoami\n</Location>\n"
        ),
    );
    server.says(concat!("mod_pag/", env!("CARGO_PKG_VERSION"), " configured"));
    std::thread::scope(|threads| {
        for (path, user, who) in [
            ("/service/whoami", None, "web@EXAMPLE.TEST"),
            ("/service/whoami", ALICE, "web@EXAMPLE.TEST"),
            ("/default/whoami", None, "web@EXAMPLE.TEST"),
            ("/service/own", ALICE, "alice@EXAMPLE.TEST"),
            ("/own/whoami", BOB, "bob@EXAMPLE.TEST"),
            ("/open/whoami", None, "nobody"),
        ] {
            threads.spawn(move || {
                let mut client = Client::of(user);
                for _ in 0..20 {
                    let answer = client.get(path);
                    assert_eq!((answer.status, answer.body.trim()), (200, who), "{path} by {user:?}");
                }
            });
        }
    });
    assert_eq!(server.log().matches("web@EXAMPLE.TEST is made from keytab").count(), 1, "one PAG for one keytab");
    server.stop();
}

pub(super) fn refuses_with_a_line(sandbox: &mut Sandbox) {
    serve(sandbox);
    // Before it starts.
    let text = refused("event", &format!("LoadModule cgid_module /usr/lib/apache2/modules/mod_cgid.so\n{LOCATIONS}"));
    assert!(text.contains("PagEnable and mod_cgid.c exclude each other"), "mod_cgid: {text}");
    let text = refused(
        "event",
        &format!("LoadModule http2_module /usr/lib/apache2/modules/mod_http2.so\nProtocols h2c http/1.1\n{LOCATIONS}"),
    );
    assert!(text.contains("PagEnable and the protocol h2c exclude each other"), "HTTP/2: {text}");
    let text = refused("event", "<Directory /run/www>\nPagEnable On\n</Directory>\n");
    assert!(text.contains("PagEnable belongs into a <Location>"), "a directory: {text}");
    let text = refused("event", "PagMax 0\n");
    assert!(text.contains("PagMax: '0' is no number from 1"), "a number: {text}");

    let server = Server::start(
        "event",
        &format!(
            "{LOCATIONS}PagMax 1\nPagIdle 1\nStartServers 1\nServerLimit 1\nMaxRequestWorkers 25\nThreadsPerChild 25\n\
             <Location /late>\nPagEnable On\n</Location>\n<Location /status>\nSetHandler pag-status\n</Location>\n\
             <Directory /run/www/late>\nAuthType Lab\nAuthName lab\nRequire valid-user\n</Directory>\n"
        ),
    );
    let answer = Client::of(ALICE).get_with("/own/whoami", "X-Delegates: no\r\n");
    assert_refused(
        &server,
        "no delegation",
        &answer,
        "no PAG for alice, so the answer is 503: KRB5CCNAME is not set for this request",
    );
    assert_refused(
        &server,
        "late authentication",
        &get(ALICE, "/late/whoami"),
        "stand in a <Directory> or a .htaccess, where they come too late",
    );
    fs::write("/run/seeder.fails", "").unwrap();
    assert_refused(
        &server,
        "a seeder that fails",
        &get(ALICE, "/own/whoami"),
        "no PAG for alice@EXAMPLE.TEST (FILE:/run/cc/alice), so the answer is 503",
    );
    assert_eq!(get(None, "/open/whoami").body, "nobody\n", "requests without identity are served");
    fs::remove_file("/run/seeder.fails").unwrap();
    eventually("alice is served again", Duration::from_secs(10), || {
        let answer = get(ALICE, "/own/whoami");
        (answer.body == "alice@EXAMPLE.TEST\n").then_some(())
    });

    // One PAG at a time, and two users at once.
    std::thread::scope(|threads| {
        for user in [ALICE, BOB, ALICE, BOB] {
            threads.spawn(move || {
                let mut client = Client::of(user);
                for _ in 0..10 {
                    let answer = client.get("/own/whoami");
                    assert_eq!((answer.status, answer.body.trim()), (200, &principal(user)[..]), "with PagMax 1");
                }
            });
        }
    });
    let status = get(None, "/status?auto").body;
    assert!(
        status.contains(" pags 1 max 1\n") && status.contains("@EXAMPLE.TEST from FILE:/run/cc/"),
        "the status page: {status}"
    );
    assert!(get(None, "/status").body.contains("<td>FILE:/run/cc/"), "the status page for people");
    server.says("is ended: another identity needs its place (PagMax)");
    server.says("is ended: it was not used for the time of PagIdle");
    assert!(get(None, "/status?auto").body.contains(" pags 0 max 1\n"), "an idle PAG is ended");

    server.stop();

    // A token that ends soon is renewed by the next request. One that has ended is never used.
    let server = Server::start("event", &format!("{LOCATIONS}StartServers 1\nServerLimit 1\nMaxRequestWorkers 25\n"));
    fs::write("/run/seeder.life", "2").unwrap();
    assert_eq!(get(ALICE, "/own/whoami").body, "alice@EXAMPLE.TEST\n");
    std::thread::sleep(Duration::from_millis(2100));
    fs::write("/run/seeder.fails", "").unwrap();
    assert_refused(&server, "a token that has ended", &get(ALICE, "/own/whoami"), "no PAG for alice@EXAMPLE.TEST");
    fs::remove_file("/run/seeder.fails").unwrap();
    fs::write("/run/seeder.life", "200").unwrap();
    eventually("alice is served again", Duration::from_secs(10), || {
        (get(ALICE, "/own/whoami").body == "alice@EXAMPLE.TEST\n").then_some(())
    });
    server.says("of alice@EXAMPLE.TEST is renewed from FILE:/run/cc/alice");
    server.stop();
}
