//! `pagctl run`: a PAG for one command, with tokens that are renewed as long as a process is in it.
//!
//! pagctl makes the PAG, gets the tokens, and executes the command in its own place. So the command's pid, parent,
//! terminal, signals and exit status are those that its caller expects, as with env(1). What renews the tokens is another
//! process, the [keeper](keeper), which is outside of the PAG and no child of the command.

mod engine;
mod keeper;
mod named;
mod ticket;

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pag::afs::openafs::Device;
use pag::config::{self, Dirs, Settings};
use pag::keyring;
use pag::process_ring::{Kind, Making, Name, ProcessRing};
use pag::report::User;
use pag::store::ring::Enter;
use pag::sys::{self, Identity, Passwd, Who};
use pag::types::{Cell, Client};

use self::keeper::Keeper;
use self::ticket::{PAUSES, Source, Ticket};
use crate::output::{Answer, Error, errln};

/// The variables that lead to tickets and keys of the caller.
const SECRET_VARIABLES: [&str; 3] = ["KRB5CCNAME", "KRB5_KTNAME", "KRB5_CLIENT_KTNAME"];

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Enter the PAG of pag@NAME.service. Needs root
    ///
    /// Without a section [pag NAME] in pag.conf(5), or with another source of tickets:
    /// what `pagctl id` calls the new PAG [default: the command's name].
    #[arg(long)]
    name: Option<String>,
    /// Get tickets from this keytab, which only you can read
    #[arg(long, value_name = "FILE", requires = "principal")]
    keytab: Option<PathBuf>,
    /// Take the key of this principal from the keytab
    #[arg(long, requires = "keytab")]
    principal: Option<String>,
    /// Use the ticket in this ccache [default: $KRB5CCNAME, or krb5.conf's]
    #[arg(long, value_name = "NAME", conflicts_with = "keytab")]
    ccache: Option<String>,
    /// Get a token of this cell, and no other; may be given several times
    #[arg(long = "cell", value_name = "CELL")]
    cells: Vec<Cell>,
    /// Run the command as this user: a name or a uid. Needs root
    #[arg(long)]
    user: Option<String>,
    /// Try again until there are tokens, at most for so long
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true)]
    #[expect(clippy::option_option, reason = "clap's form of an option with an optional value")]
    wait: Option<Option<u64>>,
    /// Start a container without a user namespace, too
    ///
    /// Root in it can enter the PAGs of this host's logins.
    #[arg(long)]
    host_root: bool,
    /// Refuse the command a session keyring of its own
    #[arg(long)]
    pin: bool,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    words: Vec<OsString>,
}

/// Runs the command in a PAG, in the place of this program.
///
/// # Errors
/// When there is no PAG, no token, or no such command. Nothing of the PAG is left.
pub(crate) fn run(options: &Options) -> Result<Infallible, Error> {
    let refused = |why: String| Err(Error::Refused(why));
    let Some((program, arguments)) = options.words.split_first() else { return refused("there is no command".into()) };
    // From now on this process has the name of a ring in memory. Executing the command wipes it.
    sys::close_memory().map_err(pag::Error::system("close this process's memory (PR_SET_DUMPABLE)"))?;
    if sys::ids().uid == [0; 3]
        && !options.host_root
        && options.user.is_none()
        && let Some(why) = engine::without_namespace(program, arguments)
    {
        return refused(format!("{why}; the command was not started"));
    }
    let account = options.user.as_deref().map(account).transpose()?;
    let (settings, _) = config::host(&Dirs::default());
    Client::configure(&settings);
    if !enter_named(options)? {
        enter_new(options, program, settings)?;
    }
    if options.pin {
        sys::pin_session_keyring().map_err(pag::Error::system("pin the session keyring (--pin)"))?;
    }
    let mut command = Command::new(program);
    command.args(arguments);
    for name in SECRET_VARIABLES {
        command.env_remove(name);
    }
    if let Some(account) = &account {
        become_account(account, &mut command)?;
    }
    let source = command.exec();
    Err(Error::Run { program: program.to_string_lossy().into_owned(), source })
}

/// Enters a named PAG, if the options mean one: another source of tickets means a new PAG with that name.
fn enter_named(options: &Options) -> Result<bool, Error> {
    let Options { name: Some(name), keytab: None, ccache: None, .. } = options else { return Ok(false) };
    if sys::ids().uid == [0; 3] { named::enter(name) } else { Ok(false) }
}

/// Makes a PAG with this process as its only member, gets its tokens, and starts the process that renews them.
fn enter_new(options: &Options, program: &OsStr, settings: Settings) -> Result<(), Error> {
    let source = Source::new(options.keytab.as_deref(), options.principal.as_deref(), options.ccache.as_deref())
        .map_err(Error::Refused)?;
    let ticket = Ticket::new(source, settings, &options.cells);
    let ring = make(options.name.as_deref().map_or_else(|| base_name(program), str::as_bytes))?;
    let tokens = first_tokens(&ticket, &ring, options.wait)?;
    Keeper::new(ticket, ring, tokens).start()
}

/// Keeps a named PAG: `pagctl keep`.
///
/// # Errors
/// When it cannot be made, or a member breaks it.
pub(crate) fn keep(name: &str) -> Result<Answer, Error> {
    named::keep(name)
}

/// The last part of a command's name.
fn base_name(program: &OsStr) -> &[u8] {
    Path::new(program).file_name().unwrap_or(program).as_bytes()
}

/// The account that the command runs as.
fn account(word: &str) -> Result<Passwd, Error> {
    if sys::ids().uid != [0; 3] {
        return Err(Error::Refused("only root can run a command as another user (--user)".to_owned()));
    }
    let name = CString::new(word).map_err(|_| Error::Refused("a user's name holds no NUL".to_owned()))?;
    let look = |who| sys::passwd(who).map_err(pag::Error::system(format!("look up user {word}")));
    let found = match look(Who::Name(&name))? {
        None => word.parse().ok().map(|uid| look(Who::Uid(uid))).transpose()?.flatten(),
        found => found,
    };
    found.ok_or_else(|| Error::Refused(format!("there is no user {word} (--user)")))
}

/// Makes this process that user, as setpriv(1) does, with the variables that every program of theirs expects.
fn become_account(account: &Passwd, command: &mut Command) -> Result<(), Error> {
    let Passwd { name, uid, gid, home } = account;
    let groups = sys::groups_of(name, *gid);
    Identity { uid: *uid, gid: *gid, groups }
        .become_it()
        .map_err(pag::Error::system(format!("become {}", User(*uid))))?;
    let text = |text: &CString| OsString::from_vec(text.to_bytes().to_vec());
    command.env("HOME", text(home)).env("USER", text(name)).env("LOGNAME", text(name));
    Ok(())
}

/// Makes a ring with this process as its only member.
fn make(name: &[u8]) -> Result<ProcessRing, Error> {
    let name = Name::random_of(name)?;
    let openafs = Device::opened().map_err(pag::Error::system("open the device of OpenAFS"))?;
    let made = Making { name: name.as_c(), kind: Kind::Pag, holder: None, openafs: openafs.as_ref() }.make();
    match made {
        Ok(serial) => Ok(ProcessRing { serial, name }),
        Err((step, source)) => {
            let [uid, ..] = sys::ids().uid;
            let is_full = source.kind() == io::ErrorKind::QuotaExceeded;
            let quota = if is_full { keyring::quota_is_short(uid) } else { None };
            let why = quota.map_or_else(|| source.to_string(), |quota| format!("{source}: {quota}"));
            Err(Error::Refused(format!("cannot {step}: {why}; the command was not started")))
        }
    }
}

/// Gets the first tokens into the ring. With `wait` it tries again, at most for as many seconds.
fn first_tokens(ticket: &Ticket, ring: &dyn Enter, wait: Option<Option<u64>>) -> Result<Vec<pag::types::Token>, Error> {
    let begun = Instant::now();
    let end = wait.flatten().map(Duration::from_secs);
    let (mut pause, longest) = PAUSES;
    loop {
        let why = match ticket.fill(ring) {
            Ok(tokens) => return Ok(tokens),
            Err(why) => why,
        };
        let of = User(ticket.uid());
        let left = end.map(|end| end.saturating_sub(begun.elapsed()));
        if wait.is_none() || left.is_some_and(|left| left.is_zero()) {
            let waited =
                if wait.is_some() { format!(" (waited {} s)", begun.elapsed().as_secs()) } else { String::new() };
            return Err(Error::Refused(format!("no tokens for {of}: {why}; the command was not started{waited}")));
        }
        pause = left.map_or(pause, |left| pause.min(left));
        errln!("pagctl: no tokens yet for {of}: {why}; the next attempt is in {} s", pause.as_secs_f32().ceil());
        std::thread::sleep(pause);
        pause = (pause * 2).min(longest).max(PAUSES.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pag_is_called_by_its_command() {
        for (program, name) in [("/usr/bin/podman", "podman"), ("make", "make"), ("..", ".."), ("/", "/")] {
            assert_eq!(base_name(OsStr::new(program)), name.as_bytes(), "{program}");
        }
    }
}
