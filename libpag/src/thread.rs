//! Which PAG the calling thread is in, and how it gets from one to another.
//!
//! Nothing here allocates, takes a lock or opens a file, so that it can be done in a signal handler.

use std::cell::Cell;

use pag::keyring;

use crate::error::{Error, Result};
use crate::names::{Names, Ring};

/// What a thread has entered.
#[derive(Debug, Clone, Copy)]
struct Here {
    /// The PAG that it has entered; none if it is where threads are that have entered none.
    ring: Option<Ring>,
    /// How many guards are about this thread.
    level: u32,
}

thread_local! {
    static HERE: Cell<Here> = const { Cell::new(Here { ring: None, level: 0 }) };
}

/// The way back from a PAG.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WayBack {
    before: Option<Ring>,
    level: u32,
}

/// Puts the calling thread into `ring`.
///
/// # Errors
/// `Ended`, `System`: the thread is in no PAG.
pub(crate) fn enter(names: &Names, no_pag: Ring, ring: Ring) -> Result<WayBack> {
    let before = HERE.get();
    match go(names, no_pag, ring) {
        Ok(()) => {
            let level = before.level.wrapping_add(1);
            HERE.set(Here { ring: Some(ring), level });
            Ok(WayBack { before: before.ring, level })
        }
        Err(error) => {
            HERE.set(Here { ring: None, ..before });
            Err(error)
        }
    }
}

/// As [`enter`], without a way back.
pub(crate) fn switch(names: &Names, no_pag: Ring, ring: Ring) -> Result<()> {
    let before = HERE.get();
    enter(names, no_pag, ring).map(|_| HERE.set(Here { ring: Some(ring), ..before }))
}

/// Takes the calling thread back to where it was, or to `default` if it had entered nothing before. Does nothing if the
/// thread has left already.
pub(crate) fn go_back(names: &Names, no_pag: Ring, default: Option<Ring>, way: WayBack) {
    if way.level > HERE.get().level {
        return;
    }
    let gone = go(names, no_pag, way.before.or(default).unwrap_or(no_pag));
    HERE.set(Here { ring: way.before.filter(|_| gone.is_ok()), level: way.level.wrapping_sub(1) });
}

/// Takes the calling thread to `default`, or out of all PAGs, whatever it has entered.
///
/// # Errors
/// As [`enter`].
pub(crate) fn leave(names: &Names, no_pag: Ring, default: Option<Ring>) -> Result<()> {
    HERE.set(Here { ring: None, level: 0 });
    go(names, no_pag, default.unwrap_or(no_pag))
}

/// Takes the calling thread out of all PAGs.
pub(crate) fn leave_all(names: &Names, no_pag: Ring) {
    HERE.set(Here { ring: None, ..HERE.get() });
    out(names, no_pag);
}

/// Puts the calling thread into `ring`, and does not note it for guards. Thread-local memory is not touched: where the
/// library came by dlopen(3), the loader allocates it at the first use in each thread.
///
/// # Errors
/// As [`enter`].
pub(crate) fn go(names: &Names, no_pag: Ring, ring: Ring) -> Result<()> {
    let error = match names.enter(ring) {
        Ok(true) => return Ok(()),
        Ok(false) => Error::Ended,
        // The kernel has not found the ring, and cannot make a stray one: the quota is full, or the name has been wiped.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EDQUOT | libc::EINVAL)) => Error::Ended,
        Err(source) => Error::System { doing: "enter a PAG", source },
    };
    out(names, no_pag);
    Err(error)
}

/// Takes the calling thread to the keyring for no PAG. If that is lost, it gets a new one of its own.
pub(crate) fn out(names: &Names, no_pag: Ring) {
    if matches!(names.enter(no_pag), Ok(true)) {
        return;
    }
    let before = keyring::session().ok();
    let is_out = keyring::join(None).is_ok() && keyring::session().is_ok_and(|session| Some(session) != before);
    if !is_out {
        // The thread would go on under the identity of the PAG that it was in.
        std::process::abort();
    }
}
