//! Asks polkit whether a user may see and touch the PAGs of others. The administrator of the host decides this.

use std::collections::HashMap;
use std::time::Duration;

use zbus::proxy::CacheProperties;
use zbus::{Connection, Variant, proxy};
use zruntime::SharedRuntime;

/// The action that polkit is asked about (units/usr/share/polkit-1/actions/org.pam_pag.policy).
const ACTION: &str = "org.pam_pag.manage-others";
/// Longest wait for an answer without a dialog. Polkit may have to be started for it.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest wait for a user who types a password.
const PERSON: Duration = Duration::from_secs(120);
/// CheckAuthorization may ask the user (polkit, CheckAuthorizationFlags).
const ALLOW_USER_INTERACTION: u32 = 1;

/// `org.freedesktop.PolicyKit1.Authority`, as far as it is used here.
#[proxy(
    interface = "org.freedesktop.PolicyKit1.Authority",
    default_service = "org.freedesktop.PolicyKit1",
    default_path = "/org/freedesktop/PolicyKit1/Authority"
)]
trait Authority {
    #[allow(clippy::type_complexity, reason = "the signature is polkit's")]
    fn check_authorization(
        &self,
        subject: &(&str, HashMap<&str, Variant<'_>>),
        action_id: &str,
        details: HashMap<&str, &str>,
        flags: u32,
        cancellation_id: &str,
    ) -> zbus::Result<(bool, bool, HashMap<String, String>)>;
    fn cancel_check_authorization(&self, cancellation_id: &str) -> zbus::Result<()>;
}

/// What polkit answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The user may.
    Granted,
    /// The user may not, or polkit does not answer.
    Denied,
    /// The user may after a dialog, which the caller did not allow.
    MustAsk,
}

/// Asks about the connection `sender`. `number` is unique among the questions on this connection.
pub(crate) async fn ask(
    runtime: &SharedRuntime,
    connection: &Connection,
    sender: &str,
    interactive: bool,
    number: u64,
) -> Verdict {
    let subject = ("system-bus-name", HashMap::from([("name", Variant::from(sender))]));
    let (flags, limit) = if interactive { (ALLOW_USER_INTERACTION, PERSON) } else { (0, ANSWER) };
    let cancellation = format!("pag-{number}");
    let authority = AuthorityProxy::builder(connection).cache_properties(CacheProperties::No);
    let Ok(authority) = authority.build().await else { return Verdict::Denied };
    let answer = authority.check_authorization(&subject, ACTION, HashMap::new(), flags, &cancellation);
    match runtime.timeout(limit, answer).await {
        Ok(Ok((true, ..))) => Verdict::Granted,
        Ok(Ok((false, true, _))) => Verdict::MustAsk,
        Ok(_) => Verdict::Denied,
        Err(_) => {
            // The dialog is of no use any more. Nothing depends on whether polkit closes it.
            let _ = runtime.timeout(ANSWER, authority.cancel_check_authorization(&cancellation)).await;
            Verdict::Denied
        }
    }
}
