//! Asks a KDC for a ticket that it will not give (RFC 4120, AS-REQ). Its refusal shows that it is a KDC, and tells its
//! time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a KDC answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// Its time in seconds since the epoch, where the answer has it.
    pub(super) time: Option<u64>,
}

/// Asks the KDC at `HOST`, `HOST:PORT`, `udp/HOST` or `tcp/HOST` (krb5.conf(5)), by UDP and then by TCP. Each address
/// waits for `patience`.
///
/// # Errors
/// Why there is no answer, in words.
pub(super) fn ask(kdc: &str, realm: &str, patience: Duration) -> Result<Reply, String> {
    let plain = kdc.rsplit('/').next().unwrap_or(kdc);
    let has_port = plain.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let name = if has_port { plain.to_owned() } else { format!("{plain}:88") };
    let addresses = name.to_socket_addrs().map_err(|error| format!("its address cannot be found: {error}"))?;
    let mut why = "its name has no address".to_owned();
    for address in addresses.take(4) {
        let by_udp = || by_udp(address, realm, patience).map_err(|error| error.to_string());
        match by_udp().or_else(|_| by_tcp(address, realm, patience)) {
            Ok(answer) => match reply(&answer) {
                Some(reply) => return Ok(reply),
                None => why = format!("what answers at {address} is no KDC"),
            },
            Err(error) => why = format!("{address}: {error}"),
        }
    }
    Err(why)
}

fn by_udp(address: SocketAddr, realm: &str, patience: Duration) -> Result<Vec<u8>, std::io::Error> {
    let own: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(own)?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(address)?;
    socket.send(&request(realm))?;
    let mut buffer = vec![0; 4096];
    let length = socket.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

fn by_tcp(address: SocketAddr, realm: &str, patience: Duration) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "the connection is refused".to_owned(),
        std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => "no answer".to_owned(),
        _ => error.to_string(),
    };
    let mut stream = TcpStream::connect_timeout(&address, patience).map_err(failed)?;
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    let request = request(realm);
    // The length stands before the message (RFC 4120, 7.2.2).
    let length = u32::try_from(request.len()).unwrap_or(0).to_be_bytes();
    stream.write_all(&[&length[..], &request].concat()).map_err(failed)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(u64::from(u32::from_be_bytes(length)).min(65_536)).read_to_end(&mut answer).map_err(failed)?;
    Ok(answer)
}

/// An element of DER: tag, length, content.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let length: &[u8] = match content.len() {
        0..128 => &[low],
        128..256 => &[0x81, low],
        _ => &[0x82, high, low],
    };
    [&[tag], length, content].concat()
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    der(0x30, &parts.concat())
}

fn name(kind: u8, words: &[&str]) -> Vec<u8> {
    let words: Vec<Vec<u8>> = words.iter().map(|word| der(0x1b, word.as_bytes())).collect();
    sequence(&[der(0xa0, &der(0x02, &[kind])), der(0xa1, &sequence(&words))])
}

/// An AS-REQ for the anonymous principal (RFC 8062), which no KDC gives without more. Each differs: a KDC answers a
/// repeated request with its old answer, and an old time.
fn request(realm: &str) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_micros());
    let [.., a, b, c, d] = now.to_be_bytes();
    let nonce = [0x40 | (a & 0x3f), b, c, d];
    let body = sequence(&[
        der(0xa0, &der(0x03, &[0, 0, 0, 0, 0])),
        der(0xa1, &name(11, &["WELLKNOWN", "ANONYMOUS"])),
        der(0xa2, &der(0x1b, realm.as_bytes())),
        der(0xa3, &name(2, &["krbtgt", realm])),
        der(0xa5, &der(0x18, b"20370101000000Z")),
        der(0xa7, &der(0x02, &nonce)),
        der(0xa8, &sequence(&[der(0x02, &[18]), der(0x02, &[17])])),
    ]);
    let message = [der(0xa1, &der(0x02, &[5])), der(0xa2, &der(0x02, &[10])), der(0xa4, &body)];
    der(0x6a, &sequence(&message))
}

/// Splits the first element off: its tag, its content, the rest.
fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=127 => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |sum, digit| sum * 256 + usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// Reads a KRB-ERROR or an AS-REP. None for anything else.
fn reply(answer: &[u8]) -> Option<Reply> {
    match split(answer)? {
        (0x7e, content, _) => {
            let (0x30, mut fields, _) = split(content)? else { return None };
            while let Some((tag, content, rest)) = split(fields) {
                if tag == 0xa4 {
                    let time = split(content).and_then(|(_, text, _)| seconds(str::from_utf8(text).ok()?));
                    return Some(Reply { time });
                }
                fields = rest;
            }
            Some(Reply { time: None })
        }
        (0x6b, ..) => Some(Reply { time: None }),
        _ => None,
    }
}

/// `YYYYMMDDHHMMSSZ` in seconds since the epoch.
fn seconds(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    // Days since the epoch, with the year beginning in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let since_march = (month + 9) % 12;
    let days = 365 * shifted + shifted / 4 - shifted / 100 + shifted / 400 + (153 * since_march + 2) / 5 + day - 1;
    Some((days.checked_sub(719_468)?) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A KDC that answers each request with a refusal at this time.
    pub(in crate::doctor) fn kdc(time: &'static str) -> String {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let name = socket.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                assert_eq!(split(&buffer[..length]).unwrap().0, 0x6a);
                socket.send_to(&error_at(time), from).unwrap();
            }
        });
        name
    }

    fn error_at(time: &str) -> Vec<u8> {
        let fields = [
            der(0xa0, &der(0x02, &[5])),
            der(0xa1, &der(0x02, &[30])),
            der(0xa4, &der(0x18, time.as_bytes())),
            der(0xa6, &der(0x02, &[25])),
        ];
        der(0x7e, &sequence(&fields))
    }

    #[test]
    fn a_refusal_tells_the_time() {
        for (text, expected) in [
            ("19700101000000Z", Some(0)),
            ("20000301000001Z", Some(951_868_801)),
            ("20261130230000Z", Some(1_796_079_600)),
            ("19691231235959Z", None),
            ("2026", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        assert_eq!(reply(&error_at("20261130230000Z")), Some(Reply { time: Some(1_796_079_600) }));
        assert_eq!(reply(b"HTTP/1.1 400"), None);
    }

    #[test]
    fn a_kdc_answers_and_a_closed_port_does_not() {
        let patience = Duration::from_secs(20);
        let told = ask(&kdc("20261130230000Z"), "EXAMPLE.TEST", patience).unwrap();
        assert_eq!(told.time, Some(1_796_079_600));
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        assert!(ask(&closed, "EXAMPLE.TEST", patience).unwrap_err().contains("refused"));
        assert!(ask("no-such-host.invalid", "EXAMPLE.TEST", patience).unwrap_err().contains("address"));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            reply(&bytes);
            reply(&[&[0x7e, 40, 0x30, 38], &bytes[..]].concat());
        }
    }
}
