//! What is left to do to the PAG's own ccache.

/// What is to be done to the PAG's ccache. A child does it as the user, who decides how long that takes (a file system of
/// their own, mounted over the ccache): so it is done when the uid's lock is released, and never under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CcacheWork {
    /// Nothing.
    None,
    /// The ticket of this login goes there, unless a later one is there.
    Feed,
    /// The ticket of this login goes there, whatever is there.
    Replace,
    /// What is there is another identity's, and goes.
    Empty,
}
