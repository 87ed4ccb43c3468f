//! A process enters a PAG, leaves it, or has its credentials refreshed: what the PAM module does, without PAM.
//!
//! Whatever changes the registry runs under a [`Guard`](crate::guard::Guard) and as a
//! [`LockedUser`](crate::store::locked::LockedUser); a seeder runs under neither.

mod attempt;
mod ccache_work;
mod enter;
mod join;
mod leave;
mod linger;
mod own_ccache;
mod place;
mod placed;
mod refresh;
mod state;
mod tokens;
mod upkeep;

pub use self::enter::{enter, keep_out};
pub use self::leave::{give_up, leave, leave_by_another_handle, step_out};
pub use self::linger::is_lingering;
pub use self::refresh::refresh;
pub use self::state::{Entered, LoginState, Request};
pub use self::upkeep::{apply_fate, of_newer_release, reap};
