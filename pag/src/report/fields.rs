//! What a message has besides its words. The words are in `messages.rs`, those of the helper in its own `messages.rs`.

use std::fmt;

pub use syslog::Severity;

/// A field of a journal record, beside those that every record has.
pub type Field = (&'static str, String);

/// A kind of message, in words by [`Display`](fmt::Display): one line.
pub trait Message: fmt::Display {
    /// How loudly it is said.
    fn severity(&self) -> Severity;

    /// The journal's MESSAGE_ID of its kind, which has an entry in the catalog.
    fn message_id(&self) -> &'static str;

    /// Whom and what it is about, for whoever looks for messages.
    fn fields(&self) -> Vec<Field>;
}
