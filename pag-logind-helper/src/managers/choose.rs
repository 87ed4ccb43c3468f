//! Notes the session that a user or an administrator has chosen over D-Bus for the user's services. `policy::followed` decides.

use pag::guard::Guard;
use pag::policy;
use pag::store::locked::LockedUser;
use pag::store::record::Record;
use pag::store::registry::Pag;
use pag::types::{Follow, PagId};

use crate::order::{Action, Order, Outcome, Trouble};
use crate::pags::{LOCK_WAIT, Pags};

/// Callers that wait until the services of a user follow another session.
#[derive(Default)]
pub(crate) struct Choices(Vec<(u32, Order)>);

impl Choices {
    /// The order to follow a PAG of `uid` is carried out when this user's PAGs are reconciled.
    pub(crate) fn add(&mut self, uid: u32, order: Order) {
        self.0.push((uid, order));
    }

    /// Answers callers, but for those with a user that `is_pending`.
    pub(crate) fn answer(&mut self, pags: &Pags, is_pending: impl Fn(u32) -> bool) {
        self.0.retain(|(uid, order)| {
            let waits = is_pending(*uid);
            if !waits {
                order.answer(outcome(*uid, order, pags));
            }
            waits
        });
    }
}

fn outcome(uid: u32, order: &Order, pags: &Pags) -> Outcome {
    let is_followed = || pags.all().any(|known| known.uid == uid && known.record.follows == Some(order.pag));
    match order.action {
        Action::Follow(true) if pags.get(order.pag).is_none() => Err(Trouble::Gone),
        Action::Follow(true) if !is_followed() => {
            Err(Trouble::Failed("it is not followed yet; the journal may say why".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Notes in the records that the services of this PAG's user are to follow it, or no longer for that reason. They do so when
/// the user's PAGs are reconciled.
///
/// # Errors
/// If there is no such PAG or it cannot be followed, a login holds the lock, or the records cannot be written.
pub(crate) fn choose(pags: &Pags, setting: Follow, id: PagId, on: bool) -> Outcome {
    let uid = pags.user_of(id).ok_or(Trouble::Gone)?;
    let guard = Guard::enter(pags.group())?;
    let user = LockedUser::lock(&guard, uid, LOCK_WAIT)?;
    let mut found = user.pags()?;
    let record = found.iter().find(|pag| pag.id == id).and_then(|pag| pag.record.clone().ok()).ok_or(Trouble::Gone)?;
    if on && let Some(why) = why_not(&record, setting, &found) {
        return Err(Trouble::Failed(why.to_owned()));
    }
    // The others first: if the helper is killed in between, at most one is chosen.
    found.sort_by_key(|pag| pag.id == id);
    for mut pag in found.into_iter().filter(|pag| on || pag.id == id) {
        let Ok(record) = pag.record.clone() else { continue };
        let chosen = on && pag.id == id;
        if record.chosen != chosen {
            user.store(&mut pag, Record { chosen, ..record })?;
        }
    }
    Ok(())
}

/// Why the services of the user cannot follow the PAG with this record.
fn why_not(record: &Record, setting: Follow, found: &[Pag]) -> Option<&'static str> {
    let is_follower = |pag: &Pag| pag.record.as_ref().is_ok_and(|record| policy::is_follower(record, pag::sys::now()));
    if setting == Follow::None {
        Some("the administrator has set follow = none in pag.conf, so services follow no session")
    } else if !policy::can_be_followed(record) {
        Some("only the PAG that a login has to itself (scope = session), or one of another identity, can be followed")
    } else if !found.iter().any(is_follower) {
        Some("no user manager is there to follow it, or the manager shares its PAG with a login")
    } else {
        None
    }
}
