//! Users and groups, as the name service of the host knows them.

use std::cell::OnceCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::{io, ptr};

/// One entry of the password database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passwd {
    /// Login name.
    pub name: CString,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory, as text; never opened.
    pub home: CString,
}

/// Which entry of the password database.
#[derive(Debug, Clone, Copy)]
pub enum Who<'a> {
    /// By login name.
    Name(&'a CStr),
    /// By user id.
    Uid(u32),
}

/// What it means that a look-up has found nothing: "not found" comes as 0 or as one of these (getpwnam(3), ERRORS).
fn not_found<T>(code: c_int) -> io::Result<Option<T>> {
    match code {
        0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => Ok(None),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Looks up a user. This asks NSS, as every PAM host has just done for the same user.
///
/// # Errors
/// What `getpwnam_r(3)` reports; `Ok(None)` is a user that does not exist.
pub fn passwd(who: Who<'_>) -> io::Result<Option<Passwd>> {
    let mut size = 1024;
    loop {
        let mut entry = MaybeUninit::<libc::passwd>::zeroed();
        let mut buffer: Vec<c_char> = vec![0; size];
        let mut found = ptr::null_mut();
        let (e, b, n) = (entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len());
        let code = match who {
            // SAFETY: valid places for the entry, its strings and the answer.
            Who::Name(name) => unsafe { libc::getpwnam_r(name.as_ptr(), e, b, n, &raw mut found) },
            // SAFETY: as above.
            Who::Uid(uid) => unsafe { libc::getpwuid_r(uid, e, b, n, &raw mut found) },
        };
        if code == libc::ERANGE && size < 1 << 20 {
            size *= 4;
            continue;
        }
        if found.is_null() {
            return not_found(code);
        }
        // SAFETY: the call succeeded, so the entry is filled in and its strings point into `buffer`.
        let entry = unsafe { entry.assume_init() };
        // SAFETY: as above; `buffer` lives on.
        let name = unsafe { CStr::from_ptr(entry.pw_name) }.to_owned();
        // SAFETY: as above.
        let home = unsafe { CStr::from_ptr(entry.pw_dir) }.to_owned();
        return Ok(Some(Passwd { name, uid: entry.pw_uid, gid: entry.pw_gid, home }));
    }
}

/// Looks up the gid of a group. This asks NSS.
///
/// # Errors
/// What `getgrnam_r(3)` reports; `Ok(None)` is a group that does not exist.
pub fn group(name: &CStr) -> io::Result<Option<u32>> {
    let mut size = 1024;
    loop {
        let mut entry = MaybeUninit::<libc::group>::zeroed();
        let mut buffer: Vec<c_char> = vec![0; size];
        let mut found = ptr::null_mut();
        let (e, b, n) = (entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len());
        // SAFETY: valid places for the entry, its strings and the answer.
        let code = unsafe { libc::getgrnam_r(name.as_ptr(), e, b, n, &raw mut found) };
        // The members of a large group need as much.
        if code == libc::ERANGE && size < 1 << 24 {
            size *= 4;
            continue;
        }
        if found.is_null() {
            return not_found(code);
        }
        // SAFETY: the call succeeded, so the entry is filled in.
        return Ok(Some(unsafe { entry.assume_init() }.gr_gid));
    }
}

/// The groups that a login of `name` has, including `gid`. Asks NSS, so it is called before a child is made.
pub fn groups_of(name: &CStr, gid: u32) -> Vec<u32> {
    let mut groups = vec![0; 64];
    loop {
        let mut count = c_int::try_from(groups.len()).unwrap_or(c_int::MAX);
        // SAFETY: `count` says how many places `groups` has.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if result >= 0 || groups.len() >= 65536 {
            groups.truncate(count);
            return groups;
        }
        groups.resize(count.max(groups.len() * 2), 0);
    }
}

/// A user and their groups. NSS is asked once, and only if the groups are needed, since it may wait for a network.
#[derive(Debug)]
pub struct UserGroups<'a> {
    name: &'a CStr,
    groups: OnceCell<Vec<u32>>,
}

impl<'a> UserGroups<'a> {
    /// The user with that name. Looks nothing up.
    pub fn new(name: &'a CStr) -> Self {
        UserGroups { name, groups: OnceCell::new() }
    }

    /// Whether the user is in the group with that name: their primary group, or one that lists them. False for a user
    /// or group that NSS does not know.
    pub fn is_in(&self, group: &str) -> bool {
        let Ok(group) = CString::new(group) else { return false };
        let gid = self::group(&group).ok().flatten();
        gid.is_some_and(|gid| self.groups().contains(&gid))
    }

    fn groups(&self) -> &[u32] {
        self.groups.get_or_init(|| match passwd(Who::Name(self.name)) {
            Ok(Some(user)) => groups_of(self.name, user.gid),
            _ => Vec::new(),
        })
    }
}
