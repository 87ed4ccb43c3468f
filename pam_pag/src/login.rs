//! A call's login: its user and its settings, and what is done for it.

use std::ffi::CStr;

use pag::config::{self, Complaint, Dirs, Settings, Subject};
use pag::login::{self as logins, LoginState, Request};
use pag::report::{self, Event, report};
use pag::seed::{EXCLUDED_ENV, IDENTITY_ENV};
use pag::sys::{self, Passwd, UserGroups, Who};
use pag::types::ServiceKind;

use crate::handle::Handle;
use crate::{names, sessions, state};

/// A login that concerns us, with the settings for it.
pub(crate) struct Login<'a, 'h> {
    handle: &'a mut Handle<'h>,
    settings: Settings,
    user: Passwd,
    service: &'a str,
    /// Root and system users have no PAG, and enter no other user's.
    left_alone: bool,
}

impl<'a, 'h> Login<'a, 'h> {
    /// Finds the user, the settings, and whether the login is `strict`. None for a service that is configured to be left
    /// alone, and for a user that does not exist.
    pub(crate) fn find(
        handle: &'a mut Handle<'h>,
        args: &[&[u8]],
        service: &'a str,
        strict: &mut bool,
    ) -> pag::Result<Option<Self>> {
        let user = handle.user();
        if let Some(name) = &user {
            names::speak_of(report::NO_UID, name);
        }
        let (settings, complaints) = settings(service, user.as_deref(), args);
        report::set_debug(settings.debug);
        state::report_once(handle, complaints.iter().map(ToString::to_string));
        if settings.placement == ServiceKind::Nothing {
            log::debug!("nothing to do for this service");
            return Ok(None);
        }
        *strict = settings.strict;
        let Some(user) = user else { return Ok(None) };
        let found = sys::passwd(Who::Name(&user)).map_err(pag::Error::system("look the user up"))?;
        let Some(user) = found else { return Ok(None) };
        names::speak_of(user.uid, &user.name);
        // A seeding job joins the PAG that its user has and makes none, so every user may have one.
        let is_served = settings.placement == ServiceKind::Seed || user.uid >= settings.minimum_uid;
        let left_alone = user.uid == 0 || !is_served;
        if left_alone {
            log::debug!("uid {} is left alone: root, or below minimum_uid {}", user.uid, settings.minimum_uid);
        } else {
            log::debug!("uid {} is placed as {:?}", user.uid, settings.placement);
        }
        Ok(Some(Login { handle, settings, user, service, left_alone }))
    }

    pub(crate) fn uid(&self) -> u32 {
        self.user.uid
    }

    /// Whether setcred does nothing here: a user manager is placed by its session, after pam_keyinit, which would undo what
    /// setcred does.
    pub(crate) fn is_placed_by_session(&self) -> bool {
        matches!(self.settings.placement, ServiceKind::Manager | ServiceKind::Seed)
    }

    /// Puts the process into the PAG of the login's user. `opened` says that a session is opened.
    pub(crate) fn enter(&mut self, opened: bool) -> pag::Result<()> {
        let before = state::of(self.handle);
        if let Some(state) = before.filter(|state| state.uid != self.user.uid) {
            log::debug!("the user of this handle was uid {}: that session ends", state.uid);
            // If that fails the lease ends with the process.
            let _ = logins::leave(&state);
        }
        // From here on this handle has begun a login, also if this call fails: its close ends no session of another handle.
        state::set(self.handle, self.state());
        if self.left_alone {
            return logins::keep_out(&self.user);
        }
        let entered = match self.with_request(opened, logins::enter) {
            // A host that is not root runs as its user, and has inherited a PAG from a login of that user.
            Err(pag::Error::NotRoot) if !self.settings.strict => {
                log::debug!("this host is not root: it stays in the PAG that it has");
                return Ok(());
            }
            entered => entered?,
        };
        let state = LoginState { opened: opened || entered.state.opened, ..entered.state };
        if let Some(ring) = state.ring {
            log::debug!("uid {} is in ring {}, after {} ms", state.uid, ring.serial, pag::sys::millis(state.spent));
        }
        state::set(self.handle, Some(state));
        if sessions::are_of_others(state.uid) {
            logins::step_out(&state)?;
            if self.settings.placement != ServiceKind::Seed && before.is_none_or(|before| before.uid != state.uid) {
                report(&Event::SeveralUsers { uid: state.uid, process: state.process.label() });
            }
        }
        if let Some(ccache) = entered.ccache {
            self.handle.set_variable("KRB5CCNAME", &ccache);
        }
        if self.settings.placement == ServiceKind::Seed {
            self.handle.set_variable(IDENTITY_ENV, &entered.identity);
            if !entered.excluded.is_nothing() {
                self.handle.set_variable(EXCLUDED_ENV, &entered.excluded.to_string());
            }
        }
        Ok(())
    }

    pub(crate) fn refresh(&mut self) -> pag::Result<()> {
        if self.left_alone {
            return Ok(());
        }
        self.with_request(false, logins::refresh)
    }

    /// Ends a session that another handle of this process opened for the user.
    pub(crate) fn leave_by_another_handle(&mut self) -> pag::Result<()> {
        match self.settings.placement {
            ServiceKind::Login | ServiceKind::Own if !self.left_alone => {
                logins::leave_by_another_handle(&self.user, self.service)
            }
            _ => Ok(()),
        }
    }

    fn with_request<T>(&mut self, opening: bool, work: impl FnOnce(&Request<'_>) -> T) -> T {
        work(&Request {
            user: &self.user,
            service: self.service,
            tty: &self.handle.tty(),
            settings: &self.settings,
            ccache: self.handle.variable(c"KRB5CCNAME").as_deref(),
            environment: self.handle.environment(),
            state: self.state(),
            opening,
            several: sessions::are_of_others(self.user.uid),
        })
    }

    /// The state of this handle, if the user is still the same.
    fn state(&self) -> Option<LoginState> {
        state::of(self.handle).filter(|state| state.uid == self.user.uid)
    }
}

/// The settings for a login of that user. The sections of the files go by the name that PAM has, so no user is looked up for them.
fn settings(service: &str, user: Option<&CStr>, args: &[&[u8]]) -> (Settings, Vec<Complaint>) {
    let groups = user.map(UserGroups::new);
    let is_in = |group: &str| groups.as_ref().is_some_and(|groups| groups.is_in(group));
    let name = user.and_then(|name| name.to_str().ok());
    let subject = name.map(|name| Subject { name, is_in: &is_in });
    config::load(&Dirs::default(), service, subject.as_ref(), args)
}
