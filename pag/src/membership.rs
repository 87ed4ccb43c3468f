//! In which PAG the calling thread is, and what AFS lets every process do about it: make a new one, and leave.
//!
//! OpenAFS has PAGs of its own, and says in which one a thread is. For kAFS and the client `keyring` the session keyring
//! is the PAG: each has one, unless it is the user session keyring, which the kernel gives to all processes of a uid that
//! have none (Linux, security/keys/process_keys.c, lookup_user_key).
//!
//! Nothing here needs root. What it does concerns the calling thread: it is for programs with one thread.

use std::io;

use crate::afs::openafs::{Device, Interface};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::guard::HandleGroup;
use crate::keyring::{self, Mask, Serial};
use crate::store::ring::Ring;
use crate::sys;
use crate::types::Client;

/// What OpenAFS says of the thread.
#[derive(Debug)]
pub enum OpenAfs {
    /// The host has it not, or the configuration does not want it to be served.
    Absent,
    /// It is in no PAG: tokens that it gets are everybody's who has its uid.
    Outside,
    /// It is in the PAG of this number.
    Pag(u32),
    /// The module does not tell: its daemons are not running, for one.
    Silent(io::Error),
}

impl OpenAfs {
    fn here() -> Self {
        let Some(device) = Device::served() else { return OpenAfs::Absent };
        match device.open().and_then(|interface| interface.getpag()) {
            Ok(Some(number)) => OpenAfs::Pag(number),
            Ok(None) => OpenAfs::Outside,
            Err(error) if error.kind() == io::ErrorKind::NotFound => OpenAfs::Absent,
            Err(error) => OpenAfs::Silent(error),
        }
    }
}

/// The PAG that a thread is in, as each client sees it.
#[derive(Debug)]
pub struct Membership {
    /// Its session keyring, if it has one.
    pub session: Option<Serial>,
    /// The same, where it is the ring of a PAG that was made by the PAM module.
    pub ring: Option<Ring>,
    /// Whether the session keyring looks like such a ring, and this user namespace does not show the group that proves it.
    pub untold: bool,
    /// What OpenAFS says.
    pub openafs: OpenAfs,
    /// The clients that are served here and take the session keyring for the PAG.
    pub by_session: Vec<Client>,
}

impl Membership {
    /// Looks where the calling thread is.
    pub fn here(settings: &Settings) -> Self {
        let mut by_session = Client::present(settings);
        by_session.retain(|client| *client != Client::OpenAfs);
        let user_session = keyring::resolve(keyring::user_session_id()).ok();
        let session = keyring::session().ok().filter(|session| Some(*session) != user_session);
        // Others' keyrings may have such a name and mask; its group is what a user cannot give.
        let ring = Ring::current().filter(|ring| ring.group == HandleGroup::read());
        Membership {
            session,
            ring,
            untold: ring.is_none() && !ids_are_told() && session.is_some_and(Ring::looks_like_one),
            openafs: OpenAfs::here(),
            by_session,
        }
    }

    /// Whether the host has no client that is served: then nothing but a ring is a PAG.
    pub fn serves_nobody(&self) -> bool {
        self.by_session.is_empty() && matches!(self.openafs, OpenAfs::Absent)
    }

    /// Whether it is a PAG for any client.
    pub fn is_one(&self) -> bool {
        self.ring.is_some()
            || matches!(self.openafs, OpenAfs::Pag(_))
            || (self.session.is_some() && !self.by_session.is_empty())
    }
}

/// Whether keys show their owners and groups as they are. In a user namespace that does not map all ids (`PrivateUsers=`,
/// `unshare --user`) the kernel shows those that it does not map as the overflow ids.
pub fn ids_are_told() -> bool {
    ["/proc/self/uid_map", "/proc/self/gid_map"].iter().all(|map| std::fs::read_to_string(map).is_ok_and(maps_all))
}

fn maps_all(map: String) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Puts the calling thread into a new PAG, whose only member it is. Whatever was in its session keyring is lost to it,
/// but for the user's own keyring.
///
/// # Errors
/// `Key` and `System`. The thread may be in no PAG then, and must not go on as if it were in one.
pub fn enter_new(settings: &Settings) -> Result<()> {
    Client::present(settings);
    let Some(device) = Device::served() else { return new_session() };
    let doing = || Error::system("make a PAG of OpenAFS");
    let interface = device.open().map_err(doing())?;
    interface.setpag().map_err(doing())?;
    let session = close(&interface)?;
    link_user_keyring(session);
    Ok(())
}

/// Takes the calling thread out of whatever PAG it is in, by a new session keyring, in which the user's own is linked.
///
/// # Errors
/// `Key`: it is where it was. `System` when OpenAFS finds a PAG in the user's own keyring: it is in that one.
pub fn leave(settings: &Settings) -> Result<()> {
    Client::present(settings);
    new_session()?;
    if matches!(OpenAfs::here(), OpenAfs::Pag(_)) {
        let source = io::Error::other("the user's own keyring (keyctl show @u) leads into one");
        return Err(Error::System { doing: "leave the PAG of OpenAFS".to_owned(), source });
    }
    Ok(())
}

/// Closes the keyring that setpag has made against those of its uid that are outside: its mask lets them link it, and
/// even open it to others (OpenAFS, src/afs/LINUX/osi_groups.c, install_session_keyring). Only its owner may.
fn close(interface: &Interface) -> Result<Serial> {
    let doing = || Error::key("close the new PAG's keyring to processes outside of it");
    let session = keyring::session().map_err(doing())?;
    keyring::set_mask(session, Mask::OF_SETPAG).map_err(doing())?;
    let [uid, ..] = sys::ids().uid;
    let closed =
        keyring::describe(session, |found| found.is_keyring() && found.uid == uid && found.mask == Mask::OF_SETPAG);
    if !closed.map_err(doing())? {
        return Err(doing()(io::ErrorKind::PermissionDenied.into()));
    }
    if !interface.is_member() {
        let source = io::Error::other("its module does not find it in the new session keyring");
        return Err(Error::System { doing: "make a PAG of OpenAFS".to_owned(), source });
    }
    Ok(session)
}

fn new_session() -> Result<()> {
    let doing = || Error::key("make a new session keyring");
    let before = keyring::session().ok();
    keyring::join(None).map_err(doing())?;
    let session = keyring::session().map_err(doing())?;
    if Some(session) == before {
        return Err(doing()(io::ErrorKind::AlreadyExists.into()));
    }
    link_user_keyring(session);
    Ok(())
}

/// As pam_keyinit does it. Best effort: what a user keeps in his own keyring is no token of ours.
fn link_user_keyring(session: Serial) {
    let _ = keyring::link(keyring::user_id(), session);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Dirs};
    use crate::types::Client;
    use crate::types::ClientChoice;

    fn settings(client: ClientChoice) -> Settings {
        let nowhere = Dirs { main: "/nonexistent".into(), drop_ins: Vec::new(), ..Dirs::default() };
        Settings { client, ..config::host(&nowhere).0 }
    }

    /// On this kernel's keyrings, in this thread's own session keyrings.
    #[test]
    fn a_new_pag_and_a_left_one_are_session_keyrings_with_the_users_own() {
        let none = settings(ClientChoice::None);
        for way in [enter_new, leave] {
            keyring::join(None).unwrap();
            let before = keyring::session().unwrap();
            keyring::add("user", "afs@example.test", b"alice@EXAMPLE.TEST 4000000000", before).unwrap();
            way(&none).unwrap();
            let after = keyring::session().unwrap();
            assert_ne!(before, after);
            let user = keyring::resolve(keyring::user_id()).unwrap();
            assert_eq!(keyring::members(after).unwrap(), [user], "nothing else has come along");
            let closed = keyring::describe(after, |found| found.mask.0 & 0x00ff_ffff).unwrap();
            assert_eq!(closed, 0x0003_0000, "others of this uid may see it, and no more");
        }
    }

    #[test]
    fn a_user_namespace_of_ones_own_does_not_tell_ids() {
        assert!(maps_all("         0          0 4294967295\n".to_owned()));
        for map in ["", "     61001      61001          1\n", "0 0 1\n61001 61001 1\n", "0 100000 65536\n"] {
            assert!(!maps_all(map.to_owned()), "{map}");
        }
    }

    #[test]
    fn a_session_keyring_is_a_pag_for_clients_that_take_it_for_one() {
        keyring::join(None).unwrap();
        let keyring = settings(ClientChoice::Only(vec![Client::Keyring]));
        let here = Membership::here(&keyring);
        assert_eq!((here.session, here.ring), (Some(keyring::session().unwrap()), None));
        assert!(here.is_one());
        assert!(!Membership { by_session: Vec::new(), openafs: OpenAfs::Outside, ..here }.is_one());
        let nobody = Membership { session: None, ..Membership::here(&keyring) };
        assert!(!nobody.is_one());
        assert!(Membership { openafs: OpenAfs::Pag(0x4100_0001), ..nobody }.is_one());
    }
}
