//! Tier 3 from inside: what a [`guest`](crate::guest) with a real AFS cell has besides. Homes are in AFS, and each has a
//! file `secret` that its owner alone can read.

use crate::guest::{Session, sh, uid};
use crate::scenarios::tier3::Client;

/// A user's home, in a volume of its own.
pub fn home(user: &str) -> String {
    format!("/afs/example.test/user/{user}")
}

/// Puts pam_afs_session into the PAM stacks, as its package does unless it is told otherwise.
pub fn todays_module() {
    sh("cp /usr/local/share/todays-pam.d/* /etc/pam.d/");
}

/// Loads a client and mounts it; the other one, or both, go. Fails when something still uses one of them.
pub fn load(client: Client) {
    sh(&format!("lab-client {}", client.name()));
}

/// What a shell command says that systemd runs as a service of the user's, errors too.
pub fn service(session: &mut Session, command: &str) -> String {
    session.say(&format!("systemd-run --user --quiet --wait --pipe --collect sh -c '{command}'"))
}

/// The lines of the journal in which a user's manager, or a service of it, was denied something.
pub fn denials(user: &str) -> Vec<String> {
    let unit = format!("user@{}.service", uid(user));
    let text = sh(&format!("journalctl --sync; journalctl -q -o cat _SYSTEMD_UNIT={unit}"));
    text.lines().filter(|line| line.contains("Permission denied")).map(str::to_owned).collect()
}

/// Fails unless the kernel has refused.
pub fn assert_denied(what: &str, said: &str) {
    assert!(said.contains("Permission denied"), "{what}: a refusal is expected: {said}");
}
