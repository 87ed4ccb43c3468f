//! Puts the ticket that a login keeps in a ccache of its own into the ccaches of its PAGs.

use std::time::Instant;

use pag::ccache::{self, CcacheName, Contents, Unread};
use pag::config::account::Account;
use pag::report::{Event, report};
use pag::store::lock::Lock;
use pag::store::record::{PagKind, Record};
use pag::sys::Identity;
use pag::types::PagId;

use super::errand::record_of;
use super::other_ccaches::Due;
use crate::errands::{self, Work};
use crate::pags::Pags;
use crate::pags::known::Known;
use crate::pags::users::{passwd, reader};

/// The first line of a report about a ccache that was read.
const READ: &str = "read";

/// The ccaches outside of the PAGs' own: files of logins, keyrings, KCM. Those of cron jobs are left to the jobs.
pub(super) fn other_ccaches(pags: &Pags) -> impl Iterator<Item = (PagId, u32, CcacheName)> {
    let default = ccache::DefaultName::read();
    let open = pags.all().filter(|known| known.has_own_ccache() && known.record.kind != PagKind::Own);
    open.flat_map(move |known| {
        let default = default.of(known.uid);
        let places = known.record.leases.iter().filter_map(move |lease| lease.tickets(default.as_ref()));
        places.map(|place| (known.id, known.uid, place))
    })
}

/// The errand that puts the ticket of a login into the ccaches of the PAGs, if it is of the PAG's identity and ends later than
/// the ticket that is there. A PAG without an identity takes the natural principal's ticket and no other: it gives no one
/// else's rights to its processes.
pub(crate) fn feed(pags: &Pags, due: &Due) -> Work {
    let of = |id: &PagId| pags.get(*id).filter(|known| known.has_own_ccache());
    let fed = due.pags.iter().filter_map(of).map(|known| {
        let Known { id, record: Record { principal, ticket, .. }, .. } = known;
        (*id, principal.clone(), *ticket)
    });
    let (fed, place, uid, group) = (fed.collect::<Vec<_>>(), due.place.clone(), due.uid, pags.group());
    Box::new(move || {
        // Looked up by the child, and not by the helper's loop: name services may be slow.
        let user = passwd(uid);
        let account = Account::configured(&user.name);
        let deadline = Instant::now() + errands::TIME;
        let all = match ccache::read_all(&place, &reader(uid), deadline) {
            Ok(all) => all,
            Err(Unread::NotNow(_)) => return String::new(),
            Err(_) => return READ.to_owned(),
        };
        let identity = Identity { uid, gid: user.gid, groups: vec![user.gid] };
        let mut report = READ.to_owned();
        for (id, principal, ticket) in fed {
            let is_its_own = |contents: &&Contents| match (&principal, &contents.summary.principal) {
                (Some(its), principal) => its == principal,
                (None, principal) => account.owns(principal),
            };
            let latest = |fits: &dyn Fn(&&Contents) -> bool| {
                let later = |contents: &&Contents| contents.summary.tgt_expires > Some(ticket.max(pag::sys::now()));
                all.iter().filter(fits).filter(later).max_by_key(|contents| contents.summary.tgt_expires)
            };
            let Some(contents) = latest(&is_its_own) else {
                if let Some(other) = latest(&|_| true).filter(|_| principal.is_none()) {
                    // A user's name may hold what it likes, but no newline and no colon (passwd(5)).
                    report += &format!("\n{id} apart {}:{}", account.name(), other.summary.principal);
                }
                continue;
            };
            let expires = contents.summary.tgt_expires.unwrap_or(0);
            // A login may have given the PAG another identity meanwhile. A login that comes now waits for the lock before it
            // writes its own ticket.
            let Ok(_lock) = Lock::of_tickets(uid, deadline.saturating_duration_since(Instant::now())) else {
                return String::new();
            };
            let has_place = |record: Record| record.principal.is_none_or(|its| its == contents.summary.principal);
            if !record_of(id, group).is_some_and(has_place) {
                continue;
            }
            match ccache::feed(&identity, id, contents, deadline) {
                Ok(true) => report += &format!("\n{id} fed {expires}"),
                Ok(false) => {}
                Err(why) => report += &format!("\n{id} refused {why}"),
            }
        }
        report
    })
}

/// Reports what came of [`feed`] to the journal. False if the ccache could not be read in time.
pub(crate) fn fed(uid: u32, words: &str) -> bool {
    let mut lines = words.lines();
    let read = lines.next() == Some(READ);
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let pag = words.next().and_then(PagId::parse);
        match (pag, words.next(), words.next()) {
            (Some(pag), Some("fed"), Some(end)) => {
                report(&Event::CcacheFed { uid, pag, expires: end.parse().unwrap_or(0) });
            }
            (Some(pag), Some("apart"), Some(other)) => {
                let (name, principal) = other.split_once(':').unwrap_or(("", other));
                report(&Event::Apart { uid, name: name.to_owned(), pag, principal: principal.to_owned() });
            }
            (_, _, why) => report(&Event::CcacheRefused { uid, why: why.unwrap_or_default().to_owned() }),
        }
    }
    read
}
