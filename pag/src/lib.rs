//! Process authentication groups (PAGs) as session keyrings.
//!
//! A PAG is a session keyring, the *ring*. Root's PAM module puts a process into it when the process is
//! created; `docs/design/` says why. Each module is one noun of the design:
//!
//! * [`store`] makes, joins and verifies rings, and keeps them in the kernel with their records and leases.
//! * [`policy`] decides, without effects.
//! * [`seed`] runs the programs that make tokens; [`afs`] lists and discards tokens.
//! * [`ccache`] is the PAG's Kerberos cache.
//! * [`login`] strings these together for the PAM module.
//! * [`mirror`] keeps a user manager's ring in step with the PAG that it follows or was adopted into.
//! * [`named`] keeps the PAGs of units `pag@NAME.service`.
//! * [`process_ring`] is the ring that a process makes for itself.
//! * [`membership`] is what every process may do by itself.
//! * [`report`] owns every message; [`command_line`] tells what a program answers before its work.
//! * [`sys`] holds the system calls, [`keyring`] the keys, [`guard`] the switching of ids.

pub mod afs;
pub mod ccache;
pub mod command_line;
pub mod config;
pub mod error;
pub mod guard;
pub mod keyring;
mod krb5_conf;
pub mod login;
pub mod membership;
pub mod mirror;
pub mod named;
pub mod nudge;
pub mod policy;
pub mod process_ring;
pub mod report;
pub mod run;
pub mod seed;
pub mod store;
pub mod sys;
pub mod types;

pub use error::{Error, Result};
