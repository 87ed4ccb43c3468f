//! What a caller of the D-Bus interface wants the helper's loop to do, and what the caller is told of it.

use std::fmt;
use std::io;
use std::rc::Rc;

use pag::types::{Cell, PagId};

use crate::mailbox::Mailbox;

/// What the caller is told.
pub(crate) type Outcome = Result<(), Trouble>;

/// Something to be done to a PAG.
pub(crate) struct Order {
    pub(crate) pag: PagId,
    pub(crate) action: Action,
    answer: Rc<Mailbox<Outcome>>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Run a seeder for the PAG.
    Renew,
    /// Remove tokens, for one cell or for all, from the record, so that renewal does not bring them back.
    Discard(Option<Cell>),
    /// Have the user's services follow the PAG, or take that back.
    Follow(bool),
}

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The PAG has ended.
    Gone,
    /// A login holds the user's lock.
    Busy,
    /// For this reason.
    Failed(String),
}

impl Order {
    /// The answer goes into this mailbox.
    pub(crate) fn new(pag: PagId, action: Action, answer: Rc<Mailbox<Outcome>>) -> Self {
        Order { pag, action, answer }
    }

    /// Gives the caller the outcome.
    pub(crate) fn answer(&self, outcome: Outcome) {
        self.answer.put(outcome);
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trouble::Gone => "the PAG has ended",
            Trouble::Busy => "a login holds the user's lock",
            Trouble::Failed(why) => why,
        })
    }
}

impl From<pag::Error> for Trouble {
    fn from(error: pag::Error) -> Self {
        match error {
            pag::Error::Lock { source, .. } if source.kind() == io::ErrorKind::TimedOut => Trouble::Busy,
            error => Trouble::Failed(error.to_string()),
        }
    }
}
