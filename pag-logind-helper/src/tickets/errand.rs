//! What children are sent for: into users' files, and to name services.

use pag::guard::{Guard, HandleGroup};
use pag::store::record::Record;
use pag::store::registry::Registry;
use pag::types::PagId;

use super::other_ccaches::Due;
use crate::errands;
use crate::systemd::RunId;

/// What a child is sent for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Errand {
    /// To see which ticket is in the PAG's own ccache. A job of `ours` may have put it there. If a job has ended, its result is
    /// here.
    Look { pag: PagId, ours: bool, ended: Option<(RunId, Result<(), String>)> },
    /// To put tickets from a login's own ccache into the ccaches of PAGs.
    Feed(Due),
    /// To put the followed PAG's ticket into the follower's ccache, or to empty that.
    Copy { pag: PagId, leader: Option<PagId> },
    /// To ask for the user's name.
    Name,
}

impl errands::Errand for Errand {
    fn must_run(&self) -> bool {
        // The job is over only when its errand is.
        matches!(self, Errand::Look { ended: Some(_), .. })
    }
}

/// The record of a PAG as it is now, read by a child without its user's lock.
pub(super) fn record_of(pag: PagId, group: HandleGroup) -> Option<Record> {
    let guard = Guard::enter(group).ok()?;
    let registry = Registry::find(&guard).ok()??;
    registry.pags(&guard).ok()?.into_iter().find(|one| one.id == pag)?.record.ok()
}
