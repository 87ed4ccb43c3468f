//! The table of PAM services. The PAM module and `pagctl pam` use it.

use crate::types::ServiceKind;

/// Whether the service's process ends its PAM handle while it still runs as root, and starts the user's process later.
/// vsftpd does so (see session_support in vsftpd.conf(5)).
pub fn lives_on_without_session(service: &str) -> bool {
    matches!(service, "vsftpd" | "ftp")
}

/// The kind of program that uses a PAM service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// Logs users in.
    Login,
    /// Logs users in, and unlocks their screens by another authentication.
    LoginAndUnlock,
    /// Only unlocks screens.
    Unlock,
    /// `systemd --user`.
    Manager,
    /// Runs jobs of users without a login.
    Job,
    /// Shows a login screen.
    Greeter,
    /// Changes the identity of a shell, or asks for a password. It begins no session of its own.
    Nothing,
    /// `pag-seed`, a service of the helper.
    Seed,
}

/// The known PAM services (the table of docs/design/placement.md). Any other service counts as a login.
pub const SERVICES: [(&str, Seat); 82] = [
    ("sshd", Seat::Login),
    ("dropbear", Seat::Login),
    ("login", Seat::Login),
    ("remote", Seat::Login),
    ("rlogin", Seat::Login),
    ("rsh", Seat::Login),
    ("su-l", Seat::Login),
    ("runuser-l", Seat::Login),
    ("systemd-run0", Seat::Login),
    ("gdm", Seat::Login),
    ("gdm3", Seat::Login),
    ("gdm-autologin", Seat::Login),
    ("lightdm-autologin", Seat::Login),
    ("sddm", Seat::Login),
    ("sddm-autologin", Seat::Login),
    ("plasmalogin", Seat::Login),
    ("plasmalogin-autologin", Seat::Login),
    ("greetd", Seat::Login),
    ("ly", Seat::Login),
    ("lemurs", Seat::Login),
    ("lxdm", Seat::Login),
    ("slim", Seat::Login),
    ("wdm", Seat::Login),
    ("xdm", Seat::Login),
    ("xrdp-sesman", Seat::Login),
    ("chrome-remote-desktop", Seat::Login),
    ("cockpit", Seat::Login),
    ("gdm-password", Seat::LoginAndUnlock),
    ("gdm-fingerprint", Seat::LoginAndUnlock),
    ("gdm-smartcard", Seat::LoginAndUnlock),
    ("gdm-smartcard-pkcs11-exclusive", Seat::LoginAndUnlock),
    ("gdm-smartcard-sssd-exclusive", Seat::LoginAndUnlock),
    ("gdm-smartcard-sssd-or-password", Seat::LoginAndUnlock),
    ("gdm-pin", Seat::LoginAndUnlock),
    ("gdm-switchable-auth", Seat::LoginAndUnlock),
    ("gdm-authd", Seat::LoginAndUnlock),
    ("lightdm", Seat::LoginAndUnlock),
    ("cosmic-greeter", Seat::LoginAndUnlock),
    ("kde", Seat::Unlock),
    ("kde-fingerprint", Seat::Unlock),
    ("kde-smartcard", Seat::Unlock),
    ("gnome-screensaver", Seat::Unlock),
    ("cinnamon-screensaver", Seat::Unlock),
    ("mate-screensaver", Seat::Unlock),
    ("xfce4-screensaver", Seat::Unlock),
    ("xscreensaver", Seat::Unlock),
    ("xsecurelock", Seat::Unlock),
    ("i3lock", Seat::Unlock),
    ("swaylock", Seat::Unlock),
    ("hyprlock", Seat::Unlock),
    ("vlock", Seat::Unlock),
    ("systemd-user", Seat::Manager),
    ("cron", Seat::Job),
    ("crond", Seat::Job),
    ("fcron", Seat::Job),
    ("atd", Seat::Job),
    ("at", Seat::Job),
    ("atrun", Seat::Job),
    ("batch", Seat::Job),
    ("slurm", Seat::Job),
    ("pbs", Seat::Job),
    ("torque", Seat::Job),
    ("gdm-launch-environment", Seat::Greeter),
    ("lightdm-greeter", Seat::Greeter),
    ("sddm-greeter", Seat::Greeter),
    ("plasmalogin-greeter", Seat::Greeter),
    ("greetd-greeter", Seat::Greeter),
    ("lxdm-greeter", Seat::Greeter),
    ("su", Seat::Nothing),
    ("sudo", Seat::Nothing),
    ("sudo-i", Seat::Nothing),
    ("runuser", Seat::Nothing),
    ("polkit-1", Seat::Nothing),
    ("pkexec", Seat::Nothing),
    ("doas", Seat::Nothing),
    ("passwd", Seat::Nothing),
    ("chfn", Seat::Nothing),
    ("chsh", Seat::Nothing),
    ("fcrontab", Seat::Nothing),
    // These ask for passwords again and again, and do nothing as the user.
    ("cups", Seat::Nothing),
    ("dovecot", Seat::Nothing),
    ("pag-seed", Seat::Seed),
];

/// The kind of program that uses a PAM service, if the service is known.
pub fn seat(service: &str) -> Option<Seat> {
    SERVICES.iter().find(|(name, _)| *name == service).map(|(_, seat)| *seat)
}

/// The kind of a PAM service, unless `[service NAME] placement` sets another.
pub fn default_role(service: &str) -> ServiceKind {
    match seat(service) {
        Some(Seat::Manager) => ServiceKind::Manager,
        Some(Seat::Seed) => ServiceKind::Seed,
        // The shell keeps the ring that it inherited.
        Some(Seat::Greeter | Seat::Nothing) => ServiceKind::Nothing,
        Some(Seat::Job) => ServiceKind::Own,
        // A screen locker calls only pam_setcred, and refreshes the user's ticket.
        Some(Seat::Login | Seat::LoginAndUnlock | Seat::Unlock) | None => ServiceKind::Login,
    }
}
