//! A greeter for lightdm that needs no person: it waits for an order in /run/greeter/order, a line `USER PASSWORD`,
//! logs that user in and writes a log to /run/greeter/log.
//!
//! It speaks lightdm's own protocol over the two pipes that the daemon leaves it (lightdm, src/greeter.c: read_cb,
//! write_header, write_string). A message is its number and the length of the rest, then numbers and strings. All
//! numbers have 32 bits, the highest byte first. A string is its length and its bytes.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks)] // The daemon hands over descriptors by their numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test, to panic is to fail")]

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::time::Duration;

/// The greeter's messages (src/greeter.c, GreeterMessage).
const CONNECT: u32 = 0;
const AUTHENTICATE: u32 = 1;
const CONTINUE_AUTHENTICATION: u32 = 3;
const START_SESSION: u32 = 4;

/// The daemon's messages (src/greeter.c, ServerMessage).
const CONNECTED: u32 = 0;
const PROMPT_AUTHENTICATION: u32 = 1;
const END_AUTHENTICATION: u32 = 2;
const SESSION_RESULT: u32 = 3;

/// Styles of PAM messages that want an answer: PAM_PROMPT_ECHO_OFF and PAM_PROMPT_ECHO_ON.
const PROMPTS: [u32; 2] = [1, 2];

fn log(text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open("/run/greeter/log").unwrap();
    writeln!(file, "{text}").unwrap();
}

/// One of the two pipes. Root owns them, so the greeter could not open them by their names in /proc.
fn pipe(variable: &str) -> File {
    let number = std::env::var(variable).expect(variable).parse().expect("a descriptor");
    unsafe { File::from_raw_fd(number) }
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
}

/// A message of the daemon that is being read.
struct Message(VecDeque<u8>);

impl Message {
    fn number(&mut self) -> u32 {
        let bytes: Vec<u8> = self.0.drain(..4).collect();
        u32::from_be_bytes(bytes.try_into().expect("four bytes"))
    }

    fn string(&mut self) -> String {
        let length = self.number() as usize;
        String::from_utf8(self.0.drain(..length).collect()).unwrap()
    }
}

struct Daemon {
    to: File,
    from: File,
}

impl Daemon {
    fn say(&mut self, what: u32, rest: &[u8]) {
        let mut bytes = what.to_be_bytes().to_vec();
        bytes.extend(u32::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        self.to.write_all(&bytes).unwrap();
    }

    fn hear(&mut self) -> (u32, Message) {
        let mut header = [0; 8];
        self.from.read_exact(&mut header).expect("the daemon is there");
        let mut header = Message(header.into());
        let (what, length) = (header.number(), header.number());
        let mut rest = vec![0; length as usize];
        self.from.read_exact(&mut rest).unwrap();
        (what, Message(rest.into()))
    }
}

/// Waits for an order and removes it, so that the next greeter waits for its own.
fn order() -> (String, String) {
    loop {
        if fs::rename("/run/greeter/order", "/run/greeter/taken").is_ok() {
            let text = fs::read_to_string("/run/greeter/taken").unwrap();
            let (user, password) = text.trim().split_once(' ').expect("USER PASSWORD");
            return (user.to_owned(), password.to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn main() {
    let mut daemon = Daemon { to: pipe("LIGHTDM_TO_SERVER_FD"), from: pipe("LIGHTDM_FROM_SERVER_FD") };
    let mut version = Vec::new();
    string(&mut version, "1.26.0");
    daemon.say(CONNECT, &version);
    assert_eq!(daemon.hear().0, CONNECTED);
    log("waiting");
    let (user, password) = order();
    let mut name = 1_u32.to_be_bytes().to_vec();
    string(&mut name, &user);
    daemon.say(AUTHENTICATE, &name);
    loop {
        let (what, mut message) = daemon.hear();
        match what {
            PROMPT_AUTHENTICATION => {
                let (_sequence, _user, count) = (message.number(), message.string(), message.number());
                let styles: Vec<u32> = (0..count).map(|_| (message.number(), message.string()).0).collect();
                let prompts = styles.iter().filter(|style| PROMPTS.contains(style)).count();
                if prompts > 0 {
                    let mut answer = u32::try_from(prompts).unwrap().to_be_bytes().to_vec();
                    (0..prompts).for_each(|_| string(&mut answer, &password));
                    daemon.say(CONTINUE_AUTHENTICATION, &answer);
                }
            }
            END_AUTHENTICATION => {
                let (_sequence, _user, result) = (message.number(), message.string(), message.number());
                log(&format!("authenticated {user} {result}"));
                assert_eq!(result, 0, "PAM lets {user} in");
                let mut session = Vec::new();
                string(&mut session, "lab");
                daemon.say(START_SESSION, &session);
            }
            SESSION_RESULT => log(&format!("started {user} {}", message.number())),
            _ => {}
        }
    }
}
