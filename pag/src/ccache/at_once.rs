//! Reading a user's file without a child.
//!
//! A child for each ticket is half of what a login waits for us. It keeps root from opening what a user has chosen, and
//! from waiting for a file system that does not answer: a home on a server, a FUSE mount of the user's, a lease on the
//! file. None of these can come in between where tickets nearly always are. There the file is looked up without being
//! opened, and is opened once it is known to be a plain file of the user's. In every other case nothing has been done,
//! and a child does it.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use zeroize::Zeroizing;

use super::LIMIT;
use crate::sys;

/// Where pam_krb5 and sshd put a login's ticket, and where we have those of the PAGs. Root's directories.
const DIRECTORIES: [&str; 2] = ["/tmp", crate::RUN];

/// The file at `path`, if it is one of `uid`'s, and is where a look cannot wait.
pub(super) fn read(path: &str, uid: u32) -> Option<Zeroizing<Vec<u8>>> {
    let below = |directory: &'static str| Some((directory, path.strip_prefix(directory)?.strip_prefix('/')?));
    let (directory, name) = DIRECTORIES.into_iter().find_map(below)?;
    let name = CString::new(name).ok()?;
    let options = |flags: i32| OpenOptions::new().read(true).custom_flags(flags).to_owned();
    let directory = options(libc::O_PATH | libc::O_DIRECTORY).open(directory).ok()?;
    if !sys::is_local(directory.as_fd()) {
        return None;
    }
    let found = File::from(sys::look_up(directory.as_fd(), &name).ok()?);
    let is_his = found.metadata().is_ok_and(|file| file.is_file() && file.uid() == uid);
    if !is_his {
        return None;
    }
    // Of what was looked up, and not of what has the name by now. O_NONBLOCK: not for a lease to be given up.
    let file = options(libc::O_NONBLOCK).open(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?;
    let length = usize::try_from(file.metadata().ok()?.len()).ok().filter(|length| *length <= LIMIT)?;
    // No larger one later on, which would leave a copy behind that is not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT.min(2 * length + 4096)));
    file.take(u64::try_from(bytes.capacity()).ok()?).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
