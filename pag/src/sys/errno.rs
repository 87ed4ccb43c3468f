//! Results of system calls.

use std::ffi::c_long;
use std::io;

/// Turns a result of -1 into the error that `errno` names.
pub(super) fn cerr(result: c_long) -> io::Result<c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
