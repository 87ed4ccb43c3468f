//! Sending a message to the journal, or to syslog.
//!
//! Each record opens a socket, sends and closes: a descriptor that a PAM module keeps would leak into its host. Nothing waits; a
//! message that cannot be taken at once is lost.

use std::cell::Cell;
use std::io::Write;

use syslog::{Facility, LogFormat};

use super::fields::{Field, Message, Severity};
use crate::sys;
use crate::types::{printable, without_codes};

/// Where a message of the PAM module comes from. Holds no pointer into the host and has no destructor: a thread-local
/// with one would keep the module mapped after its host has closed it.
#[derive(Clone, Copy)]
struct Origin {
    identifier: &'static str,
    service: [u8; 32],
    hook: &'static str,
}

thread_local! {
    static ORIGIN: Cell<Origin> = const { Cell::new(Origin { identifier: "pag", service: [0; 32], hook: "" }) };
}

/// Says under which name this program speaks, for this thread.
pub fn speak_as(identifier: &'static str) {
    ORIGIN.set(Origin { identifier, service: [0; 32], hook: "" });
    // Refused when it is set already: to the same one.
    let _ = log::set_logger(&DEBUG_LOG);
}

/// Says for which PAM service and hook messages are, as `pam_syslog(3)` writes it: `pam_pag(sshd:session): `.
pub fn speak_for(service: &str, hook: &'static str) {
    let mut name = [0; 32];
    for (place, byte) in name.iter_mut().zip(service.bytes()) {
        *place = if byte.is_ascii_graphic() { byte } else { b'?' };
    }
    ORIGIN.set(Origin { service: name, hook, ..ORIGIN.get() });
}

/// Turns the messages of `log::debug!` on or off.
pub fn set_debug(on: bool) {
    log::set_max_level(if on { log::LevelFilter::Debug } else { log::LevelFilter::Off });
}

/// Reports what happened. Never blocks, never fails.
pub fn report(message: &dyn Message) {
    let mut fields = message.fields();
    fields.push(("MESSAGE_ID", message.message_id().to_owned()));
    send(message.severity(), &message.to_string(), &fields);
}

struct DebugLog;

static DEBUG_LOG: DebugLog = DebugLog;

impl log::Log for DebugLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            send(Severity::LOG_DEBUG, &record.args().to_string(), &[]);
        }
    }

    fn flush(&self) {}
}

fn send(severity: Severity, message: &str, fields: &[Field]) {
    let origin = ORIGIN.get();
    let prefix = match origin.hook {
        "" => String::new(),
        hook => {
            let service: String = origin.service.iter().take_while(|c| **c != 0).map(|c| char::from(*c)).collect();
            format!("{}({service}:{hook}): ", origin.identifier)
        }
    };
    let message = format!("{prefix}{}", one_line(message));
    let record = journal_record(severity, origin.identifier, &message, fields);
    if sys::send_to("/run/systemd/journal/socket", &record).is_err() {
        let _ = sys::send_to("/dev/log", &syslog_record(severity, origin.identifier, &message));
    }
}

/// Users choose names that get into messages: whatever could break a line or a terminal is replaced.
fn one_line(text: &str) -> String {
    without_codes(text).chars().map(printable).take(1000).collect()
}

/// The journal's native protocol: one `FIELD=value` a line (systemd, docs/JOURNAL_NATIVE_PROTOCOL.md).
fn journal_record(severity: Severity, identifier: &str, message: &str, fields: &[Field]) -> Vec<u8> {
    let priority = severity as u8;
    let facility = Facility::LOG_AUTHPRIV as u32 >> 3;
    let mut text = format!(
        "MESSAGE={message}\nPRIORITY={priority}\nSYSLOG_FACILITY={facility}\nSYSLOG_IDENTIFIER={identifier}\nSYSLOG_PID={}\n",
        std::process::id()
    );
    for (name, value) in fields {
        text.extend([*name, "=", &one_line(value), "\n"]);
    }
    text.into_bytes()
}

/// RFC 3164 as `syslog(3)` writes it to the local daemon: without a host, and in local time, which is what a daemon that
/// keeps the stamp reads it as. (The crate's own formatter stamps in UTC, format.rs, now_local.)
struct Local<'a> {
    identifier: &'a str,
}

impl LogFormat<&str> for Local<'_> {
    fn format<W: Write>(&self, out: &mut W, severity: Severity, message: &str) -> syslog::Result<()> {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let priority = Facility::LOG_AUTHPRIV as u32 | severity as u32;
        let now = sys::local_time(crate::sys::now());
        let month = usize::try_from(now.tm_mon).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"Jan");
        let (day, hour, minute, second) = (now.tm_mday, now.tm_hour, now.tm_min, now.tm_sec);
        let (name, pid) = (self.identifier, std::process::id());
        write!(out, "<{priority}>{month} {day:2} {hour:02}:{minute:02}:{second:02} {name}[{pid}]: {message}")
            .map_err(syslog::Error::Write)
    }
}

fn syslog_record(severity: Severity, identifier: &str, message: &str) -> Vec<u8> {
    let mut record = Vec::new();
    // Writing to a vector cannot fail.
    let _ = Local { identifier }.format(&mut record, severity, message);
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Event;

    #[test]
    fn a_record_cannot_be_broken_into_two() {
        let event = Event::SeedFailed {
            uid: 1,
            ring: None,
            client: "kafs".to_owned(),
            cell: "x\nPRIORITY=0".to_owned(),
            why: "\u{1b}[2J".to_owned(),
        };
        let text = journal_record(event.severity(), "pam_pag", &one_line(&event.to_string()), &event.fields());
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("PRIORITY=")).count(), 1);
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn syslog_gets_the_identifier_and_the_pid() {
        let date = || {
            let date = std::process::Command::new("date").arg("+%b %e %H:%M:").env("LC_ALL", "C").output().unwrap();
            String::from_utf8(date.stdout).unwrap().trim_end().to_owned()
        };
        let before = date();
        let record = String::from_utf8(syslog_record(Severity::LOG_INFO, "pam_pag", "hello")).unwrap();
        assert!(record.starts_with("<86>"), "{record}");
        let stamp = &record["<86>".len()..];
        assert!(stamp.starts_with(&before) || stamp.starts_with(&date()), "{record}, at {before}");
        assert!(record.ends_with(&format!("pam_pag[{}]: hello", std::process::id())), "{record}");
    }
}
