//! Says, as JSON in one line, which session keyring this process has. With an argument, into that file.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "in a test, to panic is to fail")]

fn main() {
    let report = serde_json::to_string(&pag_tests::ring::report()).unwrap();
    match std::env::args().nth(1) {
        // In one step, so that whoever waits for the file reads all of it.
        Some(path) => {
            std::fs::write(format!("{path}.new"), report).unwrap();
            std::fs::rename(format!("{path}.new"), path).unwrap();
        }
        None => println!("{report}"),
    }
}
