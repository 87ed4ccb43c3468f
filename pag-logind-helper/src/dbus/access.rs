//! What each request may touch. Every request is checked here, before it is carried out, and nowhere else.
//!
//! Lists need no check: [`VisiblePags::seen_by`](super::visibility::VisiblePags::seen_by) gives what the caller's uid may see.

use pag::types::PagId;

use super::call::{Refusal, Request};
use super::describe::DbusObject;
use super::polkit::{self, Verdict};
use super::service::{Caller, Service};

impl Service<'_> {
    /// Refuses what the caller may not do. A PAG that is granted is there.
    pub(super) async fn authorize(&self, caller: &Caller<'_>, request: &Request) -> Result<(), Refusal> {
        match request {
            Request::GetPag(id) | Request::Renew(id) | Request::Unlog(id, _) | Request::Follow(id, _) => {
                if self.may_reach(caller, *id).await { Ok(()) } else { Err(Refusal::no_pag(*id)) }
            }
            Request::Get(DbusObject::Pag(id), _) | Request::GetAll(DbusObject::Pag(id), _) => {
                if self.may_reach(caller, *id).await { Ok(()) } else { Err(Refusal::no_pag_object(*id)) }
            }
            // Polkit is not asked just for a description.
            Request::Introspect(DbusObject::Pag(id)) => {
                let seen = self.view().borrow().pags.is_seen_by(caller.uid, *id);
                if seen { Ok(()) } else { Err(Refusal::no_pag_object(*id)) }
            }
            Request::ListAllPags | Request::Statistics => self.may_see_all(caller).await,
            // These name no PAG, and tell of none but those that the caller's uid may see.
            Request::Ping
            | Request::MachineId
            | Request::Introspect(_)
            | Request::ManagedObjects
            | Request::Get(..)
            | Request::GetAll(..)
            | Request::ListPags
            | Request::GetMyPag
            | Request::Subscribe
            | Request::Unsubscribe => Ok(()),
        }
    }

    /// Whether there is this PAG, and it is the caller's, or polkit consents.
    async fn may_reach(&self, caller: &Caller<'_>, id: PagId) -> bool {
        if self.view().borrow().pags.is_seen_by(caller.uid, id) {
            return true;
        }
        // Polkit is asked even where there is no such PAG, so that a dialog does not tell that there is one.
        let granted = caller.uid != 0 && self.ask_polkit(caller).await == Verdict::Granted;
        granted && self.view().borrow().pags.known(id).is_some()
    }

    async fn may_see_all(&self, caller: &Caller<'_>) -> Result<(), Refusal> {
        if caller.uid == 0 {
            return Ok(());
        }
        match self.ask_polkit(caller).await {
            Verdict::Granted => Ok(()),
            Verdict::Denied => Err(Refusal::denied("you may see your own PAGs only")),
            Verdict::MustAsk => Err(Refusal::must_ask("you must prove that you are an administrator")),
        }
    }

    async fn ask_polkit(&self, caller: &Caller<'_>) -> Verdict {
        let number = self.questions.get().wrapping_add(1);
        self.questions.set(number);
        polkit::ask(self.runtime, &self.connection, caller.name, caller.interactive, number).await
    }
}
