//! What the helper asks logind and systemd.

use pag::policy::{Session, Sessions};
use zbus::OwnedObjectPath;
use zbus::fdo::DBusProxy;
use zbus::names::OwnedUniqueName;
use zbus::proxy::CacheProperties;

use super::bus::{JobUnit, ManagerState};
use super::proxies::{JobRemovedStream, LoginProxy, ServiceProxy, SessionProxy, SystemdProxy, UnitProxy, UserProxy};
use crate::names;

const SYSTEMD: &str = "org.freedesktop.systemd1";

/// Asks logind and systemd on one connection.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) connection: zbus::Connection,
    /// logind by its unique name. None while it is not on the bus.
    pub(super) login: Option<LoginProxy<'static>>,
}

impl Client {
    /// The unique name of the connection that owns `name`.
    pub(super) async fn owner_of(&self, name: &'static str) -> zbus::Result<OwnedUniqueName> {
        Ok(DBusProxy::new(&self.connection).await?.get_name_owner(name.try_into()?).await?)
    }

    /// The sessions of a user.
    pub(super) async fn sessions(&self, uid: u32) -> zbus::Result<Sessions> {
        let login = self.login.as_ref().ok_or_else(|| zbus::Error::Failure("there is no logind".to_owned()))?;
        match login.get_user(uid).await {
            Ok(path) => self.sessions_of(login, path).await,
            // The user has none.
            Err(zbus::Error::MethodError(name, ..)) if name.as_str() == "org.freedesktop.login1.NoSuchUser" => {
                Ok(Sessions::default())
            }
            Err(error) => Err(error),
        }
    }

    async fn sessions_of(&self, login: &LoginProxy<'_>, user: OwnedObjectPath) -> zbus::Result<Sessions> {
        let user = UserProxy::builder(&self.connection)
            .destination(login.inner().destination())
            .path(user)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let (display, _) = user.display().await?;
        let mut all = Vec::new();
        for (id, path) in user.sessions().await? {
            let session = SessionProxy::builder(&self.connection)
                .destination(login.inner().destination())
                .path(path)
                .cache_properties(CacheProperties::No)
                .build()
                .await?;
            // The session may have ended between the two questions.
            let (Ok(leader), Ok(class), Ok(state)) =
                (session.leader().await, session.class().await, session.state().await)
            else {
                continue;
            };
            all.push(Session {
                id,
                leader: i32::try_from(leader).unwrap_or(0),
                // src/login/logind-session.h, SESSION_CLASS_CAN_DISPLAY, but for greeters.
                person: class.starts_with("user"),
                closing: state == "closing",
            });
        }
        Ok(Sessions { display: Some(display).filter(|id| !id.is_empty()), all })
    }

    /// The user of a session. Messages have the user's name from here, too.
    pub(super) async fn user_of(&self, session: OwnedObjectPath) -> zbus::Result<u32> {
        let session =
            SessionProxy::builder(&self.connection).path(session).cache_properties(CacheProperties::No).build().await?;
        let (uid, _) = session.user().await?;
        if let Ok(name) = session.name().await {
            names::learn(uid, name);
        }
        Ok(uid)
    }

    /// The manager of a user.
    pub(super) async fn manager_of(&self, uid: u32) -> ManagerState {
        let unit = match self.systemd().await {
            Ok(systemd) => systemd.get_unit(&format!("user@{uid}.service")).await,
            Err(error) => Err(error),
        };
        let unit = match unit {
            Ok(unit) => unit,
            Err(zbus::Error::MethodError(name, ..)) if name == "org.freedesktop.systemd1.NoSuchUnit" => {
                return ManagerState::None;
            }
            Err(_) => return ManagerState::Unsettled,
        };
        let (state, pid) = (self.state_of(unit.clone()).await, self.main_pid_of(unit).await);
        match (state.as_deref(), pid) {
            (Ok("active"), Ok(pid)) if pid > 0 => ManagerState::Runs(pid),
            (Ok("inactive" | "failed"), _) => ManagerState::None,
            _ => ManagerState::Unsettled,
        }
    }

    async fn state_of(&self, unit: OwnedObjectPath) -> zbus::Result<String> {
        let unit =
            UnitProxy::builder(&self.connection).path(unit).cache_properties(CacheProperties::No).build().await?;
        unit.active_state().await
    }

    async fn main_pid_of(&self, unit: OwnedObjectPath) -> zbus::Result<u32> {
        let service =
            ServiceProxy::builder(&self.connection).path(unit).cache_properties(CacheProperties::No).build().await?;
        service.main_pid().await
    }

    /// systemd by its unique name, which is another one after `systemctl daemon-reexec`.
    async fn systemd(&self) -> zbus::Result<SystemdProxy<'static>> {
        SystemdProxy::builder(&self.connection).destination(self.owner_of(SYSTEMD).await?).build().await
    }

    /// Starts a unit, and gives the signals that tell of its end.
    pub(super) async fn start_unit(&self, unit: JobUnit) -> zbus::Result<JobRemovedStream> {
        let (name, systemd) = (unit.to_string(), self.systemd().await?);
        // Before the start, so that the end of a quick one is not missed; for this unit alone, so that other jobs
        // do not wake the helper. systemd sends it without a Subscribe(), since the helper has asked for the job (src/core/dbus.c, bus_foreach_bus).
        let ends = systemd.receive_job_removed_with_args(&[(2, &name)]).await?;
        // "fail": the helper replaces no job of another program.
        systemd.start_unit(&name, "fail").await?;
        Ok(ends)
    }
}
