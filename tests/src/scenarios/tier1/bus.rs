//! The D-Bus interface, on a bus with the shipped policy: which users see and do what, and what no user can break.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{inside, login, pags, registry, shell, uid};
use crate::bus::{Bus, Caller, HOST, Helper, MANAGER, OBJECTS, PAG, PROPERTIES, error};
use crate::bus::{logind, pag_seed, pagctl, polkit, systemd};
use crate::ring::{describe, keyctl, members};
use crate::sandbox::{CELL, Host, Sandbox, SilentNames, eventually, own_program, silent_server};
use crate::ticket;

const NAME: &str = "org.pam_pag.Pag1";
/// An id that no PAG has.
const NOBODYS: &str = "0123456789abcdef";

/// The ids of a user's PAGs, as the registry has them.
fn ids(user: &str) -> Vec<String> {
    pags(user).iter().map(|pag| pag.name.rsplit(':').next().unwrap().to_owned()).collect()
}

/// The one PAG that a user has.
fn id(user: &str) -> String {
    let mut all = ids(user);
    assert_eq!(all.len(), 1, "{user} has one PAG: {all:?}");
    all.remove(0)
}

/// Waits until the helper shows `caller` exactly these PAGs.
fn sees(caller: &mut Caller, wanted: &[&str]) {
    let wanted: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
    eventually(&format!("{wanted:?} are seen"), Duration::from_secs(5), || {
        (caller.pags().into_iter().collect::<BTreeSet<String>>() == wanted).then_some(())
    });
}

/// The cells for which a PAG has tokens, as the interface shows them.
fn cells(properties: &Value) -> Vec<String> {
    let tokens = properties["ok"]["Tokens"].as_array().unwrap_or_else(|| panic!("no tokens: {properties}"));
    tokens.iter().map(|token| token[1].as_str().unwrap().to_owned()).collect()
}

pub(super) fn shows_own_pags_only(sandbox: &mut Sandbox) {
    let (_bus, _helper) = (Bus::start(), Helper::serving());
    let (mut alices, mut bobs) = (login(sandbox, "alice"), login(sandbox, "bob"));
    let (hers, his) = (id("alice"), id("bob"));
    let (mut alice, mut root) = (Caller::new(uid("alice")), Caller::new(0));
    sees(&mut root, &[&hers, &his]);
    sees(&mut alice, &[&hers]);

    // Her own.
    let path = format!("{HOST}/pag/{hers}");
    assert_eq!(alice.ok(&format!("GetPag {hers}")), json!(path));
    let mine = alice.properties(&hers)["ok"].clone();
    assert_eq!((&mine["Id"], &mine["UID"], &mine["Kind"]), (&json!(hers), &json!(uid("alice")), &json!("user")));
    assert_eq!(mine["Principal"], "alice@EXAMPLE.TEST");
    assert_eq!(mine["RingSerial"], alices.ring().identity().0);
    assert_eq!(mine["Leases"], json!([[alices.pid(), "login", "sshd", "-", true]]));
    assert_eq!((&mine["Tokens"][0][0], &mine["Tokens"][0][1]), (&json!("keyring"), &json!(CELL)), "{mine}");
    assert_eq!(
        (&mine["Tokens"][0][2], &mine["Tokens"][0][5]),
        (&json!("alice@EXAMPLE.TEST"), &json!("good")),
        "{mine}"
    );
    assert!(mine["TicketExpires"].as_u64().unwrap() > crate::ticket::now(), "{mine}");
    let one = alice.say(&format!("call {path} {PROPERTIES} Get {PAG} Retain"));
    assert_eq!(one["ok"], "none");
    let objects = alice.say(&format!("call {HOST} {OBJECTS} GetManagedObjects"))["ok"].clone();
    assert_eq!(objects.as_object().unwrap().keys().collect::<Vec<_>>(), [&path]);
    assert_eq!(objects[&path][PAG], mine);

    // Bob's PAG. For alice it does not exist, in the same words as for a name that never existed.
    let xml = alice.say(&format!("call {HOST}/pag org.freedesktop.DBus.Introspectable Introspect"))["ok"].clone();
    let xml = xml.as_str().unwrap();
    assert!(xml.contains(&hers) && !xml.contains(&his), "introspection names her own: {xml}");
    for call in [
        format!("{HOST} {MANAGER} GetPag ID"),
        format!("{HOST} {MANAGER} Renew ID"),
        format!("{HOST} {MANAGER} Unlog ID _"),
        format!("{HOST} {MANAGER} Unlog ID {CELL}"),
        format!("{HOST} {MANAGER} Follow ID"),
        format!("{HOST} {MANAGER} Unfollow ID"),
        format!("{HOST}/pag/ID {PROPERTIES} GetAll {PAG}"),
        format!("{HOST}/pag/ID {PROPERTIES} Get {PAG} UID"),
        format!("{HOST}/pag/ID org.freedesktop.DBus.Introspectable Introspect"),
    ] {
        let [is, is_not] = [&his, NOBODYS].map(|id| {
            let answer = alice.say(&format!("call {}", call.replace("ID", id)));
            assert!(answer["error"].is_string(), "alice is refused what is bob's: {call}: {answer}");
            answer.to_string().replace(id, "ID")
        });
        assert_eq!(is, is_not, "what there is and is not: {call}");
    }
    assert!(bobs.ring().token(CELL).is_some(), "bob has his token");
    assert!(pags("bob")[0].text.contains("token "), "and his record");

    // Root sees both.
    let all = root.ok("ListPags");
    let uids: Vec<u64> = all.as_array().unwrap().iter().map(|line| line[1].as_u64().unwrap()).collect();
    assert_eq!(uids.len(), 2);
    assert_eq!(root.properties(&his)["ok"]["UID"], uid("bob"));
    assert_eq!(all, root.ok("ListAllPags"));

    // An end is seen as well.
    bobs.all_ok(&["close", "end"]);
    alices.all_ok(&["close", "end"]);
    sees(&mut root, &[]);
    assert_eq!(error(&alice.properties(&hers)), "UnknownObject");
}

pub(super) fn policy_holds(sandbox: &mut Sandbox) {
    let _bus = Bus::start();
    let (mut alice, mut root) = (Caller::new(uid("alice")), Caller::new(0));
    let taken = alice.say(&format!("own {NAME}"));
    assert!(taken["error"].is_string(), "alice cannot own the name: {taken}");
    assert_eq!(error(&taken), "AccessDenied");
    let _helper = Helper::serving();
    assert_eq!(error(&alice.say(&format!("own {NAME}"))), "AccessDenied");
    let _login = login(sandbox, "alice");
    let hers = id("alice");
    sees(&mut alice, &[&hers]);
    for (call, refused) in [
        (format!("{HOST} {PROPERTIES} Set {MANAGER} Version v:9"), "AccessDenied"),
        (format!("{HOST} {MANAGER} Other"), "AccessDenied"),
        (format!("{HOST} org.example.Other ListPags"), "AccessDenied"),
        (format!("{HOST} - ListPags"), "AccessDenied"),
    ] {
        assert_eq!(error(&alice.say(&format!("call {call}"))), refused, "{call}");
        let roots = root.say(&format!("call {call}"));
        assert_ne!(roots["error"], "org.freedesktop.DBus.Error.AccessDenied", "{call}: {roots}");
    }
    // The interface promises these calls to users, so the policy admits them, whatever the helper answers.
    for call in [
        format!("{HOST} {MANAGER} ListPags"),
        format!("{HOST} {MANAGER} ListAllPags"),
        format!("{HOST} {MANAGER} GetPag {hers}"),
        format!("{HOST} {MANAGER} GetMyPag"),
        format!("{HOST} {MANAGER} Renew {NOBODYS}"),
        format!("{HOST} {MANAGER} Unlog {NOBODYS} _"),
        format!("{HOST} {MANAGER} Follow {NOBODYS}"),
        format!("{HOST} {MANAGER} Unfollow {NOBODYS}"),
        format!("{HOST} {MANAGER} Subscribe"),
        format!("{HOST} {MANAGER} Unsubscribe"),
        format!("{HOST} {OBJECTS} GetManagedObjects"),
        format!("{HOST}/pag/{hers} {PROPERTIES} GetAll {PAG}"),
        format!("{HOST}/pag/{hers} {PROPERTIES} Get {PAG} Id"),
        format!("{HOST} org.freedesktop.DBus.Introspectable Introspect"),
        format!("{HOST} org.freedesktop.DBus.Peer Ping"),
    ] {
        let answer = alice.say(&format!("call {call}"));
        let by_the_bus = answer["text"].as_str().is_some_and(|text| text.contains("security policy"));
        assert!(!by_the_bus, "the bus lets alice call {call}: {answer}");
    }
}

pub(super) fn comes_and_goes(sandbox: &mut Sandbox) {
    // Without a bus.
    let mut helper = Helper::start();
    sandbox.configure("retain = none");
    let mut first = login(sandbox, "alice");
    eventually("the helper says that there is no bus", Duration::from_secs(5), || {
        sandbox.messages().iter().any(|message| message.text().contains("no connection to logind")).then_some(())
    });
    // A login would count on an attempt.
    let attempt = || pags("alice")[0].text.lines().find(|line| line.starts_with("attempt ")).map(str::to_owned);
    let before = attempt();
    inside(&mut first, "alice", "keyctl clear @s");
    eventually("the helper says that it cannot start a job", Duration::from_secs(10), || {
        sandbox.messages().iter().any(|message| message.text().contains("no bus to start a job with")).then_some(())
    });
    assert_eq!(attempt(), before, "a job that cannot be started is not noted as an attempt");
    first.kill();
    eventually("a dead login is reaped without a bus", Duration::from_secs(5), || {
        ids("alice").is_empty().then_some(())
    });

    // The bus comes, goes and comes.
    for _ in 0..2 {
        let bus = Bus::start();
        helper.serves();
        let mut alices = login(sandbox, "alice");
        sees(&mut Caller::new(uid("alice")), &[&id("alice")]);
        alices.all_ok(&["close", "end"]);
        bus.stop();
        eventually("the PAG has ended", Duration::from_secs(5), || ids("alice").is_empty().then_some(()));
        helper.lives();
    }

    // Another process owns the name.
    let _bus = Bus::start();
    let mut other = Caller::new(0);
    drop(helper);
    eventually("the name is free", Duration::from_secs(5), || {
        (other.say(&format!("own {NAME}"))["ok"] == 1).then_some(())
    });
    sandbox.messages();
    let mut helper = Helper::start();
    eventually("the helper says that the name is taken", Duration::from_secs(5), || {
        sandbox.messages().iter().any(|message| message.text().contains("another process has the name")).then_some(())
    });
    let alices = login(sandbox, "alice");
    alices.kill();
    eventually("a dead login is reaped without the name", Duration::from_secs(5), || {
        ids("alice").is_empty().then_some(())
    });
    drop(other);
    helper.serves();
    assert_eq!(helper.status("Threads"), 1, "the helper is one thread");
}

pub(super) fn errors_have_names(sandbox: &mut Sandbox) {
    let (_bus, mut helper) = (Bus::start(), Helper::serving());
    let _login = login(sandbox, "alice");
    let hers = id("alice");
    let (mut alice, mut root) = (Caller::new(uid("alice")), Caller::new(0));
    sees(&mut alice, &[&hers]);
    let long = "x".repeat(5000);
    let other = "org.example.Other";
    let pag = format!("{HOST}/pag/{hers}");
    for (call, name) in [
        (format!("{HOST} {MANAGER} GetPag"), "InvalidArgs"),
        (format!("{HOST} {MANAGER} GetPag _"), "InvalidArgs"),
        (format!("{HOST} {MANAGER} GetPag u:7"), "InvalidArgs"),
        (format!("{HOST} {MANAGER} GetPag {hers} {hers}"), "InvalidArgs"),
        (format!("{HOST} {MANAGER} GetPag v:{hers}"), "InvalidArgs"),
        (format!("{HOST} {MANAGER} GetPag {}", &hers[1..]), "InvalidArgs"),
        (format!("{HOST} {MANAGER} GetPag ../../../../etc"), "InvalidArgs"),
        (format!("{HOST} {MANAGER} GetPag {long}"), "InvalidArgs"),
        (format!("{HOST} {MANAGER} ListPags x"), "InvalidArgs"),
        (format!("{HOST} {MANAGER} Unlog {hers}"), "InvalidArgs"),
        (format!("{HOST} {MANAGER} Unlog {hers} a/b"), "InvalidArgs"),
        (format!("{HOST} {MANAGER} Unlog {hers} .."), "InvalidArgs"),
        (format!("{HOST} {MANAGER} GetPag {NOBODYS}"), "NoSuchPag"),
        (format!("{HOST} {MANAGER} Renew {NOBODYS}"), "NoSuchPag"),
        (format!("{HOST} {MANAGER} Follow {NOBODYS}"), "NoSuchPag"),
        (format!("{HOST} {MANAGER} Unfollow {NOBODYS}"), "NoSuchPag"),
        (format!("{HOST} {MANAGER} Follow"), "InvalidArgs"),
        (format!("{HOST} {MANAGER} Unlog {NOBODYS} _"), "NoSuchPag"),
        (format!("{HOST} {MANAGER} GetMyPag"), "NotInPag"),
        (format!("{HOST}/pag/{NOBODYS} {PROPERTIES} GetAll {PAG}"), "UnknownObject"),
        (format!("{HOST}/pag/x {PROPERTIES} GetAll {PAG}"), "UnknownObject"),
        (format!("/ {PROPERTIES} GetAll {PAG}"), "UnknownInterface"),
        (format!("{pag} {PROPERTIES} GetAll {other}"), "UnknownInterface"),
        (format!("{pag} {PROPERTIES} Get {PAG} Other"), "UnknownProperty"),
        (format!("{pag} {PROPERTIES} Get {MANAGER} Version"), "UnknownInterface"),
        (format!("{pag} {PROPERTIES} Get {PAG}"), "InvalidArgs"),
    ] {
        for caller in [&mut alice, &mut root] {
            assert_eq!(error(&caller.say(&format!("call {call}"))), name, "{call}");
        }
    }
    // Calls that the bus refuses to users.
    for (call, name) in [
        (format!("{HOST} {MANAGER} Other"), "UnknownMethod"),
        (format!("{HOST} - Other"), "UnknownMethod"),
        (format!("{HOST} {other} ListPags"), "UnknownInterface"),
        (format!("{pag} {PROPERTIES} Set {PAG} Id v:x"), "PropertyReadOnly"),
        (format!("{pag} {PROPERTIES} Set {PAG} Other v:x"), "UnknownProperty"),
    ] {
        assert_eq!(error(&root.say(&format!("call {call}"))), name, "{call}");
    }
    assert!(root.say(&format!("call {HOST} - ListPags"))["ok"].is_array(), "the interface need not be named");
    // Nothing has come of all this.
    helper.lives();
    assert_eq!(cells(&alice.properties(&hers)), [CELL]);
    for message in sandbox.messages() {
        assert!(!message.text().contains("panicked") && !message.text().contains("internal error"), "{message:?}");
    }
}

pub(super) fn ccache_is_filled(sandbox: &mut Sandbox) {
    let (_bus, mut helper) = (Bus::start(), Helper::serving());
    let mut alices = login(sandbox, "alice");
    let all = format!("/run/pag/ccache/{}", uid("alice"));
    let directory = format!("{all}/{}/cc", id("alice"));
    // Deeper than any path may be, and than a stack would go, as far as there is room.
    let deep = "chdir shift; for (1..40000) { mkdir q(d) or last; chdir q(d) or die; print qq(1) }";
    let done = inside(&mut alices, "alice", &format!("perl -e '{deep}' {directory} >/run/home/alice/depth"));
    assert_eq!(done["status"], 0, "{done}");
    let depth = fs::metadata("/run/home/alice/depth").unwrap().len();
    assert!((3000..4096).contains(&depth), "a user's ccaches have room for some thousand files: {depth}");
    alices.all_ok(&["close", "end"]);
    eventually("what is in the ccache is gone", Duration::from_secs(40), || {
        helper.lives();
        (fs::read_dir(&all).unwrap().count() == 0).then_some(())
    });
    helper.lives();
}

/// A login of alice's own identity comes while the helper is writing the ticket of alice/admin into the ccache of the PAG that it
/// joins.
pub(super) fn copied_ticket_gives_way(sandbox: &mut Sandbox) {
    sandbox.configure("[service login]\nscope = session");
    sandbox.seeder(super::scope::SEEDER);
    let _bus = Bus::start();
    let _helper = Helper::traced(&["-e", "trace=rename", "-e", "inject=rename:delay_enter=700000"]);
    let mut services = super::scope::manager(sandbox);
    let ccache = super::seeders::ccache_of(&pags("alice")[0]);
    let ticket = || fs::read(format!("{ccache}/tkt")).unwrap_or_default();
    let writes = || {
        let names = fs::read_dir(&ccache).unwrap().flatten().map(|entry| entry.file_name());
        names.into_iter().any(|name| name.to_string_lossy().starts_with(".tkt."))
    };
    let admin = super::scope::login(sandbox, "login", "alice/admin");
    eventually("the helper writes the ticket of alice/admin", Duration::from_secs(10), || writes().then_some(()));
    let mut alice = super::scope::login(sandbox, "sshd", "alice");
    assert_eq!(alice.ring().identity(), services.ring().identity(), "alice's login joins her services' PAG");
    eventually("nothing is being written any more", Duration::from_secs(10), || (!writes()).then_some(()));
    let found = ticket();
    let is_admins = found.windows(5).any(|word| word == b"admin");
    assert!(
        !found.is_empty() && !is_admins,
        "services have the ticket of the login that has joined them, not the other's"
    );
    for mut host in [alice, admin, services] {
        host.all_ok(&["close", "end"]);
    }
}

/// Waits until the helper has reported that PAGs were removed from the registry.
fn are_reported_as_lost(sandbox: &mut Sandbox, lost: &[(&str, &str)]) {
    let mut messages = Vec::new();
    for (user, pag) in lost {
        // The user's name, too, once the helper knows it.
        let words = [
            format!("PAG {pag} of "),
            format!("uid {}", uid(user)),
            "not in the registry any more and has not ended".into(),
        ];
        eventually(&format!("the helper says: {words:?}"), Duration::from_secs(10), || {
            messages.extend(sandbox.messages());
            let said = |message: &crate::sandbox::Message| words.iter().all(|word| message.text().contains(word));
            messages.iter().any(said).then_some(())
        });
    }
}

/// What only root can break is not repaired: members keep what they have, and logins go on.
pub(super) fn lost_registry(sandbox: &mut Sandbox) {
    let (_bus, mut helper) = (Bus::start(), Helper::serving());
    for operation in [libc::KEYCTL_UNLINK, libc::KEYCTL_REVOKE] {
        let (mut alices, mut bobs) = (login(sandbox, "alice"), login(sandbox, "bob"));
        let lost = [id("alice"), id("bob")];
        sees(&mut Caller::new(0), &[&lost[0], &lost[1]]);
        sandbox.messages();
        keyctl(operation, registry().unwrap().into(), super::own_keyring().into(), 0).unwrap();
        // A login may be quicker than the helper's next look.
        let mut next = login(sandbox, "alice");
        let ring = next.ring();
        assert!(ring.is_pag() && ring.token(CELL).is_some(), "{operation}: the next login has its tokens: {ring:?}");
        assert_ne!(ring.identity(), alices.ring().identity(), "{operation}: in a new PAG");
        let ticket = format!("/run/pag/ccache/{}/{}/cc/tkt", uid("alice"), lost[0]);
        assert!(fs::exists(ticket).unwrap(), "{operation}: the lost PAG keeps its ccache");
        are_reported_as_lost(sandbox, &[("alice", &lost[0]), ("bob", &lost[1])]);
        sees(&mut Caller::new(0), &[&id("alice")]);
        assert!(alices.ring().token(CELL).is_some(), "{operation}: a member of the lost PAG keeps its token");
        for host in [&mut alices, &mut bobs] {
            host.all_ok(&["close", "end"]);
        }
        assert!(next.ring().token(CELL).is_some(), "{operation}: the end of the old logins harms no other");
        next.all_ok(&["close", "end"]);
        sees(&mut Caller::new(0), &[]);
    }
    helper.lives();
}

/// alice mounts a file system that never answers over her PAG's ccache, and has the helper and her hosts look there.
pub(super) fn mounted_ccache_holds_up_nobody(sandbox: &mut Sandbox) {
    seed_stack(sandbox);
    let _bus = Bus::start();
    let mut helper = Helper::serving();
    systemd(run_seed_unit);
    let mut alices = login(sandbox, "alice");
    let hers = id("alice");
    let all = format!("/run/pag/ccache/{}", uid("alice"));
    let (mut alice, mut bob) = (Caller::new(uid("alice")), Caller::new(uid("bob")));
    sees(&mut alice, &[&hers]);
    let mut slowest = |what: &str, time: Duration| {
        let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < time {
            let asked = Instant::now();
            bob.say(&format!("call {HOST} org.freedesktop.DBus.Peer Ping"));
            slowest = slowest.max(asked.elapsed());
        }
        println!("bob's slowest ping while {what}: {slowest:?}");
        assert!(slowest < Duration::from_millis(250), "bob has waited {slowest:?} while {what}");
    };
    slowest("nothing is done", Duration::from_secs(1));
    // Name services that do not answer when the helper asks for the owner of the ticket in dave's PAG.
    let mut daves = sandbox.host("sshd", "dave");
    daves.ok("open");
    let his = format!("/run/pag/ccache/{}/{}/cc", uid("dave"), id("dave"));
    sees(&mut Caller::new(uid("dave")), &[&id("dave")]);
    let users = silent_server("/etc/passwd", 0);
    let answering = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(2));
        drop(users);
    });
    ticket::write(&format!("{his}/tkt"), uid("dave"), "dave", "EXAMPLE.TEST", ticket::now() + 3600);
    slowest("the name service does not answer", Duration::from_secs(3));
    answering.join().unwrap();
    Command::new("umount").args(["-l", "/etc/passwd"]).status().unwrap();
    daves.all_ok(&["close", "end"]);
    // Over the ticket: whatever is written beside it has the helper look there.
    let over_the_ticket = silent_server(&format!("{all}/{hers}/cc/tkt"), uid("alice"));
    assert_eq!(inside(&mut alices, "alice", &format!("echo x >{all}/{hers}/cc/beside"))["status"], 0);
    slowest("the helper looks at alice's ticket", Duration::from_secs(4));
    // Over the whole ccache.
    let server = silent_server(&format!("{all}/{hers}/cc"), uid("alice"));
    // A process that waits for them anyway ends after that time.
    let (end, ended) = channel::<()>();
    let answering = std::thread::spawn(move || {
        let _ = ended.recv_timeout(Duration::from_secs(18));
        drop((over_the_ticket, server));
    });
    alice.say(&format!("begin {HOST} {MANAGER} Renew {hers}"));
    slowest("a job renews alice's tokens", Duration::from_secs(1));
    alice.say("answer");
    // Another helper starts while the file systems are there, and watches what it can.
    drop(helper);
    let begun = Instant::now();
    helper = Helper::serving();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "another helper has waited {took:?} until it served");
    slowest("another helper has started", Duration::from_secs(1));
    // A login that makes a PAG sweeps, and one that ends the last removes.
    let begun = Instant::now();
    alices.all_ok(&["close", "end"]);
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(500), "alice's host has waited {took:?} at the end of her PAG");
    slowest("the helper clears away what can be", Duration::from_secs(1));
    assert!(!fs::exists(format!("{all}/{hers}")).unwrap(), "the PAG is known to have ended");
    let begun = Instant::now();
    let mut again = login(sandbox, "alice");
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(1500), "alice's next login has waited {took:?}");
    assert!(fs::exists(format!("{all}/{}/cc/tkt", id("alice"))).unwrap(), "it has a ccache");
    again.all_ok(&["close", "end"]);
    // With the last PAG goes all that was mounted.
    let pag_ccache = pag_seed().with_file_name("pag-ccache");
    let mut bobs = login(sandbox, "bob");
    sees(&mut Caller::new(uid("bob")), &[&id("bob")]);
    // Left over from a PAG that has ended, on a host where nothing could be mounted.
    fs::create_dir_all(format!("/run/pag/ccache/{}/ended.{NOBODYS}", uid("carol"))).unwrap();
    assert!(Command::new(&pag_ccache).status().unwrap().success(), "pag-ccache has tidied up");
    assert!(!fs::exists(&all).unwrap(), "alice's file system stays: {all}");
    assert!(!fs::exists(format!("/run/pag/ccache/{}", uid("carol"))).unwrap(), "what is left of carol's PAG stays");
    let his = format!("/run/pag/ccache/{}/{}/cc/tkt", uid("bob"), id("bob"));
    assert!(fs::exists(&his).unwrap(), "bob has a PAG, and his ccache stays");
    // Bob's ccache also stays for the PAG's members when root has cut the PAG out of the registry, before the helper has
    // seen that and after it.
    let signal = |name: &str| shell(&format!("kill -{name} {}", helper.pid()));
    signal("STOP");
    let (lost, holder) = (id("bob"), pags("bob")[0].holder);
    keyctl(libc::KEYCTL_UNLINK, holder.into(), registry().unwrap().into(), 0).unwrap();
    assert_eq!(ids("bob").len(), 0, "bob's PAG is missed");
    assert!(Command::new(&pag_ccache).status().unwrap().success(), "pag-ccache has tidied up");
    assert!(fs::exists(&his).unwrap(), "the ccache of a PAG that was cut out of the registry stays");
    sandbox.messages();
    signal("CONT");
    are_reported_as_lost(sandbox, &[("bob", &lost)]);
    assert!(Command::new(&pag_ccache).status().unwrap().success(), "pag-ccache has tidied up");
    assert!(fs::exists(&his).unwrap(), "the ccache of a PAG that is reported as lost stays");
    bobs.all_ok(&["close", "end"]);
    drop(end);
    answering.join().unwrap();
    helper.lives();
}

pub(super) fn pag_vanishes(sandbox: &mut Sandbox) {
    let (_bus, mut helper) = (Bus::start(), Helper::serving());
    let polkit = polkit();
    let mut alice = Caller::new(uid("alice"));
    // polkit takes its time, and consents after the PAG has ended.
    for call in ["GetPag", "Renew", "Unlog", "Follow", "Unfollow"] {
        let mut bobs = login(sandbox, "bob");
        let his = id("bob");
        sees(&mut Caller::new(0), &[&his]);
        fs::remove_file("/run/polkit.go").ok();
        *polkit.lock().unwrap() =
            crate::bus::Polkit { answer: (true, false), waits_for: Some("/run/polkit.go"), asked: Vec::new() };
        let cell = if call == "Unlog" { "_" } else { "" };
        alice.say(&format!("begin {HOST} {MANAGER} {call} {his} {cell}"));
        eventually("polkit is asked", Duration::from_secs(5), || {
            (!polkit.lock().unwrap().asked.is_empty()).then_some(())
        });
        bobs.all_ok(&["close", "end"]);
        sees(&mut Caller::new(0), &[]);
        fs::write("/run/polkit.go", "").unwrap();
        let answer = alice.say("answer");
        assert!(answer["error"].is_string(), "{call} of a PAG that has vanished is refused: {answer}");
        assert_eq!(error(&answer), "NoSuchPag", "{call}");
    }
    // While its seeder runs.
    let (begun, has_begun) = channel();
    let (goes, may_go) = channel::<()>();
    let (begun, may_go) = (std::sync::Mutex::new(begun), std::sync::Mutex::new(may_go));
    systemd(move |_| {
        begun.lock().unwrap().send(()).unwrap();
        may_go.lock().unwrap().recv().unwrap();
        false
    });
    let mut alices = login(sandbox, "alice");
    let hers = id("alice");
    sees(&mut alice, &[&hers]);
    alice.say(&format!("begin {HOST} {MANAGER} Renew {hers}"));
    has_begun.recv_timeout(Duration::from_secs(5)).expect("a seeder is started");
    alices.all_ok(&["close", "end"]);
    sees(&mut alice_too(), &[]);
    goes.send(()).unwrap();
    assert_eq!(error(&alice.say("answer")), "RenewFailed");
    helper.lives();
}

fn alice_too() -> Caller {
    Caller::new(uid("alice"))
}

pub(super) fn signals_reach_their_own(sandbox: &mut Sandbox) {
    let (_bus, _helper) = (Bus::start(), Helper::serving());
    let (mut alice, mut bob, mut root) = (Caller::new(uid("alice")), Caller::new(uid("bob")), Caller::new(0));
    let mut silent = Caller::new(uid("alice"));
    for caller in [&mut alice, &mut bob, &mut root] {
        caller.ok("Subscribe");
    }
    // Match rules that could bring others' signals.
    for rule in ["type='signal'", "sender='org.pam_pag.Pag1'", "path_namespace='/org/pam_pag'"] {
        for caller in [&mut alice, &mut bob, &mut root, &mut silent] {
            assert_eq!(caller.say(&format!("match {rule}"))["error"], Value::Null, "{rule}");
        }
    }
    bob.say("match eavesdrop='true'");
    bob.say(&format!("match type='signal',destination='{}'", alice.name));
    let mut alices = login(sandbox, "alice");
    let hers = id("alice");
    let told = |caller: &mut Caller, member: &str| {
        eventually(&format!("{member} is told"), Duration::from_secs(8), || {
            caller.signals(200).into_iter().find(|signal| signal["member"] == member)
        })
    };
    let path = format!("{HOST}/pag/{hers}");
    let added = told(&mut alice, "InterfacesAdded");
    assert_eq!((&added["path"], &added["body"][0]), (&json!(HOST), &json!(path)), "{added}");
    assert_eq!(added["body"][1][PAG]["UID"], uid("alice"), "{added}");
    assert_eq!(told(&mut root, "InterfacesAdded")["body"][0], path);
    // The login's own token, if it came after its first look; and one of another cell.
    inside(&mut alices, "alice", "keyctl add user afs@other.test 'alice@EXAMPLE.TEST 9999999999' @s");
    let changed = eventually("the new token is told", Duration::from_secs(12), || {
        let signals = alice.signals(200);
        signals.into_iter().find(|signal| {
            signal["member"] == "PropertiesChanged" && signal["body"][1]["Tokens"].to_string().contains("other.test")
        })
    });
    assert_eq!((&changed["path"], &changed["body"][0]), (&json!(path), &json!(PAG)), "{changed}");
    assert_eq!(changed["body"][1].as_object().unwrap().len(), 1, "and nothing else: {changed}");
    let mut second = login(sandbox, "alice");
    eventually("the second lease is told", Duration::from_secs(8), || {
        let leases = |signal: &Value| signal["body"][1]["Leases"].as_array().is_some_and(|leases| leases.len() == 2);
        alice.signals(200).iter().any(leases).then_some(())
    });
    second.all_ok(&["close", "end"]);
    alices.all_ok(&["close", "end"]);
    let removed = told(&mut alice, "InterfacesRemoved");
    assert_eq!(removed["body"], json!([path, [PAG]]));
    told(&mut root, "InterfacesRemoved");
    let heard = bob.signals(500);
    assert!(heard.is_empty(), "bob hears of alice's PAG: {heard:?}");
    let heard = silent.signals(500);
    assert!(heard.is_empty(), "who has not subscribed hears something: {heard:?}");
    // Bob gets signals about bob's PAGs. GetManagedObjects subscribes, too.
    silent.say(&format!("call {HOST} {OBJECTS} GetManagedObjects"));
    let mut bobs = login(sandbox, "bob");
    assert_eq!(told(&mut bob, "InterfacesAdded")["body"][1][PAG]["UID"], uid("bob"));
    bob.ok("Unsubscribe");
    let _alices = login(sandbox, "alice");
    assert_eq!(told(&mut silent, "InterfacesAdded")["body"][1][PAG]["UID"], uid("alice"));
    bob.signals(0);
    bobs.all_ok(&["close", "end"]);
    told(&mut root, "InterfacesRemoved");
    assert_eq!(bob.signals(500), Vec::<Value>::new(), "who has unsubscribed hears nothing");
}

pub(super) fn warns_before_the_end(sandbox: &mut Sandbox) {
    let (_bus, _helper) = (Bus::start(), Helper::serving());
    let (mut alice, mut bob) = (Caller::new(uid("alice")), Caller::new(uid("bob")));
    alice.ok("Subscribe");
    bob.ok("Subscribe");
    // A ticket and a token that end in 16 s; nothing can renew them.
    sandbox.seeder(&crate::sandbox::SEEDER.replace("3600", "16"));
    let ends = crate::ticket::now() + 16;
    let ticket = crate::ticket::write("/run/home/alice/cc.short", uid("alice"), "alice", "EXAMPLE.TEST", ends);
    let mut host = sandbox.host("sshd", "alice");
    host.all_ok(&[&format!("putenv KRB5CCNAME={ticket}"), "open"]);
    let path = format!("{HOST}/pag/{}", id("alice"));
    let mut told = |member: &str| {
        eventually(&format!("{member} is told"), Duration::from_secs(25), || {
            alice.signals(200).into_iter().find(|signal| signal["member"] == member)
        })
    };
    let expiring = told("Expiring");
    assert!(crate::ticket::now() < expiring["body"][0].as_u64().unwrap(), "it is told before the end: {expiring}");
    let expired = told("Expired");
    for signal in [&expiring, &expired] {
        assert_eq!(signal["path"], path, "{signal}");
        assert!(signal["body"][1].as_str().unwrap().contains("ticket"), "it says why: {signal}");
    }
    assert!(bob.signals(300).is_empty(), "bob hears of alice's tokens");
}

/// How long a new login takes to be reaped once it is killed.
fn reaping(sandbox: &Sandbox, user: &str) -> Duration {
    let host = login(sandbox, user);
    // The helper is to know it first.
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    host.kill();
    eventually(&format!("the login of {user} is reaped"), Duration::from_secs(20), || {
        ids(user).is_empty().then_some(())
    });
    begun.elapsed()
}

/// The median time in which a login of dave's makes a PAG and gets its tokens.
fn placement(sandbox: &Sandbox, count: usize) -> Duration {
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let mut host = super::ticketed(sandbox, "sshd", "dave", "dave");
            let begun = Instant::now();
            host.ok("open");
            let took = begun.elapsed();
            host.all_ok(&["close", "end"]);
            took
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// When the token in a login's ring ends; 0 without one.
fn token_end(host: &mut Host) -> u64 {
    let payload = host.ring().token(CELL).and_then(|key| key.payload.clone()).unwrap_or_default();
    payload.rsplit(' ').next().unwrap().trim().parse().unwrap_or(0)
}

pub(super) fn flood(sandbox: &mut Sandbox) {
    seed_stack(sandbox);
    sandbox.seeder(SHORT_TOKENS);
    let (_bus, helper) = (Bus::start(), Helper::serving());
    systemd(run_seed_unit);
    let _alices = login(sandbox, "alice");
    let hers = id("alice");
    let mut bobs_login = login(sandbox, "bob");
    let mut bob = Caller::new(uid("bob"));
    sees(&mut bob, &[&id("bob")]);
    let quiet = reaping(sandbox, "carol");
    let quiet_login = placement(sandbox, 41);
    let memory = helper.status("VmRSS");
    let seconds = if super::long() { 60 } else { 12 };
    let call = format!("{HOST}/pag/{hers} {PROPERTIES} GetAll {PAG}");
    let mut alice = Caller::new(uid("alice"));
    alice.tell(&format!("flood 4 64 {} {call}", seconds * 1000));
    std::thread::sleep(Duration::from_millis(500));
    let end = Instant::now() + Duration::from_secs(seconds - 2);
    let (mut bobs, mut reaped) = (Vec::new(), Vec::new());
    let mut logins = Vec::new();
    // Bob's tokens last ten seconds. They are renewed during the flood, and bob always has one.
    let first = token_end(&mut bobs_login);
    let mut renewals = BTreeSet::new();
    while Instant::now() < end {
        logins.push(placement(sandbox, 9));
        let held = token_end(&mut bobs_login);
        assert!(held > crate::ticket::now(), "a renewal that is due in the flood is done in it");
        renewals.insert(held);
        let begun = Instant::now();
        assert_eq!(bob.pags().len(), 1);
        bobs.push(begun.elapsed());
        reaped.push(reaping(sandbox, "carol"));
    }
    let counts = alice.answer();
    let [ok, refused] =
        ["ok", "org.freedesktop.DBus.Error.LimitsExceeded"].map(|key| counts[key].as_u64().unwrap_or(0));
    let (bob_worst, reap_worst) = (bobs.iter().max().unwrap(), reaped.iter().max().unwrap());
    let grown = helper.status("VmRSS").saturating_sub(memory);
    println!(
        "figures: {ok} answered, {refused} refused in {seconds} s; another user waited {bob_worst:?} at worst ({} calls); a dead \
         login was reaped in {quiet:?}, in the flood in {reap_worst:?} at worst; a login was placed in \
         {quiet_login:?}, in the flood in {logins:?}; bob's tokens were {} different ones; the helper grew by {grown} KiB",
        bobs.len(),
        renewals.len()
    );
    renewals.remove(&first);
    assert!(!renewals.is_empty(), "tokens were renewed in the flood: {renewals:?}");
    assert!(refused > 0, "the flood is refused with LimitsExceeded: {counts}");
    assert!(ok > 0, "and served as far as it goes: {counts}");
    assert_eq!(counts.as_object().unwrap().len(), 2, "nothing else is answered: {counts}");
    // Bounds for a busy machine. The line above prints the measured values.
    assert!(*bob_worst < Duration::from_secs(3), "another user waited {bob_worst:?}");
    assert!(*reap_worst < Duration::from_secs(2), "a dead login was reaped in {reap_worst:?}");
    assert!(grown < 4096, "the helper grew by {grown} KiB");
    // The machine may have more to do now than before.
    let quiet_login = quiet_login.max(placement(sandbox, 41));
    logins.sort();
    let median = logins[logins.len() / 2];
    assert!(median <= quiet_login * 2, "a login was placed in {median:?}, without the flood in {quiet_login:?}");

    // Calls that want no answer: nothing but the bus's own queue holds their sender back.
    let mut sprays: Vec<Caller> = (0..4).map(|_| Caller::new(uid("alice"))).collect();
    sprays.iter_mut().for_each(|spray| spray.tell(&format!("spray 3000 {call}")));
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    assert_eq!(bob.pags().len(), 1);
    let waited = begun.elapsed();
    let reaped = reaping(sandbox, "carol");
    let sent: u64 = sprays.iter_mut().map(|spray| spray.answer()["sent"].as_u64().unwrap()).sum();
    println!(
        "figures: {sent} calls without an answer in 3 s: another user waited {waited:?}, a dead login was reaped in {reaped:?}"
    );
    assert!(reaped < Duration::from_secs(2), "a dead login was reaped in {reaped:?}");
    assert!(waited < Duration::from_secs(10), "another user waited {waited:?}");

    // Calls that are too long for anything.
    let before = helper.status("VmHWM");
    let long = format!("{HOST} {MANAGER} GetPag {}", "x".repeat(1 << 20));
    let mut sprays: Vec<Caller> = (0..4).map(|_| Caller::new(uid("alice"))).collect();
    sprays.iter_mut().for_each(|spray| spray.tell(&format!("spray 2000 {long}")));
    let sent: u64 = sprays.iter_mut().map(|spray| spray.answer()["sent"].as_u64().unwrap()).sum();
    // The bus refuses bob, too, while its queue for us is full of these.
    eventually("the bus has room for bob again", Duration::from_secs(10), || {
        bob.manager("ListPags")["ok"].is_array().then_some(())
    });
    let grown = helper.status("VmHWM") - before;
    println!("figures: {sent} calls of 1 MiB in 2 s: the helper grew by {grown} KiB at most");
    assert!(grown < 64 << 10, "the helper grew by {grown} KiB");
}

pub(super) fn my_pag(sandbox: &mut Sandbox) {
    let (_bus, _helper) = (Bus::start(), Helper::serving());
    let (mut alices, mut bobs) = (login(sandbox, "alice"), login(sandbox, "bob"));
    let (hers, his) = (id("alice"), id("bob"));
    sees(&mut Caller::new(0), &[&hers, &his]);
    let caller = own_program("pag-buscaller").display().to_string();
    let ask = format!("{caller} call {HOST} {MANAGER} GetMyPag");
    let answer = |host: &mut Host, user: &str, script: &str| -> Value {
        let done = inside(host, user, script);
        serde_json::from_str(done["stdout"].as_str().unwrap()).unwrap_or_else(|_| panic!("no answer: {done}"))
    };
    let path = |id: &str| json!(format!("{HOST}/pag/{id}"));
    assert_eq!(answer(&mut alices, "alice", &ask)["ok"], path(&hers));
    assert_eq!(answer(&mut bobs, "bob", &ask)["ok"], path(&his));
    assert_eq!(answer(&mut alices, "alice", &format!("sh -c 'sh -c \"{ask}; true\"; true'"))["ok"], path(&hers));
    // As the page says: where it comes from is not where it is.
    assert_eq!(answer(&mut alices, "alice", &format!("keyctl session - {ask} 2>/dev/null"))["ok"], path(&hers));
    // A process of bob's in alice's login (su in a stack without us) learns nothing of alice's, and is in no PAG of bob's.
    let foreign = answer(&mut alices, "bob", &ask);
    assert!(foreign["error"].is_string(), "bob learns what is alice's: {foreign}");
    assert_eq!(error(&foreign), "NotInPag");
    // A login of bob's inside alice's login is bob's.
    sandbox.service("su-l", "");
    alices.all_ok(&["start su-l bob", "open"]);
    let both = pags("alice").len() + pags("bob").len();
    assert_eq!(both, 2, "su - joins bob's PAG");
    eventually("the helper knows bob's new lease", Duration::from_secs(5), || {
        (pags("bob")[0].leases().len() == 2 && answer(&mut alices, "bob", &ask)["ok"] == path(&his)).then_some(())
    });
    assert_eq!(answer(&mut alices, "alice", &ask)["ok"], path(&hers), "and hers, by the same host, is hers");
    alices.all_ok(&["close", "end"]);
    // From nowhere.
    assert_eq!(error(&Caller::new(uid("alice")).manager("GetMyPag")), "NotInPag");
    // Orphaned, as by nohup: nothing shows where it comes from, but to logind.
    let orphan = |host: &mut Host| -> Value {
        fs::remove_file("/run/orphan").ok();
        let script = format!(
            "(setsid sh -c 'while [ $(cut -d\" \" -f4 /proc/$$/stat) != 1 ]; do sleep 0.05; done; \
             {ask} >/run/home/alice/orphan' </dev/null >/dev/null 2>&1 &)"
        );
        fs::remove_file("/run/home/alice/orphan").ok();
        inside(host, "alice", &script);
        eventually("the orphan has asked", Duration::from_secs(10), || {
            serde_json::from_str(&fs::read_to_string("/run/home/alice/orphan").ok()?).ok()
        })
    };
    assert_eq!(error(&orphan(&mut alices)), "NotInPag");
    logind(alices.pid());
    assert_eq!(orphan(&mut alices)["ok"], path(&hers), "logind says by whom its session was opened");
    assert_eq!(error(&Caller::new(uid("bob")).manager("GetMyPag")), "NotInPag", "which is nothing to bob");
}

/// Runs `pag-seed@UID.service` as systemd would: PAM first, then the program, as the user.
fn run_seed_unit(unit: &str) -> bool {
    let uid: u32 = unit.strip_prefix("pag-seed@").unwrap().strip_suffix(".service").unwrap().parse().unwrap();
    let (user, _) = crate::sandbox::USERS.into_iter().find(|(_, one)| *one == uid).unwrap();
    let mut host = Host::start(Command::new(own_program("pag-pamhost")), &["pag-seed", user]);
    if host.ask("open")["result"] != 0 {
        return false;
    }
    // With the variables that PAM has set, as systemd does.
    let set = ["KRB5CCNAME", "PAG_DISCARDED", "PAG_IDENTITY"].map(|name| {
        let value = host.ask(&format!("getenv {name}"))["value"].as_str().unwrap_or_default().to_owned();
        format!("export {name}='{value}'\n")
    });
    fs::write("/run/unit", format!("{}exec {}\n", set.concat(), pag_seed().display())).unwrap();
    let done = host.ask(&format!("run setpriv --reuid {uid} --regid {uid} --clear-groups sh -e /run/unit"));
    host.ok("close");
    done["status"] == 0
}

/// The stack of the seeding jobs. They join their user's PAG, also that of a system account with a keytab.
fn seed_stack(sandbox: &Sandbox) {
    let module = crate::sandbox::module();
    sandbox.stack(
        "pag-seed",
        &format!(
            "account required pam_permit.so\nsession required pam_keyinit.so force revoke\n\
             session required {} strict minimum_uid=70000\n",
            module.display()
        ),
    );
}

pub(super) fn renew_and_unlog(sandbox: &mut Sandbox) {
    seed_stack(sandbox);
    let (_bus, mut helper) = (Bus::start(), Helper::serving());
    systemd(run_seed_unit);
    let mut alices = login(sandbox, "alice");
    let hers = id("alice");
    let mut alice = Caller::new(uid("alice"));
    sees(&mut alice, &[&hers]);
    inside(&mut alices, "alice", "keyctl add user afs@other.test 'alice@EXAMPLE.TEST 9999999999' @s");
    let expires = |ring: &crate::ring::Ring| -> u64 {
        let payload = ring.token(CELL).expect("a token").payload.clone().unwrap();
        payload.rsplit(' ').next().unwrap().trim().parse().unwrap()
    };
    let before = expires(&alices.ring());

    // New tokens, by a seeder in the PAG.
    sandbox.seeder(&crate::sandbox::SEEDER.replace("3600", "7200"));
    let runs = sandbox.seeder_runs();
    // A login that has the user's lock for a moment puts the job off, and it does not fail.
    let lock = fs::File::open(format!("/run/pag/lock/{}", uid("alice"))).unwrap();
    lock.lock().unwrap();
    sandbox.messages();
    alice.say(&format!("begin {HOST} {MANAGER} Renew {hers}"));
    std::thread::sleep(Duration::from_millis(600));
    drop(lock);
    let (released, answer) = (Instant::now(), alice.say("answer"));
    let first = Instant::now();
    assert!(answer["error"].is_null(), "a job that a lock has put off gets tokens: {answer}");
    assert!(released.elapsed() < Duration::from_secs(3), "it is tried again soon: {:?}", released.elapsed());
    let said = sandbox.messages();
    assert!(!said.iter().any(|message| message.text().contains("no tokens of cell")), "it has not failed: {said:#?}");
    assert_eq!(sandbox.seeder_runs(), runs + 1);
    let after = expires(&alices.ring());
    assert!(after > before + 3000, "the login has the new token: {before} {after}");
    eventually("the new token is told", Duration::from_secs(5), || {
        let tokens = alice.properties(&hers)["ok"]["Tokens"].clone();
        tokens.as_array()?.iter().any(|token| token[1] == CELL && token[4] == after).then_some(())
    });
    // One that fails says so, and is not repeated.
    sandbox.seeder("#!/bin/sh\nexit 7\n");
    assert_eq!(alice.refused(&format!("Renew {hers}")), "RenewFailed");
    assert!(first.elapsed() >= Duration::from_secs(4), "one user's jobs keep a distance: {:?}", first.elapsed());
    sandbox.seeder(crate::sandbox::SEEDER);
    assert_eq!(expires(&alices.ring()), after, "the old token stays");

    // One cell's, then all.
    sandbox.messages();
    alice.ok(&format!("Unlog {hers} other.test"));
    let ring = alices.ring();
    assert!(ring.token("other.test").is_none() && ring.token(CELL).is_some(), "one cell's is discarded: {ring:#?}");
    assert_eq!(cells(&alice.properties(&hers)), [CELL]);
    let said = sandbox.heard("asked for it over D-Bus");
    assert_eq!(said.0.get("ASKED_BY").map(String::as_str), Some("61001"), "{said:?}");
    alice.ok(&format!("Unlog {hers} _"));
    let ring = alices.ring();
    assert!(ring.token(CELL).is_none(), "Unlog discards at once: {ring:#?}");
    assert_eq!(cells(&alice.properties(&hers)), Vec::<String>::new());
    let text = pags("alice")[0].text.clone();
    assert!(!text.contains("\ntoken "), "the record names no token that would be missed: {text}");
    assert!(ring.is_pag() && !ring.keys.is_empty(), "the ring is as it was besides: {ring:#?}");
    // Renewal does not bring them back, even if a member empties the ring, until a caller asks.
    inside(&mut alices, "alice", "keyctl clear @s");
    std::thread::sleep(Duration::from_secs(6));
    assert!(alices.ring().token(CELL).is_none(), "what was discarded stays so");
    alice.ok(&format!("Renew {hers}"));
    assert!(alices.ring().token(CELL).is_some(), "until it is asked for");

    // A token that never ends, as a user may write one: the helper plans for it, and lives.
    alice.ok(&format!("Unlog {hers} _"));
    sandbox.seeder("#!/bin/sh\nkeyctl add user afs@far.test 'a 18446744073709551615' @s\n");
    alice.ok(&format!("Renew {hers}"));
    eventually("it is told as one that ends late", Duration::from_secs(5), || {
        let tokens = alice.properties(&hers)["ok"]["Tokens"].clone();
        tokens.as_array()?.iter().any(|token| token[1] == "far.test" && token[4] == u32::MAX).then_some(())
    });
    helper.lives();

    // A ticket of another identity, which the user has put into the PAG's ccache, brings no tokens there.
    sandbox.seeder(crate::sandbox::SEEDER);
    let (file, end) = (format!("{}/tkt", super::seeders::ccache_of(&pags("alice")[0])), crate::ticket::now() + 3600);
    crate::ticket::write(&file, uid("alice"), "alice/admin", "EXAMPLE.TEST", end);
    let runs = sandbox.seeder_runs();
    assert_eq!(alice.refused(&format!("Renew {hers}")), "RenewFailed", "another identity's ticket is refused");
    assert_eq!(sandbox.seeder_runs(), runs, "and no seeder has it");
    sandbox.heard("it holds a ticket of alice/admin@EXAMPLE.TEST, and the PAG is alice@EXAMPLE.TEST's");
}

/// Tokens of ten seconds for each cell that is named, but of those in /run/refused, for which it fails. It waits while
/// there is /run/hold. The run that finds /run/lingers/next renames it to /run/lingers/one, and after it has brought its
/// tokens waits until that is gone.
const SHORT_TOKENS: &str = "#!/bin/sh
echo \"$$ $*\" >> /run/seeder.log
while [ -e /run/hold ]; do sleep 0.1; done
end=$(($(date +%s) + 10))
status=0
while [ $# -gt 1 ]; do
	if [ \"$1\" = -c ]; then
		if grep -qsx \"$2\" /run/refused; then status=1
		else keyctl add user afs@$2 \"$(id -un)@EXAMPLE.TEST $end\" @s >/dev/null; fi
	fi
	shift
done
if mv /run/lingers/next /run/lingers/one 2>/dev/null; then
	while [ -e /run/lingers/one ]; do sleep 0.1; done
fi
exit $status
";

pub(super) fn unlog_lasts(sandbox: &mut Sandbox) {
    const B: &str = "b.test";
    seed_stack(sandbox);
    let config = format!("[pag]\nclient = keyring\nprogram = /run/seeder\nafs_cells = {CELL},{B}\n");
    fs::write("/etc/pag/pag.conf", config).unwrap();
    sandbox.seeder(SHORT_TOKENS);
    let (_bus, _helper) = (Bus::start(), Helper::serving());
    systemd(run_seed_unit);
    let mut alices = login(sandbox, "alice");
    let hers = id("alice");
    let mut alice = Caller::new(uid("alice"));
    sees(&mut alice, &[&hers]);
    let has = |host: &mut Host| [CELL, B].map(|cell| host.ring().token(cell).is_some());
    let runs =
        || -> Vec<String> { fs::read_to_string("/run/seeder.log").unwrap().lines().map(str::to_owned).collect() };
    assert_eq!(has(&mut alices), [true, true]);

    // Over D-Bus, one cell's. The other's is renewed.
    alice.ok(&format!("Unlog {hers} {B}"));
    let before = token_end(&mut alices);
    eventually("the other cell's token is renewed", Duration::from_secs(15), || {
        (token_end(&mut alices) > before).then_some(())
    });
    assert_eq!(has(&mut alices), [true, false], "renewal leaves discarded what was discarded: {:?}", runs());
    assert!(!runs().last().unwrap().contains(B), "its seeder is not asked for it: {:?}", runs());

    // The job ends a little later than its seeder, and is noted then.
    eventually("the renewal is noted", Duration::from_secs(15), || {
        pags("alice")[0].text.lines().any(|line| line.starts_with("attempt ") && line.contains(" ok ")).then_some(())
    });

    // By a member, with no word to anybody; it is noticed when the next renewal is due.
    let tool = crate::sandbox::pagctl().display().to_string();
    let done = inside(&mut alices, "alice", &format!("{tool} unlog"));
    assert_eq!(done["stdout"], "Discarded one token.\n", "{done}");
    assert_eq!(has(&mut alices), [false, false], "pagctl unlog discards");
    let count = runs().len();
    let noted = |text: &str| text.lines().any(|line| line.starts_with("discarded ") && line.split(' ').count() == 2);
    eventually("that a member has discarded all is noted", Duration::from_secs(15), || {
        noted(&pags("alice")[0].text).then_some(())
    });
    assert_eq!((has(&mut alices), runs().len()), ([false, false], count), "what a member discards stays so, too");

    // A ticket that was merely renewed changes nothing; one for which she has typed her password does.
    let text = pags("alice")[0].text.clone();
    let field = |name: &str, which: usize| -> String {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split(' ').nth(which).unwrap().to_owned()
    };
    let ccache = field("ccache ", 1).strip_prefix("DIR:").unwrap().to_owned();
    let (ends, since): (u64, u64) = (field("ticket ", 1).parse().unwrap(), field("ticket ", 3).parse().unwrap());
    let primary = fs::read_to_string(format!("{ccache}/primary")).unwrap_or_else(|_| "tkt".to_owned());
    let file = format!("{ccache}/{}", primary.trim());
    crate::ticket::write_since(since, &file, uid("alice"), "alice", "EXAMPLE.TEST", ends + 100);
    eventually("the renewed ticket is noticed", Duration::from_secs(10), || {
        pags("alice")[0].text.contains(&format!("ticket {} ", ends + 100)).then_some(())
    });
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((has(&mut alices), runs().len()), ([false, false], count), "a renewed ticket brings nothing back");
    crate::ticket::write_since(since + 1, &file, uid("alice"), "alice", "EXAMPLE.TEST", ends + 200);
    eventually("a new ticket brings all back", Duration::from_secs(10), || {
        (has(&mut alices) == [true, true]).then_some(())
    });

    // A login begins anew, and so does a request, also by pagctl.
    let (status, said) = pagctl(uid("alice"), &["unlog", "--pag", &hers, B]);
    assert_eq!((status, &said[..]), (Some(0), ""));
    assert!(alices.ring().token(B).is_none(), "pagctl unlog --pag discards");
    let his = pagctl(uid("bob"), &["unlog", "--pag", &hers]);
    assert_eq!(his.0, Some(2), "not another user's: {}", his.1);
    assert!(his.1.contains("that you may see"), "{}", his.1);
    login(sandbox, "alice").all_ok(&["close", "end"]);
    assert!(alices.ring().token(B).is_some(), "a login brings back what was discarded");
    assert_eq!(pagctl(0, &["unlog", "--pag", &hers]).0, Some(0), "root may");
    assert_eq!(has(&mut alices), [false, false]);
    alice.ok(&format!("Renew {hers}"));
    assert_eq!(has(&mut alices), [true, true], "who asks gets all");

    // A login does not count on a job that runs while tokens are discarded.
    fs::create_dir("/run/lingers").unwrap();
    fs::set_permissions("/run/lingers", std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::write("/run/lingers/next", "").unwrap();
    let mut other = Caller::new(uid("alice"));
    other.say(&format!("begin {HOST} {MANAGER} Renew {hers}"));
    eventually("a seeder has brought its tokens and runs", Duration::from_secs(20), || {
        fs::exists("/run/lingers/one").unwrap().then_some(())
    });
    alice.ok(&format!("Unlog {hers} {B}"));
    assert_eq!(has(&mut alices), [true, false]);
    login(sandbox, "alice").all_ok(&["close", "end"]);
    assert_eq!(has(&mut alices), [true, true], "a login beside a job brings back what was discarded");
    fs::remove_file("/run/lingers/one").unwrap();
    assert_eq!(other.say("answer")["error"], Value::Null);
    assert_eq!(has(&mut alices), [true, true], "and the job takes nothing away again");

    // While a job runs that does not know of it.
    fs::write("/run/hold", "").unwrap();
    let count = runs().len();
    other.say(&format!("begin {HOST} {MANAGER} Renew {hers}"));
    eventually("a seeder is at it", Duration::from_secs(20), || (runs().len() > count).then_some(()));
    alice.ok(&format!("Unlog {hers} _"));
    fs::remove_file("/run/hold").unwrap();
    assert_eq!(other.say("answer")["error"], Value::Null);
    assert_eq!(has(&mut alices), [false, false], "a job that ran meanwhile brings nothing back");

    // Of two cells one fails: nothing is said of the other.
    fs::write("/run/refused", format!("{B}\n")).unwrap();
    sandbox.messages();
    let mut bobs = login(sandbox, "bob");
    assert_eq!(has(&mut bobs), [true, false]);
    let said = sandbox.heard("no tokens of cell");
    assert!(
        said.text().contains(&format!("no tokens of cell {B} for bob (uid")),
        "the cell that failed is named: {said:?}"
    );
}

pub(super) fn renew_by_keytab(sandbox: &mut Sandbox) {
    sandbox.configure("[user alice]\nkeytab = /etc/pag/keytabs/alice");
    let (_bus, _helper) = (Bus::start(), Helper::serving());
    let (started, units) = channel();
    let started = std::sync::Mutex::new(started);
    systemd(move |unit| started.lock().unwrap().send(unit.to_owned()).is_ok());
    let ends = crate::ticket::now() + 3;
    let ticket = crate::ticket::write("/run/home/alice/cc.short", uid("alice"), "alice", "EXAMPLE.TEST", ends);
    let mut host = sandbox.host("sshd", "alice");
    host.all_ok(&[&format!("putenv KRB5CCNAME={ticket}"), "open"]);
    let hers = id("alice");
    let mut alice = Caller::new(uid("alice"));
    sees(&mut alice, &[&hers]);
    eventually("the ticket has ended", Duration::from_secs(10), || (crate::ticket::now() > ends).then_some(()));
    // Its token is good for an hour, so the test is the only one to ask.
    alice.ok(&format!("Renew {hers}"));
    let both: Vec<String> = units.try_iter().collect();
    let expected = [format!("pag-keytab@{hers}.service"), format!("pag-seed@{}.service", uid("alice"))];
    assert_eq!(both, expected, "a dead ticket is replaced from the keytab first");
}

pub(super) fn follow(sandbox: &mut Sandbox) {
    sandbox.configure("scope = session");
    sandbox.seeder(super::scope::SEEDER);
    let (_bus, mut helper) = (Bus::start(), Helper::serving());
    let polkit = polkit();
    let mut plain = super::scope::login(sandbox, "login", "alice");
    let chosen = id("alice");
    let mut admin = super::scope::login(sandbox, "sshd", "alice/admin");
    let newest = ids("alice").into_iter().find(|id| *id != chosen).unwrap();
    let (_bobs, his) = (login(sandbox, "bob"), id("bob"));
    let mut services = super::scope::manager(sandbox);
    let theirs = ids("alice").into_iter().find(|id| *id != chosen && *id != newest).unwrap();
    let (mut alice, mut bob, mut root) = (Caller::new(uid("alice")), Caller::new(uid("bob")), Caller::new(0));
    let whose = |host: &mut Host| super::scope::whose(&host.ring()).to_owned();
    let follow = |caller: &mut Caller| caller.properties(&theirs)["ok"]["Follows"].clone();
    eventually("services follow the newest session", Duration::from_secs(10), || {
        (whose(&mut services) == "alice/admin" && follow(&mut root) == newest).then_some(())
    });
    alice.ok("Subscribe");

    // She chooses, and it is so when she is answered.
    let answer = alice.manager(&format!("Follow {chosen}"));
    let followed = (&answer["error"], &whose(&mut services)[..]);
    assert_eq!(followed, (&Value::Null, "alice"), "services follow the session that was chosen: {answer}");
    let told = eventually("it is told", Duration::from_secs(8), || {
        alice.signals(200).into_iter().find(|signal| signal["member"] == "Followed")
    });
    assert_eq!((&told["path"], &told["body"]), (&json!(format!("{HOST}/pag/{theirs}")), &json!(chosen)), "{told}");
    let said = sandbox.heard("asked for it over D-Bus");
    assert_eq!(said.0.get("ASKED_BY").map(String::as_str), Some("61001"), "{said:?}");
    assert_eq!(alice.properties(&chosen)["ok"]["Chosen"], true);
    let (_, list) = pagctl(uid("alice"), &["list"]);
    let line = |id: &str| list.lines().find(|line| line.starts_with(id)).unwrap_or_default().to_owned();
    assert!(line(&chosen).contains("(chosen)") && line(&theirs).contains(&chosen), "{list}");
    assert!(pagctl(uid("alice"), &["show", &theirs]).1.contains(&format!("follows    PAG {chosen}")));
    assert!(pagctl(uid("alice"), &["show", &chosen]).1.contains("chosen     for the user's services"));

    // A newer login, and a restart of the helper, change nothing.
    let mut third = super::scope::login(sandbox, "sshd", "alice/admin");
    drop(helper);
    helper = Helper::serving();
    eventually("the new helper knows the third session", Duration::from_secs(10), || {
        (alice.pags().len() == 4).then_some(())
    });
    assert_eq!((whose(&mut services), follow(&mut root)), ("alice".to_owned(), json!(chosen)), "it holds");
    third.all_ok(&["close", "end"]);

    // Bob cannot choose for alice, nor alice a PAG of bob's. A PAG that does not exist is refused in the same words.
    for (caller, id) in [(&mut bob, &newest), (&mut alice, &his)] {
        for call in ["Follow", "Unfollow"] {
            let [is, is_not] = [&id[..], NOBODYS].map(|id| {
                let answer = caller.manager(&format!("{call} {id}"));
                assert!(answer["error"].is_string(), "nobody chooses for another: {call}: {answer}");
                assert_eq!(error(&answer), "NoSuchPag", "{call}: {answer}");
                answer.to_string().replace(id, "ID")
            });
            assert_eq!(is, is_not, "what there is and is not: {call}");
        }
    }
    assert_eq!((whose(&mut services), follow(&mut root)), ("alice".to_owned(), json!(chosen)), "all is as it was");
    for wrong in ["", "_", "x", "../../../../../x", "u:7"] {
        assert_eq!(alice.refused(&format!("Follow {wrong}")), "InvalidArgs", "{wrong}");
    }
    // Only a login's own PAG can be followed, and only where there are services.
    assert_eq!(alice.refused(&format!("Follow {theirs}")), "FollowFailed");
    assert_eq!(bob.refused(&format!("Follow {his}")), "FollowFailed");
    // By polkit's leave, and root.
    *polkit.lock().unwrap() = crate::bus::Polkit { answer: (true, false), ..Default::default() };
    bob.ok(&format!("Follow {newest}"));
    assert_eq!(whose(&mut services), "alice/admin", "an administrator has chosen the other");
    assert_eq!(alice.properties(&chosen)["ok"]["Chosen"], false, "one is chosen, not two");
    *polkit.lock().unwrap() = crate::bus::Polkit::default();
    root.ok(&format!("Follow {chosen}"));
    assert_eq!(whose(&mut services), "alice", "root has chosen the first");

    // By the tool, from within; and back to the configuration.
    let tool = crate::sandbox::pagctl().display().to_string();
    for (host, name) in [(&mut admin, "alice/admin"), (&mut plain, "alice")] {
        let done = inside(host, "alice", &format!("{tool} follow"));
        assert_eq!((&done["status"], &done["stdout"]), (&json!(0), &json!("")), "{done}");
        let done = inside(host, "alice", &format!("{tool} follow --json"));
        let told = serde_json::from_str(done["stdout"].as_str().unwrap()).unwrap();
        crate::schema::check("follow", &told);
        assert_eq!((&told[0]["done"], &told[0]["user"]), (&json!(true), &json!("alice")), "{told}");
        assert_eq!(whose(&mut services), name);
    }
    assert_eq!(pagctl(uid("alice"), &["follow"]), (Some(1), "You are in no PAG.\n".to_owned()));
    assert_eq!(pagctl(uid("alice"), &["follow", "--policy"]), (Some(0), String::new()));
    // Without a logind to ask, the helper does not switch sessions without need.
    assert_eq!(alice.properties(&chosen)["ok"]["Chosen"], false, "the choice is taken back");
    assert!(!pagctl(uid("alice"), &["list"]).1.contains("(chosen)"));
    alice.ok(&format!("Unfollow {chosen}"));

    // Until it ends.
    alice.ok(&format!("Follow {chosen}"));
    assert_eq!(whose(&mut services), "alice");
    plain.all_ok(&["close", "end"]);
    eventually("the chosen session has ended", Duration::from_secs(5), || {
        (whose(&mut services) == "alice/admin").then_some(())
    });
    assert_eq!(alice.refused(&format!("Follow {chosen}")), "NoSuchPag");
    // An administrator's configuration that keeps services apart has precedence.
    sandbox.configure("scope = session\nfollow = none");
    drop(helper);
    let _helper = Helper::serving();
    assert_eq!(alice.refused(&format!("Follow {newest}")), "FollowFailed");
    assert_eq!(root.refused(&format!("Follow {newest}")), "FollowFailed");
    eventually("services follow nobody", Duration::from_secs(5), || (whose(&mut services) == "nobody").then_some(()));
}

pub(super) fn polkit_decides(sandbox: &mut Sandbox) {
    let (_bus, _helper) = (Bus::start(), Helper::serving());
    let mut bobs = login(sandbox, "bob");
    let his = id("bob");
    let (mut alice, mut root) = (Caller::new(uid("alice")), Caller::new(0));
    sees(&mut root, &[&his]);
    // No polkit.
    let answer = alice.manager(&format!("GetPag {his}"));
    assert!(answer["error"].is_string(), "without polkit nobody may: {answer}");
    assert_eq!(error(&answer), "NoSuchPag");
    assert_eq!(alice.refused("ListAllPags"), "AccessDenied");
    let polkit = polkit();
    let set = |answer| *polkit.lock().unwrap() = crate::bus::Polkit { answer, ..Default::default() };
    let asked = || std::mem::take(&mut polkit.lock().unwrap().asked);
    // No.
    set((false, false));
    assert_eq!(alice.refused(&format!("GetPag {his}")), "NoSuchPag");
    assert_eq!(alice.refused("ListAllPags"), "AccessDenied");
    let question = (alice.name.clone(), "org.pam_pag.manage-others".to_owned(), 0);
    assert_eq!(asked(), [question.clone(), question.clone()]);
    // A dialog must not show whether the PAG exists.
    assert_eq!(alice.refused(&format!("GetPag {NOBODYS}")), "NoSuchPag");
    assert_eq!(asked(), [question]);
    // Perhaps.
    set((false, true));
    assert_eq!(alice.refused(&format!("GetPag {his}")), "NoSuchPag");
    assert_eq!(alice.refused("ListAllPags"), "InteractiveAuthorizationRequired");
    asked();
    alice.say(&format!("ask {HOST} {MANAGER} ListAllPags"));
    assert_eq!(asked()[0].2, 1, "the user may be asked when he allows it");
    // Yes.
    set((true, false));
    assert_eq!(alice.ok("ListAllPags")[0][0], json!(his));
    assert_eq!(alice.ok(&format!("GetPag {his}")), json!(format!("{HOST}/pag/{his}")));
    assert_eq!(alice.properties(&his)["ok"]["UID"], uid("bob"));
    assert_eq!(alice.pags(), Vec::<String>::new(), "her own are still none");
    alice.ok(&format!("Unlog {his} _"));
    assert!(bobs.ring().token(CELL).is_none(), "an administrator discards bob's tokens");
    // Root needs no consent.
    asked();
    set((false, false));
    assert_eq!(root.properties(&his)["ok"]["UID"], uid("bob"));
    assert_eq!(root.refused(&format!("GetPag {NOBODYS}")), "NoSuchPag");
    assert!(asked().is_empty(), "polkit is not asked about root");
}

/// What `pagctl metrics` tells root.
struct Metrics(String);

impl Metrics {
    fn read() -> Self {
        let (status, text) = pagctl(0, &["metrics"]);
        assert_eq!(status, Some(0), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        Metrics(text)
    }

    /// The value of a series.
    fn value(&self, series: &str) -> Option<u64> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(value.parse().unwrap_or_else(|_| panic!("{}", self.0)))
    }

    /// The jobs for the cell of the tests: how many have ended, and how many of them have failed.
    fn token_jobs(&self) -> (Option<u64>, Option<u64>) {
        let of_cell = |name: &str| self.value(&format!("{name}{{client=\"keyring\",cell=\"{CELL}\"}}"));
        (of_cell("pag_token_jobs_total"), of_cell("pag_token_job_failures_total"))
    }
}

/// What a command of pagctl prints as JSON.
fn json_of(user: u32, words: &str) -> Value {
    let (status, text) = pagctl(user, &[&words.split(' ').collect::<Vec<_>>()[..], &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words}: {error}: {status:?} {text}"))
}

/// Two renewals at once, of which the helper makes one: what the first says, and the JSON of the second.
fn renew_twice(user: u32, pag: &str) -> ((Option<i32>, String), Value) {
    std::thread::scope(|scope| {
        let said = scope.spawn(|| pagctl(user, &["renew", pag]));
        let told = json_of(user, &format!("renew {pag}"));
        crate::schema::check("renew", &told);
        (said.join().unwrap(), told)
    })
}

pub(super) fn pagctl_verbs(sandbox: &mut Sandbox) {
    let names = ["pag-logind-helper", "pag-seed", "pag-keytab", "pag-ccache", "pagctl"];
    let expected = names.map(|name| format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(crate::bus::versions(), expected, "each program tells its version");
    let alice = uid("alice");
    let bus = Bus::start();
    let (status, said) = pagctl(alice, &["list"]);
    assert_eq!(status, Some(2), "without the helper: {said}");
    assert!(said.contains("pag-logind-helper does not run"), "{said}");
    assert_eq!(Metrics::read().value("pag_helper_up"), Some(0), "metrics tell that the helper is away");
    let before = ticket::now();
    let helper = Helper::serving();
    let told = Metrics::read();
    assert_eq!(told.value("pag_helper_up"), Some(1));
    let started = told.value("pag_helper_start_time_seconds").expect("the helper tells when it was started");
    assert!((before.saturating_sub(1)..=ticket::now()).contains(&started), "{started}");
    assert_eq!(pagctl(alice, &["metrics"]).0, Some(2), "metrics are for root");
    let refused = Caller::new(alice).manager("GetStatistics").to_string();
    assert!(refused.contains("AccessDenied"), "the helper tells its numbers to root alone: {refused}");
    let (status, said) = pagctl(alice, &["list"]);
    assert_eq!((status, &said[..]), (Some(0), "There are no PAGs that you may see.\n"));
    assert_eq!(pagctl(alice, &["list", "--json"]), (Some(0), "[]\n".to_owned()));
    let (status, said) = pagctl(alice, &["show"]);
    assert_eq!((status, &said[..]), (Some(1), "You are in no PAG.\n"));
    assert_eq!(pagctl(alice, &["renew"]).0, Some(1));
    let (status, said) = pagctl(alice, &["show", "x"]);
    assert_eq!(status, Some(2));
    assert!(said.contains("16 hex digits"), "{said}");

    let mut monitor = crate::bus::as_user(alice)
        .arg(crate::sandbox::pagctl())
        .args(["monitor", "--json"])
        .stdout(fs::File::create("/run/monitor").unwrap())
        .spawn()
        .unwrap();
    let changes = || -> Vec<Value> {
        let text = fs::read_to_string("/run/monitor").unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    // It is ready once it has subscribed. From outside only its output shows that.
    let mut alices = eventually("monitor tells of a login", Duration::from_secs(20), || {
        let host = login(sandbox, "alice");
        std::thread::sleep(Duration::from_millis(600));
        changes().iter().any(|change| change["change"] == "added").then_some(host)
    });
    let (_bobs, hers) = (login(sandbox, "bob"), id("alice"));
    let his = id("bob");
    sees(&mut Caller::new(0), &[&hers, &his]);

    let (status, said) = pagctl(alice, &["list"]);
    assert_eq!(status, Some(0));
    assert!(said.contains(&hers) && said.contains("alice@EXAMPLE.TEST") && !said.contains(&his), "{said}");
    assert!(
        said.contains("  sshd  ") && said.contains("  for 60 min  "),
        "list tells logins and how long tokens last: {said}"
    );
    let (_, all) = pagctl(0, &["list", "--json"]);
    let all: Vec<Value> = serde_json::from_str(&all).unwrap();
    assert_eq!(all.len(), 2, "root sees both: {all:?}");
    let line = all.iter().find(|line| line["pag"] == hers).unwrap();
    assert_eq!((&line["user"], &line["uid"], &line["kind"]), (&json!("alice"), &json!(alice), &json!("user")));

    // Numbers, of which none names a user.
    let told = Metrics::read();
    assert_eq!(told.value("pag_pags{kind=\"user\"}"), Some(2), "metrics count the PAGs");
    assert_eq!(told.value("pag_leases{role=\"login\"}"), Some(2), "metrics count the logins");
    let token = format!("client=\"keyring\",cell=\"{CELL}\"");
    assert_eq!(told.value(&format!("pag_tokens{{{token},state=\"good\"}}")), Some(2), "metrics count the tokens");
    let end = told.value(&format!("pag_first_token_end_timestamp_seconds{{{token}}}")).unwrap();
    assert!((1..=3600).contains(&(end - ticket::now())), "the first token ends within the hour: {end}");
    assert_eq!(told.value("pag_pags_last_seeding_failed"), Some(0));
    assert_eq!(told.token_jobs(), (None, None), "a login's own seeder is no job");
    assert!(!["alice", "bob", &alice.to_string()].iter().any(|name| told.0.contains(name)), "{}", told.0);
    fs::create_dir_all("/run/collector").unwrap();
    assert_eq!(pagctl(0, &["metrics", "--output", "/run/collector/pag.prom"]), (Some(0), String::new()));
    let written = shell("cd /run/collector; stat -c '%n %a' *; ls -A | wc -l; tail -n 1 pag.prom");
    assert_eq!(written, "pag.prom 644\n1\n# EOF\n");

    let (status, shown) = pagctl(alice, &["show", &hers, "--json"]);
    assert_eq!(status, Some(0), "{shown}");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["ring"], alices.ring().identity().0);
    assert_eq!((&shown["tokens"][0]["cell"], &shown["tokens"][0]["state"]), (&json!(CELL), &json!("good")), "{shown}");
    assert_eq!(shown["leases"][0]["service"], "sshd");
    let (status, said) = pagctl(alice, &["show", &hers]);
    assert_eq!(status, Some(0));
    assert!(said.contains(&format!("token      {CELL} as alice@EXAMPLE.TEST until 2")), "{said}");
    let (status, said) = pagctl(alice, &["show", &his]);
    assert_eq!(status, Some(2), "bob's is not shown to alice: {said}");
    assert!(said.contains("that you may see"), "{said}");

    // By the beginning of the id, and by the user.
    for word in [&hers[..12], "alice", &alice.to_string()] {
        let (status, said) = pagctl(0, &["show", word]);
        assert_eq!(status, Some(0), "{word}: {said}");
        assert!(said.contains(&hers) && !said.contains(&his), "{word} is alice's: {said}");
    }
    let (_, shown) = pagctl(alice, &["show", "alice", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((shown.as_array().unwrap().len(), &shown[0]["pag"]), (1, &json!(hers)), "the JSON of a user is a list");
    let (status, said) = pagctl(alice, &["show", "bob"]);
    assert_eq!(status, Some(2), "bob's is not shown to alice by bob's name: {said}");
    assert!(said.contains("that you may see"), "{said}");

    // What each command prints has the shape that docs/json.md tells, for root, for a user, and for an empty answer.
    for (user, commands) in [
        (0, &["status", "status --explain", "id", "tokens", "list", "show alice", "pam check", "config check"][..]),
        (alice, &["status", "list", "show alice", "pam enable -n"]),
        (uid("carol"), &["status", "id", "tokens", "show"]),
    ] {
        for words in commands {
            let command = words.trim_end_matches(" alice").trim_end_matches(" -n");
            crate::schema::check(command, &json_of(user, words));
        }
    }
    let (listed, shown) = (json_of(0, "list"), json_of(0, &format!("show {hers}")));
    assert!(listed.as_array().unwrap().contains(&shown), "a PAG is the same in every command: {listed:#} {shown:#}");

    // The PAG that one is in, which `keyctl session` leaves.
    let tool = crate::sandbox::pagctl().display().to_string();
    let done = inside(&mut alices, "alice", &format!("{tool} show --json"));
    let mine: Value = serde_json::from_str(done["stdout"].as_str().unwrap()).unwrap_or_else(|_| panic!("{done}"));
    assert_eq!(mine["pag"], hers);
    let done = inside(&mut alices, "alice", &format!("keyctl session - {tool} show 2>/dev/null || echo $?"));
    assert_eq!(done["stdout"], "You are in no PAG.\n1\n", "{done}");

    // A token of which the client does not know the end is the same for every command.
    let end = |host: &mut Host, words: &str, tokens: &str| -> Option<Value> {
        let done = inside(host, "alice", &format!("{tool} {words} --json"));
        let told: Value = serde_json::from_str(done["stdout"].as_str()?).unwrap_or_else(|_| panic!("{done}"));
        let endless = |token: &&Value| token["cell"] == "endless.test";
        told.pointer(tokens)?.as_array()?.iter().find(endless).map(|token| json!([token["expires"], token["state"]]))
    };
    inside(&mut alices, "alice", "keyctl add user afs@endless.test 'alice@EXAMPLE.TEST 0' @s >/dev/null");
    for (words, tokens) in [("tokens", "/tokens"), ("status", "/mine/tokens"), ("show", "/tokens")] {
        // The helper looks again after a second.
        let limit = Duration::from_secs(10);
        let told = eventually("every command shows the token", limit, || end(&mut alices, words, tokens));
        assert_eq!(told, json!([null, "expired"]), "an end that is not known is null in JSON: pagctl {words}");
    }
    inside(&mut alices, "alice", "keyctl unlink $(keyctl search @s user afs@endless.test) @s");

    // A seeder that is asked for; there is no systemd here.
    let (status, said) = pagctl(alice, &["renew", &hers]);
    assert_eq!(status, Some(2));
    assert!(said.contains("cannot renew the tokens of PAG"), "{said}");
    assert_eq!(Metrics::read().token_jobs(), (Some(1), Some(1)), "metrics count a job that failed");
    systemd(|_| true);
    let (status, said) = pagctl(alice, &["renew", &hers]);
    assert_eq!((status, &said[..]), (Some(0), ""), "{said}");
    assert_eq!(Metrics::read().token_jobs(), (Some(2), Some(1)), "metrics count a renewal");

    // What commands did is told in one shape.
    let unlog = format!("unlog nowhere.test --pag {hers}");
    for (user, words, done, pag) in [
        (0, &format!("renew {his}")[..], true, Some((&his, "bob"))),
        (alice, "renew", false, None),
        (alice, "follow", false, None),
        (alice, &unlog, true, Some((&hers, "alice"))),
    ] {
        let told = json_of(user, words);
        crate::schema::check(words.split(' ').next().unwrap(), &told);
        let expected = json!([done, pag.map(|(id, _)| id), pag.map(|(_, name)| name)]);
        assert_eq!(json!([told[0]["done"], told[0]["pag"], told[0]["user"]]), expected, "{words}: {told}");
    }
    assert_eq!(json_of(alice, "follow --policy"), json!([]), "alice has chosen none");

    // The monitor outlives the helper.
    drop(helper);
    let _helper = Helper::serving();
    let count = changes().len();
    let mut second = eventually("monitor tells on, after a restart", Duration::from_secs(20), || {
        let host = login(sandbox, "alice");
        std::thread::sleep(Duration::from_millis(600));
        (changes().len() > count).then_some(host)
    });
    second.all_ok(&["close", "end"]);
    alices.all_ok(&["close", "end"]);
    changes().iter().for_each(|change| crate::schema::check("monitor", change));
    eventually("monitor tells the end", Duration::from_secs(5), || {
        changes().iter().any(|change| change["change"] == "removed" && change["pag"] == hers).then_some(())
    });
    for change in changes() {
        assert!(!change.to_string().contains(&his), "bob's PAG is told to alice: {change}");
    }
    bus.stop();
    let ended = eventually("monitor ends with the bus", Duration::from_secs(5), || monitor.try_wait().unwrap());
    assert_eq!(ended.code(), Some(2));
    let inside_registry = super::registry().map_or(0, |registry| members(registry).unwrap().len());
    assert!(inside_registry <= 1, "bob's is left: {:?}", super::registry().map(describe));
}

/// Users ask for tokens, and their seeder fails. They can put anything where its reason is left for the helper.
pub(super) fn renewal_says_why(sandbox: &mut Sandbox) {
    seed_stack(sandbox);
    let (_bus, mut helper) = (Bus::start(), Helper::serving());
    // What a user puts there after the job, before the helper looks.
    systemd(|unit| {
        let ended = run_seed_unit(unit);
        let uid = unit.trim_start_matches("pag-seed@").trim_end_matches(".service");
        shell(&format!("[ ! -e /run/put ] || setpriv --reuid {uid} --regid {uid} --clear-groups sh -e /run/put"));
        ended
    });
    let words = "/run/seeder ended with status 7: \"aklog: can't get afs configuration?[2J / really\"";
    let mut failures = 0;
    for (user, put, told) in [
        ("alice", None, words),
        ("bob", Some("printf 'x\\nPRIORITY=0\\033[2J' > $f"), "x?PRIORITY=0?[2J"),
        ("carol", Some("mkfifo $f"), "its job ended with 'failed'"),
        ("dave", Some("ln -s /etc/passwd $f"), "its job ended with 'failed'"),
    ] {
        sandbox.seeder(crate::sandbox::SEEDER);
        let mut host = login(sandbox, user);
        let own = id(user);
        sees(&mut Caller::new(uid(user)), &[&own]);
        let ccache = super::seeders::ccache_of(&pags(user)[0]);
        inside(&mut host, user, &format!("mkfifo {ccache}/.reason {ccache}/.reason.new"));
        let say = "printf \"aklog: can't get afs configuration\\033[2J\\nreally\\n\" >&2";
        sandbox.seeder(&format!("#!/bin/sh\n{say}\nexit 7\n"));
        fs::write("/run/put", put.map(|put| format!("f={ccache}/.reason; rm -f $f; {put}\n")).unwrap_or_default())
            .unwrap();
        sandbox.messages();
        let begun = Instant::now();
        let (status, said) = pagctl(uid(user), &["renew", &own]);
        assert!(begun.elapsed() < Duration::from_secs(20), "{user}: nothing there holds it up: {:?}", begun.elapsed());
        assert!(status == Some(2) && said.lines().count() == 1 && !said.contains('\u{1b}'), "{user}: {said:?}");
        assert!(said.contains(told), "{user}: pagctl renew tells why: {said}");
        failures += 1;
        let numbers = Metrics::read();
        assert_eq!(numbers.token_jobs(), (Some(failures), Some(failures)), "{user}: the seeder's failure is counted");
        let failed = numbers.value("pag_pags_last_seeding_failed").unwrap();
        assert!(failed >= 1, "{user}: their PAG is one of those with a seeder that failed");
        let messages = sandbox.messages();
        let says = |speaker: &str, words: &str| {
            let of = messages.iter().filter(|one| one.0.get("SYSLOG_IDENTIFIER").is_some_and(|name| name == speaker));
            of.filter(|one| one.text().contains(words)).count() > 0
        };
        assert!(says("pag-seed", words), "{user}: the job says it: {messages:#?}");
        assert!(says("pag-logind-helper", told), "{user}: so does the helper: {messages:#?}");
        let left = shell(&format!("cd {ccache}; ls -A"));
        assert!(put.is_some() || !left.contains("reason"), "what was told is gone: {left}");
        host.all_ok(&["close", "end"]);
    }
    helper.lives();
}

/// OpenAFS is configured, and its module is not loaded.
pub(super) fn missing_client(sandbox: &mut Sandbox) {
    const WORDS: &str = "no login gets tokens of AFS: OpenAFS is configured (client in pag.conf)";
    seed_stack(sandbox);
    let (_bus, helper) = (Bus::start(), Helper::serving());
    systemd(run_seed_unit);
    let told = |sandbox: &mut Sandbox| sandbox.messages().iter().filter(|one| one.text().contains(WORDS)).count();
    assert_eq!(told(sandbox), 0, "with the client keyring nothing is missed");
    let config = format!("[pag]\nclient = openafs\nprogram = /usr/bin/aklgo\nafs_cells = {CELL}\n");
    fs::write("/etc/pag/pag.conf", config).unwrap();
    shell(&format!("kill -HUP {}", helper.pid()));
    let mut count = 0;
    // In the first minutes of a host's life its modules may still be on their way.
    let up = fs::read_to_string("/proc/uptime").unwrap().split('.').next().unwrap().parse().unwrap();
    let limit = Duration::from_secs(20) + Duration::from_secs(180).saturating_sub(Duration::from_secs(up));
    eventually("the helper names the client when it is reloaded", limit, || {
        count += told(sandbox);
        (count > 0).then_some(())
    });
    drop(helper);
    sandbox.messages();
    let _helper = Helper::serving();
    let mut told = Vec::new();
    eventually("and at its start", limit, || {
        told.extend(sandbox.messages().iter().map(|one| one.text().to_owned()));
        told.iter().any(|text| text.contains(WORDS)).then_some(())
    });
    let program = "/etc/pag/pag.conf:3: program /usr/bin/aklgo does not exist";
    assert!(told.iter().any(|text| text.contains(program)), "a seeder that is not there is named: {told:#?}");
    let mut alices = login(sandbox, "alice");
    let hers = id("alice");
    sees(&mut Caller::new(uid("alice")), &[&hers]);
    let ((status, said), told) = renew_twice(uid("alice"), &hers);
    assert_eq!(status, Some(1), "a renewal that leaves no tokens is no success: {said}");
    assert_eq!((&told[0]["done"], &told[0]["what"]), (&json!(false), &json!(said.trim_end())), "{told}");
    assert!(
        said.starts_with(&format!("PAG {hers} of alice (uid 61001) has no tokens: OpenAFS is configured")),
        "{said}"
    );
    alices.all_ok(&["close", "end"]);
}

/// The end of a run of pagctl that wrote there: its status, and its standard error.
fn pagctl_to(words: &[&str], output: Stdio, errors: Stdio) -> (Option<i32>, String) {
    let mut command = Command::new(crate::sandbox::pagctl());
    let child = command.args(words).stdin(Stdio::null()).stdout(output).stderr(errors).spawn().unwrap();
    let ended = child.wait_with_output().unwrap();
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

/// The end of a pipe without a reader.
fn unread() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

fn full() -> Stdio {
    fs::File::options().write(true).open("/dev/full").unwrap().into()
}

pub(super) fn closed_outputs(sandbox: &mut Sandbox) {
    const LOST: &str = "pagctl: cannot write to standard output: No space left on device\n";
    let _bus = Bus::start();
    let _helper = Helper::serving();
    let mut host = login(sandbox, "alice");
    let hers = id("alice");
    sees(&mut Caller::new(0), &[&hers]);
    let verbs: [&[&str]; 18] = [
        &["status"],
        &["status", "--json"],
        &["status", "--explain"],
        &["list"],
        &["list", "--json"],
        &["show", &hers],
        &["show", &hers, "--json"],
        &["show", "x"],
        &["id"],
        &["id", "--json"],
        &["tokens"],
        &["unlog"],
        &["pam", "check"],
        &["pam", "check", "--json"],
        &["pam", "enable", "--dry-run"],
        &["--help"],
        &["--version"],
        &["no-such-verb"],
    ];
    for words in verbs {
        let usual = Command::new(crate::sandbox::pagctl()).args(words).stdin(Stdio::null()).output().unwrap();
        let (status, said) = (usual.status.code(), String::from_utf8_lossy(&usual.stderr).into_owned());
        assert_eq!(
            pagctl_to(words, unread(), Stdio::piped()),
            (status, said.clone()),
            "{words:?}: a reader that has gone is nothing to speak of"
        );
        let lost = if status < Some(2) { (Some(2), format!("{said}{LOST}")) } else { (status, said) };
        assert_eq!(pagctl_to(words, full(), Stdio::piped()), lost, "{words:?}: what is lost is said in one line");
        for errors in [unread, full] {
            let ended = pagctl_to(words, unread(), errors()).0;
            assert_eq!(ended, status, "{words:?}: nor is a standard error that takes nothing");
        }
    }
    // A reader that goes away in the midst of it.
    let tool = crate::sandbox::pagctl();
    let heads = format!(
        "for i in $(seq 20); do for v in status 'list --json' --help; do {} $v | head -n 1 >/dev/null; done; done 2>&1",
        tool.display()
    );
    assert_eq!(super::shell(&heads), "", "head takes one line of each");
    for (output, code, said) in [(unread(), Some(0), ""), (full(), Some(2), LOST)] {
        let mut monitor = Command::new(&tool).arg("monitor").stdout(output).stderr(Stdio::piped()).spawn().unwrap();
        // It is there when it has asked the bus; that cannot be seen from outside but by its end.
        eventually("monitor ends with its first line", Duration::from_secs(20), || {
            login(sandbox, "alice").all_ok(&["close", "end"]);
            monitor.try_wait().unwrap()
        });
        let ended = monitor.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), &*String::from_utf8_lossy(&ended.stderr)), (code, said), "monitor");
    }
    host.all_ok(&["close", "end"]);
}

pub(super) fn newer_record(sandbox: &mut Sandbox) {
    let _bus = Bus::start();
    crate::bus::systemd_with_manager(std::process::id());
    // The module of a newer release has put alice's manager into a PAG of its own.
    let mut manager = sandbox.host("systemd-user", "alice");
    manager.ok("open");
    let newer = "pag-record 9\nwhat only that release knows\n";
    let theirs = pags("alice").remove(0);
    let length = newer.len() as i64;
    crate::ring::keyctl(libc::KEYCTL_UPDATE, theirs.record.into(), newer.as_ptr() as i64, length).unwrap();
    sandbox.messages();
    let _helper = Helper::serving();
    let mut alices = login(sandbox, "alice");
    // Bob's PAG has no manager in it, so a message about bob comes later than one about alice could.
    let mut bobs = login(sandbox, "bob");
    let mut messages = Vec::new();
    eventually("the helper finds a manager outside", Duration::from_secs(20), || {
        messages.extend(sandbox.messages());
        let outside = format!("the user manager of uid {}", uid("bob"));
        messages.iter().any(|message| message.text().contains(&outside)).then_some(())
    });
    let texts: Vec<&str> = messages.iter().map(crate::sandbox::Message::text).collect();
    let of_alice = format!("the user manager of uid {}", uid("alice"));
    assert!(!texts.iter().any(|text| text.contains(&of_alice)), "no word of alice's PAM stack: {texts:#?}");
    let left: Vec<_> = messages.iter().filter(|one| one.text().contains("of a newer release")).collect();
    let by = |who: &str| left.iter().filter(|one| one.0["SYSLOG_IDENTIFIER"] == who).count();
    assert_eq!((by("pam_pag"), by("pag-logind-helper")), (1, 1), "it is told of once: {texts:#?}");
    assert!(
        left.iter().all(|one| one.text().contains("This release neither renews its tokens nor ends it")),
        "{texts:#?}"
    );
    let there = pags("alice").into_iter().find(|pag| pag.name == theirs.name);
    assert_eq!(there.map(|pag| pag.text).as_deref(), Some(newer), "and left alone");
    for host in [&mut alices, &mut bobs, &mut manager] {
        host.all_ok(&["close", "end"]);
    }
}

pub(super) fn slow_names_hold_no_lock(sandbox: &mut Sandbox) {
    let _bus = Bus::start();
    let mut manager = sandbox.host("systemd-user", "alice");
    manager.ok("open");
    // The tokens that this login leaves are to be kept or discarded: that depends on the user's name. So do keytabs.
    login(sandbox, "alice").kill();
    sandbox.configure("[user bob]\nkeytab = /run/bob.keytab");
    let mut bobs = login(sandbox, "bob");
    let mut bob = Caller::new(uid("bob"));
    let names = SilentNames::begin();
    let _helper = Helper::start();
    eventually("the helper asks for the user's name", Duration::from_secs(10), || names.are_asked().then_some(()));
    let lock = fs::File::options().write(true).open(format!("/run/pag/lock/{}", uid("alice"))).unwrap();
    assert!(lock.try_lock().is_ok(), "a login can take the lock while the helper waits for the name");
    drop(lock);
    // A helper that waits for the name all the same goes on after that time.
    let (end, ended) = channel::<()>();
    let silence = std::thread::spawn(move || {
        let _ = ended.recv_timeout(Duration::from_secs(20));
        drop(names);
    });
    let (mut answered, mut slowest) = (false, Duration::ZERO);
    // For as long as the helper waits for a name, the lease of the killed login stays.
    eventually(
        "the helper gives up while the name service did not answer: a lease is taken out",
        Duration::from_secs(15),
        || {
            let asked = Instant::now();
            answered |= bob.say(&format!("call {HOST} org.freedesktop.DBus.Peer Ping"))["error"].is_null();
            slowest = slowest.max(asked.elapsed());
            assert!(
                slowest < Duration::from_millis(250),
                "bob has waited {slowest:?} while the name service did not answer"
            );
            (pags("alice")[0].leases().len() == 1).then_some(())
        },
    );
    assert!(answered, "the helper serves while the name service does not answer");
    println!("bob's slowest ping while the name service does not answer: {slowest:?}");
    drop(end);
    silence.join().unwrap();
    for host in [&mut manager, &mut bobs] {
        host.all_ok(&["close", "end"]);
    }
}
