//! The words of the configuration, and what they mean.

use std::fmt;
use std::str::FromStr;

use super::token::Client;

/// How wide a PAG is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One per uid and principal.
    User,
    /// One per login.
    Session,
}

/// Which session's PAG a user's services follow when each login has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// The PAG of the session that logind calls the user's display, else of the newest login.
    Display,
    /// The PAG of the newest login.
    Newest,
    /// The PAG of the login that has lasted longest.
    First,
    /// The services follow no session.
    None,
}

/// Which logins join the user's PAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// All of them.
    Always,
    /// Logins that bring a ticket; every other login gets a PAG of its own.
    Credentials,
}

/// What happens to the tokens once no login is left in the PAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retain {
    /// They are discarded, also if a lingering user manager goes on.
    None,
    /// They are never discarded: the remaining processes keep them.
    Processes,
    /// A lingering user manager keeps them. They are discarded with the last lease.
    Linger,
}

/// How the module treats a PAM service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceKind {
    /// A login of the user.
    Login,
    /// `systemd-user`.
    Manager,
    /// A service in which each session gets a PAG of its own.
    Own,
    /// A service that keeps what it inherited.
    Nothing,
    /// `pag-seed`, the helper's own service.
    Seed,
}

/// Which clients are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientChoice {
    /// All clients that the host has.
    Auto,
    /// No client: PAGs have no tokens.
    None,
    /// These clients, if the host has them.
    Only(Vec<Client>),
}

/// Lists the words of an option and their values once, for reading, for writing and for messages.
macro_rules! words {
    ($type:ty, $($word:literal => $value:expr),+ $(,)?) => {
        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err([$($word),+].join(" or ")),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(if *self == $value {
                    return f.write_str($word);
                })+
                Ok(())
            }
        }
    };
}

words!(Scope, "user" => Scope::User, "session" => Scope::Session);
words!(Follow, "display" => Follow::Display, "newest" => Follow::Newest, "first" => Follow::First, "none" => Follow::None);
words!(Join, "always" => Join::Always, "credentials" => Join::Credentials);
words!(Retain, "none" => Retain::None, "processes" => Retain::Processes, "linger" => Retain::Linger);
words!(ServiceKind, "login" => ServiceKind::Login, "own" => ServiceKind::Own, "none" => ServiceKind::Nothing, "manager" => ServiceKind::Manager, "seed" => ServiceKind::Seed);

impl fmt::Display for ClientChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientChoice::Auto => f.write_str("auto"),
            ClientChoice::None => f.write_str("none"),
            ClientChoice::Only(kinds) => {
                f.write_str(&kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
            }
        }
    }
}
