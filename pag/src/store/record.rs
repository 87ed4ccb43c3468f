//! The record of a PAG: the facts about it, as lines of text in a `user` key of its holder that only root can read.
//!
//! ```text
//! pag-record 1
//! uid 61001
//! kind user
//! made 1764000000
//! principal alice@EXAMPLE.TEST
//! ccache DIR:/run/pag/ccache/61001.5f2e...
//! ticket 1764036000 1764604800 1764000000
//! retain none
//! token openafs example.test 1764036000 1764000003 ex,example
//! attempt 1764000003 ok 1764036000
//! follows 5f2e91c07ab3d846
//! mirrored 738684871
//! adopted 518610750
//! lent 738684871
//! chosen
//! discarded 1764000009 other.test
//! lease 4711 88213 9f0c... login sshd ssh FILE:/tmp/krb5cc_61001_xyz 3
//! ```

use std::fmt::{self, Write as _};
use std::io;

use crate::ccache::check_name;
use crate::keyring::Serial;
use crate::store::lease::{Lease, LeaseKind};
use crate::sys::Process;
use crate::types::{Cell, Client, PagId, Principal, Retain, Word};

/// The version that this code writes.
pub const VERSION: u32 = 1;

/// The newest version that this code reads. The module, helper and pagctl of two releases work side by side after
/// every upgrade: sshd and display managers keep the old module for days. So a release that reads a version comes
/// before the one that writes it.
const READS: u32 = 1;

/// The newest version that the release before this one reads. (Before the first one there is none.)
const READ_BEFORE: u32 = 1;

const _: () = assert!(VERSION <= READ_BEFORE && READ_BEFORE <= READS, "read it in one release, write it in the next");

/// Largest payload that the kernel takes for a `user` key (security/keys/user_defined.c, user_preparse).
const LONGEST_RECORD: usize = 32767;

/// What stands before a PAG's name in its lease, as in the name of its unit.
pub const NAMED: &str = "pag@";

/// Bytes of the record that logins' leases leave free: for a manager's lease, for tokens and for what renewal
/// writes.
const RESERVED: usize = 2048;

/// Which logins and managers may join a PAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PagKind {
    /// All of the user's logins and their user manager.
    User,
    /// One login alone, by `scope = session`. The user's services may follow it.
    Session,
    /// One login alone: cron, batch, `join = credentials` without a ticket.
    Own,
}

impl PagKind {
    const ALL: [PagKind; 3] = [PagKind::User, PagKind::Session, PagKind::Own];

    /// The word in records and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            PagKind::User => "user",
            PagKind::Session => "session",
            PagKind::Own => "own",
        }
    }
}

/// The last time that seeders ran for this PAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastSeeding {
    /// When it was, in seconds since the epoch.
    pub at: u64,
    /// Whether every seeder ended with success.
    pub ok: bool,
    /// End time of the ticket that the seeders used, in seconds since the epoch; 0 without one. A better ticket is
    /// worth another try at once.
    pub ticket: u64,
}

/// A token that was seen in the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The client that keeps it.
    pub client: Client,
    /// The cell that it is for.
    pub cell: Cell,
    /// When it ends, in seconds since the epoch.
    pub expires: u64,
    /// When it was first seen, in seconds since the epoch. Its life is counted from then.
    pub since: u64,
    /// Other names of the cell by which the configuration asks for this token. A seeder that was asked for one of them
    /// has brought it.
    pub aliases: Vec<Cell>,
}

impl Held {
    /// Whether this is the token of `cell`, by its name or by an alias.
    pub fn is_of(&self, cell: &Cell) -> bool {
        self.cell == *cell || self.aliases.contains(cell)
    }
}

/// Tokens that a member, or a caller over D-Bus, has discarded. Renewal does not bring them back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discarded {
    /// When it was noticed, in seconds since the epoch.
    pub at: u64,
    /// The cell; `None` for all cells.
    pub cell: Option<Cell>,
}

/// How many cells are remembered one by one.
const MOST_DISCARDED: usize = 32;

/// Everything that is known about a PAG besides its ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The user.
    pub uid: u32,
    /// Which logins and managers may join it.
    pub kind: PagKind,
    /// When it was made, in seconds since the epoch.
    pub made: u64,
    /// The Kerberos identity of its tokens, once a login has brought one.
    pub principal: Option<Principal>,
    /// Kerberos's name of its own ccache. The user's processes open it, root never does.
    pub ccache: String,
    /// End time of the ticket in the ccache, in seconds since the epoch; 0 if there is none.
    pub ticket: u64,
    /// Until when that ticket can be renewed, in seconds since the epoch; 0 if it cannot be, or if that is not known.
    pub renewable: u64,
    /// When the user authenticated to get that ticket, in seconds since the epoch by the KDC's clock; 0 if that is not
    /// known.
    pub authenticated: u64,
    /// What happens to the tokens at the PAG's end.
    pub retain: Retain,
    /// The record was damaged and written anew, so some leases may be missing. The tokens are then not discarded at
    /// the end: an unknown member may need them.
    pub unsure: bool,
    /// The helper has asked for new tokens: the next seeding job of this uid is for this PAG.
    pub reseed: bool,
    /// The tokens that were seen last.
    pub tokens: Vec<Held>,
    /// The last run of a seeder.
    pub last_seeding: Option<LastSeeding>,
    /// The PAG that the services in this one follow. This one's ring also has that one's tokens.
    pub follows: Option<PagId>,
    /// The keys in this PAG's ring that were linked from the PAG that it follows.
    pub mirrored: Vec<Serial>,
    /// The session keyring of a manager outside of this PAG that was given its tokens: see [`crate::mirror::adopt`].
    pub adopted: Option<Serial>,
    /// The keys that were linked into that keyring.
    pub lent: Vec<Serial>,
    /// The user's services must follow this PAG, whatever the configuration says: a caller has asked for it.
    pub chosen: bool,
    /// Discarded tokens. They are not renewed until the user, or one of their logins, gets new ones.
    pub discarded: Vec<Discarded>,
    /// The logins and managers that keep it in use.
    pub leases: Vec<Lease>,
}

/// Why a record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// A newer release has written a version that this code does not know. The record is left alone, neither reaped
    /// nor rewritten.
    Foreign(u32),
    /// The bytes are no record. Names the wrong line.
    Garbled(String),
    /// This process could not read it now. Nothing is known of it.
    NotNow(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Foreign(version) => {
                write!(
                    f,
                    "its record has version {version}, of a newer release, and this release reads {READS} at most"
                )
            }
            Unreadable::Garbled(what) => write!(f, "its record is damaged: {what}"),
            Unreadable::NotNow(why) => write!(f, "its record cannot be read now: {why}"),
        }
    }
}

impl Record {
    /// The record of a new PAG.
    pub fn new(uid: u32, kind: PagKind, ccache: String, retain: Retain) -> Self {
        Record {
            uid,
            kind,
            made: crate::sys::now(),
            principal: None,
            ccache,
            ticket: 0,
            renewable: 0,
            authenticated: 0,
            retain,
            unsure: false,
            reseed: false,
            tokens: Vec::new(),
            last_seeding: None,
            follows: None,
            mirrored: Vec::new(),
            adopted: None,
            lent: Vec::new(),
            chosen: false,
            discarded: Vec::new(),
            leases: Vec::new(),
        }
    }

    /// Whether a login holds a lease.
    pub fn has_login(&self) -> bool {
        self.leases.iter().any(|lease| lease.role == LeaseKind::Login)
    }

    /// The name of a named PAG: that of the unit `pag@NAME.service`, for which root's service manager holds a lease.
    pub fn name(&self) -> Option<&str> {
        let mut services = self.leases.iter().map(|lease| lease.service.as_str());
        services.find_map(|service| service.strip_prefix(NAMED)).filter(|_| self.uid == 0)
    }

    /// Whether a user manager holds a lease.
    pub fn has_manager(&self) -> bool {
        self.leases.iter().any(|lease| lease.role == LeaseKind::Manager)
    }

    /// Notes that the tokens of this cell, or all tokens, were discarded, and removes them from the list.
    pub fn discard(&mut self, cell: Option<&Cell>, at: u64) {
        self.tokens.retain(|token| cell.is_some_and(|cell| token.cell != *cell));
        // A user may name any number of cells.
        let cell = cell.filter(|_| self.discarded.len() < MOST_DISCARDED).cloned();
        self.discarded.retain(|one| cell.is_some() && one.cell != cell);
        self.discarded.push(Discarded { at, cell });
    }

    /// Replaces the list of tokens. If a discarded token is there again, it is no longer noted as discarded, whichever
    /// process got it.
    pub fn hold(&mut self, tokens: Vec<Held>) {
        let is_there = |cell: &Cell| tokens.iter().any(|token| token.cell == *cell);
        self.discarded.retain(|one| one.cell.as_ref().map_or(tokens.is_empty(), |cell| !is_there(cell)));
        self.tokens = tokens;
    }

    /// The text for the record's key.
    ///
    /// # Errors
    /// EMSGSIZE if it is too long for a key (about three hundred leases). `InvalidData` if decoding it would not give
    /// the same record, because a field holds what its line cannot. The types already prevent that; this is a second
    /// check.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let text = self.text();
        if text.len() > LONGEST_RECORD {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        if Record::decode(text.as_bytes()).as_ref() != Ok(self) {
            let why = "a field of it holds what its line cannot, so it would not be read again as it is";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(text.into_bytes())
    }

    fn text(&self) -> String {
        let mut text = format!("pag-record {VERSION}\nuid {}\nkind {}\n", self.uid, self.kind.as_str());
        // Writing to a String cannot fail.
        let _ = write!(text, "made {}\nccache {}\nticket {}", self.made, self.ccache, self.ticket);
        let _ = match (self.renewable, self.authenticated) {
            (0, 0) => writeln!(text),
            (renewable, 0) => writeln!(text, " {renewable}"),
            (renewable, authenticated) => writeln!(text, " {renewable} {authenticated}"),
        };
        let _ = writeln!(text, "retain {}", self.retain);
        if let Some(principal) = &self.principal {
            let _ = writeln!(text, "principal {principal}");
        }
        if self.unsure {
            text.push_str("unsure\n");
        }
        if self.reseed {
            text.push_str("reseed\n");
        }
        for token in &self.tokens {
            let Held { client, cell, expires, since, aliases } = token;
            let _ = write!(text, "token {client} {cell} {expires} {since}");
            let aliases: Vec<&str> = aliases.iter().map(Cell::as_str).collect();
            let _ = if aliases.is_empty() { writeln!(text) } else { writeln!(text, " {}", aliases.join(",")) };
        }
        if let Some(a) = self.last_seeding {
            let _ = writeln!(text, "attempt {} {} {}", a.at, if a.ok { "ok" } else { "failed" }, a.ticket);
        }
        if let Some(pag) = self.follows {
            let _ = writeln!(text, "follows {pag}");
        }
        for key in &self.mirrored {
            let _ = writeln!(text, "mirrored {key}");
        }
        if let Some(keyring) = self.adopted {
            let _ = writeln!(text, "adopted {keyring}");
        }
        for key in &self.lent {
            let _ = writeln!(text, "lent {key}");
        }
        if self.chosen {
            text.push_str("chosen\n");
        }
        for Discarded { at, cell } in &self.discarded {
            let _ = match cell {
                Some(cell) => writeln!(text, "discarded {at} {cell}"),
                None => writeln!(text, "discarded {at}"),
            };
        }
        for l in &self.leases {
            let Process { pid, start } = l.process;
            let role = l.role.as_str();
            let _ = write!(text, "lease {pid} {start} {:016x} {role} ", l.cookie);
            let _ = write!(text, "{} {} {}", l.service, l.tty, l.ccache);
            // One more word. A release that does not know it ignores it.
            let _ = if l.sessions == 1 { writeln!(text) } else { writeln!(text, " {}", l.sessions) };
        }
        text
    }

    /// Whether the record still fits into a key with one more lease of this kind.
    pub fn has_room(&self, newcomer: LeaseKind) -> bool {
        let kept_free = if newcomer == LeaseKind::Manager { 0 } else { RESERVED };
        self.text().len() + kept_free <= LONGEST_RECORD
    }

    /// Parses the bytes of a record's key. Only root can write them, but a record may be damaged or of another
    /// version.
    ///
    /// # Errors
    /// `Foreign` and `Garbled`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let garbled = |what: &str| Unreadable::Garbled(what.chars().filter(|c| !c.is_control()).take(80).collect());
        let text = str::from_utf8(bytes).map_err(|_| garbled("it is no text"))?;
        let mut lines = text.lines();
        let version = lines.next().and_then(|line| line.strip_prefix("pag-record "));
        match version.and_then(|number| number.parse().ok()) {
            Some(1..=READS) => {}
            Some(other) => return Err(Unreadable::Foreign(other)),
            None => return Err(garbled("the first line names no version")),
        }
        let mut parts = Parts::default();
        for line in lines {
            parts.line(line).ok_or_else(|| garbled(line))?;
        }
        parts.finish().ok_or_else(|| garbled("a line is missing"))
    }
}

/// A record while it is being read.
#[derive(Default)]
struct Parts {
    uid: Option<u32>,
    kind: Option<PagKind>,
    made: Option<u64>,
    principal: Option<Principal>,
    ccache: Option<String>,
    ticket: u64,
    renewable: u64,
    authenticated: u64,
    retain: Option<Retain>,
    unsure: bool,
    reseed: bool,
    tokens: Vec<Held>,
    last_seeding: Option<LastSeeding>,
    follows: Option<PagId>,
    mirrored: Vec<Serial>,
    adopted: Option<Serial>,
    lent: Vec<Serial>,
    chosen: bool,
    discarded: Vec<Discarded>,
    leases: Vec<Lease>,
}

impl Parts {
    fn line(&mut self, line: &str) -> Option<()> {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = value.split(' ');
        match key {
            "uid" => self.uid = Some(value.parse().ok()?),
            "kind" => {
                self.kind = Some(PagKind::ALL.into_iter().find(|kind| kind.as_str() == value)?);
            }
            "made" => self.made = Some(value.parse().ok()?),
            "principal" => self.principal = Some(Principal::parse(value).ok()?),
            "ccache" => self.ccache = Some(value.to_owned()).filter(|name| check_name(name).is_ok()),
            "ticket" => {
                self.ticket = words.next()?.parse().ok()?;
                let mut number = || words.next().map_or(Some(0), |word| word.parse().ok());
                (self.renewable, self.authenticated) = (number()?, number()?);
            }
            "retain" => self.retain = Some(value.parse().ok()?),
            "unsure" => self.unsure = true,
            "reseed" => self.reseed = true,
            "token" => self.tokens.push(Held {
                client: Client::parse(words.next()?)?,
                cell: words.next()?.parse().ok()?,
                expires: words.next()?.parse().ok()?,
                since: words.next()?.parse().ok()?,
                aliases: match words.next() {
                    Some(names) => names.split(',').map(|name| name.parse().ok()).collect::<Option<_>>()?,
                    None => Vec::new(),
                },
            }),
            "attempt" => {
                self.last_seeding = Some(LastSeeding {
                    at: words.next()?.parse().ok()?,
                    ok: words.next()? == "ok",
                    ticket: words.next()?.parse().ok()?,
                });
            }
            "follows" => self.follows = Some(PagId::parse(value)?),
            "chosen" => self.chosen = true,
            "discarded" => self.discarded.push(Discarded {
                at: words.next()?.parse().ok()?,
                cell: words.next().map_or(Some(None), |word| word.parse().ok().map(Some))?,
            }),
            "mirrored" => self.mirrored.push(Serial::new(value.parse().ok()?)?),
            "adopted" => self.adopted = Some(Serial::new(value.parse().ok()?)?),
            "lent" => self.lent.push(Serial::new(value.parse().ok()?)?),
            "lease" => self.leases.push(Lease {
                process: Process {
                    pid: words.next()?.parse().ok().filter(|pid| *pid > 0)?,
                    start: words.next()?.parse().ok()?,
                },
                cookie: u64::from_str_radix(words.next()?, 16).ok()?,
                role: LeaseKind::parse(words.next()?)?,
                service: Word::clean(words.next()?),
                tty: Word::clean(words.next()?),
                ccache: Word::whole(words.next()?),
                sessions: words.next().map_or(Some(1), |word| word.parse().ok().filter(|count| *count > 0))?,
            }),
            _ => return None,
        }
        Some(())
    }

    fn finish(self) -> Option<Record> {
        Some(Record {
            uid: self.uid?,
            kind: self.kind?,
            made: self.made?,
            principal: self.principal,
            ccache: self.ccache?,
            ticket: self.ticket,
            renewable: self.renewable,
            authenticated: self.authenticated,
            retain: self.retain?,
            unsure: self.unsure,
            reseed: self.reseed,
            tokens: self.tokens,
            last_seeding: self.last_seeding,
            follows: self.follows,
            mirrored: self.mirrored,
            adopted: self.adopted,
            lent: self.lent,
            chosen: self.chosen,
            discarded: self.discarded,
            leases: self.leases,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full() -> Record {
        let lease = |pid, role| Lease {
            process: Process { pid, start: 99 },
            cookie: 0xfeed,
            role,
            service: Word::clean("sshd"),
            tty: Word::clean(""),
            ccache: Word::whole("FILE:/tmp/krb5cc_61001_that_is_longer_than_other_words"),
            sessions: if role == LeaseKind::Login { 12 } else { 1 },
        };
        let held = |client| Held {
            client,
            cell: "example.test".parse().unwrap(),
            expires: 18,
            since: 9,
            aliases: vec!["EX".parse().unwrap(), "b".parse().unwrap()],
        };
        Record {
            principal: Some(Principal::parse("alice/admin@EXAMPLE.TEST").unwrap()),
            ticket: 17,
            renewable: 99,
            unsure: true,
            reseed: true,
            tokens: [Client::OpenAfs, Client::Kafs].map(held).into(),
            last_seeding: Some(LastSeeding { at: 5, ok: false, ticket: 17 }),
            follows: Some(PagId::from(0xbeef)),
            mirrored: [11, 12].into_iter().filter_map(Serial::new).collect(),
            adopted: Serial::new(13),
            lent: [14, 15].into_iter().filter_map(Serial::new).collect(),
            chosen: true,
            discarded: vec![
                Discarded { at: 3, cell: None },
                Discarded { at: 4, cell: Some("c.test".parse().unwrap()) },
            ],
            leases: vec![lease(7, LeaseKind::Login), lease(8, LeaseKind::Manager)],
            ..Record::new(61001, PagKind::User, "DIR:/run/pag/ccache/x".to_owned(), Retain::Processes)
        }
    }

    #[test]
    fn a_record_is_decoded_as_it_was_encoded() {
        for (kind, renewable) in PagKind::ALL.into_iter().zip([99, 0].into_iter().cycle()) {
            let authenticated = u64::from(kind == PagKind::Session) * 7;
            let record = Record { kind, renewable, authenticated, ..full() };
            assert_eq!(Record::decode(&record.encode().unwrap()), Ok(record));
        }
    }

    /// Earlier releases have written such lines. Each must be read as long as its version is.
    #[test]
    fn records_of_earlier_releases_are_read_and_words_of_later_ones_ignored() {
        let first = "pag-record 1\nuid 61001\nkind user\nmade 5\nccache KCM:\nticket 17 99 4\nretain none\n\
                     token openafs example.test 18 9\nattempt 5 ok 17\nlease 7 99 feed login sshd ssh FILE:/tmp/cc\n";
        let read = Record::decode(first.as_bytes()).unwrap();
        assert_eq!((read.ticket, read.renewable, read.authenticated), (17, 99, 4));
        assert_eq!((read.tokens[0].expires, read.tokens[0].aliases.len()), (18, 0));
        let later = first
            .replace("99 4\n", "99 4 more\n")
            .replace("18 9\n", "18 9 ex,b more\n")
            .replace("ok 17\n", "ok 17 more\n")
            .replace("/tmp/cc\n", "/tmp/cc 1 more\n");
        let mut more = Record::decode(later.as_bytes()).unwrap();
        assert_eq!(more.tokens[0].aliases.len(), 2);
        more.tokens[0].aliases.clear();
        assert_eq!(more, read);
    }

    #[test]
    fn a_later_version_is_recognised_and_not_read() {
        assert_eq!(Record::decode(b"pag-record 2\nanything"), Err(Unreadable::Foreign(2)));
    }

    #[test]
    fn damage_to_any_line_is_noticed() {
        let whole = String::from_utf8(full().encode().unwrap()).unwrap();
        for (good, bad) in [
            ("uid 61001", "uid -1"),
            ("kind user", "kind x"),
            ("lease 7", "lease 0"),
            ("words 12", "words 0"),
            ("ticket 17 99", "ticket 17 x"),
            ("pag-record", "pag"),
            ("c.test", "c/test"),
            ("kafs", "dfs"),
        ] {
            let text = whole.replace(good, bad);
            assert!(matches!(Record::decode(text.as_bytes()), Err(Unreadable::Garbled(_))), "{bad}");
        }
        assert!(matches!(Record::decode(b"pag-record 1\nuid 5\n"), Err(Unreadable::Garbled(_))));
    }

    #[test]
    fn discarded_cells_are_noted_until_they_have_a_token_again() {
        let cells = |record: &Record| -> Vec<String> {
            record.discarded.iter().map(|one| one.cell.as_ref().map_or("*".to_owned(), ToString::to_string)).collect()
        };
        let cell = |name: &str| name.parse::<Cell>().unwrap();
        let held = |name: &str| Held { client: Client::Kafs, cell: cell(name), expires: 18, since: 9, aliases: vec![] };
        let mut record = Record { tokens: vec![held("a.test"), held("b.test")], discarded: Vec::new(), ..full() };
        record.discard(Some(&cell("b.test")), 5);
        record.discard(Some(&cell("b.test")), 6);
        assert_eq!((cells(&record), record.tokens.len()), (vec!["b.test".to_owned()], 1));
        record.hold(vec![held("a.test")]);
        assert_eq!(cells(&record), ["b.test"], "the other cell's token says nothing of this one");
        record.hold(vec![held("a.test"), held("b.test")]);
        assert_eq!(cells(&record), [""; 0]);
        record.discard(Some(&cell("b.test")), 7);
        record.discard(None, 8);
        assert_eq!((cells(&record), record.tokens.len()), (vec!["*".to_owned()], 0));
        record.hold(Vec::new());
        assert_eq!(cells(&record), ["*"]);
        record.hold(vec![held("a.test")]);
        assert_eq!(cells(&record), [""; 0], "who gets a token again has begun anew");
        for number in 0..99 {
            record.discard(Some(&cell(&format!("c{number}.test"))), 9);
        }
        assert!(cells(&record).len() <= MOST_DISCARDED && cells(&record).contains(&"*".to_owned()));
    }

    /// The release before reads what this one writes, and this one reads what the next one will write.
    #[test]
    fn a_word_more_at_the_end_of_a_lease_is_passed_over() {
        let text = String::from_utf8(full().encode().unwrap()).unwrap();
        assert_eq!(Record::decode(text.replace("words 12", "words 12 later words").as_bytes()), Ok(full()));
    }

    #[test]
    fn too_many_leases_are_refused_instead_of_cut() {
        let mut record = full();
        record.leases = std::iter::repeat_n(record.leases[0].clone(), 2000).collect();
        assert_eq!(record.encode().unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    }

    #[test]
    fn a_name_that_forges_lines_is_not_written() {
        let forged = "KCM:x\nprincipal alice/admin@EXAMPLE.TEST\nlease 1 1 0 login sshd ssh -";
        for ccache in [forged, "KCM:x\r", "KCM:\u{1b}[2J"] {
            let record = Record { ccache: ccache.to_owned(), principal: None, ..full() };
            assert_eq!(record.encode().unwrap_err().kind(), io::ErrorKind::InvalidData, "{ccache:?}");
        }
    }

    /// Texts that attackers write, mixed with words of a record.
    fn hostile() -> impl Strategy<Value = String> {
        let pieces = prop_oneof![
            Just("\n".to_owned()),
            Just(" ".to_owned()),
            Just("lease 1 1 0 login sshd ssh -".to_owned()),
            Just("KCM:".to_owned()),
            Just("alice@EXAMPLE.TEST".to_owned()),
            any::<char>().prop_map(String::from),
            "[a-z./@\\\\]{0,9}",
        ];
        proptest::collection::vec(pieces, 0..6).prop_map(|pieces| pieces.concat())
    }

    prop_compose! {
        /// A lease with any values that its types admit.
        fn any_lease()(
            pid in any::<i32>(),
            numbers in any::<[u64; 2]>(),
            words in proptest::array::uniform3(hostile()),
            whole in any::<bool>(),
            role in prop_oneof![Just(LeaseKind::Login), Just(LeaseKind::Manager)],
        ) -> Lease {
            let word = |text: &str| if whole { Word::whole(text) } else { Word::clean(text) };
            let [service, tty, ccache] = words.each_ref().map(|text| word(text));
            let (process, cookie) = (Process { pid, start: numbers[0] }, numbers[1]);
            let sessions = u32::try_from(cookie % 5).unwrap() + 1;
            Lease { process, cookie, role, service, tty, ccache, sessions }
        }
    }

    prop_compose! {
        /// A record with any values that its types admit.
        fn any_record()(
            times in any::<[u64; 6]>(),
            flags in any::<[bool; 5]>(),
            kind in proptest::sample::select(&PagKind::ALL),
            texts in proptest::array::uniform3(hostile()),
            serials in proptest::collection::vec(any::<i32>(), 0..4),
            leases in proptest::collection::vec(any_lease(), 0..3),
            client in prop_oneof![Just(Client::Keyring), Just(Client::OpenAfs), Just(Client::Kafs)],
        ) -> Record {
            let [principal, cell, ccache] = texts;
            let [made, ticket, renewable, authenticated, at, expires] = times;
            let [unsure, reseed, chosen, ok, some] = flags;
            let cell: Option<Cell> = cell.parse().ok();
            let serials: Vec<Serial> = serials.into_iter().filter_map(Serial::new).collect();
            let aliases: Vec<Cell> = cell.iter().filter(|_| ok).cloned().collect();
            let held = |cell: &Cell| Held { client, cell: cell.clone(), expires, since: at, aliases: aliases.clone() };
            Record {
                uid: 61001,
                kind,
                made,
                principal: Principal::parse(&principal).ok(),
                ccache,
                ticket,
                renewable,
                authenticated,
                retain: Retain::Linger,
                unsure,
                reseed,
                tokens: cell.iter().map(held).collect(),
                last_seeding: some.then_some(LastSeeding { at, ok, ticket }),
                follows: some.then_some(PagId::from(made)),
                mirrored: serials.clone(),
                adopted: serials.first().copied(),
                lent: serials,
                chosen,
                discarded: vec![Discarded { at, cell }],
                leases,
            }
        }
    }

    proptest! {
        #[test]
        fn a_record_is_encoded_so_that_it_decodes_the_same_or_not_at_all(record in any_record()) {
            if let Ok(bytes) = record.encode() {
                prop_assert_eq!(Record::decode(&bytes), Ok(record));
            }
        }

        #[test]
        fn a_record_of_valid_parts_is_encoded(record in any_record()) {
            let is_process = |lease: &mut Lease| lease.process.pid = lease.process.pid.checked_abs().unwrap_or(1).max(1);
            let cut = |word: &Word| Word::clean(word.as_str());
            let mut record = record;
            record.leases.iter_mut().for_each(|lease| {
                is_process(lease);
                (lease.service, lease.tty) = (cut(&lease.service), cut(&lease.tty));
            });
            if check_name(&record.ccache).is_err() {
                record.ccache = "KCM:".to_owned();
            }
            let bytes = record.encode().unwrap();
            prop_assert_eq!(Record::decode(&bytes), Ok(record));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Record::decode(&bytes);
            let _ = Record::decode(&[b"pag-record 1\n", &bytes[..]].concat());
        }
    }
}
