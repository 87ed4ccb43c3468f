//! What becomes of a PAG and of its tokens when a lease ends.

use crate::store::record::Record;
use crate::types::Retain;

/// What becomes of a PAG after leases have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Keep,
    /// It goes on without its tokens: only a manager that stays is left.
    DropTokens,
    /// Its holder is unlinked.
    End {
        /// Whether the tokens are discarded first, or left to the members that stay.
        discard: bool,
    },
}

/// Decides what becomes of a PAG whose record, dead leases taken out, is `record`.
///
/// A manager that is about to stop keeps the tokens: its services may still write to an AFS home meanwhile. One that
/// `stays`, since the user lingers, has logins in other PAGs, or was given time enough to stop, does not. Whether it does is
/// asked only where that decides, since the answer takes the user's name.
pub fn fate(record: &Record, stays: impl FnOnce() -> bool) -> Fate {
    if record.leases.is_empty() {
        return Fate::End { discard: record.retain != Retain::Processes && !record.unsure };
    }
    if record.has_login() || record.unsure || record.retain != Retain::None || !stays() {
        return Fate::Keep;
    }
    Fate::DropTokens
}

#[cfg(test)]
mod tests {
    use super::super::testing::record;
    use super::*;
    use crate::store::lease::LeaseKind;
    use crate::store::record::PagKind;

    #[test]
    fn what_is_left_decides_about_the_tokens() {
        let with =
            |roles: &[LeaseKind], retain, unsure| Record { retain, unsure, ..record(PagKind::User, 1, None, roles) };
        let table = [
            (with(&[LeaseKind::Login, LeaseKind::Manager], Retain::None, false), false, Fate::Keep),
            (with(&[LeaseKind::Manager], Retain::None, false), false, Fate::Keep),
            (with(&[LeaseKind::Manager], Retain::None, false), true, Fate::DropTokens),
            (with(&[LeaseKind::Manager], Retain::Linger, false), true, Fate::Keep),
            (with(&[LeaseKind::Manager], Retain::Processes, false), true, Fate::Keep),
            (with(&[LeaseKind::Manager], Retain::None, true), true, Fate::Keep),
            (with(&[], Retain::None, false), false, Fate::End { discard: true }),
            (with(&[], Retain::Linger, false), false, Fate::End { discard: true }),
            (with(&[], Retain::Processes, false), false, Fate::End { discard: false }),
            (with(&[], Retain::None, true), false, Fate::End { discard: false }),
        ];
        for (record, lingering, expected) in table {
            assert_eq!(fate(&record, || lingering), expected, "{record:?} lingering {lingering}");
        }
    }
}
