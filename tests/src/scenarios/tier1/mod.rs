//! Scenarios on this host's kernel and libpam, in a [`Sandbox`].

mod apache;
mod apache_faults;
mod bus;
mod ccaches;
mod doctor;
mod ends;
mod hosts;
mod identity;
mod libpag_c;
mod life;
mod member;
mod named;
mod options;
mod process_pags;
mod run;
mod safety;
mod scope;
mod seeders;

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::ring::{describe, keyctl, members, payload};
use crate::sandbox::{Host, Sandbox, USERS};
use crate::ticket;

/// A scenario: its name, what it shows, and itself.
pub type Scenario = (&'static str, &'static str, fn(&mut Sandbox));

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[
    ("second_login_joins", "A second login is in the same PAG and has its tokens.", life::second_login_joins),
    ("another_principal", "A login with another identity gets a PAG of its own.", life::another_principal),
    (
        "keyring_feeds_the_pag",
        "A login's ticket in a keyring gives the PAG its identity and its ticket, as one in a file does.",
        ccaches::keyring_feeds_the_pag,
    ),
    (
        "no_ticket_is_no_trouble",
        "A ccache of any kind without a good ticket starts no seeder, and causes no wait and no message.",
        ccaches::no_ticket_is_no_trouble,
    ),
    (
        "unread_ccache_seeds_nothing",
        "Neither a login nor an unlock gives a seeder a ccache of an unknown identity.",
        ccaches::unread_ccache_seeds_nothing,
    ),
    ("last_end_discards", "Tokens live until the last login ends, and no key is left.", life::last_end_discards),
    (
        "retain_decides",
        "The option retain decides which tokens stay, with a manager and without.",
        life::retain_decides,
    ),
    (
        "logout_asks_no_name_service",
        "The last logout beside a user manager waits for no name service, and takes the tokens.",
        life::logout_asks_no_name_service,
    ),
    ("cycles_leak_nothing", "Logins and logouts leak no key, file or descriptor.", life::cycles_leak_nothing),
    (
        "rush_makes_one",
        "Twenty first logins of one user at once make one ring; of many users, one for each.",
        life::rush_makes_one,
    ),
    ("killed_anywhere", "A login killed at any of its calls harms no later one.", life::killed_anywhere),
    (
        "doctor_waits_for_no_answer",
        "`pagctl doctor` ends, and names what gave no answer: name service, KDC.",
        doctor::doctor_waits_for_no_answer,
    ),
    ("strangers_get_nothing", "No other uid and no process outside can reach the ring.", safety::strangers_get_nothing),
    (
        "member_passes_nothing_on",
        "A member cannot share the ring outside, nor reach what anchors it.",
        safety::member_passes_nothing_on,
    ),
    ("member_breaks_ring", "The next login repairs what a member has done to its ring.", safety::member_breaks_ring),
    (
        "hostile_keys_harm_nobody",
        "Logins, listing and logouts work, whatever keys a user makes.",
        safety::hostile_keys_harm_nobody,
    ),
    ("full_quota", "A user whose key quota is full logs in, and the ring stays root's.", safety::full_quota),
    (
        "damaged_and_foreign_records",
        "A damaged record is written anew; a record of another version is left alone.",
        safety::damaged_and_foreign_records,
    ),
    (
        "forged_ccache_names",
        "A KRB5CCNAME that holds lines of a record, or cannot be a name, forges no lease and no identity.",
        safety::forged_ccache_names,
    ),
    ("lost_registry", "When the registry is lost the next login makes a new one.", safety::lost_registry),
    ("squatted_name", "No login enters a keyring that another user has given the ring's name.", safety::squatted_name),
    (
        "another_pid_namespace",
        "A container that shares root's keyring does not join the host's PAGs.",
        safety::another_pid_namespace,
    ),
    (
        "root_keyring_holds_no_token",
        "No search in root's keyrings finds a user's token.",
        safety::root_keyring_holds_no_token,
    ),
    (
        "trouble_of_one_login",
        "A login that cannot join or read a PAG that is whole ends it for no other login, and changes no record.",
        safety::trouble_of_one_login,
    ),
    (
        "lock_is_for_its_own_user",
        "Under the lock of one user no PAG of another is changed or ended.",
        safety::lock_is_for_its_own_user,
    ),
    (
        "failure_is_a_line",
        "Without keyrings, or with the lock held, a login succeeds and reports what it lacks.",
        safety::failure_is_a_line,
    ),
    (
        "syslog_where_no_journal_is",
        "Without a journal messages go to syslog in local time; without either the login goes on.",
        hosts::syslog_where_no_journal_is,
    ),
    ("root_stays_out", "Root, system users and su get no PAG of any user.", safety::root_stays_out),
    ("host_unchanged", "Hosts in every state get back their ids, groups and all else.", hosts::host_unchanged),
    (
        "two_users_in_one_host",
        "A host that serves two users, in turn or at once, mixes nothing up.",
        hosts::two_users_in_one_host,
    ),
    (
        "setcred_only_and_twice",
        "One login has one lease and one seeder, whichever hooks a host calls and in which order.",
        hosts::setcred_only_and_twice,
    ),
    (
        "host_closes_in_a_chroot",
        "A host that closes in a chroot changes nothing in the registry and makes no file.",
        ends::host_closes_in_a_chroot,
    ),
    (
        "another_handle_closes",
        "A process that starts a handle for each call can close its sessions, and starts no program in another user's PAG.",
        ends::another_handle_closes,
    ),
    (
        "many_sessions_of_one_process",
        "A process that opens sessions without end takes no room from other logins, and keeps its tokens until it ends.",
        ends::many_sessions_of_one_process,
    ),
    (
        "su_to_another",
        "A user's su to another user, from inside a PAG, is a login of the other user.",
        hosts::su_to_another,
    ),
    ("services_table", "Each PAM service is treated as the design's table says.", hosts::services_table),
    (
        "keyinit_after_us",
        "A session keyring that a later module replaced is reported and put right.",
        hosts::keyinit_after_us,
    ),
    ("exports", "The module exports exactly the six entry points.", hosts::exports),
    ("panic_is_a_line", "A panic is a journal line and the login goes on.", hosts::panic_is_a_line),
    ("bad_configuration", "A bad option or line is one message with its place.", hosts::bad_configuration),
    (
        "pam_afs_session_options",
        "Each option of pam_afs_session does what the manual says.",
        options::pam_afs_session_options,
    ),
    (
        "sessions_keep_to_themselves",
        "Under scope = session each login has its own PAG, and the manager has one without tokens.",
        scope::sessions_keep_to_themselves,
    ),
    (
        "scope_is_chosen",
        "User, group, PAM line, service and host choose the scope; a change disturbs no open login.",
        scope::scope_is_chosen,
    ),
    (
        "refresh_finds_its_session",
        "A refreshed ticket reaches its own session, from inside and outside, and no other.",
        scope::refresh_finds_its_session,
    ),
    (
        "manager_follows_from_its_start",
        "Under scope = session a manager has the newest session's tokens when it starts, without a helper.",
        scope::manager_follows_from_its_start,
    ),
    (
        "following_mirrors_and_takes_away",
        "A follower's ring gets the followed tokens, keeps its own, and in the end loses only what it got.",
        scope::following_mirrors_and_takes_away,
    ),
    (
        "login_ends_following",
        "A login that shares the manager's PAG ends its following, and harms neither session.",
        scope::login_ends_following,
    ),
    (
        "names_of_directories_are_their_own",
        "An account has its own identity under any name that sssd or winbind gives it, and the option names what cannot be \
         guessed. What is kept apart is reported, and no other realm's identity is taken.",
        identity::names_of_directories_are_their_own,
    ),
    (
        "manager_keeps_to_its_users_identity",
        "A manager has the tokens of its user's own identity, whichever login came first, and those of another one only \
         while it is the only one there.",
        identity::manager_keeps_to_its_users_identity,
    ),
    (
        "tokens_and_unlog",
        "pagctl shows a member the tokens of its PAG, and discards them for all members.",
        member::tokens_and_unlog,
    ),
    ("new_and_leave", "pagctl makes a PAG for any user, and lets a member leave one.", member::new_and_leave),
    (
        "cut_tokens_are_not_forgotten",
        "Tokens that a member removes right after the seeder are still recorded, so that they can be renewed.",
        seeders::cut_tokens_are_not_forgotten,
    ),
    (
        "first_hook_looks",
        "Only the first of a login's two hooks reads the tokens; a refresh reads them again.",
        seeders::first_hook_looks,
    ),
    (
        "hostile_tickets",
        "A login reads no file of another user's in place of a ticket, and waits for none.",
        seeders::hostile_tickets,
    ),
    (
        "slow_ccache_holds_no_lock",
        "A login that waits for a file system over its ccache holds up no other login.",
        seeders::slow_ccache_holds_no_lock,
    ),
    (
        "ccaches_share_no_room",
        "A user who fills their PAG's ccache takes no room from other users or from /run.",
        seeders::ccaches_share_no_room,
    ),
    (
        "seeders_own_words",
        "What a failed seeder said stands in the journal, in one line that forges nothing, and its program is named.",
        seeders::seeders_own_words,
    ),
    (
        "client_is_not_loaded",
        "A login, pagctl and the helper name an AFS client that is configured and not loaded; other hosts stay silent.",
        seeders::client_is_not_loaded,
    ),
    ("bad_seeders", "A seeder that hangs, dies, forks or floods delays no login for long.", seeders::bad_seeders),
    (
        "bus_shows_own_pags_only",
        "Over D-Bus users see their own PAGs and no trace of others', and root sees all.",
        bus::shows_own_pags_only,
    ),
    (
        "bus_policy_holds",
        "The bus lets only root own the name, and lets users call the methods that the policy names.",
        bus::policy_holds,
    ),
    ("bus_comes_and_goes", "The helper serves again when the bus or the name is back.", bus::comes_and_goes),
    (
        "bus_errors_have_names",
        "Every wrong call is answered by a named error, and crashes nothing.",
        bus::errors_have_names,
    ),
    (
        "bus_ccache_is_filled",
        "What users leave in a PAG's ccache is cleared away, and harms no other user.",
        bus::ccache_is_filled,
    ),
    (
        "bus_mounted_ccache_holds_up_nobody",
        "A file system over a PAG's ccache that never answers delays neither the helper nor the user's own hosts.",
        bus::mounted_ccache_holds_up_nobody,
    ),
    (
        "bus_lost_registry",
        "A registry that root removes is reported: members keep what they have, and logins make new PAGs.",
        bus::lost_registry,
    ),
    ("bus_pag_vanishes", "A call about a PAG that ends meanwhile gets a named error.", bus::pag_vanishes),
    (
        "bus_signals_reach_their_own",
        "A caller that may not see a PAG gets no signal about it.",
        bus::signals_reach_their_own,
    ),
    (
        "bus_warns_before_the_end",
        "Signals announce tokens that will end, and that have ended.",
        bus::warns_before_the_end,
    ),
    ("bus_flood", "One user's flood is refused, and delays neither others nor the helper's work.", bus::flood),
    ("bus_my_pag", "A process learns which login it came from, and nothing about other users.", bus::my_pag),
    ("bus_renew_and_unlog", "Tokens are discarded at once, and new ones come into the PAG.", bus::renew_and_unlog),
    (
        "bus_follow",
        "A user chooses which session their services follow, until it ends; no other user can.",
        bus::follow,
    ),
    (
        "bus_copied_ticket_gives_way",
        "When a login ends the following while services get the followed ticket, they end up with the login's.",
        bus::copied_ticket_gives_way,
    ),
    (
        "bus_unlog_lasts",
        "Renewal does not bring back discarded tokens; a new ticket, a login or a request does.",
        bus::unlog_lasts,
    ),
    (
        "bus_named_pag",
        "A named PAG is entered by its name, outlives a killed keeper, is known by its name, and ends with its unit.",
        named::is_kept,
    ),
    ("bus_renew_by_keytab", "A requested renewal uses a keytab if a due one would.", bus::renew_by_keytab),
    (
        "bus_polkit_decides",
        "A user sees others' PAGs only with polkit's consent, and never without polkit.",
        bus::polkit_decides,
    ),
    (
        "background_seeder",
        "A seeder that goes into the background and brings no token has failed, and the journal says so.",
        seeders::background_seeder,
    ),
    (
        "unseen_tokens_are_not_missing",
        "Tokens that cannot be looked at are not noted as gone, not sought again, and not called discarded.",
        seeders::unseen_tokens_are_not_missing,
    ),
    (
        "names_of_cells",
        "A cell named in other case, or by an alias, needs the seeder once, and not at each login.",
        seeders::names_of_cells,
    ),
    (
        "user_namespace",
        "In a user namespace pagctl says that it cannot tell which ring it is in.",
        member::user_namespace,
    ),
    (
        "bus_newer_record",
        "A PAG of a newer release is reported once, and not mistaken for a wrong PAM stack.",
        bus::newer_record,
    ),
    (
        "bus_slow_names_hold_no_lock",
        "While the helper waits for a name service, it holds no lock that a login needs.",
        bus::slow_names_hold_no_lock,
    ),
    (
        "bus_closed_outputs",
        "Each verb of pagctl ends quietly if its reader has gone, and prints one line if the disk is full.",
        bus::closed_outputs,
    ),
    (
        "libpag_c_exports",
        "libpag.so exports the calls of its header, with symbol versions, and needs nothing but libc.",
        libpag_c::exports,
    ),
    (
        "libpag_c_model",
        "A C program has several PAGs, its threads switch between them, and the end of one is final.",
        libpag_c::model,
    ),
    (
        "libpag_c_errors",
        "Each wrong call from C has its code and its words, and leaves its thread in no PAG.",
        libpag_c::errors,
    ),
    (
        "libpag_c_close_ends_all",
        "Closing a process ends its PAGs, those that are created meanwhile included, and it can be opened again.",
        libpag_c::close_ends_all,
    ),
    (
        "libpag_c_allocates_nothing",
        "Entering, failing to enter and leaving allocate nothing, in new threads of a program that used dlopen.",
        libpag_c::allocates_nothing,
    ),
    (
        "libpag_c_examples",
        "The manual's examples in C, Python and Rust serve each user with its own PAG.",
        libpag_c::examples,
    ),
    (
        "apache_serves_users_at_once",
        "Under each MPM requests of two users and of none, at once and over restarts, have their own identity each.",
        apache::serves_users_at_once,
    ),
    (
        "apache_keeps_files_inside",
        "mod_pag enters a PAG before a path is looked at, and leaves it after the last file is read and closed.",
        apache::keeps_files_inside,
    ),
    (
        "apache_serves_by_keytab",
        "A location is served under a keytab's principal, and requests without a user where PagDefault says so.",
        apache::serves_by_keytab,
    ),
    (
        "apache_refuses_with_a_line",
        "What mod_pag cannot serve under its own identity is refused with 503, or at the start, and a line that says why.",
        apache::refuses_with_a_line,
    ),
    (
        "config_check",
        "pagctl config check names every mistake with its line, and what is no configuration; a login tells one once.",
        options::config_check,
    ),
    (
        "bus_renewal_says_why",
        "A renewal that fails tells its caller what the seeder said; users put nothing else into that than one line.",
        bus::renewal_says_why,
    ),
    (
        "bus_missing_client",
        "The helper names an AFS client that is not loaded, and a renewal that leaves no tokens is no success.",
        bus::missing_client,
    ),
    (
        "apache_names_faults",
        "A hung seeder, a KDC that is away, an ended ticket and a full quota are 503 and a line; no request is another's.",
        apache_faults::faults,
    ),
    ("bus_pagctl", "pagctl lists, shows, renews, discards, chooses and monitors over D-Bus.", bus::pagctl_verbs),
    (
        "libpag_model",
        "One process without rights has several PAGs, each thread is in its own, and a default holds without one.",
        process_pags::model,
    ),
    (
        "libpag_threads",
        "Two threads in opposite phase are never in the wrong PAG; a switch is keyctl and nothing else.",
        process_pags::threads,
    ),
    (
        "libpag_children",
        "A child stays in the PAG in which it was born, and knows the way into no other.",
        process_pags::children,
    ),
    (
        "libpag_failed_enter",
        "A thread that cannot enter a PAG is in none, wherever it was before.",
        process_pags::failed_enter,
    ),
    (
        "libpag_outsiders",
        "No process outside, of the same uid or root's, can join, see, read or link a process's PAG.",
        process_pags::outsiders,
    ),
    (
        "libpag_hostile_thread",
        "Code in one thread has all PAGs of its process, moves no other thread, has none of another process, and none after \
         its end.",
        process_pags::hostile_thread,
    ),
    (
        "libpag_end_is_final",
        "The end of a process's PAG ends it for parked threads, children and io_uring credentials.",
        process_pags::end_is_final,
    ),
    (
        "libpag_faults",
        "A full quota, a hung or failing seeder and a missing keytab are named, and leave nothing.",
        process_pags::faults,
    ),
    (
        "libpag_is_told_apart",
        "pagctl tells which process has made a PAG for itself, and how often it is held.",
        process_pags::is_told_apart,
    ),
    (
        "libpag_thousand",
        "A thousand PAGs of one process, and ten thousand in the long form, leave no key.",
        process_pags::thousand,
    ),
    (
        "run_command_has_tokens",
        "pagctl run gives a command tokens before it starts, and is the command for its caller, its shell and its terminal.",
        run::command_has_tokens,
    ),
    (
        "run_keeper_renews",
        "The tokens of pagctl run are renewed until the last process of the PAG has ended, and then nothing is left.",
        run::keeper_renews,
    ),
    (
        "run_refuses_with_a_line",
        "Without tokens pagctl run does not start the command, says why in time, and tries again with --wait.",
        run::refuses_with_a_line,
    ),
    (
        "run_keeps_to_itself",
        "No process outside gets at the PAG of pagctl run, and its command gets at no keytab or ticket of root's.",
        run::keeps_to_itself,
    ),
];

/// Scenarios for which the module must be built with the feature `fault`.
pub const WITH_FAULT: &[&str] = &["panic_is_a_line"];

/// Whether a scenario runs the helper.
pub fn needs_helper(name: &str) -> bool {
    name.starts_with("bus_")
}

/// Whether a scenario uses libpag: its C library, and programs with several PAGs.
pub fn needs_library(name: &str) -> bool {
    name.starts_with("libpag_")
}

/// Whether a scenario uses Apache with mod_pag.
pub fn needs_apache(name: &str) -> bool {
    name.starts_with("apache_")
}

/// Whether the scenarios are to run in their long form.
pub fn long() -> bool {
    std::env::var_os("PAG_LONG").is_some()
}

/// The uid of one of the sandbox's users.
fn uid(user: &str) -> u32 {
    USERS.iter().find(|(name, _)| *name == user).unwrap().1
}

/// A PAG as the registry has it, by raw system calls: a test must not believe the code that it tests.
#[derive(Debug)]
struct Pag {
    /// The name of its holder, `pag:holder:UID:ID`.
    name: String,
    holder: i32,
    /// Its ring, which shows itself to the handle group only.
    ring: i32,
    record: i32,
    /// The record's text.
    text: String,
}

impl Pag {
    /// The leases in its record.
    fn leases(&self) -> Vec<&str> {
        self.text.lines().filter(|line| line.starts_with("lease ")).collect()
    }
}

/// Root's user keyring.
fn own_keyring() -> i32 {
    keyctl(libc::KEYCTL_GET_KEYRING_ID, -4, 0, 0).unwrap() as i32
}

/// The registry of this pid namespace; none before the first login.
fn registry() -> Option<i32> {
    let inode = std::fs::metadata("/proc/self/ns/pid").unwrap().ino();
    let name = format!("pag:registry:{inode}:");
    let mut inside = members(own_keyring()).unwrap().into_iter();
    inside.find(|key| describe(*key).is_ok_and(|key| key.name.starts_with(&name)))
}

/// The PAGs of `user` in the registry.
fn pags(user: &str) -> Vec<Pag> {
    let begin = format!("pag:holder:{}:", uid(user));
    let mut found = Vec::new();
    for holder in registry().map_or_else(Vec::new, |registry| members(registry).unwrap()) {
        let Ok(key) = describe(holder) else { continue };
        if !key.name.starts_with(&begin) {
            continue;
        }
        let inside = members(holder).unwrap();
        let is_record = |key: &i32| describe(*key).is_ok_and(|key| key.name == "pag:record");
        let record = inside.iter().copied().find(is_record).unwrap();
        let ring = inside.iter().copied().find(|key| *key != record).unwrap_or(0);
        let text = String::from_utf8_lossy(&payload(record).unwrap()).into_owned();
        found.push(Pag { name: key.name, holder, ring, record, text });
    }
    found
}

/// Runs a shell script that must succeed, and returns its output.
fn shell(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Runs a shell script as `user` in the session keyring of `host`; its whole answer.
fn inside(host: &mut Host, user: &str, script: &str) -> serde_json::Value {
    let uid = uid(user);
    std::fs::write("/run/inside", script).unwrap();
    host.ask(&format!("run setpriv --reuid {uid} --regid {uid} --clear-groups sh -e /run/inside"))
}

/// A host of `user` that has a ticket for `principal`, not yet logged in.
fn ticketed(sandbox: &Sandbox, service: &str, user: &str, principal: &str) -> Host {
    let path = format!("/run/home/{user}/cc.{}", principal.replace('/', "."));
    let name = ticket::write(&path, uid(user), principal, "EXAMPLE.TEST", ticket::now() + 3600);
    let mut host = sandbox.host(service, user);
    host.ok(&format!("putenv KRB5CCNAME={name}"));
    host
}

/// A login of `user` by sshd with a ticket of that name.
fn login(sandbox: &Sandbox, user: &str) -> Host {
    let mut host = ticketed(sandbox, "sshd", user, user);
    host.ok("open");
    host
}
