//! What every process may do about its own PAG: `pagctl id`, `new` and `leave`; and, in [`tokens`], with the tokens there.

mod tokens;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Subcommand;
use pag::config::{self, Cell, Dirs, Settings};
use pag::membership::{self, Membership, OpenAfs};
use serde::Serialize;

use crate::output::{self, Answer, Error, out};

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the tokens of the PAG that you are in, of all AFS clients. Exit status 1: none is good
    Tokens {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Discard the tokens of the PAG that you are in, for all its members. Exit status 1: you are in none
    Unlog {
        /// Only those of this cell
        cell: Option<Cell>,
        /// Those of this PAG instead, by its id, as `list` shows it
        #[arg(long)]
        pag: Option<String>,
    },
    /// Show in which PAG you are. Exit status 1: in none
    Id {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a command in a new PAG, without tokens, whose only member it is
    New {
        #[command(flatten)]
        program: Program,
    },
    /// Run a command outside of your PAG, without its tokens
    Leave {
        #[command(flatten)]
        program: Program,
    },
}

/// What to run, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Program {
    /// The command and its arguments [default: $SHELL, else /bin/sh]
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    words: Vec<OsString>,
}

impl Program {
    /// Becomes it. Returns only when that failed.
    fn run(&self) -> Error {
        let shell = || std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
        let (name, arguments) = match self.words.split_first() {
            Some((name, arguments)) => (name.clone(), arguments),
            None => (shell(), &[][..]),
        };
        let source = Command::new(&name).args(arguments).exec();
        Error::Run { program: name.to_string_lossy().into_owned(), source }
    }
}

/// Does it.
///
/// # Errors
/// When keyrings, an AFS client or the command cannot be used.
pub(crate) fn run(verb: &Verb) -> Result<Answer, Error> {
    // What is wrong in the files the helper has said already; to a person without rights in them it means nothing.
    let (settings, _) = config::host(&Dirs::default());
    match verb {
        Verb::Tokens { json } => tokens::show(&settings, *json),
        Verb::Unlog { cell, pag: Some(pag) } => crate::remote::unlog(pag, cell.as_ref()),
        Verb::Unlog { cell, pag: None } => tokens::unlog(&settings, cell.as_ref()),
        Verb::Id { json } => Ok(id(&settings, *json)),
        Verb::New { program } => {
            membership::enter_new(&settings)?;
            Err(program.run())
        }
        Verb::Leave { program } => {
            membership::leave(&settings)?;
            Err(program.run())
        }
    }
}

/// What `pagctl id --json` prints.
#[derive(Debug, Serialize)]
struct Id {
    /// Whether it is a PAG, for any client.
    member: bool,
    /// The ring of a PAG that the PAM module has made.
    ring: Option<i32>,
    /// Whether it may be such a ring, which cannot be told from inside this user namespace.
    untold: bool,
    /// The session keyring; none for one that all processes of the uid have who have no other.
    session: Option<i32>,
    /// The clients that take the session keyring for the PAG.
    by_session: Vec<&'static str>,
    openafs: OpenAfsId,
}

/// What OpenAFS says, in JSON.
#[derive(Debug, Serialize)]
struct OpenAfsId {
    present: bool,
    pag: Option<u32>,
    trouble: Option<String>,
}

impl From<&OpenAfs> for OpenAfsId {
    fn from(openafs: &OpenAfs) -> Self {
        OpenAfsId {
            present: !matches!(openafs, OpenAfs::Absent),
            pag: if let OpenAfs::Pag(number) = openafs { Some(*number) } else { None },
            trouble: if let OpenAfs::Silent(why) = openafs { Some(why.to_string()) } else { None },
        }
    }
}

fn id(settings: &Settings, json: bool) -> Answer {
    let here = Membership::here(settings);
    if json {
        let id = Id {
            member: here.is_one(),
            ring: here.ring.map(|ring| ring.serial.get()),
            untold: here.untold,
            session: here.session.map(|session| session.get()),
            by_session: here.by_session.iter().map(|client| client.as_str()).collect(),
            openafs: OpenAfsId::from(&here.openafs),
        };
        output::json(&id);
    } else {
        out!("{}", words(&here));
    }
    if here.is_one() { Answer::AllRight } else { Answer::ToDo }
}

/// Where one is, for people.
fn words(here: &Membership) -> String {
    let first = match () {
        () if here.is_one() => "You are in a PAG.",
        () if here.untold => "It cannot be told from inside this user namespace whether you are in a PAG.",
        () => "You are in no PAG.",
    };
    let mut lines = vec![first.to_owned()];
    match (&here.ring, here.session) {
        (None, Some(session)) if here.untold => lines.push(format!(
            "  keyring    {session}, which looks like a ring of pam_pag's: inside this user namespace (PrivateUsers=, unshare) the \
             kernel does not show the group that would prove it; run pagctl outside of it"
        )),
        (Some(ring), _) => lines.push(format!("  ring       {} of uid {}", ring.serial, ring.owner)),
        (None, Some(session)) => lines.push(format!("  keyring    {session}, no ring of pam_pag's")),
        (None, None) => lines.push("  keyring    none of your own".to_owned()),
    }
    if here.serves_nobody() {
        lines.push("  clients    this host has no AFS client that is served".to_owned());
    }
    lines.extend(openafs_words(&here.openafs).map(|words| format!("  openafs    {words}")));
    for client in &here.by_session {
        let words = match here.session {
            Some(session) => format!("session keyring {session}"),
            None => "none: this process has no session keyring".to_owned(),
        };
        lines.push(format!("  {:10} {words}", client.as_str()));
    }
    lines.join("\n") + "\n"
}

/// What OpenAFS says; nothing where it is not.
fn openafs_words(openafs: &OpenAfs) -> Option<String> {
    Some(match openafs {
        OpenAfs::Absent => return None,
        OpenAfs::Outside => {
            "none: tokens that you get there are for every process of your uid outside of PAGs".to_owned()
        }
        OpenAfs::Pag(number) => format!("PAG {number} ({number:#x})"),
        OpenAfs::Silent(why) => format!("does not tell: {why}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pag::afs::Client;
    use pag::keyring::Serial;

    fn here(openafs: OpenAfs, by_session: Vec<Client>) -> Membership {
        Membership { session: Serial::new(7), ring: None, untold: false, openafs, by_session }
    }

    #[test]
    fn each_client_says_its_own_of_where_one_is() {
        let both = words(&here(OpenAfs::Pag(0x4100_0001), vec![Client::Kafs]));
        assert_eq!(
            both,
            "You are in a PAG.\n  keyring    7, no ring of pam_pag's\n  openafs    PAG 1090519041 (0x41000001)\n  \
             kafs       session keyring 7\n"
        );
        let outside = words(&here(OpenAfs::Outside, Vec::new()));
        assert!(outside.starts_with("You are in no PAG.\n") && outside.contains("openafs    none"), "{outside}");
        let nowhere = words(&Membership { session: None, ..here(OpenAfs::Absent, vec![Client::Kafs]) });
        assert!(nowhere.starts_with("You are in no PAG.\n") && nowhere.contains("none of your own"), "{nowhere}");
        assert!(!nowhere.contains("openafs") && !nowhere.contains("clients"), "{nowhere}");
        let untold = words(&Membership { untold: true, ..here(OpenAfs::Absent, Vec::new()) });
        assert!(untold.starts_with("It cannot be told") && !untold.contains("no ring of"), "{untold}");
        let nobody = words(&here(OpenAfs::Absent, Vec::new()));
        assert!(nobody.contains("no AFS client"), "{nobody}");
    }

    #[test]
    fn a_command_that_cannot_be_run_is_an_error_that_names_it() {
        let program = Program { words: vec!["/nonexistent/command".into()] };
        let error = program.run();
        assert!(error.to_string().starts_with("cannot run /nonexistent/command: "), "{error}");
        assert_eq!(error.status(), 127);
    }
}
