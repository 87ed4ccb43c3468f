//! Whether a user lingers.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::sys::Passwd;

/// Whether the user's manager stays when he has logged out: the file that `loginctl enable-linger` makes
/// (systemd, src/login/logind-user.c, user_check_linger_file).
pub fn is_lingering(user: &Passwd) -> bool {
    let name = user.name.to_bytes();
    let file = OsString::from_vec(linger_file(name));
    !name.is_empty() && !name.contains(&b'/') && Path::new("/var/lib/systemd/linger").join(file).exists()
}

/// What systemd calls a user's file there: what is no printable ASCII, and what means something between quotes, is escaped as
/// in C (src/basic/escape.c, cescape_char), so that `DOM\alice` has the file `DOM\\alice`.
fn linger_file(name: &[u8]) -> Vec<u8> {
    let escaped = |letter: &u8| match letter {
        7 => b"\\a".to_vec(),
        8 => b"\\b".to_vec(),
        12 => b"\\f".to_vec(),
        11 => b"\\v".to_vec(),
        b'\n' => b"\\n".to_vec(),
        b'\r' => b"\\r".to_vec(),
        b'\t' => b"\\t".to_vec(),
        b'\\' | b'"' | b'\'' => vec![b'\\', *letter],
        b' '..=b'~' => vec![*letter],
        other => format!("\\{other:03o}").into_bytes(),
    };
    name.iter().flat_map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_user_who_lingers_has_the_name_that_systemd_gives_it() {
        let table: [(&[u8], &[u8]); 6] = [
            (b"alice", b"alice"),
            (b"alice@example.test", b"alice@example.test"),
            (br"DOM\alice", br"DOM\\alice"),
            ("j\u{f6}rg".as_bytes(), br"j\303\266rg"),
            (b"o'neil \"x\"", br#"o\'neil \"x\""#),
            (b"\x07\x08\x0c\x0b\n\r\t\x01\x7f", br"\a\b\f\v\n\r\t\001\177"),
        ];
        for (name, expected) in table {
            assert_eq!(linger_file(name), expected, "{}", String::from_utf8_lossy(name));
        }
    }
}
