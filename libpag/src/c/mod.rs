//! The interface for C, as `include/pag.h` describes it: translates calls, and decides nothing.
#![allow(unsafe_code)]

mod failure;
mod handles;
mod raw;

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::time::UNIX_EPOCH;

use libc::time_t;

use self::failure::{Switch, note, note_switch};
use self::handles::{Refused, Table};
use self::raw::{RawSeed, keeping_errno};
use crate::error::{Code, Error, Result};
use crate::group::Pag;
use crate::process::Process;

const OK: c_int = 0;

static PROCESSES: Table<Process> = Table::new(0x5b);
static PAGS: Table<Pag> = Table::new(0xa5);

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unknown => Error::Invalid("this is no handle of libpag".to_owned()),
            Refused::Ended => Error::Ended,
            Refused::Forked => Error::Forked,
        }
    }
}

/// Makes a call: no panic leaves it, errno stays, and a failure is noted.
fn call(work: impl FnOnce() -> Result<()>) -> c_int {
    keeping_errno(|| match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => OK,
        Ok(Err(error)) => {
            note(&error);
            error.code() as c_int
        }
        Err(payload) => {
            // To drop it may panic again.
            std::mem::forget(payload);
            note(&"internal error in libpag; please report it");
            Code::System as c_int
        }
    })
}

/// Makes a call that moves the calling thread. It allocates nothing. After a failure the thread is in no PAG.
fn switch(switch: Switch, work: impl FnOnce() -> std::result::Result<Result<()>, Refused>) -> c_int {
    keeping_errno(|| {
        let (code, errno, is_out) = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(Ok(()))) => return OK,
            Ok(Ok(Err(error))) => (error.code(), failure::errno(&error), error.code() != Code::Forked),
            Ok(Err(Refused::Forked)) => (Code::Forked, 0, false),
            Ok(Err(Refused::Ended)) => (Code::Ended, 0, leave_all()),
            Ok(Err(Refused::Unknown)) => (Code::Invalid, 0, leave_all()),
            Err(payload) => {
                std::mem::forget(payload);
                (Code::System, 0, leave_all())
            }
        };
        note_switch(switch, code, errno, is_out);
        code as c_int
    })
}

/// Takes the calling thread out of all PAGs: the caller has named none, and the thread may be in one. False if this process
/// is not open: all its PAGs have ended.
fn leave_all() -> bool {
    let mut is_out = false;
    PROCESSES.each(|process| {
        process.leave_all();
        is_out = true;
    });
    is_out
}

fn missing(argument: &str) -> Error {
    Error::Invalid(format!("{argument} is NULL"))
}

fn no_room() -> Error {
    Error::Invalid("the process has four million PAGs".to_owned())
}

/// Makes a call that fills a place of the caller's. The place is emptied first, and stays empty on an error.
///
/// # Safety
/// `place` is NULL or a place for a value.
unsafe fn fill<T>(name: &str, place: *mut T, empty: T, work: impl FnOnce() -> Result<T>) -> c_int {
    call(|| {
        if place.is_null() {
            return Err(missing(name));
        }
        // SAFETY: as this function asks for.
        unsafe { place.write(empty) };
        let value = work()?;
        // SAFETY: as above.
        unsafe { place.write(value) };
        Ok(())
    })
}

/// See pag.h.
///
/// # Safety
/// `process` is NULL or a place for a pointer.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pag_process_open(process: *mut *mut c_void, flags: c_uint) -> c_int {
    let open = || match flags {
        0 => PROCESSES.insert(Process::open()?).ok_or_else(no_room),
        _ => Err(Error::Invalid("flags must be 0".to_owned())),
    };
    // SAFETY: as this function asks for.
    unsafe { fill("process", process, ptr::null_mut(), open) }
}

/// See pag.h.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn pag_process_close(process: *mut c_void) {
    call(|| {
        if process.is_null() {
            return Ok(());
        }
        // All PAGs at once, which is faster than one by one. Another thread may be in the middle of a call with the process.
        PROCESSES.remove(process)?.close();
        PAGS.drain().for_each(drop);
        Ok(())
    });
}

/// See pag.h.
///
/// # Safety
/// `seed` is NULL or a seed as pag.h describes it; `result` is NULL or a place for a pointer.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pag_create(
    process: *mut c_void,
    seed: *const RawSeed,
    result: *mut *mut c_void,
) -> c_int {
    let create = || {
        let found = PROCESSES.get(process)?;
        // SAFETY: as this function asks for.
        let made = found.create(&unsafe { raw::seed(seed) }?);
        // What failed because the process was closed meanwhile has only that reason.
        PROCESSES.with(process, |_| ())?;
        PAGS.insert(made?).ok_or_else(no_room)
    };
    // SAFETY: as this function asks for.
    unsafe { fill("result", result, ptr::null_mut(), create) }
}

/// See pag.h.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn pag_enter(pag: *mut c_void) -> c_int {
    switch(Switch::Enter, || PAGS.with(pag, |pag| pag.switch_without_guards()))
}

/// See pag.h.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn pag_leave(process: *mut c_void) -> c_int {
    switch(Switch::Leave, || PROCESSES.with(process, |process| process.leave_without_guards()))
}

/// See pag.h.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn pag_set_default(process: *mut c_void, pag: *mut c_void) -> c_int {
    call(|| {
        let process = PROCESSES.get(process)?;
        let pag = if pag.is_null() { None } else { Some(PAGS.get(pag)?) };
        process.set_default(pag.as_deref())
    })
}

/// See pag.h.
///
/// # Safety
/// `seed` is NULL or a seed as pag.h describes it.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pag_renew(pag: *mut c_void, seed: *const RawSeed) -> c_int {
    call(|| {
        let pag = PAGS.get(pag)?;
        // SAFETY: as this function asks for.
        pag.renew(&unsafe { raw::seed(seed) }?)
    })
}

/// See pag.h.
///
/// # Safety
/// `when` is NULL or a place for a time.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pag_expires(pag: *mut c_void, when: *mut time_t) -> c_int {
    let expires = || {
        let end = PAGS.get(pag)?.expires();
        let seconds = end.and_then(|end| end.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_secs());
        Ok(time_t::try_from(seconds).unwrap_or(time_t::MAX))
    };
    // SAFETY: as this function asks for.
    unsafe { fill("when", when, 0, expires) }
}

/// See pag.h.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn pag_end(pag: *mut c_void) {
    call(|| {
        if pag.is_null() {
            return Ok(());
        }
        PAGS.remove(pag)?.end()
    });
}

/// See pag.h.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn pag_strerror(code: c_int) -> *const c_char {
    failure::code_words(code).as_ptr()
}

/// See pag.h.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn pag_last_error() -> *const c_char {
    keeping_errno(failure::words)
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    #[allow(clippy::panic, reason = "it is what is tested")]
    fn a_panic_is_a_code() {
        let last = || {
            // SAFETY: words that this thread keeps.
            unsafe { CStr::from_ptr(pag_last_error()) }.to_string_lossy().into_owned()
        };
        assert_eq!(call(|| panic!("a fault")), Code::System as c_int);
        assert!(last().contains("internal error"), "{}", last());
        assert_eq!(switch(Switch::Enter, || panic!("a fault")), Code::System as c_int);
        assert!(last().contains("cannot enter the PAG"), "{}", last());
    }
}
