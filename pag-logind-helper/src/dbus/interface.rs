//! The interface as the rest of the helper sees it: what it shows callers, and what callers want done.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pag::report::report;
use pag::types::PagId;

use super::view::View;
use crate::jobs::JobCounts;
use crate::jobs::plan::Notice;
use crate::mailbox::Mailbox;
use crate::messages::HelperEvent;
use crate::order::Order;
use crate::pags::known::Known;

/// `org.pam_pag.Pag1`.
#[derive(Default)]
pub(crate) struct Interface {
    pub(super) view: RefCell<View>,
    /// What callers want the helper's loop to do.
    pub(crate) orders: Mailbox<Order>,
    /// What came of token jobs.
    pub(crate) job_counts: JobCounts,
    /// The user managers that were found outside of their PAGs: uid and process.
    pub(crate) outside: RefCell<Vec<(u32, u32)>>,
    /// Whether the journal says that the interface is not served.
    complained: Cell<bool>,
}

impl Interface {
    /// Shows callers that these are the PAGs of `uid` now.
    pub(crate) fn publish(&self, uid: u32, pags: Vec<Rc<Known>>) {
        self.view.borrow_mut().publish(uid, pags);
    }

    /// Has subscribers told this of a PAG's tokens.
    pub(crate) fn announce(&self, pag: PagId, notice: Notice) {
        self.view.borrow_mut().announce(pag, notice);
    }

    /// Says in the journal that the interface is not served: once, however often it is tried again.
    pub(super) fn complain(&self, why: String) {
        if !self.complained.replace(true) {
            report(&HelperEvent::NotServed { why });
        }
    }

    /// Takes over that callers reach the helper by its name.
    pub(super) fn has_name(&self) {
        if self.complained.replace(false) {
            report(&HelperEvent::Served);
        }
    }
}
