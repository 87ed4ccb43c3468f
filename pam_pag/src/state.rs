//! The state of a login from call to call, which libpam keeps with the handle.

use std::cell::{Cell, RefCell};

use pag::login::{self, LoginState};
use pag::report::{self, Event, report};

use crate::handle::Handle;
use crate::sessions;

/// Under which name the state of a login is kept in its PAM handle.
const DATA: &str = "pam_pag";

/// Under which name the complaints that were reported are kept in a PAM handle.
const TOLD: &str = "pam_pag_told";

/// Reports complaints about the configuration, each once for a login: every hook reads the files.
pub(crate) fn report_once(handle: &mut Handle<'_>, complaints: impl Iterator<Item = String>) {
    for what in complaints {
        if handle.data::<RefCell<Vec<String>>>(TOLD).is_none() {
            handle.set_data(TOLD, RefCell::new(Vec::<String>::new()));
        }
        let told = handle.data::<RefCell<Vec<String>>>(TOLD).and_then(|told| told.try_borrow_mut().ok());
        if told.as_ref().is_some_and(|told| told.contains(&what)) {
            continue;
        }
        told.into_iter().for_each(|mut told| told.push(what.clone()));
        report(&Event::Complaint { what });
    }
}

/// The state of a handle: none when its session has ended, or was never opened.
struct Kept(Cell<Option<LoginState>>);

impl Kept {
    /// Stores the state, and notes the handle's session in the list of this process.
    fn set(&self, state: Option<LoginState>) {
        self.0.set(state);
        let user = state.filter(|state| state.ring.is_some()).map(|state| state.uid);
        sessions::note(std::ptr::from_ref(self).addr(), user);
    }
}

impl Drop for Kept {
    /// The host ends the handle. If it has taken credentials and opened no session (smbd checks passwords that way), its lease
    /// ends. A session stays open, and another handle can close it (JupyterHub). In both cases the host leaves the ring,
    /// unless it is a child of the process that entered, or becomes the user later.
    fn drop(&mut self) {
        let ends_here = |state: &LoginState| !state.lives_on && state.process.is_this();
        let state = self.0.get().filter(ends_here);
        self.set(None);
        if let Some(state) = state {
            report::speak_as("pam_pag");
            report::set_debug(state.debug);
            let ended = match state.opened {
                true if state.moved => login::step_out(&state),
                true => Ok(()),
                false => login::give_up(&state),
            };
            if let Err(why) = ended {
                report(&Event::NotEnded { uid: state.uid, why: why.to_string() });
            }
        }
    }
}

/// The state that an earlier call has left, for the user that the handle had then.
pub(crate) fn of(handle: &Handle<'_>) -> Option<LoginState> {
    handle.data::<Kept>(DATA).and_then(|kept| kept.0.get())
}

/// Whether an earlier call of this handle was about a login, be it one that has ended.
pub(crate) fn has_begun(handle: &Handle<'_>) -> bool {
    handle.data::<Kept>(DATA).is_some()
}

/// Stores the state. Only want of memory can prevent that.
pub(crate) fn set(handle: &mut Handle<'_>, state: Option<LoginState>) {
    if !has_begun(handle) {
        handle.set_data(DATA, Kept(Cell::new(None)));
    }
    if let Some(kept) = handle.data::<Kept>(DATA) {
        kept.set(state);
    }
}
