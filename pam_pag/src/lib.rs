//! The PAM module: six entry points that translate between PAM and [`pag::login`], and decide nothing.
//!
//! A login never fails because of us. Whatever goes wrong inside is one line in the journal and PAM_SUCCESS, since
//! PAM_IGNORE from the only module of a stack is a denial; `strict` turns failures of placement into PAM_SESSION_ERR.

mod handle;
mod sessions;

use std::any::Any;
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use pag::config::{self, Complaint, Dirs, Settings, Subject};
use pag::login::{self, Marker, Request};
use pag::report::{self, Event, report};
use pag::seed::{IDENTITY, WITHOUT};
use pag::store::lock;
use pag::sys::UserGroups;
use pag::sys::{self, Passwd, Who};
use pag::types::ServiceKind;
use pam::constants::{PAM_DELETE_CRED, PAM_REFRESH_CRED, PAM_REINITIALIZE_CRED, PamFlag, PamResultCode};
use pam::items::{Service, Tty};
use pam::module::{PamHandle, PamHooks};

struct PamPag;

/// The exported symbols, which a macro makes without documentation.
#[allow(missing_docs, unreachable_pub)]
mod symbols {
    use super::PamPag;

    pam::pam_hooks!(PamPag);
}

impl PamHooks for PamPag {
    fn sm_open_session(pamh: &mut PamHandle, args: Vec<&CStr>, _flags: PamFlag) -> PamResultCode {
        hook(pamh, &args, "session", PamResultCode::PAM_SESSION_ERR, |call| call.begin(|login| login.enter(true)))
    }

    fn sm_close_session(pamh: &mut PamHandle, args: Vec<&CStr>, _flags: PamFlag) -> PamResultCode {
        hook(pamh, &args, "session", PamResultCode::PAM_SESSION_ERR, |call| call.close())
    }

    /// Credentials come with or without a session, before it or after it, once or twice: every order leads to the same
    /// state. A user manager is placed by its session alone; pam_keyinit would undo what is done here.
    fn sm_setcred(pamh: &mut PamHandle, args: Vec<&CStr>, flags: PamFlag) -> PamResultCode {
        hook(pamh, &args, "setcred", PamResultCode::PAM_CRED_ERR, |call| {
            if flags & PAM_DELETE_CRED != 0 {
                return call.leave();
            }
            call.begin(|login| {
                if matches!(login.settings.placement, ServiceKind::Manager | ServiceKind::Seed) {
                    Ok(())
                } else if flags & (PAM_REINITIALIZE_CRED | PAM_REFRESH_CRED) != 0 {
                    login.refresh()
                } else {
                    login.enter(false)
                }
            })
        })
    }
    // The other three keep the default, PAM_IGNORE: we authenticate nobody, and an `auth optional` line of ours, which
    // a screen unlock needs for setcred, leaves the result of authentication to the modules that decide it.
}

/// Under which name the state of a login is kept in its PAM handle.
const DATA: &str = "pam_pag";

/// One call into the module.
struct Call<'a> {
    pamh: &'a mut PamHandle,
    args: Vec<&'a [u8]>,
    service: String,
    /// Whether a failure of ours is one of the login's.
    strict: bool,
    /// Whom it is about, once that is known.
    uid: u32,
}

/// A call that is about a login, with what is configured for it.
struct Login<'a> {
    pamh: &'a mut PamHandle,
    settings: Settings,
    user: Passwd,
    service: &'a str,
    /// Root and system users: they are in nobody's PAG and have none.
    left_alone: bool,
}

/// Runs one entry point: what is the same for all of them.
fn hook(
    pamh: &mut PamHandle,
    args: &[&CStr],
    name: &'static str,
    failure: PamResultCode,
    work: impl FnOnce(&mut Call<'_>) -> pag::Result<()>,
) -> PamResultCode {
    quiet_panics();
    report::speak_as("pam_pag");
    let mut strict = false;
    // Guards of ids have unwound, and restored, by the time that this returns.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let service = match pamh.get_item::<Service<'_>>() {
            Ok(Some(service)) => service.to_string_lossy().into_owned(),
            _ => "unknown".to_owned(),
        };
        report::speak_for(&service, name);
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.to_bytes()).collect();
        #[cfg(feature = "fault")]
        fault(&args, name);
        let mut call = Call { pamh, args, service, strict: false, uid: u32::MAX };
        let result = work(&mut call);
        strict = call.strict;
        result.inspect_err(|why| report(&Event::NotPlaced { uid: call.uid, why: why.to_string() }))
    }));
    match outcome {
        Ok(Err(_)) if strict => failure,
        Ok(_) => PamResultCode::PAM_SUCCESS,
        Err(payload) => {
            forget(payload);
            PamResultCode::PAM_SUCCESS
        }
    }
}

/// The payload of a panic is not dropped: dropping could panic again.
fn forget(payload: Box<dyn Any + Send>) {
    std::mem::forget(payload);
}

/// A panic says where it happened, to the journal. The default hook would write to the host's stderr, and read files
/// at the word of an environment that is, in a setuid host, its caller's. The message is left out: it may hold data.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
            report(&Event::Panicked { place });
        }));
    });
}

/// The state of a handle from hook to hook: none when its session has ended, or was never made.
struct Kept(Cell<Option<Marker>>);

impl Kept {
    /// Stores the state, and notes in the list of this process which user's session the handle has.
    fn set(&self, marker: Option<Marker>) {
        self.0.set(marker);
        let user = marker.filter(|marker| marker.ring.is_some()).map(|marker| marker.uid);
        sessions::note(std::ptr::from_ref(self).addr(), user);
    }
}

impl Drop for Kept {
    /// The host ends the handle. A host that has taken credentials and opened no session (smbd asks for passwords that way) gives
    /// its lease back. A session stays open, and another handle can close it (JupyterHub). In both cases the host leaves the
    /// ring, unless it is a child of the process that entered, or becomes the user later.
    fn drop(&mut self) {
        let ends_here = |marker: &Marker| !marker.lives_on && marker.process.is_this();
        let marker = self.0.get().filter(ends_here);
        self.set(None);
        if let Some(marker) = marker {
            report::speak_as("pam_pag");
            report::set_debug(marker.debug);
            let ended = match marker.opened {
                true if marker.moved => login::step_out(&marker),
                true => Ok(()),
                false => login::give_up(&marker),
            };
            if let Err(why) = ended {
                report(&Event::NotPlaced { uid: marker.uid, why: why.to_string() });
            }
        }
    }
}

/// What an earlier hook has left, whoever the user of the handle is now.
fn remembered(pamh: &PamHandle) -> Option<Marker> {
    handle::data::<Kept>(pamh, DATA).and_then(|kept| kept.0.get())
}

fn remember(pamh: &mut PamHandle, marker: Option<Marker>) {
    if let Some(kept) = handle::data::<Kept>(pamh, DATA) {
        return kept.set(marker);
    }
    // Refused only for want of memory.
    let kept = Box::new(Kept(Cell::new(None)));
    if pamh.set_data(DATA, kept).is_ok()
        && let Some(kept) = handle::data::<Kept>(pamh, DATA)
    {
        kept.set(marker);
    }
}

impl Call<'_> {
    /// Does something for a login, if this is one.
    fn begin(&mut self, work: impl FnOnce(&mut Login<'_>) -> pag::Result<()>) -> pag::Result<()> {
        let Some(mut login) = Login::begin(self.pamh, &self.args, &self.service, &mut self.strict)? else {
            return Ok(());
        };
        self.uid = login.user.uid;
        work(&mut login)
    }

    /// Ends what an earlier hook of this handle has begun. That one's settings count: nothing is read, and nobody is
    /// looked up.
    fn leave(&mut self) -> pag::Result<()> {
        let Some(marker) = remembered(self.pamh) else {
            return Ok(());
        };
        self.strict = marker.strict;
        self.uid = marker.uid;
        report::set_debug(marker.debug);
        log::debug!("the lease of uid {} ends", marker.uid);
        login::leave(&marker)?;
        remember(self.pamh, None);
        Ok(())
    }

    /// Closes the session of this handle, or, where it has had none, one that this process has opened with another.
    fn close(&mut self) -> pag::Result<()> {
        if handle::data::<Kept>(self.pamh, DATA).is_some() {
            return self.leave();
        }
        // In a chroot configuration and accounts may be a user's.
        if let Err(why) = lock::is_within_reach() {
            log::debug!("no session is looked for: {why}");
            return Ok(());
        }
        let closed = self.begin(|login| match login.settings.placement {
            ServiceKind::Login | ServiceKind::Own if !login.left_alone => {
                login::leave_by_another_handle(&login.user, login.service)
            }
            _ => Ok(()),
        });
        // Once: a second call is not about yet another one.
        remember(self.pamh, None);
        closed
    }
}

/// The settings for a login of that user. Sections go by the name that PAM has, so that nobody is looked up for them.
fn settings(service: &str, user: Option<&CStr>, args: &[&[u8]]) -> (Settings, Vec<Complaint>) {
    let person = user.map(UserGroups::new);
    let is_in = |group: &str| person.as_ref().is_some_and(|person| person.is_in(group));
    let name = user.and_then(|name| name.to_str().ok());
    let subject = name.map(|name| Subject { name, is_in: &is_in });
    config::load(&Dirs::default(), service, subject.as_ref(), args)
}

impl<'a> Login<'a> {
    /// Finds out who and what this is, and whether it is `strict`; none when it is nothing for us.
    fn begin(
        pamh: &'a mut PamHandle,
        args: &[&[u8]],
        service: &'a str,
        strict: &mut bool,
    ) -> pag::Result<Option<Self>> {
        let user = pamh.get_user(None).ok().and_then(|name| CString::new(name).ok());
        let (settings, complaints) = settings(service, user.as_deref(), args);
        report::set_debug(settings.debug);
        for complaint in complaints {
            report(&Event::Complaint { what: complaint.to_string() });
        }
        if settings.placement == ServiceKind::Nothing {
            log::debug!("nothing to do for this service");
            return Ok(None);
        }
        *strict = settings.strict;
        let Some(user) = user else { return Ok(None) };
        let found = sys::passwd(Who::Name(&user)).map_err(pag::Error::system("look the user up"))?;
        let Some(user) = found else { return Ok(None) };
        // A seeding job joins the PAG that its user has, and makes none.
        let is_seen_to = settings.placement == ServiceKind::Seed || user.uid >= settings.minimum_uid;
        let left_alone = user.uid == 0 || !is_seen_to;
        if left_alone {
            log::debug!("uid {} is left alone: root, or below minimum_uid {}", user.uid, settings.minimum_uid);
        } else {
            log::debug!("uid {} is placed as {:?}", user.uid, settings.placement);
        }
        Ok(Some(Login { pamh, settings, user, service, left_alone }))
    }

    fn with_request<T>(&mut self, opening: bool, work: impl FnOnce(&Request<'_>) -> T) -> T {
        let marker = self.marker();
        let ccache = handle::variable(self.pamh, c"KRB5CCNAME");
        let environment = handle::environment(self.pamh);
        let tty = match self.pamh.get_item::<Tty<'_>>() {
            Ok(Some(tty)) => tty.to_string_lossy().into_owned(),
            _ => String::new(),
        };
        work(&Request {
            user: &self.user,
            service: self.service,
            tty: &tty,
            settings: &self.settings,
            ccache: ccache.as_deref(),
            environment,
            marker,
            opening,
            several: sessions::are_of_others(self.user.uid),
        })
    }

    fn marker(&self) -> Option<Marker> {
        remembered(self.pamh).filter(|marker| marker.uid == self.user.uid)
    }

    fn enter(&mut self, opened: bool) -> pag::Result<()> {
        let before = remembered(self.pamh);
        if let Some(marker) = before.filter(|marker| marker.uid != self.user.uid) {
            log::debug!("the user of this handle was uid {}: that session ends", marker.uid);
            // If that fails the lease ends with the process.
            let _ = login::leave(&marker);
        }
        // From here on this handle counts as one that has had a session, also if the hook fails: its close ends no other.
        remember(self.pamh, self.marker());
        if self.left_alone {
            return login::keep_out(&self.user);
        }
        let entered = match self.with_request(opened, login::enter) {
            // A host that is not root runs as its user, who has the PAG that he inherited.
            Err(pag::Error::NotRoot) if !self.settings.strict => {
                log::debug!("this host is not root: it stays in the PAG that it has");
                return Ok(());
            }
            entered => entered?,
        };
        let marker = Marker { opened: opened || entered.marker.opened, ..entered.marker };
        if let Some(ring) = marker.ring {
            log::debug!("uid {} is in ring {}, after {} ms", marker.uid, ring.serial, pag::sys::millis(marker.spent));
        }
        remember(self.pamh, Some(marker));
        if sessions::are_of_others(marker.uid) {
            login::step_out(&marker)?;
            if self.settings.placement != ServiceKind::Seed && before.is_none_or(|before| before.uid != marker.uid) {
                report(&Event::SeveralUsers { uid: marker.uid, process: marker.process.label() });
            }
        }
        if let Some(ccache) = entered.ccache {
            handle::set_variable(self.pamh, "KRB5CCNAME", &ccache);
        }
        if self.settings.placement == ServiceKind::Seed {
            handle::set_variable(self.pamh, IDENTITY, &entered.identity);
        }
        if self.settings.placement == ServiceKind::Seed && !entered.without.is_nothing() {
            handle::set_variable(self.pamh, WITHOUT, &entered.without.to_string());
        }
        Ok(())
    }

    fn refresh(&mut self) -> pag::Result<()> {
        if self.left_alone {
            return Ok(());
        }
        self.with_request(false, login::refresh)
    }
}

/// For tests of what a panic does: only in a module that was built for them. It comes under a guard's ids, as it would
/// in the midst of the work.
#[cfg(feature = "fault")]
#[allow(clippy::panic)]
fn fault(args: &[&[u8]], name: &str) {
    if args.contains(&format!("fault={name}").as_bytes()) {
        let _guard = pag::guard::Guard::enter(pag::guard::HandleGroup::read());
        panic!("a fault was asked for");
    }
}
