//! A word to the helper that a user's PAGs have changed. It is a hint: the helper finds out for itself in time.

use std::os::unix::net::UnixDatagram;

/// The helper's socket.
pub const SOCKET: &str = "/run/pag/nudge";

/// Tells the helper about `uid`. Never blocks; nobody may be listening.
pub fn nudge(uid: u32) {
    if let Ok(socket) = UnixDatagram::unbound()
        && socket.set_nonblocking(true).is_ok()
    {
        let _ = socket.send_to(uid.to_string().as_bytes(), SOCKET);
    }
}

/// Reads what [`nudge`] sent; none for anything else.
pub fn parse(datagram: &[u8]) -> Option<u32> {
    str::from_utf8(datagram).ok()?.parse().ok()
}
