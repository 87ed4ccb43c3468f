//! logind and systemd on the system bus: what logind says of users and sessions, and jobs that systemd starts.
//!
//! All of it is a help and no more: the pidfds of leases and the module's nudges tell the same. So the bus may be missing,
//! go away and come back. What comes from it is never trusted further than "look at this uid again".

mod bus;
mod client;
mod connection;
mod proxies;

pub(crate) use self::bus::{Bus, JobUnit, ManagerState, News, RunId};
pub(crate) use self::connection::{LONGEST_PAUSE, PAUSE, run};
