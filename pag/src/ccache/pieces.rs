//! What a child writes to its parent about ccaches in KCM or a keyring: for each ccache its principal, then its
//! credentials, as Kerberos marshals them. The parent makes ccaches in the format of files from that.
//!
//! KCM and KEYRING ccaches hold both in version 4 of that format (MIT krb5, src/include/kcm.h;
//! lib/krb5/ccache/cc_keyring.c, krcc_store and save_principal).

use std::io;

use zeroize::Zeroizing;

use super::contents::{Contents, LIMIT};
use super::format;
use crate::sys::{self, Fields, Put};

/// Marks the principal that begins a ccache.
const PRINCIPAL: u8 = 0;
/// Marks a credential.
const CREDENTIAL: u8 = 1;
/// Marks an error number. Nothing else is written then.
const ERROR: u8 = 2;

/// Writes pieces to the parent, at most [`LIMIT`] bytes in all. Allocates nothing.
pub(super) struct Pieces<'a> {
    put: Put<'a>,
    left: usize,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(put: Put<'a>) -> Self {
        Pieces { put, left: LIMIT }
    }

    /// Begins a ccache. None if there is no more room.
    pub(super) fn principal(&mut self, bytes: &[u8]) -> Option<()> {
        self.write(PRINCIPAL, bytes)
    }

    /// Writes a credential of the ccache that has begun. None if there is no more room.
    pub(super) fn credential(&mut self, bytes: &[u8]) -> Option<()> {
        self.write(CREDENTIAL, bytes)
    }

    /// Writes the error that kept the ccache from being read. None if there is no more room.
    pub(super) fn error(&mut self, error: &io::Error) -> Option<()> {
        self.write(ERROR, &error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes())
    }

    fn write(&mut self, mark: u8, bytes: &[u8]) -> Option<()> {
        let fields: [&[u8]; 2] = [&[mark], bytes];
        self.left = self.left.checked_sub(sys::length_of(&fields))?;
        sys::write_fields(self.put, &fields).then_some(())
    }
}

/// The ccaches that a child has written. A ccache with an invalid principal is left out, and so is an invalid
/// credential.
pub(super) fn assemble(bytes: &[u8]) -> Vec<Contents> {
    let mut caches: Vec<(&[u8], Vec<&[u8]>)> = Vec::new();
    let mut fields = Fields::new(bytes);
    while let Some((mark, piece)) = next(&mut fields) {
        match (mark, caches.last_mut()) {
            (PRINCIPAL, _) => caches.push((piece, Vec::new())),
            (ERROR, _) => {}
            (_, Some((_, credentials))) => credentials.push(piece),
            (_, None) => {}
        }
    }
    let contents = |(principal, credentials): (&[u8], Vec<&[u8]>)| {
        let bytes = format::assemble(principal, &credentials).ok()?;
        Some(Contents { summary: format::parse(&bytes).ok()?, bytes: Zeroizing::new(bytes) })
    };
    caches.into_iter().filter_map(contents).collect()
}

/// The error that a child has written, if it has written one.
pub(super) fn error(bytes: &[u8]) -> Option<io::Error> {
    let (mark, piece) = next(&mut Fields::new(bytes))?;
    let number = i32::from_ne_bytes(piece.try_into().ok()?);
    (mark == ERROR).then(|| io::Error::from_raw_os_error(number))
}

fn next<'a>(fields: &mut Fields<'a>) -> Option<(u8, &'a [u8])> {
    let [mark] = fields.array()?;
    Some((mark, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ccache::format::tests::{cache, credential, name};
    use proptest::prelude::*;

    /// The ccaches that the parent makes from these pieces.
    fn sent(write: impl FnOnce(&mut Pieces<'_>) -> Option<()>) -> Option<Vec<Contents>> {
        let mut bytes = Vec::new();
        let mut put = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            true
        };
        write(&mut Pieces::new(&mut put))?;
        Some(assemble(&bytes))
    }

    #[test]
    fn pieces_become_ccaches_of_the_format_of_files() {
        let (tgt, service) = (credential(&["krbtgt", "R"], 100), credential(&["afs", "r"], 90));
        let found = sent(|pieces| {
            pieces.principal(&name(&["alice"], "R"))?;
            pieces.credential(&tgt)?;
            pieces.credential(b"no credential")?;
            pieces.credential(&service)?;
            pieces.principal(b"no principal")?;
            pieces.credential(&tgt)?;
            pieces.principal(&name(&["alice", "admin"], "R"))
        });
        let found = found.unwrap();
        assert_eq!(found[0].bytes[..], cache(&[tgt, service])[..]);
        let principals: Vec<String> = found.iter().map(|one| one.summary.principal.to_string()).collect();
        assert_eq!(principals, ["alice@R", "alice/admin@R"]);
        assert_eq!((found[0].summary.tgt_expires, found[1].summary.tgt_expires), (Some(100), None));
    }

    #[test]
    fn settings_of_a_ccache_are_left_behind() {
        let setting = {
            let mut setting = name(&["alice"], "R");
            setting.extend(name(&["krb5_ccache_conf_data", "pa_type", "krbtgt/R@R"], "X-CACHECONF:"));
            setting.extend(
                &credential(&["krbtgt", "R"], 0)[name(&["alice"], "R").len() + name(&["krbtgt", "R"], "R").len()..],
            );
            setting
        };
        let found = sent(|pieces| {
            pieces.principal(&name(&["alice"], "R"))?;
            pieces.credential(&setting)
        });
        assert_eq!(found.unwrap()[0].bytes[..], cache(&[])[..]);
    }

    #[test]
    fn no_more_is_written_than_a_file_may_hold() {
        let half = vec![0; LIMIT / 2];
        assert!(sent(|pieces| pieces.credential(&half)).is_some());
        assert!(sent(|pieces| pieces.credential(&half).and_then(|()| pieces.credential(&half))).is_none());
    }

    proptest! {
        #[test]
        fn no_pieces_make_the_parent_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..6),
        ) {
            assemble(&bytes);
            sent(|to| {
                to.principal(&name(&["alice"], "R"))?;
                pieces.iter().try_for_each(|piece| to.credential(piece))
            });
        }
    }
}
