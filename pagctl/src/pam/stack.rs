//! The stack of a service: its includes resolved into the order in which modules are called.

use super::parse::{Entry, Facility, Meaning, parse};

/// Where libpam looks for a service, first match wins (Linux-PAM, pam_handlers.c, `_pam_open_config_file`: /etc, then
/// the distribution's directory, then the vendor's where one was configured).
pub(crate) const DIRECTORIES: [&str; 4] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d", "/usr/share/pam.d"];

/// libpam refuses deeper nesting, too (`PAM_SUBSTACK_MAX_LEVEL`).
const DEPTH: usize = 16;
/// No real stack reads more files; includes that multiply stop here.
const READS: usize = 400;

/// Something to read PAM files from; paths are absolute, as seen by the host that they are for.
pub(crate) trait Files {
    /// The text of a file; none when there is none.
    fn text(&self, path: &str) -> Option<String>;

    /// The file of a service.
    fn service(&self, name: &str) -> Option<String> {
        let path = DIRECTORIES.iter().map(|dir| format!("{dir}/{name}"));
        path.into_iter().find(|path| self.text(path).is_some())
    }
}

/// One call of a module.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// The call.
    pub(crate) entry: Entry,
    /// The file that it stands in.
    pub(crate) path: String,
    /// Its line there, counted from 0 in logical lines.
    pub(crate) line: usize,
    /// The line of the service's own file which brought it.
    pub(crate) top: usize,
}

/// A service's calls for one facility.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stack {
    /// In the order in which libpam makes them.
    pub(crate) steps: Vec<Step>,
    /// What could not be followed, each with its place, in words.
    pub(crate) trouble: Vec<String>,
    reads: usize,
}

impl Stack {
    /// Positions of the calls of a module.
    pub(crate) fn calls<'a>(&'a self, module: &'a str) -> impl Iterator<Item = (usize, &'a Step)> {
        self.steps.iter().enumerate().filter(move |(_, step)| step.entry.calls(module))
    }
}

/// Reads the stack that begins in this file.
pub(crate) fn resolve(files: &dyn Files, path: &str, facility: Facility) -> Stack {
    let mut stack = Stack::default();
    follow(files, path, facility, None, 0, &mut stack);
    stack
}

fn follow(files: &dyn Files, path: &str, facility: Facility, top: Option<usize>, depth: usize, stack: &mut Stack) {
    stack.reads += 1;
    let Some(text) = files.text(path) else {
        stack.trouble.push(format!("{path}: can't be read"));
        return;
    };
    for (number, line) in parse(&text).into_iter().enumerate() {
        let top = top.unwrap_or(number);
        let target = match line.meaning {
            Meaning::Nothing => continue,
            Meaning::Unknown => {
                stack.trouble.push(format!("{path}: not understood: {:?}", line.text.trim()));
                continue;
            }
            Meaning::IncludeAll(target) => target,
            Meaning::Entry(entry) if entry.facility != facility => continue,
            Meaning::Entry(entry) if entry.includes() => entry.target,
            Meaning::Entry(entry) => {
                stack.steps.push(Step { entry, path: path.to_owned(), line: number, top });
                continue;
            }
        };
        if stack.reads > READS {
            return;
        }
        let found = if target.starts_with('/') { Some(target.clone()) } else { files.service(&target) };
        match found {
            Some(found) if depth < DEPTH => follow(files, &found, facility, Some(top), depth + 1, stack),
            Some(_) => stack.trouble.push(format!("{path}: includes nest too deep at {target:?}")),
            None => stack.trouble.push(format!("{path}: includes {target:?}, which does not exist")),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    impl Files for BTreeMap<&str, &str> {
        fn text(&self, path: &str) -> Option<String> {
            self.get(path).map(|text| (*text).to_owned())
        }
    }

    #[test]
    fn includes_are_followed_etc_first_and_by_facility() {
        let files = BTreeMap::from([
            (
                "/etc/pam.d/sshd",
                "auth include a\nsession required one.so\n@include c\nsession include /usr/lib/pam.d/c\n",
            ),
            ("/etc/pam.d/c", "auth required x.so\nsession required two.so\n"),
            ("/usr/lib/pam.d/c", "session required three.so\n"),
        ]);
        let stack = resolve(&files, "/etc/pam.d/sshd", Facility::Session);
        let seen: Vec<_> = stack.steps.iter().map(|s| (s.entry.target.as_str(), s.top)).collect();
        assert_eq!(seen, [("one.so", 1), ("two.so", 2), ("three.so", 3)]);
        assert!(stack.trouble.is_empty());
        let auth = resolve(&files, "/etc/pam.d/sshd", Facility::Auth);
        assert_eq!(auth.trouble, ["/etc/pam.d/sshd: includes \"a\", which does not exist"]);
    }

    #[test]
    fn includes_that_multiply_end() {
        let text = "session include x\n".repeat(50);
        let files = BTreeMap::from([("/etc/pam.d/x", text.as_str())]);
        let stack = resolve(&files, "/etc/pam.d/x", Facility::Session);
        assert!(stack.reads < 2 * READS && !stack.trouble.is_empty());
    }
}
