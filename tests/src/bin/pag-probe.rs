//! Writes which session keyring this process has, as one line of JSON, to standard output or to the file in its
//! argument.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "in a test, to panic is to fail")]

/// One thread leaves the PAG. The output is what each of two threads' children see of it.
fn thread_leaves() {
    let tokens = || std::process::Command::new("pagctl").arg("tokens").output().unwrap().status.code();
    let before = (pag_tests::ring::report().ring, tokens());
    let left = std::thread::spawn(move || {
        pag_tests::ring::keyctl(libc::KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0).unwrap();
        (pag_tests::ring::report().ring, tokens())
    });
    let left = left.join().unwrap();
    let stayed = (pag_tests::ring::report().ring, tokens());
    assert_eq!((before.1, left.1), (Some(0), Some(1)), "tokens before, and in the thread that has left");
    assert_ne!(before.0, left.0);
    assert_eq!(before, stayed, "the others are where they were");
    println!("the thread has left, its siblings have stayed");
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--thread-leaves") {
        return thread_leaves();
    }
    let report = serde_json::to_string(&pag_tests::ring::report()).unwrap();
    match std::env::args().nth(1) {
        // In one step, so that a reader that waits for the file reads all of it.
        Some(path) => {
            std::fs::write(format!("{path}.new"), report).unwrap();
            std::fs::rename(format!("{path}.new"), path).unwrap();
        }
        None => println!("{report}"),
    }
}
