//! The work that remains on a PAG's own ccache.

use crate::ccache::Contents;

/// The work that a login still has to do on the PAG's ccache. A child does it as the user, and the user can make it
/// slow, by mounting a file system of their own over the ccache. The login therefore releases the uid's lock first.
#[derive(Debug, Clone, Copy)]
pub(super) enum CcacheWork<'a> {
    /// Nothing.
    None,
    /// Write the ticket of this login, unless the ccache has a later one.
    Feed(&'a Contents),
    /// Write the ticket of this login over any other.
    Replace(&'a Contents),
    /// Remove the tickets, since they are another identity's.
    Empty,
}
