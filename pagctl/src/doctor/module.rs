//! The file of the PAM module: whether it is there, can be loaded, and belongs to this release.

use super::finding::{Finding, Problem};
use super::host::{Host, Look, QUICK, one_line};

/// What stands before the release in the module's file (pam_pag, src/lib.rs).
const MARK: &[u8] = b"pam_pag-release=";

/// The module, beside libpam's own modules.
fn path(host: &Host) -> Option<String> {
    let multiarch = host.names("/usr/lib").into_iter().filter(|name| name.contains("-linux-"));
    let places = multiarch.map(|name| format!("/usr/lib/{name}")).chain(["/usr/lib64", "/usr/lib"].map(str::to_owned));
    let mut modules = places.map(|place| format!("{place}/security"));
    let of_libpam = modules.find(|place| host.has(&format!("{place}/pam_unix.so")))?;
    Some(format!("{of_libpam}/pam_pag.so"))
}

/// The release that a module says of itself.
fn release(bytes: &[u8]) -> Option<String> {
    let at = bytes.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let rest = bytes.get(at..)?;
    let end = rest.iter().take(40).position(|byte| *byte == b';')?;
    rest.get(..end).map(|release| String::from_utf8_lossy(release).into_owned())
}

/// Whether a line of a PAM stack calls the module.
pub(super) fn is_named(host: &Host) -> bool {
    ["/etc/pam.d", "/usr/lib/pam.d"].into_iter().any(|directory| {
        let ours = |name: &String| name != "pag-seed" && !name.starts_with('.');
        let mut names = host.names(directory).into_iter().filter(ours);
        names.any(|name| {
            let text = host.text(&format!("{directory}/{name}")).unwrap_or_default();
            text.lines().any(|line| !line.trim_start().starts_with('#') && line.contains("pam_pag.so"))
        })
    })
}

pub(super) fn check(host: &Host, look: &mut Look) {
    let Some(module) = path(host) else {
        look.left_out("the PAM module: this host has no directory with pam_unix.so");
        return;
    };
    let Some(bytes) = host.bytes(&module) else {
        look.found(missing(host, &module));
        return;
    };
    // The loader reports what it cannot load, and goes on without it.
    let preload = format!("LD_PRELOAD={module}");
    if let Some((status, _, err)) = look.ask(host, &["env", &preload, "LD_BIND_NOW=1", "true"], QUICK)
        && (status != 0 || err.contains("pam_pag.so"))
    {
        let said = if err.trim().is_empty() { format!("status {status}, a damaged file?") } else { one_line(&err) };
        let what = format!("{module} cannot be loaded: {said}");
        let why = "libpam passes over it, so logins are in no PAG";
        look.found(Finding::error(Problem::ModuleNotLoadable, what, why).mend(host.install_again()));
        return;
    }
    let (own, its) = (env!("CARGO_PKG_VERSION"), release(&bytes));
    match its {
        Some(its) if its == own => look.fine(format!("{module} can be loaded and is of release {own}, as pagctl is")),
        other => {
            let its = other.map_or("an older release".to_owned(), |its| format!("release {its}"));
            let what = format!("{module} is of {its}, pagctl of {own}");
            let why = "module, helper and pagctl are made for each other: one of them was not installed anew";
            look.found(Finding::warning(Problem::ModuleOtherVersion, what, why).mend(host.install_again()));
        }
    }
}

/// The module is not there.
fn missing(host: &Host, module: &str) -> Finding {
    let what = format!("the PAM module {module} is not there");
    let helper = "/usr/lib/systemd/system/pag-logind-helper.service";
    if !host.has(helper) && is_named(host) {
        let why = "what is left of pam_pag in the PAM stacks makes libpam complain at each login, or fail it";
        return Finding::error(Problem::LeftOverLines, what + ", but PAM stacks still call it", why)
            .mend("pagctl pam disable");
    }
    let why = "no login and no user manager gets into a PAG; a line without a leading `-` makes libpam complain";
    Finding::error(Problem::ModuleMissing, what, why).mend(host.install_again())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::programs::Ran;
    use crate::doctor::testing::{MODULE, Machine, ids};

    #[test]
    fn a_module_says_its_release() {
        assert_eq!(release(b"\0\x7fpam_pag-release=1.2.3;\0").as_deref(), Some("1.2.3"));
        for none in [&b""[..], b"pam_pag-release=1.2", b"pam_pag"] {
            assert_eq!(release(none), None);
        }
    }

    #[test]
    fn a_module_is_there_loadable_and_of_this_release() {
        assert_eq!(ids(&Machine::healthy().look(check)), []);
        let machine = || Machine::healthy();
        assert_eq!(ids(&machine().without(MODULE).look(check)), [Problem::ModuleMissing]);
        let command = |machine: Machine| machine.look(check).findings[0].command.clone().unwrap();
        assert_eq!(command(machine().without(MODULE)), "cargo xtask install");
        let packaged = machine().without(MODULE).file("/var/lib/dpkg/info/libpam-pag.list", "");
        assert_eq!(command(packaged), "apt-get install --reinstall libpam-pag");
        let removed = machine().without(MODULE).without("/usr/lib/systemd/system/pag-logind-helper.service");
        assert_eq!(ids(&removed.look(check)), [Problem::LeftOverLines]);
        let older = machine().file(MODULE, "ELF pam_pag-release=0.0.1;");
        assert_eq!(ids(&older.look(check)), [Problem::ModuleOtherVersion]);
        let err = format!("ERROR: ld.so: object '{MODULE}' from LD_PRELOAD cannot be preloaded: ignored.");
        let broken = machine().program("env LD_PRELOAD", Ran::Done { status: 0, out: String::new(), err });
        assert_eq!(ids(&broken.look(check)), [Problem::ModuleNotLoadable]);
    }
}
