//! Scenarios on this host's kernel and libpam, in a [`Sandbox`].

mod hosts;
mod life;
mod safety;
mod seeders;

use crate::sandbox::{Host, Sandbox, USERS};
use crate::ticket;

/// A scenario: its name, what it shows, and itself.
pub type Scenario = (&'static str, &'static str, fn(&mut Sandbox));

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[
    ("second_login_joins", "A second login is in the same PAG and has its tokens.", life::second_login_joins),
    ("another_principal", "A login with another identity gets a PAG of its own.", life::another_principal),
    ("last_end_discards", "Tokens live until the last login ends, and no key is left.", life::last_end_discards),
    ("cycles_leak_nothing", "Logins and logouts leak no key, file or descriptor.", life::cycles_leak_nothing),
    ("rush_makes_one", "Twenty first logins at once make one ring, many users at once one each.", life::rush_makes_one),
    ("killed_anywhere", "A login killed at any of its calls harms no later one.", life::killed_anywhere),
    ("strangers_get_nothing", "No other uid and no process outside can reach the ring.", safety::strangers_get_nothing),
    ("member_breaks_ring", "What a member does to its ring is healed at the next login.", safety::member_breaks_ring),
    ("root_stays_out", "Root, system users and su are in nobody's PAG anew.", safety::root_stays_out),
    ("host_unchanged", "Hosts in every state get back ids, groups and all else.", hosts::host_unchanged),
    ("keyinit_after_us", "A session keyring replaced behind our back is said and put right.", hosts::keyinit_after_us),
    ("exports", "The module exports exactly the six entry points.", hosts::exports),
    ("panic_is_a_line", "A panic is a journal line and the login goes on.", hosts::panic_is_a_line),
    ("bad_configuration", "A bad option or line is one message with its place.", hosts::bad_configuration),
    ("bad_seeders", "A seeder that hangs, dies, forks or floods delays no login for long.", seeders::bad_seeders),
];

/// Whether the scenarios are to run in their long form.
pub fn long() -> bool {
    std::env::var_os("PAG_LONG").is_some()
}

/// The uid of one of the sandbox's users.
fn uid(user: &str) -> u32 {
    USERS.iter().find(|(name, _)| *name == user).unwrap().1
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
