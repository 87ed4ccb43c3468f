//! Gets a ticket for a service that is as large as one with a large PAC: `pag-bigticket SERVICE BYTES`, into the
//! default ccache. The KDC puts the client's authorization data into the ticket (MIT, src/kdc/kdc_authdata.c,
//! handle_request_authdata). libkrb5 is loaded at run time, since the machine that builds the tests may not have it.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "a test's tool that talks C")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test, to panic is to fail")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::{mem, ptr};

/// `krb5_authdata` (krb5.h).
#[repr(C)]
struct AuthData {
    magic: c_int,
    kind: c_int,
    length: c_uint,
    contents: *const u8,
}

/// `krb5_data`.
#[repr(C)]
struct Data {
    magic: c_int,
    length: c_uint,
    data: *const c_char,
}

/// `krb5_creds`.
#[repr(C)]
struct Creds {
    magic: c_int,
    client: *mut c_void,
    server: *mut c_void,
    key: (c_int, c_int, c_uint, *const u8),
    times: [c_int; 4],
    is_skey: c_uint,
    flags: c_int,
    addresses: *mut c_void,
    ticket: Data,
    second_ticket: Data,
    authdata: *const *const AuthData,
}

struct Library(*mut c_void);

impl Library {
    /// A function of the library, as the type that it is used as.
    fn get<F: Copy>(&self, name: &CStr) -> F {
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!found.is_null(), "libkrb5 has no {name:?}");
        assert_eq!(mem::size_of::<F>(), mem::size_of::<*mut c_void>());
        unsafe { mem::transmute_copy(&found) }
    }
}

type Context = *mut c_void;
type Handle = *mut c_void;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [service, size] = &arguments[..] else { panic!("pag-bigticket SERVICE BYTES") };
    let library = Library(unsafe { libc::dlopen(c"libkrb5.so.3".as_ptr(), libc::RTLD_NOW) });
    assert!(!library.0.is_null(), "no libkrb5");
    let init: unsafe extern "C" fn(*mut Context) -> c_int = library.get(c"krb5_init_context");
    let default: unsafe extern "C" fn(Context, *mut Handle) -> c_int = library.get(c"krb5_cc_default");
    let owner: unsafe extern "C" fn(Context, Handle, *mut Handle) -> c_int = library.get(c"krb5_cc_get_principal");
    let parse: unsafe extern "C" fn(Context, *const c_char, *mut Handle) -> c_int = library.get(c"krb5_parse_name");
    let get: unsafe extern "C" fn(Context, c_int, Handle, *mut Creds, *mut *mut Creds) -> c_int =
        library.get(c"krb5_get_credentials");
    let (mut context, mut cache) = (ptr::null_mut(), ptr::null_mut());
    assert_eq!(unsafe { init(&raw mut context) }, 0);
    assert_eq!(unsafe { default(context, &raw mut cache) }, 0);
    let mut wanted: Creds = unsafe { mem::zeroed() };
    assert_eq!(unsafe { owner(context, cache, &raw mut wanted.client) }, 0, "a ccache with a ticket");
    let service = CString::new(service.as_str()).unwrap();
    assert_eq!(unsafe { parse(context, service.as_ptr(), &raw mut wanted.server) }, 0);
    let filler = vec![7; size.parse().expect("a number")];
    // A type without a meaning.
    let data =
        AuthData { magic: 0, kind: 771, length: c_uint::try_from(filler.len()).unwrap(), contents: filler.as_ptr() };
    let list = [&raw const data, ptr::null()];
    wanted.authdata = list.as_ptr();
    let mut got = ptr::null_mut();
    assert_eq!(unsafe { get(context, 0, cache, &raw mut wanted, &raw mut got) }, 0, "krb5_get_credentials");
    let length = unsafe { (*got).ticket.length };
    assert!(usize::try_from(length).unwrap() > filler.len(), "the ticket has {length} bytes only");
}
