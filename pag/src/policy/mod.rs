//! Decisions. They are pure functions, so that tests need neither root nor keyrings.

mod fate;
mod follow;
mod keytab;
mod place;
mod renewal;
#[cfg(test)]
mod testing;

pub use self::fate::{Fate, fate};
pub use self::follow::{Session, Sessions, can_be_followed, followed, is_follower};
pub use self::keytab::keytab;
pub use self::place::{
    Candidate, Newcomer, Placement, Refreshed, candidates, may_bring, of_principal, place, refreshed, takes_refreshed,
};
pub use self::renewal::{
    RETRY_SECONDS, is_good, is_later, is_ticket_due, next_attempt, renewal_of_token, worth_seeding,
};
