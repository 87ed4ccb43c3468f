//! pag.conf and its drop-ins.

use pag::config::ConfigSource;

use super::finding::{Finding, Problem};
use super::host::{Host, Look};

pub(super) fn check(host: &Host, look: &mut Look) {
    for complaint in &host.complaints {
        let command = match &complaint.place {
            ConfigSource::File(path, line) if *line > 0 => format!("${{EDITOR:-vi}} +{line} {}", path.display()),
            ConfigSource::File(path, _) => format!("ls -l {}", path.display()),
            ConfigSource::Argument(..) => "pagctl pam check".to_owned(),
        };
        let what = format!("{}: {}", complaint.place, complaint.what);
        let why = format!("the line has no effect, and the default holds; right would be {}", complaint.right);
        look.found(Finding::warning(Problem::ConfigWrong, what, why).mend(command));
    }
    if host.complaints.is_empty() {
        look.fine("pag.conf and its drop-ins have no mistakes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{Machine, ids};

    #[test]
    fn a_wrong_line_is_told_with_its_place() {
        assert_eq!(ids(&Machine::healthy().look(check)), []);
        let look = Machine::healthy().file("/etc/pag/pag.conf", "[pag]\nscop = user\n").look(check);
        assert_eq!(ids(&look), [Problem::ConfigWrong]);
        assert!(look.findings[0].what.contains("etc/pag/pag.conf:2"), "{look:?}");
    }
}
