//! What the helper answers (org.pam_pag.Pag1(5)), as pagctl shows it. The interface has no way to leave a value out: one
//! that is not known is empty or 0 there.

use std::collections::HashMap;

use pag::types::TokenState;
use zbus::{OwnedObjectPath, OwnedVariant};

use crate::output::{LeaseJson, PagJson, TokenJson, known_time, known_tty, user_name};

/// A PAG in the answer of ListPags: id, uid, kind, principal, the PAG that the services follow, whether the user chose it
/// for that, its object.
pub(super) type ListRow = (String, u32, String, String, String, bool, OwnedObjectPath);

/// Client, cell, principal, ViceId, end and state.
type TokenReply = (String, String, String, i64, u64, String);

/// Pid, role, service, terminal, and whether the process lives.
type LeaseReply = (u32, String, String, String, bool);

/// A PAG in a list.
#[derive(Debug, Clone)]
pub(super) struct ListedPag {
    pub(super) pag: String,
    pub(super) uid: u32,
    pub(super) user: Option<String>,
    pub(super) kind: String,
    pub(super) principal: Option<String>,
    /// The PAG that the user's services in this one follow.
    pub(super) follows: Option<String>,
    /// Whether the user chose it as the one that the services follow.
    pub(super) chosen: bool,
}

impl From<ListRow> for ListedPag {
    fn from((pag, uid, kind, principal, follows, chosen, _): ListRow) -> Self {
        let (principal, follows) = (known_text(principal), known_text(follows));
        ListedPag { pag, uid, user: user_name(uid), kind, principal, follows, chosen }
    }
}

/// All that is known of a PAG when its object may not be looked at.
impl From<ListedPag> for PagJson {
    fn from(listed: ListedPag) -> Self {
        PagJson {
            pag: listed.pag,
            uid: listed.uid,
            user: listed.user,
            ring: None,
            kind: Some(listed.kind),
            made: None,
            principal: listed.principal,
            ticket: None,
            retain: None,
            follows: listed.follows,
            chosen: Some(listed.chosen),
            leases: None,
            tokens: None,
            ccache: None,
            trouble: None,
            newer: None,
        }
    }
}

/// Takes the properties of a PAG's object; none when one is missing or of another type.
pub(super) fn pag(mut all: HashMap<String, OwnedVariant>) -> Option<PagJson> {
    fn take<T: TryFrom<OwnedVariant>>(all: &mut HashMap<String, OwnedVariant>, name: &str) -> Option<T> {
        all.remove(name)?.try_into().ok()
    }
    let uid = take(&mut all, "UID")?;
    Some(PagJson {
        pag: take(&mut all, "Id")?,
        uid,
        user: user_name(uid),
        ring: Some(take(&mut all, "RingSerial")?),
        kind: Some(take(&mut all, "Kind")?),
        made: known_time(take(&mut all, "Made")?),
        principal: known_text(take(&mut all, "Principal")?),
        ticket: known_time(take(&mut all, "TicketExpires")?),
        retain: Some(take(&mut all, "Retain")?),
        follows: known_text(take(&mut all, "Follows")?),
        chosen: Some(take(&mut all, "Chosen")?),
        tokens: Some(take::<Vec<_>>(&mut all, "Tokens")?.into_iter().map(token).collect()),
        leases: Some(take::<Vec<_>>(&mut all, "Leases")?.into_iter().map(lease).collect()),
        ccache: None,
        trouble: None,
        newer: None,
    })
}

fn token((client, cell, principal, vice_id, expires, state): TokenReply) -> TokenJson {
    TokenJson {
        client,
        cell,
        principal: known_text(principal),
        vice_id: Some(vice_id).filter(|id| *id != 0),
        kind: None,
        expires: known_time(expires),
        expired: state == TokenState::Expired.as_str(),
        state,
    }
}

fn lease((pid, role, service, tty, alive): LeaseReply) -> LeaseJson {
    LeaseJson { role, pid: pid.into(), service, tty: known_tty(tty), alive, sessions: None }
}

fn known_text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::schema;
    use zbus::Variant;

    fn properties() -> HashMap<String, OwnedVariant> {
        let tokens = vec![
            ("keyring", "example.test", "alice@EXAMPLE.TEST", 0_i64, 1_u64, "expired"),
            ("openafs", "other.test", "", 1017, u64::MAX, "good"),
            ("kafs", "third.test", "", 0, 0, "good"),
        ];
        let leases = vec![(17_u32, "login", "sshd", "-", true)];
        let values: [(&str, Variant<'_>); 12] = [
            ("Id", "5f2e91c07ab3d846".into()),
            ("UID", 61001_u32.into()),
            ("Kind", "user".into()),
            ("Made", 1_764_000_000_u64.into()),
            ("RingSerial", 7_i32.into()),
            ("Principal", "alice@EXAMPLE.TEST".into()),
            ("TicketExpires", 0_u64.into()),
            ("Retain", "none".into()),
            ("Follows", "0123456789abcdef".into()),
            ("Chosen", true.into()),
            ("Tokens", tokens.into()),
            ("Leases", leases.into()),
        ];
        values.into_iter().map(|(name, value)| (name.to_owned(), value.try_into().unwrap())).collect()
    }

    #[test]
    fn a_pag_is_shown_as_the_helper_describes_it() {
        let pag = pag(properties()).unwrap();
        assert_eq!((pag.uid, pag.ring, pag.ticket), (61001, Some(7), None));
        let words = pag.lines().join("\n") + "\n";
        for line in [
            "follows    PAG 0123456789abcdef",
            "chosen     for the user's services",
            "ring 7",
            "principal  alice@EXAMPLE.TEST",
            "lease      login sshd - pid 17\n",
            "token      example.test as alice@EXAMPLE.TEST expired",
            "token      other.test as AFS id 1017 until a time without end",
            "token      third.test good (kafs)",
        ] {
            assert!(words.contains(line), "{line}: {words}");
        }
        let json = serde_json::to_value(&pag).unwrap();
        assert_eq!(json["tokens"][0]["state"], "expired");
        assert_eq!(json["tokens"][2]["expires"], serde_json::Value::Null, "an end that the helper does not know");
        assert_eq!(json["leases"][0]["alive"], true);
        for key in ["ccache", "trouble", "newer"] {
            assert_eq!(json[key], serde_json::Value::Null, "only root can read it in the registry: {key}");
        }
        schema::check("pag", &json);
    }

    #[test]
    fn a_reply_of_another_shape_is_refused() {
        for name in ["Id", "UID", "Tokens", "Leases", "RingSerial"] {
            let mut without = properties();
            without.remove(name);
            assert_eq!(pag(without), None, "{name}");
            let mut other = properties();
            other.insert(name.to_owned(), Variant::from(true).try_into().unwrap());
            assert_eq!(pag(other), None, "{name}");
        }
    }
}
