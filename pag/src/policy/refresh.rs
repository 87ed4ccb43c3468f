//! When tokens are worth a seeder.

use crate::store::record::LastSeeding;

/// Seconds for which a failed attempt at seeding is not repeated.
pub const RETRY_SECONDS: u64 = 30;

/// Whether an attempt at seeding is worth its time. `fresh` is the end time of the ticket at hand, 0 without one.
/// A manager is started by a login that has just tried: whatever came of that, it does not try again at once.
pub fn worth_seeding(last: Option<LastSeeding>, now: u64, fresh: u64, manager: bool) -> bool {
    last.is_none_or(|last| {
        // One in the future is of a clock that was wrong.
        let recent = last.at <= now.saturating_add(1) && now.saturating_sub(last.at) < RETRY_SECONDS;
        fresh > last.ticket || !recent || (last.ok && !manager)
    })
}

/// Whether a token with this end time, first seen with `life` seconds in all, is good: it has more than 10 minutes or
/// a quarter of its life left, whichever is less.
pub fn is_good(expires: u64, life: u64, now: u64) -> bool {
    expires.saturating_sub(now) > (life / 4).min(600)
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_failure_is_not_repeated_for_thirty_seconds_unless_the_ticket_is_better() {
        let failed = Some(LastSeeding { at: 1000, ok: false, ticket: 5000 });
        assert!(worth_seeding(None, 1000, 0, false));
        assert!(!worth_seeding(failed, 1029, 5000, false));
        assert!(worth_seeding(failed, 1030, 5000, false));
        assert!(worth_seeding(failed, 1001, 5001, false));
        let ok = Some(LastSeeding { at: 1000, ok: true, ticket: 5000 });
        assert!(worth_seeding(ok, 1001, 5000, false));
        assert!(!worth_seeding(ok, 1001, 5000, true));
    }

    #[test]
    fn good_tokens_have_ten_minutes_or_a_quarter_of_their_life_left() {
        assert!(is_good(10_000 + 601, 36_000, 10_000));
        assert!(!is_good(10_000 + 600, 36_000, 10_000));
        assert!(is_good(10_000 + 31, 120, 10_000));
        assert!(!is_good(10_000 + 30, 120, 10_000));
        assert!(!is_good(5, 0, 10_000));
    }
}
