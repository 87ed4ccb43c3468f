//! The helper on the system bus: how it is reached, how long its answers may take, and the calls that more than one verb
//! makes.

use std::future::Future;
use std::time::Duration;

use pag::store::ring::Ring;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::{Connection, OwnedObjectPath, proxy};
use zruntime::SharedRuntime;

use super::reply::{self, ListRow};
use crate::output::{Error, PagJson};

/// The name that the helper owns on the bus.
pub(super) const NAME: &str = "org.pam_pag.Pag1";
/// The interface of a PAG's object.
pub(super) const PAG: &str = "org.pam_pag.Pag1.Pag";

/// Longest wait for an answer; the helper needs milliseconds.
pub(super) const ANSWER: Duration = Duration::from_secs(30);
/// Longest wait for what does without an answer.
const QUICK: Duration = Duration::from_secs(5);
/// Longest wait where polkit may ask a person for a password, or a seeder runs.
pub(super) const PATIENCE: Duration = Duration::from_secs(200);

#[proxy(
    interface = "org.pam_pag.Pag1.Manager",
    default_service = "org.pam_pag.Pag1",
    default_path = "/org/pam_pag/Pag1"
)]
pub(super) trait Manager {
    fn list_pags(&self) -> zbus::Result<Vec<ListRow>>;
    #[zbus(allow_interactive_auth)]
    fn list_all_pags(&self) -> zbus::Result<Vec<ListRow>>;
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

/// Since when is counted; client, cell, how many jobs have ended, and how many of them have failed; uids and processes of
/// managers outside.
type StatisticsReply = (u64, Vec<(String, String, u64, u64)>, Vec<(u32, u32)>);

/// The helper.
pub(super) struct Helper {
    runtime: SharedRuntime,
    pub(super) connection: Connection,
    pub(super) manager: ManagerProxy<'static>,
}

impl Helper {
    /// Connects to the bus. Whether the helper is there shows with the first call.
    pub(super) async fn connect() -> Result<Self, Error> {
        let failed = |error: zbus::Error| Error::Bus { doing: "reach the system bus".to_owned(), why: words(&error) };
        let runtime = SharedRuntime::current()
            .map_err(|error| Error::Bus { doing: "set a limit to waiting".to_owned(), why: error.to_string() })?;
        let connection = Connection::system().await.map_err(failed)?;
        let manager = ManagerProxy::builder(&connection).cache_properties(CacheProperties::No);
        let manager = manager.build().await.map_err(failed)?;
        Ok(Helper { runtime, connection, manager })
    }

    /// Waits for an answer, at most as long as `limit`. `doing` is what failed then, for people.
    pub(super) async fn wait<T>(
        &self,
        doing: &str,
        limit: Duration,
        answer: impl Future<Output = zbus::Result<T>>,
    ) -> Result<T, Error> {
        let failed = |why| Error::Bus { doing: doing.to_owned(), why };
        match self.runtime.timeout(limit, answer).await {
            Ok(answer) => answer.map_err(|error| failed(words(&error))),
            Err(_) => {
                let why = format!("pag-logind-helper did not answer within {} s", limit.as_secs());
                Err(failed(why + "; look for the cause with: systemctl status pag-logind-helper"))
            }
        }
    }

    /// The PAG of this id.
    pub(super) async fn pag(&self, id: &str) -> Result<PagJson, Error> {
        let doing = format!("show PAG {id}");
        let path = self.wait(&doing, PATIENCE, self.manager.get_pag(id)).await?;
        self.wait(&doing, PATIENCE, self.pag_at(&path)).await
    }

    /// The PAG that this very process is in: the one with the ring that it has as its session keyring. Another process
    /// cannot see that, so GetMyPag answers another question: by which login the caller came to be.
    pub(super) async fn own_pag(&self) -> Result<Option<PagJson>, Error> {
        let Some(ring) = Ring::current() else { return Ok(None) };
        let doing = "find the PAG that you are in";
        for (_, uid, .., path) in self.wait(doing, ANSWER, self.manager.list_pags()).await? {
            // A PAG that has ended since the list was made cannot be looked at; it is not ours.
            if (uid == ring.owner || ring.owner == 0)
                && let Ok(pag) = self.wait(doing, ANSWER, self.pag_at(&path)).await
                && pag.ring == Some(ring.serial.get())
            {
                return Ok(Some(pag));
            }
        }
        Ok(None)
    }

    /// What the helper has counted: since when, its jobs by client and cell, and managers. None if it does not answer.
    pub(super) async fn statistics(&self) -> Option<StatisticsReply> {
        let call = self.manager.inner().call_with_flags("GetStatistics", MethodFlags::NO_AUTO_START, &());
        self.runtime.timeout(QUICK, call).await.ok()?.ok()?
    }

    /// The PAG of this object.
    pub(super) async fn pag_at(&self, path: &OwnedObjectPath) -> zbus::Result<PagJson> {
        // For the PAG of another user polkit is asked, each time.
        let flags = MethodFlags::ALLOW_INTERACTIVE_AUTH;
        let object = zbus::Proxy::new(&self.connection, NAME, path.clone(), "org.freedesktop.DBus.Properties").await?;
        let all = object.call_with_flags("GetAll", flags, &PAG).await?;
        all.and_then(reply::pag).ok_or(zbus::Error::InvalidReply)
    }
}

/// Why a call failed, and the remedy, in words.
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
