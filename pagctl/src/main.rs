//! `pagctl`: shows PAGs, and looks after them, from the command line. Here are the arguments, and which room does what.

mod adopt;
mod config;
mod doctor;
mod explain;
mod log;
mod member;
mod metrics;
mod output;
mod pam;
mod remote;
mod run;
mod status;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::output::{Answer, Error, errln, out};

/// Shows and looks after AFS authentication groups (PAGs).
///
/// Exit status: 0 all right, 1 something is to be done, 2 error. run, new and
/// leave have that of their command, log has that of journalctl.
#[derive(Debug, Parser)]
#[command(name = "pagctl", version, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the PAG that you are in; root sees all PAGs
    ///
    /// Exit status 1: you are in none.
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Show what is configured, and which line decides it
        ///
        /// Exit status 1: the files have mistakes.
        #[arg(long)]
        explain: bool,
        /// For logins at this PAM service
        #[arg(long, value_name = "NAME", requires = "explain")]
        service: Option<String>,
        /// For logins of this user
        #[arg(long, value_name = "NAME", requires = "explain")]
        user: Option<String>,
    },
    #[command(flatten)]
    Remote(remote::Verb),
    /// Give a user's tokens to their user manager from before. Needs root
    ///
    /// That is a manager that was started outside of the user's PAG, before pam_pag
    /// was installed.
    ///
    /// Exit status: 1 with --all, if a user has no PAG yet, or with --dry-run.
    #[command(override_usage = "pagctl adopt [--json] USER\n       pagctl adopt [--json] --all [--dry-run]")]
    Adopt {
        /// Name or uid
        #[arg(required_unless_present_any = ["inside", "all"])]
        user: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// All managers that run outside of their users' PAGs
        #[arg(long, conflicts_with_all = ["user", "inside"])]
        all: bool,
        /// Show which managers these are, and change nothing
        #[arg(short = 'n', long, requires = "all")]
        dry_run: bool,
        /// The part that a service of that manager does
        #[arg(long, hide = true, conflicts_with = "user")]
        inside: bool,
    },
    /// Show the messages of module, helper and jobs, by journalctl
    ///
    /// Each has its explanation from the catalog. Needs root, or the group adm.
    Log(log::Log),
    /// Examine this machine: what is wrong, why it matters, what mends it
    ///
    /// It changes nothing. Exit status by the worst finding: 0 all is fine, 1 warning,
    /// 2 error; these are Nagios's, too.
    Doctor(doctor::Doctor),
    /// Print numbers for monitoring, as Prometheus reads them. Needs root
    ///
    /// The numbers that the helper would tell are missing while it is away;
    /// pag_helper_up is 0 then.
    Metrics(metrics::Metrics),
    #[command(flatten)]
    Member(member::Verb),
    /// Run a command in a new PAG with tokens, and renew them while it runs
    ///
    /// The tokens are there before the command starts. Exit status: that of the
    /// command, 125 if there are no tokens, 126 or 127 if it cannot be run.
    Run(run::Options),
    /// Keep the PAG of a section [pag NAME]: the program of pag@NAME.service
    ///
    /// It makes the PAG, renews its tokens, and ends it on SIGTERM. On SIGHUP it
    /// gets new tokens. Needs root.
    Keep {
        /// The PAG's name
        name: String,
    },
    /// Print what a shell needs to complete these commands
    ///
    /// It is installed for bash, zsh and fish.
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Check the configuration
    #[command(subcommand)]
    Config(config::Verb),
    /// Check the PAM stacks, put pam_pag into them, take it out
    #[command(subcommand)]
    Pam(pam::Verb),
}

fn run(cli: &Cli) -> Result<Answer, Error> {
    match &cli.verb {
        Verb::Status { json, explain: true, service, user } => {
            Ok(explain::run(*json, service.as_deref(), user.as_deref()))
        }
        Verb::Status { json, .. } => Ok(status::run(*json)?),
        Verb::Adopt { user: Some(user), json, .. } => adopt::run(user, *json),
        Verb::Adopt { all: true, json, dry_run, .. } => adopt::run_all(*json, *dry_run),
        Verb::Adopt { user: None, .. } => adopt::inside(),
        Verb::Log(log) => match log::run(log)? {},
        Verb::Doctor(doctor) => doctor::run(doctor),
        Verb::Metrics(metrics) => metrics::run(metrics),
        Verb::Member(verb) => member::run(verb),
        Verb::Run(options) => match run::run(options)? {},
        Verb::Keep { name } => run::keep(name),
        Verb::Remote(verb) => remote::run(verb),
        Verb::Completion { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "pagctl", &mut text);
            out!("{}", String::from_utf8_lossy(&text));
            Ok(Answer::AllRight)
        }
        Verb::Config(verb) => config::run(verb),
        Verb::Pam(verb) => pam::run(verb),
    }
}

fn main() -> ExitCode {
    pag::report::name_users_by(output::user_name);
    let status = match Cli::try_parse() {
        Ok(cli) => match run(&cli) {
            Ok(Answer::AllRight) => 0,
            Ok(Answer::ToDo) => 1,
            Ok(Answer::Broken) => 2,
            Err(error) => {
                errln!("pagctl: {error}");
                if matches!(cli.verb, Verb::Run(_)) { error.status_before_command() } else { error.status() }
            }
        },
        Err(help) if !help.use_stderr() => {
            output::note(help.print());
            0
        }
        Err(wrong) => {
            let _ = wrong.print();
            let is_run = std::env::args_os().nth(1).is_some_and(|verb| verb == "run");
            if is_run { output::NOT_STARTED } else { 2 }
        }
    };
    match output::finish() {
        // The verb has done its work, but its answer is lost.
        Err(error) if status < 2 => {
            errln!("pagctl: cannot write to standard output: {error}");
            ExitCode::from(2)
        }
        _ => ExitCode::from(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(command: &clap::Command, look: &mut dyn FnMut(&clap::Command)) {
        look(command);
        command.get_subcommands().for_each(|one| each(one, look));
    }

    #[test]
    fn the_page_of_json_names_the_commands_that_have_it() {
        fn look(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            if command.get_arguments().any(|argument| argument.get_id() == "json") {
                found.push(path.to_owned());
            }
            for verb in command.get_subcommands() {
                look(verb, format!("{path} {}", verb.get_name()).trim(), found);
            }
        }
        let mut found = vec!["status --explain".to_owned()];
        look(&Cli::command(), "", &mut found);
        found.sort_unstable();
        assert_eq!(found, output::schema::commands().into_keys().collect::<Vec<_>>());
    }

    #[test]
    fn each_command_has_its_exit_statuses_in_the_manual() {
        fn look(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            if !command.has_subcommands() {
                found.push(path.to_owned());
            }
            for verb in command.get_subcommands() {
                look(verb, format!("{path} {}", verb.get_name()).trim(), found);
            }
        }
        let page = include_str!("../../docs/man/pagctl.8").replace("\\-", "-");
        let statuses = page.split(".SH ").find(|section| section.starts_with("\"EXIT STATUS\"")).unwrap();
        let rows = statuses.split(".TS\n").skip(1).filter_map(|table| table.split_once("\n_\n")?.1.split(".TE").next());
        // The last line of a cell of several lines begins with its end.
        let is_row = |line: &&str| line.contains('\t') && !line.starts_with("T}");
        let rows = rows.flat_map(str::lines).filter(is_row).filter_map(|line| line.split('\t').next());
        let mut rows: Vec<&str> = rows.collect();
        let mut found = vec!["status --explain".to_owned()];
        look(&Cli::command(), "", &mut found);
        rows.sort_unstable();
        found.sort_unstable();
        assert_eq!(rows, found);
    }

    #[test]
    fn help_fits_into_80_columns() {
        let mut command = Cli::command();
        command.build();
        each(&command, &mut |one| {
            let (short, long) = (one.clone().render_help(), one.clone().render_long_help());
            for line in
                [short, long].iter().flat_map(|text| text.to_string().lines().map(str::to_owned).collect::<Vec<_>>())
            {
                assert!(line.chars().count() <= 80, "{}: {line}", one.get_name());
            }
        });
    }
}
