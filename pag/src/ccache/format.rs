//! The format of FILE ccaches, versions 3 and 4: their principal, and the times of their tickets.
//!
//! Version 4 begins with a header. Then follow the default principal and the credentials, to the end of the file.
//! Fields are big-endian (MIT krb5, src/lib/krb5/ccache/ccmarshal.c and doc/formats/ccache_file_format.rst). The bytes
//! come from the user.

use crate::types::{FormatError, Principal};

/// The principal of a ccache, and the times of its tickets, in seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The default principal.
    pub principal: Principal,
    /// Start of the longest ticket-granting ticket.
    pub tgt_starts: Option<u64>,
    /// Time of the last authentication for that ticket. A renewed ticket keeps it.
    pub tgt_authenticated: Option<u64>,
    /// End of the longest ticket-granting ticket of the principal's realm.
    pub tgt_expires: Option<u64>,
    /// Time until which that ticket can be renewed. 0 if it can't be renewed.
    pub tgt_renew_until: Option<u64>,
    /// End of the longest ticket of any kind. 0 without a ticket.
    pub last_end: u64,
}

/// Reads a ccache.
///
/// # Errors
/// For other versions, and for bytes that end within a field or contradict themselves.
pub fn parse(bytes: &[u8]) -> Result<Summary, FormatError> {
    let mut rest = Bytes { bytes, version_3: false };
    match rest.take(2)? {
        [5, 4] => {
            let header = rest.u16()?;
            rest.take(usize::from(header))?;
        }
        [5, 3] => rest.version_3 = true,
        // These versions have the byte order of the machine that wrote them. No release of this century writes them by
        // default.
        [5, 1..=2] => return Err(FormatError("its format is older than version 3")),
        _ => return Err(FormatError("it is no ccache")),
    }
    let principal = rest.principal()?;
    let mut summary = Summary {
        principal,
        tgt_starts: None,
        tgt_authenticated: None,
        tgt_expires: None,
        tgt_renew_until: None,
        last_end: 0,
    };
    while !rest.bytes.is_empty() {
        let ticket = rest.credential()?;
        let realm = summary.principal.realm().as_bytes();
        summary.last_end = summary.last_end.max(ticket.end);
        let is_tgt = ticket.server_realm == realm && ticket.server == [&b"krbtgt"[..], realm];
        // A removed ticket stays in the file, and ends at 0 (Heimdal, lib/krb5/fcache.c; MIT does the same).
        if is_tgt && ticket.end > 0 && summary.tgt_expires.is_none_or(|known| ticket.end > known) {
            summary.tgt_starts = Some(ticket.start);
            summary.tgt_authenticated = Some(ticket.issued);
            summary.tgt_expires = Some(ticket.end);
            summary.tgt_renew_until = Some(ticket.renew_until);
        }
    }
    Ok(summary)
}

/// Makes a ccache of version 4 from a principal and credentials in the same version. Invalid credentials are left out.
/// So are settings of a ccache, which look like tickets of a realm that can't exist (MIT krb5,
/// lib/krb5/ccache/ccbase.c, krb5_is_config_principal).
///
/// # Errors
/// When the principal is invalid.
pub fn assemble(principal: &[u8], credentials: &[&[u8]]) -> Result<Vec<u8>, FormatError> {
    const HEAD: [u8; 4] = [5, 4, 0, 0];
    let mut rest = Bytes { bytes: principal, version_3: false };
    rest.principal()?;
    if !rest.bytes.is_empty() {
        return Err(FormatError("bytes follow its principal"));
    }
    // Allocated once: a vector that grows would leave session keys in the memory that it frees.
    let size = HEAD.len() + principal.len() + credentials.iter().map(|one| one.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&HEAD);
    bytes.extend_from_slice(principal);
    for one in credentials {
        let mut rest = Bytes { bytes: one, version_3: false };
        let is_ticket = rest.credential().is_ok_and(|ticket| ticket.server_realm != b"X-CACHECONF:");
        if is_ticket && rest.bytes.is_empty() {
            bytes.extend_from_slice(one);
        }
    }
    Ok(bytes)
}

/// The fields of a credential that are read. Times are in seconds since the epoch.
struct Credential<'a> {
    server_realm: &'a [u8],
    server: Vec<&'a [u8]>,
    issued: u64,
    start: u64,
    end: u64,
    renew_until: u64,
}

/// The bytes that are still to be read.
struct Bytes<'a> {
    bytes: &'a [u8],
    version_3: bool,
}

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let (part, rest) = self.bytes.split_at_checked(length).ok_or(FormatError("it ends in the middle"))?;
        self.bytes = rest;
        Ok(part)
    }

    fn u16(&mut self) -> Result<u16, FormatError> {
        let part = self.take(2)?.try_into().map_err(|_| FormatError("it ends in the middle"))?;
        Ok(u16::from_be_bytes(part))
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        let part = self.take(4)?.try_into().map_err(|_| FormatError("it ends in the middle"))?;
        Ok(u32::from_be_bytes(part))
    }

    fn data(&mut self) -> Result<&'a [u8], FormatError> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| FormatError("it ends in the middle"))?)
    }

    /// Reads a name: its type, the number of components, the realm and the components.
    fn name(&mut self) -> Result<(&'a [u8], Vec<&'a [u8]>), FormatError> {
        self.u32()?;
        let count = self.u32()?;
        let realm = self.data()?;
        if count > 16 {
            return Err(FormatError("one of its names has too many parts"));
        }
        let parts: Result<Vec<_>, _> = (0..count).map(|_| self.data()).collect();
        Ok((realm, parts?))
    }

    fn principal(&mut self) -> Result<Principal, FormatError> {
        let (realm, parts) = self.name()?;
        let text = |bytes: &[u8]| {
            str::from_utf8(bytes).map(str::to_owned).map_err(|_| FormatError("its principal is no text"))
        };
        let parts: Result<Vec<_>, _> = parts.into_iter().map(text).collect();
        Principal::new(parts?, text(realm)?)
    }

    fn credential(&mut self) -> Result<Credential<'a>, FormatError> {
        self.name()?;
        let (server_realm, server) = self.name()?;
        // The session key: its type (twice in version 3) and its data. Then four times: authentication (authtime of RFC
        // 4120,
        // 5.3), start, end, and end of renewal.
        self.take(if self.version_3 { 4 } else { 2 })?;
        self.data()?;
        let issued = u64::from(self.u32()?);
        // 0 in a ticket that was valid at once.
        let start = Some(u64::from(self.u32()?)).filter(|start| *start > 0).unwrap_or(issued);
        let end = u64::from(self.u32()?);
        let renew_until = u64::from(self.u32()?);
        // is_skey and the ticket flags.
        self.take(1 + 4)?;
        for _ in 0..2 {
            // Addresses, then authorisation data: a type and data each. A false count ends with the bytes.
            for _ in 0..self.u32()? {
                self.u16()?;
                self.data()?;
            }
        }
        // The ticket and a second ticket.
        self.data()?;
        self.data()?;
        Ok(Credential { server_realm, server, issued, start, end, renew_until })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    pub(in crate::ccache) fn name(parts: &[&str], realm: &str) -> Vec<u8> {
        let count = u32::try_from(parts.len()).unwrap().to_be_bytes();
        let parts: Vec<u8> = parts.iter().flat_map(|part| data(part.as_bytes())).collect();
        [&[0, 0, 0, 1][..], &count, &data(realm.as_bytes()), &parts].concat()
    }

    pub(in crate::ccache) fn credential(server: &[&str], end: u32) -> Vec<u8> {
        [
            &name(&["alice"], "R")[..],
            &name(server, "R"),
            &[0, 18],
            &data(&[7; 32]),
            &[0, 0, 0, 7, 0, 0, 0, 0],
            &end.to_be_bytes(),
            &(end + 9).to_be_bytes(),
            &[0; 5],
            &[0; 8],
            &data(b"ticket"),
            &data(b""),
        ]
        .concat()
    }

    fn version_3(credential: &[u8]) -> Vec<u8> {
        let key = name(&["alice"], "R").len() + name(&["krbtgt", "R"], "R").len();
        [&[5, 3][..], &name(&["alice"], "R"), &credential[..key], &[0, 18], &credential[key..]].concat()
    }

    pub(in crate::ccache) fn cache(credentials: &[Vec<u8>]) -> Vec<u8> {
        [&[5, 4, 0, 0][..], &name(&["alice"], "R"), &credentials.concat()].concat()
    }

    #[test]
    fn the_longest_ticket_granting_ticket_counts() {
        let bytes = cache(&[
            credential(&["krbtgt", "R"], 100),
            credential(&["krbtgt", "OTHER"], 500),
            credential(&["afs", "r"], 400),
            credential(&["krbtgt", "R"], 300),
        ]);
        let summary = parse(&bytes).unwrap();
        assert_eq!(summary.principal.to_string(), "alice@R");
        assert_eq!((summary.tgt_starts, summary.tgt_expires, summary.tgt_renew_until), (Some(7), Some(300), Some(309)));
        assert_eq!(summary.last_end, 500, "a ticket for another realm may end later");
    }

    #[test]
    fn version_3_has_the_same_fields() {
        let ticket = credential(&["krbtgt", "R"], 100);
        assert_eq!(parse(&version_3(&ticket)), parse(&cache(&[ticket])));
        assert!(parse(&[5, 2, 0, 0]).is_err());
    }

    #[test]
    fn a_removed_ticket_does_not_count() {
        let bytes = cache(&[credential(&["krbtgt", "R"], 0)]);
        assert_eq!(parse(&bytes).unwrap().tgt_expires, None);
    }

    #[test]
    fn a_truncated_ccache_is_refused_unless_it_ends_between_tickets() {
        let whole = cache(&[credential(&["krbtgt", "R"], 100)]);
        let boundary = cache(&[]).len();
        for length in (0..whole.len()).filter(|length| *length != boundary) {
            assert!(parse(&whole[..length]).is_err(), "{length} of {}", whole.len());
        }
        assert_eq!(parse(&whole[..boundary]).unwrap().tgt_expires, None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (parse(&bytes), assemble(&bytes, &[&bytes]), assemble(&name(&["alice"], "R"), &[&bytes]));
            let _ = parse(&[&[5, 4, 0, 0][..], &bytes].concat());
            let _ = parse(&[&cache(&[])[..], &bytes].concat());
        }
    }
}
