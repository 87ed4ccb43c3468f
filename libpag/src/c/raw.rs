//! What is read through the pointers of a C program, and errno.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint};
use std::mem::{MaybeUninit, offset_of};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::seed::Seed;

/// `struct pag_seed` of pag.h.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawSeed {
    size: usize,
    ccache: *const c_char,
    keytab: *const c_char,
    principal: *const c_char,
    cells: *const *const c_char,
    timeout_ms: c_uint,
}

/// The size of the struct's first version: no caller has a smaller one.
const FIRST_SIZE: usize = offset_of!(RawSeed, timeout_ms) + size_of::<c_uint>();

/// A larger size is a mistake, and so are more cells.
const MOST_SIZE: usize = 4096;
const MOST_CELLS: usize = 64;

/// Reads a seed. NULL is a seed without tokens.
///
/// # Safety
/// `seed` is NULL, or a `struct pag_seed` of the size that stands in it, with strings and a list that are terminated.
pub(super) unsafe fn seed(seed: *const RawSeed) -> Result<Seed> {
    if seed.is_null() {
        return Ok(Seed::nothing());
    }
    // SAFETY: as this function asks for: the size stands first.
    let size = unsafe { seed.cast::<usize>().read() };
    if !(FIRST_SIZE..=MOST_SIZE).contains(&size) {
        return Err(invalid("seed.size is wrong; begin with PAG_SEED_INIT"));
    }
    // A newer caller has fields that are not known here. They must say nothing.
    let known = size_of::<RawSeed>();
    let is_zero = |offset: usize| {
        // SAFETY: within the size that the caller names.
        unsafe { seed.cast::<u8>().add(offset).read() == 0 }
    };
    if !(known..size).all(is_zero) {
        return Err(invalid("seed has a field that this version of libpag does not know"));
    }
    let mut copy = MaybeUninit::<RawSeed>::zeroed();
    // SAFETY: both are at least that long, and do not overlap.
    unsafe { seed.cast::<u8>().copy_to_nonoverlapping(copy.as_mut_ptr().cast(), size.min(known)) };
    // SAFETY: of numbers and pointers; zero is one of their values.
    let raw = unsafe { copy.assume_init() };
    // SAFETY: as this function asks for.
    let (ccache, keytab, principal) = unsafe { (text(raw.ccache), text(raw.keytab), text(raw.principal)) };
    let made = match (ccache, keytab, principal) {
        (None, None, None) => Seed::nothing(),
        (Some(ccache), None, None) => Seed::ccache(OsStr::from_bytes(ccache.to_bytes())),
        (None, Some(keytab), Some(principal)) => {
            Seed::keytab(Path::new(OsStr::from_bytes(keytab.to_bytes())), words(principal, "seed.principal")?)
        }
        (Some(_), Some(_), _) => return Err(invalid("seed has a ccache and a keytab; give one of them")),
        (_, Some(_), None) => return Err(invalid("seed.keytab needs seed.principal")),
        (_, None, Some(_)) => return Err(invalid("seed.principal needs seed.keytab")),
    };
    // SAFETY: as this function asks for.
    let made = unsafe { cells(raw.cells) }?.map_or(made.clone(), |cells| made.cells(cells));
    Ok(match raw.timeout_ms {
        0 => made,
        time => made.time(Duration::from_millis(time.into())),
    })
}

fn invalid(what: &str) -> Error {
    Error::Invalid(what.to_owned())
}

/// # Safety
/// `text` is NULL, or terminated, and lives as long as the result.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: as this function asks for.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

fn words(text: &CStr, name: &str) -> Result<String> {
    text.to_str().map(str::to_owned).map_err(|_| invalid(&format!("{name} is not UTF-8")))
}

/// # Safety
/// `list` is NULL, or a list with a NULL at its end, of terminated strings.
unsafe fn cells(list: *const *const c_char) -> Result<Option<Vec<String>>> {
    if list.is_null() {
        return Ok(None);
    }
    let mut cells = Vec::new();
    // SAFETY: the list goes on until NULL.
    while let Some(cell) = unsafe { text(list.add(cells.len()).read()) } {
        if cells.len() == MOST_CELLS {
            return Err(invalid("seed.cells has more than 64 names, or no NULL at its end"));
        }
        cells.push(words(cell, "a name in seed.cells")?);
    }
    if cells.is_empty() {
        return Err(invalid("seed.cells is empty; NULL stands for the usual cells"));
    }
    Ok(Some(cells))
}

/// The kernel's id of this thread.
pub(super) fn thread_id() -> u32 {
    // SAFETY: no arguments; it cannot fail.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// Does `work`, and leaves errno as it was.
pub(super) fn keeping_errno<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: this thread's errno.
    let place: *mut c_int = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { place.read() };
    let result = work();
    // SAFETY: as above.
    unsafe { place.write(before) };
    result
}

#[cfg(test)]
mod tests {
    use std::ptr::null;

    use super::*;

    fn raw() -> RawSeed {
        let (ccache, keytab, principal, cells) = (null(), null(), null(), null());
        RawSeed { size: size_of::<RawSeed>(), ccache, keytab, principal, cells, timeout_ms: 0 }
    }

    fn read(raw: &RawSeed) -> Result<Seed> {
        // SAFETY: the tests' seeds are what they say.
        unsafe { seed(raw) }
    }

    #[test]
    fn a_seed_is_read_or_refused_with_the_field_that_is_wrong() {
        let (a, b) = (c"FILE:/run/a".as_ptr(), c"/etc/b.keytab".as_ptr());
        let p = c"p@EXAMPLE.TEST".as_ptr();
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { seed(null()) }.unwrap(), Seed::nothing());
        assert_eq!(read(&raw()).unwrap(), Seed::nothing());
        assert_eq!(read(&RawSeed { ccache: a, ..raw() }).unwrap(), Seed::ccache("FILE:/run/a"));
        let keytab = Seed::keytab("/etc/b.keytab", "p@EXAMPLE.TEST");
        assert_eq!(read(&RawSeed { keytab: b, principal: p, ..raw() }).unwrap(), keytab);
        let list = [c"example.test".as_ptr(), c"example.org".as_ptr(), null()];
        let long = vec![c"example.test".as_ptr(); MOST_CELLS + 1];
        let full = RawSeed { ccache: a, cells: list.as_ptr(), timeout_ms: 1500, ..raw() };
        let wanted =
            Seed::ccache("FILE:/run/a").cells(["example.test", "example.org"]).time(Duration::from_millis(1500));
        assert_eq!(read(&full).unwrap(), wanted);
        for (wrong, word) in [
            (RawSeed { size: 0, ..raw() }, "size"),
            (RawSeed { size: FIRST_SIZE - 1, ..raw() }, "size"),
            (RawSeed { size: MOST_SIZE + 1, ..raw() }, "size"),
            (RawSeed { ccache: a, keytab: b, ..raw() }, "one of them"),
            (RawSeed { keytab: b, ..raw() }, "seed.principal"),
            (RawSeed { principal: p, ..raw() }, "seed.keytab"),
            (RawSeed { keytab: b, principal: c"\xff".as_ptr(), ..raw() }, "seed.principal is not UTF-8"),
            (RawSeed { cells: [null()].as_ptr(), ..raw() }, "empty"),
            (RawSeed { cells: long.as_ptr(), ..raw() }, "64"),
        ] {
            let error = read(&wrong).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn fields_of_a_later_version_are_refused_unless_they_are_zero() {
        #[repr(C)]
        struct Later(RawSeed, usize);
        let mut later = Later(RawSeed { size: size_of::<Later>(), ..raw() }, 0);
        assert_eq!(read(&later.0).unwrap(), Seed::nothing());
        later.1 = 1;
        assert!(read(&later.0).unwrap_err().to_string().contains("does not know"));
        assert_eq!(read(&RawSeed { size: FIRST_SIZE, ..raw() }).unwrap(), Seed::nothing());
    }
}
