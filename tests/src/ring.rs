//! The session keyring as a process inside sees it, by raw system calls: a test must not trust the code that it
//! tests.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::ffi::c_long;

use serde::{Deserialize, Serialize};

/// A key as KEYCTL_DESCRIBE shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its number.
    pub serial: i32,
    /// Its type.
    pub kind: String,
    /// Its owner.
    pub uid: i64,
    /// Its group.
    pub gid: i64,
    /// Its permissions, in hex.
    pub mask: String,
    /// Its description; bytes that are no text are replaced.
    pub name: String,
    /// The payload of a token of the keyring client.
    pub payload: Option<String>,
}

/// A session keyring and the keys directly in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// The keyring itself; `None` if the process has none that it can use.
    pub ring: Option<Key>,
    /// The kernel's error, if there is no keyring.
    pub error: Option<String>,
    /// The keys in it.
    pub keys: Vec<Key>,
    /// KRB5CCNAME of the process.
    pub ccache: Option<String>,
}

impl Ring {
    /// The ring's serial and name, for comparing two rings. Panics if there is none.
    pub fn identity(&self) -> (i32, &str) {
        let ring = self.ring.as_ref().unwrap_or_else(|| panic!("no session keyring: {self:?}"));
        (ring.serial, &ring.name)
    }

    /// Whether it is a PAG's ring by its name.
    pub fn is_pag(&self) -> bool {
        self.ring.as_ref().is_some_and(|ring| ring.name.starts_with("pag:") && ring.name.len() == 36)
    }

    /// The token for `cell`, if the ring has one.
    pub fn token(&self, cell: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == format!("afs@{cell}"))
    }

    /// Parses a probe's output. Panics, and shows the text, if it is no such output.
    pub fn parse(text: &str) -> Self {
        let line = text.lines().find(|line| line.starts_with('{'));
        line.and_then(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("no report of a ring: {text}"))
    }
}

/// One keyctl call.
pub fn keyctl(operation: u32, a: i64, b: i64, c: i64) -> Result<i64, std::io::Error> {
    let result: c_long = unsafe { libc::syscall(libc::SYS_keyctl, c_long::from(operation), a, b, c, 0) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

fn bytes(operation: u32, key: i32) -> Result<Vec<u8>, std::io::Error> {
    let mut buffer = vec![0_u8; 65536];
    let length = keyctl(operation, i64::from(key), buffer.as_mut_ptr() as i64, buffer.len() as i64)?;
    buffer.truncate((length as usize).min(buffer.len()));
    Ok(buffer)
}

/// Describes one key.
pub fn describe(serial: i32) -> Result<Key, std::io::Error> {
    let text = bytes(libc::KEYCTL_DESCRIBE, serial)?;
    let text = String::from_utf8_lossy(&text[..text.len().saturating_sub(1)]).into_owned();
    let mut parts = text.splitn(5, ';');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (kind, uid, gid, mask, name) = (next(), next(), next(), next(), next());
    let is_token = kind == "user" && name.starts_with("afs@");
    let payload = is_token.then(|| bytes(libc::KEYCTL_READ, serial).ok()).flatten();
    Ok(Key {
        serial,
        kind,
        uid: uid.parse().unwrap_or(-2),
        gid: gid.parse().unwrap_or(-2),
        mask,
        name,
        payload: payload.map(|p| String::from_utf8_lossy(&p).into_owned()),
    })
}

/// A key's payload.
pub fn payload(serial: i32) -> Result<Vec<u8>, std::io::Error> {
    bytes(libc::KEYCTL_READ, serial)
}

/// The serials in a keyring.
pub fn members(ring: i32) -> Result<Vec<i32>, std::io::Error> {
    Ok(bytes(libc::KEYCTL_READ, ring)?.as_chunks::<4>().0.iter().map(|c| i32::from_ne_bytes(*c)).collect())
}

/// This process's session keyring.
pub fn report() -> Ring {
    let ccache = std::env::var("KRB5CCNAME").ok();
    let described = keyctl(libc::KEYCTL_GET_KEYRING_ID, -3, 0, 0).and_then(|serial| describe(serial as i32));
    match described {
        Ok(ring) => {
            let keys = members(ring.serial).unwrap_or_default().into_iter().filter_map(|key| describe(key).ok());
            Ring { keys: keys.collect(), ring: Some(ring), error: None, ccache }
        }
        Err(error) => Ring { ring: None, error: Some(error.to_string()), keys: Vec::new(), ccache },
    }
}

/// The names of the keys in this process's own keyring; empty if it has none.
pub fn process_members() -> Vec<String> {
    let Ok(serial) = keyctl(libc::KEYCTL_GET_KEYRING_ID, -2, 0, 0) else { return Vec::new() };
    members(serial as i32)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|key| describe(key).ok())
        .map(|k| k.name)
        .collect()
}
