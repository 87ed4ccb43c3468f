//! What `pam-bindings` does not have: the PAM environment, and data without `unsafe`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};

use pam::module::PamHandle;

unsafe extern "C" {
    fn pam_getenv(pamh: *mut PamHandle, name: *const c_char) -> *const c_char;
    fn pam_putenv(pamh: *mut PamHandle, name_value: *const c_char) -> c_int;
    fn pam_getenvlist(pamh: *mut PamHandle) -> *mut *mut c_char;
}

/// A variable of the PAM environment. The process environment is never asked: su's is its caller's. What is no UTF-8 in it
/// is marked by U+FFFD, and not taken for nothing.
pub(crate) fn variable(pamh: &mut PamHandle, name: &CStr) -> Option<String> {
    // SAFETY: a valid handle, and a terminated name.
    let value = unsafe { pam_getenv(pamh, name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: a terminated string of libpam's that lives until the variable is changed.
    let value = unsafe { CStr::from_ptr(value) };
    Some(value.to_string_lossy().into_owned())
}

/// Sets a variable of the PAM environment. It cannot fail but for want of memory, and the login goes on then too.
pub(crate) fn set_variable(pamh: &mut PamHandle, name: &str, value: &str) {
    if let Ok(text) = CString::new(format!("{name}={value}")) {
        // SAFETY: a valid handle, and a terminated string that libpam copies.
        unsafe { pam_putenv(pamh, text.as_ptr()) };
    }
}

/// The whole PAM environment, `NAME=value` each.
pub(crate) fn environment(pamh: &mut PamHandle) -> Vec<CString> {
    // SAFETY: a valid handle.
    let list = unsafe { pam_getenvlist(pamh) };
    let mut variables = Vec::new();
    if list.is_null() {
        return variables;
    }
    let mut place = list;
    loop {
        // SAFETY: `place` walks a null-terminated vector and stops at its end.
        let entry = unsafe { *place };
        if entry.is_null() {
            break;
        }
        // SAFETY: a terminated string of ours to free.
        variables.push(unsafe { CStr::from_ptr(entry) }.to_owned());
        // SAFETY: allocated by libpam with malloc, for its caller to free.
        unsafe { libc::free(entry.cast()) };
        // SAFETY: the entry was not the terminating null, so there is a next one.
        place = unsafe { place.add(1) };
    }
    // SAFETY: as the entries.
    unsafe { libc::free(list.cast()) };
    variables
}

/// The value that this module has stored under `key`; `T` is the one type that it stores there.
pub(crate) fn data<'a, T: 'static>(pamh: &'a PamHandle, key: &str) -> Option<&'a T> {
    // SAFETY: keys of PAM data are private to us by their name, and only `set_data::<T>` is called with this one.
    unsafe { pamh.get_data::<T>(key) }.ok()
}
