//! Scenarios on a virtual machine with a real AFS cell, and homes in it.

mod control;

/// An AFS client that a machine can have loaded. They exclude each other.
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

    /// The client of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Client::OpenAfs, Client::Kafs, Client::None].into_iter().find(|client| client.name() == name)
    }
}

/// One scenario.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub shows: &'static str,
    /// Whether the product is installed first.
    pub product: bool,
    /// The clients that it is run with, each on a machine of its own.
    pub clients: &'static [Client],
    /// The scenario itself, given the client that is loaded when it begins.
    pub run: fn(Client),
}

impl Scenario {
    const fn new(name: &'static str, shows: &'static str, run: fn(Client)) -> Self {
        Scenario { name, shows, product: true, clients: &[Client::OpenAfs, Client::Kafs], run }
    }

    const fn without_product(self) -> Self {
        Scenario { product: false, ..self }
    }
}

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[Scenario::new(
    "afs_control_without_pam_pag",
    "with today's tools a user service can't read the AFS home of the user whose login started it",
    control::afs_control_without_pam_pag,
)
.without_product()];
