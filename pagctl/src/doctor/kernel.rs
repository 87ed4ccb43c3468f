//! The kernel's keyrings, and how full they are.

use pag::report::User;

use super::finding::{Finding, Problem};
use super::host::{Host, Look};

/// A user's keys, and the most that they may have: `/proc/key-users` (Linux, security/keys/proc.c,
/// proc_key_users_show).
#[derive(Debug, PartialEq, Eq)]
struct Quota {
    uid: u32,
    keys: (u64, u64),
    bytes: (u64, u64),
}

impl Quota {
    /// `UID: USAGE KEYS/INSTANTIATED COUNTED/MOST BYTES/MOST`
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let uid = words.next()?.strip_suffix(':')?.parse().ok()?;
        let mut pair = || {
            let (used, most) = words.next()?.split_once('/')?;
            Some((used.parse().ok()?, most.parse().ok()?))
        };
        // The number of users of the entry, and all keys, do not count.
        let _ = pair();
        let _ = pair();
        Some(Quota { uid, keys: pair()?, bytes: pair()? })
    }

    /// How full the fuller of both is, in percent.
    fn percent(&self) -> u64 {
        let of = |(used, most): (u64, u64)| (used * 100).checked_div(most).unwrap_or(0);
        of(self.keys).max(of(self.bytes))
    }
}

/// From these percentages on a quota counts as nearly full, and as full. A login needs a handful of keys.
const LOW: u64 = 80;
const FULL: u64 = 97;

pub(super) fn check(host: &Host, look: &mut Look) {
    if !host.has("/proc/keys") {
        let why = "a PAG is a keyring of the kernel: without them no login gets one";
        look.found(Finding::error(Problem::KeyringsMissing, "this kernel has no keyrings (CONFIG_KEYS)", why));
        return;
    }
    let mut all_fit = true;
    let users = host.text("/proc/key-users").unwrap_or_default();
    for quota in users.lines().filter_map(Quota::parse).filter(|quota| quota.percent() >= LOW) {
        all_fit = false;
        let ((keys, most_keys), (bytes, most_bytes)) = (quota.keys, quota.bytes);
        let what = format!(
            "{} has {keys} of at most {most_keys} keys, and {bytes} of at most {most_bytes} bytes in keys",
            User(quota.uid)
        );
        let prefix = if quota.uid == 0 { "kernel.keys.root_" } else { "kernel.keys." };
        let command = format!(
            "printf '%s\\n' '{prefix}maxkeys = {}' '{prefix}maxbytes = {}' > /etc/sysctl.d/60-pag.conf && sysctl --system",
            most_keys.saturating_mul(10),
            most_bytes.saturating_mul(10)
        );
        let finding = if quota.percent() >= FULL {
            let why = "a login or a seeder that needs another key fails with `Disk quota exceeded`";
            Finding::error(Problem::KeyQuotaFull, what, why)
        } else {
            Finding::warning(Problem::KeyQuotaLow, what, "when it is full, logins and seeders fail")
        };
        look.found(finding.mend(command));
    }
    if all_fit {
        look.fine("the kernel has keyrings, and no user's key quota is nearly full");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{Machine, ids};

    #[test]
    fn a_quota_is_told_before_it_is_full() {
        let line = "61001:     5 4/4 3/200 120/20000";
        let quota = Quota { uid: 61001, keys: (3, 200), bytes: (120, 20000) };
        assert_eq!(Quota::parse(line), Some(quota));
        for none in ["", "x", "61001:", "61001: 5 4/4 3/200", "61001: 5 4/4 3/200 1/x"] {
            assert_eq!(Quota::parse(none), None, "{none}");
        }
        let with = |line: &str| {
            let look = Machine::healthy().file("/proc/key-users", line).look(check);
            (ids(&look), look.findings.first().and_then(|finding| finding.command.clone()).unwrap_or_default())
        };
        assert_eq!(with(line).0, []);
        assert_eq!(with("61001: 5 4/4 170/200 120/20000").0, [Problem::KeyQuotaLow]);
        let (full, command) = with("61001: 5 4/4 3/200 19900/20000\n0: 9 9/9 9/1000000 99/25000000");
        assert_eq!(full, [Problem::KeyQuotaFull]);
        assert!(command.contains("kernel.keys.maxkeys = 2000' 'kernel.keys.maxbytes = 200000'"), "{command}");
        assert!(with("0: 9 9/9 1000000/1000000 99/25000000").1.contains("kernel.keys.root_maxkeys = 10000000"));
        assert_eq!(ids(&Machine::healthy().without("/proc/keys").look(check)), [Problem::KeyringsMissing]);
    }
}
