//! Apache with mod_pag while something is wrong: each fault has its line in the server's log and ends in 503, in time, and no
//! request is served under another identity.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::apache::{ALICE, BOB, LOCATIONS, assert_refused, serve};
use crate::apache::{Client, Server, WWW_DATA, delegated, get};
use crate::sandbox::{QuickCollection, Sandbox, eventually, key_count, own_tmp, patience, reap};
use crate::ticket;

const DAN: Option<&str> = Some("dan");

const MORE: &str = "
PagTimeout 2
KeepAliveTimeout 60
SendBufferSize 32768
StartServers 1
ServerLimit 1
MaxRequestWorkers 25
<Location /service>
  PagEnable On
  PagKeytab /run/web.keytab web@EXAMPLE.TEST
  SetHandler lab-whoami
</Location>
";

/// A process of the server's uid that takes all that is left of the uid's quota for keys, until it ends.
struct Hog(Child);

impl Hog {
    fn begin() -> Self {
        let script = "for size in 8000 2000 500 100 25 6 1 1 1; do n=0
            while head -c $size /dev/zero | keyctl padd user $size.$n @s >/dev/null 2>&1; do n=$((n + 1)); done
        done; echo full; read end";
        let id = WWW_DATA.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "keyctl", "session", "-", "sh", "-c", script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        assert_eq!(line, "full\n", "the quota is full");
        Hog(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// What servers and seeders could leave: files, and programs that run.
fn left_behind() -> Vec<String> {
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap().flatten();
        entries.map(|entry| format!("{directory}/{}", entry.file_name().display())).collect()
    };
    let private = names("/tmp").into_iter().filter(|name| name.starts_with("/tmp/pag-") && name.len() == 41);
    let comm = |process: &String| fs::read_to_string(format!("{process}/comm")).unwrap_or_default();
    let running = names("/proc")
        .into_iter()
        .map(|process| comm(&process))
        .filter(|name| ["sleep\n", "seeder\n", "kinit\n", "aklog\n"].contains(&&name[..]));
    private.chain(names("/run/cc")).chain(running).collect()
}

fn is_served(what: &str, user: Option<&'static str>) {
    eventually(what, Duration::from_secs(10), || {
        let answer = get(user, "/own/whoami");
        let own = format!("{}@EXAMPLE.TEST\n", user.unwrap());
        assert!(answer.status == 503 || answer.body == own, "{what}: {answer:?}");
        (answer.status == 200).then_some(())
    });
}

pub(super) fn faults(sandbox: &mut Sandbox) {
    let _quick = QuickCollection::begin();
    own_tmp();
    serve(sandbox);
    delegated("dan");
    let (keys, files) = (key_count(WWW_DATA), left_behind());
    let server = Server::start("event", &format!("{LOCATIONS}{MORE}"));

    // A seeder that hangs is given up in time. Requests of others do not wait for it, and the failure stands for a while. One of
    // the others keeps its connection over the end of its ticket.
    is_served("bob is served at first", BOB);
    let mut kept = Client::of(DAN);
    fs::write("/run/seeder.life", "2").unwrap();
    assert_eq!(kept.get("/own/whoami").body, "dan@EXAMPLE.TEST\n", "dan is served at first");
    let end = Instant::now() + Duration::from_millis(2100);
    fs::remove_file("/run/seeder.life").unwrap();
    fs::write("/run/seeder.hangs", "alice@EXAMPLE.TEST\n").unwrap();
    std::thread::scope(|threads| {
        let before = sandbox.seeder_runs();
        threads.spawn(|| {
            let begun = Instant::now();
            let answer = get(ALICE, "/own/whoami");
            let words = "no PAG for alice@EXAMPLE.TEST (FILE:/run/cc/alice), so the answer is 503: cannot get tokens for a PAG: \
                it was not done within 2000 ms; look whether the KDC and the cell's servers answer this host";
            assert_refused(&server, "a seeder that hangs", &answer, words);
            assert!(begun.elapsed() < Duration::from_secs(6) * patience(), "in time: {:?}", begun.elapsed());
        });
        eventually("alice's seeder runs", Duration::from_secs(10), || (sandbox.seeder_runs() > before).then_some(()));
        assert_eq!(get(BOB, "/own/whoami").body, "bob@EXAMPLE.TEST\n");
    });
    let log = server.log();
    let (bobs, alices) = (log.rfind("is served in PAG 1 of bob@"), log.find("no PAG for alice@"));
    assert!(bobs < alices, "bob has waited for alice's seeder: {log}");
    let runs = sandbox.seeder_runs();
    assert_refused(&server, "a request after it", &get(ALICE, "/own/whoami"), "it was not done within 2000 ms");
    assert_eq!(sandbox.seeder_runs(), runs, "no seeder is run again at once");

    ticket::write("/run/cc/dan", WWW_DATA, "dan", "EXAMPLE.TEST", ticket::now() - 1);
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    let what = "a ticket that has ended, on a connection that is kept";
    assert_refused(&server, what, &kept.get("/own/whoami"), "no PAG for dan@EXAMPLE.TEST (FILE:/run/cc/dan)");

    // The KDC is away: kinit gets no ticket for the service, and who has a PAG goes on.
    fs::write("/run/kdc.away", "").unwrap();
    assert_refused(
        &server,
        "a KDC that is away",
        &get(None, "/service/"),
        "no PAG for web@EXAMPLE.TEST (keytab /run/web.keytab), so the answer is 503: cannot get a token: kinit \
         ended with status 1",
    );
    server.says("Cannot contact any KDC");
    server.says("(/run/web.keytab, web@EXAMPLE.TEST); look whether the KDC answers");
    assert_eq!(get(BOB, "/own/whoami").body, "bob@EXAMPLE.TEST\n", "a PAG that is there needs no KDC");

    // All is well again.
    fs::remove_file("/run/kdc.away").unwrap();
    fs::remove_file("/run/seeder.hangs").unwrap();
    delegated("dan");
    for user in [ALICE, DAN] {
        is_served("who was refused is served again", user);
    }
    eventually("the service is served again", Duration::from_secs(10), || {
        (get(None, "/service/").body == "web@EXAMPLE.TEST\n").then_some(())
    });
    server.stop();

    // The quota is full, and both PAGs are in use: each has a client that does not read.
    let server = Server::start("event", &format!("{LOCATIONS}{MORE}"));
    let mut slow = [ALICE, BOB].map(|user| {
        let mut client = Client::of(user);
        client.keep_little();
        client.ask("/own/readers?3000000", "");
        assert_eq!(client.head().unwrap().status, 200);
        client
    });
    let hog = Hog::begin();
    let begun = Instant::now();
    let words = "no PAG for dan@EXAMPLE.TEST (FILE:/run/cc/dan), so the answer is 503: cannot make a keyring for a PAG: the uid's \
        quota for keys is full";
    assert_refused(&server, "a full quota", &get(DAN, "/own/whoami"), words);
    assert!(begun.elapsed() < Duration::from_secs(6) * patience(), "in time: {:?}", begun.elapsed());
    // Those who are inside are served to the end, and the PAG that is not used any more gives its room.
    for (client, who) in slow.iter_mut().zip(["alice@", "bob@"]) {
        let body = client.read(3_000_000);
        assert!(body.lines().all(|line| line.starts_with(who)), "a body of {who}");
    }
    is_served("dan is served in the room of a PAG that is not used", DAN);
    server.says("is ended: the key quota is full");
    hog.end();
    for user in [ALICE, BOB, DAN] {
        is_served("all are served when there is room", user);
    }
    server.stop();

    eventually("the server's keys are released", Duration::from_secs(20), || {
        reap();
        (key_count(WWW_DATA) <= keys).then_some(())
    });
    assert_eq!(left_behind(), files, "files and programs that are left");
}
