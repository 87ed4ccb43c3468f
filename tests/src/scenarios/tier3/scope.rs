//! `scope = session` on the cell: two identities of one person, and which session her services follow.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Client;
use crate::cell::{self, WRITE, assert_denied, assert_works};
use crate::guest::{Proof, Session, eventually, heard, pags_of, sh};

/// How soon services are to follow, in real time. The bound has the patience of all here, since emulation makes
/// everything slow; the time that it took is printed.
const SOON: Duration = Duration::from_secs(1);

/// How soon a token that was got anew, as another key, is with the services: the helper looks every 5 s.
const LOOKED_AT: Duration = Duration::from_secs(7);

/// Writes down, again and again, for which users' files a service has tokens: it writes new files, as [`WRITE`]
/// does. If both work it tries again, since a change may have come in between.
const WATCHER: &str = "#!/bin/sh
echo $$ >/run/user/61001/watcher
try() { f=$(mktemp /afs/example.test/$1/look.XXXXXX 2>/dev/null) && rm -f $f; }
while sleep 0.05; do
	who=nobody
	try user/alice && who=alice
	try admin/alice && if [ $who = alice ] && try user/alice; then who=both; else who=alice/admin; fi
	echo $who >/run/user/61001/who.new
	mv /run/user/61001/who.new /run/user/61001/who
done
";

/// Lets alice log in as alice/admin, too: with that one's password, and so with its ticket. Her home is not open to it.
fn two_identities() {
    sh("sed -i 's|pam = {|&\\n\\t\\talt_auth_map = %s/admin|' /etc/krb5.conf");
    cell::configure("scope = session\n");
    fs::write("/usr/local/bin/watcher", WATCHER).unwrap();
    sh("chmod 755 /usr/local/bin/watcher");
}

fn admin() -> Session {
    let mut ssh = Command::new("sshpass");
    ssh.args(["-p", "adminpw", "ssh", "-q", "-o", "PreferredAuthentications=password", "alice@127.0.0.1", "sh"]);
    Session::start(&mut ssh)
}

fn watcher_sees(who: &str, what: &str, limit: Duration) {
    let begun = Instant::now();
    eventually(&format!("{what}: a service has the tokens of {who}"), limit, || {
        let seen = fs::read_to_string("/run/user/61001/who").unwrap_or_default();
        assert_ne!(seen.trim(), "both", "{what}: a service has the tokens of two");
        (seen.trim() == who).then_some(())
    });
    println!("{what}: after {} ms", begun.elapsed().as_millis());
}

/// The processes of the manager and of the service.
fn running() -> String {
    sh("cat /run/user/61001/watcher; systemctl show -P MainPID user@61001.service")
}

/// The token key that a member of the ring finds, for the client that keeps it there.
const KEY: &str = "keyctl search @s rxrpc afs@example.test";

pub(super) fn afs_services_follow_the_primary_session(client: Client) {
    two_identities();
    let theirs = "mktemp /afs/example.test/admin/alice/new.XXXXXX >/dev/null && echo written";
    // A manager reads its units in the home when it starts, however late the helper is.
    sh("systemctl stop pag-logind-helper");
    let mut first = Session::ssh("alice", Proof::Password);
    assert_works("a service, without a helper", &cell::service(&mut first, WRITE));
    assert_eq!(cell::denials("alice"), [""; 0], "nothing was denied to the manager");
    sh("systemctl start pag-logind-helper");
    let mut second = admin();
    assert_works("alice, in her home", &first.say(WRITE));
    assert_denied("alice, where alice/admin may", &first.say(theirs));
    assert_works("alice/admin, where that one may", &second.say(theirs));
    assert_denied("alice/admin, in alice's home", &second.say(WRITE));
    second.say("systemd-run --user --quiet --unit=watcher watcher");
    watcher_sees("alice", "services follow the primary session", SOON);
    let pids = running();

    // The followed session gets a new token: OpenAFS's is in the same place, kAFS's is another key.
    first.say(client.seeder());
    if client == Client::Kafs {
        let key = first.say(KEY);
        eventually("services have the new token", LOOKED_AT, || (cell::service(&mut second, KEY) == key).then_some(()));
    }
    first.say("pagctl unlog");
    watcher_sees("nobody", "the followed session has discarded its tokens", LOOKED_AT);
    assert_works("the other session", &second.say(theirs));
    first.say(client.seeder());
    watcher_sees("alice", "it has tokens again", LOOKED_AT);

    first.log_out();
    watcher_sees("alice/admin", "the primary session has ended", SOON);
    assert_works("the session that is followed now", &second.say(theirs));
    assert_denied("and no more than that", &second.say(WRITE));
    second.log_out();
    watcher_sees("nobody", "both have ended", SOON);
    assert_eq!(running(), pids, "nothing was restarted");
    heard("pag-logind-helper", "follow no session");
    cell::is_over("alice");
    assert!(pags_of("alice").is_empty());
    if client == Client::OpenAfs {
        eventually("no PAG of OpenAFS is left", Duration::from_secs(10), || (cell::afs_pags() == 0).then_some(()));
    }
}
