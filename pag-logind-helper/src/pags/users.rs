//! Users, as the password database has them.

use std::ffi::CString;

use pag::sys::{self, Identity, Passwd, Who};

use crate::names;

/// The group of a child that only reads what is the user's own: none.
const NOGROUP: u32 = 65534;

/// The user's name, if logind has told it.
pub(crate) fn told_name(uid: u32) -> Option<CString> {
    names::find(uid).and_then(|name| CString::new(name).ok())
}

/// The user's name, as the password database has it. That may have to be waited for, so no lock may be held. Empty for a
/// uid without a name.
pub(crate) fn look_up_name(uid: u32) -> CString {
    let name = passwd(uid).name;
    if let Some(text) = name.to_str().ok().filter(|text| !text.is_empty()) {
        names::learn(uid, text.to_owned());
    }
    name
}

/// The user. If the password database does not have this uid any more, a user without a name: nothing lingers for it.
pub(crate) fn passwd(uid: u32) -> Passwd {
    let nameless = || Passwd { name: c"".to_owned(), uid, gid: uid, home: c"/".to_owned() };
    sys::passwd(Who::Uid(uid)).ok().flatten().unwrap_or_else(nameless)
}

/// The identity of a child that reads a user's own ccaches. That takes no group, and to look the user's groups up takes
/// NSS, which may be slow.
pub(crate) fn reader(uid: u32) -> Identity {
    Identity { uid, gid: NOGROUP, groups: Vec::new() }
}
