//! Users, as the password database has them.

use std::ffi::CString;

use pag::sys::{self, Identity, Passwd, Who};

use crate::names;

/// The group of a child that only reads what is the user's own: none.
const NOGROUP: u32 = 65534;

/// The user's name. Empty if it is not known, or there is none: nothing lingers for it then.
pub(crate) fn name_of(uid: u32) -> CString {
    names::find(uid).and_then(|name| CString::new(name).ok()).unwrap_or_default()
}

/// The user. If the password database does not have this uid any more, a user without a name. For children alone: a name
/// service may be slow, or not answer, and all users wait for the helper.
pub(crate) fn passwd(uid: u32) -> Passwd {
    let nameless = || Passwd { name: c"".to_owned(), uid, gid: uid, home: c"/".to_owned() };
    sys::passwd(Who::Uid(uid)).ok().flatten().unwrap_or_else(nameless)
}

/// The identity of a child that reads a user's own ccaches. That takes no group, and to look the user's groups up takes
/// NSS, which may be slow.
pub(crate) fn reader(uid: u32) -> Identity {
    Identity { uid, gid: NOGROUP, groups: Vec::new() }
}
