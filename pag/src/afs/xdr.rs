//! Token sets in XDR, as in VIOC_GETTOK2 of OpenAFS and in the payload of kAFS's keys: flags, the cell, and tokens,
//! each behind its kind (OpenAFS, src/auth/token.xg; Linux, net/rxrpc/key.c, rxrpc_read).
//!
//! The bytes hold session keys. They are only read in place, and nothing secret is taken out. Users may have written
//! some of them. Nothing here allocates.

use crate::types::TokenKind;

/// Longest name of a cell, in bytes: AFSTOKEN_CELL_MAX.
const LONGEST_CELL: usize = 64;
/// Most tokens of one cell: AFSTOKEN_MAX.
const MOST_TOKENS: u32 = 8;
/// Units of 100 ns, of afs_time64 and of kAFS's times, in a second.
const TICKS: u64 = 10_000_000;

/// The facts about one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fact {
    /// Its security class.
    pub(super) kind: TokenKind,
    /// Its end, in seconds since the epoch.
    pub(super) expires: u64,
    /// The user's number in the cell's protection database, if the token has it.
    pub(super) vice_id: Option<i64>,
}

/// The tokens of one cell.
#[derive(Debug, Clone)]
pub(super) struct TokenSet<'a> {
    /// The cell, as it is written in the set.
    pub(super) cell: &'a [u8],
    left: u32,
    rest: Xdr<'a>,
}

impl<'a> TokenSet<'a> {
    /// Reads the head of a set. Other bytes may follow the set. `None` if it is no set.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = Xdr(bytes);
        let _flags = rest.word()?;
        let cell = rest.opaque(LONGEST_CELL)?;
        let left = rest.word().filter(|count| *count <= MOST_TOKENS)?;
        Some(TokenSet { cell, left, rest })
    }
}

impl Iterator for TokenSet<'_> {
    type Item = Fact;

    /// The next token of a known kind; `None` at the end, and at bytes that are no token.
    fn next(&mut self) -> Option<Fact> {
        while self.left > 0 {
            self.left -= 1;
            let Some(token) = self.rest.opaque(usize::MAX) else {
                self.left = 0;
                break;
            };
            if let Some(fact) = fact(Xdr(token)) {
                return Some(fact);
            }
        }
        None
    }
}

fn fact(mut token: Xdr<'_>) -> Option<Fact> {
    let kind = match token.word()? {
        2 => TokenKind::Rxkad,
        4 => TokenKind::Rxgk,
        6 => TokenKind::YfsRxgk,
        _ => return None,
    };
    let (expires, vice_id) = match kind {
        TokenKind::Rxkad => {
            let vice_id = token.word()?;
            let _kvno_and_key = token.take(12)?;
            let (begins, expires) = (token.word()?, token.word()?);
            (expires.into(), vice_id_of(vice_id, begins, expires))
        }
        TokenKind::Rxgk => {
            let vice_id = token.long()?;
            let _enctype_level_lifetime_bytelife = token.take(16)?;
            (seconds(token.long()?), Some(vice_id).filter(|id| *id > 0))
        }
        TokenKind::YfsRxgk => {
            let _begins = token.long()?;
            (seconds(token.long()?), None)
        }
    };
    Some(Fact { kind, expires, vice_id })
}

/// The ViceId of an rxkad token. The number is a ViceId if the token's life is an odd number of seconds; otherwise
/// it is the uid of the process that set the token (OpenAFS, src/auth/token.c, SetRxkadViceId).
pub(super) fn vice_id_of(id: u32, begins: u32, expires: u32) -> Option<i64> {
    let is_one = expires.wrapping_sub(begins) % 2 == 1 && id != 0;
    is_one.then_some(i64::from(id))
}

fn seconds(ticks: i64) -> u64 {
    u64::try_from(ticks).unwrap_or(0) / TICKS
}

/// Bytes in XDR (RFC 4506): big-endian, in steps of four.
#[derive(Debug, Clone)]
struct Xdr<'a>(&'a [u8]);

impl<'a> Xdr<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(part)
    }

    fn word(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn long(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn opaque(&mut self, longest: usize) -> Option<&'a [u8]> {
        let length = usize::try_from(self.word()?).ok().filter(|length| *length <= longest)?;
        let part = self.take(length)?;
        self.take(length.next_multiple_of(4) - length)?;
        Some(part)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in super::super) fn opaque(bytes: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        out.extend(bytes);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    pub(in super::super) fn rxkad(vice_id: u32, begins: u32, expires: u32, ticket: &[u8]) -> Vec<u8> {
        [words(&[2, vice_id, 256, 0x5e55_1011, 0x5e55_1011, begins, expires, 1]), opaque(ticket)].concat()
    }

    fn rxgk(vice_id: i64, expires: i64) -> Vec<u8> {
        let mut token = words(&[4]);
        token.extend(vice_id.to_be_bytes());
        token.extend(words(&[18, 1, 0, 0]));
        token.extend(expires.to_be_bytes());
        [token, opaque(b"token"), opaque(b"k0")].concat()
    }

    fn yfs(begins: i64, expires: i64) -> Vec<u8> {
        let mut token = words(&[6]);
        for long in [begins, expires, 2, 0, 0, 18] {
            token.extend(long.to_be_bytes());
        }
        [token, opaque(b"key"), opaque(b"ticket")].concat()
    }

    pub(in super::super) fn set(cell: &str, tokens: &[Vec<u8>]) -> Vec<u8> {
        let mut out = words(&[0]);
        out.extend(opaque(cell.as_bytes()));
        out.extend(words(&[u32::try_from(tokens.len()).unwrap()]));
        out.extend(tokens.iter().flat_map(|token| opaque(token)));
        out
    }

    #[test]
    fn each_kind_of_token_has_its_end() {
        let ticks = 10_000_000 * 1_764_000_000;
        let unknown = words(&[5, 1, 2, 3]);
        let tokens = [rxkad(1001, 1_000_000, 1_764_000_001, b"tkt"), unknown, rxgk(7, ticks), yfs(1, ticks + 9)];
        let bytes = [set("example.test", &tokens), vec![0; 100]].concat();
        let found = TokenSet::parse(&bytes).unwrap();
        assert_eq!(found.cell, b"example.test");
        let expected = [
            Fact { kind: TokenKind::Rxkad, expires: 1_764_000_001, vice_id: Some(1001) },
            Fact { kind: TokenKind::Rxgk, expires: 1_764_000_000, vice_id: Some(7) },
            Fact { kind: TokenKind::YfsRxgk, expires: 1_764_000_000, vice_id: None },
        ];
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_even_life_means_that_the_number_is_no_vice_id() {
        assert_eq!(vice_id_of(1001, 10, 21), Some(1001));
        assert_eq!(vice_id_of(1001, 10, 20), None);
        assert_eq!(vice_id_of(0, 0, 21), None);
    }

    #[test]
    fn a_token_that_is_cut_off_is_none() {
        let whole = set("example.test", &[rxkad(0, 0, 9, b"ticket!!"), rxkad(0, 0, 8, b"")]);
        for length in 0..whole.len() {
            let found: Vec<_> = TokenSet::parse(&whole[..length]).into_iter().flatten().collect();
            assert!(found.len() < 2, "{length}");
        }
        assert_eq!(TokenSet::parse(&whole).unwrap().count(), 2);
        for bytes in [set(&"x".repeat(65), &[]), set("a", &vec![rxkad(0, 0, 0, b""); 9])] {
            assert!(TokenSet::parse(&bytes).is_none());
        }
    }

    #[test]
    fn times_before_the_epoch_are_none() {
        let bytes = set("a", &[rxgk(-1, -5), yfs(0, i64::MIN)]);
        assert!(TokenSet::parse(&bytes).unwrap().all(|fact| fact.expires == 0 && fact.vice_id.is_none()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(TokenSet::parse(&bytes).into_iter().flatten().count() <= 8);
            let behind_a_head = [&words(&[0, 4])[..], b"cell", &words(&[8]), &bytes].concat();
            prop_assert!(TokenSet::parse(&behind_a_head).unwrap().count() <= 8);
        }

        #[test]
        fn no_bytes_of_a_token_make_the_parser_panic(kind in 0_u32..8, bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let token = [words(&[kind]), bytes].concat();
            let whole = set("a.test", &[token, rxkad(0, 0, 9, b"")]);
            prop_assert_eq!(TokenSet::parse(&whole).unwrap().last().unwrap().expires, 9);
        }
    }
}
