//! How messages name a moment.

use std::fmt;

use crate::sys;

/// A moment, in seconds since the epoch: `2026-11-30 21:20:05 UTC`.
#[derive(Debug, Clone, Copy)]
pub struct Date(pub u64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = sys::utc_time(self.0);
        let (year, month) = (i64::from(at.tm_year) + 1900, at.tm_mon + 1);
        let (day, hour, minute, second) = (at.tm_mday, at.tm_hour, at.tm_min, at.tm_sec);
        write!(f, "{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_and_a_time() {
        assert_eq!(Date(0).to_string(), "1970-01-01 00:00:00 UTC");
        assert_eq!(Date(1_709_209_805).to_string(), "2024-02-29 12:30:05 UTC");
        assert_eq!(Date(u64::from(u32::MAX)).to_string(), "2106-02-07 06:28:15 UTC");
    }
}
