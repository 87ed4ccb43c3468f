//! A login by way of a display manager.

use std::time::Duration;

use crate::display::Display;
use crate::guest::{assert_same, assert_token, eventually, manager_is, pags_of, seeder_runs, uid};
use crate::ring::Ring;

/// A program that the bus starts by itself, not by way of systemd.
const ACTIVATED: &str = r#"
mkdir -p ~/.local/share/dbus-1/services
cat > ~/.local/share/dbus-1/services/test.Desktop.service <<Y
[D-BUS Service]
Name=test.Desktop
Exec=/usr/local/bin/pag-probe $XDG_RUNTIME_DIR/activated.ring
Y
busctl --user call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig
timeout 3 busctl --user call test.Desktop / test.Desktop Nothing
systemd-run --user --quiet --on-active=100ms --timer-property=AccuracySec=10ms pag-probe $XDG_RUNTIME_DIR/timer.ring
"#;

fn ring_in(user: &str, name: &str) -> Ring {
    let path = format!("/run/user/{}/{name}.ring", uid(user));
    Ring::parse(&eventually(&path, Duration::from_secs(10), || std::fs::read_to_string(&path).ok()))
}

pub(super) fn lightdm_login_reaches_its_programs_and_an_unlock_refreshes_tokens(_: u32) {
    let mut display = Display::start();
    assert!(pags_of("alice").is_empty(), "the greeter makes no PAG: {:#?}", pags_of("alice"));
    let mut desktop = display.log_in("alice");
    let ring = desktop.ring();
    assert!(ring.is_pag(), "the desktop is in no PAG: {ring:#?}");
    assert_token("the desktop", &ring);
    desktop.say(ACTIVATED);
    for name in ["activated", "timer"] {
        let other = ring_in("alice", name);
        assert_same(name, &ring, &other);
        assert_token(name, &other);
    }

    // Lost or expired tokens come back when the user unlocks the screen: another process calls setcred.
    let runs = seeder_runs();
    desktop.say("keyctl unlink $(keyctl search @s user afs@example.test) @s");
    assert!(desktop.ring().token("example.test").is_none(), "the token is gone");
    display.lock_and_unlock(&mut desktop, "alice");
    let ring = eventually("an unlock brings the token back", Duration::from_secs(15), || {
        let ring = desktop.ring();
        ring.token("example.test").is_some().then_some(ring)
    });
    assert_same("the desktop after the unlock", &ring, &desktop.service_ring());
    assert_eq!(seeder_runs(), runs + 1, "one seeder run for the unlock");
    desktop.log_out();
    manager_is("alice", "inactive");
    eventually("the PAG has ended", Duration::from_secs(10), || pags_of("alice").is_empty().then_some(()));
}
