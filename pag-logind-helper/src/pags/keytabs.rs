//! The keytabs that the configuration names, and the PAGs that they are for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use pag::config::keytab::{Keytab, KeytabOwner};
use pag::policy;
use pag::sys::{self, Who};

use super::known::Known;

/// The keytabs of this host.
#[derive(Default)]
pub(crate) struct Keytabs {
    all: Vec<(KeytabOwner, Keytab)>,
    /// Names of users, which are looked up only if there are keytabs.
    names: BTreeMap<u32, String>,
}

impl Keytabs {
    /// These, and no others.
    pub(crate) fn new(all: Vec<(KeytabOwner, Keytab)>) -> Self {
        Keytabs { all, names: BTreeMap::new() }
    }

    /// Looks up the names of users that are not known yet.
    pub(crate) fn look_up(&mut self, uids: impl Iterator<Item = u32>) {
        if self.all.is_empty() {
            return;
        }
        for uid in uids {
            if let Entry::Vacant(vacant) = self.names.entry(uid)
                && let Some(user) = sys::passwd(Who::Uid(uid)).ok().flatten()
            {
                vacant.insert(user.name.to_string_lossy().into_owned());
            }
        }
    }

    /// Whether one of them is for this PAG.
    pub(crate) fn has_one_for(&self, known: &Known) -> bool {
        let name = self.names.get(&known.uid);
        name.is_some_and(|name| policy::keytab(&self.all, name, &known.record.leases).is_some())
    }
}
