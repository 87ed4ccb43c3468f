//! `pagctl id`: which PAG this process is in, as each client sees it.

use pag::config::Settings;
use pag::membership::{Membership, OpenAfs};
use pag::process_ring::{Kind, ProcessRing};
use pag::report::User;
use serde::Serialize;

use crate::output::{self, Answer, MakerJson, out};

/// Why there may be no PAG at all.
pub(super) const NO_CLIENT: &str = "this host has no AFS client, or pag.conf(5) names none that it has";

/// What `pagctl id --json` prints.
#[derive(Debug, Serialize)]
struct IdJson {
    /// Whether the process is in a PAG, for any client.
    member: bool,
    /// The ring, where the PAM module made the PAG.
    ring: Option<i32>,
    /// The process that made the PAG for itself.
    maker: Option<MakerJson>,
    /// Whether the session keyring may be such a ring: this user namespace hides the group that would prove it.
    untold: bool,
    /// The session keyring; none for the one that all processes of the uid share which have no other.
    session: Option<i32>,
    /// The clients for which the session keyring is the PAG.
    by_session: Vec<&'static str>,
    openafs: OpenAfsJson,
}

/// What OpenAFS answers, in JSON.
#[derive(Debug, Serialize)]
pub(super) struct OpenAfsJson {
    present: bool,
    pag: Option<u32>,
    trouble: Vec<String>,
}

impl From<&OpenAfs> for OpenAfsJson {
    fn from(openafs: &OpenAfs) -> Self {
        OpenAfsJson {
            present: !matches!(openafs, OpenAfs::Absent),
            pag: if let OpenAfs::Pag(number) = openafs { Some(*number) } else { None },
            trouble: if let OpenAfs::Silent(why) = openafs { vec![why.to_string()] } else { Vec::new() },
        }
    }
}

impl From<&Membership> for IdJson {
    fn from(here: &Membership) -> Self {
        IdJson {
            member: here.is_in_pag(),
            ring: here.ring.map(|ring| ring.serial.get()),
            maker: of_process(here).map(MakerJson::from),
            untold: here.unproven,
            session: here.session.map(|session| session.get()),
            by_session: here.by_session.iter().map(|client| client.as_str()).collect(),
            openafs: OpenAfsJson::from(&here.openafs),
        }
    }
}

/// Shows the PAG of this process. There is something to do when it is in none.
pub(super) fn show(settings: &Settings, json: bool) -> Answer {
    let here = Membership::here(settings);
    if json {
        output::json(&IdJson::from(&here));
    } else {
        out!("{}", words(&here));
    }
    if here.is_in_pag() { Answer::AllRight } else { Answer::ToDo }
}

/// The ring that a process has made for itself, if this process is in its PAG.
fn of_process(here: &Membership) -> Option<&ProcessRing> {
    here.process_ring.as_ref().filter(|(_, kind)| *kind == Kind::Pag).map(|(ring, _)| ring)
}

/// The PAG of this process, for people.
fn words(here: &Membership) -> String {
    let first = match () {
        () if here.is_in_pag() => "You are in a PAG.",
        () if here.unproven => "It cannot be told from inside this user namespace whether you are in a PAG.",
        () => "You are in no PAG.",
    };
    let mut lines = vec![first.to_owned()];
    if let Some((ring, kind)) = &here.process_ring {
        let serial = ring.serial;
        lines.push(match kind {
            Kind::Pag => format!("  ring       {serial}, {}", MakerJson::from(ring)),
            Kind::NoPag => format!("  keyring    {serial}, of threads that are in no PAG of {}", ring.name.maker()),
        });
    }
    match (&here.ring, here.session) {
        (None, Some(_)) if here.process_ring.is_some() => {}
        (None, Some(session)) if here.unproven => lines.push(format!(
            "  keyring    {session}, which looks like a ring of pam_pag: inside this user namespace (PrivateUsers=, unshare) the \
             kernel does not show the group that would prove it; run pagctl outside of it"
        )),
        (Some(ring), _) => lines.push(format!("  ring       {} of {}", ring.serial, User(ring.owner))),
        (None, Some(session)) => lines.push(format!("  keyring    {session}, no ring of pam_pag's")),
        (None, None) => lines.push("  keyring    none of your own".to_owned()),
    }
    if here.has_no_client() {
        lines.push(format!("  clients    {NO_CLIENT}"));
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

/// What OpenAFS answers, for people; none where the host has no OpenAFS.
fn openafs_words(openafs: &OpenAfs) -> Option<String> {
    Some(match openafs {
        OpenAfs::Absent => return None,
        OpenAfs::Outside => {
            "none: a token that you get there serves every process of your uid outside of PAGs".to_owned()
        }
        OpenAfs::Pag(number) => format!("PAG {number} ({number:#x})"),
        OpenAfs::Silent(why) => format!("does not tell: {why}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pag::keyring::Serial;
    use pag::types::Client;

    fn here(openafs: OpenAfs, by_session: Vec<Client>) -> Membership {
        Membership { session: Serial::new(7), ring: None, process_ring: None, unproven: false, openafs, by_session }
    }

    #[test]
    fn json_has_the_shape_of_its_page() {
        let silent = || OpenAfs::Silent(std::io::Error::from_raw_os_error(5));
        for openafs in [OpenAfs::Absent, OpenAfs::Outside, OpenAfs::Pag(0x4100_0001), silent()] {
            let id = IdJson::from(&here(openafs, vec![Client::Kafs]));
            output::schema::check("id", &serde_json::to_value(&id).unwrap());
        }
    }

    #[test]
    fn id_lists_the_pag_of_each_client() {
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
        let unproven = words(&Membership { unproven: true, ..here(OpenAfs::Absent, Vec::new()) });
        assert!(unproven.starts_with("It cannot be told") && !unproven.contains("no ring of"), "{unproven}");
        let no_client = words(&here(OpenAfs::Absent, Vec::new()));
        assert!(no_client.contains("no AFS client"), "{no_client}");
    }
}
