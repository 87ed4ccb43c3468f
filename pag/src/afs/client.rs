//! Which AFS clients this host has, and which cell each takes for the host's own.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::kafs;
use super::openafs::{self, Device};
use crate::config::Settings;
use crate::types::{Cell, Client, ClientChoice};

impl Client {
    /// The clients that the configuration names and this host has now, in the order in which they are served. Looks
    /// for files in `/proc` and waits for nothing.
    ///
    /// Remembers the settings for OpenAFS for functions that are called without settings: [`tokens`](super::tokens())
    /// and [`discard`](super::discard).
    pub fn present(settings: &Settings) -> Vec<Client> {
        Self::configure(settings);
        Client::ALL.into_iter().filter(|client| client.is_wanted(settings) && client.is_there()).collect()
    }

    /// Makes all later calls look for OpenAFS where the configuration says, or not at all. Must be called before a
    /// ring is given a PAG of OpenAFS.
    pub fn configure(settings: &Settings) {
        openafs::remember(Client::OpenAfs.is_wanted(settings), settings.openafs_device.as_deref());
    }

    /// Whether this host has the client now, and it may be used.
    pub fn is_there(self) -> bool {
        match self {
            Client::Keyring => true,
            Client::OpenAfs => Device::served().is_some(),
            Client::Kafs => kafs::is_present(),
        }
    }

    fn is_wanted(self, settings: &Settings) -> bool {
        match &settings.client {
            ClientChoice::None => false,
            ClientChoice::Auto => self != Client::Keyring,
            ClientChoice::Only(clients) => clients.contains(&self),
        }
    }

    /// The host's own cell, which this client's seeder takes for its default. Read from a small local file.
    pub fn own_cell(self) -> Option<Cell> {
        match self {
            Client::Keyring => None,
            Client::OpenAfs => openafs::OWN_CELL.iter().find_map(|path| cell_in_file(Path::new(path))),
            Client::Kafs => cell_in_file(Path::new(kafs::OWN_CELL)),
        }
    }
}

/// The cell named in the first line of a file.
fn cell_in_file(path: &Path) -> Option<Cell> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let mut text = String::new();
    file.take(256).read_to_string(&mut text).ok()?;
    text.lines().next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_cell_is_the_first_word_of_a_small_file() {
        let top = tempfile::tempdir().unwrap();
        let read = |text: &[u8]| {
            std::fs::write(top.path().join("ThisCell"), text).unwrap();
            cell_in_file(&top.path().join("ThisCell"))
        };
        assert_eq!(read(b"example.test\n"), Some("example.test".parse().unwrap()));
        assert_eq!(read(b"  example.test"), Some("example.test".parse().unwrap()));
        for text in [&b""[..], b"\n", b"two words\n", b"\xff\n", &[b'x'; 300]] {
            assert_eq!(read(text), None);
        }
        assert_eq!(cell_in_file(top.path()), None);
    }
}
