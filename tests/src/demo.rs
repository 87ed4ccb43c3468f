//! What `cargo xtask demo` shows, told from inside the machine.

use crate::guest::{Proof, Session};
use crate::ring::Ring;

fn tell(what: &str, ring: &Ring) {
    let name = ring.ring.as_ref().map_or("none".to_owned(), |key| format!("{} ({})", key.serial, key.name));
    let token = ring.keys.iter().find(|key| key.name.starts_with("afs@"));
    let token = token.map_or("no token".to_owned(), |key| {
        let payload = key.payload.clone().unwrap_or_default();
        format!("a token {} of {}", key.name, payload.split(' ').next().unwrap_or_default())
    });
    println!("  {what:<34} session keyring {name}\n  {:<34} {token}", "");
}

/// One act: a login, and a service that systemd starts for it.
pub fn act(with: bool) {
    let mut alice = Session::ssh("alice", Proof::Password);
    let (shell, service) = (alice.ring(), alice.service_ring());
    tell("alice's ssh shell", &shell);
    tell("her service (systemd-run --user)", &service);
    assert_eq!(with, shell.identity() == service.identity(), "one ring with us, two without");
    assert_eq!(with, service.keys.iter().any(|key| key.name.starts_with("afs@")), "a token with us, none without");
    if with {
        println!("\n  pagctl status, as root sees it:");
        let status = crate::guest::sh("pagctl status || true");
        status.lines().for_each(|line| println!("    {line}"));
    }
    alice.log_out();
}
