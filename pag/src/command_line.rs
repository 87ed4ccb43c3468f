//! What each of our programs that systemd starts answers before its work: `--version`, and a command line that it does not
//! take.

use std::ffi::OsString;
use std::io::{self, Write};

/// Answers `--version`, and words that `program` does not take: with `purpose`, a sentence that says what the program is
/// and what it takes. The answer is the exit status to end with; none for a command line of `takes` arguments, with which
/// the work begins.
pub fn answer(program: &str, takes: usize, purpose: &str) -> Option<u8> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (status, text) = reply(program, takes, purpose, &words)?;
    // Not println!, which panics where the output is closed.
    let written =
        if status == 0 { io::stdout().write_all(text.as_bytes()) } else { io::stderr().write_all(text.as_bytes()) };
    Some(if written.is_ok() { status } else { 2 })
}

/// The exit status, and the text.
fn reply(program: &str, takes: usize, purpose: &str, words: &[OsString]) -> Option<(u8, String)> {
    match words {
        [word] if word == "--version" || word == "-V" => {
            Some((0, format!("{program} {}\n", env!("CARGO_PKG_VERSION"))))
        }
        words if words.len() == takes => None,
        _ => Some((2, format!("{purpose} See {program}(8).\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_and_other_words_are_refused() {
        let told = |takes, words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            reply("pag-seed", takes, "It is a job.", &words)
        };
        let version = (0, concat!("pag-seed ", env!("CARGO_PKG_VERSION"), "\n").to_owned());
        for word in ["--version", "-V"] {
            assert_eq!(told(0, &[word]), Some(version.clone()));
            assert_eq!(told(1, &[word]), Some(version.clone()));
        }
        assert_eq!((told(0, &[]), told(1, &["5f2e91c07ab3d846"])), (None, None), "the work begins");
        for (takes, words) in [(0, &["x"][..]), (0, &["--version", "x"]), (1, &[]), (1, &["x", "y"])] {
            assert_eq!(told(takes, words), Some((2, "It is a job. See pag-seed(8).\n".to_owned())), "{words:?}");
        }
    }
}
