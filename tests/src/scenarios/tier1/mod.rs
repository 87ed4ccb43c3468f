//! Scenarios on this host's kernel and libpam, in a [`Sandbox`].

mod life;

use crate::sandbox::Sandbox;

/// A scenario: its name, what it shows, and itself.
pub type Scenario = (&'static str, &'static str, fn(&mut Sandbox));

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[
    ("second_login_joins", "a second login joins, a token is there for all at once, no second seeder runs", life::second_login_joins),
    ("another_principal_gets_its_own_pag", "alice/admin neither lends nor borrows rights", life::another_principal_gets_its_own_pag),
    ("the_last_login_ends_the_tokens", "one of two ends: nothing is lost; the last ends: tokens and keys go", life::the_last_login_ends_the_tokens),
    ("retain_decides_what_stays", "each value of retain", life::retain_decides_what_stays),
    ("many_logins_leak_nothing", "no key, file, descriptor or process stays", life::many_logins_leak_nothing),
    ("a_killed_process_leaves_a_pag_or_none", "killed at each of its key, lock and rename calls", life::a_killed_process_leaves_a_pag_or_none),
    ("logins_at_once_make_one_ring", "20 of one user make one, 50 users make 50", life::logins_at_once_make_one_ring),
];

/// Whether the scenarios are to run in their long form.
pub fn long() -> bool {
    std::env::var_os("PAG_LONG").is_some()
}
