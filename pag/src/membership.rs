//! Which PAG the calling thread is in, and what AFS lets every process do about it: make a new PAG, and leave
//! one.
//!
//! OpenAFS has PAGs of its own and tells which one a thread is in. For kAFS and the client `keyring` the
//! session keyring is the PAG. The user session keyring is no PAG: the kernel gives it to all processes of a
//! uid that have no other (Linux, security/keys/process_keys.c, lookup_user_key).
//!
//! Nothing here needs root. The functions change the calling thread alone, so they are for programs with one
//! thread.

use std::io;

use crate::afs::openafs::{Device, Interface};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::guard::HandleGroup;
use crate::keyring::{self, Mask, Serial};
use crate::process_ring::{Kind, ProcessRing};
use crate::store::ring::Ring;
use crate::sys;
use crate::types::Client;

/// What OpenAFS tells about the thread.
#[derive(Debug)]
pub enum OpenAfs {
    /// The host has no OpenAFS, or the configuration excludes it.
    Absent,
    /// The thread is in no PAG: every process of its uid shares the tokens that it gets.
    Outside,
    /// The thread is in the PAG with this number.
    Pag(u32),
    /// The module does not answer, for example because its daemons are not running.
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
    /// The thread's session keyring, if it has its own.
    pub session: Option<Serial>,
    /// The session keyring as a ring, if the PAM module made it.
    pub ring: Option<Ring>,
    /// The session keyring as a ring that a process has made for itself, or as the one in which that process keeps its
    /// other threads.
    pub process_ring: Option<(ProcessRing, Kind)>,
    /// Whether the session keyring looks like a ring, but this user namespace hides the group that would prove
    /// it.
    pub unproven: bool,
    /// What OpenAFS tells.
    pub openafs: OpenAfs,
    /// The clients served here that take the session keyring for the PAG.
    pub by_session: Vec<Client>,
}

impl Membership {
    /// Finds out where the calling thread is.
    pub fn here(settings: &Settings) -> Self {
        let mut by_session = Client::present(settings);
        by_session.retain(|client| *client != Client::OpenAfs);
        let process_ring = ProcessRing::current();
        if matches!(process_ring, Some((_, Kind::NoPag))) {
            by_session.clear();
        }
        let user_session = keyring::resolve(keyring::user_session_id()).ok();
        let session = keyring::session().ok().filter(|session| Some(*session) != user_session);
        // A user can give a keyring such a name and mask, but not the handle group.
        let ring = Ring::current().filter(|ring| ring.group == HandleGroup::read());
        Membership {
            session,
            ring,
            process_ring,
            unproven: ring.is_none() && !ids_are_visible() && session.is_some_and(Ring::looks_like_one),
            openafs: OpenAfs::here(),
            by_session,
        }
    }

    /// Whether this host serves no client. Then only a ring is a PAG.
    pub fn has_no_client(&self) -> bool {
        self.by_session.is_empty() && matches!(self.openafs, OpenAfs::Absent)
    }

    /// Whether the thread is in a PAG of any client.
    pub fn is_in_pag(&self) -> bool {
        self.ring.is_some()
            || matches!(self.process_ring, Some((_, Kind::Pag)))
            || matches!(self.openafs, OpenAfs::Pag(_))
            || (self.session.is_some() && !self.by_session.is_empty())
    }
}

/// Whether this process sees the real owners and groups of keys. In a user namespace that does not map all
/// ids (`PrivateUsers=`, `unshare --user`) the kernel shows the overflow ids instead of those that it does
/// not map.
pub fn ids_are_visible() -> bool {
    ["/proc/self/uid_map", "/proc/self/gid_map"].iter().all(|map| std::fs::read_to_string(map).is_ok_and(maps_all))
}

fn maps_all(map: String) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Puts the calling thread into a new PAG, as its only member. The thread loses what its session keyring
/// held, except for the user's own keyring. Needs no privilege.
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

/// Takes the calling thread out of its PAG: gives it a new session keyring and links the user's own keyring
/// into it. Needs no privilege.
///
/// # Errors
/// `Key`: the thread is where it was. `System`: OpenAFS finds a PAG in the user's own keyring, and the thread
/// is in that one.
pub fn leave(settings: &Settings) -> Result<()> {
    Client::present(settings);
    new_session()?;
    if matches!(OpenAfs::here(), OpenAfs::Pag(_)) {
        let source = io::Error::other("the user's own keyring (keyctl show @u) leads into one");
        return Err(Error::System { doing: "leave the PAG of OpenAFS".to_owned(), source });
    }
    Ok(())
}

/// Closes the keyring that setpag made to processes of the same uid that are outside: its mask lets them link
/// it, and even open it to others (OpenAFS, src/afs/LINUX/osi_groups.c, install_session_keyring). Only the
/// owner may change the mask.
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

/// Links the user's own keyring, as pam_keyinit does. Best effort: no token of ours is in it.
fn link_user_keyring(session: Serial) {
    let _ = keyring::link(keyring::user_id(), session);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Dirs};
    use crate::types::{Client, ClientChoice};

    fn settings(client: ClientChoice) -> Settings {
        let nowhere = Dirs { main: "/nonexistent".into(), drop_ins: Vec::new(), ..Dirs::default() };
        Settings { client, ..config::host(&nowhere).0 }
    }

    /// Uses this kernel's keyrings, in this thread's own session keyring.
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
    fn a_user_namespace_of_its_own_hides_ids() {
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
        assert!(here.is_in_pag());
        assert!(!Membership { by_session: Vec::new(), openafs: OpenAfs::Outside, ..here }.is_in_pag());
        let without_session = Membership { session: None, ..Membership::here(&keyring) };
        assert!(!without_session.is_in_pag());
        assert!(Membership { openafs: OpenAfs::Pag(0x4100_0001), ..without_session }.is_in_pag());
    }
}
