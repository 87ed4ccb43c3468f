//! The PAGs that a word on the command line means: an id, the beginning of one, a user, or the name of a named PAG.

use pag::store::record::NAMED;
use pag::types::PagId;

use super::connection::{ANSWER, Helper};
use super::reply::{ListRow, ListedPag};
use crate::output::Error;

/// Digits of an id that are enough to mean it, where no other PAG begins with them.
const SHORTEST: usize = 4;

/// The PAGs that a word means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// One PAG, by its id.
    One(String),
    /// All PAGs of a user. Never empty.
    OfUser(Vec<String>),
}

impl Chosen {
    /// Their ids.
    pub(super) fn ids(self) -> Vec<String> {
        match self {
            Chosen::One(id) => vec![id],
            Chosen::OfUser(ids) => ids,
        }
    }

    /// The id of the only PAG.
    ///
    /// # Errors
    /// A user has several.
    pub(super) fn only(self, word: &str) -> Result<String, Error> {
        let mut ids = self.ids();
        match ids.pop() {
            Some(id) if ids.is_empty() => Ok(id),
            last => {
                ids.extend(last);
                Err(not_found(word, &format!("it has several: {}; name one of them", ids.join(", "))))
            }
        }
    }
}

/// Finds what `word` means. The helper is asked only for what is no whole id.
///
/// # Errors
/// Nothing that the caller may see is meant, or more than one PAG begins with these digits.
pub(super) async fn choose(helper: &Helper, word: &str) -> Result<Chosen, Error> {
    if let Some(id) = PagId::parse(word) {
        return Ok(Chosen::One(id.to_string()));
    }
    let rows: Vec<ListRow> = helper.wait("list PAGs", ANSWER, helper.manager.list_pags()).await?;
    let listed: Vec<ListedPag> = rows.iter().cloned().map(ListedPag::from).collect();
    match meant(word, &listed) {
        Ok(chosen) => Ok(chosen),
        Err(why) => named(helper, word, &rows).await.ok_or_else(|| not_found(word, &why)),
    }
}

/// The PAG of `pag@NAME.service`, by the name alone or by that of the unit. Only root sees these.
async fn named(helper: &Helper, word: &str, rows: &[ListRow]) -> Option<Chosen> {
    let name = word.strip_prefix(NAMED).map_or(word, |name| name.strip_suffix(".service").unwrap_or(name));
    let lease = format!("{NAMED}{name}");
    for (id, uid, .., path) in rows {
        if *uid != 0 {
            continue;
        }
        let pag = helper.wait("list PAGs", ANSWER, helper.pag_at(path)).await.ok()?;
        if pag.leases.iter().flatten().any(|one| one.service == lease) {
            return Some(Chosen::One(id.clone()));
        }
    }
    None
}

fn not_found(word: &str, why: &str) -> Error {
    Error::Bus { doing: format!("find PAG '{word}'"), why: why.to_owned() }
}

/// A user's name or uid comes first: a name can look like the beginning of an id.
fn meant(word: &str, listed: &[ListedPag]) -> Result<Chosen, String> {
    let of_user = |pag: &&ListedPag| pag.user.as_deref() == Some(word) || pag.uid.to_string() == word;
    let ids: Vec<String> = listed.iter().filter(of_user).map(|pag| pag.pag.clone()).collect();
    if !ids.is_empty() {
        return Ok(Chosen::OfUser(ids));
    }
    let digits = word.to_ascii_lowercase();
    let begins = |pag: &&ListedPag| digits.len() >= SHORTEST && pag.pag.starts_with(&digits);
    let mut found = listed.iter().filter(begins).map(|pag| pag.pag.clone());
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(Chosen::One(id)),
        (Some(one), Some(other)) => Err(format!("more than one begins so: {one}, {other}; name more digits")),
        (None, _) => Err(format!(
            "no PAG that you may see is of this user, has this name, or this id of 16 hex digits or one that begins with it \
             (at least {SHORTEST} digits); `pagctl list` shows them"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Vec<ListedPag> {
        let pag = |id: &str, uid: u32, user: Option<&str>| ListedPag {
            pag: id.to_owned(),
            uid,
            user: user.map(str::to_owned),
            kind: "user".to_owned(),
            principal: None,
            follows: None,
            chosen: false,
        };
        vec![
            pag("5f2e91c07ab3d846", 61001, Some("alice")),
            pag("5f2eaac07ab3d846", 61001, Some("alice")),
            pag("610020c07ab3d846", 61003, Some("beef")),
            pag("beef91c07ab3d846", 61002, None),
        ]
    }

    #[test]
    fn a_user_means_all_their_pags() {
        let both = Chosen::OfUser(vec!["5f2e91c07ab3d846".to_owned(), "5f2eaac07ab3d846".to_owned()]);
        assert_eq!(meant("alice", &listed()).unwrap(), both);
        assert_eq!(meant("61001", &listed()).unwrap(), both);
        assert!(both.only("alice").unwrap_err().to_string().contains("5f2e91c07ab3d846, 5f2eaac07ab3d846"));
    }

    #[test]
    fn a_user_goes_before_an_id_that_begins_with_their_name() {
        assert_eq!(meant("beef", &listed()).unwrap().only("beef").unwrap(), "610020c07ab3d846");
        assert_eq!(meant("61002", &listed()).unwrap().only("61002").unwrap(), "beef91c07ab3d846");
    }

    #[test]
    fn the_beginning_of_an_id_is_enough_where_it_is_the_only_one() {
        assert_eq!(meant("5F2E9", &listed()), Ok(Chosen::One("5f2e91c07ab3d846".to_owned())));
        assert!(meant("5f2e", &listed()).unwrap_err().contains("more than one begins so"));
        for none in ["", "5f2", "5f2e92", "carol", "x"] {
            assert!(meant(none, &listed()).unwrap_err().contains("`pagctl list`"), "{none}");
        }
    }
}
