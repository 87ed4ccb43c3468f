//! Logins that come and go, and which of them share a PAG.

use std::fs;
use std::time::Duration;

use crate::guest::{Proof, Session, assert_same, assert_token, eventually, heard, manager_is, pags_of, run, sh};
use crate::ring::Ring;

/// The pids that hold leases of a user's one PAG as logins.
pub(super) fn logins(user: &str) -> Vec<i64> {
    let pags = pags_of(user);
    assert_eq!(pags.len(), 1, "one PAG of {user} expected: {pags:#?}");
    let leases = pags[0]["leases"].as_array().cloned().unwrap_or_default();
    leases.iter().filter(|lease| lease["role"] == "login").filter_map(|lease| lease["pid"].as_i64()).collect()
}

/// The report that a probe leaves in a file.
pub(super) fn ring_at(path: &str) -> Ring {
    Ring::parse(&eventually(path, Duration::from_secs(15), || fs::read_to_string(path).ok()))
}

/// Kills a process, so that it cannot clean up.
pub(super) fn kill(pid: i64) {
    sh(&format!("kill -9 {pid}"));
}

/// Puts a process into the control group of this scenario, where no end of a session or user finds it.
pub(super) fn leave_cgroup(pid: &str) {
    let ours = fs::read_to_string("/proc/self/cgroup").unwrap();
    let ours = ours.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    fs::write(format!("/sys/fs/cgroup{ours}/cgroup.procs"), pid).unwrap();
}

/// A service that looks at its ring while it stops, and a process that goes on after all is over.
const STAYERS: &str = r#"
mkdir -p ~/.config/systemd/user
cat > ~/.config/systemd/user/stopping.service <<X
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true
ExecStop=/usr/local/bin/pag-probe %h/stopping.ring
X
systemctl --user daemon-reload
systemctl --user start stopping.service
setsid sh -c 'echo $$ > ~/left.pid; while ! test -e ~/ask; do sleep 0.1; done; pag-probe ~/left.ring' >/dev/null 2>&1 </dev/null &
while ! test -s ~/left.pid; do sleep 0.1; done
"#;

pub(super) fn second_login_joins_and_last_logout_ends(_: u32) {
    let mut first = Session::ssh("alice", Proof::Password);
    let mut second = Session::ssh("alice", Proof::Password);
    let ring = first.ring();
    assert!(ring.is_pag(), "{ring:#?}");
    assert_same("the second login", &ring, &second.ring());
    assert_token("the second login", &second.ring());
    assert_eq!(logins("alice").len(), 2, "each login has a lease: {:#?}", pags_of("alice"));
    second.say(STAYERS);
    // Out of the session's control group: logind would keep the manager for it.
    leave_cgroup(fs::read_to_string("/home/alice/left.pid").unwrap().trim());

    first.log_out();
    eventually("one lease is left", Duration::from_secs(10), || (logins("alice").len() == 1).then_some(()));
    assert_token("the shell that stays", &second.ring());
    assert_token("its services", &second.service_ring());

    second.log_out();
    let stopping = ring_at("/home/alice/stopping.ring");
    assert_same("a service that stops with the manager", &ring, &stopping);
    assert_token("a service that stops with the manager", &stopping);
    manager_is("alice", "inactive");
    eventually("the PAG has ended", Duration::from_secs(10), || pags_of("alice").is_empty().then_some(()));
    fs::write("/home/alice/ask", "").unwrap();
    let left = ring_at("/home/alice/left.ring");
    assert_same("what was left running", &ring, &left);
    assert!(left.token("example.test").is_none(), "the tokens were to end with the PAG: {left:#?}");
}

pub(super) fn killed_leader_is_reaped(_: u32) {
    let mut killed = Session::ssh("alice", Proof::Password);
    let victim = logins("alice");
    assert_eq!(victim.len(), 1, "{victim:?}");
    let mut other = Session::ssh("alice", Proof::Key);
    assert_same("the second login", &killed.ring(), &other.ring());
    kill(victim[0]);
    eventually("the killed login's lease is reaped", Duration::from_secs(5), || {
        let left = logins("alice");
        (left.len() == 1 && left != victim).then_some(())
    });
    heard("pag-logind-helper", "of alice (uid 61001) had ended without saying so");
    assert_token("the login that was not killed", &other.ring());

    kill(logins("alice")[0]);
    // Its child still serves the connection, and logind counts that as a session.
    drop((killed, other));
    manager_is("alice", "inactive");
    eventually("the PAG ends with the manager", Duration::from_secs(10), || pags_of("alice").is_empty().then_some(()));
    heard("pag-logind-helper", "of alice (uid 61001); its tokens were discarded");
    assert_eq!(ccaches(61001), 0, "a ccache was left: {}", sh("find /run/pag/ccache -ls"));
}

/// How many ccaches of PAGs a user has.
pub(super) fn ccaches(uid: u32) -> usize {
    fs::read_dir(format!("/run/pag/ccache/{uid}")).map_or(0, Iterator::count)
}

pub(super) fn member_clears_the_ring_and_it_is_healed(_: u32) {
    let mut alice = Session::ssh("alice", Proof::Password);
    let before = alice.ring();
    assert_token("before", &before);
    let mut watcher = Session::ssh("alice", Proof::Key);
    assert_token("the other login", &watcher.ring());
    // Only a ring that the helper has seen with its keys is reported as emptied.
    eventually("the helper has seen both logins", Duration::from_secs(10), || {
        (alice.say("pagctl show").matches("\n  lease      login ").count() == 2).then_some(())
    });
    alice.say("keyctl clear @s");
    let service = eventually("the token is back in a service", Duration::from_secs(20), || {
        Some(watcher.service_ring()).filter(|ring| ring.token("example.test").is_some())
    });
    assert_same("the healed ring", &before, &service);
    let healed = service.token("example.test").map(|key| key.serial);
    assert_ne!(healed, before.token("example.test").map(|key| key.serial), "the ring was never empty");
    assert!(service.keys.iter().any(|key| key.name == "_uid.61001"), "the user keyring is linked again: {service:#?}");
    heard("pag-logind-helper", "a member had emptied its ring");
    heard("pag-logind-helper", "its tokens are back");
    let units = sh("journalctl -q -o cat -u pag-seed@61001.service");
    assert!(units.contains("Seeds AFS tokens of user 61001"), "no seeding job has run: {units}");
}

/// The ring of a command of root's.
fn ring_of(command: &str) -> Ring {
    Ring::parse(&sh(command))
}

fn assert_stranger(what: &str, alice: &Ring, ring: &Ring) {
    assert_ne!(alice.identity(), ring.identity(), "{what} is in alice's PAG");
    assert!(ring.token("example.test").is_none(), "{what} has a token: {ring:#?}");
}

pub(super) fn su_and_root_find_no_tokens(_: u32) {
    let mut alice = Session::ssh("alice", Proof::Password);
    let (ring, own) = (alice.ring(), ring_of("pag-probe"));
    assert_token("alice", &ring);

    let login = ring_of("su - bob -c pag-probe");
    assert!(login.is_pag(), "su - is a login of bob's: {login:#?}");
    assert_stranger("su - bob", &ring, &login);
    for command in
        ["su bob -c pag-probe", "runuser -u bob pag-probe", "runuser -u alice pag-probe", "sudo -u alice pag-probe"]
    {
        assert_same(command, &own, &ring_of(command));
    }
    let login = ring_of("runuser -l alice -c pag-probe");
    assert_same("runuser -l alice is a login of alice's", &ring, &login);

    // No PAM runs for it.
    let bare = ring_of("systemd-run --quiet --wait --pipe --collect --uid=alice pag-probe");
    assert!(!bare.is_pag(), "systemd-run --uid=alice is in a PAG: {bare:#?}");
    assert_stranger("systemd-run --uid=alice", &ring, &bare);

    sh("echo root:rootpw | chpasswd -c SHA512");
    let within = Ring::parse(&alice.say("echo rootpw | su - -c pag-probe 2>/dev/null"));
    assert!(!within.is_pag(), "su - root by alice is in a PAG: {within:#?}");
    assert_stranger("su - root by alice", &ring, &within);

    let root = "systemd-run --quiet --wait --pipe --collect -p KeyringMode=shared";
    let shared = ring_of(&format!("{root} pag-probe"));
    assert_stranger("root's service", &ring, &shared);
    for search in
        ["search @s user afs@example.test", "search @u user afs@example.test", "request user afs@example.test"]
    {
        for found in
            [run("sh", &["-c", &format!("{root} keyctl {search}")]), run("sh", &["-c", &format!("keyctl {search}")])]
        {
            assert!(
                !found.status.success(),
                "root's 'keyctl {search}' finds {}",
                String::from_utf8_lossy(&found.stdout)
            );
            let why = String::from_utf8_lossy(&found.stderr).into_owned();
            assert!(why.contains("Required key not available"), "root's 'keyctl {search}' fails otherwise: {why}");
        }
    }

    // With bob's own password, out of another user's session.
    let mut bob = Session::ssh("bob", Proof::Password);
    let bobs = bob.ring();
    assert_token("bob", &bobs);
    assert_ne!(bobs.identity(), ring.identity(), "two users, two PAGs");
    let within = Ring::parse(&bob.say("echo alicepw | su - alice -c pag-probe 2>/dev/null"));
    assert_same("su - alice", &ring, &within);
    assert_token("su - alice", &within);
    let kept = Ring::parse(&bob.say("echo alicepw | su alice -c /usr/local/bin/pag-probe 2>/dev/null"));
    assert_same("su alice keeps bob's ring", &bobs, &kept);
    assert_same("bob, afterwards", &bobs, &bob.ring());
}

pub(super) fn systemds_own_shells_are_logins(_: u32) {
    let shell = "machinectl shell -q alice@.host /usr/local/bin/pag-probe";
    let first = ring_of(shell);
    assert!(first.is_pag(), "machinectl shell is a login of alice's: {first:#?}");
    eventually("it has ended", Duration::from_secs(15), || pags_of("alice").is_empty().then_some(()));

    let mut alice = Session::ssh("alice", Proof::Password);
    let ring = alice.ring();
    assert_token("alice", &ring);
    let mut ways = vec![shell];
    // run0 came with systemd 256.
    let version = sh("systemctl --version | head -n 1 | cut -d' ' -f2");
    if version.trim().split('.').next().and_then(|number| number.parse().ok()).is_some_and(|number: u32| number >= 256)
    {
        ways.push("run0 --user=alice /usr/local/bin/pag-probe");
    }
    for way in ways {
        let seen = ring_of(way);
        assert_same(way, &ring, &seen);
        assert_token(way, &seen);
    }
    eventually("their leases have ended", Duration::from_secs(10), || (logins("alice").len() == 1).then_some(()));
}

/// The principals of a user's PAGs.
fn principals(user: &str) -> Vec<String> {
    let mut found: Vec<String> =
        pags_of(user).iter().map(|pag| pag["principal"].as_str().unwrap_or_default().to_owned()).collect();
    found.sort();
    found
}

pub(super) fn another_identity_by_ticket_is_apart(_: u32) {
    let allowed = "alice@EXAMPLE.TEST\nalice/admin@EXAMPLE.TEST\n";
    fs::write("/home/alice/.k5login", allowed).unwrap();
    sh("chown alice: /home/alice/.k5login; echo adminpw | kinit -f -c /root/admin alice/admin; \
        echo alicepw | kinit -f -c /root/plain alice");
    let (by_admin, by_alice) = (Proof::Ticket("/root/admin"), Proof::Ticket("/root/plain"));
    let token_of = |what: &str, ring: &Ring, whom: &str| {
        assert_token(what, ring);
        let payload = ring.token("example.test").and_then(|token| token.payload.clone()).unwrap_or_default();
        assert!(
            payload.starts_with(&format!("{whom}@EXAMPLE.TEST ")),
            "{what} has a token of {payload}, not of {whom}"
        );
    };

    let mut alice = Session::ssh("alice", Proof::Password);
    let ring = alice.ring();
    token_of("alice by password", &ring, "alice");
    let mut admin = Session::ssh("alice", by_admin);
    let apart = admin.ring();
    assert!(apart.is_pag(), "{apart:#?}");
    assert_ne!(ring.identity(), apart.identity(), "alice/admin is in alice's PAG");
    token_of("alice/admin", &apart, "alice/admin");
    assert_eq!(principals("alice"), ["alice/admin@EXAMPLE.TEST", "alice@EXAMPLE.TEST"]);
    for session in [&mut alice, &mut admin] {
        let service = session.service_ring();
        assert_same("the manager, and its services, are the first one's", &ring, &service);
        token_of("a service", &service, "alice");
    }
    assert_same("a second login of alice/admin", &apart, &Session::ssh("alice", by_admin).ring());
    assert_same("a login of alice by ticket", &ring, &Session::ssh("alice", by_alice).ring());

    admin.log_out();
    eventually("alice/admin's PAG has ended", Duration::from_secs(10), || {
        (principals("alice") == ["alice@EXAMPLE.TEST"]).then_some(())
    });
    token_of("alice, still", &alice.ring(), "alice");
}

pub(super) fn cron_gets_a_pag_of_its_own(_: u32) {
    let mut alice = Session::ssh("alice", Proof::Password);
    let shell = alice.ring();
    // A job for cron's start: the others run with the minute.
    let job = "pag-probe ~/$NAME.ring; while ! test -e ~/go; do sleep 0.1; done";
    alice.say(&format!("echo \"NAME=at; {}\" | at now", job.replace('~', "$HOME").replace("$NAME", "at")));
    alice.say(&format!("echo '@reboot PATH=$PATH:/usr/local/bin; {}' | crontab -", job.replace("$NAME", "cron")));
    fs::remove_file("/run/crond.reboot").ok();
    sh("systemctl restart cron atd");
    for (name, service) in [("at", "atd"), ("cron", "cron")] {
        let ring = ring_at(&format!("/home/alice/{name}.ring"));
        assert!(ring.is_pag(), "{name}: {ring:#?}");
        assert_stranger(name, &shell, &ring);
        let serial = ring.identity().0;
        let pags = pags_of("alice");
        let pag = pags.iter().find(|pag| pag["ring"] == serial).unwrap_or_else(|| panic!("{serial}: {pags:#?}"));
        assert_eq!(pag["kind"], "own", "{pag:#?}");
        assert_eq!(pag["leases"][0]["service"], service, "{pag:#?}");
    }
    assert_eq!(pags_of("alice").len(), 3, "{:#?}", pags_of("alice"));
    let later = Session::ssh("alice", Proof::Key).ring();
    assert_same("a login beside the jobs", &shell, &later);
    fs::write("/home/alice/go", "").unwrap();
    eventually("the jobs' PAGs end with them", Duration::from_secs(10), || (pags_of("alice").len() == 1).then_some(()));
    assert_token("the login", &alice.ring());
}
