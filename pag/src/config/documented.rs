//! Tests that the manuals and `pag.conf` name each option and state its built-in default.

use super::options::{AKLOG, AKLOG_KAFS};
use super::options::{OPTIONS, Opt, Value, Where, shown, switched};
use super::services::{SERVICES, default_role};
use super::settings::Settings;
use crate::types::ServiceKind;

const PAM_PAG: &str = include_str!("../../../docs/man/pam_pag.8");
const PAG_CONF: &str = include_str!("../../../docs/man/pag.conf.5");
const FILE: &str = include_str!("../../../units/etc/pag/pag.conf");

/// The default of an option, as `pagctl status --explain` shows it. An unset `program` has a default here, too.
fn default(name: &str) -> String {
    match name {
        "program" => AKLOG.to_owned(),
        "kafs_program" => AKLOG_KAFS.to_owned(),
        _ => shown(name, &Settings::default()).unwrap(),
    }
}

/// The value of an option that was set to `text`, written as [`default`] writes it.
fn set(option: &Opt, text: &str) -> String {
    let mut settings = Settings::default();
    match option.value {
        Value::Switch(set) => set(&mut settings, switched(Some(text)).unwrap()),
        Value::Text(_) if text.is_empty() => return String::new(),
        Value::Text(set) => set(&mut settings, text).unwrap_or_else(|why| panic!("{} = {text}: {why}", option.name)),
    }
    shown(option.name, &settings).unwrap()
}

/// The text of a page without its macros and escapes.
fn plain(page: &str) -> String {
    let line = |line: &str| match line.strip_prefix('.') {
        Some(request) => request.split_once(' ').map_or(String::new(), |(_, words)| words.replace('"', "")),
        None => line.to_owned(),
    };
    let text: Vec<String> = page.lines().map(line).collect();
    ["\\fR", "\\fB", "\\fI", "\\"].iter().fold(text.join(" "), |text, escape| text.replace(escape, ""))
}

/// The paragraph of an option in a page. Its tag is the line after `.TP`, and the first word of the tag is the name.
fn paragraph(page: &str, name: &str) -> Option<String> {
    let has_tag = |text: &&str| {
        let tag = text.lines().next().unwrap_or_default().split(' ').nth(1).unwrap_or_default();
        tag.split(['=', '\\']).next() == Some(name)
    };
    let text = page.split("\n.TP\n").find(has_tag)?;
    Some(plain(text.split("\n.SS").next()?.split("\n.SH").next()?))
}

#[test]
fn pag_conf_states_the_defaults() {
    let host = FILE.split("\n[pag]\n").nth(1).unwrap().split("\n#[").next().unwrap();
    let lines: Vec<(&str, &str)> = host
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' '))?.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    for option in &OPTIONS {
        let stated: Vec<&str> =
            lines.iter().filter(|(name, _)| *name == option.name).map(|(_, value)| *value).collect();
        match option.stands {
            Where::Service | Where::Keytab => assert_eq!(stated.len(), 0, "{} in [pag]", option.name),
            Where::Anywhere | Where::Sections | Where::Host => {
                assert_eq!(stated.len(), 1, "{} in [pag]: {stated:?}", option.name);
                let (stated, default) = (set(option, stated[0]), default(option.name));
                assert_eq!(stated, default, "pag.conf has another default for {}", option.name);
            }
        }
    }
    let known = |name: &str| OPTIONS.iter().any(|option| option.name == name);
    assert!(lines.iter().all(|(name, _)| known(name)), "{lines:?}");
}

#[test]
fn the_manuals_state_the_defaults() {
    for option in OPTIONS.iter().filter(|option| option.name != "placement" && !default(option.name).is_empty()) {
        let name = option.name;
        let text = paragraph(PAM_PAG, name).or_else(|| paragraph(PAG_CONF, name));
        let text = text.unwrap_or_else(|| panic!("no manual has a paragraph about {name}"));
        let (_, stated) = text.rsplit_once("Default: ").unwrap_or_else(|| panic!("no default of {name}: {text}"));
        // The default from login.defs counts before the built-in one.
        let stated = stated.strip_prefix("UID_MIN of /etc/login.defs , else ").unwrap_or(stated);
        let stated = stated.split(' ').next().unwrap().trim_end_matches(['.', ',', ';']);
        assert_eq!(set(option, stated), default(name), "a manual has another default for {name}");
    }
}

#[test]
fn the_manual_states_the_placement_of_each_known_service() {
    let lists = plain(PAG_CONF.split("\nDefaults:\n").nth(1).unwrap().split("\n.RE").next().unwrap());
    let list = |from: &str, to: &str| -> Vec<String> {
        let list = lists.split(from).nth(1).unwrap().split(to).next().unwrap();
        list.split([' ', ',', ';']).map(str::to_owned).collect()
    };
    let (none, own) = (list("none :", "own :"), list("own :", "login :"));
    for (service, _) in SERVICES {
        let stated = (none.contains(&service.to_owned()), own.contains(&service.to_owned()));
        let placement = default_role(service);
        let right = (placement == ServiceKind::Nothing, placement == ServiceKind::Own);
        assert_eq!(stated, right, "{service} (none, own)");
    }
}
