//! A hook of a login enters a PAG.

use std::time::Duration;

use super::attempt::LoginAttempt;
use super::own_ccache::write_ccache;
use super::placed::Placed;
use super::state::{Entered, LoginState, Request, UserName};
use super::{place, tokens};
use crate::error::Result;
use crate::guard::{Guard, HandleGroup};
use crate::nudge::{Moment, nudge, nudge_of_manager};
use crate::seed::{self, Budget, Excluded, Job, Need, run_seeder};
use crate::store::ring::{self, Ring};
use crate::sys::{self, Passwd, Process};
use crate::types::{Client, ServiceKind};
use crate::{config, keyring};

/// Takes a login that gets no PAG, such as root's, out of its caller's PAG: `su -` in a stack without pam_keyinit would
/// inherit the caller's ring. A revoked or invalidated session keyring may have been a ring. The kernel no longer shows
/// what it was, so this login leaves it, too. Without root nothing is done.
///
/// # Errors
/// When the kernel makes no new session keyring.
pub fn keep_out(user: &Passwd) -> Result<()> {
    let is_in_a_ring = Ring::current().is_some_and(|ring| ring.owner != user.uid || user.uid == 0);
    if !is_in_a_ring && !keyring::session_is_dead() {
        return Ok(());
    }
    match Guard::enter(HandleGroup::read()) {
        Ok(guard) => ring::fresh(&guard, user.uid),
        Err(_) => Ok(()),
    }
}

/// Puts the calling thread into the right PAG, feeds the PAG's ccache and seeds tokens. A second call changes nothing,
/// unless another module has replaced the session keyring: then the thread enters its ring again. Needs root.
///
/// # Errors
/// When this login gets no PAG. It then has no tokens, and either a clean session keyring or the one that it had
/// before.
pub fn enter(request: &Request<'_>) -> Result<Entered> {
    Client::configure(request.settings);
    if let Some(state) = request.state.filter(LoginState::is_out_of_reach) {
        log::debug!("uid {} stays where it is: this process has entered a chroot since its login", state.uid);
        return Ok(Entered::nothing(state));
    }
    let budget = Budget::new(request.settings.timeout, request.state.map_or(Duration::ZERO, |m| m.spent));
    let mut attempt = LoginAttempt::new(request, budget, HandleGroup::read());
    attempt.look_for_ticket();
    attempt.report_missing_client();
    if request.settings.nopag {
        return without_pag(&attempt);
    }
    let moment = (attempt.is_manager() && request.opening).then(|| moment_of_manager(request.user.uid));
    let mut placed = place::place(&attempt)?;
    if let Some(moment) = moment {
        nudge_of_manager(request.user.uid, moment);
    }
    // Before the seeder runs: if the login is killed there, its lease stays, and the helper has to know about it.
    nudge(request.user.uid);
    write_ccache(&attempt, &mut placed);
    if tokens::seed(&attempt, &mut placed) {
        nudge(request.user.uid);
    }
    Ok(entered(&attempt, placed))
}

/// Whether pam_keyinit is still to come in the user manager's stack. Must be called before the login joins a ring.
///
/// pam_keyinit makes a session keyring that the user owns (Linux-PAM, pam_keyinit.c, init_keyrings). Before that, the
/// session keyring is PID 1's, or the ring of an earlier call. libpam loads all modules of a service before it calls
/// the first one (pam_handlers.c, _pam_init_handlers), so a pam_keyinit that is not loaded will not come.
fn moment_of_manager(uid: u32) -> Moment {
    let is_users = |found: keyring::Description<'_>| found.uid == uid;
    let by_keyinit = Ring::current().is_none()
        && keyring::session().and_then(|key| keyring::describe(key, is_users)).unwrap_or(false);
    let will_come = || std::fs::read("/proc/self/maps").is_ok_and(|maps| contains(&maps, b"/pam_keyinit.so"));
    if !by_keyinit && will_come() { Moment::BeforeKeyinit } else { Moment::Lasting }
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}

/// Does what `nopag` asks for: like pam_afs_session, it runs a seeder where the login is, and enters no PAG.
fn without_pag(attempt: &LoginAttempt<'_>) -> Result<Entered> {
    let process = attempt.process()?;
    let tried = attempt.request.state.is_some_and(|state| state.seeded);
    let ticket = attempt.may_have_ticket.then_some(0);
    let clients = attempt.clients();
    let need = seed::need(attempt.request.settings, clients, None, ticket, attempt.is_manager(), crate::sys::now());
    if !tried && !attempt.is_manager() && need == Need::Now {
        let job = Job {
            settings: attempt.request.settings,
            user: attempt.request.user,
            identity: attempt.identity(),
            ccache: attempt.request.ccache,
            environment: &attempt.request.environment,
            excluded: Excluded::default(),
        };
        run_seeder(&job, None, None, &attempt.budget);
    }
    Ok(Entered::nothing(LoginState { seeded: true, ..outside(attempt, process) }))
}

/// What is remembered of a login that has entered no PAG.
fn outside(attempt: &LoginAttempt<'_>, process: Process) -> LoginState {
    LoginState {
        uid: attempt.uid(),
        name: UserName::new(&attempt.request.user.name),
        pag: None,
        ring: None,
        process,
        root: sys::root_directory(),
        cookie: 0,
        spent: attempt.budget.spent(),
        seeded: false,
        opened: false,
        moved: false,
        lives_on: false,
        strict: attempt.request.settings.strict,
        debug: attempt.request.settings.debug,
    }
}

/// What the PAM module keeps of this login, and what it passes on to a user manager or a seeding job.
fn entered(attempt: &LoginAttempt<'_>, placed: Placed<'_>) -> Entered {
    let (pag, ccache, excluded, identity) = match placed.pag {
        Some((pag, record)) => {
            let excluded = Excluded::of(&record);
            let identity = record.principal.map(|principal| principal.to_string()).unwrap_or_default();
            (Some((pag.id, pag.place())), Some(record.ccache), excluded, identity)
        }
        None => (None, None, Excluded::default(), String::new()),
    };
    let before = attempt.request.state;
    // Without /proc the start time is unknown. The pid is enough for this process to leave the ring at its close.
    let unknown = Process { pid: i32::try_from(std::process::id()).unwrap_or(0), start: 0 };
    let process = before.map(|state| state.process).or_else(|| attempt.process.get().copied().flatten());
    let state = LoginState {
        pag,
        ring: Some(placed.ring),
        cookie: placed.cookie,
        seeded: placed.seeded,
        opened: before.is_some_and(|state| state.opened),
        moved: before.map_or(placed.moved, |state| state.moved),
        lives_on: config::lives_on_without_session(attempt.request.service),
        ..outside(attempt, process.unwrap_or(unknown))
    };
    let wanted = matches!(attempt.request.settings.placement, ServiceKind::Manager | ServiceKind::Seed);
    Entered { state, ccache: ccache.filter(|name| wanted && !name.is_empty()), excluded, identity }
}
