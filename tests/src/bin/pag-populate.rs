//! Fills the registry: makes N PAGs for the uids from FIRST up, says `ready`, and takes them away again when its
//! standard input ends. Every PAG has a lease of this process, or with `each` one of a process of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

use std::process::{Command, Stdio};
use std::time::Duration;

use pag::guard::{Guard, HandleGroup};
use pag::store::lease::{Lease, LeaseKind};
use pag::store::locked::LockedUser;
use pag::store::record::{PagKind, Record};
use pag::store::ring::Ring;
use pag::sys::Process;
use pag::types::PagId;
use pag::types::Retain;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let each = arguments.get(2).is_some_and(|word| word == "each");
    let number = |index: usize| arguments[index].parse::<u32>().expect("a number");
    let (count, first) = (number(0), number(1));
    let mut processes = Vec::new();
    let group = HandleGroup::read();
    let guard = Guard::enter(group).expect("root");
    let mut lease = || {
        let mut process = Process::current().unwrap();
        if each {
            let child =
                Command::new("sleep").arg("infinity").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
            process = Process::find(i32::try_from(child.id()).unwrap()).unwrap();
            processes.push(child);
        }
        Lease::new(process, LeaseKind::Login, "populate", "", None).unwrap()
    };
    let pags: Vec<_> = (first..first + count)
        .map(|uid| {
            let user = LockedUser::lock(&guard, uid, Duration::from_secs(5)).expect("a lock");
            let ring = Ring::make(&guard, group, uid).expect("a ring");
            let mut record = Record::new(uid, PagKind::User, String::new(), Retain::None);
            record.leases.push(lease());
            let pag = user.anchor(PagId::random().unwrap(), &ring, record).expect("an anchor");
            ring.release();
            pag
        })
        .collect();
    println!("ready");
    let _ = std::io::stdin().read_line(&mut String::new());
    for pag in &pags {
        LockedUser::lock(&guard, pag.uid, Duration::from_secs(5)).and_then(|user| user.retire(pag)).expect("an end");
    }
    for mut process in processes {
        process.kill().ok();
        process.wait().ok();
    }
}
