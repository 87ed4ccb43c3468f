//! Kerberos ccaches made by hand. Tier 1 has no KDC, and the module reads only principal and times.

use std::os::unix::fs::{PermissionsExt, chown};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn data(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
}

fn principal(out: &mut Vec<u8>, name: &str, realm: &str) {
    out.extend(1_u32.to_be_bytes());
    let parts: Vec<&str> = name.split('/').collect();
    out.extend(u32::try_from(parts.len()).unwrap().to_be_bytes());
    data(out, realm.as_bytes());
    parts.iter().for_each(|part| data(out, part.as_bytes()));
}

/// Writes a FILE ccache of version 4 (MIT krb5, doc/formats/ccache_file_format.rst) with one TGT, owned by `uid`, and
/// gives its name for KRB5CCNAME.
pub fn write(path: &str, uid: u32, name: &str, realm: &str, expires: u64) -> String {
    write_since(now(), path, uid, name, realm, expires)
}

/// As above, for a user who authenticated at `authenticated`. A renewed ticket keeps that time.
pub fn write_since(authenticated: u64, path: &str, uid: u32, name: &str, realm: &str, expires: u64) -> String {
    write_for(&format!("krbtgt/{realm}"), authenticated, path, uid, name, realm, expires)
}

/// As [`write`], with one ticket for the service `host/afs.example.test` in place of a TGT.
pub fn write_of_service(path: &str, uid: u32, name: &str, realm: &str, expires: u64) -> String {
    write_for("host/afs.example.test", now(), path, uid, name, realm, expires)
}

fn write_for(server: &str, authenticated: u64, path: &str, uid: u32, name: &str, realm: &str, expires: u64) -> String {
    let mut out = vec![5, 4, 0, 0];
    principal(&mut out, name, realm);
    credential(&mut out, authenticated, name, server, realm, expires);
    std::fs::write(path, out).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    chown(path, Some(uid), Some(uid)).unwrap();
    format!("FILE:{path}")
}

fn credential(out: &mut Vec<u8>, authenticated: u64, name: &str, server: &str, realm: &str, expires: u64) {
    principal(out, name, realm);
    principal(out, server, realm);
    out.extend(18_u16.to_be_bytes());
    data(out, &[7; 32]);
    for time in [authenticated, now(), expires, expires] {
        out.extend(u32::try_from(time).unwrap().to_be_bytes());
    }
    out.push(0);
    out.extend(0_u32.to_be_bytes()); // flags
    out.extend(0_u32.to_be_bytes()); // addresses
    out.extend(0_u32.to_be_bytes()); // authorization data
    data(out, b"ticket");
    data(out, b"");
}

/// A script for `sh -e` that makes a ccache of type KEYRING with one TGT (MIT krb5, src/lib/krb5/ccache/cc_keyring.c): in
/// `collection`, a keyring below `anchor`, which it must possess.
pub fn keyring_script(anchor: &str, collection: &str, called: &str, name: &str, realm: &str, expires: u64) -> String {
    let (mut who, mut ticket) = (Vec::new(), Vec::new());
    principal(&mut who, name, realm);
    credential(&mut ticket, now(), name, &format!("krbtgt/{realm}"), realm, expires);
    let octal = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\{byte:03o}")).collect::<String>();
    format!(
        "c=$(keyctl search {anchor} keyring {collection} 2>/dev/null) || c=$(keyctl newring {collection} {anchor})\n\
         o=$(keyctl newring {called} $c)\n\
         printf '{}' | keyctl padd user __krb5_princ__ $o >/dev/null\n\
         printf '{}' | keyctl padd user krbtgt/{realm}@{realm} $o >/dev/null\n",
        octal(&who),
        octal(&ticket),
    )
}
