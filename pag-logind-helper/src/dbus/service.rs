//! One connection to the bus and what is done on it. Access is checked in `access`, requests are carried out in `answer`,
//! and subscribers are told in `signals`.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use pag::types::PagId;
use zbus::fdo::DBusProxy;
use zbus::{Connection, ObjectPath};
use zruntime::SharedRuntime;
use zruntime::lock::Mutex;

use super::call::{Call, Refusal};
use super::describe::path_of;
use super::interface::Interface;
use super::queue::CallQueue;
use super::token_list::RingTokens;
use super::view::View;

/// Longest wait for the bus and for logind.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// One connection and what is done on it.
pub(super) struct Service<'a> {
    pub(super) interface: &'a Interface,
    pub(super) runtime: &'a SharedRuntime,
    pub(super) connection: Connection,
    pub(super) dbus: DBusProxy<'static>,
    pub(super) queue: RefCell<CallQueue<Call>>,
    pub(super) ring_tokens: RingTokens<'a>,
    /// Held while rings are read.
    pub(super) reading: Mutex<()>,
    /// Whether the bus tells which connections leave.
    pub(super) watches_names: Mutex<bool>,
    /// Questions to polkit so far.
    pub(super) questions: Cell<u64>,
}

/// The caller, as the bus knows it.
pub(super) struct Caller<'a> {
    pub(super) uid: u32,
    pub(super) name: &'a str,
    pub(super) interactive: bool,
}

impl Service<'_> {
    /// What callers may see.
    pub(super) fn view(&self) -> &RefCell<View> {
        &self.interface.view
    }
}

/// The object of a PAG.
pub(super) fn object(id: PagId) -> Result<ObjectPath<'static>, Refusal> {
    ObjectPath::try_from(path_of(id)).map_err(|error| Refusal::failed(error.to_string()))
}
