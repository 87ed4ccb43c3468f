//! System calls, and the `unsafe` of this library but for the calls that make a child.
//!
//! A child made here allocates nothing and takes no lock until it executes a program: another thread of the host may
//! have held the lock when the child was made.
#![allow(unsafe_code)]

mod afs_call;
mod descriptors;
mod errno;
mod files;
mod fork;
mod host;
mod identity;
mod ids;
mod locks;
mod message;
mod mount;
mod parked;
mod pin;
mod process;
mod said;
mod secrets;
mod signals;
mod supervise;
mod users;
mod word_size;

pub use self::afs_call::{afs_pioctl, afs_setpag};
pub use self::descriptors::{close_all_but, pipe, read, readable, send_to, write_all};
pub use self::files::{LOOK, copy_file_to, make_directory, open_beneath, open_file, remove_file, write_file};
pub use self::fork::{Answer, Child, Exit, Put, Ready, ask, ask_as, child, detached, wait_for_left};
pub use self::host::{
    RootDirectory, is_process, join_session, kill_all_others, local_time, millis, now, pidfd_open, random,
    root_directory, terminal_width, utc_time, yield_now,
};
pub use self::identity::{Identity, close_memory};
pub use self::ids::{Attributes, Ids, attributes, ids, setfsgid, setfsuid, setresgid, setresuid};
pub use self::locks::lock_briefly;
pub use self::message::{Fields, length_of, write_fields};
pub use self::mount::{Mount, detach_mount, mount_for_all};
pub use self::parked::Parked;
pub use self::pin::pin_session_keyring;
pub use self::process::Process;
pub use self::said::Said;
pub use self::secrets::{SECRET, Secrets};
pub use self::signals::{Signals, Told};
pub use self::supervise::{Program, STATUS_DEADLINE, STATUS_NOT_STARTED, STATUS_SIGNAL, run};
pub use self::users::{Passwd, UserGroups, Who, group, groups_of, passwd};

#[cfg(test)]
mod tests {
    /// Compiles for other processors without their standard library, which a test machine need not have.
    #[test]
    fn a_build_for_32_bits_is_refused() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sys/word_size.rs");
        let program = format!(
            "#![feature(no_core, rustc_attrs)]\n#![no_core]\n#![allow(internal_features, unused_macros)]\n\
             #[rustc_builtin_macro]\nmacro_rules! compile_error {{ ($words:expr $(,)?) => {{{{}}}}; }}\n\
             #[path = {file:?}]\nmod word_size;\n"
        );
        let top = tempfile::tempdir().unwrap();
        let source = top.path().join("program.rs");
        std::fs::write(&source, program).unwrap();
        for (target, is_built) in [
            ("x86_64-unknown-linux-gnu", true),
            ("aarch64-unknown-linux-gnu", true),
            ("i686-unknown-linux-gnu", false),
            ("armv7-unknown-linux-gnueabihf", false),
            ("x86_64-unknown-linux-gnux32", false),
        ] {
            let mut rustc = std::process::Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
            rustc.args(["--crate-type", "rlib", "--emit", "metadata", "--target", target, "--out-dir"]).arg(top.path());
            let output = rustc.arg(&source).env("RUSTC_BOOTSTRAP", "1").output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), is_built, "{target}: {errors}");
            assert_eq!(errors.contains("64-bit processors only"), !is_built, "{target}: {errors}");
        }
    }
}
