//! What the journal says of the last seeder.

use super::finding::{Finding, Problem};
use super::host::{Host, Look, QUICK, one_line};
use super::programs::Ran;

/// The messages that a seeder failed, and that it brought tokens (pag, src/report/messages.rs).
const FAILED: &str = "a4ea3938d4294c52810915b0875b0b21";
const SEEDED: &str = "135d63cf1293424c802a2e8f96fc5ce8";

pub(super) fn check(host: &Host, look: &mut Look) {
    let (failed, seeded) = (format!("MESSAGE_ID={FAILED}"), format!("MESSAGE_ID={SEEDED}"));
    let user = host.person.as_ref().map(|person| format!("USER_ID={}", person.uid));
    let mut words = vec!["journalctl", "-q", "-o", "json", "-n", "1", "-S", "-1h", &failed, &seeded];
    words.extend(user.as_deref());
    // A large journal is no fault of this host.
    let Ran::Done { status: 0, out, .. } = host.programs.run(&words, QUICK) else {
        look.left_out("what seeders said: journalctl does not tell it");
        return;
    };
    let last = serde_json::from_str::<serde_json::Value>(out.trim()).unwrap_or_default();
    let field = |name: &str| last.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    if field("MESSAGE_ID") != FAILED {
        look.fine("no seeder failed in the last hour, or one has got tokens since");
        return;
    }
    let what = format!("the last run of a seeder has failed: {}", one_line(&field("MESSAGE")));
    let why = "that login or renewal brought no tokens";
    let command = match field("USER_ID") {
        uid if uid.is_empty() => "pagctl log -S '1 hour ago'".to_owned(),
        uid => format!("pagctl log -S '1 hour ago' {uid}"),
    };
    look.found(Finding::warning(Problem::SeederFailed, what, why).mend(command));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::{Machine, ids, says};

    #[test]
    fn a_failure_counts_until_a_seeder_succeeds() {
        let with = |id: &str| {
            let line = format!("{{\"MESSAGE_ID\": \"{id}\", \"MESSAGE\": \"it failed\", \"USER_ID\": \"61001\"}}\n");
            Machine::healthy().program("journalctl -q -o json", says(0, &line)).look(check)
        };
        let failed = with(FAILED);
        assert_eq!(ids(&failed), [Problem::SeederFailed]);
        assert!(failed.findings[0].what.contains("it failed"), "{failed:?}");
        assert_eq!((ids(&with(SEEDED)), ids(&Machine::healthy().look(check))), (vec![], vec![]));
    }
}
