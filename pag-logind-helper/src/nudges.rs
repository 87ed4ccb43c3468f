//! The socket on which PAM modules tell the helper that something has changed.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::task::{Context, Poll};

use pag::nudge::{self, Nudge};
use zruntime::{AsyncIo, Shared, SharedRuntime};

/// If this many nudges come at once, the kernel may have dropped others: it keeps ten by default
/// (net.unix.max_dgram_qlen).
const FLOOD: usize = 8;
/// Most datagrams that are read at once.
const BATCH: usize = 64;

/// The socket: only root can write to it.
pub(crate) struct NudgeSocket(AsyncIo<UnixDatagram, Shared>);

/// What the socket had.
#[derive(Default)]
pub(crate) struct Nudges {
    pub(crate) nudges: Vec<Nudge>,
    /// How many datagrams there were, whatever was in them.
    count: usize,
}

impl Nudges {
    /// Whether others may have been lost, so that all users' PAGs are to be surveyed.
    pub(crate) fn may_be_incomplete(&self) -> bool {
        self.count >= FLOOD
    }
}

impl NudgeSocket {
    /// Makes the socket.
    ///
    /// # Errors
    /// If the directory in /run cannot be written.
    pub(crate) fn new(runtime: &SharedRuntime) -> io::Result<Self> {
        // An earlier helper that was killed has left it.
        match std::fs::remove_file(nudge::SOCKET) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(nudge::SOCKET)?;
        std::fs::set_permissions(nudge::SOCKET, Permissions::from_mode(0o600))?;
        Ok(NudgeSocket(AsyncIo::new(runtime, socket)?))
    }

    /// Takes the nudges that are there, a few at a time. Datagrams that are no nudges are passed over.
    ///
    /// # Errors
    /// If the socket cannot be read.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<io::Result<Nudges>> {
        let mut found = Nudges::default();
        while found.count < BATCH {
            let mut datagram = [0; nudge::SPACE];
            match self.0.poll_read_with(cx, |socket| socket.recv(&mut datagram)) {
                Poll::Ready(Ok(length)) => {
                    found.nudges.extend(datagram.get(..length).and_then(nudge::parse));
                    found.count += 1;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if found.count == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(found))
    }
}
