//! The principals of the option `identity`.

use crate::types::Principal;

/// Stands for an account's name, without its domain, in the option `identity`.
pub(super) const NAME: &str = "%u";

/// The principal that `identity` stands for, for the account with this name without its domain.
pub(super) fn spelled_out(identity: &str, bare: &str) -> Option<Principal> {
    let escape = |c| matches!(c, '/' | '@' | '\\').then_some('\\').into_iter().chain([c]);
    let bare: String = bare.chars().flat_map(escape).collect();
    Principal::parse(&identity.replace(NAME, &bare)).ok()
}

/// Whether the option `identity` takes this word: a principal, which may contain [`NAME`].
pub(super) fn is_identity(word: &str) -> bool {
    spelled_out(word, "alice").is_some()
}
