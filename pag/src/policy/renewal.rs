//! When tokens and tickets are renewed, when a seeder is worth its time, and when a token is good.
//!
//! All times are in seconds since the epoch.

use crate::store::record::LastSeeding;
use crate::types::PagId;

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

/// When a job is due that renews a token which is there since `since` and ends at `end`: between half and two thirds of
/// its life, at another time for each PAG. It finds a ticket that [`is_ticket_due`].
pub fn renewal_of_token(pag: PagId, since: u64, end: u64) -> u64 {
    let life = end.saturating_sub(since);
    let spread = (life / 6).saturating_mul(pag.place()) / 1000;
    since.saturating_add(life / 2).saturating_add(spread)
}

/// Shortest and longest pause after an attempt that has brought nothing, in seconds.
const PAUSES: (u64, u64) = (5, 600);

/// When the next attempt is due after one at `at`: the nearer the end of the tokens, the sooner. After the end, pauses
/// get longer.
pub fn next_attempt(at: u64, end: u64) -> u64 {
    let (shortest, longest) = PAUSES;
    at.saturating_add(if at < end { (end - at) / 4 } else { (at - end) / 2 }.clamp(shortest, longest))
}

/// Whether a ticket that ends at `ticket` brings tokens that end later than those that are there since `since` and end at
/// `end`. Some clients take a second off: a ticket that ends a little later only is the one that the tokens were made
/// of.
pub fn is_later(ticket: u64, since: u64, end: u64) -> bool {
    ticket > end.saturating_add(2 + end.saturating_sub(since) / 16)
}

/// Whether a job renews a ticket that is valid since `starts`, ends at `end` and can be renewed until `until`: it does if
/// the ticket has two fifths of its life behind it. The helper starts a job for that later ([`renewal_of_token`]). A job
/// that runs earlier, for another reason, needs no new ticket.
pub fn is_ticket_due(starts: u64, end: u64, until: u64, now: u64) -> bool {
    until > end && now < end && now.saturating_sub(starts) >= end.saturating_sub(starts) / 5 * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_for_a_token_finds_a_ticket_that_is_due() {
        for number in [0, 1, 999, 1000] {
            let due = renewal_of_token(PagId::from(number), 1000, 1600);
            assert!((1300..=1400).contains(&due), "between half and two thirds of the life: {due}");
            assert!(is_ticket_due(1000, 1600, 9000, due));
        }
        assert!(!is_ticket_due(1000, 1600, 9000, 1239) && is_ticket_due(1000, 1600, 9000, 1240));
        assert!(!is_ticket_due(1000, 1600, 1600, 1500), "it cannot be renewed");
        assert!(!is_ticket_due(1000, 1600, 9000, 1600), "it has ended");
    }

    #[test]
    fn attempts_come_closer_together_until_the_end() {
        assert_eq!(next_attempt(6000, 10_000), 6600);
        assert_eq!(next_attempt(9900, 10_000), 9925);
        assert_eq!(next_attempt(9999, 10_000), 10_004);
        assert_eq!([next_attempt(10_000, 10_000), next_attempt(10_100, 10_000)], [10_005, 10_150]);
    }

    #[test]
    fn a_ticket_that_is_a_second_later_is_the_same() {
        assert!(!is_later(1602, 1000, 1600) && !is_later(1639, 1000, 1600) && is_later(1640, 1000, 1600));
    }

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
