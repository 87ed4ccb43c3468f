//! A user as the name service knows him, for sections of the configuration that name a group.

use std::cell::OnceCell;
use std::ffi::{CStr, CString};

use crate::sys::{self, Who};

/// A user whose groups are looked up when they are asked for, and once: NSS may wait for a network.
#[derive(Debug)]
pub struct Person<'a> {
    name: &'a CStr,
    groups: OnceCell<Vec<u32>>,
}

impl<'a> Person<'a> {
    /// The user of that name. Nothing is looked up.
    pub fn new(name: &'a CStr) -> Self {
        Person { name, groups: OnceCell::new() }
    }

    /// Whether he is in the group of that name: his primary one, or one that lists him. A user or group that NSS does
    /// not know is in none, and has nobody.
    pub fn is_in(&self, group: &str) -> bool {
        let Ok(group) = CString::new(group) else { return false };
        let gid = sys::group(&group).ok().flatten();
        gid.is_some_and(|gid| self.groups().contains(&gid))
    }

    fn groups(&self) -> &[u32] {
        self.groups.get_or_init(|| match sys::passwd(Who::Name(self.name)) {
            Ok(Some(user)) => sys::groups_of(self.name, user.gid),
            _ => Vec::new(),
        })
    }
}
