//! Types of one cell that Rust's standard library does not have.

use std::fmt;

/// An instant: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// A calendar day: days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Date(pub i32);

/// A decimal number of at most `P` digits, `S` of them after the point: `Decimal::<10, 2>(1999)` is 19.99.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Decimal<const P: u8, const S: i8>(pub i128);

/// The event time of the row that is being processed. A transform that has a parameter of this type is sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub Timestamp);

/// A row given out with an event time of its own, instead of its origin's. Never earlier than the origin's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At<T>(pub Timestamp, pub T);

/// A text that is no RFC 3339 instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoTimestamp(pub String);

impl fmt::Display for NoTimestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` is not an RFC 3339 instant such as 2026-01-02T03:04:05.678Z", self.0)
    }
}

impl std::error::Error for NoTimestamp {}

impl Timestamp {
    /// Reads RFC 3339: `2026-01-02T03:04:05.678Z`, any number of fraction digits (cut to microseconds), `Z` or an offset.
    pub fn parse(text: &str) -> Result<Timestamp, NoTimestamp> {
        parse_instant(text.as_bytes()).map(Timestamp).ok_or_else(|| NoTimestamp(text.chars().take(64).collect()))
    }
}

impl Timestamp {
    /// The end of time: the watermark once all input has ended.
    pub const MAX: Timestamp = Timestamp(9_223_372_036_854_775_000);
}

impl std::ops::Add<std::time::Duration> for Timestamp {
    type Output = Timestamp;
    /// Stays in range.
    fn add(self, by: std::time::Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)).min(Timestamp::MAX.0))
    }
}

impl std::ops::Sub<std::time::Duration> for Timestamp {
    type Output = Timestamp;
    /// Stays in range.
    fn sub(self, by: std::time::Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)).max(-Timestamp::MAX.0))
    }
}

fn parse_instant(text: &[u8]) -> Option<i64> {
    let (head, rest) = text.split_first_chunk::<19>()?;
    if head[4] != b'-' || head[7] != b'-' || !matches!(head[10], b'T' | b't' | b' ') || head[13] != b':' || head[16] != b':' {
        return None;
    }
    let two = |at: usize| digits([head[at], head[at + 1]]);
    let year = two(0)? * 100 + two(2)?;
    let (month, day, hour, minute, second) = (two(5)?, two(8)?, two(11)?, two(14)?, two(17)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (micros, rest) = fraction(rest)?;
    let offset_minutes = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits([*h1, *h2])?, digits([*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let minutes = hours * 60 + minutes;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + (minute - offset_minutes) * 60 + second;
    Some(seconds * 1_000_000 + micros)
}

fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', digits @ ..] = rest else { return Some((0, rest)) };
    let (mut micros, mut place, mut count) = (0, 100_000, 0);
    for digit in digits.iter().take_while(|byte| byte.is_ascii_digit()) {
        micros += i64::from(digit - b'0') * place;
        place /= 10;
        count += 1;
    }
    (count > 0).then(|| (micros, &digits[count..]))
}

fn digits(pair: [u8; 2]) -> Option<i64> {
    let (tens, ones) = (pair[0].wrapping_sub(b'0'), pair[1].wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59.999999Z", Some(-1)),
            ("2026-01-02T03:04:05.678Z", Some(1_767_323_045_678_000)),
            ("2026-01-02T03:04:05.1234567Z", Some(1_767_323_045_123_456)),
            ("2026-01-02T05:04:05+02:00", Some(1_767_323_045_000_000)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000_000)),
            ("2023-02-29T00:00:00Z", None),
            ("2026-01-02T03:04:05", None),
            ("2026-01-02T03:04:05.Z", None),
            ("2026-13-02T03:04:05Z", None),
            ("2026-01-02", None),
            ("", None),
        ] {
            assert_eq!(Timestamp::parse(text).ok(), micros.map(Timestamp), "{text}");
        }
    }
}
