//! The D-Bus interfaces of logind and systemd, as far as the helper uses them.

use zbus::{OwnedObjectPath, proxy};

/// `org.freedesktop.login1.Manager` (org.freedesktop.login1(5)). It is called by its unique name, so that no call
/// starts logind.
#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
pub(super) trait Login {
    fn list_sessions(&self) -> zbus::Result<Vec<(String, u32, String, String, OwnedObjectPath)>>;
    fn get_user(&self, uid: u32) -> zbus::Result<OwnedObjectPath>;
    fn list_users(&self) -> zbus::Result<Vec<(u32, String, OwnedObjectPath)>>;
    #[zbus(signal)]
    fn session_new(&self, id: String, path: OwnedObjectPath) -> zbus::Result<()>;
    #[zbus(signal)]
    fn session_removed(&self, id: String, path: OwnedObjectPath) -> zbus::Result<()>;
    #[zbus(signal)]
    fn user_new(&self, uid: u32, path: OwnedObjectPath) -> zbus::Result<()>;
    #[zbus(signal)]
    fn user_removed(&self, uid: u32, path: OwnedObjectPath) -> zbus::Result<()>;
    #[zbus(signal)]
    fn prepare_for_sleep(&self, start: bool) -> zbus::Result<()>;
}

/// `org.freedesktop.login1.Session`.
#[proxy(interface = "org.freedesktop.login1.Session", default_service = "org.freedesktop.login1")]
pub(super) trait Session {
    #[zbus(property)]
    fn user(&self) -> zbus::Result<(u32, OwnedObjectPath)>;
    #[zbus(property)]
    fn name(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn leader(&self) -> zbus::Result<u32>;
    #[zbus(property)]
    fn class(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
}

/// `org.freedesktop.login1.User`.
#[proxy(interface = "org.freedesktop.login1.User", default_service = "org.freedesktop.login1")]
pub(super) trait User {
    #[zbus(property)]
    fn display(&self) -> zbus::Result<(String, OwnedObjectPath)>;
    #[zbus(property)]
    fn sessions(&self) -> zbus::Result<Vec<(String, OwnedObjectPath)>>;
}

/// `org.freedesktop.systemd1.Manager` (org.freedesktop.systemd1(5)).
#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Systemd {
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

/// `org.freedesktop.systemd1.Unit`.
#[proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
pub(super) trait Unit {
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
}

/// `org.freedesktop.systemd1.Service`.
#[proxy(interface = "org.freedesktop.systemd1.Service", default_service = "org.freedesktop.systemd1")]
pub(super) trait Service {
    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> zbus::Result<u32>;
}
