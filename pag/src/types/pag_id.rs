//! The public name of a PAG.

use std::fmt;

use crate::error::{Error, Result};
use crate::sys;

/// A PAG's name for people and programs: 64 random bits in hex. Unlike the ring's name it gives no access.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PagId(u64);

impl PagId {
    /// Makes a new random name.
    ///
    /// # Errors
    /// If the kernel gives no random bits.
    pub fn random() -> Result<Self> {
        let mut bits = [0; 8];
        sys::random(&mut bits).map_err(Error::system("get random bits for a PAG"))?;
        Ok(PagId(u64::from_ne_bytes(bits)))
    }

    /// Parses a name of 16 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 16 && text.bytes().all(|c| c.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| hex).map(PagId)
    }

    /// A number from 0 to 1000, fixed for this PAG. It spreads work that is due for many PAGs over time.
    pub fn place(self) -> u64 {
        self.0 % 1001
    }
}

impl From<u64> for PagId {
    fn from(number: u64) -> Self {
        PagId(number)
    }
}

impl fmt::Display for PagId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for PagId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sixteen_hex_digits() {
        let id = PagId::random().unwrap();
        assert_eq!(PagId::parse(&id.to_string()), Some(id));
        for text in ["", "ff", "+00000000000000f", "00000000000000fg", "00000000000000fff"] {
            assert_eq!(PagId::parse(text), None, "{text}");
        }
    }
}
