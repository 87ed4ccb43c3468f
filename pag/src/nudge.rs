//! A datagram to the helper: a user's PAGs have changed. It is a hint; the helper also finds out by itself,
//! later.

use crate::sys;

/// The helper's socket.
pub const SOCKET: &str = "/run/pag/nudge";

/// Room for the longest datagram, in bytes.
pub const SPACE: usize = 16;

/// The content of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nudge {
    /// The user that has the changed PAGs.
    pub uid: u32,
    /// Where in its stack the user manager entered its PAG, if a user manager did.
    pub manager: Option<Moment>,
}

/// Where in a PAM stack the module was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before a pam_keyinit that will replace the session keyring, unless the stack calls the module once more.
    BeforeKeyinit,
    /// Where no later pam_keyinit replaces the PAG.
    Lasting,
}

impl Moment {
    const ALL: [(Moment, &'static str); 2] = [(Moment::BeforeKeyinit, "early"), (Moment::Lasting, "late")];
}

/// Tells the helper that PAGs of `uid` have changed. Never blocks, and does not fail if no helper listens.
pub fn nudge(uid: u32) {
    send(&uid.to_string());
}

/// Tells the helper where the stack of the user manager of `uid` called the module.
pub fn nudge_of_manager(uid: u32, moment: Moment) {
    if let Some((_, word)) = Moment::ALL.iter().find(|(one, _)| *one == moment) {
        send(&format!("{uid} {word}"));
    }
}

fn send(text: &str) {
    let _ = sys::send_to(SOCKET, text.as_bytes());
}

/// Parses a datagram; `None` for one that this module did not write.
pub fn parse(datagram: &[u8]) -> Option<Nudge> {
    let text = str::from_utf8(datagram).ok()?;
    let (uid, word) = text.split_once(' ').map_or((text, None), |(uid, word)| (uid, Some(word)));
    let manager = match word {
        None => None,
        Some(word) => Some(Moment::ALL.iter().find(|(_, known)| *known == word)?.0),
    };
    Some(Nudge { uid: uid.parse().ok()?, manager })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_here_is_understood() {
        let nudge = |uid, manager| Some(Nudge { uid, manager });
        assert_eq!(parse(b"61001"), nudge(61001, None));
        assert_eq!(parse(b"61001 early"), nudge(61001, Some(Moment::BeforeKeyinit)));
        assert_eq!(parse(b"4294967295 late"), nudge(u32::MAX, Some(Moment::Lasting)));
        assert!("4294967295 early".len() <= SPACE);
        for text in ["", " ", "61001 ", "61001 soon", "early", "-1", "61001 early ", "4294967296", "\u{7f}"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(&[0xff, 0xfe]), None);
    }
}
