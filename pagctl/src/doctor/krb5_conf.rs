//! krb5.conf(5), as far as the doctor needs it: settings of `libdefaults`, and the KDCs of a realm.

use super::host::Host;

/// Most files that are read, so that files that include each other end.
const MOST_FILES: usize = 64;

/// A setting: the sections that it stands in, its name, its value.
type Setting = (Vec<String>, String, String);

/// All settings, in the order in which they stand.
#[derive(Debug, Default)]
pub(super) struct Krb5Conf(Vec<Setting>);

impl Krb5Conf {
    /// Reads a file and what it includes. None if the first file cannot be read.
    pub(super) fn read(host: &Host, path: &str) -> Option<Self> {
        let mut settings = Vec::new();
        let mut left = MOST_FILES;
        read(host, path, &mut left, &mut settings).then_some(Krb5Conf(settings))
    }

    /// The first value of a setting.
    pub(super) fn value(&self, sections: &[&str], name: &str) -> Option<&str> {
        self.values(sections, name).into_iter().next()
    }

    /// All its values.
    pub(super) fn values(&self, sections: &[&str], name: &str) -> Vec<&str> {
        let is_it = |setting: &&Setting| setting.0 == sections && setting.1 == name;
        self.0.iter().filter(is_it).map(|(_, _, value)| value.as_str()).collect()
    }
}

fn read(host: &Host, path: &str, left: &mut usize, settings: &mut Vec<Setting>) -> bool {
    *left = left.saturating_sub(1);
    let Some(text) = host.text(path).filter(|_| *left > 0) else { return false };
    let mut sections: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            sections = vec![section.to_owned()];
        } else if let Some(path) = line.strip_prefix("include ") {
            read(host, path.trim(), left, settings);
        } else if let Some(directory) = line.strip_prefix("includedir ").map(str::trim) {
            let plain = |name: &String| name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
            for name in host.names(directory).into_iter().filter(|name| plain(name) || name.ends_with(".conf")) {
                read(host, &format!("{directory}/{name}"), left, settings);
            }
        } else if line.starts_with('}') {
            if sections.len() > 1 {
                sections.pop();
            }
        } else if let Some((name, value)) = line.split_once('=') {
            let (name, value) = (name.trim().to_owned(), value.trim());
            match value.strip_suffix('{') {
                Some("") => sections.push(name),
                _ => settings.push((sections.clone(), name, value.trim_matches('"').to_owned())),
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::Machine;

    #[test]
    fn settings_are_found_by_their_sections() {
        let text = "[libdefaults]\n default_realm = EXAMPLE.TEST\n includedir /etc/krb5.conf.d\n[realms]\n EXAMPLE.TEST = {\n\
                    \x20 kdc = one:88\n  # kdc = none\n  kdc = \"two\"\n }\n OTHER.TEST = {\n kdc = three\n }\n";
        let machine = Machine::healthy().file("/etc/krb5.conf", text);
        let machine = machine.file("/etc/krb5.conf.d/x.conf", "[libdefaults]\ndefault_ccache_name = KCM:\n");
        let conf = Krb5Conf::read(&machine.host(true), "/etc/krb5.conf").unwrap();
        assert_eq!(conf.value(&["libdefaults"], "default_realm"), Some("EXAMPLE.TEST"));
        assert_eq!(conf.value(&["libdefaults"], "default_ccache_name"), Some("KCM:"));
        let kdcs: Vec<&str> = conf.values(&["realms", "EXAMPLE.TEST"], "kdc");
        assert_eq!(kdcs, ["one:88", "two"]);
        assert!(Krb5Conf::read(&machine.host(true), "/etc/none").is_none());
    }
}
