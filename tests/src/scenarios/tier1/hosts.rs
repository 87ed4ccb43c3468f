//! The module in PAM hosts of every state.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{login, long, pags, ticketed, uid};
use crate::sandbox::{CELL, Host, Sandbox, module, own_dev, own_program};
use crate::ticket;

pub(super) fn host_unchanged(sandbox: &mut Sandbox) {
    let module = module();
    let module = module.display();
    // Without pam_keyinit, which itself clears the parent death signal.
    sandbox.stack("bare", &format!("auth required {module}\nsession required {module}\n"));
    let states: &[&[&str]] = &[
        &[],
        &["egid 61001"],
        &["gid 61001"],
        &["ruid 61001"],
        &["groups 61001,61002"],
        &["thread", "thread"],
        &["umask 077", "pdeathsig 15"],
        &["sigchld ignore"],
    ];
    let orders: &[&[&str]] = &[
        &["open", "close"],
        &["establish", "open", "close", "delete"],
        &["open", "establish", "delete", "close"],
        &["establish", "establish", "open", "open", "close", "close"],
        &["establish", "delete"],
    ];
    for state in states {
        for order in orders {
            let mut host = ticketed(sandbox, "bare", "alice", "alice");
            host.all_ok(state);
            let before = host.ask("report");
            for line in *order {
                host.ok(line);
                let now = host.ask("report");
                for (name, value) in before.as_object().unwrap() {
                    if name != "session" {
                        assert_eq!(&now[name], value, "{name} after {line} of {order:?} in state {state:?}");
                    }
                }
                let entered = !matches!(*line, "close" | "delete");
                if entered {
                    assert!(host.ring().is_pag(), "a PAG after {line} of {order:?} in state {state:?}");
                }
            }
            host.ok("end");
        }
    }
}

pub(super) fn keyinit_after_us(sandbox: &mut Sandbox) {
    let mut host = login(sandbox, "alice");
    let before = host.ring().identity().0;
    sandbox.messages();
    host.ok("newring");
    host.ok("establish");
    assert_eq!(host.ring().identity().0, before, "it is put back");
    sandbox.heard("session keyring");
    assert!(host.ring().token(CELL).is_some(), "with its token");
}

pub(super) fn exports(_: &mut Sandbox) {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(module()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
    names.sort_unstable();
    let six = [
        "pam_sm_acct_mgmt",
        "pam_sm_authenticate",
        "pam_sm_chauthtok",
        "pam_sm_close_session",
        "pam_sm_open_session",
        "pam_sm_setcred",
    ];
    assert_eq!(names, six, "exactly the six entry points");
}

pub(super) fn panic_is_a_line(sandbox: &mut Sandbox) {
    let module = module();
    let module = module.display();
    let count = if long() { 500 } else { 10 };
    for (hook, lines) in [("session", ["open", "close"]), ("setcred", ["establish", "delete"])] {
        let line = format!("required {module} fault={hook}");
        sandbox.stack("faulty", &format!("auth {line}\naccount required pam_permit.so\nsession {line}\n"));
        let mut host = ticketed(sandbox, "faulty", "alice", "alice");
        // Ids that our guard changes for the time of its work, in which the panic comes.
        host.all_ok(&["ruid 61001", "egid 61002"]);
        let before = host.ask("report");
        sandbox.messages();
        for line in lines.iter().cycle().take(count) {
            host.ok(line);
            let message = sandbox.heard("internal error at");
            assert!(message.text().contains(".rs:"), "the message names a source place: {message:?}");
            for (name, value) in before.as_object().unwrap() {
                assert_eq!(&host.ask("report")[name], value, "{name} after a panic in {line} is as it was");
            }
        }
        host.ok("end");
    }
}

pub(super) fn syslog_where_no_journal_is(sandbox: &mut Sandbox) {
    std::fs::rename("/run/systemd/journal/socket", "/run/systemd/journal/socket.away").unwrap();
    own_dev();
    std::fs::remove_file("/dev/log").ok();
    let syslog = UnixDatagram::bind("/dev/log").unwrap();
    syslog.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // A time zone other than the host's that needs no database.
    let start = || {
        let mut command = Command::new(own_program("pag-pamhost"));
        command.env("TZ", "XXX-05:30");
        Host::start(command, &["sshd", "alice"])
    };
    let date = || {
        let date = Command::new("date").arg("+%b %e %H:%M:").envs([("TZ", "XXX-05:30"), ("LC_ALL", "C")]).output();
        String::from_utf8(date.unwrap().stdout).unwrap().trim_end().to_owned()
    };
    let before = date();
    let mut host = start();
    host.ok("open");
    let message = loop {
        let mut buffer = [0; 8192];
        let length = syslog.recv(&mut buffer).expect("our message comes to syslog");
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        // libpam writes there, too.
        if message.contains(" pam_pag[") {
            break message;
        }
    };
    let (priority, rest) = message.split_once('>').unwrap();
    assert_eq!(priority, "<86", "authpriv, info: {message}");
    assert!(rest.starts_with(&before) || rest.starts_with(&date()), "{message} is of {before}");
    assert!(rest.contains("]: pam_pag(sshd:session): made PAG "), "{message}");
    host.all_ok(&["close", "end"]);
    // No process listens at all, or none reads.
    for what in ["nobody listens", "nobody reads"] {
        if what == "nobody listens" {
            std::fs::rename("/dev/log", "/dev/log.away").unwrap();
        } else {
            std::fs::rename("/dev/log.away", "/dev/log").unwrap();
            let filler = UnixDatagram::unbound().unwrap();
            filler.set_nonblocking(true).unwrap();
            while filler.send_to(b"x", "/dev/log").is_ok() {}
        }
        let begun = Instant::now();
        let mut host = start();
        host.ok("open");
        assert!(host.ring().is_pag(), "{what}: the login is in its PAG");
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}: {:?}", begun.elapsed());
        host.all_ok(&["close", "end"]);
    }
    std::fs::rename("/run/systemd/journal/socket.away", "/run/systemd/journal/socket").unwrap();
    let mut host = start();
    sandbox.messages();
    host.ok("open");
    sandbox.heard("made PAG");
    host.all_ok(&["close", "end"]);
}

pub(super) fn bad_configuration(sandbox: &mut Sandbox) {
    sandbox.service("odd", "colour=red timeout=soon");
    let mut host = ticketed(sandbox, "odd", "alice", "alice");
    sandbox.messages();
    host.ok("open");
    let texts: Vec<String> = sandbox.messages().iter().map(|message| message.text().to_owned()).collect();
    for word in ["colour", "timeout"] {
        let count = texts.iter().filter(|text| text.contains(word)).count();
        assert_eq!(count, 1, "one message about {word}: {texts:#?}");
    }
    assert!(host.ring().is_pag(), "the login goes on with the default");
    sandbox.configure("flavour = sweet");
    let mut host = ticketed(sandbox, "sshd", "alice", "alice");
    host.ok("open");
    let message = sandbox.heard("flavour");
    assert!(message.text().contains("/etc/pag/pag.conf"), "it names the file: {message:?}");
}

/// A stack of our module alone: pam_keyinit keeps one keyring to a process, whatever its handles are.
pub(super) fn bare(sandbox: &Sandbox, names: &[&str]) {
    let module = module();
    let module = module.display();
    for name in names {
        sandbox.stack(name, &format!("auth required {module}\nsession required {module}\n"));
    }
}

/// One more PAM handle in `host`, for a login of `user` with a ticket.
pub(super) fn another(host: &mut Host, service: &str, user: &str) {
    let path = format!("/run/home/{user}/cc.another");
    let name = ticket::write(&path, uid(user), user, "EXAMPLE.TEST", ticket::now() + 3600);
    host.all_ok(&[&format!("start {service} {user}"), &format!("putenv KRB5CCNAME={name}")]);
}

/// Fails unless the host is in the PAG of `user` and sees only that user's token; for `None`: in no PAG, without a token.
pub(super) fn works_for(host: &mut Host, user: Option<&str>, when: &str) {
    let ring = host.ring();
    assert_eq!(ring.is_pag(), user.is_some(), "{when}: whether the host is in a PAG: {ring:?}");
    if let Some(user) = user {
        assert_eq!(ring.ring.as_ref().unwrap().uid, i64::from(uid(user)), "{when}: the ring is {user}'s");
        assert!(ring.token(CELL).is_some(), "{when}: {user}'s token is there");
    }
    let foreign = ring.keys.iter().filter_map(|key| key.payload.as_ref());
    let foreign: Vec<_> = foreign.filter(|text| user.is_none_or(|u| !text.starts_with(&format!("{u}@")))).collect();
    assert!(foreign.is_empty(), "{when}: nobody else's token is seen: {foreign:?}");
    assert!(
        host.ask("report")["process_ring"].as_array().unwrap().is_empty(),
        "{when}: nothing is left in the process"
    );
}

pub(super) fn two_users_in_one_host(sandbox: &mut Sandbox) {
    bare(sandbox, &["bare"]);
    for service in ["bare", "sshd"] {
        let mut host = Host::start(Command::new(own_program("pag-pamhost")), &[]);
        for user in ["alice", "bob", "bob", "alice"] {
            another(&mut host, service, user);
            host.ok("open");
            works_for(&mut host, Some(user), &format!("{service}, {user} in turn"));
            host.ok("close");
            works_for(&mut host, None, &format!("{service}, after {user} in turn"));
            host.ok("end");
            assert!(pags(user).is_empty(), "{service}: the PAG of {user} has ended");
        }
        // With sessions of both users open the host is in no ring: its next program may be either user's. When one
        // closes, the other keeps the PAG.
        for (first, second) in [(0, 1), (1, 0)] {
            let users = ["alice", "bob"];
            sandbox.messages();
            for (user, works_on) in [("alice", Some("alice")), ("bob", None)] {
                another(&mut host, service, user);
                host.ok("open");
                works_for(&mut host, works_on, &format!("{service}, {user} interleaved"));
                assert_eq!(pags(user)[0].leases().len(), 1, "{service}, {user} interleaved: a session is open");
            }
            let message = sandbox.heard("sessions of other users open at once");
            let named = format!("process {} (pag-pamhost) has a session of bob (uid 61002)", host.pid());
            assert!(message.text().contains(&named), "the message names the process: {message:?}");
            for line in ["establish", "open"] {
                host.ok(line);
                works_for(&mut host, None, &format!("{service}, bob interleaved, after {line}"));
            }
            host.all_ok(&[&format!("use {first}"), "close"]);
            let when = format!("{service}: {} has closed before {}", users[first], users[second]);
            works_for(&mut host, None, &when);
            assert!(pags(users[first]).is_empty(), "{when}: the first PAG has ended");
            assert_eq!(pags(users[second]).len(), 1, "{when}: the second goes on");
            let mut other = login(sandbox, users[second]);
            works_for(&mut other, Some(users[second]), &format!("{when}, in another host"));
            other.all_ok(&["close", "end"]);
            host.all_ok(&[&format!("use {second}"), "close"]);
            works_for(&mut host, None, &format!("{when}, and both have closed"));
            assert!(pags(users[second]).is_empty(), "{when}: both PAGs have ended");
            host.all_ok(&["end", "end"]);
        }
    }
    // One handle for both, in turn.
    let mut host = Host::start(Command::new(own_program("pag-pamhost")), &[]);
    another(&mut host, "bare", "alice");
    host.all_ok(&["open", "user bob", "open"]);
    assert_eq!(host.ring().ring.unwrap().uid, i64::from(uid("bob")), "a handle whose user has changed has his ring");
    assert!(pags("alice").is_empty(), "a handle whose user has changed ends the session of the user before");
    host.all_ok(&["close", "end"]);
    assert!(pags("bob").is_empty(), "a handle whose user has changed closes the session of the user that it has now");
    let messages = sandbox.messages();
    let blamed = messages.iter().find(|message| message.text().contains("has replaced"));
    assert!(blamed.is_none(), "nobody has replaced a session keyring but this host: {blamed:?}");
}

pub(super) fn setcred_only_and_twice(sandbox: &mut Sandbox) {
    bare(sandbox, &["bare"]);
    let orders: &[&[&str]] = &[
        &["establish", "delete"],
        &["establish", "establish", "delete", "delete"],
        &["open", "open", "close", "close"],
        &["establish", "open", "establish", "open", "close", "delete"],
        &["open", "establish", "delete", "close"],
        &["establish", "delete", "establish", "delete", "open", "close"],
        &["open", "close", "open", "delete"],
    ];
    for order in orders {
        let mut host = ticketed(sandbox, "bare", "alice", "alice");
        for (index, line) in order.iter().enumerate() {
            let runs = sandbox.seeder_runs();
            let fresh = pags("alice").is_empty();
            host.ok(line);
            let when = format!("{line}, number {index} of {order:?}");
            let pags = pags("alice");
            if matches!(*line, "close" | "delete") {
                works_for(&mut host, None, &when);
                assert!(pags.is_empty(), "{when}: the PAG has ended: {pags:?}");
            } else {
                works_for(&mut host, Some("alice"), &when);
                assert_eq!(pags.len(), 1, "{when}: one PAG");
                assert_eq!(pags[0].leases().len(), 1, "{when}: one lease for one login: {pags:?}");
                assert_eq!(sandbox.seeder_runs() - runs, usize::from(fresh), "{when}: one seeder for one login");
            }
        }
        host.ok("end");
    }
    // A host that asks for a password that way and opens no session (smbd) stays what it was. A host that ends the
    // handle of a session leaves the PAG, and the session stays open.
    for (order, is_open) in [(&["establish"][..], false), (&["establish", "establish"], false), (&["open"], true)] {
        let mut host = ticketed(sandbox, "bare", "alice", "alice");
        host.all_ok(order);
        host.ok("end-in-child");
        works_for(&mut host, Some("alice"), &format!("the end of a child's copy of a handle after {order:?}"));
        host.ok("end");
        works_for(&mut host, None, &format!("the end of a handle after {order:?}"));
        assert_eq!(pags("alice").len(), usize::from(is_open), "the PAG after the end of a handle");
    }
    // But vsftpd forks the user's process after that.
    bare(sandbox, &["vsftpd"]);
    let mut host = ticketed(sandbox, "vsftpd", "alice", "alice");
    host.all_ok(&["establish", "end"]);
    works_for(&mut host, Some("alice"), "vsftpd, after the end of its handle");
    drop(host);
    // A host that asks for a password inside a session of the user's stays in it.
    let mut host = ticketed(sandbox, "bare", "alice", "alice");
    host.ok("open");
    another(&mut host, "bare", "alice");
    host.all_ok(&["establish", "end"]);
    works_for(&mut host, Some("alice"), "after a password was asked for in a session");
    assert_eq!(pags("alice")[0].leases().len(), 1, "which has its lease still, and no other");
    host.all_ok(&["close", "end"]);
    // A screen unlock: a process outside the session that refreshes the credentials, perhaps with a better ticket.
    for line in ["refresh", "reinitialize"] {
        let mut locker = ticketed(sandbox, "bare", "alice", "alice");
        locker.ok("newring");
        let before = locker.ring();
        locker.ok(line);
        assert!(pags("alice").is_empty(), "{line} makes no PAG");
        let mut host = login(sandbox, "alice");
        let runs = sandbox.seeder_runs();
        locker.ok(line);
        assert_eq!(sandbox.seeder_runs(), runs, "{line} with the old ticket gets no token");
        ticket::write("/run/home/alice/cc.alice", uid("alice"), "alice", "EXAMPLE.TEST", ticket::now() + 7200);
        locker.ok(line);
        assert_eq!(sandbox.seeder_runs(), runs + 1, "{line} with a better ticket gets one");
        assert_eq!(locker.ring(), before, "{line} leaves the locker where it is");
        assert_eq!(pags("alice")[0].leases().len(), 1, "{line} is no login");
        assert!(host.ring().token(CELL).is_some(), "{line}: the session has the token");
        host.all_ok(&["close", "end"]);
    }
}

pub(super) fn services_table(sandbox: &mut Sandbox) {
    let nothing = ["su", "sudo", "sudo-i", "runuser", "polkit-1"];
    let greeters = ["gdm-launch-environment", "lightdm-greeter", "sddm-greeter"];
    let joins = ["su-l", "runuser-l", "login", "gdm-password", "gdm-autologin", "machine-shell", "xrdp-sesman"];
    let own = ["cron", "crond", "atd"];
    for names in [&nothing[..], &greeters, &joins, &own, &["systemd-user", "sshd"]] {
        bare(sandbox, names);
    }
    let mut alice = login(sandbox, "alice");
    let ring = alice.ring();
    // These services change a process's user. The caller keeps its PAG, or has none.
    for service in nothing.iter().chain(&greeters) {
        for user in ["bob", "alice", "root"] {
            alice.ok(&format!("start {service} {user}"));
            alice.all_ok(&["establish", "open"]);
            assert_eq!(alice.ring(), ring, "{service} of {user}: the shell keeps the ring that it inherited");
            alice.all_ok(&["close", "delete"]);
            assert_eq!(alice.ring(), ring, "{service} of {user}: also at its end");
            alice.all_ok(&["end"]);
            let mut outside = sandbox.host(service, user);
            outside.ok("newring");
            let before = outside.ring();
            outside.all_ok(&["establish", "open"]);
            assert_eq!(outside.ring(), before, "{service} of {user}: nothing happens outside a PAG");
        }
    }
    assert!(pags("bob").is_empty(), "and no PAG is made");
    assert_eq!(pags("alice")[0].leases().len(), 1, "nor a lease");
    for service in joins {
        let mut host = sandbox.host(service, "alice");
        host.ok("open");
        assert_eq!(host.ring().identity(), ring.identity(), "{service} is a login: it joins");
        host.all_ok(&["close", "end"]);
    }
    for service in own {
        let runs = sandbox.seeder_runs();
        let mut host = sandbox.host(service, "alice");
        host.ok("open");
        let found = host.ring();
        assert!(found.is_pag(), "{service} has a PAG");
        assert_ne!(found.identity(), ring.identity(), "{service} has a PAG of its own");
        assert!(found.token(CELL).is_none(), "{service} has none of the login's tokens");
        assert_eq!(sandbox.seeder_runs(), runs, "{service} gets no tokens without a ccache of its own");
        assert!(pags("alice").iter().any(|pag| pag.text.contains("kind own")), "{service}: it says so");
        assert_eq!(login(sandbox, "alice").ring().identity(), ring.identity(), "no login joins that of {service}");
        host.all_ok(&["close", "end"]);
        assert_eq!(pags("alice").len(), 1, "{service}: its PAG ends with it");
    }
    // Uids below UID_MIN, root above all.
    for service in ["sshd", "login", "su-l", "cron", "systemd-user"] {
        for user in ["root", "daemon"] {
            let mut host = sandbox.host(service, user);
            host.all_ok(&["establish", "open"]);
            assert!(!host.ring().is_pag(), "{service} of {user} has no PAG");
            host.all_ok(&["close", "end"]);
        }
    }
    // `su -` from within a PAG: root is out of it.
    alice.all_ok(&["start su-l root", "open"]);
    assert!(!alice.ring().is_pag(), "su -l from a PAG: root is in nobody's");
    let mut manager = sandbox.host("systemd-user", "alice");
    manager.ok("open");
    assert_eq!(manager.ring().identity(), ring.identity(), "the user manager joins");
    assert!(manager.ring().token(CELL).is_some(), "it has the tokens");
    let name = manager.ask("getenv KRB5CCNAME")["value"].as_str().unwrap_or_default().to_owned();
    let directory = name.strip_prefix("DIR:").unwrap_or_else(|| panic!("KRB5CCNAME of the manager is '{name}'"));
    assert!(directory.starts_with("/run/pag/ccache/61001/"), "the PAG's own ccache: {name}");
    let found = std::fs::metadata(directory).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (uid("alice"), 0o700), "which is the user's alone");
    for file in ["tkt", "primary"] {
        let found = std::fs::metadata(format!("{directory}/{file}")).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (uid("alice"), 0o600), "as what is in it: {file}");
    }
    // One that was started before any login: linger.
    let runs = sandbox.seeder_runs();
    let mut manager = sandbox.host("systemd-user", "carol");
    manager.ok("open");
    assert!(manager.ring().is_pag() && manager.ring().token(CELL).is_none(), "a PAG without tokens");
    assert_eq!(sandbox.seeder_runs(), runs, "for which nothing was run");
    assert_eq!(
        login(sandbox, "carol").ring().identity(),
        manager.ring().identity(),
        "the login joins the manager's PAG"
    );
}

pub(super) fn su_to_another(sandbox: &mut Sandbox) {
    bare(sandbox, &["su-l", "sshd"]);
    let mut host = login(sandbox, "alice");
    let ring = host.ring();
    // As su runs: another program, with its caller's real ids, and groups.
    host.all_ok(&["exec", "groups 61001", "egid 61001", "ruid 61001"]);
    another(&mut host, "su-l", "bob");
    host.all_ok(&["establish", "open"]);
    works_for(&mut host, Some("bob"), "su -l bob by alice");
    assert_eq!(pags("bob")[0].leases().len(), 1, "bob has a login");
    let mut bob = login(sandbox, "bob");
    assert_eq!(bob.ring().identity(), host.ring().identity(), "which shares his PAG with his next one");
    host.all_ok(&["close", "delete", "end"]);
    works_for(&mut host, None, "after su -l bob by alice");
    works_for(&mut bob, Some("bob"), "bob's other login");
    let mut alice = login(sandbox, "alice");
    assert_eq!(alice.ring().identity(), ring.identity(), "alice's PAG has gone on");
    works_for(&mut alice, Some("alice"), "alice's other login");
}
