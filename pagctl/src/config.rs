//! `pagctl config check`: whether the configuration, or a file that is to become part of it, has mistakes. It changes
//! nothing, so that Ansible (`validate`) and Puppet (`validate_cmd`) can run it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use pag::config::{self, Dirs, Names};
use pag::sys;
use serde::Serialize;

use crate::output::{self, Answer, Error, FindingJson, errln, outln};
use crate::pam::Host;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Name every mistake in the configuration, or in one file
    ///
    /// Exit status 1: there are mistakes; 2: it cannot be read.
    Check {
        /// Only this file, which need not be root's yet [default: pag.conf and its drop-ins]
        file: Option<PathBuf>,
        /// Look for the configuration, programs and keytabs below this directory
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    findings: Vec<FindingJson>,
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read: it is missing, no regular file, too large, or no text.
pub(crate) fn run(verb: &Verb) -> Result<Answer, Error> {
    let Verb::Check { file, root, json } = verb;
    let host = Host::new(root)?;
    let find = |path: &Path| host.find(&path.to_string_lossy());
    let is_root = sys::ids().uid.contains(&0);
    let is_visible = |_: &Path| true;
    let names = Names { find: &find, is_visible: &is_visible, keytabs: is_root, is_running: host.is_running() };
    let complaints = match file {
        Some(file) => {
            let text = text_of(file)?
                .ok_or_else(|| Error::Refused(format!("cannot check {}: no such file", file.display())))?;
            config::check_text(file, &text, &names)
        }
        None => {
            let dirs = dirs(&host)?;
            // Where it is missing, the defaults hold.
            text_of(&dirs.main)?;
            config::check(&dirs, &names)
        }
    };
    if *json {
        output::json(&Report { findings: complaints.iter().map(FindingJson::from).collect() });
    } else if complaints.is_empty() {
        outln!("No mistakes.");
    }
    if !json {
        complaints.iter().for_each(|complaint| outln!("{complaint}"));
        if !is_root {
            errln!("pagctl: keytabs were not looked at, which only root can");
        }
    }
    Ok(if complaints.is_empty() { Answer::AllRight } else { Answer::ToDo })
}

fn text_of(path: &Path) -> Result<Option<String>, Error> {
    config::read_text(path).map_err(|why| Error::Refused(format!("cannot check {}: {why}", path.display())))
}

/// The configuration of the host. Below another root its files belong to the root's owner.
fn dirs(host: &Host) -> Result<Dirs, Error> {
    let usual = Dirs::default();
    let find = |path: &Path| host.find(&path.to_string_lossy()).map_err(Error::file("look for", path));
    let owner = fs::metadata(host.root()).map_or(0, |found| found.uid());
    Ok(Dirs {
        main: find(&usual.main)?,
        drop_ins: usual.drop_ins.iter().map(|path| find(path)).collect::<Result<_, _>>()?,
        login_defs: find(&usual.login_defs)?,
        owner: if host.is_running() { usual.owner } else { owner },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_shape_of_its_page() {
        let complaint = |line| pag::config::Complaint {
            place: pag::config::ConfigSource::File("/etc/pag/pag.conf".into(), line),
            what: "it is wrong".to_owned(),
            right: "another".to_owned(),
        };
        let findings = [complaint(0), complaint(3)].iter().map(FindingJson::from).collect();
        let json = serde_json::to_value(Report { findings }).unwrap();
        output::schema::check("config check", &json);
        let lines = (&json["findings"][0]["line"], &json["findings"][1]["line"]);
        assert_eq!(lines, (&serde_json::Value::Null, &3.into()));
    }
}
