//! What must hold, told as stories of users.

pub mod tier1;
pub mod tier2;
pub mod tier3;
