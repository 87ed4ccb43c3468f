//! The inside of `cargo xtask demo`.

use crate::cell;
use crate::guest::{Proof, Session, sh};
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
        tell_status();
    }
    alice.log_out();
}

fn tell_status() {
    println!("\n  pagctl status, as root sees it:");
    let status = sh("pagctl status || true");
    status.lines().for_each(|line| println!("    {line}"));
}

/// One act on a real cell: a login, and a service that reads a file in the home of its user.
pub fn afs_act(with: bool) {
    if !with {
        cell::todays_module();
    }
    let refused = sh(&format!("ls {} 2>&1 || true", cell::home("alice")));
    println!("  {:<34} {}", "root, without a token: ls ~alice", refused.trim());
    let mut alice = Session::ssh("alice", Proof::Password);
    let shell = alice.say("cat ~/secret");
    println!("  {:<34} {}", "alice's ssh shell: cat ~/secret", shell.trim());
    let service = cell::service(&mut alice, "cat ~/secret");
    println!("  {:<34} {}", "her service: cat ~/secret", service.trim());
    println!("  {:<34} {}", "denials in her manager's journal", cell::denials("alice").len());
    if with {
        tell_status();
    }
    alice.log_out();
    cell::assert_denied("root", &refused);
    assert_eq!(shell, "a secret of alice's\n", "the login has a token");
    if with {
        assert_eq!(service, shell, "with us the service reads what the login reads");
    } else {
        cell::assert_denied("a service without us", &service);
    }
}
