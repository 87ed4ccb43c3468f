//! Records for the tests of policies.

use crate::store::lease::{Lease, LeaseKind};
use crate::store::record::{PagKind, Record};
use crate::sys::Process;
use crate::types::{Principal, Retain, Word};

pub(super) fn principal(text: &str) -> Principal {
    Principal::parse(text).unwrap()
}

pub(super) fn record(kind: PagKind, made: u64, who: Option<&str>, roles: &[LeaseKind]) -> Record {
    let lease = |role: &LeaseKind| Lease {
        process: Process { pid: 1, start: 1 },
        cookie: 0,
        role: *role,
        service: Word::clean("x"),
        tty: Word::clean(""),
        ccache: Word::clean(""),
        sessions: 1,
    };
    Record {
        made,
        principal: who.map(principal),
        leases: roles.iter().map(lease).collect(),
        ..Record::new(61001, kind, String::new(), Retain::None)
    }
}

/// The PAG of a login with the process `pid`, made at `made`. A higher pid has an earlier start.
pub(super) fn session_pag(pid: i32, made: u64) -> Record {
    let mut record = record(PagKind::Session, made, None, &[LeaseKind::Login]);
    record.leases[0].process = Process { pid, start: 1000 - u64::from(pid.unsigned_abs()) };
    record
}
