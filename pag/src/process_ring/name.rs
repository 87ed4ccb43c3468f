//! The name of a process's ring.

use std::ffi::CStr;
use std::fmt;

use zeroize::Zeroizing;

use crate::error::Result;
use crate::store::ring::RingName;
use crate::sys::{SECRET, Secrets};

/// `pag:`, 32 hex digits, and which process made the ring: `pag:0123456789abcdef0123456789abcdef:1234:apache2`. The digits are
/// secret; so the name is wiped from memory at its end, and is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(Box<Zeroizing<[u8; SECRET]>>);

/// Longest name of a program, in bytes, as the kernel keeps it.
const LONGEST_PROGRAM: usize = 15;

/// The process that made a ring, as the ring's name says. Whoever makes a ring chooses its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    /// Its pid in its own pid namespace. Another process may have it now.
    pub pid: u32,
    /// Its program's name (`/proc/PID/comm`), with `?` for unusual characters.
    pub program: String,
}

impl Name {
    /// Makes a new random name for a ring that this process makes.
    ///
    /// # Errors
    /// If the kernel gives no random bits.
    pub fn random() -> Result<Self> {
        let program = std::fs::read("/proc/self/comm").unwrap_or_default();
        Self::random_of(program.trim_ascii_end())
    }

    /// As [`Name::random`], for a process that will have another name. Of a long one the first 15 bytes count.
    ///
    /// # Errors
    /// As [`Name::random`].
    pub fn random_of(program: &[u8]) -> Result<Self> {
        let program = program.get(..LONGEST_PROGRAM).unwrap_or(program);
        Ok(Self::new(RingName::random()?, std::process::id(), program))
    }

    fn new(random: RingName, pid: u32, program: &[u8]) -> Self {
        let mut text = Box::new(Zeroizing::new([0; SECRET]));
        let program = program.iter().map(|byte| if byte.is_ascii_graphic() { *byte } else { b'?' });
        let maker = format!(":{pid}:");
        let whole = random.to_c().into_iter().take(RingName::LENGTH).chain(maker.bytes()).chain(program);
        for (place, byte) in text.iter_mut().take(SECRET - 1).zip(whole) {
            *place = byte;
        }
        Name(text)
    }

    /// The name in a ring's description; `None` for any other keyring.
    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        let (random, maker) = name.split_at_checked(RingName::LENGTH)?;
        let (pid, program) = str::from_utf8(maker.strip_prefix(b":")?).ok()?.split_once(':')?;
        let parsed = Self::new(RingName::parse(random)?, pid.parse().ok()?, program.as_bytes());
        (parsed.as_c().to_bytes() == name).then_some(parsed)
    }

    /// The name in a secret.
    pub fn of_secret(secrets: &Secrets, number: u32) -> Self {
        Name(secrets.copy(number))
    }

    /// The process in the name.
    pub fn maker(&self) -> Maker {
        let text = self.as_c().to_str().unwrap_or_default();
        let mut fields = text.splitn(4, ':').skip(2);
        let mut next = || fields.next().unwrap_or_default();
        Maker { pid: next().parse().unwrap_or(0), program: next().to_owned() }
    }

    /// The name for the kernel.
    pub fn as_c(&self) -> &CStr {
        // The last byte is always NUL.
        CStr::from_bytes_until_nul(&self.0[..]).unwrap_or_default()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name(made by {})", self.maker())
    }
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_says_who_made_the_ring_and_shows_no_secret() {
        let name = Name::random().unwrap();
        let program = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(name.maker(), Maker { pid: std::process::id(), program: program.trim_end().replace(' ', "?") });
        assert_eq!(Name::parse(name.as_c().to_bytes()), Some(name.clone()));
        let secret = &name.as_c().to_str().unwrap()[4..36];
        assert!(!format!("{name:?}").contains(secret), "{name:?}");
    }

    #[test]
    fn a_program_may_have_any_name() {
        let random = RingName::random().unwrap();
        for (program, shown) in [(&b"(sd-pam)"[..], "(sd-pam)"), (b"a:b c\n\xff", "a:b?c??"), (b"", "")] {
            let name = Name::new(random, 4_194_304, program);
            assert_eq!(name.maker(), Maker { pid: 4_194_304, program: shown.to_owned() });
            assert_eq!(Name::parse(name.as_c().to_bytes()), Some(name));
        }
        // The longest names of programs have 15 bytes, the largest pids seven digits.
        assert!(Name::new(random, 4_194_304, &[b'x'; 15]).maker().program.len() == 15);
    }

    #[test]
    fn other_keyrings_are_no_rings_of_processes() {
        let random = RingName::random().unwrap();
        for rest in ["", ":", ":1", ":x:y", ":01:y", ":1:a b"] {
            assert_eq!(Name::parse(format!("{random}{rest}").as_bytes()), None, "{rest}");
        }
        assert_eq!(Name::parse(b"_ses"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Name::parse(&bytes);
        }
    }
}
