//! Process authentication groups (PAGs) as session keyrings.
//!
//! A PAG is a session keyring, the *ring*, that root can hand out when a process is created; `docs/design/` says
//! why. One module per noun of that page: [`ring`] makes, joins and verifies rings, [`registry`] keeps them in the
//! kernel with their [`record`]s and [`lease`]s, [`policy`] decides without effects, [`seed`] and [`client`] bring
//! tokens in, [`ccache`] is the PAG's Kerberos cache, [`keytab`] where its ticket comes from when nobody is there, and
//! [`login`] strings these together for the PAM module. [`membership`] is what every process may do by itself.
//! [`report`] owns every message. System calls stand in [`sys`], keys in [`keyring`], switching of ids in [`guard`].

pub mod afs;
pub mod ccache;
pub mod config;
pub mod error;
pub mod guard;
pub mod keyring;
pub mod login;
pub mod membership;
pub mod mirror;
pub mod nudge;
pub mod policy;
pub mod report;
pub mod run;
pub mod seed;
pub mod store;
pub mod sys;
pub mod types;

pub use error::{Error, Result};
