//! How messages name a moment.

use std::fmt;

use crate::sys;

/// From here on, in seconds since the epoch, an end is taken for none: the year 3000.
const ENDLESS: u64 = 32_503_680_000;

/// The end of something, in seconds since the epoch: `2026-12-01 10:22 UTC, in 24 h`. In UTC, since a login is not to
/// read the rules of a time zone.
#[derive(Debug, Clone, Copy)]
pub struct Until(pub u64);

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Until(end) = *self;
        f.write_str(&words(end, &sys::utc_time(end), " UTC", sys::now()))
    }
}

/// The end of something, in the host's time: `2026-12-01 10:22, in 24 h`.
pub fn local_until(end: u64) -> String {
    words(end, &sys::local_time(end), "", sys::now())
}

/// A moment in the host's time: `2026-12-01 10:22:05`.
pub fn local_moment(moment: u64) -> String {
    let at = sys::local_time(moment);
    let (year, month) = (i64::from(at.tm_year) + 1900, at.tm_mon + 1);
    format!("{year}-{month:02}-{:02} {:02}:{:02}:{:02}", at.tm_mday, at.tm_hour, at.tm_min, at.tm_sec)
}

/// A time in seconds, as people say it: `24 h`.
pub fn in_words(seconds: u64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", (seconds + 30) / 60),
        7200..172_800 => format!("{} h", (seconds + 1800) / 3600),
        _ => format!("{} days", seconds.saturating_add(43_200) / 86_400),
    }
}

fn words(end: u64, at: &libc::tm, zone: &str, now: u64) -> String {
    if end >= ENDLESS {
        return "a time without end".to_owned();
    }
    let (year, month) = (i64::from(at.tm_year) + 1900, at.tm_mon + 1);
    let (day, hour, minute) = (at.tm_mday, at.tm_hour, at.tm_min);
    let left = match end.saturating_sub(now) {
        0 => "which is over".to_owned(),
        seconds => format!("in {}", in_words(seconds)),
    };
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}{zone}, {left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_moment_and_the_time_until_then() {
        let end = 1_709_209_805;
        let told = |left: u64| words(end, &sys::utc_time(end), " UTC", end - left);
        assert_eq!(told(86_399), "2024-02-29 12:30 UTC, in 24 h");
        assert_eq!(told(59), "2024-02-29 12:30 UTC, in 59 s");
        assert_eq!(told(3590), "2024-02-29 12:30 UTC, in 60 min");
        assert_eq!(told(864_000), "2024-02-29 12:30 UTC, in 10 days");
        assert_eq!(words(end, &sys::utc_time(end), "", end + 1), "2024-02-29 12:30, which is over");
        assert_eq!(local_until(u64::MAX), "a time without end");
        assert!(Until(u64::from(u32::MAX)).to_string().starts_with("2106-02-07 06:28 UTC, in "));
    }
}
