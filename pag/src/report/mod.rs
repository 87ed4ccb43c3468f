//! Every message that this project writes: what it says, how loudly, and with which fields.
//!
//! [`report`] sends one datagram to the journal's native socket where that exists, else to syslog, and never waits.

mod date;
mod fields;
mod messages;
mod send;
mod user;

pub use self::date::{Until, in_words, local_moment, local_until};
pub use self::fields::{Field, Message, Severity};
pub use self::messages::Event;
pub use self::send::{report, set_debug, speak_as, speak_for};
pub use self::user::{FindName, NO_UID, User, name_users_by};
