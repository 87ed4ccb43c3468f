//! Keys and keyrings as the kernel sees them: serials, masks, descriptions and the operations on them.
//!
//! The calls come from `keyutils-raw`. The higher interface of `keyutils` is not used: it panics on
//! descriptions that a user can choose (`zz;b`, or bytes that are not UTF-8), and it hides serials.
//! Everything here works on bytes and returns an error instead of panicking. The `_into` functions allocate
//! nothing, so that children can call them.

use std::ffi::CStr;
use std::num::NonZeroI32;
use std::{fmt, io};

use keyutils::SpecialKeyring;
use keyutils_raw as raw;

use crate::sys;

/// A key's number. The kernel re-uses serials, so a remembered one is checked with [`describe`] before use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(NonZeroI32);

impl Serial {
    /// Takes a serial as other programs print it; `None` for 0 and for the negative special numbers.
    pub fn new(number: i32) -> Option<Self> {
        NonZeroI32::new(number).filter(|n| n.get() > 0).map(Serial)
    }

    /// The number itself.
    pub fn get(self) -> i32 {
        self.0.get()
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// This thread's session keyring.
pub fn session_id() -> Serial {
    Serial(SpecialKeyring::Session.serial())
}

/// This thread's own keyring. The kernel makes it on first use.
pub fn thread_id() -> Serial {
    Serial(SpecialKeyring::Thread.serial())
}

/// This process's own keyring. The kernel makes it on first use.
pub fn process_id() -> Serial {
    Serial(SpecialKeyring::Process.serial())
}

/// The user keyring (`@u`) of the thread's *real* uid (security/keys/process_keys.c, look_up_user_keyrings).
pub fn user_id() -> Serial {
    Serial(SpecialKeyring::User.serial())
}

/// The user session keyring (`@us`) of the thread's *real* uid. The kernel gives it to a thread that has no
/// session keyring.
pub fn user_session_id() -> Serial {
    Serial(SpecialKeyring::UserSession.serial())
}

/// A key's permissions: possessor, owner, group and other have eight bits each (`man 7 keyrings`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mask(pub u32);

impl Mask {
    /// The ring of a PAG. Members may use it and put tokens in. Without LINK no member can link it into `@us`
    /// and so share it outside. Its owner may see that it exists. The handle group, which only root uses, may
    /// do everything.
    pub const RING: Mask = Mask(
        raw::KEY_POS_VIEW
            | raw::KEY_POS_READ
            | raw::KEY_POS_WRITE
            | raw::KEY_POS_SEARCH
            | raw::KEY_USR_VIEW
            | raw::KEY_GRP_ALL,
    );
    /// A ring that root still owns. The kernel never gives an owner the group's bits, so root needs them as
    /// owner, too.
    pub const RING_OF_ROOT: Mask = Mask(Mask::RING.0 | raw::KEY_USR_ALL);
    /// S0, the keyring that OpenAFS made for a PAG, below the ring. Members may only view, read and search it,
    /// so no member can empty it or pass it on. Root and the handle group may do everything.
    pub const S0: Mask =
        Mask(raw::KEY_POS_VIEW | raw::KEY_POS_READ | raw::KEY_POS_SEARCH | raw::KEY_USR_ALL | raw::KEY_GRP_ALL);
    /// The keyring that OpenAFS's setpag made for a plain user, closed against processes of the same uid that
    /// are not members. The possessor has what setpag gives; the owner has what the owner of an anonymous
    /// session keyring has.
    pub const OF_SETPAG: Mask = Mask(raw::KEY_POS_ALL & !raw::KEY_POS_SETATTR | raw::KEY_USR_VIEW | raw::KEY_USR_READ);
    /// Registry, holders and records: they grant SEARCH to no one. Kernel searches follow links, and root's
    /// `@u` is linked in every root login. With one SEARCH bit here, root and every user that root changes to
    /// would find alice's tokens.
    pub const ANCHOR: Mask = Mask(raw::KEY_USR_ALL & !raw::KEY_USR_SEARCH);
    /// The ring that a process has made for itself. Members may use it and put tokens in, and no member can pass it on.
    /// Its owner may search it: without that no thread could enter it by its name. Without VIEW the name stands in no
    /// list.
    pub const PROCESS_RING: Mask =
        Mask(raw::KEY_POS_VIEW | raw::KEY_POS_READ | raw::KEY_POS_WRITE | raw::KEY_POS_SEARCH | raw::KEY_USR_SEARCH);
    /// That ring while it is made.
    pub const PROCESS_RING_IN_MAKING: Mask = Mask(raw::KEY_POS_ALL | raw::KEY_USR_SEARCH);
    /// The keyring of threads that are in no PAG of their process. Nothing can be put into it.
    pub const NO_PAG: Mask = Mask(Mask::PROCESS_RING.0 & !raw::KEY_POS_WRITE);
    /// The keyring that holds the rings of a process. Children of the process link into it, and no search comes through
    /// it.
    pub const PROCESS_HOLDER: Mask = Mask(raw::KEY_USR_WRITE);
    /// S0 below the ring of a process: as [`Mask::S0`], without anything for owner and group.
    pub const PROCESS_S0: Mask = Mask(raw::KEY_POS_VIEW | raw::KEY_POS_READ | raw::KEY_POS_SEARCH);
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// What the kernel tells about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description<'a> {
    /// Key type: `keyring`, `user`, `rxrpc`, ...
    pub kind: &'a [u8],
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permissions.
    pub mask: Mask,
    /// The description proper. Users choose it: any bytes but NUL, also `;`.
    pub name: &'a [u8],
}

impl<'a> Description<'a> {
    /// Parses what KEYCTL_DESCRIBE writes: `type;uid;gid;perm;description` (security/keys/keyctl.c,
    /// keyctl_describe_key). Only the first four semicolons separate fields. `None` for any other text.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let mut parts = text.splitn(5, |byte| *byte == b';');
        let kind = parts.next()?;
        // The kernel writes -1 for an id that this user namespace does not map.
        let id = |part: &[u8]| match part {
            b"-1" => Some(u32::MAX),
            part => str::from_utf8(part).ok()?.parse().ok(),
        };
        let uid = id(parts.next()?)?;
        let gid = id(parts.next()?)?;
        let mask = u32::from_str_radix(str::from_utf8(parts.next()?).ok()?, 16).ok()?;
        Some(Description { kind, uid, gid, mask: Mask(mask), name: parts.next()? })
    }

    /// Whether this is a keyring.
    pub fn is_keyring(&self) -> bool {
        self.kind == b"keyring"
    }
}

/// Longest text that KEYCTL_DESCRIBE gives, in bytes: a type (32), three numbers and a description (4096).
pub const DESCRIPTION_SPACE: usize = 4096 + 128;

fn io_error(error: impl Into<io::Error>) -> io::Error {
    error.into()
}

/// Describes a key into `buffer`, which should have [`DESCRIPTION_SPACE`] bytes. Needs VIEW.
///
/// # Errors
/// EACCES, ENOKEY (no such key), EKEYREVOKED, EKEYEXPIRED; `InvalidData` for a text that does not parse.
pub fn describe_into(key: Serial, buffer: &mut [u8]) -> io::Result<Description<'_>> {
    let length = raw::keyctl_describe(key.0, Some((&mut *buffer).into())).map_err(io_error)?;
    // The length includes the NUL. It is the length of the whole text even when the buffer was too short for
    // it.
    let text = buffer.get(..length.saturating_sub(1)).ok_or(io::ErrorKind::InvalidData)?;
    Description::parse(text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Describes a key and gives the description to `look`. Needs VIEW.
///
/// # Errors
/// As [`describe_into`].
pub fn describe<T>(key: Serial, look: impl FnOnce(Description<'_>) -> T) -> io::Result<T> {
    let mut buffer = [0; DESCRIPTION_SPACE];
    describe_into(key, &mut buffer).map(look)
}

/// Whether the kernel has destroyed a key: nothing holds it any more. Needs no permission.
pub fn is_gone(key: Serial) -> bool {
    // Without VIEW the kernel refuses to describe a key that is there (EACCES).
    describe(key, |_| ()).is_err_and(|error| error.raw_os_error() == Some(libc::ENOKEY))
}

/// The keys in a keyring. Needs READ.
///
/// # Errors
/// EACCES, ENOKEY, EKEYREVOKED.
pub fn members(ring: Serial) -> io::Result<Vec<Serial>> {
    let mut size = 64 * size_of::<i32>();
    loop {
        let mut buffer = vec![0_u8; size];
        let length = raw::keyctl_read(ring.0, Some((&mut buffer[..]).into())).map_err(io_error)?;
        if length > size {
            // The keyring has grown between two calls, or the first guess was too small. Leave room for further
            // growth.
            size = length + 64 * size_of::<i32>();
            continue;
        }
        return Ok(serials(buffer.get(..length).unwrap_or(&[])).collect());
    }
}

/// The keys in a keyring, as many as `buffer` holds, without allocating. Needs READ.
///
/// # Errors
/// As [`members`].
pub fn members_into(ring: Serial, buffer: &mut [u8]) -> io::Result<impl Iterator<Item = Serial> + Clone + '_> {
    let length = raw::keyctl_read(ring.0, Some((&mut *buffer).into())).map_err(io_error)?;
    let length = length.min(buffer.len());
    Ok(serials(buffer.get(..length).unwrap_or(&[])))
}

fn serials(bytes: &[u8]) -> impl Iterator<Item = Serial> + Clone + '_ {
    bytes.as_chunks::<4>().0.iter().filter_map(|chunk| Serial::new(i32::from_ne_bytes(*chunk)))
}

/// Reads a key's payload. Needs READ.
///
/// # Errors
/// EACCES, ENOKEY, EKEYREVOKED, EKEYEXPIRED; EOPNOTSUPP for types without a readable payload.
pub fn payload(key: Serial) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0_u8; 1024];
    loop {
        let length = raw::keyctl_read(key.0, Some((&mut buffer[..]).into())).map_err(io_error)?;
        if length <= buffer.len() {
            buffer.truncate(length);
            return Ok(buffer);
        }
        buffer.resize(length, 0);
    }
}

/// Reads a key's payload into `buffer`, without allocating, and returns the payload's length in bytes. If it
/// is longer than the buffer, the kernel writes nothing, not even the beginning (security/keys/keyctl.c,
/// keyctl_read_key). Needs READ.
///
/// # Errors
/// As [`payload`].
pub fn payload_into(key: Serial, buffer: &mut [u8]) -> io::Result<usize> {
    raw::keyctl_read(key.0, Some((&mut *buffer).into())).map_err(io_error)
}

/// Makes a key in `ring`, or updates the key there that has the same type and description. Needs WRITE on the
/// ring. The key's owner is the file system uid, its group the file system gid (security/keys/key.c,
/// key_create_or_update).
///
/// # Errors
/// EDQUOT, EACCES, EINVAL; `InvalidInput` for a NUL in `name` or `kind`.
pub fn add(kind: &str, name: &str, payload: &[u8], ring: Serial) -> io::Result<Serial> {
    if name.contains('\0') || kind.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    raw::add_key(kind, name, payload, ring.0).map(Serial).map_err(io_error)
}

/// Links the persistent keyring of `uid`, or of the effective uid, into `ring` and returns it. Each call
/// starts its time to expiry anew.
///
/// # Errors
/// EOPNOTSUPP if the kernel has no persistent keyrings; EPERM for another user's; EDQUOT.
pub fn persistent_into(uid: Option<u32>, ring: Serial) -> io::Result<Serial> {
    raw::keyctl_get_persistent(uid.unwrap_or(u32::MAX), ring.0).map(Serial).map_err(io_error)
}

/// Replaces a key's payload in one step. Needs WRITE.
///
/// # Errors
/// EACCES, ENOKEY, EKEYREVOKED, EDQUOT.
pub fn update(key: Serial, payload: &[u8]) -> io::Result<()> {
    raw::keyctl_update(key.0, payload).map_err(io_error)
}

/// Links `key` into `ring`. Needs LINK on the key and WRITE on the ring.
///
/// # Errors
/// EACCES, ENOKEY, EKEYREVOKED, EDEADLK (a circle), ELOOP (too deep), EDQUOT.
pub fn link(key: Serial, ring: Serial) -> io::Result<()> {
    raw::keyctl_link(key.0, ring.0).map_err(io_error)
}

/// Takes `key` out of `ring`. Needs WRITE on the ring.
///
/// # Errors
/// EACCES, ENOENT (was not in it), ENOKEY, EKEYREVOKED.
pub fn unlink(key: Serial, ring: Serial) -> io::Result<()> {
    raw::keyctl_unlink(key.0, ring.0).map_err(io_error)
}

/// Ends a key for every process that has it, and empties it. Needs WRITE or SETATTR.
///
/// # Errors
/// EACCES, ENOKEY, EKEYREVOKED.
pub fn revoke(key: Serial) -> io::Result<()> {
    raw::keyctl_revoke(key.0).map_err(io_error)
}

/// Destroys a key for every process that has it. Needs SEARCH.
///
/// # Errors
/// EACCES, ENOKEY.
pub fn invalidate(key: Serial) -> io::Result<()> {
    raw::keyctl_invalidate(key.0).map_err(io_error)
}

/// Sets owner and group. Needs SETATTR, and CAP_SYS_ADMIN to give the key to another owner.
///
/// # Errors
/// EACCES, EDQUOT (the new owner's quota is used up).
pub fn set_owner(key: Serial, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    raw::keyctl_chown(key.0, uid, gid).map_err(io_error)
}

/// Sets permissions. Needs SETATTR, and to be the owner or CAP_SYS_ADMIN.
///
/// # Errors
/// EACCES, ENOKEY.
pub fn set_mask(key: Serial, mask: Mask) -> io::Result<()> {
    raw::keyctl_setperm(key.0, mask.0).map_err(io_error)
}

/// How full a user's key quota is, in words, if less than a quarter of it is left. A seeder that fails for
/// want of quota does not say so. `/proc/key-users` shows the users of this user namespace only
/// (security/keys/proc.c).
pub fn quota_is_short(uid: u32) -> Option<String> {
    quota_in(&std::fs::read_to_string("/proc/key-users").ok()?, uid)
}

fn quota_in(text: &str, uid: u32) -> Option<String> {
    let mut columns = text
        .lines()
        .find_map(|line| {
            let (of, rest) = line.split_once(':')?;
            (of.trim().parse() == Ok(uid)).then_some(rest)
        })?
        .split_whitespace();
    let pair = |column: &str| {
        let (used, all) = column.split_once('/')?;
        Some((used.parse::<u64>().ok()?, all.parse::<u64>().ok()?))
    };
    let (keys, bytes) = (pair(columns.nth(2)?)?, pair(columns.next()?)?);
    let is_short = |(used, all): (u64, u64)| used > all / 4 * 3;
    (is_short(keys) || is_short(bytes)).then(|| {
        format!(
            "{} of {} keys and {} of {} bytes of the user's key quota are used (kernel.keys.maxkeys and maxbytes)",
            keys.0, keys.1, bytes.0, bytes.1
        )
    })
}

/// This thread's session keyring, if it has its own.
///
/// # Errors
/// EKEYREVOKED or ENOKEY if the keyring was revoked or invalidated.
pub fn session() -> io::Result<Serial> {
    resolve(session_id())
}

/// Whether this thread's session keyring was revoked, was invalidated or has expired. The kernel leaves the
/// thread in it, and every search and every new key there fails.
pub fn session_is_dead() -> bool {
    let is_dead =
        |error: io::Error| matches!(error.raw_os_error(), Some(libc::EKEYREVOKED | libc::EKEYEXPIRED | libc::ENOKEY));
    session().is_err_and(is_dead)
}

/// The keyring behind a special number, such as [`user_id`]. The kernel makes a user's keyrings when it is
/// asked for them.
///
/// # Errors
/// As [`session`].
pub fn resolve(special: Serial) -> io::Result<Serial> {
    raw::keyctl_get_keyring_id(special.0, false).map(Serial).map_err(io_error)
}

/// Gives this thread the session keyring called `name`, or a new anonymous one. Success proves nothing: if
/// the kernel finds no keyring of that name that the thread may search, it makes a stray one, and it does not
/// look at owners.
///
/// # Errors
/// As [`sys::join_session`].
pub fn join(name: Option<&CStr>) -> io::Result<()> {
    sys::join_session(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rings_masks_are_those_of_the_design() {
        assert_eq!(Mask::RING.0, 0x0f01_3f00);
        assert_eq!(Mask::RING_OF_ROOT.0, 0x0f3f_3f00);
        assert_eq!(Mask::S0.0, 0x0b3f_3f00);
        assert_eq!(Mask::ANCHOR.0, 0x0037_0000);
        assert_eq!(Mask::OF_SETPAG.0, 0x1f03_0000);
    }

    #[test]
    fn descriptions_that_users_choose_are_taken_whole() {
        for name in [&b"plain"[..], b"a;b", b"zz;b", b"\xff\xfe", b"", b";;;;;"] {
            let text = [b"user;1001;-1;3f010000;", name].concat();
            let parsed = Description::parse(&text).unwrap();
            assert_eq!((parsed.kind, parsed.uid, parsed.gid), (&b"user"[..], 1001, u32::MAX));
            assert_eq!((parsed.mask, parsed.name), (Mask(0x3f01_0000), name));
        }
    }

    #[test]
    fn a_short_quota_is_put_into_words() {
        let text = "    0:   103 102/102 57/1000000 1266/25000000\n61001:    41 41/41 40/200 19400/20000\n\
                    61002:     3 3/3 1/200 20/20000\n61003:   200 200/200 200/200 4000/20000\nx\n";
        let words = quota_in(text, 61001).unwrap();
        assert!(words.starts_with("40 of 200 keys and 19400 of 20000 bytes"), "{words}");
        assert!(quota_in(text, 61003).unwrap().starts_with("200 of 200 keys"));
        assert_eq!((quota_in(text, 0), quota_in(text, 61002), quota_in(text, 7)), (None, None, None));
        assert_eq!(quota_in("61001: 1 1/1 x/200\n", 61001), None);
    }

    #[test]
    fn texts_that_are_no_description_are_refused() {
        for text in ["", "user", "user;1;2", "user;x;2;3;n", "user;1;2;zz;n", "user;1;2;3"] {
            assert_eq!(Description::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Description::parse(&text);
        }
    }
}
