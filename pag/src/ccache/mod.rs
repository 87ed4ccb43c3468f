//! Kerberos ccaches: the PAG's own, and those of logins.
//!
//! The PAG's own ccache is a DIR below `/run/pag/ccache` that belongs to the user. It keeps its name as long as the PAG
//! lives. It stays after the login that brought the ticket, while pam_krb5 deletes a session's `FILE:` at its logout.
//!
//! Root never opens a user's ccache, since its name comes from the user, and its file system may not answer. A child
//! that has become the user opens it.

mod contents;
mod default;
pub mod format;
pub mod kcm;
pub mod keyring;
mod name;
mod own;
mod pieces;
mod read;
mod reason;

pub use self::contents::{Contents, Unread};
pub use self::default::DefaultName;
pub use self::name::{CcacheName, check_name};
pub use self::own::{
    begun, directory, empty, ended, feed, finish, make, name, of_user, open_directory, put, remove, remove_few, stamp,
    unmount, users,
};
pub use self::read::{read, read_all};
pub use self::reason::{leave_reason, take_reason};
