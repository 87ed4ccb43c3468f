//! The system bus as the rest of the helper sees it: what to ask for, and what comes of it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use pag::policy::Sessions;
use pag::types::PagId;

use crate::mailbox::Mailbox;

/// What the helper hears from the bus.
#[derive(Debug)]
pub(crate) enum News {
    /// There is a connection.
    Back,
    /// There is no connection, for this reason. Nothing more is heard of jobs that run.
    Lost(String),
    /// All users that logind knows.
    Users(BTreeSet<u32>),
    /// Something about this user has changed. `there` is whether logind still knows the user, if it says so.
    User { uid: u32, there: Option<bool> },
    /// The sessions of this user: the answer to [`Bus::ask_for_sessions`].
    Sessions { uid: u32, sessions: Sessions },
    /// The machine was asleep.
    Awake,
    /// A unit that [`Bus::start`] has started has ended, well or for this reason.
    Ended { unit: JobUnit, run: RunId, result: Result<(), String> },
    /// The manager of `uid`: the answer to [`Bus::ask_for_manager`].
    Manager { uid: u32, state: ManagerState },
}

/// What systemd says of a user's manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ManagerState {
    /// There is none.
    None,
    /// It is being started or stopped, or cannot be asked about.
    Unsettled,
    /// It runs, as this process.
    Runs(u32),
}

/// What is to be done on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Start this unit.
    Start(JobUnit, RunId),
    /// Ask logind for the sessions of this user.
    Sessions(u32),
    /// Ask systemd for the manager of this user.
    Manager(u32),
}

/// A unit that is started for a PAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobUnit {
    /// Renews tickets and gets tokens, as the user.
    Seed(u32),
    /// Gets a ticket from a keytab, as root.
    Keytab(PagId, u32),
}

/// One run of a token job, of one unit or two. The end of a unit that is told late is not taken for that of a later run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunId(pub(crate) u64);

impl fmt::Display for JobUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobUnit::Seed(uid) => write!(f, "pag-seed@{uid}.service"),
            JobUnit::Keytab(pag, _) => write!(f, "pag-keytab@{pag}.service"),
        }
    }
}

/// The bus as the rest of the helper sees it.
#[derive(Default)]
pub(crate) struct Bus {
    /// What the bus has brought.
    pub(crate) news: Mailbox<News>,
    pub(super) orders: Mailbox<Order>,
    connected: Cell<bool>,
}

impl Bus {
    /// Has a unit started. [`News::Ended`] follows. False if there is no bus.
    pub(crate) fn start(&self, unit: JobUnit, run: RunId) -> bool {
        self.order(Order::Start(unit, run))
    }

    /// Has systemd asked for the manager of `uid`. [`News::Manager`] follows. False if there is no bus.
    pub(crate) fn ask_for_manager(&self, uid: u32) -> bool {
        self.order(Order::Manager(uid))
    }

    fn order(&self, order: Order) -> bool {
        if self.connected.get() {
            self.orders.put(order);
        }
        self.connected.get()
    }

    /// Whether there is a connection.
    pub(crate) fn is_there(&self) -> bool {
        self.connected.get()
    }

    /// Has logind asked for the sessions of `uid`. [`News::Sessions`] follows, if there is a bus.
    pub(crate) fn ask_for_sessions(&self, uid: u32) {
        // A question that waits already will see the same.
        if self.connected.get() && !self.orders.holds(&Order::Sessions(uid)) {
            self.orders.put(Order::Sessions(uid));
        }
    }

    /// Takes over that there is a connection, or is none.
    pub(super) fn set_connected(&self, connected: bool) {
        self.connected.set(connected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_of_a_bus_that_is_not_there() {
        assert!(!Bus::default().start(JobUnit::Seed(61001), RunId(1)));
    }
}
