//! The messages of the library.

use std::fmt;

use super::date::Until;
use super::fields::{Field, Message, Severity};
use super::user::User;
use crate::keyring::Serial;
use crate::types::PagId;

/// What happens in a login, and wherever else the library is at work. The helper says what is its own by itself: the PAM
/// module carries no words that it never says.
#[derive(Debug, Clone)]
pub enum Event {
    /// A PAG was made for a user who had none that fits.
    Made {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
        /// Its ring.
        ring: Serial,
    },
    /// A ticket is of another identity than the account's own, as far as can be told.
    Apart {
        /// The user.
        uid: u32,
        /// The user's name.
        name: String,
        /// The PAG that the identity has to itself, or that does not take its ticket.
        pag: PagId,
        /// The identity.
        principal: String,
    },
    /// No PAG could be made or joined; the login goes on.
    NotPlaced {
        /// The user.
        uid: u32,
        /// In words.
        why: String,
    },
    /// A session has ended, and its PAG's record does not say so.
    NotEnded {
        /// The user.
        uid: u32,
        /// In words.
        why: String,
    },
    /// A refreshed ticket has reached no PAG.
    NotRefreshed {
        /// The user.
        uid: u32,
        /// In words.
        why: String,
    },
    /// The registry could not be used, so the PAG ends with its processes.
    Private {
        /// The user.
        uid: u32,
        /// In words.
        why: String,
    },
    /// Somebody revoked or invalidated a ring.
    RingBroken {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
        /// In words.
        why: String,
    },
    /// A record could not be read and was replaced.
    RecordDamaged {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
        /// In words.
        why: String,
    },
    /// A record of a newer version: a newer release is at work beside this one.
    RecordForeign {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
        /// In words.
        why: String,
    },
    /// The order of the PAM stack is wrong.
    Displaced {
        /// The user.
        uid: u32,
        /// Its ring.
        ring: Serial,
    },
    /// What the previous session keyring held does not come along.
    StrangersLost {
        /// The user.
        uid: u32,
        /// How many.
        count: usize,
    },
    /// See retain in pag.conf(5).
    TokensDropped {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
    },
    /// The last lease of a PAG is gone.
    Ended {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
        /// `discarded` or `left to its processes`.
        tokens: &'static str,
    },
    /// A PAG without leases is still there.
    EndFailed {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
        /// In words.
        why: String,
    },
    /// Its members are in no PAG of OpenAFS.
    NotEquipped {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
        /// In words.
        why: String,
    },
    /// A seeder succeeded.
    Seeded {
        /// The user.
        uid: u32,
        /// The ring, where it is one.
        ring: Option<Serial>,
        /// The AFS clients.
        client: String,
        /// The cell.
        cell: String,
        /// How long it took.
        millis: u64,
    },
    /// A seeder failed, in a login or in a job.
    SeedFailed {
        /// The user.
        uid: u32,
        /// The ring, where it is one.
        ring: Option<Serial>,
        /// The AFS clients.
        client: String,
        /// The cell.
        cell: String,
        /// In words.
        why: String,
    },
    /// An AFS client is configured, and the kernel does not have it.
    ClientMissing {
        /// The user of a login. None: no login is at hand.
        uid: Option<u32>,
        /// In words.
        why: String,
    },
    /// Seeding is not repeated for 30 s.
    SeedPutOff {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
    },
    /// The PAG goes on without a ticket of its own.
    CcacheRefused {
        /// The user.
        uid: u32,
        /// In words.
        why: String,
    },
    /// The PAG's ccache was given a later ticket.
    CcacheFed {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
        /// End time.
        expires: u64,
    },
    /// A ticket could not be renewed.
    NotRenewed {
        /// The user.
        uid: u32,
        /// In words.
        why: String,
    },
    /// A PAG goes on without the ticket of a keytab.
    KeytabRefused {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
        /// In words.
        why: String,
    },
    /// Best effort: no token depends on it.
    UserKeyringNotLinked {
        /// The user.
        uid: u32,
        /// In words.
        why: String,
    },
    /// A line of the configuration or an option is wrong; its default is used.
    Complaint {
        /// In words.
        what: String,
    },
    /// A process has sessions of several users open at once.
    SeveralUsers {
        /// The user of the last one.
        uid: u32,
        /// Its pid and name.
        process: String,
    },
    /// A process opens sessions and does not close them.
    ManySessions {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
        /// Its pid and name.
        process: String,
        /// How many it has open.
        sessions: u32,
    },
    /// There is no room for another lease.
    RecordFull {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
        /// How many leases there are.
        leases: usize,
        /// Pid and name of the process that has most sessions open.
        busiest: String,
        /// How many these are.
        sessions: u32,
    },
    /// A panic was caught.
    Panicked {
        /// Source file and line.
        place: String,
    },
    /// Killed processes never close their sessions.
    Reaped {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
        /// How many.
        count: usize,
    },
    /// A member had cut something; it is whole again.
    Healed {
        /// The user.
        uid: u32,
        /// The PAG.
        pag: PagId,
        /// In words.
        what: String,
    },
    /// A user's services have the tokens of another session now.
    Follows {
        /// The user.
        uid: u32,
        /// The PAG of the user's services.
        pag: PagId,
        /// The PAG of the session.
        followed: PagId,
        /// What logind calls it, as far as it was asked.
        session: Option<String>,
    },
    /// A user's services have no session's tokens any more.
    FollowsNobody {
        /// The user.
        uid: u32,
        /// The PAG of the user's services.
        pag: PagId,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Made { uid, pag, ring } => write!(f, "made PAG {pag} (ring {ring}) for {}", User(*uid)),
            Event::Apart { uid, name, pag, principal } => write!(
                f,
                "{principal} is not known as an identity of {name}'s own (uid {uid}), so PAG {pag} keeps its tickets and tokens apart from those of other logins. If it is one, set 'identity = {principal}' in section [user {name}] of pag.conf(5)"
            ),
            Event::NotPlaced { uid, why } => {
                write!(f, "{} goes on without a PAG and without tokens: {why}", User(*uid))
            }
            Event::NotEnded { uid, why } => write!(
                f,
                "the end of a session of {} is not noted: {why}; its lease ends with the process that opened it",
                User(*uid)
            ),
            Event::NotRefreshed { uid, why } => write!(
                f,
                "a refreshed ticket of {} has reached no PAG: {why}; unlock the screen or log in once more",
                User(*uid)
            ),
            Event::Private { uid, why } => write!(
                f,
                "{} gets a PAG that no other process can join, and the user's services have no tokens from it: {why}",
                User(*uid)
            ),
            Event::RingBroken { uid, pag, why } => write!(
                f,
                "PAG {pag} of {} cannot be joined any more, {why}; a new one is made. Processes in the old one have no tokens: restart user@{uid}.service, or have the user log out everywhere",
                User(*uid)
            ),
            Event::RecordDamaged { uid, pag, why } => write!(
                f,
                "PAG {pag} of {}: {why}; it was written anew, and the tokens will not be discarded at the end. If this comes again, please report it",
                User(*uid)
            ),
            Event::RecordForeign { uid, pag, why } => write!(
                f,
                "PAG {pag} of {} is left alone: {why}. This release neither renews its tokens nor ends it, and new logins get another PAG. Restart pag-logind-helper, sshd and the display manager, so that all are of one release",
                User(*uid)
            ),
            Event::Displaced { uid, ring } => write!(
                f,
                "something has replaced the session keyring since this login was put into ring {ring} of {}; it is put back. pam_keyinit must come before pam_pag in the stack: run 'pagctl pam check'",
                User(*uid)
            ),
            Event::StrangersLost { uid, count } => write!(
                f,
                "{count} keys of the session keyring that {} had before are not in the ring; a KEYRING:session ccache would be among them. Use a ccache of type FILE, DIR, KCM or KEYRING:persistent",
                User(*uid)
            ),
            Event::TokensDropped { uid, pag } => write!(
                f,
                "discarded the tokens of PAG {pag} of {}: its last login is gone, and the user manager stays",
                User(*uid)
            ),
            Event::Ended { uid, pag, tokens } => {
                write!(f, "ended PAG {pag} of {}; its tokens were {tokens}", User(*uid))
            }
            Event::EndFailed { uid, pag, why } => {
                write!(f, "cannot end PAG {pag} of {}: {why}; the helper will try again", User(*uid))
            }
            Event::NotEquipped { uid, pag, why } => write!(
                f,
                "{why}; PAG {pag} of {} has no tokens of OpenAFS until the next login or the helper has tried again",
                User(*uid)
            ),
            Event::Seeded { uid, cell, millis, .. } => {
                write!(f, "got tokens of cell {cell} for {} in {millis} ms", User(*uid))
            }
            Event::SeedFailed { uid, cell, why, .. } => {
                write!(f, "no tokens of cell {cell} for {}: {why}", User(*uid))
            }
            Event::ClientMissing { uid: Some(uid), why } => write!(f, "{} gets no tokens of AFS: {why}", User(*uid)),
            Event::ClientMissing { uid: None, why } => write!(f, "no login gets tokens of AFS: {why}"),
            Event::SeedPutOff { uid, pag } => {
                write!(f, "no seeder runs for PAG {pag} of {}: an attempt has just been made", User(*uid))
            }
            Event::CcacheRefused { uid, why } => {
                write!(f, "the Kerberos ccache of this login of {} cannot serve the PAG: {why}", User(*uid))
            }
            Event::CcacheFed { uid, pag, expires } => {
                write!(f, "PAG {pag} of {} has a ticket until {}", User(*uid), Until(*expires))
            }
            Event::NotRenewed { uid, why } => {
                write!(f, "the ticket of {} was not renewed: {why}; the helper tries again", User(*uid))
            }
            Event::KeytabRefused { uid, pag, why } => {
                write!(f, "PAG {pag} of {} gets no ticket from a keytab: {why}", User(*uid))
            }
            Event::UserKeyringNotLinked { uid, why } => {
                write!(f, "{why}; {} goes on without it, and tokens are not affected", User(*uid))
            }
            Event::Complaint { what } => write!(f, "{what}"),
            Event::SeveralUsers { uid, process } => write!(
                f,
                "{process} has a session of {} and sessions of other users open at once; the programs that it starts are in no PAG and have no tokens, since they could be any of these users'. Configure it to use a process for each login",
                User(*uid)
            ),
            Event::ManySessions { uid, pag, process, sessions } => write!(
                f,
                "{process} has {sessions} open sessions of {} in PAG {pag}; those beyond {} share its leases. Other logins are not affected. Find out why it does not close its sessions (pam_close_session)",
                User(*uid),
                crate::store::lease::OF_ONE_PROCESS
            ),
            Event::RecordFull { uid, pag, leases, busiest, sessions } => write!(
                f,
                "PAG {pag} of {} has {leases} leases and no room for another: this login is in the PAG without one, and loses its tokens with the last login that has one. {busiest} has most sessions open: {sessions}",
                User(*uid)
            ),
            Event::Panicked { place } => write!(f, "internal error at {place}; the login goes on. Please report this"),
            Event::Reaped { uid, pag, count } => {
                write!(f, "{count} leases of PAG {pag} of {} had ended without saying so", User(*uid))
            }
            Event::Healed { uid, pag, what } => write!(f, "PAG {pag} of {}: {what}", User(*uid)),
            Event::Follows { uid, pag, followed, .. } => {
                write!(f, "the services of {} (PAG {pag}) follow PAG {followed} and have its tokens", User(*uid))
            }
            Event::FollowsNobody { uid, pag } => {
                write!(f, "the services of {} (PAG {pag}) follow no session and have no session's tokens", User(*uid))
            }
        }
    }
}

impl Message for Event {
    fn severity(&self) -> Severity {
        match self {
            Event::Made { .. }
            | Event::TokensDropped { .. }
            | Event::Ended { .. }
            | Event::Seeded { .. }
            | Event::SeedPutOff { .. }
            | Event::CcacheFed { .. }
            | Event::Follows { .. }
            | Event::FollowsNobody { .. } => Severity::LOG_INFO,
            Event::Apart { .. }
            | Event::StrangersLost { .. }
            | Event::CcacheRefused { .. }
            | Event::UserKeyringNotLinked { .. }
            | Event::Healed { .. } => Severity::LOG_NOTICE,
            Event::Private { .. }
            | Event::NotEnded { .. }
            | Event::NotRefreshed { .. }
            | Event::RingBroken { .. }
            | Event::RecordDamaged { .. }
            | Event::RecordForeign { .. }
            | Event::Displaced { .. }
            | Event::NotEquipped { .. }
            | Event::SeedFailed { .. }
            | Event::ClientMissing { .. }
            | Event::NotRenewed { .. }
            | Event::KeytabRefused { .. }
            | Event::SeveralUsers { .. }
            | Event::ManySessions { .. }
            | Event::RecordFull { .. }
            | Event::Complaint { .. } => Severity::LOG_WARNING,
            Event::Reaped { .. } => Severity::LOG_DEBUG,
            Event::NotPlaced { .. } | Event::EndFailed { .. } => Severity::LOG_ERR,
            Event::Panicked { .. } => Severity::LOG_CRIT,
        }
    }

    fn message_id(&self) -> &'static str {
        match self {
            Event::Made { .. } => "f3c95789ace14954ac5d6baed2eac902",
            Event::Apart { .. } => "398f2e2fe36a431fb48b93af24828210",
            Event::NotPlaced { .. } => "e0a3a91f23464c13bc27ed12b10877a9",
            Event::NotEnded { .. } => "a46b0f00a1af48a2a6f9b9f3c3cb20fe",
            Event::NotRefreshed { .. } => "9239049fba6d442e851811601f6ce65f",
            Event::Private { .. } => "f1260ebc7d564b56b714dc919b27dbdf",
            Event::RingBroken { .. } => "6caf76a5703548ae8280ad3729a6f2e7",
            Event::RecordDamaged { .. } => "3f0c9931918c40bf9670c342c6cce996",
            Event::RecordForeign { .. } => "004498f4b98747c18c9c26a813678d7a",
            Event::Displaced { .. } => "0ecaf828e2f745538fcc69d79561a0d1",
            Event::StrangersLost { .. } => "73f80e52a36948b5a4414c46f147ecf9",
            Event::TokensDropped { .. } => "c1af446506f142fca1010f154a9f2968",
            Event::Ended { .. } => "b459071afb8a4f9ebf72c46dca8fbe35",
            Event::EndFailed { .. } => "5a3c1fbdf9da4bf3a81696a68afe2312",
            Event::NotEquipped { .. } => "a9ba53d89fe84c52b2be24b2cabc37df",
            Event::Seeded { .. } => "135d63cf1293424c802a2e8f96fc5ce8",
            Event::SeedFailed { .. } => "a4ea3938d4294c52810915b0875b0b21",
            Event::ClientMissing { .. } => "1c050e5366d146bd8d6296b4fa7d51a7",
            Event::SeedPutOff { .. } => "bdfaef428c7d4431b331dab129ea3a7b",
            Event::CcacheRefused { .. } => "4260ce86ca964d78ba569ee452a5d423",
            Event::CcacheFed { .. } => "44e767f743bb4898ac59157196f119be",
            Event::NotRenewed { .. } => "23e6010f785745ec80626ffd0c149ad1",
            Event::KeytabRefused { .. } => "13afde39db394ddf890fbb34772ba15e",
            Event::UserKeyringNotLinked { .. } => "23cc390c935440e38e1f39485d23d1f3",
            Event::Complaint { .. } => "4d1dd7de07c1437b95d0c57b811008b7",
            Event::SeveralUsers { .. } => "5b0e8d7c2f7a4c1d9c3e6a1f8b2d4e90",
            Event::ManySessions { .. } => "8f1d6f0f1c8e4d6cb1a3f5b0a4a7c9d2",
            Event::RecordFull { .. } => "c4d2b7e1909a4f7d8e5f63a12b70cd41",
            Event::Panicked { .. } => "06f3179fec434ae0a6e144cf0b4152c8",
            Event::Reaped { .. } => "83f11b2d9bbc4685bcc3323c673940a8",
            Event::Healed { .. } => "510adc2735aa450aad7af233a7ffb088",
            Event::Follows { .. } => "bdaae710b9eb48c6b0ee99213089261d",
            Event::FollowsNobody { .. } => "628a41ad5a1042c8a7011b62c3582f28",
        }
    }

    fn fields(&self) -> Vec<Field> {
        match self {
            Event::Made { uid, pag, ring } => {
                vec![("USER_ID", uid.to_string()), ("PAG", pag.to_string()), ("KEYRING", ring.to_string())]
            }
            Event::Apart { uid, pag, principal, .. } => {
                vec![("USER_ID", uid.to_string()), ("PAG", pag.to_string()), ("KRB5_PRINCIPAL", principal.clone())]
            }
            Event::NotPlaced { uid, .. }
            | Event::NotEnded { uid, .. }
            | Event::NotRefreshed { uid, .. }
            | Event::Private { uid, .. }
            | Event::StrangersLost { uid, .. }
            | Event::SeveralUsers { uid, .. }
            | Event::CcacheRefused { uid, .. }
            | Event::NotRenewed { uid, .. }
            | Event::UserKeyringNotLinked { uid, .. } => vec![("USER_ID", uid.to_string())],
            Event::RingBroken { uid, pag, .. }
            | Event::RecordDamaged { uid, pag, .. }
            | Event::RecordForeign { uid, pag, .. }
            | Event::TokensDropped { uid, pag }
            | Event::Ended { uid, pag, .. }
            | Event::EndFailed { uid, pag, .. }
            | Event::NotEquipped { uid, pag, .. }
            | Event::SeedPutOff { uid, pag }
            | Event::CcacheFed { uid, pag, .. }
            | Event::KeytabRefused { uid, pag, .. }
            | Event::Reaped { uid, pag, .. }
            | Event::ManySessions { uid, pag, .. }
            | Event::RecordFull { uid, pag, .. }
            | Event::Healed { uid, pag, .. }
            | Event::FollowsNobody { uid, pag } => vec![("USER_ID", uid.to_string()), ("PAG", pag.to_string())],
            Event::Follows { uid, pag, followed, session } => {
                let whom =
                    [("USER_ID", uid.to_string()), ("PAG", pag.to_string()), ("PAG_FOLLOWED", followed.to_string())];
                whom.into_iter().chain(session.clone().map(|session| ("SESSION_ID", session))).collect()
            }
            Event::Displaced { uid, ring } => vec![("USER_ID", uid.to_string()), ("KEYRING", ring.to_string())],
            Event::Seeded { uid, ring, client, cell, .. } | Event::SeedFailed { uid, ring, client, cell, .. } => {
                let ring = ring.map(|ring| ("KEYRING", ring.to_string()));
                let about = [("AFS_CLIENT", client.clone()), ("AFS_CELL", cell.clone())];
                [("USER_ID", uid.to_string())].into_iter().chain(ring).chain(about).collect()
            }
            Event::ClientMissing { uid, .. } => uid.iter().map(|uid| ("USER_ID", uid.to_string())).collect(),
            Event::Complaint { .. } | Event::Panicked { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {

    /// The 32 hex digits that stand in quotes, or after `-- `, in a source.
    fn message_ids<'a>(text: &'a str, mark: &str) -> std::collections::BTreeSet<&'a str> {
        let ids = text.split(mark).skip(1).filter_map(|rest| rest.get(..32));
        ids.filter(|id| id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))).collect()
    }

    #[test]
    fn every_event_has_an_entry_in_the_catalog_and_no_other_has() {
        let sources = concat!(include_str!("messages.rs"), include_str!("../../../pag-logind-helper/src/messages.rs"));
        let events = message_ids(sources, "=> \"");
        let entries = message_ids(include_str!("../../../units/usr/lib/systemd/catalog/pag.catalog"), "\n-- ");
        assert!(events.len() >= 28, "{events:?}");
        assert_eq!(events, entries);
    }
}
