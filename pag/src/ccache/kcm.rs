//! Ccaches of type KCM, which a daemon keeps for each uid (sssd-kcm, Heimdal's kcm). A child reads them, or finds out
//! whether a ticket has come or gone.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::contents::Which;
use super::pieces::Pieces;
use crate::sys::{self, Answer, Identity};

/// The daemon's socket, unless krb5.conf names another (MIT krb5, src/include/kcm.h, DEFAULT_KCM_SOCKET_PATH; the
/// `/var/run` there is a link to `/run`).
const SOCKET: &str = "/run/.heim_org.h5l.kcm-socket";
/// The version of the protocol. The numbers of its requests follow (kcm.h).
const VERSION: [u8; 2] = [2, 0];
const GET_PRINCIPAL: u16 = 8;
const GET_CRED_UUID_LIST: u16 = 9;
const GET_CRED_BY_UUID: u16 = 10;
const GET_CACHE_UUID_LIST: u16 = 18;
const GET_CACHE_BY_UUID: u16 = 19;
const GET_DEFAULT_CACHE: u16 = 20;
/// Asks for all credentials at once. MIT has added this request. sssd has it since 2.5, and Heimdal does not have it.
const GET_CRED_LIST: u16 = 13001;
/// Longest name of a ccache that is read from the daemon, in bytes.
const NAME: usize = 256;
/// Room for a request, in bytes: lengths, codes, the longest name of a ccache, and a UUID.
const REQUEST: usize = 2048;
/// Most ccaches of a uid that are read.
const CACHES: usize = 32;
/// Most tickets of a ccache that are read.
const TICKETS: usize = 512;
/// Bytes of the UUID that the daemon gives to a ccache or a ticket.
const UUID: usize = 16;

/// The name of a KCM ccache. Empty for the collection of the uid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name with this text after `KCM:`.
    pub fn new(text: &str) -> Self {
        Name(text.to_owned())
    }
}

/// Writes the contents of the ccache `name`, or of `which` ccaches of the uid, to `pieces`. Runs in a child that has
/// become the user, since the daemon serves each client the ccaches of its uid. Writes nothing without such a ccache,
/// or without a daemon. None if the daemon does not answer in `time`, or `pieces` has no more room. `space` holds one
/// answer. Allocates nothing.
pub(super) fn write_pieces(
    name: &Name,
    which: Which,
    time: Duration,
    space: &mut [u8],
    pieces: &mut Pieces<'_>,
) -> Option<()> {
    write_pieces_at(SOCKET, name, which, time, space, pieces)
}

fn write_pieces_at(
    socket: &str,
    name: &Name,
    which: Which,
    time: Duration,
    space: &mut [u8],
    pieces: &mut Pieces<'_>,
) -> Option<()> {
    let Some(mut daemon) = Daemon::find(socket, time) else { return Some(()) };
    daemon.caches(name, which, |daemon, cache| {
        let Ok(length) = daemon.call(GET_PRINCIPAL, &[cache, b"\0"], space)? else { return Some(()) };
        pieces.principal(space.get(..length)?)?;
        if daemon.whole_list(cache, space, pieces)? { Some(()) } else { daemon.one_by_one(cache, space, pieces) }
    })
}

/// A number that changes when a ticket, also a service ticket, comes into the ccache `name` or goes, or, without a
/// name, in any ccache of the uid. 0 without tickets, or without a daemon. A child asks as the user, at most until
/// `deadline`. None without an answer.
#[allow(unsafe_code)] // makes a child
pub fn stamp(name: &Name, user: &Identity, deadline: Instant) -> Option<u64> {
    let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
    // SAFETY: the child makes system calls into memory that is there; it allocates nothing and takes no lock.
    let answer = unsafe {
        sys::ask_as(user, deadline, |put| stamp_at(SOCKET, name, left).is_some_and(|sum| put(&sum.to_ne_bytes())))
    };
    let bytes = answer.and_then(Answer::bytes).ok()?;
    Some(u64::from_ne_bytes(bytes[..].try_into().ok()?))
}

fn stamp_at(socket: &str, name: &Name, time: Duration) -> Option<u64> {
    let Some(mut daemon) = Daemon::find(socket, time) else { return Some(0) };
    let (mut sum, mut numbers) = (0_u64, [0; TICKETS * UUID]);
    daemon.caches(name, Which::All, |daemon, cache| {
        let length = daemon.call(GET_CRED_UUID_LIST, &[cache, b"\0"], &mut numbers)?.unwrap_or(0);
        for half in numbers.get(..length)?.as_chunks::<8>().0 {
            // The factor spreads the numbers, so that two changes do not add up to the old sum.
            sum = sum.wrapping_add(u64::from_ne_bytes(*half).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        }
        Some(())
    })?;
    Some(sum)
}

/// A connection to the daemon. After `end`, all calls fail.
struct Daemon<'a> {
    socket: &'a str,
    stream: UnixStream,
    end: Instant,
}

/// The daemon has refused a request.
pub(super) struct Refused;

impl<'a> Daemon<'a> {
    fn find(socket: &'a str, time: Duration) -> Option<Self> {
        Some(Daemon { socket, stream: UnixStream::connect(socket).ok()?, end: Instant::now() + time })
    }

    /// Calls `visit` with the name of each ccache that `name` stands for, until it returns none.
    fn caches(
        &mut self,
        name: &Name,
        which: Which,
        mut visit: impl FnMut(&mut Self, &[u8]) -> Option<()>,
    ) -> Option<()> {
        let mut text = [0; NAME];
        if !name.0.is_empty() {
            return visit(self, name.0.as_bytes());
        }
        if which == Which::Primary {
            return match self.call(GET_DEFAULT_CACHE, &[], &mut text)? {
                Ok(length) => visit(self, until_nul(text.get(..length)?)),
                Err(Refused) => Some(()),
            };
        }
        let mut numbers = [0; CACHES * UUID];
        let length = self.call(GET_CACHE_UUID_LIST, &[], &mut numbers)?.unwrap_or(0);
        for number in numbers.get(..length)?.as_chunks::<UUID>().0 {
            // The daemon refuses this for a ccache that has gone meanwhile.
            if let Ok(length) = self.call(GET_CACHE_BY_UUID, &[number], &mut text)? {
                visit(self, until_nul(text.get(..length)?))?;
            }
        }
        Some(())
    }

    /// Writes all credentials of a ccache by one request. False if the daemon does not know that request.
    fn whole_list(&mut self, cache: &[u8], space: &mut [u8], pieces: &mut Pieces<'_>) -> Option<bool> {
        let Some(Ok(length)) = self.call(GET_CRED_LIST, &[cache, b"\0"], space) else {
            // An sssd without this request answers with an error and ends the connection.
            self.stream = UnixStream::connect(self.socket).ok()?;
            return Some(false);
        };
        let (count, mut rest) = space.get(..length)?.split_first_chunk()?;
        for _ in 0..u32::from_be_bytes(*count) {
            let (length, behind) = rest.split_first_chunk()?;
            let (credential, behind) = behind.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
            pieces.credential(credential)?;
            rest = behind;
        }
        Some(true)
    }

    /// Writes all credentials of a ccache by one request each.
    fn one_by_one(&mut self, cache: &[u8], space: &mut [u8], pieces: &mut Pieces<'_>) -> Option<()> {
        let mut numbers = [0; TICKETS * UUID];
        let length = self.call(GET_CRED_UUID_LIST, &[cache, b"\0"], &mut numbers)?.unwrap_or(0);
        for number in numbers.get(..length)?.as_chunks::<UUID>().0 {
            if let Ok(length) = self.call(GET_CRED_BY_UUID, &[cache, b"\0", number], space)? {
                pieces.credential(space.get(..length)?)?;
            }
        }
        Some(())
    }

    /// Sends a request and reads the answer. Both begin with their length, and the answer has two codes before its data
    /// (MIT krb5, src/lib/krb5/ccache/cc_kcm.c, kcmio_unix_socket_read and kcmio_call). Returns the number of bytes in
    /// `answer`. None without an answer, and if the daemon fails: sssd then sends a length of 0 and an error of the
    /// transport (src/responder/kcm, kcm_failbuf_construct).
    fn call(&mut self, request: u16, arguments: &[&[u8]], answer: &mut [u8]) -> Option<Result<usize, Refused>> {
        let left = self.end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        self.stream.set_read_timeout(Some(left)).ok()?;
        self.stream.set_write_timeout(Some(left)).ok()?;
        let mut message = [0; REQUEST];
        let length = request_into(&mut message, request, arguments)?;
        self.stream.write_all(message.get(..length)?).ok()?;
        let length = self.number()?;
        if self.number()? != 0 {
            return None;
        }
        if self.number()? != 0 {
            return Some(Err(Refused));
        }
        // The length counts the second code, too.
        let length = usize::try_from(length).ok()?.checked_sub(4)?;
        self.stream.read_exact(answer.get_mut(..length)?).ok().map(|()| Ok(length))
    }

    fn number(&mut self) -> Option<u32> {
        let mut bytes = [0; 4];
        self.stream.read_exact(&mut bytes).ok().map(|()| u32::from_be_bytes(bytes))
    }
}

/// Writes a request with its length in front into `message`, and returns the number of bytes. The caller sends it in
/// one piece: sssd hangs up on a request that comes in parts (src/responder/kcm/kcmsrv_cmd.c, kcm_recv_data).
fn request_into(message: &mut [u8], request: u16, arguments: &[&[u8]]) -> Option<usize> {
    let length = 4 + arguments.iter().map(|argument| argument.len()).sum::<usize>();
    let mut rest = &mut *message;
    for part in
        [&u32::try_from(length).ok()?.to_be_bytes(), &VERSION[..], &request.to_be_bytes()].iter().chain(arguments)
    {
        let (place, behind) = rest.split_at_mut_checked(part.len())?;
        place.copy_from_slice(part);
        rest = behind;
    }
    Some(4 + length)
}

fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ccache::contents::{Contents, SPACE};
    use crate::ccache::format::tests::{credential, name};
    use crate::ccache::pieces;
    use proptest::prelude::*;
    use std::os::unix::net::UnixListener;

    /// Runs a daemon that gives each request, without its length and version, to `answer`, and sends what `answer`
    /// returns.
    fn with_daemon<T>(answer: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static, ask: impl FnOnce(&str) -> T) -> T {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("socket").to_str().unwrap().to_owned();
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = std::thread::spawn(move || serve(&listener, answer));
        let result = ask(&path);
        // An empty request ends the daemon.
        UnixStream::connect(&path).unwrap().write_all(b"\0\0\0\0").unwrap();
        daemon.join().unwrap();
        result
    }

    fn serve(listener: &UnixListener, mut answer: impl FnMut(&[u8]) -> Vec<u8>) {
        loop {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = [0; REQUEST];
            // Like sssd, this waits for no second part of a request.
            while let Ok(size @ 1..) = client.read(&mut request) {
                let (length, request) = request[..size].split_first_chunk::<4>().unwrap();
                if request.is_empty() {
                    return;
                }
                assert_eq!((u32::from_be_bytes(*length) as usize, &request[..2]), (request.len(), &VERSION[..]));
                if client.write_all(&answer(&request[2..])).is_err() {
                    break;
                }
            }
        }
    }

    fn ok(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(4 + bytes.len()).unwrap().to_be_bytes(), &[0; 8][..], bytes].concat()
    }

    fn refused() -> Vec<u8> {
        b"\0\0\0\x04\0\0\0\0\x96\xc7\x3a\x01".to_vec()
    }

    /// The answer of a daemon that fails.
    fn fault() -> Vec<u8> {
        b"\0\0\0\0\0\0\0\x16".to_vec()
    }

    /// Two ccaches. The one of alice/admin is the default.
    fn two_caches(has_lists: bool) -> impl FnMut(&[u8]) -> Vec<u8> {
        move |request| {
            let (code, argument) = request.split_at(2);
            let tickets = |end| [credential(&["krbtgt", "R"], end), credential(&["afs", "r"], end)];
            match (u16::from_be_bytes([code[0], code[1]]), argument) {
                (GET_CACHE_UUID_LIST, b"") => ok(&[[1; UUID], [9; UUID], [2; UUID]].concat()),
                (GET_CACHE_BY_UUID, number) if *number == [1; UUID] => ok(b"7\0"),
                (GET_CACHE_BY_UUID, number) if *number == [2; UUID] => ok(b"7:55\0"),
                (GET_DEFAULT_CACHE, b"") => ok(b"7:55\0"),
                (GET_PRINCIPAL, b"7\0") => ok(&name(&["alice"], "R")),
                (GET_PRINCIPAL, b"7:55\0") => ok(&name(&["alice", "admin"], "R")),
                (GET_CRED_UUID_LIST, b"7\0" | b"7:55\0") => ok(&[[3; UUID], [4; UUID], [5; UUID]].concat()),
                (GET_CRED_BY_UUID, [b'7', b'\0', number @ ..]) if *number == [3; UUID] => ok(&tickets(100)[0]),
                (GET_CRED_BY_UUID, [b'7', b'\0', number @ ..]) if *number == [4; UUID] => ok(&tickets(100)[1]),
                (GET_CRED_LIST, _) if !has_lists => fault(),
                (GET_CRED_LIST, b"7:55\0") => {
                    let with_length =
                        |one: &Vec<u8>| [&u32::try_from(one.len()).unwrap().to_be_bytes(), &one[..]].concat();
                    let tickets: Vec<u8> = tickets(200).iter().flat_map(with_length).collect();
                    ok(&[&[0, 0, 0, 2], &tickets[..]].concat())
                }
                (GET_CRED_LIST, b"7\0") => ok(&[0; 4]),
                _ => refused(),
            }
        }
    }

    fn read(socket: &str, name: &str, which: Which) -> Option<Vec<Contents>> {
        let (mut bytes, mut space) = (Vec::new(), vec![0; SPACE]);
        let mut put = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            true
        };
        let (name, time) = (Name::new(name), Duration::from_secs(10));
        write_pieces_at(socket, &name, which, time, &mut space, &mut Pieces::new(&mut put))?;
        Some(pieces::assemble(&bytes))
    }

    /// The principals, and the ends of their tickets.
    fn summaries(found: Option<Vec<Contents>>) -> Vec<(String, Option<u64>)> {
        let one = |one: Contents| (one.summary.principal.to_string(), one.summary.tgt_expires);
        found.unwrap().into_iter().map(one).collect()
    }

    #[test]
    fn the_primary_ccache_or_all_of_a_collection_are_read() {
        with_daemon(two_caches(true), |socket| {
            let (alice, admin) = (("alice@R".to_owned(), None), ("alice/admin@R".to_owned(), Some(200)));
            assert_eq!(summaries(read(socket, "", Which::Primary)), std::slice::from_ref(&admin));
            assert_eq!(
                summaries(read(socket, "", Which::All)),
                [alice, admin.clone()],
                "a ccache that has gone is passed over"
            );
            assert_eq!(summaries(read(socket, "7:55", Which::All)), [admin]);
            assert_eq!(summaries(read(socket, "gone", Which::All)), []);
        });
    }

    #[test]
    fn a_daemon_without_lists_is_asked_for_each_ticket() {
        with_daemon(two_caches(false), |socket| {
            assert_eq!(summaries(read(socket, "7", Which::Primary)), [("alice@R".to_owned(), Some(100))]);
        });
    }

    #[test]
    fn a_ticket_that_comes_or_goes_changes_the_number() {
        let time = Duration::from_secs(10);
        let number = |cache: &'static str, tickets: &'static [[u8; UUID]]| {
            let answer = move |request: &[u8]| match request {
                [0, 18] => ok(&[1; UUID]),
                [0, 19, ..] => ok(b"7\0"),
                [0, 9, b'7', 0] => ok(&tickets.concat()),
                _ => refused(),
            };
            with_daemon(answer, |socket| stamp_at(socket, &Name::new(cache), time))
        };
        assert_eq!(number("", &[]), Some(0));
        assert_eq!(number("gone", &[[7; UUID]]), Some(0));
        let one = number("7", &[[7; UUID]]);
        assert!(one.is_some_and(|one| one != 0));
        assert_eq!(number("", &[[7; UUID]]), one, "an empty name stands for all ccaches");
        assert_ne!(number("", &[[8; UUID]]), one);
        assert_ne!(number("", &[[7; UUID], [8; UUID]]), one);
        assert_eq!(number("", &[[0; UUID]; TICKETS + 1]), None, "more tickets than are read");
    }

    #[test]
    fn without_a_daemon_there_is_no_ticket() {
        assert_eq!(read("/nowhere/socket", "", Which::All).map(|found| found.len()), Some(0));
        assert_eq!(stamp_at("/nowhere/socket", &Name::new(""), Duration::from_secs(10)), Some(0));
    }

    #[test]
    fn an_invalid_answer_gives_no_ccache() {
        let answers: [&'static [u8]; 6] = [
            b"\0\0\0\0\0\0\0\x07",
            b"\0\0\0\x03\0\0\0\0\0\0\0\0",
            b"\xff\xff\xff\xff\0\0\0\0\0\0\0\0",
            b"\0\0\0\x08\0\0\0\0\0\0\0\0none",
            b"\0\0\0\x0c\0\0\0\0\0\0\0\0\xff\xff\xff\xffnone",
            b"\0\0\0\x0c\0\0\0\0\0\0\0\0\0\0\0\x01\xff\xff\xff\xff",
        ];
        for answer in answers {
            let found = with_daemon(move |_: &[u8]| answer.to_vec(), |socket| read(socket, "x", Which::All));
            assert!(found.is_none_or(|found| found.is_empty()), "{answer:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_answers_make_the_child_panic(
            answers in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..80).prop_map(|bytes| ok(&bytes)), 1..8,
            ),
        ) {
            let mut next = answers.into_iter().cycle();
            with_daemon(move |_: &[u8]| next.next().unwrap(), |socket| {
                (read(socket, "", Which::All), stamp_at(socket, &Name::new(""), Duration::from_secs(10)))
            });
        }
    }
}
