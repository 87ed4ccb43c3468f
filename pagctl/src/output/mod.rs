//! What pagctl prints: the answers, errors, JSON models and tables of all commands. [`out!`] and [`outln!`] write to
//! standard output, [`errln!`] to standard error.
//!
//! The macros of the standard library panic when the reader has gone (`pagctl list | head -n 1`) or the disk is full.
//! Here a reader that goes away ends the output and not the work; any other error is reported once, at the end.

mod error;
mod model;
#[cfg(test)]
pub(crate) mod schema;
mod table;

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;

use pag::types::without_codes;
use serde::Serialize;

/// Why standard output takes nothing more.
static CLOSED: OnceLock<io::Error> = OnceLock::new();

/// Writes to standard output, as `print!` does.
macro_rules! out {
    ($($text:tt)*) => { $crate::output::write(format_args!($($text)*)) };
}

/// Writes a line to standard output, as `println!` does.
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($text)*))) };
}

/// Writes a line to standard error, as `eprintln!` does. When that fails, there is no place left to report it.
macro_rules! errln {
    ($($text:tt)*) => { $crate::output::write_error(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use error::{Error, NOT_STARTED};
pub(crate) use model::{
    ActionJson, FindingJson, LeaseJson, MakerJson, PagJson, Severity, TokenJson, known_time, known_tty, missing_client,
    of_cell, token_lines, user_name,
};
pub(crate) use table::{line, table, widths};
pub(crate) use {errln, out, outln};

/// See [`out!`].
pub(crate) fn write(text: fmt::Arguments<'_>) {
    if CLOSED.get().is_none() {
        note(io::stdout().write_all(without_codes(&text.to_string()).as_bytes()));
    }
}

/// See [`errln!`].
pub(crate) fn write_error(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(without_codes(&text.to_string()).as_bytes());
}

/// Notes how a write to standard output ended that clap made.
pub(crate) fn note(result: io::Result<()>) {
    if let Err(error) = result {
        // The first error counts.
        let _ = CLOSED.set(error);
    }
}

/// Whether standard output takes nothing more: a command that writes for ever ends then.
pub(crate) fn is_closed() -> bool {
    CLOSED.get().is_some()
}

/// Writes a value to standard output, as JSON over several lines.
pub(crate) fn json(value: &impl Serialize) {
    outln!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Writes a value to standard output, as JSON in one line.
pub(crate) fn json_line(value: &impl Serialize) {
    outln!("{}", serde_json::to_string(value).unwrap_or_default());
}

/// Flushes standard output.
///
/// # Errors
/// When a part of the output could not be written, unless the reader has gone.
pub(crate) fn finish() -> Result<(), &'static io::Error> {
    if !is_closed() {
        note(io::stdout().flush());
    }
    match CLOSED.get() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// How a command ended that could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// There is nothing to do.
    AllRight,
    /// The user has something to do: the exit status is 1.
    ToDo,
    /// Something is broken: the exit status is 2.
    Broken,
}
