//! What subscribers are told, each by himself.

use std::collections::HashMap;
use std::future::poll_fn;
use std::time::{Duration, Instant};

use zbus::message::Type;
use zbus::names::{BusName, UniqueName};
use zbus::{MatchRule, Variant};

use super::board::{News, Notice};
use super::call::Refusal;
use super::describe::{MANAGER_PATH, OBJECT_MANAGER, PAG, PROPERTIES};
use super::{ANSWER, Caller, Service, object};

/// How often the rings that somebody listens to are looked into: not every new token shows from outside.
const LOOK: Duration = Duration::from_secs(5);
/// Shortest time between two rounds of signals: changes that come together are told together.
const TOGETHER: Duration = Duration::from_millis(100);

impl Service<'_> {
    /// Has the caller told of what happens to the PAGs that he may see.
    pub(super) async fn subscribe(&self, caller: &Caller<'_>) -> Result<(), Refusal> {
        let name = UniqueName::try_from(caller.name)?;
        let limit = |_| Refusal::timed_out("the bus does not answer");
        {
            let mut watches = self.watches_names.lock().await;
            if !*watches {
                // One rule for all, and for those who leave only: a rule for each would meet the bus's limit.
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
        if !self.board().borrow_mut().subscribe(caller.name, caller.uid) {
            return Err(Refusal::too_many("you have too many subscriptions"));
        }
        // It may have left before the rule was there.
        let stays = self.runtime.timeout(ANSWER, self.dbus.name_has_owner(BusName::Unique(name))).await;
        if !matches!(stays, Ok(Ok(true))) {
            self.board().borrow_mut().unsubscribe(caller.name);
        }
        Ok(())
    }

    /// Tells subscribers what happens, for ever.
    pub(super) async fn tell(&self) {
        let mut next_look = Instant::now() + LOOK;
        loop {
            let listened_to = self.board().borrow().listened_to();
            let news = poll_fn(|cx| self.board().borrow_mut().poll_news(cx));
            if listened_to.is_empty() {
                news.await;
            } else {
                let _ = self.runtime.timeout_at(next_look, news).await;
            }
            let mut pags = self.board().borrow().changed();
            if Instant::now() >= next_look {
                pags = self.board().borrow().listened_to();
                next_look = Instant::now() + LOOK;
            }
            self.look(&pags).await;
            let notices = self.board().borrow_mut().notices(Instant::now());
            for notice in notices {
                self.notify(notice).await;
            }
            self.runtime.sleep(TOGETHER).await;
        }
    }

    /// Tells one thing to each who listens, and to nobody else: a broadcast would reach whoever asks the bus for it.
    async fn notify(&self, notice: Notice) {
        let Ok(path) = object(notice.pag) else { return };
        for name in notice.to {
            let Ok(to) = UniqueName::try_from(name) else { continue };
            let to = Some(BusName::Unique(to));
            let manager = MANAGER_PATH;
            let sent = match &notice.what {
                News::Added(properties) => {
                    let all: HashMap<&str, Variant<'_>> = properties.all().into_iter().collect();
                    let body = (&path, HashMap::from([(PAG, all)]));
                    self.connection.emit_signal(to, manager, OBJECT_MANAGER, "InterfacesAdded", &body).await
                }
                News::Removed => {
                    let body = (&path, vec![PAG]);
                    self.connection.emit_signal(to, manager, OBJECT_MANAGER, "InterfacesRemoved", &body).await
                }
                News::Followed(whom) => {
                    let whom = whom.map(|id| id.to_string()).unwrap_or_default();
                    self.connection.emit_signal(to, &path, PAG, "Followed", &whom).await
                }
                News::Alert(alert) => {
                    let name = if alert.over { "Expired" } else { "Expiring" };
                    self.connection.emit_signal(to, &path, PAG, name, &(alert.end, alert.why)).await
                }
                News::Changed(changed) => {
                    let changed: HashMap<&str, &Variant<'_>> =
                        changed.iter().map(|(name, value)| (*name, value)).collect();
                    let body = (PAG, changed, Vec::<&str>::new());
                    self.connection.emit_signal(to, &path, PROPERTIES, "PropertiesChanged", &body).await
                }
            };
            // The connection's end is heard by who reads from it.
            let _ = sent;
        }
    }
}
