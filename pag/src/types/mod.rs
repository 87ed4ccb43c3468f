//! Plain values. Every room uses them, and they use no room.

mod cell;
mod choice;
mod line;
mod pag_id;
mod principal;
mod token;
mod word;

pub use self::cell::Cell;
pub use self::choice::{ClientChoice, Follow, Join, Retain, Scope, ServiceKind};
pub use self::line::{printable, quoted_words, without_codes};
pub use self::pag_id::PagId;
pub use self::principal::{FormatError, Principal};
pub use self::token::{Client, Token, TokenKind, TokenState};
pub use self::word::Word;
