//! A hundred logins leave nothing behind.

use std::time::{Duration, Instant};

use super::{Client, long};
use crate::cell;
use crate::guest::{Proof, QuickCollection, eventually, key_count, sh, ssh};

pub(super) fn afs_logins_leave_nothing(client: Client) {
    let _quick = QuickCollection::begin();
    let times = if long() { 100 } else { 8 };
    cell::let_go_of_keys_early(client);
    if client == Client::Kafs {
        // It holds the key of each login that has read a file for as long as it has that file cached, and alice pays.
        sh("sysctl -qw kernel.keys.maxkeys=2000 kernel.keys.maxbytes=200000");
    }
    let one = || {
        assert_eq!(ssh("alice", Proof::Password, "cat ~/secret"), "a secret of alice's\n");
    };
    one();
    cell::is_over("alice");
    let counts = || {
        if client == Client::Kafs {
            // kAFS holds a key for each file that has cached permissions (fs/afs/security.c, afs_cache_permit). One is the
            // mount's own root, and dropping caches does not reach it.
            sh("umount -l /afs 2>/dev/null || true");
        }
        (cell::afs_pags(), key_count(0), key_count(61001), open_files())
    };
    let before = eventually("the counts have settled", Duration::from_secs(20), || {
        let now = counts();
        std::thread::sleep(Duration::from_millis(1500));
        (counts() == now).then_some(now)
    });
    cell::load(client);
    let first = cell::pag_counter(client);
    for _ in 0..times {
        one();
        cell::is_over("alice");
    }
    let made = cell::pag_counter(client).zip(first).map(|(last, first)| last.wrapping_sub(first));
    let end = Instant::now() + Duration::from_secs(10);
    let mut after = counts();
    while after != before && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(500));
        after = counts();
    }
    assert_eq!(
        after, before,
        "_pag keys, keys of root and of alice, descriptors of the helper: as before {times} logins"
    );
    // One for each login, and one for the count itself.
    if client == Client::OpenAfs {
        assert_eq!(made, Some(times + 1), "the PAG counter rises by one for each PAG");
    }
}

fn open_files() -> usize {
    sh("ls /proc/$(systemctl show -P MainPID pag-logind-helper)/fd | wc -l").trim().parse().unwrap()
}
