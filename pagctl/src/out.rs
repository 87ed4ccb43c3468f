//! What pagctl writes: [`out!`] and [`outln!`] to standard output, [`errln!`] to standard error.
//!
//! The macros of the standard library panic where nobody reads any more (`pagctl list | head -n 1`) or the disk is full.
//! Here a reader that goes away ends the output and not the work, and any other error is said once, at the end.

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;

/// Why standard output takes nothing more.
static CLOSED: OnceLock<io::Error> = OnceLock::new();

/// Writes to standard output, as `print!` does.
macro_rules! out {
    ($($text:tt)*) => { $crate::out::write(format_args!($($text)*)) };
}

/// Writes a line to standard output, as `println!` does.
macro_rules! outln {
    ($($text:tt)*) => { $crate::out::write(format_args!("{}\n", format_args!($($text)*))) };
}

/// Writes a line to standard error, as `eprintln!` does. Where that cannot be written nobody can be told.
macro_rules! errln {
    ($($text:tt)*) => { $crate::out::write_error(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {errln, out, outln};

/// See [`out!`].
pub(crate) fn write(text: fmt::Arguments<'_>) {
    if CLOSED.get().is_none() {
        note(io::stdout().write_fmt(text));
    }
}

/// See [`errln!`].
pub(crate) fn write_error(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_fmt(text);
}

/// Notes how a write to standard output ended that went by another way.
pub(crate) fn note(result: io::Result<()>) {
    if let Err(error) = result {
        // The first one counts.
        let _ = CLOSED.set(error);
    }
}

/// Whether standard output takes nothing more: what would go on writing for ever ends then.
pub(crate) fn is_closed() -> bool {
    CLOSED.get().is_some()
}

/// Writes what is still to be written.
///
/// # Errors
/// When not all could be written, for another reason than that the reader has gone.
pub(crate) fn finish() -> Result<(), &'static io::Error> {
    if !is_closed() {
        note(io::stdout().flush());
    }
    match CLOSED.get() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
