//! Each thread's last failure, in words.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt::Display;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use pag::types::without_codes;

use crate::error::{Code, Error};

use super::raw::thread_id;

thread_local! {
    static WORDS: RefCell<CString> = RefCell::default();
}

/// What `pag_enter` or `pag_leave` was doing in some threads when it failed last. These calls may neither allocate nor touch
/// thread-local memory, which the loader allocates on first use if the library was loaded by dlopen(3). The words are made when
/// they are asked for. Two threads share a place if their ids differ by a multiple of its size; then the words of one are lost.
static SWITCHES: [AtomicU64; 4096] = [const { AtomicU64::new(0) }; 4096];

/// A call that moves a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    Enter,
    Leave,
}

fn place(thread: u32) -> Option<&'static AtomicU64> {
    SWITCHES.get(thread as usize % SWITCHES.len())
}

/// Notes that a call has failed.
pub(super) fn note(words: &dyn Display) {
    if let Some(place) = place(thread_id()) {
        place.store(0, Ordering::Relaxed);
    }
    keep(words);
}

fn keep(words: &dyn Display) {
    let words = CString::new(without_codes(&words.to_string()).replace('\0', "\\0")).unwrap_or_default();
    // A thread that ends has no place for words any more.
    let _ = WORDS.try_with(|place| place.replace(words));
}

/// Notes that a call that moves the thread has failed, and whether the thread is in no PAG now. For signal handlers, too.
pub(super) fn note_switch(switch: Switch, code: Code, errno: i32, is_out: bool) {
    let thread = thread_id();
    let errno = u64::from(u16::try_from(errno).unwrap_or(0));
    let flags = u64::from(is_out) << 2 | u64::from(switch == Switch::Leave) << 1 | 1;
    let word = u64::from(thread) << 32 | errno << 16 | (code as u64) << 8 | flags;
    if let Some(place) = place(thread) {
        place.store(word, Ordering::Relaxed);
    }
}

/// The words for this thread's last failure. They stay until its next failure.
pub(super) fn words() -> *const c_char {
    let thread = thread_id();
    let word = place(thread).map_or(0, |place| place.load(Ordering::Relaxed));
    if word & 1 == 1 && (word >> 32) as u32 == thread {
        let (errno, code) = ((word >> 16) as u16, (word >> 8) as u8);
        let what = if word & 2 == 0 { "enter the PAG" } else { "leave the PAG" };
        let now_at = if word & 4 == 0 { "where it was" } else { "in no PAG" };
        keep(&switch_words(what, c_int::from(code), i32::from(errno), now_at));
        // The same words may be asked for again, and must then stand where they are.
        if let Some(place) = place(thread) {
            place.store(0, Ordering::Relaxed);
        }
    }
    WORDS.try_with(|words| words.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

fn switch_words(what: &str, code: c_int, errno: i32, now_at: &str) -> String {
    let cause = match errno {
        0 => code_words(code).to_string_lossy().into_owned(),
        _ => io::Error::from_raw_os_error(errno).to_string(),
    };
    format!("cannot {what}: {cause}; the thread is {now_at}")
}

/// The number of an error that has one.
pub(super) fn errno(error: &Error) -> i32 {
    match error {
        Error::System { source, .. } | Error::NoPag { source, .. } => source.raw_os_error().unwrap_or(0),
        _ => 0,
    }
}

/// The text of a code.
pub(super) fn code_words(code: c_int) -> &'static CStr {
    const WORDS: [&CStr; 10] = [
        c"done",
        c"an argument is NULL, or has a wrong size, flag or value",
        c"the handle belongs to the parent process; a forked child opens its own",
        c"the process has been opened already; use that handle, or close it first",
        c"the PAG has ended, or the process was closed; create another one",
        c"the uid's quota for keys is full; end other PAGs, or raise kernel.keys.maxkeys and kernel.keys.maxbytes",
        c"it was not done in time",
        c"no token could be made from this ccache or keytab",
        c"an AFS client of this host refused to make a PAG",
        c"a system call failed",
    ];
    usize::try_from(code).ok().and_then(|code| WORDS.get(code)).unwrap_or(&c"no code of libpag")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> String {
        // SAFETY: words that this thread keeps.
        unsafe { CStr::from_ptr(words()) }.to_string_lossy().into_owned()
    }

    #[test]
    fn each_thread_has_its_own_last_failure() {
        assert_eq!(now(), "");
        note(&"first");
        assert_eq!(now(), "first");
        note_switch(Switch::Enter, Code::Ended, 0, true);
        std::thread::spawn(|| assert_eq!(now(), "")).join().unwrap();
        let ended = "cannot enter the PAG: the PAG has ended, or the process was closed; create another one; \
                     the thread is in no PAG";
        assert_eq!(now(), ended);
        assert_eq!(words(), words(), "asked for again, the words are where they were");
        note_switch(Switch::Leave, Code::System, libc::EACCES, true);
        note(&"with a \0 in it");
        assert_eq!(now(), "with a \\0 in it", "an older failure is not told any more");
        note_switch(Switch::Leave, Code::Forked, 0, false);
        assert!(now().ends_with("; the thread is where it was"), "{}", now());
        note_switch(Switch::Leave, Code::System, libc::EACCES, true);
        assert_eq!(now(), "cannot leave the PAG: Permission denied; the thread is in no PAG");
    }
}
