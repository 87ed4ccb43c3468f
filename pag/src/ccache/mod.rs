//! Kerberos ccaches: the PAG's own, and what is read of a login's.
//!
//! The PAG's own ccache is a DIR below `/run/pag/ccache` that belongs to the user, keeps its name for the PAG's life, and
//! outlives the login that brought the ticket (pam_krb5 deletes a session's `FILE:` at its logout).
//!
//! A child that has become the user opens a user's ccache, never root: its name comes from the user's side, and its file
//! system may not answer.

mod contents;
mod default;
pub mod format;
pub mod kcm;
pub mod keyring;
mod name;
mod own;
mod pieces;
mod read;

pub use self::contents::{Contents, Unread};
pub use self::default::DefaultName;
pub use self::name::{CcacheName, check_name};
pub use self::own::{
    directory, empty, ended, feed, make, name, of_user, open_directory, put, remove, remove_few, stamp, unmount, users,
};
pub use self::read::{read, read_all};
