//! The name of the user that this thread's calls are about, for messages. It is kept from hook to hook without memory of its
//! own, since the host may unload the module.

use std::cell::Cell;
use std::ffi::CStr;

/// Room for a name. A longer one is cut.
const SPACE: usize = 64;

thread_local! {
    static USER: Cell<(u32, [u8; SPACE])> = const { Cell::new((0, [0; SPACE])) };
}

/// Messages about `uid` name this user from now on.
pub(crate) fn speak_of(uid: u32, name: &CStr) {
    let mut text = [0; SPACE];
    text.iter_mut().zip(name.to_bytes()).for_each(|(place, byte)| *place = *byte);
    USER.set((uid, text));
}

/// What a user is called, if the last call was about that one.
pub(crate) fn find(uid: u32) -> Option<String> {
    let (known, text) = USER.get();
    let length = text.iter().position(|byte| *byte == 0).unwrap_or(SPACE);
    let name = text.get(..length).filter(|name| known == uid && !name.is_empty())?;
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_user_is_named() {
        assert_eq!(find(0), None);
        speak_of(61001, c"alice");
        speak_of(61002, c"EXAMPLE\\bob");
        assert_eq!((find(61001), find(61002)), (None, Some("EXAMPLE\\bob".to_owned())));
    }

    #[test]
    fn a_long_name_is_cut_and_any_bytes_are_text() {
        let long = std::ffi::CString::new(vec![b'x'; 2 * SPACE]).unwrap();
        speak_of(1, &long);
        assert_eq!(find(1), Some("x".repeat(SPACE)));
        speak_of(2, c"\xff");
        assert_eq!(find(2), Some("\u{fffd}".to_owned()));
    }
}
