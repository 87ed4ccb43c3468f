//! Scenarios on a virtual machine with a real AFS cell, and homes in it.

mod adopt;
mod apache;
mod both;
mod control;
mod ends;
mod faults;
mod main_job;
mod members;
mod process_pags;
mod renewal;
mod rules;
mod run;
mod scope;

/// An AFS client that a machine can have loaded. They exclude each other, as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// OpenAFS's module.
    OpenAfs,
    /// The kernel's own.
    Kafs,
    /// No module is loaded.
    None,
}

impl Client {
    /// Its name, as `lab-client` in the machine knows it.
    pub const fn name(self) -> &'static str {
        match self {
            Client::OpenAfs => "openafs",
            Client::Kafs => "kafs",
            Client::None => "none",
        }
    }

    /// The program that gets its tokens, as a user calls it.
    pub const fn seeder(self) -> &'static str {
        match self {
            Client::OpenAfs => "aklog",
            Client::Kafs => "aklog-kafs",
            Client::None => "keyring-aklog -c example.test",
        }
    }

    /// The client of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Client::OpenAfs, Client::Kafs, Client::None].into_iter().find(|client| client.name() == name)
    }
}

/// One scenario.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What the scenario shows, in a sentence.
    pub shows: &'static str,
    /// Whether the product is installed first.
    pub product: bool,
    /// The clients that it is run with, each on a machine of its own.
    pub clients: &'static [Client],
    /// The clients that it is run with in the long form alone: what it shows is shown with another in the short one.
    pub long: &'static [Client],
    /// The scenario itself, given the client that is loaded when it begins.
    pub run: fn(Client),
}

impl Scenario {
    const fn new(name: &'static str, shows: &'static str, run: fn(Client)) -> Self {
        Scenario { name, shows, product: true, clients: &[Client::OpenAfs, Client::Kafs], long: &[], run }
    }

    /// Whether it uses Apache with mod_pag.
    pub fn needs_apache(&self) -> bool {
        self.name.starts_with("afs_apache_")
    }

    /// Whether it is run with this client in the long form alone.
    pub fn is_long(&self, client: Client) -> bool {
        self.long.contains(&client)
    }

    const fn in_short_without(self, long: &'static [Client]) -> Self {
        Scenario { long, ..self }
    }

    const fn on(self, clients: &'static [Client]) -> Self {
        Scenario { clients, ..self }
    }

    const fn without_product(self) -> Self {
        Scenario { product: false, ..self }
    }
}

/// All of them, in the order in which they run: the longest first, so that none is waited for at the end.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "afs_renewed_tickets_leave_no_gap",
        "a service reads its user's home as long as tickets can be renewed, over a killed helper, a KDC that is away for half \
         of the time and a sleep of the machine, then not, and with a keytab without end",
        renewal::afs_renewed_tickets_leave_no_gap,
    )
    .in_short_without(&[Client::Kafs]),
    Scenario::new(
        "afs_setpag_waits_and_goes_on",
        "a user who makes many PAGs waits, also through signals, and delays no login",
        faults::afs_setpag_waits_and_goes_on,
    )
    .on(&[Client::OpenAfs]),
    Scenario::new(
        "afs_logins_leave_nothing",
        "many logins leave no key, file or PAG behind, and make one PAG each",
        ends::afs_logins_leave_nothing,
    ),
    Scenario::new(
        "afs_control_without_pam_pag",
        "with today's tools a user service can't read the AFS home of the user whose login started it",
        control::afs_control_without_pam_pag,
    )
    .without_product(),
    Scenario::new(
        "afs_services_work_in_the_home",
        "services, timers, bus-activated programs and units of the home read and write it, and nothing is denied",
        main_job::afs_services_work_in_the_home,
    ),
    Scenario::new(
        "afs_a_late_token_reaches_what_runs",
        "a login without a ticket works; kinit and aklog in its shell give the running services tokens at once",
        main_job::afs_a_late_token_reaches_what_runs,
    ),
    Scenario::new(
        "afs_logins_share_and_the_last_one_ends",
        "two logins of one user share tokens, two users are refused each other's files, the last end discards",
        main_job::afs_logins_share_and_the_last_one_ends,
    ),
    Scenario::new(
        "afs_a_lingering_manager_gets_the_tokens",
        "a manager that was there first gets the tokens of a later login, and loses them with the last one",
        main_job::afs_a_lingering_manager_gets_the_tokens,
    )
    .in_short_without(&[Client::Kafs]),
    Scenario::new(
        "afs_outages_lose_nothing",
        "the helper is killed and stopped, a session's leader is killed: no user loses tokens",
        main_job::afs_outages_lose_nothing,
    )
    .in_short_without(&[Client::Kafs]),
    Scenario::new(
        "afs_root_and_strangers_are_refused",
        "root, its services, uids that root becomes and callers of su - are refused the files of others",
        main_job::afs_root_and_strangers_are_refused,
    ),
    Scenario::new(
        "afs_a_member_cuts_and_it_is_healed",
        "a member empties the ring or invalidates its keys, and the others have their tokens back within seconds",
        members::afs_a_member_cuts_and_it_is_healed,
    ),
    Scenario::new(
        "afs_tools_do_what_they_say",
        "aklog, pagsh, unlog, kdestroy, tokens, aklog-kafs and pagctl do in our PAGs what their manuals say",
        members::afs_tools_do_what_they_say,
    ),
    Scenario::new(
        "afs_rules_of_pags",
        "the rules of PAGs, one suite for the keyring, OpenAFS and kAFS",
        rules::afs_rules_of_pags,
    )
    .on(&[Client::OpenAfs, Client::Kafs, Client::None]),
    Scenario::new(
        "afs_one_process_serves_two_users",
        "one process without rights has a PAG for each of two users: threads in opposite phase read their own user's file alone, \
         a child stays, the end is final",
        process_pags::afs_one_process_serves_two_users,
    ),
    Scenario::new(
        "afs_run_reads_a_users_files",
        "a service of pagctl run reads and writes a user's files by a keytab, under another uid; what runs beside it is \
         refused, and its unit stops at once",
        run::afs_run_reads_a_users_files,
    ),
    Scenario::new(
        "afs_apache_serves_users_at_once",
        "Apache serves files and programs to two users at once over 16 connections and a restart, each as their own \
         delegated identity, beside a service's by keytab",
        apache::afs_apache_serves_users_at_once,
    ),
    Scenario::new(
        "afs_apache_reads_no_file_outside",
        "a slow client gets a file to its last byte, read inside its user's PAG",
        apache::afs_apache_reads_no_file_outside,
    )
    .in_short_without(&[Client::Kafs]),
    Scenario::new(
        "afs_both_clients_at_once",
        "OpenAFS and kAFS on one host: each has its token in the one PAG, got, listed and discarded apart or together",
        both::afs_both_clients_at_once,
    )
    .on(&[Client::OpenAfs]),
    Scenario::new(
        "afs_services_follow_the_primary_session",
        "two identities, two sessions: each is refused the other's files; services have the primary one's access, then the \
         other's, then none, unrestarted",
        scope::afs_services_follow_the_primary_session,
    ),
    Scenario::new(
        "afs_what_was_discarded_stays_so",
        "tokens that a member has discarded do not come back with the next renewal; those that it gets again are renewed",
        renewal::afs_what_was_discarded_stays_so,
    )
    // The short form of this is a scenario of tier 1, with the client `keyring`.
    .in_short_without(&[Client::OpenAfs, Client::Kafs]),
    Scenario::new(
        "afs_manager_from_before_is_adopted",
        "a user manager that was started outside of the PAG gets access by `pagctl adopt`, unrestarted, and in step with it",
        adopt::afs_manager_from_before_is_adopted,
    )
    .in_short_without(&[Client::Kafs]),
    Scenario::new(
        "afs_login_survives_a_dead_kdc",
        "a KDC that is away, silent, refuses or is slow: the login goes on in time, and the next one has tokens",
        faults::afs_login_survives_a_dead_kdc,
    )
    .in_short_without(&[Client::Kafs]),
    Scenario::new(
        "afs_login_survives_a_dead_file_server",
        "no file server under the home: the login goes on, and all works when it is back",
        faults::afs_login_survives_a_dead_file_server,
    )
    .in_short_without(&[Client::Kafs]),
    Scenario::new(
        "afs_client_comes_and_goes",
        "the client's module is loaded after a login, and unloaded during one: the next login gets the PAG tokens",
        faults::afs_client_comes_and_goes,
    )
    .in_short_without(&[Client::Kafs]),
    Scenario::new(
        "afs_no_tokens_outside_a_pag",
        "no seeder is run where OpenAFS, asked by the device that is configured, does not confirm the PAG",
        faults::afs_no_tokens_outside_a_pag,
    )
    .on(&[Client::OpenAfs]),
    Scenario::new(
        "afs_client_is_found_by_its_device",
        "OpenAFS is found by each device file that a module may have, and asked in the older form if it knows no other",
        faults::afs_client_is_found_by_its_device,
    )
    .on(&[Client::OpenAfs]),
    Scenario::new(
        "afs_odd_cells_and_tickets",
        "a cell that does not exist, a ticket of 10 KB and an expired one harm no login",
        faults::afs_odd_cells_and_tickets,
    )
    .in_short_without(&[Client::Kafs]),
];

/// Whether the scenarios are to run in their long form.
pub fn long() -> bool {
    std::env::var_os("PAG_LONG").is_some()
}
