//! The words of the option `identity`.

use crate::types::Principal;

/// What stands for an account's name, without its domain, in the option `identity`.
pub(super) const NAME: &str = "%u";

/// The principal that `identity` means for the person of this name.
pub(super) fn spelled_out(identity: &str, bare: &str) -> Option<Principal> {
    let escape = |c| matches!(c, '/' | '@' | '\\').then_some('\\').into_iter().chain([c]);
    let bare: String = bare.chars().flat_map(escape).collect();
    Principal::parse(&identity.replace(NAME, &bare)).ok()
}

/// Whether a word can stand in the option `identity`: a principal, in which [`NAME`] may stand for a name.
pub(super) fn is_identity(word: &str) -> bool {
    spelled_out(word, "alice").is_some()
}
