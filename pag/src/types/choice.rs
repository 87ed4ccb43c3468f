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

/// Whose PAG the services of a user follow who has one for each login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// That of the session which logind calls the user's display, else the newest.
    Display,
    /// That of the newest login.
    Newest,
    /// That of the login which has been there longest.
    First,
    /// Nobody's.
    None,
}

/// Which logins join the user's PAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// All of them.
    Always,
    /// Those that bring a ticket; the others get one of their own.
    Credentials,
}

/// What becomes of the tokens when the last lease is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retain {
    /// They are discarded.
    None,
    /// They are left to the processes that stay.
    Processes,
    /// A lingering user manager keeps them, too.
    Linger,
}

/// What a PAM service is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceKind {
    /// A login of the user.
    Login,
    /// `systemd-user`.
    Manager,
    /// Something that gets a PAG of its own.
    Own,
    /// Nothing: it keeps what it inherited.
    Nothing,
    /// `pag-seed`, the helper's own.
    Seed,
}

/// Which clients are to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientChoice {
    /// Those that the host has.
    Auto,
    /// None: PAGs without tokens.
    None,
    /// These, if the host has them.
    Only(Vec<Client>),
}

/// Words of an option and what they mean, in one place for reading, writing and for messages.
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
