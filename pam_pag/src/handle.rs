//! A PAM handle: the items of a transaction, its environment, and the module's own data.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};

use pam::items::{Service, Tty};
use pam::module::PamHandle;

unsafe extern "C" {
    fn pam_getenv(pamh: *mut PamHandle, name: *const c_char) -> *const c_char;
    fn pam_putenv(pamh: *mut PamHandle, name_value: *const c_char) -> c_int;
    fn pam_getenvlist(pamh: *mut PamHandle) -> *mut *mut c_char;
}

/// The handle of a PAM transaction, for one call.
pub(crate) struct Handle<'a>(&'a mut PamHandle);

impl<'a> Handle<'a> {
    pub(crate) fn new(pamh: &'a mut PamHandle) -> Self {
        Handle(pamh)
    }

    /// The PAM service.
    pub(crate) fn service(&self) -> String {
        match self.0.get_item::<Service<'_>>() {
            Ok(Some(service)) => service.to_string_lossy().into_owned(),
            _ => "unknown".to_owned(),
        }
    }

    /// The terminal; empty where the host has named none.
    pub(crate) fn tty(&self) -> String {
        match self.0.get_item::<Tty<'_>>() {
            Ok(Some(tty)) => tty.to_string_lossy().into_owned(),
            _ => String::new(),
        }
    }

    /// The name of the user.
    pub(crate) fn user(&mut self) -> Option<CString> {
        self.0.get_user(None).ok().and_then(|name| CString::new(name).ok())
    }

    /// A variable of the PAM environment. The process environment is never asked: su's is its caller's. Bytes that are not
    /// UTF-8 become U+FFFD, so that such a value does not pass for an unset one.
    pub(crate) fn variable(&mut self, name: &CStr) -> Option<String> {
        // SAFETY: a valid handle, and a terminated name.
        let value = unsafe { pam_getenv(self.0, name.as_ptr()) };
        if value.is_null() {
            return None;
        }
        // SAFETY: a terminated string of libpam's that lives until the variable is changed.
        let value = unsafe { CStr::from_ptr(value) };
        Some(value.to_string_lossy().into_owned())
    }

    /// Sets a variable of the PAM environment. Only want of memory can prevent that, and the login goes on then, too.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        if let Ok(text) = CString::new(format!("{name}={value}")) {
            // SAFETY: a valid handle, and a terminated string that libpam copies.
            unsafe { pam_putenv(self.0, text.as_ptr()) };
        }
    }

    /// The whole PAM environment, `NAME=value` each.
    pub(crate) fn environment(&mut self) -> Vec<CString> {
        // SAFETY: a valid handle.
        let list = unsafe { pam_getenvlist(self.0) };
        let mut variables = Vec::new();
        if list.is_null() {
            return variables;
        }
        let mut next = list;
        loop {
            // SAFETY: `next` walks a null-terminated vector and stops at its end.
            let entry = unsafe { *next };
            if entry.is_null() {
                break;
            }
            // SAFETY: a terminated string of ours to free.
            variables.push(unsafe { CStr::from_ptr(entry) }.to_owned());
            // SAFETY: allocated by libpam with malloc, for its caller to free.
            unsafe { libc::free(entry.cast()) };
            // SAFETY: the entry was not the terminating null, so there is a next one.
            next = unsafe { next.add(1) };
        }
        // SAFETY: as the entries.
        unsafe { libc::free(list.cast()) };
        variables
    }

    /// The value that this module has stored under `key`; `T` is the one type that it stores there.
    pub(crate) fn data<T: 'static>(&self, key: &str) -> Option<&T> {
        // SAFETY: keys of PAM data are private to us by their name, and only `set_data::<T>` is called with this one.
        unsafe { self.0.get_data::<T>(key) }.ok()
    }

    /// Stores a value under `key` for as long as the handle lives.
    pub(crate) fn set_data<T: 'static>(&mut self, key: &str, value: T) {
        let _ = self.0.set_data(key, Box::new(value));
    }
}
