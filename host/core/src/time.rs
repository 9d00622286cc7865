//! The one instant type: microseconds since 1970-01-01T00:00:00Z, in Beam's range; durations; RFC 3339.
//!
//! Both ends are checked: arithmetic and parsing give an error, they never wrap.

use std::fmt;

/// A point in event or processing time, microseconds since the epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instant(i64);

/// Why a value is no instant or duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Beyond Beam's range.
    #[error("{0} is outside the range of event times, {min} to {max}", min = Instant::MIN, max = Instant::MAX)]
    OutOfRange(String),
    /// Not RFC 3339.
    #[error("`{0}` is not an RFC 3339 time such as 2026-01-31T12:00:00Z")]
    Malformed(String),
    /// A local time where an instant is needed.
    #[error("`{0}` has no time zone: write Z or an offset, or set `time_zone`")]
    NoZone(String),
    /// Not a duration.
    #[error("`{0}` is not a duration: write a number and one of ms, s, m, h, d, such as 90s")]
    Duration(String),
}

impl Instant {
    /// Beam's `BoundedWindow.TIMESTAMP_MIN_VALUE`: i64::MIN microseconds, cut to milliseconds.
    pub const MIN: Instant = Instant(-9_223_372_036_854_775_000);
    /// Beam's `BoundedWindow.TIMESTAMP_MAX_VALUE`: i64::MAX microseconds, cut to milliseconds.
    pub const MAX: Instant = Instant(9_223_372_036_854_775_000);
    /// A day before the last instant, so that the global window can fire.
    pub const END_OF_GLOBAL_WINDOW: Instant = Instant(Self::MAX.0 - 86_400_000_000);

    /// Checks the range.
    pub fn from_micros(micros: i64) -> Result<Instant, TimeError> {
        let instant = Instant(micros);
        if (Self::MIN..=Self::MAX).contains(&instant) { Ok(instant) } else { Err(TimeError::OutOfRange(format!("{micros} µs"))) }
    }

    /// Cuts to the range: for window bounds and watermarks, never for a user's data.
    pub const fn from_micros_saturating(micros: i64) -> Instant {
        if micros < Self::MIN.0 {
            Self::MIN
        } else if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Instant(micros)
        }
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Seconds, as Beam reads bare numbers; the fraction is rounded to a microsecond. NaN and infinities are out of range.
    pub fn from_seconds(seconds: f64) -> Result<Instant, TimeError> {
        let micros = (seconds * 1e6).round();
        if micros.is_finite() && micros.abs() < 9.3e18 && micros.abs() <= Self::MAX.0 as f64 {
            Self::from_micros(micros as i64)
        } else {
            Err(TimeError::OutOfRange(format!("{seconds} s")))
        }
    }

    /// A whole number of `unit_micros` microseconds (1,000,000 for seconds); units below a microsecond use [`Instant::from_nanos`].
    pub fn from_units(value: i64, unit_micros: i64) -> Result<Instant, TimeError> {
        value
            .checked_mul(unit_micros)
            .ok_or_else(|| TimeError::OutOfRange(format!("{value} × {unit_micros} µs")))
            .and_then(Self::from_micros)
    }

    /// Nanoseconds, rounded down to a microsecond.
    pub fn from_nanos(nanos: i64) -> Instant {
        Instant(nanos.div_euclid(1_000))
    }

    /// Reads `YYYY-MM-DDTHH:MM:SS[.fraction](Z|±HH:MM)`; a blank may stand for `T`. Digits beyond a microsecond are dropped.
    pub fn parse_rfc3339(text: &str) -> Result<Instant, TimeError> {
        match parse_local(text)? {
            (local, Some(offset)) => {
                let micros = local.checked_sub(i128::from(offset)).filter(|m| i64::try_from(*m).is_ok());
                match micros {
                    Some(micros) => Self::from_micros(micros as i64).map_err(|_| TimeError::OutOfRange(text.into())),
                    None => Err(TimeError::OutOfRange(text.into())),
                }
            }
            (_, None) => Err(TimeError::NoZone(text.into())),
        }
    }

    /// As [`Instant::parse_rfc3339`]; a time without a zone is `default_offset_micros` ahead of UTC.
    pub fn parse_with_offset(text: &str, default_offset_micros: i64) -> Result<Instant, TimeError> {
        let (local, offset) = parse_local(text)?;
        let micros = local - i128::from(offset.unwrap_or(default_offset_micros));
        i64::try_from(micros).map_err(|_| TimeError::OutOfRange(text.into())).and_then(Self::from_micros)
    }

    /// Later by a duration, cut to the range.
    pub fn saturating_add(self, by: Duration) -> Instant {
        Self::from_micros_saturating(self.0.saturating_add(by.0))
    }

    /// Earlier by a duration, cut to the range.
    pub fn saturating_sub(self, by: Duration) -> Instant {
        Self::from_micros_saturating(self.0.saturating_sub(by.0))
    }

    /// Appends RFC 3339 with `Z` and 0, 3 or 6 digits of fraction, as few as say it all.
    pub fn write_rfc3339(self, out: &mut String) {
        let (days, micros) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (micros / 3_600_000_000, micros / 60_000_000 % 60, micros / 1_000_000 % 60);
        let fraction = micros % 1_000_000;
        if (0..=9999).contains(&year) {
            digits(out, year, 4);
        } else {
            // ISO 8601's expanded form: a sign and at least six digits.
            out.push(if year < 0 { '-' } else { '+' });
            digits(out, year.abs(), 6);
        }
        for (separator, value) in [('-', month), ('-', day), ('T', hour), (':', minute), (':', second)] {
            out.push(separator);
            digits(out, value, 2);
        }
        if fraction % 1_000 != 0 {
            out.push('.');
            digits(out, fraction, 6);
        } else if fraction != 0 {
            out.push('.');
            digits(out, fraction / 1_000, 3);
        }
        out.push('Z');
    }
}

const DAY: i64 = 86_400_000_000;

fn digits(out: &mut String, value: i64, width: usize) {
    let mut buffer = [b'0'; 20];
    let (mut rest, mut at) = (value, buffer.len());
    while rest > 0 || buffer.len() - at < width {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.push_str(std::str::from_utf8(&buffer[at..]).expect("digits are ASCII"));
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(27);
        self.write_rfc3339(&mut text);
        f.write_str(&text)
    }
}

/// Micros of the local time, and the offset from UTC where one is written.
fn parse_local(text: &str) -> Result<(i128, Option<i64>), TimeError> {
    let malformed = || TimeError::Malformed(text.into());
    let bytes = text.as_bytes();
    // A signed year of six digits is ISO 8601's expanded form, which we write beyond year 9999.
    let (sign, year_digits, start) = match bytes.first() {
        Some(b'-') => (-1, 6, 1),
        Some(b'+') => (1, 6, 1),
        _ => (1, 4, 0),
    };
    let number = |from: usize, width: usize| -> Result<i64, TimeError> {
        let digits = bytes.get(from..from + width).ok_or_else(malformed)?;
        digits.iter().try_fold(0i64, |value, byte| match byte {
            b'0'..=b'9' => Ok(value * 10 + i64::from(byte - b'0')),
            _ => Err(malformed()),
        })
    };
    let expect = |at: usize, allowed: &[u8]| match bytes.get(at) {
        Some(byte) if allowed.contains(byte) => Ok(()),
        _ => Err(malformed()),
    };
    let year = sign * number(start, year_digits)?;
    let at = start + year_digits;
    expect(at, b"-")?;
    let month = number(at + 1, 2)?;
    expect(at + 3, b"-")?;
    let day = number(at + 4, 2)?;
    expect(at + 6, b"Tt ")?;
    let hour = number(at + 7, 2)?;
    expect(at + 9, b":")?;
    let minute = number(at + 10, 2)?;
    expect(at + 12, b":")?;
    let second = number(at + 13, 2)?;
    let mut end = at + 15;
    let leap = second == 60 && minute == 59;
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) || hour > 23 || minute > 59 || (second > 59 && !leap) {
        return Err(malformed());
    }
    let mut fraction = 0i64;
    if matches!(bytes.get(end), Some(b'.' | b',')) {
        let from = end + 1;
        end = from;
        while bytes.get(end).is_some_and(u8::is_ascii_digit) {
            if end - from < 6 {
                fraction = fraction * 10 + i64::from(bytes[end] - b'0');
            }
            end += 1;
        }
        if end == from {
            return Err(malformed());
        }
        for _ in end - from..6 {
            fraction *= 10;
        }
    }
    let offset = match bytes.get(end) {
        None => None,
        Some(b'Z' | b'z') if bytes.len() == end + 1 => Some(0),
        Some(sign @ (b'+' | b'-')) if bytes.len() == end + 6 => {
            expect(end + 3, b":")?;
            let (hours, minutes) = (number(end + 1, 2)?, number(end + 4, 2)?);
            if hours > 23 || minutes > 59 {
                return Err(malformed());
            }
            let micros = (hours * 60 + minutes) * 60_000_000;
            Some(if *sign == b'-' { -micros } else { micros })
        }
        _ => return Err(malformed()),
    };
    let seconds = i128::from(days_from_civil(year, month, day)) * 86_400 + i128::from(hour * 3_600 + minute * 60 + second.min(59));
    Ok((seconds * 1_000_000 + i128::from(fraction), offset))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since the epoch of a date in the proleptic Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month, day of a number of days since the epoch; the inverse of [`days_from_civil`].
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// A length of time in microseconds; not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Duration(i64);

impl Duration {
    /// No time.
    pub const ZERO: Duration = Duration(0);

    /// Negative lengths count as none.
    pub const fn from_micros(micros: i64) -> Duration {
        Duration(if micros < 0 { 0 } else { micros })
    }

    /// Microseconds.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// For timers of the operating system.
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0 as u64)
    }

    /// Beam's form: a number, decimals allowed, and `ms`, `s`, `m`, `h` or `d`; no unit means seconds. A day has 24 hours
    /// (Beam 2.77 takes `d` for 12, a slip that we do not copy).
    pub fn parse(text: &str) -> Result<Duration, TimeError> {
        let wrong = || TimeError::Duration(text.into());
        let text = text.trim();
        let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit: f64 = match unit.trim() {
            "ms" => 1e3,
            "" | "s" => 1e6,
            "m" => 60e6,
            "h" => 3_600e6,
            "d" => 86_400e6,
            _ => return Err(wrong()),
        };
        let micros = number.parse::<f64>().map_err(|_| wrong())? * unit;
        if micros.is_finite() && micros < 9e18 { Ok(Duration(micros.round() as i64)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Duration {
    /// The largest unit that says it in whole numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("d", DAY), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)];
        match units.iter().find(|(_, unit)| self.0 != 0 && self.0 % unit == 0) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}s", self.0 as f64 / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, micros: i64) {
        assert_eq!(Instant::parse_rfc3339(text).map(Instant::micros), Ok(micros), "{text}");
    }

    #[test]
    fn reads_rfc3339() {
        check("1970-01-01T00:00:00Z", 0);
        check("1969-12-31T23:59:59.999999Z", -1);
        check("2026-01-01T01:00:00.5+01:00", 1_767_225_600_500_000);
        check("2026-01-01 00:00:00.1234567z", 1_767_225_600_123_456);
        check("2262-04-12T00:00:00Z", 9_223_372_800_000_000);
        check("1800-02-28T23:59:59Z", -5_359_564_801_000_000);
    }

    #[test]
    fn refuses_what_is_no_instant() {
        for text in [
            "",
            "2026",
            "2026-02-30T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00ZZ",
            "2026-13-01T00:00:00Z",
            "é026-01-01T00:00:00Z",
        ] {
            assert!(matches!(Instant::parse_rfc3339(text), Err(TimeError::Malformed(_))), "{text}");
        }
        assert!(matches!(Instant::parse_rfc3339("2026-01-01T00:00:00"), Err(TimeError::NoZone(_))));
        assert!(matches!(Instant::parse_rfc3339("+900000-01-01T00:00:00Z"), Err(TimeError::OutOfRange(_))));
        for seconds in [f64::NAN, f64::INFINITY, 1e300] {
            assert!(Instant::from_seconds(seconds).is_err());
        }
    }

    #[test]
    fn reads_durations() {
        for (text, micros) in
            [("60s", 60_000_000), ("1.5m", 90_000_000), ("250ms", 250_000), ("2", 2_000_000), ("1d", DAY), ("1h", 3_600_000_000)]
        {
            assert_eq!(Duration::parse(text).map(Duration::micros), Ok(micros), "{text}");
        }
        for text in ["", "s", "1x", "-1s", "1 2s"] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(micros in Instant::MIN.micros()..=Instant::MAX.micros()) {
            let instant = Instant::from_micros(micros).expect("in range");
            prop_assert_eq!(Instant::parse_rfc3339(&instant.to_string()), Ok(instant));
        }
    }
}
