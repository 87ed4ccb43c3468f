//! Which keytab gives the ticket of a PAG.

use crate::config::keytab::{Keytab, KeytabOwner};
use crate::store::lease::Lease;

/// The keytab for a PAG of the user `name` with these leases. The keytab of a service comes before the user's.
pub fn keytab<'a>(keytabs: &'a [(KeytabOwner, Keytab)], name: &str, leases: &[Lease]) -> Option<&'a Keytab> {
    let is_at = |service: &str| leases.iter().any(|lease| lease.service.to_string().eq_ignore_ascii_case(service));
    let of_service = keytabs.iter().find(|(owner, _)| matches!(owner, KeytabOwner::Service(service) if is_at(service)));
    let of_user = || keytabs.iter().find(|(owner, _)| matches!(owner, KeytabOwner::User(user) if user == name));
    of_service.or_else(of_user).map(|(_, keytab)| keytab)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::lease::LeaseKind;
    use crate::sys::Process;
    use crate::types::Word;

    #[test]
    fn a_services_keytab_comes_before_the_users() {
        let one = |path: &str| Keytab { path: path.into(), principal: None };
        let all = [
            (KeytabOwner::User("alice".to_owned()), one("/a")),
            (KeytabOwner::Service("backup".to_owned()), one("/b")),
        ];
        let lease = |service: &str| Lease {
            process: Process { pid: 1, start: 1 },
            cookie: 0,
            role: LeaseKind::Login,
            service: Word::clean(service),
            tty: Word::clean(""),
            ccache: Word::clean(""),
            sessions: 1,
        };
        assert_eq!(keytab(&all, "alice", &[lease("sshd")]), Some(&all[0].1));
        assert_eq!(keytab(&all, "alice", &[lease("sshd"), lease("backup")]), Some(&all[1].1));
        assert_eq!(keytab(&all, "bob", &[lease("BACKUP")]), Some(&all[1].1));
        assert_eq!(keytab(&all, "bob", &[lease("sshd")]), None);
    }
}
