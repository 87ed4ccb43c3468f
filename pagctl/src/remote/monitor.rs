//! `pagctl monitor`: the helper's signals, a line for each.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use futures_core::Stream;
use pag::report::{User, local_moment};
use pag::sys;
use serde::Serialize;
use zbus::message::{Message, Type};
use zbus::{MatchRule, MessageStream, ObjectPath, OwnedObjectPath};

use super::connection::{ANSWER, Helper, NAME};
use crate::output::{self, Answer, Error, PagJson, outln};

const DOING: &str = "watch PAGs";

/// One change, as `monitor --json` prints it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Change {
    pag: String,
    /// `added`, `changed`, `removed`, `followed`, `expiring` or `expired`.
    change: &'static str,
    /// The properties that have changed, by the names of the interface.
    properties: Vec<String>,
    /// Why tokens end.
    why: Option<String>,
    /// The PAG as it is now; none after its end.
    now: Option<PagJson>,
}

/// Prints each change, until it is interrupted or standard output is closed.
pub(super) async fn run(helper: &Helper, json: bool) -> Result<Answer, Error> {
    let (mut owner, mut signals) = helper.wait(DOING, ANSWER, streams(helper)).await?;
    helper.wait(DOING, ANSWER, helper.manager.subscribe()).await?;
    // A PAG that has ended does not tell its user any more.
    let listed = helper.wait(DOING, ANSWER, helper.manager.list_pags()).await.unwrap_or_default();
    let mut users: HashMap<String, u32> = listed.into_iter().map(|(id, uid, ..)| (id, uid)).collect();
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(message) = Pin::new(&mut owner).poll_next(cx) {
                return Poll::Ready((true, message));
            }
            Pin::new(&mut signals).poll_next(cx).map(|message| (false, message))
        });
        let (is_of_owner, message) = next.await;
        let Some(Ok(message)) = message else {
            let why = "the connection to the system bus has ended".to_owned();
            return Err(Error::Bus { doing: DOING.to_owned(), why });
        };
        if is_of_owner {
            // A helper that was started again has no subscribers.
            if let Ok((_, _, new)) = message.body().deserialize::<(&str, &str, &str)>()
                && !new.is_empty()
            {
                helper.wait(DOING, ANSWER, helper.manager.subscribe()).await?;
            }
            continue;
        }
        let Some((path, mut change)) = Change::read(&message) else { continue };
        if change.change != "removed" {
            change.now = helper.pag_at(&path).await.ok();
        }
        if let Some(now) = &change.now {
            users.insert(now.pag.clone(), now.uid);
        }
        if json {
            output::json_line(&change);
        } else {
            outln!("{}  {}", local_moment(sys::now()), change.words(users.get(&change.pag).copied()));
        }
        if change.change == "removed" {
            users.remove(&change.pag);
        }
        if output::is_closed() {
            return Ok(Answer::AllRight);
        }
    }
}

/// News of the helper's start and end, and its signals.
async fn streams(helper: &Helper) -> zbus::Result<(MessageStream, MessageStream)> {
    let owner = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg(0, NAME)
        .build()?;
    let signals = MatchRule::builder().msg_type(Type::Signal).sender(NAME).build()?;
    let owner = MessageStream::for_match_rule(owner, &helper.connection, None).await?;
    let signals = MessageStream::for_match_rule(signals, &helper.connection, None).await?;
    Ok((owner, signals))
}

impl Change {
    /// The change that a signal is about, and the object of its PAG.
    fn read(message: &Message) -> Option<(OwnedObjectPath, Self)> {
        let header = message.header();
        let body = message.body();
        let of_sender = || Some(OwnedObjectPath::from(header.path()?.to_owned()));
        let (mut properties, mut why) = (Vec::new(), None);
        let (path, change) = match header.member()?.as_str() {
            "InterfacesAdded" => {
                type Added<'a> = (ObjectPath<'a>, HashMap<&'a str, HashMap<&'a str, zbus::Variant<'a>>>);
                let (path, _) = body.deserialize::<Added<'_>>().ok()?;
                (path.into(), "added")
            }
            "InterfacesRemoved" => {
                let (path, _) = body.deserialize::<(ObjectPath<'_>, Vec<&str>)>().ok()?;
                (path.into(), "removed")
            }
            "PropertiesChanged" => {
                type Changed<'a> = (&'a str, HashMap<&'a str, zbus::Variant<'a>>, Vec<&'a str>);
                let (_, changed, _) = body.deserialize::<Changed<'_>>().ok()?;
                properties = changed.into_keys().map(str::to_owned).collect();
                properties.sort();
                (of_sender()?, "changed")
            }
            "Followed" => (of_sender()?, "followed"),
            name @ ("Expiring" | "Expired") => {
                let (_, reason) = body.deserialize::<(u64, String)>().ok()?;
                why = Some(reason);
                (of_sender()?, if name == "Expired" { "expired" } else { "expiring" })
            }
            _ => return None,
        };
        let pag = path.rsplit('/').next().unwrap_or_default().to_owned();
        Some((path, Change { pag, change, properties, why, now: None }))
    }

    /// The change for people.
    fn words(&self, uid: Option<u32>) -> String {
        let user = uid.map(|uid| format!(" of {}", User(uid))).unwrap_or_default();
        let mut text = format!("PAG {}{user} {}", self.pag, self.change);
        if !self.properties.is_empty() {
            text += &format!(": {}", self.properties.join(", "));
        }
        if let Some(why) = &self.why {
            text += &format!(": {why}");
        }
        for line in self.now.iter().flat_map(PagJson::lines).skip(1) {
            text += &format!("\n{line}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::PAG;
    use super::*;
    use zbus::Variant;

    #[test]
    fn changes_are_read_from_signals() {
        let path = ObjectPath::try_from("/org/pam_pag/Pag1/pag/5f2e91c07ab3d846").unwrap();
        let signal = |path: &str, interface: &str, member: &str| {
            Message::signal(path.to_owned(), interface.to_owned(), member.to_owned()).sender(":1.1")
        };
        let manager = "org.freedesktop.DBus.ObjectManager";
        let removed = signal("/org/pam_pag/Pag1", manager, "InterfacesRemoved").build(&(&path, vec![PAG])).unwrap();
        let (_, removed) = Change::read(&removed).unwrap();
        assert_eq!((&removed.pag[..], removed.change), ("5f2e91c07ab3d846", "removed"));
        assert_eq!(removed.words(Some(4_294_967_294)), "PAG 5f2e91c07ab3d846 of uid 4294967294 removed");
        output::schema::check("monitor", &serde_json::to_value(&removed).unwrap());
        assert_eq!(removed.words(None), "PAG 5f2e91c07ab3d846 removed");
        let changed = HashMap::from([("Tokens", Variant::from(1_u32)), ("Leases", Variant::from(2_u32))]);
        let changed = signal(&path, "org.freedesktop.DBus.Properties", "PropertiesChanged")
            .build(&(PAG, changed, Vec::<&str>::new()))
            .unwrap();
        let (object, changed) = Change::read(&changed).unwrap();
        assert_eq!((object.as_str(), changed.change), (path.as_str(), "changed"));
        assert_eq!(changed.properties.join(" "), "Leases Tokens");
        let expired = signal(&path, PAG, "Expired").build(&(7_u64, "the ticket has ended")).unwrap();
        let (_, expired) = Change::read(&expired).unwrap();
        output::schema::check("monitor", &serde_json::to_value(&expired).unwrap());
        assert_eq!((expired.change, expired.why.as_deref()), ("expired", Some("the ticket has ended")));
        let followed = signal(&path, PAG, "Followed").build(&"").unwrap();
        assert_eq!(Change::read(&followed).unwrap().1.change, "followed");
        let other = signal("/org/pam_pag/Pag1", manager, "Other").build(&()).unwrap();
        assert!(Change::read(&other).is_none());
    }
}
