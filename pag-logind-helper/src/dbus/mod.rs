//! The D-Bus interface `org.pam_pag.Pag1`: org.pam_pag.Pag1(5) says what it promises.
//!
//! It has a connection of its own, so that a flood of calls delays nothing that comes from logind or systemd. It reads
//! messages from zbus's MessageStream and not from zbus's object server: docs/design/dbus.md says which promises the object
//! server can't keep. A call goes through `queue` (limits and turns for each user), `call` (what is asked for), `access`
//! (whether this caller may), and `answer`. Subscribers get `signals` one by one.

mod access;
mod answer;
mod call;
mod describe;
mod interface;
mod origin;
mod polkit;
mod properties;
mod queue;
mod server;
mod service;
mod signals;
mod subscribers;
mod token_list;
mod view;
mod visibility;

pub(crate) use self::interface::Interface;
pub(crate) use self::server::serve;
