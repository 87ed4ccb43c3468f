//! What the PAM module does, apart from PAM itself: a process enters a PAG, leaves it, or has its credentials
//! refreshed.
//!
//! Every change of the registry needs a [`Guard`](crate::guard::Guard) and a
//! [`LockedUser`](crate::store::locked::LockedUser). A seeder runs without them.

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
pub use self::state::{Entered, LoginState, Request, UserName};
pub use self::upkeep::{apply_fate, of_newer_release, out_of_sight, reap};
