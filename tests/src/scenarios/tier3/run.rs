//! `pagctl run` on a real cell.

use std::time::{Duration, Instant};

use super::Client;
use crate::cell::{as_root, assert_denied, home, let_go_of_keys_early};
use crate::guest::{QuickCollection, eventually, sh};

pub(super) fn afs_run_reads_a_users_files(client: Client) {
    let _quick = QuickCollection::begin();
    let_go_of_keys_early(client);
    let home = home("alice");
    sh("kadmin.local ktadd -k /run/alice.keytab -norandkey alice >/dev/null");
    let outside = format!("echo no >{home}/by-none");
    assert_denied("root before", &as_root(&outside));

    // As a service, under an account that has neither keytab nor ticket.
    let script = format!(
        "{{ id -un; cat {home}/secret; echo by a command >{home}/by-run && echo written; klist; cat /run/alice.keytab; }} \
         >/tmp/run-said 2>&1; systemd-notify --ready; exec sleep 600"
    );
    sh(&format!(
        "systemd-run --quiet --unit=run-web --property=Type=notify --property=NotifyAccess=all \
         pagctl run --keytab /run/alice.keytab --principal alice --user nobody --wait=60 -- sh -c '{script}'"
    ));
    let said = std::fs::read_to_string("/tmp/run-said").unwrap();
    assert!(said.contains("nobody\na secret of alice's"), "the command reads alice's files as another uid: {said}");
    assert!(said.contains("written"), "and writes them: {said}");
    assert!(said.contains("No credentials cache"), "it has no ticket: {said}");
    assert!(said.contains("alice.keytab: Permission denied"), "and no keytab: {said}");
    assert_denied("root beside it", &as_root(&outside));
    let as_nobody = format!("setpriv --reuid nobody --clear-groups sh -c '{outside}'");
    assert_denied("its uid beside it", &as_root(&as_nobody));

    // The command is the main process of its unit, and the keeper does not hold up the unit's end.
    let main = sh("cat /proc/$(systemctl show --property=MainPID --value run-web)/comm");
    assert_eq!(main.trim(), "sleep", "the command is the unit's main process");
    let begun = Instant::now();
    sh("systemctl stop run-web");
    assert!(begun.elapsed() < Duration::from_secs(45), "the unit stops before its time is up: {:?}", begun.elapsed());
    let is_gone = || as_root("pgrep -f '^pagctl run'").is_empty().then_some(());
    eventually("the keeper is gone", Duration::from_secs(30), is_gone);
    sh("rm -f /tmp/run-said /run/alice.keytab");
}
