//! When a seeder is worth its time, and when a token is good.

use crate::store::record::LastSeeding;

/// Seconds for which a failed seeding is not repeated.
pub const RETRY_SECONDS: u64 = 30;

/// Whether a seeder is worth its time. `last` is the PAG's last seeding, and `ticket` the end of the ticket at hand, 0
/// without one. A `manager` is started by a login that has just run a seeder, so it does not run one again, even after
/// a success. Times are in seconds since the epoch.
pub fn worth_seeding(last: Option<LastSeeding>, now: u64, ticket: u64, manager: bool) -> bool {
    last.is_none_or(|last| {
        // A seeding in the future was noted by a wrong clock.
        let recent = last.at <= now.saturating_add(1) && now.saturating_sub(last.at) < RETRY_SECONDS;
        ticket > last.ticket || !recent || (last.ok && !manager)
    })
}

/// Whether a token is good: it has more than 10 minutes left, or more than a quarter of its `life`. `expires` and `now`
/// are in seconds since the epoch, `life` is in seconds.
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
