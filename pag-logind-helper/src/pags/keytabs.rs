//! The keytabs that the configuration names, and the PAGs that they are for.

use pag::config::keytab::{Keytab, KeytabOwner};
use pag::policy;

use super::known::Known;
use crate::names;

/// The keytabs of this host.
#[derive(Default)]
pub(crate) struct Keytabs(Vec<(KeytabOwner, Keytab)>);

impl Keytabs {
    /// These, and no others.
    pub(crate) fn new(all: Vec<(KeytabOwner, Keytab)>) -> Self {
        Keytabs(all)
    }

    /// Whether there is any.
    pub(crate) fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether one of them is for this PAG. Not before its user's name is known.
    pub(crate) fn has_one_for(&self, known: &Known) -> bool {
        self.is_any()
            && names::find(known.uid).is_some_and(|name| policy::keytab(&self.0, &name, &known.record.leases).is_some())
    }
}
