//! Seeding jobs: when tokens are due, and which job runs next.

pub(crate) mod plan;
pub(crate) mod queue;
