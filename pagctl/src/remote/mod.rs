//! The verbs that ask the helper over D-Bus (org.pam_pag.Pag1(5)).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::time::Duration;

use clap::Subcommand;
use futures_core::Stream;
use pag::config::Cell;
use pag::store::registry::PagId;
use pag::store::ring::Ring;
use pag::sys::{self, Who};
use serde::Serialize;
use zbus::message::{Message, Type};
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::{Connection, MatchRule, MessageStream, ObjectPath, OwnedObjectPath, OwnedVariant, proxy};
use zruntime::SharedRuntime;

use crate::output::{self, Answer, Error, left, out, outln};

const NAME: &str = "org.pam_pag.Pag1";
const PAG: &str = "org.pam_pag.Pag1.Pag";

/// Longest wait for an answer; the helper needs milliseconds.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest wait where a person may be asked for a password, or a seeder runs.
const PATIENCE: Duration = Duration::from_secs(200);

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List your PAGs; root is shown those of all users
    List {
        /// Those of all users, for which you may have to prove that you are an administrator
        #[arg(long)]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a PAG, by default the one that you are in. Exit status 1: you are in none
    Show {
        /// Its id, as `list` shows it
        pag: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Get new tokens for a PAG, by default the one that you are in. Exit status 1: you are in none
    Renew {
        /// Its id, as `list` shows it
        pag: Option<String>,
    },
    /// Have your services follow the PAG of a login (scope = session), by default the one that you are in. Exit status 1:
    /// you are in none
    Follow {
        /// Its id, as `list` shows it
        pag: Option<String>,
        /// Let them follow whom the configuration says again; without PAG, whichever of yours was chosen
        #[arg(long)]
        policy: bool,
    },
    /// Tell what happens to your PAGs, until you interrupt it
    Monitor {
        /// Print JSON, one line for each change
        #[arg(long)]
        json: bool,
    },
}

#[proxy(
    interface = "org.pam_pag.Pag1.Manager",
    default_service = "org.pam_pag.Pag1",
    default_path = "/org/pam_pag/Pag1"
)]
trait Manager {
    fn list_pags(&self) -> zbus::Result<Vec<Line>>;
    #[zbus(allow_interactive_auth)]
    fn list_all_pags(&self) -> zbus::Result<Vec<Line>>;
    #[zbus(allow_interactive_auth)]
    fn get_pag(&self, id: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(allow_interactive_auth)]
    fn renew(&self, id: &str) -> zbus::Result<()>;
    #[zbus(allow_interactive_auth)]
    fn unlog(&self, id: &str, cell: &str) -> zbus::Result<()>;
    #[zbus(allow_interactive_auth)]
    fn follow(&self, id: &str) -> zbus::Result<()>;
    #[zbus(allow_interactive_auth)]
    fn unfollow(&self, id: &str) -> zbus::Result<()>;
    fn subscribe(&self) -> zbus::Result<()>;
}

/// Client, cell, principal, ViceId, end and state.
type Token = (String, String, String, i64, u64, String);

/// Id, user, kind and principal; whom it follows, and whether it was chosen for that; its object.
type Line = (String, u32, String, String, String, bool, OwnedObjectPath);

/// A PAG in a list.
#[derive(Debug, Serialize)]
struct Listed {
    pag: String,
    uid: u32,
    user: Option<String>,
    kind: String,
    principal: Option<String>,
    /// The PAG that the user's services in this one follow.
    follows: Option<String>,
    /// Whether somebody has chosen it, for his services to follow.
    chosen: bool,
}

/// A PAG with all that is known of it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Shown {
    pag: String,
    uid: u32,
    user: Option<String>,
    kind: String,
    /// In seconds since the epoch, as the other times.
    made: u64,
    ring: i32,
    principal: Option<String>,
    /// End of the ticket in its ccache.
    ticket: Option<u64>,
    retain: String,
    /// The PAG that the user's services follow.
    follows: Option<String>,
    /// Whether somebody has chosen it, for his services to follow.
    chosen: bool,
    tokens: Vec<OneToken>,
    leases: Vec<OneLease>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct OneToken {
    client: String,
    cell: String,
    principal: Option<String>,
    vice_id: Option<i64>,
    expires: u64,
    /// `good`, `expired` or `revoked`.
    state: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct OneLease {
    pid: u32,
    role: String,
    service: String,
    tty: String,
    alive: bool,
}

/// One change, as `monitor --json` prints it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Change {
    pag: String,
    /// `added`, `changed`, `removed`, `followed`, `expiring` or `expired`.
    change: &'static str,
    /// What has changed, by the names of the interface.
    properties: Vec<String>,
    /// Why tokens end.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// The PAG as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Shown>,
}

/// Does what the verb says.
///
/// # Errors
/// When the helper is not there or refuses.
pub(crate) fn run(verb: &Verb) -> Result<Answer, Error> {
    zbus::block_on(async {
        let helper = Helper::find().await?;
        match verb {
            Verb::List { all, json } => helper.list(*all, *json).await,
            Verb::Show { pag, json } => helper.show(pag.as_deref(), *json).await,
            Verb::Renew { pag } => helper.renew(pag.as_deref()).await,
            Verb::Follow { pag, policy: false } => helper.follow(pag.as_deref()).await,
            Verb::Follow { pag, policy: true } => helper.follow_policy(pag.as_deref()).await,
            Verb::Monitor { json } => helper.monitor(*json).await,
        }
    })
}

/// Discards the tokens of a PAG, for one cell or all: `pagctl unlog --pag`.
///
/// # Errors
/// As [`run`].
pub(crate) fn unlog(pag: &str, cell: Option<&Cell>) -> Result<Answer, Error> {
    zbus::block_on(async {
        let id = checked(pag)?;
        let helper = Helper::find().await?;
        let name = cell.map(ToString::to_string).unwrap_or_default();
        let doing = format!("discard the tokens of PAG {id}");
        helper.wait(&doing, PATIENCE, helper.manager.unlog(&id, &name)).await?;
        Ok(Answer::AllRight)
    })
}

/// The helper, on the bus.
struct Helper {
    runtime: SharedRuntime,
    connection: Connection,
    manager: ManagerProxy<'static>,
}

/// What is wrong, and what helps, in words.
fn words(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(_, Some(text), _) => text.clone(),
        zbus::Error::FDO(error) => match &**error {
            zbus::fdo::Error::ServiceUnknown(_) | zbus::fdo::Error::NameHasNoOwner(_) => {
                "pag-logind-helper does not run; start it: systemctl start pag-logind-helper".to_owned()
            }
            zbus::fdo::Error::InteractiveAuthorizationRequired(text) | zbus::fdo::Error::AccessDenied(text) => {
                format!("{text}; run it as root")
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

impl Helper {
    async fn find() -> Result<Self, Error> {
        let failed = |error: zbus::Error| Error::Bus { doing: "reach the system bus".to_owned(), why: words(&error) };
        let runtime = SharedRuntime::current()
            .map_err(|error| Error::Bus { doing: "wait for anything".to_owned(), why: error.to_string() })?;
        let connection = Connection::system().await.map_err(failed)?;
        let manager = ManagerProxy::builder(&connection).cache_properties(CacheProperties::No);
        let manager = manager.build().await.map_err(failed)?;
        Ok(Helper { runtime, connection, manager })
    }

    /// Waits for an answer, not for ever.
    async fn wait<T>(
        &self,
        doing: &str,
        limit: Duration,
        answer: impl Future<Output = zbus::Result<T>>,
    ) -> Result<T, Error> {
        let failed = |why| Error::Bus { doing: doing.to_owned(), why };
        match self.runtime.timeout(limit, answer).await {
            Ok(answer) => answer.map_err(|error| failed(words(&error))),
            Err(_) => Err(failed("pag-logind-helper does not answer".to_owned())),
        }
    }

    async fn list(&self, all: bool, json: bool) -> Result<Answer, Error> {
        let lines = if all {
            self.wait("list the PAGs of all users", PATIENCE, self.manager.list_all_pags()).await?
        } else {
            self.wait("list PAGs", ANSWER, self.manager.list_pags()).await?
        };
        let listed: Vec<Listed> = lines.into_iter().map(Listed::from).collect();
        if json {
            print_json(&listed, true);
        } else {
            out!("{}", table(&listed));
        }
        Ok(Answer::AllRight)
    }

    async fn show(&self, pag: Option<&str>, json: bool) -> Result<Answer, Error> {
        let shown = match pag {
            Some(pag) => Some(self.named(pag).await?),
            None => self.mine().await?,
        };
        let Some(shown) = shown else {
            if json {
                outln!("null")
            } else {
                outln!("You are in no PAG.")
            }
            return Ok(Answer::ToDo);
        };
        if json {
            print_json(&shown, true);
        } else {
            out!("{}", shown.words());
        }
        Ok(Answer::AllRight)
    }

    /// The PAG that is named, else the one that the caller is in; none when he is in none, which is said.
    async fn chosen(&self, pag: Option<&str>) -> Result<Option<String>, Error> {
        if let Some(pag) = pag {
            return checked(pag).map(Some);
        }
        let mine = self.mine().await?;
        if mine.is_none() {
            outln!("You are in no PAG.");
        }
        Ok(mine.map(|mine| mine.pag))
    }

    async fn follow(&self, pag: Option<&str>) -> Result<Answer, Error> {
        let Some(id) = self.chosen(pag).await? else { return Ok(Answer::ToDo) };
        self.wait(&format!("have services follow PAG {id}"), PATIENCE, self.manager.follow(&id)).await?;
        Ok(Answer::AllRight)
    }

    /// Takes back what was chosen: that PAG, or whichever it is of the caller's.
    async fn follow_policy(&self, pag: Option<&str>) -> Result<Answer, Error> {
        let doing = "have services follow whom the configuration says";
        let ids = match pag {
            Some(pag) => vec![checked(pag)?],
            None => {
                let [uid, ..] = sys::ids().uid;
                let lines = self.wait(doing, ANSWER, self.manager.list_pags()).await?;
                let chosen = lines.into_iter().filter(|(_, owner, .., chosen, _)| *owner == uid && *chosen);
                chosen.map(|(id, ..)| id).collect()
            }
        };
        for id in ids {
            self.wait(doing, PATIENCE, self.manager.unfollow(&id)).await?;
        }
        Ok(Answer::AllRight)
    }

    async fn renew(&self, pag: Option<&str>) -> Result<Answer, Error> {
        let Some(id) = self.chosen(pag).await? else { return Ok(Answer::ToDo) };
        self.wait(&format!("renew the tokens of PAG {id}"), PATIENCE, self.manager.renew(&id)).await?;
        Ok(Answer::AllRight)
    }

    async fn named(&self, pag: &str) -> Result<Shown, Error> {
        let id = checked(pag)?;
        let doing = format!("show PAG {id}");
        let path = self.wait(&doing, PATIENCE, self.manager.get_pag(&id)).await?;
        self.wait(&doing, PATIENCE, self.look(&path)).await
    }

    /// The PAG that this very process is in: the one whose ring it has as its session keyring. Nobody else can know
    /// that of it: GetMyPag would tell where it comes from.
    async fn mine(&self) -> Result<Option<Shown>, Error> {
        let Some(ring) = Ring::current() else { return Ok(None) };
        let doing = "find the PAG that you are in";
        for (_, uid, .., path) in self.wait(doing, ANSWER, self.manager.list_pags()).await? {
            // One that has just ended is not ours.
            if (uid == ring.owner || ring.owner == 0)
                && let Ok(shown) = self.wait(doing, ANSWER, self.look(&path)).await
                && shown.ring == ring.serial.get()
            {
                return Ok(Some(shown));
            }
        }
        Ok(None)
    }

    async fn look(&self, path: &OwnedObjectPath) -> zbus::Result<Shown> {
        // Others' PAGs are polkit's to decide, each time.
        let properties =
            zbus::Proxy::new(&self.connection, NAME, path.clone(), "org.freedesktop.DBus.Properties").await?;
        let flags = MethodFlags::ALLOW_INTERACTIVE_AUTH;
        let all: Option<HashMap<String, OwnedVariant>> = properties.call_with_flags("GetAll", flags, &PAG).await?;
        Shown::read(all.unwrap_or_default()).ok_or(zbus::Error::InvalidReply)
    }

    async fn monitor(&self, json: bool) -> Result<Answer, Error> {
        let doing = "watch PAGs";
        let rules = async {
            let owner = MatchRule::builder()
                .msg_type(Type::Signal)
                .sender("org.freedesktop.DBus")
                .member("NameOwnerChanged")
                .arg(0, NAME)
                .build()?;
            let ours = MatchRule::builder().msg_type(Type::Signal).sender(NAME).build()?;
            let owner = MessageStream::for_match_rule(owner, &self.connection, None).await?;
            let ours = MessageStream::for_match_rule(ours, &self.connection, None).await?;
            zbus::Result::Ok((owner, ours))
        };
        let (mut owner, mut ours) = self.wait(doing, ANSWER, rules).await?;
        self.wait(doing, ANSWER, self.manager.subscribe()).await?;
        loop {
            let heard = poll_fn(|cx| {
                if let std::task::Poll::Ready(message) = Pin::new(&mut owner).poll_next(cx) {
                    return std::task::Poll::Ready((true, message));
                }
                Pin::new(&mut ours).poll_next(cx).map(|message| (false, message))
            });
            let (of_owner, message) = heard.await;
            let Some(Ok(message)) = message else {
                return Err(Error::Bus { doing: doing.to_owned(), why: "the bus is gone".to_owned() });
            };
            if of_owner {
                // The helper was restarted and knows us no more, or will be back.
                if let Ok((_, _, new)) = message.body().deserialize::<(&str, &str, &str)>()
                    && !new.is_empty()
                {
                    self.wait(doing, ANSWER, self.manager.subscribe()).await?;
                }
                continue;
            }
            let Some((path, change, properties, why)) = change(&message) else { continue };
            let now = if change == "removed" { None } else { self.look(&path).await.ok() };
            let pag = path.rsplit('/').next().unwrap_or_default().to_owned();
            let change = Change { pag, change, properties, why, now };
            if json {
                print_json(&change, false);
            } else {
                outln!("{}", change.words());
            }
            if output::is_closed() {
                return Ok(Answer::AllRight);
            }
        }
    }
}

/// The object that a signal is about, what has happened to it, which of its properties are others now, and why.
fn change(message: &Message) -> Option<(OwnedObjectPath, &'static str, Vec<String>, Option<String>)> {
    let header = message.header();
    let body = message.body();
    match header.member()?.as_str() {
        "InterfacesAdded" => {
            type Added<'a> = (ObjectPath<'a>, HashMap<&'a str, HashMap<&'a str, zbus::Variant<'a>>>);
            let (path, _) = body.deserialize::<Added<'_>>().ok()?;
            Some((path.into(), "added", Vec::new(), None))
        }
        "InterfacesRemoved" => {
            let (path, _) = body.deserialize::<(ObjectPath<'_>, Vec<&str>)>().ok()?;
            Some((path.into(), "removed", Vec::new(), None))
        }
        "PropertiesChanged" => {
            type Changed<'a> = (&'a str, HashMap<&'a str, zbus::Variant<'a>>, Vec<&'a str>);
            let (_, changed, _) = body.deserialize::<Changed<'_>>().ok()?;
            let mut names: Vec<String> = changed.into_keys().map(str::to_owned).collect();
            names.sort();
            Some((header.path()?.to_owned().into(), "changed", names, None))
        }
        "Followed" => Some((header.path()?.to_owned().into(), "followed", Vec::new(), None)),
        name @ ("Expiring" | "Expired") => {
            let (_, why) = body.deserialize::<(u64, String)>().ok()?;
            let change = if name == "Expired" { "expired" } else { "expiring" };
            Some((header.path()?.to_owned().into(), change, Vec::new(), Some(why)))
        }
        _ => None,
    }
}

/// The id as the helper takes it.
fn checked(pag: &str) -> Result<String, Error> {
    let id = PagId::parse(pag).ok_or_else(|| Error::Bus {
        doing: format!("find PAG '{pag}'"),
        why: "the id of a PAG has 16 hex digits; `pagctl list` shows them".to_owned(),
    })?;
    Ok(id.to_string())
}

fn print_json(value: &impl Serialize, pretty: bool) {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    outln!("{}", text.unwrap_or_default());
}

fn user_name(uid: u32) -> Option<String> {
    sys::passwd(Who::Uid(uid)).ok().flatten().map(|user| user.name.to_string_lossy().into_owned())
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl From<Line> for Listed {
    fn from((pag, uid, kind, principal, follows, chosen, _): Line) -> Self {
        let (principal, follows) = (some(principal), some(follows));
        Listed { pag, uid, user: user_name(uid), kind, principal, follows, chosen }
    }
}

impl Shown {
    /// Takes the properties of a PAG's object; none when one is missing or of another type.
    fn read(mut all: HashMap<String, OwnedVariant>) -> Option<Self> {
        fn take<T: TryFrom<OwnedVariant>>(all: &mut HashMap<String, OwnedVariant>, name: &str) -> Option<T> {
            all.remove(name)?.try_into().ok()
        }
        let uid = take(&mut all, "UID")?;
        let token = |(client, cell, principal, vice_id, expires, state): Token| OneToken {
            client,
            cell,
            principal: some(principal),
            vice_id: Some(vice_id).filter(|id| *id != 0),
            expires,
            state,
        };
        let lease = |(pid, role, service, tty, alive)| OneLease { pid, role, service, tty, alive };
        Some(Shown {
            pag: take(&mut all, "Id")?,
            uid,
            user: user_name(uid),
            kind: take(&mut all, "Kind")?,
            made: take(&mut all, "Made")?,
            ring: take(&mut all, "RingSerial")?,
            principal: some(take(&mut all, "Principal")?),
            ticket: take(&mut all, "TicketExpires").filter(|end| *end > 0),
            retain: take(&mut all, "Retain")?,
            follows: some(take(&mut all, "Follows")?),
            chosen: take(&mut all, "Chosen")?,
            tokens: take::<Vec<_>>(&mut all, "Tokens")?.into_iter().map(token).collect(),
            leases: take::<Vec<_>>(&mut all, "Leases")?.into_iter().map(lease).collect(),
        })
    }

    fn words(&self) -> String {
        let user = self.user.as_deref().unwrap_or("?");
        let mut text = format!("PAG {} of {user} (uid {}), ring {}\n", self.pag, self.uid, self.ring);
        // Writing to a String cannot fail.
        if let Some(principal) = &self.principal {
            let _ = writeln!(text, "  principal  {principal}");
        }
        match self.ticket {
            Some(end) => drop(writeln!(text, "  ticket     for {}", left(end))),
            None => text.push_str("  ticket     none\n"),
        }
        let _ = writeln!(text, "  kind       {}, retain {}", self.kind, self.retain);
        if let Some(follows) = &self.follows {
            let _ = writeln!(text, "  follows    {follows}");
        }
        if self.chosen {
            text.push_str("  chosen     for the user's services to follow\n");
        }
        for OneLease { pid, role, service, tty, alive } in &self.leases {
            let dead = if *alive { "" } else { " (ended)" };
            let _ = writeln!(text, "  lease      {role} {service} {tty} pid {pid}{dead}");
        }
        for token in &self.tokens {
            let OneToken { client, cell, principal, vice_id, expires, state } = token;
            let who = principal.clone().or_else(|| vice_id.map(|id| format!("ViceId {id}")));
            let who = who.unwrap_or_else(|| "somebody".to_owned());
            let until = if state == "good" { format!("for {}", left(*expires)) } else { state.clone() };
            let _ = writeln!(text, "  token      {cell} as {who} {until} ({client})");
        }
        if self.tokens.is_empty() {
            text.push_str("  no tokens\n");
        }
        text
    }
}

impl Change {
    fn words(&self) -> String {
        let mut text = format!("PAG {} {}", self.pag, self.change);
        if !self.properties.is_empty() {
            let _ = write!(text, ": {}", self.properties.join(", "));
        }
        if let Some(why) = &self.why {
            let _ = write!(text, ": {why}");
        }
        if let Some(now) = &self.now {
            let _ = write!(text, "\n{}", now.words().lines().skip(1).collect::<Vec<_>>().join("\n"));
        }
        text
    }
}

fn table(listed: &[Listed]) -> String {
    if listed.is_empty() {
        return "There are no PAGs that you may see.\n".to_owned();
    }
    let mut text = format!("{:<16}  {:<16}  {:<7}  {:<16}  PRINCIPAL\n", "PAG", "USER", "KIND", "FOLLOWS");
    for Listed { pag, uid, user, kind, principal, follows, chosen } in listed {
        let user = user.clone().unwrap_or_else(|| uid.to_string());
        let principal = principal.as_deref().unwrap_or("-");
        let follows = follows.as_deref().unwrap_or(if *chosen { "(chosen)" } else { "-" });
        let _ = writeln!(text, "{pag:<16}  {user:<16}  {kind:<7}  {follows:<16}  {principal}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::Variant;

    fn properties() -> HashMap<String, OwnedVariant> {
        let tokens = vec![
            ("keyring", "example.test", "alice@EXAMPLE.TEST", 0_i64, 1_u64, "expired"),
            ("openafs", "other.test", "", 1017, u64::MAX, "good"),
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
        let shown = Shown::read(properties()).unwrap();
        assert_eq!((shown.uid, shown.ring, shown.ticket), (61001, 7, None));
        let words = shown.words();
        for line in [
            "follows    0123456789abcdef",
            "chosen     for the user's services",
            "ring 7",
            "principal  alice@EXAMPLE.TEST",
            "lease      login sshd - pid 17\n",
            "token      example.test as alice@EXAMPLE.TEST expired",
            "token      other.test as ViceId 1017 for ",
        ] {
            assert!(words.contains(line), "{line}: {words}");
        }
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!(json["tokens"][0]["state"], "expired");
        assert_eq!(json["leases"][0]["alive"], true);
    }

    #[test]
    fn a_helper_that_says_something_else_is_not_believed() {
        for name in ["Id", "UID", "Tokens", "Leases", "RingSerial"] {
            let mut without = properties();
            without.remove(name);
            assert_eq!(Shown::read(without), None, "{name}");
            let mut other = properties();
            other.insert(name.to_owned(), Variant::from(true).try_into().unwrap());
            assert_eq!(Shown::read(other), None, "{name}");
        }
    }

    #[test]
    fn ids_are_checked_before_anybody_is_asked() {
        assert_eq!(checked("5F2E91C07AB3D846").unwrap(), "5f2e91c07ab3d846");
        for wrong in ["", "5f2e", "5f2e91c07ab3d84g", "../../../../../x"] {
            assert!(checked(wrong).unwrap_err().to_string().contains("16 hex digits"), "{wrong}");
        }
    }

    #[test]
    fn changes_are_read_from_signals() {
        let path = ObjectPath::try_from("/org/pam_pag/Pag1/pag/5f2e91c07ab3d846").unwrap();
        let signal = |path: &str, interface: &str, member: &str| {
            Message::signal(path.to_owned(), interface.to_owned(), member.to_owned()).sender(":1.1")
        };
        let manager = "org.freedesktop.DBus.ObjectManager";
        let removed = signal("/org/pam_pag/Pag1", manager, "InterfacesRemoved").build(&(&path, vec![PAG])).unwrap();
        assert_eq!(change(&removed).unwrap().1, "removed");
        let changed = HashMap::from([("Tokens", Variant::from(1_u32)), ("Leases", Variant::from(2_u32))]);
        let changed = signal(&path, "org.freedesktop.DBus.Properties", "PropertiesChanged")
            .build(&(PAG, changed, Vec::<&str>::new()))
            .unwrap();
        let (object, what, names, _) = change(&changed).unwrap();
        assert_eq!((object.as_str(), what, names.join(" ")), (path.as_str(), "changed", "Leases Tokens".to_owned()));
        let expired = signal(&path, PAG, "Expired").build(&(7_u64, "the ticket has ended")).unwrap();
        let (_, what, _, why) = change(&expired).unwrap();
        assert_eq!((what, why.as_deref()), ("expired", Some("the ticket has ended")));
        let followed = signal(&path, PAG, "Followed").build(&"").unwrap();
        assert_eq!(change(&followed).unwrap().1, "followed");
        let other = signal("/org/pam_pag/Pag1", manager, "Other").build(&()).unwrap();
        assert!(change(&other).is_none());
    }
}
