//! Whether a user lingers.

use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Whether the user's manager stays after the last logout: `loginctl enable-linger` has made a file of the user's name
/// (systemd, src/login/logind-user.c, user_check_linger_file). Asks no name service, so it may be called under the uid's
/// lock.
pub fn is_lingering(name: &CStr) -> bool {
    let name = name.to_bytes();
    let file = OsString::from_vec(linger_file(name));
    !name.is_empty() && !name.contains(&b'/') && Path::new("/var/lib/systemd/linger").join(file).exists()
}

/// The name of a user's file there. systemd escapes quotes, backslashes and all but printable ASCII as in C
/// (src/basic/escape.c, cescape_char), so that `DOM\alice` has the file `DOM\\alice`.
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
    fn a_linger_file_has_the_name_that_systemd_gives_it() {
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
