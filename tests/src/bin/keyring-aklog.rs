//! `aklog` for the keyring client: gets a service ticket for each `-c CELL` from the ccache, and puts a key
//! `afs@CELL` with the ticket's principal and end into the session keyring. Each run is a line in /run/seeder.log.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::exit, reason = "in a test, to panic is to fail")]

use std::ffi::CString;
use std::io::Write;
use std::process::Command;

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").env("TZ", "UTC").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn main() {
    if let Ok(mut log) = std::fs::OpenOptions::new().append(true).open("/run/seeder.log") {
        let _ = writeln!(log, "{} {}", std::process::id(), std::env::var("KRB5CCNAME").unwrap_or_default());
    }
    let arguments: Vec<String> = std::env::args().collect();
    let cells =
        arguments.windows(2).filter(|pair| pair.first().is_some_and(|p| p == "-c")).filter_map(|pair| pair.get(1));
    let mut failed = false;
    for cell in cells {
        let service = format!("afs/{cell}");
        let done = said("kvno", &["-q", &service]).and_then(|_| {
            let list = said("klist", &[])?;
            let principal = list.lines().find_map(|line| line.strip_prefix("Default principal: "))?.to_owned();
            let line = list.lines().find(|line| line.contains(&service))?;
            // "11/24/26 08:00:00  11/24/26 18:00:00  afs/example.test@EXAMPLE.TEST"
            let mut words = line.split_whitespace();
            let end = format!("{} {}", words.nth(2)?, words.next()?);
            let end = said("date", &["-u", "-d", &end, "+%s"])?;
            let payload = format!("{principal} {}", end.trim());
            let name = CString::new(format!("afs@{cell}")).ok()?;
            let key = unsafe {
                libc::syscall(libc::SYS_add_key, c"user".as_ptr(), name.as_ptr(), payload.as_ptr(), payload.len(), -3)
            };
            (key > 0).then_some(())
        });
        failed |= done.is_none();
    }
    std::process::exit(i32::from(failed));
}
