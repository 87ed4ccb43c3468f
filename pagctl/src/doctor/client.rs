//! AFS clients: whether the one that is configured is loaded, and knows its cell.

use pag::types::{Client, ClientChoice};

use super::finding::{Finding, Problem};
use super::host::{Host, Look, QUICK};

/// The device of OpenAFS's kernel module, and of modules with the same interface.
const DEVICES: [&str; 3] = ["/proc/fs/openafs/afs_ioctl", "/proc/fs/nnpfs/afs_ioctl", "/proc/fs/auristorfs/afs_ioctl"];
/// The files of OpenAFS's configuration that name the host's cell, and those that name cells with their servers.
const THIS_CELL: [&str; 2] = ["/etc/openafs/ThisCell", "/usr/vice/etc/ThisCell"];
const CELLS: [&str; 2] = ["/etc/openafs/CellServDB", "/usr/vice/etc/CellServDB"];
/// The configuration of kafs-client.
const KAFS: [&str; 2] = ["/etc/kafs/client.conf", "/usr/lib/systemd/system/afs.mount"];

/// Whether pag.conf has this client served.
pub(super) fn is_wanted(host: &Host, client: Client) -> bool {
    match &host.settings.client {
        ClientChoice::None => false,
        ClientChoice::Auto => client != Client::Keyring,
        ClientChoice::Only(clients) => clients.contains(&client),
    }
}

/// Whether the kernel has this client now.
pub(super) fn is_loaded(host: &Host, client: Client) -> bool {
    let named = host.settings.openafs_device.as_deref().and_then(|path| path.to_str());
    match client {
        Client::Keyring => true,
        Client::OpenAfs => DEVICES.into_iter().chain(named).any(|path| host.has(path)),
        Client::Kafs => host.has("/proc/fs/afs"),
    }
}

/// The file for which a client counts as configured on this host.
fn configured(host: &Host, client: Client) -> Option<&'static str> {
    let files: &[&str] = match client {
        Client::Keyring => &[],
        Client::OpenAfs => &THIS_CELL,
        Client::Kafs => &KAFS,
    };
    files.iter().copied().find(|file| host.has(file))
}

/// Whether pag.conf names this client itself.
fn is_named(host: &Host, client: Client) -> bool {
    matches!(&host.settings.client, ClientChoice::Only(clients) if clients.contains(&client))
}

/// The clients that are served here, or would be if their module were loaded.
pub(super) fn expected(host: &Host) -> Vec<Client> {
    let served = |client: &Client| {
        is_wanted(host, *client)
            && (is_loaded(host, *client) || configured(host, *client).is_some() || is_named(host, *client))
    };
    Client::ALL.into_iter().filter(served).collect()
}

pub(super) fn check(host: &Host, look: &mut Look) {
    let expected = expected(host);
    // OpenAFS and kAFS exclude each other: with one of them loaded, the other's files may be left over.
    let any_loaded = expected.iter().any(|client| *client != Client::Keyring && is_loaded(host, *client));
    for client in expected.iter().copied() {
        if is_loaded(host, client) {
            loaded(host, look, client);
        } else if !any_loaded || is_named(host, client) {
            not_loaded(host, look, client);
        }
    }
    if expected.is_empty() && host.settings.client == ClientChoice::None {
        look.fine("pag.conf says client = none: no tokens are wanted");
    } else if expected.is_empty() {
        let what = "this host has no AFS client that pag.conf has served";
        let why = "logins are in PAGs, and no tokens are got";
        look.found(Finding::warning(Problem::NoAfsClient, what, why).mend("apt install openafs-client openafs-krb5"));
    }
}

fn not_loaded(host: &Host, look: &mut Look, client: Client) {
    let (name, module) = if client == Client::OpenAfs { ("OpenAFS", "openafs") } else { ("kAFS", "kafs") };
    let by = configured(host, client).unwrap_or("pag.conf");
    let what = format!("{name} is configured ({by}), and its kernel module is not loaded");
    let why = "no user has tokens, and /afs cannot be read; this is usual after an update of the kernel";
    let unit = "/usr/lib/systemd/system/openafs-client.service";
    let has_unit = client == Client::OpenAfs && [unit, &unit["/usr".len()..]].iter().any(|path| host.has(path));
    let start = match client {
        Client::OpenAfs if has_unit => "systemctl restart openafs-client".to_owned(),
        Client::Kafs if host.has(KAFS[1]) => "systemctl restart afs.mount".to_owned(),
        _ => format!("modprobe {module}"),
    };
    let there = look.ask(host, &["modinfo", "-n", module], QUICK).is_none_or(|(status, ..)| status == 0);
    if there {
        look.found(Finding::error(Problem::AfsModuleNotLoaded, what, why).mend(start));
        return;
    }
    let kernel = host.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let what =
        format!("{name} is configured ({by}), and there is no kernel module {module} for kernel {}", kernel.trim());
    let build = if client == Client::OpenAfs { "dkms autoinstall && " } else { "" };
    look.found(Finding::error(Problem::AfsModuleNotBuilt, what, why).mend(format!("{build}{start}")));
}

fn loaded(host: &Host, look: &mut Look, client: Client) {
    let mounted = host.text("/proc/self/mounts").unwrap_or_default();
    let is_mounted = mounted.lines().any(|line| line.split(' ').nth(2) == Some("afs"));
    match client {
        Client::Keyring => look.fine("the client keyring needs no kernel module"),
        Client::OpenAfs | Client::Kafs if !is_mounted => {
            let name = if client == Client::OpenAfs { "OpenAFS" } else { "kAFS" };
            let what = format!("{name}'s kernel module is loaded, and no AFS file system is mounted");
            let why = "the client was not started, or stopped: tokens help no process";
            let unit = if client == Client::OpenAfs { "openafs-client" } else { "afs.mount" };
            look.found(Finding::warning(Problem::AfsNotMounted, what, why).mend(format!("systemctl restart {unit}")));
        }
        Client::OpenAfs => look.fine("OpenAFS is loaded, and AFS is mounted"),
        Client::Kafs => look.fine("kAFS is loaded, and AFS is mounted"),
    }
    cell(host, look, client);
}

/// Whether the client knows its cell.
fn cell(host: &Host, look: &mut Look, client: Client) {
    let first = |path: &str| {
        let text = host.text(path)?;
        text.lines().next().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned)
    };
    let cell = match client {
        Client::Keyring => return,
        Client::OpenAfs => THIS_CELL.iter().find_map(|path| first(path)),
        Client::Kafs => first("/proc/net/afs/rootcell"),
    };
    let Some(cell) = cell else {
        if host.settings.afs_cells.is_empty() {
            let what = format!("{} has no cell of its own, and pag.conf names none (afs_cells)", client.as_str());
            let why = "seeders do not know which cell to get a token for";
            let command = match client {
                Client::OpenAfs => "dpkg-reconfigure openafs-client",
                _ => "echo 'afs_cells = CELL' >> /etc/pag/pag.conf",
            };
            look.found(Finding::error(Problem::CellUnknown, what, why).mend(command));
        }
        return;
    };
    if client != Client::OpenAfs {
        look.fine(format!("kAFS's own cell is {cell}"));
        return;
    }
    // `>CELL  #comment`
    let names = |text: String| {
        text.lines().any(|line| line.strip_prefix('>').and_then(|rest| rest.split_whitespace().next()) == Some(&cell))
    };
    if CELLS.iter().filter_map(|path| host.text(path)).any(names) {
        look.fine(format!("OpenAFS's own cell is {cell}, and its servers are in CellServDB"));
        return;
    }
    let what = format!("OpenAFS's own cell is {cell}, and CellServDB does not name it");
    let why = "its servers are found by DNS alone; where that fails or the name is wrong there are no tokens";
    let command = format!("cat {}; grep '^>' {}", THIS_CELL[0], CELLS[0]);
    look.found(Finding::info(Problem::CellWithoutServers, what, why).mend(command));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{Machine, ids, says};

    fn machine() -> Machine {
        Machine::healthy().file("/etc/pag/pag.conf.d/lab.conf", "")
    }

    fn with_openafs() -> Machine {
        machine()
            .file("/etc/openafs/ThisCell", "example.test\n")
            .file("/etc/openafs/CellServDB", ">example.test  #ours\n10.0.0.1 #afs1\n")
    }

    fn loaded() -> Machine {
        with_openafs()
            .file("/proc/fs/openafs/afs_ioctl", "")
            .file("/proc/self/mounts", "proc /proc proc rw 0 0\nAFS /afs afs rw,relatime 0 0\n")
    }

    #[test]
    fn a_configured_client_without_its_module_is_told() {
        let command = |look: &Look| look.findings[0].command.clone().unwrap();
        let look = with_openafs().program("modinfo -n openafs", says(0, "/lib/modules/x/openafs.ko")).look(check);
        assert_eq!((ids(&look), command(&look)), (vec![Problem::AfsModuleNotLoaded], "modprobe openafs".to_owned()));
        let unit = "/usr/lib/systemd/system/openafs-client.service";
        let look = with_openafs().file(unit, "").program("modinfo -n openafs", says(1, "")).look(check);
        assert_eq!(ids(&look), [Problem::AfsModuleNotBuilt]);
        assert_eq!(command(&look), "dkms autoinstall && systemctl restart openafs-client");
        assert_eq!(ids(&machine().look(check)), [Problem::NoAfsClient]);
        let named = machine().file("/etc/pag/pag.conf.d/lab.conf", "[pag]\nclient = kafs\n");
        assert_eq!(ids(&named.look(check)), [Problem::AfsModuleNotLoaded]);
        let none = machine().file("/etc/pag/pag.conf.d/lab.conf", "[pag]\nclient = none\n");
        assert_eq!(ids(&none.look(check)), []);
    }

    #[test]
    fn a_loaded_client_is_mounted_and_knows_its_cell() {
        assert_eq!(ids(&loaded().look(check)), []);
        assert_eq!(ids(&loaded().file("/proc/self/mounts", "").look(check)), [Problem::AfsNotMounted]);
        assert_eq!(ids(&loaded().without("/etc/openafs/ThisCell").look(check)), [Problem::CellUnknown]);
        let other = loaded().file("/etc/openafs/ThisCell", "exmple.test\n");
        assert_eq!(ids(&other.look(check)), [Problem::CellWithoutServers]);
    }
}
