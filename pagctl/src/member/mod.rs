//! What every process may do about its own PAG, without rights and without the helper: `pagctl id`, `tokens`, `unlog`,
//! `new` and `leave`.

mod id;
mod tokens;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Subcommand;
use pag::config::{self, Dirs};
use pag::membership;
use pag::types::Cell;

use crate::output::{Answer, Error};
use crate::remote;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the tokens of the PAG that you are in, of all AFS clients
    ///
    /// Exit status 1: none is good.
    Tokens {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Discard the tokens of the PAG that you are in, for all its members
    ///
    /// Exit status 1: you are in none.
    Unlog {
        /// Only those of this cell
        cell: Option<Cell>,
        /// Those of this PAG instead; `pagctl list` shows the ids
        #[arg(long)]
        pag: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show which PAG you are in
    ///
    /// Exit status 1: you are in none.
    Id {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a command as the only member of a new PAG, without tokens
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

/// The command of `new` and `leave`.
#[derive(Debug, clap::Args)]
pub(crate) struct Program {
    /// The command and its arguments [default: $SHELL, else /bin/sh]
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    words: Vec<OsString>,
}

impl Program {
    /// Executes the command in the place of this program. Returns only when that failed.
    fn execute(&self) -> Error {
        let shell = || std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
        let (name, arguments) = match self.words.split_first() {
            Some((name, arguments)) => (name.clone(), arguments),
            None => (shell(), &[][..]),
        };
        let source = Command::new(&name).args(arguments).exec();
        Error::Run { program: name.to_string_lossy().into_owned(), source }
    }
}

/// Runs a command of this room.
///
/// # Errors
/// When keyrings, an AFS client or the command cannot be used.
pub(crate) fn run(verb: &Verb) -> Result<Answer, Error> {
    // Complaints about the files are root's business: the helper has reported them.
    let (settings, _) = config::host(&Dirs::default());
    match verb {
        Verb::Tokens { json } => tokens::show(&settings, *json),
        Verb::Unlog { cell, pag: Some(pag), json } => remote::unlog(pag, cell.as_ref(), *json),
        Verb::Unlog { cell, pag: None, json } => tokens::unlog(&settings, cell.as_ref(), *json),
        Verb::Id { json } => Ok(id::show(&settings, *json)),
        Verb::New { program } => {
            membership::enter_new(&settings)?;
            Err(program.execute())
        }
        Verb::Leave { program } => {
            membership::leave(&settings)?;
            Err(program.execute())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_cannot_be_run_is_an_error_that_names_it() {
        let program = Program { words: vec!["/nonexistent/command".into()] };
        let error = program.execute();
        assert!(error.to_string().starts_with("cannot run /nonexistent/command: "), "{error}");
        assert_eq!(error.status(), 127);
    }
}
