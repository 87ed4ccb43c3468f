//! Short tickets: renewed while that can be done, announced where not, and without end with a keytab.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use super::logins::ring_at;
use super::outages::helper;
use super::{long, scope};
use crate::guest::{Proof, Session, eventually, heard, journal, manager_is, pags_of, seeder_runs, sh, status, uid};
use crate::sandbox::Host;
use crate::ticket::now;

/// Twice a second: the time, and the end of the token that a service finds, 0 without one.
const WATCH: &str = r#"#!/bin/sh
while :; do
	end=0
	key=$(keyctl search @s user afs@example.test 2>/dev/null) && set -- $(keyctl pipe $key) && end=$2
	echo "$(date +%s) $end"
	sleep 0.5
done >>"$1"
"#;

/// Seconds that tickets last, and for which they can be renewed.
fn lives() -> (u64, u64) {
    if long() { (120, 1200) } else { (30, 92) }
}

fn short_tickets(renewable: u64) {
    let (life, _) = lives();
    let settings = format!("\tticket_lifetime = {life}s\n\trenew_lifetime = {renewable}s\n");
    let conf = fs::read_to_string("/etc/krb5.conf").unwrap();
    fs::write("/etc/krb5.conf", conf.replace("[libdefaults]\n", &format!("[libdefaults]\n{settings}"))).unwrap();
    fs::write("/usr/local/bin/watch-token", WATCH).unwrap();
    fs::set_permissions("/usr/local/bin/watch-token", fs::Permissions::from_mode(0o755)).unwrap();
}

/// The watcher's observations.
fn seen(path: &str) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let pair = |line: &str| {
        let (now, end) = line.split_once(' ')?;
        Some((now.parse().ok()?, end.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Demands a good token in every look between two moments, and looks all the time.
fn no_gap(what: &str, path: &str, from: u64, to: u64) {
    let looks: Vec<_> = seen(path).into_iter().filter(|(now, _)| (from..to).contains(now)).collect();
    let gaps: Vec<_> = looks.iter().filter(|(now, end)| end <= now).map(|(now, end)| (now - from, *end)).collect();
    assert!(
        gaps.is_empty(),
        "{what}: without a good token at these seconds: {gaps:?}\n{}",
        journal("pag-logind-helper")
    );
    assert!(looks.len() as u64 > (to - from) / 2, "{what}: only {} looks in {} s", looks.len(), to - from);
    let ends: std::collections::BTreeSet<u64> = looks.iter().map(|(_, end)| *end).collect();
    assert!(ends.len() as u64 >= (to - from) / lives().0, "{what}: tokens were renewed: {ends:?}");
}

fn wait_until(moment: u64) {
    while now() < moment {
        std::thread::sleep(Duration::from_millis(200));
    }
}

pub(super) fn renewed_tickets_leave_no_gap(_: u32) {
    let (life, renewable) = lives();
    short_tickets(renewable);
    let begin = now();
    let mut alice = Session::ssh("alice", Proof::Password);
    alice.say("systemd-run --user --quiet --unit=watch watch-token $HOME/watch");
    let path = "/home/alice/watch";
    eventually("the watcher has a token", Duration::from_secs(5), || {
        seen(path).last().is_some_and(|(now, end)| end > now).then_some(())
    });
    let first = now() + 1;
    let pags = pags_of("alice");
    assert!(pags[0]["ticket"].as_u64().is_some_and(|end| end <= begin + life + 10), "short tickets: {pags:#?}");
    let until = begin + renewable;

    // A third of the time in peace.
    wait_until(begin + renewable / 3);
    sh("systemctl kill -s KILL pag-logind-helper");
    helper();
    // Now the KDC is away for half of the time.
    while now() + 18 < until {
        sh("systemctl stop krb5-kdc");
        std::thread::sleep(Duration::from_secs(6));
        sh("systemctl start krb5-kdc");
        std::thread::sleep(Duration::from_secs(6));
    }
    wait_until(until - 2);
    no_gap("while tickets can be renewed", path, first, until - 2);
    heard("pag-logind-helper", "its ticket cannot be renewed any further");
    wait_until(until + 3);
    heard("pag-logind-helper", "of alice (uid 61001) have ended, and its processes have no access");
    assert!(seen(path).last().is_some_and(|(now, end)| end <= now), "access ends with the renewable life");

    // The user's own kinit, and no other command.
    let name = alice.say("systemctl --user show-environment | sed -n s/^KRB5CCNAME=//p");
    let name = name.trim();
    assert!(name.starts_with("DIR:/run/pag/ccache/61001/"), "{name}");
    alice.say(&format!("echo alicepw | kinit -c {name} >/dev/null"));
    eventually("a new ticket of the user's brings tokens", Duration::from_secs(15), || {
        seen(path).last().is_some_and(|(now, end)| end > now).then_some(())
    });
    // The second in which it came began without.
    let again = now() + 1;
    // Behind the end of its first token.
    wait_until(again + life + life / 6);
    no_gap("with the user's new ticket", path, again, now());
}

/// A service's token: its user and its end; `None` without one.
fn token(session: &mut Session) -> Option<String> {
    let service = "systemd-run --user --quiet --wait --pipe --collect sh -c";
    let text = session.say(&format!(
        "{service} 'key=$(keyctl search @s user afs@example.test 2>/dev/null) && keyctl pipe $key; true'"
    ));
    (!text.trim().is_empty()).then_some(text)
}

pub(super) fn kinit_in_a_login_feeds_its_pag(_: u32) {
    let ticket = || pags_of("alice")[0]["ticket"].as_u64().unwrap_or(0);
    let kinit = |session: &mut Session, whose: &str, password: &str| {
        // Tickets are distinguished by their ends, in seconds. By then the earlier ones have been seen.
        std::thread::sleep(Duration::from_secs(6));
        assert_eq!(session.say(&format!("echo {password} | kinit {whose} >/dev/null")), "", "kinit {whose}");
    };
    // One looks every 5 s, and then there is a job.
    let soon = Duration::from_secs(20);
    let mut alice = Session::ssh("alice", Proof::Password);
    let name = alice.say("echo $KRB5CCNAME");
    assert!(name.starts_with("FILE:/tmp/krb5cc_61001"), "the login's ticket is in a file of its own: {name}");
    let (first, before) = (token(&mut alice), ticket());
    assert!(first.is_some() && before > 0);
    kinit(&mut alice, "alice", "alicepw");
    eventually("the login's new ticket is the PAG's, too", soon, || (ticket() > before + 2).then_some(()));
    eventually("and a new token was got", soon, || token(&mut alice).filter(|new| Some(new) != first.as_ref()));
    let (then, before) = (token(&mut alice), ticket());
    kinit(&mut alice, "bob", "bobpw");
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!((token(&mut alice), ticket()), (then, before), "bob's ticket is nothing to alice's PAG");
    let whose =
        alice.say("systemd-run --user --quiet --wait --pipe --collect klist | sed -n 's/^Default principal: //p'");
    assert_eq!(whose, "alice@EXAMPLE.TEST\n", "nor is it in the PAG's ccache");
    alice.log_out();
    eventually("the PAG is over", soon, || pags_of("alice").is_empty().then_some(()));

    // One that comes without a ticket, and gets one where everybody's is by default.
    let mut alice = Session::ssh("alice", Proof::Key);
    assert_eq!(alice.say("echo $KRB5CCNAME"), "\n", "a login without a ticket");
    assert_eq!(token(&mut alice), None);
    kinit(&mut alice, "alice/admin", "adminpw");
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(token(&mut alice), None, "a PAG without an identity takes no other than the user's natural one");
    kinit(&mut alice, "alice", "alicepw");
    eventually("a kinit, and no other command, brings tokens", soon, || token(&mut alice));
    alice.log_out();
    eventually("this PAG is over, too", soon, || pags_of("alice").is_empty().then_some(()));

    // A user with tickets in a keyring of the uid's. No process announces them.
    sh("printf '[appdefaults]\\n\\tpam = {\\n\\t\\tccache = KEYRING:persistent:%%u\\n\\t}\\n' >> /etc/krb5.conf");
    let mut alice = Session::ssh("alice", Proof::Password);
    assert_eq!(alice.say("echo $KRB5CCNAME"), "KEYRING:persistent:61001\n");
    let first = token(&mut alice);
    assert!(first.is_some(), "a token from a ticket in a keyring");
    kinit(&mut alice, "alice", "alicepw");
    eventually("a new ticket in a keyring brings a new token", soon, || {
        token(&mut alice).filter(|new| Some(new) != first.as_ref())
    });
    let runs = || sh("wc -l < /run/seeder.log");
    let before = runs();
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(runs(), before, "what a job has done is no reason for another");
    // It would outlive the machine: keyrings are the host's.
    alice.say("kdestroy -A");
    alice.log_out();
}

/// A manager that is there before its user, as on a host where the user lingers.
fn lingers(user: &str) {
    sh(&format!("loginctl enable-linger {user}"));
    manager_is(user, "active");
}

/// What a service of the user's finds: KRB5CCNAME, and the principal of the ticket there.
fn ticket_of_services(session: &mut Session) -> String {
    let service = "systemd-run --user --quiet --wait --pipe --collect sh -c";
    session.say(&format!("{service} 'printenv KRB5CCNAME; klist 2>/dev/null | sed -n \"s/^Default principal: //p\"'"))
}

pub(super) fn renewed_from_a_keyring_and_kcm(_: u32) {
    let (life, renewable) = lives();
    short_tickets(renewable);
    sh("systemctl start sssd-kcm.socket");
    for user in ["alice", "bob"] {
        lingers(user);
    }
    // The defaults of RHEL and Fedora: what pam_krb5 does there, and what pam_sss does, which gets the ticket as the user.
    let appdefaults = |line: &str| {
        sh("sed -i '/^\\[appdefaults\\]/,$d' /etc/krb5.conf");
        sh(&format!("printf '[appdefaults]\\n\\tpam = {{\\n\\t\\t{line}\\n\\t}}\\n' >> /etc/krb5.conf"));
    };
    let in_a_keyring = || appdefaults("ccache = KEYRING:persistent:%%u");
    let in_kcm = || {
        // On its PAM lines: pam_krb5 does not take this option from krb5.conf, and would leave us the ticket in a file.
        sh("sed -i 's/pam_krb5.so.*/& no_ccache/' /etc/pam.d/common-auth /etc/pam.d/common-session");
        fs::write(
            "/usr/local/bin/as-pam-sss",
            "#!/bin/sh\nexec setpriv --reuid $PAM_USER --init-groups kinit -c KCM: $PAM_USER\n",
        )
        .unwrap();
        sh("chmod 755 /usr/local/bin/as-pam-sss
            echo 'KRB5CCNAME DEFAULT=KCM:' >/etc/security/kcm.conf
            sed -i '1i auth required pam_env.so conffile=/etc/security/kcm.conf' /etc/pam.d/sshd
            sed -i '/^@include common-auth/a auth required pam_exec.so expose_authtok quiet /usr/local/bin/as-pam-sss' /etc/pam.d/sshd");
    };
    let logins: [(&str, &dyn Fn(), &str); 2] =
        [("alice", &in_a_keyring, "KEYRING:persistent:61001"), ("bob", &in_kcm, "KCM:")];
    let begin = now();
    let mut sessions = Vec::new();
    for (user, configure, name) in logins {
        configure();
        let mut session = Session::ssh(user, Proof::Password);
        let klist = session.say("echo $KRB5CCNAME; klist");
        assert!(klist.starts_with(&format!("{name}\n")) && klist.contains("krbtgt/"), "the login's own: {klist}");
        let found = ticket_of_services(&mut session);
        let own = format!("DIR:/run/pag/ccache/{}/", uid(user));
        assert!(
            found.starts_with(&own) && found.ends_with(&format!("\n{user}@EXAMPLE.TEST\n")),
            "{name}: services have the login's ticket in the PAG's ccache: {found}"
        );
        session.say("systemd-run --user --quiet --unit=watch watch-token $HOME/watch");
        sessions.push(session);
    }
    for (user, _, name) in logins {
        eventually(&format!("{name}: the watcher has a token"), Duration::from_secs(5), || {
            seen(&format!("/home/{user}/watch")).last().is_some_and(|(now, end)| end > now).then_some(())
        });
    }
    let first = now() + 1;
    wait_until(begin + 2 * life + life / 2);
    for ((user, _, name), session) in logins.into_iter().zip(&mut sessions) {
        no_gap(&format!("with a ticket in {name}"), &format!("/home/{user}/watch"), first, now());
        let fresh = session.say("systemd-run --user --quiet --wait --pipe --collect klist -s && echo fresh");
        assert_eq!(fresh, "fresh\n", "{name}: the ticket of services is fresh");
    }
    // It would outlive the machine: keyrings are the host's.
    sessions[0].say("kdestroy -A");
    sh("id=$(keyctl get_persistent @s 61001) && keyctl clear $id && keyctl unlink $id @s");
}

pub(super) fn kinit_in_kcm_feeds_the_pag(_: u32) {
    let soon = Duration::from_secs(20);
    // A lingering user logs in by key: the host says where tickets are kept, and there is none.
    sh(
        "sed -i 's/\\[libdefaults\\]/&\\n\\tdefault_ccache_name = KCM:/' /etc/krb5.conf; systemctl start sssd-kcm.socket",
    );
    lingers("alice");
    let mut alice = Session::ssh("alice", Proof::Key);
    assert_eq!(alice.say("echo $KRB5CCNAME"), "\n", "the login names no ccache");
    // And a session with its own PAG that has the same ccache name, since pam_sss gives it to every login.
    sh("echo 'KRB5CCNAME DEFAULT=KCM:' >/etc/security/kcm.conf
        sed -i '1i auth required pam_env.so conffile=/etc/security/kcm.conf' /etc/pam.d/sshd");
    scope::configure("[user alice]\nscope = session\ndebug = yes\n");
    let mut other = Session::ssh("alice", Proof::Key);
    assert_eq!(other.say("echo $KRB5CCNAME"), "KCM:\n");
    assert_ne!(alice.ring().identity(), other.ring().identity());
    let own = |session: &mut Session| session.ring().token("example.test").map(|key| key.serial);
    assert_eq!((token(&mut alice), own(&mut other)), (None, None), "logins without a ticket");
    assert_eq!(seeder_runs(), 0, "a ccache without a ticket is no reason for a seeder");
    heard("pam_pag", "no ticket for uid 61001: there is none in \"KCM:\" that is good now");
    assert!(!journal("pam_pag").contains("cannot serve the PAG"), "and nothing to complain about");
    scope::configure("");

    let kinit = |session: &mut Session, arguments: &str, password: &str| {
        // By then the earlier tickets have been seen. A look is not reported, and strace, which would show it, can
        // slow it beyond its time limit. Tickets are distinguished by their ends, in seconds.
        std::thread::sleep(Duration::from_secs(6));
        assert_eq!(session.say(&format!("echo {password} | kinit {arguments} >/dev/null")), "", "kinit {arguments}");
    };
    let pag = |principal: &str| {
        let shared = |pag: &serde_json::Value| pag["kind"] == "user" && pag["principal"] == principal;
        pags_of("alice").into_iter().find(shared)
    };
    let ticket = || pag("alice@EXAMPLE.TEST").and_then(|pag| pag["ticket"].as_u64()).unwrap_or(0);
    // The first time, before any answer.
    kinit(&mut alice, "-r 1h alice", "alicepw");
    let first = eventually("a kinit in KCM, and no other command, brings tokens", soon, || token(&mut alice));
    eventually("so it does in the other session", soon, || own(&mut other));
    let found = ticket_of_services(&mut alice);
    assert!(found.ends_with("\nalice@EXAMPLE.TEST\n"), "services have the ticket: {found}");
    let before = seeder_runs();
    assert_eq!(alice.say("kvno -q host/lab"), "");
    // Two looks: that nothing comes of them can only be waited for.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(seeder_runs(), before, "a ticket for a service is no reason for a job");
    kinit(&mut alice, "alice", "alicepw");
    let second =
        eventually("a new ticket in KCM brings a new token", soon, || token(&mut alice).filter(|new| *new != first));
    other.log_out();

    // Another identity in the same collection, and the primary one.
    kinit(&mut alice, "alice/admin", "adminpw");
    assert!(alice.say("klist").contains("Default principal: alice/admin@EXAMPLE.TEST"), "programs use it by default");
    let mut admin = login_with("alice", "KCM:");
    let theirs = pag("alice/admin@EXAMPLE.TEST");
    assert!(
        theirs.is_some(),
        "a login with the ticket of another identity has a PAG of its own: {:#?}",
        pags_of("alice")
    );
    assert_eq!(token(&mut alice), Some(second), "alice's is as it was");
    let before = ticket();
    // kinit makes it the primary one.
    kinit(&mut alice, "-c KCM:61001:4711 alice >/dev/null && kswitch -p alice/admin", "alicepw");
    assert!(alice.say("klist").contains("Default principal: alice/admin@EXAMPLE.TEST"), "it is not the primary one");
    eventually("a ccache that appears in the collection feeds alice's PAG", soon, || (ticket() > before).then_some(()));
    let principal = theirs.as_ref().map(|pag| pag["principal"].clone());
    assert_eq!(pag("alice/admin@EXAMPLE.TEST").map(|pag| pag["principal"].clone()), principal, "and no other");
    admin.all_ok(&["close", "end"]);

    // One that sshd makes for a ticket that is handed over ends with its login.
    let said_before = journal("pag-logind-helper");
    let mut delegated = login_with("alice", "KCM:61001:4711");
    assert_eq!(delegated.ring().identity(), alice.ring().identity(), "a login with alice's ticket joins");
    alice.say("kdestroy -c KCM:61001:4711");
    delegated.all_ok(&["close", "end"]);
    std::thread::sleep(Duration::from_secs(6));
    let found = ticket_of_services(&mut alice);
    assert!(found.ends_with("\nalice@EXAMPLE.TEST\n"), "the PAG keeps its ticket: {found}");
    let before = seeder_runs();
    assert_eq!(alice.say("pagctl renew && echo renewed"), "renewed\n", "and new tokens can be had from it");
    assert_eq!(seeder_runs(), before + 1);
    let all = journal("pag-logind-helper");
    let said = all.strip_prefix(&said_before).unwrap_or(&all);
    assert!(!said.contains("not renewed") && !said.contains("cannot serve"), "and nothing is amiss: {said}");
}

/// A PAM login with this ccache, without sshd.
fn login_with(user: &str, ccache: &str) -> Host {
    let module = sh("find /usr/lib /lib -name pam_pag.so | head -1");
    fs::create_dir_all("/run/pam.d").unwrap();
    let stack = format!("session optional pam_keyinit.so force revoke\nsession required {}\n", module.trim());
    fs::write("/run/pam.d/lab", format!("auth required pam_permit.so\naccount required pam_permit.so\n{stack}"))
        .unwrap();
    let mut host = Host::start(Command::new("pag-pamhost"), &["lab", user]);
    host.all_ok(&[&format!("putenv KRB5CCNAME={ccache}"), "open"]);
    host
}

pub(super) fn each_session_is_renewed_in_its_own_pag(_: u32) {
    let (life, _) = lives();
    short_tickets(3600);
    scope::configure("[user alice]\nscope = session\n");
    sh(scope::TWO_IDENTITIES);
    let mut first = Session::ssh("alice", Proof::Password);
    let mut second = scope::admin();
    let paths = ["first", "second", "services"].map(|name| format!("/home/alice/watch.{name}"));
    for (session, path) in [(&mut first, &paths[0]), (&mut second, &paths[1])] {
        session.say(&format!("(watch-token {path} </dev/null >/dev/null 2>&1 &)"));
    }
    first.say(&format!("systemd-run --user --quiet --unit=watch watch-token {}", paths[2]));
    for path in &paths {
        eventually(&format!("{path}: a token"), Duration::from_secs(10), || {
            seen(path).last().is_some_and(|(now, end)| end > now).then_some(())
        });
    }
    let from = now() + 1;
    let until = from + life + life / 2;
    wait_until(until);
    for path in &paths {
        no_gap("while sessions are renewed", path, from, until);
    }
    // Each is renewed by its own ticket, and none by another's.
    let whose = [first.ring(), second.ring(), first.service_ring()];
    assert_eq!(whose.each_ref().map(scope::whose), ["alice", "alice/admin", "alice"], "each keeps its own identity");
    let kinds: Vec<_> = pags_of("alice").into_iter().filter(|pag| pag["kind"] == "session").collect();
    let mut principals: Vec<&str> = kinds.iter().filter_map(|pag| pag["principal"].as_str()).collect();
    principals.sort_unstable();
    assert_eq!(principals, ["alice/admin@EXAMPLE.TEST", "alice@EXAMPLE.TEST"], "{kinds:#?}");
    assert!(kinds.iter().all(|pag| pag["ticket"].as_u64().is_some_and(|end| end > now())), "{kinds:#?}");
    // The ticket that services know was renewed, too.
    assert_eq!(scope::ticket_of_a_service(&mut first), "alice@EXAMPLE.TEST");
    let fresh = first.say("systemd-run --user --quiet --wait --pipe --collect klist -s && echo fresh");
    assert_eq!(fresh, "fresh\n", "the ticket that services are told of is fresh");

    // With the choice of the other session all of that is the other's.
    second.say("pagctl follow");
    let chosen = now() + 2;
    wait_until(chosen + life + life / 2);
    no_gap("with the other session", &paths[2], chosen, now());
    assert_eq!(scope::whose(&first.service_ring()), "alice/admin", "services have what was chosen, renewed");
    assert_eq!(scope::ticket_of_a_service(&mut first), "alice/admin@EXAMPLE.TEST");
    let fresh = first.say("systemd-run --user --quiet --wait --pipe --collect klist -s && echo fresh");
    assert_eq!(fresh, "fresh\n", "and so is the other's");
}

pub(super) fn keytab_serves_those_who_are_not_there(boot: u32) {
    let (life, _) = lives();
    let keytab = "/etc/pag/keytabs/alice";
    if boot == 1 {
        short_tickets(0);
        fs::write("/etc/pag/pag.conf.d/keytab.conf", format!("[user alice]\nkeytab = {keytab}\n")).unwrap();
        sh(&format!(
            "install -d -m 700 /etc/pag/keytabs && kadmin.local ktadd -k {keytab} -norandkey alice >/dev/null"
        ));
        // A service of hers from boot on, and a job for cron's start.
        sh(
            "install -d -o alice -g alice /home/alice/.config /home/alice/.config/systemd /home/alice/.config/systemd/user \
            /home/alice/.config/systemd/user/default.target.wants",
        );
        fs::write(
            "/home/alice/.config/systemd/user/watch.service",
            "[Service]\nExecStart=/usr/local/bin/watch-token %h/watch\n",
        )
        .unwrap();
        sh("ln -s ../watch.service /home/alice/.config/systemd/user/default.target.wants/");
        let job = "@reboot sleep 5; /usr/local/bin/pag-probe ~/cron.ring\n";
        fs::write("/run/crontab", job).unwrap();
        sh("crontab -u alice /run/crontab");

        // A kinit that writes down which user runs it.
        sh("mv /usr/bin/kinit /usr/bin/kinit.real");
        let script = "#!/bin/sh\nlogger -t kinit-as \"as $(id -un) $(id -Gn): $*\"\nexec /usr/bin/kinit.real \"$@\"\n";
        fs::write("/usr/bin/kinit", script).unwrap();
        sh("chmod 755 /usr/bin/kinit");

        // A keytab that others can read is refused, and said to be.
        sh(&format!("chmod 640 {keytab}"));
        sh("systemctl reload pag-logind-helper");
        heard("pag-keytab", "group or others may use it; right would be mode 0600");
        sh(&format!("chmod 600 {keytab}"));
        let got = eventually("tokens once the mode is right", Duration::from_secs(30), || {
            let pags = pags_of("alice");
            pags.first()?["tokens"].as_array().is_some_and(|tokens| !tokens.is_empty()).then_some(pags)
        });
        assert_eq!(got[0]["principal"], "alice@EXAMPLE.TEST", "{got:#?}");
        let runs = journal("kinit-as");
        let with_keytab: Vec<&str> = runs.lines().filter(|line| line.contains(" -k ")).collect();
        assert!(!with_keytab.is_empty(), "kinit says who runs it: {runs}");
        let is_its = |line: &&&str| line.starts_with("as pag-keytab pag-keytab: ");
        assert_eq!(
            with_keytab.iter().find(|line| !is_its(line)),
            None,
            "kinit runs as pag-keytab with a keytab: {runs}"
        );
        assert!(sh("getent passwd pag-keytab").contains("nologin"), "which has no shell");
        let unreadable = sh(&format!("! runuser -u alice -- cat {keytab} 2>&1"));
        assert!(unreadable.contains("Permission denied"), "{unreadable}");
        assert_eq!(sh("find /tmp /var/tmp /run -user pag-keytab"), "", "kinit leaves nothing");
        return;
    }
    let path = "/home/alice/watch";
    let booted = now();
    eventually("a token without anybody there", Duration::from_secs(20), || {
        seen(path).last().is_some_and(|(now, end)| *now + 2 > booted && end > now).then_some(())
    });
    let ring = ring_at("/home/alice/cron.ring");
    assert!(ring.token("example.test").is_some(), "a cron job, 5 s after its start: {ring:#?}");
    assert!(pags_of("alice").iter().any(|pag| pag["kind"] == "user"), "{:#?}", pags_of("alice"));
    let first = now() + 1;
    a_unit_keeps_a_named_pag();
    wait_until(first + 3 * life);
    no_gap("with a keytab", path, first, first + 3 * life);
}

/// `pag@web.service`, and services that require it.
fn a_unit_keeps_a_named_pag() {
    let keytab = "/etc/pag/keytabs/web";
    sh(&format!("kadmin.local addprinc -randkey web >/dev/null; kadmin.local ktadd -k {keytab} web >/dev/null"));
    fs::write("/etc/pag/pag.conf.d/web.conf", format!("[pag web]\nkeytab = {keytab}\nprincipal = web@EXAMPLE.TEST\n"))
        .unwrap();
    let run = |script: &str| {
        let unit = "systemd-run --quiet --wait --pipe --collect -p Requires=pag@web.service -p After=pag@web.service";
        sh(&format!("{unit} pagctl run --name web --user alice -- sh -c '{script}'"))
    };
    let said = run("id -un; keyctl pipe %user:afs@example.test");
    assert!(said.starts_with("alice\nweb@EXAMPLE.TEST "), "a service that requires the unit has its tokens: {said}");
    let said = sh("systemctl show -P ActiveState -P StatusText pag@web");
    assert!(said.contains("active\n") && said.contains("tokens of example.test 2"), "its unit tells their end: {said}");
    let ring = run("keyctl id @s");
    let pid = || sh("systemctl show -P MainPID pag@web");
    let before = pid();
    sh("systemctl kill -s KILL pag@web");
    eventually("systemd starts its keeper anew", Duration::from_secs(20), || {
        (sh("systemctl is-active pag@web || true") == "active\n" && pid() != before).then_some(())
    });
    assert_eq!(run("keyctl id @s"), ring, "with the same PAG");
    assert!(sh("pagctl show pag@web").contains("web@EXAMPLE.TEST"), "root is shown it by its name");
    sh("systemctl stop pag@web; rm /etc/pag/pag.conf.d/web.conf");
    let left = sh("pagctl list");
    assert!(!left.contains("pag@web"), "the PAG ends with its unit: {left}");
}

/// systemd's messages about a unit: it is being started, has ended well, or has failed (systemd,
/// src/systemd/sd-messages.h).
const STARTING: &str = "7d4958e842da4a758f6c1cdc7b36dcc5";
const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";
const FAILED: &str = "be02cf6855d2428ba40df7e9d022f03d";

/// The jobs of all users, in order: when, and one more or one less.
fn jobs() -> Vec<(u64, i32)> {
    let ids = [STARTING, STARTED, FAILED].map(|id| format!("MESSAGE_ID={id}")).join(" ");
    let text = sh(&format!("journalctl --sync >/dev/null 2>&1; journalctl -q -b -o json {ids}"));
    let event = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        let unit = entry["UNIT"].as_str()?;
        let at = entry["__MONOTONIC_TIMESTAMP"].as_str()?.parse().ok()?;
        unit.starts_with("pag-seed@").then_some((at, if entry["MESSAGE_ID"] == STARTING { 1 } else { -1 }))
    };
    text.lines().filter_map(event).collect()
}

/// PAM logins without sshd, so that there can be very many: each in a process of its own, with a ticket from the KDC.
fn crowd(pags: usize) -> Vec<Host> {
    let module = sh("find /usr/lib /lib -name pam_pag.so | head -1");
    let module = module.trim();
    fs::create_dir_all("/run/pam.d").unwrap();
    fs::write(
        "/run/pam.d/crowd",
        format!("auth required pam_permit.so\naccount required pam_permit.so\nsession required {module}\n"),
    )
    .unwrap();
    // The machine has fifty accounts, with principals.
    let mut more = String::new();
    for number in 50..pags {
        let uid = uid(&format!("u{number}"));
        writeln!(more, "u{number}:x:{uid}:{uid}::/home/alice:/bin/sh").unwrap();
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    fs::write("/etc/passwd", accounts + &more).unwrap();
    let last = pags.saturating_sub(1);
    sh(&format!(
        "seq 50 {last} | sed 's/.*/addprinc -pw u&pw u&/' | kadmin.local >/dev/null 2>&1; mkdir -p -m 711 /run/crowd"
    ));
    (0..pags)
        .map(|number| {
            let user = format!("u{number}");
            sh(&format!(
                "echo {user}pw | kinit -c /run/crowd/{user} {user} >/dev/null && chown {0} /run/crowd/{user}",
                uid(&user)
            ));
            let mut host = Host::start(Command::new("pag-pamhost"), &["crowd", &user]);
            host.all_ok(&[&format!("putenv KRB5CCNAME=FILE:/run/crowd/{user}"), "open"]);
            host
        })
        .collect()
}

pub(super) fn many_pags_are_renewed_in_turn(_: u32) {
    let (pags, life, pause) = if long() { (1000, 900, 20) } else { (40, 80, 2) };
    short_tickets(3600 * 4);
    sh(&format!("sed -i 's/ticket_lifetime = .*/ticket_lifetime = {life}s/' /etc/krb5.conf"));
    // In the short form no running helper spreads the first renewals: all of them are due when the helper comes back.
    if !long() {
        sh("systemctl stop pag-logind-helper");
    }
    // Two pipes for each.
    sh(&format!("prlimit --nofile=8192:8192 --pid {}", std::process::id()));
    let begin = now();
    let _here = crowd(pags);
    let took = now() - begin;
    println!("figures: {pags} logins took {took} s");
    if !long() {
        assert!(took < life / 2, "{pags} logins took {took} s: too slow a machine for this");
        wait_until(begin + life * 5 / 8);
        sh("systemctl start pag-logind-helper");
    }
    let pid = helper();
    let mut looks = 0;
    while now() < begin + took + life * 11 / 10 {
        let status = status();
        let all = status["all"].as_array().cloned().unwrap_or_default();
        assert_eq!(all.len(), pags, "{all:#?}");
        let looked = now();
        for pag in &all {
            let tokens = pag["tokens"].as_array().into_iter().flatten();
            let ends: Vec<bool> = tokens.map(|token| token["expired"] == false).collect();
            assert!(
                !ends.is_empty() && ends.iter().all(|good| *good),
                "no good token after {looks} looks, in second {}: {pag:#?}",
                looked - begin
            );
        }
        looks += 1;
        std::thread::sleep(Duration::from_secs(pause));
    }
    let jobs = jobs();
    let (mut running, mut most) = (0, 0);
    for (_, change) in &jobs {
        running += change;
        most = most.max(running);
    }
    let starts: Vec<u64> = jobs.iter().filter(|(_, change)| *change > 0).map(|(at, _)| *at).collect();
    let at = |part: usize| starts.get(starts.len() * part / 10).copied().unwrap_or(0) / 1_000_000;
    let spread = at(9) - at(1);
    let usage = sh("systemctl show -P MemoryCurrent -P CPUUsageNSec pag-logind-helper");
    let rss = sh(&format!("grep VmRSS /proc/{pid}/status"));
    let figures = format!(
        "{pags} PAGs, {looks} looks, {} jobs, at most {most} at once, eight tenths of them within {spread} s; memory and \
         CPU: {} {}",
        starts.len(),
        usage.replace('\n', " "),
        rss.trim()
    );
    println!("figures: {figures}");
    assert!((if long() { 1..=4 } else { 3..=4 }).contains(&most), "jobs at once: {figures}");
    assert!(starts.len() >= pags, "each was renewed: {figures}");
    assert!(!long() || spread >= life / 12, "renewals are spread out: {figures}");
    let kib: u64 = rss.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap();
    assert!(kib < 24 * 1024, "memory: {figures}");
    let said = journal("pag-logind-helper");
    assert!(!said.contains("have ended, and its processes"), "nobody was ever without: {said}");
    assert_eq!(helper(), pid, "it is the same process still");
}
