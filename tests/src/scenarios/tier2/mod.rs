//! Scenarios on a booted machine.

mod cycles;
mod dbus;
mod desktop;
mod doctor;
mod identity;
mod logins;
mod main_job;
mod midway;
mod outages;
mod packages;
mod renewal;
mod scope;
mod upkeep;

/// One scenario.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What the scenario shows, in a sentence.
    pub shows: &'static str,
    /// Whether the product is installed before the machine boots.
    pub product: bool,
    /// Whether the machine has Debian's packages of the product, to install them.
    pub packages: bool,
    /// Users that linger from the first boot on.
    pub linger: &'static [&'static str],
    /// Whether the short form runs it on every systemd version, or on the oldest alone.
    pub everywhere: bool,
    /// How often the machine is booted. Its files stay from boot to boot.
    pub boots: u32,
    /// The scenario itself, given the number of the boot.
    pub run: fn(u32),
}

impl Scenario {
    const fn new(name: &'static str, shows: &'static str, run: fn(u32)) -> Self {
        Scenario { name, shows, product: true, packages: false, linger: &[], everywhere: false, boots: 1, run }
    }

    const fn everywhere(self) -> Self {
        Scenario { everywhere: true, ..self }
    }

    const fn without_product(self) -> Self {
        Scenario { product: false, ..self }
    }

    const fn with_packages(self) -> Self {
        Scenario { product: false, packages: true, ..self }
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
        "without pam_pag a user service has another session keyring than the login, and no token",
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
    Scenario::new(
        "lightdm_login_reaches_its_programs_and_an_unlock_refreshes_tokens",
        "a graphical login's timers and bus-activated programs are in its PAG; unlocking the screen gets new tokens",
        desktop::lightdm_login_reaches_its_programs_and_an_unlock_refreshes_tokens,
    )
    .everywhere(),
    Scenario::new(
        "second_login_joins_and_last_logout_ends",
        "logins share a PAG, services keep its token while they stop, and the tokens end with the manager",
        logins::second_login_joins_and_last_logout_ends,
    )
    .everywhere(),
    Scenario::new(
        "retain_decides_over_ssh",
        "processes that a login leaves behind keep their token or lose it, as retain says",
        cycles::retain_decides_over_ssh,
    ),
    Scenario::new(
        "many_logins_leak_nothing",
        "logins and logouts in a row leak no key, file, descriptor or process",
        cycles::many_logins_leak_nothing,
    ),
    Scenario::new(
        "first_logins_at_once_make_one_ring",
        "twenty first logins of one user at once are in one ring",
        cycles::first_logins_at_once_make_one_ring,
    ),
    Scenario::new(
        "killed_leader_is_reaped",
        "the lease of a killed sshd is reaped, and with the manager's end the PAG ends",
        logins::killed_leader_is_reaped,
    ),
    Scenario::new(
        "helper_logind_and_bus_restarts_lose_nothing",
        "helper, logind and bus go and come back, and no login, token or lease is lost",
        outages::helper_logind_and_bus_restarts_lose_nothing,
    ),
    Scenario::new(
        "outages_midway_lose_nothing",
        "helper, logind or the bus stops in the middle of a login: the login succeeds, and no user loses anything",
        midway::outages_midway_lose_nothing,
    ),
    Scenario::new(
        "login_killed_midway_is_reaped",
        "a login that is killed at any point leaves nothing behind, and the next one works",
        midway::login_killed_midway_is_reaped,
    ),
    Scenario::new(
        "filled_ccache_harms_neither_systemd_nor_others",
        "one user fills their PAG's ccache with bytes and with a million files: PID 1, logind and other logins lack nothing",
        upkeep::filled_ccache_harms_neither_systemd_nor_others,
    ),
    Scenario::new(
        "dbus_interface_is_real",
        "processes ask for their PAG, seeders run in their unit, calls wait for a restart, and polkit decides",
        dbus::dbus_interface_is_real,
    )
    .everywhere(),
    Scenario::new(
        "member_clears_the_ring_and_it_is_healed",
        "the tokens of a ring that a member has emptied come back",
        logins::member_clears_the_ring_and_it_is_healed,
    ),
    Scenario::new(
        "services_follow_the_primary_session",
        "two identities, two sessions, two PAGs: services have the primary session's tokens, then the other's, then none",
        scope::services_follow_the_primary_session,
    )
    .everywhere(),
    Scenario::new(
        "services_follow_whom_the_user_chooses",
        "a user chooses which of two sessions services follow, over restarts, until they take it back or the session ends",
        scope::services_follow_whom_the_user_chooses,
    ),
    Scenario::new(
        "services_follow_the_desktop_and_an_unlock_finds_it",
        "services follow the desktop once it is logind's display, and later ssh again; an unlock refreshes the desktop's PAG alone",
        scope::services_follow_the_desktop_and_an_unlock_finds_it,
    ),
    Scenario::new(
        "mixed_scopes_share_a_manager",
        "services follow an ssh session until a login joins their own PAG, and again after it has ended",
        scope::mixed_scopes_share_a_manager,
    ),
    Scenario::new(
        "scope_change_disturbs_no_login",
        "the scopes of desktop and ssh are exchanged: new logins have the new scope; old logins, their services and an unlock \
         of their screen do not change",
        scope::scope_change_disturbs_no_login,
    ),
    Scenario::new(
        "services_keep_to_their_users_identity",
        "services have the tokens of their user's own identity, whichever login came first, and those of another one only while \
         its login lasts",
        identity::services_keep_to_their_users_identity,
    ),
    Scenario::new(
        "accounts_of_directories_have_their_tickets",
        "accounts with a domain in their names have the tickets of their identities, by the option if those cannot be guessed; a \
         lingering account's tokens end with its last login",
        identity::accounts_of_directories_have_their_tickets,
    ),
    Scenario::new(
        "su_and_root_find_no_tokens",
        "su -, su and root's services find no user's tokens; su - with a password is a login",
        logins::su_and_root_find_no_tokens,
    ),
    Scenario::new(
        "systemds_own_shells_are_logins",
        "machinectl shell and run0 are logins",
        logins::systemds_own_shells_are_logins,
    )
    .everywhere(),
    Scenario::new(
        "another_identity_by_ticket_is_apart",
        "an ssh login of alice's with a ticket of alice/admin is in a PAG of its own",
        logins::another_identity_by_ticket_is_apart,
    ),
    Scenario::new(
        "cron_gets_a_pag_of_its_own",
        "cron and at jobs are in PAGs of their own",
        logins::cron_gets_a_pag_of_its_own,
    ),
    Scenario::new(
        "pam_check_is_right_and_disable_takes_back",
        "`pagctl pam check` is right about the stacks, enable repairs them, and disable restores them",
        upkeep::pam_check_is_right_and_disable_takes_back,
    ),
    Scenario::new(
        "a_lock_out_is_found_and_mended",
        "a control that takes our answer for a denial locks users out; check names the line, enable repairs it",
        upkeep::a_lock_out_is_found_and_mended,
    ),
    Scenario::new(
        "doctor_names_the_cause_first",
        "`pagctl doctor` names the cause on 27 machines that are each broken in one way, and its command mends it",
        doctor::doctor_names_the_cause_first,
    ),
    Scenario::new(
        "manager_from_before_is_adopted",
        "a user manager that was started outside of the PAG gets its tokens by `pagctl adopt`, and no other process does",
        main_job::manager_from_before_is_adopted,
    )
    .everywhere(),
    Scenario::new(
        "packages_come_and_go",
        "Debian's packages are installed, upgraded, removed and purged beside open logins, and leave no trace",
        packages::packages_come_and_go,
    )
    .with_packages(),
    Scenario::new(
        "wrong_order_is_said_and_put_right",
        "with pam_keyinit after us a real login is put back into its PAG, and the journal says why",
        upkeep::wrong_order_is_said_and_put_right,
    )
    .everywhere(),
    Scenario::new(
        "renewed_tickets_leave_no_gap",
        "while tickets can be renewed a user service has a token, over a killed helper and a KDC that comes and goes; the \
         end is announced and explained, and a kinit of the user's ends it",
        renewal::renewed_tickets_leave_no_gap,
    ),
    Scenario::new(
        "kinit_in_a_login_feeds_its_pag",
        "a ticket that a user gets or renews in their login's ccache reaches the PAG; another identity's does not",
        renewal::kinit_in_a_login_feeds_its_pag,
    ),
    Scenario::new(
        "kinit_in_kcm_feeds_the_pag",
        "a ticket that a user gets in KCM reaches the PAG of its identity, whatever ccache of the collection it is in, and without \
         one there is no seeder run",
        renewal::kinit_in_kcm_feeds_the_pag,
    ),
    Scenario::new(
        "renewed_from_a_keyring_and_kcm",
        "tickets in KEYRING:persistent and KCM reach services that were there before, and are renewed there with the tokens",
        renewal::renewed_from_a_keyring_and_kcm,
    ),
    Scenario {
        boots: 2,
        ..Scenario::new(
            "keytab_serves_those_who_are_not_there",
            "with a keytab a lingering manager has tokens from boot on and without end, and a cron job has some",
            renewal::keytab_serves_those_who_are_not_there,
        )
    }
    .linger(&["alice"]),
    Scenario::new(
        "many_pags_are_renewed_in_turn",
        "40 PAGs with short tickets (1,000 in the long form) always have a token, and at most four jobs run at once",
        renewal::many_pags_are_renewed_in_turn,
    ),
    Scenario::new(
        "each_session_is_renewed_in_its_own_pag",
        "each of two identities is renewed in its own session's PAG, and services have the followed one's new tokens and ticket",
        renewal::each_session_is_renewed_in_its_own_pag,
    ),
    Scenario::new(
        "journal_explains_messages",
        "journalctl shows the fields of a message, and with --catalog what to do about it",
        upkeep::journal_explains_messages,
    ),
    Scenario::new("unit_scores", "systemd-analyze gives the units an exposure of at most 2.0, and 2.2 to the one that reads keytabs", upkeep::unit_scores)
        .everywhere(),
    Scenario::new(
        "helper_is_one_thread_and_sleeps",
        "the helper is one thread and does not wake up with nothing to do",
        upkeep::helper_is_one_thread_and_sleeps,
    ),
];
