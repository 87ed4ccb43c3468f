//! The project's tasks: `cargo xtask demo`, `test`, `prove`, `vm`, `bench`, `install`, `dist`,
//! `uninstall`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for developers: it stops at a fault, and says which"
)]

mod apache;
mod bench;
mod breaks;
mod cache;
mod demo;
mod dist;
#[cfg(test)]
mod docs;
mod image;
mod install;
mod libpag;
mod machine;
mod prove;
mod roots;
mod shell;
#[cfg(test)]
mod structure;
mod tiers;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the pam_pag project. All but `test --list` need root on Debian. `install` and `uninstall` need root only
/// without
/// `--destdir`, and run on other systems, too.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Show the main job on a real login, without pam_pag and with it
    Demo {
        /// With homes in AFS, on a virtual machine with a real cell
        #[arg(long)]
        afs: bool,
    },
    /// Run the tests. The last line says how many passed, failed and were skipped
    Test(tiers::Choice),
    /// Break the code on purpose, one entry of tests/breaks.toml at a time, and demand that its scenario fails
    Prove {
        /// Only these breaks, by their names
        names: Vec<String>,
        /// Only check that the code with each break compiles
        #[arg(long)]
        check: bool,
    },
    /// Run a command as root on a virtual machine with an AFS cell, print its output, and discard the machine
    Vm(vm::Choice),
    /// Measure speed and size, as ratios within one run. The exit status is 1 if a bound is missed or a result is not
    /// measurable
    Bench {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// On a machine with a real AFS cell, beside pam_afs_session
        #[arg(long)]
        afs: bool,
    },
    /// Build a release and put it into place
    Install {
        /// Put it below this directory instead of /
        #[arg(long, default_value = "/")]
        destdir: PathBuf,
        /// Build mod_pag, too, and put it where Debian's Apache has its modules. This needs apache2-dev
        #[arg(long)]
        apache: bool,
    },
    /// Build Debian packages of a release, in target/dist, and run lintian on them
    Dist,
    /// Remove the installed files, except the configuration
    Uninstall {
        /// The directory that `install --destdir` was given
        #[arg(long, default_value = "/")]
        destdir: PathBuf,
    },
}

fn main() -> ExitCode {
    let well = match Cli::parse().task {
        Task::Demo { afs: false } => demo::run(),
        Task::Demo { afs: true } => demo::afs(),
        Task::Test(choice) => tiers::run(&choice),
        Task::Prove { names, check: false } => prove::run(&names),
        Task::Prove { names, check: true } => prove::check(&names),
        Task::Vm(choice) => vm::command(&choice),
        Task::Bench { json, afs } => bench::run(json, afs),
        Task::Install { destdir, apache } => install::install(&destdir, apache),
        Task::Dist => dist::run(),
        Task::Uninstall { destdir } => install::uninstall(&destdir),
    };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
