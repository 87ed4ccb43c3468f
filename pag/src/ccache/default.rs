//! The ccache that Kerberos programs use without KRB5CCNAME: `default_ccache_name` of krb5.conf(5).

use super::CcacheName;
use crate::krb5_conf;

/// The default ccache of each user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultName(String);

impl DefaultName {
    /// Reads krb5.conf.
    pub fn read() -> Self {
        let name = krb5_conf::libdefault("default_ccache_name");
        DefaultName(name.unwrap_or_else(|| "FILE:/tmp/krb5cc_%{uid}".to_owned()))
    }

    /// The default ccache of this uid. None if the module reads no ccaches of its type, or if only the user's own
    /// processes can tell its name.
    pub fn of(&self, uid: u32) -> Option<CcacheName> {
        CcacheName::parse(&self.name_of(uid)?).ok()
    }

    /// The name of that ccache, as in KRB5CCNAME. None if only the user's own processes can tell it.
    pub fn name_of(&self, uid: u32) -> Option<String> {
        expand(&self.0, uid)
    }
}

/// Replaces the parameters of krb5.conf(5), "Parameter expansion". None for one that only the user's own processes can
/// tell.
fn expand(name: &str, uid: u32) -> Option<String> {
    let mut parts = name.split("%{");
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let (token, rest) = part.split_once('}')?;
        match token {
            "uid" | "euid" | "USERID" => text += &uid.to_string(),
            "TEMP" => text += "/tmp",
            "null" => {}
            _ => return None,
        }
        text += rest;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameters_of_a_name_are_replaced() {
        let of = |name: &str| expand(name, 61001);
        assert_eq!(of("KEYRING:persistent:%{uid}").as_deref(), Some("KEYRING:persistent:61001"));
        assert_eq!(of("FILE:%{TEMP}/%{null}cc_%{euid}").as_deref(), Some("FILE:/tmp/cc_61001"));
        assert_eq!((of("FILE:/%{username}"), of("FILE:/%{uid")), (None, None));
    }

    proptest! {
        #[test]
        fn no_name_makes_the_reader_panic(name in ".*(%\\{.*)?") {
            expand(&name, 7);
        }
    }
}
