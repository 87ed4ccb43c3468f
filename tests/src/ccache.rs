//! A FILE ccache made by hand, version 4, for logins that bring a ticket where there is no KDC.

use std::os::unix::fs::PermissionsExt;

fn data(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn name(text: &str, realm: &str) -> Vec<u8> {
    let parts: Vec<&str> = text.split('/').collect();
    let count = (parts.len() as u32).to_be_bytes();
    let parts: Vec<u8> = parts.iter().flat_map(|part| data(part.as_bytes())).collect();
    [&[0, 0, 0, 1][..], &count, &data(realm.as_bytes()), &parts].concat()
}

/// Writes a ccache of `principal` (without realm; the realm is EXAMPLE.TEST) whose ticket ends `seconds` from now, and
/// gives its path to `uid`.
pub fn write(path: &str, principal: &str, seconds: u64, uid: u32) {
    let realm = "EXAMPLE.TEST";
    let end = (pag::now() + seconds) as u32;
    let bytes = [
        &[5, 4, 0, 0][..],
        &name(principal, realm),
        &name(principal, realm),
        &name(&format!("krbtgt/{realm}"), realm),
        &[0, 18],
        &data(&[7; 32]),
        &[0; 8],
        &end.to_be_bytes(),
        &end.to_be_bytes(),
        &[0; 5],
        &[0; 8],
        &data(b"ticket"),
        &data(b""),
    ]
    .concat();
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
}
