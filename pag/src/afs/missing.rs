//! AFS clients that are configured, and that the kernel does not have: their modules are not loaded. That is often so after
//! an update of the kernel, for which no module was built.

use std::fmt;
use std::path::Path;

use super::openafs;
use crate::config::Settings;
use crate::types::{Client, ClientChoice};

/// Files that a configured OpenAFS has.
const OPENAFS_FILES: [&str; 3] = [openafs::OWN_CELL[0], "/etc/openafs/CellServDB", openafs::OWN_CELL[1]];
/// Debian's switch for hosts that have the package, such as file servers, and run no client.
const OPENAFS_SWITCH: (&str, &str) = ("/etc/openafs/afs.conf.client", "AFS_CLIENT=false");
/// Files that a configured kAFS has (kafs-client).
const KAFS_FILES: [&str; 2] = ["/etc/kafs/client.conf", "/etc/kafs/client.d"];

/// AFS clients without which no login gets tokens of AFS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingClients(Vec<(Client, &'static str)>);

impl MissingClients {
    /// The clients that are configured, if the host has none of them. `present` are those that it has. None, too, if no
    /// client of AFS is configured.
    ///
    /// With `client = auto`, a client is configured if its configuration is there.
    pub fn find(settings: &Settings, present: &[Client]) -> Option<Self> {
        let of_afs = [Client::OpenAfs, Client::Kafs];
        if present.iter().any(|client| of_afs.contains(client)) {
            return None;
        }
        let wanted: Vec<(Client, &'static str)> = match &settings.client {
            ClientChoice::None => Vec::new(),
            ClientChoice::Only(clients) => {
                of_afs.into_iter().filter(|one| clients.contains(one)).map(|one| (one, "client in pag.conf")).collect()
            }
            ClientChoice::Auto => of_afs.into_iter().filter_map(|one| Some((one, configuration(one)?))).collect(),
        };
        (!wanted.is_empty()).then_some(MissingClients(wanted))
    }
}

/// The file that says that a client is configured on this host.
fn configuration(client: Client) -> Option<&'static str> {
    let files = match client {
        Client::Keyring => return None,
        Client::OpenAfs => &OPENAFS_FILES[..],
        Client::Kafs => &KAFS_FILES[..],
    };
    let found = files.iter().copied().find(|path| Path::new(path).exists())?;
    let (path, switched_off) = OPENAFS_SWITCH;
    let is_off =
        || std::fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line.trim() == switched_off));
    (client != Client::OpenAfs || !is_off()).then_some(found)
}

impl fmt::Display for MissingClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (client, source)) in self.0.iter().enumerate() {
            let (name, command, unit) = match client {
                Client::Kafs => ("kAFS", "modprobe kafs", "afs.mount"),
                _ => ("OpenAFS", "modprobe openafs", "openafs-client"),
            };
            let and = if index > 0 { "; " } else { "" };
            write!(
                f,
                "{and}{name} is configured ({source}) and its kernel module is not loaded: run '{command}'; if that does not help, 'systemctl status {unit}' says why"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_client_is_missed_if_no_client_of_afs_is_there() {
        let find = |client: ClientChoice, present: &[Client]| {
            MissingClients::find(&Settings { client, ..Settings::default() }, present).map(|found| found.to_string())
        };
        let both = || ClientChoice::Only(vec![Client::Keyring, Client::OpenAfs, Client::Kafs]);
        assert_eq!(find(both(), &[Client::Keyring, Client::Kafs]), None, "a host has one of the two");
        let missed = find(both(), &[Client::Keyring]).unwrap();
        assert!(missed.contains("modprobe openafs") && missed.contains("modprobe kafs"), "{missed}");
        assert_eq!(find(ClientChoice::Only(vec![Client::Keyring]), &[]), None);
        assert_eq!(find(ClientChoice::None, &[]), None);
    }
}
