//! The PAGs of this host, as root reads them.

use pag::guard::{Guard, HandleGroup};
use pag::report::User;
use pag::store::record::Unreadable;
use pag::store::registry::{Pag, Registry};

use super::finding::{Finding, Problem};
use super::host::{Host, Look};

/// All PAGs; none on another machine than ours.
///
/// # Errors
/// Why they cannot be read, in words.
pub(super) fn pags(host: &Host) -> Result<Vec<Pag>, String> {
    if !host.is_this() {
        return Ok(Vec::new());
    }
    let guard = Guard::enter(HandleGroup::read()).map_err(|error| error.to_string())?;
    let registry = Registry::find(&guard).map_err(|error| error.to_string())?;
    registry.map_or(Ok(Vec::new()), |registry| registry.pags(&guard)).map_err(|error| error.to_string())
}

pub(super) fn check(host: &Host, look: &mut Look) {
    let pags = match pags(host) {
        Ok(pags) => pags,
        Err(why) => {
            look.left_out(format!("the PAGs: {why}"));
            return;
        }
    };
    let mut good = 0;
    for pag in &pags {
        let trouble = match (&pag.ring, &pag.record) {
            (Err(why), _) => Some(format!("its ring cannot be used: {why}")),
            (_, Err(why)) if !matches!(why, Unreadable::Foreign(_)) => Some(why.to_string()),
            _ => None,
        };
        let Some(trouble) = trouble else {
            good += 1;
            continue;
        };
        let what = format!("PAG {} of {}: {trouble}", pag.id, User(pag.uid));
        let why = "its members may have no tokens; the user's next login makes a new one";
        look.found(Finding::warning(Problem::PagTrouble, what, why).mend(format!("pagctl show {}", pag.id)));
    }
    look.fine(format!("{good} of {} PAGs are in order", pags.len()));
}
