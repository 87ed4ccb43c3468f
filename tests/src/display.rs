//! A graphical login in a guest: lightdm, Xvfb as its X server, and our greeter, which needs no person at a
//! keyboard.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use crate::guest::{Session, eventually, sh};

/// Runs Xvfb without the options of lightdm's that it does not know (mostly about terminals). `exec` matters: the
/// server signals its parent when it is ready, and lightdm waits for that.
const SERVER: &str = r#"#!/bin/sh
options=
while [ $# -gt 0 ]; do
	case $1 in
	:*) options="$options $1" ;;
	-auth) options="$options -auth $2"; shift ;;
	esac
	shift
done
exec Xvfb $options -screen 0 640x480x8 -nolisten tcp
"#;

/// The user's desktop is a shell to which a test writes.
const DESKTOP: &str = "#!/bin/sh\nexec sh < /run/desktop/in > /run/desktop/out\n";

const CONFIGURATION: &str = "[LightDM]
logind-check-graphical=false
lock-memory=false
[Seat:*]
type=local
xserver-command=/usr/local/bin/lab-server
greeter-session=lab-greeter
user-session=lab
";

fn script(path: &str, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A running display manager with a greeter that waits for orders.
pub struct Display {
    greeters: usize,
}

impl Display {
    /// Starts lightdm and waits for its greeter.
    pub fn start() -> Self {
        script("/usr/local/bin/lab-server", SERVER);
        script("/usr/local/bin/lab-desktop", DESKTOP);
        fs::write("/etc/lightdm/lightdm.conf", CONFIGURATION).unwrap();
        fs::create_dir_all("/usr/share/xsessions").unwrap();
        for (directory, name, program) in [
            ("xgreeters", "lab-greeter", "/usr/local/bin/pag-greeter"),
            ("xsessions", "lab", "/usr/local/bin/lab-desktop"),
        ] {
            let text = format!("[Desktop Entry]\nType=Application\nName={name}\nExec={program}\n");
            fs::write(format!("/usr/share/{directory}/{name}.desktop"), text).unwrap();
        }
        // lightdm uses virtual terminals, but logind makes no session on one if the machine has none.
        fs::write("/etc/security/pam_env.conf", "XDG_VTNR DEFAULT=0\n").unwrap();
        // Linux-PAM 1.7 ends a session if its stack names an environment file that does not exist.
        sh("touch /etc/default/locale");
        sh("install -d -m 700 -o lightdm -g lightdm /run/greeter; install -d -m 755 /run/desktop");
        sh("mkfifo -m 666 /run/desktop/in /run/desktop/out");
        let mut display = Display { greeters: 0 };
        sh("systemctl start lightdm");
        display.greeter_waits();
        display
    }

    fn log() -> String {
        fs::read_to_string("/run/greeter/log").unwrap_or_default()
    }

    fn greeter_waits(&mut self) {
        self.greeters += 1;
        eventually("a greeter waits", Duration::from_secs(30), || {
            (Self::log().lines().filter(|line| *line == "waiting").count() >= self.greeters).then_some(())
        });
    }

    /// Makes the waiting greeter authenticate a user by password.
    fn order(&self, user: &str) {
        let before = Self::log().lines().filter(|line| line.starts_with("authenticated")).count();
        fs::write("/run/greeter/new", format!("{user} {user}pw\n")).unwrap();
        sh("chown lightdm /run/greeter/new; mv /run/greeter/new /run/greeter/order");
        let result = eventually(&format!("the greeter has {user} authenticated"), Duration::from_secs(30), || {
            Self::log().lines().filter(|line| line.starts_with("authenticated")).nth(before).map(str::to_owned)
        });
        assert_eq!(result, format!("authenticated {user} 0"), "PAM's answer to the greeter");
    }

    /// Logs a user in. The desktop is a shell.
    pub fn log_in(&mut self, user: &str) -> Session {
        self.order(user);
        // From here on the shell's lines go their way. When the desktop ends, its output ends, and so does this program.
        let talk = "cat <&3 > /run/desktop/in & exec 3<&-; exec cat /run/desktop/out";
        Session::start(Command::new("sh").args(["-c", &format!("exec 3<&0; {talk}")]))
    }

    /// Locks the user's screen and unlocks it with the password, in another greeter. Returns when PAM is done.
    pub fn lock_and_unlock(&mut self, desktop: &mut Session, user: &str) {
        let said = desktop.say("dm-tool lock");
        assert_eq!(said, "", "dm-tool says nothing when all is well");
        self.greeter_waits();
        self.order(user);
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = Command::new("sh")
                .args(["-c", "cd /var/log/lightdm; tail -n 40 lightdm.log *greeter.log; cat /run/greeter/log"])
                .status();
        }
    }
}
