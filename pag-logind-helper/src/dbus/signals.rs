//! Signals, sent to each subscriber by itself.

use std::collections::HashMap;
use std::future::poll_fn;
use std::time::{Duration, Instant};

use zbus::message::Type;
use zbus::names::{BusName, UniqueName};
use zbus::{MatchRule, Variant};

use super::call::Refusal;
use super::describe::{MANAGER_PATH, OBJECT_MANAGER, PAG, PROPERTIES};
use super::service::{ANSWER, Caller, Service, object};
use super::view::{PagEvent, Signal};

/// How often the rings of watched PAGs are read: not every new token shows from outside.
const READ: Duration = Duration::from_secs(5);
/// Shortest time between two rounds of signals, so that changes that come together are told together.
const TOGETHER: Duration = Duration::from_millis(100);

impl Service<'_> {
    /// Has the caller told what happens to the PAGs that it may see.
    pub(super) async fn subscribe(&self, caller: &Caller<'_>) -> Result<(), Refusal> {
        let name = UniqueName::try_from(caller.name)?;
        let limit = |_| Refusal::timed_out("the bus does not answer");
        {
            let mut watches = self.watches_names.lock().await;
            if !*watches {
                // One rule for all connections that leave the bus. A rule for each would meet the bus's limit.
                let rule = MatchRule::builder()
                    .msg_type(Type::Signal)
                    .sender("org.freedesktop.DBus")
                    .interface("org.freedesktop.DBus")
                    .member("NameOwnerChanged")
                    .arg(2, "")
                    .build()?;
                self.runtime.timeout(ANSWER, self.dbus.add_match_rule(rule)).await.map_err(limit)??;
                *watches = true;
            }
        }
        if !self.view().borrow_mut().subscribe(caller.name, caller.uid) {
            return Err(Refusal::too_many("you have too many subscriptions"));
        }
        // The caller may have left before the rule was there.
        let stays = self.runtime.timeout(ANSWER, self.dbus.name_has_owner(BusName::Unique(name))).await;
        if !matches!(stays, Ok(Ok(true))) {
            self.view().borrow_mut().unsubscribe(caller.name);
        }
        Ok(())
    }

    /// Tells subscribers what happens, without end.
    pub(super) async fn send_signals(&self) {
        let mut next_read = Instant::now() + READ;
        loop {
            let watched = self.view().borrow().watched();
            let pending = poll_fn(|cx| self.view().borrow_mut().poll_pending(cx));
            if watched.is_empty() {
                pending.await;
            } else {
                let _ = self.runtime.timeout_at(next_read, pending).await;
            }
            let mut pags = self.view().borrow().changed();
            if Instant::now() >= next_read {
                pags = self.view().borrow().watched();
                next_read = Instant::now() + READ;
            }
            self.read_tokens(&pags).await;
            let signals = self.view().borrow_mut().take_signals(Instant::now());
            for signal in signals {
                self.send_signal(signal).await;
            }
            self.runtime.sleep(TOGETHER).await;
        }
    }

    /// Sends one signal to its subscribers, one by one: a broadcast would reach every connection that asks the bus for
    /// it.
    async fn send_signal(&self, signal: Signal) {
        let Ok(path) = object(signal.pag) else { return };
        for name in signal.to {
            let Ok(to) = UniqueName::try_from(name) else { continue };
            let to = Some(BusName::Unique(to));
            let manager = MANAGER_PATH;
            let sent = match &signal.event {
                PagEvent::Added(properties) => {
                    let all: HashMap<&str, Variant<'_>> = properties.all().into_iter().collect();
                    let body = (&path, HashMap::from([(PAG, all)]));
                    self.connection.emit_signal(to, manager, OBJECT_MANAGER, "InterfacesAdded", &body).await
                }
                PagEvent::Removed => {
                    let body = (&path, vec![PAG]);
                    self.connection.emit_signal(to, manager, OBJECT_MANAGER, "InterfacesRemoved", &body).await
                }
                PagEvent::Followed(followed) => {
                    let followed = followed.map(|id| id.to_string()).unwrap_or_default();
                    self.connection.emit_signal(to, &path, PAG, "Followed", &followed).await
                }
                PagEvent::Notice(notice) => {
                    let name = if notice.over { "Expired" } else { "Expiring" };
                    self.connection.emit_signal(to, &path, PAG, name, &(notice.end, notice.why)).await
                }
                PagEvent::Changed(changed) => {
                    let changed: HashMap<&str, &Variant<'_>> =
                        changed.iter().map(|(name, value)| (*name, value)).collect();
                    let body = (PAG, changed, Vec::<&str>::new());
                    self.connection.emit_signal(to, &path, PROPERTIES, "PropertiesChanged", &body).await
                }
            };
            // If the connection has ended, the loop that reads from it ends, too.
            let _ = sent;
        }
    }
}
