//! Seeding: pam_pag or the helper runs a program that makes tokens from a ticket. It runs in the ring, as the user, and
//! within a bounded time.

mod budget;
mod excluded;
mod job;
mod need;
mod outcome;
mod run;
#[cfg(test)]
mod tests;
mod wanted;

pub use self::budget::Budget;
pub use self::excluded::{EXCLUDED_ENV, Excluded, IDENTITY_ENV, not_of_pag};
pub use self::job::{Job, Outcome};
pub use self::need::{Need, need};
pub use self::outcome::{Alias, Brought, held};
pub use self::run::{Judged, Seeding, note_seeding, run_and_judge, run_seeder};
pub use self::wanted::{Wanted, are_good, cells};
