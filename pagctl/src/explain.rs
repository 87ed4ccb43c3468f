//! `pagctl status --explain`: what is configured for a login, and which line decides it.

use std::ffi::CString;

use pag::config::{self, Complaint, Dirs, Explained, Subject};
use pag::sys::UserGroups;
use serde::Serialize;

use crate::output::{self, Answer, FindingJson, out, table};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Explanation {
    service: Option<String>,
    user: Option<String>,
    options: Vec<OneOption>,
    /// What is wrong in the files, and has no effect.
    findings: Vec<FindingJson>,
    /// The same for people.
    #[serde(skip)]
    complaints: Vec<String>,
}

#[derive(Debug, Serialize)]
struct OneOption {
    name: &'static str,
    value: String,
    /// `FILE:LINE` of the line that decides; none for the built-in default.
    place: Option<String>,
}

impl From<Explained> for OneOption {
    fn from(one: Explained) -> Self {
        OneOption { name: one.name, value: one.value, place: one.place.map(|place| place.to_string()) }
    }
}

/// Prints what the files say. There is something to do where they are wrong.
pub(crate) fn run(json: bool, service: Option<&str>, user: Option<&str>) -> Answer {
    let name = user.and_then(|name| CString::new(name).ok());
    let person = name.as_deref().map(UserGroups::new);
    let is_in = |group: &str| person.as_ref().is_some_and(|person| person.is_in(group));
    let subject = user.map(|name| Subject { name, is_in: &is_in });
    // libpam puts the names of services into lower case.
    let service = service.map(str::to_ascii_lowercase);
    let (options, complaints) = config::explain(&Dirs::default(), service.as_deref(), subject.as_ref());
    let explanation = Explanation {
        service,
        user: user.map(str::to_owned),
        options: options.into_iter().map(OneOption::from).collect(),
        findings: complaints.iter().map(FindingJson::from).collect(),
        complaints: complaints.iter().map(Complaint::to_string).collect(),
    };
    if json {
        output::json(&explanation);
    } else {
        out!("{}", words(&explanation));
    }
    if explanation.complaints.is_empty() { Answer::AllRight } else { Answer::ToDo }
}

/// The explanation for people: a line for each option.
fn words(explanation: &Explanation) -> String {
    let scope = match (&explanation.user, &explanation.service) {
        (None, None) => "On this host".to_owned(),
        (Some(user), None) => format!("For {user}, at services that have no section of their own"),
        (None, Some(service)) => format!("At the PAM service {service}, for users that have no section of their own"),
        (Some(user), Some(service)) => format!("For {user} at the PAM service {service}"),
    };
    let mut text = format!("{scope} (arguments on PAM lines are not read):\n");
    let row = |OneOption { name, value, place }: &OneOption| {
        let value = if value.is_empty() { format!("{} (default)", default_of(name)) } else { value.clone() };
        [(*name).to_owned(), format!("= {value}"), place.clone().unwrap_or_else(|| "built in".to_owned())]
    };
    text += &table("  ", &explanation.options.iter().map(row).collect::<Vec<_>>());
    for complaint in &explanation.complaints {
        text.push_str(&format!("wrong: {complaint}\n"));
    }
    text
}

/// What holds for an option that is set to nothing.
fn default_of(name: &str) -> &'static str {
    match name {
        "program" => config::AKLOG,
        "kafs_program" => config::AKLOG_KAFS,
        "afs_cells" => "the host's own cell",
        "identity" => "what the account's name stands for",
        "openafs_device" => "the known places",
        "principal" => "the account's name, in its realm",
        _ => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_is_a_line_that_names_its_place() {
        let option = |name, value: &str, place: Option<&str>| OneOption {
            name,
            value: value.to_owned(),
            place: place.map(str::to_owned),
        };
        let explanation = Explanation {
            service: Some("sshd".to_owned()),
            user: Some("alice".to_owned()),
            options: vec![option("scope", "session", Some("/etc/pag/pag.conf:3")), option("program", "", None)],
            findings: Vec::new(),
            complaints: vec!["/etc/pag/pag.conf:9: it is wrong".to_owned()],
        };
        output::schema::check("status --explain", &serde_json::to_value(&explanation).unwrap());
        let text = words(&explanation);
        let expected = "For alice at the PAM service sshd (arguments on PAM lines are not read):\n\
                        \x20 scope    = session                   /etc/pag/pag.conf:3\n\
                        \x20 program  = /usr/bin/aklog (default)  built in\n\
                        wrong: /etc/pag/pag.conf:9: it is wrong\n";
        assert_eq!(text, expected);
    }
}
