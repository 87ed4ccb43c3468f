//! Looks at the ticket in a PAG's own ccache, and notes it in the PAG's record.

use std::fmt;
use std::time::Instant;

use pag::ccache::format::Summary;
use pag::ccache::{self, CcacheName};
use pag::config::account::Account;
use pag::policy;
use pag::types::{PagId, Principal};

use crate::errands::{self, Work};
use crate::pags::users::{passwd, reader};
use crate::pags::{Edit, Pags};

/// The PAGs that have a ccache of their own, and their users.
pub(super) fn own_ccaches(pags: &Pags) -> impl Iterator<Item = (PagId, u32)> {
    pags.all().filter(|known| known.has_own_ccache()).map(|known| (known.id, known.uid))
}

/// The end of the ticket in a PAG's ccache, by its record.
pub(crate) fn end_of_ticket(pags: &Pags, id: PagId) -> Option<u64> {
    pags.get(id).map(|known| known.record.ticket)
}

/// The errand that reads the ticket in a PAG's own ccache, as its user, and, if a job has `failed`, the reason that it has
/// left there. It reports what [`parts_of`] takes.
pub(crate) fn look_at_ticket(pags: &Pags, id: PagId, failed: bool) -> Option<(u32, Work)> {
    let known = pags.get(id).filter(|known| known.has_own_ccache())?;
    let (uid, has_identity) = (known.uid, known.record.principal.is_some());
    let place = CcacheName::Dir(ccache::directory(uid, id).display().to_string());
    let read = move || {
        let Ok(contents) = ccache::read(&place, &reader(uid), Instant::now() + errands::TIME) else {
            return String::new();
        };
        // If the record has an identity, that decides. Else the child asks the name services: they may be slow.
        let owned = !has_identity && Account::configured(&passwd(uid).name).owns(&contents.summary.principal);
        Ticket::of(contents.summary, owned).to_string()
    };
    let reason =
        move || failed.then(|| ccache::take_reason(&reader(uid), id, Instant::now() + errands::TIME)).flatten();
    Some((uid, Box::new(move || format!("{}\n{}", reason().unwrap_or_default(), read()))))
}

/// The parts of what a child reports: the reason of a failed job, if there is one, and what [`note_ticket`] takes.
pub(crate) fn parts_of(report: &str) -> (Option<&str>, &str) {
    let (reason, ticket) = report.split_once('\n').unwrap_or_default();
    (Some(reason).filter(|reason| !reason.is_empty()), ticket)
}

/// Notes the ticket that was found in a PAG's own ccache. True if it is another than the record says, and tokens are to be had
/// from it: it was renewed or replaced. A job of `ours` may have done that. A user who has got a new ticket, and has not
/// merely renewed the old one, wants the tokens back that were discarded.
///
/// # Errors
/// `Lock` if a login holds the lock: the ccache is to be read again then. If keyrings cannot be used.
pub(crate) fn note_ticket(pags: &mut Pags, id: PagId, report: &str, ours: bool) -> pag::Result<bool> {
    let Some(Ticket { expires: ticket, renewable, authenticated, owned, principal }) = Ticket::parse(report) else {
        return Ok(false);
    };
    let Some(known) = pags.get(id).filter(|known| known.has_own_ccache()) else { return Ok(false) };
    match &known.record.principal {
        // Tokens of another identity have no place in this PAG.
        Some(known) if *known != principal => return Ok(false),
        // A PAG without an identity takes the natural principal's ticket and no other, as in `feed`.
        None if !owned => {
            let uid = known.uid;
            log::debug!("the ticket of {principal} in PAG {id} of uid {uid} is not the user's own: it is not taken");
            return Ok(false);
        }
        _ => {}
    }
    if (known.record.ticket, known.record.renewable) == (ticket, renewable) {
        return Ok(false);
    }
    let now = pag::sys::now();
    let edit = pags.edit(id, |_, record| {
        // A login may have noted the ticket that it brought, since this record was read.
        if (record.ticket, record.renewable) == (ticket, renewable) {
            return false;
        }
        if !ours && authenticated != record.authenticated {
            record.discarded.clear();
        }
        (record.ticket, record.renewable, record.authenticated) = (ticket, renewable, authenticated);
        record.principal.get_or_insert(principal);
        true
    })?;
    let Some(known) = pags.get(id).filter(|_| edit == Edit::Stored) else { return Ok(false) };
    let record = &known.record;
    let shorter = record.tokens.iter().any(|token| token.expires.saturating_add(2) < ticket);
    let lacks_all = record.tokens.is_empty() && record.discarded.is_empty() && record.has_login() && ticket > now;
    // Not if the login that has brought the ticket, or a job, gets tokens already.
    Ok((shorter || lacks_all) && policy::worth_seeding(record.last_seeding, now, ticket, true))
}

/// The word by which a child reports that a ticket is of the user's natural principal.
const OWNED: &str = "owned";

/// What the helper must know of a ticket, as a child reports it.
struct Ticket {
    expires: u64,
    renewable: u64,
    authenticated: u64,
    /// Whether it is of the user's natural principal. Not asked if the PAG has an identity.
    owned: bool,
    principal: Principal,
}

impl Ticket {
    fn of(summary: Summary, owned: bool) -> Self {
        Ticket {
            expires: summary.tgt_expires.unwrap_or(0),
            renewable: summary.tgt_renew_until.unwrap_or(0),
            authenticated: summary.tgt_authenticated.unwrap_or(0),
            owned,
            principal: summary.principal,
        }
    }

    fn parse(report: &str) -> Option<Self> {
        let mut words = report.splitn(5, ' ');
        let mut number = || words.next()?.parse().ok();
        let (expires, renewable, authenticated) = (number()?, number()?, number()?);
        let owned = words.next()? == OWNED;
        Some(Ticket { expires, renewable, authenticated, owned, principal: Principal::parse(words.next()?).ok()? })
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owned = if self.owned { OWNED } else { "-" };
        write!(f, "{} {} {} {owned} {}", self.expires, self.renewable, self.authenticated, self.principal)
    }
}
