//! Scenarios on a booted machine.

mod main_job;

/// One scenario.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub shows: &'static str,
    /// Whether the product is installed before the machine boots.
    pub product: bool,
    /// Users that linger from the first boot on.
    pub linger: &'static [&'static str],
    /// Whether the short form runs it on every systemd version, or on the oldest alone.
    pub everywhere: bool,
    /// How often the machine is booted; what it has written stays from boot to boot.
    pub boots: u32,
    /// The scenario itself, given the number of the boot.
    pub run: fn(u32),
}

impl Scenario {
    const fn new(name: &'static str, shows: &'static str, run: fn(u32)) -> Self {
        Scenario { name, shows, product: true, linger: &[], everywhere: false, boots: 1, run }
    }

    const fn everywhere(self) -> Self {
        Scenario { everywhere: true, ..self }
    }

    const fn without_product(self) -> Self {
        Scenario { product: false, ..self }
    }

    const fn linger(self, users: &'static [&'static str]) -> Self {
        Scenario { linger: users, ..self }
    }
}

/// Whether the scenarios are to run in their long form.
pub fn long() -> bool {
    std::env::var_os("PAG_LONG").is_some()
}

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "control_without_pam_pag",
        "without us a user service has another ring than the login, and no token",
        main_job::control_without_pam_pag,
    )
    .without_product()
    .everywhere(),
    Scenario::new(
        "ssh_login_and_user_services_share_ring_and_token",
        "services, timers, bus-activated programs and scopes are in the login's PAG and find its token",
        main_job::ssh_login_and_user_services_share_ring_and_token,
    )
    .everywhere(),
    Scenario::new(
        "lingering_manager_is_joined_by_a_later_login",
        "a manager that was there first gets the token of a later login without a restart",
        main_job::lingering_manager_is_joined_by_a_later_login,
    )
    .linger(&["alice"])
    .everywhere(),
];
