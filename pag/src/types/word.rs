//! A short text without spaces or line ends.

use std::fmt;

/// A short printable text without spaces, for records and messages; `-` if it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Word(String);

impl Word {
    const LENGTH: usize = 32;
    const WHOLE: usize = 128;

    /// Takes the first 32 characters of `text`, with `?` for each that is not printable ASCII.
    pub fn clean(text: &str) -> Self {
        Self::clean_to(text, Self::LENGTH)
    }

    fn clean_to(text: &str, length: usize) -> Self {
        let text: String = text.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).take(length).collect();
        Word(if text.is_empty() { "-".to_owned() } else { text })
    }

    /// Takes `text` as it is. `?` if it is longer than 128 bytes or not printable ASCII.
    pub fn whole(text: &str) -> Self {
        let is_harmless = text.len() <= Self::WHOLE && text.bytes().all(|c| c.is_ascii_graphic());
        if is_harmless { Self::clean_to(text, Self::WHOLE) } else { Word("?".to_owned()) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_nothing_that_breaks_a_line() {
        assert_eq!(Word::clean("a b\nc").as_str(), "a?b?c");
        assert_eq!(Word::clean("").as_str(), "-");
        assert_eq!(Word::clean(&"x".repeat(99)).as_str().len(), 32);
    }
}
