//! The ring that a process makes for itself, without any right, and enters by its name.
//!
//! A login's ring ([`Ring`](crate::store::ring::Ring)) is entered by root alone. The ring of a process is entered by the
//! threads that know its name, so the name is a secret: 128 random bits that no process outside can see. Behind these bits
//! the name says which process made it.

mod end;
mod make;
mod name;
mod ring;

pub use self::end::{end, undo};
pub use self::make::{Failed, Kind, Making, Step};
pub use self::name::{Maker, Name};
pub use self::ring::ProcessRing;
