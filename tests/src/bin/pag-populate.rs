//! Fills the registry: makes N PAGs for the uids from FIRST up, says `ready`, and takes them away again when its
//! standard input ends. Every PAG has a lease of this process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

use std::time::Duration;

use pag::config::Retain;
use pag::guard::{Guard, HandleGroup};
use pag::lease::{Lease, Process, Role};
use pag::lock::Lock;
use pag::record::{Kind, Record};
use pag::registry::{PagId, Registry};
use pag::ring::Ring;

fn main() {
    let arguments: Vec<u32> = std::env::args().skip(1).map(|word| word.parse().expect("a number")).collect();
    let [count, first] = arguments[..] else { panic!("pag-populate N FIRST") };
    let group = HandleGroup::read();
    let guard = Guard::enter(group).expect("root");
    let registry = Registry::open(&guard, group, Duration::from_secs(5)).expect("a registry");
    let lease = Lease::new(Process::current().unwrap(), Role::Login, "populate", "").unwrap();
    let pags: Vec<_> = (first..first + count)
        .map(|uid| {
            let lock = Lock::of_uid(uid, Duration::from_secs(5)).expect("a lock");
            let ring = Ring::make(&guard, group, uid).expect("a ring");
            let mut record = Record::new(uid, Kind::User, String::new(), Retain::None);
            record.leases.push(lease.clone());
            let pag = registry.anchor(&guard, &lock, PagId::random().unwrap(), &ring, record).expect("an anchor");
            ring.release();
            pag
        })
        .collect();
    println!("ready");
    let _ = std::io::stdin().read_line(&mut String::new());
    for pag in &pags {
        registry.retire(&guard, pag).expect("an end");
    }
}
