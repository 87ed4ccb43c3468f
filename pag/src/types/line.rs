//! Text that others wrote, as a message may repeat it.

/// Longest text that [`quoted_words`] repeats, in characters.
const LONGEST: usize = 400;

/// A character as a message may have it. What would break the line, or make a terminal show the line otherwise than it
/// is, becomes `?`.
pub fn printable(c: char) -> char {
    // What writes from right to left, has no width or ends a line is no control character to Unicode.
    let is_hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
    if c.is_control() || is_hidden { '?' } else { c }
}

/// The text without the numbers of errors that Rust writes behind their words: `Permission denied (os error 13)`.
pub fn without_codes(text: &str) -> String {
    const BEGIN: &str = " (os error ";
    let mut parts = text.split(BEGIN);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => plain.push_str(rest),
            _ => {
                plain.push_str(BEGIN);
                plain.push_str(part);
            }
        }
    }
    plain
}

/// What a program said, in quotes and in one line: its last lines, as far as they have room. None if it said nothing. The
/// bytes may be hostile, or no text: a user may have written them, to look like a message of ours.
pub fn quoted_words(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut words: Vec<char> = Vec::new();
    for line in lines.iter().rev() {
        let mut line: Vec<char> = line.chars().take(LONGEST).map(printable).collect();
        line.iter_mut().filter(|c| **c == '"').for_each(|c| *c = '\'');
        let room = LONGEST.saturating_sub(words.len());
        if !words.is_empty() && line.len() + 3 > room {
            break;
        }
        if !words.is_empty() {
            line.extend(" / ".chars());
        }
        line.append(&mut words);
        words = line;
    }
    (!words.is_empty()).then(|| format!("\"{}\"", words.into_iter().collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_lines_are_told_in_one() {
        let told = |text: &str| quoted_words(text.as_bytes()).unwrap_or_default();
        assert_eq!(told("aklog: can't get afs configuration\n"), "\"aklog: can't get afs configuration\"");
        assert_eq!(told("one\r\n\n  two\n"), "\"one / two\"");
        assert_eq!(told(" \n\t\n"), "");
        assert_eq!(told("a \"b\"\u{1b}[2J\u{202e}c\0"), "\"a 'b'?[2J?c?\"");
        let long = told(&format!("{}\nlast\n", "x".repeat(399)));
        assert_eq!(long, "\"last\"", "a line that has no room is left out");
        assert_eq!(told(&"x".repeat(9000)).chars().count(), LONGEST + 2);
        assert_eq!(quoted_words(b"\xff\xfe"), Some("\"\u{fffd}\u{fffd}\"".to_owned()));
    }

    #[test]
    fn errors_have_words_and_no_numbers() {
        let error = std::io::Error::from_raw_os_error(libc::EACCES);
        assert_eq!(
            without_codes(&format!("cannot open x: {error}; and: {error}")),
            "cannot open x: Permission denied; and: Permission denied"
        );
        for text in ["", "no code", "(os error 1)", "x (os error y)", "x (os error 1"] {
            assert_eq!(without_codes(text), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_told_is_one_bounded_line(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let told = quoted_words(&bytes).unwrap_or_default();
            prop_assert!(told.chars().count() <= LONGEST + 2);
            prop_assert!(!told.contains(|c: char| c.is_control()) && told.matches('"').count().is_multiple_of(2));
        }
    }
}
