//! Short tickets on the cell: a service's access to its user's home while they can be renewed, after that, and with a
//! keytab.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::{Client, long};
use crate::cell::{self, WRITE, assert_denied, assert_works};
use crate::guest::{Proof, Session, eventually, heard, journal, pags_of, sh};
use crate::ticket::now;

/// Reads files of the home that were never read, one after the other, and writes down when, and whether it could.
const WATCH: &str = "#!/bin/sh
n=1
while sleep 0.5; do
	if cat /afs/example.test/user/alice/unread/$n >/dev/null 2>/run/watch/error; then
		echo $(date +%s) yes
		n=$((n + 1))
	else
		echo $(date +%s) no
	fi
done >>/run/watch/log
";

/// Seconds that tickets last, and for which they can be renewed.
fn lives() -> (u64, u64) {
    if long() { (120, 1200) } else { (60, 150) }
}

fn short_tickets(renewable: u64) {
    let (life, _) = lives();
    let settings = format!("\\tticket_lifetime = {life}s\\n\\trenew_lifetime = {renewable}s");
    sh(&format!("sed -i '/_lifetime = /d; s/^\\[libdefaults\\]$/&\\n{settings}/' /etc/krb5.conf"));
}

/// Files in alice's home that no client has in its cache.
fn unread_files(client: Client) {
    let mut alice = Session::ssh("alice", Proof::Password);
    // Two looks a second at most, and some time with a keytab besides.
    let count = 2 * lives().1 + 900;
    let said = alice.say(&format!(
        "mkdir ~/unread && cd ~/unread && for n in $(seq {count}); do echo $n > $n || break; done; cd /"
    ));
    assert_eq!(said, "", "files in the home");
    alice.log_out();
    cell::is_over("alice");
    match client {
        Client::OpenAfs => sh("fs flushvolume /afs/example.test/user/alice"),
        Client::Kafs | Client::None => sh("sync; echo 3 > /proc/sys/vm/drop_caches"),
    };
}

/// A service of alice's that watches her home.
fn start_watcher(alice: &mut Session) {
    fs::write("/usr/local/bin/watch-home", WATCH).unwrap();
    fs::set_permissions("/usr/local/bin/watch-home", fs::Permissions::from_mode(0o755)).unwrap();
    sh("install -d -m 755 -o alice -g alice /run/watch");
    alice.say("systemd-run --user --quiet --unit=watch watch-home");
    eventually("the watcher reads the home", Duration::from_secs(5), || can_read().then_some(()));
}

/// The watcher's observations.
fn seen() -> Vec<(u64, bool)> {
    let text = fs::read_to_string("/run/watch/log").unwrap_or_default();
    let look = |line: &str| line.split_once(' ').and_then(|(now, word)| Some((now.parse().ok()?, word == "yes")));
    text.lines().filter_map(look).collect()
}

/// Whether the watcher's last look is recent and succeeded.
fn can_read() -> bool {
    seen().last().is_some_and(|(when, yes)| *yes && when + 20 > now())
}

fn wait_until(moment: u64) {
    while now() < moment {
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Demands that every look between two moments has succeeded, and that there were some all the time.
fn no_gap(what: &str, from: u64, to: u64) {
    let looks: Vec<_> = seen().into_iter().filter(|(when, _)| (from..to).contains(when)).collect();
    let refused: Vec<u64> = looks.iter().filter(|(_, yes)| !yes).map(|(when, _)| when - from).collect();
    let error = fs::read_to_string("/run/watch/error").unwrap_or_default();
    assert!(refused.is_empty(), "{what}: refused at these seconds: {refused:?}\n{error}{}", journal("pag-seed"));
    println!("{what}: {} looks in {} s, no gap", looks.len(), to - from);
    assert!(looks.len() as u64 > (to - from) / 8, "{what}: only {} looks in {} s", looks.len(), to - from);
}

/// The machine sleeps until a moment. All of it is real but the sleep itself, which the share of the machine would not
/// survive: logind tells before and after, and the clock is ahead of what timers have counted.
fn sleep_until(moment: u64) {
    fs::create_dir_all("/run/systemd/system/systemd-suspend.service.d").unwrap();
    let sleep = format!("[Service]\nExecStart=\nExecStart=/bin/date -s '@{moment}'\n");
    fs::write("/run/systemd/system/systemd-suspend.service.d/lab.conf", sleep).unwrap();
    sh("systemctl daemon-reload");
    sh("systemctl suspend");
    eventually("the machine has slept", Duration::from_secs(10), || (now() >= moment).then_some(()));
}

pub(super) fn afs_renewed_tickets_leave_no_gap(client: Client) {
    let (life, renewable) = lives();
    unread_files(client);
    short_tickets(renewable);
    let begin = now();
    let mut alice = Session::ssh("alice", Proof::Password);
    let here = now();
    start_watcher(&mut alice);
    let first = now() + 1;
    let pags = pags_of("alice");
    let ticket = pags[0]["ticket"].as_u64().unwrap();
    assert!(ticket <= here + life, "short tickets: {pags:#?}");
    // At the latest, counted from when the login had its ticket.
    let until = begin + renewable;

    // When it is awake again the next renewal is overdue, and a third of the ticket's life is left.
    sh("systemctl kill -s KILL pag-logind-helper");
    sleep_until(ticket - life / 3);
    eventually("awake again, the helper renews", Duration::from_secs(20), || {
        (pags_of("alice")[0]["ticket"].as_u64() > Some(ticket)).then_some(())
    });
    // The KDC is away for half of the time: it refuses, and it does not answer.
    let mut dead = false;
    while now() + 20 < until {
        let (go, come) = if dead { ("kill -s STOP", "kill -s CONT") } else { ("stop", "start") };
        dead = !dead;
        sh(&format!("systemctl {go} krb5-kdc"));
        std::thread::sleep(Duration::from_secs(6));
        sh(&format!("systemctl {come} krb5-kdc"));
        std::thread::sleep(Duration::from_secs(6));
    }
    wait_until(until - 3);
    no_gap("while tickets can be renewed", first, until - 3);
    heard("pag-logind-helper", "its ticket cannot be renewed any further");
    wait_until(until + 1);
    eventually("access ends with the renewable life", Duration::from_secs(5), || (!can_read()).then_some(()));
    heard("pag-logind-helper", "of alice (uid 61001) have ended, and its processes have no access");

    // With a keytab it goes on, for a service of a user who is not logged in.
    sh("mkdir -p /var/lib/systemd/linger && loginctl enable-linger alice");
    sh("install -d -m 700 /etc/pag/keytabs; kadmin.local ktadd -k /etc/pag/keytabs/alice -norandkey alice >/dev/null");
    fs::create_dir_all("/etc/pag/pag.conf.d").unwrap();
    sh("printf '[user alice]\\nkeytab = /etc/pag/keytabs/alice\\n' > /etc/pag/pag.conf.d/keytab.conf");
    alice.log_out();
    sh("systemctl reload pag-logind-helper");
    eventually("a keytab gives access", Duration::from_secs(10), || can_read().then_some(()));
    let again = now() + 1;
    wait_until(again + life);
    no_gap("with a keytab", again, now());
    // It sleeps for longer than a ticket lasts.
    let awake = now() + life + 30;
    sleep_until(awake);
    let back = eventually("it is awake, and has access", Duration::from_secs(10), || {
        seen().iter().find(|(when, yes)| *when > awake && *yes).map(|(when, _)| when - awake)
    });
    println!("{back} s after a sleep that was longer than a ticket there is access again");
}

pub(super) fn afs_what_was_discarded_stays_so(client: Client) {
    let (life, renewable) = lives();
    short_tickets(renewable);
    let mut alice = Session::ssh("alice", Proof::Password);
    assert_works("a service", &cell::service(&mut alice, WRITE));
    let ticket = || pags_of("alice")[0]["ticket"].as_u64().unwrap();
    let renewed = |before: u64| {
        eventually("the ticket is renewed", Duration::from_secs(life), || (ticket() > before).then_some(()));
    };
    // With OpenAFS's own tool, which reports to no process. kAFS has none.
    alice.say(if client == Client::OpenAfs { "unlog" } else { "pagctl unlog" });
    assert_denied("a service after unlog", &cell::service(&mut alice, WRITE));
    renewed(ticket());
    assert_denied("a service after the renewal", &cell::service(&mut alice, WRITE));
    assert_eq!(cell::tokens(&mut alice), [""; 0], "the ticket was renewed, and no token");
    // Tokens that alice gets by hand, with a ticket that only she knows of, are hers, and are renewed again.
    alice.say(&format!(
        "export KRB5CCNAME=FILE:/run/user/61001/own; echo alicepw | kinit -l 40s >/dev/null; {}",
        client.seeder()
    ));
    assert_works("a service, with a new token", &cell::service(&mut alice, WRITE));
    let end = now() + 40;
    while now() < end + 2 {
        assert_works("a service while tokens are renewed", &cell::service(&mut alice, WRITE));
    }
}
