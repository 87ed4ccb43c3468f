//! The fate of a PAG and of its tokens when a lease ends.

use crate::store::record::Record;
use crate::types::Retain;

/// The fate of a PAG when a lease has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The PAG goes on.
    Keep,
    /// The PAG goes on without its tokens, since only a user manager that stays is left in it.
    DropTokens,
    /// The PAG ends.
    End {
        /// Whether the tokens are discarded first. Else they stay with the members that live on.
        discard: bool,
    },
}

/// Decides the fate of a PAG. `record` has no more leases of ended processes.
///
/// A user manager that is about to stop keeps the tokens, since its services may still write to an AFS home. A manager that
/// stays loses them. `stays` says whether it does: the user lingers, has logins in other PAGs, or the manager has had time
/// enough to stop. It is called only if it decides, since it has to look up the user's name.
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
    fn the_leases_that_are_left_decide_the_fate() {
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
