//! The person's view of PAGs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks on its terminal")]

mod bus;
mod error;
mod pam;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;

/// Shows and looks after AFS authentication groups (PAGs).
///
/// Exit status: 0 all right, 1 something is to be done, 2 error.
#[derive(Debug, Parser)]
#[command(name = "pagctl", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the PAG that you are in; root is shown all of them. Exit status 1: in none
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    #[command(flatten)]
    Bus(bus::Verb),
    /// Check the PAM stacks, put pam_pag into them, take it out
    #[command(subcommand)]
    Pam(pam::Verb),
}

/// How a verb ended, when it could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Nothing needs doing.
    AllRight,
    /// Something does.
    ToDo,
}

fn run(cli: &Cli) -> Result<Answer, Error> {
    match &cli.verb {
        Verb::Status { json } => Ok(status::run(*json)?),
        Verb::Bus(verb) => bus::run(verb),
        Verb::Pam(verb) => pam::run(verb),
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(Answer::AllRight) => ExitCode::SUCCESS,
        Ok(Answer::ToDo) => ExitCode::from(1),
        Err(error) => {
            eprintln!("pagctl: {error}");
            ExitCode::from(2)
        }
    }
}
