//! One call of libpam into the module: what is the same for all entry points, and what each of them does.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use pag::login as logins;
use pag::report::{self, Event, report};
use pag::store::lock;
use pam::constants::PamResultCode;
use pam::module::PamHandle;

use crate::handle::Handle;
use crate::login::Login;
use crate::{names, state};

/// A call, and what is known of its login so far.
pub(crate) struct Call<'a> {
    handle: Handle<'a>,
    args: Vec<&'a [u8]>,
    service: String,
    /// Whether a failure of ours fails the login.
    strict: bool,
    /// The user, once the user is known.
    uid: u32,
    /// The report of a failure.
    failed: fn(u32, String) -> Event,
}

/// A login that could not be placed.
fn not_placed(uid: u32, why: String) -> Event {
    Event::NotPlaced { uid, why }
}

/// A session that could not be ended.
fn not_ended(uid: u32, why: String) -> Event {
    Event::NotEnded { uid, why }
}

/// A ticket that could not be refreshed.
fn not_refreshed(uid: u32, why: String) -> Event {
    Event::NotRefreshed { uid, why }
}

/// Runs the work of an entry point. `name` stands for the entry in messages, `failure` is its answer under `strict`.
pub(crate) fn run(
    pamh: &mut PamHandle,
    args: &[&CStr],
    name: &'static str,
    failure: PamResultCode,
    work: impl FnOnce(&mut Call<'_>) -> pag::Result<()>,
) -> PamResultCode {
    quiet_panics();
    report::speak_as("pam_pag");
    report::name_users_by(names::find);
    let mut strict = false;
    // Guards of ids have unwound, and restored, by the time that this returns.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let handle = Handle::new(pamh);
        let service = handle.service();
        report::speak_for(&service, name);
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.to_bytes()).collect();
        #[cfg(feature = "fault")]
        fault(&args, name);
        let mut call = Call { handle, args, service, strict: false, uid: report::NO_UID, failed: not_placed };
        let result = work(&mut call);
        strict = call.strict;
        result.inspect_err(|why| report(&(call.failed)(call.uid, why.to_string())))
    }));
    match outcome {
        Ok(Err(_)) if strict => failure,
        Ok(_) => PamResultCode::PAM_SUCCESS,
        Err(payload) => {
            // Dropping the payload of a panic could panic again.
            std::mem::forget(payload);
            PamResultCode::PAM_SUCCESS
        }
    }
}

impl Call<'_> {
    pub(crate) fn open_session(&mut self) -> pag::Result<()> {
        self.with_login(|login| login.enter(true))
    }

    /// Closes the session of this handle, or, where the handle has had none, one that this process opened with another.
    pub(crate) fn close_session(&mut self) -> pag::Result<()> {
        self.failed = not_ended;
        if state::has_begun(&self.handle) {
            return self.leave();
        }
        // In a chroot configuration and accounts may be a user's.
        if let Err(why) = lock::is_within_reach() {
            log::debug!("no session of another handle is closed: {why}");
            return Ok(());
        }
        let closed = self.with_login(|login| login.leave_by_another_handle());
        // A second close of this handle is not about yet another session.
        state::set(&mut self.handle, None);
        closed
    }

    pub(crate) fn establish_credentials(&mut self) -> pag::Result<()> {
        self.with_login(|login| if login.is_placed_by_session() { Ok(()) } else { login.enter(false) })
    }

    pub(crate) fn refresh_credentials(&mut self) -> pag::Result<()> {
        self.failed = not_refreshed;
        self.with_login(|login| if login.is_placed_by_session() { Ok(()) } else { login.refresh() })
    }

    /// Ends what an earlier call of this handle has begun, by the settings of that call: this one reads no files and looks
    /// up no user.
    pub(crate) fn leave(&mut self) -> pag::Result<()> {
        self.failed = not_ended;
        let Some(state) = state::of(&self.handle) else {
            return Ok(());
        };
        self.strict = state.strict;
        self.uid = state.uid;
        report::set_debug(state.debug);
        log::debug!("the lease of uid {} ends", state.uid);
        logins::leave(&state)?;
        state::set(&mut self.handle, None);
        Ok(())
    }

    /// Does something for the login of this call, if it is one that concerns us.
    fn with_login(&mut self, work: impl FnOnce(&mut Login<'_, '_>) -> pag::Result<()>) -> pag::Result<()> {
        let Some(mut login) = Login::find(&mut self.handle, &self.args, &self.service, &mut self.strict)? else {
            return Ok(());
        };
        self.uid = login.uid();
        work(&mut login)
    }
}

/// Has the place of a panic reported to the journal, without the message, which may hold data. The default hook would write
/// to the host's stderr, and read files that the environment names; in a setuid host that is its caller's.
fn quiet_panics() {
    // Not a `Once`: a process that another thread has forked in the midst of it would wait for ever.
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Ordering::Relaxed) {
        std::panic::set_hook(Box::new(|info| {
            let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
            report(&Event::Panicked { place });
        }));
    }
}

/// Panics, in a module that was built for tests of that; under a guard's ids, as a panic in the midst of the work would be.
#[cfg(feature = "fault")]
#[allow(clippy::panic)]
fn fault(args: &[&[u8]], name: &str) {
    if args.contains(&format!("fault={name}").as_bytes()) {
        let _guard = pag::guard::Guard::enter(pag::guard::HandleGroup::read());
        panic!("a fault was asked for");
    }
}
