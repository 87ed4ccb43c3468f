//! The plans of `enable` and `disable`: which files are to be edited, which tool is to be run, and what stays as it is.

use pag::config::{SERVICES, seat};

use super::check;
use super::draft::Draft;
use super::edit::{self, Edit};
use super::finding::{Cure, Finding, Problem};
use super::host::Host;
use super::manager::{Manager, Run};
use super::parse::Facility;
use super::place::{mend_lines, place};
use super::stack::{DIRECTORIES, Files, Stacks};

/// What is to be done.
pub(super) struct Plan {
    pub(super) edits: Vec<Edit>,
    pub(super) run: Option<Run>,
    pub(super) advice: Vec<String>,
    /// What was left alone, and what else the person should know.
    pub(super) remarks: Vec<Finding>,
}

pub(super) fn enable(host: &Host) -> Plan {
    let manager = Manager::of(host);
    let mut draft = Draft::new(host);
    let behind = manager.assume(&mut draft);
    let locked = |path: &str| manager.owns(path).or_else(|| host.unfit(path));
    let mut remarks = mend_lines(&mut draft, &|path| manager.owns(path).is_some(), &locked);
    for (service, _) in SERVICES {
        let own = format!("{}{service}", edit::ETC);
        let now = draft.text(&own).unwrap_or_default();
        let vendor = DIRECTORIES.iter().skip(1).map(|dir| format!("{dir}/{service}"));
        let vendor = vendor.into_iter().find(|path| draft.text(path).is_some());
        if let Some(vendor) = vendor.filter(|_| edit::is_overlay(&now) && edit::only_ours(&now, host.libpam())) {
            // The vendor's file may have another set of facilities since.
            let text = edit::overlay(&draft, &vendor);
            draft.edit(Edit { path: own, text: Some(text) });
        }
        for facility in [Facility::Session, Facility::Auth] {
            let Some(path) = draft.service(service) else { continue };
            let stacks = Stacks::of(&draft, &path);
            let found = check::judge(service, seat(service), &stacks, draft.libpam());
            if !found.iter().any(|finding| finding.curable() && finding.cure == Cure::Line(facility)) {
                continue;
            }
            let refused = place(&mut draft, service, facility, &locked).err();
            remarks.extend(refused.map(|text| Finding::wrong(Problem::LeftAlone, Some(service), text)));
        }
    }
    remarks.extend(manager.rival(host, true).filter(|_| behind));
    let (run, advice) = match manager {
        Manager::PamAuthUpdate if behind => (Some(Run::new(host, true)), Vec::new()),
        Manager::Authselect { .. } if behind => (None, manager.advice(host, true)),
        _ => (None, Vec::new()),
    };
    Plan { edits: draft.edits(), run, advice, remarks }
}

pub(super) fn disable(host: &Host) -> Plan {
    let manager = Manager::of(host);
    let mut edits = Vec::new();
    let mut remarks = Vec::new();
    for name in host.names("/etc/pam.d") {
        let path = format!("/etc/pam.d/{name}");
        let Some(text) = host.text(&path).filter(|_| manager.owns(&path).is_none()) else {
            continue;
        };
        let unfit = host.unfit(&path);
        let edit = edit::take_back(&path, &text, host.libpam()).filter(|_| unfit.is_none());
        let after = edit.as_ref().map_or(Some(text.as_str()), |edit| edit.text.as_deref());
        if after.is_some_and(|text| edit::has_foreign_call(text, host.libpam())) {
            let why = unfit.unwrap_or_else(|| "pagctl did not write it".to_owned());
            let text = format!("{path}: calls pam_pag.so and is left alone: {why}");
            remarks.push(Finding::wrong(Problem::LeftAlone, None, text));
        }
        edits.extend(edit);
    }
    let knows = manager.knows_us(host);
    remarks.extend(manager.rival(host, false).filter(|_| knows));
    let (run, advice) = match manager {
        Manager::PamAuthUpdate if knows => (Some(Run::new(host, false)), Vec::new()),
        Manager::Authselect { .. } if knows => (None, manager.advice(host, false)),
        _ => (None, Vec::new()),
    };
    Plan { edits, run, advice, remarks }
}
