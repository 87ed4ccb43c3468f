//! The work that remains on a PAG's own ccache.

/// The work that a login still has to do on the PAG's ccache. A child does it as the user, and the user can make it
/// slow, by mounting a file system of their own over the ccache. The login therefore releases the uid's lock first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CcacheWork {
    /// Nothing.
    None,
    /// Write the ticket of this login, unless the ccache has a later one.
    Feed,
    /// Write the ticket of this login over any other.
    Replace,
    /// Remove the tickets, since they are another identity's.
    Empty,
}
