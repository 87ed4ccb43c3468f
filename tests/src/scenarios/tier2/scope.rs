//! `scope = session` on a booted machine: which session a user's services follow.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::outages::helper;
use crate::display::Display;
use crate::guest::{CELL, Proof, Session, assert_same, assert_token, eventually, heard, manager_is, pags_of, run, sh};
use crate::ring::Ring;

/// How soon services are to follow.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// Lets alice in as alice/admin, too: with that one's password, and so with its ticket.
pub(super) const TWO_IDENTITIES: &str = r#"
cat >> /etc/krb5.conf <<X
[appdefaults]
	pam = {
		alt_auth_map = %s/admin
	}
X
printf 'alice@EXAMPLE.TEST\nalice/admin@EXAMPLE.TEST\n' > /home/alice/.k5login
chown alice /home/alice/.k5login
"#;

/// A login of alice's with the ticket of alice/admin.
pub(super) fn admin() -> Session {
    let mut ssh = Command::new("sshpass");
    ssh.args(["-p", "adminpw", "ssh", "-q", "-o", "PreferredAuthentications=password", "alice@127.0.0.1", "sh"]);
    Session::start(&mut ssh)
}

pub(super) fn configure(text: &str) {
    fs::create_dir_all("/etc/pag/pag.conf.d").unwrap();
    fs::write("/etc/pag/pag.conf.d/50-scope.conf", text).unwrap();
}

/// The user that the token in a ring names; the text `nobody` without a token.
pub(super) fn whose(ring: &Ring) -> String {
    let payload = ring.token(CELL).and_then(|key| key.payload.as_deref());
    payload.and_then(|text| text.split('@').next()).unwrap_or("nobody").to_owned()
}

/// A service that writes down, again and again, which user's token it finds.
const WATCHER: &str = "#!/bin/sh
while sleep 0.05; do
	who=nobody
	key=$(keyctl search @s user afs@example.test 2>/dev/null) && who=$(keyctl pipe $key 2>/dev/null)
	echo ${who%%@*} > /run/user/61001/who.new
	mv /run/user/61001/who.new /run/user/61001/who
done
";

pub(super) fn start_watcher(session: &mut Session) {
    fs::write("/usr/local/bin/watcher", WATCHER).unwrap();
    sh("chmod 755 /usr/local/bin/watcher");
    session.say("systemd-run --user --quiet --unit=watcher watcher");
}

pub(super) fn watcher_sees(who: &str, what: &str, limit: Duration) {
    let begun = Instant::now();
    eventually(&format!("{what}: the service sees the token of {who}"), limit, || {
        let seen = fs::read_to_string("/run/user/61001/who").unwrap_or_default();
        (seen.trim() == who).then_some(())
    });
    println!("{what}: after {} ms", begun.elapsed().as_millis());
}

fn watcher() -> String {
    sh(
        "systemctl --machine=alice@ --user show -P MainPID watcher.service; systemctl show -P MainPID user@61001.service",
    )
}

/// The principal of the ticket in the ccache that a service is given.
pub(super) fn ticket_of_a_service(session: &mut Session) -> String {
    let list = session.say("systemd-run --user --quiet --wait --pipe --collect klist");
    list.lines().find_map(|line| line.strip_prefix("Default principal: ")).unwrap_or(&list).trim().to_owned()
}

/// The ticket comes after the tokens.
fn ticket_becomes(session: &mut Session, principal: &str, what: &str) {
    eventually(what, SOON, || (ticket_of_a_service(session) == principal).then_some(()));
}

fn kinds() -> Vec<String> {
    let mut kinds: Vec<String> =
        pags_of("alice").iter().filter_map(|pag| pag["kind"].as_str().map(str::to_owned)).collect();
    kinds.sort();
    kinds
}

pub(super) fn is_over() {
    manager_is("alice", "inactive");
    eventually("the PAGs have ended", Duration::from_secs(10), || pags_of("alice").is_empty().then_some(()));
}

pub(super) fn services_follow_the_primary_session(_: u32) {
    configure("[user alice]\nscope = session\n");
    let explained = run("pagctl", &["status", "--explain", "--service", "sshd", "--user", "alice"]);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    let scope = explained.lines().find(|line| line.trim_start().starts_with("scope ")).unwrap_or_default();
    assert!(scope.contains("session") && scope.ends_with("/etc/pag/pag.conf.d/50-scope.conf:2"), "{explained}");
    sh(TWO_IDENTITIES);

    let mut first = Session::ssh("alice", Proof::Password);
    let mut second = admin();
    let rings = [first.ring(), second.ring()];
    assert_ne!(rings[0].identity(), rings[1].identity(), "two logins, two PAGs");
    assert_eq!(rings.each_ref().map(whose), ["alice", "alice/admin"], "each has the token of its own identity");
    assert_eq!(kinds(), ["session", "session", "user"], "{:#?}", pags_of("alice"));
    start_watcher(&mut first);
    watcher_sees("alice", "services follow the primary session", SOON);
    let pids = watcher();
    ticket_becomes(&mut second, "alice@EXAMPLE.TEST", "and have its ticket");
    let service = second.service_ring();
    assert!(rings.iter().all(|ring| ring.identity() != service.identity()), "in a ring of their own: {service:#?}");

    // A token that the followed session gets anew, as another key.
    first.say("keyctl purge user afs@example.test; keyring-aklog -c example.test");
    let renewed = first.ring().token(CELL).map(|key| key.serial);
    assert!(renewed.is_some() && renewed != rings[0].token(CELL).map(|key| key.serial), "another key");
    eventually("services have the new token", Duration::from_secs(7), || {
        (second.service_ring().token(CELL).map(|key| key.serial) == renewed).then_some(())
    });

    // The helper is killed: the next one takes nothing away and changes no sides.
    let before = helper();
    sh("systemctl kill -s KILL pag-logind-helper");
    eventually("the helper is another process", Duration::from_secs(10), || (helper() != before).then_some(()));
    assert_eq!(whose(&second.service_ring()), "alice", "a restart of the helper changes nothing");

    first.log_out();
    watcher_sees("alice/admin", "the primary session has ended", SOON);
    assert_eq!(whose(&second.ring()), "alice/admin", "the session that is followed is as it was");
    ticket_becomes(&mut second, "alice/admin@EXAMPLE.TEST", "the ticket follows, too");
    assert_eq!(watcher(), pids, "nothing was restarted");
    heard("pag-logind-helper", "follow PAG");

    second.log_out();
    watcher_sees("nobody", "both have ended", SOON);
    let left = sh("find /run/pag/ccache/61001 -name tkt");
    assert_eq!(left, "", "no ticket is left to services");
    assert_eq!(watcher(), pids, "nothing was restarted");
    heard("pag-logind-helper", "follow no session");
    is_over();
}

pub(super) fn services_follow_whom_the_user_chooses(_: u32) {
    configure("[user alice]\nscope = session\n");
    sh(TWO_IDENTITIES);
    let mut first = Session::ssh("alice", Proof::Password);
    let mut second = admin();
    start_watcher(&mut first);
    watcher_sees("alice", "services follow the primary session", SOON);
    let pids = watcher();

    assert_eq!(second.say("pagctl follow && echo done"), "done\n", "the other one can be chosen");
    watcher_sees("alice/admin", "the other one was chosen", SOON);
    ticket_becomes(&mut first, "alice/admin@EXAMPLE.TEST", "and its ticket");
    assert!(first.say("pagctl list").contains("(chosen)"));
    assert_eq!(whose(&first.ring()), "alice", "the first session is as it was");
    // It holds over restarts of the helper and of the manager.
    let before = helper();
    sh("systemctl kill -s KILL pag-logind-helper");
    eventually("the helper is another process", Duration::from_secs(10), || (helper() != before).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(whose(&first.service_ring()), "alice/admin", "the choice outlives the helper");
    assert_eq!(watcher(), pids, "nothing was restarted");
    sh("systemctl restart user@61001.service");
    start_watcher(&mut first);
    watcher_sees("alice/admin", "the manager is another", Duration::from_secs(10));
    // Another user has no say in it.
    let mut bob = Session::ssh("bob", Proof::Password);
    let id = first.say("pagctl show --json | sed -n 's/^  \"pag\": \"\\(.*\\)\",/\\1/p'");
    let refused = bob.say(&format!("pagctl follow {}", id.trim()));
    assert!(refused.contains("that you may see"), "{refused}");
    // Back to the configuration; and chosen again, until it ends.
    assert_eq!(first.say("pagctl follow --policy && echo done"), "done\n");
    watcher_sees("alice", "the choice was taken back", SOON);
    assert_eq!(second.say("pagctl follow && echo done"), "done\n");
    watcher_sees("alice/admin", "it was chosen again", SOON);
    second.log_out();
    watcher_sees("alice", "the chosen session has ended", SOON);
    first.log_out();
    is_over();
}

pub(super) fn services_follow_the_desktop_and_an_unlock_finds_it(_: u32) {
    configure("[pag]\nscope = session\n");
    sh(TWO_IDENTITIES);
    let mut session = admin();
    start_watcher(&mut session);
    watcher_sees("alice/admin", "services follow the ssh session", SOON);

    let mut display = Display::start();
    let mut desktop = display.log_in("alice");
    watcher_sees("alice", "the desktop is the display now", SOON);
    assert_eq!(whose(&desktop.ring()), "alice", "the desktop has its own token");
    assert_eq!(whose(&session.ring()), "alice/admin", "and the ssh session its own");

    // Both lose theirs; the unlock, in a process of the display manager's, is the desktop's.
    for one in [&mut session, &mut desktop] {
        one.say("keyctl unlink $(keyctl search @s user afs@example.test) @s");
        assert_eq!(whose(&one.ring()), "nobody", "the token is gone");
    }
    watcher_sees("nobody", "services lose what the desktop has lost", Duration::from_secs(7));
    display.lock_and_unlock(&mut desktop, "alice");
    eventually("an unlock brings the token back", Duration::from_secs(15), || {
        (whose(&desktop.ring()) == "alice").then_some(())
    });
    watcher_sees("alice", "services have it, too", Duration::from_secs(7));
    assert_eq!(whose(&session.ring()), "nobody", "the unlock has brought the ssh session nothing");
    session.say("keyring-aklog -c example.test");
    assert_eq!(whose(&session.ring()), "alice/admin", "it gets its own again");

    desktop.log_out();
    watcher_sees("alice/admin", "the desktop has ended", SOON);
    session.log_out();
    watcher_sees("nobody", "all have ended", SOON);
    is_over();
}

pub(super) fn mixed_scopes_share_a_manager(_: u32) {
    configure("[service sshd]\nscope = session\n");
    sh(TWO_IDENTITIES);
    let mut session = admin();
    start_watcher(&mut session);
    watcher_sees("alice/admin", "services follow the ssh session", SOON);

    // Another PAM service, with scope = user, and no ticket of its own: it finds nothing of the session's.
    let mut shared = Session::start(Command::new("runuser").args(["-l", "alice", "-c", "sh"]));
    watcher_sees("nobody", "a login has made the manager's PAG his own", SOON);
    assert_same("a login with scope = user shares the manager's PAG", &shared.ring(), &session.service_ring());
    shared.say("echo alicepw | KRB5CCNAME=/tmp/mine kinit && KRB5CCNAME=/tmp/mine keyring-aklog -c example.test");
    assert_token("the login that shares", &shared.ring());
    watcher_sees("alice", "services have its token", SOON);
    assert_eq!(whose(&session.ring()), "alice/admin", "the session's own is as it was");
    let list = ticket_of_a_service(&mut session);
    assert!(!list.contains("alice/admin"), "nor is its ticket left to services: {list}");

    shared.log_out();
    watcher_sees("alice/admin", "services follow again", SOON);
    ticket_becomes(&mut session, "alice/admin@EXAMPLE.TEST", "with the ticket");
    assert_eq!(kinds(), ["session", "user"], "{:#?}", pags_of("alice"));
    session.log_out();
    watcher_sees("nobody", "all have ended", SOON);
    is_over();
}

pub(super) fn scope_change_disturbs_no_login(_: u32) {
    // As a site would have it: one PAG for the desktop and its services, and one for each ssh login.
    configure("[service sshd]\nscope = session\n");
    sh(TWO_IDENTITIES);
    let mut display = Display::start();
    let mut desktop = display.log_in("alice");
    let mut session = admin();
    start_watcher(&mut desktop);
    watcher_sees("alice", "services have the desktop's token", SOON);
    assert_same("the desktop shares its PAG with services", &desktop.ring(), &desktop.service_ring());
    let before = [desktop.ring(), session.ring()];
    assert_eq!(before.each_ref().map(whose), ["alice", "alice/admin"], "two scopes, two identities");
    let pids = watcher();

    // The other way round, for the host.
    configure("[pag]\nscope = session\n[service sshd]\nscope = user\n");
    sh("systemctl reload pag-logind-helper");
    let mut new = Session::ssh("alice", Proof::Password);
    assert_same("a new ssh login shares the desktop's PAG", &new.ring(), &before[0]);
    let after = [desktop.ring(), session.ring()];
    assert_eq!(
        after.each_ref().map(Ring::identity),
        before.each_ref().map(Ring::identity),
        "old logins stay where they are"
    );
    assert_eq!(after.each_ref().map(whose), ["alice", "alice/admin"], "with their tokens");
    new.log_out();
    assert_eq!(watcher(), pids, "nothing was restarted");

    // An unlock finds the desktop, though it would have a PAG of another kind today.
    desktop.say("keyctl unlink $(keyctl search @s user afs@example.test) @s");
    watcher_sees("nobody", "the desktop has lost its token", SOON);
    display.lock_and_unlock(&mut desktop, "alice");
    watcher_sees("alice", "an unlock brings it back", Duration::from_secs(15));
    assert_eq!(whose(&session.ring()), "alice/admin", "and the ssh session has its own");
    desktop.log_out();
    session.log_out();
    is_over();
}
