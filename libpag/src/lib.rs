//! Several AFS authentication groups (PAGs) in one process.
//!
//! A server opens a [`Process`] once, creates a [`Pag`] for each identity that it serves, and enters that PAG around
//! the work of a request:
//!
//! ```no_run
//! use std::time::Duration;
//! use libpag::{Process, Seed};
//!
//! # fn main() -> libpag::Result<()> {
//! let process = Process::open()?;
//! let alice = process.create(&Seed::ccache("FILE:/run/server/alice").time(Duration::from_secs(5)))?;
//! let page = alice.within(|| std::fs::read("/afs/example.org/user/alice/page"))?;
//! # Ok(())
//! # }
//! ```
//!
//! # The model
//!
//! * A process may hold several PAGs. It needs no right, no helper and no configuration to make one.
//! * On Linux a PAG is a session keyring, the *ring*, and a session keyring belongs to a thread: [`Pag::enter`] moves the
//!   calling thread alone, with one system call that enters and one that looks where the thread is.
//! * Outside of all its PAGs a thread is in the process's default PAG ([`Process::set_default`]), or in *no PAG*: an empty
//!   keyring in which no client finds a token.
//! * A child process inherits the PAG of the thread that made it, for good.
//! * The way into a ring is its name: 128 random bits, which the library shows to no one. The kernel wipes them from
//!   the memory of forked children.
//! * If a thread cannot enter a PAG, it is in no PAG afterwards, never in the PAG where it was before.
//!
//! # Rules
//!
//! The library cannot enforce these:
//!
//! * Close the files of a request before you leave its PAG. OpenAFS takes the identity of each call, kAFS that of the
//!   open.
//! * Start no thread inside a PAG: it would be born there. In async runtimes, enter around blocking work alone, since
//!   a task may go on in another thread.
//! * Look at no path before its identity is entered: on kAFS a first look by another identity can hide a file from its
//!   owner.
//! * Mind the quota for keys of the process's uid (`kernel.keys.maxkeys`, `kernel.keys.maxbytes`).
//! * Another process of the same uid can *end* a PAG, by its serial. It cannot enter one.

mod c;
mod error;
mod group;
mod make;
mod names;
mod process;
mod seed;
mod shared;
mod thread;

pub use error::{Code, Error, Result};
pub use group::{Entered, Pag};
pub use process::Process;
pub use seed::Seed;
