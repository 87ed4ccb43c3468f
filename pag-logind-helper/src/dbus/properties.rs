//! The properties of a PAG's object.

use pag::store::lease::Lease;
use pag::types::PagId;
use zbus::Variant;

use super::token_list::Token;
use crate::pags::known::Known;

/// What a PAG's object says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Properties {
    id: PagId,
    uid: u32,
    kind: &'static str,
    made: u64,
    principal: String,
    ticket_expires: u64,
    retain: String,
    pub(crate) follows: Option<PagId>,
    chosen: bool,
    ring_serial: i32,
    tokens: Vec<Token>,
    leases: Vec<(Lease, bool)>,
}

impl Properties {
    /// Those of `known`, with `tokens` in its ring. `is_alive` is whether the process of a lease still runs.
    pub(crate) fn new(known: &Known, tokens: &[Token], is_alive: impl Fn(&Lease) -> bool) -> Self {
        let Known { id, uid, ring, record, .. } = known;
        Properties {
            id: *id,
            uid: *uid,
            kind: record.kind.as_str(),
            made: record.made,
            principal: record.principal.as_ref().map(ToString::to_string).unwrap_or_default(),
            ticket_expires: record.ticket,
            retain: record.retain.to_string(),
            follows: record.follows,
            chosen: record.chosen,
            ring_serial: ring.serial.get(),
            tokens: tokens.to_vec(),
            leases: record.leases.iter().map(|lease| (lease.clone(), is_alive(lease))).collect(),
        }
    }

    /// All of them, in the order of the interface's description.
    pub(crate) fn all(&self) -> Vec<(&'static str, Variant<'static>)> {
        let token = |Token { client, cell, principal, vice_id, expires, state }| {
            (client, cell, principal, vice_id, expires, state)
        };
        let tokens: Vec<(String, String, String, i64, u64, String)> = self.tokens.iter().cloned().map(token).collect();
        let lease = |(lease, alive): &(Lease, bool)| {
            let pid = u32::try_from(lease.process.pid).unwrap_or(0);
            (pid, lease.role.as_str().to_owned(), lease.service.to_string(), lease.tty.to_string(), *alive)
        };
        let leases: Vec<(u32, String, String, String, bool)> = self.leases.iter().map(lease).collect();
        vec![
            ("Id", self.id.to_string().into()),
            ("UID", self.uid.into()),
            ("Kind", self.kind.into()),
            ("Made", self.made.into()),
            ("RingSerial", self.ring_serial.into()),
            ("Principal", self.principal.clone().into()),
            ("TicketExpires", self.ticket_expires.into()),
            ("Retain", self.retain.clone().into()),
            ("Follows", self.follows.map(|id| id.to_string()).unwrap_or_default().into()),
            ("Chosen", self.chosen.into()),
            ("Tokens", tokens.into()),
            ("Leases", leases.into()),
        ]
    }

    /// Those that differ from `before`.
    pub(crate) fn changed_since(&self, before: &Properties) -> Vec<(&'static str, Variant<'static>)> {
        let before = before.all();
        self.all().into_iter().zip(before).filter(|(now, then)| now.1 != then.1).map(|(now, _)| now).collect()
    }
}
