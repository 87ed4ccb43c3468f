//! Ccaches of type KCM, which a daemon keeps for each uid (sssd-kcm, Heimdal's kcm): whether a ticket is another, and
//! nothing of what is in it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::sys::{self, Answer, Identity};

/// Where the daemon listens unless krb5.conf says otherwise (MIT krb5, src/include/kcm.h, DEFAULT_KCM_SOCKET_PATH, whose
/// `/var/run` is a link to this).
const SOCKET: &str = "/run/.heim_org.h5l.kcm-socket";
/// The protocol's version, and its requests (kcm.h).
const VERSION: [u8; 2] = [2, 0];
const GET_CRED_UUID_LIST: u16 = 9;
const GET_DEFAULT_CACHE: u16 = 20;
/// Longest name of a cache.
const NAME: usize = 128;
/// Most tickets of a cache; one that has more tells nothing.
const MOST: usize = 256;

/// The number that the daemon has given to one ticket.
pub type Number = [u8; 16];

/// The tickets that are in the ccache `name`, for services, too, by the numbers that the daemon gives them. Asked by a child
/// that is the user, since the daemon goes by who asks; at most until `deadline`. That there is no such ccache is no ticket.
/// None where there is no such daemon, or no answer in time.
///
/// No other request tells a ticket-granting ticket from others but those that hand out its session key. It need not be
/// told: who gets or renews one has the cache emptied first (kcm.h, KCM_OP_INITIALIZE), so that none of the numbers stays.
pub fn tickets(name: &str, user: &Identity, deadline: Instant) -> Option<BTreeSet<Number>> {
    tickets_at(SOCKET, name, user, deadline)
}

fn tickets_at(socket: &str, name: &str, user: &Identity, deadline: Instant) -> Option<BTreeSet<Number>> {
    let residual = name.strip_prefix("KCM:").filter(|residual| residual.len() < NAME && !residual.contains('\0'))?;
    let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
    let answer = sys::ask_as(user, deadline, |put| {
        let mut ask = || {
            let mut numbers = [0; MOST * size_of::<Number>()];
            let length = ask(socket, residual.as_bytes(), left, &mut numbers)?;
            numbers.get(..length).map(&mut *put)
        };
        ask() == Some(true)
    });
    let bytes = answer.and_then(Answer::bytes).ok()?;
    Some(bytes.as_chunks().0.iter().copied().collect())
}

/// The numbers of the tickets in a cache, or in the default one, without allocating; how many bytes they are.
fn ask(socket: &str, residual: &[u8], time: Duration, numbers: &mut [u8]) -> Option<usize> {
    let mut daemon = UnixStream::connect(socket).ok()?;
    daemon.set_read_timeout(Some(time)).ok()?;
    daemon.set_write_timeout(Some(time)).ok()?;
    let mut text = [0; NAME];
    let name = if residual.is_empty() {
        let length = call(&mut daemon, GET_DEFAULT_CACHE, None, &mut text)?.unwrap_or(0);
        text.get(..length)?.split(|byte| *byte == 0).next()?
    } else {
        residual
    };
    Some(call(&mut daemon, GET_CRED_UUID_LIST, Some(name), numbers)?.unwrap_or(0))
}

/// The daemon says that it does not do what was asked for.
struct Refused;

/// One request with its answer: lengths in front of both, and two codes in front of what is answered (MIT krb5,
/// src/lib/krb5/ccache/cc_kcm.c, kcmio_unix_socket_read and kcmio_call). How much of `answer` was filled. None also where the
/// daemon has a fault of its own: sssd's then says a length of nothing and a code of the transport's (src/responder/kcm,
/// kcm_failbuf_construct).
fn call(
    daemon: &mut UnixStream,
    request: u16,
    name: Option<&[u8]>,
    answer: &mut [u8],
) -> Option<Result<usize, Refused>> {
    let argument = name.map_or(0, |name| name.len() + 1);
    daemon.write_all(&u32::try_from(4 + argument).ok()?.to_be_bytes()).ok()?;
    daemon.write_all(&VERSION).ok()?;
    daemon.write_all(&request.to_be_bytes()).ok()?;
    if let Some(name) = name {
        daemon.write_all(name).ok()?;
        daemon.write_all(&[0]).ok()?;
    }
    let mut number = || {
        let mut bytes = [0; 4];
        daemon.read_exact(&mut bytes).ok().map(|()| u32::from_be_bytes(bytes))
    };
    let length = number()?;
    if number()? != 0 {
        return None;
    }
    if number()? != 0 {
        return Some(Err(Refused));
    }
    // The request's code is in the length.
    let length = usize::try_from(length).ok()?.checked_sub(4)?;
    daemon.read_exact(answer.get_mut(..length)?).ok().map(|()| Ok(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// What comes of a daemon that answers each request with the next of these.
    fn asked(name: &str, answers: &'static [&'static [u8]]) -> (Option<Vec<u8>>, Vec<Vec<u8>>) {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("socket").to_str().unwrap().to_owned();
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut requests = Vec::new();
            for answer in answers {
                let mut length = [0; 4];
                client.read_exact(&mut length).unwrap();
                let mut request = vec![0; u32::from_be_bytes(length) as usize];
                client.read_exact(&mut request).unwrap();
                requests.push(request);
                client.write_all(answer).unwrap();
            }
            requests
        });
        let mut numbers = [0; 64];
        let residual = name.strip_prefix("KCM:").unwrap();
        let length = ask(&path, residual.as_bytes(), Duration::from_secs(10), &mut numbers);
        (length.map(|length| numbers[..length].to_vec()), daemon.join().unwrap())
    }

    #[test]
    fn a_cache_is_asked_for_by_its_name_or_as_the_default() {
        let (found, requests) = asked("KCM:61001", &[b"\0\0\0\x08\0\0\0\0\0\0\0\0abcd"]);
        assert_eq!(found.as_deref(), Some(&b"abcd"[..]));
        assert_eq!(requests, [b"\x02\0\0\x0961001\0"]);
        let answers: [&[u8]; 2] = [b"\0\0\0\x08\0\0\0\0\0\0\0\0cc1\0", b"\0\0\0\x04\0\0\0\0\0\0\0\0"];
        let (found, requests) = asked("KCM:", Box::leak(Box::new(answers)));
        assert_eq!(found.as_deref(), Some(&b""[..]));
        assert_eq!(requests, [&b"\x02\0\0\x14"[..], b"\x02\0\0\x09cc1\0"]);
    }

    #[test]
    fn what_the_daemon_refuses_holds_no_tickets() {
        assert_eq!(asked("KCM:x", &[b"\0\0\0\x04\0\0\0\0\x96\xc7\x3a\x01"]).0.as_deref(), Some(&b""[..]));
    }

    #[test]
    fn an_answer_that_is_none_tells_nothing() {
        let answers: [&'static [&'static [u8]]; 5] = [
            &[b"\0\0\0\0\0\0\0\x07"],
            &[b"\0\0\0\x03\0\0\0\0\0\0\0\0"],
            &[b"\xff\xff\xff\xff\0\0\0\0\0\0\0\0"],
            &[b"\0\0\0\x24\0\0\0\0\0\0\0\0too short"],
            &[b""],
        ];
        for answer in answers {
            assert_eq!(asked("KCM:x", answer).0, None, "{answer:?}");
        }
    }

    #[test]
    fn without_a_daemon_or_for_another_type_there_is_no_answer() {
        let deadline = Instant::now() + Duration::from_secs(10);
        let me = Identity { uid: sys::ids().uid[0], gid: sys::ids().gid[0], groups: Vec::new() };
        for name in ["KCM:", "KEYRING:persistent:1", "KCM:a\0b"] {
            assert_eq!(tickets_at("/nowhere/socket", name, &me, deadline), None, "{name}");
        }
    }
}
